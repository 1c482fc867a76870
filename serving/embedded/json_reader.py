"""Reads JSON as TensorFlow Serving's RapidJSON does: the fast C scanner, and an exact parser where the two differ.

What RapidJSON 1.1.0 (with NaN and Infinity allowed) does and `json` does not: text after the first value is ignored,
of duplicate keys the first wins, nesting is unlimited, bytes need not be UTF-8, `Inf` is a number, `1e999` is an
error, half a surrogate pair is an error. Strings come out as `str` decoded with `surrogateescape`, so that raw bytes
survive.
"""

from __future__ import annotations

import json
import marshal
import math
import re
import struct
from typing import Any

from serving.embedded.errors import ServingError, invalid_argument

_WHITESPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_STRING_CHUNK = re.compile(r'[^"\\\x00-\x1f]*')
_HEX4 = re.compile(r"[0-9a-fA-F]{4}")
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_LITERALS = {"n": ("null", None), "t": ("true", True), "f": ("false", False)}
_NO_BEGINNING = ("", "\x00", "]", "}", ",", ":")  # of a document; RapidJSON takes a NUL for the end
_BOM = b"\xef\xbb\xbf"
_UINT64_MAX = 2**64 - 1
_INT64_MIN = -(2**63)
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")
_TOO_MANY_DIGITS = b"0" * 309  # what a double cannot hold has that many, or an exponent
_INFINITIES = struct.pack("<d", float("inf")), struct.pack("<d", float("-inf"))


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        members = dict(reversed(pairs))
    return members


_DECODER = json.JSONDecoder(object_pairs_hook=_first_wins)


def parse(body: bytes) -> Any:
    """Parse the first JSON value of a request body.

    Args:
        body: the request's bytes, of any encoding errors.

    Returns:
        dict, list, str, int, float, bool or None. An int may lie outside 64 bits: RapidJSON takes it for a double.

    Raises:
        ServingError: INVALID_ARGUMENT with RapidJSON's words and the offset.
    """
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    if b"Inf" in body or (b"\\u" in body and _ESCAPED_SURROGATE.search(body)):
        return parse_exactly(body)
    if _TOO_MANY_DIGITS in body.translate(_DIGITS_TO_ZERO):
        return parse_exactly(body)
    text = body.removeprefix(_BOM).lstrip(b" \t\n\r").decode("utf-8", "surrogateescape")
    try:
        value = _DECODER.raw_decode(text)[0]
        # `json` makes 1e999 an infinity. The fastest way to find one anywhere: marshal writes a double as its 8 bytes.
        doubles = marshal.dumps(value, 2)
        # A number that stands alone may go on with a dot, which `json` takes for trailing text.
        if isinstance(value, dict | list) and not any(infinity in doubles for infinity in _INFINITIES):
            return value
    except (ValueError, RecursionError):
        pass
    return parse_exactly(body)  # finds out whether it is really wrong, and says what RapidJSON would say


def parse_exactly(body: bytes) -> Any:
    """Parse as `parse` does, slowly and to the letter."""
    start = len(_BOM) if body.startswith(_BOM) else 0
    return _Parser(body[start:].decode("utf-8", "surrogateescape"), start).parse()


