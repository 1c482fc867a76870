"""The gallery's pictures: two of each class, and the script that makes them."""

import gzip
import json
import os
import runpy
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ui import gallery

MAKER = runpy.run_path(str(gallery.FOLDER / "make_samples.py"))
DATASET = Path(os.environ.get("FASHION_MNIST_DIR") or "/usr/share/datasets/fashion-mnist")


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A made-up test set of 40 images, four of each class."""
    rng = np.random.default_rng(0)
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", rng.integers(0, 256, (40, 28, 28), dtype=np.uint8))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.repeat(np.arange(10, dtype=np.uint8), 4))
    return tmp_path


def test_twenty_pictures_two_of_each_class():
    samples = gallery.load()
    assert len(samples) == 20
    assert set(Counter(sample.label for sample in samples).values()) == {2}
    assert len({sample.test_index for sample in samples}) == 20
    for sample in samples:
        with Image.open(sample.file) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "L", (28, 28))


@pytest.mark.skipif(not DATASET.is_dir(), reason="the data set is not installed; FASHION_MNIST_DIR may name it")
def test_the_pictures_are_those_of_the_test_set(tmp_path):
    assert MAKER["make"](DATASET, tmp_path) == json.loads((gallery.FOLDER / "index.json").read_text())
    for sample in gallery.load():
        with Image.open(sample.file) as kept, Image.open(tmp_path / sample.file.name) as made:
            assert np.array_equal(np.asarray(kept), np.asarray(made))


def test_the_script_writes_the_first_two_of_each_class(dataset, tmp_path):
    index = MAKER["make"](dataset, tmp_path / "out")
    assert [entry["test_index"] for entry in index] == [4 * c + i for c in range(10) for i in range(2)]
    images = MAKER["read_idx"](dataset / "t10k-images-idx3-ubyte.gz")
    samples = gallery.load(tmp_path / "out")
    assert samples[3].label == "Trouser"
    with Image.open(samples[3].file) as image:
        assert np.array_equal(np.asarray(image), images[5])


@pytest.mark.parametrize(
    ("content", "words"), [(b"\x00\x00\x0d\x01", "unsigned bytes"), (b"\x00\x00\x08\x01\x00\x00\x00\x09abc", "9 bytes")]
)
def test_a_foreign_or_cut_file_is_refused_by_name(tmp_path, content, words):
    path = tmp_path / "broken.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=words) as refusal:
        MAKER["read_idx"](path)
    assert "broken.gz" in str(refusal.value)
