"""Searches settings: a grid, random draws or one change at a time, one run each, resumable, with a table.

python -m training.tune --preset fast --grid learning_rate=1e-5,5e-6 batch_size=32,64 early_stopping_patience=2,3
python -m training.tune --preset fast --random 12 learning_rate=1e-5..1e-3 frozen_layers=0,60,120
python -m training.tune --preset ablation --seeds 1,2,3 --ablate flip=false label_smoothing=0 cutmix_alpha=1.0
python -m training.tune --preset fast --grid ...      # again: finished trials are kept, the interrupted one goes on

A value is written as in TOML. A range low..high is drawn from evenly, on a logarithmic scale where both are above 0.
All trials see the same split; they are ranked by their validation accuracy, the test set is not read. (KerasTuner tunes
what builds models, not runs: it would bring a second way to save, resume and describe a training.)
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import json
import math
import random
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from training import checkpoint
from training.ablation import ablation_table, ablations
from training.datasets import DataError, load_training
from training.model import WeightsError
from training.runs import (
    add_run_arguments,
    check_same_run,
    put_back_unless_begun,
    replace_file,
    run_from_arguments,
    start_over,
)
from training.settings import Settings, SettingsError, settings_from
from training.style import SERVED, drawing, save
from training.train import train

SETTING_NAMES = {field.name for field in dataclasses.fields(Settings)}


def grid(axes: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination of the axes' values, the last axis fastest."""
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def draws(axes: Mapping[str, Any], count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` random combinations, the same for the same seed. A range is a tuple (low, high), a choice a list."""
    generator = random.Random(seed)
    for _ in range(count):
        yield {name: _draw(generator, axis) for name, axis in axes.items()}


def _draw(generator: random.Random, axis: list[Any] | tuple[float, float]) -> Any:
    if isinstance(axis, list):
        return generator.choice(axis)
    low, high = axis
    if isinstance(low, int) and isinstance(high, int):
        return generator.randint(low, high)
    if low > 0:
        return float(f"{math.exp(generator.uniform(math.log(low), math.log(high))):.3g}")
    return float(f"{generator.uniform(low, high):.3g}")


def parse_axis(text: str, *, ranges: bool) -> tuple[str, list[Any] | tuple[float, float]]:
    """NAME=A,B,C or, where `ranges` are allowed, NAME=LOW..HIGH.

    Raises:
        SettingsError: it is neither, or the setting does not exist.
    """
    name, equals, values = text.partition("=")
    name = name.strip()
    if not equals or not values:
        raise SettingsError(f"{text}: expected NAME=VALUE,VALUE or NAME=LOW..HIGH")
    if name not in SETTING_NAMES:
        settings_from({name: None}, origin=text)  # its error names the valid ones
    low, dots, high = values.partition("..")
    if dots:
        bounds = parse_value(low), parse_value(high)
        numbers = all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in bounds)
        if not ranges or not numbers or bounds[0] >= bounds[1]:
            raise SettingsError(f"{text}: expected LOW..HIGH, two numbers, the lower first, with --random")
        return name, bounds
    try:
        return name, tomllib.loads(f"values = [{values}]")["values"]
    except tomllib.TOMLDecodeError:
        return name, [parse_value(value) for value in values.split(",")]


def parse_change(text: str) -> dict[str, Any]:
    """NAME=VALUE, one change of an ablation.

    Raises:
        SettingsError: it is something else, or the setting does not exist.
    """
    name, values = parse_axis(text, ranges=False)
    if len(values) != 1:
        raise SettingsError(f"{text}: expected NAME=VALUE, one value; for several give several changes")
    return {name: values[0]}


def parse_value(text: str) -> Any:
    """A value as in TOML; what is no TOML is a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def search(settings: Settings, trials: Sequence[Mapping[str, Any]], directory: Path) -> list[dict[str, Any]]:
    """Trains one run a trial, under `directory`, and writes results.csv and results.png after each.

    Args:
        settings: what all trials have in common.
        trials: the settings that differ, by name.
        directory: holds a run directory a trial, named after its settings.

    Returns:
        One row a trial, best first: its name, its settings, validation accuracy, best epoch, seconds; or its error.

    Raises:
        SettingsError: a trial that cannot be, or the directory of another search; before any is trained.
        DataError: the data cannot be had, or have changed since the search began.
    """
    planned = plan(settings, trials)
    directory.mkdir(parents=True, exist_ok=True)
    check_same_run(settings, load_training(settings.source), directory)
    names = list(dict.fromkeys(name for trial in trials for name in trial))
    unchanged = settings.to_dict()
    rows: list[dict[str, Any]] = []
    for number, (trial, one) in enumerate(zip(trials, planned, strict=True), start=1):
        print(f"trial {number}/{len(planned)}: {_title(trial)}", flush=True)
        run_dir = directory / _title(trial)
        values = {name: trial.get(name, unchanged[name]) for name in names}
        rows.append({"trial": _title(trial)} | values | _result(one, run_dir))
        rows.sort(key=lambda row: -(row["val_accuracy"] or 0.0))
        write_results(rows, directory)
    return rows


def plan(settings: Settings, trials: Sequence[Mapping[str, Any]]) -> list[Settings]:
    """The settings of each trial.

    Raises:
        SettingsError: a trial that cannot be.
    """
    return [settings_from(settings.to_dict() | dict(trial), origin=_title(trial)) for trial in trials]


def _title(trial: Mapping[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in trial.items()).replace("/", "_")


def _result(settings: Settings, run_dir: Path) -> dict[str, Any]:
    finished = run_dir / "result.json"
    if finished.is_file():
        return json.loads(finished.read_text(encoding="utf-8"))
    try:
        train(settings, run_dir)
    except (SettingsError, WeightsError) as error:  # of this trial alone: a learning rate too high, say
        print(f"failed: {error}", file=sys.stderr)
        return {"val_accuracy": None, "best_epoch": None, "epochs": None, "seconds": None, "error": str(error)}
    progress, _, _ = checkpoint.load(run_dir / "best.npz")
    history = [json.loads(line) for line in (run_dir / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    result = {
        "val_accuracy": progress.best_accuracy,
        "best_epoch": progress.best_epoch,
        "epochs": len(history),
        "seconds": round(sum(epoch["seconds"] for epoch in history), 1),
        "error": "",
    }
    replace_file(finished, json.dumps(result) + "\n")
    # what an export needs stays, without the weights, which are in model.keras: a search would fill the disk
    checkpoint.save(run_dir / "best.npz", progress, [], [])
    (run_dir / "last.npz").unlink()
    return result


def _accuracy(directory: Path, trial: Mapping[str, Any]) -> float | None:
    finished = directory / _title(trial) / "result.json"
    return json.loads(finished.read_text(encoding="utf-8"))["val_accuracy"] if finished.is_file() else None


def write_results(rows: Sequence[Mapping[str, Any]], directory: Path) -> None:
    """The rows as results.csv and, where a trial has finished, as results.png."""
    with (directory / "results.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    finished = [row for row in rows if row["val_accuracy"] is not None]
    if not finished:
        return
    with drawing():
        from matplotlib import pyplot as plt

        figure, axes = plt.subplots(figsize=(8, 1.2 + 0.32 * len(finished)))
        axes.plot([100 * row["val_accuracy"] for row in finished], range(len(finished)), "o", color=SERVED)
        axes.set_yticks(range(len(finished)), [row["trial"] for row in finished])
        axes.invert_yaxis()
        axes.set_xlabel("validation accuracy, %")
        axes.set_title(f"{len(finished)} trials, best first")
        save(figure, directory / "results", formats=("png",))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as text."""
    columns = [column for column in rows[0] if column not in SETTING_NAMES]
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    lines = [columns, *cells]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) and 0.01 < value < 1 else str(value)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.tune", description=__doc__.splitlines()[0])
    add_run_arguments(parser)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--grid", nargs="+", metavar="NAME=A,B", help="every combination of these values")
    how.add_argument("--random", nargs="+", metavar=("COUNT", "NAME=A,B|LOW..HIGH"), help="COUNT random combinations")
    how.add_argument(
        "--ablate", nargs="+", metavar="NAME=VALUE", help="the preset as it is, and with each change alone"
    )
    parser.add_argument("--seeds", default="1", metavar="1,2,3", help="of --ablate: each trial once a seed (1)")
    arguments = parser.parse_args(argv)
    try:
        arguments.run_dir = arguments.run_dir or Path("runs") / f"tune-{Path(arguments.preset).stem}"
        settings, directory = run_from_arguments(arguments)
        if arguments.grid:
            trials = list(grid(dict(parse_axis(text, ranges=False) for text in arguments.grid)))
        elif arguments.ablate:
            changes = [parse_change(text) for text in arguments.ablate]
            trials = list(ablations(changes, parse_axis(f"seed={arguments.seeds}", ranges=False)[1]))
        else:
            count, *texts = arguments.random
            if not count.isdecimal() or not int(count) or not texts:
                raise SettingsError("--random: expected COUNT NAME=VALUES ..., such as 12 learning_rate=1e-5..1e-3")
            axes = dict(parse_axis(text, ranges=True) for text in texts)
            trials = list(draws(axes, int(count), settings.seed))
        plan(settings, trials)
        start_over(arguments, settings, directory)
        with put_back_unless_begun(directory):
            rows = search(settings, trials, directory)
    except (SettingsError, DataError, WeightsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on with the interrupted trial", file=sys.stderr)
        return 130
    if all(row["val_accuracy"] is None for row in rows):
        print(table(rows))
        return 1
    if arguments.ablate:
        summary = ablation_table(changes, trials, [_accuracy(directory, trial) for trial in trials])
        (directory / "ablation.md").write_text(f"{summary}\n", encoding="utf-8")
        print(f"{summary}\nwrote {directory}/ablation.md")
    print(f"{table(rows)}\nwrote {directory}/results.csv and results.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
