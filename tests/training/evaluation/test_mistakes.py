"""Mistakes, neighbours and doubtful labels, planted."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from training.evaluation.mistakes import confident_mistakes, likely_label_errors, nearest


def test_the_most_confident_mistakes_come_first():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.95, 0.05]])
    assert confident_mistakes(probabilities, np.array([1, 1, 1, 0]), 5).tolist() == [0, 1]
    assert confident_mistakes(probabilities, np.array([1, 1, 1, 0]), 1).tolist() == [0]
    assert confident_mistakes(probabilities, probabilities.argmax(axis=1), 5).tolist() == []


def test_neighbours_are_by_angle():
    positions, cosines = nearest(np.array([[1.0, 0.0]]), np.array([[0.0, 3.0], [9.0, 1.0], [0.1, 0.0], [0.0, 0.0]]), 2)
    assert positions.tolist() == [[2, 1]]
    assert cosines[0] == pytest.approx([1.0, 9 / np.sqrt(82)])


def test_planted_label_errors_are_found():
    generator = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], 60)
    probabilities = np.full((180, 3), 0.05)
    probabilities[np.arange(180), truth] = 0.9
    probabilities += generator.uniform(0, 0.02, probabilities.shape)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    labels = truth.copy()
    labels[[5, 70, 150]] = [2, 0, 1]
    assert sorted(likely_label_errors(probabilities, labels).tolist()) == [5, 70, 150]


def test_without_cleanlab_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(ImportError, match=r"need cleanlab: .*pip install -r training/requirements-extra.txt$"):
        likely_label_errors(np.eye(2), np.array([0, 1]))
