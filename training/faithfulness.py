"""Measures whether explanations of a version are true to it: every method against a random map and an edge detector.

python -m training.faithfulness --version 2              # -> reports/fashion_mnist/2/faithfulness.json, .png and .svg
python -m training.faithfulness --images 100 --method grad_cam --method layer_cam --layer block_13_expand_relu
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from training import memory
from training.datasets import DataError
from training.explanation import faithfulness
from training.explanation.errors import ExplanationError
from training.explanation.faithfulness import METRICS, Candidate, Subject, best, candidates, interval, measure
from training.explanation.methods import METHODS, installed, method
from training.explanation.version import Version, open_version
from training.settings import MODELS
from training.style import CATEGORIES, INK, MUTED, OTHER, drawing, save
from training.versions import MODEL_FILE

IMAGES = 500
_SETTINGS = ("FRACTIONS", "ROAD_FRACTIONS", "BLUR", "SANITY_IMAGES", "QUICK", "RESAMPLES")


def measure_version(
    version: Version,
    chosen: Sequence[Candidate],
    images: int = IMAGES,
    cache: Path | None = None,
    done: Callable[[str], None] = lambda key: None,
) -> dict[str, Any]:
    """Measures methods on test images of a version, drawn once by lot.

    Args:
        version: opened.
        chosen: what `candidates` gives.
        images: how many, at most.
        cache: a folder with a file a method; what is there already, of the same model, images and settings, is not
            measured again, so that an interrupted run goes on.
        done: called with a method's key when it is measured.

    Returns:
        `methods`, by key: title, layer, reference, seconds, map_size, chance (the |rank correlation| that unrelated
        maps of this size have on average) and `metrics`, by name of METRICS mean, low and high (95 %). And `best`,
        by layer; the version, the images and the settings.

    Raises:
        DataError: the test images are not here.
        ExplanationError: the model has no such layer.
    """
    test = version.test_images()
    drawn = np.sort(np.random.default_rng(0).permutation(len(test))[:images])
    facts = {
        "name": version.described["name"],
        "version": int(version.directory.name),
        "model_sha256": hashlib.sha256((version.directory / MODEL_FILE).read_bytes()).hexdigest(),
        "images": len(drawn),
        "images_sha256": hashlib.sha256(test.images[drawn].tobytes()).hexdigest(),
        "settings": {name.lower(): getattr(faithfulness, name) for name in _SETTINGS},
    }
    facts = json.loads(json.dumps(facts))  # tuples are lists, as in what is read again
    subject = Subject(
        version.network(background=any(candidate.background for candidate in chosen)),
        test.images[drawn],
        version.to_model,
        version.nothing,
        object_on_black=version.view.preprocessing == "fashion_mnist",
    )
    methods = {}
    for candidate in chosen:
        path = cache / f"{candidate.key}.json" if cache else None
        kept = json.loads(path.read_text(encoding="utf-8")) if path and path.is_file() else {}
        if kept.get("facts") != facts:
            kept = {"facts": facts, "result": _result(candidate, subject)}
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
                unfinished = path.with_suffix(".unfinished")
                unfinished.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
                unfinished.replace(path)
        methods[candidate.key] = kept["result"]
        done(candidate.key)
    return facts | {"methods": methods, "best": best(methods)}


def _result(candidate: Candidate, subject: Subject) -> dict[str, Any]:
    began = time.perf_counter()
    found, map_size = measure(candidate, subject)
    values = map_size[0] * map_size[1]
    return {
        "title": candidate.title,
        "layer": candidate.layer,
        "reference": candidate.reference,
        "seconds": round(time.perf_counter() - began, 1),
        "map_size": list(map_size),
        # of a correlation that is normal around 0 with variance 1 / (n - 1)
        "chance": float(np.sqrt(2 / (np.pi * (values - 1)))),
        "metrics": {name: interval(found[name]) for name in METRICS if name in found},
    }


def measured(version: Version, chosen: Sequence[Candidate], images: int, directory: Path) -> dict[str, Any]:
    """`measure_version` with a progress bar; writes faithfulness.json, .png and .svg.

    Args:
        version: opened.
        chosen: what `candidates` gives.
        images: how many, at most.
        directory: where to write; in its folder `faithfulness` is kept what is measured.

    Raises:
        DataError: the test images are not here.
        ExplanationError: the model has no such layer.
    """
    with tqdm(total=len(chosen), desc="are explanations true", unit="method", disable=not sys.stderr.isatty()) as bar:

        def done(key: str) -> None:
            bar.set_postfix_str(key)
            bar.update()

        report = measure_version(version, chosen, images, directory / "faithfulness", done)
    (directory / "faithfulness.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    plot(report, directory / "faithfulness")
    return report


def all_candidates(version: Version) -> list[Candidate]:
    """Every installed method, the CAMs at every served layer (Score-CAM at the CAM layer alone), and the references."""
    return candidates([METHODS[name] for name in installed(list(METHODS))[0]], version.layers[:1], version.layers[1:])


def table(report: dict[str, Any]) -> str:
    """The report as text: a line a method, the means, with the best that is no reference starred."""
    methods = report["methods"]
    shown = [name for name in METRICS if any(name in one["metrics"] for one in methods.values())]
    heads = {"random_logits": "rand.logits", "random_weights": "rand.weights"}
    lines = [
        f"{report['images']} test images of {report['name']} version {report['version']}",
        f"{'method':24}{'layer':24}" + "".join(f"{heads.get(name, name):>14}" for name in shown),
    ]
    for key, one in methods.items():
        cells = [f"{one['metrics'][name]['mean']:.3f}{'*' if key == _leader(methods, name) else ' '}" for name in shown]
        lines.append(f"{one['title']:24}{one['layer'] or '-':24}" + "".join(f"{cell:>14}" for cell in cells))
    directions = ", ".join(f"{name} {METRICS[name].better}" for name in shown if METRICS[name].better)
    lines.append(f"better is: {directions}; * the best one")
    lines += [
        f"best at {layer}: {methods[key]['title']} (mean place in {', '.join(faithfulness.RANKED)})"
        for layer, key in report["best"].items()
    ]
    return "\n".join(lines)


def _leader(methods: dict[str, Any], metric: str) -> str | None:
    better = METRICS[metric].better
    means = {key: one["metrics"][metric]["mean"] for key, one in methods.items() if not one["reference"]}
    if not better or not means:
        return None
    return (min if better == "low" else max)(means, key=means.__getitem__)


def plot(report: dict[str, Any], path: Path) -> None:
    """Draws every metric with its interval, a row a method; dashed: the random map. Writes `path`.png and .svg."""
    methods = report["methods"]
    shown = [name for name in METRICS if METRICS[name].better and any(name in m["metrics"] for m in methods.values())]
    save(_figure(report, methods, shown), path)


@drawing()
def _figure(report: dict[str, Any], methods: dict[str, Any], shown: Sequence[str]) -> Figure:
    layers = list(dict.fromkeys(one["layer"] for one in methods.values() if one["layer"]))
    colours = dict(zip(layers, CATEGORIES, strict=False))
    labels = [f"{one['title']}\n{one['layer']}" if one["layer"] else one["title"] for one in methods.values()]
    columns = min(len(shown), 4)
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.2 + 2.6 * columns, rows * (1.0 + 0.32 * len(methods))))
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes in grid.ravel()[len(shown) :]:
        axes.set_visible(False)
    for axes, name in zip(grid.ravel(), shown, strict=False):
        for place, one in enumerate(methods.values()):
            if name not in one["metrics"]:
                continue
            value = one["metrics"][name]
            colour = MUTED if one["reference"] else colours.get(one["layer"], OTHER)
            axes.plot([value["low"], value["high"]], [place, place], color=colour)
            axes.plot(value["mean"], place, "s" if one["reference"] else "o", color=colour)
            if name.startswith("random"):
                axes.plot(one["chance"], place, "|", color=INK, markersize=9)
        if "random" in methods and name in methods["random"]["metrics"] and not name.startswith("random"):
            axes.axvline(methods["random"]["metrics"][name]["mean"], color=MUTED, linestyle="--", linewidth=1)
        better = "right" if METRICS[name].better == "high" else "left"
        axes.set_title(f"{METRICS[name].title}\nbetter: to the {better}", fontsize=9)
        axes.grid(visible=False, axis="y")
    for axes in grid[:, 0]:
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
    figure.suptitle(
        f"Are the explanations true? {report['name']}, version {report['version']}: {report['images']} test images, "
        "mean and 95 % interval\ndashed: a random map; short line: what maps have in common by chance",
        fontsize=10,
    )
    return figure


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.faithfulness", description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="fashion_mnist")
    parser.add_argument("--version", type=int, help="default: the newest")
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--images", type=int, default=IMAGES, help=f"test images (default: {IMAGES})")
    parser.add_argument("--method", action="append", help="may be repeated (default: all)")
    parser.add_argument(
        "--layer",
        action="append",
        help="of the CAMs, or all; may be repeated (default: all, Score-CAM at the CAM layer alone)",
    )
    parser.add_argument("--output", type=Path, help="a folder (default: reports/<name>/<version>)")
    arguments = parser.parse_args(argv)
    memory.keep_freed_memory()
    if arguments.images < 2:
        parser.error("--images: expected at least 2")
    try:
        names, advice = (arguments.method, None) if arguments.method else installed(list(METHODS))
        if advice:
            print(advice, file=sys.stderr)
        wanted = [method(name) for name in names]
        version = open_version(arguments.models, arguments.name, arguments.version)
        finer = () if arguments.layer else version.layers[1:]
        chosen = candidates(wanted, version.layers_called(arguments.layer), finer)
        directory = arguments.output or Path("reports") / arguments.name / version.directory.name
        report = measured(version, chosen, arguments.images, directory)
    except (ExplanationError, DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on with the next method", file=sys.stderr)
        return 130
    print(f"{table(report)}\nwrote {directory}/faithfulness.json, .png and .svg")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
