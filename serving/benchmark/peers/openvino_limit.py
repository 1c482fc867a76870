"""The same weights in OpenVINO, f32, in this process with every core busy: how far TensorFlow is from the machine.

No decoding, no preprocessing, no server. Prints JSON: images/s by batch size.
"""

import json
import sys
import tempfile
import time

import numpy as np
import openvino
from model import load

BATCH_SIZES = (1, 32)


def images_per_s(model, batch_size, seconds):
    model.reshape([batch_size, 96, 96, 3])
    compiled = openvino.compile_model(
        model, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    )
    queue = openvino.AsyncInferQueue(compiled)
    images = np.random.default_rng(0).uniform(-1, 1, (batch_size, 96, 96, 3)).astype(np.float32)
    queue.start_async(images)
    queue.wait_all()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        queue.start_async(images)
        count += batch_size
    queue.wait_all()
    return count / (time.perf_counter() - began)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        load().export(scratch, verbose=False)
        model = openvino.convert_model(scratch)
        sys.stdout.write(
            json.dumps({size: images_per_s(model, size, float(sys.argv[1])) for size in BATCH_SIZES}) + "\n"
        )
