"""Any sequence of sends, retries, cancellations and time against a plain model of what counts."""

import json
from decimal import Decimal
from urllib.parse import urlencode

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from multidict import CIMultiDict

from tallygate_fake_stripe import Behaviour, FakeStripe, Fault, FaultKind, VirtualClock
from tallygate_fake_stripe.wire import Reply, Request

from .clients import CUSTOMER, DAY_S, TEST_KEY

EVENTS, ADJUSTMENTS = "/v1/billing/meter_events", "/v1/billing/meter_event_adjustments"
NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.integers(-50, 50).map(str)
LAGS = st.sampled_from([0, 60, DAY_S // 2])
KINDS = st.sampled_from(
    [
        FaultKind.ERROR_BEFORE,
        FaultKind.ERROR_AFTER,
        FaultKind.DROP_BEFORE,
        FaultKind.DROP_AFTER,
        FaultKind.UNAVAILABLE,
    ]
)


def immediate(answer: "object") -> Reply:
    """Run a call that has nothing to wait for to its end."""
    try:
        answer.send(None)  # type: ignore[attr-defined]
    except StopIteration as ended:
        reply: Reply = ended.value
        return reply
    raise AssertionError("the call waited")


class Usage(RuleBasedStateMachine):
    """The fake beside a model: per identifier when it was taken, per key what it was answered."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        behaviour = Behaviour(rate_limited=False, work_ms=0)
        self.fake = FakeStripe(self.clock, behaviour=behaviour, customers=[CUSTOMER])
        self.taken: dict[str, tuple[int, int]] = {}
        self.keys: dict[str, tuple[int, bytes, Reply]] = {}
        # What counts from when, and until when: the value, from, to.
        self.counting: list[list[Decimal | int | None]] = []

    @property
    def now_us(self) -> int:
        """The fake's time."""
        return self.clock.now_us()

    @initialize()
    def meter(self) -> None:
        """There is a meter that adds up."""
        body = {"display_name": "x", "event_name": "x", "default_aggregation[formula]": "sum"}
        assert self.ask("/v1/billing/meters", urlencode(body).encode()).status == 200

    @rule(seconds=st.sampled_from([1, 60, 3_600, DAY_S // 2, DAY_S - 1, DAY_S]))
    def wait(self, seconds: int) -> None:
        """Time goes on."""
        self.clock.advance(seconds)

    @rule(lag_s=LAGS)
    def lag(self, lag_s: int) -> None:
        """What is sent from now on counts later."""
        self.fake.behaviour.lag_s = lag_s

    @rule(identifier=NAMES, value=VALUES, key=NAMES, kind=st.none() | KINDS)
    def send(self, identifier: str, value: str, key: str, kind: FaultKind | None) -> None:
        """An event is sent, and something may go wrong with that."""
        body = urlencode(
            {
                "event_name": "x",
                "payload[stripe_customer_id]": CUSTOMER,
                "payload[value]": value,
                "identifier": identifier,
            }
        ).encode()
        fault = None if kind is None else self.fake.faults.add(Fault(kind))
        reply = self.ask(EVENTS, body, key)
        if fault is not None:
            self.fake.faults.remove(fault.id)
        if kind in {FaultKind.DROP_BEFORE, FaultKind.UNAVAILABLE}:
            assert reply.drop or reply.status == 503
            return
        known = self.keys.get(key)
        if known is not None and known[0] > self.now_us:
            expected = known[2].status if known[1] == body else 400
            assert reply.drop or reply.status == expected
            return
        status = self.expected(identifier, Decimal(value), kind)
        if kind is FaultKind.DROP_AFTER:
            assert reply.drop
            reply = Reply(status)
        assert reply.status == status
        self.keys[key] = (self.now_us + DAY_S * 1_000_000, body, reply)

    def expected(self, identifier: str, value: Decimal, kind: FaultKind | None) -> int:
        """Have the model take an event; return the status it is answered with."""
        if kind is FaultKind.ERROR_BEFORE:
            return 500
        taken = self.taken.get(identifier)
        if taken is not None and self.now_us - taken[0] < DAY_S * 1_000_000:
            return 400
        self.taken[identifier] = (self.now_us, len(self.counting))
        lag_us = round(self.fake.behaviour.lag_s * 1_000_000)
        self.counting.append([value, self.now_us + lag_us, None])
        return 500 if kind is FaultKind.ERROR_AFTER else 200

    @rule(identifier=NAMES)
    def cancel(self, identifier: str) -> None:
        """An event is cancelled, where there is one that may be."""
        body = urlencode({"event_name": "x", "type": "cancel", "cancel[identifier]": identifier})
        status = self.ask(ADJUSTMENTS, body.encode()).status
        taken = self.taken.get(identifier)
        if taken is None or self.now_us - taken[0] >= DAY_S * 1_000_000:
            assert status == 400
            return
        entry = self.counting[taken[1]]
        assert status == (200 if entry[2] is None else 400)
        if entry[2] is None:
            entry[2] = self.now_us + round(self.fake.behaviour.lag_s * 1_000_000)

    @invariant()
    def totals_agree(self) -> None:
        """What counts in the fake is what counts in the model."""
        if "x" not in self.fake.world().meters_by_event:
            return
        now_us = self.now_us
        counted = sum(
            (
                Decimal(str(value))
                for value, since, until in self.counting
                if int(since or 0) <= now_us and (until is None or now_us < int(until))
            ),
            Decimal(0),
        )
        assert self.fake.total("x", CUSTOMER, 0, 2**40) == counted

    def ask(self, path: str, body: bytes, key: str | None = None) -> Reply:
        """Make a call without a connection."""
        headers = CIMultiDict({"Authorization": f"Bearer {TEST_KEY}"})
        if key is not None:
            headers["Idempotency-Key"] = key
        reply = immediate(self.fake.engine.answer(Request("POST", path, "", headers, body)))
        if not reply.drop:
            json.loads(reply.body)
        return reply


TestUsage = Usage.TestCase
TestUsage.settings = settings(stateful_step_count=40)
