""".env is made once, private from the first moment, and refused when weak."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gateway import credentials, dotenv
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
    "has a blank in it", "dollar$in$the$middle", "quote'quote'quote", "hash#hash#hash1", "ümläute-überall-x",
]  # fmt: skip


@pytest.mark.parametrize("password", WEAK)
def test_weak_passwords_are_refused(password):
    with pytest.raises(GatewayError) as error:
        check_password(password, "vitrine")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("the password of 'vitrine' is ") or "cannot carry" in str(error.value)


@pytest.mark.parametrize("password", ["correct-horse-battery", "kX9.rT2+Lm4_Qz", "adminKx93mTq7Lw"])
def test_good_passwords_are_taken(password):
    check_password(password, "vitrine")


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
    ({"GATEWAY_PASSWORD": "changeme"}, "too short"),
    ({"GATEWAY_PASSWORD": "changeme-2026"}, "known weak"),
    ({"GATEWAY_PORT": "http"}, "GATEWAY_PORT=http"),
    ({"TLS_CERT": "/nowhere/cert.pem"}, "TLS_CERT=/nowhere/cert.pem"),
    ({"GATEWAY_ACCESS_LOG": "yes"}, "all, errors, off"),
])  # fmt: skip
def test_run_refuses_with_one_line(changes, expected):
    environ = {**os.environ, "GATEWAY_PASSWORD": "kX9.rT2+Lm4_Qz", **changes}
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
    assert done.stdout == ""
    assert done.stderr.startswith("gateway: ")
    assert done.stderr.count("\n") == 1
    assert expected in done.stderr


@pytest.mark.parametrize(("password", "salt", "expected"), [  # from `openssl passwd -apr1 -salt SALT`
    ("kX9.rT2+Lm4_Qz", "abcdefgh", "lYHEdv0t6wLCEH2SKepsu."),
    ("aLongRandomPassword4Tests000", "./09AZaz", "O9tdeecXRPsQ9GoNwdlgU."),
    ("x" * 12, "q", "YTEnOFFZ7eW.Is66sXlEU/"),
])  # fmt: skip
def test_apr1_is_apaches(password, salt, expected):
    assert apr1(password, salt) == f"$apr1${salt}${expected}"
