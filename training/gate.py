"""The gate before publishing: a candidate has to match the version in service on the same test images.

McNemar's test (1947) says whether the two differ by more than chance: of the images that exactly one of them gets
right, each should be right half of the time.
"""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from training import manifest
from training.datasets import DataError, Split, split_settings
from training.evaluation.served import answers
from training.versions import versions

CONFIG = Path(__file__).resolve().parent.parent / "serving" / "config" / "models.config"
TOLERANCE = 0.002  # of accuracy: two images of a thousand


class GateError(ValueError):
    """A candidate that is not to be published as it is."""


@dataclass(frozen=True)
class Comparison:
    """Candidate against the version in service, on the same images."""

    against: int  # the version in service
    images: int
    accuracy: float  # of the candidate
    accuracy_in_service: float
    only_candidate_right: int
    only_in_service_right: int
    mcnemar_p: float  # two-sided, exact

    def __str__(self) -> str:
        return (
            f"candidate {self.accuracy:.4f}, version {self.against} in service {self.accuracy_in_service:.4f} on "
            f"{self.images} test images; right where the other is wrong: {self.only_candidate_right} against "
            f"{self.only_in_service_right} (McNemar p = {self.mcnemar_p:.3g})"
        )


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided exact p-value: a coin thrown only_first + only_second times, at least as one-sided as found.

    Example:
        >>> round(mcnemar(1, 9), 4)
        0.0215
    """
    total, fewer = only_first + only_second, min(only_first, only_second)
    log_half = total * math.log(0.5)
    tail = math.fsum(
        math.exp(math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) + log_half)
        for k in range(fewer + 1)
    )
    return min(1.0, 2.0 * tail)


def in_service(base_path: Path, config: Path | None = None) -> int | None:
    """The version that answers in production: the label `stable` or the highest version that the model config asks for,
    where it says so; else the newest. None where there is no version.

    Raises:
        GateError: the config cannot be read.
    """
    found, config = versions(base_path), config or CONFIG
    for model in (*_models(config), *_models(config.parent / "local" / config.name)):
        if _folder(model, config).resolve() == base_path.resolve():
            wanted = [model.version_labels.get("stable"), *sorted(model.model_version_policy.specific.versions)[::-1]]
            chosen = next((version for version in wanted if version in found), None)
            if chosen is not None:
                return chosen
    return found[-1] if found else None


def _models(config: Path) -> Iterable[ModelConfig]:
    try:
        text = config.read_text(encoding="utf-8") if config.is_file() else ""
        return text_format.Parse(text, ModelServerConfig()).model_config_list.config
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise GateError(f"{config} cannot be read: {error}") from error


def _folder(model: ModelConfig, config: Path) -> Path:
    """Where its versions are here: the container's /models is the folder beside that of the config."""
    base_path = Path(model.base_path)
    if base_path.is_relative_to("/models"):
        return config.parent.parent / "models" / base_path.relative_to("/models")
    return base_path


def compare(candidate: Path, in_service_dir: Path, load_test: Callable[[Path], Split]) -> Comparison:
    """Both through their served signature on the test images, each at the size that it was trained at.

    Raises:
        GateError: they know different classes, or were trained on different splits.
        DataError: the test images cannot be had.
    """
    described = manifest.read(candidate)
    with _readable(in_service_dir):
        other = manifest.read(in_service_dir)
        others = other["classes"]
    classes = described["classes"]
    if classes != others:
        raise GateError(
            f"the candidate knows the classes {', '.join(classes)}; version {in_service_dir.name} in service knows "
            f"{', '.join(others)}: they cannot be compared"
        )
    _check_same_split(described.get("training", {}), other.get("training", {}), in_service_dir.name)
    test = load_test(candidate)
    right = answers(candidate, test) == test.labels
    with _readable(in_service_dir):
        other_test = test if described.get("view") == other.get("view") else load_test(in_service_dir)
    if not np.array_equal(test.labels, other_test.labels):
        raise GateError(f"the test images of the candidate are not those of version {in_service_dir.name} in service")
    with _readable(in_service_dir):
        other_right = answers(in_service_dir, other_test) == test.labels
    first, second = int(np.sum(right & ~other_right)), int(np.sum(other_right & ~right))
    return Comparison(
        int(in_service_dir.name), len(test), float(right.mean()), float(other_right.mean()), first, second,
        mcnemar(first, second),
    )  # fmt: skip


