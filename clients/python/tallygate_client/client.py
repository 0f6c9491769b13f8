"""The client for threads; safe to share between them, and to make before a fork."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from . import requests, results
from .arguments import charge_of, quota_of, reserve_of, usage_of, watch_of
from .buffer import Buffer
from .calls import Call, Core, Flow, proceed
from .configured import NO_BUFFER, Configured
from .errors import TallygateError
from .gen.v1 import quota_pb2
from .held import Amounts, Held, committing, extending_call, releasing_call
from .keeper import Keeper
from .line import Line
from .results import (
    Decision,
    Excess,
    Extension,
    Granted,
    Quota,
    QuotaChange,
    Recorded,
    Refunded,
    Settlement,
)
from .values import Charge, Items, Usage
from .watching import Watching

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from .values import (
        CallOptions,
        ChargeOptions,
        CheckOptions,
        CommitOptions,
        ReadOptions,
        RecordOptions,
        RefundOptions,
        ReleaseOptions,
        ReserveOptions,
    )

T = TypeVar("T")


class Reservation(Held):
    """What is held for work, and how to settle it; as a context manager it settles itself.

    Entered, it raises `QuotaExceeded` where it was refused. A normal end commits what `use` was
    told, else what was reserved; an exception releases and goes on. Work that takes long is kept
    alive meanwhile.
    """

    def __init__(
        self,
        client: Client,
        core: Core,
        request: quota_pb2.ReserveRequest,
        granted: Granted,
        excess: Excess,
    ) -> None:
        super().__init__(core, request, granted, excess)
        self._client = client
        self._kept: int | None = None
        self.settlement: Settlement | None = None

    def commit(
        self, amounts: Amounts | None = None, **options: Unpack[CommitOptions]
    ) -> Settlement:
        """Settle with `amounts`, else with what `use` was told, else with what was reserved."""
        self.settlement = self._client.follow(self.committing(amounts, options))
        self.drop()
        return self.settlement

    def release(self, **options: Unpack[ReleaseOptions]) -> Settlement:
        """Give all of it back: nothing was used."""
        self.settlement = self._client.follow(self.releasing(options))
        self.drop()
        return self.settlement

    def extend(self, ttl: float | None = None, **options: Unpack[CallOptions]) -> Extension:
        """Move its end to `ttl` seconds from now, as many as at first unless given."""
        return self._client.follow(self.extending(ttl, options))

    def keep(self) -> None:
        """Extend it again and again in the background, until it is settled or dropped."""
        if not self.local and self._kept is None:
            # Weak: a reservation that nobody holds any more is to end by itself.
            extend = weakref.WeakMethod(self._keep_alive)
            self._kept = self._client.keeper.keep(self.extend_every_s, extend)

    def drop(self) -> None:
        """Keep it no more; unless it is settled, it ends by itself."""
        if self._kept is not None:
            self._client.keeper.drop(self._kept)

    def __enter__(self) -> Self:
        self.require()
        self.keep()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.drop()
        if self.settled:
            return
        if error is None:
            self.commit()
            return
        # What cannot be given back comes back by itself; the work's own error is what counts.
        with contextlib.suppress(TallygateError):
            self.release()

    def _keep_alive(self) -> None:
        extended: Extension | TallygateError
        try:
            extended = self.extend()
        except TallygateError as error:
            extended = error
        if not self.goes_on(extended):
            self.drop()


class Client(Configured):
    """A client of one sidecar, for threads.

    Calls may come from any number of threads. A client made before a fork works in the child, on a
    connection of its own. `close()`, or leaving it as a context manager, ends it.
    """

    def _open(self) -> None:
        self.keeper = Keeper()
        self._line = Line(self._options)
        options = self._options.buffer
        self._buffer = Buffer(self._core, options, self.send) if options is not None else None
        self._core.intake = self._buffer

    @property
    def buffer(self) -> Buffer:
        """What records without waiting, where the client was made with a `buffer`."""
        if self._buffer is None:
            raise RuntimeError(NO_BUFFER)
        return self._buffer

    def check_and_consume(
        self, tenant: str, items: Items, **options: Unpack[ChargeOptions]
    ) -> Decision:
        """Ask, and charge all items if every limit allows; a refusal is a `Decision` too.

        Raises:
            Unavailable, DeadlineExceeded: nobody answered, and the policy is `closed`.
            TallygateError: any of its other kinds.
        """
        charge, rest = charge_of(tenant, items, options)
        return self.send(self._core.check_and_consume(charge, **rest))

    def batch_check_and_consume(
        self, charges: Iterable[Charge], **options: Unpack[CallOptions]
    ) -> list[Decision | TallygateError]:
        """Charge each of a list by itself; give one decision or error for each, in order."""
        return self.send(self._core.batch_check_and_consume(list(charges), **options))

    def check(self, tenant: str, items: Items, **options: Unpack[CheckOptions]) -> Decision:
        """Ask without charging; it promises nothing about the next moment."""
        context = options.pop("context", None)
        return self.send(self._core.check(requests.check(tenant, items, context), **options))

    def reserve(self, tenant: str, items: Items, **options: Unpack[ReserveOptions]) -> Reservation:
        """Hold units for work whose cost is not known yet.

        As a context manager it settles itself; else look at `allowed`, then commit or release.
        """
        excess = options.pop("excess", Excess.RECORD)
        request, rest = reserve_of(tenant, items, options)
        granted = self.send(self._core.reserve(request, **rest))
        return Reservation(self, self._core, request, granted, excess)

    def hold(self, tenant: str, items: Items, **options: Unpack[ReserveOptions]) -> Reservation:
        """Reserve and keep alive until it is settled, wherever and in whichever thread that is.

        Raises:
            QuotaExceeded: it was refused.
        """
        held = self.reserve(tenant, items, **options)
        held.require()
        held.keep()
        return held

    def commit(
        self,
        tenant: str,
        reservation_id: str,
        amounts: Iterable[int] = (),
        **options: Unpack[CommitOptions],
    ) -> Settlement:
        """Settle a reservation by its id; no `amounts` are what was reserved."""
        excess = options.pop("excess", Excess.ASK)
        name = options.pop("operation_id", "") or requests.commit_id_of(reservation_id)
        request = requests.commit(tenant, reservation_id, list(amounts), name, excess)
        return self.follow(committing(self._core, request, None, options))

    def release(
        self, tenant: str, reservation_id: str, **options: Unpack[ReleaseOptions]
    ) -> Settlement:
        """Give a reservation back by its id."""
        name = options.pop("operation_id", "") or requests.new_id()
        request = requests.release(tenant, reservation_id, name)
        return self.send(releasing_call(request, options))

    def extend(
        self,
        tenant: str,
        reservation_id: str,
        ttl: float | None = None,
        **options: Unpack[CallOptions],
    ) -> Extension:
        """Move a reservation's end to `ttl` seconds from now."""
        return self.send(extending_call(requests.extend(tenant, reservation_id, ttl), options))

    def refund(
        self, tenant: str, event_id: str, amount: int = 0, **options: Unpack[RefundOptions]
    ) -> Refunded:
        """Take back part of an event, or with 0 all that is left of it."""
        name = options.pop("operation_id", "") or requests.new_id()
        request = requests.refund(tenant, event_id, amount, name, options.pop("reason", ""))
        return self.send(self._core.refund(request, **options))

    def quota(self, tenant: str, **options: Unpack[ReadOptions]) -> Quota:
        """Read where a tenant stands."""
        request, rest = quota_of(tenant, options)
        return self.send(Call("GetQuota", request, results.quota_of, **rest))

    def record(
        self, tenant: str, meter: str, amount: int, **options: Unpack[RecordOptions]
    ) -> Recorded:
        """Tell what was used, and wait until it is accepted."""
        usage, rest = usage_of(tenant, meter, amount, options)
        return self.send(self._core.record(usage, **rest))

    def batch_record(
        self, usages: Iterable[Usage], **options: Unpack[CallOptions]
    ) -> list[Recorded | TallygateError]:
        """Tell a list; give what became of each, in order."""
        events = [requests.record_usage(each) for each in usages]
        return self.send(self._core.batch_record(events, **options))

    def watch(self, tenant: str, **options: Unpack[ReadOptions]) -> Iterator[QuotaChange]:
        """Yield where a tenant stands, now and within 250 ms of each change.

        It is opened anew where it breaks, and begins with a snapshot then. It ends with the client,
        with `cancel`, or when the iterator is closed; `timeout` is for all of it, none unless set.
        """
        request, rest = watch_of(tenant, options)
        watching = Watching(self._core, rest)
        while True:
            try:
                yield from self._line.stream(self._core, watching, request)
            except TallygateError as error:
                wait_s = watching.failed(error)
                if self._line.pause(wait_s, watching.cancel):
                    return
            else:
                return

    def close(self, timeout: float | None = None) -> bool:
        """End the client, its buffer first; tell whether all that was buffered is sent."""
        flushed = self._buffer.close(timeout) if self._buffer is not None else True
        self._core.closed = True
        self.keeper.close()
        self._line.close()
        return flushed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, call: Call[T]) -> T:
        """Make one logical call."""
        return self._line.send(self._core, call)

    def follow(self, flow: Flow[T]) -> T:
        """Make the calls of a flow, one after the other."""
        step = proceed(flow, None)
        while isinstance(step, Call):
            try:
                answer = self.send(step)
            except TallygateError as error:
                answer = error
            step = proceed(flow, answer)
        return step.value
