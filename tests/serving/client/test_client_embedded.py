"""Both clients against the real embedded server and a small real model: REST and gRPC agree, refusals, a swap."""

import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from serving.client import InvalidArgument, InvalidInput, NotFound, ServerUnavailable, ServingClient
from serving.client.grpc import GrpcServingClient
from serving.client.shap_values import shap_values

NAMES = ["Ankle boot", "Bag", "Cöat"]
START_S = 90


def export_model(path, bias):
    """A SavedModel of three classes with this project's signatures, whose answers depend on the picture."""
    import tensorflow as tf

    class Model(tf.Module):
        def __init__(self):
            super().__init__()
            self.names = tf.constant(NAMES)
            self.weight = tf.Variable(np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32))

        def cells(self, image_bytes):  # (N,) -> (N, 3, 3) in 0..1
            def one(data):
                grey = tf.image.decode_image(data, channels=1, expand_animations=False)
                return tf.image.resize(tf.cast(grey, tf.float32) / 255.0, (3, 3))[..., 0]

            return tf.map_fn(one, image_bytes, fn_output_signature=tf.TensorSpec((3, 3), tf.float32))

        def answer(self, cells):
            logits = tf.reshape(cells, (-1, 9)) @ self.weight + bias  # (N, 3)
            best = tf.argmax(logits, axis=1)
            return {
                "class_id": best,
                "class_name": tf.gather(self.names, best),
                "probabilities": tf.nn.softmax(logits),
            }

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
        def predict(self, image_bytes):
            return self.answer(self.cells(image_bytes))

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
        def explain(self, image_bytes):
            cells = self.cells(image_bytes)
            weight = tf.reshape(tf.transpose(self.weight), (1, 3, 3, 3))
            return self.answer(cells) | {"cams": cells[:, None] * weight}

        @tf.function(
            input_signature=[
                tf.TensorSpec((None,), tf.string, name="image_bytes"),
                tf.TensorSpec((None,), tf.int64, name="class_id"),
            ]
        )
        def explain_fine(self, image_bytes, class_id):
            cells = self.cells(image_bytes)
            answer = self.answer(cells)
            chosen = tf.where(class_id < 0, answer["class_id"], class_id)
            known = tf.debugging.Assert(tf.reduce_all(chosen < 3), ["class_id: expected 0..2, got", class_id])
            with tf.control_dependencies([known]):
                weight = tf.gather(tf.reshape(tf.transpose(self.weight), (3, 3, 3)), chosen)
            maps = tf.nn.relu(cells * weight)
            return answer | {"map_3": maps, "map_6": tf.repeat(tf.repeat(maps, 2, axis=1), 2, axis=2)}

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")])
        def preprocess(self, image_bytes):
            views = tf.cast(self.cells(image_bytes) * 255.0, tf.uint8)
            png = tf.map_fn(lambda view: tf.io.encode_png(view[..., None]), views, fn_output_signature=tf.string)
            return {"view_bytes": png, "box": tf.tile([[0.0, 0.25, 1.0, 0.75]], (tf.shape(views)[0], 1))}

        @tf.function(input_signature=[tf.TensorSpec((None, 9), tf.float32, name="pixels")])
        def pixels(self, pixels):
            return self.answer(tf.reshape(pixels, (-1, 3, 3)) / 255.0)

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="inputs")])
        def classify(self, inputs):
            spec = {"image_bytes": tf.io.FixedLenFeature([], tf.string)}
            images = tf.io.parse_example(inputs, spec)["image_bytes"]
            probabilities = self.answer(self.cells(images))["probabilities"]
            order = tf.argsort(probabilities, direction="DESCENDING", stable=True)
            scores = tf.gather(probabilities, order, batch_dims=1)
            return {"classes": tf.gather(self.names, order), "scores": scores}

    model = Model()
    signatures = {"serving_default": model.predict, "explain": model.explain}
    signatures |= {"explain_fine": model.explain_fine, "preprocess": model.preprocess, "classify": model.classify}
    signatures |= {"pixels": model.pixels}
    tf.saved_model.save(model, str(path), signatures=signatures)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition, what, seconds=START_S):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} not within {seconds} s"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    base = tmp_path_factory.mktemp("model")
    export_model(base / "served" / "1", 0.0)
    export_model(base / "next" / "2", 1.0)
    return base


@pytest.fixture(scope="module")
def server(model_dir, tmp_path_factory):
    rest, grpc_port = free_port(), free_port()
    log = tmp_path_factory.mktemp("log") / "server.log"
    command = [sys.executable, "-m", "serving.embedded", f"--port={grpc_port}", f"--rest_api_port={rest}"]
    command += ["--model_name=tiny", f"--model_base_path={model_dir / 'served'}"]
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
    served = SimpleNamespace(rest=f"http://127.0.0.1:{rest}", grpc=f"http://127.0.0.1:{grpc_port}")

    def ready():
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            with ServingClient(served.rest, model="tiny", retries=0) as client:
                return any(version.available for version in client.status())
        except (ServerUnavailable, NotFound):
            return False

    try:
        wait_for(ready, "the server is ready")
        yield served
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def rest(server):
    with ServingClient(server.rest, model="tiny") as client:
        yield client


@pytest.fixture
def grpc_client(server):
    with GrpcServingClient(server.grpc, model="tiny") as client:
        yield client


@pytest.fixture
def pictures():
    return list(np.random.default_rng(1).integers(0, 256, (40, 12, 9), dtype=np.uint8))


