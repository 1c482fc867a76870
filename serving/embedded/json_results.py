"""Results to response JSON: tensors for :predict, classifications and regressions for the other two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from serving.embedded import dtypes
from serving.embedded.errors import invalid_argument
from serving.embedded.json_writer import (
    INDENT,
    base64_object,
    encode,
    format_floats,
    many_lines,
    quote,
    quote_text,
    single_line,
)


def write_predictions(outputs: Mapping[str, np.ndarray], row_format: bool) -> bytes:
    """Write the answer of :predict.

    Args:
        outputs: the tensors by alias.
        row_format: whether the request came as rows ("instances").

    Raises:
        ServingError: INVALID_ARGUMENT where an output has no JSON form, or its rows cannot be told apart.
    """
    if not outputs:
        raise invalid_argument("Cannot convert empty tensor map to JSON")
    return encode(_rows(outputs) if row_format else _columns(outputs))


def write_classifications(labels: np.ndarray | None, scores: np.ndarray | None) -> bytes:
    """Write `[[label, score], …]` for every example; a missing label is "", a missing score 0.0.

    Args:
        labels: bytes (N, C) or None.
        scores: float32 (N, C) or None.
    """
    shape = (labels if labels is not None else scores).shape  # type: ignore[union-attr]  # one of the two is there
    names = [quote(label) for label in labels.ravel()] if labels is not None else ['""'] * (shape[0] * shape[1])
    values = format_floats(scores) if scores is not None else ["0.0"] * len(names)
    pairs = iter([f"[{name}, {value}]" for name, value in zip(names, values, strict=True)])
    rows = ", ".join([single_line(pairs, shape[1:]) for _ in range(shape[0])])
    return encode(f'{{\n{INDENT}"results": [{rows}\n{INDENT}]\n}}')


def write_regressions(values: np.ndarray) -> bytes:
    """Write one number for every example; values float32 (N,)."""
    return encode(f'{{\n{INDENT}"results": [{", ".join(format_floats(values))}]\n}}')


def _rows(outputs: Mapping[str, np.ndarray]) -> str:
    batch: int | None = None
    for alias, tensor in outputs.items():
        if tensor.ndim == 0:
            raise invalid_argument(f"Tensor name: {alias} has no shape information ")
        if batch is not None and batch != tensor.shape[0]:
            raise invalid_argument(
                f"Tensor name: {alias} has inconsistent batch size: {tensor.shape[0]} expecting: {batch}"
            )
        batch = tensor.shape[0]
    level = 2 if len(outputs) == 1 else 3
    texts = {alias: iter(_format(alias, tensor, level + tensor.ndim - 1)) for alias, tensor in outputs.items()}
    if not batch:
        return f'{{\n{INDENT}"predictions": []\n}}'
    if len(outputs) == 1:
        alias, tensor = next(iter(outputs.items()))
        rows = ", ".join([single_line(texts[alias], tensor.shape[1:]) for _ in range(batch)])
        return f'{{\n{INDENT}"predictions": [{rows}\n{INDENT}]\n}}'
    objects = []
    for _ in range(batch):
        members = [
            f"{INDENT * 3}{quote_text(alias)}: {single_line(texts[alias], tensor.shape[1:])}"
            for alias, tensor in outputs.items()
        ]
        objects.append(f"\n{INDENT * 2}{{\n" + ",\n".join(members) + f"\n{INDENT * 2}}}")
    return f'{{\n{INDENT}"predictions": [' + ",".join(objects) + f"\n{INDENT}]\n}}"


def _columns(outputs: Mapping[str, np.ndarray]) -> str:
    if len(outputs) == 1:
        alias, tensor = next(iter(outputs.items()))
        return f'{{\n{INDENT}"outputs": {_column(alias, tensor, 1)}\n}}'
    members = [f"{INDENT * 2}{quote_text(alias)}: {_column(alias, tensor, 2)}" for alias, tensor in outputs.items()]
    return f'{{\n{INDENT}"outputs": {{\n' + ",\n".join(members) + f"\n{INDENT}}}\n}}"


def _column(alias: str, tensor: np.ndarray, level: int) -> str:
    texts: Iterator[str] = iter(_format(alias, tensor, level + tensor.ndim))
    return many_lines(texts, tensor.shape, level)


def _format(alias: str, tensor: np.ndarray, level: int) -> list[str]:
    """Format every value of a tensor; `level` is the depth of indentation the values stand at."""
    element = dtypes.BY_NUMPY.get(tensor.dtype)
    name = element.name if element else str(tensor.dtype)
    if name in ("float", "double"):
        return format_floats(tensor)
    if name == "string":
        if alias.endswith("_bytes"):
            return [base64_object(value, level) for value in tensor.ravel()]
        return [quote(value) for value in tensor.ravel()]
    if name == "bool":
        return ["true" if value else "false" for value in tensor.ravel().tolist()]
    if name in ("int32", "int16", "int8", "uint8", "int64", "uint32", "uint64"):
        return str(tensor.ravel().tolist())[1:-1].split(", ") if tensor.size else []
    if tensor.size == 0:
        return []
    raise invalid_argument(f"Failed to write JSON value for tensor type: {name}")
