"""Are the pictures true? What happens to a prediction when what a map marks is taken away, or alone is left.

Pixels are taken away from the view, the image of the training's resolution that the model sees, not from its
enlargement: finer than that there is nothing to be seen. The order of pixels of equal value is drawn by lot, once.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage, stats

from training.explanation.imputation import impute
from training.explanation.methods import Method
from training.explanation.network import Network
from training.explanation.randomisation import randomised
from training.explanation.resampling import at_size
from training.model import LOGITS_LAYER
from training.preprocessing import FUZZ

CHUNK = 100  # images whose changed views are held at once
FRACTIONS = tuple(step / 6 for step in range(7))  # of the pixels, for the curves
ROAD_FRACTIONS = (0.2, 0.5, 0.8)
BLUR = 1 / 7  # standard deviation of the blur that insertion begins with, as a fraction of the view's edge
SANITY_IMAGES = 50
# Fewer passes than for a picture: all of Score-CAM's would take longer than all else
QUICK = {
    "score_cam": {"channels": 16},
    "smooth_grad": {"samples": 10},
    "integrated_gradients": {"steps": 12},
    "shap": {"samples": 10},
}
RESAMPLES = 2000


@dataclass(frozen=True)
class Metric:
    """What is measured of a method."""

    title: str  # for pictures and tables
    better: str  # "high" or "low"; "" where neither is


METRICS = {
    "deletion": Metric("deletion AUC", "low"),
    "insertion": Metric("insertion AUC", "high"),
    "road": Metric("ROAD", "high"),
    "pointing": Metric("peak inside the object", "high"),
    "inside": Metric("positive share inside", "high"),
    "random_logits": Metric("|rank correlation|, random logits", "low"),
    "random_weights": Metric("|rank correlation|, random weights", "low"),
    "empty": Metric("maps without positive evidence", ""),
}
RANKED = ("deletion", "insertion", "road")  # what names the best: whether the map is true to the model


@dataclass(frozen=True)
class Candidate:
    """A method at a layer, or one of the references: what is measured."""

    method: str
    title: str
    layer: str | None
    maps: Callable[[Network, np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # of network, images, views, class_ids
    reference: bool = False  # knows nothing of the model: what a method must beat
    background: bool = False  # compares with other images, which the network must have

    @property
    def key(self) -> str:
        return f"{self.method}@{self.layer}" if self.layer else self.method


def candidates(methods: Sequence[Method], layers: Sequence[str], finer: Sequence[str] = ()) -> list[Candidate]:
    """The methods, those that need a layer at each of `layers` and of `finer`, and the references.

    At `finer` without Score-CAM: there it takes as long as all the others, and `layers` can name them.
    """
    pairs = [(one, layer) for one in methods for layer in (layers if one.layer else [None])]
    added = [layer for layer in finer if layer not in layers]
    pairs += [(one, layer) for layer in added for one in methods if one.layer and one.name != "score_cam"]
    found = [
        Candidate(one.name, one.title, layer, functools.partial(_of_method, _quick(one)), background=one.background)
        for one, layer in pairs
    ]
    return [
        *found,
        Candidate("random", "Random map", None, _random, reference=True),
        Candidate("sobel", "Edges (Sobel)", None, _sobel, reference=True),
    ]


class Subject:
    """The model and the images that methods are measured on, and what all of them need of these.

    Args:
        network: the model; its layer does not matter.
        views: uint8 or float32 (N, V, V, C), 0..255, what the model sees.
        to_model: makes of views what the model takes.
        nothing: what stands for "nothing there" in a view, 0..255.
        object_on_black: whether the grey level tells the object from the ground; else nothing is said of pointing.
    """

    def __init__(
        self,
        network: Network,
        views: np.ndarray,
        to_model: Callable[[np.ndarray], np.ndarray],
        nothing: float,
        *,
        object_on_black: bool,
    ):
        self.network = network
        self.views = np.asarray(views, np.float32)
        self.to_model = to_model
        self.nothing = nothing
        self.foreground = self.views.max(axis=-1) > FUZZ * 255.0 if object_on_black else None  # (N, V, V)
        self.images = to_model(self.views)
        self.class_ids = network.predicted(self.images)
        blur = BLUR * self.views.shape[1]
        self.blurred = ndimage.gaussian_filter(self.views, (0, blur, blur, 0))

    def probabilities(self, views: np.ndarray) -> np.ndarray:
        """Of the classes that were predicted of the views as they are, float64 (N,)."""
        parts = [self.to_model(views[start : start + CHUNK]) for start in range(0, len(views), CHUNK)]
        found = np.concatenate([self.network.probabilities(part) for part in parts])
        return found[np.arange(len(views)), self.class_ids].astype(np.float64)

    @functools.cached_property
    def of_whole(self) -> np.ndarray:
        return self.probabilities(self.views)

    @functools.cached_property
    def of_nothing(self) -> np.ndarray:
        return self.probabilities(np.full_like(self.views, self.nothing))

    @functools.cached_property
    def of_blurred(self) -> np.ndarray:
        return self.probabilities(self.blurred)

    @functools.cached_property
    def randomised(self) -> dict[str, Network]:
        """The same net with random logits, and with random weights throughout."""
        model, images = self.network.model, self.images[:SANITY_IMAGES]
        return {
            name: self.network.of(randomised(model, images, layers))
            for name, layers in (("random_logits", (LOGITS_LAYER,)), ("random_weights", None))
        }


def measure(candidate: Candidate, subject: Subject) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
    """What is found of a method, an image at a time.

    Args:
        candidate: the method, its layer included.
        subject: the model and images.

    Returns:
        By name of METRICS float64 (N,), of the randomisations (min(N, SANITY_IMAGES),); pointing and inside are left
        out where object and ground cannot be told apart. And the height and width of the maps.

    Raises:
        ExplanationError: the model has no such layer.
    """
    network = subject.network.at(candidate.layer)
    maps = candidate.maps(network, subject.images, subject.views, subject.class_ids)
    seen = at_size(maps, subject.views.shape[1])
    ranks = pixel_ranks(seen)
    found = {
        "deletion": deletion(subject, ranks),
        "insertion": insertion(subject, ranks),
        "road": road(subject, ranks),
        "empty": (maps.max(axis=(1, 2)) <= 0).astype(np.float64),
    }
    if subject.foreground is not None:
        found["pointing"] = (subject.foreground & (ranks == 0)).any(axis=(1, 2)).astype(np.float64)
        found["inside"] = share_inside(seen, subject.foreground)
    some = np.s_[:SANITY_IMAGES]
    for name, random in subject.randomised.items():
        other = candidate.maps(
            random.at(candidate.layer), subject.images[some], subject.views[some], subject.class_ids[some]
        )
        found[name] = np.abs(rank_correlations(maps[some], other))
    return found, maps.shape[1:]


def deletion(subject: Subject, ranks: np.ndarray) -> np.ndarray:
    """The area under the probability as pixels vanish, the most relevant first, 0..1; a true map's is small.

    Source: Petsiuk et al., 2018, https://arxiv.org/abs/1806.07421, section 4.2 (deletion).
    """
    return _area(subject, ranks, subject.views, np.full_like(subject.views, subject.nothing), subject.of_nothing, -1)


def insertion(subject: Subject, ranks: np.ndarray) -> np.ndarray:
    """The area under the probability as pixels come into a blurred view, the most relevant first; a true map's is big.

    Source: Petsiuk et al., 2018, https://arxiv.org/abs/1806.07421, section 4.2 (insertion).
    """
    return _area(subject, ranks, subject.blurred, subject.views, subject.of_blurred, 0)


def road(subject: Subject, ranks: np.ndarray) -> np.ndarray:
    """How much more the least relevant pixels can be spared than the most relevant, -1..1: the difference of the two
    probabilities with imputed pixels, the mean over three fractions.

    Source: Rong et al., 2022, https://arxiv.org/abs/2202.00449, section 4 (remove and debias, both orders).
    """
    pixels = ranks[0].size
    gains = []
    for fraction in ROAD_FRACTIONS:
        count = round(fraction * pixels)
        most, least = ranks < count, ranks >= pixels - count
        gains.append(
            subject.probabilities(impute(subject.views, least)) - subject.probabilities(impute(subject.views, most))
        )
    return np.mean(gains, axis=0)


def share_inside(maps: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """The share of the map's positive values that lies on the object, (N,); of a map without any, the object's area.

    Source: Wang et al., 2020, https://arxiv.org/abs/1910.01279, section 4.3 (energy-based pointing game).
    """
    positive = np.maximum(maps, 0.0).astype(np.float64)
    positive[positive.max(axis=(1, 2)) == 0] = 1.0
    return (positive * foreground).sum(axis=(1, 2)) / positive.sum(axis=(1, 2))


def rank_correlations(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each pair of maps (N, h, w), -1..1, (N,); 0 where one is the same everywhere."""
    ranks, other_ranks = (stats.rankdata(one.reshape(len(one), -1), axis=1) for one in (maps, others))
    ranks -= ranks.mean(axis=1, keepdims=True)
    other_ranks -= other_ranks.mean(axis=1, keepdims=True)
    norms = np.sqrt((ranks**2).sum(axis=1) * (other_ranks**2).sum(axis=1))
    return np.divide((ranks * other_ranks).sum(axis=1), norms, out=np.zeros(len(maps)), where=norms > 0)


