"""Trains, exports, evaluates and publishes in one go.

python -m training --preset best          # what `make train` runs
python -m training --preset smoke --base-path /tmp/models/fashion_mnist
python -m training --preset photos --dataset ~/photos --name clothing    # a folder with a folder a class
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from training.datasets import DataError, load_test
from training.evaluate import evaluate_export, table
from training.gate import GateError, add_gate_arguments, judge
from training.model import WeightsError
from training.publish import PublishError, publish
from training.runs import add_run_arguments, run_from_arguments
from training.settings import MODELS, SettingsError
from training.train import train


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__.splitlines()[0])
    add_run_arguments(parser)
    parser.add_argument("--base-path", type=Path, help="where versions are published (default: serving/models/<name>)")
    add_gate_arguments(parser)
    arguments = parser.parse_args(argv)
    try:
        settings, run_dir = run_from_arguments(arguments)
        base_path = arguments.base_path or MODELS / settings.model_name
        published = run_dir / "published"
        if published.is_file():
            raise PublishError(
                f"{run_dir} is published already, as {published.read_text(encoding='utf-8').strip()}; "
                "train anew with --fresh or into another --run-dir"
            )
        train(settings, run_dir)
        export_dir = run_dir / "export"
        # in a process of its own: export needs TensorFlow as Keras' backend, whatever trained
        command = [sys.executable, "-m", "training.export", "--run-dir", str(run_dir), "--output", str(export_dir)]
        subprocess.run(command, env=os.environ | {"KERAS_BACKEND": "tensorflow"}, check=True)
        test = load_test(settings.source).first(settings.train_limit)
        print(table(evaluate_export(export_dir, test)))
        force = arguments.force or settings.publish_anyway
        gate = judge(export_dir, base_path, lambda: test, tolerance=arguments.tolerance, force=force)
        version_dir = base_path / str(publish(export_dir, base_path, gate=gate))
        published.write_text(f"{version_dir}\n", encoding="utf-8")
    except subprocess.CalledProcessError as error:  # it has said why
        return error.returncode
    except (SettingsError, DataError, WeightsError, GateError, PublishError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the last finished epoch", file=sys.stderr)
        return 130
    print(f"published as {version_dir} ({gate['reason']})")
    print(
        "A running server takes up the next version of a model by itself, until one was promoted. Then, and for a "
        f"model that is new to it: python -m serving promote {version_dir.name} --model {settings.model_name}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
