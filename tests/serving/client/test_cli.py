"""The command line as a user meets it: its two streams and its exit code."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from serving.cli import main
from serving.client.environment import connection, read_env_file

CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.fixture
def cli(fake, tmp_path, png, monkeypatch, capsys):
    """Runs the command line in an empty folder that holds shirt.png and bad.txt."""
    (tmp_path / "shirt.png").write_bytes(png())
    (tmp_path / "bad.txt").write_text("hello")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("GATEWAY_", "SERVING_", "MODEL_"))]:
        monkeypatch.delenv(name)

    def run(*arguments, url=fake.url, **environment):
        for name, value in ({"GATEWAY_USER": fake.user, "GATEWAY_PASSWORD": fake.password} | environment).items():
            monkeypatch.setenv(name, value)
        try:
            code = main([*arguments, *(("--url", url) if url else ())])
        except SystemExit as leaving:  # argparse
            code = leaving.code
        out, err = capsys.readouterr()
        assert fake.password not in out + err
        return SimpleNamespace(returncode=code, stdout=out, stderr=err)

    return run


def test_as_a_process(fake, tmp_path, png):
    (tmp_path / "shirt.png").write_bytes(png())
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "GATEWAY_USER": fake.user}
    command = [sys.executable, "-m", "serving", "predict", "shirt.png", "--url", fake.url]
    for password, code in ((fake.password, 0), ("wrong", 4)):
        done = subprocess.run(
            command,
            env=environment | {"GATEWAY_PASSWORD": password},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code
        assert ("T-shirt/top" in done.stdout) == (code == 0)
        assert len(done.stderr.splitlines()) == (0 if code == 0 else 1)


def test_predict_prints_an_aligned_table(cli):
    done = cli("predict", "shirt.png", "--top", "2")
    assert (done.returncode, done.stderr) == (0, "")
    header, first, second = done.stdout.splitlines()
    assert header.split() == ["image", "class", "probability", "version", "time"]
    assert first.split()[:5] == ["shirt.png", "T-shirt/top", "53.3", "%", "1"]
    assert first.index("T-shirt") == second.index("Coat") == header.index("class")
    assert first.index("%") == second.index("%")


def test_predict_as_json(cli):
    done = cli("predict", "shirt.png", "shirt.png", "--json", "--top", "1")
    answer = json.loads(done.stdout)
    assert answer["model"] == "fashion_mnist"
    assert [p["image"] for p in answer["predictions"]] == ["shirt.png"] * 2
    assert answer["predictions"][0]["top"] == [
        {"class_id": 3, "class_name": "T-shirt/top", "probability": pytest.approx(16 / 30)}
    ]


def test_explain_writes_photo_and_overlay(cli, tmp_path):
    done = cli("explain", "shirt.png", "-o", "overlay.png")
    assert done.returncode == 0, done.stderr
    assert "evidence for T-shirt/top" in done.stdout
    figure = np.asarray(Image.open(tmp_path / "overlay.png").convert("RGB"), int)
    coloured = np.ptp(figure, axis=2).max(axis=0) > 60
    half = figure.shape[1] // 2
    assert not coloured[: half - 20].any()
    assert coloured[half + 20 :].any()


@pytest.mark.parametrize("name", ["Bag", "bag", "1"])
def test_explain_a_class_by_name_or_id(cli, name):
    done = cli("explain", "shirt.png", "--class", name, "--json", "--alpha", "0.3")
    answer = json.loads(done.stdout)
    assert (answer["explained_class"], answer["contrast_class"], answer["positive_evidence"]) == ("Bag", None, True)
    assert answer["map"] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert answer["box"] == [0.1, -0.2, 0.9, 1.2]


def test_explain_says_when_there_is_no_evidence(cli, tmp_path):
    done = cli("explain", "shirt.png", "--class", "Ankle boot")
    assert "no positive evidence for Ankle boot" in done.stdout
    assert (tmp_path / "overlay.png").exists()


def test_explain_a_contrast(cli):
    done = cli("explain", "shirt.png", "--contrast", "Coat")
    assert "why T-shirt/top rather than Coat" in done.stdout


def test_explain_with_the_finest_map(cli, fake):
    done = cli("explain", "shirt.png", "--class", "Bag", "--fine", "--json")
    answer = json.loads(done.stdout)
    assert answer["explained_class"] == "Bag"
    assert answer["map"] == np.eye(4).tolist()
    assert "explain_fine" in [signature for signature, _, _ in fake.predicted_by]


def test_status(cli, fake):
    fake.versions = {1: "END", 2: "AVAILABLE"}
    done = cli("status")
    assert done.returncode == 0
    assert [line.split("  ") for line in done.stdout.splitlines()[:1]] == [["model fashion_mnist"]]
    assert [re.split(r"\s{2,}", line.strip()) for line in done.stdout.splitlines()[1:]] == [
        ["version", "state", "labels", "in service", "message"],
        ["2", "AVAILABLE", "yes", "OK"],
        ["1", "END", "no", "OK"],
    ]
    entry = json.loads(cli("status", "--json").stdout)["versions"][0]
    assert entry == {"version": 2, "state": "AVAILABLE", "error_code": "OK", "error_message": "", "labels": []}


def test_status_tells_the_labels_and_who_is_asked_without_one(cli, fake):
    fake.versions = dict.fromkeys((1, 2, 3), "AVAILABLE")
    fake.labels = {"stable": 1, "canary": 2}
    done = cli("status")
    rows = [line.split() for line in done.stdout.splitlines()[2:5]]
    assert [row[:-1] for row in rows] == [
        ["3", "AVAILABLE", "yes"],
        ["2", "AVAILABLE", "canary", "yes"],
        ["1", "AVAILABLE", "stable", "yes"],
    ]
    assert "requests without a label go to version 3" in done.stdout
    assert [entry["labels"] for entry in json.loads(cli("status", "--json").stdout)["versions"]] == [
        [], ["canary"], ["stable"]
    ]  # fmt: skip
    fake.labels = {"stable": 3}
    assert "without a label" not in cli("status").stdout


def test_status_fails_where_a_label_has_no_loaded_version(cli, fake):
    fake.versions = {1: "END", 2: "AVAILABLE"}
    fake.labels = {"stable": 1, "canary": 2}
    done = cli("status")
    assert done.returncode == 1
    assert "requests with the label stable fail: its version is not loaded" in done.stdout
    assert json.loads(cli("status", "--json").stdout)["labels_not_loaded"] == ["stable"]


def test_status_fails_when_nothing_is_available(cli, fake):
    fake.versions = {1: "END"}
    assert cli("status").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["predict"], 2, "required: IMAGE"),
        ([], 2, "required: COMMAND"),
        (["predict", "shirt.png", "--top", "0"], 2, "at least 1"),
        (["predict", "shirt.png", "--password", "x"], 2, "unrecognized"),
        (["predict", "shirt.png", "--version", "1", "--label", "a"], 2, "not allowed with"),
        (["predict", "shirt.png", "--cacert", "none.pem"], 2, "no such file"),
        (["explain", "shirt.png", "--class", "Hat"], 2, "0 Ankle boot, 1 Bag"),
        (["explain", "shirt.png", "--class", "4"], 2, "no class '4'"),
        (["explain", "shirt.png", "--contrast", "T-shirt/top"], 2, "the class to explain itself"),
        (["explain", "shirt.png", "--contrast", "Bag", "--fine"], 2, "leave one of them out"),
        (["explain", "shirt.png", "-o", "overlay"], 2, "expected a picture's name"),
        (["explain", "shirt.png", "-o", "none/overlay.png"], 2, "no folder none"),
        (["explain", "shirt.png", "-o", "./shirt.png"], 2, "would overwrite the image itself"),
        (["explain", "shirt.png", "--alpha", "2"], 2, "expected 0..1"),
        (["predict", "none.png"], 3, "none.png: no such file"),
        (["predict", "shirt.png", "bad.txt"], 3, "bad.txt: is not an image"),
        (["explain", "bad.txt"], 3, "bad.txt: is not an image"),
        (["predict", "shirt.png", "--version", "9"], 6, "Specific(fashion_mnist, 9)"),
        (["predict", "shirt.png", "--model", "other"], 6, "other"),
        (["predict", "shirt.png", "--label", "none"], 1, "version label: none"),
        (["promote"], 2, "required: N"),
        (["promote", "0"], 2, "at least 1"),
        (["promote", "1", "--label", "latest"], 2, "invalid choice: 'latest'"),
        (["promote", "1", "--model", "other"], 6, "no version 1 in"),
        (["rollback", "--model", "other"], 7, "no version of other is stable yet"),
        (["prune"], 2, "required: --keep"),
    ],
)
def test_failures_are_one_line_and_a_code(cli, arguments, code, words):
    done = cli(*arguments, **({"url": None} if not arguments else {}))
    assert done.returncode == code
    assert words in done.stderr
    assert done.stdout == ""
    if code != 2 or "error: -" in done.stderr:
        assert len(done.stderr.splitlines()) == 1


def test_refused_by_the_server(cli, tmp_path, png, play):
    (tmp_path / "odd.png").write_bytes(png() + play.mark)
    done = cli("predict", "shirt.png", "odd.png")
    assert done.returncode == 3
    assert done.stderr == "error: odd.png: Input is not a PNG, JPEG, GIF or BMP\n"


def test_wrong_password(cli):
    done = cli("predict", "shirt.png", GATEWAY_PASSWORD="wrong-one")
    assert (done.returncode, "wrong-one" in done.stderr) == (4, False)


@pytest.mark.parametrize("grpc", [[], ["--grpc"]])
def test_nobody_there(cli, grpc):
    done = cli("status", *grpc, url="http://127.0.0.1:9")
    assert done.returncode == 5
    assert len(done.stderr.splitlines()) == 1


def test_exit_codes_are_documented(cli):
    documented = cli("predict", "--help").stdout
    for code in range(8):
        assert f"\n  {code}  " in documented


def test_env_file_is_read_as_the_gateway_writes_it(tmp_path):
    (tmp_path / ".env").write_text("# made\n\nexport A=1\nB = 'two words'\nC=x=y\n#D=4\nnonsense\nE=\n")
    assert read_env_file(tmp_path / ".env") == {"A": "1", "B": "two words", "C": "x=y", "E": ""}
    assert read_env_file(tmp_path / "none") == {}


def test_credentials_come_from_the_env_file_beside(cli, fake, tmp_path):
    port = fake.url.rpartition(":")[2]
    (tmp_path / ".env").write_text(
        f"GATEWAY_USER={fake.user}\nGATEWAY_PASSWORD={fake.password}\nGATEWAY_PORT={port}\n", encoding="utf-8"
    )
    done = cli("predict", "shirt.png", url=None, GATEWAY_USER="", GATEWAY_PASSWORD="")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("environment", "asked", "expected"),
    [
        ({}, {}, ("http://127.0.0.1:8080", "vitrine", "from-file", "fashion_mnist")),
        ({"GATEWAY_PORT": "1234"}, {}, ("http://127.0.0.1:1234", "vitrine", "from-file", "fashion_mnist")),
        ({"GATEWAY_PASSWORD": "mine"}, {"user": "bo"}, ("http://127.0.0.1:8080", "bo", "mine", "fashion_mnist")),
        ({"MODEL_NAME": "m"}, {"model": "n"}, ("http://127.0.0.1:8080", "vitrine", "from-file", "n")),
        ({}, {"url": "http://elsewhere"}, ("http://elsewhere", None, None, "fashion_mnist")),
        ({"SERVING_URL": "https://elsewhere"}, {}, ("https://elsewhere", None, None, "fashion_mnist")),
        (
            {"GATEWAY_PASSWORD": "mine"},
            {"url": "https://elsewhere"},
            ("https://elsewhere", "vitrine", "mine", "fashion_mnist"),
        ),
    ],
)
def test_where_requests_go_and_as_whom(tmp_path, environment, asked, expected):
    (tmp_path / ".env").write_text("GATEWAY_USER=vitrine\nGATEWAY_PASSWORD=from-file\n")
    found = connection(environment, [tmp_path / "none", tmp_path], **asked)
    assert (found.url, found.user, found.password, found.model) == expected
    assert "from-file" not in repr(found)


def test_user_without_a_password_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no password for user bo"):
        connection({}, [tmp_path], user="bo")
