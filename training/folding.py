"""Batch norms and zero paddings folded into the convolutions beside them: the same function in less time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import keras
import numpy as np


def fold(model: keras.Model) -> tuple[keras.Model, dict[str, np.ndarray]]:
    """Folds every batch norm that follows a convolution alone, and every zero padding before one, into it.

    A batch norm goes into kernel and bias: A' = s * A + t, with s = gamma / sqrt(variance + epsilon) and
    t = beta - s * mean; A holds the convolution's bias. A padding becomes the convolution's own, where that is the
    same zeros: it spares a copy of the largest tensors.

    Returns:
        The same function as `model` in inference; and by name of the folded convolution its t, float32 (channels,),
        by which its output is shifted against the original's (scaled by s).
    """
    consumers = _consumers(model)
    norms = _foldable_norms(model, consumers)
    folded_into = {norm.name: convolution.name for convolution, norm in norms}
    padded = {padding.name: convolution.name for padding, convolution in _foldable_paddings(model, consumers)}

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer.name in folded_into or layer.name in padded:
            return keras.layers.Identity(name=layer.name)
        config = layer.get_config()
        if layer.name in folded_into.values():
            config["use_bias"] = True
        if layer.name in padded.values():
            config["padding"] = "same"
        return layer.__class__.from_config(config)

    def call(layer: keras.layers.Layer, *args, **kwargs):
        return layer(*args) if layer.name in folded_into else layer(*args, **kwargs)  # a batch norm's mask and training

    folded = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in model.layers:
        if layer.weights and layer.name not in folded_into and layer.name not in folded_into.values():
            folded.get_layer(layer.name).set_weights(layer.get_weights())
    shifts = {}
    for convolution, norm in norms:
        # in double precision, so that only the results are rounded
        kernel, *rest = (weight.astype("float64") for weight in convolution.get_weights())
        bias = rest[0] if convolution.use_bias else 0.0
        mean, variance = (v.numpy().astype("float64") for v in (norm.moving_mean, norm.moving_variance))
        gamma = norm.gamma.numpy() if norm.scale else np.ones_like(mean)
        beta = norm.beta.numpy() if norm.center else np.zeros_like(mean)
        scale = gamma / np.sqrt(variance + norm.epsilon)
        shift = beta - scale * mean
        depthwise = isinstance(convolution, keras.layers.DepthwiseConv2D)
        per_output = scale.reshape(kernel.shape[2:]) if depthwise else scale  # depthwise: (h, w, C, multiplier)
        folded.get_layer(convolution.name).set_weights([kernel * per_output, shift + scale * bias])
        shifts[convolution.name] = shift.astype("float32")
    return folded, shifts


def _consumers(model: keras.Model) -> dict[str, list[keras.layers.Layer]]:
    """The layers that read each layer's output, by its name."""
    consumers: dict[str, list[keras.layers.Layer]] = {}
    for layer in model.layers:
        for node in layer._inbound_nodes:
            for tensor in node.input_tensors:
                consumers.setdefault(tensor._keras_history.operation.name, []).append(layer)
    return consumers


def _is_convolution(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D)


def _pairs(
    model: keras.Model, consumers: dict[str, list[keras.layers.Layer]]
) -> Iterator[tuple[keras.layers.Layer, keras.layers.Layer]]:
    """Every layer whose output one other alone reads, and that one."""
    for layer in model.layers:
        following = consumers.get(layer.name, [])
        if len(following) == 1:
            yield layer, following[0]


def _foldable_norms(
    model: keras.Model, consumers: dict[str, list[keras.layers.Layer]]
) -> list[tuple[keras.layers.Layer, keras.layers.BatchNormalization]]:
    """Pairs of a convolution without activation and the batch norm that is its only consumer."""
    return [
        (layer, norm)
        for layer, norm in _pairs(model, consumers)
        if _is_convolution(layer)
        and layer.activation is keras.activations.linear
        and isinstance(norm, keras.layers.BatchNormalization)
    ]


def _foldable_paddings(
    model: keras.Model, consumers: dict[str, list[keras.layers.Layer]]
) -> list[tuple[keras.layers.ZeroPadding2D, keras.layers.Layer]]:
    """Pairs of a padding and its only consumer, a convolution whose padding "same" would be these zeros."""
    return [
        (layer, convolution)
        for layer, convolution in _pairs(model, consumers)
        if isinstance(layer, keras.layers.ZeroPadding2D)
        and _is_convolution(convolution)
        and convolution.padding == "valid"
        and layer.padding == _same_padding(layer.input.shape[1:3], convolution)
    ]


def _same_padding(size: Sequence[int | None], convolution: keras.layers.Layer) -> tuple[tuple[int, int], ...] | None:
    """The zeros before and after each axis that TensorFlow's padding "SAME" adds; None where it hangs on the image."""
    if None in size or set(convolution.dilation_rate) != {1}:
        return None
    totals = [
        max((-(-length // stride) - 1) * stride + kernel - length, 0)
        for length, kernel, stride in zip(size, convolution.kernel_size, convolution.strides, strict=True)
    ]
    return tuple((total // 2, total - total // 2) for total in totals)
