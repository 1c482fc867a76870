"""What the client gives back: small frozen dataclasses around numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


class Score(NamedTuple):
    """One line of a top-k list."""

    class_id: int
    class_name: str
    probability: float


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model says about one image.

    Attributes:
        class_id: the class with the highest probability.
        class_name: its name.
        probabilities: float32 (C,), in order of the class id.
        version: the model version that answered; None when the server does not tell.
        latency_ms: time of the request that carried this image, milliseconds, the answer decoded; failed attempts
            before it not counted. Images that travelled together share it.
    """

    class_id: int
    class_name: str
    probabilities: Floats
    version: int | None
    latency_ms: float

    @property
    def probability(self) -> float:
        """Probability of the predicted class."""
        return float(self.probabilities[self.class_id])

    def top(self, k: int, classes: Sequence[str]) -> list[Score]:
        """The k most probable classes, best first, ties by the lower id.

        Args:
            k: how many; more than there are classes gives all.
            classes: their names in order of the id, from `client.classes(prediction.version)`.

        Raises:
            ValueError: k is below 1, or `classes` are those of another model.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        if len(classes) != len(self.probabilities):
            raise ValueError(f"{len(classes)} class names for {len(self.probabilities)} probabilities")
        order = np.argsort(-self.probabilities, kind="stable")[:k]
        return [Score(int(i), classes[int(i)], float(self.probabilities[i])) for i in order]


@dataclass(frozen=True, eq=False)
class Explanation(Prediction):
    """A prediction and, for every class, where in the picture the evidence lies.

    Attributes:
        cams: float32 (C, h, w), signed Grad-CAM maps of the logits before the ReLU, in logit units.
            The h x w grid covers exactly the square that `preprocess` returns as the view.
    """

    cams: Floats = field(repr=False)

    def cam(self, class_id: int) -> Floats:
        """Grad-CAM of one class, (h, w): evidence for it, never negative, not normalised (all zero: no evidence)."""
        positive: Floats = np.maximum(self.cams[class_id], np.float32(0))
        return positive

    def contrast(self, a: int, b: int) -> Floats:
        """Why a rather than b, (h, w): positive where the evidence for a outweighs that for b, negative where less."""
        difference: Floats = self.cams[a] - self.cams[b]
        return difference


@dataclass(frozen=True, eq=False)
class FineExplanation(Prediction):
    """A prediction and where in the picture the evidence for one class lies, at finer resolutions than `Explanation`.

    Attributes:
        explained: the class id that the maps are about.
        maps: LayerCAM maps, float32 (h, w), never negative, not normalised, by the name that the model gives them:
            map_12 is 12 x 12. Each grid covers exactly the square that `preprocess` returns as the view.
    """

    explained: int
    maps: Mapping[str, Floats] = field(repr=False)

    @property
    def finest(self) -> Floats:
        """The map with the most rows."""
        return max(self.maps.values(), key=len)


@dataclass(frozen=True, eq=False)
class View:
    """What the model sees of a picture.

    Attributes:
        image: uint8 (h, w) or (h, w, 3), after trimming, padding and resizing.
        box: float32 (4,), where that square lies in the upright photo: ymin, xmin, ymax, xmax as fractions of its
            height and width. Padding takes it outside 0..1.
    """

    image: Bytes = field(repr=False)
    box: Floats


@dataclass(frozen=True)
class VersionStatus:
    """State of one version of a model: START, LOADING, AVAILABLE, UNLOADING or END."""

    version: int
    state: str
    error_code: str = "OK"
    error_message: str = ""

    @property
    def available(self) -> bool:
        """Whether this version answers requests."""
        return self.state == "AVAILABLE"


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a signature; a None in the shape is a free dimension, a shape of None a free rank."""

    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Signature:
    """One way of calling the model."""

    method_name: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


@dataclass(frozen=True)
class ModelMetadata:
    """Which version would answer and how it can be called."""

    model: str
    version: int
    signatures: Mapping[str, Signature]
