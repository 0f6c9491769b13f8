"""`python -m bench.plot`: the picture in docs/performance.md, drawn from results that were kept.

Guarantees: the same results draw the same picture; no axis of bars begins above nothing, and every
repeat lies within a bar's whiskers. Refuses to know: how the figures were measured.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
PLOT = ROOT / "docs" / "performance.png"
EXACT, LEASED, THEIRS, REFERENCE = "#2f6db5", "#12a07a", "#8f9aa6", "#c9ced4"
MARKS = "os^DvP"
# Matplotlib has a type for each setting's name, and none that says so of a mapping.
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
}

# A closed measure by target, and its repeats; as bench.figures.Measured writes itself.
Bars = dict[str, list[float]]


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw a run into a PNG file."""
    mpl.rcParams.update(STYLE)
    canvas = Figure(figsize=(11, 7.4), dpi=120, layout="constrained")
    (speed, lone), (median, tail) = canvas.subplots(2, 2)
    _bars(speed, {name: each["per_second"]["values"] for name, each in results["busy"].items()})
    speed.set_title("calls a second, 4 connections of 32 calls")
    speed.set_xlabel("longer is better")
    _bars(lone, {name: each["mean_ms"]["values"] for name, each in results["lone"].items()})
    lone.set_title("one call at a time, mean in ms")
    lone.set_xlabel("shorter is better")
    _lines(median, results["paced"], "p50_ms")
    median.set_title("median in ms at a fixed rate, from the schedule")
    _lines(tail, results["paced"], "p99_ms")
    tail.set_title("p99 in ms at a fixed rate, from the schedule")
    # Here the upper left is empty: what is slow at a low rate does not keep up with a high one.
    tail.legend(frameon=False, fontsize=8, loc="upper left")
    caption = f"measured {results['taken']}; whiskers: least and greatest of the repeats"
    canvas.supxlabel(caption, fontsize=9)
    canvas.savefig(path, metadata={"Software": None})


def _colour(name: str) -> str:
    if name.startswith("exact"):
        return EXACT
    if name.startswith("leased"):
        return LEASED
    return REFERENCE if name.startswith("empty") else THEIRS


def _bars(axes: Axes, repeats: Bars) -> None:
    names = list(repeats)[::-1]
    medians = [statistics.median(repeats[name]) for name in names]
    pairs = list(zip(names, medians, strict=True))
    whiskers = [
        [middle - min(repeats[name]) for name, middle in pairs],
        [max(repeats[name]) - middle for name, middle in pairs],
    ]
    colours = [_colour(name) for name in names]
    bars = axes.barh(names, medians, xerr=whiskers, color=colours, ecolor="#444444")
    texts = [f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in medians]
    axes.bar_label(bars, texts, padding=4)
    axes.margins(x=0.18)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")


def _lines(axes: Axes, paced: dict[str, list[dict[str, float]]], field: str) -> None:
    for place, (name, points) in enumerate(paced.items()):
        if points:
            axes.plot(
                [each["rate"] for each in points],
                [each[field] for each in points],
                label=name,
                marker=MARKS[place % len(MARKS)],
                color=_colour(name),
                linestyle="--" if name.endswith("grpcio") else "-",
            )
    axes.set_yscale("log")
    axes.set_xlabel("calls a second")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda _, __: "")


def main() -> None:
    """Draw the newest results, or those that are named."""
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("results", nargs="?", type=Path, help="a JSON file of bench/results")
    asked.add_argument("--to", type=Path, default=PLOT)
    options = asked.parse_args()
    source = options.results or max(RESULTS.glob("*.json"), default=None)
    if source is None:
        sys.exit("bench: no results are kept; `make bench-peers` keeps them")
    draw(json.loads(source.read_text()), options.to)
    sys.stderr.write(f"bench: {source.name} is drawn in {options.to.name}\n")


if __name__ == "__main__":
    main()
