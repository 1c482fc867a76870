"""The report in docs is that of the version that ships, and the tables on its page are the report's."""

from __future__ import annotations

import json

import pytest
from shipped import ROOT, SHIPPED, VERSION

from training import manifest
from training.versions import MODEL_FILE

METRICS = ("deletion", "insertion", "road", "pointing", "inside", "random_logits", "random_weights")
PAGE = (ROOT / "docs/report.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def report() -> dict:
    return json.loads((ROOT / "docs/report/report.json").read_text(encoding="utf-8"))


def test_it_is_of_the_version_that_ships(report):
    described = manifest.read(SHIPPED)
    assert (report["name"], report["version"], report["effort"]["name"]) == (described["name"], VERSION, "full")
    assert report["classification"]["accuracy"] == described["metrics"]["test"]["accuracy"]
    assert report["faithfulness"]["model_sha256"] == described["files"][MODEL_FILE.as_posix()]
    assert report["calibration"]["validation"] == described["calibration"]
    assert report["left_out"] == []
    card = (ROOT / "docs/report/MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"| accuracy | {report['classification']['accuracy']:.4f} (" in card


def test_the_faithfulness_table_is_the_reports(report):
    for one in report["faithfulness"]["methods"].values():
        layer = f"`{one['layer']}`" if one["layer"] else ""
        cells = (f"{one['metrics'][name]['mean']:.3f}" for name in METRICS)
        assert f"\n| {' | '.join([one['title'], layer, *cells])} |\n" in PAGE


def test_the_calibration_table_is_the_reports(report):
    found = report["calibration"]
    for of, figures in {
        "validation, before": found["validation"]["before"],
        "validation, after": found["validation"]["after"],
        "test, before": found["without_temperature"],
        "test, after (as served)": found["served"],
    }.items():
        error = f"{figures['expected_calibration_error']:.2%}".replace("%", " %")
        row = [of, error, f"{figures['brier_score']:.4f}", f"{figures['negative_log_likelihood']:.4f}"]
        assert f"\n| {' | '.join(row)} |\n" in PAGE
