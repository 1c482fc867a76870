"""What `make up` says when it cannot start: one line, at once, and nothing is started."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path

import pytest
from shipped import SHIPPED
from stack_helpers import PORTS, free_ports

from serving import models_config, promotion_log, unfinished, up, version_files
from serving.client.environment import connection
from serving.site import Site

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


CONFIG = """# head
model_config_list { config { name: "fashion_mnist" base_path: "/models/fashion_mnist" model_platform: "tensorflow" } }
"""


@pytest.fixture
def site(tmp_path) -> Site:
    """A checkout's configs, and the models `fashion_mnist` and `clothing`."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config/models.config").write_text(CONFIG)
    for name in ("fashion_mnist", "clothing", "empty"):
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        if name != "empty":
            (folder / "1").mkdir()
            (folder / "1/saved_model.pb").touch()
    return Site(tmp_path / "config", tmp_path / "models")


def served(site: Site) -> dict[str, str]:
    return {model.name: model.base_path for model in models_config.read(site.local).model_config_list.config}


def test_every_model_on_disk_is_served_and_model_name_from_its_own_folder(env, site):
    own = site.models / "fashion_mnist"
    assert up.write_model_config(env | {"MODEL_BASE_PATH": str(own)}, site) == []
    assert served(site) == {"fashion_mnist": str(own), "clothing": str(site.models / "clothing")}
    up.write_model_config(env | {"MODEL_NAME": "shoes", "MODEL_BASE_PATH": str(SHIPPED.parent)}, site)
    assert served(site)["shoes"] == str(SHIPPED.parent)
    assert set(served(site)) == {"fashion_mnist", "clothing", "shoes"}
    assert site.truth.read_text() == CONFIG, "what is kept says what the containers serve"


def test_a_damaged_model_that_no_one_configured_keeps_no_other_from_starting(env, site):
    folder = site.models / "clothing/1"
    content = {"name": "clothing", "version": 1, "files": {"saved_model.pb": hashlib.sha256(b"").hexdigest()}}
    (folder / "assets.extra").mkdir()
    (folder / version_files.MANIFEST).write_text(json.dumps(content))
    env = env | {"MODEL_BASE_PATH": str(site.models / "fashion_mnist")}
    assert up.write_model_config(env, site) == []
    (folder / "saved_model.pb").write_bytes(b"half")
    (note,) = up.write_model_config(env, site)
    assert "clothing is not served: " in note
    assert "damaged: saved_model.pb (changed); publish it again" in note
    assert set(served(site)) == {"fashion_mnist"}


def test_what_is_saved_reaches_the_server_here_with_the_folders_it_was_started_with(env, site):
    up.write_model_config(env | {"MODEL_NAME": "shoes", "MODEL_BASE_PATH": str(SHIPPED.parent)}, site)
    config = models_config.read(site.truth)
    models_config.serve(models_config.find(config, "fashion_mnist"), [1])
    site.save(config)
    assert set(served(site)) == {"fashion_mnist", "clothing", "shoes"}
    model = models_config.find(models_config.read(site.local), "fashion_mnist")
    assert list(model.model_version_policy.specific.versions) == [1]
    assert site.truth.read_text().startswith("# head\n")
    assert 'base_path: "/models/fashion_mnist"' in site.truth.read_text()


def test_what_a_killed_promotion_left_is_put_right_first(env, site):
    entry = promotion_log.Entry(promotion_log.now(), "fashion_mnist", "stable", None, 3, "promote 3")
    before = models_config.read(site.truth)
    config = models_config.read(site.truth)
    model = models_config.find(config, "fashion_mnist")
    unfinished.begin(site, [entry], [3], model)
    models_config.serve(model, [2, 3])
    site.save(config)
    env = env | {"MODEL_BASE_PATH": str(site.models / "fashion_mnist")}
    with site.locked():
        assert up.write_model_config(env, site)[0].startswith("fashion_mnist: "), "it is under way"
    said = up.write_model_config(env, site)
    assert said == [
        f"`promote 3` of {entry.when} was interrupted and is taken back: the label was not yet seen to have moved"
    ]
    assert models_config.read(site.truth) == before


def test_a_labelled_version_that_is_gone_is_said(env, site):
    site.truth.write_text(CONFIG.replace('"tensorflow"', '"tensorflow" version_labels { key: "stable" value: 2 }'))
    (note,) = up.write_model_config(env | {"MODEL_BASE_PATH": str(site.models / "fashion_mnist")}, site)
    assert "version 2, labelled stable, is not in" in note
    assert served(site)["fashion_mnist"]
