"""The contract of the `DestinationSender` port, on the fake and on the webhook sender."""

from collections.abc import AsyncIterator
from typing import Protocol

import pytest

from tallygate.adapters.webhook.sender import WebhookSender
from tallygate.ports import Delivery, DestinationRefused, DestinationSender
from tallygate.testing.destination import FakeDestination
from tallygate.testing.webhook import WebhookReceiver
from tests.flow.relay_parts import SECRET, SystemClock, delivery, webhook_config


class Bench(Protocol):
    """A sender under test, and the destination behind it."""

    sender: DestinationSender

    def accepted(self) -> list[tuple[str, bytes]]:
        """Return the ids and payloads that the destination took."""
        ...

    def refuse_next(self, *, transient: bool, retry_after_s: int | None = None) -> None:
        """Have the destination refuse the next message."""
        ...


class FakeBench:
    """The fake."""

    def __init__(self) -> None:
        self.fake = FakeDestination("hook")
        self.sender: DestinationSender = self.fake

    def accepted(self) -> list[tuple[str, bytes]]:
        """Return the ids and payloads that the destination took."""
        return [(each.message_id, each.payload) for each in self.fake.accepted]

    def refuse_next(self, *, transient: bool, retry_after_s: int | None = None) -> None:
        """Have the destination refuse the next message."""
        wish = None if retry_after_s is None else retry_after_s * 1000
        self.fake.refuse_next(transient=transient, retry_after_ms=wish)


class WebhookBench:
    """The webhook sender and a receiver."""

    def __init__(self, receiver: WebhookReceiver, sender: WebhookSender) -> None:
        self.receiver = receiver
        self.sender: DestinationSender = sender

    def accepted(self) -> list[tuple[str, bytes]]:
        """Return the ids and payloads that the destination took."""
        return [(each.message_id, each.payload) for each in self.receiver.accepted]

    def refuse_next(self, *, transient: bool, retry_after_s: int | None = None) -> None:
        """Have the destination refuse the next message."""
        headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
        self.receiver.fail_next(503 if transient else 410, headers=headers)


@pytest.fixture(params=["fake", "webhook"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Each sender in turn."""
    if request.param == "fake":
        yield FakeBench()
        return
    async with WebhookReceiver(SECRET) as receiver:
        sender = WebhookSender(webhook_config(receiver.url), SystemClock())
        yield WebhookBench(receiver, sender)
        await sender.close()


async def _refused(bench: Bench, sent: Delivery) -> DestinationRefused:
    with pytest.raises(DestinationRefused) as caught:
        await bench.sender.send(sent)
    return caught.value


async def test_sender_says_which_destination_it_is(bench: Bench) -> None:
    """A sender's name is its destination's in the catalog."""
    assert bench.sender.name == "hook"


async def test_message_arrives_unchanged(bench: Bench) -> None:
    """The destination gets the message's id and its very bytes."""
    sent = delivery(payload='{"é": [1,  2]}\n'.encode())
    await bench.sender.send(sent)
    assert bench.accepted() == [(sent.message_id, sent.payload)]


async def test_refusal_for_now_is_transient(bench: Bench) -> None:
    """A destination that cannot take a message now is worth another try, which then passes."""
    bench.refuse_next(transient=True)
    refused = await _refused(bench, delivery())
    assert refused.transient
    assert refused.reason
    assert refused.retry_after_ms is None
    await bench.sender.send(delivery())
    assert len(bench.accepted()) == 1


async def test_refusal_names_the_wait_that_is_asked_for(bench: Bench) -> None:
    """A destination's own wish for patience is handed on."""
    bench.refuse_next(transient=True, retry_after_s=7)
    assert (await _refused(bench, delivery())).retry_after_ms == 7_000


async def test_refusal_for_good_is_not_transient(bench: Bench) -> None:
    """A destination that will never take a message says so."""
    bench.refuse_next(transient=False)
    assert not (await _refused(bench, delivery())).transient
    assert bench.accepted() == []
