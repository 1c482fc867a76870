"""One loaded SavedModel: its signatures, and a session that runs any part of its graph.

The TF1 session API is used on purpose: it is what tensorflow_model_server itself runs a SavedModel with. It takes any
SavedModel (TF1 graphs with init ops and tables as well as TF2 functions), gives the error texts of the real server, and
releases the GIL while it runs.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.python.client import pywrap_tf_session as tf_session

from serving.embedded.errors import Code, ServingError, from_exception, invalid_argument
from serving.embedded.flags import cpu_count

SERVE_TAG = "serve"


@dataclass(frozen=True)
class Parallelism:
    """Threads of TensorFlow.

    One thread inside an op and as many ops at once as there are cores: with many callers that is the fastest on a CPU.
    """

    inter_op: int = 0
    intra_op: int = 0

    def config(self) -> tf.compat.v1.ConfigProto:
        """Return the session's configuration; 0 means this server's default."""
        config = tf.compat.v1.ConfigProto(
            inter_op_parallelism_threads=self.inter_op or cpu_count(),
            intra_op_parallelism_threads=self.intra_op or (0 if tf.config.list_physical_devices("GPU") else 1),
            allow_soft_placement=True,
            gpu_options=tf.compat.v1.GPUOptions(allow_growth=True),
        )
        # A first run is mostly graph optimisation; a second round of it costs a quarter more and speeds up nothing.
        rewriting = config.graph_options.rewrite_options
        rewriting.meta_optimizer_iterations = type(rewriting).ONE
        return config


class Servable:
    """A SavedModel in memory. Made by `load`, ended by `close`."""

    def __init__(self, session: tf.compat.v1.Session, meta_graph: meta_graph_pb2.MetaGraphDef) -> None:
        self._session = session
        self._raw_session = session._session  # the C session: no Python between us and TF_SessionRun
        self._handles: dict[str, object] = {}
        self._lock = threading.Lock()
        self._running = 0
        self._closed = False
        self._idle = threading.Condition()  # guards the two above
        self.signatures = dict(meta_graph.signature_def)

    @classmethod
    def load(cls, directory: Path, parallelism: Parallelism) -> Servable:
        """Load a SavedModel with the tag "serve".

        Raises:
            ServingError: with the code and text of what TensorFlow found wrong.
        """
        if not any((directory / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
            raise ServingError(
                Code.NOT_FOUND,
                f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {directory}. "
                "Check that the directory exists and that you have the right permissions for accessing it.",
            )
        session = tf.compat.v1.Session(graph=tf.Graph(), config=parallelism.config())
        try:
            with session.graph.as_default():
                meta_graph = tf.compat.v1.saved_model.load(session, [SERVE_TAG], str(directory))
        except Exception as error:
            session.close()
            if "could not be found in SavedModel" in str(error):
                raise ServingError(
                    Code.NOT_FOUND,
                    "Could not find meta graph def matching supplied tags: { serve }. To inspect available tag-sets in "
                    "the SavedModel, please use the SavedModel CLI: `saved_model_cli`",
                ) from error
            raise from_exception(error) from error
        return cls(session, meta_graph)

    def run(
        self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str], timeout_ms: int | None = None
    ) -> list[np.ndarray]:
        """Run the graph once.

        Args:
            feeds: values by tensor name ("x:0").
            fetches: tensor names to return.
            timeout_ms: give up after this long; None never.

        Returns:
            One array for each fetch; strings as object arrays of bytes.

        Raises:
            ServingError: with the failing op's code and message; DEADLINE_EXCEEDED after the timeout.
        """
        with self._idle:
            if self._closed:
                raise ServingError(Code.CANCELLED, "Session has been closed.")
            self._running += 1
        try:
            return self._run(feeds, fetches, timeout_ms)
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def _run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str], timeout_ms: int | None) -> list[np.ndarray]:
        options = None
        try:
            if timeout_ms is not None:
                options = tf_session.TF_NewBufferFromString(
                    tf.compat.v1.RunOptions(timeout_in_ms=max(1, timeout_ms)).SerializeToString()
                )
            results = tf_session.TF_SessionRun_wrapper(
                self._raw_session,
                options,
                {self._handle(name): value for name, value in feeds.items()},
                [self._handle(name) for name in fetches],
                [],
                None,
            )
        except ServingError:
            raise
        except UnicodeDecodeError as error:
            # The op's message quotes bytes that are no UTF-8, and TensorFlow's Python side loses its code over that.
            raise invalid_argument(error.object.decode("utf-8", "surrogateescape")) from error
        except Exception as error:
            raise from_exception(error) from error
        finally:
            if options is not None:
                tf_session.TF_DeleteBuffer(options)
        return [_as_array(result) for result in results]

    def close(self) -> None:
        """Free the session and let go of the graph, once the runs have ended that nobody waits for any longer."""
        with self._idle:
            self._closed = True
            self._idle.wait_for(lambda: not self._running)
        self._session.close()
        self._session = self._raw_session = None
        self._handles.clear()

    def _handle(self, name: str) -> object:
        handle = self._handles.get(name)
        if handle is None:
            with self._lock:
                try:
                    tensor = self._session.graph.get_tensor_by_name(name if ":" in name else f"{name}:0")
                except (KeyError, ValueError):
                    raise invalid_argument(f"FetchOutputs {name}: the graph has no such output") from None
                handle = self._handles[name] = tensor._as_tf_output()
        return handle


def _as_array(result: object) -> np.ndarray:
    if isinstance(result, np.ndarray):
        return result
    if isinstance(result, bytes):  # a scalar string comes as itself
        scalar = np.empty((), dtype=object)
        scalar[()] = result
        return scalar
    return np.asarray(result)
