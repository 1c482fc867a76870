"""The settings of a training run: one frozen dataclass, filled from a preset (TOML) and the command line."""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from training.backbones import BackboneError, backbone
from training.datasets import Source, default_name, is_utf8

PRESETS = Path(__file__).parent / "presets"
MODELS = Path(__file__).resolve().parent.parent / "serving" / "models"
_SEEDS = 2**32 - 10  # numpy's, less what training adds for seeds of its own
_IN_THE_MANIFEST = ("backbone_weights", "backbone_weights_source", "init_from", "publish_anyway")  # which is UTF-8
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")


class SettingsError(ValueError):
    """A setting that does not exist or has an impossible value."""


@dataclass(frozen=True)
class Stage:
    """A stretch of training at one resolution."""

    image_size: int  # pixels, height and width
    epochs: int
    # A stage with a peak of its own begins anew, optimizer and all: warm-up, then cosine to 0 within the stage.
    # The others share one warm-up and one cosine.
    learning_rate: float | None = None


@dataclass(frozen=True)
class Settings:
    """What a run is made of. Saved with the run and in the manifest of the version it becomes."""

    dataset: str = "fashion_mnist"  # a name, or the path of a folder with a folder a class, of a CSV, of an .npz
    name: str | None = None  # of the model, as it is published and served; None: after the dataset
    data_dir: str | None = (
        None  # of a dataset by name: its files; None: its variable, Debian's package, Keras' download
    )
    class_names: tuple[str, ...] | None = None  # for labels that are numbers
    on_corrupt: Literal["refuse", "skip"] = "refuse"  # images that cannot be read
    validation_fraction: float = 0.1  # of what is not test, where the dataset has no such split
    test_fraction: float = 0.15  # where the dataset has no such split
    split_seed: int = 0  # of these two; `seed` leaves them alone
    train_limit: int | None = None  # only the first n images of every split (for smoke runs)
    backbone: str = "mobilenet_v2"
    backbone_weights: str = "imagenet"  # imagenet | none | path of a Keras weights file
    backbone_weights_source: str = ""  # where a weights file came from; goes into the manifest
    init_from: str | None = None  # a published version, by number or directory, to go on from; else backbone_weights
    image_size: int = 96
    frozen_layers: int = 0  # of the backbone, from the input on; -1: all of them
    dropout: float = 0.2
    batch_norm_momentum: float = 0.97  # Keras' 0.999 lags for epochs behind fine-tuned weights
    head_epochs: int = 1  # phase 1: the head alone, on the frozen backbone
    head_learning_rate: float = 1e-3
    stages: tuple[Stage, ...] = (Stage(96, 10),)  # phase 2: everything; the last stage is at image_size
    learning_rate: float = 1e-3  # peak, after the warm-up
    schedule: Literal["cosine", "constant"] = "cosine"  # cosine: to 0 at the end
    warmup_epochs: float = 1.0  # of the cosine
    # With the constant schedule: after so many epochs without a better validation loss the learning rate shrinks.
    reduce_lr_patience: int | None = None
    reduce_lr_factor: float = 0.5
    weight_decay: float = 1e-2
    label_smoothing: float = 0.1
    class_weights: Literal["none", "balanced"] = "none"  # balanced: every class weighs the same in the loss
    # Of a moving average of the weights over the steps of the last stage, measured beside them; 0: none.
    ema_momentum: float = 0.0
    batch_size: int = 128
    flip: bool = True
    crop_padding: int = 2  # pixels of the original image
    rotation: float = 0.0  # degrees, at most, either way
    zoom: float = 0.0  # fraction of the image's side, at most, either way
    brightness: float = 0.0  # fraction of 255, at most, either way
    contrast: float = 0.0  # fraction, at most, either way
    erasing_probability: float = 0.5
    erasing_area: tuple[float, float] = (0.02, 0.25)  # fraction of the image
    mixup_alpha: float = 0.0  # of the beta distribution; 0: no MixUp
    cutmix_alpha: float = 0.0  # of the beta distribution; 0: no CutMix
    mix_off_epochs: int = 2  # the last epochs see unmixed images
    teachers: tuple[str, ...] = ()  # published versions, by number or directory, whose mean answer is learned as well
    distillation_weight: float = 0.7  # of that in the loss; the labels have the rest
    distillation_temperature: float = 2.0
    early_stopping_patience: int = 4  # epochs of the last stage without a better validation accuracy
    stop_at_accuracy: float | None = None  # of validation, in the last stage: reached, the run ends
    precision: Literal["float32", "mixed_bfloat16"] = "float32"  # mixed_bfloat16: for GPUs that have it
    tensorboard: bool = False  # logs in the run directory, beside history.jsonl
    # Published whatever the gate says, for this reason, which the manifest keeps. For runs that are to learn nothing.
    publish_anyway: str | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        stage_rates = [stage.learning_rate for stage in self.stages]
        problems = [
            (not self.stages, "stages must hold at least one {image_size, epochs}"),
            (
                bool(self.stages) and self.stages[-1].image_size != self.image_size,
                f"the last stage must train at image_size={self.image_size}, the size that is served",
            ),
            (
                any(s.image_size < 1 or s.epochs < 1 for s in self.stages),
                "a stage needs image_size >= 1 and epochs >= 1",
            ),
            (
                self.name is not None and not _NAME.fullmatch(self.name),
                "name must be letters, digits, '.', '_' or '-', and begin with a letter",
            ),
            (
                self.class_names is not None and len(set(self.class_names)) != len(self.class_names),
                "class_names must differ from each other",
            ),
            (self.on_corrupt not in ("refuse", "skip"), "on_corrupt must be refuse or skip"),
            (not 0 < self.validation_fraction < 1, "validation_fraction must lie in 0..1"),
            (not 0 < self.test_fraction < 1, "test_fraction must lie in 0..1"),
            (
                self.stop_at_accuracy is not None and not 0 < self.stop_at_accuracy <= 1,
                "stop_at_accuracy must lie in 0..1",
            ),
            (self.frozen_layers < -1, "frozen_layers must be at least 0, or -1 for all"),
            (self.schedule not in ("cosine", "constant"), "schedule must be cosine or constant"),
            (
                self.reduce_lr_patience is not None and (self.schedule != "constant" or self.reduce_lr_patience < 1),
                'reduce_lr_patience must be at least 1, with schedule="constant"',
            ),
            (not 0 < self.reduce_lr_factor < 1, "reduce_lr_factor must lie in 0..1"),
            (self.class_weights not in ("none", "balanced"), "class_weights must be none or balanced"),
            (not 0 <= self.rotation <= 180, "rotation must lie in 0..180 degrees"),
            (
                not all(0 <= v < 1 for v in (self.zoom, self.brightness, self.contrast)),
                "zoom, brightness and contrast must lie in 0..1",
            ),
            (self.mixup_alpha < 0 or self.cutmix_alpha < 0, "mixup_alpha and cutmix_alpha must be at least 0"),
            (self.mix_off_epochs < 0, "mix_off_epochs must be at least 0"),
            (not 0 < self.distillation_weight <= 1, "distillation_weight must lie in 0..1"),
            (self.distillation_temperature <= 0, "distillation_temperature must be above 0"),
            (self.precision not in ("float32", "mixed_bfloat16"), "precision must be float32 or mixed_bfloat16"),
            (self.publish_anyway == "", "publish_anyway must give the reason"),
            (
                not all(is_utf8(getattr(self, name) or "") for name in _IN_THE_MANIFEST),
                f"{', '.join(_IN_THE_MANIFEST)} must be UTF-8; rename the file or directory",
            ),
            (self.train_limit is not None and self.train_limit < 1, "train_limit must be at least 1"),
            (self.batch_size < 1, "batch_size must be at least 1"),
            (not 0 <= self.seed < _SEEDS, f"seed must lie in 0..{_SEEDS - 1}"),
            (self.weight_decay < 0, "weight_decay must be at least 0"),
            (self.warmup_epochs < 0, "warmup_epochs must be at least 0"),
            (self.head_epochs < 0, "head_epochs must be at least 0"),
            (self.early_stopping_patience < 1, "early_stopping_patience must be at least 1"),
            (
                any(r is not None and r <= 0 for r in (self.learning_rate, self.head_learning_rate, *stage_rates)),
                "learning_rate must be above 0",
            ),
            (not 0 <= self.dropout < 1, "dropout must lie in 0..1"),
            (self.crop_padding < 0, "crop_padding must be at least 0"),
            (not 0 <= self.erasing_area[0] <= self.erasing_area[1] <= 1, "erasing_area must be [low, high] in 0..1"),
            (not 0 <= self.erasing_probability <= 1, "erasing_probability must lie in 0..1"),
            (not 0 <= self.label_smoothing < 1, "label_smoothing must lie in 0..1"),
            (not 0 <= self.ema_momentum < 1, "ema_momentum must lie in 0..1"),
            (not 0 < self.batch_norm_momentum < 1, "batch_norm_momentum must lie in 0..1"),
        ]
        for wrong, message in problems:
            if wrong:
                raise SettingsError(f"{message}; got {self}")
        try:
            backbone(self.backbone).check_sizes(stage.image_size for stage in self.stages)
        except BackboneError as error:
            raise SettingsError(str(error)) from error

    @property
    def source(self) -> Source:
        """What the loaders of training.datasets take."""
        names = (field.name for field in dataclasses.fields(Source))
        return Source(**{name: getattr(self, name) for name in names})

    @property
    def model_name(self) -> str:
        """The name under which the model is published and served."""
        return self.name or default_name(self.source)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_settings(preset: str, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Reads a preset and lays `overrides` over it.

    Args:
        preset: a name in training/presets, or the path of a TOML file.
        overrides: settings by name; values of None are ignored.

    Raises:
        SettingsError: an unknown preset or key (the message lists the valid ones), or an impossible value.
    """
    path = PRESETS / f"{preset}.toml"
    if not path.is_file():
        path = Path(preset)
    if not path.is_file():
        raise SettingsError(
            f"no preset {preset!r}; expected one of {', '.join(preset_names())}, or the path of a TOML file"
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no TOML, or no UTF-8
        raise SettingsError(f"{path}: {error}") from error
    values |= {key: value for key, value in (overrides or {}).items() if value is not None}
    return settings_from(values, origin=str(path))


def _check_types(values: Mapping[str, Any], of: type) -> None:
    for name, hint in get_type_hints(of).items():
        kinds = get_args(hint) if get_origin(hint) is UnionType else (hint,)
        kinds = tuple(str if get_origin(kind) is Literal else get_origin(kind) or kind for kind in kinds)
        if name not in values or isinstance(values[name], kinds) and not isinstance(values[name], bool):
            continue
        whole_for_float = float in kinds and type(values[name]) is int
        if not whole_for_float and not (bool in kinds and isinstance(values[name], bool)):
            expected = " or ".join("none" if kind is NoneType else kind.__name__ for kind in kinds)
            raise TypeError(f"{name}: expected {expected}, got {values[name]!r}")


def _stage(values: Mapping[str, Any]) -> Stage:
    _check_types(values, Stage)
    return Stage(**values)


# Settings that may be left out, where TOML, which knows no null, says "none".
_OPTIONAL = {name for name, hint in get_type_hints(Settings).items() if NoneType in get_args(hint)}


def settings_from(values: Mapping[str, Any], *, origin: str) -> Settings:
    """Builds Settings from plain values, as TOML and JSON give them."""
    known = {field.name for field in dataclasses.fields(Settings)}
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise SettingsError(f"{origin}: unknown setting {key!r}{hint}; the settings are {', '.join(sorted(known))}")
    values = {key: None if value == "none" and key in _OPTIONAL else value for key, value in values.items()}
    try:
        if "stages" in values:
            values["stages"] = tuple(_stage(dict(stage)) for stage in values["stages"])
        if "erasing_area" in values:
            low, high = values["erasing_area"]
            values["erasing_area"] = (float(low), float(high))
        for name in ("class_names", "teachers"):
            if isinstance(values.get(name), list | tuple):
                values[name] = tuple(map(str, values[name]))
        _check_types(values, Settings)
        return Settings(**values)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{origin}: {error}") from error
