"""The control surface: what tests in other processes and languages say to the fake itself.

Guarantees: it is below `/_fake/` alone, takes and gives JSON, and answers a wrong request with 400
and a sentence; nothing that is sent to it counts as a call to Stripe.
Refuses to know: Stripe's API.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from .clock import US_PER_S, VirtualClock
from .errors import StripeFault, invalid
from .faults import fault_of
from .forms import document
from .keys import ACCOUNT
from .tables import Json
from .world import World

if TYPE_CHECKING:
    from .server import FakeStripe

PREFIX: Final = "/_fake/"
PAGE_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Asked:
    stripe: "FakeStripe"
    query: Mapping[str, str]
    body: dict[str, Any]
    # What follows the endpoint's name in the path.
    rest: str = ""

    def world(self) -> World:
        """Return the account that is asked about: `account` and `livemode` of the query."""
        livemode = self.query.get("livemode", "false") == "true"
        return self.stripe.world(self.query.get("account", ACCOUNT), livemode=livemode)

    def page(self, rows: list[Json]) -> Json:
        """Return the rows from `offset` on, as many as `limit` says, and how many there are."""
        offset, limit = self._number("offset", 0), self._number("limit", 1_000)
        if limit > PAGE_MAX:
            raise invalid(f"The limit is at most {PAGE_MAX}.", param="limit")
        return {"data": list(islice(rows, offset, offset + limit)), "total": len(rows)}

    def _number(self, name: str, default: int) -> int:
        text = self.query.get(name, str(default))
        if not text.isdecimal() or len(text) > 12:
            raise invalid(f"Invalid {name}.", param=name)
        return int(text)


Answer = Callable[[_Asked], Awaitable[Json]]


async def serve(
    stripe: "FakeStripe", method: str, path: str, query: Mapping[str, str], body: bytes
) -> web.Response:
    """Answer one request below `/_fake/`."""
    name, _, rest = path.removeprefix(PREFIX).partition("/")
    try:
        answer = _ANSWERS.get((method, name))
        if answer is None:
            raise StripeFault(404, "invalid_request_error", f"There is no {method} {path}.")
        sent = document(body.decode(errors="replace"))
        return _json(await answer(_Asked(stripe, query, sent, rest)))
    except StripeFault as fault:
        return _json(fault.body(), fault.status)


async def _read_clock(asked: _Asked) -> Json:
    now_us = asked.stripe.clock.now_us()
    virtual = isinstance(asked.stripe.clock, VirtualClock)
    return {"now_s": now_us / US_PER_S, "now_us": now_us, "virtual": virtual}


async def _set_clock(asked: _Asked) -> Json:
    clock = asked.stripe.clock
    if not isinstance(clock, VirtualClock):
        raise invalid("This fake's clock is not virtual.")
    body = asked.body
    if len(body) != 1 or not body.keys() <= {"advance_s", "now_s"}:
        raise invalid("Send advance_s or now_s.")
    ((name, value),) = body.items()
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise invalid(f"Invalid {name}.", param=name)
    try:
        if name == "advance_s":
            clock.advance(value)
        else:
            clock.set(value)
    except ValueError as error:
        raise invalid(f"Invalid {name}: {error}.", param=name) from None
    await asked.stripe.settle()
    return await _read_clock(asked)


async def _list_faults(asked: _Asked) -> Json:
    return {"data": [rule.read() for rule in asked.stripe.faults]}


async def _add_fault(asked: _Asked) -> Json:
    return asked.stripe.faults.add(fault_of(asked.body)).read()


async def _end_faults(asked: _Asked) -> Json:
    if asked.rest:
        asked.stripe.faults.remove(_fault_number(asked))
    else:
        asked.stripe.faults.clear()
    return {}


async def _release(asked: _Asked) -> Json:
    rule = asked.stripe.faults.get(_fault_number(asked))
    if rule is None:
        raise StripeFault(404, "invalid_request_error", "There is no such fault.")
    rule.release()
    return rule.read()


async def _read_switches(asked: _Asked) -> Json:
    return asked.stripe.engine.switches.read()


async def _set_switches(asked: _Asked) -> Json:
    asked.stripe.engine.switches.set(asked.body)
    return asked.stripe.engine.switches.read()


async def _meter_events(asked: _Asked) -> Json:
    return asked.page([event.dump() for event in asked.world().usage.events])


async def _totals(asked: _Asked) -> Json:
    return {"data": asked.world().usage.totals()}


async def _requests(asked: _Asked) -> Json:
    return asked.page([asdict(each) for each in asked.stripe.requests])


async def _deliveries(asked: _Asked) -> Json:
    return asked.page([each.dump() for each in asked.stripe.deliveries])


async def _changes(asked: _Asked) -> Json:
    rows = (change for each in asked.world().subscriptions for change in each.changes)
    return asked.page(list(rows))


async def _reset(asked: _Asked) -> Json:
    asked.stripe.reset()
    return {}


async def _settle(asked: _Asked) -> Json:
    return {"webhooks_attempted": await asked.stripe.settle()}


async def _state(asked: _Asked) -> Json:
    engine = asked.stripe.engine
    return {
        "clock": await _read_clock(asked),
        "requests": {str(status): count for status, count in sorted(engine.statuses.items())},
        "pending_actions": len(engine.schedule),
        "pending_webhooks": engine.post.ready,
        "accounts": [
            {
                "account": world.account,
                "livemode": world.livemode,
                "meters": len(world.meters),
                "customers": len(world.customers),
                "meter_events": len(world.usage.events),
            }
            for world in engine.worlds()
        ],
    }


async def _customers(asked: _Asked) -> Json:
    ids = asked.body.get("ids")
    if not isinstance(ids, list) or not all(isinstance(each, str) and each for each in ids):
        raise invalid("Send ids, a list of strings.", param="ids")
    world, now_s = asked.world(), asked.stripe.clock.now_us() // US_PER_S
    for id_ in ids:
        world.add_customer(id_, now_s)
    return {"customers": len(world.customers)}


async def _webhook(asked: _Asked) -> Json:
    url, events = asked.body.get("url"), asked.body.get("events", ["*"])
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise invalid("Send url, an address.", param="url")
    if not isinstance(events, list) or not all(isinstance(each, str) for each in events):
        raise invalid("Send events, a list of their types.", param="events")
    world = asked.world()
    secret = asked.stripe.add_webhook(
        url,
        events,
        thin=asked.body.get("thin", True) is True,
        account=world.account,
        livemode=world.livemode,
    )
    return {"url": url, "secret": secret}


async def _key(asked: _Asked) -> Json:
    key, permissions = asked.body.get("key"), asked.body.get("permissions")
    if not isinstance(key, str):
        raise invalid("Send key, an API key.", param="key")
    keys = asked.stripe.keys
    keys.restore(key)
    try:
        if isinstance(permissions, list):
            keys.restrict(key, frozenset(map(str, permissions)))
        if asked.body.get("revoked") is True:
            keys.revoke(key)
    except ValueError as error:
        raise invalid(f"Too many keys: {error}.", param="key") from None
    return {}


def _fault_number(asked: _Asked) -> int:
    text = asked.rest.partition("/")[0]
    if not text.isdecimal() or len(text) > 12:
        raise invalid("Name a fault by its number.", param="id")
    return int(text)


def _json(body: Json, status: int = 200) -> web.Response:
    return web.Response(
        status=status, body=json.dumps(body).encode(), content_type="application/json"
    )


_ANSWERS: Final[dict[tuple[str, str], Answer]] = {
    ("GET", "clock"): _read_clock,
    ("POST", "clock"): _set_clock,
    ("GET", "faults"): _list_faults,
    ("POST", "faults"): _add_fault,
    ("DELETE", "faults"): _end_faults,
    ("POST", "release"): _release,
    ("GET", "switches"): _read_switches,
    ("POST", "switches"): _set_switches,
    ("GET", "meter_events"): _meter_events,
    ("GET", "totals"): _totals,
    ("GET", "requests"): _requests,
    ("GET", "deliveries"): _deliveries,
    ("GET", "changes"): _changes,
    ("POST", "settle"): _settle,
    ("POST", "reset"): _reset,
    ("GET", "state"): _state,
    ("POST", "customers"): _customers,
    ("POST", "webhooks"): _webhook,
    ("POST", "keys"): _key,
}
