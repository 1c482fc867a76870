"""What is drawn: the colours of maps over views, and the sheet around them."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest

from training.explanation.sheet import POSITIVE, SHARPNESS, SIGNED, Column, Row, coloured, draw, save

BLACK = np.zeros((8, 8, 1), np.uint8)


@pytest.fixture
def rows() -> list[Row]:
    picture = np.full((20, 30, 3), 200, np.uint8)
    return [Row(BLACK, ("shoe.jpg", "Bag 90%"), picture, (0.0, 0.2, 1.0, 0.8)), Row(BLACK, ("b",), picture)]


def texts(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_colours_over_the_ground_are_those_of_the_bar():
    one = np.array([[0.0, 2.0], [1.0, 0.0]], np.float32)
    drawn = coloured(BLACK, one, signed=False)
    assert drawn.shape == (8 * SHARPNESS, 8 * SHARPNESS, 3)
    np.testing.assert_allclose(drawn[0, -1], mpl.colormaps[POSITIVE](1.0)[:3])
    np.testing.assert_allclose(drawn[0, 0], mpl.colormaps[POSITIVE](0.0)[:3])
    np.testing.assert_allclose(drawn[-1, 0], mpl.colormaps[POSITIVE](0.5)[:3], atol=0.02)


def test_zero_of_a_signed_map_is_white():
    one = np.array([[0.0, -3.0], [1.5, 0.0]], np.float32)
    drawn = coloured(BLACK, one, signed=True)
    np.testing.assert_allclose(drawn[0, 0], mpl.colormaps[SIGNED](0.5)[:3], atol=0.01)
    assert drawn[0, 0].min() > 0.95
    np.testing.assert_allclose(drawn[0, -1], mpl.colormaps[SIGNED](0.0)[:3])
    red, _, blue = drawn[-1, 0]
    assert red > blue  # for the class


def test_the_object_is_seen_through_the_map():
    view = BLACK.copy()
    view[2:4, 2:4] = 255
    inside = np.s_[2 * SHARPNESS : 4 * SHARPNESS, 2 * SHARPNESS : 4 * SHARPNESS]
    for signed, lighter in ((False, True), (True, False)):
        drawn = coloured(view, np.zeros((2, 2), np.float32), signed=signed)
        assert (drawn[inside].mean() > drawn[0, 0].mean()) == lighter
        assert len(np.unique(drawn[inside].reshape(-1, 3), axis=0)) == 1  # crisp


def test_a_map_finer_than_the_view_is_averaged():
    one = np.zeros((32, 32), np.float32)
    one[:4, :4] = 1.0
    drawn = coloured(BLACK, one, signed=False)
    blocks = drawn.reshape(8, SHARPNESS, 8, SHARPNESS, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    assert drawn[0, 0].sum() > drawn[-1, -1].sum()


def test_a_sheet(rows, tmp_path):
    maps = np.stack([np.zeros((3, 3)), np.eye(3)]).astype("float32")
    columns = [Column("Grad-CAM", False, maps), Column("Occlusion", True, -maps)]
    figure = draw(rows, columns, "What speaks for Bag?")
    assert texts(figure) == ["no positive\nevidence", "no evidence\neither way"]
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:4] == ["picture", "what the\nmodel sees", "Grad-CAM", "Occlusion"]
    assert len(figure.axes) == 2 * 4 + 2  # with two colour bars
    assert len(figure.axes[0].patches) == 1  # the part of the picture that is seen
    assert not figure.axes[4].patches
    png, svg = save(figure, tmp_path / "new")
    assert mpl.image.imread(png).shape[2] == 4
    assert "<svg" in svg.read_text()


def test_only_negative_evidence_is_no_positive_evidence(rows):
    maps = np.full((2, 3, 3), -1.0, np.float32)
    assert texts(draw(rows, [Column("a", False, maps)], "")) == ["no positive\nevidence"] * 2
    assert texts(draw(rows, [Column("a", True, maps)], "")) == []


def test_one_map_a_row(rows):
    with pytest.raises(ValueError, match="expected one map for each of 2 rows, got another number in Grad-CAM"):
        draw(rows, [Column("Grad-CAM", False, np.zeros((3, 2, 2)))], "")
