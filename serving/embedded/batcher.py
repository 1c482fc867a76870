"""Merges requests for the same tensors into one run of the graph, with the parameters of TensorFlow Serving.

One difference is on purpose: where a merged run fails, each request is run again by itself, so that one bad image does
not fail the good ones beside it.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serving.embedded import metrics
from serving.embedded.batching_config import BatchingSettings
from serving.embedded.errors import Code, ServingError, from_exception, invalid_argument
from serving.embedded.inference import Answer, Finish, Graph


@dataclass
class _Task:
    feeds: Mapping[str, np.ndarray]
    rows: int
    finish: Finish[Any]  # makes the answer, in the thread of the batch
    answer: Future[Any]
    enqueued: float
    deadline: float | None  # by the monotonic clock


@dataclass
class _Queue:
    """Requests for one set of tensors of one servable."""

    graph: Graph
    fetches: tuple[str, ...]
    tasks: deque[_Task] = field(default_factory=deque)
    rows: int = 0


class BatchScheduler:
    """The threads that run batches, shared by all models; they end with the process."""

    def __init__(self, settings: BatchingSettings) -> None:
        self.settings = settings
        self._queues: dict[tuple[object, ...], _Queue] = {}
        self._running_rows = 0
        self._changed = threading.Condition()  # guards the two above
        for number in range(settings.num_batch_threads):
            threading.Thread(target=self._work, name=f"batch-{number}", daemon=True).start()

    def submit(
        self,
        graph: Graph,
        feeds: Mapping[str, np.ndarray],
        fetches: Sequence[str],
        deadline: float | None,
        finish: Finish[Answer],
    ) -> Future[Answer]:
        """Queue one request of at most max_batch_size rows."""
        rows = next(iter(feeds.values())).shape[0]
        task = _Task(feeds, rows, finish, Future(), time.monotonic(), deadline)
        # Shapes and types are part of the key, so that whatever is in one queue can be concatenated.
        shapes = tuple((name, str(array.dtype), self._trailing(array)) for name, array in sorted(feeds.items()))
        key = (id(graph), tuple(fetches), shapes)
        with self._changed:
            queue = self._queues.get(key) or _Queue(graph, tuple(fetches))
            if queue.rows + rows > self.settings.max_enqueued_batches * self.settings.run_size:
                raise ServingError(
                    Code.UNAVAILABLE,
                    "The batch scheduling queue to which this task was submitted is full; currently "
                    f"{math.ceil(queue.rows / self.settings.run_size)} batches enqueued and max_enqueued_batches is "
                    f"{self.settings.max_enqueued_batches}",
                )
            self._queues[key] = queue
            queue.tasks.append(task)
            queue.rows += rows
            self._changed.notify()
        return task.answer

    def _trailing(self, array: np.ndarray) -> tuple[int, ...] | int:
        return array.ndim if self.settings.pad_variable_length_inputs else array.shape[1:]

    def _work(self) -> None:
        while True:
            queue, tasks, rows = self._next_batch()
            try:
                self._run(queue, tasks)
            finally:
                with self._changed:
                    self._running_rows -= rows
            del queue, tasks  # a thread that waits for work must not keep the last requests in memory

    def _next_batch(self) -> tuple[_Queue, list[_Task], int]:
        with self._changed:
            while True:
                now = time.monotonic()
                waits = {key: self._wait_s(queue, now) for key, queue in self._queues.items()}
                key = min(waits, key=waits.__getitem__, default=None)
                if key is not None and waits[key] <= 0:
                    return self._take(key)
                self._changed.wait(None if key is None else waits[key])

    def _wait_s(self, queue: _Queue, now: float) -> float:
        """How long until this queue's next batch is due; 0 or less where it is."""
        wait = queue.tasks[0].enqueued + self.settings.batch_timeout_s - now
        return min(wait, 0.0) if queue.rows >= self.settings.run_size else wait

    def _limit(self, queue: _Queue) -> int:
        """The rows of the next batch. Where nobody waits for company it is a fair share, so that every thread has some.

        Otherwise whoever comes first would take all of the queue, and leave the other cores without work.
        """
        settings = self.settings
        if settings.batch_timeout_s:
            return settings.run_size
        return min(settings.run_size, math.ceil((queue.rows + self._running_rows) / settings.num_batch_threads))

    def _take(self, key: tuple[object, ...]) -> tuple[_Queue, list[_Task], int]:
        queue = self._queues[key]
        limit = self._limit(queue)
        taken, rows = [], 0
        while queue.tasks and (not taken or rows + queue.tasks[0].rows <= limit):
            task = queue.tasks.popleft()
            rows += task.rows
            taken.append(task)
        queue.rows -= rows
        if not queue.tasks:
            del self._queues[key]  # a queue holds its servable; empty ones must not keep an old version in memory
        self._running_rows += rows
        return queue, taken, rows

    def _run(self, queue: _Queue, tasks: list[_Task]) -> None:
        tasks = [task for task in tasks if task.answer.set_running_or_notify_cancel()]
        if not tasks:
            return
        now = time.monotonic()
        for task in tasks:
            metrics.queuing_latency(now - task.enqueued)
        self._execute(queue, tasks)

    def _execute(self, queue: _Queue, tasks: list[_Task]) -> None:
        """Run tasks as one batch, or each by itself where that fails, and answer them."""
        try:
            shares = self._run_merged(queue, tasks)
        except Exception as error:
            if len(tasks) == 1:
                tasks[0].answer.set_exception(from_exception(error))
            else:
                for task in tasks:
                    self._execute(queue, [task])
            return
        for task, share in zip(tasks, shares, strict=True):
            try:
                answer = task.finish(share)
            except Exception as error:
                task.answer.set_exception(error)
            else:
                task.answer.set_result(answer)

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
        outputs = queue.graph.run(feeds, queue.fetches, _latest_timeout_ms(tasks))
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

    def __init__(self, graph: Graph, scheduler: BatchScheduler, executor: Executor) -> None:
        self._graph = graph
        self._scheduler = scheduler
        self._executor = executor

    def run(
        self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str], timeout_ms: int | None = None
    ) -> list[np.ndarray]:
        """Run the graph once, together with whoever else wants the same tensors now."""
        rows = self._checked_rows(feeds)
        limit = self._scheduler.settings.run_size
        parts = [
            {name: array[at : at + limit] for name, array in feeds.items()} for at in range(0, max(rows, 1), limit)
        ]
        deadline = _deadline(timeout_ms)
        answers = [self._scheduler.submit(self._graph, part, fetches, deadline, _as_it_is) for part in parts]
        results = []
        for answer in answers:
            try:
                results.append(answer.result(None if deadline is None else max(0.0, deadline - time.monotonic())))
            except FutureTimeout:
                raise _given_up(answers) from None
        if len(results) == 1:
            return results[0]
        return [np.concatenate(column) for column in zip(*results, strict=True)]

    async def run_async(
        self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str], timeout_ms: int | None, finish: Finish[Answer]
    ) -> Answer:
        """Run the graph as `run` does, and `finish` in the batch's thread; no other thread waits meanwhile."""
        if _rows(feeds) > self._scheduler.settings.run_size:
            return await asyncio.get_running_loop().run_in_executor(
                self._executor, lambda: finish(self.run(feeds, fetches, timeout_ms))
            )
        self._checked_rows(feeds)
        answer = self._scheduler.submit(self._graph, feeds, fetches, _deadline(timeout_ms), finish)
        try:
            async with asyncio.timeout(None if timeout_ms is None else timeout_ms / 1000):
                return await asyncio.wrap_future(answer)
        except TimeoutError:
            raise _given_up([answer]) from None

    def _checked_rows(self, feeds: Mapping[str, np.ndarray]) -> int:
        rows = _rows(feeds)
        for _ in feeds:
            metrics.batch_input(rows)
        settings = self._scheduler.settings
        if rows > settings.max_batch_size and not settings.enable_large_batch_splitting:
            raise invalid_argument(
                f"Task size {rows} is larger than maximum input batch size {settings.max_batch_size}"
            )
        return rows


def _as_it_is(results: list[np.ndarray]) -> list[np.ndarray]:
    return results


def _deadline(timeout_ms: int | None) -> float | None:
    return None if timeout_ms is None else time.monotonic() + timeout_ms / 1000


def _given_up(answers: Sequence[Future[Any]]) -> ServingError:
    """Take back what is still queued; returns what to tell the client whose time is over."""
    still_queued = [answer.cancel() for answer in answers]
    if all(still_queued):
        return ServingError(Code.RESOURCE_EXHAUSTED, "Run() timeout exceeded while waiting in batching queue")
    return ServingError(Code.DEADLINE_EXCEEDED, "Timed out waiting for notification")


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
