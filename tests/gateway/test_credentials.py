""".env is made once, private from the first moment, and refused when weak."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import string
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gateway import credentials, dotenv, passwords
from gateway.errors import GatewayError
from gateway.passwords import apr1, check_password, generate

ROOT = Path(__file__).resolve().parents[2]


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_first_use_makes_a_private_file(tmp_path, monkeypatch):
    path = tmp_path / ".env"
    modes = set()
    real_link = os.link

    def link(source, target, **options):
        modes.add(mode(Path(source)))
        real_link(source, target, **options)

    monkeypatch.setattr(os, "link", link)
    old = os.umask(0)
    try:
        line = credentials.ensure(path)
    finally:
        os.umask(old)
    found = dotenv.parse(path.read_text())
    assert found["GATEWAY_USER"] == "vitrine"
    assert re.fullmatch(r"[A-Za-z0-9]{32}", found["GATEWAY_PASSWORD"])
    assert re.fullmatch(r"[0-9a-f]{64}", found["GATEWAY_COOKIE_SECRET"])
    assert found["GATEWAY_PASSWORD"] not in line
    assert str(path) in line
    assert mode(path) == 0o600
    assert modes == {0o600}
    assert os.listdir(tmp_path) == [".env"]


def test_every_installation_gets_its_own(tmp_path):
    texts = []
    for name in "ab":
        (tmp_path / name).mkdir()
        credentials.ensure(tmp_path / name / ".env")
        texts.append((tmp_path / name / ".env").read_text())
    first, second = map(dotenv.parse, texts)
    assert first["GATEWAY_PASSWORD"] != second["GATEWAY_PASSWORD"]
    assert first["GATEWAY_COOKIE_SECRET"] != second["GATEWAY_COOKIE_SECRET"]


def test_second_use_changes_nothing(tmp_path):
    path = tmp_path / ".env"
    credentials.ensure(path)
    before = path.read_text()
    credentials.ensure(path)
    assert path.read_text() == before


def test_other_lines_stay_and_empty_values_are_filled_in_place(tmp_path):
    path = tmp_path / ".env"
    path.write_text("# mine\nGATEWAY_PORT=9000\nGATEWAY_PASSWORD=\n\nODD LINE\nUI_PORT='9002'")
    path.chmod(0o644)
    credentials.ensure(path)
    lines = path.read_text().splitlines()
    assert lines[:2] == ["# mine", "GATEWAY_PORT=9000"]
    assert re.fullmatch(r"GATEWAY_PASSWORD=\w{32}", lines[2])
    assert lines[3:6] == ["", "ODD LINE", "UI_PORT='9002'"]
    assert lines[6] == "GATEWAY_USER=vitrine"
    assert mode(path) == 0o600


def test_the_example_file_becomes_a_working_one(tmp_path):
    path = tmp_path / ".env"
    path.write_text((ROOT / ".env.example").read_text())
    credentials.ensure(path)
    found = dotenv.parse(path.read_text())
    assert len(found["GATEWAY_PASSWORD"]) == 32
    assert path.read_text().count("GATEWAY_PASSWORD=") == 1


def test_a_file_open_to_others_is_closed(tmp_path):
    path = tmp_path / ".env"
    credentials.ensure(path)
    path.chmod(0o644)
    assert "readable by others" in credentials.ensure(path)
    assert mode(path) == 0o600


def test_many_starts_at_once_agree_on_one_password(tmp_path):
    path = tmp_path / ".env"
    seen = []

    def start():
        credentials.ensure(path)
        seen.append(path.read_text())

    threads = [threading.Thread(target=start) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 16
    assert len(set(seen)) == 1


WEAK = [
    "", "short1", "admin", "password", "changeme", "vitrine", "password1234", "Password2026!", "changemechangeme",
    "admin-admin-admin", "vitrinevitrine", "aaaaaaaaaaaaaaaa", "123456789012", "vitrine-2026", "qwertyuiop12",
    "1q2w3e4r5t6y", "abcdefghijkl", "abc123abc123", "asdfghjkl123", "p@ssw0rd1234", "sunshine1234", "monkey123456",
    "football1234", "dragon123456", "superman12345", "trustno1trustno1", "Giraffe-2027", "admin-Password-1",
    "zaq1xsw2cde3", "98765432109876", "20240101-20241231", "welcome2VITRINE", "iloveyou4ever",
]  # fmt: skip
GOOD = ["correct-horse-battery", "kX9.rT2+Lm4_Qz", "adminKx93mTq7Lw", "kQzvXwJpfMbt", "first-Own-passphrase"]
CARRIED = string.ascii_letters + string.digits + "%+,./:=@^_-"


@pytest.mark.parametrize("password", WEAK)
def test_weak_passwords_are_refused(password):
    with pytest.raises(GatewayError) as error:
        check_password(password, "vitrine")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("the password of 'vitrine' ")


@pytest.mark.parametrize("password", GOOD)
def test_good_passwords_are_taken(password):
    check_password(password, "vitrine")


def test_the_container_finds_the_same_guessable_parts():
    """The entrypoint runs weak_passwords.sed through sed where Python reads it line by line."""
    if "GNU" not in subprocess.run(["sed", "--version"], capture_output=True, text=True, check=False).stdout:
        pytest.skip("the image's sed is GNU's, this one is not")
    tried = [password for password in WEAK if password and password.isascii() and "!" not in password]
    tried += GOOD + ["".join(secrets.choice(CARRIED) for _ in range(length)) for length in range(12, 33)]
    found = subprocess.run(
        ["sed", "-E", "-e", "s/vitrine//gI", "-f", ROOT / "gateway" / "weak_passwords.sed"],
        input="\n".join(tried), capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert found == [passwords.without_the_guessable(password, "vitrine") for password in tried]


@pytest.mark.parametrize("sign", sorted({chr(code) for code in range(32, 127)} - set(CARRIED)) + ["ü", "\t"])
def test_signs_that_a_shell_takes_otherwise_are_refused(sign):
    with pytest.raises(GatewayError, match="use letters, digits and %"):
        check_password(f"kX9{sign}rT2+Lm4_Qz", "vitrine")


def test_a_shell_reads_what_is_in_the_file_and_runs_none_of_it(tmp_path):
    password = "".join(sorted(CARRIED, reverse=True))
    (tmp_path / ".env").write_text(f"GATEWAY_PASSWORD={password}\n")
    credentials.ensure(tmp_path / ".env")
    done = subprocess.run(
        ["sh", "-c", 'set -eua; . ./.env; printf "%s %s" "$GATEWAY_USER" "$GATEWAY_PASSWORD"'],
        cwd=tmp_path, env={"PATH": os.defpath}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (f"vitrine {password}", "")


def test_generated_passwords_are_always_taken():
    for _ in range(500):
        check_password(generate(), "vitrine")


@pytest.mark.parametrize(
    "line", ["GATEWAY_PASSWORD=changeme", "GATEWAY_PASSWORD=admin", "GATEWAY_USER=a:b", "GATEWAY_USER=a b"]
)
def test_a_bad_file_is_refused_and_left_alone(tmp_path, line):
    path = tmp_path / ".env"
    path.write_text(line + "\n")
    with pytest.raises(GatewayError):
        credentials.ensure(path)
    assert path.read_text() == line + "\n"


@pytest.mark.parametrize(("changes", "expected"), [
    ({"GATEWAY_USER": "a:b"}, "user name 'a:b'"),
    ({"GATEWAY_PORT": "http"}, "GATEWAY_PORT=http"),
    ({"TLS_CERT": "/nowhere/cert.pem"}, "TLS_CERT=/nowhere/cert.pem"),
    ({"GATEWAY_ACCESS_LOG": "yes"}, "all, errors, off"),
])  # fmt: skip
def test_run_refuses_with_one_line(command, changes, expected):
    done = command("run", GATEWAY_PASSWORD="kX9.rT2+Lm4_Qz", **changes)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("gateway: ")
    assert done.stderr.count("\n") == 1
    assert expected in done.stderr


@pytest.mark.parametrize(("password", "expected"), [("changeme", "too short"), ("changeme-2026", "known weak")])
@pytest.mark.parametrize("name", ["run", "credentials", "containers"])
def test_every_start_checks_the_password_that_counts(command, tmp_path, name, password, expected):
    """The one of the environment, although the file has a good one."""
    credentials.ensure(tmp_path / ".env")
    done = command(name, GATEWAY_PASSWORD=password)
    assert done.returncode == 2
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture
def command(tmp_path, environ):
    """Runs one of the gateway's commands by a Python without packages, over a .env of the test's own."""

    def run(*arguments, **changes):
        return subprocess.run(
            [sys.executable, "-S", "-m", "gateway", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60,
            env={**environ, "GATEWAY_USERS_FILE": str(tmp_path / "users"), "VITRINE_ENV_FILE": str(tmp_path / ".env"),
                 **changes},
        )  # fmt: skip

    return run


SETTING = r"\b((?:GATEWAY|TLS|SERVING|UI|MODEL|VITRINE|FASHION)_[A-Z_]+)\b"


def test_the_example_lists_every_setting_the_code_reads():
    sources = [path for folder in ("gateway", "serving", "ui", "training") for path in (ROOT / folder).rglob("*.py")]
    read = {name for path in sources for name in re.findall(rf'"{SETTING}"', path.read_text(encoding="utf-8"))}
    read |= set(re.findall(rf"\${{{SETTING}", (ROOT / "docker-compose.yml").read_text()))
    assert {"GATEWAY_PASSWORD", "MODEL_BASE_PATH", "FASHION_MNIST_DIR", "GATEWAY_WORKERS", "TLS_CERT"} <= read
    assert set(re.findall(SETTING, (ROOT / ".env.example").read_text())) == read


@pytest.mark.parametrize("certificate", [False, True])
def test_make_docker_up_needs_python_alone_and_takes_the_certificate_along(tmp_path, environ, certificate):
    """By a docker that only tells how it was called."""
    (tmp_path / "bin").mkdir()
    docker = tmp_path / "bin" / "docker"
    docker.write_text('#!/bin/sh\necho "called: $*"; env | grep -E "^(GATEWAY_PASSWORD|TLS_CERT|TLS_KEY)="; pwd\n')
    docker.chmod(0o755)
    folder = tmp_path / "a certificate"
    folder.mkdir()
    shutil.copy(docker, folder / "cert.pem")
    (tmp_path / ".env").write_text(f"TLS_CERT='{folder}/cert.pem'\nTLS_KEY='{folder}/cert.pem'\n" * certificate)
    done = subprocess.run(
        ["make", "docker-up", f"PYTHON={sys.executable} -S"], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**environ, "PATH": f"{tmp_path / 'bin'}:{os.defpath}", "VITRINE_ENV_FILE": str(tmp_path / ".env"),
             "GATEWAY_USERS_FILE": str(tmp_path / "users"), "GATEWAY_BIND": "0.0.0.0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tls = "-f docker-compose.yml -f gateway/docker-compose.tls.yml " * certificate
    password = dotenv.parse((tmp_path / ".env").read_text())["GATEWAY_PASSWORD"]
    lines = done.stdout.splitlines()
    assert f"called: compose {tls}up --build --wait" in lines
    assert {f"GATEWAY_PASSWORD={password}", str(ROOT)} <= set(lines)
    assert (f"TLS_CERT={folder}/cert.pem" in lines) == certificate
    assert ("in the clear" in done.stdout) != certificate


@pytest.mark.parametrize(("password", "salt", "expected"), [  # from `openssl passwd -apr1 -salt SALT`
    ("kX9.rT2+Lm4_Qz", "abcdefgh", "lYHEdv0t6wLCEH2SKepsu."),
    ("aLongRandomPassword4Tests000", "./09AZaz", "O9tdeecXRPsQ9GoNwdlgU."),
    ("x" * 12, "q", "YTEnOFFZ7eW.Is66sXlEU/"),
])  # fmt: skip
def test_apr1_is_apaches(password, salt, expected):
    assert apr1(password, salt) == f"$apr1${salt}${expected}"
