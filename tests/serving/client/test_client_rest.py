"""The REST client against a real HTTP server: answers, retries, versions, splitting, blame, threads."""

import base64
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from serving.client import (
    BadResponse,
    DeadlineExceeded,
    InvalidArgument,
    InvalidInput,
    NotFound,
    ServerUnavailable,
    ServingClient,
    ServingError,
    Unauthenticated,
)
from serving.client import base as client_base
from serving.client.errors import BY_HTTP_STATUS


def test_predict_gives_typed_results(fake, png):
    with fake.client() as client:
        (prediction,) = client.predict(png())
    assert (prediction.class_id, prediction.class_name, prediction.version) == (3, "T-shirt/top", 1)
    assert prediction.probabilities.dtype == np.float32
    assert prediction.probabilities.shape == (4,)
    assert prediction.probability == pytest.approx(16 / 30)
    assert 0 < prediction.latency_ms < 60_000


def test_explain_gives_maps_of_every_class(fake, png):
    with fake.client() as client:
        first, second = client.explain([png(), png(3)])
    assert first.cams.shape == second.cams.shape == (4, 3, 3)
    assert first.cam(0).max() == 0
    assert first.cam(3).min() == 18
    np.testing.assert_array_equal(first.contrast(1, 0), np.full((3, 3), 9))


def test_preprocess_gives_the_view_and_its_box(fake, png):
    with fake.client() as client:
        (view,) = client.preprocess(png())
    assert view.image.shape == (28, 28)
    assert view.image.dtype == np.uint8
    np.testing.assert_allclose(view.box, [0.1, -0.2, 0.9, 1.2], rtol=1e-6)


def test_no_images_no_request(fake):
    with fake.client() as client:
        assert client.predict([]) == []
    assert fake.requests == []


def test_classes_are_learned_once_per_version(fake, png):
    fake.versions = {1: "AVAILABLE", 2: "AVAILABLE"}
    with fake.client() as client:
        assert client.classes() == fake.names
        asked = len(fake.predicted_by)
        assert client.classes(2) == fake.names
        assert len(fake.predicted_by) == asked
        assert client.classes(1) == fake.names
    assert {version for _, version, _ in fake.predicted_by} == {1, 2}


def test_top_is_best_first_and_checks_its_arguments(fake, png):
    with fake.client() as client:
        prediction = client.predict(png())[0]
        names = client.classes(prediction.version)
    assert [score.class_id for score in prediction.top(9, names)] == [3, 2, 1, 0]
    assert prediction.top(1, names)[0].class_name == "T-shirt/top"
    with pytest.raises(ValueError, match="at least 1"):
        prediction.top(0, names)
    with pytest.raises(ValueError, match="3 class names for 4"):
        prediction.top(1, names[:3])


def test_status_and_metadata(fake):
    fake.versions = {1: "END", 12: "AVAILABLE"}
    with fake.client() as client:
        assert [(s.version, s.state, s.available) for s in client.status()] == [
            (12, "AVAILABLE", True),
            (1, "END", False),
        ]
        metadata = client.metadata()
    assert (metadata.model, metadata.version) == ("fashion_mnist", 12)
    signature = metadata.signatures["serving_default"]
    assert signature.outputs["probabilities"].shape == (None, 4)
    assert signature.inputs["image_bytes"].shape is None


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_busy_server_is_asked_again(fake, png, play, status):
    fake.faults += [play.status(status), play.status(status)]
    with fake.client(retries=2) as client:
        assert client.predict(png())[0].class_id == 3
    assert len([r for r in fake.requests if r[0] == "POST"]) == 3


@pytest.mark.parametrize("fault", ["reset", "cut"])
def test_lost_connection_is_asked_again(fake, png, play, fault):
    fake.faults.append(getattr(play, fault))
    with fake.client(retries=1) as client:
        assert client.predict(png())[0].class_id == 3


@pytest.mark.parametrize("fault", ["reset", "cut"])
def test_lost_connections_end_as_unavailable(fake, png, play, fault):
    fake.faults += [getattr(play, fault)] * 2
    with fake.client(retries=1) as client, pytest.raises(ServerUnavailable):
        client.predict(png())
    assert not fake.faults


@pytest.mark.parametrize("status", [s for s in BY_HTTP_STATUS if s not in (404, 429, 502, 503, 504)])
def test_final_statuses_are_not_asked_again(fake, png, play, status):
    fake.faults += [play.status(status)] * 3
    with fake.client(retries=2) as client, pytest.raises(BY_HTTP_STATUS[status]) as caught:
        client.predict(png())
    assert caught.value.status == status
    assert len(fake.faults) == 2


def test_retry_after_is_honoured(fake, png, play):
    fake.faults.append(play.status(429, Retry_After="1"))
    began = time.monotonic()
    with fake.client(retries=1) as client:
        client.predict(png())
    assert time.monotonic() - began >= 1


def test_no_retries_means_one_attempt(fake, png, play):
    fake.faults.append(play.status(503))
    with fake.client(retries=0) as client, pytest.raises(ServerUnavailable):
        client.predict(png())


