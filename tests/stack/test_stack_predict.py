"""One picture, asked in every way; and bad pictures beside good ones."""

from __future__ import annotations

import base64
import io
import re
import struct
import threading

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf
from PIL import Image
from stack_helpers import b64, png, wait_until
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.client import InvalidArgument
from serving.client.grpc import GrpcServingClient
from serving.client.shap_values import shap_values


@pytest.fixture(scope="module")
def expected(stack, test_images):
    with stack.client() as client:
        return np.stack([p.probabilities for p in client.predict([png(i) for i in test_images])])


def test_the_first_test_images_are_mostly_right(expected):
    from training.datasets import load_test

    assert (expected.argmax(axis=1) == load_test().labels[: len(expected)]).mean() >= 0.9


def test_grpc_agrees_with_rest(stack, test_images, expected):
    with GrpcServingClient(stack.url, stack.user, stack.password, timeout_s=60) as client, stack.client() as rest:
        pictures = [png(i) for i in test_images]
        np.testing.assert_allclose([p.probabilities for p in client.predict(pictures)], expected, atol=1e-5)
        explained, over_rest = client.explain(pictures[:3]), rest.explain(pictures[:3])
        for one, other, wanted in zip(explained, over_rest, expected[:3], strict=True):
            np.testing.assert_allclose(one.cams, other.cams, atol=1e-4)
            np.testing.assert_allclose(one.probabilities, wanted, atol=1e-5)
            assert one.cams.shape == (10, 3, 3)
        fine, over_rest = (asked.explain_fine(pictures[:3], class_ids=[0, 9, -1]) for asked in (client, rest))
        for one, other, wanted in zip(fine, over_rest, expected[:3], strict=True):
            assert {name: values.shape for name, values in one.maps.items()} == {"map_6": (6, 6), "map_12": (12, 12)}
            for name, values in one.maps.items():
                np.testing.assert_allclose(values, other.maps[name], atol=1e-4)
            np.testing.assert_allclose(one.probabilities, wanted, atol=1e-5)


@pytest.mark.parametrize("form", ["instances", "inputs"])
@pytest.mark.parametrize("signature", ["image_bytes", "images", "pixels", "explain", "explain_fine"])
def test_rest_forms_and_signatures_agree(stack, test_images, expected, form, signature):
    images = test_images[:4]
    values, name = {
        "image_bytes": ([b64(png(i)) for i in images], "serving_default"),
        "explain": ([b64(png(i)) for i in images], "explain"),
        "explain_fine": (
            [{"image_bytes": b64(png(i)), "class_id": -1} for i in images]
            if form == "instances"
            else {"image_bytes": [b64(png(i)) for i in images], "class_id": [-1] * 4},
            "explain_fine",
        ),
        "images": (np.repeat(images[..., None], 3, axis=-1).tolist(), "images"),
        "pixels": (images.reshape(4, -1).tolist(), "pixels"),
    }[signature]
    answer = stack.predict(requests, {"signature_name": name, form: values}).json()
    if form == "instances":
        got = [row["probabilities"] for row in answer["predictions"]]
    else:
        got = answer["outputs"]["probabilities"]
    np.testing.assert_allclose(got, expected[:4], atol=1e-5)


def test_views_and_their_shap_values(stack, test_images, expected):
    with GrpcServingClient(stack.url, stack.user, stack.password, timeout_s=60) as client:
        views = np.stack([view.image for view in client.preprocess(list(test_images[:4]))])
        np.testing.assert_array_equal(views, test_images[:4])
        found = [one.probabilities for one in client.predict_views(views)]
        np.testing.assert_allclose(found, expected[:4], atol=1e-5)
        values = shap_values(client, views[0], evaluations=100)
        nothing = client.predict_views(np.zeros_like(views[:1]))[0].probabilities
        np.testing.assert_allclose(values.sum(axis=(1, 2)), expected[0] - nothing, atol=1e-4)
        with pytest.raises(InvalidArgument, match="pixels: expected float32 \\(N, 784\\)"):
            client.predict_views(np.zeros((2, 4, 4), np.uint8))


