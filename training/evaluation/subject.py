"""What is evaluated: a version, the test images that it is asked about, and what it makes of them, kept once known."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training import manifest
from training.datasets import Source, Split, TrainingData, load_training, png
from training.datasets.splitting import some_of_every
from training.evaluation import projection
from training.evaluation.cache import Cache, digest_of
from training.evaluation.features import features
from training.evaluation.served import Served
from training.explanation.version import Version, open_directory
from training.versions import MODEL_FILE


@dataclass(frozen=True)
class Effort:
    """How many images, and how long."""

    name: str
    test_images: int | None  # None: all
    corrupted_images: int
    candidates: int  # training images that neighbours are looked for in
    points: int  # images in a plane
    methods: tuple[str, ...]  # of projection.METHODS
    batch_sizes: tuple[int, ...]
    calls: int  # of each batch size
    explained: int  # test images of a class whose explanations are shown on average
    shap: bool  # whether by SHAP, too
    faithfulness_images: int  # that explanations are put to the test on; 0: that is left out


FULL = Effort(
    "full",
    test_images=None,
    corrupted_images=1000,
    candidates=10_000,
    points=3000,
    methods=tuple(projection.METHODS),
    batch_sizes=(1, 2, 4, 8, 16, 32, 64),
    calls=30,
    explained=20,
    shap=True,
    faithfulness_images=500,
)
QUICK = Effort(
    "quick",
    test_images=2000,
    corrupted_images=200,
    candidates=1500,
    points=1000,
    methods=("PCA",),
    batch_sizes=(1, 8, 32),
    calls=10,
    explained=4,
    shap=False,
    faithfulness_images=0,
)


class Subject:
    """A version and its data.

    Args:
        version_dir: a version directory.
        source: its data.
        effort: FULL or QUICK.
        cache_dir: where what was found is kept.

    Raises:
        DataError: the data are not there, or of other classes or another shape than the version's.
        FileNotFoundError: no manifest.
    """

    def __init__(self, version_dir: Path, source: Source, effort: Effort, cache_dir: Path):
        self.version_dir = version_dir
        self.source = source
        self.effort = effort
        self.described: dict[str, Any] = manifest.read(version_dir)
        self.classes: list[str] = self.described["classes"]
        self.training: TrainingData = load_training(source)
        manifest.check_classes(self.classes, list(self.training.classes), version_dir, f"the dataset {source.dataset}")
        self.whole_test = manifest.load_test_of(version_dir, source)
        self.positions = _some(self.whole_test.labels, effort.test_images)  # of `test` in `whole_test`
        self.test = _at(self.whole_test, self.positions)
        self.served = Served(version_dir)
        images = digest_of(self.training.train, self.training.validation, self.test)
        self.cache = Cache(cache_dir, version=_digest(version_dir), data=images)

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """What is answered to the test images, float32 (N, C)."""
        return self.probabilities_of(self.served)

    def probabilities_of(self, served: Served) -> np.ndarray:
        """What a version, this or another, answers to the test images, float32 (N, C)."""
        return self.cache.array(
            "probabilities",
            {"of": _digest(served.version_dir)},
            lambda: served.ask(
                [png(image) for image in self._test_of(served.version_dir).images], "probabilities", "evaluating"
            ),
        )

    def _test_of(self, version_dir: Path) -> Split:
        """The test images as a version, this or another, sees them: photos are read at its size."""
        if manifest.read(version_dir)["view"] == self.described["view"]:
            return self.test
        return _at(manifest.load_test_at_its_size(version_dir, self.source), self.positions)

    def subset(self, count: int) -> Split:
        """About `count` of the test images, some of every class."""
        return _at(self.test, _some(self.test.labels, count))

    @property
    def model_file(self) -> Path:
        """The Keras model; what needs it is left out where it is missing."""
        return self.version_dir / MODEL_FILE

    @functools.cached_property
    def opened(self) -> Version:
        """With its Keras model."""
        return open_directory(self.version_dir, self.source)

    def features(self, split: Split, what: str) -> np.ndarray:
        """The features of images, float32 (N, K); `what` they are, for the progress bar."""
        return self.cache.array(
            "features",
            {"images": digest_of(split)},
            lambda: features(self.opened.model, self.opened.view, split.images, f"looking at {what}"),
        )

    def candidates(self) -> tuple[np.ndarray, np.ndarray]:
        """The positions of some training images, int64 (M,), and their features, float32 (M, K)."""
        positions = _some(self.training.train.labels, self.effort.candidates)
        return positions, self.features(_at(self.training.train, positions), "training images")


def _some(labels: np.ndarray, count: int | None) -> np.ndarray:
    """The positions of about `count` images, classes in proportion; of all for None."""
    return some_of_every(labels, count or len(labels), seed=0)


def _at(split: Split, positions: np.ndarray) -> Split:
    return Split(split.images[positions], split.labels[positions])


def _digest(version_dir: Path) -> str:
    """Of all files of a version."""
    return hashlib.sha256(json.dumps(manifest.hashes(version_dir), sort_keys=True).encode()).hexdigest()
