"""Row 47: dashboards are whole, ask for what exists, and say what each panel is."""

import json
from pathlib import Path
from typing import Any

import pytest

from . import expressions, made, promtool, runbooks
from .panel import COLUMNS, HERE, RUNBOOKS, Dashboard, chosen
from .rule import Group, Recording, rules_file

VARIABLES = {
    "$__rate_interval": "5m",
    "$__range": "6h",
    "$cluster": ".*",
    "$namespace": ".*",
    "$job": ".*",
}
"""What Grafana puts in; the longest names come first."""

BOARDS = pytest.mark.parametrize("board", made.BOARDS, ids=lambda board: board.uid)


def asked(expr: str) -> str:
    """Return an expression as Prometheus is asked it."""
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    return expr


def document(board: Dashboard) -> dict[str, Any]:
    """Return a dashboard as it lies in the chart."""
    found: dict[str, Any] = json.loads((made.DASHBOARDS / f"{board.uid}.json").read_text())
    return found


@BOARDS
def test_panels_have_a_place_each(board: Dashboard) -> None:
    """Ids are unique, nothing overlaps, and nothing reaches beyond the grid."""
    panels = document(board)["panels"]
    assert len({each["id"] for each in panels}) == len(panels)
    taken = set[tuple[int, int]]()
    for each in panels:
        at = each["gridPos"]
        assert 0 <= at["x"] < at["x"] + at["w"] <= COLUMNS
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, each["title"]
        taken |= cells


@BOARDS
def test_panels_say_what_they_are(board: Dashboard) -> None:
    """Each has a title of its own, a description, a unit, and expressions with a legend."""
    panels = [each for each in document(board)["panels"] if each["type"] != "row"]
    titles = [each["title"] for each in panels]
    assert len({*titles}) == len(titles)
    for each in panels:
        assert each["description"].endswith("."), each["title"]
        assert each["fieldConfig"]["defaults"]["unit"]
        assert each["targets"]
        for target in each["targets"]:
            assert target["expr"]
            assert target["legendFormat"]
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in each["targets"]}) == len(each["targets"])


@BOARDS
def test_links_lead_to_runbooks(board: Dashboard) -> None:
    """Each panel's link is to a page that is there."""
    found = document(board)
    links = [link for each in (found, *found["panels"]) for link in each.get("links", ())]
    pages = [each["url"] for each in links if each["type"] == "link"]
    assert len(pages) > 1
    for url in pages:
        start, _, page = url.partition("/")
        assert start == "${runbooks}"
        assert (runbooks.FOLDER / page).is_file(), url
    assert made.ROOT / RUNBOOKS == runbooks.FOLDER


@BOARDS
def test_expressions_are_of_what_is_chosen(board: Dashboard) -> None:
    """Each metric is asked for with the variables, and the variables are all declared."""
    variables = {each["name"] for each in document(board)["templating"]["list"]}
    assert variables == {"datasource", "cluster", "namespace", "job", "runbooks"}
    for panel in board.panels:
        for target in panel.targets:
            named = expressions.selectors(chosen(target.expr))
            assert named
            assert all(HERE in matchers for _, matchers in named), panel.title


@BOARDS
def test_panels_ask_for_what_exists(board: Dashboard) -> None:
    """Every metric and label of every expression is one that processes or scrapes have."""
    for panel in board.panels:
        for target in panel.targets:
            assert [*expressions.faults(asked(chosen(target.expr)))] == [], panel.title


def test_promtool_reads_what_is_asked(tmp_path: Path) -> None:
    """Every expression of dashboards and runbooks parses."""
    wanted = [
        asked(chosen(target.expr))
        for board in made.BOARDS
        for panel in board.panels
        for target in panel.targets
    ]
    wanted += [query for page in runbooks.pages().values() for query in runbooks.queries(page)]
    rules = tuple(Recording(f"asked:{number}", expr) for number, expr in enumerate(wanted))
    file = tmp_path / "asked.yaml"
    file.write_text(rules_file("", [Group("asked", rules)]))
    assert f"{len(wanted)} rules found" in promtool.promtool("check", "rules", file)


def test_a_metric_is_told_apart_from_its_alike() -> None:
    """A selector is found with what stands in its braces, also where that holds a brace."""
    expr = 'sum(up{a="}",b="x"}) / on (job) tallygate_watches'
    assert expressions.selectors(expr) == [("up", 'a="}",b="x"'), ("tallygate_watches", "")]
