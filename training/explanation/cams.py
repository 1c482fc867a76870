"""Class activation maps: sums over the channels of a layer, at the layer's resolution.

Each takes a network opened at a layer, images float32 (N, S, S, 3) and class ids int (N,), and returns float32
(N, h, w). A is (N, h, w, K), dy/dA the gradient of the class's logit by it, in the same shape.
"""

from __future__ import annotations

import numpy as np

from training.explanation.network import Network

_TINY = 1e-7  # added to a range that is divided by


def grad_cam(network: Network, images: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """ReLU(sum_k alpha_k A_k), alpha_k = mean over positions of dy/dA_k.

    Source: Selvaraju et al., 2017, https://arxiv.org/abs/1610.02391, equations 1 and 2.
    """
    return np.maximum(signed_grad_cam(network, images, class_ids), 0.0)


def signed_grad_cam(network: Network, images: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """Grad-CAM before its ReLU: linear in the logit, so that maps of two classes can be subtracted."""

    def of_batch(activations, gradients):
        alphas = gradients.mean(axis=(1, 2), keepdims=True)  # (N, 1, 1, K), equation 1
        return (alphas * activations).sum(axis=-1)  # equation 2

    return network.of_layer(of_batch, images, class_ids)


def grad_cam_plus_plus(network: Network, images: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """ReLU(sum_k w_k A_k), w_k = sum over positions of alpha_k ReLU(dy/dA_k), the alphas of a channel summing to 1.

    alpha = g^2 / (2 g^2 + g^3 sum over positions of A), g = dy/dA: the class score is exp(y). Its factor exp(y) is
    left out, as it cancels when a map is scaled, and overflows before.

    Source: Chattopadhay et al., 2018, https://arxiv.org/abs/1710.11063, equations 5 and 19. That the alphas are
    divided by their sum is in the authors' code, not in the paper.
    """

    def of_batch(activations, gradients):
        squares = gradients**2
        denominators = 2.0 * squares + squares * gradients * activations.sum(axis=(1, 2), keepdims=True)
        alphas = squares / np.where(denominators == 0.0, 1.0, denominators)  # (N, h, w, K), equation 19
        sums = alphas.sum(axis=(1, 2), keepdims=True)
        alphas = alphas / np.where(sums == 0.0, 1.0, sums)
        weights = (alphas * np.maximum(gradients, 0.0)).sum(axis=(1, 2), keepdims=True)  # (N, 1, 1, K), equation 5
        return np.maximum((weights * activations).sum(axis=-1), 0.0)

    return network.of_layer(of_batch, images, class_ids)


def layer_cam(network: Network, images: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """ReLU(sum_k ReLU(dy/dA_k) A_k), position by position, which holds at fine layers too.

    Source: Jiang et al., 2021, https://doi.org/10.1109/TIP.2021.3089943, equations 5 and 6.
    """

    def of_batch(activations, gradients):
        return np.maximum((np.maximum(gradients, 0.0) * activations).sum(axis=-1), 0.0)

    return network.of_layer(of_batch, images, class_ids)


def hires_cam(network: Network, images: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """sum_k dy/dA_k A_k, position by position and signed.

    Where only linear layers follow, the map's sum is the logit less a constant: it shows what the model used. Where
    global average pooling follows it is Grad-CAM before its ReLU.

    Source: Draelos and Carin, 2020, https://arxiv.org/abs/2011.08891, section 3.3 (HiResCAM).
    """

    def of_batch(activations, gradients):
        return (gradients * activations).sum(axis=-1)

    return network.of_layer(of_batch, images, class_ids)


def eigen_cam(network: Network, images: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """ReLU(A v_1): the activations of each image along their first principal direction, whatever the class.

    v_1 is the first right singular vector of A as a matrix (h * w, K), uncentred; of its two signs the one with which
    the map's sum is positive. What then is below zero is no evidence against a class, so it is left out.

    Source: Muhammad and Yeasin, 2020, https://arxiv.org/abs/2008.00299, section III.
    """
    maps = []
    for activations in network.activations(images):
        count, height, width, channels = activations.shape
        matrices = activations.reshape(count, height * width, channels)
        left, values, _ = np.linalg.svd(matrices, full_matrices=False)
        projected = left[..., 0] * values[:, :1]  # (N, h * w): A v_1
        signs = np.where(projected.sum(axis=1, keepdims=True) < 0.0, -1.0, 1.0)
        maps.append(np.maximum(signs * projected, 0.0).reshape(count, height, width))
    return np.concatenate(maps).astype(np.float32)


def score_cam(network: Network, images: np.ndarray, class_ids: np.ndarray, channels: int | None = None) -> np.ndarray:
    """ReLU(sum_k w_k A_k), w_k = probability of the class when only what A_k marks is seen. No gradients.

    A_k is enlarged to the image and brought to 0..1 to be the mask; what it hides becomes the network's baseline. One
    forward pass a channel: of 320 channels as many.

    Args:
        channels: only those whose activations vary most over the positions (Faster Score-CAM); None: all.

    Source: Wang et al., 2020, https://arxiv.org/abs/1910.01279, equations 5 to 9 in the form of the authors' code:
    softmax over the classes, no score of the baseline subtracted.
    """
    ours, first = [], 0
    for activations in network.activations(images):
        for number, activation in enumerate(activations, start=first):
            ours.append(_score_cam(network, images[number], activation, int(class_ids[number]), channels))
        first += len(activations)
    return np.stack(ours)


def _score_cam(
    network: Network, image: np.ndarray, activation: np.ndarray, class_id: int, channels: int | None
) -> np.ndarray:
    """image (S, S, 3), activation (h, w, K) -> (h, w)."""
    if channels is not None:
        spread = activation.std(axis=(0, 1))
        activation = activation[..., np.argsort(-spread, kind="stable")[:channels]]
    enlarge = [_corner_aligned(size, network.image_size) for size in activation.shape[:2]]
    weights = []
    for start in range(0, activation.shape[-1], network.batch):
        some = activation[..., start : start + network.batch]
        masks = np.einsum("yh,xw,hwk->kyx", *enlarge, some, optimize=True)  # (B, S, S)
        low, high = masks.min(axis=(1, 2), keepdims=True), masks.max(axis=(1, 2), keepdims=True)
        masks = ((masks - low) / (high - low + _TINY))[..., None]
        seen = network.baseline + masks * (image - network.baseline)  # (B, S, S, 3)
        weights.append(network.probabilities(seen)[:, class_id])
    return np.maximum(activation @ np.concatenate(weights), 0.0)


def _corner_aligned(size: int, target: int) -> np.ndarray:
    """Linear interpolation from `size` to `target` points, the outer ones falling together, float32 (target, size)."""
    positions = np.linspace(0.0, size - 1.0, target)
    return np.maximum(1.0 - np.abs(positions[:, None] - np.arange(size)), 0.0).astype(np.float32)
