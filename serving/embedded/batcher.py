"""Merges requests for the same tensors into one run of the graph, with the parameters of TensorFlow Serving.

One difference is on purpose: where a merged run fails, each request is run again by itself, so that one bad image does
not fail the good ones beside it.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field

import numpy as np

from serving.embedded import metrics
from serving.embedded.batching_config import BatchingSettings
from serving.embedded.errors import Code, ServingError, from_exception, invalid_argument
from serving.embedded.inference import Runner


@dataclass
class _Task:
    feeds: Mapping[str, np.ndarray]
    rows: int
    answer: Future[list[np.ndarray]]
    enqueued: float
    deadline: float | None  # by the monotonic clock


@dataclass
class _Queue:
    """Requests for one set of tensors of one servable."""

    runner: Runner
    fetches: tuple[str, ...]
    tasks: deque[_Task] = field(default_factory=deque)
    rows: int = 0


class BatchScheduler:
    """The threads that run batches, shared by all models; they end with the process."""

    def __init__(self, settings: BatchingSettings) -> None:
        self.settings = settings
        self._queues: dict[tuple[object, ...], _Queue] = {}
        self._changed = threading.Condition()
        for number in range(settings.num_batch_threads):
            threading.Thread(target=self._work, name=f"batch-{number}", daemon=True).start()

    def submit(
        self,
        runner: Runner,
        feeds: Mapping[str, np.ndarray],
        fetches: Sequence[str],
        deadline: float | None = None,
    ) -> Future[list[np.ndarray]]:
        """Queue one request of at most max_batch_size rows."""
        rows = next(iter(feeds.values())).shape[0]
        task = _Task(feeds, rows, Future(), time.monotonic(), deadline)
        # Shapes and types are part of the key, so that whatever is in one queue can be concatenated.
        shapes = tuple((name, str(array.dtype), self._trailing(array)) for name, array in sorted(feeds.items()))
        key = (id(runner), tuple(fetches), shapes)
        with self._changed:
            queue = self._queues.get(key)
            if queue is None:
                queue = self._queues[key] = _Queue(runner, tuple(fetches))
            if queue.rows + rows > self.settings.max_enqueued_batches * self.settings.run_size:
                raise ServingError(
                    Code.UNAVAILABLE,
                    "The batch scheduling queue to which this task was submitted is full; currently "
                    f"{math.ceil(queue.rows / self.settings.run_size)} batches enqueued and max_enqueued_batches is "
                    f"{self.settings.max_enqueued_batches}",
                )
            queue.tasks.append(task)
            queue.rows += rows
            self._changed.notify()
        return task.answer

    def _trailing(self, array: np.ndarray) -> tuple[int, ...] | int:
        return array.ndim if self.settings.pad_variable_length_inputs else array.shape[1:]

    def _work(self) -> None:
        while True:
            self._run(*self._next_batch())

    def _next_batch(self) -> tuple[_Queue, list[_Task]]:
        with self._changed:
            while True:
                now = time.monotonic()
                wait: float | None = None
                oldest: tuple[object, ...] | None = None
                for key, queue in self._queues.items():
                    due = queue.tasks[0].enqueued + self.settings.batch_timeout_s - now
                    if queue.rows >= self.settings.run_size:
                        due = min(due, 0.0)
                    if wait is None or due < wait:
                        wait, oldest = due, key
                if oldest is not None and wait is not None and wait <= 0:
                    return self._take(oldest)
                self._changed.wait(wait)

    def _take(self, key: tuple[object, ...]) -> tuple[_Queue, list[_Task]]:
        queue = self._queues[key]
        taken, rows = [], 0
        while queue.tasks and (not taken or rows + queue.tasks[0].rows <= self.settings.run_size):
            task = queue.tasks.popleft()
            rows += task.rows
            taken.append(task)
        queue.rows -= rows
        if not queue.tasks:
            del self._queues[key]  # a queue holds its servable; empty ones must not keep an old version in memory
        return queue, taken

    def _run(self, queue: _Queue, tasks: list[_Task]) -> None:
        tasks = [task for task in tasks if task.answer.set_running_or_notify_cancel()]
        if not tasks:
            return
        now = time.monotonic()
        for task in tasks:
            metrics.queuing_latency(now - task.enqueued)
        try:
            results = self._run_merged(queue, tasks)
        except Exception as error:
            if len(tasks) == 1:
                tasks[0].answer.set_exception(from_exception(error))
                return
            for task in tasks:
                try:
                    task.answer.set_result(self._run_merged(queue, [task])[0])
                except Exception as own_error:
                    task.answer.set_exception(from_exception(own_error))
            return
        for task, result in zip(tasks, results, strict=True):
            task.answer.set_result(result)

    def _run_merged(self, queue: _Queue, tasks: list[_Task]) -> list[list[np.ndarray]]:
        """Run tasks as one batch and return each one's share of the outputs."""
        rows = sum(task.rows for task in tasks)
        padded = next((size for size in self.settings.allowed_batch_sizes if size >= rows), rows)
        feeds = {}
        for name in tasks[0].feeds:
            parts = [task.feeds[name] for task in tasks]
            if self.settings.pad_variable_length_inputs:
                parts = _pad_to_longest(parts)
            if padded > rows and rows:
                parts.append(np.repeat(parts[0][:1], padded - rows, axis=0))
            feeds[name] = parts[0] if len(parts) == 1 else np.concatenate(parts)
        metrics.batch_run(rows, padded)
        outputs = queue.runner.run(feeds, queue.fetches, _latest_timeout_ms(tasks))
        for output in outputs:
            if output.ndim == 0:
                raise ServingError(Code.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions")
            if output.shape[0] != padded:
                raise ServingError(
                    Code.FAILED_PRECONDITION,
                    "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the "
                    "input tensors",
                )
        ends = np.cumsum([task.rows for task in tasks]).tolist()
        return [[out[end - task.rows : end] for out in outputs] for task, end in zip(tasks, ends, strict=True)]


class BatchingRunner:
    """Stands before one servable and sends its runs through the scheduler."""

    def __init__(self, runner: Runner, scheduler: BatchScheduler) -> None:
        self._runner = runner
        self._scheduler = scheduler

    def run(
        self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str], timeout_ms: int | None = None
    ) -> list[np.ndarray]:
        """Run the graph once, together with whoever else wants the same tensors now."""
        rows = _rows(feeds)
        for _ in feeds:
            metrics.batch_input(rows)
        settings = self._scheduler.settings
        limit = settings.run_size
        if rows > settings.max_batch_size and not settings.enable_large_batch_splitting:
            raise invalid_argument(
                f"Task size {rows} is larger than maximum input batch size {settings.max_batch_size}"
            )
        parts = [
            {name: array[at : at + limit] for name, array in feeds.items()} for at in range(0, max(rows, 1), limit)
        ]
        deadline = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000
        answers = [self._scheduler.submit(self._runner, part, fetches, deadline) for part in parts]
        results = []
        for answer in answers:
            try:
                results.append(answer.result(None if deadline is None else max(0.0, deadline - time.monotonic())))
            except FutureTimeout:
                still_queued = [waiting.cancel() for waiting in answers]
                if all(still_queued):
                    message = "Run() timeout exceeded while waiting in batching queue"
                    raise ServingError(Code.RESOURCE_EXHAUSTED, message) from None
                raise ServingError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification") from None
        if len(results) == 1:
            return results[0]
        return [np.concatenate(column) for column in zip(*results, strict=True)]


