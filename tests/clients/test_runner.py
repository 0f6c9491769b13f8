"""The runner of the cases finds out a client that does otherwise, and says where."""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from clients.conformance.cases import case_of
from clients.conformance.drivers import ROOT, Language
from clients.conformance.matching import differences, filled
from clients.conformance.story import Lane, Otherwise, ledger_faults, story
from clients.conformance.world import World, papers
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc
from tests.servers import quick_folder

LOST_REPLY = case_of(
    {
        "case": "a-lost-reply",
        "says": "A reply that was lost is found again.",
        "steps": [
            {"open": "c"},
            {"faults": [{"call": "CheckAndConsume", "lose": "UNAVAILABLE"}]},
            {"do": "check_and_consume", "ok": {"allowed": True, "replayed": True}},
            {"attempts": "CheckAndConsume", "count": 2, "same": ["operation_id"]},
        ],
    }
)


class Remembering(quota_pb2_grpc.QuotaServiceServicer):
    """Allows everything, and knows which operations it has seen."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    async def CheckAndConsume(  # noqa: N802 - gRPC's own spelling
        self, request: quota_pb2.CheckAndConsumeRequest, context: Any
    ) -> quota_pb2.CheckAndConsumeResponse:
        """Answer a charge."""
        replayed = request.operation_id in self._seen
        self._seen.add(request.operation_id)
        return quota_pb2.CheckAndConsumeResponse(allowed=True, replayed=replayed)


@asynccontextmanager
async def small_world(folder: Path) -> AsyncIterator[World]:
    """Lend a world of one method, without a ledger."""
    server = grpc.aio.server()
    # Its types call every method abstract; the class itself answers UNIMPLEMENTED for the others.
    remembering = Remembering()  # type: ignore[abstract]
    quota_pb2_grpc.add_QuotaServiceServicer_to_server(remembering, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        yield World(address, channel, "", folder, papers(folder))
    await server.stop(None)


async def played(folder: Path, *mode: str) -> None:
    """Play the case with the naive client."""
    file = Path(__file__).with_name("naive_driver.py")
    naive = Language(
        "naive", (sys.executable, str(file), *mode), ROOT, file, sys.executable, "naive", (ROOT,)
    )
    with quick_folder(folder) as room:
        async with small_world(room) as made, AsyncExitStack() as stack:
            lane = Lane(naive, stack)
            async with story(LOST_REPLY, made, lane, naive, "run") as told:
                await told.play()


async def test_a_client_that_makes_an_id_per_attempt_is_found_out(tmp_path: Path) -> None:
    """A retry under another id would charge twice: the case says so; with the id kept it passes."""
    with pytest.raises(Otherwise, match=r"ok\.replayed: expected True, was False"):
        await played(tmp_path)
    await played(tmp_path, "keep")


@pytest.mark.parametrize(
    ("expected", "actual", "told"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, []),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, ["a.b: expected 1, was 2"]),
        ({"a": True}, {"a": 1}, ["a: expected True, was 1"]),
        ([1, 2], [1], ["the answer: expected 2 members, was [1]"]),
        ([{"a": 1}], [{"a": 2}], ["[0].a: expected 1, was 2"]),
        ({"a": {"$set": True}}, {"a": ""}, ["a: expected $set True, was ''"]),
        ({"a": {"$set": False}}, {}, []),
        ({"a": {"$ge": 3}}, {"a": 2}, ["a: expected $ge 3, was 2"]),
        ({"a": {"$le": 3}}, {"a": 3}, []),
        ({"$count": {"of": {"a": 1}, "is": 2}}, [{"a": 1}, {"a": 2}, {"a": 1}], []),
        ({"$every": {"a": 1}}, [], ["the answer: expected $every {'a': 1}, was []"]),
        ({"a": {"$matches": "^b"}}, {"a": "ab"}, ["a: expected $matches ^b, was 'ab'"]),
        ({"$all": [{"$ge": 1}, {"$le": 2}]}, 3, ["the answer: expected $all"]),
    ],
)
def test_what_differs_is_told_with_its_place(expected: Any, actual: Any, told: list[str]) -> None:
    """Each difference names its path, what was expected, and what was there."""
    found = list(differences(expected, actual))
    assert len(found) == len(told)
    assert all(each.startswith(start) for each, start in zip(found, told, strict=True))


def test_what_is_known_fills_what_is_asked() -> None:
    """A whole reference keeps its type, one within a text becomes text."""
    known = {"told": {"ok": {"ids": ["a:0"], "count": 3}}}
    assert filled(["${told.ok.count}", "x-${told.ok.ids.0}"], known) == [3, "x-a:0"]


def test_usage_that_nobody_meant_is_a_fault() -> None:
    """The ledger's sums are compared whole."""
    rows = [{"meter": "a", "amount": 2, "sdk": "x"}, {"meter": "b", "amount": 1, "sdk": "x"}]
    assert ledger_faults({"sums": {"a": 2, "b": 1}, "each": {"sdk": "x"}}, rows) == []
    assert ledger_faults({"sums": {"a": 2}}, rows)
    assert ledger_faults({"events": 1}, rows)


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([{"opne": "c"}], "no step"),
        ([{"open": "c", "whit": {}}], "takes no"),
        ([{"with": {}, "open": "c"}], "begins with"),
    ],
)
def test_a_misspelled_step_is_refused(steps: list[dict[str, Any]], told: str) -> None:
    """What nobody would ever look at is no case."""
    with pytest.raises(ValueError, match=told):
        case_of({"case": "x", "says": "y", "steps": steps})