def _check_same_split(training: Mapping[str, Any], other: Mapping[str, Any], version: str) -> None:
    """Raises GateError where test images of one may be what the other was trained on."""
    heeded = split_settings(training.get("dataset", ""))
    if "test_fraction" not in heeded:
        return  # there is a test set apart
    for name in ("split_seed", "test_fraction"):
        value, others = training.get(name), other.get(name)
        if None not in (value, others) and value != others:
            raise GateError(
                f"{name} is {value}, for version {version} in service it was {others}: each may have been trained on "
                "what the other is tested on. Train with the same"
            )


@contextlib.contextmanager
def _readable(in_service_dir: Path) -> Iterator[None]:
    """Whatever is wrong with the version in service is an objection, which --force overrules."""
    try:
        yield
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, tf.errors.OpError) as error:
        raise GateError(
            f"version {in_service_dir.name} in service cannot be compared with ({type(error).__name__}: {error})"
        ) from error


def judge(
    candidate: Path,
    base_path: Path,
    load_test: Callable[[Path], Split],
    *,
    tolerance: float = TOLERANCE,
    force: str | None = None,
) -> dict[str, Any]:
    """Lets a candidate through, or not.

    Args:
        candidate: an export, or a version.
        base_path: where the versions of its model are.
        load_test: gives the images that a version is measured on, as it sees them, the same ones in the same order for
            both; called only where there is something to compare.
        tolerance: how much less accurate it may be, 0..1.
        force: why it is to be published all the same.

    Returns:
        What is to stand in the manifest: decision and reason, and what was compared.

    Raises:
        GateError: it is worse than the tolerance allows, or cannot be compared, and `force` is None.
    """
    against = in_service(base_path)
    if against is None:
        return {"decision": "published", "reason": "the first version of its model"}
    in_service_dir = base_path / str(against)
    verdict: dict[str, Any] = {"against": against, "tolerance": tolerance}
    try:
        with _readable(in_service_dir):
            same = same_graph(candidate, in_service_dir)
        if same:
            return {"decision": "published", "against": against, "reason": f"the same graph as version {against}"}
        comparison = compare(candidate, in_service_dir, load_test)
    except (GateError, DataError, FileNotFoundError) as error:
        problem = str(error)
    else:
        print(comparison)
        verdict |= asdict(comparison)
        gained = comparison.accuracy - comparison.accuracy_in_service
        if gained >= -tolerance - 1e-12:  # what floating point makes of equality
            reason = f"accuracy {gained:+.4f} against version {against}, where {-tolerance:.4f} is allowed"
            return verdict | {"decision": "published", "reason": reason}
        problem = f"{comparison}; {gained:+.4f} where {-tolerance:.4f} is allowed"
    if force is None:
        raise GateError(f"not published: {problem}. To publish it all the same: --force REASON, or another --tolerance")
    return verdict | {"decision": "forced", "reason": force, "objection": problem}


def same_graph(candidate: Path, in_service_dir: Path) -> bool:
    """Whether two versions answer alike by construction: all of their files are equal but those in assets.extra.

    Raises:
        FileNotFoundError: one has no manifest.
    """
    files, others = (
        {name: digest for name, digest in manifest.read(path).get("files", {}).items() if "assets.extra/" not in name}
        for path in (candidate, in_service_dir)
    )
    return bool(files) and files == others


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a fraction, 0..1, got {text}; 0.002 is two images of a thousand")
    return value


def add_gate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tolerance", type=_fraction, default=TOLERANCE, metavar="A",
        help=f"accuracy, 0..1, that it may lack against the version in service ({TOLERANCE})",
    )  # fmt: skip
    parser.add_argument(
        "--force", metavar="REASON", help="publish whatever the gate says; the manifest keeps the reason"
    )
