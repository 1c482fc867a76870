"""The whole product as `make up` starts it, in a checkout of its own, over the version that ships."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from shipped import VERSION
from stack_helpers import MAKE_UP, READY, Stack, checkout, processes_in, running, wait_until

_own_dataset = Path(__file__).resolve().parents[1] / ".venv" / "fashion-mnist"  # unpacked by prepare.py
if _own_dataset.is_dir():
    os.environ.setdefault("FASHION_MNIST_DIR", str(_own_dataset))


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    with checkout() as (folder, ports), running(folder, MAKE_UP) as run:
        run.wait_for(READY)
        assert f"GATEWAY_PASSWORD in {folder / '.env'}" in run.output
        yield Stack(folder, ports)
        run.interrupt()
        assert processes_in(folder) == [], run.output


@pytest.fixture(scope="module")
def own_versions(stack) -> Iterator[None]:
    """What these tests publish is gone after them, and the version that ships answers again: a rollback."""
    yield
    for path in stack.base_path.iterdir():
        if path.name != str(VERSION):
            shutil.rmtree(path)
    with stack.client() as client:
        wait_until(
            lambda: any(one.version == VERSION and one.available for one in client.status()),
            f"version {VERSION} did not come back",
        )


@pytest.fixture(scope="session")
def test_images() -> np.ndarray:
    """The first 20 official test images, uint8 (20, 28, 28)."""
    from training.datasets import load_test

    return load_test().images[:20, ..., 0]
