"""Training on several devices, of one host or of many: every batch is shared among them, the result stays the same.

KERAS_BACKEND=jax python -m training.train --preset best --distribute data  # all GPUs of this host or cluster
python -m training.distribution --workers 2 -- --preset smoke               # to try it: two processes here
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import keras
import numpy as np

from training.settings import Settings, SettingsError

# Any of them says that there are other processes: Keras' own variables, JAX' own, a step of Slurm.
_CLUSTER = ("KERAS_DISTRIBUTION_JOB_ADDRESSES", "JAX_COORDINATOR_ADDRESS", "SLURM_STEP_NODELIST")


def add_distribution_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--distribute", choices=("none", "data"), default="none",
        help="data: share every batch among the devices of this host, or of the whole cluster (default: none)",
    )  # fmt: skip


@contextlib.contextmanager
def distributed(kind: str) -> Iterator[None]:
    """Within it Keras replicates every model and shares every batch among the devices of all processes.

    The processes find each other by the environment (KERAS_DISTRIBUTION_JOB_ADDRESSES with _NUM_PROCESSES and
    _PROCESS_ID, or Slurm's); without one there is this process and the devices of its host. Only the first prints.

    An error in one of several processes ends it at once with status 2, and with it the others.

    Args:
        kind: "data", or "none", which does nothing.

    Raises:
        SettingsError: Keras runs on another backend than JAX.
    """
    if kind == "none":
        yield
        return
    if keras.backend.backend() != "jax":
        raise SettingsError(
            f"--distribute data needs Keras on JAX: expected KERAS_BACKEND=jax, got {keras.backend.backend()}. "
            "What Keras cannot do on TensorFlow is in docs/distribution.md"
        )
    if any(name in os.environ for name in _CLUSTER):
        _initialize()
    # the arrays that fit gets are this process's share already
    sharing = keras.distribution.DataParallel(auto_shard_dataset=False)
    with sharing.scope(), contextlib.ExitStack() as stack:
        if not is_first_process():
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        print(f"devices: {sharing.num_model_replicas}, in {sharing.num_processes} process(es)", flush=True)
        try:
            yield
        except BaseException as error:
            if sharing.num_processes > 1:
                _end_at_once(error)
            raise


def _initialize() -> None:
    import jax

    # it would catch SIGTERM, and the process would go on until it is killed
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    keras.distribution.initialize()


def _end_at_once(error: BaseException) -> NoReturn:
    """Ends this process. Python's usual end would wait for the others, which may be dead or wait for this one."""
    sharing = keras.distribution.distribution()
    process = f"process {sharing.data_shard_id} of {sharing.num_processes}"
    message = f"error: {process} stopped: {str(error) or type(error).__name__}"
    if not type(error).__module__.startswith("training."):  # those say themselves what to do
        traceback.print_exception(error)
        message += "\nStarted again, all processes together, the same command goes on from the last finished epoch."
    print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(130 if isinstance(error, KeyboardInterrupt) else 2)


def is_first_process() -> bool:
    """Whether this is the process that writes; always, where there is one alone."""
    sharing = keras.distribution.distribution()
    return sharing is None or sharing.data_shard_id == 0


def share(arrays: Any, batch_size: int) -> Any:
    """This process's rows of every batch; all of them where there is one process.

    Batch n of all processes together, in their order, is batch n of `arrays`. The last batch can be shared only if the
    devices divide it: up to devices - 1 rows at the very end are left out.

    Args:
        arrays: arrays of equal length in dicts and tuples, as fit and evaluate take them.
        batch_size: of all processes together.

    Raises:
        SettingsError: the devices do not divide batch_size, or there are fewer rows than devices.
    """
    sharing = keras.distribution.distribution()
    if sharing is None:
        return arrays
    processes = sharing.num_processes
    share_size(batch_size)  # refuses what cannot be shared

    def rows(array: np.ndarray) -> np.ndarray:
        length = len(array) - len(array) % sharing.num_model_replicas
        if length == 0:
            raise SettingsError(
                f"{len(array)} images cannot be shared by {sharing.num_model_replicas} devices: "
                "use fewer devices, or train without --distribute"
            )
        whole = length - length % batch_size
        batches = np.arange(whole).reshape(-1, processes, batch_size // processes)
        last = np.arange(whole, length).reshape(processes, -1)
        return array[np.append(batches[:, sharing.data_shard_id], last[sharing.data_shard_id])]

    return keras.tree.map_structure(rows, arrays)


def share_size(batch_size: int) -> int:
    """How many images of a batch are this process's.

    Raises:
        SettingsError: the devices do not divide batch_size.
    """
    sharing = keras.distribution.distribution()
    if sharing is None:
        return batch_size
    if batch_size % sharing.num_model_replicas:
        raise SettingsError(
            f"batch_size={batch_size} cannot be shared by {sharing.num_model_replicas} devices; expected a multiple of "
            "their number (it is the batch of all devices together)"
        )
    return batch_size // sharing.num_processes


@contextlib.contextmanager
def own_run_directory(run_dir: Path, settings: Settings) -> Iterator[Path]:
    """The directory that this process writes to: the run's own for the first, a temporary copy for the others.

    So every process resumes from the same checkpoint and runs the same program, and one alone writes. `run_dir` is on a
    file system that all processes share.

    Raises:
        SettingsError: the processes have other settings than the first, or see another run directory.
    """
    sharing = keras.distribution.distribution()
    if sharing is None or sharing.num_processes == 1:
        yield run_dir
        return
    _check_the_same_everywhere(run_dir, settings)
    with tempfile.TemporaryDirectory(prefix="run-") as copy:
        if not is_first_process() and run_dir.is_dir():
            for path in run_dir.iterdir():
                if path.is_file():
                    shutil.copy(path, copy)
        _wait_for_all("copied")
        yield run_dir if is_first_process() else Path(copy)


def _check_the_same_everywhere(run_dir: Path, settings: Settings) -> None:
    from jax.experimental import multihost_utils

    _wait_for_all("fresh")  # the first may have emptied it
    seen = hashlib.sha256(json.dumps(settings.to_dict(), sort_keys=True).encode())
    checkpoint = run_dir / "last.npz"
    if checkpoint.is_file():
        seen.update(checkpoint.read_bytes())
    digests = multihost_utils.process_allgather(np.frombuffer(seen.digest(), np.uint8))  # (processes, 32)
    others = np.flatnonzero((digests != digests[0]).any(axis=1))
    if len(others):
        raise SettingsError(
            f"process {', '.join(map(str, others))}: other settings than those of process 0, or another {checkpoint}; "
            "expected the same command everywhere and a run directory on a file system that all processes share"
        )


def _wait_for_all(name: str) -> None:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)


def run_local_workers(workers: int, arguments: Sequence[str]) -> int:
    """Runs training.train as several processes of this host, on its CPU, and waits for all of them.

    Returns:
        The exit status: 0 if all ended well, else that of the first that did not, 128 + N for a signal N.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "training.train", "--distribute", "data", *arguments]
    processes = []
    for number in range(workers):
        environment = os.environ | {
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "KERAS_DISTRIBUTION_JOB_ADDRESSES": address,
            "KERAS_DISTRIBUTION_NUM_PROCESSES": str(workers),
            "KERAS_DISTRIBUTION_PROCESS_ID": str(number),
        }
        processes.append(subprocess.Popen(command, env=environment))
    for number, process in enumerate(processes):
        print(f"worker {number} is process {process.pid}", flush=True)
    statuses = [process.wait() for process in processes]
    failed = next((status for status in statuses if status), 0)
    return failed if failed >= 0 else 128 - failed


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.distribution", description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2, help="processes on this host (default: 2)")
    parser.add_argument("arguments", nargs="*", metavar="-- ARGUMENTS", help="of python -m training.train")
    arguments = parser.parse_args(argv)
    if arguments.workers < 1:
        parser.error(f"--workers must be at least 1; got {arguments.workers}")
    return run_local_workers(arguments.workers, arguments.arguments)


if __name__ == "__main__":
    raise SystemExit(main())
