"""Classical models on pixels, for comparison: principal components, then random forest, nearest neighbours or boosting.

Used by `python -m training.compare`.
"""

from __future__ import annotations

import importlib
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.datasets import DataError, Split
from training.datasets.splitting import some_of_every
from training.extras import INSTALL

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin
    from sklearn.pipeline import Pipeline

LIMIT = 10_000  # images that the grid is searched on; 60,000 take hours on two cores
FOLDS = 3


@dataclass(frozen=True)
class FittedClassical:
    """A model fitted on all of its training images, with the best parameters of its grid."""

    name: str
    best_parameters: dict[str, Any]  # as scikit-learn names them: {"model__n_neighbors": 5, "pca__n_components": 60}
    cross_validation_accuracy: float  # 0..1, of these parameters, on the images that were searched on
    seconds: float  # grid search and fit
    size_bytes: int  # of the pickled pipeline
    pipeline: Pipeline

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The class ids, int64 (N,), of images uint8 (N, H, W, C), 0..255."""
        return self.pipeline.predict(_features(images)).astype(np.int64)


@dataclass(frozen=True)
class Classical:
    """An entry of the registry. `build` takes the seed and imports the library, which may be missing."""

    build: Callable[[int], ClassifierMixin]
    grid: dict[str, list[Any]]
    components: tuple[int, ...]  # how many principal components to try, as far as the images have as many


def _random_forest(seed: int) -> ClassifierMixin:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=100, random_state=seed)


def _knn(seed: int) -> ClassifierMixin:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(algorithm="brute")  # in this many dimensions trees are slower


def _xgboost(seed: int) -> ClassifierMixin:
    from xgboost import XGBClassifier

    return XGBClassifier(n_estimators=100, tree_method="hist", max_bin=64, random_state=seed, n_jobs=1)


CLASSICAL = {
    "random_forest": Classical(_random_forest, {"max_features": ["sqrt", 0.2], "min_samples_leaf": [1, 4]}, (60,)),
    "knn": Classical(_knn, {"n_neighbors": [3, 5, 9], "weights": ["uniform", "distance"]}, (30, 60)),
    "xgboost": Classical(_xgboost, {"max_depth": [3, 6], "learning_rate": [0.1, 0.3]}, (60,)),
}


def unfitted(name: str, seed: int = 0) -> ClassifierMixin:
    """A model of the registry, after a look at all that fitting it will import.

    Raises:
        ImportError: scikit-learn or xgboost is not installed; the text says how to.
    """
    try:
        for needed in (
            "joblib",
            "sklearn.decomposition",
            "sklearn.model_selection",
            "sklearn.pipeline",
            "threadpoolctl",
        ):
            importlib.import_module(needed)
        return CLASSICAL[name].build(seed)
    except ImportError as error:
        raise ImportError(f"{name} needs another package ({error}): {INSTALL}") from error


def fit_classical(name: str, train: Split, *, seed: int = 0, limit: int = LIMIT) -> FittedClassical:
    """Searches the model's grid by stratified cross-validation on some images, then fits the best on all of them.

    Args:
        name: one of CLASSICAL.
        train: training images, all of one size.
        seed: of folds, subset and model; the same gives the same.
        limit: how many images, classes in proportion, to search on.

    Raises:
        ImportError: scikit-learn or xgboost is not installed.
        DataError: a class has fewer images than there are folds.
        KeyError: no such model.
    """
    entry = CLASSICAL[name]
    counts = np.bincount(train.labels)
    if counts.min() < FOLDS:
        raise DataError(
            f"{name}: expected at least {FOLDS} training images of every class, one a fold; class number "
            f"{counts.argmin()} has {counts.min()}"
        )
    started = time.perf_counter()
    model = unfitted(name, seed)
    from joblib import parallel_config
    from sklearn.decomposition import PCA
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import Pipeline
    from threadpoolctl import threadpool_limits

    features = _features(train.images)
    searched = some_of_every(train.labels, limit, seed, at_least=FOLDS)
    a_fit_has = len(searched) * (FOLDS - 1) // FOLDS
    most = min(features.shape[1], a_fit_has)
    grid = {f"model__{key}": values for key, values in entry.grid.items()}
    if "model__n_neighbors" in grid:
        grid["model__n_neighbors"] = [count for count in grid["model__n_neighbors"] if count <= a_fit_has]
    grid["pca__n_components"] = sorted({min(count, most) for count in entry.components})
    pipeline = Pipeline([("pca", PCA(random_state=seed)), ("model", model)])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    search = GridSearchCV(pipeline, grid, cv=folds, refit=False, n_jobs=-1, verbose=2, error_score="raise")
    # a thread a fit: threads inside the fits wait for each other, which on a busy machine took 30 times as long
    with parallel_config("threading"), threadpool_limits(1):
        search.fit(features[searched], train.labels[searched])
        print(f"{name}: {search.best_score_:.4f} by {search.best_params_}; fitting {len(train)} images", flush=True)
        pipeline.set_params(**search.best_params_).fit(features, train.labels)
    return FittedClassical(
        name,
        dict(search.best_params_),
        float(search.best_score_),
        time.perf_counter() - started,
        len(pickle.dumps(pipeline)),
        pipeline,
    )


def _features(images: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, C) -> float32 (N, H*W*C), 0..1."""
    return images.reshape(len(images), -1).astype(np.float32) / 255.0
