"""Compares this server with other ways to serve the same weights to the same requests, in one run on this machine.

    python -m serving.benchmark                          # ours alone
    python -m serving.benchmark --peers .venv-peers      # and those of peers/requirements.txt: make bench

Everything is started once, on free ports, and measured in turn, round after round, so that what else the machine does
meanwhile falls on all alike; the figures are the medians of the rounds, the ratios those of what was measured one after
the other. The load comes from the same machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from serving.benchmark import report
from serving.benchmark.contenders import PEERS, ROOT, Contender, started
from serving.benchmark.load import LoadError, Measurement, check_tools, measure

VERSIONS = ROOT / "serving/models/fashion_mnist"
IMAGE = ROOT / "ui/samples/00001.png"  # a test image of 28x28 pixels
IN_PROCESS = "TensorFlow in process, every core busy"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m serving.benchmark", description=__doc__.splitlines()[0])
    parser.add_argument("--version", type=Path, help=f"version directory to serve (default the newest of {VERSIONS})")
    parser.add_argument("--peers", type=Path, metavar="VENV", help="environment with peers/requirements.txt")
    parser.add_argument("--connections", type=_numbers, default=(1, 8, 32), metavar="N,N", help="(1,8,32)")
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement (5)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each contender and number (3)")
    parser.add_argument("--output", type=Path, default=Path("reports/bench"), help="folder (reports/bench)")
    options = parser.parse_args(argv)
    try:
        run(options)
    except (LoadError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run(options: argparse.Namespace) -> None:
    """Measures, prints the table, writes bench.json and bench.png."""
    check_tools()
    version = options.version or max(VERSIONS.glob("[0-9]*"), key=lambda path: int(path.name))
    python = options.peers / "bin/python" if options.peers else None
    logs = options.output / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    print("starting everything; this takes a minute", file=sys.stderr)
    with started(version, IMAGE.read_bytes(), python, logs) as contenders:
        runs = _measured(contenders, options)
        print("measuring the limits", file=sys.stderr)
        limits = _limits(version, python, options.seconds)
    found = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpus": len(os.sched_getaffinity(0)), "architecture": platform.machine()},
        "seconds": options.seconds,
        "rounds": options.rounds,
        "request": f"one PNG of 28x28 pixels, {IMAGE.stat().st_size} bytes",
        "runs": runs,
        "limits_images_per_s": limits,
    }
    (options.output / "bench.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    report.draw(runs, max(limits[IN_PROCESS].values()), options.output / "bench.png")
    print(report.table(runs, limits))
    print("\n".join(report.ratios(runs)))
    print(f"\nwrote {options.output}/bench.json and bench.png")


def _measured(contenders: Sequence[Contender], options: argparse.Namespace) -> list[dict[str, object]]:
    cells = [(contender, number) for number in options.connections for contender in contenders]
    found: dict[tuple[str, int], list[Measurement]] = {(c.name, number): [] for c, number in cells}
    with tqdm(total=len(cells) * options.rounds, unit="run", file=sys.stderr) as progress:
        for _ in range(options.rounds):
            for contender, number in cells:
                progress.set_description(f"{contender.name}, {number}")
                contender.go_on()
                found[contender.name, number].append(measure(contender.request, number, options.seconds))
                contender.stand_still()
                progress.update()
    return [
        {
            "name": contender.name,
            "ours": contender.ours,
            "connections": number,
            **{
                name: round(statistics.median(getattr(one, name) for one in found[contender.name, number]), 3)
                for name in ("requests_per_s", "p50_ms", "p95_ms", "p99_ms")
            },
            "errors": sum(one.errors for one in found[contender.name, number]),
            "rounds": [asdict(one) for one in found[contender.name, number]],
        }
        for contender in contenders
        for number in options.connections
    ]


def _limits(version: Path, peers_python: Path | None, seconds: int) -> dict[str, dict[str, float]]:
    arguments = [str(version), str(IMAGE), str(seconds)]
    command = [sys.executable, "-m", "serving.benchmark.in_process", *arguments]
    limits = {IN_PROCESS: _json(command, {"TF_ENABLE_ONEDNN_OPTS": "1"})}  # as in the server
    if peers_python is not None:
        settings = {"BENCHMARK_VERSION": str(version.resolve())}
        command = [str(peers_python), str(PEERS / "openvino_limit.py"), str(seconds)]
        limits["OpenVINO f32 in process, without decoding"] = _json(command, settings)
    return limits


def _json(command: list[str], settings: dict[str, str]) -> dict[str, float]:
    result = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
    if result.returncode:
        raise LoadError(f"{' '.join(command)} failed:\n{result.stderr[-2000:]}")
    found: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return found


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(int(part) for part in text.split(","))
    if any(number < 1 for number in numbers):
        raise argparse.ArgumentTypeError(f"expected numbers of at least 1, got {text}")
    return numbers


if __name__ == "__main__":
    raise SystemExit(main())
