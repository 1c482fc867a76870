"""BentoML with adaptive batching as its documentation has it: a service for single requests before the batched one."""

from __future__ import annotations

import bentoml
import numpy as np
from PIL import Image

TRAFFIC = {"timeout": 60}


@bentoml.service(workers=1, traffic=TRAFFIC)
class Classifier:
    def __init__(self) -> None:
        from model import compiled, load

        self.run = compiled(load())

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=1000)
    def predict_batch(self, images: np.ndarray) -> np.ndarray:
        return self.run(images.astype(np.float32)).numpy()


@bentoml.service(workers=1, traffic=TRAFFIC)
class Single:
    classifier = bentoml.depends(Classifier)

    def __init__(self) -> None:
        from model import to_input

        self.to_input = to_input

    @bentoml.api
    async def predict(self, image: Image.Image) -> dict:
        probabilities = (await self.classifier.to_async.predict_batch(self.to_input(image)[None]))[0]
        return {"class_id": int(probabilities.argmax()), "probabilities": probabilities.tolist()}
