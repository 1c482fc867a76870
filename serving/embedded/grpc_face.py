"""The gRPC face: PredictionService, ModelService, and grpc.health.v1.Health where it is asked for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import grpc
import numpy as np
from google.protobuf.message import DecodeError, Message
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)
from tensorflow_serving.apis.model_pb2 import ModelSpec

from serving.embedded import examples, inference, messages, metrics
from serving.embedded.config_reloader import ConfigReloader
from serving.embedded.errors import Code, ServingError, code_and_message, grpc_message, invalid_argument, let_go
from serving.embedded.inference import Classification, Task
from serving.embedded.proto_tensors import from_proto, to_proto
from serving.embedded.versions import VersionManager

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Context = grpc.aio.ServicerContext
IN_PLACE_LIMIT = 16 * 1024  # bytes; a message up to this is taken apart in a fraction of a millisecond
_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}
# HealthCheckResponse{status: …}, and every HealthCheckRequest{service: …} whose service is there
_SERVING, _SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x03"
_HEALTHY = (b"", b"\x0a\x0cModelService", b"\x0a\x11PredictionService")


def server(
    manager: VersionManager, configs: ConfigReloader, executor: Executor, as_content: bool, health: bool
) -> grpc.aio.Server:
    """Make the server, without ports. No limit on message sizes; a port that is taken is an error."""
    options = [
        ("grpc.max_send_message_length", -1),
        ("grpc.max_receive_message_length", -1),
        ("grpc.so_reuseport", 0),
    ]
    logging.getLogger("grpc._cython.cygrpc").addFilter(_no_client_that_left)
    made = grpc.aio.server(options=options, interceptors=(_Decoding(),))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(manager, executor, as_content), made
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(manager, configs), made)
    if health:
        made.add_generic_rpc_handlers((_health_handler(),))
    return made


def _no_client_that_left(record: logging.LogRecord) -> bool:
    """Drop what grpc.aio logs, with a traceback, where a client leaves while its answer is being sent."""
    return not (record.exc_info and type(record.exc_info[1]).__name__ == "ExecuteBatchError")


class _Decoding(grpc.aio.ServerInterceptor):
    """Decodes requests: bytes that are no message are INTERNAL, as from a C++ server; grpc.aio says UNKNOWN."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """Put the decoding into the handler, where a failure can be answered."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler

        async def decode_and_handle(data: bytes, context: Context) -> Any:
            try:
                request = handler.request_deserializer(data)
            except DecodeError as error:
                context.set_code(grpc.StatusCode.INTERNAL)
                context.set_details(grpc_message(str(error)))
                return None
            return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(decode_and_handle, None, handler.response_serializer)


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict, Classify, Regress, MultiInference, GetModelMetadata."""

    def __init__(self, manager: VersionManager, executor: Executor, as_content: bool) -> None:
        self._manager = manager
        self._executor = executor
        self._as_content = as_content

    async def Predict(self, request: predict_pb2.PredictRequest, context: Context) -> predict_pb2.PredictResponse:  # noqa: N802
        """Run any signature."""
        return await self._infer("Predict", self._predict, request, context, request.model_spec.name)

    async def Classify(  # noqa: N802
        self, request: classification_pb2.ClassificationRequest, context: Context
    ) -> classification_pb2.ClassificationResponse:
        """Run a signature with "classes" and "scores" on tf.Examples."""
        work = partial(self._work, self._classify)
        return await self._infer("Classify", work, request, context, request.model_spec.name)

    async def Regress(  # noqa: N802
        self, request: regression_pb2.RegressionRequest, context: Context
    ) -> regression_pb2.RegressionResponse:
        """Run a signature with one number for each tf.Example."""
        work = partial(self._work, self._regress)
        return await self._infer("Regress", work, request, context, request.model_spec.name)

    async def MultiInference(  # noqa: N802
        self, request: inference_pb2.MultiInferenceRequest, context: Context
    ) -> inference_pb2.MultiInferenceResponse:
        """Run several signatures on the same tf.Examples."""
        return await self._infer("", partial(self._work, self._multi_infer), request, context, "")

    async def GetModelMetadata(  # noqa: N802
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: Context
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Return the signatures of a version."""
        return _answer(context, lambda: self._metadata(request))

    async def _infer(
        self,
        api: str,
        infer: Callable[[Any, int | None], Awaitable[Answer]],
        request: Any,
        context: Context,
        model: str,
    ) -> Answer:
        """Do the inference within the client's deadline, and count it."""
        start = time.perf_counter()
        remaining = context.time_remaining()
        timeout_ms = None if remaining is None else int(remaining * 1000)
        try:
            answer = await infer(request, timeout_ms)
        except Exception as error:
            if api:
                metrics.count_request(model, code_and_message(error)[0].name)
            return _fail(context, error)
        if api:
            metrics.count_request(model, Code.OK.name)
            metrics.request_latency(model, api, "GRPC", time.perf_counter() - start)
        return answer

    async def _work(self, work: Callable[..., Answer], *arguments: Any) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)

    async def _predict(
        self, request: predict_pb2.PredictRequest, timeout_ms: int | None
    ) -> predict_pb2.PredictResponse:
        _check_spec(request)
        name = request.model_spec.signature_name or inference.DEFAULT_SIGNATURE
        with _use(self._manager, request.model_spec) as model:
            inference.check_number_of_inputs(inference.find_predict_signature(model, name), set(request.inputs))
            in_place = request.ByteSize() <= IN_PLACE_LIMIT
            inputs = _tensors(request) if in_place else await self._work(_tensors, request)

            def write(outputs: dict[str, np.ndarray]) -> predict_pb2.PredictResponse:
                response = predict_pb2.PredictResponse(model_spec=messages.model_spec(model.name, model.version, name))
                for alias, tensor in outputs.items():
                    to_proto(tensor, self._as_content, response.outputs[alias])
                return response

            return await inference.predict_async(model, name, inputs, request.output_filter, timeout_ms, write)

    def _classify(
        self, request: classification_pb2.ClassificationRequest, timeout_ms: int | None
    ) -> classification_pb2.ClassificationResponse:
        response = classification_pb2.ClassificationResponse()
        _fill_classification(response.result, self._run_examples(inference.classify, request, timeout_ms, response))
        return response

    def _regress(
        self, request: regression_pb2.RegressionRequest, timeout_ms: int | None
    ) -> regression_pb2.RegressionResponse:
        response = regression_pb2.RegressionResponse()
        _fill_regression(response.result, self._run_examples(inference.regress, request, timeout_ms, response))
        return response

    def _run_examples(self, run: Callable[..., Answer], request: Any, timeout_ms: int | None, response: Any) -> Answer:
        """Run Classify or Regress, and name in the response what answered."""
        _check_spec(request)
        name = request.model_spec.signature_name or inference.DEFAULT_SIGNATURE
        with _use(self._manager, request.model_spec) as model:
            found = run(model, name, examples.from_input(request.input), timeout_ms)
        response.model_spec.CopyFrom(messages.model_spec(model.name, model.version, name))
        return found

    def _multi_infer(
        self, request: inference_pb2.MultiInferenceRequest, timeout_ms: int | None
    ) -> inference_pb2.MultiInferenceResponse:
        tasks = [Task(task.model_spec.name, task.model_spec.signature_name, task.method_name) for task in request.tasks]
        with _use(self._manager, request.tasks[0].model_spec if request.tasks else ModelSpec()) as model:
            answers = inference.multi_infer(model, tasks, examples.from_input(request.input), timeout_ms)
        response = inference_pb2.MultiInferenceResponse()
        for task, answer in zip(tasks, answers, strict=True):
            name = task.signature or inference.DEFAULT_SIGNATURE
            result = response.results.add(model_spec=messages.model_spec(model.name, model.version, name))
            if isinstance(answer, Classification):
                _fill_classification(result.classification_result, answer)
            else:
                _fill_regression(result.regression_result, answer)
        return response

    def _metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        _check_spec(request, name_required=False)
        if not request.metadata_field:
            raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid_argument(f"Metadata field {field} is not supported")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        signatures = get_model_metadata_pb2.SignatureDefMap()
        with _use(self._manager, request.model_spec) as model:
            messages.fill_signatures(signatures, model)
            response.model_spec.CopyFrom(messages.model_spec(model.name, model.version))
        response.metadata["signature_def"].Pack(signatures)
        return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus and HandleReloadConfigRequest."""

    def __init__(self, manager: VersionManager, configs: ConfigReloader) -> None:
        self._manager = manager
        self._configs = configs

    async def GetModelStatus(  # noqa: N802
        self, request: get_model_status_pb2.GetModelStatusRequest, context: Context
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Return the states of a model's versions."""
        return _answer(context, lambda: self._status(request))

    async def HandleReloadConfigRequest(  # noqa: N802
        self, request: model_management_pb2.ReloadConfigRequest, context: Context
    ) -> model_management_pb2.ReloadConfigResponse:
        """Replace the whole config; returns when its models are loaded."""
        # A thread of its own for each call: it may wait for ever, and must not take a worker from anyone else.
        thread = ThreadPoolExecutor(1, "reload")
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, self._reload, request)
        except Exception as error:
            return _fail(context, error)
        finally:
            thread.shutdown(wait=False)

    def _status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        _check_spec(request, name_required=False)
        spec = request.model_spec
        version = spec.version.value if spec.HasField("version") else None
        response = get_model_status_pb2.GetModelStatusResponse()
        messages.fill_status(response, self._manager.status(spec.name, version))
        return response

    def _reload(self, request: model_management_pb2.ReloadConfigRequest) -> model_management_pb2.ReloadConfigResponse:
        before = {name: metrics.first_value(name) for name in request.metric_names}
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid_argument(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        self._configs.apply(request.config)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.error_code = 0
        for name, value in before.items():
            response.metric.add(name=name, int64_value_increase=metrics.first_value(name) - value)
        return response


def _answer(context: Context, work: Callable[[], Answer]) -> Answer:
    """Do work that needs no worker thread."""
    try:
        return work()
    except Exception as error:
        return _fail(context, error)


def _fail(context: Context, error: Exception) -> Any:
    """Set the status of a failed call; what the handler then returns is not looked at.

    Not by `context.abort`: what that raises lives in a cycle, with the request, until the garbage collector comes.
    """
    code, message = code_and_message(error)
    if code == Code.INTERNAL:
        log.error("gRPC call failed", exc_info=error)
    let_go(error)
    context.set_code(_STATUS_CODES[int(code)])
    context.set_details(grpc_message(message))


def _use(manager: VersionManager, spec: ModelSpec) -> Any:
    version = spec.version.value if spec.HasField("version") else None
    label = spec.version_label if spec.WhichOneof("version_choice") == "version_label" else None
    if not spec.name:
        raise invalid_argument("ModelSpec has no name specified.")
    return manager.use(spec.name, version, label)


def _check_spec(request: Message, name_required: bool = True) -> None:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")
    if name_required and not request.model_spec.name:  # type: ignore[attr-defined]
        raise invalid_argument("ModelSpec has no name specified.")


def _tensors(request: predict_pb2.PredictRequest) -> dict[str, np.ndarray]:
    tensors = {}
    for alias, proto in request.inputs.items():
        try:
            tensors[alias] = from_proto(proto)
        except (ValueError, OverflowError):
            raise invalid_argument(f"tensor parsing error: {alias}") from None
    return tensors


def _fill_classification(result: classification_pb2.ClassificationResult, found: Classification) -> None:
    shape = (found.labels if found.labels is not None else found.scores).shape  # type: ignore[union-attr]
    labels = found.labels.tolist() if found.labels is not None else None
    scores = found.scores.tolist() if found.scores is not None else None
    for row in range(shape[0]):
        classes = result.classifications.add().classes
        for column in range(shape[1]):
            entry = classes.add()
            if labels is not None:
                entry.label = labels[row][column].decode("utf-8", "replace")
            if scores is not None:
                entry.score = scores[row][column]


def _fill_regression(result: regression_pb2.RegressionResult, values: np.ndarray) -> None:
    for value in values.tolist():
        result.regressions.add(value=value)


def _health_handler() -> grpc.GenericRpcHandler:
    """Health for the server as a whole, on raw bytes: the two messages are too small for generated code.

    A request that is not empty names a single service. One that is not known is no error in `Watch`, but an answer.
    """

    async def check(request: bytes, context: Context) -> bytes:
        if request not in _HEALTHY:
            return _fail(context, ServingError(Code.NOT_FOUND, "service name unknown"))
        return _SERVING

    async def watch(request: bytes, context: Context) -> AsyncIterator[bytes]:
        yield _SERVING if request in _HEALTHY else _SERVICE_UNKNOWN
        await asyncio.Event().wait()  # until the client or the server goes

    return grpc.method_handlers_generic_handler(
        "grpc.health.v1.Health",
        {
            "Check": grpc.unary_unary_rpc_method_handler(check),
            "Watch": grpc.unary_stream_rpc_method_handler(watch),
        },
    )
