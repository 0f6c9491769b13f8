"""The contract of the `UsageRecorder` port, on the fake and on a real sidecar."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tallygate.adapters.sidecar.recorder import SidecarRecorder
from tallygate.domain.recording import Later, Recorded, Refused, Use
from tallygate.ports.recording import UsageRecorder
from tallygate.testing.capture import FakeRecorder
from tallygate.wiring.dialing import Dialing
from tallygate.wiring.recording import DialedRecorder
from tests.live import document, live
from tests.sidecar import Tuning, channel, sidecar


@pytest.fixture(params=["fake", "sidecar"])
async def recorder(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[UsageRecorder]:
    """Each implementation in turn; both know one meter."""
    if request.param == "fake":
        yield FakeRecorder({"nothing": Refused("UNKNOWN_METER", "no such meter", "meter")})
        return
    async with live(redis_url, document()) as found:
        view = found.sidecars[0].view
        async with (
            sidecar(redis_url, view, Tuning(source="recorder")) as address,
            channel(address) as opened,
        ):
            yield SidecarRecorder(opened, "tests/1")


def use(amount: int = 3, meter: str = "requests") -> Use:
    """Return a use that nobody has told yet."""
    return Use(str(uuid.uuid4()), "acme", meter, amount, 0, {"region": "eu"}, "ann", '{"a": "b"}')


async def test_usage_is_recorded_once(recorder: UsageRecorder) -> None:
    """The same again is known; with other content it is refused."""
    told = use()
    assert await recorder.record([told]) == [Recorded()]
    assert await recorder.record([told]) == [Recorded(replayed=True)]
    (other,) = await recorder.record([replace(told, amount=4)])
    assert isinstance(other, Refused)
    assert other.reason == "OPERATION_ID_REUSED"


async def test_each_piece_is_answered_by_itself(recorder: UsageRecorder) -> None:
    """One of a meter that nobody knows is refused with its reason, its neighbours are recorded."""
    first, refused, last = await recorder.record([use(), use(meter="nothing"), use()])
    assert (first, last) == (Recorded(), Recorded())
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.field) == ("UNKNOWN_METER", "meter")


async def test_an_event_is_taken_back_once(recorder: UsageRecorder) -> None:
    """The refund is harmless when repeated."""
    told = use(1)
    await recorder.record([told])
    assert await recorder.take_back(told) == Recorded()
    assert await recorder.take_back(told) == Recorded(replayed=True)


async def test_a_refund_of_nothing_says_so(redis_url: str) -> None:
    """An event that the sidecar does not know is refused by that reason."""
    async with live(redis_url, document()) as found:
        view = found.sidecars[0].view
        async with (
            sidecar(redis_url, view, Tuning(source="recorder")) as address,
            channel(address) as opened,
        ):
            taken = await SidecarRecorder(opened, "tests/1").take_back(use())
            assert isinstance(taken, Refused)
            assert taken.reason == "EVENT_NOT_FOUND"
            # A list that is too large for one message is divided.
            labels = {f"d{number}": "x" * 256 for number in range(16)}
            heavy = [replace(use(), dimensions=labels) for _ in range(1_000)]
            outcomes = await SidecarRecorder(opened, "tests/1").record(heavy)
            assert outcomes == [Recorded()] * 1_000


async def test_nobody_there_is_later(tmp_path: Path) -> None:
    """Every piece may be told again; nothing is refused for that."""
    recorder = DialedRecorder(f"unix:{tmp_path}/nobody.sock", None, "tests/1")
    outcomes = await recorder.record([use(), use()])
    assert all(isinstance(each, Later) for each in outcomes)
    assert isinstance(await recorder.take_back(use()), Later)
    await recorder.close()


async def test_renewed_certificates_are_taken_over(tmp_path: Path) -> None:
    """A file that has changed opens another channel; until then it stays the same."""
    authority = tmp_path / "ca.pem"
    authority.write_text("one")
    recorder = DialedRecorder("127.0.0.1:1", Dialing(authority), "tests/1")
    before = recorder._recorder
    assert await recorder._current() is before
    authority.with_suffix(".new").write_text("another")
    authority.with_suffix(".new").replace(authority)
    assert await recorder._current() is not before
    await recorder.close()
