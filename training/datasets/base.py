"""What every dataset is to the rest of training: uint8 images, labels, class names, and the way there."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from PIL import Image

# fashion_mnist: any picture becomes a grey, light object on black, trimmed and centred, as that dataset was made.
# colour: the picture is resized as it is.
Preprocessing = Literal["fashion_mnist", "colour"]


class DataError(ValueError):
    """A dataset that is missing, truncated or not what it should be."""


@dataclass(frozen=True)
class Source:
    """Which dataset, and how to read it. Loaders ignore what does not concern them."""

    dataset: str = "fashion_mnist"  # a name, or the path of a folder, CSV or .npz
    data_dir: str | None = None  # of a dataset by name: where its files are
    image_size: int = 96  # pixels; photos of any size are brought to it, both sides
    class_names: tuple[str, ...] | None = None  # for labels that are numbers
    on_corrupt: Literal["refuse", "skip"] = "refuse"  # images that cannot be read
    validation_fraction: float = 0.1  # of what is not test, where no validation split is given
    test_fraction: float = 0.15  # where no test split is given
    split_seed: int = 0


@dataclass(frozen=True)
class Split:
    images: np.ndarray  # uint8 0..255, (N, H, W, C) with C = 1 or 3
    labels: np.ndarray  # int64, (N,)

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int | None) -> Split:
        """The first `count` images; all of them for None."""
        return Split(self.images[:count], self.labels[:count])


@dataclass(frozen=True)
class TrainingData:
    train: Split
    validation: Split
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    facts: Mapping[str, Any] = field(default_factory=dict)  # goes into the manifest: where from, what was left out


def light_on_dark(images: np.ndarray) -> np.ndarray:
    """Grey images, uint8 (N, H, W, 1), as the served graph turns them: negated where the border's median is above 127.

    The same as training.preprocessing.polarised, which is TensorFlow's and of one image.
    """
    border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)[..., 0]
    middle = border.shape[1] // 2
    light = np.partition(border, middle, axis=1)[:, middle] > 127
    if not light.any():
        return images
    turned = images.copy()
    turned[light] = 255 - turned[light]
    return turned


def png(image: np.ndarray) -> bytes:
    """One image, uint8 (H, W, 1 or 3), as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
