"""The drawing: right place, right colours, nothing invented where there is no evidence."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from serving.client import InvalidInput
from serving.client.colormaps import diverging, sequential
from serving.client.figure import ColourBar, beside
from serving.client.overlay import (
    PAD_COLOUR,
    draw_grid,
    flat,
    has_evidence,
    lay_out,
    open_photo,
    paint,
    paint_contrast,
    smooth,
    upright,
)

CORNER = np.array([[4, 0, 0], [0, 0, 0], [0, 0, 0]], np.float32)


def difference(a: Image.Image, b: Image.Image) -> np.ndarray:
    return np.abs(np.asarray(a, int) - np.asarray(b, int)).sum(axis=2)


@pytest.mark.parametrize(("ours", "name", "low"), [(sequential, "viridis", 0), (diverging, "PuOr_r", -1)])
def test_colours_are_the_published_ones(ours, name, low):
    import matplotlib

    values = np.linspace(low, 1, 256)
    theirs = matplotlib.colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255
    assert np.abs(ours(values) - theirs).max() < 4


def test_lightness_of_the_sequential_map_only_grows():
    luma = sequential(np.linspace(0, 1, 256)) @ np.array([0.2126, 0.7152, 0.0722])
    assert np.diff(luma).min() > -0.6


def test_zero_of_the_diverging_map_is_white_and_the_ends_are_clipped():
    assert diverging(0.0).min() > 240
    np.testing.assert_array_equal(diverging([5.0, -5.0]), diverging([1.0, -1.0]))


def test_smooth_stays_within_the_grid_and_keeps_its_place():
    large = smooth(CORNER, (300, 300))
    assert large.shape == (300, 300)
    assert (large.min(), large.max()) == (0, 4)
    assert large[:50, :50].mean() > 3
    assert large[200:, 200:].max() < 0.02


@pytest.mark.parametrize("size", [(100, 50), (50, 100), (3000, 2000), (28, 28), (1, 500)])
def test_layout_without_a_box_is_the_photo(size):
    layout = lay_out(Image.new("RGB", size), longest_px=200)
    assert max(layout.image.size) == 200
    assert layout.square == (0, 0, *layout.image.size)


def test_layout_of_a_square_inside_the_photo():
    layout = lay_out(Image.new("RGB", (400, 200)), (0.25, 0.5, 0.75, 0.75), longest_px=200)
    assert layout.image.size == (200, 100)
    assert layout.square == (100, 25, 150, 75)


def test_layout_grows_where_the_square_reaches_outside():
    layout = lay_out(Image.new("RGB", (100, 200), "red"), (0, -0.5, 1, 1.5), longest_px=200)
    assert layout.image.size == (200, 200)
    assert layout.square == (0, 0, 200, 200)
    assert layout.image.getpixel((25, 100)) == PAD_COLOUR
    assert layout.image.getpixel((100, 100)) == (255, 0, 0)


@pytest.mark.parametrize("box", [(0, 0, 0, 1), (0, 1, 1, 0), (0, 0, float("nan"), 1), (0, 0, 1), "box"])
def test_impossible_boxes_are_refused(box):
    with pytest.raises(ValueError, match=r"box: expected|could not convert"):
        lay_out(Image.new("RGB", (10, 10)), box)


def test_a_part_that_is_not_square_is_painted_from_edge_to_edge():
    layout = lay_out(Image.new("RGB", (400, 200), "red"), [0.0, 0.25, 1.0, 1.0], longest_px=400)
    assert layout.square == (100, 0, 400, 200)
    cam = np.zeros((2, 5), np.float32)  # evidence in the last column alone
    cam[:, -1] = 1
    painted = np.asarray(paint(layout, cam, opacity=1.0), int)
    assert (painted[:, :100] == (255, 0, 0)).all()
    assert (np.abs(painted[:, 395] - sequential(1.0)).max(axis=1) <= 2).all()
    assert (np.abs(painted[:, 150] - sequential(0.0)).max(axis=1) <= 2).all()


def test_map_is_painted_inside_its_square_only():
    layout = lay_out(Image.new("RGB", (400, 200), (200, 80, 40)), (0.25, 0.5, 0.75, 0.75), longest_px=400)
    changed = difference(paint(layout, CORNER), layout.image) > 0
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (50, 150, 200, 300)


def test_strongest_evidence_is_yellow_and_none_is_dark():
    painted = np.asarray(paint(lay_out(Image.new("RGB", (90, 90), "grey"), longest_px=90), CORNER, opacity=1.0))
    np.testing.assert_array_equal(painted[2, 2], sequential(1.0))
    np.testing.assert_array_equal(painted[85, 85], sequential(0.0))


def test_negative_values_are_no_evidence():
    layout = lay_out(Image.new("RGB", (90, 90), "grey"))
    assert not has_evidence(-CORNER)
    assert not has_evidence(np.zeros((3, 3), np.float32))
    assert has_evidence(CORNER)
    assert difference(paint(layout, -CORNER), layout.image).max() == 0
    np.testing.assert_array_equal(paint(layout, CORNER - 1), paint(layout, np.maximum(CORNER - 1, 0)))


def test_contrast_has_two_colours_and_its_sign_matters():
    layout = lay_out(Image.new("RGB", (90, 90), "grey"), longest_px=90)
    both = CORNER - CORNER[::-1, ::-1]
    painted = np.asarray(paint_contrast(layout, both), int)
    orange, purple = painted[2, 2], painted[87, 87]
    assert orange[0] - orange[2] > 60
    assert purple[2] - purple[1] > 20
    np.testing.assert_array_equal(np.asarray(paint_contrast(layout, -both))[2, 2], purple)
    assert difference(paint_contrast(layout, both * 0), layout.image).max() == 0


@pytest.mark.parametrize("opacity", [-0.1, 1.1])
def test_opacity_is_a_fraction(opacity):
    layout = lay_out(Image.new("RGB", (90, 90)))
    with pytest.raises(ValueError, match="opacity"):
        paint(layout, CORNER, opacity=opacity)
    with pytest.raises(ValueError, match="opacity"):
        paint_contrast(layout, CORNER, opacity=opacity)


def test_no_opacity_leaves_the_grey_photo():
    layout = lay_out(Image.new("RGB", (90, 90), (200, 80, 40)))
    grey = layout.image.convert("L").convert("RGB")
    assert difference(paint(layout, CORNER, opacity=0.0), grey).max() == 0


@pytest.mark.parametrize("signed", [False, True])
def test_grid_shows_every_value_at_its_place(signed):
    image = draw_grid(CORNER, signed=signed, cell_px=50)
    assert image.size == (150, 150)
    expected = (diverging if signed else sequential)(np.array([[1.0, 0.0]]))[0]
    np.testing.assert_array_equal([image.getpixel((3, 3)), image.getpixel((53, 3))], expected)
    assert len(set(image.crop((0, 0, 50, 50)).get_flattened_data())) > 1  # a number is written on the colour


@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (2, 5)])
def test_grids_of_other_models(shape):
    grid = np.ones(shape, np.float32)
    assert draw_grid(grid, cell_px=40).size == (shape[1] * 40, shape[0] * 40)
    assert paint(lay_out(Image.new("RGB", (30, 30))), grid).size == (640, 640)


@pytest.mark.parametrize(("kind", "size"), [("JPEG", (20, 40)), ("PNG", (40, 20))])
def test_photos_are_opened_as_the_server_reads_them_which_turns_jpegs_alone(tmp_path, kind, size):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "a", kind, exif=exif)
    assert open_photo(tmp_path / "a").size == size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_undoes_every_orientation(orientation):
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    image.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(upright(image), ImageOps.exif_transpose(image))


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage!", b"Exif\0\0MM\0*"])
def test_a_damaged_exif_block_leaves_the_picture_unturned(exif):
    image = Image.new("RGB", (3, 2))
    image.info["exif"] = exif
    assert upright(image) is image


def test_transparency_lies_over_white():
    seen = flat(Image.new("RGBA", (3, 2), (0, 0, 0, 0)))
    assert (seen.mode, seen.getpixel((0, 0))) == ("RGB", (255, 255, 255))


def test_sixteen_bits_keep_their_upper_eight(tmp_path):
    Image.fromarray(np.full((2, 3), 175 * 256 + 255, np.uint16)).save(tmp_path / "deep.png")
    assert open_photo(tmp_path / "deep.png").getpixel((0, 0)) == (175, 175, 175)


def test_broken_photo_is_invalid_input(tmp_path, png):
    (tmp_path / "cut.png").write_bytes(png()[:40])
    with pytest.raises(InvalidInput, match=r"cut\.png: cannot be opened"):
        open_photo(tmp_path / "cut.png")


@pytest.mark.parametrize("bar", [None, ColourBar("0", "2.41 logits"), ColourBar("Shirt", "Coat", signed=True)])
def test_figure_holds_both_pictures_whole(bar):
    photo, overlay = Image.new("RGB", (200, 100), "red"), Image.new("RGB", (200, 100), "blue")
    figure = beside(photo, overlay, "a title " * 50, "a caption " * 50, bar)
    colours = np.asarray(figure).reshape(-1, 3)
    for colour in ((255, 0, 0), (0, 0, 255)):
        assert (colours == colour).all(axis=1).sum() == 200 * 100
    assert figure.size[0] == 448
