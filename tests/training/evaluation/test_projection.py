"""Images as points: three clouds that lie apart stay apart, and the same picture each time."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from training.evaluation.projection import EDGE, METHODS, pixel_vectors, principal_components


@pytest.fixture
def clouds() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    return (generator.normal(0, 0.3, (60, 12)) + 8 * np.eye(12)[labels]).astype(np.float32), labels


@pytest.mark.parametrize("method", METHODS)
def test_clouds_stay_apart(method, clouds):
    vectors, labels = clouds
    points = METHODS[method](vectors)
    assert points.shape == (60, 2)
    assert points.dtype == np.float32
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert np.array_equal(labels[distances.argmin(axis=1)], labels)


def test_principal_components_keep_the_variance_and_do_not_flip(clouds):
    vectors, _ = clouds
    points = principal_components(vectors)
    largest = np.linalg.eigvalsh(np.cov(vectors.T))[-2:]
    assert np.sort(points.var(axis=0, ddof=1)) == pytest.approx(largest, rel=1e-4)
    assert points[np.abs(points).argmax(axis=0), [0, 1]].min() > 0


@pytest.mark.parametrize(("shape", "length"), [((28, 28, 1), 784), ((80, 40, 3), EDGE * EDGE // 2 * 3)])
def test_large_images_are_brought_down(shape, length):
    vectors = pixel_vectors(np.full((3, *shape), 255, np.uint8))
    assert vectors.shape == (3, length)
    assert vectors.min() == vectors.max() == 1.0


@pytest.mark.parametrize(("method", "module"), [("t-SNE", "sklearn.manifold"), ("UMAP", "umap")])
def test_what_is_not_installed_is_named(method, module, clouds, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"{method} needs .*: .*pip install -r training/requirements-extra.txt$"):
        METHODS[method](clouds[0])
