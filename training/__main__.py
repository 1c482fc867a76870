"""Trains, exports, evaluates and publishes in one go.

python -m training --preset best          # what `make train` runs
python -m training --preset smoke --base-path /tmp/models/fashion_mnist
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from training import manifest
from training.data import DataError, load_test
from training.evaluate import evaluate, plot_confusion, table
from training.export import MODEL_NAME, export
from training.model import WeightsError
from training.publish import PublishError, publish
from training.settings import MODELS, SettingsError
from training.train import add_run_arguments, run_from_arguments, train


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__.splitlines()[0])
    add_run_arguments(parser)
    parser.add_argument("--base-path", type=Path, default=MODELS / MODEL_NAME, help="where versions are published")
    arguments = parser.parse_args(argv)
    try:
        settings, run_dir = run_from_arguments(arguments)
        train(settings, run_dir)
        version_dir = export(run_dir, run_dir / "export")
        report = evaluate(version_dir, load_test(settings.data_dir).first(settings.train_limit))
        plot_confusion(report, version_dir / "assets.extra" / "confusion_matrix.png")
        content = manifest.read(version_dir)
        content["metrics"]["test"] = report
        manifest.write(version_dir, content)
        print(table(report))
        version = publish(version_dir, arguments.base_path)
    except (SettingsError, DataError, WeightsError, PublishError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the last finished epoch", file=sys.stderr)
        return 130
    print(f"published as {arguments.base_path / str(version)}; a running server takes it up by itself")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
