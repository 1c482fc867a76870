"""The explanation methods by name: all of them `(network, images, class_ids) -> maps`.

To add one, write the function, with its equation and source, and an entry into `METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from training.explanation import cams, gradients, perturbation, shap_values
from training.explanation.errors import ExplanationError, nearest
from training.explanation.network import Network
from training.extras import INSTALL

Function = Callable[[Network, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Method:
    """One entry of the registry."""

    name: str
    title: str  # for pictures and tables
    function: Function
    layer: bool = False  # whether it looks at a layer, which the network then must be opened at
    signed: bool = False  # whether values below zero mean something: evidence against the class
    class_dependent: bool = True
    linear: Function | None = None  # the same before its ReLU, where that is linear in the logit
    background: bool = False  # whether it compares with other images, which the network then must have
    package: str | None = None  # of training/requirements-extra.txt, which it needs

    @property
    def installed(self) -> bool:
        """Whether what it needs is there."""
        return self.package is None or find_spec(self.package) is not None

    def maps(self, network: Network, images: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
        """The maps of a class an image.

        Args:
            network: opened at a layer where the method needs one.
            images: float32 (N, S, S, 3), as the model takes them.
            class_ids: int (N,), 0..C-1.

        Returns:
            float32 (N, h, w): the layer's resolution, the input's or a grid's.

        Raises:
            ExplanationError: no layer, no background, a class out of range, images of another shape, or a package that
                is not installed.
        """
        return self.function(self._ready(network), *network.checked(images, class_ids))

    def contrast(
        self, network: Network, images: np.ndarray, class_ids: np.ndarray, against_ids: np.ndarray
    ) -> np.ndarray:
        """What speaks for one class rather than for another, signed: the map of the one less the map of the other.

        For a linear method this is the map of the difference of the two logits.

        Raises:
            ExplanationError: the method does not depend on the class; else as `maps`.
        """
        if not self.class_dependent:
            raise ExplanationError(
                f"{self.name} gives every class the same map, so there is no contrast of two; expected one of "
                f"{', '.join(one.name for one in METHODS.values() if one.class_dependent)}"
            )
        function = self.linear or self.function
        self._ready(network)
        return function(network, *network.checked(images, class_ids)) - function(
            network, *network.checked(images, against_ids)
        )

    def _ready(self, network: Network) -> Network:
        if self.layer and network.layer is None:
            raise ExplanationError(f"{self.name} looks at a layer: expected a network opened at one, got none")
        return network


METHODS = {
    entry.name: entry
    for entry in (
        Method("grad_cam", "Grad-CAM", cams.grad_cam, layer=True, linear=cams.signed_grad_cam),
        Method("grad_cam_plus_plus", "Grad-CAM++", cams.grad_cam_plus_plus, layer=True),
        Method("layer_cam", "LayerCAM", cams.layer_cam, layer=True),
        Method("hires_cam", "HiResCAM", cams.hires_cam, layer=True, signed=True, linear=cams.hires_cam),
        Method("score_cam", "Score-CAM", cams.score_cam, layer=True),
        Method("eigen_cam", "Eigen-CAM", cams.eigen_cam, layer=True, class_dependent=False),
        Method("saliency", "Saliency", gradients.saliency),
        Method("smooth_grad", "SmoothGrad", gradients.smooth_grad),
        Method(
            "integrated_gradients", "Integrated gradients", gradients.integrated_gradients,
            signed=True, linear=gradients.integrated_gradients,
        ),
        Method("occlusion", "Occlusion", perturbation.occlusion, signed=True, linear=perturbation.occlusion),
        Method(
            "shap", "SHAP (expected gradients)", shap_values.shap,
            signed=True, linear=shap_values.shap, background=True, package=shap_values.PACKAGE,
        ),
    )
}  # fmt: skip


def method(name: str) -> Method:
    """The method of that name.

    Raises:
        ExplanationError: there is none; the message lists them, and the nearest.
    """
    if name not in METHODS:
        raise ExplanationError(f"no method {name!r}{nearest(name, METHODS)}; the methods are {', '.join(METHODS)}")
    return METHODS[name]


def installed(names: Sequence[str]) -> tuple[list[str], str | None]:
    """Those whose package is installed, and a line about the others, None where there are none."""
    there = [name for name in names if METHODS[name].installed]
    missing = [name for name in names if name not in there]
    advice = f"left out: {', '.join(missing)}: not installed; {INSTALL}"
    return there, advice if missing else None
