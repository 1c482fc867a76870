"""Counters and histograms, and the page prometheus scrapes, in TensorFlow Serving's names and text."""

from __future__ import annotations

import bisect
import threading
from dataclasses import dataclass, field

from serving.embedded.errors import Code

_PREFIX = ":tensorflow:serving:"
_LATENCY_LIMITS = [10 * 1.8**i for i in range(33)]
_EXAMPLE_LIMITS = [float(2**i) for i in range(15)]


@dataclass
class _Histogram:
    counts: list[int]
    total: float = 0.0


@dataclass
class _Metric:
    """One metric with a cell for each combination of label values."""

    name: str
    labels: tuple[str, ...]
    limits: list[float] | None = None  # None: a counter
    counters: dict[tuple[str, ...], int] = field(default_factory=dict)
    histograms: dict[tuple[str, ...], _Histogram] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def increment(self, values: tuple[str, ...], by: int = 1) -> None:
        with self.lock:
            self.counters[values] = self.counters.get(values, 0) + by

    def observe(self, values: tuple[str, ...], amount: float) -> None:
        limits = self.limits or []
        with self.lock:
            histogram = self.histograms.get(values)
            if histogram is None:
                histogram = self.histograms[values] = _Histogram([0] * (len(limits) + 1))
            histogram.counts[bisect.bisect_right(limits, amount)] += 1
            histogram.total += amount

    def lines(self) -> list[str]:
        name = _PREFIX + self.name
        lines = [f"# TYPE {name} {'counter' if self.limits is None else 'histogram'}"]
        with self.lock:
            lines += [f"{name}{{{self._labels(values)}}} {count}" for values, count in sorted(self.counters.items())]
            for values, histogram in sorted(self.histograms.items()):
                labels = self._labels(values)
                running = 0
                for limit, count in zip([*(self.limits or []), None], histogram.counts, strict=True):
                    running += count
                    text = "+Inf" if limit is None else f"{limit:g}"
                    lines.append(f'{name}_bucket{{{labels}{"," if labels else ""}le="{text}"}} {running}')
                lines.append(f"{name}_sum{{{labels}}} {histogram.total:g}")
                lines.append(f"{name}_count{{{labels}}} {running}")
        return lines

    def _labels(self, values: tuple[str, ...]) -> str:
        escaped = (value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for value in values)
        return ",".join(f'{label}="{value}"' for label, value in zip(self.labels, escaped, strict=True))


_REQUEST_COUNT = _Metric("request_count", ("model_name", "status"))
_REQUEST_LATENCY = _Metric("request_latency", ("model_name", "API", "entrypoint"), _LATENCY_LIMITS)
_RUNTIME_LATENCY = _Metric("runtime_latency", ("model_name", "API", "runtime"), _LATENCY_LIMITS)
_EXAMPLE_TOTAL = _Metric("request_example_count_total", ("model",))
_EXAMPLE_COUNTS = _Metric("request_example_counts", ("model",), _EXAMPLE_LIMITS)
_WARMUP_LATENCY = _Metric("model_warmup_latency", ("model_path", "status"), _LATENCY_LIMITS)
_BATCH_LIMITS = [float(2**i) for i in range(14)]
_INPUT_BATCH = _Metric("batching_session:input_batch_size", (), _BATCH_LIMITS)
_PADDING = _Metric("batching_session:padding_size", ("execution_batch_size",), _BATCH_LIMITS)
_PROCESSED_BATCH = _Metric("batching_session:processed_batch_size", (), _BATCH_LIMITS)
_QUEUING_LATENCY = _Metric("batching_session:queuing_latency", ("thread_pool_name",), [100 * 1.2**i for i in range(52)])
_BATCH_RUNS = _Metric("batching_session:wrapped_run_count", ())
_ALL = (
    _INPUT_BATCH,
    _PADDING,
    _PROCESSED_BATCH,
    _QUEUING_LATENCY,
    _BATCH_RUNS,
    _WARMUP_LATENCY,
    _REQUEST_COUNT,
    _EXAMPLE_TOTAL,
    _EXAMPLE_COUNTS,
    _REQUEST_LATENCY,
    _RUNTIME_LATENCY,
)


def count_request(model: str, status: str) -> None:
    """Count one finished request; status is the code's name."""
    _REQUEST_COUNT.increment((model, status))


def request_latency(model: str, api: str, entrypoint: str, seconds: float) -> None:
    """Record how long a successful request took in all."""
    _REQUEST_LATENCY.observe((model, api, entrypoint), seconds * 1e6)


def runtime_latency(model: str, api: str, seconds: float) -> None:
    """Record how long the graph ran for a successful request."""
    _RUNTIME_LATENCY.observe((model, api, "TF1"), seconds * 1e6)


def count_examples(model: str, count: int) -> None:
    """Count the tf.Examples of one MultiInference request."""
    _EXAMPLE_TOTAL.increment((model,), count)
    _EXAMPLE_COUNTS.observe((model,), float(count))


def batch_input(rows: int) -> None:
    """Record the rows of one input tensor of a request that is to be batched."""
    _INPUT_BATCH.observe((), rows)


def queuing_latency(seconds: float) -> None:
    """Record how long a request waited for its batch."""
    _QUEUING_LATENCY.observe(("",), seconds * 1e6)


def batch_run(rows: int, padded: int) -> None:
    """Record one run of the graph for a batch, with its rows before and after padding."""
    _PADDING.observe((str(padded),), padded - rows)
    _PROCESSED_BATCH.observe((), padded)
    _BATCH_RUNS.increment(())


def warmup_latency(path: str, seconds: float) -> None:
    """Record how long the replay of a version's warm-up records took."""
    _WARMUP_LATENCY.observe((path, Code.OK.name), seconds * 1e6)


def first_value(name: str) -> int:
    """Return a counter's first cell, in the order of the page, as HandleReloadConfigRequest does.

    Args:
        name: as "/tensorflow/serving/request_count"; 0 for a histogram or an unknown name.
    """
    for metric in _ALL:
        if f"/tensorflow/serving/{metric.name.replace(':', '/')}" == name:
            with metric.lock:
                return min(metric.counters.items(), default=((), 0))[1]
    return 0


def page() -> bytes:
    """The text prometheus scrapes."""
    lines = [line for metric in _ALL for line in metric.lines()]
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")
