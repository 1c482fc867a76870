"""What the figures of a report mean, in sentences that need no knowledge of the field."""

from __future__ import annotations

from typing import Any

from training.evaluation.corruptions import CORRUPTIONS
from training.evaluation.wording import listed, percent

HONEST = 0.03  # expected calibration error up to which confidence may be taken at its word
BORNE = 0.03  # of accuracy, lost at the middle strength: a corruption that is borne
WEAK_CLASS = 0.85  # F1


def findings(report: dict[str, Any]) -> list[dict[str, str]]:
    """A title and a text each, what matters most first.

    Args:
        report: what `training.evaluation.report.evaluate_version` returns.
    """
    found = [_accuracy(report["classification"]), _hard(report["classification"])]
    bias = report["bias"]
    if bias["nearly_everything"] is not None:
        found.insert(0, {"title": "It says one class for nearly everything", "text": bias["verdict"]})
    else:
        found.append({"title": "Preferences", "text": bias["verdict"]})
    found += [_confidence(report["calibration"]["served"]), _robust(report["robustness"])]
    if report["against"] is not None:
        found.append({"title": f"Against version {report['against']['version']}", "text": report["against"]["verdict"]})
    first = report["speed"]["latency"][0]
    found.append(
        {
            "title": "Speed",
            "text": f"One image takes {first['median_ms']:.1f} ms on {report['speed']['machine']['cores']} cores; what "
            f"is served is {report['speed']['files']['served'] / 1e6:.1f} MB.",
        }
    )
    return found


def _accuracy(figures: dict[str, Any]) -> dict[str, str]:
    low, high = figures["accuracy_wilson_95"]
    return {
        "title": f"{percent(figures['accuracy'])} right",
        "text": f"Of {figures['images']:,} images that it was not trained on it names so many as they are labelled; on "
        f"all images of their kind it would be between {percent(low)} and {percent(high)} (95 % interval).",
    }


def _hard(figures: dict[str, Any]) -> dict[str, str]:
    if not figures["confusions"]:
        return {"title": "No mistakes", "text": "None of the test images is taken for something else."}
    weakest = min(figures["per_class"], key=lambda name: figures["per_class"][name]["f1"])
    top = figures["confusions"][0]
    text = (
        f"Its most frequent mistake is to call {top['predicted']} what is {top['true']}: {top['images']} times, "
        f"{percent(top['share'], 0)} of them. The hardest class is {weakest} (F1 "
        f"{figures['per_class'][weakest]['f1']:.2f})"
    )
    weak = sum(row["f1"] < WEAK_CLASS for row in figures["per_class"].values())
    text += f"; {weak} of {len(figures['per_class'])} classes have an F1 below {WEAK_CLASS}." if weak else "."
    return {"title": "Where it errs", "text": text}


def _confidence(served: dict[str, Any]) -> dict[str, str]:
    error, sure, right = (served[key] for key in ("expected_calibration_error", "mean_confidence", "accuracy"))
    if error <= HONEST:
        title = "Its confidence can be believed"
    else:
        title = "It is surer than it is right" if sure > right else "It is less sure than it could be"
    return {
        "title": title,
        "text": f"It is {percent(sure)} sure on average and {percent(right)} right; at one level of confidence the two "
        f"differ by {percent(error)} on average.",
    }


def _robust(figures: dict[str, Any]) -> dict[str, str]:
    middle = {name: points[len(points) // 2]["accuracy"] for name, points in figures["curves"].items()}
    lost = {name: figures["accuracy"] - accuracy for name, accuracy in middle.items()}
    borne = [CORRUPTIONS[name].title.lower() for name in lost if lost[name] <= BORNE]
    worst = min(figures["curves"], key=lambda name: figures["curves"][name][-1]["accuracy"])
    point = figures["curves"][worst][-1]
    text = f"At middle strength it bears {listed(borne)}. " if borne else ""
    text += (
        f"Worst is {CORRUPTIONS[worst].title.lower()}: {percent(point['accuracy'], 0)} right at its strongest "
        f"({CORRUPTIONS[worst].unit}: {point['strength']:g}), where untouched images give "
        f"{percent(figures['accuracy'], 0)}."
    )
    return {"title": "In bad light and crooked", "text": text}
