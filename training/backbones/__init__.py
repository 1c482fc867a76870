"""Backbones by name: what turns the scaled image into features, how it wants its pixels, and where Grad-CAM looks.

To add one, write an entry into `_BACKBONES`: training, export and the served graph take everything from there.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import keras
from keras import applications

from training.backbones.resnet18 import SMALL_IMAGE, resnet18
from training.backbones.small import mini_cnn, tiny_vgg

# The modes of keras.applications.imagenet_utils.preprocess_input: -1..1 | BGR less ImageNet's mean | 0..1, then
# ImageNet's mean and deviation
Scaling = Literal["tf", "caffe", "torch"]


class BackboneError(ValueError):
    """A backbone that does not exist, or cannot work at a resolution."""


@dataclass(frozen=True)
class Backbone:
    """One entry of the registry."""

    name: str
    title: str  # for messages
    builder: Callable[..., keras.Model]  # of input_tensor, and of weights where `imagenet`
    imagenet: bool  # whether Keras has ImageNet weights for it
    scaling: Scaling
    cam_layer: str  # whose activations Grad-CAM weighs: the last ones that still say where
    image_size: int  # pixels, where it is at home
    min_image_size: int
    # whose activations LayerCAM weighs: finer than cam_layer's, behind a ReLU
    fine_layers: tuple[str, ...]
    head: Literal["average", "flatten"] = "average"  # of positions, before the logits
    # Sizes with the same value have weights of the same shapes.
    weights_depend_on: Callable[[int], int | bool | None] = lambda image_size: None

    def build(self, input_tensor: keras.KerasTensor, **options: str) -> keras.Model:
        """The backbone on (N, S, S, 3) in its scaling, without top: flat, every layer of it is the model's own.

        Args:
            input_tensor: the scaled image.
            options: weights="imagenet" where there are any; else they are random.

        Raises:
            BackboneError: the image is too small.
        """
        self.check_sizes(input_tensor.shape[1:3])
        return self.builder(input_tensor=input_tensor, **options)

    def check_sizes(self, image_sizes: Iterable[int]) -> None:
        """Whether one set of weights can be trained at these resolutions, in turn.

        Raises:
            BackboneError: one is too small, or the shapes of the weights would change between them.
        """
        sizes = sorted(set(image_sizes))
        if sizes[0] < self.min_image_size:
            raise BackboneError(f"{self.name} needs images of at least {self.min_image_size} px, got {sizes[0]}")
        if len({self.weights_depend_on(size) for size in sizes}) > 1:
            raise BackboneError(
                f"{self.name} has weights of other shapes at {', '.join(map(str, sizes[:-1]))} than at {sizes[-1]} px: "
                "all stages of a training must be at one size, or another backbone must be taken"
            )


def _application(function: Callable[..., keras.Model], **options: bool) -> Callable[..., keras.Model]:
    return functools.partial(function, include_top=False, weights=None, **options)


_BACKBONES = {
    entry.name: entry
    for entry in (
        Backbone(
            "mobilenet_v2", "MobileNetV2 (alpha 1.0, no top)", _application(applications.MobileNetV2),
            imagenet=True, scaling="tf", cam_layer="block_16_project", image_size=96, min_image_size=32,
            fine_layers=("block_13_expand_relu", "block_6_expand_relu"),
        ),
        Backbone(
            "resnet18", "ResNet18 (no top)", resnet18,
            imagenet=False, scaling="torch", cam_layer="conv5_block2_out", image_size=64, min_image_size=16,
            fine_layers=("conv4_block2_out", "conv3_block2_out"),
            weights_depend_on=lambda image_size: image_size <= SMALL_IMAGE,
        ),
        Backbone(
            "resnet50", "ResNet50 (no top)", _application(applications.ResNet50),
            imagenet=True, scaling="caffe", cam_layer="conv5_block3_out", image_size=224, min_image_size=32,
            fine_layers=("conv4_block6_out", "conv3_block4_out"),
        ),
        Backbone(
            "vgg16", "VGG16 (no top)", _application(applications.VGG16),
            imagenet=True, scaling="caffe", cam_layer="block5_conv3", image_size=224, min_image_size=32,
            fine_layers=("block4_conv3", "block3_conv3"),
        ),
        Backbone(
            "efficientnet_v2_b0", "EfficientNetV2B0 (no top)",
            _application(applications.EfficientNetV2B0, include_preprocessing=False),
            imagenet=True, scaling="torch", cam_layer="top_activation", image_size=224, min_image_size=32,
            fine_layers=("block6a_expand_activation", "block4a_expand_activation"),
        ),
        Backbone(
            "tiny_vgg", "TinyVGG (no top)", tiny_vgg,
            imagenet=False, scaling="tf", cam_layer="relu_2_2", image_size=64, min_image_size=16,
            fine_layers=("relu_1_2",),
            head="flatten", weights_depend_on=lambda image_size: image_size,
        ),
        Backbone(
            "mini_cnn", "mini_cnn", mini_cnn,
            imagenet=False, scaling="tf", cam_layer="relu_3", image_size=32, min_image_size=8,
            fine_layers=("relu_2", "relu_1"),
        ),
    )
}  # fmt: skip


def names() -> list[str]:
    """The names of all backbones, the default one first."""
    return list(_BACKBONES)


def backbone(name: str) -> Backbone:
    """The backbone of that name.

    Raises:
        BackboneError: there is none; the message lists them, and the nearest.
    """
    if name not in _BACKBONES:
        near = difflib.get_close_matches(name.lower(), _BACKBONES, n=1, cutoff=0.5)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise BackboneError(f"no backbone {name!r}{hint}; the backbones are {', '.join(_BACKBONES)}")
    return _BACKBONES[name]
