"""What a model costs: multiply-accumulates of one image, parameters, bytes of weights."""

from __future__ import annotations

import math
from collections.abc import Iterator

import keras

_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)


def macs(model: keras.Model) -> int:
    """Multiply-accumulates of one forward pass of one image, at the model's input size.

    Counted are convolutions (plain, grouped, depthwise, separable) and dense layers, as papers do; biases, batch norms,
    activations, pooling and additions are not. A layer that is called twice counts twice.

    Args:
        model: functional or sequential, built; models inside it are counted too.

    Raises:
        ValueError: the model has no fixed input size, or is of another kind.

    Example:
        >>> macs(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)]))  # 6 * 6 positions, 3*3*3*4 each
        3888
    """
    total = 0
    for operation, output in _calls(model):
        if isinstance(operation, keras.Model):
            total += macs(operation)
        elif isinstance(operation, _CONVOLUTIONS):
            spatial = output[1:-1] if operation.data_format == "channels_last" else output[2:]
            total += _positions(operation, spatial) * _weights_per_position(operation)
        elif isinstance(operation, keras.layers.Dense):
            total += _positions(operation, output[1:-1]) * math.prod(operation.kernel.shape)
    return total


def parameters(model: keras.Model) -> int:
    """How many numbers the model's weights hold, the statistics of batch norms among them."""
    return model.count_params()


def weight_bytes(model: keras.Model) -> int:
    """Bytes of the model's weights in the types they are kept in; what a file adds is not in it."""
    return sum(weight.nbytes for weight in model.get_weights())


def _calls(model: keras.Model) -> Iterator[tuple[keras.Operation, tuple[int | None, ...]]]:
    """Every operation of the model with its output's shape, once for each time it is called."""
    if not getattr(model, "inputs", None):
        raise ValueError(f"expected a functional model, or a sequential one with an input shape, got {model.name}")
    for nodes in keras.Function(model.inputs, model.outputs)._nodes_by_depth.values():
        for node in nodes:
            if not node.is_input:
                yield node.operation, node.output_tensors[0].shape


def _positions(layer: keras.layers.Layer, shape: tuple[int | None, ...]) -> int:
    if None in shape:
        raise ValueError(
            f"expected a model of a fixed input size, got one whose layer {layer.name} has an output of {shape} "
            "positions; build it with an input shape, such as (96, 96, 3)"
        )
    return math.prod(shape)


def _weights_per_position(layer: keras.layers.Layer) -> int:
    # the kernel of a grouped convolution holds the inputs of one group alone, so its size is right there too
    if isinstance(layer, keras.layers.SeparableConv2D):
        return math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
    return math.prod(layer.kernel.shape)
