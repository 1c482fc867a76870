"""Ask the model server, once a picture and version: what it is, where the evidence lies, what the model sees."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import streamlit as st

from serving.client import (
    Explanation,
    InvalidArgument,
    ModelMetadata,
    NotFound,
    ServingClient,
    ServingError,
    VersionStatus,
    View,
)
from serving.client.base import latest_available
from serving.client.results import Floats
from ui.settings import Settings

T = TypeVar("T")
TIMEOUT_S = 10.0
# How long a newly published version may stay unnoticed; moving a slider asks nothing in between.
VERSION_TTL_S = 5.0


@dataclass(frozen=True, eq=False)
class Answer:
    """Everything the page shows about one picture.

    Attributes:
        explanation: the prediction and the maps of all classes.
        fine: the finest map of the predicted class; None when the model has none.
        view: what the model sees; None when the model does not tell.
        classes: names in order of the class id.
        asked_at_s: when the server was asked, by the monotonic clock.
        remembered: whether it was asked before, and not for this showing.
    """

    explanation: Explanation
    fine: Floats | None
    view: View | None
    classes: tuple[str, ...]
    asked_at_s: float
    remembered: bool = False


@st.cache_resource(show_spinner=False)
def client(settings: Settings) -> ServingClient:
    """The client with its pooled connections, one for all visitors.

    Raises:
        ValueError: the settings cannot be right.
    """
    return ServingClient(
        settings.url,
        settings.user,
        settings.password,
        model=settings.model,
        label=settings.label,
        timeout_s=TIMEOUT_S,
        retries=1,
    )


@st.cache_data(ttl=VERSION_TTL_S, show_spinner=False)
def current_version(settings: Settings) -> int:
    """The version that would answer now."""
    if settings.label is not None:
        return metadata(settings).version
    return latest_available(settings.model, client(settings).status())


@st.cache_data(max_entries=256, show_spinner=False)
def _answer(settings: Settings, data: bytes, version: int) -> Answer:
    asked, now_s = client(settings), time.monotonic()
    explanation = asked.explain(data, version=version)[0]
    fine = _if_served(lambda: asked.explain_fine(data, version=version)[0].finest)
    view = _if_served(lambda: asked.preprocess(data, version=version)[0])
    return Answer(explanation, fine, view, asked.classes(version), now_s)


def _if_served(ask: Callable[[], T]) -> T | None:
    """A model published elsewhere may lack a signature; the answer stands without what it tells."""
    try:
        return ask()
    except InvalidArgument as error:
        if "signature" in str(error).lower():
            return None
        raise


def answer(settings: Settings, data: bytes) -> Answer:
    """The answer of the current version, from the cache where the same bytes were asked before.

    Raises:
        ServingError: the server cannot be asked, or refuses.
        ValueError: the settings cannot be right.
    """
    now_s = time.monotonic()
    try:
        found = _answer(settings, data, current_version(settings))
    except NotFound:
        # The version was replaced since it was last looked up.
        current_version.clear()
        found = _answer(settings, data, current_version(settings))
    return replace(found, remembered=found.asked_at_s < now_s)


def replaced(settings: Settings, answer: Answer) -> bool:
    """Whether another version answers by now; looked up anew."""
    current_version.clear()
    try:
        return current_version(settings) != answer.explanation.version
    except ServingError:
        return False


@st.cache_data(max_entries=1024, show_spinner=False)
def fine_map(settings: Settings, data: bytes, version: int | None, class_id: int) -> Floats:
    """The finest served map of one class of a picture, asked for once; for models that have them (`Answer.fine`).

    Raises:
        ServingError: the server cannot be asked, or no longer has that version.
    """
    return client(settings).explain_fine(data, class_ids=class_id, version=version)[0].finest


def status(settings: Settings) -> list[VersionStatus]:
    """State of every version, asked anew."""
    return client(settings).status()


def metadata(settings: Settings) -> ModelMetadata:
    """Version and signatures, asked anew."""
    try:
        return client(settings).metadata()
    except InvalidArgument:
        if settings.label is None:
            raise
        # The config names the label, and the server does not know it yet: what it would answer without.
        return client(replace(settings, label=None)).metadata()


def classes(settings: Settings, version: int) -> tuple[str, ...]:
    """Names of the classes in order of their id."""
    return client(settings).classes(version)
