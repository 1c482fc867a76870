"""The figures as a table, as JSON and as a picture."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

Round = Mapping[str, Any]  # one load.Measurement

HEADER = ("", "connections", "requests/s", "p50 ms", "p95 ms", "p99 ms", "errors")
# Okabe and Ito's colours, which colour-blind people can tell apart; ours are the warm ones.
_OURS = ("#d55e00", "#e69f00", "#cc79a7", "#f0e442", "#999999")
_PEERS = ("#0072b2", "#009e73", "#56b4e9", "#000000")


def table(runs: Sequence[Mapping[str, Any]], limits: Mapping[str, Mapping[str, float]]) -> str:
    """Aligned text: one line a contender and number of connections, then the limits in images/s."""
    lines = [HEADER]
    for run in runs:
        latencies = (f"{run[name]:.1f}" for name in ("p50_ms", "p95_ms", "p99_ms"))
        lines.append(
            (run["name"], str(run["connections"]), f"{run['requests_per_s']:.1f}", *latencies, str(run["errors"]))
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    text = [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    for name, found in limits.items():
        rates = ", ".join(f"{rate:.0f} images/s at batch {size}" for size, rate in found.items())
        text.append(f"{name}: {rates}")
    return "\n".join(text)


def ratios(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the figures come to, as sentences: medians over the rounds of what was measured one after the other.

    Args:
        runs: as in the JSON; the first is the model server, the second the gateway before it, both over REST.
    """
    found = {(run["name"], run["connections"]): run["rounds"] for run in runs}
    server, gateway = list(dict.fromkeys(run["name"] for run in runs))[:2]
    peers = list(dict.fromkeys(run["name"] for run in runs if not run["ours"]))
    few, many = min(run["connections"] for run in runs), max(run["connections"] for run in runs)

    def paired(one: tuple[str, int], other: tuple[str, int], ratio: Callable[[Round, Round], float]) -> float:
        return statistics.median(ratio(a, b) for a, b in zip(found[one], found[other], strict=True))

    def rate(one: Round) -> float:
        return one["requests"] / one["seconds"]

    lines = []
    if peers:
        factor, peer = min((paired((server, many), (p, many), lambda a, b: rate(a) / rate(b)), p) for p in peers)
        lines.append(f"{many} connections: {factor:.2f} times the requests/s of the best peer, {peer}")
        factor, peer = max((paired((server, few), (p, few), lambda a, b: a["p50_ms"] / b["p50_ms"]), p) for p in peers)
        lines.append(f"{few} connection{'s' * (few > 1)}: {factor:.2f} times the p50 of the best peer, {peer}")
    spread = statistics.median(one["p99_ms"] / one["p50_ms"] for one in found[server, many])
    lines.append(f"{many} connections: p99 is {spread:.2f} times p50")
    kept = paired((gateway, many), (server, many), lambda a, b: rate(a) / rate(b))
    more = paired((gateway, few), (server, few), lambda a, b: a["p50_ms"] - b["p50_ms"])
    lines.append(f"through the gateway: {kept:.2f} times the requests/s at {many}, p50 {more:+.2f} ms at {few}")
    return lines


def draw(runs: Sequence[Mapping[str, Any]], limit: float, path: Path) -> None:
    """Throughput and latency against the number of connections.

    Args:
        runs: as in the JSON.
        limit: images/s of the same graph in process, drawn as a line.
        path: PNG to write.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    names = list(dict.fromkeys(run["name"] for run in runs))
    connections = sorted({run["connections"] for run in runs})
    colours = {True: iter(_OURS), False: iter(_PEERS)}
    for name in names:
        own = sorted((run for run in runs if run["name"] == name), key=lambda run: run["connections"])
        ours = own[0]["ours"]
        style = {"color": next(colours[ours]), "linewidth": 2.5 if ours else 1.5}
        places = [connections.index(run["connections"]) for run in own]
        left.plot(places, [run["requests_per_s"] for run in own], "o-" if ours else "s-", label=name, **style)
        right.plot(places, [run["p50_ms"] for run in own], "o-" if ours else "s-", **style)
        right.plot(places, [run["p99_ms"] for run in own], ":", **style)
    left.axhline(limit, color="grey", linestyle="--", linewidth=1)
    left.annotate("the graph alone, every core busy", (0, limit), (0, 4), textcoords="offset points", color="grey")
    left.set(title="Requests a second", ylabel="requests/s", ylim=(0, None))
    right.set(title="Latency: p50 (solid) and p99 (dotted)", ylabel="ms", yscale="log")
    for axes in (left, right):
        axes.set(xticks=range(len(connections)), xticklabels=connections, xlabel="connections, each in a closed loop")
        axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
