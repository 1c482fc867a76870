"""The runner: a signal at the worst moment, a runner that is killed, a command that ends or will not."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shipped import ROOT
from stack_helpers import DEFAULT_SIGHUP, bare_environment, kill_all_in, processes_in, wait_until

from serving.runner import parse_procfile

SCRIPT = """
import os, sys
from pathlib import Path
from serving import runner

runner.KILL_AFTER_S = 1.0
commands = {f"command{number}": command for number, command in enumerate(sys.argv[1:])}
print(runner.run(commands, ["true"], os.environ, Path.cwd()))
"""
STAY = "exec sleep 1000"


@pytest.fixture
def folder(tmp_path) -> Iterator[Path]:
    yield tmp_path
    kill_all_in(tmp_path)


def run(folder, *commands: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = bare_environment() | {"PYTHONPATH": str(ROOT)}
    command = [*DEFAULT_SIGHUP, *prefix, sys.executable, "-c", SCRIPT, *commands]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_commands_start(folder, number):
    done = run(folder, f"kill -{number} $PPID; {STAY}", STAY, STAY)
    assert (done.returncode, done.stdout) == (0, "None\n")
    assert processes_in(folder) == []


def test_a_killed_runner(folder):
    assert run(folder, STAY, STAY, f"sleep 1; kill -KILL $PPID; {STAY}").returncode == -signal.SIGKILL
    wait_until(lambda: processes_in(folder) == [], "its commands outlived it")


@pytest.mark.parametrize(("last", "how"), [("exit 3", "exit status 3"), ("kill -9 $$", "SIGKILL")])
def test_a_command_that_ends_ends_all_and_is_named(folder, last, how):
    done = run(folder, STAY, f"echo why; {last}")
    assert done.stdout == f"command1 | why\ncommand1 ended ({how}); its lines above say why\n"
    assert processes_in(folder) == []


def test_a_command_that_will_not_end(folder):
    run(folder, "trap '' TERM; while :; do sleep 0.1; done", "exit 1")
    assert processes_in(folder) == []


def test_under_nohup_a_closed_terminal_does_not_end_it(folder):
    nohup = ("sh", "-c", "trap '' HUP; exec \"$@\"", "sh")
    assert "exit status 4" in run(folder, "kill -HUP $PPID; sleep 1; exit 4", prefix=nohup).stdout


def test_no_path_takes_the_procfile_apart(tmp_path):
    """Spaces and stars, as a checkout's path may have."""
    (tmp_path / "python").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    (tmp_path / "python").chmod(0o755)
    names = ("SERVING_GRPC_PORT", "SERVING_REST_PORT", "MODEL_CONFIG_FILE", "UI_PORT")
    environment = {name: f"/a {name}/*" for name in names} | {"PATH": str(tmp_path)}
    found = ""
    for command in parse_procfile((ROOT / "Procfile").read_text()).values():
        found += subprocess.run(
            ["/bin/sh", "-c", command], cwd="/", env=environment, capture_output=True, text=True
        ).stdout
    values = [line.partition("=")[2] for line in found.splitlines()]
    assert [value for value in values if value.startswith("/a")] == [environment[name] for name in names]
