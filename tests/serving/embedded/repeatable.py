"""How the property-based tests run: the same examples every time, and nothing left in the checkout."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, configuration, settings

# Hypothesis keeps tables it computes once; they belong with pytest's own cache.
configuration.set_hypothesis_home_dir(Path(__file__).resolve().parents[3] / ".pytest_cache" / "hypothesis")


def repeatable(max_examples: int = 300) -> settings:
    """Settings for a test: a slow machine fails nothing."""
    unhurried = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        derandomize=True, database=None, deadline=None, max_examples=max_examples, suppress_health_check=unhurried
    )