def pixel_ranks(maps: np.ndarray, seed: int = 0) -> np.ndarray:
    """The place of every pixel from the most relevant, 0, to the least, int64 (N, V, V); equal ones by lot."""
    flat = maps.reshape(len(maps), -1)
    lot = np.random.default_rng(seed).permutation(flat.shape[1])
    order = lot[np.argsort(-flat[:, lot], axis=1, kind="stable")]  # pixels, the most relevant first
    return np.argsort(order, axis=1).reshape(maps.shape)


def interval(values: np.ndarray) -> dict[str, float]:
    """The mean and its 95 % percentile bootstrap interval (Efron, 1979): `mean`, `low`, `high`."""
    drawn = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def best(methods: dict[str, dict]) -> dict[str, str]:
    """The key of the method that ranks best over RANKED, on average, for each layer ("input": those without one).

    Args:
        methods: by key, with `layer`, `reference`, and `metrics` as of `interval`.
    """
    real = {key: one for key, one in methods.items() if not one["reference"]}
    places = dict.fromkeys(real, 0)
    for metric in RANKED:
        upward = 1 if METRICS[metric].better == "low" else -1
        for place, key in enumerate(sorted(real, key=lambda key: upward * real[key]["metrics"][metric]["mean"])):
            places[key] += place
    layers = dict.fromkeys(one["layer"] for one in real.values())
    return {
        layer or "input": min((key for key in real if real[key]["layer"] == layer), key=places.__getitem__)
        for layer in layers
    }


