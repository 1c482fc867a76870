"""Users come and go while the gateway runs; each change counts on the next request."""

from __future__ import annotations

import os
import stat
import threading

import grpc
import pytest
import requests

from gateway import users

PREDICT = "/tensorflow.serving.PredictionService/Predict"


def status(gateway, name, password):
    return requests.get(f"{gateway.url}/v1/models/m", auth=(name, password), timeout=10).status_code


def grpc_status(gateway, name, password):
    metadata = (("authorization", requests.auth._basic_auth_str(name, password)),)
    with grpc.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        try:
            channel.unary_unary(PREDICT)(b"x", metadata=metadata, timeout=30)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def test_the_password_of_the_environment_is_known_without_its_hash(start_gateway, ports):
    with start_gateway(**ports) as gateway:
        (hashes,) = gateway.users_file.parents[1].glob("vitrine-gateway-*/htpasswd")
        hashes.write_text("nobody:*\n")
        assert status(gateway, *gateway.auth) == 200
        assert grpc_status(gateway, *gateway.auth) == grpc.StatusCode.OK
        for name, password in ((gateway.user, gateway.password + "x"), (gateway.user + "x", gateway.password)):
            assert status(gateway, name, password) == 401


def test_a_user_is_added_and_removed_without_a_restart(gateway):
    assert status(gateway, "anna", "x") == 401
    added = gateway.command("users", "add", "anna")
    password = added.stdout.split()[-1]
    assert added.returncode == 0
    assert len(password) == 32
    assert status(gateway, "anna", password) == 200
    assert grpc_status(gateway, "anna", password) == grpc.StatusCode.OK
    assert status(gateway, "anna", password + "x") == 401
    assert status(gateway, *gateway.auth) == 200
    assert gateway.command("users", "list").stdout == "vitrine  (from .env)\nanna\n"
    removed = gateway.command("users", "remove", "anna")
    assert removed.returncode == 0
    assert "600 s" in removed.stdout  # what an open page keeps: gateway.js, LIFETIME_S
    assert status(gateway, "anna", password) == 401
    assert grpc_status(gateway, "anna", password) == grpc.StatusCode.UNAUTHENTICATED
    assert gateway.command("users", "list").stdout == "vitrine  (from .env)\n"


def test_a_password_from_standard_input_is_not_printed_and_can_be_changed(gateway):
    for password in ("first-Own-passphrase", "second-Own-passphrase"):
        done = gateway.command("users", "add", "ben", "--password-stdin", stdin=password + "\n")
        assert done.returncode == 0
        assert password not in done.stdout + done.stderr
    assert status(gateway, "ben", "first-Own-passphrase") == 401
    assert status(gateway, "ben", "second-Own-passphrase") == 200
    gateway.command("users", "remove", "ben")


@pytest.mark.parametrize(("arguments", "stdin", "expected"), [
    (("add", "carl", "--password-stdin"), "password", "too short"),
    (("add", "carl", "--password-stdin"), "", "empty"),
    (("add", "carl", "--password-stdin"), "password-1234\n", "known weak"),
    (("add", "a:b"), None, "user name"),
    (("add", "vitrine"), None, "comes from .env"),
    (("remove", "vitrine"), None, "comes from .env"),
    (("remove", "nobody"), None, "no user 'nobody'"),
])  # fmt: skip
def test_refusals_are_one_line(gateway, arguments, stdin, expected):
    done = gateway.command("users", *arguments, stdin=stdin)
    assert done.returncode == 2
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1
    assert users.names(gateway.users_file) == []


def test_the_owner_can_not_be_replaced_through_the_users_file(gateway):
    users.add(gateway.users_file, gateway.user, "another-Own-passphrase")
    try:
        assert status(gateway, gateway.user, "another-Own-passphrase") == 401
        assert status(gateway, *gateway.auth) == 200
    finally:
        users.remove(gateway.users_file, gateway.user)


def test_names_differ_by_case(gateway):
    """nginx's own map would take Vitrine for vitrine, and so look for her in the wrong file."""
    password = gateway.command("users", "add", "Vitrine").stdout.split()[-1]
    try:
        assert status(gateway, "Vitrine", password) == 200
        assert status(gateway, "vitrine", password) == 401
        assert status(gateway, "VITRINE", gateway.password) == 401
    finally:
        gateway.command("users", "remove", "Vitrine")


@pytest.mark.parametrize(("name", "other"), [("default", "Default"), ("include", "includes"), ("a.b@c", "axb@c")])
def test_any_name_the_checks_allow_works(start_gateway, ports, name, other):
    with start_gateway(**ports, GATEWAY_USER=name) as own:
        assert status(own, name, own.password) == 200
        assert status(own, other, own.password) == 401


def test_the_file_holds_hashes_and_nginx_can_read_it(tmp_path):
    path = tmp_path / "users" / "htpasswd"
    password = users.add(path, "dora")
    assert password not in path.read_text()
    assert path.read_text().startswith("dora:$apr1$")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_changes_at_once_are_all_kept_and_no_reader_sees_half_a_file(tmp_path):
    path = tmp_path / "htpasswd"
    users.touch(path)
    done = threading.Event()
    broken = []

    def watch():
        while not done.is_set():
            text = path.read_text()
            if text and not text.endswith("\n"):
                broken.append(text)

    watcher = threading.Thread(target=watch)
    watcher.start()
    adders = [threading.Thread(target=users.add, args=(path, f"user{number}")) for number in range(24)]
    for thread in adders:
        thread.start()
    for thread in adders:
        thread.join()
    done.set()
    watcher.join()
    assert sorted(users.names(path)) == sorted(f"user{number}" for number in range(24))
    assert broken == []
    assert set(os.listdir(tmp_path)) == {"htpasswd", ".htpasswd.lock"}
