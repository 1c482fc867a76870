"""The client over REST, as TensorFlow Serving speaks it: columnar predict, status, metadata."""

from __future__ import annotations

import base64
import threading
import time
from urllib.parse import quote

from serving.client.base import Answer, BaseClient, Inputs
from serving.client.errors import BadResponse, NotFound
from serving.client.results import ModelMetadata, Signature, TensorInfo, VersionStatus
from serving.client.transport import HttpTransport

_RESOLUTION_LIVES_S = 1.0


class ServingClient(BaseClient):
    """Classify and explain images with a served model, over REST.

    Args:
        url: http(s)://host[:port] of the gateway, or of TensorFlow Serving itself.
        user, password: basic authentication; both or none.
        model: name of the served model.
        version: always ask this version; default the latest.
        label: always ask the version behind this label (`stable`, `canary`, ...).
        timeout_s: longest wait for an answer, seconds, each attempt.
        retries: how many more attempts after a lost connection or a status of 429, 502, 503, 504.
        verify: path of a private CA's certificates; False accepts any certificate (for tests only).

    A predict answer over REST does not say which version made it. So the client asks which version is meant, about
    once a second, and addresses it by number: `Prediction.version` is the version that answered, not a guess. Only
    where several servers stand behind the URL and do not agree (while a new version reaches one after the other) it is
    None: the answer is the one that counts then.
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
        retries: int = 2,
        verify: bool | str = True,
    ) -> None:
        super().__init__(model, version, label)
        self._http = HttpTransport(url, user, password, timeout_s=timeout_s, retries=retries, verify=verify)
        self._path = f"/v1/models/{quote(model, safe='')}"
        self._resolved: tuple[int, float] | None = None
        self._resolve_lock = threading.Lock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._http.url!r}, model={self.model!r})"

    def close(self) -> None:
        """Close the pooled connections."""
        self._http.close()

    def status(self) -> list[VersionStatus]:
        """State of every version the server knows, highest first.

        Raises:
            NotFound: the server does not know the model.
        """
        answer, _ = self._http.call("GET", self._path)
        try:
            return [_version_status(entry) for entry in answer["model_version_status"]]  # type: ignore[attr-defined]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadResponse("the status is not what TensorFlow Serving sends") from error

    def metadata(self) -> ModelMetadata:
        """The version that would answer now, and its signatures."""
        path = self._path
        if self.version is not None:
            path += f"/versions/{self.version}"
        elif self.label is not None:
            path += f"/labels/{quote(self.label, safe='')}"
        answer, _ = self._http.call("GET", path + "/metadata")
        try:
            return _model_metadata(answer)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadResponse("the metadata are not what TensorFlow Serving sends") from error

    def _run(self, signature: str, inputs: Inputs, version: int | None) -> Answer:
        body = {
            "signature_name": signature,
            "inputs": {name: [_json(value) for value in values] for name, values in inputs.items()},
        }
        explicit = version if version is not None else self.version
        if explicit is not None:
            return self._post(explicit, body)
        asked = self._resolve()
        try:
            return self._post(asked, body)
        except NotFound:
            # The version went out of service after it was resolved: another took its place.
            newer = self._resolve(stale=asked)
        if newer != asked:
            try:
                return self._post(newer, body)
            except NotFound:
                pass
        # Who answers about versions is not who answers this: several servers, not yet on one version.
        return self._post(None, body)

    def _post(self, version: int | None, body: object) -> Answer:
        path = self._path
        if version is not None:
            path += f"/versions/{version}"
        elif self.label is not None:
            path += f"/labels/{quote(self.label, safe='')}"
        answer, latency_ms = self._http.call("POST", f"{path}:predict", body)
        outputs = answer.get("outputs")
        if not isinstance(outputs, dict):
            raise BadResponse(f"expected an object under 'outputs', got the keys {sorted(answer)}")
        return Answer(outputs, version, latency_ms)

    def _resolve(self, stale: int | None = None) -> int:
        """The version to address now, at most a second old; `stale` is one that has just been refused."""
        with self._resolve_lock:
            if self._resolved is not None:
                version, until = self._resolved
                if version != stale and time.monotonic() < until:
                    return version
            version = self._current_version()
            self._resolved = (version, time.monotonic() + _RESOLUTION_LIVES_S)
            return version

    def _wire_bytes(self, image_bytes: int) -> int:
        return (image_bytes + 2) // 3 * 4 + len('{"b64":""},')


def _json(value: bytes | int | list[float]) -> object:
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _version_status(entry: dict[str, dict[str, str]]) -> VersionStatus:
    status = entry.get("status", {})
    return VersionStatus(
        int(str(entry["version"])),
        str(entry["state"]),
        status.get("error_code", "OK"),
        status.get("error_message", ""),
    )


def _model_metadata(answer: dict[str, object]) -> ModelMetadata:
    spec, metadata = answer["model_spec"], answer["metadata"]
    signatures = metadata["signature_def"]["signature_def"]  # type: ignore[index]
    return ModelMetadata(
        spec["name"],  # type: ignore[index]
        int(spec["version"]),  # type: ignore[index]
        {
            name: Signature(
                signature["method_name"],
                {key: _tensor_info(value) for key, value in signature["inputs"].items()},
                {key: _tensor_info(value) for key, value in signature["outputs"].items()},
            )
            for name, signature in signatures.items()
        },
    )


def _tensor_info(info: dict[str, object]) -> TensorInfo:
    shape = info["tensor_shape"]
    sizes = [int(dim["size"]) for dim in shape["dim"]]  # type: ignore[index]
    unknown = shape["unknown_rank"]  # type: ignore[index]
    return TensorInfo(str(info["dtype"]), None if unknown else tuple(None if s < 0 else s for s in sizes))
