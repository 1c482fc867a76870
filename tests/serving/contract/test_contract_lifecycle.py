"""Versions come and go, configs are reloaded; each test has a model of its own."""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from embedded_server import wait_until
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest

# What a version directory without a model is, and what the status says of it.
EMPTY = (
    "Could not find SavedModel .pb or .pbtxt at supplied export directory path: {}. "
    "Check that the directory exists and that you have the right permissions for accessing it."
)


class Live:
    """A model of the test's own, with version 1, served beside the others."""

    def __init__(self, target: Any) -> None:
        self.target = target
        self.name = f"live-{uuid.uuid4().hex[:8]}"  # statuses stay for as long as the server runs
        self.base = target.directory / self.name
        self.publish(1)

    def publish(self, version: int | str, like: str = "plain/1") -> Path:
        return self.target.publish(self.name, version, like)

    def config(self) -> ReloadConfigRequest:
        request = self.target.config()
        self.add_to(request)
        return request

    def add_to(self, request: ReloadConfigRequest) -> None:
        base_path = self.target.mounted(self.name)
        request.config.model_config_list.config.add(name=self.name, base_path=base_path, model_platform="tensorflow")

    def reload(self, request: ReloadConfigRequest) -> Any:
        return self.target.reload(request)

    def refusal(self, request: ReloadConfigRequest) -> tuple[str, str]:
        return self.target.failure(self.target.models.HandleReloadConfigRequest, request)

    def states(self) -> dict[int, str]:
        return self.target.states(self.name)

    def await_states(self, *wanted: tuple[int, str]) -> None:
        self.target.await_states(self.name, *wanted)

    def ask(self, path: str = "") -> Any:
        return self.target.post(f"{self.name}{path}:predict", {"instances": [0.0]})

    def value(self, path: str = "") -> float:
        return float(self.ask(path).json()["predictions"][0])

    @contextmanager
    def kept_asking(self) -> Iterator[list[tuple[int, str]]]:
        """Ask all the time; gives the growing list of answers."""
        answers: list[tuple[int, str]] = []
        stop = threading.Event()

        def run() -> None:
            while not stop.wait(0.01):
                answer = self.ask()
                answers.append((answer.status_code, answer.text))

        thread = threading.Thread(target=run)
        thread.start()
        try:
            wait_until(lambda: len(answers) > 3)
            yield answers
            seen = len(answers)
            wait_until(lambda: len(answers) > seen + 3)
        finally:
            stop.set()
            thread.join()


@pytest.fixture
def live(changing: Any) -> Iterator[Live]:
    made = Live(changing)
    made.reload(made.config())
    yield made
    changing.reload(changing.config())
    shutil.rmtree(made.base)


