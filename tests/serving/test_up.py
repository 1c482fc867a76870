"""What `make up` says when it cannot start: one line, at once, and nothing is started."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from stack_helpers import PORTS, SHIPPED, free_ports

from serving import up
from serving.client.environment import connection

ipv6 = pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")


@pytest.fixture
def env(tmp_path) -> dict[str, str]:
    ports = {name: str(port) for name, port in free_ports(PORTS).items()}
    given = {"GATEWAY_PASSWORD": "aLongRandomPassword4Tests000", "MODEL_BASE_PATH": str(SHIPPED.parent)}
    return up.environment(ports | given, tmp_path / ".env")


def test_all_well(env):
    up.check(env)


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: (p / "latest").mkdir(parents=True)])
def test_no_version_of_the_model(env, tmp_path, make):
    base_path = tmp_path / "models"
    make(base_path)
    env["MODEL_BASE_PATH"] = str(base_path)
    with pytest.raises(up.UpError, match="no version of fashion_mnist.*make train"):
        up.check(env)


@pytest.mark.parametrize("name", PORTS)
def test_a_port_in_use(env, name):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(env[name])))
        taken.listen()
        with pytest.raises(up.UpError, match=rf"port {env[name]} .*set {name}"):
            up.check(env)


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_no_port(env, port):
    env["UI_PORT"] = port
    with pytest.raises(up.UpError, match="UI_PORT"):
        up.check(env)


def test_what_is_exported_wins_over_env_file_over_defaults(tmp_path):
    (tmp_path / ".env").write_text("GATEWAY_PORT=1111\nUI_PORT=2222\nMODEL_NAME=shoes\n")
    env = up.environment({"UI_PORT": "3333"}, tmp_path / ".env")
    assert (env["GATEWAY_PORT"], env["UI_PORT"], env["SERVING_REST_PORT"]) == ("1111", "3333", "8501")
    assert Path(env["MODEL_BASE_PATH"]).parts[-2:] == ("models", "shoes")


@pytest.mark.parametrize(
    ("settings", "host"),
    [
        ("GATEWAY_BIND=", "127.0.0.1"),
        ("GATEWAY_BIND=0.0.0.0", "127.0.0.1"),
        ("GATEWAY_BIND=*", "127.0.0.1"),
        pytest.param("GATEWAY_BIND=[::]", "[::1]", marks=ipv6),
        pytest.param("GATEWAY_BIND=::1", "[::1]", marks=ipv6),
        ("GATEWAY_BIND=127.0.0.2", "127.0.0.2"),
        ("GATEWAY_BIND=192.0.2.1\nTLS_CERT=/cert.pem", "127.0.0.1"),
    ],
)
def test_the_page_and_the_command_line_ask_where_the_gateway_listens(env, tmp_path, settings, host):
    own = tmp_path / "own.env"
    own.write_text(f"{settings}\nGATEWAY_PORT={env['GATEWAY_PORT']}\nGATEWAY_PASSWORD=fromTheFile\n")
    started = up.environment({"MODEL_BASE_PATH": env["MODEL_BASE_PATH"]}, own)
    up.check(started | {name: env[name] for name in PORTS})
    found = connection({"VITRINE_ENV_FILE": str(own), "GATEWAY_USER": "vitrine"}, [tmp_path])
    assert found.url == started["SERVING_URL"] == f"http://{host}:{env['GATEWAY_PORT']}"
    assert found.password == "fromTheFile"


def test_a_given_serving_url_stays(tmp_path):
    assert up.environment({"SERVING_URL": "https://a.b"}, tmp_path / ".env")["SERVING_URL"] == "https://a.b"


@ipv6
def test_a_port_in_use_on_ipv6(env):
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::1", int(env["GATEWAY_PORT"])))
        taken.listen()
        with pytest.raises(up.UpError, match="set GATEWAY_PORT"):
            up.check(env | {"GATEWAY_BIND": "[::1]"})


def test_no_password(env, tmp_path):
    del env["GATEWAY_PASSWORD"]
    with pytest.raises(up.UpError, match=f"{tmp_path / '.env'}.*python -m gateway credentials"):
        up.check(env)
