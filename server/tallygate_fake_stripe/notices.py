"""Events that Stripe tells of, and where it sends them: thin ones of v2, snapshots of v1.

Guarantees: every event can be fetched by its id for 30 days; one that a destination asked for is
sent to it, signed with its secret.
Refuses to know: connections and retries.
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from .calls import Call, Route
from .clock import US_PER_S, rfc3339
from .errors import invalid, not_found
from .fields import Fields
from .tables import Json, Table, listed

if TYPE_CHECKING:
    from .world import World

API_VERSION: Final = "2026-10-28.endive"
KEPT_US: Final = 30 * 86_400 * US_PER_S
DESTINATIONS: Final = "/v2/core/event_destinations"
ENDPOINTS: Final = "/v1/webhook_endpoints"
EVENTS: Final = "/v2/core/events"
SNAPSHOTS: Final = "/v1/events"


@dataclass(slots=True)
class Destination:
    """Where events are sent."""

    id: str
    url: str
    secret: str
    enabled_events: list[str]
    thin: bool
    created_us: int
    name: str = ""
    enabled: bool = True
    metadata: dict[str, str] = field(default_factory=dict)

    def wants(self, kind: str, *, thin: bool) -> bool:
        """Tell whether an event is to be sent here."""
        asked = "*" in self.enabled_events or kind in self.enabled_events
        return self.enabled and self.thin == thin and asked


@dataclass(slots=True)
class Notice:
    """One event."""

    id: str
    kind: str
    created_us: int
    body: Json
    # What only fetching it gives.
    details: Json | None = None


class Notices:
    """The events of one account, and their destinations."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.thin: Table[Notice] = Table("event", world.caps.objects)
        self.snapshots: Table[Notice] = Table("event", world.caps.objects)
        self.destinations: Table[Destination] = Table("event destination", world.caps.objects)

    def tell(
        self, kind: str, now_us: int, *, meter: str | None = None, details: Json | None = None
    ) -> Notice:
        """Tell of something in a thin event, of a meter or of none."""
        world = self._world
        body: Json = {
            "id": world.mint("evt_test"),
            "object": "v2.core.event",
            "type": kind,
            "livemode": world.livemode,
            "created": rfc3339(now_us),
        }
        if meter is not None:
            url = f"/v1/billing/meters/{meter}"
            body["related_object"] = {"id": meter, "type": "billing.meter", "url": url}
        if world.connected:
            body["context"] = world.account
        return self._kept(self.thin, Notice(body["id"], kind, now_us, body, details), thin=True)

    def snapshot(self, kind: str, now_us: int, thing: Json) -> Notice:
        """Tell of something with the object as it is now."""
        body: Json = {
            "id": self._world.mint("evt"),
            "object": "event",
            "api_version": API_VERSION,
            "created": now_us // US_PER_S,
            "data": {"object": json.loads(json.dumps(thing))},
            "livemode": self._world.livemode,
            "pending_webhooks": 0,
            "request": {"id": None, "idempotency_key": None},
            "type": kind,
        }
        return self._kept(self.snapshots, Notice(body["id"], kind, now_us, body), thin=False)

    def add_destination(
        self, url: str, enabled_events: list[str], *, thin: bool, now_us: int, name: str = ""
    ) -> Destination:
        """Have events sent somewhere."""
        id_ = self._world.mint("ed" if thin else "we")
        # Known to whoever knows the id: tests read it, and nobody's money depends on it.
        secret = "whsec_" + hashlib.sha256(f"{self._world.account} {id_}".encode()).hexdigest()
        destination = Destination(id_, url, secret, enabled_events, thin, now_us, name)
        return self.destinations.add(id_, destination)

    def _kept(self, table: Table[Notice], notice: Notice, *, thin: bool) -> Notice:
        oldest = next(iter(table), None)
        # Events are a log: the oldest make room, after their time or before it.
        if oldest is not None and (table.full or notice.created_us - oldest.created_us > KEPT_US):
            table.remove(oldest.id)
        table.add(notice.id, notice)
        payload = json.dumps(notice.body, separators=(",", ":")).encode()
        for destination in self.destinations:
            if destination.wants(notice.kind, thin=thin):
                self._world.post.send(destination, notice.id, payload, notice.created_us)
        return notice


def fetch_event(call: Call) -> Json:
    """Return a thin event with its details."""
    notice = _fresh(call, call.world.notices.thin)
    call.fields.done()
    return _detailed(notice)


def fetch_snapshot(call: Call) -> Json:
    """Return an event of v1."""
    notice = _fresh(call, call.world.notices.snapshots)
    call.fields.done()
    return notice.body


def list_events(call: Call) -> Json:
    """Return the newest thin events, of one object or of all."""
    wanted = call.fields.text("object_id")
    limit = call.fields.integer("limit") or 20
    call.fields.done()
    rows = [
        _detailed(notice)
        for notice in reversed(tuple(call.world.notices.thin))
        if wanted is None or notice.body.get("related_object", {}).get("id") == wanted
    ]
    return {"data": rows[:limit], "next_page_url": None, "previous_page_url": None}


def list_snapshots(call: Call) -> Json:
    """Return a page of the events of v1."""
    kind = call.fields.text("type")
    rows = [each for each in call.world.notices.snapshots if kind in (None, each.kind)]
    page = listed(SNAPSHOTS, rows, call.fields, lambda each: each.body)
    call.fields.done()
    return page


