"""The one exception of the embedded server, and its table from canonical code to HTTP status."""

from __future__ import annotations

import enum

GRPC_MESSAGE_LIMIT = 1024  # bytes; TensorFlow Serving cuts longer messages so that they fit in HTTP/2 trailers


class Code(enum.IntEnum):
    """Canonical status codes, numbered as in gRPC and in TensorFlow."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_HTTP_STATUS = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.OUT_OF_RANGE: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.ABORTED: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}


class ServingError(Exception):
    """A request (or a start, or a load) that failed for a reason with a canonical code."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"


def invalid_argument(message: str) -> ServingError:
    """The commonest error: the caller sent something wrong."""
    return ServingError(Code.INVALID_ARGUMENT, message)


def http_status(code: Code) -> int:
    """Return the HTTP status TensorFlow Serving answers with for a canonical code."""
    return _HTTP_STATUS.get(code, 500)


def grpc_message(message: str) -> str:
    """Cut a message to what travels in a gRPC trailer."""
    raw = message.encode("utf-8", "replace")
    if len(raw) <= GRPC_MESSAGE_LIMIT:
        return raw.decode("utf-8")
    return raw[:GRPC_MESSAGE_LIMIT].decode("utf-8", "ignore") + "...TRUNCATED"


def from_exception(error: BaseException) -> ServingError:
    """Turn whatever a TensorFlow call raised into a ServingError; the code of a failing op passes through."""
    if isinstance(error, ServingError):
        return error
    code = getattr(error, "error_code", None)  # tf.errors.OpError, without importing TensorFlow here
    if isinstance(code, int) and code in Code.__members__.values():
        return ServingError(Code(code), str(getattr(error, "message", None) or error))
    if isinstance(error, MemoryError):
        return ServingError(Code.RESOURCE_EXHAUSTED, "out of memory")
    return ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")


def code_and_message(error: BaseException) -> tuple[Code, str]:
    """What to answer where a request failed."""
    failure = from_exception(error)
    return failure.code, failure.message


def let_go(error: BaseException | None) -> None:
    """Take the frames off an error where it ends.

    It holds those it came through, and one of them may hold it (by the future that brought it, say): a cycle that
    keeps the request in memory until the garbage collector comes.
    """
    seen: set[int] = set()  # a chain may lead back into itself
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
