"""Usage is billed alike whatever a meter takes: by the fake, from rollups, and from events."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallygate.adapters.postgres.billed_usage import PostgresBilledUsage
from tallygate.adapters.postgres.group_remake import PostgresRollups
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.adapters.postgres.pool import Postgres
from tallygate.domain.catalog import Aggregation, Meter
from tallygate.domain.errors import TooManyItems
from tallygate.domain.event import NO_CONTEXT, UsageEvent
from tallygate.domain.fold import Fold
from tallygate.domain.ids import EventId, MeterName, TenantId
from tallygate.domain.rollup import shape_of
from tallygate.domain.segment import selection_of
from tallygate.domain.window import HOUR_US, MINUTE_US, SECOND_US, Window
from tallygate.ports import LedgerBatch
from tallygate.ports.billing import UsageAsked
from tallygate.testing.billing import FakeBilledUsage
from tests.rating.naive_usage import Use, measure
from tests.usage_events import NOON_US, event

REQUESTS = MeterName("requests")
METERS = {
    of: Meter(
        MeterName(of.value),
        of,
        unique_by="user" if of is Aggregation.UNIQUE else "",
        percentile_ppm=900_000 if of is Aggregation.PERCENTILE else 0,
        group_by=("region", "sku"),
    )
    for of in Aggregation
}
HOUR = Window(NOON_US, NOON_US + HOUR_US)
WHERE = (("region", ("eu", "")),)


@dataclass(frozen=True, slots=True)
class Subject:
    """A reader of billed usage, and what stores that which it reads."""

    usage: FakeBilledUsage | PostgresBilledUsage
    postgres: Postgres | None = None

    async def store(self, events: Sequence[UsageEvent]) -> None:
        """Store events."""
        if isinstance(self.usage, FakeBilledUsage):
            self.usage.stored += events
            return
        assert self.postgres is not None
        await PostgresLedger(self.postgres).persist(LedgerBatch(tuple(events)))


@pytest.fixture(params=["fake", "events", "rollups"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The address of the ledger's database; None for the fake."""
    return None if request.param == "fake" else request.getfixturevalue("postgres_dsn")


@pytest.fixture
async def subject(request: pytest.FixtureRequest, dsn: str | None) -> AsyncIterator[Subject]:
    """Each kind of reader, with an empty ledger; with rollups of all meters, or of none."""
    if dsn is None:
        yield Subject(FakeBilledUsage())
        return
    postgres = Postgres(dsn)
    if "rollups" in request.node.name:
        for meter in METERS.values():
            await PostgresRollups(postgres).switch(meter.name, shape_of(meter))
    yield Subject(PostgresBilledUsage(postgres), postgres)
    await postgres.close()


def shown(uses: Sequence[Use], tenant: str = "acme") -> list[UsageEvent]:
    """Return the same events as the product has them."""
    return [
        event(
            number,
            tenant_id=TenantId(tenant),
            # Alike amounts of each meter, so that one story is told of all of them.
            event_id=EventId(f"{use.name}-{use.meter}"),
            refund_of=EventId(f"{use.refund_of}-{use.meter}" if use.refund_of else ""),
            event_time_us=use.at_us,
            meter=MeterName(use.meter),
            amount=use.amount,
            dimensions=dict(use.dimensions),
            context=NO_CONTEXT,
        )
        for number, use in enumerate(uses, 1)
    ]


