"""A classifier opened for explanation: logits, activations and gradients, in batches, from compiled functions."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from training.explanation.errors import ExplanationError, nearest
from training.folding import fold
from training.model import LOGITS_LAYER, logits_model

BATCH = 100  # images a step, unless told otherwise


class Network:
    """A Keras classifier, and one of its layers, as the explanation methods want them.

    Gradients are those of logits, never of the softmax: where that is confident its gradient vanishes.

    Args:
        model: what build_classifier returns, trained: flat, from (N, S, S, 3), with a layer "logits".
        layer: the one whose activations (N, h, w, K) are looked at; None for methods that need none.
        baseline: what stands for "nothing there", in the model's own scaling, float32 that fits (S, S, 3).
        batch: images that are computed at once, which bounds the memory.
        background: images that stand for what else there is, float32 (B, S, S, 3), for methods that compare with it.

    Raises:
        ExplanationError: the model has no such layer, or its output has no positions.

    Example:
        >>> network = Network(model, "block_16_project", baseline=-1.0)
        >>> METHODS["grad_cam"].maps(network, images, network.predicted(images)).shape
        (50, 3, 3)
    """

    def __init__(
        self,
        model: keras.Model,
        layer: str | None = None,
        baseline: float | np.ndarray = 0.0,
        batch: int = BATCH,
        background: np.ndarray | None = None,
    ):
        names = [one.name for one in model.layers]
        if LOGITS_LAYER not in names:
            raise ExplanationError(
                f"model {model.name}: expected a flat model with a layer {LOGITS_LAYER!r} before the softmax, got one "
                f"whose last layers are {', '.join(names[-3:])}"
            )
        self.model = model
        self.layer = layer
        self.image_size = int(model.input_shape[1])
        self.classes = int(model.get_layer(LOGITS_LAYER).output.shape[-1])
        self.baseline = np.asarray(baseline, np.float32)
        self.batch = batch
        self.background = None if background is None else self.checked(background)
        self._whole = _Whole(model)
        self._layers: dict[str, _Opened] = {}  # shared by all that `at` gives
        self._opened = self._open(layer)

    def at(self, layer: str | None) -> Network:
        """The same network, looked at in another layer.

        Raises:
            ExplanationError: the model has no such layer, or its output has no positions.
        """
        other = copy.copy(self)
        other.layer = layer
        other._opened = self._open(layer)
        return other

    def of(self, model: keras.Model) -> Network:
        """Another model of the same input, looked at in the same way, at no layer."""
        return Network(model, baseline=self.baseline, batch=self.batch, background=self.background)

    @property
    def to_logits(self) -> keras.Model:
        """From the input to the logits, with the batch normalisations folded in."""
        return self._whole.to_logits

    def logits(self, images: np.ndarray) -> np.ndarray:
        """float32 (N, C) of images float32 (N, S, S, 3)."""
        return np.concatenate([self._whole.logits(part).numpy() for part in self._parts(self.checked(images))])

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """float32 (N, C) of images float32 (N, S, S, 3)."""
        return tf.nn.softmax(self.logits(images)).numpy()

    def predicted(self, images: np.ndarray) -> np.ndarray:
        """The class of the highest logit, int64 (N,), of images float32 (N, S, S, 3)."""
        return self.logits(images).argmax(axis=1)

    def input_gradients(self, images: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
        """d logit / d image, float32 (N, S, S, 3), of every image's own class."""
        pairs = self._pairs(images, class_ids)
        return np.concatenate([self._whole.input_gradients(*pair).numpy() for pair in pairs])

    def activations(self, images: np.ndarray) -> Iterator[np.ndarray]:
        """The layer's activations, float32 (B, h, w, K), batch after batch: all of them may not fit in memory."""
        for part in self._parts(self.checked(images)):
            yield self._opened.activations(part).numpy()

    def of_layer(
        self, function: Callable[[np.ndarray, np.ndarray], np.ndarray], images: np.ndarray, class_ids: np.ndarray
    ) -> np.ndarray:
        """What `function` makes of the layer's activations and gradients, batch by batch.

        Args:
            function: of activations and d logit / d activations, both float32 (B, h, w, K), to maps (B, h, w).
            images: float32 (N, S, S, 3), as the model takes them.
            class_ids: int (N,), whose logit it is.

        Returns:
            float32 (N, h, w).
        """
        both = (self._opened.with_gradients(*pair) for pair in self._pairs(images, class_ids))
        maps = [function(activations.numpy(), gradients.numpy()) for activations, gradients in both]
        return np.concatenate(maps).astype(np.float32)

    def checked(self, images: np.ndarray, class_ids: np.ndarray | None = None):
        """`images` as float32 (N, S, S, 3), and `class_ids`, where given, as int64 (N,) beside them.

        Raises:
            ExplanationError: images of another shape, not one class an image, or a class out of range.
        """
        expected = tuple(self.model.input_shape[1:])
        images = np.asarray(images, np.float32)
        if images.ndim != 4 or images.shape[1:] != expected or not len(images):
            raise ExplanationError(
                f"images: expected float32 (N, {', '.join(map(str, expected))}) as the model takes them, N > 0, got "
                f"{images.shape}; training.augment.to_model_input makes them"
            )
        if class_ids is None:
            return images
        class_ids = np.asarray(class_ids)
        if class_ids.shape != (len(images),) or class_ids.dtype.kind not in "iu":
            raise ExplanationError(
                f"class_ids: expected one whole number an image, shape ({len(images)},), got {class_ids.dtype} "
                f"{class_ids.shape}"
            )
        if class_ids.min() < 0 or class_ids.max() >= self.classes:
            raise ExplanationError(
                f"class_ids: expected 0..{self.classes - 1}, got {class_ids.min()} to {class_ids.max()}"
            )
        return images, class_ids.astype(np.int64)

    def _open(self, layer: str | None) -> _Opened | None:
        if layer is None:
            return None
        if layer not in self._layers:
            self._layers[layer] = _Opened(self.model, layer)
        return self._layers[layer]

    def _pairs(self, images: np.ndarray, class_ids: np.ndarray) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        images, class_ids = self.checked(images, class_ids)
        return zip(self._parts(images), self._parts(class_ids), strict=True)

    def _parts(self, values: np.ndarray) -> Iterator[tf.Tensor]:
        return (tf.constant(values[start : start + self.batch]) for start in range(0, len(values), self.batch))


