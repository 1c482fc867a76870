"""The gate: what gets through, what does not, and what the manifest then says; with small SavedModels as versions."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from training import gate, manifest
from training.datasets import DataError, Split
from training.gate import GateError, add_gate_arguments, in_service, judge, mcnemar

CLASSES = ["dark", "light"]
LEVELS = np.arange(200, dtype=np.uint8)  # an image each, grey of that level
TEST = Split(np.broadcast_to(LEVELS[:, None, None, None], (200, 4, 4, 1)).copy(), (LEVELS >= 100).astype(np.int64))


class Threshold(tf.Module):
    """Calls a picture light whose first pixel is at least `threshold`."""

    def __init__(self, threshold: int):
        super().__init__()
        self.threshold = threshold

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve(self, image_bytes):
        levels = tf.map_fn(lambda one: tf.io.decode_png(one)[0, 0, 0], image_bytes, fn_output_signature=tf.uint8)
        return {"class_id": tf.cast(levels >= self.threshold, tf.int64)}


def version(directory: Path, threshold: int, classes=CLASSES, **described) -> Path:
    module = Threshold(threshold)
    tf.saved_model.save(module, str(directory), signatures={"serving_default": module.serve})
    (directory / "assets.extra").mkdir()
    manifest.write(directory, {"name": "levels", "version": None, "classes": classes} | described)
    return directory


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Version 1 is wrong on 10 of the 200 images (95 %)."""
    base_path = tmp_path_factory.mktemp("models") / "levels"
    version(base_path / "1", 110)
    return base_path


@pytest.fixture(autouse=True)
def no_config(monkeypatch, tmp_path):
    monkeypatch.setattr(gate, "CONFIG", tmp_path / "models.config")


def decide(candidate: Path, base: Path, **options) -> dict:
    return judge(candidate, base, lambda version_dir: TEST, **options)


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (1, 9, 0.021484375), (0, 10, 0.001953125), (40, 60, 0.0568879)],
)
def test_mcnemar_is_the_exact_binomial(first, second, p):
    assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(p, rel=1e-5)


def test_the_first_version_needs_no_comparison(tmp_path):
    def not_called(version_dir):
        raise AssertionError

    verdict = judge(tmp_path, tmp_path / "none", not_called)
    assert verdict == {"decision": "published", "reason": "the first version of its model"}


def test_a_better_one_passes_and_the_figures_are_kept(base, tmp_path):
    verdict = decide(version(tmp_path / "export", 98), base)
    assert verdict["decision"] == "published"
    assert (verdict["against"], verdict["images"]) == (1, 200)
    assert (verdict["accuracy"], verdict["accuracy_in_service"]) == (0.99, 0.95)
    assert (verdict["only_candidate_right"], verdict["only_in_service_right"]) == (10, 2)
    assert verdict["mcnemar_p"] == pytest.approx(mcnemar(10, 2))
    assert "+0.0400 against version 1" in verdict["reason"]


def test_a_worse_one_is_refused_unless_the_tolerance_allows_it_or_it_is_forced(base, tmp_path):
    candidate = version(tmp_path / "export", 112)  # 94 %
    with pytest.raises(GateError) as caught:
        decide(candidate, base)
    message = str(caught.value)
    assert "candidate 0.9400, version 1 in service 0.9500 on 200 test images" in message
    assert "-0.0100 where -0.0020 is allowed" in message
    assert "--force REASON" in message
    assert decide(candidate, base, tolerance=0.01)["decision"] == "published"
    forced = decide(candidate, base, force="the old one must go")
    assert (forced["decision"], forced["reason"]) == ("forced", "the old one must go")
    assert "-0.0100 where -0.0020 is allowed" in forced["objection"]


def test_other_classes_cannot_be_compared(base, tmp_path):
    candidate = version(tmp_path / "export", 100, classes=["night", "day"])
    with pytest.raises(GateError, match="knows the classes night, day; version 1 in service knows dark, light"):
        decide(candidate, base)
    assert decide(candidate, base, force="new names")["decision"] == "forced"


def test_without_test_images_only_force_helps(base, tmp_path):
    def missing(version_dir):
        raise DataError("no such folder")

    candidate = version(tmp_path / "export", 100)
    with pytest.raises(GateError, match="no such folder.*--force REASON"):
        judge(candidate, base, missing)
    assert judge(candidate, base, missing, force="measured elsewhere")["decision"] == "forced"


