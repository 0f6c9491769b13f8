"""What every call makes by hand, or keeps from the last one, is what the long way would give."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from tallygate.adapters.redis.codec import ProtobufEventEncoder
from tallygate.api.convert import check_response
from tallygate.api.replies import Replies
from tallygate.domain.catalog import UNLIMITED, Limit, Override, default_tenant
from tallygate.domain.decision import Decided, LimitReading, LimitState
from tallygate.domain.event import EventContext, UsageEvent
from tallygate.domain.ids import (
    AMOUNT_MAX,
    AccountId,
    EventId,
    LimitId,
    MeterName,
    OperationId,
    TenantId,
    account_of,
)
from tallygate.domain.request import ConsumeResult, Durability, Item
from tallygate.domain.varint import micros, varint
from tallygate.domain.window import DAY_US, Period
from tallygate.flow.bind import Binder
from tallygate.flow.place import Places
from tallygate.gen.v1 import event_pb2, quota_pb2
from tests.builders import BYTES, REQUESTS, SHARDS, catalog, rate, window

AMOUNTS = st.integers(1, AMOUNT_MAX)
PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=128)
TENANTS = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=128)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9_.\-]{0,63}", fullmatch=True)
UNITS = st.one_of(st.integers(0, 300), st.integers(0, AMOUNT_MAX))
AT_US = 1_750_000_000_000_000
STATES = st.sampled_from(LimitState)


@st.composite
def readings(draw: st.DrawFn) -> LimitReading:
    """Return a limit as it may stand."""
    value = draw(st.sampled_from(["", "u-1", "größer"]))
    limit = draw(st.one_of(UNITS, st.just(UNLIMITED)))
    return LimitReading(
        account=draw(st.just(AccountId("")) | st.just(account_of(TenantId(draw(TENANTS)))))
        if not value
        else account_of(TenantId(draw(TENANTS)), "user_id", value),
        limit_id=LimitId(draw(NAMES)),
        meter=MeterName(draw(NAMES)),
        state=draw(STATES),
        used=draw(UNITS),
        limit=limit,
        remaining=draw(UNITS),
        resets_at_us=draw(st.one_of(st.just(0), st.integers(1, 250_000_000_000_000_000))),
    )


@st.composite
def results(draw: st.DrawFn) -> ConsumeResult:
    """Return what a charge may come to."""
    ids = draw(st.lists(PRINTABLE.map(EventId), max_size=3))
    decided = Decided(
        allowed=draw(st.booleans()),
        at_us=AT_US,
        readings=tuple(draw(st.lists(readings(), max_size=4))),
        refused_by=draw(st.none() | NAMES.map(LimitId)),
        retry_after_us=draw(st.none() | st.integers(0, 400 * DAY_US)),
        replayed=draw(st.booleans()),
        degraded=draw(st.booleans()),
    )
    return ConsumeResult(decided, tuple(ids), draw(st.sampled_from(Durability)))


@given(st.lists(results(), min_size=1, max_size=3))
def test_replies_are_those_of_the_message(found: list[ConsumeResult]) -> None:
    """Byte for byte, whatever was said before."""
    replies = Replies()
    for result in found:
        decided = result.decision
        told = check_response(decided)
        message = quota_pb2.CheckAndConsumeResponse(
            allowed=decided.allowed,
            limits=told.limits,
            refused_by=decided.refused_by or "",
            replayed=decided.replayed,
            durability=int(result.durability),  # type: ignore[arg-type]
            event_ids=result.event_ids,
            degraded=decided.degraded,
        )
        if decided.retry_after_us is not None:
            message.retry_after.CopyFrom(told.retry_after)
        assert replies.consumed(result) == message.SerializeToString()


@given(TENANTS, NAMES, AMOUNTS, st.lists(st.tuples(PRINTABLE, PRINTABLE), min_size=1))
def test_one_event_is_as_the_encoder_has_it(
    tenant: str, meter: str, amount: int, ids: list[tuple[str, str]]
) -> None:
    """So that a repeat has the same fingerprint, whoever brings it."""
    encoder, names = ProtobufEventEncoder(), (TenantId(tenant), MeterName(meter))
    make = encoder.one_event(*names, amount)
    for event_id, operation_id in ids:
        event = UsageEvent(EventId(event_id), *names, amount, 0, OperationId(operation_id))
        assert make(event.event_id, event.operation_id) == encoder.encode([event])


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 250_000_000_000_000_000))
def test_numbers_and_times_are_as_the_library_writes_them(value: int, at_us: int) -> None:
    """Over all that their fields can hold."""
    message = event_pb2.UsageEvent(amount=value)
    assert message.SerializeToString() == (b"\x20" + varint(value) if value else b"")
    message = event_pb2.UsageEvent()
    message.event_time.FromMicroseconds(at_us)
    assert message.SerializeToString() == micros(b"\x2a", at_us)


LIMITS: Mapping[str, Limit] = {
    "plain": window("monthly"),
    "minute": window("minute", period=Period.MINUTE),
    "rate": rate(),
    "bytes": window("bytes", meter=BYTES),
    "per": window("per", per="user_id"),
    "where": window("where", where=(("region", ("eu",)),)),
}


@st.composite
def calls(draw: st.DrawFn) -> tuple[tuple[Item, ...], EventContext, int]:
    """Return a call's items and context, and when it comes."""
    dimensions = st.sampled_from([{}, {"user_id": "a"}, {"user_id": "b", "region": "eu"}])
    items = st.builds(Item, st.sampled_from([REQUESTS, BYTES]), st.integers(1, 3), dimensions)
    region = draw(st.sampled_from(["", "eu"]))
    moment = AT_US + draw(st.integers(-90_000_000, 90_000_000))
    return tuple(draw(st.lists(items, min_size=1, max_size=3))), EventContext(region=region), moment


@given(st.sets(st.sampled_from(sorted(LIMITS)), min_size=1), st.lists(calls(), max_size=12))
def test_charges_that_are_kept_are_those_that_would_be_bound(
    names: set[str], asked: list[tuple[tuple[Item, ...], EventContext, int]]
) -> None:
    """Over turning windows and an override that ends, in whatever order the times come."""
    here = catalog(*(LIMITS[name] for name in sorted(names)))
    overrides = (Override(LimitId("monthly"), 7, expires_at_us=AT_US),)
    (plain,) = [default_tenant(here, TenantId(name)) for name in ("acme",)]
    assert plain is not None
    lineage = (type(plain)(plain.tenant_id, plain.plan, overrides=overrides),)
    places = Places(Binder(), ProtobufEventEncoder(), SHARDS)
    for items, context, moment in asked:
        place = places.of(here, lineage, items)
        kept = places.charges(place, items, moment, context)
        assert kept == Binder().charges(here, lineage, items, context, moment)
