"""Images as points of a plane: principal components, t-SNE, UMAP."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from training.extras import INSTALL

EDGE = 32  # pixels that an image is brought down to before its pixels are compared
COMPONENTS = 50  # that t-SNE and UMAP are given


def pixel_vectors(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, C) -> float32 (N, K), 0..1; larger images are averaged down to EDGE pixels."""
    height, width, channels = images.shape[1:]
    if max(height, width) > EDGE:
        scale = EDGE / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        images = np.stack(
            [
                np.asarray(
                    Image.fromarray(image[..., 0] if channels == 1 else image).resize(size, Image.Resampling.BOX)
                )
                for image in images
            ]
        )
    return images.reshape(len(images), -1).astype(np.float32) / 255.0


def principal_components(vectors: np.ndarray, count: int = 2) -> np.ndarray:
    """The coordinates along the directions of largest variance (Pearson, 1901), float32 (N, count).

    Each direction is turned so that its largest coordinate is positive: the same picture each time.
    """
    centred = vectors - vectors.mean(axis=0)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    points = left[:, :count] * lengths[:count]
    largest = points[np.abs(points).argmax(axis=0), np.arange(points.shape[1])]
    return (points * np.where(largest < 0, -1.0, 1.0)).astype(np.float32)


def t_sne(vectors: np.ndarray) -> np.ndarray:
    """t-SNE (van der Maaten and Hinton, 2008) of the first principal components, float32 (N, 2).

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise ImportError(f"t-SNE needs scikit-learn: {INSTALL}") from error
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    reduced = principal_components(vectors, COMPONENTS)
    with threadpool_limits(1):  # threads wait for each other, which on a busy machine takes many times as long
        return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(reduced).astype(np.float32)


def umap(vectors: np.ndarray) -> np.ndarray:
    """UMAP (McInnes et al., 2018, https://arxiv.org/abs/1802.03426) of the first principal components, float32 (N, 2).

    Raises:
        ImportError: umap-learn is not installed.
    """
    try:
        from umap import UMAP
    except ImportError as error:
        raise ImportError(f"UMAP needs umap-learn: {INSTALL}") from error
    neighbours = min(15, len(vectors) - 1)
    # one job: with a seed there is no second one, and UMAP warns of it
    reducer = UMAP(n_neighbors=neighbours, init="pca", random_state=0, n_jobs=1)
    return reducer.fit_transform(principal_components(vectors, COMPONENTS)).astype(np.float32)


METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "PCA": principal_components,
    "t-SNE": t_sne,
    "UMAP": umap,
}
