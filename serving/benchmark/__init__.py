"""Throughput and latency of this server beside other ways to serve the same model: `python -m serving.benchmark`."""
