"""The command line of tensorflow_model_server: `--name=value`, booleans as `--x`, `--x=true`, `--x=false`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

INT64_MAX = 2**63 - 1


def _flag(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Flags:
    """Every flag, with the default of tensorflow_model_server where it has the flag too."""

    port: int = _flag(8500, "port of the gRPC API; 0 turns it off")
    rest_api_port: int = _flag(0, "port of the REST API; 0 turns it off")
    bind_address: str = _flag("127.0.0.1", "address to listen on (ours: the real server listens on all of them)")
    model_name: str = _flag("default", "name of the one model, with --model_base_path")
    model_base_path: str = _flag("", "directory that holds the version directories of the one model")
    model_config_file: str = _flag("", "text proto ModelServerConfig: several models, version policies, labels")
    model_config_file_poll_wait_seconds: int = _flag(0, "read --model_config_file again this often; 0 never")
    file_system_poll_wait_seconds: int = _flag(1, "look for new versions this often; 0 once, negative never")
    allow_version_labels_for_unavailable_models: bool = _flag(False, "new labels may name versions not yet loaded")
    enable_batching: bool = _flag(False, "merge requests into one run of the graph")
    batching_parameters_file: str = _flag("", "text proto BatchingParameters, with --enable_batching")
    monitoring_config_file: str = _flag("", "text proto MonitoringConfig: the prometheus page")
    rest_api_timeout_in_ms: int = _flag(30_000, "bound of a REST request's run of the graph")
    rest_api_num_threads: int = _flag(0, "requests worked on at once; 0 means 4 for each core")
    rest_api_enable_cors_support: bool = _flag(False, "send CORS headers")
    tensorflow_intra_op_parallelism: int = _flag(0, "threads within an op; 0 means 1 on a CPU")
    tensorflow_inter_op_parallelism: int = _flag(0, "ops run at once; 0 means one for each core")
    tensorflow_session_parallelism: int = _flag(0, "both of the above, where they are 0")
    max_num_load_retries: int = _flag(5, "how often a failed load is tried again")
    load_retry_interval_micros: int = _flag(60_000_000, "pause before a failed load is tried again; negative none")
    num_load_threads: int = _flag(0, "versions loaded at once; 0 means one after the other")
    num_unload_threads: int = _flag(0, "versions unloaded at once; 0 means one after the other")
    enable_model_warmup: bool = _flag(True, "replay assets.extra/tf_serving_warmup_requests before a version serves")
    enable_grpc_healthcheck_service: bool = _flag(False, "serve grpc.health.v1.Health")
    enable_signature_method_name_check: bool = _flag(False, "demand the method names of SavedModel signatures")
    enable_serialization_as_tensor_content: bool = _flag(False, "answer gRPC Predict in tensor_content")


class FlagError(ValueError):
    """A command line that makes no sense; the message is for people."""


class HelpRequested(Exception):  # noqa: N818  # not an error
    """`--help` was given."""


def parse(arguments: Sequence[str]) -> Flags:
    """Parse a command line.

    Args:
        arguments: without the program's name.

    Raises:
        FlagError: unknown flag, or a value of the wrong type.
        HelpRequested: `--help` was among them.
    """
    kinds = get_type_hints(Flags)
    values: dict[str, Any] = {}
    for argument in arguments:
        if argument in ("-h", "--help"):
            raise HelpRequested
        name, equals, text = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or name not in kinds:
            raise FlagError(f"Unknown argument: {argument} (--help lists the flags; values are given as --name=value)")
        if not equals and kinds[name] is not bool:
            raise FlagError(f"--{name} needs a value: --{name}=…")
        values[name] = _convert(name, kinds[name], text if equals else "true")
    flags = Flags(**values)
    _check(flags)
    return flags


def usage() -> str:
    """The text of --help."""
    lines = ["usage: python -m serving.embedded [--flag=value …]", ""]
    for field in dataclasses.fields(Flags):
        lines.append(f"  --{field.name}={field.default!s:<12} {field.metadata['help']}")
    return "\n".join(lines)


def cpu_count() -> int:
    """Number of cores this process may use; the default of several flags and parameters."""
    return len(os.sched_getaffinity(0))


def _convert(name: str, kind: type, text: str) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise FlagError(f"--{name} is true or false, not {text!r}")
        return text.lower() in ("true", "1")
    if kind is int:
        try:
            value = int(text)
        except ValueError:
            raise FlagError(f"--{name} is a whole number, not {text!r}") from None
        if abs(value) > INT64_MAX:
            raise FlagError(f"--{name}={text} is out of range")
        return value
    return text


def _check(flags: Flags) -> None:
    for name in ("port", "rest_api_port"):
        if not 0 <= getattr(flags, name) <= 65535:
            raise FlagError(f"--{name}={getattr(flags, name)} is no port (0 to 65535)")
    if flags.port and flags.port == flags.rest_api_port:
        raise FlagError("--rest_api_port cannot be same as --port. Please use a different port for HTTP/REST API.")
    if not flags.port and not flags.rest_api_port:
        raise FlagError("Both --port and --rest_api_port are 0: there is nothing to serve on.")
    if not flags.model_base_path and not flags.model_config_file:
        raise FlagError("Both --model_base_path and --model_config_file are empty: give one of them.")
    if flags.batching_parameters_file and not flags.enable_batching:
        raise FlagError("--batching_parameters_file is given without --enable_batching.")
    if flags.rest_api_num_threads < 0:
        raise FlagError("--rest_api_num_threads cannot be negative.")
    if flags.max_num_load_retries < 0:
        raise FlagError("--max_num_load_retries cannot be negative.")
