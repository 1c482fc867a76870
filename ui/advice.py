"""What went wrong, in words a person understands, and what to do about it."""

from dataclasses import dataclass

from serving.client import (
    BadResponse,
    DeadlineExceeded,
    InvalidArgument,
    InvalidInput,
    NotFound,
    PayloadTooLarge,
    PermissionDenied,
    ResourceExhausted,
    ServerUnavailable,
    ServingError,
    Unauthenticated,
)


@dataclass(frozen=True)
class Advice:
    """One problem as the page shows it.

    Attributes:
        title: what happened, one short sentence.
        action: what to do about it.
        detail: the technical reason, one line; may be empty.
        recovers: whether it can pass by itself, so that the page looks again on its own.
    """

    title: str
    action: str
    detail: str = ""
    recovers: bool = False


# First match wins, so the narrower class stands before the wider one.
_WORDS: tuple[tuple[type[Exception], Advice], ...] = (
    (
        InvalidInput,
        Advice("This picture cannot be sent", "Choose another picture, or save it as PNG or JPEG and try again."),
    ),
    (
        InvalidArgument,
        Advice("The model could not read this picture", "Choose another one, or save it again as PNG or JPEG."),
    ),
    (PayloadTooLarge, Advice("This picture is too large for the server", "Choose a smaller one, or scale it down.")),
    (
        Unauthenticated,
        Advice(
            "The server refuses this page's password",
            "Whoever runs this page should compare GATEWAY_USER and GATEWAY_PASSWORD with the gateway's users "
            "and start the page again.",
        ),
    ),
    (
        PermissionDenied,
        Advice("This page is not allowed to ask the model", "Whoever runs the gateway can allow it."),
    ),
    (
        NotFound,
        Advice(
            "The model is not being served",
            "Whoever runs the server should check the model's name and that a version of it is published. "
            "The page goes on by itself once it is there.",
            recovers=True,
        ),
    ),
    (
        ResourceExhausted,
        Advice("The server is busy", "Wait a moment; the page tries again by itself.", recovers=True),
    ),
    (
        ServerUnavailable,
        Advice(
            "The model server is away",
            "It may be starting. The page goes on by itself as soon as the server is back.",
            recovers=True,
        ),
    ),
    (
        DeadlineExceeded,
        Advice(
            "The answer took too long",
            "The server may be overloaded. The page tries again by itself.",
            recovers=True,
        ),
    ),
    (
        BadResponse,
        Advice(
            "Something other than the model server answers",
            "Whoever runs this page should check SERVING_URL and MODEL_NAME.",
        ),
    ),
    (ServingError, Advice("The server failed at this picture", "Try again; if it stays, look at the server's log.")),
    (
        ValueError,
        Advice(
            "This page is not set up correctly",
            "Whoever runs it should check SERVING_URL, GATEWAY_USER, GATEWAY_PASSWORD and MODEL_NAME.",
        ),
    ),
)


def for_error(error: ServingError | ValueError) -> Advice:
    """The words for an error of the client."""
    words = next(advice for kind, advice in _WORDS if isinstance(error, kind))
    return Advice(words.title, words.action, str(error), words.recovers)