def test_classify(stack, test_images, expected):
    body = {"signature_name": "classify", "examples": [{"image_bytes": b64(png(i))} for i in test_images[:2]]}
    url = f"{stack.url}/v1/models/fashion_mnist:classify"
    results = requests.post(url, json=body, auth=stack.auth, timeout=60).json()["results"]
    np.testing.assert_allclose([[s for _, s in row] for row in results], -np.sort(-expected[:2], axis=1), atol=1e-5)


def bad_images() -> dict[str, bytes]:
    good = png(np.arange(784, dtype=np.uint8).reshape(28, 28))
    photo = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(photo, "JPEG")
    huge_png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 50_000, 50_000) + b"\x08\0\0\0\0" + bytes(64)
    return {
        "empty": b"",
        "text": b"this is no image at all",
        "html": b"<html><body>404</body></html>",
        "half a PNG": good[: len(good) // 2],
        "PNG mark only": good[:8],
        "half a JPEG": photo.getvalue()[:300],
        "JPEG mark only": b"\xff\xd8\xff\xe0",
        "50,000 x 50,000 PNG": huge_png,
        "broken GIF": b"GIF89a\x01\x00\x01\x00\x00\x00\x00",
        "broken BMP": b"BM" + bytes(30),
        "WebP": b"RIFF\x24\x00\x00\x00WEBPVP8 " + bytes(20),
        "PDF": b"%PDF-1.7\n" + bytes(100),
    }


@pytest.fixture(scope="module")
def good_requests(stack, test_images):
    """Good predictions flowing all the while; at the end, none has failed."""
    statuses: list[int] = []
    stop = threading.Event()

    def flow() -> None:
        with requests.Session() as session:
            while not stop.wait(0.02):
                statuses.append(stack.predict(session, {"instances": [b64(png(test_images[0]))]}).status_code)

    threads = [threading.Thread(target=flow) for _ in range(2)]
    for thread in threads:
        thread.start()
    yield
    try:
        wait_until(lambda: len(statuses) > 10, "no ten good answers came")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}


@pytest.mark.usefixtures("good_requests")
@pytest.mark.parametrize("name", bad_images())
def test_a_bad_image_is_refused_and_harms_nobody(stack, name):
    data = bad_images()[name]
    response = stack.predict(requests, {"instances": [b64(data)]})
    assert response.status_code == 400, response.text
    assert re.search("image_bytes: expected|Invalid (PNG|JPEG) data", response.json()["error"])
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "fashion_mnist"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([data]))
    password = base64.b64encode(":".join(stack.auth).encode()).decode()
    with grpc.insecure_channel(f"127.0.0.1:{stack.port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.Predict(request, metadata=[("authorization", f"Basic {password}")], timeout=60)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("signature", "instances"),
    [
        ("pixels", [[0.0] * 783]),
        ("pixels", [0.0] * 784),
        ("pixels", [[[0.0] * 28] * 28]),
        ("pixels", [[256.0] * 784]),
        ("pixels", [[-1.0] * 784]),
        ("images", [[[[0.0, 0.0]]]]),
        ("images", [[0.0, 1.0]]),
        ("images", [[[0.0] * 3] * 28] * 28),
        ("images", [[[[[0.0]] * 3] * 28] * 28]),
        ("images", [[[]]]),
        ("serving_default", [["a", "b"]]),
    ],
)
def test_bad_numbers_are_refused_with_what_was_expected(stack, signature, instances):
    response = stack.predict(requests, {"signature_name": signature, "instances": instances})
    assert response.status_code == 400
    name = "image_bytes" if signature == "serving_default" else signature
    assert f"{name}: expected" in response.json()["error"]


def test_a_body_too_large(stack):
    response = requests.post(
        f"{stack.url}/v1/models/fashion_mnist:predict", data=b"x" * 11_000_000, auth=stack.auth, timeout=60
    )
    assert response.status_code == 413
    assert "10" in response.json()["error"]
