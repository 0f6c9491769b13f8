"""What docs/operating shows works: its imports and comparisons, its unit, its figures."""

import configparser
import csv
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.sizing import BEGIN, END, PAGE, kept, rendered
from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.adapters.embedded.postgres import bundled_programs
from tests.e2e import catalogs
from tests.e2e.processes import Finished, site, tallygate
from tests.servers import connection, eventually

from .pages import ROOT, block, blocks, commands, pages
from .test_names import check_command

LEDGER_S = 30.0
PAGE_OF_MIGRATING = "docs/operating/migrating.md"
CATALOG = """\
version: 1
default_plan: open
meters:
  requests: {aggregation: count, unit: request}
  egress_bytes: {aggregation: sum, unit: byte}
  tokens: {aggregation: sum, unit: token, group_by: [model]}
plans:
  open: {}
"""
DAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=3)
USED = [("acme", 120, 3), ("acme", 80, 9), ("globex", 40, 15)]
"""Whose, how many tokens, in which hour of the day."""


def at(hour: int) -> str:
    """Return an hour of the day that everything happened on."""
    return (DAY + timedelta(hours=hour)).isoformat()


def exports(folder: Path) -> None:
    """Write the files that other systems give, by the names of the page."""
    with (folder / "own.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["uuid", "account", "kind", "quantity", "used_at"])
        for number, (tenant, units, hour) in enumerate(USED):
            out.writerow([f"call-{number}", tenant, "api_call", 1, at(hour)])
            out.writerow([f"out-{number}", tenant, "egress_mb", units, at(hour)])
    events = [
        {
            "specversion": "1.0", "id": f"prompt-{number}", "source": "app", "type": "prompt",
            "subject": tenant, "time": at(hour), "data": {"tokens": units, "model": "small"},
        }
        for number, (tenant, units, hour) in enumerate(USED)
    ]  # fmt: skip
    (folder / "openmeter.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in events))
    with (folder / "stripe.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["customer", "aggregated_value"])
        out.writerows([("acme", 200), ("globex", 40)])


class Migration:
    """An installation, the exports, and the page's commands run against both."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.settings = settings

    def shown(self, *words: str) -> list[str]:
        """Return the page's one command with these words, on the day that is here."""
        found = [
            each
            for text in page_blocks()
            for each in commands(text)
            if all(word in each for word in words)
        ]
        [command] = found
        days = {"2026-11-19": at(0)[:10], "2026-11-20": (DAY + timedelta(1)).isoformat()[:10]}
        return [days.get(word, word) for word in command[1:]]

    async def give(self, *words: str) -> Finished:
        """Give the command."""
        return await tallygate(*self.shown(*words), "--json", cwd=self.folder, **self.settings)

    async def run(self, *words: str) -> Finished:
        """Give it; it must end well."""
        finished = await self.give(*words)
        assert finished.code == 0, finished.err + finished.out
        return finished


def page_blocks() -> Sequence[str]:
    """Return the console blocks of the page."""
    return [each.text for each in blocks("console") if each.page == PAGE_OF_MIGRATING]


@pytest.fixture
async def migration(tmp_path: Path, postgres_dsn: str) -> AsyncIterator[Migration]:
    """One process with every role, and a catalog that holds from before the usage."""
    exports(tmp_path)
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(EmbeddedRedis(tmp_path / "redis"))
        settings = {"redis_url": redis.url, "postgres_dsn": postgres_dsn}
        place = await stack.enter_async_context(site(tmp_path, **settings, counter_rebuild="none"))
        whole = await place.start("serve", "--with", "ingest,control")
        data, control = whole.address.split(", ")
        applied = await tallygate(
            *("apply", "-f", catalogs.write(tmp_path, CATALOG), "--control-address", control),
            *("--effective-at", at(0)),
        )
        assert applied.code == 0, applied.err
        await whole.ready()
        yield Migration(tmp_path, {**settings, "grpc_address": data})


async def test_imports_and_comparisons(migration: Migration) -> None:
    """Files of other systems are imported with their ids, once, and agree with what we have."""
    # What one file has not is a difference: each is compared before the next one is imported.
    for file, events in (("own.csv", 6), ("openmeter.jsonl", 3)):
        first = (await migration.run("import", file)).figures("import")
        assert (first["events accepted"], first["lines rejected"]) == (events, 0)
        again = (await migration.run("import", file)).figures("import")
        assert (again["events accepted"], again["events known already"]) == (0, events)

        async def agrees(file: str = file) -> bool:
            return (await migration.give("compare", file)).code == 0

        await eventually(agrees, LEDGER_S, what=f"{file} in the ledger")
    sums = (await migration.run("compare", "stripe.csv")).figures("result")
    assert (sums["matched"], sums["pairs that match"]) == (2, 2)
    async with connection(migration.settings["postgres_dsn"]) as opened:
        models = await opened.fetch(
            "select distinct dimensions->>'model' from tallygate.usage_event where meter = 'tokens'"
        )
    assert [tuple(each) for each in models] == [("small",)]


def test_the_unit_is_whole() -> None:
    """The file for systemd has a verb that is one, and sections that it knows."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(block("docs/operating/install.md", "text", "[Service]"))
    assert unit.sections() == ["Unit", "Service", "Install"]
    words = unit["Service"]["ExecStart"].split()
    assert words[0].endswith("/tallygate")
    check_command(words[1:])


def test_values_of_the_chart_exist() -> None:
    """What the pages set of the chart can be set, and has that form."""
    values = yaml.safe_load((ROOT / "helm" / "tallygate" / "values.yaml").read_text())
    shown = yaml.safe_load(block("docs/operating/install.md", "yaml", "redis:"))
    assert unknown(shown, values) == []
    text = pages()["docs/operating/install.md"] + pages()["docs/operating/upgrade.md"]
    for name in ("catalog.content", "migrate.enabled", "sidecar.journal.kind"):
        assert name in text
        found = values
        for part in name.split("."):
            found = found[part]
    assert unknown({"redis": {"uri": 1}}, values) == ["redis.uri"]


def unknown(shown: dict[str, Any], values: dict[str, Any], above: str = "") -> list[str]:
    """Return the names that are shown and are none of the chart's values."""
    found: list[str] = []
    for name, value in shown.items():
        if name not in values:
            found.append(f"{above}{name}")
        elif isinstance(value, dict) and isinstance(values[name], dict):
            found += unknown(value, values[name], f"{above}{name}.")
    return found


def test_programs_of_postgres_exist() -> None:
    """What the pages have of Postgres' own programs comes with it."""
    text = pages()["docs/operating/disaster-recovery.md"] + pages()["docs/operating/install.md"]
    for program in ("pg_receivewal", "pg_basebackup", "psql"):
        assert f"{program} --" in text
        assert (bundled_programs() / program).is_file()


def test_needs_are_those_that_were_measured() -> None:
    """The page on sizing has what the last run measured, multiplied."""
    shown = PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip()
    unit, taken = kept()
    head, _, body = rendered(unit, taken).partition("\n")
    # How many cores the machine had is the run's.
    assert shown.partition("\n")[2] == body
    assert shown.startswith(head.partition(",")[0])
