"""The settings of a training run: one frozen dataclass, filled from a preset (TOML) and the command line."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PRESETS = Path(__file__).parent / "presets"
MODELS = Path(__file__).resolve().parent.parent / "serving" / "models"


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

    dataset: str = "fashion_mnist"
    data_dir: str | None = None  # None: FASHION_MNIST_DIR, then Debian's package, then Keras' download
    train_limit: int | None = None  # only the first n images of every split (for smoke runs)
    backbone: str = "mobilenet_v2"
    backbone_weights: str = "imagenet"  # imagenet | none | path of a Keras weights file
    backbone_weights_source: str = ""  # where a weights file came from; goes into the manifest
    init_from: str | None = None  # a published version, by number or directory, to go on from; else backbone_weights
    image_size: int = 96
    dropout: float = 0.2
    batch_norm_momentum: float = 0.97  # Keras' 0.999 lags for epochs behind fine-tuned weights
    head_epochs: int = 1  # phase 1: the head alone, on the frozen backbone
    head_learning_rate: float = 1e-3
    stages: tuple[Stage, ...] = (Stage(96, 10),)  # phase 2: everything; the last stage is at image_size
    learning_rate: float = 1e-3  # peak, after the warm-up; cosine to 0
    warmup_epochs: float = 1.0
    weight_decay: float = 1e-2
    label_smoothing: float = 0.1
    # Of the last stage, the moving average of the weights over steps; 0: none. It is measured, and kept, beside the weights.
    ema_momentum: float = 0.0
    batch_size: int = 128
    flip: bool = True
    crop_padding: int = 2  # pixels of the original image
    erasing_probability: float = 0.5
    erasing_area: tuple[float, float] = (0.02, 0.25)  # fraction of the image
    early_stopping_patience: int = 4  # epochs of the last stage without a better validation accuracy
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
                any(s.image_size < 32 or s.epochs < 1 for s in self.stages),
                "a stage needs image_size >= 32 and epochs >= 1",
            ),
            (self.dataset != "fashion_mnist", "dataset must be fashion_mnist, the one there is"),
            (self.backbone != "mobilenet_v2", "backbone must be mobilenet_v2, the one there is"),
            (self.train_limit is not None and self.train_limit < 1, "train_limit must be at least 1"),
            (self.batch_size < 1, "batch_size must be at least 1"),
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


def settings_from(values: Mapping[str, Any], *, origin: str) -> Settings:
    """Builds Settings from plain values, as TOML and JSON give them."""
    known = {field.name for field in dataclasses.fields(Settings)}
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise SettingsError(f"{origin}: unknown setting {key!r}{hint}; the settings are {', '.join(sorted(known))}")
    values = dict(values)
    try:
        if "stages" in values:
            values["stages"] = tuple(Stage(**dict(stage)) for stage in values["stages"])
        if "erasing_area" in values:
            low, high = values["erasing_area"]
            values["erasing_area"] = (float(low), float(high))
        return Settings(**values)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{origin}: {error}") from error
