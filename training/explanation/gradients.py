"""Gradients of a logit by the pixels: maps at the resolution of the model's input.

Each takes a network, images float32 (N, S, S, 3) and class ids int (N,), and returns float32 (N, S, S).
"""

from __future__ import annotations

import numpy as np

from training.explanation.network import Network


def saliency(network: Network, images: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """max over colours of |dy/dx|.

    Source: Simonyan et al., 2013, https://arxiv.org/abs/1312.6034, section 3.1.
    """
    return np.abs(network.input_gradients(images, class_ids)).max(axis=-1)


def smooth_grad(
    network: Network,
    images: np.ndarray,
    class_ids: np.ndarray,
    samples: int = 20,
    noise: float = 0.2,
    seed: int = 0,
) -> np.ndarray:
    """The saliency of an image under noise: the mean of |dy/dx| over noisy copies, then the maximum over colours.

    Args:
        samples: copies of each image.
        noise: standard deviation, as a fraction of the image's range from its lowest to its highest value.
        seed: the same noise for every image, and every time.

    Source: Smilkov et al., 2017, https://arxiv.org/abs/1706.03825, section 3.
    """
    generator = np.random.default_rng(seed)
    spread = noise * (images.max(axis=(1, 2, 3), keepdims=True) - images.min(axis=(1, 2, 3), keepdims=True))
    total = np.zeros_like(images)
    for _ in range(samples):
        noisy = images + spread * generator.standard_normal(images.shape[1:], dtype=np.float32)
        total += np.abs(network.input_gradients(noisy, class_ids))
    return (total / samples).max(axis=-1)


def integrated_gradients(network: Network, images: np.ndarray, class_ids: np.ndarray, steps: int = 24) -> np.ndarray:
    """(x - x') times the mean of dy/dx on the way from the baseline x' to x, summed over colours; signed.

    Complete: the map sums up to the logit of the image less that of the baseline, but for the error of the sum that
    stands for the integral (midpoint rule).

    Args:
        steps: points on the way.

    Source: Sundararajan et al., 2017, https://arxiv.org/abs/1703.01365, equations 1 and 3.
    """
    way = images - network.baseline
    total = np.zeros_like(images)
    for step in range(steps):
        total += network.input_gradients(network.baseline + (step + 0.5) / steps * way, class_ids)
    return (way * total / steps).sum(axis=-1)