def _latest_timeout_ms(tasks: Sequence[_Task]) -> int | None:
    """How long a run may take before the last of its requests has given up; None for without end."""
    deadlines = [task.deadline for task in tasks if task.deadline is not None]
    if len(deadlines) < len(tasks):
        return None
    return max(1, int((max(deadlines) - time.monotonic()) * 1000))


def _rows(feeds: Mapping[str, np.ndarray]) -> int:
    if any(array.ndim == 0 for array in feeds.values()):
        raise invalid_argument("Batching Run() input tensors must have at least one dimension")
    sizes = {array.shape[0] for array in feeds.values()}
    if len(sizes) != 1:
        raise invalid_argument("Batching Run() input tensors must have equal 0th-dimension size")
    return sizes.pop()


def _pad_to_longest(parts: list[np.ndarray]) -> list[np.ndarray]:
    """Pad dimensions 1 and up to the longest among the requests, each part with its own first value."""
    if parts[0].ndim > 6:
        raise invalid_argument("Only tensors with rank from 1 to 6 can be padded.")
    longest = np.max([part.shape for part in parts], axis=0).tolist()[1:]
    padded = []
    for part in parts:
        whole = part
        if list(part.shape[1:]) != longest:
            if not part.size:
                raise invalid_argument("Got empty tensor in batch of non-empty tensors.")
            whole = np.empty((part.shape[0], *longest), part.dtype)
            whole.fill(part.flat[0])
            whole[tuple(slice(size) for size in part.shape)] = part
        padded.append(whole)
    return padded
