"""What both clients do alike: split, ask, decode, learn the class names, find the guilty image. Transports differ."""

from __future__ import annotations

import dataclasses
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeAlias

import numpy as np

from serving.client import classes as class_names
from serving.client import decode
from serving.client.errors import BadResponse, InvalidArgument, InvalidInput, NotFound, ServerUnavailable
from serving.client.example import bytes_example
from serving.client.images import EncodedImage, ImageLike, encode_all
from serving.client.results import Bytes, Explanation, FineExplanation, ModelMetadata, Prediction, VersionStatus, View

MAX_REQUEST_BYTES = 10 * 1024 * 1024  # what the gateway takes in one request
MAX_IMAGES_PER_REQUEST = 32  # an answer well within the timeout, on one CPU core too
_PREDICTED = -1  # the class id that stands for the predicted class
_ENVELOPE_BYTES = 1024  # signature name, keys, brackets
_VALUE_BYTES = 6  # of a pixel as a number, at most: "255.0,"
_NOT_ABOUT_AN_IMAGE = ("version label", "Serving signature", "No signature was found", "does not match signature")


@dataclass(frozen=True)
class Answer:
    """Outputs of one request, the version that made them, and how long it took."""

    outputs: decode.Outputs
    version: int | None
    latency_ms: float


# Of one request, by name; one value, or one list of numbers, an image each
Inputs: TypeAlias = Mapping[str, Sequence[bytes] | Sequence[int] | Sequence[list[float]]]


