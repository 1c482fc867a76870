"""What can go wrong, as one tree, and the one table that leads there from an HTTP status or a gRPC code."""
# ruff: noqa: N818 - the names are those of the gRPC codes, which people know, without "Error" behind each

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

MAX_MESSAGE_CHARS = 1000
_NODES = re.compile(r" *\[\[.*?\{\{.*?node .*?\}\}.*?\]\]")


class ServingError(Exception):
    """Anything that kept a call from being answered. Catch this one to catch all of them.

    Attributes:
        status: HTTP status of the answer; None over gRPC or when there was no answer.
        grpc_code: name of the gRPC code; None over REST or when there was no answer.
    """

    status: int | None = None
    grpc_code: str | None = None


class InvalidInput(ServingError, ValueError):
    """The input cannot be sent as it is. Nothing was sent.

    Attributes:
        index: position of the image in the call's sequence; None when it is not about one image.
    """

    index: int | None = None


class ServerUnavailable(ServingError):
    """Nobody answers at the address, or only a proxy that finds no server behind it."""


class DeadlineExceeded(ServingError):
    """The answer did not come within the time allowed."""


class Unauthenticated(ServingError):
    """User or password are missing or wrong."""


class PermissionDenied(ServingError):
    """The server knows who asks and does not allow it."""


class NotFound(ServingError):
    """No such model or version."""


class InvalidArgument(ServingError):
    """The server refused the input; its message says why.

    Attributes:
        index: position of the guilty image in the call's sequence; None when it cannot be known.
    """

    index: int | None = None


class Conflict(ServingError):
    """The server's state does not allow the request now."""


class ResourceExhausted(ServingError):
    """Too many requests, or too much in one."""


class PayloadTooLarge(ResourceExhausted):
    """The request is larger than the server takes."""


class Unimplemented(ServingError):
    """The server does not know this method."""


class Cancelled(ServingError):
    """The call was given up before it was answered."""


class InternalError(ServingError):
    """The server failed."""


class BadResponse(ServingError):
    """The answer is not what TensorFlow Serving sends: a web page, cut JSON, missing or misshapen outputs."""


class _Row(NamedTuple):
    error: type[ServingError]
    http: tuple[int, ...]
    grpc: tuple[str, ...]


# The pairs follow tensorflow/serving's own mapping of codes to HTTP, plus what gateways send (401, 403, 408, 413, 502).
_TABLE = (
    _Row(InvalidArgument, (400, 422), ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE")),
    _Row(Unauthenticated, (401, 407), ("UNAUTHENTICATED",)),
    _Row(PermissionDenied, (403,), ("PERMISSION_DENIED",)),
    _Row(NotFound, (404,), ("NOT_FOUND",)),
    _Row(Conflict, (409,), ("ALREADY_EXISTS", "ABORTED")),
    _Row(PayloadTooLarge, (413,), ()),
    _Row(ResourceExhausted, (429,), ("RESOURCE_EXHAUSTED",)),
    _Row(Cancelled, (499,), ("CANCELLED",)),
    _Row(InternalError, (500,), ("UNKNOWN", "INTERNAL", "DATA_LOSS")),
    _Row(Unimplemented, (405, 501), ("UNIMPLEMENTED",)),
    _Row(ServerUnavailable, (502, 503), ("UNAVAILABLE",)),
    _Row(DeadlineExceeded, (408, 504), ("DEADLINE_EXCEEDED",)),
)

BY_HTTP_STATUS: Mapping[int, type[ServingError]] = MappingProxyType({s: row.error for row in _TABLE for s in row.http})
BY_GRPC_CODE: Mapping[str, type[ServingError]] = MappingProxyType({c: row.error for row in _TABLE for c in row.grpc})


def from_http_status(status: int, message: str) -> ServingError:
    """The error that stands for an HTTP status; a status outside the table is a server's failure or a bad answer."""
    kind = BY_HTTP_STATUS.get(status, InternalError if status >= 500 else BadResponse)
    error = kind(clip(message))
    error.status = status
    return error


def from_grpc_code(code: str, message: str) -> ServingError:
    """The error that stands for the name of a gRPC code."""
    error = BY_GRPC_CODE.get(code, InternalError)(clip(message))
    error.grpc_code = code
    return error


def clip(message: str) -> str:
    """One line of bounded length, without the graph's node names that TensorFlow puts behind its messages."""
    line = _NODES.sub("", " ".join(message.split()))
    return line if len(line) <= MAX_MESSAGE_CHARS else line[:MAX_MESSAGE_CHARS] + " …"
