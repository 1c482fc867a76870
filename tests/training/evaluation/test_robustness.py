"""Robustness: figures by hand, and an interrupted run that goes on."""

from __future__ import annotations

import numpy as np
import pytest

from training.datasets import Split
from training.evaluation.cache import Cache
from training.evaluation.corruptions import CORRUPTIONS
from training.evaluation.robustness import robustness, summary
from training.evaluation.served import Served


def test_figures():
    labels = np.repeat([0, 1], 10)
    halved = labels.copy()
    halved[:10] = 1
    report = summary(labels, labels, {"noise": {10.0: labels, 25.0: halved}}, ["a", "b", "unseen"])
    assert report["accuracy"] == 1.0
    assert [point["accuracy"] for point in report["curves"]["noise"]] == [1.0, 0.5]
    assert report["mean_accuracy"] == 0.75
    assert report["per_class"] == {"a": {"untouched": 1.0, "noise": 0.5}, "b": {"untouched": 1.0, "noise": 1.0}}
    assert report["worst_groups"][0] == {"class": "a", "corruption": "noise", "accuracy": 0.5, "untouched": 1.0}


def test_small_groups_are_not_ranked():
    report = summary(np.array([0, 0]), np.array([0, 0]), {"noise": {10.0: np.array([1, 1])}}, ["a", "b"])
    assert report["worst_groups"] == []


class Interrupted(Served):
    """Is stopped at its third question."""

    asked = 0

    def ask(self, *args):
        self.asked += 1
        if self.asked == 3:
            raise KeyboardInterrupt
        return super().ask(*args)


def test_an_interrupted_run_goes_on(models, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    subset, cache = Split(images, np.array([0, 1, 2] * 2)), Cache(tmp_path)
    served = Interrupted(models / "photos" / "1")
    with pytest.raises(KeyboardInterrupt):
        robustness(served, subset, ["a", "b", "c"], cache)
    report = robustness(served, subset, ["a", "b", "c"], cache)
    all_questions = 1 + sum(len(one.strengths) for one in CORRUPTIONS.values())
    assert served.asked == all_questions + 1
    assert report["images"] == 6
    assert report["curves"].keys() == CORRUPTIONS.keys()
