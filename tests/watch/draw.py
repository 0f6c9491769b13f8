"""Dashboards as pictures, from what Prometheus has answered.

Owns how a panel is drawn. Guarantees that what is drawn was answered; places and titles are those
of the JSON. Refuses to ask. Matplotlib comes with `bench/requirements.lock`, and only when asked
for: tests import this without it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from . import made
from .panel import COLUMNS, Dashboard, Kind, Panel, Unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Named = Mapping[str, Sequence[tuple[float, float]]]
"""Values by time in seconds, by what a series is called."""

PICTURES: Final = made.ROOT / "docs" / "dashboards"
WIDTH_IN: Final = 15.0
ROW_IN: Final = 0.34
LINES_MAX: Final = 8
NAME_MAX: Final = 30
COLOURS: Final = 256
"""Of the picture's palette: lines and letters need no more, and it is half of the size."""

PALETTE: Final = (
    *("#3274d9", "#56a64b", "#e0b400", "#ff780a", "#e02f44", "#8f3bb8", "#1fa8b8", "#806b5a"),
)
GOOD, BAD, PLAIN = "#37872d", "#c4162a", "#2f2f36"


@dataclass(frozen=True, slots=True)
class Shown:
    """A panel, and what was answered for each of its expressions."""

    panel: Panel
    answers: Sequence[Named]

    @property
    def series(self) -> dict[str, Sequence[tuple[float, float]]]:
        """Return all of it by name."""
        return {name: values for each in self.answers for name, values in each.items()}


def draw(board: Dashboard, panels: Sequence[Shown], path: Path) -> None:
    """Draw a dashboard into a PNG file."""
    # mypy does not know them where bench's packages are not installed.
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    style: dict[Any, Any] = {"font.size": 7.5, "axes.spines.top": False, "axes.spines.right": False}
    mpl.rcParams.update(style)
    placed = json.loads(board.text())["panels"]
    rows = max(each["gridPos"]["y"] + each["gridPos"]["h"] for each in placed) + 2
    canvas = Figure(figsize=(WIDTH_IN, rows * ROW_IN), dpi=80, facecolor="#f4f5f5")
    canvas.text(0.01, 1 - 1 / rows, f"Tallygate / {board.title}", fontsize=13, weight="bold")
    found = iter(panels)
    for each in placed:
        at = each["gridPos"]
        bottom = 1 - (at["y"] + at["h"] + 2) / rows
        if each["type"] == "row":
            canvas.text(0.012, bottom + 0.3 / rows, each["title"], fontsize=9, weight="bold")
            continue
        box = (
            (at["x"] + 0.75) / (COLUMNS + 0.5),
            bottom + 1.9 / rows,
            (at["w"] - 1.1) / (COLUMNS + 0.5),
            (at["h"] - 3.1) / rows,
        )
        shown = next(found)
        if shown.panel.kind is Kind.BARS:
            # Names stand at the left of their bars.
            box = (box[0] + 0.08, box[1], box[2] - 0.08, box[3])
        _panel(canvas.add_axes(box), shown)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, metadata={"Software": None})
    with Image.open(path) as drawn:
        drawn.convert("RGB").quantize(COLOURS).save(path, optimize=True)


def _panel(axes: "Axes", shown: Shown) -> None:
    axes.set_title(shown.panel.title, loc="left", fontsize=8, weight="bold")
    match shown.panel.kind:
        case Kind.LINES:
            _lines(axes, shown)
        case Kind.FIGURE:
            _figure(axes, shown)
        case Kind.BARS:
            _bars(axes, shown)


def _lines(axes: "Axes", shown: Shown) -> None:
    panel = shown.panel
    # The largest first, as a picture has no room for all.
    names = sorted(shown.series, key=lambda name: -shown.series[name][-1][1])[:LINES_MAX]
    start_s = min((values[0][0] for values in shown.series.values()), default=0.0)
    for name, colour in zip(names, PALETTE, strict=False):
        values = shown.series[name]
        times = [at - start_s for at, _ in values]
        axes.plot(
            times, [value for _, value in values], color=colour, lw=1.1, label=name[-NAME_MAX:]
        )
    top = max((value for each in shown.series.values() for _, value in each), default=0.0)
    # A little below 0, so that a line of nothing is seen.
    axes.set_ylim(-0.03 * (top or 1), top * 1.15 or 1)
    axes.yaxis.set_major_locator(_few())
    axes.yaxis.set_major_formatter(lambda value, _: _text(value, panel.unit))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f} s")
    axes.grid(visible=True, color="#e4e4e8", lw=0.5)
    if names:
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=min(len(names), 3),
            frameon=False, fontsize=6.3, handlelength=1, columnspacing=1,
        )  # fmt: skip


def _figure(axes: "Axes", shown: Shown) -> None:
    axes.set_axis_off()
    texts = []
    for name, values in shown.series.items():
        text = _text(values[-1][1], shown.panel.unit)
        texts.append(f"{text} {name}" if len(shown.series) > 1 else text)
    value = next((values[-1][1] for values in shown.series.values()), 0.0)
    axes.text(
        0.5, 0.45, "\n".join(texts), ha="center", va="center",
        fontsize=18 if len(texts) == 1 else 7.5, color=_colour(shown.panel, value),
        transform=axes.transAxes,
    )  # fmt: skip


def _bars(axes: "Axes", shown: Shown) -> None:
    panel = shown.panel
    names = sorted(shown.series, key=lambda name: shown.series[name][-1][1])[-LINES_MAX * 2 :]
    values = [shown.series[name][-1][1] for name in names]
    bars = axes.barh(
        names, values, color=[_colour(panel, each, plain=PALETTE[0]) for each in values]
    )
    axes.bar_label(bars, [_text(each, panel.unit) for each in values], padding=3, fontsize=7)
    axes.set_xlim(0, max([*values, 0]) * 1.25 or 1)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelsize=6.5)


def _few() -> Any:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    return MaxNLocator(4)


def _colour(panel: Panel, value: float, plain: str = PLAIN) -> str:
    if panel.bad is None:
        return plain
    return GOOD if (value >= panel.bad) == panel.less else BAD


def _text(value: float, unit: Unit) -> str:
    match unit:
        case Unit.SECONDS if 0 < value < 1:
            return f"{value * 1000:.3g} ms"
        case Unit.SECONDS:
            return f"{value:,.3g} s"
        case Unit.SHARE:
            return f"{value * 100:.4g} %"
        case Unit.BYTES:
            return f"{value / 2**20:,.0f} MiB"
        case Unit.PER_SECOND:
            return f"{value:,.3g}/s"
        case Unit.STATE:
            return "yes" if value else "no"
        case _:
            return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
