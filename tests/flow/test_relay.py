"""The relay over the fakes: what is sent, tried again, given up on, and refused as late."""

import asyncio
from collections.abc import Sequence

import pytest

from tallygate.domain.errors import BackendUnavailable
from tallygate.flow.relay import RETRY_AFTER_MAX_MS, Relay, RelayOptions
from tallygate.ports import Delivery, DestinationRefused
from tallygate.testing.destination import FakeDestination
from tallygate.testing.outbox import FakeOutbox
from tests.flow.relay_parts import HOOK, CountingObserver

KIND = "usage.batch"
MINUTE_US = 60_000_000


class Setting:
    """A relay between an outbox and a destination in memory."""

    def __init__(self, options: RelayOptions | None = None) -> None:
        self.now_us = MINUTE_US
        self.outbox = FakeOutbox(lambda: self.now_us)
        self.destination = FakeDestination(HOOK)
        self.observer = CountingObserver()
        self.options = options or RelayOptions(chance=lambda: 1.0)
        self.relay = Relay(self.outbox, self.destination, self.options, self.observer)

    def put(self, count: int = 1) -> list[str]:
        """Write messages; return their ids."""
        return [self.outbox.put(HOOK, KIND, b"{}") for _ in range(count)]

    def wait_ms(self, row: int = 0) -> int:
        """Return how long a row waits from now."""
        return (self.outbox.rows[row].due_at_us - self.now_us) // 1000


class SlowDestination(FakeDestination):
    """Holds each message until it is released, and knows how many it holds."""

    def __init__(self) -> None:
        super().__init__(HOOK)
        self.released = asyncio.Event()
        self.held = 0
        self.held_max = 0

    async def send(self, delivery: Delivery) -> None:
        """Deliver when released."""
        self.held += 1
        self.held_max = max(self.held_max, self.held)
        if self.held == 2:
            self.released.set()
        await self.released.wait()
        # Lets every other sender that may start do so.
        await asyncio.sleep(0)
        self.held -= 1
        await super().send(delivery)


async def test_every_message_is_sent_and_marked_once() -> None:
    """What is due is sent under its own id, marked, told, and not sent again."""
    setting = Setting()
    ids = setting.put(20)
    setting.outbox.put("other", KIND, b"{}")
    counts = await setting.relay.run_once()
    assert (counts.claimed, counts.delivered, counts.more) == (20, 20, False)
    assert sorted(each.message_id for each in setting.destination.accepted) == sorted(ids)
    assert (await setting.relay.run_once()).claimed == 0
    assert setting.observer.told == {("delivered", HOOK): 20}
    assert [depth.destination for depth in await setting.relay.snapshot()] == ["other"]


async def test_full_claim_says_that_there_is_more() -> None:
    """A run that took all it may take asks to run again at once, unless nothing gets through."""
    setting = Setting(RelayOptions(claim_max=2))
    setting.put(4)
    assert (await setting.relay.run_once()).more
    for _ in range(2):
        setting.destination.refuse_next(transient=True)
    assert not (await setting.relay.run_once()).more


@pytest.mark.parametrize(
    ("attempt", "chance", "wait_ms"),
    [(1, 0.0, 1_000), (1, 1.0, 1_000), (4, 0.5, 4_500), (4, 1.0, 8_000), (19, 1.0, 3_600_000)],
)
async def test_wait_doubles_with_jitter_up_to_its_bound(
    attempt: int, chance: float, wait_ms: int
) -> None:
    """After each refusal the wait's range doubles; chance picks within it; it is bounded."""
    setting = Setting(RelayOptions(chance=lambda: chance))
    setting.put()
    setting.outbox.rows[0].attempt = attempt - 1
    setting.destination.refuse_next("HTTP 503", transient=True)
    counts = await setting.relay.run_once()
    assert (counts.retried, setting.wait_ms()) == (1, wait_ms)
    assert setting.outbox.rows[0].reason == "HTTP 503"
    assert setting.observer.told == {("retried", HOOK): 1}


@pytest.mark.parametrize(
    ("asked_ms", "wait_ms"),
    [(0, 1_000), (60_000, 60_000), (10 * RETRY_AFTER_MAX_MS, RETRY_AFTER_MAX_MS)],
)
async def test_wait_asked_for_is_honoured(asked_ms: int, wait_ms: int) -> None:
    """A destination's wish lengthens the wait, never shortens it, and is bounded."""
    setting = Setting()
    setting.put()
    setting.destination.refuse_next(transient=True, retry_after_ms=asked_ms)
    await setting.relay.run_once()
    assert setting.wait_ms() == wait_ms


async def test_refusal_for_good_parks_at_once() -> None:
    """A message that a destination will never take is parked with the reason."""
    setting = Setting()
    setting.put()
    setting.destination.refuse_next("HTTP 410: gone", transient=False)
    assert (await setting.relay.run_once()).parked == 1
    assert (setting.outbox.rows[0].state, setting.outbox.rows[0].reason) == (
        "parked",
        "HTTP 410: gone",
    )
    assert setting.observer.told == {("parked", HOOK): 1}


async def test_last_attempt_parks() -> None:
    """After the most attempts allowed, a message is parked with the last reason."""
    setting = Setting(RelayOptions(attempts_max=3))
    setting.put()
    for _ in range(3):
        setting.destination.refuse_next("HTTP 500", transient=True)
        await setting.relay.run_once()
        setting.now_us += 10 * MINUTE_US
    assert setting.outbox.rows[0].state == "parked"
    assert setting.outbox.rows[0].reason == "gave up after 3 attempts: HTTP 500"
    assert setting.destination.accepted == []


