"""Ask the model server, once a picture and version: what it is, where the evidence lies, what the model sees."""

import time
from dataclasses import dataclass, replace

import streamlit as st

from serving.client import (
    Explanation,
    InvalidArgument,
    ModelMetadata,
    NotFound,
    ServingClient,
    VersionStatus,
    View,
)
from serving.client.base import latest_available
from ui.settings import Settings

TIMEOUT_S = 10.0
# How long a newly published version may stay unnoticed; moving a slider asks nothing in between.
VERSION_TTL_S = 5.0


@dataclass(frozen=True, eq=False)
class Answer:
    """Everything the page shows about one picture.

    Attributes:
        explanation: the prediction and the maps of all classes.
        view: what the model sees; None when the model does not tell.
        classes: names in order of the class id.
        asked_at_s: when the server was asked, by the monotonic clock.
        remembered: whether it was asked before, and not for this showing.
    """

    explanation: Explanation
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
    return Answer(explanation, _view(asked, data, version), asked.classes(version), now_s)


def _view(asked: ServingClient, data: bytes, version: int) -> View | None:
    """What the model sees; a model published elsewhere may lack the signature, the answer stands without it."""
    try:
        return asked.preprocess(data, version=version)[0]
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
