"""Row 47: every alert fires and resolves, is about metrics that exist, and leads to a runbook."""

from pathlib import Path

import pytest

from tests.servers import connection

from . import expressions, made, promtool, runbooks
from .rule import Alert, Group, Severity, Story, rules_file, series, stories_file

ALERTS = {alert.name: alert for alert in made.alerts()}
EVERY = {"objectives": "5m"}
"""How often rules are looked at in the stories: their windows of days need no minutes."""


def test_the_files_are_current() -> None:
    """What lies in the chart is what the tables make; `python -m tests.watch` writes it."""
    assert made.written() == made.files()


def test_promtool_reads_the_rules() -> None:
    """Every file of rules is well-formed, and every expression parses."""
    said = promtool.promtool("check", "rules", *sorted(made.RULES.glob("*.yaml")))
    assert said.count("SUCCESS") == len(made.GROUPS)


@pytest.mark.parametrize("name", made.GROUPS)
def test_every_alert_fires_and_resolves(name: str, tmp_path: Path) -> None:
    """Each is silent while all is well, fires with what it says, and is over when all is well."""
    stories = tmp_path / "stories.yaml"
    rules = str(made.RULES / f"{name}.yaml")
    stories.write_text(stories_file(rules, made.GROUPS[name], EVERY.get(name, "1m")))
    assert "SUCCESS" in promtool.promtool("test", "rules", stories)


def test_an_alert_that_does_not_fire_is_noticed(tmp_path: Path) -> None:
    """A story in which nothing happens is no proof: promtool objects."""
    quiet = Alert(
        *("TallygateIngestLag", "up == 0", "5m", Severity.NOTE, "A summary", "A description"),
        Story(series("up", "1x60"), "20m", "40m"),
    )
    rules, stories = tmp_path / "rules.yaml", tmp_path / "stories.yaml"
    groups = [Group("quiet", (quiet,))]
    rules.write_text(rules_file("", groups))
    stories.write_text(stories_file(str(rules), groups, "1m"))
    with pytest.raises(AssertionError, match="FAILED"):
        promtool.promtool("test", "rules", stories)


def test_names_are_told_once() -> None:
    """No two alerts, groups or figures have the same name."""
    rules = [rule.name for group in made.groups() for rule in group.rules]
    groups = [group.name for group in made.groups()]
    assert len(rules) == len({*rules})
    assert len(groups) == len({*groups})


@pytest.mark.parametrize("group", made.groups(), ids=lambda group: group.name)
def test_rules_ask_for_what_exists(group: Group) -> None:
    """Every metric and every label of every rule is one that processes or scrapes have."""
    found = {rule.name: [*expressions.faults(rule.expr)] for rule in group.rules}
    assert {name: faults for name, faults in found.items() if faults} == {}


def test_what_does_not_exist_is_noticed() -> None:
    """A metric or a label that is misspelled is found, also where it is grouped by."""
    assert [*expressions.faults("tallygate_ingest_lag")] == ["no metric tallygate_ingest_lag"]
    wrong = 'sum by (shart) (tallygate_stream_depth{shard="1",stream="}"})'
    assert [*expressions.faults(wrong)] == [
        "tallygate_stream_depth has no label stream",
        "nothing here has a label shart",
    ]
    buckets = 'rate(tallygate_rpc_duration_seconds_bucket{le="0.1",code="OK"}[5m])'
    assert [*expressions.faults(buckets)] == []


def test_stories_tell_of_what_an_alert_asks() -> None:
    """Each story's series are those that its alert names, and no others."""
    recorded = {
        rule.name: rule.expr
        for group in made.groups()
        for rule in group.rules
        if not isinstance(rule, Alert)
    }
    for alert in ALERTS.values():
        asked = expressions.names(alert.expr)
        for name in asked & recorded.keys():
            asked |= expressions.names(recorded[name])
        told = {name for each in alert.story.series for name in expressions.names(each)}
        assert told <= asked, alert.name


def test_every_alert_has_its_page() -> None:
    """Each alert's runbook is there, and there is none of an alert that is no more."""
    assert runbooks.pages().keys() == ALERTS.keys()


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_pages_say_what_to_do(name: str) -> None:
    """A runbook has its parts in order, shows its alert's severity, and a command or a query."""
    text = runbooks.pages()[name].read_text()
    assert text.startswith(f"# {name}\n\n{ALERTS[name].summary}")
    assert tuple(runbooks.parts(text)) == runbooks.PARTS
    assert f"Severity: {ALERTS[name].severity.value}" in text
    assert "```" in text


def test_pages_ask_for_what_exists() -> None:
    """Every query of a runbook is of metrics and labels that processes or scrapes have."""
    found = {
        name: [fault for each in runbooks.queries(page) for fault in expressions.faults(each)]
        for name, page in runbooks.pages().items()
    }
    assert {name: faults for name, faults in found.items() if faults} == {}


async def test_statements_of_pages_are_understood(read_postgres_dsn: str) -> None:
    """Postgres takes every statement of a runbook, on the schema as it is."""
    asked = [each for page in runbooks.pages().values() for each in runbooks.statements(page)]
    assert len(asked) > 3
    async with connection(read_postgres_dsn) as admin:
        for each in asked:
            await admin.prepare(each)


def test_the_index_names_every_alert() -> None:
    """docs/runbooks/README.md links each page, with its severity and its summary."""
    text = (runbooks.FOLDER / "README.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| [")]
    expected = {
        f"| [{each.name}]({each.name}.md) | {each.severity.value} | {each.summary} |"
        for each in ALERTS.values()
    }
    assert {*rows} == expected
    assert len(rows) == len(expected)
