"""Explains what a version says of pictures: a sheet with a row a picture and a column a method.

python -m training.explain shoe.jpg bag.png --method all --output sheet.png
python -m training.explain shirt.png --method layer_cam --layer block_13_expand_relu --class Shirt --against Coat
python -m training.explain --of-class Bag --count 8                      # of the test images; -> explanations/
python -m training.explain --summary --method shap --count 20            # a row a class: the mean over 20 test images
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from training.contact_sheet import ImageError, look
from training.datasets import DataError
from training.explanation import tf_keras_vis
from training.explanation.errors import ExplanationError
from training.explanation.methods import METHODS, Method, installed, method
from training.explanation.network import Network
from training.explanation.sheet import Column, Row, draw, save
from training.explanation.version import Version, open_version
from training.settings import MODELS

ENGINES = ("ours", "tf-keras-vis")


def photos(version: Version, paths: Sequence[Path]) -> tuple[list[Row], list[str]]:
    """The pictures as the version sees them, and what was wrong with those that it cannot read."""
    signatures = tf.saved_model.load(str(version.directory)).signatures
    rows, refused = [], []
    for path in tqdm(paths, desc="looking", unit="picture", disable=not sys.stderr.isatty()):
        try:
            seen = look(signatures, path)
        except ImageError as error:
            refused.append(str(error))
            continue
        view = np.asarray(seen.view).reshape(version.view.shape)
        rows.append(Row(view, (seen.name,), np.asarray(seen.photo), seen.box))
    return rows, refused


def class_rows(version: Version, class_id: int, count: int) -> list[Row]:
    """The first `count` test images of a class.

    Raises:
        DataError: the test images are not here.
        ExplanationError: there are none of the class.
    """
    test = version.test_images()
    numbers = np.flatnonzero(test.labels == class_id)[:count]
    if not len(numbers):
        raise ExplanationError(
            f"--of-class {version.classes[class_id]}: none of the {len(test)} test images is of this class"
        )
    return [
        Row(image, (f"test image {number}",))
        for number, image in zip(numbers.tolist(), test.images[numbers], strict=True)
    ]


def explained(
    version: Version,
    rows: Sequence[Row],
    chosen: Sequence[tuple[Method, str | None]],
    class_id: int | Sequence[int] | None = None,
    against_id: int | None = None,
    engine: str = "ours",
) -> tuple[list[Row], list[Column]]:
    """Runs methods on pictures.

    Args:
        version: opened.
        rows: what `photos` or `class_rows` gives.
        chosen: methods, each with its layer, None where it needs none.
        class_id: what is explained, of all or of each picture; None: of each the class that is predicted.
        against_id: explains what speaks for the class rather than for this one.
        engine: one of ENGINES. tf-keras-vis has no map before its ReLU, so a contrast of it is that of two ReLUs.

    Returns:
        The rows with what the model says of them written beside, and a column a method.

    Raises:
        DataError: a method compares with test images, and they are not here.
        ExplanationError: no such layer, a package is missing, or the engine or the contrast does not know a method.
    """
    images = version.to_model(np.stack([row.view for row in rows]))
    network = version.network(background=any(entry.background for entry, _ in chosen))
    probabilities = network.probabilities(images)
    predicted = probabilities.argmax(axis=1)
    class_ids = predicted if class_id is None else np.broadcast_to(class_id, len(rows))
    columns = []
    for entry, layer in tqdm(chosen, desc="explaining", unit="method", disable=not sys.stderr.isatty()):
        opened = network.at(layer)
        if against_id is None:
            maps = _maps(engine, entry, opened, images, class_ids)
        elif engine == "ours":
            maps = entry.contrast(opened, images, class_ids, np.full(len(rows), against_id))
        else:
            against_ids = np.full(len(rows), against_id)
            maps = _maps(engine, entry, opened, images, class_ids) - _maps(engine, entry, opened, images, against_ids)
        title = f"{entry.title}\n{layer}" if layer else entry.title.replace(" ", "\n")
        columns.append(Column(title, entry.signed or against_id is not None, maps))
    told = []
    for row, shares, own, asked in zip(rows, probabilities, predicted, class_ids, strict=True):
        lines = [*row.lines, f"{version.classes[own]} {shares[own]:.0%}"]
        if asked != own:
            lines.append(f"explained: {version.classes[asked]} {shares[asked]:.0%}")
        told.append(replace(row, lines=tuple(lines)))
    return told, columns


def summary(
    version: Version,
    chosen: Sequence[tuple[Method, str | None]],
    class_ids: Sequence[int],
    count: int,
    against_id: int | None = None,
    engine: str = "ours",
) -> tuple[list[Row], list[Column]]:
    """What speaks for each class on average, over its first test images; arguments and errors as `explained`.

    Args:
        class_ids: a row each.
        count: test images of each, at most.
    """
    members = [class_rows(version, one, count) for one in class_ids]
    labels = np.repeat(class_ids, [len(rows) for rows in members])
    _, columns = explained(version, [row for rows in members for row in rows], chosen, labels, against_id, engine)
    means = [
        Row(np.mean([row.view for row in rows], axis=0), (version.classes[one], f"mean of {len(rows)}"))
        for one, rows in zip(class_ids, members, strict=True)
    ]
    return means, [
        replace(column, maps=np.stack([column.maps[labels == one].mean(axis=0) for one in class_ids]))
        for column in columns
    ]


def _maps(engine: str, entry: Method, network: Network, images: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    if engine == "ours":
        return entry.maps(network, images, class_ids)
    return tf_keras_vis.maps(entry, network, images, class_ids)


def _chosen(arguments: argparse.Namespace, version: Version) -> list[tuple[Method, str | None]]:
    """Each method at each layer that is asked for. By default what the service offers: Grad-CAM, and finer LayerCAM."""
    if arguments.method is None and arguments.layer is None:
        return [
            (METHODS["grad_cam"], version.layers[0]),
            *((METHODS["layer_cam"], layer) for layer in version.layers[1:]),
        ]
    names = arguments.method or ["grad_cam", "layer_cam"]
    if "all" in names:
        names = list(tf_keras_vis.NAMES if arguments.engine == "tf-keras-vis" else METHODS)
        names, advice = installed(names)
        if advice:
            print(advice, file=sys.stderr)
        if arguments.against is not None:
            names = [name for name in names if METHODS[name].class_dependent]
    layers = version.layers_called(arguments.layer)
    return [(one, layer) for one in map(method, names) for layer in (layers if one.layer else [None])]


def _count(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows} rows"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.explain", description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, nargs="*", metavar="IMAGE")
    parser.add_argument(
        "--method",
        action="append",
        help=f"all, {', '.join(METHODS)}; may be repeated (default: what the service offers)",
    )
    parser.add_argument(
        "--layer", action="append", help="of the CAMs, or all; may be repeated (default: the CAM layer)"
    )
    parser.add_argument("--class", dest="of", metavar="CLASS", help="by name or number (default: the predicted one)")
    parser.add_argument("--against", metavar="CLASS", help="what speaks for the class rather than for this one")
    parser.add_argument("--of-class", metavar="CLASS", help="instead of images: test images of this class")
    parser.add_argument("--count", type=int, default=8, help="so many of them (default: 8)")
    parser.add_argument(
        "--summary", action="store_true", help="a row a class, the mean over test images of it; of all or of --of-class"
    )
    parser.add_argument("--name", default="fashion_mnist")
    parser.add_argument("--version", type=int, help="default: the newest")
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0])
    parser.add_argument(
        "--output", type=Path, default=Path("explanations"), help="a folder, or a file such as sheet.png or sheet.svg"
    )
    arguments = parser.parse_args(argv)
    if bool(arguments.images) == bool(arguments.of_class or arguments.summary):
        parser.error("expected images, or --of-class, or --summary")
    if arguments.summary and arguments.of:
        parser.error("--summary explains each class; --class is for pictures, --of-class chooses one")
    if arguments.count < 1:
        parser.error("--count: expected at least 1")
    if arguments.output.suffix and arguments.output.suffix not in (".png", ".svg", ".pdf"):
        parser.error(f"--output {arguments.output}: expected a folder, or a file that ends in .png, .svg or .pdf")
    try:
        version = open_version(arguments.models, arguments.name, arguments.version)
        chosen = _chosen(arguments, version)
        class_id, against_id = (
            None if choice is None else version.class_id(choice) for choice in (arguments.of, arguments.against)
        )
        if arguments.summary:
            every = range(len(version.classes))
            of = every if arguments.of_class is None else [version.class_id(arguments.of_class)]
            rows, columns = summary(version, chosen, list(of), arguments.count, against_id, arguments.engine)
            refused = []
        else:
            if arguments.of_class:
                rows, refused = class_rows(version, version.class_id(arguments.of_class), arguments.count), []
            else:
                rows, refused = photos(version, arguments.images)
            for problem in refused:
                print(f"left out: {problem}", file=sys.stderr)
            if not rows:
                print("error: none of the images could be read; no sheet written", file=sys.stderr)
                return 2
            rows, columns = explained(version, rows, chosen, class_id, against_id, arguments.engine)
    except (ExplanationError, DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.summary:
        asked = "each class, on average"
    else:
        asked = "the predicted class" if class_id is None else version.classes[class_id]
    rather = "" if against_id is None else f" rather than {version.classes[against_id]}"
    seen = "mean\nimage" if arguments.summary else "what the\nmodel sees"
    figure = draw(rows, columns, f"What speaks for {asked}{rather}? {version.title}", seen)
    print(f"wrote {', '.join(map(str, save(figure, arguments.output)))}: {_count(len(rows))}, {version.title}")
    return 1 if refused else 0


if __name__ == "__main__":
    raise SystemExit(main())
