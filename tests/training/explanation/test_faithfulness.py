"""Faithfulness on a net of which the truth is known: a map that is right must win, one that is wrong must lose."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from training.explanation import faithfulness
from training.explanation.errors import ExplanationError
from training.explanation.faithfulness import METRICS, Candidate, Subject, best, candidates, interval, measure
from training.explanation.methods import METHODS
from training.explanation.network import Network
from training.explanation.randomisation import randomised

SIZE, COUNT = 12, 30
USED = np.s_[:, 3:6, 3:6]  # the pixels that the net looks at


@pytest.fixture(scope="module")
def network() -> Network:
    """The logit of class 1 is the sum of nine pixels, the other a constant between."""
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Flatten()(keras.layers.Conv2D(1, 1, use_bias=False, name="grey")(inputs))
    model = keras.Model(inputs, keras.layers.Softmax()(keras.layers.Dense(2, name="logits")(x)))
    weights = np.zeros((1, SIZE, SIZE, 2), "float32")
    weights[(*USED, 1)] = 1.0
    model.get_layer("grey").set_weights([np.full((1, 1, 3, 1), 1 / 3, "float32")])
    model.get_layer("logits").set_weights([weights.reshape(-1, 2), np.array([0.0, -4.0], "float32")])
    return Network(model)


@pytest.fixture(scope="module")
def subject(network) -> Subject:
    views = np.random.default_rng(0).integers(0, 50, (COUNT, SIZE, SIZE, 1)).astype("uint8")
    views[USED] = 230
    return Subject(network, views, lambda v: np.repeat(v / 255.0, 3, axis=-1), 0.0, object_on_black=True)


def right(network, images, views, class_ids) -> np.ndarray:
    maps = np.zeros(views.shape[:3], np.float32)
    maps[USED] = 1.0
    return maps


def wrong(network, images, views, class_ids) -> np.ndarray:
    return -right(network, images, views, class_ids)


def found(maps, subject: Subject) -> dict[str, float]:
    values, size = measure(Candidate("one", "One", None, maps), subject)
    assert size == (SIZE, SIZE)
    assert {len(one) for one in values.values()} == {COUNT}
    return {name: one.mean() for name, one in values.items()}


def test_right_beats_random_beats_wrong(subject):
    random = next(one for one in candidates([], []) if one.method == "random").maps
    figures = [found(maps, subject) for maps in (right, random, wrong)]
    for name in ("deletion", "insertion", "road"):
        values = [one[name] if METRICS[name].better == "high" else -one[name] for one in figures]
        assert values[0] > values[1] + 0.05, name
        assert values[1] > values[2] + 0.05, name
    assert [one["pointing"] for one in figures] == pytest.approx([1.0, 0.09, 0.0], abs=0.12)
    assert figures[0]["inside"] == 1.0
    area = subject.foreground.mean()
    assert figures[2]["inside"] == pytest.approx(area)  # no positive value: as if all were alike
    assert [one["empty"] for one in figures] == [0.0, 0.0, 1.0]


def test_what_asks_not_the_net_does_not_change_with_it(subject):
    edges = next(one for one in candidates([], []) if one.method == "sobel").maps
    assert found(edges, subject)["random_weights"] == pytest.approx(1.0)
    assert found(wrong, subject)["random_logits"] == pytest.approx(1.0)
    random = next(one for one in candidates([], []) if one.method == "random").maps
    assert found(random, subject)["random_weights"] < 0.2


def test_the_methods_see_what_this_net_uses(subject):
    for candidate in candidates([METHODS["saliency"], METHODS["integrated_gradients"], METHODS["occlusion"]], [])[:3]:
        values = {name: one.mean() for name, one in measure(candidate, subject)[0].items()}
        assert values["pointing"] == 1.0
        assert values["deletion"] < 0.35
        assert values["random_weights"] < 0.5


def test_deletion_by_hand(subject):
    """Of 144 pixels the nine that count go first: after a sixth only the constant is left."""
    ranks = faithfulness.pixel_ranks(right(None, None, subject.views, None))
    whole, gone = (1 / (1 + np.exp(-(9 * value / 255 - 4))) for value in (230, 0))
    expected = (0.5 * (whole + gone) + 5 * gone) / 6
    np.testing.assert_allclose(faithfulness.deletion(subject, ranks), expected, atol=1e-5)


def test_colour_images_have_no_object(network):
    views = np.random.default_rng(0).integers(0, 255, (4, SIZE, SIZE, 3)).astype("uint8")
    subject = Subject(network, views, lambda v: v / 255.0, 127.5, object_on_black=False)
    values, _ = measure(Candidate("one", "One", None, right), subject)
    assert set(METRICS) - set(values) == {"pointing", "inside"}


def test_ranks_of_equal_pixels_are_by_lot():
    ranks = faithfulness.pixel_ranks(np.zeros((2, 6, 6)))
    assert sorted(ranks[0].ravel()) == list(range(36))
    assert not np.array_equal(ranks[0].ravel(), np.arange(36))
    np.testing.assert_array_equal(ranks[0], ranks[1])
    maps = np.array([[[1.0, 3.0], [-2.0, 2.0]]])
    np.testing.assert_array_equal(faithfulness.pixel_ranks(maps), [[[2, 0], [3, 1]]])


def test_rank_correlations():
    maps = np.array([[[1.0, 2.0], [3.0, 4.0]]] * 3)
    others = np.array([[[10.0, 20.0], [30.0, 90.0]], [[4.0, 3.0], [2.0, 1.0]], [[5.0, 5.0], [5.0, 5.0]]])
    np.testing.assert_allclose(faithfulness.rank_correlations(maps, others), [1.0, -1.0, 0.0])


def test_interval():
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    one = interval(values)
    assert one["low"] < one["mean"] < one["high"]
    assert one["high"] - one["low"] == pytest.approx(2 * 1.96 * 2.0 / 20, rel=0.1)
    assert one == interval(values)


def test_candidates():
    keys = [one.key for one in candidates(list(METHODS.values()), ["last"], ["last", "fine"])]
    assert keys == [
        *(f"{name}@last" if METHODS[name].layer else name for name in METHODS),
        *(f"{name}@fine" for name in METHODS if METHODS[name].layer and name != "score_cam"),
        *("random", "sobel"),
    ]


def test_the_best_of_each_layer():
    def one(layer, value, *, reference=False):
        metrics = {name: {"mean": value if METRICS[name].better == "high" else -value} for name in faithfulness.RANKED}
        return {"layer": layer, "reference": reference, "metrics": metrics}

    methods = {"a@x": one("x", 1), "b@x": one("x", 2), "c": one(None, 0), "edges": one(None, 9, reference=True)}
    assert best(methods) == {"x": "b@x", "input": "c"}


def test_random_weights(small_net, images):
    model = small_net()
    before = [weight.copy() for weight in model.get_weights()]
    other = randomised(model, images)
    for weight, kept in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, kept)
    assert all((a != b).any() for a, b in zip(other.get_weights(), before, strict=True))
    normed = keras.Model(other.input, other.get_layer("norm").output)(images).numpy()
    norm = other.get_layer("norm")
    np.testing.assert_allclose(normed.mean(axis=(0, 1, 2)), norm.beta, atol=1e-3)  # its statistics are those of images
    np.testing.assert_allclose(normed.std(axis=(0, 1, 2)), np.abs(norm.gamma), rtol=0.02)
    for weight, again in zip(other.get_weights(), randomised(model, images).get_weights(), strict=True):
        np.testing.assert_array_equal(weight, again)


def test_random_logits_alone(small_net, images):
    model = small_net()
    other = randomised(model, images, ("logits",))
    changed = [layer.name for layer in model.layers if layer.weights and not np.array_equal(
        layer.get_weights()[0], other.get_layer(layer.name).get_weights()[0])]  # fmt: skip
    assert changed == ["logits"]


def test_a_layer_that_does_not_exist(subject):
    [candidate, *_] = candidates([METHODS["grad_cam"]], ["gray"])
    with pytest.raises(ExplanationError, match=r"layer 'gray' does not exist \(did you mean 'grey'"):
        measure(candidate, subject)