def test_rest_and_grpc_agree(rest, grpc_client, pictures):
    for over_rest, over_grpc in zip(rest.explain(pictures), grpc_client.explain(pictures), strict=True):
        assert over_rest.class_name == over_grpc.class_name == NAMES[over_rest.class_id]
        assert over_rest.version == over_grpc.version == 1
        np.testing.assert_array_equal(over_rest.probabilities, over_grpc.probabilities)
        np.testing.assert_array_equal(over_rest.cams, over_grpc.cams)
    (one,), (other,) = rest.preprocess(pictures[0]), grpc_client.preprocess(pictures[0])
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.box, other.box)
    assert rest.classes() == grpc_client.classes() == tuple(NAMES)
    assert rest.status() == grpc_client.status()
    assert rest.metadata() == grpc_client.metadata()
    assert rest.metadata().signatures["explain"].outputs["cams"].shape == (None, 3, 3, 3)


@pytest.mark.parametrize("class_ids", [None, 2, [index % 3 for index in range(40)]])
def test_fine_maps_are_of_the_class_asked_for(rest, grpc_client, pictures, class_ids):
    explained = rest.explain(pictures)
    found = rest.explain_fine(pictures, class_ids=class_ids)
    for i, (over_rest, over_grpc) in enumerate(
        zip(found, grpc_client.explain_fine(pictures, class_ids=class_ids), strict=True)
    ):
        asked = class_ids if isinstance(class_ids, int) else (class_ids or {i: explained[i].class_id})[i]
        assert over_rest.explained == over_grpc.explained == asked
        assert list(over_rest.maps) == list(over_grpc.maps) == ["map_3", "map_6"]
        for name in over_rest.maps:
            np.testing.assert_array_equal(over_rest.maps[name], over_grpc.maps[name])
        np.testing.assert_allclose(over_rest.maps["map_3"], explained[i].cam(asked), atol=1e-6)
        assert over_rest.finest.shape == (6, 6)


@pytest.mark.parametrize("client_name", ["rest", "grpc_client"])
def test_a_class_that_is_not_there_is_named_with_its_image(request, client_name, pictures):
    client = request.getfixturevalue(client_name)
    with pytest.raises(InvalidArgument, match=r"^image 1: .*class_id: expected 0\.\.2, got"):
        client.explain_fine(pictures[:3], class_ids=[0, 3, 1])
    with pytest.raises(ValueError, match="class_ids: expected one an image, 3 in all, got 2"):
        client.explain_fine(pictures[:3], class_ids=[0, 1])


def test_what_the_model_sees_can_be_asked_about(rest, grpc_client, pictures):
    views = np.stack([view.image for view in rest.preprocess(pictures)])
    over_rest, over_grpc = rest.predict_views(views), grpc_client.predict_views(views)
    assert len(views) > 32  # of one request
    for one, other, whole in zip(over_rest, over_grpc, rest.predict(pictures), strict=True):
        np.testing.assert_array_equal(one.probabilities, other.probabilities)
        np.testing.assert_allclose(one.probabilities, whole.probabilities, atol=0.02)  # views are rounded
    for client in (rest, grpc_client):
        with pytest.raises(InvalidInput, match=r"expected uint8 .* got float64 \(3, 3\)"):
            client.predict_views(np.zeros((3, 3)))


def test_shap_values_sum_up_to_what_the_picture_adds(rest, grpc_client, pictures):
    view = rest.preprocess(pictures[0])[0].image
    values = shap_values(rest, view)
    assert values.shape == (3, 3, 3)
    whole, covered = (one.probabilities for one in rest.predict_views(np.stack([view, np.zeros_like(view)])))
    np.testing.assert_allclose(values.sum(axis=(1, 2)), whole - covered, atol=1e-5)
    np.testing.assert_allclose(values, shap_values(grpc_client, view), atol=1e-6)
    assert (values[:, view == 0] == 0).all()  # black is what covers


@pytest.mark.parametrize("client_name", ["rest", "grpc_client"])
def test_broken_picture_is_named(request, client_name, pictures, png):
    client = request.getfixturevalue(client_name)
    with pytest.raises(InvalidArgument, match="image 5: ") as caught:
        client.predict([*pictures[:5], png()[:60], *pictures[5:9]])
    assert caught.value.index == 5


@pytest.mark.parametrize("kind", [ServingClient, GrpcServingClient])
def test_what_does_not_exist(server, kind, png):
    url = server.rest if kind is ServingClient else server.grpc
    with kind(url, model="none") as client, pytest.raises(NotFound):
        client.predict(png())
    with kind(url, model="tiny", version=99) as client, pytest.raises(NotFound):
        client.predict(png())
    with kind(url, model="tiny", label="none") as client, pytest.raises(InvalidArgument, match="none") as caught:
        client.predict([png(), png()])
    assert caught.value.index is None


def test_swap_while_requests_flow(server, rest, grpc_client, model_dir, pictures):
    """Last: afterwards only version 2 is served."""
    stop, seen = threading.Event(), {"rest": [], "grpc": []}

    def flow(name, client):
        while not stop.is_set():
            seen[name] += [prediction.version for prediction in client.predict(pictures[:3])]
            time.sleep(0.01)

    threads = [threading.Thread(target=flow, args=pair) for pair in (("rest", rest), ("grpc", grpc_client))]
    failures = []
    hook, threading.excepthook = threading.excepthook, lambda args: failures.append(args.exc_value)
    try:
        for thread in threads:
            thread.start()
        (model_dir / "next" / "2").rename(model_dir / "served" / "2")
        wait_for(lambda: failures or all(2 in versions for versions in seen.values()), "version 2 answers")
        time.sleep(1.5)  # version 1 is unloaded now
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        threading.excepthook = hook
    assert failures == []
    for versions in seen.values():
        assert sorted(versions) == versions
        assert set(versions) == {1, 2}
    assert [(s.version, s.available) for s in rest.status()][0] == (2, True)
