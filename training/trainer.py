"""What one stretch of training compiles: the classifier with augmentation before it and the objective behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from training.augment import RandomErasing, ShiftAndFlip, ToModelInput
from training.averaging import AveragingAdamW
from training.backbones import backbone
from training.batch_norm import with_fused_batch_norms
from training.datasets import Split, TrainingData
from training.mixing import Mix
from training.model import build_classifier, logits_model, set_trainable
from training.objective import Objective, balanced_class_weights
from training.settings import Settings
from training.teachers import Teacher, Teaching


@dataclass(frozen=True)
class Epoch:
    """One epoch of the plan."""

    number: int  # from 0, over both phases
    phase: str  # "head", "all", or "all, stage N" with a schedule of its own; an optimizer lives for one phase
    image_size: int
    last_stage: bool
    learning_rate: float  # the phase's peak
    phase_epochs: int
    mixed: bool = False  # by MixUp or CutMix


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
    mixes = settings.mixup_alpha > 0 or settings.cutmix_alpha > 0
    last_mixed = len(kinds) - settings.mix_off_epochs
    return [
        Epoch(number, *kind, mixed=mixes and settings.head_epochs <= number < last_mixed)
        for number, kind in enumerate(kinds)
    ]


def classifier(settings: Settings, data: TrainingData, image_size: int) -> keras.Model:
    """The model of these settings at a resolution, with random weights."""
    return build_classifier(
        settings.backbone, len(data.classes), image_size, settings.dropout, settings.batch_norm_momentum
    )


def build(
    settings: Settings, data: TrainingData, epoch: Epoch, weights: list[np.ndarray], teachers: Sequence[Teacher] = ()
) -> tuple[keras.Model, keras.Model]:
    """The classifier at the epoch's resolution with `weights`, and the trainer around it, compiled.

    The trainer takes {"pixels": uint8 (N, H, W, C), "targets": float32 (N, num_classes)} and gives logits; its layers
    of the classifier are the classifier's own.
    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(settings.precision)
    try:
        model = with_fused_batch_norms(classifier(settings, data, epoch.image_size))
        model.set_weights(weights)
        set_trainable(model, head_only=epoch.phase == "head", frozen_layers=settings.frozen_layers)
        trainer = _trainer(model, settings, data, epoch, teachers)
    finally:
        keras.config.set_dtype_policy(policy)
    optimizer = _optimizer(settings, epoch, -(-len(data.train) // settings.batch_size))
    trainer.compile(optimizer, metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")])
    optimizer.build(trainer.trainable_variables)
    return model, trainer


def _trainer(
    model: keras.Model, settings: Settings, data: TrainingData, epoch: Epoch, teachers: Sequence[Teacher]
) -> keras.Model:
    float32 = {"dtype": "float32"}  # pixels and labels; what the model computes has the policy's type
    pixels = keras.Input(data.train.images.shape[1:], dtype="uint8", name="pixels")
    targets = keras.Input((len(data.classes),), name="targets")
    x = keras.layers.Rescaling(1.0, **float32)(pixels)  # uint8 -> float32, still 0..255
    x = ShiftAndFlip(settings.crop_padding, settings.flip, settings.seed, **float32)(x)
    for layer in _photographic(settings, float32):
        x = layer(x)
    x = RandomErasing(settings.erasing_probability, settings.erasing_area, settings.seed + 1, **float32)(x)
    mixed_targets = targets
    if epoch.mixed:
        x, mixed_targets = Mix(settings.mixup_alpha, settings.cutmix_alpha, settings.seed + 2, **float32)([x, targets])
    scaling = backbone(settings.backbone).scaling
    logits = logits_model(model)(ToModelInput(epoch.image_size, scaling, **float32)(x))
    taught = Teaching(teachers, settings.distillation_temperature)(x) if teachers and epoch.phase != "head" else None
    class_weights = None
    if settings.class_weights == "balanced":
        class_weights = balanced_class_weights(data.train.labels, len(data.classes))
    objective = Objective(
        settings.label_smoothing, class_weights, settings.distillation_weight, settings.distillation_temperature
    )
    return keras.Model({"pixels": pixels, "targets": targets}, objective(logits, mixed_targets, taught))


def _photographic(settings: Settings, options: dict[str, str]) -> Iterator[keras.layers.Layer]:
    """Keras' own augmentation of photos, where it is asked for."""
    seed, value_range = settings.seed + 3, (0, 255)
    if settings.rotation:
        yield keras.layers.RandomRotation(settings.rotation / 360, fill_mode="nearest", seed=seed, **options)
    if settings.zoom:
        yield keras.layers.RandomZoom(settings.zoom, fill_mode="nearest", seed=seed + 1, **options)
    if settings.brightness:
        yield keras.layers.RandomBrightness(settings.brightness, value_range=value_range, seed=seed + 2, **options)
    if settings.contrast:
        yield keras.layers.RandomContrast(settings.contrast, value_range=value_range, seed=seed + 3, **options)


def _optimizer(settings: Settings, epoch: Epoch, steps: int) -> keras.optimizers.AdamW:
    learning_rate = epoch.learning_rate
    if epoch.phase != "head" and settings.schedule == "cosine":
        total = steps * epoch.phase_epochs
        warmup = min(round(steps * settings.warmup_epochs), total // 10)
        learning_rate = keras.optimizers.schedules.CosineDecay(
            learning_rate / 100, total - warmup, warmup_target=learning_rate, warmup_steps=warmup
        )
    options = {"learning_rate": learning_rate, "weight_decay": settings.weight_decay}
    if settings.ema_momentum:
        optimizer = AveragingAdamW(ema_momentum=settings.ema_momentum, **options)
    else:
        optimizer = keras.optimizers.AdamW(**options)
    if epoch.phase != "head":  # as usual for AdamW: biases and batch norms are not decayed
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def arrays(split: Split, num_classes: int, order: np.ndarray | None = None) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What the trainer's fit and evaluate take: its inputs, and the targets once more for the metrics."""
    images, labels = (split.images, split.labels) if order is None else (split.images[order], split.labels[order])
    targets = np.eye(num_classes, dtype="float32")[labels]
    return {"pixels": images, "targets": targets}, targets


def random_generators(model: keras.Model) -> Iterator[keras.random.SeedGenerator]:
    """The generators of augmentation and dropout, in the order of the layers."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from random_generators(layer)
        else:
            for name in ("generator", "seed_generator"):
                if isinstance(getattr(layer, name, None), keras.random.SeedGenerator):
                    yield getattr(layer, name)
