"""Folding batch norms and signed Grad-CAM, on small nets against the unfolded net and a gradient tape."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from nets import trained_looking
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from training.datasets import png
from training.export import write_saved_model, write_warmup
from training.folding import fold
from training.preprocessing import View
from training.serving_graph import UNROLLED_CLASSES, FrozenCore, fine_outputs

layers = keras.layers


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (count, 16, 16, 3)).astype("float32")


def head(x: keras.KerasTensor) -> keras.KerasTensor:
    logits = layers.Dense(4, name="logits")(layers.GlobalAveragePooling2D()(x))
    return layers.Activation("softmax")(logits)


def small_net(last: str = "pointwise") -> keras.Model:
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(6, 3, strides=2, use_bias=False, name="plain")(inputs)
    x = layers.ReLU(6.0, name="early")(layers.BatchNormalization(name="plain_bn")(x))
    x = layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, padding="same", name="depthwise")(x)
    x = layers.ReLU(name="late")(layers.BatchNormalization(scale=False, name="depthwise_bn")(x))
    x = layers.Conv2D(5, 1, name="cam")(x)  # linear and with a bias, as block_16_project is linear
    x = layers.BatchNormalization(center=False, name="cam_bn")(x)
    if last == "pointwise":
        x = layers.Conv2D(8, 1, use_bias=False, name="last")(x)
        x = layers.ReLU()(layers.BatchNormalization(name="last_bn")(x))
    elif last == "wide":
        x = layers.ReLU()(layers.Conv2D(8, 3, name="last")(x))
    return trained_looking(keras.Model(inputs, head(x)))


def test_the_folded_net_computes_the_same():
    model = small_net()
    folded, shifts = fold(model)
    np.testing.assert_allclose(folded(images()), model(images()), atol=1e-4)
    assert set(shifts) == {"plain", "depthwise", "cam", "last"}
    assert not [layer.name for layer in folded.layers if isinstance(layer, layers.BatchNormalization)]


def test_the_shift_is_what_separates_folded_from_original():
    model = small_net()
    folded, shifts = fold(model)
    original = keras.Model(model.input, model.get_layer("cam").output)(images())
    shifted = keras.Model(folded.input, folded.get_layer("cam").output)(images()) - shifts["cam"]
    norm = model.get_layer("cam_bn")
    scale = norm.gamma / np.sqrt(norm.moving_variance + norm.epsilon)
    np.testing.assert_allclose(shifted, original * scale, atol=1e-4)


def with_second_consumer(x):
    convolved = layers.Conv2D(3, 3, padding="same", name="conv")(x)
    return layers.Add()([layers.BatchNormalization(name="norm")(convolved), convolved])


def with_activation(x):
    return layers.BatchNormalization(name="norm")(layers.Conv2D(3, 3, activation="relu", name="conv")(x))


def after_no_convolution(x):
    return layers.BatchNormalization(name="norm")(layers.ReLU()(layers.Conv2D(3, 3, name="conv")(x)))


@pytest.mark.parametrize("block", [with_second_consumer, with_activation, after_no_convolution])
def test_what_cannot_be_folded_is_left(block):
    inputs = keras.Input((16, 16, 3))
    model = trained_looking(keras.Model(inputs, head(block(inputs))))
    folded, shifts = fold(model)
    assert shifts == {}
    assert isinstance(folded.get_layer("norm"), layers.BatchNormalization)
    np.testing.assert_allclose(folded(images()), model(images()), atol=1e-5)


def padded_net(size: int, padding, convolution: keras.layers.Layer, read_twice: bool = False) -> keras.Model:
    inputs = keras.Input((size, size, 3))
    padded = layers.ZeroPadding2D(padding, name="padding")(layers.Conv2D(4, 1)(inputs))
    x = layers.GlobalAveragePooling2D()(convolution(padded))
    if read_twice:
        x = layers.Concatenate()([x, layers.GlobalAveragePooling2D()(padded)])
    return trained_looking(keras.Model(inputs, layers.Dense(4, name="logits")(x)))


def strided(**options) -> keras.layers.Layer:
    return layers.DepthwiseConv2D(**{"kernel_size": 3, "strides": 2, "padding": "valid", "name": "reader"} | options)


@pytest.mark.parametrize(
    ("size", "padding", "convolution", "foldable"),
    [
        (16, ((0, 1), (0, 1)), strided(), True),  # as in MobileNetV2
        (15, 1, strided(), True),
        (16, 1, strided(strides=1), True),
        (16, ((0, 3), (0, 3)), layers.Conv2D(5, 5, strides=2, name="reader"), False),
        (16, ((1, 2), (1, 2)), layers.Conv2D(5, 5, strides=2, name="reader"), True),
        (16, 1, strided(), False),  # what Keras' ResNet does: "same" would put all of the zeros at the end
        (16, ((1, 0), (1, 0)), strided(), False),
        (16, ((0, 1), (0, 1)), strided(padding="same"), False),
        (16, 2, strided(strides=1, dilation_rate=2), False),
        (None, ((0, 1), (0, 1)), strided(), False),  # an odd image would need other zeros
    ],
)
def test_a_padding_is_folded_where_the_zeros_stay_the_same(size, padding, convolution, foldable):
    model = padded_net(size, padding, convolution.__class__.from_config(convolution.get_config()))
    folded, _ = fold(model)
    assert (folded.get_layer("reader").padding == "same") == (foldable or convolution.padding == "same")
    assert isinstance(folded.get_layer("padding"), layers.Identity) == foldable
    sent = np.random.default_rng(1).uniform(-1, 1, (3, size or 16, size or 16, 3)).astype("float32")
    np.testing.assert_allclose(folded(sent), model(sent), atol=1e-5)


def test_a_padding_that_others_read_too_stays():
    model = padded_net(16, ((0, 1), (0, 1)), strided(), read_twice=True)
    folded, _ = fold(model)
    assert isinstance(folded.get_layer("padding"), layers.ZeroPadding2D)
    np.testing.assert_allclose(folded(images()), model(images()), atol=1e-5)


def test_the_original_is_not_changed():
    model = small_net()
    before = [w.copy() for w in model.get_weights()]
    fold(model)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("last", ["pointwise", "wide", "none"])
def test_maps_are_grad_cam_of_every_class(last, batch):
    model = small_net(last)
    sent = tf.constant(images(batch))
    both = keras.Model(model.input, [model.get_layer("cam").output, model.get_layer("logits").output])
    with tf.GradientTape(persistent=True) as tape:
        activations, logits = both(sent)
        per_class = [logits[:, c] for c in range(4)]
    expected = []
    for logit in per_class:
        alphas = tf.reduce_mean(tape.gradient(logit, activations), axis=(1, 2), keepdims=True)
        expected.append(tf.reduce_sum(alphas * activations, axis=-1))
    found_logits, found = FrozenCore(model, "cam").explain(sent)
    np.testing.assert_allclose(found_logits, logits, atol=1e-4)
    np.testing.assert_allclose(found, np.stack(expected, axis=1), atol=1e-4)
    assert np.abs(found).max() > 0.01


FINE = ("early", "late")  # the ReLUs of small_net


@pytest.mark.parametrize("asked", [[-1, -1, -1], [2, 0, 2], [-1, 3, 0]])
def test_fine_maps_are_layer_cam_of_the_class_asked_for(asked):
    model = small_net()
    sent = tf.constant(images(3))
    of_layers = keras.Model(
        model.input, [*(model.get_layer(name).output for name in FINE), model.get_layer("logits").output]
    )
    with tf.GradientTape(persistent=True) as tape:
        *activations, logits = of_layers(sent)
        ids = np.where(np.array(asked) < 0, np.argmax(logits, axis=1), asked)
        score = tf.reduce_sum(tf.gather(logits, ids, batch_dims=1))
    core = FrozenCore(model, "cam", FINE)
    found_logits, found = core.explain_fine(sent, tf.constant(asked, tf.int64))
    for answered in (found_logits, core.predict(sent)):
        np.testing.assert_allclose(answered, logits, atol=1e-4)
    for values, maps in zip(activations, found, strict=True):
        weights = tf.nn.relu(tape.gradient(score, values))
        np.testing.assert_allclose(maps, tf.nn.relu(tf.reduce_sum(weights * values, axis=-1)), atol=1e-4)
        assert np.max(maps) > 0.01


def test_outputs_are_named_by_the_height_of_the_map():
    assert fine_outputs(small_net(), FINE) == {"map_7": "early", "map_4": "late"}


def test_layer_cam_wants_a_layer_that_is_not_folded():
    with pytest.raises(ValueError, match="LayerCAM at plain: a batch norm behind it is folded"):
        FrozenCore(small_net(), "cam", ("plain",))


def test_a_layer_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no_such_layer"):
        FrozenCore(small_net(), "no_such_layer")


def small_model(classes: int, size: int = 24) -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(4, 3, strides=4, name="cam")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU(name="fine")(x))
    logits = keras.layers.Dense(classes, name="logits")(x)
    return keras.Model(inputs, keras.layers.Activation("softmax", name="probabilities")(logits))


COLOURS, COLOUR_VIEW = ("red", "green", "blue"), View("colour", 16, "torch")


@pytest.fixture(scope="module")
def signatures(tmp_path_factory):
    version = tmp_path_factory.mktemp("colours") / "1"
    write_saved_model(small_model(3, 16), COLOURS, version, "cam", COLOUR_VIEW, ["fine"])
    return tf.saved_model.load(str(version)).signatures


def test_a_colour_model_sees_colour_in_every_signature(signatures):
    pictures = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    encoded = tf.constant([png(picture) for picture in pictures])
    expected = signatures["serving_default"](image_bytes=encoded)
    assert {name.decode() for name in expected["class_name"].numpy()} <= set(COLOURS)
    mirrored = signatures["serving_default"](image_bytes=tf.constant([png(p[..., ::-1]) for p in pictures]))
    assert np.abs(mirrored["probabilities"] - expected["probabilities"]).max() > 1e-3  # red is not blue
    for outputs in (
        signatures["explain"](image_bytes=encoded),
        signatures["images"](images=tf.constant(pictures, tf.float32)),
        signatures["pixels"](pixels=tf.constant(pictures.reshape(4, -1), tf.float32)),
    ):
        np.testing.assert_allclose(outputs["probabilities"], expected["probabilities"], atol=1e-5)
    seen = signatures["preprocess"](image_bytes=encoded)
    assert seen["box"].numpy().tolist() == [[0.0, 0.0, 1.0, 1.0]] * 4
    for view_bytes, picture in zip(seen["view_bytes"].numpy(), pictures, strict=True):
        np.testing.assert_array_equal(tf.io.decode_png(view_bytes), picture)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"pixels: expected float32 .N, 768., got shape"):
        signatures["pixels"](pixels=tf.zeros((1, 784)))


def test_explain_fine_answers_as_serving_default_and_with_the_map_of_a_class(signatures):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    encoded = tf.constant([png(picture) for picture in pictures])
    expected = signatures["serving_default"](image_bytes=encoded)

    def asked(class_id):
        return signatures["explain_fine"](image_bytes=encoded, class_id=tf.constant(class_id, tf.int64))

    found = asked([-1, 0, 2])
    assert set(found) == {"class_id", "class_name", "probabilities", "map_4"}
    assert found["map_4"].shape == (3, 4, 4)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
    of_predicted = asked(expected["class_id"].numpy().tolist())["map_4"]
    np.testing.assert_array_equal(asked([-1] * 3)["map_4"], of_predicted)
    assert np.abs(asked([0] * 3)["map_4"] - asked([2] * 3)["map_4"]).max() > 1e-3
    for class_id, message in (
        ([0, 3, 0], r"class_id: expected 0\.\.2, or -1 for the predicted class, got"),
        ([0, -2, 0], r"class_id: expected 0\.\.2"),
        ([0, 1], r"class_id: expected one an image"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            asked(class_id)


def test_the_warm_up_asks_every_signature(signatures, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    write_warmup(tmp_path / "warmup", "colours", image, COLOUR_VIEW, fine=True)
    asked = []
    for record in tf.data.TFRecordDataset(str(tmp_path / "warmup")).as_numpy_iterator():
        log = PredictionLog.FromString(record)
        if log.HasField("classify_log"):
            request = log.classify_log.request
            examples = [example.SerializeToString() for example in request.input.example_list.examples]
            signatures["classify"](inputs=tf.constant(examples))
        else:
            request = log.predict_log.request
            inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
            signatures[request.model_spec.signature_name](**inputs)
        assert request.model_spec.name == "colours"
        asked.append(request.model_spec.signature_name)
    assert sorted(asked) == sorted(signatures)


@pytest.mark.parametrize("classes", [2, UNROLLED_CLASSES, UNROLLED_CLASSES + 1, 200])
def test_maps_of_few_and_of_many_classes(classes):
    model = small_model(classes)
    images = np.random.default_rng(0).uniform(-1, 1, (3, 24, 24, 3)).astype("float32")
    logits, cams = FrozenCore(model, "cam").explain(tf.constant(images))
    assert cams.shape == (3, classes, *model.get_layer("cam").output.shape[1:3])
    network = keras.Model(model.input, [model.get_layer("cam").output, model.get_layer("logits").output])
    for label in (0, classes - 1):
        with tf.GradientTape() as tape:
            activations, expected_logits = network(images)
            tape.watch(activations)
            score = keras.Model(model.get_layer("cam").output, model.get_layer("logits").output)(activations)[:, label]
        alphas = tf.reduce_mean(tape.gradient(score, activations), axis=(1, 2))
        expected = tf.einsum("nk,nhwk->nhw", alphas, activations)
        np.testing.assert_allclose(cams[:, label], expected, atol=1e-5)
        np.testing.assert_allclose(logits, expected_logits, atol=1e-5)


def test_what_is_not_asked_for_is_not_in_the_graph(signatures):
    """A server prepares every function that a signature calls, on its first use, wanted or not."""
    called = {name: operations(signature) for name, signature in signatures.items()}
    assert {name for name, types in called.items() if "ReluGrad" in types} == {"explain"}


def operations(function) -> set[str]:
    """The types of the operations of a concrete function and of all that it calls."""
    graph = function.graph.as_graph_def()
    bodies = {body.signature.name: body.node_def for body in graph.library.function}
    found, waiting = set(), [graph.node]
    while waiting:
        for node in waiting.pop():
            found.add(node.op)
            names = [value.func.name for value in node.attr.values() if value.HasField("func")]
            names += [one.name for value in node.attr.values() for one in value.list.func]
            waiting += [bodies.pop(name) for name in names if name in bodies]
    return found