class _Parser:
    """The exact parser: a loop with its own stack, one method for each kind of token."""

    def __init__(self, text: str, offset: int) -> None:
        self._text = text
        self._offset = offset

    def parse(self) -> Any:
        position = self._skip(0)
        if self._text[position : position + 1] in _NO_BEGINNING:
            raise self._error("The document is empty.", position)
        stack: list[tuple[Any, str | None]] = []  # open containers, each with the key it waits to give a value to
        while True:
            char = self._text[position : position + 1]
            if char in ("[", "{"):
                container: Any = [] if char == "[" else {}
                inner = self._skip(position + 1)
                closing = "]" if char == "[" else "}"
                if self._text[inner : inner + 1] == closing:
                    value, position = container, inner + 1
                else:
                    key, position = (None, inner) if char == "[" else self._key(inner)
                    stack.append((container, key))
                    continue
            else:
                value, position = self._scalar(position)
            # Hand the value to the innermost container, and close every container that ends here.
            while True:
                if not stack:
                    return value
                container, key = stack.pop()
                if key is None:
                    container.append(value)
                else:
                    container.setdefault(key, value)
                position = self._skip(position)
                char = self._text[position : position + 1]
                if char == ",":
                    position = self._skip(position + 1)
                    if key is not None:
                        key, position = self._key(position)
                    stack.append((container, key))
                    break
                if char == ("]" if key is None else "}"):
                    value, position = container, position + 1
                    continue
                missing = "array element" if key is None else "object member"
                bracket = "]" if key is None else "}"
                raise self._error(f"Missing a comma or {bracket} after an {missing}.", position)

    def _key(self, position: int) -> tuple[str, int]:
        if self._text[position : position + 1] != '"':
            raise self._error("Missing a name for object member.", position)
        key, position = self._string(position)
        position = self._skip(position)
        if self._text[position : position + 1] != ":":
            raise self._error("Missing a colon after a name of object member.", position)
        return key, self._skip(position + 1)

    def _scalar(self, position: int) -> tuple[Any, int]:
        char = self._text[position : position + 1]
        if char == '"':
            return self._string(position)
        if char in _LITERALS:
            literal, value = _LITERALS[char]
            return value, self._expect(literal, position)
        return self._number(position)

    def _expect(self, literal: str, position: int) -> int:
        """Return where a literal ends; the first sign that differs is the error."""
        for offset, char in enumerate(literal, position):
            if self._text[offset : offset + 1] != char:
                raise self._error("Invalid value.", offset)
        return position + len(literal)

    def _number(self, position: int) -> tuple[int | float, int]:
        minus = self._text[position : position + 1] == "-"
        start = position + minus
        first = self._text[start : start + 1]
        if first == "N":
            return (-math.nan if minus else math.nan), self._expect("NaN", start)
        if first == "I":
            end = self._expect("Inf", start)
            if self._text[end : end + 1] == "i":
                end = self._expect("Infinity", start)
            return (-math.inf if minus else math.inf), end
        number = _NUMBER.match(self._text, position)
        if not number:
            raise self._error("Invalid value.", start)
        # A dot or an exponent with no digits after it is an error of its own.
        tail = self._text[number.end() : number.end() + 2]
        if tail.startswith(".") and number[1] is None and number[2] is None:
            raise self._error("Miss fraction part in number.", number.end() + 1)
        if tail.startswith(("e", "E")) and number[2] is None:
            raise self._error("Miss exponent in number.", number.end() + (2 if tail[1:] in ("+", "-") else 1))
        if number[1] is None and number[2] is None:
            digits = number[0]
            if len(digits) <= 20:
                value = int(digits)
                if _INT64_MIN <= value <= _UINT64_MAX:
                    return value, number.end()
        value = float(number[0])
        if value in (float("inf"), float("-inf")):
            raise self._error("Number too big to be stored in double.", position)
        return value, number.end()

    def _string(self, position: int) -> tuple[str, int]:
        parts = []
        position += 1
        while True:
            chunk = _STRING_CHUNK.match(self._text, position)
            parts.append(chunk[0])  # type: ignore[index]  # the pattern matches the empty string
            position = chunk.end()  # type: ignore[union-attr]
            char = self._text[position : position + 1]
            if char == '"':
                return "".join(parts), position + 1
            if char in ("", "\x00"):
                raise self._error("Missing a closing quotation mark in string.", position)
            if char != "\\":
                raise self._error("Invalid escape character in string.", position)
            part, position = self._escape(position)
            parts.append(part)

    def _escape(self, position: int) -> tuple[str, int]:
        char = self._text[position + 1 : position + 2]
        if char in _ESCAPES:
            return _ESCAPES[char], position + 2
        if char != "u":
            raise self._error("Invalid escape character in string.", position)
        high = self._hex4(position + 2, position)
        if not 0xD800 <= high <= 0xDFFF:
            return chr(high), position + 6
        if self._text[position + 6 : position + 8] != "\\u" or high > 0xDBFF:
            raise self._error("The surrogate pair in string is invalid.", position)
        low = self._hex4(position + 8, position)
        if not 0xDC00 <= low <= 0xDFFF:
            raise self._error("The surrogate pair in string is invalid.", position)
        return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)), position + 12

    def _hex4(self, position: int, escape: int) -> int:
        digits = _HEX4.match(self._text, position)
        if not digits:
            raise self._error("Incorrect hex digit after \\u escape in string.", escape)
        return int(digits[0], 16)

    def _skip(self, position: int) -> int:
        return _WHITESPACE.match(self._text, position).end()  # type: ignore[union-attr]

    def _error(self, message: str, position: int) -> ServingError:
        offset = len(self._text[:position].encode("utf-8", "surrogateescape")) + self._offset
        return invalid_argument(f"JSON Parse error: {message} at offset: {offset}")
