"""Trains, exports, evaluates and publishes in one go.

python -m training --preset best          # what `make train` runs
python -m training --preset smoke --base-path /tmp/models/fashion_mnist
python -m training --preset photos --dataset ~/photos --name clothing    # a folder with a folder a class
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

from training import manifest
from training.datasets import DataError, Split
from training.evaluate import evaluate_export, table
from training.gate import GateError, add_gate_arguments, judge, same_graph
from training.model import WeightsError
from training.publish import PublishError, publish
from training.runs import add_run_arguments, replace_file, run_from_arguments, start_over
from training.settings import MODELS, SettingsError
from training.train import train
from training.versions import versions


def _published_before_it_was_noted(publishing: Path, export_dir: Path, base_path: Path) -> int | None:
    """The version that this run has become already, where it was killed before it could write that down."""
    newest = versions(base_path)[-1:]
    if publishing.is_file() and export_dir.is_dir() and newest and same_graph(export_dir, base_path / str(newest[0])):
        return newest[0]
    return None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__.splitlines()[0])
    add_run_arguments(parser)
    parser.add_argument("--base-path", type=Path, help="where versions are published (default: serving/models/<name>)")
    add_gate_arguments(parser)
    arguments = parser.parse_args(argv)
    try:
        settings, run_dir = run_from_arguments(arguments)
        start_over(arguments, settings, run_dir)
        base_path = arguments.base_path or MODELS / settings.model_name
        published, publishing = run_dir / "published", run_dir / "publishing"
        if published.is_file():
            raise PublishError(
                f"{run_dir} is published already, as {published.read_text(encoding='utf-8').strip()}; "
                "train anew with --fresh or into another --run-dir"
            )
        train(settings, run_dir)
        export_dir = run_dir / "export"
        version = _published_before_it_was_noted(publishing, export_dir, base_path)
        if version is None:
            # in a process of its own: export needs TensorFlow as Keras' backend, whatever trained
            command = [sys.executable, "-m", "training.export", "--run-dir", str(run_dir), "--output", str(export_dir)]
            subprocess.run(command, env=os.environ | {"KERAS_BACKEND": "tensorflow"}, check=True)

            @functools.cache
            def load_test(version_dir: Path) -> Split:
                return manifest.load_test_at_its_size(version_dir, settings.source).first(settings.train_limit)

            print(table(evaluate_export(export_dir, load_test(export_dir))))
            force = arguments.force or settings.publish_anyway
            gate = judge(export_dir, base_path, load_test, tolerance=arguments.tolerance, force=force)
            publishing.touch()
            version = publish(export_dir, base_path, gate=gate)
        version_dir = base_path / str(version)
        replace_file(published, f"{version_dir}\n")
        publishing.unlink(missing_ok=True)
    except subprocess.CalledProcessError as error:
        if error.returncode < 0:  # else it has said why
            name = signal.Signals(-error.returncode).name
            print(f"error: the export was ended by {name}; SIGKILL may mean that memory ran out", file=sys.stderr)
            return 1
        return error.returncode
    except (SettingsError, DataError, WeightsError, GateError, PublishError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the last finished epoch", file=sys.stderr)
        return 130
    print(f"published as {version_dir} ({manifest.read(version_dir)['gate']['reason']})")
    if base_path.resolve() == (MODELS / settings.model_name).resolve():  # elsewhere `promote` does not look
        print(
            "A running server takes up the next version of a model by itself, until one was promoted. Then, and for a "
            f"model that is new to it: python -m serving promote {version_dir.name} --model {settings.model_name}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
