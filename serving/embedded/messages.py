"""Fills the response messages that REST and gRPC have in common."""

from __future__ import annotations

from collections.abc import Iterable

from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse
from tensorflow_serving.apis.model_pb2 import ModelSpec

from serving.embedded.inference import Model
from serving.embedded.versions import VersionStatus


def model_spec(name: str, version: int, signature_name: str = "") -> ModelSpec:
    """Say which model, version and signature answered."""
    spec = ModelSpec(name=name, signature_name=signature_name)
    spec.version.value = version
    return spec


def fill_status(response: GetModelStatusResponse, statuses: Iterable[VersionStatus]) -> None:
    """Add one entry for each version."""
    for status in statuses:
        entry = response.model_version_status.add(version=status.version, state=int(status.state))
        entry.status.error_code = int(status.code)
        entry.status.error_message = status.message


def fill_signatures(into: SignatureDefMap, model: Model) -> None:
    """Copy every signature of saved_model.pb, init op included."""
    for name, signature in model.signatures.items():
        into.signature_def[name].CopyFrom(signature)
