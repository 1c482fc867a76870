"""The limit: how many images a second the served graph does in this process with every core busy, nothing around it.

python -m serving.benchmark.in_process serving/models/fashion_mnist/2 picture.png SECONDS    # prints JSON
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from serving.embedded import memory
from serving.embedded.flags import cpu_count
from serving.embedded.servable import Parallelism, Servable

BATCH_SIZES = (1, 32)


def images_per_s(run: Callable[[], object], batch_size: int, seconds: float) -> float:
    """Calls `run` from one thread a core, again and again."""
    counts = [0] * cpu_count()
    run()
    ends = time.perf_counter() + seconds

    def work(number: int) -> None:
        while time.perf_counter() < ends:
            run()
            counts[number] += batch_size

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(counts))]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


def main(version: str, image: str, seconds: str) -> None:
    memory.keep_freed_tensors()
    servable = Servable.load(Path(version), Parallelism())
    signature = servable.signatures["serving_default"]
    feed = signature.inputs["image_bytes"].name
    fetches = [output.name for output in signature.outputs.values()]
    found = {}
    for size in BATCH_SIZES:
        batch = np.array([Path(image).read_bytes()] * size, dtype=object)
        found[size] = images_per_s(lambda batch=batch: servable.run({feed: batch}, fetches), size, float(seconds))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
