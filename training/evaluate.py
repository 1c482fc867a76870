"""Evaluates a version through its served signature and writes a report: figures, pictures, a page and a model card.

python -m training.evaluate --version 2              # -> reports/fashion_mnist/2/index.html, report.json, MODEL_CARD.md
python -m training.evaluate --quick                  # the newest version in two minutes: fewer images
python -m training.evaluate --version 3 --against 2  # and whether 3 is better by more than chance
python -m training.evaluate --name clothing          # on the test split of the data it was trained on
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from training import manifest, memory
from training.datasets import DataError, Split
from training.evaluation import plots
from training.evaluation.classification import confusion_matrix, metrics
from training.evaluation.report import evaluate_version
from training.evaluation.served import answers
from training.evaluation.subject import FULL, QUICK
from training.evaluation.writing import write_report
from training.settings import MODELS
from training.style import save
from training.versions import version_of


def evaluate(version_dir: Path, test: Split) -> dict[str, Any]:
    """What `metrics` says of the answers to the test images (see `answers`)."""
    classes = manifest.read(version_dir)["classes"]
    return metrics(confusion_matrix(test.labels, answers(version_dir, test), len(classes)), classes)


def evaluate_export(export: Path, test: Split) -> dict[str, Any]:
    """Evaluates an export before it is published; the figures and the confusion matrix go into the version.

    Raises:
        FileNotFoundError: `export` has no manifest, so it is no export.
    """
    content = manifest.read(export)
    report = evaluate(export, test)
    save(plots.confusion(report), export / "assets.extra" / "confusion_matrix", formats=("png",))
    content["metrics"]["test"] = report
    manifest.write(export, content)
    return report


def table(report: dict[str, Any]) -> str:
    """The figures of `metrics` as text."""
    low, high = report["accuracy_wilson_95"]
    lines = [f"accuracy {report['accuracy']:.4f} (95 % Wilson interval {low:.4f} to {high:.4f})"]
    low, high = report["macro_f1_bootstrap_95"]
    lines.append(f"macro F1 {report['macro_f1']:.4f} (95 % bootstrap interval {low:.4f} to {high:.4f})")
    width = max(14, *(len(name) + 2 for name in report["per_class"]))
    lines.append(f"{'class':{width}}{'precision':>10}{'recall':>10}{'F1':>10}{'images':>10}")
    for name, row in report["per_class"].items():
        lines.append(f"{name:{width}}{row['precision']:10.4f}{row['recall']:10.4f}{row['f1']:10.4f}{row['images']:10d}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="fashion_mnist")
    parser.add_argument("--version", type=int, help="default: the newest")
    parser.add_argument("--against", type=int, metavar="M", help="another version, on the same images")
    parser.add_argument("--quick", action="store_true", help="fewer images; no t-SNE, UMAP, SHAP, no faithfulness")
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--export", type=Path, help="instead: an export to come; figures alone, into its manifest")
    parser.add_argument("--dataset", help="name or path (default: what the version was trained on)")
    parser.add_argument("--data-dir", help="of a dataset by name: the directory of its files")
    parser.add_argument("--reports", type=Path, default=Path("reports"), help="where reports are (reports)")
    arguments = parser.parse_args(argv)
    memory.keep_freed_memory()
    try:
        if arguments.export:
            source = manifest.source_of(arguments.export, arguments.dataset, arguments.data_dir)
            test = manifest.load_test_at_its_size(arguments.export, source)
            print(table(evaluate_export(arguments.export, test)))
            return 0
        version_dir = version_of(arguments.models, arguments.name, arguments.version)
        other_dir = arguments.against and version_of(arguments.models, arguments.name, arguments.against)
        source = manifest.trained_on(version_dir, arguments.dataset, arguments.data_dir)
        directory = arguments.reports / arguments.name / version_dir.name
        effort = QUICK if arguments.quick else FULL
        evaluation = evaluate_version(version_dir, source, effort, directory, other_dir)
        write_report(evaluation, manifest.read(version_dir), directory)
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on with what is not measured yet", file=sys.stderr)
        return 130
    print(table(evaluation.report["classification"]))
    for line in evaluation.report["left_out"]:
        print(f"left out: {line}")
    print(f"wrote {directory}/index.html, report.json, MODEL_CARD.md and the pictures")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