def create_destination(call: Call) -> Json:
    """Have thin events, or snapshots, sent to an address."""
    fields = call.fields
    kind = fields.choice("type", ("webhook_endpoint",))
    if kind is None:
        fields.needed("type")
    thin = fields.choice("event_payload", ("thin", "snapshot")) != "snapshot"
    enabled, name = fields.texts("enabled_events"), fields.needed("name")
    fields.texts("include")
    fields.texts("events_from")
    fields.text("description")
    fields.text("snapshot_api_version")
    fields.strings("metadata")
    endpoint = fields.below("webhook_endpoint")
    url = _url(endpoint)
    for each in (fields, endpoint):
        each.done()
    notices = call.world.notices
    return _destination(
        notices.add_destination(url, enabled, thin=thin, now_us=call.now_us, name=name), call
    )


def create_endpoint(call: Call) -> Json:
    """Have snapshots sent to an address, by v1."""
    url, enabled = _url(call.fields), call.fields.texts("enabled_events")
    call.fields.text("api_version")
    call.fields.text("description")
    call.fields.strings("metadata")
    call.fields.done()
    made = call.world.notices.add_destination(url, enabled, thin=False, now_us=call.now_us)
    return _endpoint(made, call) | {"secret": made.secret}


def retrieve_destination(call: Call) -> Json:
    """Return a destination; its secret only where it is asked for."""
    found = call.world.notices.destinations.get(call.ids[0])
    call.fields.texts("include")
    call.fields.done()
    return _destination(found, call)


def delete_destination(call: Call) -> Json:
    """Send nothing more to a destination."""
    found = call.world.notices.destinations.get(call.ids[0])
    call.fields.done()
    call.world.notices.destinations.remove(found.id)
    kind = "v2.core.event_destination" if found.thin else "webhook_endpoint"
    return {"id": found.id, "object": kind, "deleted": True}


def enable_destination(call: Call) -> Json:
    """Send to a destination again."""
    return _switched(call, enabled=True)


def disable_destination(call: Call) -> Json:
    """Send nothing to a destination until it is enabled again."""
    return _switched(call, enabled=False)


def _switched(call: Call, *, enabled: bool) -> Json:
    found = call.world.notices.destinations.get(call.ids[0])
    call.fields.done()
    found.enabled = enabled
    return _destination(found, call)


def _fresh(call: Call, table: Table[Notice]) -> Notice:
    notice = table.get(call.ids[0])
    if call.now_us - notice.created_us > KEPT_US:
        raise not_found("event", notice.id)
    return notice


def _detailed(notice: Notice) -> Json:
    return notice.body if notice.details is None else {**notice.body, "data": notice.details}


def _url(fields: Fields) -> str:
    url = fields.needed("url")
    if not url.startswith(("http://", "https://")):
        raise invalid("Invalid URL: it begins with http:// or https://.", param=fields.name("url"))
    return url


def _destination(found: Destination, call: Call) -> Json:
    asked: Any = call.fields.raw("include") or []
    endpoint = {
        name: value
        for name, value in (("signing_secret", found.secret), ("url", found.url))
        if f"webhook_endpoint.{name}" in asked
    }
    return {
        "id": found.id,
        "object": "v2.core.event_destination",
        "created": rfc3339(found.created_us),
        "updated": rfc3339(found.created_us),
        "description": "",
        "enabled_events": found.enabled_events,
        "event_payload": "thin" if found.thin else "snapshot",
        "livemode": call.world.livemode,
        "metadata": found.metadata,
        "name": found.name,
        "status": "enabled" if found.enabled else "disabled",
        "type": "webhook_endpoint",
        "webhook_endpoint": endpoint,
    }


def _endpoint(found: Destination, call: Call) -> Json:
    return {
        "id": found.id,
        "object": "webhook_endpoint",
        "created": found.created_us // US_PER_S,
        "enabled_events": found.enabled_events,
        "livemode": call.world.livemode,
        "metadata": found.metadata,
        "status": "enabled" if found.enabled else "disabled",
        "url": found.url,
    }


_READ: Final = "event_read"
_WRITE: Final = "webhook_write"

ROUTES: Final = (
    Route("GET", f"{EVENTS}/{{}}", fetch_event, _READ),
    Route("GET", EVENTS, list_events, _READ),
    Route("GET", f"{SNAPSHOTS}/{{}}", fetch_snapshot, _READ),
    Route("GET", SNAPSHOTS, list_snapshots, _READ),
    Route("POST", DESTINATIONS, create_destination, _WRITE),
    Route("GET", f"{DESTINATIONS}/{{}}", retrieve_destination, _WRITE),
    Route("DELETE", f"{DESTINATIONS}/{{}}", delete_destination, _WRITE),
    Route("POST", f"{DESTINATIONS}/{{}}/enable", enable_destination, _WRITE),
    Route("POST", f"{DESTINATIONS}/{{}}/disable", disable_destination, _WRITE),
    Route("POST", ENDPOINTS, create_endpoint, _WRITE),
    Route("DELETE", f"{ENDPOINTS}/{{}}", delete_destination, _WRITE),
)
