"""Runs commands side by side in the foreground, their lines under their names, and leaves no process behind.

A Procfile's commands; what common runners lack here: a signal is not lost while the commands start, and they end with
their runner even where it is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

KILL_AFTER_S = 10.0
_LOOK_EVERY_S = 0.1
_PR_SET_PDEATHSIG = 1


def parse_procfile(text: str) -> dict[str, str]:
    """The commands of a Procfile by name."""
    return dict(re.findall(r"^([\w-]+):\s*(.+)$", text, re.M))


def run(commands: Mapping[str, str], watcher: Sequence[str], env: Mapping[str, str], cwd: Path) -> str | None:
    """Runs all commands until one ends or a signal comes (SIGINT, SIGTERM, SIGHUP), then ends them all.

    Args:
        commands: shell commands by name.
        watcher: a program beside them that may end before they do.
        env, cwd: of all of them.

    Returns:
        Which command ended and how; None where a signal ended them.
    """
    stops = {signal.SIGINT, signal.SIGTERM}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # it is under nohup
        stops.add(signal.SIGHUP)
    # Blocked for good and asked for below: one that comes while the commands start, or a second one, harms nothing.
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    running: dict[str, subprocess.Popen[bytes]] = {}
    beside: list[subprocess.Popen[bytes]] = []
    width = max(map(len, commands))
    try:
        for name, command in commands.items():
            running[name] = _start(command, env, cwd, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        beside.append(_start(watcher, env, cwd))
        for name, process in running.items():
            threading.Thread(target=_relay, args=(f"{name:<{width}} | ", process.stdout), daemon=True).start()
        while not signal.sigtimedwait(stops, _LOOK_EVERY_S):
            for name, process in running.items():
                if process.poll() is not None:
                    return f"{name} ended ({_how(process.returncode)}); its lines above say why"
        return None
    finally:
        _end([*beside, *running.values()])


def _start(command: str | Sequence[str], env: Mapping[str, str], cwd: Path, **options: object) -> subprocess.Popen:
    """In a session of its own: a terminal's Ctrl-C reaches the runner alone, and what it starts ends with it."""
    return subprocess.Popen(
        command,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_end_with_parent,
        **options,
    )


def _end_with_parent() -> None:
    """In the child: undo the blocked signals, and end when the runner is killed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a Ctrl-C may have come before it left the terminal's group
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if sys.platform == "linux":
        # Not SIGTERM: nobody is left to see to it, and Streamlit does not end by it once its output is gone.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _relay(prefix: str, lines: IO[bytes]) -> None:
    for line in lines:
        with contextlib.suppress(OSError):  # the reader may be gone (`make up | tee log` and Ctrl-C); read on
            os.write(sys.stdout.fileno(), prefix.encode() + line)


def _end(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        _signal_group(process, signal.SIGTERM)
    deadline = time.monotonic() + KILL_AFTER_S
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _signal_group(process, signal.SIGKILL)
            process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _how(status: int) -> str:
    return f"exit status {status}" if status >= 0 else signal.Signals(-status).name