def test_each_is_measured_at_its_own_size(base, tmp_path):
    candidate = version(tmp_path / "export", 98, view={"size": 8})

    def load(version_dir: Path) -> Split:
        sizes.append(version_dir)
        return TEST

    sizes = []
    assert judge(candidate, base, load)["accuracy"] == 0.99
    assert sizes == [candidate, base / "1"]
    others = Split(TEST.images, TEST.labels[::-1])
    with pytest.raises(GateError, match="the test images of the candidate are not those of version 1"):
        judge(candidate, base, lambda version_dir: TEST if version_dir == candidate else others)


def test_another_split_is_no_comparison(tmp_path):
    trained = {"dataset": "photos", "split_seed": 0, "test_fraction": 0.15}
    version(tmp_path / "levels/1", 110, training=trained)
    candidate = version(tmp_path / "export", 98, training=trained | {"split_seed": 1})
    with pytest.raises(GateError, match="split_seed is 1, for version 1 in service it was 0"):
        decide(candidate, tmp_path / "levels")
    named = {"dataset": "fashion_mnist"}  # has a test set of its own
    version(tmp_path / "own/levels/1", 110, training=trained | named)
    candidate = version(tmp_path / "other", 98, training=trained | named | {"split_seed": 1})
    assert decide(candidate, tmp_path / "own/levels")["decision"] == "published"


@pytest.mark.parametrize("spoil", ["empty", "no manifest", "half a manifest", "no graph", "no SavedModel"])
def test_an_unreadable_version_in_service_keeps_others_out_unless_forced(tmp_path, spoil):
    broken = tmp_path / "levels/1"
    if spoil == "empty":
        broken.mkdir(parents=True)
    else:
        version(broken, 110)
    if "manifest" in spoil:
        path = broken / manifest.FILE
        path.write_text("{") if "half" in spoil else path.unlink()
    if spoil == "no graph":
        (broken / "saved_model.pb").unlink()
    if spoil == "no SavedModel":
        (broken / "saved_model.pb").write_bytes(b"no graph")
    candidate = version(tmp_path / "export", 98)
    with pytest.raises(GateError, match="not published: .*--force REASON"):
        decide(candidate, tmp_path / "levels")
    assert decide(candidate, tmp_path / "levels", force="it is broken")["decision"] == "forced"


def test_a_tolerance_in_per_cent_is_refused(capsys):
    parser = argparse.ArgumentParser()
    add_gate_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--tolerance", "2"])
    assert "expected a fraction, 0..1, got 2" in capsys.readouterr().err


def test_the_same_graph_needs_no_comparison(base):
    verdict = decide(base / "1", base)
    assert verdict["reason"] == "the same graph as version 1"


def config(label: str, policy: str = "") -> str:
    return (
        'model_config_list { config { name: "x" base_path: "/models/levels" model_platform: "tensorflow" '
        f"{policy} {label} }} }}"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, 3),
        (config(""), 3),
        (config('version_labels { key: "stable" value: 2 }'), 2),
        (config('version_labels { key: "canary" value: 2 }'), 3),
        (config("", "model_version_policy { specific { versions: 1 versions: 2 } }"), 2),
        (config('version_labels { key: "stable" value: 9 }'), 3),  # no longer there
        (config('version_labels { key: "stable" value: 1 }').replace("levels", "others"), 3),
        (config('version_labels { key: "stable" value: 1 }').replace("/models", "/elsewhere"), 3),
    ],
)
def test_in_service_is_what_the_model_config_says(tmp_path, text, expected):
    for number in (1, 2, 3):
        (tmp_path / "models/levels" / str(number)).mkdir(parents=True)
    file = tmp_path / "config/models.config"
    file.parent.mkdir()
    if text is not None:
        file.write_text(text)
    assert in_service(tmp_path / "models/levels", file) == expected


def test_in_service_is_what_this_machine_s_model_config_says_of_a_folder_elsewhere(tmp_path):
    for number in (1, 2):
        (tmp_path / "levels" / str(number)).mkdir(parents=True)
    file = tmp_path / "config/models.config"
    (file.parent / "local").mkdir(parents=True)
    text = config('version_labels { key: "stable" value: 1 }')
    file.write_text(text)
    assert in_service(tmp_path / "levels", file) == 2
    (file.parent / "local/models.config").write_text(text.replace("/models/levels", str(tmp_path / "levels")))
    assert in_service(tmp_path / "levels", file) == 1


def test_a_broken_model_config_is_named(tmp_path):
    (tmp_path / "models.config").write_text("model_config_list {")
    with pytest.raises(GateError, match="models.config cannot be read"):
        in_service(tmp_path / "levels", tmp_path / "models.config")


def test_what_the_gate_says_is_json(base, tmp_path):
    json.dumps(decide(version(tmp_path / "export", 100), base))
