"""Usage over v2: single events, adjustments, sessions, and the stream.

Guarantees: a single event is checked at once, with the codes of the v2 API; a batch of the stream
is taken or refused whole, for its shape alone, and what is wrong with its events comes out later.
Refuses to know: how usage is kept.
"""

from datetime import datetime
from typing import Final

from .calls import Call, Route
from .clock import US_PER_S, rfc3339
from .errors import invalid, missing
from .fields import Fields
from .limits import METER_EVENTS, STREAM
from .metering import IDENTIFIER_MAX, adjust, cancelled
from .tables import Json
from .usage import Draft

BATCH_MAX: Final = 100
PATH: Final = "/v2/billing"


def create_event(call: Call) -> Json:
    """Take a meter event."""
    draft = _draft(call.fields, "v2")
    event = call.world.usage.take(draft, call.now_us, key=call.idempotency_key, fault=call.fault)
    return event.render() | {
        "object": "v2.billing.meter_event",
        "created": rfc3339(event.received_us),
        "timestamp": rfc3339(event.timestamp * US_PER_S),
    }


def create_adjustment(call: Call) -> Json:
    """Cancel a meter event that was received within 24 hours."""
    name, identifier = cancelled(call.fields)
    adjustment: Json = {
        "id": call.world.mint("mtr_event_adj"),
        "object": "v2.billing.meter_event_adjustment",
        "cancel": {"identifier": identifier},
        "created": rfc3339(call.now_us),
        "event_name": name,
        "livemode": call.world.livemode,
        "status": "pending",
        "type": "cancel",
    }
    return adjust(call, name, identifier, adjustment)


def create_session(call: Call) -> Json:
    """Open a session of the stream."""
    call.fields.done()
    world = call.world
    _check_mode(call)
    session = world.sessions.begin(
        world.mint("mtr_event_session"),
        world.account,
        livemode=world.livemode,
        now_us=call.now_us,
        length_us=round(world.behaviour.session_s * US_PER_S),
    )
    return {
        "id": session.id,
        "object": "v2.billing.meter_event_session",
        "authentication_token": session.token,
        "created": rfc3339(session.created_us),
        "expires_at": rfc3339(session.expires_us),
        "livemode": session.livemode,
    }


def stream(call: Call) -> Json:
    """Take a batch of meter events."""
    _check_mode(call)
    rows = call.fields.rows("events", most=BATCH_MAX)
    if not rows:
        raise missing("events")
    drafts = [_draft(row, "stream") for row in rows]
    call.fields.done()
    usage = call.world.usage
    for draft in drafts:
        usage.take_unchecked(draft, call.now_us, key=call.idempotency_key, fault=call.fault)
    return {}


def _check_mode(call: Call) -> None:
    if call.world.behaviour.stream_live_only and not call.world.livemode:
        raise invalid("The meter event stream is supported in live mode only.")


def _draft(fields: Fields, source: str) -> Draft:
    name = fields.needed("event_name", longest=IDENTIFIER_MAX)
    payload = fields.strings("payload")
    if not payload:
        raise missing(fields.name("payload"))
    identifier = fields.text("identifier", longest=IDENTIFIER_MAX)
    written = fields.text("timestamp")
    fields.done()
    timestamp = None
    if written is not None:
        try:
            instant = datetime.fromisoformat(written)
        except ValueError:
            raise fields.fault("timestamp", "must be an RFC 3339 timestamp") from None
        if instant.tzinfo is None:
            raise fields.fault("timestamp", "must name its offset from UTC")
        timestamp = int(instant.timestamp() // 1)
    return Draft(name, payload, identifier, timestamp, source)


_WRITE: Final = "billing_meter_event_write"

ROUTES: Final = (
    Route(
        "POST",
        f"{PATH}/meter_events",
        create_event,
        _WRITE,
        limit=METER_EVENTS,
        exclusive=True,
    ),
    Route(
        "POST",
        f"{PATH}/meter_event_adjustments",
        create_adjustment,
        "billing_meter_event_adjustment_write",
    ),
    Route("POST", f"{PATH}/meter_event_session", create_session, _WRITE),
    Route("POST", f"{PATH}/meter_event_stream", stream, _WRITE, limit=STREAM, by_session=True),
)
