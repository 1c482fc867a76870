"""The commands of `python -m serving`: ask the client, then print a table, JSON, or save a picture."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from serving.client import Explanation, InvalidArgument, NotFound, Prediction, View
from serving.client.base import BaseClient
from serving.client.figure import ColourBar, beside
from serving.client.overlay import has_evidence, lay_out, open_photo, paint, paint_contrast
from serving.client.results import Floats
from serving.client.shap_values import shap_values
from serving.client.transport import is_loopback

if TYPE_CHECKING:
    from serving.site import Site

OK, FAILED = 0, 1


class UsageError(Exception):
    """What was asked for cannot be meant; the text says why."""


def predict(client: BaseClient, options: argparse.Namespace) -> int:
    """The most probable classes of each image."""
    predictions = client.predict(options.images)
    # A batch may span a swap of versions, and each version has its own names.
    tops = [p.top(options.top, client.classes(p.version)) for p in predictions]
    if options.json:
        entries = [
            {"image": image, **_summary(p), "top": [score._asdict() for score in top]}
            for image, p, top in zip(options.images, predictions, tops, strict=True)
        ]
        print_json({"model": client.model, "predictions": entries})
        return OK
    rows = []
    for image, p, top in zip(options.images, predictions, tops, strict=True):
        for rank, score in enumerate(top):
            first = rank == 0
            rows.append(
                [
                    image if first else "",
                    score.class_name,
                    _percent(score.probability),
                    str(p.version) if first else "",
                    f"{p.latency_ms:.0f} ms" if first else "",
                ]
            )
    print_table(["image", "class", "probability", "version", "time"], rows, right={2, 3, 4})
    return OK


def explain(client: BaseClient, options: argparse.Namespace) -> int:
    """The photo beside the map of one class, or of one class against another, saved as a picture."""
    output = _checked_output(options.output, options.image)
    photo = open_photo(options.image)
    explanation = client.explain(options.image)[0]
    names = client.classes(explanation.version)
    target = explanation.class_id if options.target is None else _class_id(options.target, names)
    rival = None if options.contrast is None else _class_id(options.contrast, names)
    if rival == target:
        raise UsageError(f"--contrast {options.contrast}: is the class to explain itself; name another one")
    if options.fine and rival is not None:
        raise UsageError("--fine and --contrast: fine maps are of one class; leave one of them out")
    view = _view(client, options.image, explanation.version)
    box = None if view is None else view.box
    if options.shap:
        if view is None:
            raise UsageError("--shap: the model does not tell what it sees of a picture (signature preprocess)")
        values = shap_values(client, view.image, version=explanation.version)
        cam = values[target] if rival is None else values[target] - values[rival]
    elif options.fine:
        cam = client.explain_fine(options.image, class_ids=target, version=explanation.version)[0].finest
    else:
        cam = explanation.cam(target) if rival is None else explanation.contrast(target, rival)
    _draw(photo, box, explanation, cam, names, target, rival, options).save(output)

    if options.json:
        print_json(
            {
                "model": client.model,
                "image": options.image,
                **_summary(explanation),
                "explained_class": names[target],
                "contrast_class": None if rival is None else names[rival],
                "positive_evidence": has_evidence(cam),
                "map": [[round(float(value), 6) for value in row] for row in cam],
                "box": None if box is None else [round(float(value), 6) for value in box],
                "output": str(output),
            }
        )
        return OK
    print(
        f"{options.image}: {explanation.class_name} {_percent(explanation.probability)} (version {explanation.version})"
    )
    print(f"{output}: {_caption(cam, names, target, rival)}")
    return OK


def _draw(
    photo: Image.Image,
    box: Any,
    explanation: Explanation,
    cam: Floats,
    names: Sequence[str],
    target: int,
    rival: int | None,
    options: argparse.Namespace,
) -> Image.Image:
    layout = lay_out(photo, box)
    opacity = {} if options.alpha is None else {"opacity": options.alpha}
    bar: ColourBar | None
    if options.shap and rival is None:
        painted = paint_contrast(layout, cam, **opacity)
        bar = ColourBar(f"against {names[target]}", f"for {names[target]}", signed=True)
    elif rival is None:
        painted = paint(layout, cam, **opacity)
        bar = ColourBar("0", f"{cam.max():.2f} logits") if has_evidence(cam) else None
    else:
        painted = paint_contrast(layout, cam, **opacity)
        bar = ColourBar(names[rival], names[target], signed=True)
    title = f"{Path(options.image).name}: {explanation.class_name} {_percent(explanation.probability)}"
    return beside(layout.image, painted, title, _caption(cam, names, target, rival), bar)


def _caption(cam: Floats, names: Sequence[str], target: int, rival: int | None) -> str:
    if rival is not None:
        return f"why {names[target]} rather than {names[rival]}"
    if has_evidence(cam):
        return f"evidence for {names[target]}"
    return f"no positive evidence for {names[target]}"


def status(client: BaseClient, options: argparse.Namespace) -> int:
    """The model's versions; fails when none of them answers requests, or a label's does not."""
    versions = client.status()
    labels, idle = _labels(options)
    latest = max((version.version for version in versions if version.available), default=None)
    if options.json:
        entries = [{**vars(version), "labels": labels.get(version.version, [])} for version in versions]
        print_json({"model": client.model, "versions": entries, "labels_not_loaded": idle})
    else:
        rows = []
        for v in versions:
            named = labels.get(v.version, [])
            serves = "yes" if v.available and (named or v.version == latest) else "no"
            rows.append([str(v.version), v.state, ", ".join(named), serves, v.error_message or v.error_code])
        known = {version.version for version in versions}
        rows += [[str(n), "on disk", "", "no", ""] for n in _on_disk(client.model, options) if n not in known]
        rows.sort(key=lambda row: -int(row[0]))
        print(f"model {client.model}")
        print_table(["version", "state", "labels", "in service", "message"], rows, right={0})
        if latest is not None and labels and "stable" not in labels.get(latest, []):
            print(f"requests without a label go to version {latest}, the highest that is loaded")
        for label in idle:
            print(f"requests with the label {label} fail: its version is not loaded; promote another, or roll back")
        if (site := _site(options)) and site.unfinished.exists():
            print("a promotion is under way, or was interrupted; the next promote, rollback or `make up` mends that")
    return OK if latest is not None and not idle else FAILED


def _labels(options: argparse.Namespace) -> tuple[dict[int, list[str]], list[str]]:
    """The labels in force by version, and those whose version is not loaded: the server is asked for each, as its
    status does not tell."""
    found: dict[int, list[str]] = {}
    idle = []
    for label in ("stable", "canary"):
        with options.connect(label=label) as client:
            try:
                found.setdefault(client.metadata().version, []).append(label)
            except InvalidArgument:
                continue  # nobody has it
            except NotFound:
                idle.append(label)
    return found, idle


def _on_disk(model: str, options: argparse.Namespace) -> list[int]:
    """The versions in the checkout's folder, where the server asked is this machine's."""
    if (site := _site(options)) is None:
        return []
    from serving import version_files

    return version_files.numbers(site.folder(model))


def _site(options: argparse.Namespace) -> Site | None:
    """This checkout, where the server asked is this machine's; None elsewhere, or for the client library alone."""
    if not is_loopback(options.where.url) or find_spec("tensorflow_serving") is None:
        return None
    from serving.site import Site

    return Site()


