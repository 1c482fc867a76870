"""The directory of a run: its settings, written once and held to, its history, and the options that name them."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.backbones import names as backbone_names
from training.datasets import DataError, TrainingData, check_exists
from training.distribution import is_first_process
from training.settings import Settings, SettingsError, load_settings, preset_names, settings_from


def cut_history(path: Path, epochs: int) -> None:
    """Drops the line of an epoch that was killed before its checkpoint was written, and now runs again."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        if len(lines) > epochs:
            replace_file(path, "".join(lines[:epochs]))


def replace_file(path: Path, text: str) -> None:
    """Writes a file whole or not at all, whenever the process or the disk ends."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def check_same_data(data: TrainingData, run_dir: Path) -> None:
    """Notes what data a run began with, or holds these against it.

    Raises:
        DataError: they have changed since.
    """
    path, now = run_dir / "data.json", {"sha256": data.facts["sha256"], "classes": list(data.classes)}
    if not path.is_file():
        replace_file(path, json.dumps(now, indent=2) + "\n")
    before = json.loads(path.read_text(encoding="utf-8"))
    if now != before:
        raise DataError(
            f"the data have changed since {run_dir} began with them: then {len(before['classes'])} classes, sha256 "
            f"{before['sha256'][:12]}; now {len(now['classes'])}, {now['sha256'][:12]}. Bring the old ones back, "
            "or train anew: into another --run-dir, or with --fresh"
        )


def check_same_run(settings: Settings, data: TrainingData, run_dir: Path) -> None:
    """Notes what a run began with, or holds settings and data against it.

    Raises:
        SettingsError: other settings.
        DataError: the data have changed since.
    """
    path = run_dir / "settings.json"
    if not path.is_file():
        replace_file(path, json.dumps(settings.to_dict(), indent=2) + "\n")
    before = read_settings(run_dir).to_dict()
    changed = sorted(name for name, value in settings.to_dict().items() if before[name] != value)
    if changed:
        raise SettingsError(
            f"{run_dir} holds a run with other settings ({', '.join(changed)}); "
            "choose another --run-dir, or start over with --fresh"
        )
    check_same_data(data, run_dir)


def read_settings(run_dir: Path) -> Settings:
    """The settings that a run was started with.

    Raises:
        FileNotFoundError: no run was started in this directory.
        SettingsError: its settings.json is not what a run writes.
    """
    path = run_dir / "settings.json"
    try:
        return settings_from(json.loads(path.read_text(encoding="utf-8")), origin=str(path))
    except json.JSONDecodeError as error:
        raise SettingsError(f"{path}: {error}") from error


# Options for the settings that are changed most; --set reaches all of them.
_OPTIONS: dict[str, tuple[type, str]] = {
    "dataset": (str, "fashion_mnist, cifar10, or PATH of a folder with a folder a class, of a .csv[.gz], of an .npz"),
    "name": (str, "of the model as it is published and served (default: after the dataset)"),
    "data_dir": (str, "of a dataset by name: the directory of its files"),
    "backbone": (str, f"{', '.join(backbone_names())} (default: mobilenet_v2)"),
    "backbone_weights": (str, "imagenet | none | PATH of a Keras weights file"),
    "backbone_weights_source": (str, "where PATH came from, in words, for the manifest"),
    "init_from": (str, "go on from a published version, by number or directory; with other classes the head is new"),
    "image_size": (int, "pixels that the model sees; one stage of training at that size"),
    "epochs": (int, "of that one stage"),
    "batch_size": (int, ""),
    "learning_rate": (float, "peak"),
    "frozen_layers": (int, "of the backbone, from the input on; -1: all"),
    "on_corrupt": (str, "refuse | skip: images that cannot be read"),
    "seed": (int, ""),
}


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--preset", default="best", help=f"{', '.join(preset_names())}, or a TOML file (default: %(default)s)"
    )
    for name, (kind, text) in _OPTIONS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text or None)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="assignments",
        help="any other setting, the value as in TOML: --set label_smoothing=0.05 --set teachers='[\"2\"]'",
    )  # fmt: skip
    parser.add_argument("--run-dir", type=Path, help="default: runs/[<name>-][<backbone>-]<preset>")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="start over: what the run directory holds is deleted when the new run begins",
    )


def run_from_arguments(arguments: argparse.Namespace) -> tuple[Settings, Path]:
    """The settings and the run directory.

    Raises:
        SettingsError: a setting that does not exist or cannot be.
    """
    overrides = {name: getattr(arguments, name) for name in _OPTIONS if name != "epochs"}
    overrides |= dict(_assignment(text) for text in arguments.assignments)
    if arguments.image_size is not None or arguments.epochs is not None:
        if "stages" in overrides:
            raise SettingsError("--set stages=… says sizes and epochs itself; leave --image-size and --epochs out")
        preset = load_settings(arguments.preset)
        size = preset.image_size if arguments.image_size is None else arguments.image_size
        epochs = sum(stage.epochs for stage in preset.stages) if arguments.epochs is None else arguments.epochs
        overrides |= {"image_size": size, "stages": [{"image_size": size, "epochs": epochs}]}
    settings = load_settings(arguments.preset, overrides)
    return settings, arguments.run_dir or Path("runs") / _run_name(settings, Path(arguments.preset).stem)


def start_over(arguments: argparse.Namespace, settings: Settings, run_dir: Path) -> None:
    """Puts aside what the run directory holds where the user wants that: it may have taken hours, so it is deleted by
    `begun`, and comes back where the new run does not get so far. What a killed command has put aside comes back here.

    Raises:
        DataError: there is no such dataset.
        SettingsError: --fresh on what is no run directory.
    """
    if not is_first_process():
        return
    _put_back(run_dir)
    if not (arguments.fresh and run_dir.exists() and any(run_dir.iterdir())):
        return
    check_exists(settings.source)
    if not (run_dir / "settings.json").is_file():
        raise SettingsError(f"--fresh: {run_dir} is no run directory; it is left as it is")
    directory = run_dir.resolve()  # the run directory may be a link
    directory.rename(_replaced(run_dir))
    directory.mkdir()


@contextlib.contextmanager
def put_back_unless_begun(run_dir: Path) -> Iterator[None]:
    """Undoes `start_over` afterwards, if no run has `begun` meanwhile."""
    try:
        yield
    finally:
        _put_back(run_dir)


def begun(run_dir: Path) -> None:
    """Deletes what `start_over` has put aside for this run, or for the search that this is the first run of."""
    for directory in (run_dir, run_dir.parent):
        replaced = _replaced(directory)
        (replaced / "settings.json").unlink(missing_ok=True)  # so that a kill leaves nothing that could come back
        shutil.rmtree(replaced, ignore_errors=True)


def _put_back(run_dir: Path) -> None:
    """Brings back what was put aside, or deletes what is left of it."""
    replaced = _replaced(run_dir)
    if (replaced / "settings.json").is_file():
        directory = run_dir.resolve()
        shutil.rmtree(directory, ignore_errors=True)
        replaced.rename(directory)
    else:
        shutil.rmtree(replaced, ignore_errors=True)


def _replaced(run_dir: Path) -> Path:
    directory = run_dir.resolve()
    return directory.parent / f".{directory.name}-replaced"


def _run_name(settings: Settings, preset: str) -> str:
    """The preset's name, after that of the model and of the backbone where they are not the usual ones."""
    usual = Settings()
    parts = [settings.model_name] if settings.model_name != usual.model_name else []
    parts += [settings.backbone] if settings.backbone != usual.backbone else []
    return "-".join([*parts, preset])


def _assignment(text: str) -> tuple[str, Any]:
    """KEY=VALUE, the value as in TOML; what is no TOML is a string."""
    key, equals, value = text.partition("=")
    if not equals:
        raise SettingsError(f"--set {text}: expected KEY=VALUE")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value
