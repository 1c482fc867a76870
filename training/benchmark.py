"""How long training takes to an accuracy: growing resolution against the served one throughout, in one run.

python -m training.benchmark --target 0.94 --backbone-weights imagenet    # make bench-training
python -m training.benchmark --set stages='[{image_size = 48, epochs = 4}, {image_size = 96, epochs = 4}]'
python -m training.benchmark ...                                         # again: goes on where it stopped

Both plans have the same epochs and the same cosine, and end as soon as the validation accuracy at the served resolution
reaches the target. What is compared is the time spent in training and validation, which a resumed run adds up.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
from pathlib import Path
from typing import Any

from training.datasets import DataError, load_training
from training.model import WeightsError
from training.runs import add_run_arguments, check_same_run, put_back_unless_begun, run_from_arguments, start_over
from training.settings import Settings, SettingsError, Stage
from training.style import MUTED, OTHER, SERVED, drawing, save
from training.train import train

PROGRESSIVE, THROUGHOUT = "growing resolution", "served resolution throughout"


def plans(settings: Settings) -> dict[str, Settings]:
    """The preset's own stages where they grow, else half of the epochs at half of the size; and as many epochs at the
    served resolution."""
    size = settings.image_size
    epochs = sum(stage.epochs for stage in settings.stages)
    growing = tuple(dataclasses.replace(stage, learning_rate=None) for stage in settings.stages)
    if all(stage.image_size == size for stage in growing):
        if epochs < 2:
            raise SettingsError(f"growing resolution takes at least two epochs, got {epochs}")
        growing = Stage(size // 2, epochs // 2), Stage(size, epochs - epochs // 2)
    return {
        PROGRESSIVE: dataclasses.replace(settings, stages=growing),
        THROUGHOUT: dataclasses.replace(settings, stages=(Stage(size, epochs),)),
    }


def run(settings: Settings, directory: Path) -> dict[str, dict[str, float | None]]:
    """Trains both, writes time_to_accuracy.json and draws time_to_accuracy.png and .svg.

    Returns:
        By plan: seconds to the target (None where it was not reached), all seconds, best validation accuracy, and
        images/s by resolution.

    Raises:
        SettingsError: no target, too few epochs to grow in, or the directory of another benchmark.
        DataError: the data cannot be had, or have changed since the benchmark began.
    """
    if settings.stop_at_accuracy is None:
        raise SettingsError("stop_at_accuracy must be set, the target")
    directory.mkdir(parents=True, exist_ok=True)
    data = load_training(settings.source, settings.train_limit)
    check_same_run(settings, data, directory)
    images = len(data.train)
    results, histories = {}, {}
    for name, one in plans(settings).items():
        print(f"{name}: {', '.join(f'{stage.epochs} x {stage.image_size} px' for stage in one.stages)}", flush=True)
        run_dir = directory / name.replace(" ", "_")
        train(one, run_dir)
        history = [json.loads(line) for line in (run_dir / "history.jsonl").read_text(encoding="utf-8").splitlines()]
        histories[name] = history
        best = max(_accuracy(epoch) for epoch in history if epoch["last_stage"])
        seconds = sum(epoch["seconds"] for epoch in history)
        speeds = {}
        for epoch in history:
            if epoch["phase"] != "head":
                speeds.setdefault(f"{epoch['image_size']} px", []).append(images / epoch["seconds"])
        results[name] = {
            "seconds_to_target": seconds if best >= settings.stop_at_accuracy else None,
            "seconds": seconds,
            "val_accuracy": best,
            "images_per_s": {size: max(found) for size, found in speeds.items()},
        }
    (directory / "time_to_accuracy.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    _plot(histories, settings, directory)
    return results


def _accuracy(epoch: dict[str, Any]) -> float:
    """On validation: of the weights or of their average, whichever is better, as training chooses."""
    return max(epoch["val_accuracy"], epoch.get("ema_val_accuracy", 0.0))


@drawing()
def _plot(histories: dict[str, list[dict[str, Any]]], settings: Settings, directory: Path) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4))
    axes.axhline(100 * settings.stop_at_accuracy, color=MUTED, linestyle="--", linewidth=1)
    for (name, history), colour in zip(histories.items(), (SERVED, OTHER), strict=True):
        minutes = list(itertools.accumulate(epoch["seconds"] / 60 for epoch in history))
        accuracies = [100 * _accuracy(epoch) for epoch in history]
        axes.plot(minutes, accuracies, "-", color=colour, label=name)
        for epoch, x, y in zip(history, minutes, accuracies, strict=True):
            served = epoch["image_size"] == settings.image_size
            axes.plot(x, y, "o", color=colour, markerfacecolor=colour if served else "white")
            axes.annotate(
                f"{epoch['image_size']}", (x, y), (0, -13), textcoords="offset points", ha="center", fontsize=7
            )
    axes.set_xlim(left=0)
    axes.margins(y=0.1)
    axes.set_xlabel("minutes of training and validation")
    axes.set_ylabel("validation accuracy, %")
    axes.set_title(
        f"Time to {100 * settings.stop_at_accuracy:g} %: an epoch a dot, with its pixels; full where they are served"
    )
    axes.legend(loc="lower right")
    save(figure, directory / "time_to_accuracy")


def report(results: dict[str, dict], target: float) -> str:
    """The results as text, with their ratio."""
    lines = []
    for name, row in results.items():
        reached = "not reached" if row["seconds_to_target"] is None else f"{row['seconds_to_target'] / 60:.1f} min"
        speeds = ", ".join(f"{speed:.0f} images/s at {size}" for size, speed in row["images_per_s"].items())
        lines.append(f"{name:30}{target:.1%}: {reached:14}best {row['val_accuracy']:.2%}   {speeds}")
    times = [row["seconds_to_target"] for row in results.values()]
    if None not in times:
        lines.append(f"growing resolution takes {times[0] / times[1]:.2f} of the time")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.benchmark", description=__doc__.splitlines()[0])
    add_run_arguments(parser)
    parser.set_defaults(preset="fast")
    parser.add_argument("--target", type=float, default=0.94, help="validation accuracy, 0..1 (0.94)")
    arguments = parser.parse_args(argv)
    try:
        arguments.run_dir = arguments.run_dir or Path("runs") / f"time-to-{arguments.target}"
        settings, directory = run_from_arguments(arguments)
        settings = dataclasses.replace(settings, stop_at_accuracy=arguments.target)
        plans(settings)
        start_over(arguments, settings, directory)
        with put_back_unless_begun(directory):
            results = run(settings, directory)
    except (SettingsError, DataError, WeightsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the last finished epoch", file=sys.stderr)
        return 130
    print(report(results, arguments.target))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
