"""Everything that trains, evaluates, explains offline, exports and publishes a version."""

import os

# Read when TensorFlow is imported, which by itself uses oneDNN only on some processors of Intel. On an AMD EPYC with
# 2 cores a step at 96 px and batch 128 took 1.8 s with it and 3.0 s without, at 48 px 0.7 and 0.8 s (with Keras' batch
# norms, see batch_norm.py).
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# What goes wrong comes as an exception; its notes on the processor and on missing GPUs bury what a command says.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
