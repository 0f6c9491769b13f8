"""What Redis holds of a shard, read back and compared with the specification.

Owns the one pipeline of reads, and how long each key must live. Guarantees: counters, holds,
refunded units and the stream are equal; no key ends before what it holds has stopped to matter, and
an account's at most an hour and a bit later. Refuses to know steps and decisions.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

from redis import Redis

from tallygate.adapters.redis import keys
from tallygate.domain.account import Accounts
from tallygate.domain.balance import Balance
from tallygate.domain.decision import (
    Charge,
    Decided,
    LimitReading,
    Mode,
    Operation,
    Outcome,
    RateRule,
    SlidingRule,
    WindowRule,
)
from tallygate.domain.detail import (
    Extension,
    Hold,
    Rebuilt,
    Refund,
    Settlement,
)
from tallygate.domain.given import given_in
from tallygate.domain.hold import Account
from tallygate.domain.ids import AMOUNT_MAX, AccountId
from tallygate.domain.sliding import Buckets
from tests.property.shard_text import expected_entry, shown_entry, state_text

HOUR_MS = 3_600_000

SLACK_MS = 30_000
"""How long the server's clock may have gone on between a write and the look at it."""

REFUNDED_SEEN = 8
"""Of the events refunded, the newest: no step names an older one."""

CHARGING = {Mode.CONSUME, Mode.RECORD, Mode.RESERVE, Mode.COMMIT, Mode.SETTLE, Mode.LATE}


class Lives(NamedTuple):
    """A key, and how long it must live from now on."""

    key: str
    left_ms: int


