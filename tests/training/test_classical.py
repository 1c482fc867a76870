"""Classical models on a few hundred real images: better than chance, always the same, and clear when they cannot."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from training.classical import CLASSICAL, FOLDS, fit_classical
from training.datasets import DataError, Source, Split, TrainingData, load_training

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return load_training(Source(), limit=600)


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_model_beats_chance(data, name, capsys):
    fitted = fit_classical(name, data.train, seed=0, limit=300)
    predicted = fitted.predict(data.validation.images)
    assert (predicted.dtype, predicted.shape) == (np.int64, (600,))
    assert np.mean(predicted == data.validation.labels) > 0.65  # ten classes
    assert fitted.cross_validation_accuracy > 0.6
    grid = {f"model__{key}": values for key, values in CLASSICAL[name].grid.items()}
    grid["pca__n_components"] = CLASSICAL[name].components
    assert fitted.best_parameters.keys() == grid.keys()
    assert all(value in grid[key] for key, value in fitted.best_parameters.items())
    assert fitted.size_bytes == len(pickle.dumps(fitted.pipeline))
    assert fitted.seconds > 0
    out = capsys.readouterr().out
    assert "Fitting 3 folds" in out
    assert "fitting 600 images" in out


@pytest.mark.parametrize("name", CLASSICAL)
def test_a_seed_gives_the_same_every_time(name):
    rng = np.random.default_rng(0)  # nothing to be learned from: what is predicted hangs on every draw
    noise = Split(rng.integers(0, 256, (200, 4, 4, 1), np.uint8), rng.integers(0, 2, 200))
    one, other = (fit_classical(name, noise.first(60), seed=3) for _ in range(2))
    assert one.best_parameters == other.best_parameters
    np.testing.assert_array_equal(one.predict(noise.images), other.predict(noise.images))


def blocks(count: int = 24) -> Split:
    """Colour images of two classes, (count, 2, 2, 3), fewer pixels than the registry's components."""
    labels = np.arange(count) % 2
    noise = np.random.default_rng(0).integers(0, 60, (count, 2, 2, 3))
    return Split((noise + 150 * labels[:, None, None, None]).astype(np.uint8), labels)


def test_few_images_have_few_neighbours():
    assert fit_classical("knn", blocks(6)).best_parameters["model__n_neighbors"] == 3


def test_small_colour_images_have_fewer_components():
    fitted = fit_classical("knn", blocks())
    assert fitted.best_parameters["pca__n_components"] == 12
    np.testing.assert_array_equal(fitted.predict(blocks().images), blocks().labels)


@pytest.mark.parametrize("labels", [[0] * 9 + [1] * (FOLDS - 1), [0] * 5 + [2] * 5])
def test_a_class_needs_an_image_a_fold(labels):
    images = np.zeros((len(labels), 4, 4, 1), np.uint8)
    with pytest.raises(DataError, match=r"at least 3 training images of every class.*class number 1 has [02]"):
        fit_classical("knn", Split(images, np.array(labels)))


@pytest.mark.parametrize(
    ("name", "package"),
    [("random_forest", "sklearn.ensemble"), ("xgboost", "xgboost"), ("knn", "sklearn.model_selection")],
)
def test_a_missing_package_is_one_clear_line(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"^{name} .*{package}.*pip install -r training/requirements-extra\.txt$"):
        fit_classical(name, blocks())


def test_the_module_itself_needs_no_package_more():
    code = "import sys; sys.modules |= dict.fromkeys(['sklearn', 'xgboost', 'joblib']); import training.classical"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
