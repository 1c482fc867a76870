"""Trains the classifier: the head on the frozen backbone, then everything at growing resolution.

    python -m training.train --preset best                    # -> runs/best/model.keras, history.jsonl
    python -m training.train --preset smoke --run-dir /tmp/r  # seconds
    python -m training.train --preset best                    # again: goes on where the last one stopped
    python -m training.train --preset best --distribute data  # on several devices: docs/distribution.md

Runs on any Keras backend (KERAS_BACKEND=tensorflow on a CPU, jax on a GPU); only keras.* and numpy are used.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import shutil
import sys
import time
from pathlib import Path

import keras
import numpy as np

from training import checkpoint, manifest, memory
from training.averaging import recompute_statistics
from training.checkpoint import Progress
from training.datasets import DataError, TrainingData, load_training
from training.distribution import add_distribution_argument, distributed, own_run_directory, share, share_size
from training.model import WeightsError, initial_version, load_initial_weights
from training.runs import (
    add_run_arguments,
    begun,
    check_same_run,
    cut_history,
    put_back_unless_begun,
    run_from_arguments,
    start_over,
)
from training.settings import Settings, SettingsError
from training.teachers import Teacher, load_teachers
from training.trainer import Epoch, arrays, build, classifier, plan, random_generators


def train(settings: Settings, run_dir: Path) -> Path:
    """Trains, or goes on with a run that was interrupted.

    Args:
        settings: what to do.
        run_dir: holds settings.json, data.json, history.jsonl, last.npz, best.npz, initial_version.json (the manifest
            of the version it goes on from, if any) and at the end model.keras.

    Returns:
        The path of model.keras: the weights of the epoch with the best validation accuracy at settings.image_size.

    Raises:
        SettingsError: run_dir holds a run with other settings or teachers, or a finished trial of a search; or the loss
            is no longer finite.
        DataError, WeightsError: the data or the initial weights cannot be had, or the data are others than before.
    """
    memory.keep_freed_memory()
    _one_operation_at_a_time()
    keras.utils.set_random_seed(settings.seed)
    epochs = plan(settings)
    last, best = run_dir / "last.npz", run_dir / "best.npz"
    with put_back_unless_begun(run_dir):
        data = load_training(settings.source, settings.train_limit)
        run_dir.mkdir(parents=True, exist_ok=True)
        check_same_run(settings, data, run_dir)
        if (run_dir / "result.json").is_file() and not last.is_file():
            raise SettingsError(f"{run_dir} is a finished trial of a search; export it, or choose another --run-dir")
        if last.is_file():
            progress, weights, optimizer_state = checkpoint.load(last)
            print(f"{run_dir}: going on after epoch {progress.epoch} of {len(epochs)}")
        else:
            progress, weights, optimizer_state = _first_state(settings, data, epochs[0], run_dir)
        share((data.train.labels, data.validation.labels), settings.batch_size)  # refuses what the devices cannot share
        begun(run_dir)
    cut_history(run_dir / "history.jsonl", progress.epoch)
    print(f"{len(data.train)} training, {len(data.validation)} validation images")
    print(f"initial weights: {progress.initial_weights}")

    model = trainer = current = teachers = None
    for epoch in epochs[progress.epoch :]:
        if reason := _stopped_early(progress, epoch, settings):
            print(f"stopping early: {reason}")
            break
        if current is None or _compiled_for(epoch) != _compiled_for(current):
            teachers = _teachers(settings, data, progress, run_dir) if teachers is None else teachers
            model, trainer = build(settings, data, epoch, weights, teachers)
            if progress.phase == epoch.phase:  # the optimizer's momenta carry over to the next resolution
                for variable, value in zip(trainer.optimizer.variables, optimizer_state, strict=True):
                    variable.assign(value)
            current = epoch
        started = time.perf_counter()
        metrics = _run_epoch(trainer, data, epoch, settings, len(epochs), run_dir)
        if not math.isfinite(metrics["loss"]):
            raise SettingsError(
                f"the loss of epoch {epoch.number + 1} is {metrics['loss']}: learning_rate={epoch.learning_rate} is "
                f"too high for this; {last} holds the state before it"
            )
        progress = _plateau(progress, epoch, metrics, settings, trainer.optimizer)
        weights = model.get_weights()
        optimizer_state = [keras.ops.convert_to_numpy(v) for v in trainer.optimizer.variables]
        progress = dataclasses.replace(progress, epoch=epoch.number + 1, phase=epoch.phase, metrics=metrics)
        candidates = [(metrics["val_accuracy"], weights)]
        if epoch.last_stage and settings.ema_momentum:
            candidates.append(_averaged(model, trainer, data, settings))
            metrics["ema_val_accuracy"] = candidates[-1][0]
        metrics["seconds"] = round(time.perf_counter() - started, 1)
        for accuracy, candidate in candidates:
            if epoch.last_stage and accuracy > progress.best_accuracy:
                progress = dataclasses.replace(progress, best_accuracy=accuracy, best_epoch=progress.epoch)
                checkpoint.save(best, progress, candidate, [])
        with (run_dir / "history.jsonl").open("a", encoding="utf-8") as history:
            history.write(json.dumps(dataclasses.asdict(epoch) | metrics) + "\n")
        checkpoint.save(last, progress, weights, optimizer_state)

    final = classifier(settings, data, settings.image_size)
    best_progress, best_weights, _ = checkpoint.load(best)
    final.set_weights(best_weights)
    path = run_dir / "model.keras"
    final.save(path)
    print(f"validation accuracy {best_progress.best_accuracy:.4f} (epoch {best_progress.best_epoch}); wrote {path}")
    return path


def _first_state(
    settings: Settings, data: TrainingData, epoch: Epoch, run_dir: Path
) -> tuple[Progress, list[np.ndarray], list[np.ndarray]]:
    """What a run has before its first epoch, as `checkpoint.load` gives it later."""
    model = classifier(settings, data, epoch.image_size)
    origin = load_initial_weights(model, settings, data.classes)
    teachers = [teacher.origin for teacher in load_teachers(settings, data.classes)]
    if settings.init_from is not None:
        shutil.copyfile(initial_version(settings) / manifest.FILE, run_dir / "initial_version.json")
    return Progress(initial_weights=origin, teachers=teachers), model.get_weights(), []


def _teachers(settings: Settings, data: TrainingData, progress: Progress, run_dir: Path) -> list[Teacher]:
    teachers = load_teachers(settings, data.classes)
    if [teacher.origin for teacher in teachers] != progress.teachers:
        raise SettingsError(
            f"{run_dir} began with other teachers: {'; '.join(progress.teachers)}; bring them back, or start over "
            "with --fresh"
        )
    return teachers


def _run_epoch(
    trainer: keras.Model, data: TrainingData, epoch: Epoch, settings: Settings, total: int, run_dir: Path
) -> dict[str, float]:
    # order and augmentation depend on (seed, epoch) alone, so that a resumed run sees what the whole run would have
    order = np.random.default_rng((settings.seed, epoch.number)).permutation(len(data.train))
    for number, generator in enumerate(random_generators(trainer)):
        # a sequence of its own for every layer: equal ones would tie the erased area to the shift
        sequence = np.random.SeedSequence((settings.seed, epoch.number, number))
        generator.state.assign(sequence.generate_state(2, np.uint32))
    x, y = share(arrays(data.train, len(data.classes), order), settings.batch_size)
    batch_size = share_size(settings.batch_size)
    numbered = {"epochs": 1}
    if settings.tensorboard:  # which shows an epoch under its number; Keras then prints the number too
        logs = keras.callbacks.TensorBoard(run_dir / "tensorboard", write_graph=False)
        numbered = {"initial_epoch": epoch.number, "epochs": epoch.number + 1, "callbacks": [logs]}
    print(f"epoch {epoch.number + 1}/{total}: {epoch.phase} at {epoch.image_size} px", flush=True)
    history = trainer.fit(
        x, y,
        batch_size=batch_size, shuffle=False,
        validation_data=share(arrays(data.validation, len(data.classes)), settings.batch_size),
        validation_batch_size=batch_size,
        verbose=1 if sys.stdout.isatty() else 2, **numbered,
    ).history  # fmt: skip
    return {name: float(values[-1]) for name, values in history.items()}


def _averaged(
    model: keras.Model, trainer: keras.Model, data: TrainingData, settings: Settings
) -> tuple[float, list[np.ndarray]]:
    """Validation accuracy and weights of the averaged model; the model itself is left as it was."""
    weights = model.get_weights()
    for variable, average in zip(trainer.trainable_variables, trainer.optimizer.averages(), strict=True):
        variable.assign(average)
    order = np.random.default_rng(settings.seed).permutation(len(data.train))
    x, _ = arrays(data.train, len(data.classes), order)
    recompute_statistics(model, trainer, x, settings.batch_size)
    x, y = share(arrays(data.validation, len(data.classes)), settings.batch_size)
    batch_size = share_size(settings.batch_size)
    accuracy = trainer.evaluate(x, y, batch_size=batch_size, verbose=0, return_dict=True)["accuracy"]
    averaged = model.get_weights()
    model.set_weights(weights)
    print(f"validation accuracy of the averaged weights {accuracy:.4f}", flush=True)
    return float(accuracy), averaged


def _compiled_for(epoch: Epoch) -> tuple[str, int, bool]:
    return epoch.phase, epoch.image_size, epoch.mixed


def _plateau(
    progress: Progress,
    epoch: Epoch,
    metrics: dict[str, float],
    settings: Settings,
    optimizer: keras.optimizers.Optimizer,
) -> Progress:
    """What keras.callbacks.ReduceLROnPlateau does, with its state where a resumed run finds it."""
    if settings.reduce_lr_patience is None or epoch.phase == "head":
        return progress
    if progress.phase != epoch.phase:  # with an optimizer of its own: what was lowest before is no measure of it
        progress = dataclasses.replace(progress, lowest_loss=math.inf, epochs_since_lowest=0)
    if metrics["val_loss"] < progress.lowest_loss:
        return dataclasses.replace(progress, lowest_loss=metrics["val_loss"], epochs_since_lowest=0)
    waited = progress.epochs_since_lowest + 1
    if waited >= settings.reduce_lr_patience:
        # a variable of the optimizer, which is in the checkpoint with the others
        optimizer.learning_rate = float(optimizer.learning_rate) * settings.reduce_lr_factor
        print(f"no lower validation loss for {waited} epochs: learning rate {float(optimizer.learning_rate):.2e}")
        waited = 0
    return dataclasses.replace(progress, epochs_since_lowest=waited)


def _stopped_early(progress: Progress, epoch: Epoch, settings: Settings) -> str | None:
    """Why the run ends before this epoch, if it does."""
    if settings.stop_at_accuracy is not None and progress.best_accuracy >= settings.stop_at_accuracy:
        return f"a validation accuracy of {settings.stop_at_accuracy} is reached"
    if epoch.last_stage and 0 < progress.best_epoch <= progress.epoch - settings.early_stopping_patience:
        return f"no better validation accuracy for {settings.early_stopping_patience} epochs"
    return None


def _one_operation_at_a_time() -> None:
    """Has TensorFlow run the operations of a step in one order. With more of them at once the last digits of two runs
    differed on a CPU, at 96 px from the first step on; each still uses every core. Too late where TensorFlow has
    calculated already in this process."""
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__.splitlines()[0])
    add_run_arguments(parser)
    add_distribution_argument(parser)
    arguments = parser.parse_args(argv)
    try:
        with distributed(arguments.distribute):
            settings, run_dir = run_from_arguments(arguments)
            start_over(arguments, settings, run_dir)
            with own_run_directory(run_dir, settings) as directory:
                train(settings, directory)
    except (SettingsError, DataError, WeightsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the last finished epoch", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
