"""The load on a real model server with a tiny model, behind the real gateway."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from serving.cli import main
from serving.client import ServingClient, ServingError

CHECKOUT = Path(__file__).resolve().parents[3]
USER, PASSWORD = "vitrine", "a-password-of-32-characters-long"
START_S = 90
WINDOWS_S = (0.3, 3, 30)  # a longer one where a busy machine answers nothing in the shorter
REQUESTS = [("REST predict", 1), ("REST predict", 8), ("REST predict", 32), ("gRPC predict", 1), ("gRPC explain", 1)]


def export_model(path):
    """Probabilities that hang on the mean of the picture; refuses what is not an image."""
    import tensorflow as tf

    class Model(tf.Module):
        def answer(self, image_bytes):
            def one(data):
                grey = tf.image.decode_image(data, channels=1, expand_animations=False)
                return tf.reduce_mean(tf.cast(grey, tf.float32)) / 255.0

            light = tf.map_fn(one, image_bytes, fn_output_signature=tf.TensorSpec((), tf.float32))
            probabilities = tf.stack([light, 1.0 - light], axis=1)  # (N, 2)
            best = tf.argmax(probabilities, axis=1)
            names = tf.gather(tf.constant(["Bag", "Coat"]), best)
            return {"class_id": best, "class_name": names, "probabilities": probabilities}

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
        def predict(self, image_bytes):
            return self.answer(image_bytes)

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
        def explain(self, image_bytes):
            return self.answer(image_bytes) | {"cams": tf.zeros((tf.shape(image_bytes)[0], 2, 3, 3))}

    model = Model()
    tf.saved_model.save(model, str(path), signatures={"serving_default": model.predict, "explain": model.explain})


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [str(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """Model server and gateway; gives the environment that tells where they are."""
    folder = tmp_path_factory.mktemp("bench")
    export_model(folder / "model" / "1")
    names = ("GATEWAY_PORT", "SERVING_REST_PORT", "SERVING_GRPC_PORT", "UI_PORT", "GATEWAY_TLS_PORT")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    settings = ports | {"GATEWAY_USER": USER, "GATEWAY_PASSWORD": PASSWORD, "MODEL_NAME": "tiny"}
    environment = os.environ | settings | {"PYTHONPATH": str(CHECKOUT)}
    server = [f"--port={ports['SERVING_GRPC_PORT']}", f"--rest_api_port={ports['SERVING_REST_PORT']}"]
    server += ["--model_name=tiny", f"--model_base_path={folder / 'model'}"]
    log = folder / "log"
    with log.open("w") as stream:
        processes = [
            subprocess.Popen([sys.executable, "-m", *command], stdout=stream, stderr=stream, env=environment)
            for command in (["serving.embedded", *server], ["gateway", "run"])
        ]
    try:
        deadline = time.monotonic() + START_S
        with ServingClient(f"http://127.0.0.1:{ports['GATEWAY_PORT']}", USER, PASSWORD, model="tiny") as client:
            while True:
                try:
                    client.predict(np.zeros((28, 28), np.uint8))
                    break
                except ServingError:
                    assert time.monotonic() < deadline, log.read_text()[-3000:]
                    time.sleep(0.2)
        yield settings
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)


@pytest.fixture
def bench(tmp_path, monkeypatch, capsys):
    """Runs the command in an empty folder, `prepare` before it; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("GATEWAY_", "SERVING_", "MODEL_"))]:
        monkeypatch.delenv(name)

    def run(*arguments, prepare=lambda: None, **environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        for seconds in WINDOWS_S:
            prepare()
            code = main(["bench", "--seconds", str(seconds), *arguments])
            outcome = code, *capsys.readouterr()
            if all(run["requests"] or run["errors"] for file in Path().rglob("*.json") for run in report(file)["runs"]):
                break
        return outcome

    return run


def report(path="reports/bench.json"):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def test_measures_gateway_and_model_server(bench, stack):
    code, out, err = bench(**stack)
    assert (code, err) == (0, "")
    header, *lines = out.splitlines()
    assert header.split()[:4] == ["target", "request", "connections", "requests/s"]
    assert len({len(line) for line in [header, *lines]}) == 1  # aligned: numbers end where their heading ends
    runs, seconds = report()["runs"], report()["seconds"]
    expected = [(target, *request) for target in ("gateway", "model server") for request in REQUESTS]
    assert [(run["target"], run["request"], run["connections"]) for run in runs] == expected
    assert len(lines) == len(runs)
    for run in runs:
        assert run["errors"] == 0
        assert run["requests"] > 0
        assert run["requests_per_s"] == pytest.approx(run["requests"] / seconds, abs=0.01)
        assert 0 < run["p50_ms"] <= run["p95_ms"] <= run["p99_ms"]
    assert (report()["model"], report()["version"]) == ("tiny", 1)
    assert seconds in WINDOWS_S
    assert PASSWORD not in out + Path("reports/bench.json").read_text(encoding="utf-8")


def test_model_server_alone_and_json(bench, stack):
    direct = f"http://127.0.0.1:{stack['SERVING_REST_PORT']}"
    code, out, _ = bench("--json", "--url", direct, "-o", "here.json", **stack)
    assert code == 0
    assert {run["target"] for run in report("here.json")["runs"]} == {"model server"}
    assert json.loads(out) == report("here.json")


def test_gateway_alone_is_said(bench, stack):
    (unused,) = free_ports(1)
    code, out, err = bench(**stack | {"SERVING_REST_PORT": unused})
    assert code == 0
    assert err.startswith(f"only through the gateway: no model server at http://127.0.0.1:{unused}")
    assert "model server" not in out


def test_failed_requests_are_counted_and_fail(bench, fake, play):
    def fail_from_now_on():
        fake.faults.extend([play.status(503)] * 100_000)

    fake.before_predict = fail_from_now_on  # the first request, which looks whether anything answers, is answered
    credentials = {"GATEWAY_USER": fake.user, "GATEWAY_PASSWORD": fake.password}
    code, out, _ = bench("--url", fake.url, prepare=fake.faults.clear, **credentials)
    assert code == 1
    for run in report()["runs"]:
        assert run["requests"] == 0
        assert run["errors"] > 0
        assert run["p50_ms"] is None
    assert " - " in out


def test_stack_not_running(bench):
    (unused,) = free_ports(1)
    code, out, err = bench("--url", f"http://127.0.0.1:{unused}")
    assert (code, out) == (5, "")
    assert err == f"error: cannot reach http://127.0.0.1:{unused} (connection refused); start it first: make up\n"
    assert not Path("reports").exists()


@pytest.mark.parametrize(("arguments", "words"), [(["-o", "."], "is a folder"), (["-o", "file/b.json"], "no folder")])
def test_report_that_cannot_be_written(bench, stack, arguments, words):
    Path("file").write_text("not a folder")
    code, out, err = bench(*arguments, **stack)
    assert (code, out) == (2, "")
    assert words in err


@pytest.mark.parametrize("seconds", ["0", "-1", "inf", "nan", "many"])
def test_seconds(bench, seconds):
    with pytest.raises(SystemExit) as leaving:
        bench("--seconds", seconds)
    assert leaving.value.code == 2