async def test_message_that_kills_relays_is_parked_unsent() -> None:
    """A message whose attempts never came to an end is parked, not sent once more."""
    setting = Setting(RelayOptions(attempts_max=3))
    setting.put()
    setting.outbox.rows[0].attempt = 3
    assert (await setting.relay.run_once()).parked == 1
    assert setting.outbox.rows[0].reason == "no attempt came to an end"
    assert setting.destination.accepted == []


async def test_fault_of_the_sender_is_one_message_s_trouble() -> None:
    """A sender that breaks over one message delivers the others; the fault's text is not kept."""
    setting = Setting()
    setting.put(3)
    setting.destination.fail_next(ValueError("secret"))
    counts = await setting.relay.run_once()
    assert (counts.delivered, counts.retried) == (2, 1)
    assert setting.outbox.rows[0].reason == "sender fault: ValueError"


async def test_send_that_takes_too_long_is_tried_again() -> None:
    """A destination that does not answer in time costs its message a retry."""

    class Silent(FakeDestination):
        async def send(self, delivery: Delivery) -> None:
            await asyncio.Event().wait()

    setting = Setting()
    setting.put()
    options = RelayOptions(send_timeout_ms=10)
    relay = Relay(setting.outbox, Silent(HOOK), options, setting.observer)
    assert (await relay.run_once()).retried == 1
    assert setting.outbox.rows[0].reason == "timed out"


async def test_sends_at_once_are_bounded() -> None:
    """No more messages are under way at once than allowed, and as many as allowed are."""
    setting = Setting()
    setting.put(7)
    destination = SlowDestination()
    options = RelayOptions(concurrency_max=2)
    relay = Relay(setting.outbox, destination, options, setting.observer)
    assert (await relay.run_once()).delivered == 7
    assert destination.held_max == 2


@pytest.mark.parametrize(
    ("lease_ms", "send_timeout_ms", "count"),
    [(60_000, 10_000, 40), (60_000, 1_000, 100), (15_000, 10_000, 8), (1_000, 10_000, 8)],
)
def test_claim_fits_its_lease(lease_ms: int, send_timeout_ms: int, count: int) -> None:
    """A claim is so small that all its sends may time out within the lease."""
    options = RelayOptions(lease_ms=lease_ms, send_timeout_ms=send_timeout_ms)
    assert options.claim_count == count


async def test_late_completion_is_refused_after_take_over() -> None:
    """A relay that comes back after its lease was taken over changes nothing and says so."""
    setting = Setting()
    [message_id] = setting.put()
    taken: list[Delivery] = []

    class Overtaken(FakeDestination):
        async def send(self, delivery: Delivery) -> None:
            setting.now_us += 2 * MINUTE_US
            taken.extend(await setting.outbox.claim(HOOK, 1, setting.options.lease_ms))
            await super().send(delivery)

    late = Relay(setting.outbox, Overtaken(HOOK), setting.options, setting.observer)
    counts = await late.run_once()
    assert (counts.delivered, counts.stale) == (0, 1)
    assert setting.observer.told == {("stale", HOOK): 1}
    assert (setting.outbox.rows[0].state, setting.outbox.rows[0].attempt) == ("pending", 2)
    assert [delivery.message_id for delivery in taken] == [message_id]
    assert await setting.outbox.delivered(taken) == 1


async def test_late_refusal_is_refused_after_take_over() -> None:
    """A refusal that comes after a take-over neither delays nor parks the message."""
    setting = Setting()
    setting.put()

    class Overtaken(FakeDestination):
        async def send(self, delivery: Delivery) -> None:
            setting.now_us += 2 * MINUTE_US
            await setting.outbox.claim(HOOK, 1, setting.options.lease_ms)
            raise DestinationRefused("no", transient=False)

    late = Relay(setting.outbox, Overtaken(HOOK), setting.options, setting.observer)
    assert (await late.run_once()).stale == 1
    assert setting.outbox.rows[0].state == "pending"


async def test_outbox_failing_at_the_mark_starts_no_further_send() -> None:
    """When marks fail, what is not yet started waits; later it goes out under the same id."""

    class Forgetful(FakeOutbox):
        async def delivered(self, deliveries: Sequence[Delivery]) -> int:
            raise BackendUnavailable

    setting = Setting()
    outbox = Forgetful(lambda: setting.now_us)
    outbox.put(HOOK, KIND, b"{}")
    outbox.put(HOOK, KIND, b"{}")
    options = RelayOptions(concurrency_max=1)
    with pytest.raises(BackendUnavailable):
        await Relay(outbox, setting.destination, options, setting.observer).run_once()
    [sent] = setting.destination.accepted
    setting.now_us += 2 * MINUTE_US
    setting.outbox.rows = outbox.rows
    assert (await setting.relay.run_once()).delivered == 2
    assert sent.message_id in {each.message_id for each in setting.destination.accepted[1:]}


async def test_outbox_that_is_down_raises() -> None:
    """A run against an outbox that does not answer sends nothing and raises."""
    setting = Setting()
    setting.put()
    setting.outbox.down = True
    with pytest.raises(BackendUnavailable):
        await setting.relay.run_once()
    assert setting.destination.accepted == []
