"""The way of one call through the fake.

Guarantees: a call goes fault, key, rate, idempotency, one at a time, endpoint, as with Stripe: what
is refused on the way leaves nothing behind, and no Idempotency-Key remembers it; what an endpoint
answered is remembered, a 500 too.
Refuses to know: sockets, and what endpoints do.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from . import (
    alerts,
    credit_grants,
    customers,
    events_v2,
    invoice_endpoints,
    invoice_items,
    metering,
    meters,
    notices,
    prices,
    products,
    subscription_endpoints,
)
from .calls import Call, Route, Routes
from .clock import US_PER_S
from .errors import (
    StripeFault,
    internal,
    lock_timeout,
    rate_limited,
    too_many_concurrent,
    unavailable,
)
from .faults import USAGE_KINDS, FaultKind, Rule, Seen, subjects
from .fields import Fields
from .forms import Values, document, form
from .idempotency import Answer
from .keys import ACCOUNT, token
from .notices import API_VERSION
from .tables import Json
from .wire import NOTED_MAX, Noted, Reply, Request
from .world import World

if TYPE_CHECKING:
    from .engine import Engine

ROUTES: Final = Routes(
    route
    for module in (
        metering,
        meters,
        events_v2,
        notices,
        customers,
        products,
        prices,
        subscription_endpoints,
        invoice_items,
        invoice_endpoints,
        credit_grants,
        alerts,
    )
    for route in module.ROUTES
)

# A page as proxies send it: no JSON.
GARBLED: Final = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


class Passage:
    """One request on its way."""

    def __init__(self, engine: "Engine", request: Request) -> None:
        self._engine = engine
        self._request = request
        self._api = "v2" if request.v2 else "v1"
        self._id = engine.mint("req")
        self._at_us = engine.clock.now_us()
        self._key = request.headers.get("Idempotency-Key")
        self._rule: Rule | None = None
        self._code: str | None = None
        self._replayed = False

    async def run(self) -> Reply:
        """Return what is answered."""
        try:
            reply = await self._run()
        except StripeFault as fault:
            reply = self._refused(fault)
        return await self._after(reply)

    def noted(self, reply: Reply) -> Noted:
        """Return the request for the log."""
        kind = None if self._rule is None else self._rule.fault.kind.value
        request = self._request
        return Noted(
            id=self._id,
            method=request.method,
            path=request.path,
            at_us=self._at_us,
            status=0 if reply.drop else reply.status,
            code=self._code,
            idempotency_key=self._key,
            fault=kind,
            replayed=self._replayed,
            api_version=request.headers.get("Stripe-Version", ""),
            said=request.query or request.body[:NOTED_MAX].decode(errors="replace"),
        )

    async def _run(self) -> Reply:
        if self._engine.overflow is not None:
            raise self._engine.overflow
        values = self._values()
        seen = Seen(self._request.method, self._request.path, subjects(values))
        self._rule = self._engine.faults.strike(seen, self._at_us)
        kind = None if self._rule is None else self._rule.fault.kind
        early = await self._before(kind)
        if early is not None:
            return early
        route, ids = self._route()
        world = self._world(route)
        if self._engine.behaviour.rate_limited:
            events = values.get("events")
            count = len(events) if isinstance(events, list) else 1
            world.limits.take(route.limit, self._at_us, count)
        call = Call(
            world=world,
            fields=Fields(values),
            ids=ids,
            now_us=self._at_us,
            request_id=self._id,
            idempotency_key=self._key,
            fault=self._rule.fault if self._rule is not None and kind in USAGE_KINDS else None,
        )
        return await self._once(route, call, values)

    def _values(self) -> Values:
        request = self._request
        if request.method != "POST":
            found = form(request.query)
            # Stripe's client says here which of its methods asked, when it follows a notification.
            found.pop("usage", None)
            return found
        try:
            text = request.body.decode()
        except UnicodeDecodeError:
            raise StripeFault(400, "invalid_request_error", "The body is not UTF-8.") from None
        return document(text) if request.v2 else form(text)

    def _route(self) -> tuple[Route, tuple[str, ...]]:
        """Return the endpoint and what its path names. Raises `StripeFault`: 401 or 404."""
        method, path = self._request.method, self._request.path
        found = ROUTES.find(method, path)
        if found is None:
            self._engine.keys.read(self._request.headers.get("Authorization"))
            text = f"Unrecognized request URL ({method}: {path})."
            raise StripeFault(404, "invalid_request_error", text)
        return found

    def _world(self, route: Route) -> World:
        """Return whose call it is. Raises `StripeFault`: 401 or 403."""
        engine, headers = self._engine, self._request.headers
        authorization = headers.get("Authorization")
        if route.by_session:
            session = engine.sessions.read(token(authorization), self._at_us)
            return engine.world(session.account, livemode=session.livemode)
        key = engine.keys.read(authorization)
        key.demand(route.permission)
        account = headers.get("Stripe-Account") or headers.get("Stripe-Context") or ACCOUNT
        return engine.world(account, livemode=key.livemode)

    async def _before(self, kind: FaultKind | None) -> Reply | None:
        """Go wrong before anything happens; None to go on."""
        rule = self._rule
        if rule is None:
            return None
        match kind:
            case FaultKind.RATE_LIMITED:
                raise rate_limited(rule.fault.reason, rule.fault.retry_after_s)
            case FaultKind.LOCK_TIMEOUT:
                raise lock_timeout()
            case FaultKind.CONFLICT:
                raise too_many_concurrent()
            case FaultKind.UNAVAILABLE:
                raise unavailable()
            case FaultKind.DROP_BEFORE:
                return Reply(drop=True)
            case FaultKind.GARBLED:
                return Reply(502, GARBLED, content_type="text/html")
            case _:
                return None

    async def _after(self, reply: Reply) -> Reply:
        """Go wrong once everything has happened, whatever the answer is."""
        if self._rule is None:
            return reply
        if self._rule.fault.kind is FaultKind.SLOW_AFTER:
            await asyncio.sleep(self._rule.fault.delay_s)
        return Reply(drop=True) if self._rule.fault.kind is FaultKind.DROP_AFTER else reply

    async def _once(self, route: Route, call: Call, values: Values) -> Reply:
        """Carry out a call under its Idempotency-Key."""
        key, keys = self._key, call.world.keys
        if not key or self._request.method != "POST":
            return self._failed_after(await self._carry_out(route, call, values))
        behaviour = self._engine.behaviour
        v2 = self._request.v2
        window_s = behaviour.idempotency_v2_window_s if v2 else behaviour.idempotency_window_s
        first = keys.begin(
            self._api,
            key,
            path=self._request.path,
            body=self._request.body,
            now_us=self._at_us,
            window_us=round(window_s * US_PER_S),
        )
        if first is not None:
            self._replayed = True
            told = {"idempotent-replayed": "true", "original-request": first.request_id}
            return self._reply(first.status, first.body, {**first.headers, **told})
        remembered: Answer | None = None
        try:
            reply = await self._carry_out(route, call, values)
            shown = self._failed_after(reply)
            # v2 remembers that it succeeded, and says so when it is asked again.
            kept = reply if v2 else shown
            remembered = Answer(kept.status, kept.body, self._id)
        except StripeFault as fault:
            if fault.began and not v2:
                body = _encoded(fault.body())
                remembered = Answer(fault.status, body, self._id, fault.headers)
            raise
        finally:
            if remembered is None:
                keys.let_go(self._api, key)
            else:
                keys.keep(self._api, key, remembered)
        return shown

    async def _carry_out(self, route: Route, call: Call, values: Values) -> Reply:
        """Run the endpoint, alone for its customer and meter where it must be."""
        checked = self._engine.behaviour.concurrency_checked
        slot = _slot(call.world, values) if route.exclusive and checked else None
        if slot is None:
            return await self._work(route, call)
        call.world.slots.enter(slot)
        try:
            return await self._work(route, call)
        finally:
            call.world.slots.leave(slot)

    async def _work(self, route: Route, call: Call) -> Reply:
        rule = self._rule
        kind = None if rule is None else rule.fault.kind
        if route.exclusive and self._engine.behaviour.work_ms:
            await asyncio.sleep(self._engine.behaviour.work_ms / 1_000)
        if rule is not None and kind is FaultKind.SLOW_BEFORE:
            await asyncio.sleep(rule.fault.delay_s)
        if rule is not None and kind is FaultKind.HOLD:
            await rule.hold()
        if kind is FaultKind.ERROR_BEFORE:
            raise internal()
        # Time may have gone on meanwhile.
        self._engine.run_due()
        call.now_us = self._engine.clock.now_us()
        return self._reply(200, _encoded(route.endpoint(call)))

    def _failed_after(self, reply: Reply) -> Reply:
        """Answer 500 although everything has happened, where that is the fault."""
        if self._rule is None or self._rule.fault.kind is not FaultKind.ERROR_AFTER:
            return reply
        return self._refused(internal())

    def _refused(self, fault: StripeFault) -> Reply:
        self._code = fault.code
        return self._reply(fault.status, _encoded(fault.body()), fault.headers)

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        own = {"request-id": self._id, "stripe-version": API_VERSION, **(headers or {})}
        if self._key:
            own["idempotency-key"] = self._key
        return Reply(status, body, own)


def _slot(world: World, values: Values) -> tuple[str, str] | None:
    """Return the customer and the meter that a meter event is for, None where it says none."""
    name, payload = values.get("event_name"), values.get("payload")
    if not isinstance(name, str) or not isinstance(payload, dict):
        return None
    meter = world.meters_by_event.get(name)
    customer = payload.get(meter.customer_key) if meter is not None else None
    return (customer, name) if isinstance(customer, str) else None


def _encoded(body: Json) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
