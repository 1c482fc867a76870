"""The model card (Mitchell et al., 2019, https://arxiv.org/abs/1810.03993) of a version, from manifest and report."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jinja2

from training.evaluation.corruptions import CORRUPTIONS
from training.evaluation.findings import findings

# of the data that are known by name; others are the user's
DATA_LICENCES = {
    "fashion_mnist": "MIT (Zalando SE, https://github.com/zalandoresearch/fashion-mnist)",
    "cifar10": "none stated by its authors (https://www.cs.toronto.edu/~kriz/cifar.html)",
}


def render(described: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """The card as Markdown.

    Args:
        described: the version's manifest.
        report: what `training.evaluation.report.evaluate_version` found.
    """
    # no HTML: what comes from data is escaped for Markdown, which takes care of "<" as well
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("training.evaluation"),
        autoescape=False,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: escaped(value) if isinstance(value, str) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("MODEL_CARD.md.j2").render(
        described=described,
        report=report,
        findings=findings(report),
        corruptions=CORRUPTIONS,
        data_licence=DATA_LICENCES.get(described["training"]["dataset"]),
    )


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, in a table's cell too.

    Example:
        >>> escaped("a|b <i>")
        'a\\\\|b \\\\<i\\\\>'
    """
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", re.sub(r"\s+", " ", text))
