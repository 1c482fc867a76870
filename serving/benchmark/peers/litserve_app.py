"""LitServe with dynamic batching, as its documentation shows it; one worker process a core."""

import base64
import os
import sys

import litserve
import numpy as np


class Classifier(litserve.LitAPI):
    def setup(self, device):
        from model import compiled, decode, load  # in the worker process: TensorFlow does not survive a fork

        self.run, self.decode = compiled(load()), decode

    def decode_request(self, request):
        return self.decode(base64.b64decode(request["image"]))

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, images):
        return self.run(images).numpy()

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return {"class_id": int(output.argmax()), "probabilities": output.tolist()}


if __name__ == "__main__":
    api = Classifier(max_batch_size=32, batch_timeout=0.005)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=len(os.sched_getaffinity(0)), timeout=60)
    server.run(port=int(sys.argv[1]), host="127.0.0.1", log_level="warning", generate_client_file=False)
