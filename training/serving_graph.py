"""The graph that is served: batch norms and paddings folded, variables frozen, preprocessing and maps inside.

Grad-CAM (Selvaraju et al., 2017, https://arxiv.org/abs/1610.02391) of class c is ReLU(sum_k alpha_kc A_k) with
alpha_kc = mean over positions of d logit_c / d A_k (equations 1 and 2). The graph returns the sum before ReLU, of
every class.

LayerCAM (Jiang et al., 2021, https://doi.org/10.1109/TIP.2021.3089943, equations 5 and 6) of class c is
ReLU(sum_k ReLU(d logit_c / d A_k) A_k), position by position, which holds at layers of finer resolution too. The graph
returns it of one class an image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from training.augment import to_model_input
from training.folding import fold
from training.input_gradients import fast_input_gradients
from training.model import LOGITS_LAYER
from training.preprocessing import View

# Up to so many classes every gradient has ops of its own, which runs faster. Beyond, a loop over as many at a time
# keeps the graph small: with 100 classes it is built in 3 s instead of 23.
UNROLLED_CLASSES = 32


class FrozenCore:
    """The folded network with its weights as constants, as three functions: each holds no more than it answers.

    All take the constants from one function that gives nothing else, so that they are stored once. TensorFlow prepares
    every function that a signature calls, whether or not all of its answers are wanted: as one function with all maps
    this took twice as long, for each signature.

    Args:
        model: what build_classifier returns, trained.
        cam_layer: whose activations Grad-CAM weighs.
        fine_layers: the same for LayerCAM; their activations are what no batch norm that is folded follows.

    Raises:
        ValueError: the model has no such layer, or a fine layer is folded.
    """

    def __init__(self, model: keras.Model, cam_layer: str, fine_layers: Sequence[str] = ()):
        folded, shifts = fold(model)
        if unfit := [name for name in fine_layers if name in shifts]:
            raise ValueError(
                f"LayerCAM at {', '.join(unfit)}: a batch norm behind it is folded; name the layer after that"
            )
        activations = folded.get_layer(cam_layer).output
        reader = _pointwise_reader(folded, cam_layer)
        source = reader.output if reader else activations
        logits = folded.get_layer(LOGITS_LAYER).output
        to_logits = keras.Model(folded.input, logits)
        to_cams = keras.Model(folded.input, [activations, source, logits])
        to_fine = keras.Model(folded.input, [logits, *(folded.get_layer(name).output for name in fine_layers)])
        tail = keras.Model(source, logits)
        shift = tf.constant(shifts.get(cam_layer, np.zeros(activations.shape[-1], "float32")))
        values = [weight.numpy() for weight in folded.weights]
        images = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32)
        weights = [tf.TensorSpec(value.shape, value.dtype) for value in values]

        def with_weights(weights):
            return keras.StatelessScope(state_mapping=zip(folded.weights, weights, strict=True))

        @tf.function(input_signature=[], autograph=False)
        def constants():
            return [tf.constant(value) for value in values]

        @tf.function(input_signature=[images, weights], autograph=False)
        def predict(inputs, weights):
            with with_weights(weights):
                return to_logits(inputs, training=False)

        @tf.function(input_signature=[images, weights], autograph=False)
        def explain(inputs, weights):
            with with_weights(weights):
                # (N, h, w, K), (N, h, w, J), (N, C)
                activations, source, logits = to_cams(inputs, training=False)
                alphas = _mean_gradients(logits, source, tail)  # (N, C, J)
                if reader:  # linear and the same everywhere, so it may follow the mean, which saves most of the work
                    alphas = tf.einsum("ncj,kj->nck", alphas, tf.convert_to_tensor(reader.kernel)[0, 0])
            # alpha and shift belong to the folded layer: s cancels, what remains is A' - t
            return logits, tf.einsum("nck,nhwk->nchw", alphas, activations - shift)

        @tf.function(input_signature=[images, tf.TensorSpec([None], tf.int64), weights], autograph=False)
        def explain_fine(inputs, class_ids, weights):
            with with_weights(weights), fast_input_gradients():
                logits, *activations = to_fine(inputs, training=False)
            return logits, _layer_cams(logits, activations, class_ids)

        self._constants, self._predict = constants, predict
        self._explain, self._explain_fine = explain, explain_fine

    def predict(self, inputs: tf.Tensor) -> tf.Tensor:
        """Model input (N, S, S, 3) -> logits (N, C)."""
        return self._predict(inputs, self._constants())

    def explain(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Model input (N, S, S, 3) -> logits (N, C), signed Grad-CAM maps of every class (N, C, h, w)."""
        return self._explain(inputs, self._constants())

    def explain_fine(self, inputs: tf.Tensor, class_ids: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Model input and class ids int64 (N,), -1 for the predicted one -> logits, a LayerCAM map (N, h, w) each."""
        return self._explain_fine(inputs, class_ids, self._constants())


def _layer_cams(logits: tf.Tensor, activations: list[tf.Tensor], class_ids: tf.Tensor) -> list[tf.Tensor]:
    """LayerCAM (N, h, w) from each of the activations (N, h, w, K), of the class asked for, or predicted where -1."""
    class_ids = tf.where(class_ids < 0, tf.argmax(logits, axis=-1), class_ids)
    # of every image its own logit: no image's logit hangs on another image's activations
    gradients = tf.gradients(tf.gather(logits, class_ids, batch_dims=1), activations)
    return [
        tf.nn.relu(tf.reduce_sum(tf.nn.relu(gradient) * values, axis=-1))
        for gradient, values in zip(gradients, activations, strict=True)
    ]


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
        fine_layers: whose activations LayerCAM weighs. Where there are any there is a signature `explain_fine`, with
            an output `map_<height>` for each.
    """

    def __init__(
        self,
        model: keras.Model,
        classes: Sequence[str],
        classes_file: str,
        cam_layer: str,
        view: View,
        fine_layers: Sequence[str] = (),
    ):
        super().__init__()
        self._core = FrozenCore(model, cam_layer, fine_layers)
        self._fine_names = list(fine_outputs(model, fine_layers))
        self._image_size = model.input_shape[1]
        self._classes = tf.constant(list(classes))
        self._classes_file = tf.saved_model.Asset(classes_file)  # travels as assets/classes.txt
        self._view = view

    def _model_input(self, views: tf.Tensor) -> tf.Tensor:
        """views: float32 (N, S, S, 1 or 3)."""
        return to_model_input(views, self._image_size, self._view.scaling)

    def _classified(self, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        """The three outputs of serving_default."""
        class_id = tf.argmax(logits, axis=-1)
        return {
            "class_id": class_id,
            "class_name": tf.gather(self._classes, class_id),
            "probabilities": tf.nn.softmax(logits),
        }

    def _predicted(self, views: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._classified(self._core.predict(self._model_input(views)))

    def _views(self, image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.map_fn(
            self._view.of_bytes,
            _shaped(image_bytes, (None,), "image_bytes", "a list of encoded images, shape (N,)"),
            fn_output_signature=(tf.TensorSpec(self._view.shape, tf.float32), tf.TensorSpec((4,), tf.float32)),
        )

    def _serving_default(self, image_bytes):
        return self._predicted(self._views(image_bytes)[0])

    def _explain(self, image_bytes):
        logits, cams = self._core.explain(self._model_input(self._views(image_bytes)[0]))
        return self._classified(logits) | {"cams": cams}

    def _explain_fine(self, image_bytes, class_id):
        class_id = _shaped(class_id, (None,), "class_id", "int64 (N,)")
        count, classes = tf.size(image_bytes), len(self._classes)
        one_each = [
            tf.debugging.Assert(
                tf.size(class_id) == count,
                ["class_id: expected one an image,", count, "in all, got", tf.size(class_id)],
            ),
            tf.debugging.Assert(
                tf.reduce_all((class_id >= -1) & (class_id < classes)),
                [f"class_id: expected 0..{classes - 1}, or -1 for the predicted class, got", class_id],
            ),
        ]
        with tf.control_dependencies(one_each):
            image_bytes = tf.identity(image_bytes)
        logits, maps = self._core.explain_fine(self._model_input(self._views(image_bytes)[0]), class_id)
        return self._classified(logits) | dict(zip(self._fine_names, maps, strict=True))

    def _images(self, images):
        images = _in_range(_shaped(images, (None, None, None, 3), "images", "float32 (N, H, W, 3)"), "images")
        views = tf.map_fn(
            lambda image: self._view.of_picture(image)[0],
            images,
            fn_output_signature=tf.TensorSpec(self._view.shape, tf.float32),
        )
        return self._predicted(views)

    def _pixels(self, pixels):
        count = math.prod(self._view.shape)
        pixels = _in_range(_shaped(pixels, (None, count), "pixels", f"float32 (N, {count})"), "pixels")
        views = tf.map_fn(self._view.of_pixels, tf.reshape(pixels, (-1, *self._view.shape)))
        return self._predicted(views)

    def _classify(self, inputs):
        features = tf.io.parse_example(inputs, {"image_bytes": tf.io.FixedLenFeature([], tf.string)})
        outputs = self._predicted(self._views(features["image_bytes"])[0])
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
        pixel_count = math.prod(self._view.shape)
        named = {
            "serving_default": (self._serving_default, image_bytes),
            "explain": (self._explain, image_bytes),
            "images": (self._images, tf.TensorSpec([None, None, None, 3], tf.float32, name="images")),
            "pixels": (self._pixels, tf.TensorSpec([None, pixel_count], tf.float32, name="pixels")),
            "classify": (self._classify, tf.TensorSpec([None], tf.string, name="inputs")),
            "preprocess": (self._preprocess, image_bytes),
        }
        if self._fine_names:
            class_id = tf.TensorSpec([None], tf.int64, name="class_id")
            named["explain_fine"] = (self._explain_fine, image_bytes, class_id)
        return {
            name: tf.function(function, input_signature=specifications).get_concrete_function()
            for name, (function, *specifications) in named.items()
        }


def fine_outputs(model: keras.Model, fine_layers: Sequence[str]) -> dict[str, str]:
    """The layer behind each output of `explain_fine` that is a map, by the output's name."""
    return {f"map_{model.get_layer(name).output.shape[1]}": name for name in fine_layers}


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
