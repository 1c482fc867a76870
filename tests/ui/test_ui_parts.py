"""Settings, words and markup; and what the page's process must not load."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from serving.client.results import Score
from ui import advice, markup
from ui.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def test_defaults_point_to_the_gateway_on_this_machine():
    assert Settings.from_environment({}) == Settings("http://127.0.0.1:8080", None, None, "fashion_mnist")
    assert Settings.from_environment({"GATEWAY_PORT": "9000"}).url == "http://127.0.0.1:9000"


def test_the_environment_is_read_and_empty_counts_as_unset():
    settings = Settings.from_environment(
        {"SERVING_URL": "https://x:1", "GATEWAY_USER": "u", "GATEWAY_PASSWORD": "secret", "MODEL_NAME": "m"}
    )
    assert settings == Settings("https://x:1", "u", "secret", "m")
    assert "secret" not in repr(settings)
    empty = dict.fromkeys(["SERVING_URL", "GATEWAY_USER", "GATEWAY_PASSWORD", "MODEL_NAME", "GATEWAY_PORT"], "")
    assert Settings.from_environment(empty) == Settings.from_environment({})


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0.973, "97.3 %"), (0.0, "0.0 %"), (1.0, "100.0 %"), (0.00001, "< 0.1 %"), (0.99999, "> 99.9 %")],
)
def test_percent_never_claims_a_false_certainty(probability, text):
    assert markup.percent(probability) == text


def test_names_from_the_model_cannot_bring_markup():
    evil = "<script>alert(1)</script>"
    pieces = (
        markup.headline(evil, 0.5),
        markup.verdict(evil, evil, [evil]),
        markup.verdict(evil, evil, []),
        markup.bars([Score(0, evil, 0.5)]),
        markup.scale(evil, evil, np.zeros((2, 3), np.uint8)),
        markup.grid(np.zeros((2, 2), np.float32), np.zeros((2, 2, 3), np.uint8), evil),
        markup.chips([evil]),
        markup.footer(evil, 1, 2.0, remembered=False),
        markup.version_line(evil, 1, evil, ready=True),
    )
    assert all("<script" not in piece for piece in pieces)


def test_the_grid_is_readable_on_its_colours():
    colours = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    table = markup.grid(np.array([[1.0, -0.5]], np.float32), colours, "x")
    assert '<td style="background:rgb(0 0 0);color:#fff">+1.00</td>' in table
    assert '<td style="background:rgb(255 255 255);color:#000">-0.50</td>' in table


def test_every_error_of_the_client_has_words():
    import serving.client as client

    for name in client.__all__:
        kind = getattr(client, name)
        if isinstance(kind, type) and issubclass(kind, client.ServingError):
            words = advice.for_error(kind("the reason"))
            assert words.title
            assert words.action
            assert words.detail == "the reason"


def test_the_pages_process_loads_neither_tensorflow_nor_keras_and_works_at_no_import():
    code = (
        "import socket, sys\n"
        "def refuse(*args, **kwargs): raise SystemExit('a connection at import')\n"
        "socket.socket.connect = refuse\n"
        "import ui.app, ui.pages.look, ui.pages.model\n"
        "heavy = {'tensorflow', 'keras', 'tf_keras', 'jax', 'torch', 'matplotlib', 'grpc'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.strip() == "[]", done.stderr
    assert done.returncode == 0
