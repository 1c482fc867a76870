"""What tests of evaluation share: photos, and a version of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluation_helpers import CLASSES, COLOURS, PHOTOS, SIZE, write_version
from PIL import Image

from training.datasets import Source


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Source:
    folder, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for part, count in PHOTOS.items():
        for name, colour in zip(CLASSES, COLOURS, strict=True):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                noisy = np.clip(generator.normal(colour, 40, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(noisy).save(folder / part / name / f"{number}.png")
    return Source(str(folder), image_size=SIZE)


@pytest.fixture(scope="session")
def models(photos, tmp_path_factory) -> Path:
    """The folder of models, with version 1 of `photos`, its head random."""
    base = tmp_path_factory.mktemp("models")
    write_version(base / "photos" / "1", photos, seed=0)
    return base