def _area(
    subject: Subject, ranks: np.ndarray, before: np.ndarray, after: np.ndarray, at_end: np.ndarray, end: int
) -> np.ndarray:
    """Under the curve from `before` to `after`, pixel by pixel; what is known of its `end`, 0 or -1, is `at_end`."""
    curve = [
        subject.probabilities(np.where((ranks < round(fraction * ranks[0].size))[..., None], after, before))
        for fraction in FRACTIONS[1:-1]
    ]
    curve = [subject.of_whole, *curve, at_end] if end == -1 else [at_end, *curve, subject.of_whole]
    return np.trapezoid(curve, FRACTIONS, axis=0)


def _quick(method: Method) -> Method:
    options = QUICK.get(method.name, {})
    return replace(method, function=functools.partial(method.function, **options)) if options else method


def _of_method(method: Method, network: Network, images: np.ndarray, views: np.ndarray, class_ids: np.ndarray):
    return method.maps(network, images, class_ids)


def _random(network: Network, images: np.ndarray, views: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    logits = network.model.get_layer(LOGITS_LAYER)
    seed = zlib.crc32(logits.get_weights()[0].tobytes())  # another map where the weights are others
    return np.random.default_rng(seed).uniform(size=views.shape[:3]).astype(np.float32)


def _sobel(network: Network, images: np.ndarray, views: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    grey = views.mean(axis=-1)
    return np.hypot(*(ndimage.sobel(grey, axis=axis) for axis in (1, 2))).astype(np.float32)
