"""The process: starts, ends without a trace, says in one line what is wrong, logs no secrets, speaks TLS."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import pwd
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parents[2]
PREDICT = "/tensorflow.serving.PredictionService/Predict"


def children(pid):
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    found = [int(word) for word in listed.split()]
    return found + [grandchild for child in found for grandchild in children(child)]


def running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for(done, seconds=60):
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


def runs_in(folder):
    return [path for path in folder.iterdir() if path.name.startswith("vitrine-gateway-")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_leaves_no_process_and_no_directory(start_gateway, ports, number):
    with start_gateway(**ports) as own, connect(
        f"ws://127.0.0.1:{own.port}/_stcore/stream", proxy=None,
        additional_headers={"Authorization": requests.auth._basic_auth_str(*own.auth)},
    ):  # fmt: skip
        folder = own.users_file.parents[1]
        family = children(own.process.pid)
        assert len(family) >= 2
        assert len(runs_in(folder)) == 1
        own.process.send_signal(number)
        assert own.process.wait(60) == 0
        wait_for(lambda: not any(map(running, family)))
        assert runs_in(folder) == []


def test_nginx_ends_when_its_parent_is_killed(start_gateway, ports):
    with start_gateway(**ports) as own:
        family = children(own.process.pid)
        own.process.kill()
        own.process.wait(60)
        wait_for(lambda: not any(map(running, family)))


def test_the_run_directory_is_private(start_gateway, ports):
    with start_gateway(**ports) as own:
        (run_dir,) = runs_in(own.users_file.parents[1])
        texts = "".join(path.read_text() for path in run_dir.rglob("*") if path.is_file())
        assert own.password not in texts
        assert own.cookie_secret not in texts
        password_file = (run_dir / "htpasswd").stat()
        assert password_file.st_mode & 0o077 == 0
        if os.geteuid() == 0:
            assert password_file.st_uid == pwd.getpwnam("nobody").pw_uid
            owners = {Path(f"/proc/{pid}").stat().st_uid for pid in children(own.process.pid)}
            assert owners == {0, pwd.getpwnam("nobody").pw_uid}
        else:
            assert run_dir.stat().st_mode & 0o077 == 0


def test_a_port_in_use_is_one_line(gateway, environ):
    environ = {**environ, "GATEWAY_PASSWORD": gateway.password, "GATEWAY_PORT": str(gateway.port),
               "GATEWAY_USERS_FILE": str(gateway.users_file)}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "run"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"port {gateway.port}" in done.stderr
    assert "set GATEWAY_PORT" in done.stderr


@pytest.mark.parametrize("command", [["run"], ["render", "new directory"]])
def test_another_nginx_is_taken_from_the_settings_file(gateway, environ, tmp_path, command):
    file = tmp_path / ".env"
    file.write_text(f"GATEWAY_PASSWORD={gateway.password}\nGATEWAY_NGINX=/no/such/nginx\n")
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *command],
        cwd=tmp_path,
        env={**environ, "VITRINE_ENV_FILE": str(file), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, "gateway: GATEWAY_NGINX=/no/such/nginx: there is no such program\n")


def test_the_log_tells_what_happened_and_no_secret(start_gateway, ports):
    with start_gateway(**ports) as own:
        requests.get(
            f"{own.url}/v1/models/m?token=sesame", auth=own.auth, headers={"Cookie": "vitrine_stream=1.zzz"}, timeout=10
        )
        requests.get(f"{own.url}/v1/models/m", auth=("vitrine", "wrongWord12345"), timeout=10)
        log = own.users_file.parents[1] / "log"
        wait_for(lambda: all(f'"status": {status}' in log.read_text() for status in (200, 401)))
        text = log.read_text()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    found = [
        (line["method"], line["path"], line["user"], line["status"]) for line in lines if line["path"] != "/healthz"
    ]
    # A line is written after its answer was sent, by one of several workers: any order.
    assert sorted(found) == [("GET", "/v1/models/m", "vitrine", 200), ("GET", "/v1/models/m", "vitrine", 401)]
    for secret in (own.password, "wrongWord12345", "sesame", "zzz", own.cookie_secret, "Basic "):
        assert secret not in text
    assert [line for line in text.splitlines() if "[warn]" in line or "[emerg]" in line] == []


@pytest.mark.parametrize(("setting", "expected"), [("errors", {401}), ("off", set())])
def test_less_can_be_logged(start_gateway, ports, setting, expected):
    with start_gateway(**ports, GATEWAY_ACCESS_LOG=setting) as own:
        requests.get(f"{own.url}/v1/models/m", auth=own.auth, timeout=10)
        requests.get(f"{own.url}/v1/models/m", timeout=10)
        folder = own.users_file.parents[1]
    found = re.findall(r'"status": (\d+)', (folder / "log").read_text())
    assert set(map(int, found)) == expected


@pytest.fixture(scope="module")
def certificate(world):
    folder = world() / "of this house"  # a path that has to be quoted
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1)).add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "key.pem").chmod(0o600)
    return folder


def test_tls_carries_rest_grpc_and_the_websocket(start_gateway, ports, certificate):
    cert = certificate / "cert.pem"
    with start_gateway(**ports, TLS_CERT=cert, TLS_KEY=certificate / "key.pem") as own:
        url = f"https://127.0.0.1:{own.tls_port}"
        assert requests.get(f"{url}/v1/models/m", auth=own.auth, verify=str(cert), timeout=10).status_code == 200
        assert requests.get(f"{url}/v1/models/m", verify=str(cert), timeout=10).status_code == 401
        cookie = requests.get(f"{url}/", auth=own.auth, verify=str(cert), timeout=10).headers["Set-Cookie"]
        assert "; Secure" in cookie
        context = ssl.create_default_context(cafile=cert)
        with connect(
            f"wss://127.0.0.1:{own.tls_port}/_stcore/stream", ssl=context, proxy=None,
            origin=f"https://127.0.0.1:{own.tls_port}", additional_headers={"Cookie": cookie.split(";")[0]},
        ) as websocket:  # fmt: skip
            websocket.send("hello")
            assert websocket.recv(timeout=30) == "hello"
        credentials = grpc.ssl_channel_credentials(cert.read_bytes())
        metadata = (("authorization", requests.auth._basic_auth_str(*own.auth)),)
        with grpc.secure_channel(f"127.0.0.1:{own.tls_port}", credentials) as channel:
            assert channel.unary_unary(PREDICT)(b"x", metadata=metadata, timeout=30) == b"x"
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(PREDICT)(b"x", timeout=30)
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def listens(address, port):
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


def test_with_tls_the_cleartext_port_is_for_this_machine_only(start_gateway, ports, certificate):
    tls = {"TLS_CERT": certificate / "cert.pem", "TLS_KEY": certificate / "key.pem"}
    with start_gateway(**ports, **tls, GATEWAY_BIND="0.0.0.0") as own:  # 127.0.0.2 stands for an address of a network
        assert listens("127.0.0.2", own.tls_port)
        assert listens("127.0.0.1", own.port)
        assert not listens("127.0.0.2", own.port)
        assert "in the clear" not in (own.users_file.parents[1] / "log").read_text()


@pytest.mark.parametrize("bind", ["::1", "[::1]"])
def test_an_ipv6_address_with_and_without_brackets(start_gateway, ports, certificate, bind):
    addresses = Path("/proc/net/if_inet6")
    if not addresses.exists() or " lo\n" not in addresses.read_text():
        pytest.skip("this machine has no IPv6 loopback")
    tls = {"TLS_CERT": certificate / "cert.pem", "TLS_KEY": certificate / "key.pem"}
    with start_gateway(**ports, **tls, GATEWAY_BIND=bind) as own, socket.socket(socket.AF_INET6) as probe:
        probe.connect(("::1", own.tls_port))


def test_without_tls_one_line_warns_of_a_network(start_gateway, ports):
    with start_gateway(**ports, GATEWAY_BIND="0.0.0.0") as own:
        log = own.users_file.parents[1] / "log"
        wait_for(lambda: "user 'vitrine'\n" in log.read_text() and "127.0.0.1\n" in log.read_text())
        (warning,) = (line for line in log.read_text().splitlines() if "warning" in line)
    assert warning.startswith("gateway: warning: GATEWAY_BIND=0.0.0.0 without TLS")


def test_without_a_certificate_there_is_no_tls_port(gateway):
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", gateway.tls_port)) != 0


def test_backends_may_come_later_and_come_back(start_gateway, ports):
    late = socket.socket()
    late.bind(("127.0.0.1", 0))
    with start_gateway(**{**ports, "SERVING_REST_PORT": late.getsockname()[1]}) as own:
        url = f"{own.url}/v1/models/m"
        assert requests.get(url, auth=own.auth, timeout=30).status_code == 502
        late.listen()
        with late:
            answer = _answer_one(late, lambda: requests.get(url, auth=own.auth, timeout=30))
        assert answer.status_code == 200
        assert requests.get(url, auth=own.auth, timeout=30).status_code == 502


def _answer_one(listener, request):
    """Answer the next request by hand while it is being made."""

    def serve():
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        return request()
    finally:
        thread.join(60)
