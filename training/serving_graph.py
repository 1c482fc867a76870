"""The graph that is served: batch norms and paddings folded, variables frozen, preprocessing and signed maps inside.

Grad-CAM (Selvaraju et al., 2017, https://arxiv.org/abs/1610.02391) of class c is ReLU(sum_k alpha_kc A_k) with
alpha_kc = mean over positions of d logit_c / d A_k (equations 1 and 2). The graph returns the sum before ReLU, of
every class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from training.augment import to_model_input
from training.model import LOGITS_LAYER
from training.preprocessing import View

# Up to so many classes every gradient has ops of its own, which runs faster. Beyond, a loop over as many at a time
# keeps the graph small: with 100 classes it is built in 3 s instead of 23.
UNROLLED_CLASSES = 32


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
        per_output = (
            scale.reshape(kernel.shape[2:]) if depthwise else scale
        )  # depthwise kernels are (h, w, C, multiplier)
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


def _foldable_norms(
    model: keras.Model, consumers: dict[str, list[keras.layers.Layer]]
) -> list[tuple[keras.layers.Layer, keras.layers.BatchNormalization]]:
    """Pairs of a convolution without activation and the batch norm that is its only consumer."""
    pairs = []
    for layer in model.layers:
        following = consumers.get(layer.name, [])
        linear = getattr(layer, "activation", None) is keras.activations.linear
        if (
            _is_convolution(layer)
            and linear
            and len(following) == 1
            and isinstance(following[0], keras.layers.BatchNormalization)
        ):
            pairs.append((layer, following[0]))
    return pairs


def _foldable_paddings(
    model: keras.Model, consumers: dict[str, list[keras.layers.Layer]]
) -> list[tuple[keras.layers.ZeroPadding2D, keras.layers.Layer]]:
    """Pairs of a padding and its only consumer, a convolution whose padding "same" would be these zeros."""
    pairs = []
    for layer in model.layers:
        following = consumers.get(layer.name, [])
        if (
            isinstance(layer, keras.layers.ZeroPadding2D)
            and len(following) == 1
            and _is_convolution(following[0])
            and following[0].padding == "valid"
            and layer.padding == _same_padding(layer.input.shape[1:3], following[0])
        ):
            pairs.append((layer, following[0]))
    return pairs


def _same_padding(size: Sequence[int | None], convolution: keras.layers.Layer) -> tuple[tuple[int, int], ...] | None:
    """The zeros before and after each axis that TensorFlow's padding "SAME" adds; None where it hangs on the image."""
    if None in size or set(convolution.dilation_rate) != {1}:
        return None
    totals = [
        max((-(-length // stride) - 1) * stride + kernel - length, 0)
        for length, kernel, stride in zip(size, convolution.kernel_size, convolution.strides, strict=True)
    ]
    return tuple((total // 2, total - total // 2) for total in totals)


def frozen_core(model: keras.Model, cam_layer: str) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """The folded, frozen network: model input (N, S, S, 3) -> logits (N, C), signed Grad-CAM maps (N, C, h, w).

    One function serves all signatures, so the weights are stored once; TensorFlow prunes maps that nobody asks for.

    Raises:
        ValueError: the model has no layer `cam_layer`.
    """
    folded, shifts = fold(model)
    activations_tensor = folded.get_layer(cam_layer).output
    reader = _pointwise_reader(folded, cam_layer)
    source_tensor = reader.output if reader else activations_tensor
    logits_tensor = folded.get_layer(LOGITS_LAYER).output
    network = keras.Model(folded.input, [activations_tensor, source_tensor, logits_tensor])
    tail = keras.Model(source_tensor, logits_tensor)
    shift = tf.constant(shifts.get(cam_layer, np.zeros(activations_tensor.shape[-1], "float32")))
    size = model.input_shape[1]

    @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.float32)], autograph=False)
    def core(inputs):
        activations, source, logits = network(inputs, training=False)  # (N, h, w, K), (N, h, w, J), (N, C)
        alphas = _mean_gradients(logits, source, tail)  # (N, C, J)
        if reader:  # (N, C, K): linear and the same everywhere, so it may follow the mean, which saves most of the work
            alphas = tf.einsum("ncj,kj->nck", alphas, reader.kernel[0, 0])
        # alpha and shift belong to the folded layer: s cancels, what remains is A' - t
        cams = tf.einsum("nck,nhwk->nchw", alphas, activations - shift)
        return logits, cams

    # functional control flow, as everywhere in TensorFlow 2: what is lowered cannot be called from a function
    return convert_variables_to_constants_v2(core.get_concrete_function(), lower_control_flow=False)


def _mean_gradients(logits: tf.Tensor, source: tf.Tensor, tail: keras.Model) -> tf.Tensor:
    """d logit_c / d source, averaged over positions, for every c: (N, C, J). `tail` leads from source to logits."""
    classes = logits.shape[-1]
    if classes <= UNROLLED_CLASSES:
        return tf.stack(
            [tf.reduce_mean(tf.gradients(logits[:, c], source)[0], axis=(1, 2)) for c in range(classes)], axis=1
        )

    # read out here: a loop that reads variables counts as stateful, and would run for those who want no maps, too
    trainable = [tf.convert_to_tensor(weight) for weight in tail.trainable_variables]
    others = [tf.convert_to_tensor(weight) for weight in tail.non_trainable_variables]

    def of_some(selected):  # (B, C), one-hot
        repeated = tf.repeat(source, UNROLLED_CLASSES, axis=0)  # (N * B, h, w, J)
        logits, _ = tail.stateless_call(trainable, others, repeated, training=False)
        per_logit = tf.tile(selected, (tf.shape(source)[0], 1))
        alphas = tf.reduce_mean(tf.gradients(logits, repeated, grad_ys=per_logit)[0], axis=(1, 2))
        return tf.reshape(alphas, (-1, UNROLLED_CLASSES, alphas.shape[-1]))

    rounds = -(-classes // UNROLLED_CLASSES)
    selections = tf.reshape(tf.eye(rounds * UNROLLED_CLASSES, classes), (rounds, UNROLLED_CLASSES, classes))
    of_all = tf.map_fn(of_some, selections, parallel_iterations=1)  # (rounds, N, B, J)
    return tf.concat(tf.unstack(of_all), axis=1)[:, :classes]


def _pointwise_reader(folded: keras.Model, cam_layer: str) -> keras.layers.Conv2D | None:
    """The 1x1 convolution that alone reads a layer's output, if that is what follows it."""
    readers = [node.operation for node in folded.get_layer(cam_layer)._outbound_nodes]
    while len(readers) == 1 and isinstance(readers[0], keras.layers.Identity):  # where a batch norm was
        readers = [node.operation for node in readers[0]._outbound_nodes]
    if len(readers) != 1 or not isinstance(readers[0], keras.layers.Conv2D):
        return None
    reader = readers[0]
    plain = reader.kernel_size == reader.strides == (1, 1) and reader.groups == 1
    return reader if plain and reader.activation is keras.activations.linear else None


class ServedModel(tf.Module):
    """All signatures over one frozen network. See DESIGN's table of signatures in docs and README.

    Args:
        model: what build_classifier returns, trained.
        classes: their names, in the order of its logits.
        classes_file: the same, one a line; it travels with the SavedModel.
        cam_layer: whose activations Grad-CAM weighs.
        view: how pictures become what the model was trained on.
    """

    def __init__(self, model: keras.Model, classes: Sequence[str], classes_file: str, cam_layer: str, view: View):
        super().__init__()
        self._core = frozen_core(model, cam_layer)
        self._image_size = model.input_shape[1]
        self._classes = tf.constant(list(classes))
        self._classes_file = tf.saved_model.Asset(classes_file)  # travels as assets/classes.txt
        self._view = view

    def _classified(self, views: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """views: float32 (N, S, S, 1 or 3) -> the three outputs of serving_default, and the maps."""
        logits, cams = self._core(to_model_input(views, self._image_size, self._view.scaling))
        probabilities = tf.nn.softmax(logits)
        class_id = tf.argmax(logits, axis=-1)
        outputs = {
            "class_id": class_id,
            "class_name": tf.gather(self._classes, class_id),
            "probabilities": probabilities,
        }
        return outputs, cams

    def _views(self, image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.map_fn(
            self._view.of_bytes,
            _shaped(image_bytes, (None,), "image_bytes", "a list of encoded images, shape (N,)"),
            fn_output_signature=(tf.TensorSpec(self._view.shape, tf.float32), tf.TensorSpec((4,), tf.float32)),
        )

    def _serving_default(self, image_bytes):
        return self._classified(self._views(image_bytes)[0])[0]

    def _explain(self, image_bytes):
        outputs, cams = self._classified(self._views(image_bytes)[0])
        return outputs | {"cams": cams}

    def _images(self, images):
        images = _in_range(_shaped(images, (None, None, None, 3), "images", "float32 (N, H, W, 3)"), "images")
        views = tf.map_fn(
            lambda image: self._view.of_picture(image)[0],
            images,
            fn_output_signature=tf.TensorSpec(self._view.shape, tf.float32),
        )
        return self._classified(views)[0]

    def _pixels(self, pixels):
        count = math.prod(self._view.shape)
        pixels = _in_range(_shaped(pixels, (None, count), "pixels", f"float32 (N, {count})"), "pixels")
        views = tf.map_fn(self._view.of_pixels, tf.reshape(pixels, (-1, *self._view.shape)))
        return self._classified(views)[0]

    def _classify(self, inputs):
        features = tf.io.parse_example(inputs, {"image_bytes": tf.io.FixedLenFeature([], tf.string)})
        outputs, _ = self._classified(self._views(features["image_bytes"])[0])
        scores, order = tf.math.top_k(outputs["probabilities"], k=self._classes.shape[0])
        return {"classes": tf.gather(self._classes, order), "scores": scores}

    def _preprocess(self, image_bytes):
        views, boxes = self._views(image_bytes)
        pictures = tf.map_fn(
            lambda view: tf.io.encode_png(tf.cast(view, tf.uint8)),
            views,
            fn_output_signature=tf.TensorSpec((), tf.string),
        )
        return {"view_bytes": pictures, "box": boxes}

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """The signatures by name."""
        image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
        return {
            name: tf.function(function, input_signature=[specification]).get_concrete_function()
            for name, function, specification in (
                ("serving_default", self._serving_default, image_bytes),
                ("explain", self._explain, image_bytes),
                ("images", self._images, tf.TensorSpec([None, None, None, 3], tf.float32, name="images")),
                (
                    "pixels",
                    self._pixels,
                    tf.TensorSpec([None, math.prod(self._view.shape)], tf.float32, name="pixels"),
                ),
                ("classify", self._classify, tf.TensorSpec([None], tf.string, name="inputs")),
                ("preprocess", self._preprocess, image_bytes),
            )
        }


def _shaped(values: tf.Tensor, shape: tuple[int | None, ...], name: str, expected: str) -> tf.Tensor:
    """`values`, refused when they come in another shape, or empty but for the batch: TF Serving lets any shape through.

    TensorFlow leaves out a check of what the signature promises. Behind a placeholder it knows no promise.
    """
    as_it_came = tf.raw_ops.PlaceholderWithDefault(input=values, shape=tf.TensorShape(None))
    found = tf.shape(as_it_came)
    wanted = tf.constant([-1 if size is None else size for size in shape])

    def sizes_fit():
        filled = tf.concat([[True], found[1:] > 0], axis=0)
        return tf.reduce_all((found == wanted) | ((wanted < 0) & filled))

    fits = tf.cond(tf.size(found) == len(shape), sizes_fit, lambda: tf.constant(False))
    with tf.control_dependencies([tf.debugging.Assert(fits, [f"{name}: expected {expected}, got shape", found], 8)]):
        return tf.ensure_shape(as_it_came, shape)


def _in_range(values: tf.Tensor, name: str) -> tf.Tensor:
    """`values`, refused where one is NaN or outside 0..255."""
    in_range = tf.reduce_all(tf.math.is_finite(values) & (values >= 0.0) & (values <= 255.0))
    message = f"{name}: expected values 0..255, got NaN or values outside, such as"
    with tf.control_dependencies([tf.debugging.Assert(in_range, [message, values])]):
        return tf.identity(values)
