"""The command's table, and what it refuses; what it writes is in evaluation/test_report.py."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluate import main, table
from training.evaluation.classification import metrics
from training.versions import version_of


def test_table_says_it_all():
    text = table(metrics(np.array([[2, 1, 0], [0, 2, 0], [1, 0, 0]]), ["bag", "boot", "coat"]))
    assert "accuracy 0.6667" in text
    assert "macro F1 0.4889 (95 % bootstrap interval" in text
    for name in ("bag", "boot", "coat"):
        assert name in text


def test_a_model_or_version_that_is_not_there(tmp_path):
    for number in (1, 3):
        (tmp_path / "clothing" / str(number)).mkdir(parents=True)
    assert version_of(tmp_path, "clothing", None).name == "3"
    with pytest.raises(FileNotFoundError, match="no model 'cloting' .did you mean 'clothing'..; there are: clothing"):
        version_of(tmp_path, "cloting", None)
    with pytest.raises(FileNotFoundError, match="no version 2; there are: 1, 3"):
        version_of(tmp_path, "clothing", 2)


def test_a_directory_that_is_no_version_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "clothing" / "1").mkdir(parents=True)
    assert main(["--models", str(tmp_path), "--name", "clothing", "--reports", str(tmp_path / "reports")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "is not a version directory written by training.export" in error
    assert not (tmp_path / "reports").exists()
