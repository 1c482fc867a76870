"""Trains the classifier: the head on the frozen backbone, then everything at growing resolution.

    python -m training.train --preset best                    # -> runs/best/model.keras, history.jsonl
    python -m training.train --preset smoke --run-dir /tmp/r  # seconds
    python -m training.train --preset best                    # again: goes on where the last one stopped

Runs on any Keras backend (KERAS_BACKEND=tensorflow on a CPU, jax on a GPU); only keras.* and numpy are used.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from training import checkpoint, manifest
from training.augment import RandomErasing, ShiftAndFlip, ToModelInput
from training.averaging import AveragingAdamW, recompute_statistics
from training.checkpoint import Progress
from training.data import DataError, Split, TrainingData, load_training
from training.model import (
    LOGITS_LAYER,
    WeightsError,
    build_classifier,
    initial_version,
    load_initial_weights,
    logits_model,
)
from training.settings import Settings, SettingsError, load_settings, preset_names, settings_from


@dataclass(frozen=True)
class Epoch:
    """One epoch of the plan."""

    number: int  # from 0, over both phases
    phase: str  # "head", "all", or "all, stage N" with a schedule of its own; an optimizer lives for one phase
    image_size: int
    last_stage: bool
    learning_rate: float  # the phase's peak
    phase_epochs: int


def plan(settings: Settings) -> list[Epoch]:
    """The epochs of both phases in order."""
    head = ("head", settings.stages[0].image_size, False, settings.head_learning_rate, settings.head_epochs)
    kinds = [head] * settings.head_epochs
    shared = sum(stage.epochs for stage in settings.stages if stage.learning_rate is None)
    for number, stage in enumerate(settings.stages, start=1):
        last = number == len(settings.stages)
        if stage.learning_rate is None:
            kind = ("all", stage.image_size, last, settings.learning_rate, shared)
        else:
            kind = (f"all, stage {number}", stage.image_size, last, stage.learning_rate, stage.epochs)
        kinds += [kind] * stage.epochs
    return [Epoch(number, *kind) for number, kind in enumerate(kinds)]


def train(settings: Settings, run_dir: Path) -> Path:
    """Trains, or goes on with a run that was interrupted.

    Args:
        settings: what to do.
        run_dir: holds settings.json, history.jsonl, last.npz, best.npz, initial_version.json (the manifest of the
            version it goes on from, if any) and at the end model.keras.

    Returns:
        The path of model.keras: the weights of the epoch with the best validation accuracy at settings.image_size.

    Raises:
        SettingsError: run_dir holds a run with other settings.
        DataError, WeightsError: the data or the initial weights cannot be had.
    """
    _keep_freed_memory()
    keras.utils.set_random_seed(settings.seed)
    data = load_training(settings.data_dir, settings.train_limit)
    run_dir.mkdir(parents=True, exist_ok=True)
    _check_same_run(settings, run_dir)
    epochs = plan(settings)
    last, best = run_dir / "last.npz", run_dir / "best.npz"

    if last.is_file():
        progress, weights, optimizer_state = checkpoint.load(last)
        print(f"{run_dir}: going on after epoch {progress.epoch} of {len(epochs)}")
    else:
        first = _classifier(settings, data, epochs[0].image_size)
        progress = Progress(initial_weights=load_initial_weights(first, settings))
        if settings.init_from is not None:
            shutil.copyfile(initial_version(settings) / manifest.FILE, run_dir / "initial_version.json")
        weights, optimizer_state = first.get_weights(), []
    _cut_history(run_dir / "history.jsonl", progress.epoch)
    print(f"{len(data.train)} training, {len(data.validation)} validation images")
    print(f"initial weights: {progress.initial_weights}")

    model = trainer = optimizer = current = None
    for epoch in epochs[progress.epoch :]:
        if _stopped_early(progress, epoch, settings):
            print(f"no better validation accuracy for {settings.early_stopping_patience} epochs: stopping early")
            break
        if current is None or (epoch.phase, epoch.image_size) != (current.phase, current.image_size):
            model, trainer, optimizer = _build(settings, data, epoch, weights)
            if progress.phase == epoch.phase:  # the optimizer's momenta carry over to the next resolution
                for variable, value in zip(optimizer.variables, optimizer_state, strict=True):
                    variable.assign(value)
            current = epoch
        metrics = _run_epoch(trainer, data, epoch, settings, len(epochs))
        weights = model.get_weights()
        optimizer_state = [keras.ops.convert_to_numpy(v) for v in optimizer.variables]
        progress = dataclasses.replace(progress, epoch=epoch.number + 1, phase=epoch.phase, metrics=metrics)
        candidates = [(metrics["val_accuracy"], weights)]
        if epoch.last_stage and settings.ema_momentum:
            candidates.append(_averaged(model, trainer, data, settings))
            metrics["ema_val_accuracy"] = candidates[-1][0]
        for accuracy, candidate in candidates:
            if epoch.last_stage and accuracy > progress.best_accuracy:
                progress = dataclasses.replace(progress, best_accuracy=accuracy, best_epoch=progress.epoch)
                checkpoint.save(best, progress, candidate, [])
        with (run_dir / "history.jsonl").open("a", encoding="utf-8") as history:
            history.write(json.dumps(dataclasses.asdict(epoch) | metrics) + "\n")
        checkpoint.save(last, progress, weights, optimizer_state)

    final = _classifier(settings, data, settings.image_size)
    best_progress, best_weights, _ = checkpoint.load(best)
    final.set_weights(best_weights)
    path = run_dir / "model.keras"
    final.save(path)
    print(f"validation accuracy {best_progress.best_accuracy:.4f} (epoch {best_progress.best_epoch}); wrote {path}")
    return path


def _classifier(settings: Settings, data: TrainingData, image_size: int) -> keras.Model:
    return build_classifier(len(data.classes), image_size, settings.dropout, settings.batch_norm_momentum)


def _build(settings: Settings, data: TrainingData, epoch: Epoch, weights: list[np.ndarray]):
    """The classifier at the epoch's resolution with `weights`, and the trainer around it, compiled."""
    model = _classifier(settings, data, epoch.image_size)
    model.set_weights(weights)
    for layer in model.layers:
        layer.trainable = epoch.phase != "head" or layer.name == LOGITS_LAYER
    images = keras.Input((28, 28, 1), dtype="uint8", name="pixels")
    x = keras.layers.Rescaling(1.0)(images)  # uint8 -> float32, still 0..255
    x = ShiftAndFlip(settings.crop_padding, settings.flip, settings.seed)(x)
    x = RandomErasing(settings.erasing_probability, settings.erasing_area, settings.seed + 1)(x)
    x = ToModelInput(epoch.image_size)(x)
    trainer = keras.Model(images, logits_model(model)(x))

    steps = -(-len(data.train) // settings.batch_size)
    if epoch.phase == "head":
        optimizer = keras.optimizers.AdamW(epoch.learning_rate, weight_decay=settings.weight_decay)
    else:
        total = steps * epoch.phase_epochs
        warmup = min(round(steps * settings.warmup_epochs), total // 10)
        schedule = keras.optimizers.schedules.CosineDecay(
            epoch.learning_rate / 100, total - warmup, warmup_target=epoch.learning_rate, warmup_steps=warmup
        )
        optimizer = (
            AveragingAdamW(schedule, weight_decay=settings.weight_decay, ema_momentum=settings.ema_momentum)
            if settings.ema_momentum
            else keras.optimizers.AdamW(schedule, weight_decay=settings.weight_decay)
        )
        # as usual for AdamW: biases and batch norms are not decayed
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    trainer.compile(
        optimizer,
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=settings.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    optimizer.build(trainer.trainable_variables)
    return model, trainer, optimizer


def _run_epoch(
    trainer: keras.Model, data: TrainingData, epoch: Epoch, settings: Settings, total: int
) -> dict[str, float]:
    # order and augmentation depend on (seed, epoch) alone, so that a resumed run sees what the whole run would have
    order = np.random.default_rng((settings.seed, epoch.number)).permutation(len(data.train))
    for number, generator in enumerate(_random_generators(trainer)):
        # a sequence of its own for every layer: equal ones would tie the erased area to the shift
        sequence = np.random.SeedSequence((settings.seed, epoch.number, number))
        generator.state.assign(sequence.generate_state(2, np.uint32))
    x, y = _arrays(data.train, len(data.classes))
    print(f"epoch {epoch.number + 1}/{total}: {epoch.phase} at {epoch.image_size} px", flush=True)
    started = time.perf_counter()
    history = trainer.fit(
        x[order], y[order],
        batch_size=settings.batch_size, shuffle=False,
        validation_data=_arrays(data.validation, len(data.classes)), validation_batch_size=settings.batch_size,
        verbose=1 if sys.stdout.isatty() else 2,
    ).history  # fmt: skip
    return {name: float(values[-1]) for name, values in history.items()} | {
        "seconds": round(time.perf_counter() - started, 1)
    }


def _averaged(
    model: keras.Model, trainer: keras.Model, data: TrainingData, settings: Settings
) -> tuple[float, list[np.ndarray]]:
    """Validation accuracy and weights of the averaged model; the model itself is left as it was."""
    weights = model.get_weights()
    for variable, average in zip(trainer.trainable_variables, trainer.optimizer.averages(), strict=True):
        variable.assign(average)
    order = np.random.default_rng(settings.seed).permutation(len(data.train))
    recompute_statistics(model, trainer, data.train.images[order, ..., None], settings.batch_size)
    x, y = _arrays(data.validation, len(data.classes))
    accuracy = trainer.evaluate(x, y, batch_size=settings.batch_size, verbose=0, return_dict=True)["accuracy"]
    averaged = model.get_weights()
    model.set_weights(weights)
    print(f"validation accuracy of the averaged weights {accuracy:.4f}", flush=True)
    return float(accuracy), averaged


def _random_generators(model: keras.Model) -> Iterator[keras.random.SeedGenerator]:
    """The generators of augmentation and dropout, in the order of the layers."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _random_generators(layer)
        elif isinstance(layer, ShiftAndFlip | RandomErasing):
            yield layer.generator
        elif isinstance(layer, keras.layers.Dropout) and layer.rate > 0:
            yield layer.seed_generator


def _arrays(split: Split, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    return split.images[..., None], np.eye(num_classes, dtype="float32")[split.labels]


def _stopped_early(progress: Progress, epoch: Epoch, settings: Settings) -> bool:
    return epoch.last_stage and 0 < progress.best_epoch <= progress.epoch - settings.early_stopping_patience


def _cut_history(path: Path, epochs: int) -> None:
    """Drops the line of an epoch that was killed before its checkpoint was written, and now runs again."""
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        if len(lines) > epochs:
            path.write_text("".join(lines[:epochs]), encoding="utf-8")


def _check_same_run(settings: Settings, run_dir: Path) -> None:
    path = run_dir / "settings.json"
    if not path.is_file():
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(settings.to_dict(), indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)
    before = read_settings(run_dir).to_dict()
    changed = sorted(name for name, value in settings.to_dict().items() if before[name] != value)
    if changed:
        raise SettingsError(
            f"{run_dir} holds a run with other settings ({', '.join(changed)}); "
            "choose another --run-dir, or start over with --fresh"
        )


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


def _keep_freed_memory() -> None:
    """Tells glibc to keep freed memory. By default it maps and unmaps every large tensor: at 96 px and batch 128 on
    2 cores the page faults halve the speed (45 against 85 images/s, measured)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # not glibc
        return
    m_trim_threshold, m_mmap_max, m_arena_max = -1, -4, -8  # malloc.h
    for parameter, value in ((m_trim_threshold, 2**31 - 1), (m_mmap_max, 0), (m_arena_max, 1)):
        mallopt(parameter, value)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="best", help=f"{', '.join(preset_names())}, or a TOML file (default: best)")
    parser.add_argument(
        "--data-dir", help="directory of the four IDX files (default: FASHION_MNIST_DIR, Debian's package, download)"
    )
    parser.add_argument("--backbone-weights", help="imagenet | none | PATH of a Keras weights file")
    parser.add_argument("--backbone-weights-source", help="where PATH came from, in words, for the manifest")
    parser.add_argument("--init-from", help="go on from a published version, by number or directory: all its weights")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--run-dir", type=Path, help="default: runs/<preset>")
    parser.add_argument("--fresh", action="store_true", help="start over: delete what the run directory holds")


def run_from_arguments(arguments: argparse.Namespace) -> tuple[Settings, Path]:
    """The settings and the run directory, emptied where the user wants to start over."""
    names = ("data_dir", "backbone_weights", "backbone_weights_source", "init_from", "seed")
    settings = load_settings(arguments.preset, {name: getattr(arguments, name) for name in names})
    run_dir = arguments.run_dir or Path("runs") / Path(arguments.preset).stem
    if arguments.fresh and run_dir.exists():
        if any(run_dir.iterdir()) and not (run_dir / "settings.json").is_file():
            raise SettingsError(f"--fresh: {run_dir} is no run directory; it is left as it is")
        shutil.rmtree(run_dir)
    return settings, run_dir


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__.splitlines()[0])
    add_run_arguments(parser)
    arguments = parser.parse_args(argv)
    try:
        settings, run_dir = run_from_arguments(arguments)
        train(settings, run_dir)
    except (SettingsError, DataError, WeightsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the last finished epoch", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
