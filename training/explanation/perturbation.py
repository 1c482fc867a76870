"""What a logit loses when a part of the image is hidden."""

from __future__ import annotations

import numpy as np

from training.explanation.network import Network


def occlusion(network: Network, images: np.ndarray, class_ids: np.ndarray, cells: int = 7) -> np.ndarray:
    """The logit less that of the image with one square hidden, for every square of a grid; signed, in logit units.

    Args:
        network: its baseline is what a hidden square shows.
        images: float32 (N, S, S, 3), as the model takes them.
        class_ids: int (N,).
        cells: squares a side: 7 are 4 pixels each of an image of 28.

    Returns:
        float32 (N, cells, cells).

    Source: Zeiler and Fergus, 2013, https://arxiv.org/abs/1311.2901, section 4.2.
    """
    edges = np.round(np.linspace(0, network.image_size, cells + 1)).astype(int)
    logits = network.logits(images)
    return np.stack(
        [
            _of_one(network, image, int(class_id), logits[number, class_id], edges)
            for number, (image, class_id) in enumerate(zip(images, class_ids, strict=True))
        ]
    )


def _of_one(network: Network, image: np.ndarray, class_id: int, logit: float, edges: np.ndarray) -> np.ndarray:
    cells = len(edges) - 1
    nothing = np.broadcast_to(network.baseline, image.shape)
    hidden, places = [], []
    for row, column in np.ndindex(cells, cells):
        square = np.s_[edges[row] : edges[row + 1], edges[column] : edges[column + 1]]
        if (image[square] != nothing[square]).any():  # else hiding it changes nothing, and costs as much
            copy = image.copy()
            copy[square] = nothing[square]
            hidden.append(copy)
            places.append((row, column))
    losses = np.zeros((cells, cells), np.float32)
    if hidden:
        losses[tuple(np.transpose(places))] = logit - network.logits(np.stack(hidden))[:, class_id]
    return losses