def test_slow_answer_is_a_deadline(fake, png, play):
    fake.faults.append(play.slow(1.5))
    with fake.client(timeout_s=0.3) as client, pytest.raises(DeadlineExceeded, match=r"within 0\.3 s"):
        client.predict(png())


def test_nobody_there(png):
    with ServingClient("http://127.0.0.1:9", retries=0) as client, pytest.raises(ServerUnavailable, match="refused"):
        client.predict(png())


@pytest.mark.parametrize("password", [None, "wrong", ""])
def test_wrong_or_no_password(fake, png, password):
    user = None if password is None else "ada"
    with fake.client(user=user, password=password) as client, pytest.raises(Unauthenticated) as caught:
        client.predict(png())
    assert ("needed" if password is None else "wrong") in str(caught.value)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"<html>hello</html>", "text/html"),
        (b'{"outputs": {"class_id": [1', "application/json"),
        (b"[1, 2]", "application/json"),
        (b"{}", "application/json"),
        (b'{"outputs": [1, 2]}', "application/json"),
        (b'{"outputs": {"probabilities": [[0.5, 0.5]]}}', "application/json"),
        (b'{"outputs": {"class_id": [7], "class_name": ["x"], "probabilities": [[1.0]]}}', "application/json"),
        (b'{"outputs": {"class_id": [0], "class_name": ["x", "y"], "probabilities": [[1.0]]}}', "application/json"),
        (b'{"outputs": {"class_id": [0.5], "class_name": ["x"], "probabilities": [[1.0]]}}', "application/json"),
        (b'{"outputs": {"class_id": [0], "class_name": ["x"], "probabilities": [["a"]]}}', "application/json"),
        (b'{"outputs": {"class_id": [0], "class_name": ["x"], "probabilities": [[1.0], [1.0, 2.0]]}}', "text/html"),
        (b"\xff\xfe", "application/json"),
        (b"", "application/json"),
    ],
)
def test_answers_of_something_else_are_bad_responses(fake, png, play, body, content_type):
    fake.faults.append(play.body(body, content_type))
    with fake.client() as client, pytest.raises(BadResponse):
        client.predict(png())


def test_page_not_found_is_not_mistaken_for_a_missing_model(fake, png, play):
    fake.faults.append(play.status(404))
    with fake.client(version=1) as client, pytest.raises(BadResponse, match="no model server"):
        client.predict(png())


def test_redirects_are_not_followed(fake, png, play):
    fake.faults.append(play.status(302, Location="http://127.0.0.1:9/"))
    with fake.client() as client, pytest.raises(BadResponse):
        client.predict(png())


def test_version_is_the_one_that_answered(fake, png):
    fake.versions = {1: "AVAILABLE", 2: "LOADING", 3: "END"}
    with fake.client() as client:
        assert client.predict(png())[0].version == 1
        fake.versions[2] = "AVAILABLE"
        assert client.predict(png(), version=2)[0].version == 2
    assert [version for _, version, _ in fake.predicted_by] == [1, 2]


def test_version_is_looked_up_about_once_a_second(fake, png, monkeypatch):
    with fake.client() as client:
        for _ in range(5):
            client.predict(png())
        assert len([r for r in fake.requests if r[0] == "GET"]) <= 2
        monkeypatch.setattr("serving.client.rest.time.monotonic", lambda: time.perf_counter() + 1e6)
        fake.versions[2] = "AVAILABLE"
        assert client.predict(png())[0].version == 2


def test_swap_between_lookup_and_request_loses_nothing(fake, png):
    def swap():
        fake.versions = {1: "END", 2: "AVAILABLE"}

    with fake.client() as client:
        client.predict(png())
        fake.before_predict = swap
        assert client.predict(png())[0].version == 2


def test_servers_that_do_not_agree_on_the_version_answer(fake, png):
    """One server has swapped, the other has not; they are asked in turn."""
    fake.replicas = [{1: "END", 2: "AVAILABLE"}, {1: "AVAILABLE"}]
    with fake.client() as client:
        for _ in range(5):
            told = client.predict(png())[0].version
            answered_by = fake.predicted_by[-1][1]
            assert told in (None, answered_by)
        fake.replicas = fake.replicas[:1]
        client.predict(png())
        assert client.predict(png())[0].version == 2


def test_a_label_stays_a_label_where_servers_do_not_agree(fake, png):
    fake.labels = {"stable": 1}
    both = {1: "AVAILABLE", 2: "AVAILABLE"}
    fake.replicas = [both, {2: "AVAILABLE"}, both]
    with fake.client(label="stable") as client:
        client.predict(png())
    assert fake.requests[-1][1].endswith("/labels/stable:predict")
    assert [version for _, version, _ in fake.predicted_by] == [1]


def test_explicit_version_is_never_replaced(fake, png):
    with fake.client(version=7) as client, pytest.raises(NotFound, match="7"):
        client.predict(png())


