"""The client over gRPC: the same methods, results and errors as `ServingClient`.

Needs `grpcio` and `protobuf`, not TensorFlow and not `tensorflow-serving-api` (see `serving.client.protos`).

    from serving.client.grpc import GrpcServingClient

    with GrpcServingClient("http://127.0.0.1:8080", "vitrine", password) as client:
        print(client.predict("shirt.png"))
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from serving.client.base import Answer, BaseClient, Inputs
from serving.client.errors import BadResponse, ServingError, Unauthenticated, from_grpc_code
from serving.client.results import ModelMetadata, Signature, TensorInfo, VersionStatus
from serving.client.transport import checked_credentials, checked_url, checked_verify, is_loopback

try:
    import grpc

    from serving.client import protos
except ImportError as error:
    raise ImportError(
        f"serving.client.grpc needs grpcio and protobuf: pip install grpcio protobuf ({error})"
    ) from error

_MAX_ATTEMPTS = 5  # gRPC's own ceiling
_RETRY_BUFFER_BYTES = 16 * 1024 * 1024  # gRPC repeats only what fits here; its default of 256 KiB is one photo
_VALUES = {
    protos.DT_FLOAT: ("float_val", np.float32),
    protos.DT_DOUBLE: ("double_val", np.float64),
    protos.DT_INT32: ("int_val", np.int32),
    protos.DT_INT64: ("int64_val", np.int64),
}


class GrpcServingClient(BaseClient):
    """Classify and explain images with a served model, over gRPC.

    Args:
        url: http://host:port (cleartext HTTP/2) or https://host:port (TLS) of the gateway, or of TensorFlow Serving.
        user, password: basic authentication, sent as metadata; both or none.
        model: name of the served model.
        version: always ask this version; default the latest.
        label: always ask the version behind this label.
        timeout_s: longest wait for an answer, seconds, all attempts together.
        retries: how many more attempts when the server is UNAVAILABLE, at most 4.
        verify: path of a private CA's certificates (PEM); default the system's.
    """

    def __init__(
        self,
        url: str,
        user: str | None = None,
        password: str | None = None,
        *,
        model: str = "fashion_mnist",
        version: int | None = None,
        label: str | None = None,
        timeout_s: float = 10.0,
        retries: int = 3,
        verify: bool | str = True,
    ) -> None:
        super().__init__(model, version, label)
        self.url = checked_url(url)
        self._timeout_s = timeout_s
        credentials = checked_credentials(user, password)
        self._metadata: list[tuple[str, str]] = []
        if credentials is not None:
            token = base64.b64encode(":".join(credentials).encode()).decode()
            self._metadata.append(("authorization", f"Basic {token}"))
        self._channel = _channel(self.url, retries, verify)
        self._predict = self._method("PredictionService/Predict", "PredictRequest", "PredictResponse")
        self._get_metadata = self._method(
            "PredictionService/GetModelMetadata", "GetModelMetadataRequest", "GetModelMetadataResponse"
        )
        self._get_status = self._method(
            "ModelService/GetModelStatus", "GetModelStatusRequest", "GetModelStatusResponse"
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r}, model={self.model!r})"

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def status(self) -> list[VersionStatus]:
        """State of every version the server knows, highest first.

        Raises:
            NotFound: the server does not know the model.
        """
        request = protos.MESSAGES["GetModelStatusRequest"]()
        request.model_spec.name = self.model
        versions = [_version_status(entry) for entry in self._call(self._get_status, request).model_version_status]
        return sorted(versions, key=lambda status: -status.version)

    def metadata(self) -> ModelMetadata:
        """The version that would answer now, and its signatures."""
        request = protos.MESSAGES["GetModelMetadataRequest"](metadata_field=["signature_def"])
        self._address(request.model_spec, None)
        response = self._call(self._get_metadata, request)
        signatures = protos.MESSAGES["SignatureDefMap"].FromString(response.metadata["signature_def"].value)
        return ModelMetadata(
            response.model_spec.name,
            response.model_spec.version.value,
            {
                name: Signature(
                    signature.method_name,
                    {key: _tensor_info(info) for key, info in signature.inputs.items()},
                    {key: _tensor_info(info) for key, info in signature.outputs.items()},
                )
                for name, signature in signatures.signature_def.items()
            },
        )

    def _run(self, signature: str, inputs: Inputs, version: int | None) -> Answer:
        request = protos.MESSAGES["PredictRequest"]()
        self._address(request.model_spec, version)
        request.model_spec.signature_name = signature
        for name, values in inputs.items():
            tensor = request.inputs[name]
            tensor.tensor_shape.dim.add(size=len(values))
            if isinstance(values[0], bytes):
                tensor.dtype = protos.DT_STRING
                tensor.string_val.extend(values)
            elif isinstance(values[0], list):
                tensor.dtype = protos.DT_FLOAT
                tensor.tensor_shape.dim.add(size=len(values[0]))
                tensor.float_val.extend(np.asarray(values, np.float32).ravel().tolist())
            else:
                tensor.dtype = protos.DT_INT64
                tensor.int64_val.extend(values)
        began = time.perf_counter()
        response = self._call(self._predict, request)
        outputs = {name: _array(name, tensor) for name, tensor in response.outputs.items()}
        latency_ms = (time.perf_counter() - began) * 1000
        spec = response.model_spec
        return Answer(outputs, spec.version.value if spec.HasField("version") else None, latency_ms)

    def _address(self, spec: Any, version: int | None) -> None:
        """Name the model and, where one is meant, the version or label."""
        spec.name = self.model
        version = version if version is not None else self.version
        if version is not None:
            spec.version.value = version
        elif self.label is not None:
            spec.version_label = self.label

    def _method(self, name: str, request: str, response: str) -> Callable[..., Any]:
        return self._channel.unary_unary(
            f"/tensorflow.serving.{name}",
            request_serializer=protos.MESSAGES[request].SerializeToString,
            response_deserializer=protos.MESSAGES[response].FromString,
        )

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        try:
            return method(request, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._translated(error) from None

    def _translated(self, error: Any) -> ServingError:
        code, details = error.code().name, error.details() or "no message"
        if code == "UNAUTHENTICATED":
            details = "user or password is wrong" if self._metadata else "a user and a password are needed"
        elif code == "DEADLINE_EXCEEDED":
            details = f"no answer within {self._timeout_s:g} s"
        elif code == "UNAVAILABLE":
            details = f"cannot reach it ({details})"
        translated = from_grpc_code(code, details)
        if isinstance(translated, Unauthenticated) or code in ("DEADLINE_EXCEEDED", "UNAVAILABLE"):
            translated.args = (f"{self.url}: {translated}",)
        return translated

    def _wire_bytes(self, image_bytes: int) -> int:
        return image_bytes + 16


def _channel(url: str, retries: int, verify: bool | str) -> grpc.Channel:
    parts = urlsplit(url)
    if parts.path:
        raise ValueError(f"url: gRPC allows no path behind the host, got {url!r}")
    if checked_verify(verify) is False:
        raise ValueError("verify: gRPC cannot skip the check of certificates; give the path of the CA's certificate")
    target = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    if ":" in (parts.hostname or ""):
        target = f"[{parts.hostname}]:{target.rpartition(':')[2]}"
    options = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.enable_http_proxy", 0 if is_loopback(url) else 1),
        ("grpc.per_rpc_retry_buffer_size", _RETRY_BUFFER_BYTES),
        ("grpc.service_config", json.dumps(_service_config(retries))),
    ]
    if parts.scheme == "http":
        return grpc.insecure_channel(target, options)
    roots = Path(verify).read_bytes() if isinstance(verify, str) else None
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(roots), options)


def _service_config(retries: int) -> dict[str, object]:
    """gRPC's own retry policy: predictions change nothing on the server and may be repeated."""
    if retries < 1:
        return {}
    policy = {
        "maxAttempts": min(retries + 1, _MAX_ATTEMPTS),
        "initialBackoff": "0.1s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return {"methodConfig": [{"name": [{}], "retryPolicy": policy}]}


def _array(name: str, tensor: Any) -> object:
    """A TensorProto as an array, or for strings as nested lists of bytes."""
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    try:
        if tensor.dtype == protos.DT_STRING:
            flat = np.empty(len(tensor.string_val), dtype=object)
            flat[:] = list(tensor.string_val)
            return flat.reshape(shape)
        field, dtype = _VALUES[tensor.dtype]
        if tensor.tensor_content:
            return np.frombuffer(tensor.tensor_content, dtype).reshape(shape)
        values = np.array(getattr(tensor, field), dtype)
        # TensorProto may write equal values once
        return np.full(shape, values[0]) if values.size == 1 else values.reshape(shape)
    except (KeyError, ValueError) as error:
        dtype_name = protos.DTYPE_NAMES.get(tensor.dtype, str(tensor.dtype))
        raise BadResponse(f"output {name!r}: cannot read a tensor of {dtype_name} and shape {shape}") from error


def _version_status(entry: Any) -> VersionStatus:
    code = next((c.name for c in grpc.StatusCode if c.value[0] == entry.status.error_code), "UNKNOWN")
    state = protos.VERSION_STATES.get(entry.state, "UNKNOWN")
    return VersionStatus(entry.version, state, code, entry.status.error_message)


def _tensor_info(info: Any) -> TensorInfo:
    shape = info.tensor_shape
    sizes = tuple(None if dim.size < 0 else int(dim.size) for dim in shape.dim)
    return TensorInfo(
        protos.DTYPE_NAMES.get(info.dtype, f"DT_{info.dtype}"),
        None if shape.unknown_rank else sizes,
    )
