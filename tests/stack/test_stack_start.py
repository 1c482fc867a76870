"""Starts and ends that are not the usual ones."""

from __future__ import annotations

from stack_helpers import MAKE_UP, READY, checkout, processes_in, running, wait_until


def test_ctrl_c_before_it_is_ready():
    with checkout() as (folder, _), running(folder, MAKE_UP) as run:
        run.wait_for("starting;")
        run.interrupt()
        assert processes_in(folder) == [], run.output
        assert "ready" not in run.output


def test_on_one_address_with_an_exported_password_and_killed():
    bind = "127.0.0.2"
    command = [".venv/bin/python", "-m", "serving", "up"]
    with (
        checkout(GATEWAY_BIND=bind) as (folder, ports),
        running(folder, command, GATEWAY_PASSWORD="exportedPassword4Tests0000") as run,
    ):
        run.wait_for(READY)
        assert f"http://{bind}:{ports['GATEWAY_PORT']}" in run.output
        assert "GATEWAY_PASSWORD from the environment" in run.output
        run.process.kill()
        wait_until(lambda: processes_in(folder) == [], "its services outlived the runner")