class BaseClient(ABC):
    """Predict, explain, view, status and metadata over a transport that the subclass brings. Threads may share it."""

    def __init__(self, model: str, version: int | None, label: str | None) -> None:
        if not model:
            raise ValueError("model: expected the name of the served model, got an empty string")
        if version is not None and label is not None:
            raise ValueError("give either version or label, not both")
        self.model = model
        self.version = version
        self.label = label
        self._classes: dict[int, tuple[str, ...]] = {}
        self._classes_lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close the connections. The client cannot be used afterwards."""

    @abstractmethod
    def status(self) -> list[VersionStatus]:
        """State of every version the server knows, highest first.

        Raises:
            NotFound: the server does not know the model.
        """

    @abstractmethod
    def metadata(self) -> ModelMetadata:
        """The version that would answer now, and its signatures."""

    @abstractmethod
    def _run(self, signature: str, inputs: Inputs, version: int | None) -> Answer:
        """Send one request; `version` None means the client's own version, label, or the latest."""

    @abstractmethod
    def _wire_bytes(self, image_bytes: int) -> int:
        """Bytes that an image of this size takes in a request."""

    def predict(self, images: ImageLike | Iterable[ImageLike], *, version: int | None = None) -> list[Prediction]:
        """Classify images.

        Args:
            images: one or a sequence of: path, encoded bytes (PNG, JPEG, GIF, BMP), uint8 array, PIL image.
                Large sequences travel in several requests.
            version: the model version to ask; default the client's version or label, else the latest.

        Returns:
            One prediction an image, in order.

        Raises:
            InvalidInput: an image cannot be sent; nothing was.
            InvalidArgument: the server refused an image; `index` says which, where it can be known.
            ServingError: any other branch of the tree in `serving.client`.

        Example:
            with ServingClient("http://127.0.0.1:8080", "vitrine", password) as client:
                print(client.predict("shirt.png")[0].class_name)
        """
        results: list[Prediction] = []
        for answer, count in self._ask("serving_default", images, version):
            results += _predictions(answer, count)
        return results

    def explain(self, images: ImageLike | Iterable[ImageLike], *, version: int | None = None) -> list[Explanation]:
        """Classify images and say where the evidence for every class lies. Arguments and errors as `predict`."""
        results: list[Explanation] = []
        for answer, count in self._ask("explain", images, version):
            predictions = _predictions(answer, count)
            n_classes = len(predictions[0].probabilities)
            cams = decode.floats(answer.outputs, "cams", (count, n_classes, None, None))
            results += [Explanation(**vars(p), cams=cams[i]) for i, p in enumerate(predictions)]
        return results

    def explain_fine(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        class_ids: int | Sequence[int] | None = None,
        version: int | None = None,
    ) -> list[FineExplanation]:
        """Classify images and say where the evidence for one class lies, in finer maps than those of `explain`.

        Args:
            images: as for `predict`.
            class_ids: the class to explain, one for all images or one an image; default the predicted one of each.
            version: as for `predict`.

        Raises:
            ValueError: as many class ids as images were expected.
            ServingError: as `predict`; InvalidArgument where the model has no such class or no fine maps.
        """
        encoded = encode_all(images)
        given = np.asarray(_PREDICTED if class_ids is None else class_ids)
        ids = (given if given.ndim else np.full(len(encoded), given)).tolist()
        if len(ids) != len(encoded):
            raise ValueError(f"class_ids: expected one an image, {len(encoded)} in all, got {len(ids)}")
        asked = [dataclasses.replace(image, class_id=one) for image, one in zip(encoded, ids, strict=True)]
        results: list[FineExplanation] = []
        for answer, count in self._ask_encoded("explain_fine", asked, version):
            names = sorted(name for name in answer.outputs if name.startswith("map_"))
            maps = {name: decode.floats(answer.outputs, name, (count, None, None)) for name in names}
            for i, prediction in enumerate(_predictions(answer, count)):
                one = ids[len(results)]
                explained = prediction.class_id if one == _PREDICTED else one
                found = {name: values[i] for name, values in maps.items()}
                results.append(FineExplanation(**vars(prediction), explained=explained, maps=found))
        return results

    def preprocess(self, images: ImageLike | Iterable[ImageLike], *, version: int | None = None) -> list[View]:
        """What the model sees of each image, and where that square lies in it. Arguments and errors as `predict`."""
        results: list[View] = []
        for answer, count in self._ask("preprocess", images, version):
            boxes = decode.floats(answer.outputs, "box", (count, 4))
            views = decode.blobs(answer.outputs, "view_bytes", count)
            results += [View(decode.png(view, "view_bytes"), boxes[i]) for i, view in enumerate(views)]
        return results

    def predict_views(self, views: Bytes, *, version: int | None = None) -> list[Prediction]:
        """Classify what the model sees, such as `preprocess` gives, as it is: nothing is trimmed or resized.

        Args:
            views: uint8 (N, h, w) or (N, h, w, 3), 0..255, of the size that the model sees.
            version: as for `predict`.

        Raises:
            InvalidInput: views of another shape or dtype; nothing was sent.
            ServingError: as `predict`; InvalidArgument where the model sees another size.
        """
        if views.dtype != np.uint8 or views.ndim not in (3, 4) or not views.size:
            raise InvalidInput(f"views: expected uint8 (N, h, w) or (N, h, w, 3), got {views.dtype} {views.shape}")
        rows = views.reshape(len(views), -1).astype(float)
        at_once = min(MAX_IMAGES_PER_REQUEST, max(1, MAX_REQUEST_BYTES // (_VALUE_BYTES * rows.shape[1])))
        results: list[Prediction] = []
        for start in range(0, len(rows), at_once):
            chunk = rows[start : start + at_once]
            results += _predictions(self._run("pixels", {"pixels": chunk.tolist()}, version), len(chunk))
        return results

    def classes(self, version: int | None = None) -> tuple[str, ...]:
        """Names of the classes in order of their id, learned from the model and remembered per version.

        Args:
            version: the version whose names are meant; default the one that would answer now.

        Raises:
            BadResponse: the model does not give its names (it lacks the signature `classify`, or it disagrees).
        """
        version = self._current_version() if version is None else version
        with self._classes_lock:
            known = self._classes.get(version)
        if known is None:
            known = self._learn_classes(version)
            with self._classes_lock:
                self._classes[version] = known
        return known

    def _current_version(self) -> int:
        """The version that would answer a request without an explicit one."""
        if self.version is not None:
            return self.version
        if self.label is not None:
            return self.metadata().version
        return latest_available(self.model, self.status())

    def _learn_classes(self, version: int) -> tuple[str, ...]:
        for probe in class_names.probes():
            example = bytes_example("image_bytes", probe)
            by_id = self._run("serving_default", {"image_bytes": [probe]}, version).outputs
            by_rank = self._run("classify", {"inputs": [example]}, version).outputs
            probabilities = decode.floats(by_id, "probabilities", (1, None))[0]
            scores = decode.floats(by_rank, "scores", (1, None))[0]
            names = decode.texts({"classes": decode.only_row(by_rank, "classes")}, "classes", len(scores))
            joined = class_names.join(probabilities, names, scores)
            if joined is not None:
                return joined
        raise BadResponse("the model gives the probe pictures equal probabilities; its class names cannot be ordered")

    def _ask(
        self, signature: str, images: ImageLike | Iterable[ImageLike], version: int | None
    ) -> Iterator[tuple[Answer, int]]:
        return self._ask_encoded(signature, encode_all(images), version)

    def _ask_encoded(
        self, signature: str, encoded: Sequence[EncodedImage], version: int | None
    ) -> Iterator[tuple[Answer, int]]:
        start = 0
        for chunk in list(self._chunks(encoded)):  # refuse what is too large before anything is sent
            try:
                yield self._run(signature, _inputs(chunk), version), len(chunk)
            except InvalidArgument as error:
                raise self._blamed(error, signature, chunk, start, version) from error
            start += len(chunk)

    def _chunks(self, encoded: Sequence[EncodedImage]) -> Iterator[list[EncodedImage]]:
        chunk: list[EncodedImage] = []
        used = _ENVELOPE_BYTES
        for index, image in enumerate(encoded):
            size = self._wire_bytes(len(image.data))
            if size + _ENVELOPE_BYTES > MAX_REQUEST_BYTES:
                error = InvalidInput(
                    f"{image.name}: too large, {size / 1e6:.1f} MB in a request that may hold "
                    f"{MAX_REQUEST_BYTES / 1e6:.1f} MB; make it smaller or save it as JPEG"
                )
                error.index = index
                raise error
            if chunk and (used + size > MAX_REQUEST_BYTES or len(chunk) == MAX_IMAGES_PER_REQUEST):
                yield chunk
                chunk, used = [], _ENVELOPE_BYTES
            chunk.append(image)
            used += size
        if chunk:
            yield chunk

    def _blamed(
        self, error: InvalidArgument, signature: str, chunk: list[EncodedImage], start: int, version: int | None
    ) -> InvalidArgument:
        """The server's refusal with the name of the image it is about, where one can be found."""
        guilty = None
        if not any(text in str(error) for text in _NOT_ABOUT_AN_IMAGE):
            guilty, error = self._guilty(error, signature, chunk, version)
        if guilty is None:
            return error
        named = InvalidArgument(f"{chunk[guilty].name}: {error}")
        named.index, named.status, named.grpc_code = start + guilty, error.status, error.grpc_code
        return named

    def _guilty(
        self, error: InvalidArgument, signature: str, chunk: list[EncodedImage], version: int | None
    ) -> tuple[int | None, InvalidArgument]:
        """The first image that is refused alone, and that refusal, found by asking again with halves of the chunk.

        At most log2(N) + 1 more requests, and only after a refusal. When not one of them is answered, the refusal
        may not be about an image at all, and none is blamed.
        """
        low, high, any_passed = 0, len(chunk), len(chunk) == 1
        while high - low > 1:
            middle = (low + high) // 2
            refusal = self._refusal(signature, chunk[low:middle], version)
            if refusal is None:
                low, any_passed = middle, True
            else:
                high, error = middle, refusal
        if any_passed or self._refusal(signature, chunk[-1:], version) is None:
            return low, error
        return None, error

    def _refusal(self, signature: str, chunk: list[EncodedImage], version: int | None) -> InvalidArgument | None:
        try:
            self._run(signature, _inputs(chunk), version)
        except InvalidArgument as error:
            return error
        return None


def _inputs(chunk: Sequence[EncodedImage]) -> Inputs:
    inputs: dict[str, Sequence[bytes] | Sequence[int]] = {"image_bytes": [image.data for image in chunk]}
    class_ids = [image.class_id for image in chunk if image.class_id is not None]
    return inputs | {"class_id": class_ids} if class_ids else inputs


def latest_available(model: str, versions: Sequence[VersionStatus]) -> int:
    """The version TensorFlow Serving means by "latest": the highest that is loaded.

    Raises:
        ServerUnavailable: none is loaded yet, one is on its way.
        NotFound: none is loaded and none is coming.
    """
    available = [status.version for status in versions if status.available]
    if available:
        return max(available)
    if any(status.state in ("START", "LOADING") for status in versions):
        raise ServerUnavailable(f"model {model} is still being loaded")
    reasons = "; ".join(f"version {s.version}: {s.error_message}" for s in versions if s.error_message)
    raise NotFound(f"model {model} has no version that is available" + (f" ({reasons})" if reasons else ""))


def _predictions(answer: Answer, count: int) -> list[Prediction]:
    probabilities = decode.floats(answer.outputs, "probabilities", (count, None))
    ids = decode.integers(answer.outputs, "class_id", (count,))
    names = decode.texts(answer.outputs, "class_name", count)
    if count and not (ids.min() >= 0 and ids.max() < probabilities.shape[1]):
        raise BadResponse(f"class_id outside 0..{probabilities.shape[1] - 1}: {ids.tolist()}")
    return [
        Prediction(int(ids[i]), names[i], probabilities[i], answer.version, answer.latency_ms) for i in range(count)
    ]
