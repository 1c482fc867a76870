"""Which models there are, read from the model server's config file, and the box that chooses one."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import streamlit as st
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from ui.settings import Settings

CONFIG_TTL_S = 3.0
STABLE = "stable"
_Field = descriptor_pb2.FieldDescriptorProto
# Of tensorflow_serving/config/model_server_config.proto what is read here: the official module would bring TensorFlow's
# package into the page's container. A map is a list of entries; text with other fields is read, and they are skipped.
_MESSAGES: dict[str, dict[str, str]] = {
    "Label": {"key": "string", "value": "int64"},
    "Model": {"name": "string", "version_labels": "Label"},
    "Models": {"config": "Model"},
    "ModelServerConfig": {"model_config_list": "Models"},
}
_SCALARS = {"string": _Field.TYPE_STRING, "int64": _Field.TYPE_INT64}


@dataclass(frozen=True)
class ServedModel:
    """One model of the config file.

    Attributes:
        name: its name.
        labels: the labels its versions have.
    """

    name: str
    labels: frozenset[str] = frozenset()


def _config_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="vitrine/page_models.proto", package="vitrine.page", syntax="proto3")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for number, (name, kind) in enumerate(fields.items(), 1):
            field = described.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
            else:
                field.type, field.type_name, field.label = (
                    _Field.TYPE_MESSAGE, f".vitrine.page.{kind}", _Field.LABEL_REPEATED
                )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("vitrine.page.ModelServerConfig"))


_Config = _config_class()


def parse(text: str) -> tuple[ServedModel, ...]:
    """The models of a config file, in its order.

    Raises:
        ValueError: it is no text proto of a ModelServerConfig.
    """
    try:
        config = text_format.Parse(text, _Config(), allow_unknown_field=True)
    except text_format.ParseError as error:
        raise ValueError(f"expected a text proto ModelServerConfig: {error}") from error
    return tuple(
        ServedModel(model.name, frozenset(label.key for label in model.version_labels))
        for models in config.model_config_list
        for model in models.config
    )


@st.cache_data(ttl=CONFIG_TTL_S, show_spinner=False)
def served(config_file: str | None, default: str) -> tuple[ServedModel, ...]:
    """The models there are, the default first; it alone where no config file is named or none can be read.

    Args:
        config_file: path of the model server's config file.
        default: the model that is asked unless another is chosen.
    """
    found: tuple[ServedModel, ...] = ()
    if config_file is not None:
        try:
            found = parse(Path(config_file).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = ()  # the model can be asked all the same
    first = next((model for model in found if model.name == default), None)
    if first is None:
        return found or (ServedModel(default),)
    return (first, *(model for model in found if model != first))


def choose(settings: Settings) -> Settings:
    """Show the choice where there is one; the settings of the chosen model, by its label `stable` where it has that."""
    models = {model.name: model for model in served(settings.model_config_file, settings.model)}
    name = next(iter(models))
    if len(models) > 1:
        _forget_unless_in(models)
        name = st.selectbox("Model", list(models), key="model", persist_state="session")
    return replace(settings, model=name, label=STABLE if STABLE in models[name].labels else None)


def _forget_unless_in(names: Collection[str]) -> None:
    """A model that was chosen, and then left the config, cannot stay chosen."""
    if st.session_state.get("model") not in (None, *names):
        del st.session_state["model"]