async def test_the_page_on_meters_is_billed(subject: Subject) -> None:
    """The events of docs/meters.md come to the quantities that stand there."""
    rows = [
        (-30, "e0", 2, "zoe", ""),
        (0, "e1", 6, "ann", ""),
        (20, "e2", 300, "bob", ""),
        (20, "e3", -300, "bob", "e2"),
        (30, "e4", 4, "ann", ""),
        (30, "e5", 3, "", ""),
        (60, "e6", 9, "cid", ""),
    ]
    uses = [
        Use(NOON_US + at_s * SECOND_US, of.value, amount, (("user", user),), name, refund)
        for of in Aggregation
        for at_s, name, amount, user, refund in rows
    ]
    await subject.store(shown(uses))
    asked = [
        UsageAsked(place, selection_of(METERS[of]), Window(NOON_US, NOON_US + MINUTE_US))
        for place, of in enumerate(Aggregation)
    ]
    # The 95th of four is the 90th of four.
    found = {
        each.selection.aggregation.value: (float(each.quantity), each.count)
        for each in await subject.usage.billed(TenantId("acme"), asked)
    }
    assert found == {
        "count": (4, 4),
        "sum": (13, 4),
        "max": (300, 4),
        "min": (3, 4),
        "latest": (3, 4),
        "unique": (1, 4),
        "percentile": (301, 4),
        "time_weighted": (210, 4),
    }


moments = st.integers(-90, 200).map(lambda number: NOON_US + number * 20 * SECOND_US)
values = st.tuples(*(st.sampled_from(["", "a", "eu"]) for _ in range(3)))


@st.composite
def stories(draw: st.DrawFn) -> list[Use]:
    """Return events of all meters alike, refunds of some, and refunds of what never came."""
    found: list[Use] = []
    for place in range(draw(st.integers(1, 10))):
        at_us, amount = draw(moments), draw(st.integers(1, 120))
        dimensions = tuple(zip(("region", "sku", "user"), draw(values), strict=True))
        own = Use(at_us, "", amount, dimensions, f"e{place}")
        found.append(own)
        if draw(st.booleans()):
            taken = -draw(st.integers(1, amount))
            of = draw(st.sampled_from([own.name, own.name, f"gone{place}"]))
            found.append(replace(own, amount=taken, name=f"r{place}", refund_of=of))
    return [replace(use, meter=of.value) for of in Aggregation for use in found]


windows = st.sampled_from(
    [
        HOUR,
        Window(NOON_US - 7 * MINUTE_US, NOON_US + HOUR_US + 3 * MINUTE_US),
        Window(NOON_US + 20 * SECOND_US, NOON_US + HOUR_US - 1),
    ]
)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(stories(), windows, st.sampled_from(["", "region", "user"]), st.sampled_from([(), WHERE]))
async def test_it_is_what_the_naive_rater_counts(
    subject: Subject,
    story: Sequence[Use],
    window: Window,
    per: str,
    where: tuple[tuple[str, tuple[str, ...]], ...],
) -> None:
    """Of every aggregation, by value or not, in whole minutes or not, whatever was refunded."""
    # One database serves all examples.
    tenant = f"t{abs(hash((tuple(story), window, per, where)))}"
    await subject.store(shown(story, tenant))
    asked = [
        UsageAsked(0, replace(selection_of(meter), where=where, per=per), window)
        for meter in METERS.values()
    ]
    found = {
        (each.selection.meter, dict(each.group).get(per, "")): each.quantity
        for each in await subject.usage.billed(TenantId(tenant), asked)
    }
    for meter in METERS.values():
        mine = [
            use
            for use in story
            if use.meter == meter.name
            and use.at_us < window.end_us
            and all(dict(use.dimensions)[key] in among for key, among in where)
        ]
        for value in {dict(use.dimensions).get(per, "") for use in mine}:
            of_value = [use for use in mine if dict(use.dimensions).get(per, "") == value]
            expected = measure(meter, of_value, window.start_us, window.end_us)
            assert found.pop((meter.name, value), 0) == expected, (meter.name, value)
    assert not found


async def test_values_are_bounded() -> None:
    """Different values that are counted one by one are, as they are kept in memory."""
    fold = Fold(selection_of(METERS[Aggregation.UNIQUE]), HOUR, values_max=2)
    events = [event(number, dimensions={"user": f"u{number}"}) for number in range(3)]
    fold.add(events[:2])
    with pytest.raises(TooManyItems) as caught:
        fold.add(events[2:])
    assert caught.value.field == "user"
