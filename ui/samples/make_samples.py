"""Write the gallery: two real Fashion-MNIST test images of each class, as PNG, with an index.

    python ui/samples/make_samples.py                                  # from Debian's dataset-fashion-mnist
    python ui/samples/make_samples.py --source DIR --target DIR        # from the four IDX files elsewhere

The choice is fixed (the first two test images of each class, in the order of the test set), so that
running it again changes nothing.
"""

import argparse
import gzip
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

PER_CLASS = 2
# The order of the label numbers in the data set; the served model brings its own names.
LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def read_idx(path: Path) -> np.ndarray:
    """Return the uint8 array of a gzipped IDX file.

    Raises:
        ValueError: the file is not IDX of unsigned bytes, or is cut short.
    """
    raw = gzip.decompress(path.read_bytes())
    if raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path}: expected an IDX file of unsigned bytes, it begins with {raw[:4].hex()}")
    rank = raw[3]
    shape = tuple(int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank))
    data = np.frombuffer(raw, np.uint8, offset=4 + 4 * rank)
    if data.size != int(np.prod(shape)):
        raise ValueError(f"{path}: expected {int(np.prod(shape))} bytes for shape {shape}, found {data.size}")
    return data.reshape(shape)


def make(source: Path, target: Path) -> list[dict[str, str | int]]:
    """Write the pictures and ``index.json`` to ``target``; return the index."""
    images = read_idx(source / "t10k-images-idx3-ubyte.gz")  # (10000, 28, 28)
    labels = read_idx(source / "t10k-labels-idx1-ubyte.gz")  # (10000,)
    target.mkdir(parents=True, exist_ok=True)
    index: list[dict[str, str | int]] = []
    for class_id, label in enumerate(LABELS):
        for test_index in np.flatnonzero(labels == class_id)[:PER_CLASS].tolist():
            name = f"{test_index:05d}.png"
            Image.fromarray(images[test_index]).save(target / name, optimize=True)
            index.append({"file": name, "label": label, "test_index": test_index})
    (target / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return index


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--target", type=Path, default=Path(__file__).resolve().parent)
    arguments = parser.parse_args()
    try:
        index = make(arguments.source, arguments.target)
    except (OSError, ValueError) as error:
        print(f"make_samples: {error}", file=sys.stderr)
        return 1
    print(f"{len(index)} pictures in {arguments.target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
