"""What an alert, a recording rule and a group of them are, and the files that they become.

Owns the form of the files. Guarantees that the same tables give the same bytes, and that each alert
comes with a story in which it fires and resolves. Refuses to know any metric.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import yaml

RUNBOOKS: Final = "docs/runbooks/"
"""Below the root of this repository; a chart, or `--runbooks`, puts an address in front."""

PLACE: Final = {"cluster": "c", "namespace": "n", "job": "tallygate", "instance": "i:9464"}
"""Where the series of stories come from."""

_VALUE: Final = re.compile(r"\{\{ \$value[^}]*\}\}")
_LABEL: Final = re.compile(r"\{\{ \$labels\.(\w+) \}\}")


class Severity(StrEnum):
    """Who is told: somebody now, somebody today, or whoever looks."""

    PAGE = "page"
    TICKET = "ticket"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Story:
    """Series by name, as promtool writes them, and what becomes of an alert.

    At `calm_at` nothing fires, at `fires_at` the alert does, with these further labels and this
    value as it is written out; at `resolved_at` it does not any more.
    """

    series: Mapping[str, str]
    fires_at: str
    resolved_at: str
    labels: Mapping[str, str] = field(default_factory=dict)
    value: str = ""
    calm_at: str = "1m"
    every: str = "1m"


@dataclass(frozen=True, slots=True)
class Alert:
    """What fires when an expression holds for so long, who is told, and its page is `name`.md."""

    name: str
    expr: str
    lasts: str
    severity: Severity
    summary: str
    description: str
    story: Story
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def annotations(self) -> dict[str, str]:
        """What whoever is told reads."""
        return {
            "summary": self.summary,
            "description": self.description,
            "runbook_url": f"{RUNBOOKS}{self.name}.md",
        }

    def rule(self) -> dict[str, Any]:
        """Return it as Prometheus reads it."""
        held = {"for": self.lasts} if self.lasts else {}
        return {
            "alert": self.name,
            "expr": self.expr,
            **held,
            "labels": {"severity": self.severity.value, **self.labels},
            "annotations": self.annotations,
        }


@dataclass(frozen=True, slots=True)
class Recording:
    """A figure that is worked out beforehand."""

    name: str
    expr: str

    def rule(self) -> dict[str, Any]:
        """Return it as Prometheus reads it."""
        return {"record": self.name, "expr": self.expr}


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are worked out together, one after the other."""

    name: str
    rules: tuple[Alert | Recording, ...]
    interval: str = ""

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """Those that are alerts."""
        return tuple(each for each in self.rules if isinstance(each, Alert))


def series(metric: str, values: str, **labels: str) -> dict[str, str]:
    """Return one series of a story; an empty label is one that is not there."""
    shown = {key: value for key, value in (PLACE | labels).items() if value}
    inner = ",".join(f'{key}="{value}"' for key, value in shown.items())
    return {f"{metric}{{{inner}}}": values}


def rules_file(head: str, groups: Iterable[Group]) -> str:
    """Return the text of a file of rules."""
    made = [
        {
            "name": each.name,
            **({"interval": each.interval} if each.interval else {}),
            "rules": [rule.rule() for rule in each.rules],
        }
        for each in groups
    ]
    return head + _written({"groups": made})


def stories_file(rules: str, groups: Sequence[Group], every: str) -> str:
    """Return the text of a file that `promtool test rules` takes: the story of each alert."""
    return _written(
        {
            "rule_files": [rules],
            "evaluation_interval": every,
            # As they stand: what is recorded first is there for the alerts of the same moment.
            "group_eval_order": [group.name for group in groups],
            "tests": [_story(alert) for group in groups for alert in group.alerts],
        }
    )


def _story(alert: Alert) -> dict[str, Any]:
    story = alert.story
    told = {"severity": alert.severity.value, **alert.labels, **story.labels}

    def text(template: str) -> str:
        shown = _VALUE.sub(lambda _: story.value, template)
        return _LABEL.sub(lambda found: told.get(found[1], ""), shown)

    expected = {
        "exp_labels": told,
        "exp_annotations": {key: text(value) for key, value in alert.annotations.items()},
    }
    moments: tuple[tuple[str, list[dict[str, Any]]], ...] = (
        (story.calm_at, []),
        (story.fires_at, [expected]),
        (story.resolved_at, []),
    )
    return {
        "name": alert.name,
        "interval": story.every,
        "input_series": [
            {"series": name, "values": values} for name, values in story.series.items()
        ],
        "alert_rule_test": [
            {"alertname": alert.name, "eval_time": at, "exp_alerts": alerts}
            for at, alerts in moments
        ],
    }


def _block(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and never a reference to what was written before."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write everything out."""
        return True


_Dumper.add_representer(str, _block)


def _written(document: Mapping[str, Any]) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1_000, allow_unicode=True)
