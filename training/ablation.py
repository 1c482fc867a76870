"""What each setting of a recipe is worth: the recipe as it is, and once with each change, over several seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean
from typing import Any


def ablations(changes: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The trials: for every seed the unchanged recipe, then each change alone. All of a seed come before the next."""
    for seed in seeds:
        yield {"seed": seed}
        for change in changes:
            yield {"seed": seed} | dict(change)


def ablation_table(
    changes: Sequence[Mapping[str, Any]], trials: Sequence[Mapping[str, Any]], accuracies: Sequence[float | None]
) -> str:
    """A Markdown table: each change with its mean validation accuracy, and what it gains over the recipe.

    The gain is the mean of the differences at the same seed, with the lowest and the highest of them.

    Args:
        changes: as for `ablations`.
        trials: what that gave, as far as they are run.
        accuracies: of each trial, 0..1; None where it failed.
    """
    found = {
        (trial["seed"], _title(trial)): accuracy
        for trial, accuracy in zip(trials, accuracies, strict=True)
        if accuracy is not None
    }
    recipe = {seed: accuracy for (seed, title), accuracy in found.items() if title == _title({})}
    lines = [
        "| change | validation accuracy | gain, points | lowest to highest | seeds |",
        "| --- | --- | --- | --- | --- |",
    ]
    for change in ({}, *changes):
        title = _title(change)
        seeds = [seed for seed in recipe if (seed, title) in found]
        if not seeds:
            continue
        accuracy = mean(found[seed, title] for seed in seeds)
        gains = [100 * (found[seed, title] - recipe[seed]) for seed in seeds]
        spread = f"{mean(gains):+.2f} | {min(gains):+.2f} to {max(gains):+.2f}" if change else "|"
        lines.append(f"| {title} | {accuracy:.2%} | {spread} | {len(seeds)} |")
    return "\n".join(lines)


def _title(trial: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in trial.items() if name != "seed") or "none"
