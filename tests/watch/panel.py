"""What a panel and a dashboard are, and the JSON that Grafana reads.

Owns the grid, the variables and the form of the JSON. Guarantees that the same tables give the same
bytes. Refuses to know any metric.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

SCHEMA: Final = 39
"""Of Grafana 11; older ones are migrated by Grafana when it loads them."""

RUNBOOKS: Final = "docs/runbooks"
COLUMNS: Final = 24
HEIGHT: Final = 8
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
HERE: Final = 'cluster=~"$cluster",namespace=~"$namespace",job=~"$job"'
"""What the variables choose; `.*` also finds series without such a label."""


class Unit(StrEnum):
    """Units by Grafana's names."""

    COUNT = "short"
    PER_SECOND = "ops"
    SECONDS = "s"
    BYTES = "bytes"
    SHARE = "percentunit"
    CORES = "none"
    STATE = "bool_yes_no"


class Kind(StrEnum):
    """How a panel is drawn."""

    LINES = "timeseries"
    FIGURE = "stat"
    BARS = "bargauge"


@dataclass(frozen=True, slots=True)
class Target:
    """One expression, and how its series are called. `HERE` stands for what is chosen."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """Some series in a frame. `bad` is from where on a value is coloured; below, if `less`."""

    title: str
    about: str
    targets: tuple[Target, ...]
    unit: Unit = Unit.COUNT
    kind: Kind = Kind.LINES
    width: int = 8
    bad: float | None = None
    less: bool = False
    runbook: str = ""
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Panels below a heading, from left to right."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Rows of panels for one kind of reader; `uid` is what links and pictures are called by."""

    uid: str
    title: str
    about: str
    rows: tuple[Row, ...]
    span: str = "now-6h"
    refresh: str = "30s"
    tags: tuple[str, ...] = field(default=("tallygate",))

    @property
    def panels(self) -> list[Panel]:
        """All of them, in the order of reading."""
        return [panel for row in self.rows for panel in row.panels]

    def text(self) -> str:
        """Return the JSON."""
        return json.dumps(self._document(), indent=1, ensure_ascii=False) + "\n"

    def _document(self) -> dict[str, Any]:
        return {
            "uid": f"tallygate-{self.uid}",
            "title": f"Tallygate / {self.title}",
            "description": self.about,
            "tags": [*self.tags],
            "schemaVersion": SCHEMA,
            "version": 1,
            "editable": False,
            "graphTooltip": 1,
            "timezone": "utc",
            "time": {"from": self.span, "to": "now"},
            "refresh": self.refresh,
            "templating": {"list": _variables()},
            "annotations": {"list": [_starts()]},
            "links": [_others(), _link("Runbooks", "README.md")],
            "panels": [*_placed(self.rows)],
        }


def chosen(expr: str) -> str:
    """Return an expression in which each metric of ours is of what the variables choose."""
    return expr.replace("HERE", HERE)


def _placed(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    number, top = 0, 0
    for row in rows:
        number += 1
        place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
        yield {
            "id": number, "type": "row", "title": row.title, "collapsed": False,
            "gridPos": place, "panels": [],
        }  # fmt: skip
        top, left, height = top + 1, 0, 0
        for panel in row.panels:
            tall = HEIGHT if panel.kind is not Kind.FIGURE else HEIGHT // 2
            if left + panel.width > COLUMNS:
                top, left, height = top + height, 0, 0
            number += 1
            yield _shown(panel, number, {"x": left, "y": top, "w": panel.width, "h": tall})
            left, height = left + panel.width, max(height, tall)
        top += height


def _shown(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    shown = {
        "id": number,
        "type": panel.kind.value,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": place,
        "targets": [
            {
                "refId": chr(ord("A") + at),
                "datasource": SOURCE,
                "editorMode": "code",
                "expr": chosen(each.expr),
                "legendFormat": each.legend,
                "range": panel.kind is Kind.LINES,
                "instant": panel.kind is not Kind.LINES,
            }
            for at, each in enumerate(panel.targets)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel.kind),
    }
    if panel.runbook:
        shown["links"] = [_link(f"Runbook: {panel.runbook}", f"{panel.runbook}.md")]
    return shown


def _defaults(panel: Panel) -> dict[str, Any]:
    well, ill = ("red", "green") if panel.less else ("green", "red")
    steps: list[dict[str, Any]] = [
        {"color": well if panel.bad is not None else "text", "value": None}
    ]
    if panel.bad is not None:
        steps.append({"color": ill, "value": panel.bad})
    found: dict[str, Any] = {
        "unit": panel.unit.value,
        "min": 0,
        "color": {"mode": "palette-classic" if panel.kind is Kind.LINES else "thresholds"},
        "thresholds": {"mode": "absolute", "steps": steps},
        "noValue": "nothing",
    }
    if panel.kind is Kind.LINES:
        found["custom"] = {
            "drawStyle": "line", "lineWidth": 1, "fillOpacity": 30 if panel.stacked else 5,
            "showPoints": "never", "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "off" if panel.bad is None else "line"},
        }  # fmt: skip
    return found


def _options(kind: Kind) -> dict[str, Any]:
    last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    match kind:
        case Kind.LINES:
            return {
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        case Kind.FIGURE:
            return {"reduceOptions": last, "colorMode": "value", "graphMode": "area"}
        case Kind.BARS:
            return {"reduceOptions": last, "orientation": "horizontal", "displayMode": "gradient"}


def _variables() -> list[dict[str, Any]]:
    every = {
        "type": "query", "datasource": SOURCE, "refresh": 2, "sort": 1, "multi": True,
        "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip
    here = "tallygate_build_info"
    asked = {
        "cluster": here,
        "namespace": f'{here}{{cluster=~"$cluster"}}',
        "job": f'{here}{{cluster=~"$cluster",namespace=~"$namespace"}}',
    }
    return [
        {
            "name": "datasource", "label": "Data source", "type": "datasource",
            "query": "prometheus", "current": {}, "hide": 0,
        },
        *(
            {
                **every,
                "name": name,
                "label": name.capitalize(),
                "definition": f"label_values({series}, {name})",
                "query": {"query": f"label_values({series}, {name})", "refId": name},
            }
            for name, series in asked.items()
        ),
        {
            # Where the runbooks are read: a web address of docs/runbooks, set once when imported.
            "name": "runbooks", "label": "Runbooks", "type": "textbox", "hide": 0,
            "query": RUNBOOKS, "current": {"text": RUNBOOKS, "value": RUNBOOKS},
        },
    ]  # fmt: skip


def _starts() -> dict[str, Any]:
    return {
        "name": "Processes that began",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": f"changes(process_start_time_seconds{{{HERE}}}[1m]) > 0",
        "titleFormat": "{{job}} began",
        "textFormat": "{{instance}}",
        "step": "60s",
    }


def _others() -> dict[str, Any]:
    return {
        "title": "Tallygate", "type": "dashboards", "tags": ["tallygate"], "asDropdown": True,
        "includeVars": True, "keepTime": True, "targetBlank": False, "url": "",
    }  # fmt: skip


def _link(title: str, page: str) -> dict[str, Any]:
    url = f"${{runbooks}}/{page}"
    return {"title": title, "type": "link", "url": url, "targetBlank": True}
