"""Client of a served image model. Needs numpy, pillow and requests; neither TensorFlow nor Keras.

    from serving.client import ServingClient

    with ServingClient("http://127.0.0.1:8080", "vitrine", password) as client:
        for prediction in client.predict(["shirt.png", "boot.jpg"]):
            print(prediction.class_name, prediction.probability, prediction.version)

The same over gRPC: `serving.client.grpc.GrpcServingClient`.

Everything that can go wrong is a ServingError:

    ServingError                    HTTP            gRPC                                       sent?
    ├── InvalidInput (ValueError)   -               -                                          no
    ├── InvalidArgument             400 422         INVALID_ARGUMENT FAILED_PRECONDITION OUT_OF_RANGE
    ├── Unauthenticated             401 407         UNAUTHENTICATED
    ├── PermissionDenied            403             PERMISSION_DENIED
    ├── NotFound                    404             NOT_FOUND
    ├── Conflict                    409             ALREADY_EXISTS ABORTED
    ├── ResourceExhausted           429             RESOURCE_EXHAUSTED
    │   └── PayloadTooLarge         413             -
    ├── Cancelled                   499             CANCELLED
    ├── InternalError               500, other 5xx  UNKNOWN INTERNAL DATA_LOSS
    ├── Unimplemented               405 501         UNIMPLEMENTED
    ├── ServerUnavailable           502 503         UNAVAILABLE; no connection
    ├── DeadlineExceeded            408 504         DEADLINE_EXCEEDED; no answer in time
    └── BadResponse                 other           an answer that TensorFlow Serving does not send

The table itself is in `serving.client.errors`.
"""

from serving.client.base import latest_available
from serving.client.errors import (
    BadResponse,
    Cancelled,
    Conflict,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    InvalidInput,
    NotFound,
    PayloadTooLarge,
    PermissionDenied,
    ResourceExhausted,
    ServerUnavailable,
    ServingError,
    Unauthenticated,
    Unimplemented,
)
from serving.client.images import ImageLike
from serving.client.rest import ServingClient
from serving.client.results import (
    Explanation,
    FineExplanation,
    ModelMetadata,
    Prediction,
    Score,
    Signature,
    TensorInfo,
    VersionStatus,
    View,
)

__all__ = [
    "BadResponse",
    "Cancelled",
    "Conflict",
    "DeadlineExceeded",
    "Explanation",
    "FineExplanation",
    "ImageLike",
    "InternalError",
    "InvalidArgument",
    "InvalidInput",
    "ModelMetadata",
    "NotFound",
    "PayloadTooLarge",
    "PermissionDenied",
    "Prediction",
    "ResourceExhausted",
    "Score",
    "ServerUnavailable",
    "ServingClient",
    "ServingError",
    "Signature",
    "TensorInfo",
    "Unauthenticated",
    "Unimplemented",
    "VersionStatus",
    "View",
    "latest_available",
]
