"""Runs each request of a servable by itself, in a thread of a pool."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor

import numpy as np

from serving.embedded.inference import Answer, Finish
from serving.embedded.servable import Servable


class PooledRunner:
    """Stands before one servable, where nothing is batched."""

    def __init__(self, servable: Servable, executor: Executor) -> None:
        self._executor = executor
        self.run = servable.run

    async def run_async(
        self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str], timeout_ms: int | None, finish: Finish[Answer]
    ) -> Answer:
        """Run the graph once, and `finish`, in a thread of the pool."""
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, lambda: finish(self.run(feeds, fetches, timeout_ms))
        )
