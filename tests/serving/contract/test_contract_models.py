"""Any SavedModel: graphs of TensorFlow 1 with init ops, tables and assets; warm-up records."""

from __future__ import annotations

from typing import Any

import contract_models
import pytest


@pytest.mark.parametrize("model", ["graph", "legacy"])
def test_the_init_op_has_run_and_the_assets_are_found(any_target: Any, model: str) -> None:
    words = [*contract_models.WORDS, "other"]
    answer = any_target.post(f"{model}:predict", {"inputs": words}).json()
    assert answer == {"outputs": {"id": [0, 1, 2, -1], "state": [42.0] * 4}}
    answer = any_target.post(f"{model}:regress", {"signature_name": "regress", "examples": [{"x": 2.0}]})
    assert answer.json() == {"results": [20.0]}


def test_warm_up_records_are_replayed_before_a_version_serves(any_target: Any) -> None:
    assert any_target.status("warm") == {7: ("AVAILABLE", 0, "")}
    page = any_target.get("/monitoring/prometheus/metrics").text
    warmed = [line for line in page.splitlines() if line.startswith(":tensorflow:serving:model_warmup_latency_count")]
    assert len(warmed) == 1
    assert warmed[0].endswith('/warm/7",status="OK"} 1')
    assert any_target.metric("request_example_count_total", model="warm") == 1
