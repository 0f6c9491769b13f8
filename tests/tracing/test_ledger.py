"""Places in traces, kept beside the ledger: once, by the ingester's rights, for a month."""

from dataclasses import replace

import pytest

from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.migrate import apply_roles
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.adapters.postgres.traces import KEPT_DAYS
from tallygate.adapters.redis.admit_call import TRACE_TAG
from tallygate.adapters.redis.codec import ProtobufEventEncoder, decode_entry
from tallygate.domain.trace import NOWHERE, place
from tallygate.domain.varint import sized
from tallygate.gen.v1 import event_pb2
from tallygate.ports import LedgerBatch
from tests.servers import connection
from tests.sql.test_append_only import as_role
from tests.usage_events import event

FIRST, SECOND = place(1, 1), place(2, 2)
DAY_US = 86_400_000_000


async def test_the_first_place_is_kept_for_a_month(postgres_dsn: str) -> None:
    """An event that comes again keeps its first trace; rows that are too old go as new ones come.

    The ingester's own rights are enough for it, and events without a place leave no row.
    """
    await apply_roles(postgres_dsn)
    postgres = Postgres(as_role(postgres_dsn, "tallygate_ingest"))
    ledger = PostgresLedger(postgres)
    old_us = event(1).received_at_us
    try:
        for batch in (
            [replace(event(1), trace=FIRST), event(2)],
            [replace(event(1), trace=SECOND)],
        ):
            await ledger.persist(LedgerBatch(tuple(batch)))
        rows = "select event_id, trace_context from tallygate.event_trace order by 1"
        async with connection(postgres_dsn) as admin:
            assert [tuple(row) for row in await admin.fetch(rows)] == [(event(1).event_id, FIRST)]
            moved = "update tallygate.event_trace set received_at = now() - $1 * interval '1 day'"
            await admin.execute(moved, KEPT_DAYS + 1)
            later = replace(event(3), trace=SECOND, received_at_us=old_us + DAY_US)
            await ledger.persist(LedgerBatch((later,)))
            assert [tuple(row) for row in await admin.fetch(rows)] == [(later.event_id, SECOND)]
    finally:
        await postgres.close()


async def test_older_code_writes_messages_still(postgres_dsn: str) -> None:
    """What names no place is taken, and read as a message of no trace."""
    async with connection(postgres_dsn) as admin:
        await admin.execute(
            "insert into tallygate.outbox (id, aggregatetype, aggregateid, type, payload)"
            " values (gen_random_uuid(), 'usage', 'batch', 'usage.batch', '{}')"
        )
        row = await admin.fetchrow("select trace_context from tallygate.outbox")
        assert row is not None
        assert row["trace_context"] is None
        assert "trace_context" in query("outbox_claim")


def entry(payload: bytes, name: bytes = b"u1+1") -> dict[bytes, bytes]:
    """Return a stream entry's fields."""
    return {b"t": b"1800000000000000", b"s": b"a", b"e": b"e1", name: payload}


def test_entries_of_either_age_parse() -> None:
    """An entry without a place is as ever; one with a place gives it to its events and crossings.

    The events' own bytes, of which repeats are told, are the same in both.
    """
    payload = ProtobufEventEncoder().encode([event(1)])
    crossing = {b"x1": b"monthly,requests,500000,5,7,10,1,2,acme"}
    plain = decode_entry(0, "1-1", entry(payload) | crossing)
    traced = decode_entry(0, "1-1", entry(payload + sized(TRACE_TAG, FIRST)) | crossing)
    for found, at in ((plain, NOWHERE), (traced, FIRST)):
        assert [each.trace for each in found.events] == [at]
        assert [each.trace for each in found.crossings] == [at]
    assert traced == plain
    assert ProtobufEventEncoder().encode(traced.events) == payload


def test_an_older_reader_passes_over_it() -> None:
    """A field that a reader does not know changes none of what it reads: no dead letter."""
    payload = ProtobufEventEncoder().encode([event(1)])
    unknown = payload + sized(b"\x7a", FIRST)
    found = decode_entry(0, "1-1", entry(unknown))
    assert (len(found.events), found.rejected) == (1, ())
    batch = event_pb2.UsageEventBatch.FromString(payload + sized(TRACE_TAG, FIRST))
    assert batch.trace_context == FIRST


@pytest.mark.parametrize(
    "broken", [b"", b"x", b"\0" * 25, FIRST[:-1], FIRST[:-1] + b"\0", FIRST + b"\1"]
)
def test_broken_places_are_none(broken: bytes) -> None:
    """Whatever stands where a place should be, the events are read, and belong to no trace."""
    payload = ProtobufEventEncoder().encode([event(1)]) + sized(TRACE_TAG, broken)
    found = decode_entry(0, "1-1", entry(payload))
    assert [each.trace for each in found.events] == [NOWHERE]
    assert found.rejected == ()
