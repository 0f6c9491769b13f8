"""What the pages of capture and of events show is what there is."""

import json
import re

import jsonschema

from tallygate.adapters.catalog.document import parse
from tallygate.adapters.catalog.ingest import _EVENT, _INGEST
from tallygate.api.events_http import STATUSES, EventsOptions, parsed
from tallygate.api.events_listener import CONNECTIONS_MAX
from tallygate.domain.cloudevent import event_of
from tallygate.domain.event_rules import EventReader
from tallygate.settings import Settings
from tests.capture.world import app
from tests.docs.pages import ROOT
from tests.events.test_http import DESCRIPTION, described_as

INGEST = (ROOT / "docs" / "ingest.md").read_text()
CAPTURE = (ROOT / "docs" / "capture.md").read_text()


def shown(page: str, language: str) -> list[str]:
    """Return a page's blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def test_the_event_shown_is_usage_by_the_rules_shown() -> None:
    """The call of the page is mapped by its catalog, which names every key that there is."""
    (document,) = shown(INGEST, "yaml")
    sent, _ = shown(INGEST, "json")
    catalog = parse(document).catalog
    event = event_of(parsed(sent.encode()))
    uses = EventReader(catalog.ingest, frozenset(catalog.meters)).uses(event) or []
    assert [(use.meter, use.amount) for use in uses] == [("tokens", 1234), ("calls", 1)]
    assert all(f"{key}:" in document for key in (*_INGEST, *_EVENT))


def test_the_answers_are_those_of_the_description() -> None:
    """The problem shown is one, and each status has a row."""
    _, problem = shown(INGEST, "json")
    jsonschema.validate(json.loads(problem), described_as("Problem"))
    statuses = set(DESCRIPTION["paths"]["/v1/events"]["post"]["responses"])
    assert all(status in INGEST for status in statuses)
    assert {str(status.value) for status in STATUSES.values()} <= statuses


def test_the_bounds_are_those_of_the_settings() -> None:
    """What no setting says is as the settings have it, and the page too."""
    usual, fields = EventsOptions(), Settings.model_fields
    assert usual.body_bytes_max == fields["http_body_max_bytes"].default
    assert usual.calls_max == fields["http_calls_max"].default
    assert usual.timeout_s * 1000 == fields["http_timeout_ms"].default
    assert f"{CONNECTIONS_MAX:,} connections" in INGEST


async def test_the_sql_shown_works(empty_postgres_dsn: str) -> None:
    """Each statement of the page captures, in the order of the page."""
    async with app(empty_postgres_dsn) as world:
        await world.sql.execute('alter table app."Documents" rename to documents')
        for statements in shown(CAPTURE, "sql"):
            await world.sql.execute(statements)
        for call in re.findall(r"`(tallygate\.\w+\([^`]*\))`", CAPTURE):
            await world.sql.execute(f"select {call}")
        rows = await world.sql.fetch("select meter, ended_at from tallygate.captures order by 1")
        assert [row["meter"] for row in rows] == [
            "bytes_written", "documents_written", "storage_bytes",
        ]  # fmt: skip
        assert [row["ended_at"] is None for row in rows] == [False, True, False]
