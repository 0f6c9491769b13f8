"""Two versions beside each other: scripts, messages and stream entries of both are live at once."""

import asyncio
import hashlib
from dataclasses import replace
from typing import Any, cast

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.redis import keys
from tallygate.adapters.redis.codec import decode_entry
from tallygate.adapters.redis.script import Script
from tallygate.domain.decision import Reused
from tallygate.domain.ids import EventId
from tallygate.flow.gather import Gather
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc
from tallygate.ports import OperationKey
from tests.builders import (
    CatalogInMemory,
    catalog,
    check,
    consume,
    decided,
    rate,
    used,
    window,
)
from tests.faults.redis_parts import SHARD, rig
from tests.sidecar import channel, charge, sidecar

CALLS = 200
# A field of a later version: number 900, a string.
UNKNOWN = b"\xa2\x38\x05later"


async def test_two_texts_of_the_script_decide_alike(redis_url: str) -> None:
    """Sidecars with another text each of the same script share counters, records and numbers."""
    async with rig(redis_url, source="older") as older, rig(redis_url, source="newer") as newer:
        # Redis knows scripts by their hash: a comment more is another script to it.
        assert newer.store._script is not None
        text = f"{newer.store._script.text}\n-- a later version\n"
        sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        assert await newer.beside.script_load(text) == sha
        newer.store._script = Script(text, sha)
        gathers = [
            Gather(it.store, SystemClock(), queue_max=1_000, batch_max=8) for it in (older, newer)
        ]
        running = [asyncio.create_task(gather.run()) for gather in gathers]
        limits = [window(limit=CALLS // 2)]
        answers = await asyncio.gather(
            *(gathers[n % 2].decide([consume(limits, 1, f"op-{n}")]) for n in range(CALLS))
        )
        granted = [n for n, [answer] in enumerate(answers) if decided(answer).allowed]
        assert len(granted) == CALLS // 2
        # What one has decided, the other knows.
        for n in granted:
            [again] = await gathers[(n + 1) % 2].decide([consume(limits, 1, f"op-{n}")])
            assert decided(again).replayed
        [stands] = await gathers[0].decide([check(limits)])
        assert used(stands) == [CALLS // 2]
        for gather in gathers:
            gather.close()
        await asyncio.gather(*running)
        loaded = (await older.beside.info("memory")).get("number_of_cached_scripts")
        assert loaded is None or loaded >= 2


async def test_messages_of_a_later_version_are_understood(redis_url: str) -> None:
    """A caller, and a reply, with fields that are not known yet mean what the known ones say."""
    view = CatalogInMemory(catalog(window()))
    async with sidecar(redis_url, view) as address, channel(address) as opened:
        raw: Any = opened.unary_unary("/tallygate.v1.QuotaService/CheckAndConsume")
        later = charge("op", 3).SerializeToString() + UNKNOWN
        first = quota_pb2.CheckAndConsumeResponse.FromString(await raw(later))
        assert (first.allowed, first.limits[0].used) == (True, 3)
        # The same call by an older client is the same call.
        stub = quota_pb2_grpc.QuotaServiceStub(opened)
        again = await stub.CheckAndConsume(charge("op", 3))
        assert (again.replayed, again.limits[0].used) == (True, 3)
        older = quota_pb2.CheckAndConsumeResponse.FromString(again.SerializeToString() + UNKNOWN)
        assert older.allowed


async def test_entries_of_a_later_version_are_read(redis_url: str) -> None:
    """Events with fields that an ingester does not know yet are stored by those that it knows."""
    async with rig(redis_url) as it:
        [answer] = await it.store.decide([consume([window()], 5, "op")])
        assert decided(answer).allowed
        entries = await it.beside.xrange(keys.stream(SHARD))
        [(entry_id, fields)] = cast(list[tuple[bytes, dict[bytes, bytes]]], entries)
        [before] = decode_entry(SHARD, entry_id.decode(), fields).events
        later = {
            name: value + UNKNOWN if name.startswith(b"u") else value
            for name, value in fields.items()
        }
        [after] = decode_entry(SHARD, entry_id.decode(), later).events
        assert after == before


async def test_what_an_older_version_remembers_is_answered(redis_url: str) -> None:
    """A repeat, and a refund, of a call recorded as text find its answer and its events."""
    async with rig(redis_url) as it:
        operation = consume([window(), rate()], 5, "op")
        assert operation.operation_id is not None
        [first] = await it.store.decide([operation])
        answer = decided(first)
        names = (operation.tenant_id, operation.operation_id)
        key = keys.operation(SHARD, await it.epoch(), *names)
        ends_us = answer.at_us + 60_000_000
        readings = ";".join(
            f"{each.limit_id},{each.meter},{each.state.value},{each.used},{each.limit},"
            f"{each.remaining},{each.resets_at_us}"
            for each in answer.readings
        )
        text = (
            f"{operation.fingerprint};{ends_us};{answer.source_id};"
            f"G;{answer.at_us};{answer.first_seq};{readings}\n"
        )
        await it.beside.set(key, text.encode() + operation.payload)
        [again] = await it.store.decide([operation])
        assert again == replace(answer, replayed=True)
        [other] = await it.store.decide([replace(operation, fingerprint="another")])
        assert isinstance(other, Reused)
        event = OperationKey(SHARD, *names, EventId("op"))
        recorded = await it.store.recorded(event)
        assert recorded is not None
        assert (recorded.payload, recorded.at_us) == (operation.payload, answer.at_us)