class Stored:
    """What one shard's keys hold."""

    def __init__(self, url: str, shard: int) -> None:
        self._epoch = ""
        # A client of its own that waits for no loop: a run is mostly these reads.
        self._client = Redis.from_url(url, socket_timeout=5)
        self._shard = shard
        self._seen = ("-", 0)
        self._needed_us: dict[AccountId, int] = {}
        self._useful_us: dict[AccountId, int] = {}
        self._lives: list[Lives] = []

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def begin(self, epoch: str) -> None:
        """Go on in a new epoch, in which nothing is kept yet."""
        self._epoch = epoch
        self._needed_us.clear()
        self._useful_us.clear()
        self._lives.clear()

    def decided(
        self, operations: Sequence[Operation], outcomes: Sequence[Outcome], model: Accounts
    ) -> None:
        """Note until when what a call has written matters."""
        for operation, outcome in zip(operations, outcomes, strict=True):
            if not isinstance(outcome, Decided) or not outcome.allowed or outcome.replayed:
                continue
            if isinstance(operation.detail, Rebuilt):
                self._note_rebuilt(operation, outcome, model)
                continue
            self._note_records(operation, outcome, model)
            if operation.mode in CHARGING and outcome.refused_by is None:
                for charge, reading in zip(operation.charges, outcome.readings, strict=True):
                    on_time = operation.event_time_us == 0
                    self._need(charge, reading, outcome.at_us, on_time=on_time)

    def _note_rebuilt(self, operation: Operation, outcome: Decided, model: Accounts) -> None:
        """Keep the mark as long as an operation is remembered, and what was counted again."""
        for charge, reading in zip(operation.charges, outcome.readings, strict=True):
            until_us = outcome.at_us + model.memory_us
            self._needed_us[charge.account] = max(self._needed_us.get(charge.account, 0), until_us)
            if isinstance(charge.rule, WindowRule | RateRule):
                self._may_live(charge.account, reading.resets_at_us)
            if isinstance(charge.rule, SlidingRule):
                # The newest of its buckets may be empty by the end of the call.
                self._may_live(charge.account, outcome.at_us + 62 * charge.rule.width_us)

    def _may_live(self, of: AccountId, until_us: int) -> None:
        self._useful_us[of] = max(self._useful_us.get(of, 0), until_us)

    def _need(self, charge: Charge, reading: LimitReading, at_us: int, *, on_time: bool) -> None:
        """Keep the counter until it resets; usage told of late may not have been counted at all."""
        if charge.amount == 0:
            return
        if isinstance(charge.rule, SlidingRule):
            # A later operation of the call may have given it back.
            width_us = charge.rule.width_us
            self._may_live(charge.account, (at_us // width_us + 61) * width_us)
        if isinstance(charge.rule, WindowRule | RateRule):
            of, until_us = charge.account, reading.resets_at_us
            self._may_live(of, until_us)
            if on_time:
                self._needed_us[of] = max(self._needed_us.get(of, 0), until_us)

    def _note_records(self, operation: Operation, outcome: Decided, model: Accounts) -> None:
        shard, tenant = self._shard, operation.tenant_id
        if operation.operation_id is not None and operation.mode not in (Mode.GRANT, Mode.EXTEND):
            until_us = model.operations[tenant, operation.operation_id].until_us
            key = keys.operation(shard, self._epoch, tenant, operation.operation_id)
            self._lives.append(Lives(key, -(-(until_us - outcome.at_us) // 1000)))
        for run in given_in(operation):
            if run.stem:
                key = keys.stem(shard, self._epoch, tenant, run.stem)
                self._lives.append(Lives(key, model.memory_us // 1000))
                continue
            for named in (each for each in run.operation_ids if each is not None):
                key = keys.operation(shard, self._epoch, tenant, named)
                self._lives.append(Lives(key, model.memory_us // 1000))
        match operation.detail:
            case Hold(_, ttl_us):
                for charge in operation.charges:
                    self._may_live(charge.account, outcome.at_us + ttl_us)
            case Extension(_, ttl_us, shares):
                for share in shares:
                    self._may_live(share.account, outcome.at_us + ttl_us)
            case _:
                pass
        match operation.detail:
            case Hold(of, _) | Settlement(of):
                # A later operation of the same call may have settled it since: the model knows.
                kept = model.reservations[tenant, of]
                key = keys.reservation(shard, self._epoch, tenant, of)
                self._lives.append(Lives(key, -(-(kept.until_us - outcome.at_us) // 1000)))
            case Refund(event, _, _):
                key = keys.refunded(shard, self._epoch, tenant, event)
                self._lives.append(Lives(key, model.memory_us // 1000))
            case _:
                pass

    def compare(self, model: Accounts) -> None:
        """Read all that is stored, and compare."""
        lives = dict(self._lives)
        self._lives.clear()
        after, count = self._seen
        asked = self._client.pipeline(transaction=False)
        for of in model.accounts:
            counters = keys.account(self._shard, self._epoch, of)
            holds = keys.holds(self._shard, self._epoch, of)
            asked.hgetall(counters)
            asked.zrange(holds, 0, -1, withscores=True)
            asked.pttl(counters)
            asked.pttl(holds)
        refunded = list(model.refunded.items())[-REFUNDED_SEEN:]
        for (tenant, event), _ in refunded:
            asked.get(keys.refunded(self._shard, self._epoch, tenant, event))
        for key in lives:
            asked.pttl(key)
        asked.xrange(keys.stream(self._shard), "-" if after == "-" else f"({after}")
        found = iter(asked.execute())
        for of, account in model.accounts.items():
            stored = next(found)
            x_ms = int(stored.pop(b"x", b"0"))
            _same_account(account, stored, next(found))
            self._lives_long_enough(of, account, x_ms, (next(found), next(found)))
        assert [int(next(found)) for _ in refunded] == [units for _, units in refunded]
        for key, left_ms in lives.items():
            assert left_ms - SLACK_MS < next(found) <= left_ms, key
        self._compare_stream(model, next(found), count)

    def _lives_long_enough(
        self, of: AccountId, account: Account, x_ms: int, left_ms: tuple[int, int]
    ) -> None:
        """Compare when an account's two keys end with `x`, and `x` with what they hold."""
        needed_us = [self._needed_us.get(of, 0)]
        needed_us += [ends for ends, _ in account.holds.values()]
        for name, state in account.counters.items():
            if isinstance(state, Balance):
                needed_us.append(AMOUNT_MAX)
            elif isinstance(state, Buckets) and state.units:
                width_us = int(name.rpartition("/s")[2])
                needed_us.append((state.units[-1][0] + 61) * width_us)
        self._needed_us[of] = max(needed_us)
        self._useful_us[of] = max(self._useful_us.get(of, 0), *needed_us)
        assert max(needed_us) <= x_ms * 1000, of
        assert x_ms <= -(-self._useful_us[of] // 1000) + HOUR_MS, of
        now_ms = time.time_ns() // 1_000_000
        if x_ms:
            assert abs(left_ms[0] + now_ms - x_ms) < SLACK_MS, of
        if account.holds:
            assert left_ms[1] + now_ms + SLACK_MS > max(e for e, _ in account.holds.values()) / 1000

    def _compare_stream(
        self, model: Accounts, stored: list[tuple[bytes, dict[bytes, bytes]]], count: int
    ) -> None:
        shown = [shown_entry(self._shard, dict(fields)) for _, fields in stored]
        assert shown == [expected_entry(entry) for entry in model.stream[count:]]
        if stored:
            self._seen = (stored[-1][0].decode(), count + len(stored))


def _same_account(
    account: Account, stored: dict[bytes, bytes], members: list[tuple[bytes, float]]
) -> None:
    expected = {name: state_text(state) for name, state in account.counters.items()}
    next_hold = int(stored.pop(b"h", b"0"))
    assert stored.pop(b"b", None) == (b"1" if account.rebuilt else None)
    found = {name.decode(): value.decode() for name, value in stored.items()}
    assert (found, next_hold) == (expected, account.next_hold_us)
    assert {member.decode(): int(score) for member, score in members} == {
        text: ends for text, (ends, _) in account.holds.items()
    }
