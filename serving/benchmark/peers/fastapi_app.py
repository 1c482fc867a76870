"""The better student API: FastAPI, PIL and a `tf.function`, in FastAPI's thread pool."""

import sys
from typing import Annotated

import uvicorn
from fastapi import FastAPI, File
from model import compiled, decode, load

app = FastAPI()
run = compiled(load())


@app.post("/predict")
def predict(image: Annotated[bytes, File()]):
    probabilities = run(decode(image)[None]).numpy()[0]
    return {"class_id": int(probabilities.argmax()), "probabilities": probabilities.tolist()}


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