class _Whole:
    """From the input to the logits, traced when first used."""

    def __init__(self, model: keras.Model):
        folded, _ = fold(model)  # the same logits and gradients of the input, in less time
        self.to_logits = logits_model(folded)
        self._images = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32)

    @functools.cached_property
    def logits(self) -> Callable[[tf.Tensor], tf.Tensor]:
        return _traced(lambda images: self.to_logits(images, training=False), self._images)

    @functools.cached_property
    def input_gradients(self) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        def gradients(images, class_ids):
            return tf.gradients(_chosen(self.to_logits(images, training=False), class_ids), images)[0]

        return _traced(gradients, self._images, tf.TensorSpec([None], tf.int64))


class _Opened:
    """From the input to a layer, and from there to the logits, traced when first used."""

    def __init__(self, model: keras.Model, layer: str):
        spatial = [one.name for one in model.layers if len(getattr(one.output, "shape", ())) == 4]
        if layer not in spatial:
            known = layer in [one.name for one in model.layers]
            problem = "has no positions to be drawn" if known else "does not exist"
            raise ExplanationError(
                f"layer {layer!r} {problem}{nearest(layer, spatial, 3)}; expected one of the {len(spatial)} layers of "
                f"{model.name} with an output (N, h, w, K), such as {', '.join(spatial[-3:])}"
            )
        output = model.get_layer(layer).output
        self._to_layer = keras.Model(model.input, output)
        self._to_both = keras.Model(model.input, [output, model.get_layer(LOGITS_LAYER).output])
        self._images = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32)

    @functools.cached_property
    def activations(self) -> Callable[[tf.Tensor], tf.Tensor]:
        return _traced(lambda images: tf.cast(self._to_layer(images, training=False), tf.float32), self._images)

    @functools.cached_property
    def with_gradients(self) -> Callable[[tf.Tensor, tf.Tensor], list[tf.Tensor]]:
        def both(images, class_ids):
            activations, logits = self._to_both(images, training=False)
            gradients = tf.gradients(_chosen(logits, class_ids), activations)[0]
            return [tf.cast(activations, tf.float32), tf.cast(gradients, tf.float32)]

        return _traced(both, self._images, tf.TensorSpec([None], tf.int64))


def _traced(function: Callable[..., Any], *specifications: tf.TensorSpec) -> Callable[..., Any]:
    return tf.function(function, autograph=False).get_concrete_function(*specifications)


def _chosen(logits: tf.Tensor, class_ids: tf.Tensor) -> tf.Tensor:
    """Of every image its own logit (N,): no image's logit hangs on another image, so one gradient serves them all."""
    return tf.gather(logits, class_ids, batch_dims=1)
