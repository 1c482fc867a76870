"""Puts the parts together: loads the models, opens the ports, and stops without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import uvicorn

from serving.embedded import grpc_face, model_config
from serving.embedded.batcher import BatchScheduler
from serving.embedded.config_reloader import ConfigReloader
from serving.embedded.errors import ServingError
from serving.embedded.flags import Flags, cpu_count
from serving.embedded.loader import VersionLoader
from serving.embedded.rest import RestFace, RestSettings
from serving.embedded.servable import Parallelism
from serving.embedded.setup import Setup
from serving.embedded.versions import LoadPolicy, State, VersionManager

log = logging.getLogger(__name__)

GRACE_S = 30.0  # how long a request in flight may take to finish once the server is told to stop
KEEP_ALIVE_S = 3600  # idle connections stay open, as with libevent; a proxy in front decides
BATCHING_WORKERS = 256  # with batching most workers only wait for their batch


class _HttpServer(uvicorn.Server):
    """uvicorn, with the signals left to us: REST and gRPC stop together."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class ModelServer:
    """One server process."""

    def __init__(self, flags: Flags, setup: Setup) -> None:
        self._flags = flags
        self._setup = setup
        self._scheduler = BatchScheduler(setup.batching) if setup.batching else None
        workers = BATCHING_WORKERS if self._scheduler else flags.rest_api_num_threads or 4 * cpu_count()
        self._executor = ThreadPoolExecutor(workers, "request")
        parallelism = Parallelism(
            flags.tensorflow_inter_op_parallelism or flags.tensorflow_session_parallelism,
            flags.tensorflow_intra_op_parallelism or flags.tensorflow_session_parallelism,
        )
        loader = VersionLoader(
            parallelism,
            self._scheduler,
            self._executor,
            flags.enable_signature_method_name_check,
            flags.enable_model_warmup,
        )
        policy = LoadPolicy(
            flags.max_num_load_retries,
            flags.load_retry_interval_micros / 1e6,
            flags.num_load_threads,
            flags.num_unload_threads,
            flags.allow_version_labels_for_unavailable_models,
        )
        self._manager = VersionManager(loader, policy)
        self._configs = ConfigReloader(self._manager)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            ServingError: a model did not become available.
            OSError: a port is taken.
        """
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if not await self._load(stop):
            return
        grpc_server = await self._start_grpc()
        http_server, http_task = self._start_http()
        with contextlib.suppress(OSError):  # a full disk must not keep us from serving
            print(self._ready_line(), flush=True)  # noqa: T201  # who started us waits for this line
        await stop.wait()
        log.info("Stopping: finishing requests in flight")
        closing = []
        if http_server and http_task:
            http_server.should_exit = True
            closing.append(http_task)
        if grpc_server:
            closing.append(asyncio.ensure_future(grpc_server.stop(GRACE_S)))
        await asyncio.gather(*closing)
        self._manager.stop()

    async def _load(self, stop: asyncio.Event) -> bool:
        """Load what is configured; False when told to stop meanwhile."""
        if self._flags.file_system_poll_wait_seconds > 0:
            self._thread(self._manager.poll_forever, float(self._flags.file_system_poll_wait_seconds))
        configured = asyncio.ensure_future(asyncio.to_thread(self._configs.apply, self._setup.config))
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait((configured, stopped), return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            self._manager.stop()
            return False
        stopped.cancel()
        await configured
        if self._flags.model_config_file and self._flags.model_config_file_poll_wait_seconds > 0:
            self._thread(self._poll_config, float(self._flags.model_config_file_poll_wait_seconds))
        return True

    def _thread(self, work: object, interval_s: float) -> None:
        threading.Thread(target=work, args=(interval_s,), daemon=True).start()  # type: ignore[arg-type]

    def _poll_config(self, interval_s: float) -> None:
        """Read the model config file again and again, and apply it where it is not what was asked for last.

        A refused one is tried again, and one that came by HandleReloadConfigRequest is replaced by the file's.
        """
        problem = ""
        pause = threading.Event()
        while not pause.wait(interval_s):
            try:
                config = model_config.from_flags(self._flags)
                if config == self._configs.last and not problem:
                    continue
                self._configs.apply(config)
            except (OSError, ServingError) as error:
                if str(error) != problem:
                    problem = str(error)
                    log.error(
                        "Config file %s not applied, trying again every %g s: %s",
                        self._flags.model_config_file,
                        interval_s,
                        error,
                    )
            else:
                problem = ""
                log.info("Applied the changed %s", self._flags.model_config_file)

    async def _start_grpc(self) -> grpc.aio.Server | None:
        if not self._flags.port:
            return None
        made = grpc_face.server(
            self._manager,
            self._configs,
            self._executor,
            self._flags.enable_serialization_as_tensor_content,
            self._flags.enable_grpc_healthcheck_service,
        )
        host = self._flags.bind_address
        address = f"[{host}]:{self._flags.port}" if ":" in host else f"{host}:{self._flags.port}"
        try:
            made.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address} (gRPC): {error}") from None
        await made.start()
        return made

    def _start_http(self) -> tuple[_HttpServer | None, asyncio.Task[None] | None]:
        listener = self._setup.rest_socket
        if listener is None:
            return None, None
        timeout_ms = self._flags.rest_api_timeout_in_ms
        settings = RestSettings(
            timeout_ms=timeout_ms if timeout_ms > 0 else None,
            cors=self._flags.rest_api_enable_cors_support,
            metrics_path=self._setup.metrics_path,
        )
        try:
            listener.listen(socket.SOMAXCONN)
        except OSError as error:  # someone else bound the port too, and listened first
            address = f"{self._flags.bind_address}:{self._flags.rest_api_port}"
            raise OSError(error.errno, f"cannot listen on {address} (REST): {error.strerror}") from None
        config = uvicorn.Config(
            RestFace(self._manager, self._executor, settings),
            http="httptools",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(GRACE_S),
        )
        made = _HttpServer(config)
        return made, asyncio.ensure_future(made.serve(sockets=[listener]))

    def _ready_line(self) -> str:
        faces = []
        if self._flags.rest_api_port:
            faces.append(f"REST http://{self._flags.bind_address}:{self._flags.rest_api_port}/v1/models/")
        if self._flags.port:
            faces.append(f"gRPC {self._flags.bind_address}:{self._flags.port}")
        models = []
        for name in self._setup.models:
            versions = [str(s.version) for s in self._manager.status(name) if s.state == State.AVAILABLE]
            models.append(f"{name} {','.join(versions)}")
        return f"Serving {'; '.join(models) or 'no model'} at {' and '.join(faces)}"
