"""`tallygate demo`, as the first thing that anybody runs."""

import asyncio
from pathlib import Path

import pytest

from tests.e2e.processes import rows_of, tallygate

SAMPLE_LINES = 2_500


@pytest.mark.slow
async def test_demo_accounts_for_every_call(tmp_path: Path) -> None:
    """The demo's ledger holds what was accepted, all of it and at once, and limits were met."""
    finished = await tallygate("demo", "--json", cwd=tmp_path)
    assert finished.code == 0, finished.err
    figures = finished.figures("decisions")
    assert figures["calls"] == SAMPLE_LINES
    assert figures["allowed"] + figures["refused"] == SAMPLE_LINES
    assert figures["refused"] > 0
    assert figures["events accepted"] == figures["events in ledger"] > 0
    assert figures["completeness"] == "100%"
    assert figures["ingest lag"] == "0.0 s"
    events = {row["meter"]: row["events"] for row in rows_of(finished, "usage")}
    assert events["requests"] == figures["allowed"]
    assert sum(events.values()) == figures["events in ledger"]
    assert not any(await asyncio.to_thread(lambda: [*tmp_path.iterdir()]))
