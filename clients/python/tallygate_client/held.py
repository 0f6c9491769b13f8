"""A reservation in the hands of its holder: what it is settled with, and what if it is gone.

Shared by both kinds of client; flows yield calls, and a client sends them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from . import requests, results
from .calls import Call, Core, Flow
from .errors import DeadlineExceeded, NotFound, QuotaExceeded, TallygateError, Unavailable, invalid
from .gen.v1 import quota_pb2, usage_pb2
from .results import Excess, Extension, Granted, Outcome, Settlement

TTL_DEFAULT_S = 60.0
# Two tries may fail before the units would come back.
EXTENSIONS_PER_TTL = 3
_GONE = frozenset({Outcome.EXPIRED, Outcome.ALREADY_RELEASED})

Amounts = Mapping[str, int] | Sequence[int]


class Held:
    """What a reservation holds, and what was used of it so far as the work has said.

    Attributes:
        tenant: who pays.
        decision: what `reserve` was answered.
        reservation_id: names it at any sidecar; empty where it was refused, or granted locally.
        expires_at: when it ends unless extended, on the service's clock.
    """

    def __init__(
        self, core: Core, request: quota_pb2.ReserveRequest, granted: Granted, excess: Excess
    ) -> None:
        self.tenant = request.tenant_id
        self.decision = granted.decision
        self.reservation_id = granted.reservation_id
        self.expires_at: datetime | None = granted.expires_at
        self.ttl_s = results.seconds_of(request.ttl) if request.HasField("ttl") else TTL_DEFAULT_S
        self.extend_every_s = self.ttl_s / EXTENSIONS_PER_TTL
        self.settled = False
        self._core = core
        self._request = request
        self._excess = excess
        self._actual: list[int] | None = None
        # As the service makes it, so that whoever settles it without an id names the same events.
        self._commit_id = requests.commit_id_of(granted.reservation_id) or requests.new_id()

    @property
    def allowed(self) -> bool:
        """Whether the work may be done."""
        return self.decision.allowed

    @property
    def local(self) -> bool:
        """Whether nobody answered, and this client let the work pass by itself."""
        return self.decision.local

    @property
    def operation_id(self) -> str:
        """The id of the reserving call."""
        return self.decision.operation_id

    def use(self, amounts: Amounts) -> None:
        """Say what was used: an amount per item in its order, or by meter; a later word counts.

        By meter, what is not named is what was reserved.

        Raises:
            InvalidRequest: not one amount per item, or a meter that was not reserved.
        """
        self._actual = self._amounts(amounts)

    def require(self) -> None:
        """Raise `QuotaExceeded` unless the work may be done."""
        if not self.decision.allowed:
            raise QuotaExceeded(self.decision)

    def committing(self, amounts: Amounts | None, options: Mapping[str, Any]) -> Flow[Settlement]:
        """Settle with what was used; record it by itself where the reservation is gone."""
        self.require()
        actual = self._amounts(amounts) if amounts is not None else self._actual
        name = options.get("operation_id") or self._commit_id
        call_options = {key: options[key] for key in ("timeout", "cancel") if key in options}
        instead = self._events(actual, name)
        if self.local:
            self.settled = True
            return self._record_locally(instead, name)
        excess = options.get("excess") or self._excess
        request = requests.commit(self.tenant, self.reservation_id, actual or (), name, excess)
        settled = yield from committing(self._core, request, instead, call_options)
        self.settled = True
        return settled

    def releasing(self, options: Mapping[str, Any]) -> Flow[Settlement]:
        """Give all of it back."""
        self.require()
        if self.local:
            self.settled = True
            return Settlement(Outcome.RELEASED)
        name = options.get("operation_id") or requests.new_id()
        call_options = {key: options[key] for key in ("timeout", "cancel") if key in options}
        request = requests.release(self.tenant, self.reservation_id, name)
        settled: Settlement = yield releasing_call(request, call_options)
        self.settled = True
        return settled

    def extending(self, ttl: float | None, options: Mapping[str, Any]) -> Flow[Extension]:
        """Move its end, to `ttl` from now."""
        self.require()
        if self.local:
            return Extension(Outcome.EXTENDED, None)
        request = requests.extend(self.tenant, self.reservation_id, ttl or self.ttl_s)
        extended: Extension = yield extending_call(request, options)
        if extended.expires_at is not None:
            self.expires_at = extended.expires_at
        return extended

    def goes_on(self, extended: Extension | TallygateError) -> bool:
        """Tell by what the last extension came to whether another makes sense.

        One that nobody answered is tried again soon; the commit tells whether that was too late.
        """
        if isinstance(extended, TallygateError):
            return isinstance(extended, Unavailable | DeadlineExceeded)
        return extended.outcome is Outcome.EXTENDED

    def _record_locally(
        self, events: Sequence[usage_pb2.RecordUsageRequest], name: str
    ) -> Settlement:
        if self._core.intake is None:
            return Settlement(Outcome.COMMITTED, operation_id=name)
        self._core.intake.put_events(events)
        ids = tuple(each.event_id for each in events)
        return Settlement(Outcome.COMMITTED, event_ids=ids, buffered=True, operation_id=name)

    def _amounts(self, amounts: Amounts) -> list[int]:
        items = self._request.items
        if not isinstance(amounts, Mapping):
            if len(amounts) != len(items):
                raise invalid("amounts", f"holds {len(amounts)} amounts for {len(items)} items")
            return list(amounts)
        meters = [each.meter for each in items]
        for meter in amounts:
            if meters.count(meter) != 1:
                raise invalid("amounts", f"{meter!r} is not the meter of exactly one item")
        return [amounts.get(each.meter, each.amount) for each in items]

    def _events(
        self, actual: Sequence[int] | None, name: str
    ) -> list[usage_pb2.RecordUsageRequest]:
        """Return what a commit records, under the ids that the service gives its events.

        What was reserved has the item's place as its number, what went beyond follows after all
        items. So whoever records it second, commit or usage, records nothing.
        """
        items = self._request.items
        parts = [
            (index, item, min(used, item.amount), used - min(used, item.amount))
            for index, (item, used) in enumerate(
                zip(items, actual or [each.amount for each in items], strict=True)
            )
        ]
        numbered = [(index, item, covered) for index, item, covered, _ in parts]
        numbered += [(len(items) + index, item, excess) for index, item, _, excess in parts]
        return [
            requests.event_of_item(
                self.tenant, item, f"{name}:{number}", amount, self._request.context
            )
            for number, item, amount in numbered
            if amount > 0
        ]


def committing(
    core: Core,
    request: quota_pb2.CommitRequest,
    instead: Sequence[usage_pb2.RecordUsageRequest] | None,
    options: Mapping[str, Any],
) -> Flow[Settlement]:
    """Commit; without an answer the buffer goes on, where there is one.

    `instead` is what to record where the reservation is gone; None where nobody knows.
    """
    name = request.operation_id
    gone = Settlement(Outcome.EXPIRED, operation_id=name)
    try:
        settled: Settlement = yield Call(
            "Commit",
            request,
            lambda reply: results.settlement_of(reply, name),
            operation_id=name,
            **options,
        )
    except (Unavailable, DeadlineExceeded):
        if not core.buffered(lambda intake: intake.put_commit(request, instead or ())):
            raise
        return Settlement(Outcome.UNSPECIFIED, buffered=True, operation_id=name)
    except NotFound as error:
        if error.reason != "RESERVATION_NOT_FOUND" or instead is None:
            raise
        settled = gone
    if settled.outcome not in _GONE or not instead:
        return settled
    return (yield from _recording(core, settled, instead, options))


def releasing_call(
    request: quota_pb2.ReleaseRequest, options: Mapping[str, Any]
) -> Call[Settlement]:
    """Return the call that gives a reservation back."""
    name = request.operation_id
    return Call(
        "Release",
        request,
        lambda reply: results.released_of(reply, name),
        operation_id=name,
        **options,
    )


def extending_call(
    request: quota_pb2.ExtendReservationRequest, options: Mapping[str, Any]
) -> Call[Extension]:
    """Return the call that moves a reservation's end."""
    return Call("ExtendReservation", request, results.extension_of, **options)


def _recording(
    core: Core,
    settled: Settlement,
    instead: Sequence[usage_pb2.RecordUsageRequest],
    options: Mapping[str, Any],
) -> Flow[Settlement]:
    """Record by itself what a reservation that is gone could not be settled with."""
    ids = tuple(each.event_id for each in instead)
    try:
        told = yield core.batch_record(instead, **options)
    except (Unavailable, DeadlineExceeded):
        if not core.buffered(lambda intake: intake.put_events(instead)):
            raise
        return replace(settled, event_ids=ids, buffered=True)
    for each in told:
        if isinstance(each, TallygateError):
            raise each
    return replace(settled, event_ids=ids, recorded=True)