def test_unknown_model(fake, png):
    with fake.client(model="other/model") as client, pytest.raises(NotFound) as caught:
        client.predict(png())
    assert "other%2Fmodel" in str(caught.value)


def test_model_without_an_available_version(fake, png):
    fake.versions = {1: "LOADING"}
    with fake.client() as client, pytest.raises(ServerUnavailable, match="still being loaded"):
        client.predict(png())
    fake.versions = {1: "END"}
    with fake.client() as client, pytest.raises(NotFound, match="no version that is available"):
        client.predict(png())


def test_label_is_resolved_and_reported_as_a_version(fake, png):
    fake.versions, fake.labels = {1: "AVAILABLE", 2: "AVAILABLE"}, {"stable": 1}
    with fake.client(label="stable") as client:
        assert client.predict(png())[0].version == 1
        assert client.classes() == fake.names
    with fake.client(label="canary") as client, pytest.raises(InvalidArgument, match="canary") as caught:
        client.predict([png(), png()])
    assert caught.value.index is None


def test_large_batches_are_split_by_count(fake, png):
    with fake.client() as client:
        assert len(client.predict([png()] * 70)) == 70
    assert [count for _, _, count in fake.predicted_by] == [32, 32, 6]


def test_large_batches_are_split_below_the_gateways_limit(fake, png):
    photo = png() + b"\0" * 3_000_000  # decoders ignore what follows the end of a PNG
    with fake.client() as client:
        assert len(client.predict([photo] * 5)) == 5
    sizes = [size for method, _, size in fake.requests if method == "POST"]
    assert len(sizes) == 3
    assert max(sizes) <= client_base.MAX_REQUEST_BYTES


def test_an_image_of_exactly_the_limit_passes_and_one_beyond_does_not(fake, png):
    most = (client_base.MAX_REQUEST_BYTES - 1024 - 11) // 4 * 3
    with fake.client() as client:
        client.predict(png().ljust(most, b"\0"))
        before = len(fake.requests)
        with pytest.raises(InvalidInput, match="image 1: too large") as caught:
            client.predict([png(), png().ljust(most + 3, b"\0")])
    assert caught.value.index == 1
    assert len(fake.requests) == before
    assert max(size for _, _, size in fake.requests) <= client_base.MAX_REQUEST_BYTES


@pytest.mark.parametrize("count", [1, 2, 3, 7, 32, 40])
def test_refused_image_is_named(fake, png, play, count):
    for guilty in {0, count // 2, count - 1}:
        images = [png()] * count
        images[guilty] = png() + play.mark
        with fake.client() as client, pytest.raises(InvalidArgument, match=f"image {guilty}: Input is not") as caught:
            client.predict(images)
        assert caught.value.index == guilty
        assert caught.value.status == 400


def test_refusal_of_everything_blames_no_image(fake, png, play):
    with fake.client() as client, pytest.raises(InvalidArgument) as caught:
        client.predict([png() + play.mark] * 4)
    assert caught.value.index is None


def test_threads_share_one_client_and_its_connections(fake, png):
    with fake.client() as client, ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: client.predict(png())[0].class_id, range(80)))
    assert results == [3] * 80
    assert fake.connections <= 9


@pytest.mark.parametrize(
    "options",
    [
        {"url": "127.0.0.1:8080"},
        {"url": "ftp://127.0.0.1"},
        {"url": "http://"},
        {"url": "http://127.0.0.1:1/?a=b"},
        {"url": "http://ada:secret-word@127.0.0.1:1"},
        {"user": "ada", "password": None},
        {"user": None, "password": "secret-word"},
        {"user": "a:b", "password": "secret-word"},
        {"version": 1, "label": "stable"},
        {"model": ""},
    ],
)
def test_impossible_settings_are_refused_at_once(options):
    with pytest.raises(ValueError, match=r"\w") as caught:
        ServingClient(**{"url": "http://127.0.0.1:1", **options})
    assert "secret-word" not in str(caught.value)


def test_password_shows_nowhere(fake, png, play):
    fake.faults += [play.status(500)]
    with fake.client(retries=0) as client:
        assert fake.password not in repr(client)
        with pytest.raises(ServingError) as caught:
            client.predict(png())
    assert fake.password not in repr(caught.value)
    assert all(fake.password not in path for _, path, _ in fake.requests)


def test_netrc_is_not_consulted(fake, png, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {fake.user} password {fake.password}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with fake.client(user=None, password=None) as client, pytest.raises(Unauthenticated):
        client.predict(png())


def test_proxy_settings_do_not_reach_this_machine(fake, png, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with fake.client() as client:
        assert client.predict(png())[0].class_id == 3


def test_request_is_what_tensorflow_serving_expects(fake, png):
    with fake.client() as client:
        client.predict(png())
    assert fake.requests[-1][:2] == ("POST", "/v1/models/fashion_mnist/versions/1:predict")
    assert fake.last_body == {
        "signature_name": "serving_default",
        "inputs": {"image_bytes": [{"b64": base64.b64encode(png()).decode()}]},
    }
