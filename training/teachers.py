"""Teachers: published versions whose answers a run learns beside the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
from keras import ops

from training.augment import ToModelInput
from training.backbones import Scaling, backbone
from training.model import WeightsError, load_version, logits_model
from training.settings import Settings


@dataclass(frozen=True)
class Teacher:
    """A published version, frozen."""

    logits: keras.Model  # float32 (N, S, S, 3), scaled, to float32 (N, C)
    scaling: Scaling  # of its backbone
    origin: str  # what it is, in words, for the manifest


def load_teachers(settings: Settings, classes: Sequence[str]) -> list[Teacher]:
    """The published versions that settings.teachers names.

    Raises:
        WeightsError: one is missing or broken, has been trained on images that are now held out, or knows other
            classes.
    """
    teachers = []
    for choice in settings.teachers:
        model, described, origin = load_version(choice, settings, "teachers")
        if described["classes"] != list(classes):
            raise WeightsError(
                f"teachers {choice}: it knows the classes {', '.join(described['classes'])}; "
                f"expected {', '.join(classes)}"
            )
        logits = logits_model(model)
        logits.trainable = False
        teachers.append(Teacher(logits, backbone(described["backbone"]).scaling, origin))
    return teachers


class Teaching(keras.layers.Layer):
    """The mean probabilities of frozen models at a temperature.

    Call arguments: images 0..255, (N, H, W, C). Returns: float32 (N, num_classes).
    """

    def __init__(self, teachers: Sequence[Teacher], temperature: float, **kwargs):
        super().__init__(dtype="float32", trainable=False, **kwargs)
        self.models = [
            (ToModelInput(teacher.logits.input_shape[1], teacher.scaling, dtype="float32"), teacher.logits)
            for teacher in teachers
        ]
        self.temperature = temperature

    def call(self, images):
        answers = [
            ops.softmax(ops.cast(model(to_input(images), training=False), "float32") / self.temperature)
            for to_input, model in self.models
        ]
        return ops.stop_gradient(sum(answers) / len(answers))
