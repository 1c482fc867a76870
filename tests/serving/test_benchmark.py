"""The benchmark's load on a real server with a tiny model, its table and its picture."""

import json
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from serving.benchmark import report
from serving.benchmark.__main__ import IN_PROCESS, main
from serving.benchmark.load import LoadError, Request, measure

needs_generators = pytest.mark.skipif(
    not (shutil.which("wrk") and shutil.which("h2load")),
    reason="needs wrk and h2load (Debian: apt-get install wrk nghttp2-client)",
)


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    """Says class 0 to every picture."""
    path = tmp_path_factory.mktemp("benchmark") / "1"
    program = """
import sys
import tensorflow as tf

class Model(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
    def predict(self, image_bytes):
        zeros = tf.zeros_like(tf.strings.length(image_bytes), tf.int64)
        return {"class_id": zeros, "probabilities": tf.one_hot(zeros, 2)}

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32, name="images")])
    def images(self, images):
        zeros = tf.zeros([tf.shape(images)[0]], tf.int64)
        return {"class_id": zeros, "probabilities": tf.one_hot(zeros, 2)}

model = Model()
signatures = {"serving_default": model.predict, "images": model.images}
tf.saved_model.save(model, sys.argv[1], signatures=signatures)
"""
    subprocess.run([sys.executable, "-c", program, str(path)], check=True, capture_output=True)
    return path


@needs_generators
def test_ours_alone(version, tmp_path, capsys):
    output = tmp_path / "out"
    arguments = ["--version", str(version), "--connections", "1,4", "--seconds", "1", "--rounds", "1"]
    assert main([*arguments, "--output", str(output)]) == 0
    found = json.loads((output / "bench.json").read_text())
    names = [
        "model server, REST",
        "gateway, REST",
        "model server, gRPC",
        "gateway, gRPC",
        "model server, REST, 27,648 numbers",
    ]
    assert [(run["name"], run["connections"]) for run in found["runs"]] == [(n, c) for n in names for c in (1, 4)]
    for run in found["runs"]:
        assert run["errors"] == 0
        assert run["requests_per_s"] > 0
        assert 0 < run["p50_ms"] <= run["p95_ms"] <= run["p99_ms"]
    assert set(found["limits_images_per_s"][IN_PROCESS]) == {"1", "32"}
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)
    assert re.search(r"^4 connections: p99 is \d+\.\d\d times p50$", printed, re.M)
    assert re.search(
        r"^through the gateway: \d+\.\d\d times the requests/s at 4, p50 [+-]\d+\.\d\d ms at 1$", printed, re.M
    )
    with Image.open(output / "bench.png") as picture:
        assert picture.size == (1650, 690)


@pytest.fixture
def refuses():
    """The URL of a server that answers 501 to every POST."""
    handler = type("Quiet", (BaseHTTPRequestHandler,), {"protocol_version": "HTTP/1.1", "log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@needs_generators
def test_failures_are_counted_over_rest(refuses):
    measured = measure(Request(refuses, b"", {}), 2, 1)
    assert measured.errors >= measured.requests > 0


@needs_generators
def test_a_failing_call_is_not_measured_over_grpc(refuses):
    with pytest.raises(LoadError, match="answered an error"):
        measure(Request(refuses, b"", {}, grpc=True), 1, 1)


def test_a_version_that_does_not_answer(tmp_path, monkeypatch, capsys):
    (tmp_path / "1").mkdir()
    monkeypatch.setattr("serving.benchmark.contenders.START_S", 1)
    monkeypatch.setattr("serving.benchmark.__main__.check_tools", lambda: None)
    assert main(["--version", str(tmp_path / "1"), "--output", str(tmp_path)]) == 1
    assert "did not answer within 1 s" in capsys.readouterr().err


def test_missing_generators_are_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([]) == 1
    assert "wrk and h2load not found; on Debian: apt-get install wrk nghttp2-client" in capsys.readouterr().err


def test_ratios_pair_what_was_measured_together():
    """A round in which the machine is half as fast changes no ratio."""

    def runs(name, ours, requests, p50_ms):
        rounds = [
            {"requests": requests / slow, "seconds": 2, "p50_ms": p50_ms * slow, "p99_ms": 3 * p50_ms * slow}
            for slow in (1, 2, 1)
        ]
        return [{"name": name, "ours": ours, "connections": number, "rounds": rounds} for number in (1, 32)]

    ours = runs("server", True, 400, 4) + runs("gateway", True, 380, 5)
    peers = runs("slow peer", False, 100, 20) + runs("best peer", False, 200, 10)
    lines = [
        "32 connections: 2.00 times the requests/s of the best peer, best peer",
        "1 connection: 0.40 times the p50 of the best peer, best peer",
        "32 connections: p99 is 3.00 times p50",
        "through the gateway: 0.95 times the requests/s at 32, p50 +1.00 ms at 1",
    ]
    assert report.ratios(ours + peers) == lines
    assert report.ratios(ours) == lines[2:]


def test_the_table_is_aligned():
    run = {"name": "a", "connections": 1, "requests_per_s": 10.0, "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 30.0}
    lines = report.table(
        [run | {"errors": 0}, run | {"errors": 0, "name": "longer"}], {"limit": {"1": 99.6}}
    ).splitlines()
    assert len({len(line) for line in lines[:3]}) == 1
    assert lines[3] == "limit: 100 images/s at batch 1"
