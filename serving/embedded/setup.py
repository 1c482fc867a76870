"""Everything that can go wrong before TensorFlow is imported is found here, so that it is reported at once."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from serving.embedded import batching_config, model_config, text_protos
from serving.embedded.batching_config import BatchingSettings
from serving.embedded.errors import invalid_argument
from serving.embedded.flags import Flags
from serving.embedded.model_config import ModelSettings

DEFAULT_METRICS_PATH = "/monitoring/prometheus/metrics"


@dataclass
class Setup:
    """The configuration, read and checked, and the reserved REST port."""

    config: ModelServerConfig
    models: dict[str, ModelSettings]
    batching: BatchingSettings | None
    metrics_path: str  # "": no metrics page
    rest_socket: socket.socket | None


def prepare(flags: Flags) -> Setup:
    """Read every config file and reserve the ports.

    Raises:
        ServingError: a config that cannot be served.
        OSError: a port is taken.
    """
    config = model_config.from_flags(flags)
    models = model_config.settings(config)
    for model in models.values():
        if not model.base_path.is_dir():
            raise invalid_argument(f"Could not find base path {model.base_path} for servable {model.name}")
    return Setup(
        config=config,
        models=models,
        batching=batching_config.read_settings(flags.batching_parameters_file) if flags.enable_batching else None,
        metrics_path=_metrics_path(flags.monitoring_config_file),
        rest_socket=_reserve_ports(flags),
    )


def _metrics_path(file: str) -> str:
    if not file:
        return ""
    prometheus = text_protos.read(Path(file), text_protos.MonitoringConfig()).prometheus_config
    path = prometheus.path or DEFAULT_METRICS_PATH
    if not path.startswith("/"):
        raise invalid_argument(f"Invalid path '{path}' in '{file}': it has to begin with '/'")
    return path if prometheus.enable else ""


def _reserve_ports(flags: Flags) -> socket.socket | None:
    """Bind the REST port, not yet listening; try the gRPC port, which gRPC itself binds later."""
    if flags.port:
        _bind(flags.bind_address, flags.port, "gRPC").close()
    return _bind(flags.bind_address, flags.rest_api_port, "REST") if flags.rest_api_port else None


def _bind(host: str, port: int, face: str) -> socket.socket:
    try:
        six = ipaddress.ip_address(host).version == 6
    except ValueError:
        six = False  # a name: IPv4, as for 127.0.0.1
    bound = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if six:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port} ({face}): {error.strerror}") from None
    return bound
