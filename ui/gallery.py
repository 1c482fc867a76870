"""The gallery: real test images of Fashion-MNIST with their true labels, from `ui/samples`."""

import json
from dataclasses import dataclass
from pathlib import Path

MODEL = "fashion_mnist"  # the model whose test images these are
FOLDER = Path(__file__).resolve().parent / "samples"


@dataclass(frozen=True)
class Sample:
    """One picture of the gallery.

    Attributes:
        file: its path.
        label: the true label.
        test_index: its place in the test set.
    """

    file: Path
    label: str
    test_index: int

    @property
    def name(self) -> str:
        """What to call it on the page."""
        return f"Test image {self.test_index}"


def load(folder: Path = FOLDER) -> tuple[Sample, ...]:
    """All samples, in the order of the index."""
    entries = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    return tuple(Sample(folder / entry["file"], entry["label"], entry["test_index"]) for entry in entries)
