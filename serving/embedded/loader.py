"""Makes a version directory into something that answers: load, batcher in front, replay of the warm-up requests."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from google.protobuf.message import DecodeError
from tensorflow.python.framework import errors_impl
from tensorflow.python.lib.io import tf_record
from tensorflow_serving.apis import prediction_log_pb2

from serving.embedded import examples, inference, metrics
from serving.embedded.batcher import BatchingRunner, BatchScheduler
from serving.embedded.errors import Code, ServingError, invalid_argument
from serving.embedded.flags import cpu_count
from serving.embedded.inference import Model, Runner
from serving.embedded.pool import PooledRunner
from serving.embedded.proto_tensors import from_proto
from serving.embedded.servable import Parallelism, Servable

log = logging.getLogger(__name__)

WARMUP_FILE = Path("assets.extra/tf_serving_warmup_requests")
MAX_WARMUP_RECORDS = 1000


class LoadedVersion:
    """A servable and the model that requests see."""

    def __init__(self, model: Model, servable: Servable) -> None:
        self.model = model
        self._servable = servable

    def close(self) -> None:
        """Free the session and the graph."""
        self._servable.close()
        gc.collect()  # a graph is full of reference cycles; without this an old version lingers


class VersionLoader:
    """Loads versions, all with the same settings."""

    def __init__(
        self,
        parallelism: Parallelism,
        scheduler: BatchScheduler | None,
        executor: Executor,
        check_method_names: bool,
        warm_up: bool,
    ) -> None:
        self._parallelism = parallelism
        self._scheduler = scheduler
        self._executor = executor
        self._check_method_names = check_method_names
        self._warm_up = warm_up

    def __call__(self, name: str, version: int, path: Path) -> LoadedVersion:
        """Load one version directory.

        Raises:
            ServingError: with what was wrong, for the version's status.
        """
        servable = Servable.load(path, self._parallelism)
        try:
            runner: Runner = PooledRunner(servable, self._executor)
            if self._scheduler:
                runner = BatchingRunner(servable, self._scheduler, self._executor)
            model = Model(name, version, servable.signatures, runner, self._check_method_names)
            if self._warm_up and (path / WARMUP_FILE).is_file():
                replay(model, path / WARMUP_FILE)
        except BaseException:
            servable.close()
            raise
        return LoadedVersion(model, servable)


def replay(model: Model, file: Path) -> None:
    """Send every recorded request through a model, so that the first real one does not pay for a graph's first run.

    A first run prepares the part of the graph a signature needs, on one thread; several are prepared at once.
    """
    start = time.monotonic()
    entries = []
    for record in _records(file):
        if len(entries) == MAX_WARMUP_RECORDS:
            raise invalid_argument(f"Number of warmup records exceeds the maximum ({MAX_WARMUP_RECORDS}) at {file}")
        try:
            entries.append(prediction_log_pb2.PredictionLog.FromString(record))
        except DecodeError:
            shown = record.decode("utf-8", "replace")
            raise invalid_argument(f"Failed to parse warmup record: {shown} from {file}") from None
    with ThreadPoolExecutor(cpu_count(), "warm-up") as pool:
        for _ in pool.map(lambda entry: _replay_one(model, entry), entries):
            pass  # a failure is raised here
    seconds = time.monotonic() - start
    metrics.warmup_latency(str(file.parents[1]), seconds)
    log.info("Replayed %d warm-up requests of %s in %.1f s", len(entries), model.name, seconds)


def _replay_one(model: Model, entry: prediction_log_pb2.PredictionLog) -> None:
    kind = entry.WhichOneof("log_type")
    if kind == "predict_log":
        request = entry.predict_log.request
        inputs = {alias: from_proto(proto) for alias, proto in request.inputs.items()}
        inference.predict(model, request.model_spec.signature_name, inputs, request.output_filter)
    elif kind == "classify_log":
        classify = entry.classify_log.request
        inference.classify(model, classify.model_spec.signature_name, examples.from_input(classify.input))
    elif kind == "regress_log":
        regress = entry.regress_log.request
        inference.regress(model, regress.model_spec.signature_name, examples.from_input(regress.input))
    elif kind == "multi_inference_log":
        multi = entry.multi_inference_log.request
        tasks = [
            inference.Task(task.model_spec.name, task.model_spec.signature_name, task.method_name)
            for task in multi.tasks
        ]
        inference.multi_infer(model, tasks, examples.from_input(multi.input))
    elif kind == "session_run_log":
        number = prediction_log_pb2.PredictionLog.SESSION_RUN_LOG_FIELD_NUMBER
        raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {number}")


def _records(file: Path) -> Iterator[bytes]:
    """Read a TFRecord file with TensorFlow's own reader, which checks the checksums."""
    try:
        yield from tf_record.tf_record_iterator(str(file))
    except errors_impl.DataLossError as error:
        raise ServingError(
            Code.DATA_LOSS, f"{error.message}. Please verify your warmup data is in TFRecord format."
        ) from None