def _view(client: BaseClient, image: str, version: int | None) -> View | None:
    """What the model sees; a model published by others may lack the signature, the map then covers the photo."""
    try:
        return client.preprocess(image, version=version)[0]
    except InvalidArgument as error:
        if error.index is None and "signature" in str(error).lower():
            return None
        raise


def _class_id(text: str, names: Sequence[str]) -> int:
    lowered = [name.lower() for name in names]
    if text.lower() in lowered:
        return lowered.index(text.lower())
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    raise UsageError(f"no class {text!r}; the model knows {', '.join(f'{i} {name}' for i, name in enumerate(names))}")


def _checked_output(output: str, image: str) -> Path:
    """Where to write, checked before anything is asked: a name Pillow can write, a folder that is there."""
    path = Path(output)
    if path.suffix.lower() not in Image.registered_extensions():
        raise UsageError(f"-o {output}: expected a picture's name, such as overlay.png")
    if not path.parent.is_dir():
        raise UsageError(f"-o {output}: no folder {path.parent}")
    if path.exists() and Path(image).exists() and path.samefile(image):
        raise UsageError(f"-o {output}: would overwrite the image itself")
    return path


def _summary(prediction: Prediction) -> dict[str, object]:
    return {
        "class_id": prediction.class_id,
        "class_name": prediction.class_name,
        "probability": prediction.probability,
        "version": prediction.version,
        "latency_ms": round(prediction.latency_ms, 3),
    }


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f} %"


def say(line: str) -> None:
    """One line about what has just been done, at once."""
    print(line, flush=True)


def print_json(value: object) -> None:
    """Indented, characters as they are."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: set[int]) -> None:
    """Columns two spaces apart, numbers to the right."""
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]
    for line in [header, *rows]:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
