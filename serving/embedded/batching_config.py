"""The batching parameters file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from serving.embedded import text_protos
from serving.embedded.errors import invalid_argument
from serving.embedded.flags import cpu_count


@dataclass(frozen=True)
class BatchingSettings:
    """The parameters file, with TensorFlow Serving's defaults."""

    max_batch_size: int = 1000
    batch_timeout_s: float = 0.0
    max_enqueued_batches: int = 10
    num_batch_threads: int = field(default_factory=cpu_count)
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 0  # counts only where large batches are split

    @property
    def run_size(self) -> int:
        """Most rows in one run of the graph."""
        return (self.enable_large_batch_splitting and self.max_execution_batch_size) or self.max_batch_size


def read_settings(path: str) -> BatchingSettings:
    """Read --batching_parameters_file; "" gives the defaults.

    Raises:
        ServingError: INVALID_ARGUMENT for an unreadable file or values that do not fit together.
    """
    if not path:
        return BatchingSettings()
    message = text_protos.read(Path(path), text_protos.BatchingParameters())
    chosen = {
        name: getattr(message, name).value
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads", "max_execution_batch_size")
        if message.HasField(name)
    }
    for name, value in chosen.items():
        if value < 1:
            raise invalid_argument(f"{name} must be positive; was {value}")
    if message.batch_timeout_micros.value < 0:
        raise invalid_argument(f"batch_timeout_micros must be non-negative; was {message.batch_timeout_micros.value}")
    settings = BatchingSettings(
        **chosen,
        batch_timeout_s=message.batch_timeout_micros.value / 1e6,
        allowed_batch_sizes=tuple(message.allowed_batch_sizes),
        pad_variable_length_inputs=message.pad_variable_length_inputs,
        enable_large_batch_splitting=message.enable_large_batch_splitting.value,
    )
    sizes = settings.allowed_batch_sizes
    if any(low >= high for low, high in zip(sizes, sizes[1:], strict=False)) or any(size < 1 for size in sizes):
        raise invalid_argument("allowed_batch_sizes entries must be monotonically increasing")
    if sizes and sizes[-1] != settings.run_size:
        split = settings.enable_large_batch_splitting and settings.max_execution_batch_size
        must = "be equal to max_execution_batch_size" if split else "match max_batch_size"
        raise invalid_argument(
            f"Last entry in allowed_batch_sizes must {must}; last entry was {sizes[-1]}; expected {settings.run_size}"
        )
    return settings
