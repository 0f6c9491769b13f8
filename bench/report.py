"""What a run found, as tables: on the terminal, in bench/results, in docs/performance.md.

Guarantees: all three show the same rows; in the page only what lies between its markers changes.
Refuses to know: how it was measured.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from bench import model, targets
from bench.figures import Closed, Figure, Measured, Paced, Verdict, short, verdicts
from tallygate.commands import output
from tallygate.commands.output import Cell, Sheet

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "performance.md"
PICTURE = "![Speed and latency beside the peers](performance.png)"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def sheets(found: Measured) -> list[Sheet]:
    """Return everything that was found as tables."""
    tables = [_budgets(verdicts(found)), _speeds(found), _batches(found), _latencies(found.paced)]
    for title, curve in (("tenants", found.tenants), ("limits", found.limits)):
        if curve:
            tables.append(_curve(title, curve))
    tables.append(Sheet("capacity", model.COLUMNS, model.rows(found)))
    tables.append(Sheet("the rest", ("what", "figure"), _single(found.single)))
    return [table for table in tables if table.rows]


def _budgets(rows: Sequence[Verdict]) -> Sheet:
    return Sheet(
        "budgets",
        ("budget", "target", "stretch", "measured", "verdict"),
        [
            (
                each.budget,
                each.bound(each.target),
                each.bound(each.stretch),
                "" if each.value is None else f"{short(each.value)} {each.unit}",
                each.says,
            )
            for each in rows
        ],
    )


def _speeds(found: Measured) -> Sheet:
    columns = (
        "4 x 32 calls, and one",
        "calls/s",
        "of ratelimit",
        "of empty",
        "CPU us: server + Redis + caller",
        "processors busy",
        "one at a time, ms",
        "of ratelimit",
    )
    rows = []
    for name, busy in found.busy.items():
        lone = found.lone.get(name)
        rows.append(
            (
                name,
                _spread(busy.per_second),
                _beside(busy, found.busy.get(targets.RATELIMIT)),
                _beside(busy, found.busy.get(targets.EMPTY)),
                _spent(busy),
                f"{busy.busy_share(found.processors):.0%}",
                "" if lone is None else _spread(lone.mean_ms),
                _slower(lone, found.lone.get(targets.RATELIMIT)),
            )
        )
    return Sheet("speed", columns, rows)


def _spread(figure: Figure) -> str:
    low, high = short(min(figure.values)), short(max(figure.values))
    return f"{short(figure.median)} ({low} to {high})"


def _spent(each: Closed) -> str:
    parts = (each.cpu_us, each.redis_us, each.client_us)
    return " + ".join(short(part.median) for part in parts)


def _beside(one: Closed, other: Closed | None) -> str:
    return "" if other is None else f"{one.per_second.median / other.per_second.median:.2f}"


def _slower(one: Closed | None, other: Closed | None) -> str:
    if one is None or other is None:
        return ""
    return f"{one.mean_ms.median / other.mean_ms.median:.2f}"


def _batches(found: Measured) -> Sheet:
    rows = [
        (
            name,
            _spread(each.per_second),
            _spent(each),
            short(each.mean_ms.median),
        )
        for name, each in found.batches.items()
    ]
    return Sheet(
        "batches", ("4 x 4 calls", "checks/s", "CPU us: server + Redis + caller", "ms"), rows
    )


def _latencies(paced: dict[str, list[Paced]]) -> Sheet:
    rows: list[Sequence[Cell]] = [
        (
            name,
            f"{each.rate:,}",
            short(each.p50_ms),
            f"{short(each.p99_ms)} ({short(min(each.p99s_ms))} to {short(max(each.p99s_ms))})",
            short(each.p999_ms),
            short(each.cpu_us),
            f"{each.failed:,} of {each.calls:,}",
            short(each.woken_late_p99_ms),
        )
        for name, points in paced.items()
        for each in points
    ]
    columns = ("at a fixed rate", "calls/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU us", "failed")
    return Sheet("latency", (*columns, "woken late, p99 ms"), rows)


def _curve(title: str, curve: dict[int, Figure]) -> Sheet:
    first = curve[min(curve)].median
    rows = [
        (f"{point:,}", _spread(figure), f"{figure.median / first:.2f}")
        for point, figure in curve.items()
    ]
    return Sheet(f"cost by {title}", (title, "CPU us per check, with Redis'", "of the first"), rows)


def _single(single: dict[str, Figure]) -> list[Sequence[Cell]]:
    return [(name, figure.told()) for name, figure in single.items()]


def show(found: Measured) -> None:
    """Print everything; what makes it doubtful comes last."""
    output.show(sheets(found), as_json=False)
    for doubt in found.doubts:
        print(f"In doubt: {doubt}.")


def markdown(found: Measured, taken: str) -> str:
    """Return everything as Markdown."""
    parts = [f"Measured {taken}, by `make bench-peers`:"]
    parts.append("\n".join(f"- {name}: {value}" for name, value in found.machine.items()))
    for sheet in sheets(found):
        lines = [f"**{sheet.title.capitalize()}**", "", _line(sheet.columns)]
        lines.append(_line(["---"] * len(sheet.columns)))
        lines += [_line(row) for row in sheet.rows]
        parts.append("\n".join(lines))
    parts += [f"In doubt: {doubt}." for doubt in found.doubts]
    return "\n\n".join(parts) + "\n"


def _line(cells: Sequence[Cell]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def between_markers(page: str, text: str) -> str:
    """Return a page with `text` in the place of what was between its markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} has no {BEGIN} or no {END}")
    return f"{before}{BEGIN}\n\n{text}\n{END}{after}"


def keep(found: Measured) -> None:
    """Write a run's results, and its tables into docs/performance.md."""
    now = datetime.now(UTC)
    taken, name = f"{now:%Y-%m-%d %H:%M} UTC", f"{now:%Y-%m-%d-%H%M}"
    text = markdown(found, taken)
    RESULTS.mkdir(exist_ok=True)
    document = {"taken": taken, **asdict(found)}
    document["budgets"] = [asdict(each) | {"says": each.says} for each in verdicts(found)]
    results = RESULTS / f"{name}.json"
    results.write_text(json.dumps(document, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(text)
    PAGE.write_text(between_markers(PAGE.read_text(), f"{PICTURE}\n\n{text}"))
    print(f"Kept in {results.relative_to(ROOT)}; `make bench-plot` draws it.")
