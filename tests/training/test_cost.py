"""Multiply-accumulates and sizes, against published figures and by hand."""

from __future__ import annotations

import keras
import pytest

from training.cost import macs, parameters, weight_bytes

layers = keras.layers


@pytest.mark.parametrize(
    ("name", "millions", "parameters_millions"),
    [  # with top, 224 px: MobileNetV2 (Sandler et al., 2018, table 4), ResNet50 (He et al., 2016, table 1), VGG16
        ("MobileNetV2", 300.8, 3.54),
        ("ResNet50", 3860.0, 25.64),
        ("VGG16", 15470.0, 138.36),
    ],
)
def test_published_figures(name, millions, parameters_millions):
    model = getattr(keras.applications, name)(weights=None, input_shape=(224, 224, 3))
    assert macs(model) / 1e6 == pytest.approx(millions, rel=0.01)
    assert parameters(model) / 1e6 == pytest.approx(parameters_millions, rel=0.01)
    assert weight_bytes(model) == 4 * parameters(model)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.Conv2D(4, 3), 6 * 6 * 3 * 3 * 6 * 4),
        (layers.Conv2D(4, (1, 3), strides=2, padding="same", use_bias=False), 4 * 4 * 1 * 3 * 6 * 4),
        (layers.Conv2D(4, 3, groups=2), 6 * 6 * 3 * 3 * 3 * 4),
        (layers.Conv2D(4, 3, dilation_rate=2), 4 * 4 * 3 * 3 * 6 * 4),
        (layers.DepthwiseConv2D(3, depth_multiplier=2), 6 * 6 * 3 * 3 * 6 * 2),
        (layers.SeparableConv2D(4, 3), 6 * 6 * (3 * 3 * 6 + 6 * 4)),
        (layers.Dense(5), 8 * 8 * 6 * 5),
        (layers.BatchNormalization(), 0),
        (layers.MaxPooling2D(), 0),
    ],
)
def test_by_hand(layer, expected):
    inputs = keras.Input((8, 8, 6))
    assert macs(keras.Model(inputs, layer(inputs))) == expected


def test_channels_first():
    inputs = keras.Input((6, 8, 8))
    convolved = layers.Conv2D(4, (3, 1), data_format="channels_first", padding="same")(inputs)
    assert macs(keras.Model(inputs, convolved)) == 8 * 8 * 3 * 6 * 4


def test_a_layer_that_is_called_twice_counts_twice():
    shared, inputs = layers.Conv2D(6, 1), keras.Input((8, 8, 6))
    assert macs(keras.Model(inputs, shared(shared(inputs)))) == 2 * 8 * 8 * 6 * 6


def test_what_else_a_layer_is_used_for_does_not_count():
    convolution, inputs = layers.Conv2D(4, 3), keras.Input((8, 8, 6))
    model = keras.Model(inputs, convolution(inputs))
    convolution(keras.Input((32, 32, 6)))
    assert macs(model) == 6 * 6 * 3 * 3 * 6 * 4


def test_models_inside_count():
    inner = keras.Sequential([keras.Input((8, 8, 6)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(2)])
    inputs = keras.Input((8, 8, 6))
    expected = 6 * 6 * 3 * 3 * 6 * 4 + 6 * 6 * 4 * 2
    assert macs(inner) == macs(keras.Model(inputs, layers.Softmax()(inner(inputs)))) == expected


def test_bytes_follow_the_type_of_the_weights():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype="bfloat16")])
    assert weight_bytes(model) == 2 * parameters(model) == 2 * 15


def test_a_free_input_size_has_no_count():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.Conv2D(4, 3, name="first")(inputs))
    with pytest.raises(ValueError, match="fixed input size.*first"):
        macs(model)


def test_a_model_without_a_graph_is_refused():
    with pytest.raises(ValueError, match="with an input shape"):
        macs(keras.Sequential([layers.Dense(3)], name="open"))