def failure(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


def own(request: ReloadConfigRequest) -> Any:
    """The config of the test's own model, which is the last one."""
    return request.config.model_config_list.config[-1]


def test_a_new_version_replaces_the_old_one_with_no_request_failed(live: Live) -> None:
    with live.kept_asking() as answers:
        live.publish(2, "plain/2")
        live.await_states((1, "END"), (2, "AVAILABLE"))
    assert {status for status, _ in answers} == {200}
    assert ("1.0" in answers[0][1], "2.0" in answers[-1][1]) == (True, True)
    assert failure(live.ask("/versions/1")) == (404, f"Servable not found for request: Specific({live.name}, 1)")
    states = live.target.get(f"/v1/models/{live.name}").json()["model_version_status"]
    assert [(one["version"], one["state"]) for one in states] == [("2", "AVAILABLE"), ("1", "END")]
    assert states[1]["status"] == {"error_code": "OK", "error_message": ""}


def test_a_broken_version_leaves_the_old_one_serving(live: Live) -> None:
    empty = live.base / "3"
    empty.mkdir()
    live.await_states((3, "END"))
    assert live.target.status(live.name) == {
        1: ("AVAILABLE", 0, ""),
        3: ("END", grpc.StatusCode.NOT_FOUND.value[0], EMPTY.format(live.target.mounted(live.name, "3"))),
    }
    entry = live.target.get(f"/v1/models/{live.name}/versions/3").json()["model_version_status"][0]
    assert entry["status"]["error_code"] == "NOT_FOUND"
    assert live.value() == 1.0
    for file in (live.target.directory / "plain" / "2").iterdir():  # completed too late
        (shutil.copytree if file.is_dir() else shutil.copy)(file, empty / file.name)
    (live.base / "4").mkdir()
    (live.base / "4" / "saved_model.pb").write_bytes(b"no model")
    live.await_states((4, "END"))
    assert live.target.status(live.name)[4][1] != 0
    assert live.states() == {1: "AVAILABLE", 3: "END", 4: "END"}
    live.publish(5, "plain/3")
    live.await_states((5, "AVAILABLE"), (1, "END"))
    assert live.value() == 3.0


def test_warm_up_that_fails_fails_the_version(live: Live) -> None:
    beside = live.base / ".6"
    shutil.copytree(live.target.directory / "plain" / "2", beside)
    (beside / "assets.extra").mkdir()
    shutil.copy(live.target.directory / "warm/7/assets.extra/tf_serving_warmup_requests", beside / "assets.extra")
    beside.rename(live.base / "6")  # records for a model with other inputs
    live.await_states((6, "END"))
    code, message = live.target.status(live.name)[6][1:]
    assert code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert message.startswith("Signature input alias: x(feed name: serving_default_x:0) not found in request")
    shutil.copytree(live.target.directory / "plain" / "2", beside)
    (beside / "assets.extra").mkdir()
    (beside / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"this is not a TFRecord")
    beside.rename(live.base / "7")
    live.await_states((7, "END"))
    code, message = live.target.status(live.name)[7][1:]
    assert code == grpc.StatusCode.DATA_LOSS.value[0]
    assert "Please verify your warmup data is in TFRecord format." in message
    assert live.value() == 1.0


def test_a_vanished_version_brings_the_one_below_back(live: Live) -> None:
    live.publish(2, "plain/2")
    live.await_states((1, "END"), (2, "AVAILABLE"))
    with live.kept_asking() as answers:
        shutil.rmtree(live.base / "2")
        live.await_states((1, "AVAILABLE"), (2, "END"))
    assert {status for status, _ in answers} == {200}
    assert live.value() == 1.0


def test_without_a_version_directory_a_model_is_unloaded(live: Live) -> None:
    shutil.rmtree(live.base / "1")
    live.await_states((1, "END"))
    assert failure(live.ask()) == (404, f"Servable not found for request: Latest({live.name})")
    live.publish("0001", "plain/3")  # zeros before the number do not matter
    live.await_states((1, "AVAILABLE"))
    assert live.value("/versions/1") == 3.0


def test_names_that_are_no_versions(live: Live) -> None:
    for name in ("x", "1.0", "1_0", "9" * 20):
        live.publish(name)
    live.publish(2, "plain/2")
    live.await_states((2, "AVAILABLE"), (1, "END"))
    assert set(live.states()) == {1, 2}


def test_a_reload_changes_the_policy(live: Live) -> None:
    live.publish(2, "plain/2")
    live.await_states((1, "END"), (2, "AVAILABLE"))
    request = live.config()
    own(request).model_version_policy.all.SetInParent()
    response = live.reload(request)
    assert (response.status.error_code, response.status.error_message) == (0, "")
    live.await_states((1, "AVAILABLE"), (2, "AVAILABLE"))
    own(request).model_version_policy.specific.versions.append(1)
    live.reload(request)
    live.await_states((1, "AVAILABLE"), (2, "END"))
    assert live.value() == 1.0


def test_labels(live: Live) -> None:
    live.publish(2, "plain/2")
    request = live.config()
    own(request).model_version_policy.all.SetInParent()
    live.reload(request)
    live.await_states((1, "AVAILABLE"), (2, "AVAILABLE"))
    own(request).version_labels["stable"] = 1
    live.reload(request)
    assert live.value("/labels/stable") == 1.0
    assert live.target.get(f"/v1/models/{live.name}/labels/stable/metadata").json()["model_spec"]["version"] == "1"
    own(request).version_labels["stable"] = 2
    live.reload(request)
    assert live.value("/labels/stable") == 2.0
    # A label that is in use goes to a version that serves, and to no other.
    own(request).version_labels["stable"] = 7
    assert live.refusal(request) == (
        "FAILED_PRECONDITION",
        f"Request to assign label to version 7 of model {live.name}, which is not currently available for inference",
    )
    assert live.value("/labels/stable") == 2.0
    # A new one may wait for its version: --allow_version_labels_for_unavailable_models.
    own(request).version_labels["stable"] = 2
    own(request).version_labels["soon"] = 7
    live.reload(request)
    assert failure(live.ask("/labels/soon")) == (404, f"Servable not found for request: Specific({live.name}, 7)")
    live.publish(7, "plain/3")
    live.await_states((7, "AVAILABLE"))
    assert live.value("/labels/soon") == 3.0
    del own(request).version_labels["soon"]
    live.reload(request)
    answer = live.ask("/labels/soon")
    assert answer.json() == {"error": "Unrecognized servable version label: soon"}


def test_a_reload_adds_and_drops_models(live: Live) -> None:
    new = Live(live.target)
    request = live.config()
    new.add_to(request)
    request.metric_names.extend(["/tensorflow/serving/request_example_count_total", "/no/such/metric"])
    response = live.reload(request)
    assert {(one.name, one.int64_value_increase) for one in response.metric} == {
        ("/tensorflow/serving/request_example_count_total", 0),
        ("/no/such/metric", 0),
    }
    assert new.value() == 1.0  # loaded before the call returned
    live.reload(live.config())
    new.await_states((1, "END"))
    assert failure(new.ask()) == (404, f"Servable not found for request: Latest({new.name})")
    live.reload(request)  # and back
    wait_until(lambda: new.ask().status_code == 200)


def test_a_reload_that_is_refused(live: Live) -> None:
    before = live.states()
    twice = live.config()
    twice.config.model_config_list.config.append(own(twice))
    relative = live.config()
    own(relative).base_path = "some/where"
    both = live.config()
    own(both).model_type = 1
    changed = live.config()
    own(changed).model_platform = "other"
    custom = ReloadConfigRequest()
    custom.config.custom_model_config.SetInParent()
    only_lists = (
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported"
    )
    for request, error in (
        (twice, f"Illegal to list model {live.name} multiple times in config list"),
        (relative, f"Expected model {live.name} to have an absolute path or URI; got base_path()=some/where"),
        (both, "Illegal setting both ModelServerConfig::model_type (deprecated) and "
               "ModelServerConfig::model_platform."),
        (changed, f"Illegal to change a model's platform. For model {live.name} platform was tensorflow and new "
                  "platform requested is other"),
        (ReloadConfigRequest(), only_lists),
        (custom, only_lists),
    ):  # fmt: skip
        assert live.refusal(request) == ("INVALID_ARGUMENT", error)
    assert live.states() == before
    assert live.value() == 1.0


def test_a_new_model_that_does_not_load(live: Live) -> None:
    bad = Live(live.target)
    (bad.base / "1").rename(bad.base / "no version")
    (bad.base / "8").mkdir()
    request = live.config()
    bad.add_to(request)
    why = f"{{name: {bad.name} version: 8}} due to error: NOT_FOUND: {EMPTY.format(live.target.mounted(bad.name, '8'))}"
    assert live.refusal(request) == ("UNKNOWN", f"1 model(s) did not become available: {{{{{why}}}, }}")
    assert bad.states() == {8: "END"}
    assert live.reload(request).status.error_code == 0  # it is no longer new


def test_a_platform_nobody_knows_stays_in_the_way(live: Live) -> None:
    """The real server remembers it though it refused it: the model has to go before it can have another."""
    odd = Live(live.target)
    request = live.config()
    odd.add_to(request)
    own(request).model_platform = "other"
    assert live.refusal(request) == ("INVALID_ARGUMENT", f"Model {odd.name} requests unsupported platform other")
    own(request).model_platform = "tensorflow"
    assert live.refusal(request) == (
        "INVALID_ARGUMENT",
        f"Illegal to change a model's platform. For model {odd.name} platform was other and new platform requested is "
        "tensorflow",
    )
    live.reload(live.config())
    live.reload(request)
    assert odd.value() == 1.0
