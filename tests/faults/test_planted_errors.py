"""An error in any one step between an event and its invoice is found there, and nowhere else."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tallygate.adapters.postgres.group_remake import PostgresRollups
from tallygate.adapters.postgres.ledger import PostgresLedger
from tallygate.domain.catalog import Meter
from tallygate.domain.ids import MeterName
from tallygate.domain.reconcile import Figure, Reconciled, Step, Verdict
from tallygate.flow.remake import KeepRollups
from tallygate.ports import CatalogChange, LedgerBatch
from tallygate.ports.repair import Outcome
from tallygate.wiring.repairing import repairs_of
from tests.builders import SHARDS
from tests.e2e.processes import Finished, rows_of, tallygate
from tests.planted_world import HOOK, JANUARY, USED, PlantedWorld, planted_world
from tests.servers import connection
from tests.stripe_world import METER, START_US, TENANT
from tests.usage_events import event


@pytest.fixture
async def planted(postgres_dsn: str) -> AsyncIterator[PlantedWorld]:
    """A January that is over, and of which everything agrees."""
    async with planted_world(postgres_dsn) as lent:
        yield lent


@pytest.fixture
async def open_month(postgres_dsn: str) -> AsyncIterator[PlantedWorld]:
    """The same while January lasts, when Stripe still takes its usage."""
    async with planted_world(postgres_dsn, ended=False) as lent:
        yield lent


async def test_without_an_error_all_steps_agree(planted: PlantedWorld) -> None:
    """Every step of the chain has the same units, and the verdict is exact."""
    found = await planted.result()
    units = {
        each.step: int(each.figure.units)
        for each in found.readings
        if isinstance(each.figure, Figure)
    }
    assert (found.verdict, found.drifts) == (Verdict.EXACT, ())
    chain = [step for step in Step if step is not Step.COUNTER]
    assert units == dict.fromkeys(chain, USED)


BUCKET = f"tenant_id = '{TENANT}' and meter = '{METER}'"
ONE_EVENT = f"(tenant_id, event_id) = ('{TENANT}', 'event-1')"
COPIED = (
    "insert into tallygate.usage_event select (jsonb_populate_record(event,"
    " jsonb_build_object('event_id', 'event-x', 'source_seq', 99))).*"
    f" from tallygate.usage_event as event where {ONE_EVENT}"
)
AGAIN = (
    "insert into tallygate.outbox overriding system value select (jsonb_populate_record(message,"
    " jsonb_build_object('id', gen_random_uuid(), 'seq', 1000))).* from tallygate.outbox as message"
    " where type = 'usage.batch' order by seq limit 1"
)
AGAIN_DELIVERED = (
    "insert into tallygate.delivery select (jsonb_populate_record(delivery, jsonb_build_object("
    "'message_id', (select id from tallygate.outbox where seq = 1000)))).*"
    " from tallygate.delivery join tallygate.outbox on id = message_id order by seq limit 1"
)
TWICE = (
    "insert into tallygate.stripe_intent overriding system value select"
    " (jsonb_populate_record(intent, jsonb_build_object('intent_id', 99, 'seq', 2, 'identifier',"
    " 'twice', 'idempotency_key', 'twice'))).* from tallygate.stripe_intent as intent"
)
TWICE_SENT = (
    "insert into tallygate.stripe_send select (jsonb_populate_record(send,"
    " jsonb_build_object('intent_id', 99))).* from tallygate.stripe_send as send"
)
PLANTED: list[tuple[str, list[str], list[tuple[Step, str, int]]]] = [
    (
        "event gone",
        [f"delete from tallygate.usage_event where {ONE_EVENT}"],
        [(Step.LEDGER, "", -5)],
    ),
    ("event added", [COPIED], [(Step.LEDGER, "", 5)]),
    *(
        (
            f"usage_{length}",
            [
                f"update tallygate.usage_{length} set sum = sum + 1"  # noqa: ISC004
                f" where {BUCKET} and bucket = (select min(bucket) from tallygate.usage_{length})"
            ],
            [(Step.ROLLUP, name, 1)],
        )
        for length, name in (("minute", ""), ("hour", "hour"), ("day", "day"))
    ),
    (
        "minute gone",
        ["delete from tallygate.usage_minute where sum = 7"],
        [(Step.ROLLUP, "", -7)],
    ),
    (
        "frozen",
        ["update tallygate.period_total set sum = sum + 1"],
        [(Step.FROZEN, "", 1)],
    ),
    ("frozen gone", ["delete from tallygate.period_total"], [(Step.FROZEN, "", -USED)]),
    (
        "intent",
        ["update tallygate.stripe_intent set quantity = quantity + 1"],
        [(Step.INTENTS, "", 1)],
    ),
    (
        "intent doubled",
        [
            TWICE,
            TWICE_SENT,
        ],
        [(Step.INTENTS, "", USED)],
    ),
    (
        "sent",
        ["update tallygate.stripe_send set state = 'rejected'"],
        [(Step.SENT, "", -USED)],
    ),
    (
        "invoice",
        [
            "update tallygate.invoice set lines = jsonb_set(lines, '{0,quantity}', '\"13\"')",
        ],
        [(Step.INVOICE, "", 1)],
    ),
    ("told twice", [AGAIN, AGAIN_DELIVERED], [(Step.DELIVERED, HOOK, 5)]),
    (
        "never delivered",
        ["delete from tallygate.delivery"],
        [(Step.DELIVERED, HOOK, -USED)],
    ),
]


@pytest.mark.parametrize(
    ("statements", "blamed"), [each[1:] for each in PLANTED], ids=[each[0] for each in PLANTED]
)
async def test_a_planted_error_is_blamed_where_it_is(
    planted: PlantedWorld, statements: list[str], blamed: list[tuple[Step, str, int]]
) -> None:
    """By its step, its name and its units; what was made of it follows, and is not blamed."""
    await planted.edit(*statements)
    assert await planted.blamed() == blamed


async def test_rollups_are_made_anew(planted: PlantedWorld) -> None:
    """A dry run changes nothing; then all that is derived is right again, and once is enough."""
    await planted.edit(
        "update tallygate.usage_minute set sum = sum + 1 where sum = 7",
        "update tallygate.usage_day set sum = sum - 2",
    )
    found = await planted.blamed()
    assert found == [(Step.ROLLUP, "", 1), (Step.ROLLUP, "day", -2)]
    asked = [(Step.ROLLUP, Outcome.WOULD)] * 2
    assert await planted.repair(apply=False) == asked
    assert await planted.blamed() == found
    assert await planted.repair() == [(Step.ROLLUP, Outcome.DONE)] * 2
    assert (await planted.result()).verdict is Verdict.EXACT
    assert await planted.repair() == []


async def test_a_ledger_that_lacks_events_keeps_its_rollups(planted: PlantedWorld) -> None:
    """To make them anew would take away the last that knows: people have to bring them back."""
    await planted.edit(
        f"delete from tallygate.usage_event where {ONE_EVENT}",
        "update tallygate.usage_hour set sum = sum + 1",
    )
    assert await planted.repair() == [
        (Step.LEDGER, Outcome.BY_HAND),
        (Step.ROLLUP, Outcome.BY_HAND),
    ]
    assert await planted.blamed() == [(Step.LEDGER, "", -5), (Step.ROLLUP, "hour", 1)]


async def test_what_a_destination_lacks_is_told_again(planted: PlantedWorld) -> None:
    """On its way after the repair, and exact once it is delivered; under the ids it had."""
    await planted.edit("delete from tallygate.delivery")
    assert await planted.repair() == [(Step.DELIVERED, Outcome.DONE)]
    assert (await planted.result()).verdict is Verdict.IN_FLIGHT
    assert await planted.deliver() == 2
    assert (await planted.result()).verdict is Verdict.EXACT


async def test_what_was_told_twice_is_for_people(planted: PlantedWorld) -> None:
    """Nobody can take back a message: receivers drop ids that they know."""
    await planted.edit(AGAIN, AGAIN_DELIVERED)
    assert await planted.repair() == [(Step.DELIVERED, Outcome.BY_HAND)]


async def test_an_intent_too_much_is_taken_back(open_month: PlantedWorld) -> None:
    """The planner writes the difference; Stripe is told, and everything has the same."""
    planted = open_month
    await planted.edit("update tallygate.stripe_intent set quantity = 13")
    assert await planted.blamed() == [(Step.INTENTS, "", 1)]
    assert await planted.repair(apply=False) == [(Step.INTENTS, Outcome.WOULD)]
    await planted.edit("update tallygate.stripe_intent set quantity = 12")
    assert (await planted.result()).verdict is Verdict.EXACT


async def test_an_intent_that_is_gone_is_planned_anew(open_month: PlantedWorld) -> None:
    """Written again under the identity that it had, so that Stripe knows it already."""
    planted = open_month
    await planted.edit("delete from tallygate.stripe_send", "delete from tallygate.stripe_intent")
    assert (Step.INTENTS, "", -USED) in await planted.blamed()
    assert (Step.INTENTS, Outcome.DONE) in await planted.repair()
    await planted.world.send()
    assert await planted.world.states() == {"delivered": 1}
    assert planted.world.total() == USED
    await planted.settle()
    assert (await planted.result()).verdict is Verdict.EXACT


async def test_what_was_refused_is_said_again(open_month: PlantedWorld) -> None:
    """Under another identifier, and counted once."""
    planted = open_month
    await planted.edit("update tallygate.stripe_send set state = 'rejected'")
    await planted.tell(-USED)
    assert await planted.blamed() == [(Step.SENT, "", -USED)]
    assert await planted.repair() == [(Step.SENT, Outcome.DONE)]
    await planted.settle()
    assert planted.world.total() == USED
    assert (await planted.result()).verdict is Verdict.EXACT


async def test_what_stripe_never_had_is_said_again(open_month: PlantedWorld) -> None:
    """Marked as delivered and not in Stripe's sum: that proves that it was lost."""
    planted = open_month
    await planted.tell(-USED)
    assert await planted.blamed() == [(Step.STRIPE, "", -USED)]
    assert await planted.repair(apply=False) == [(Step.STRIPE, Outcome.WOULD)]
    assert await planted.repair() == [(Step.STRIPE, Outcome.DONE)]
    await planted.settle()
    assert planted.world.total() == USED
    assert (await planted.result()).verdict is Verdict.EXACT


@pytest.mark.parametrize("units", [1, -1])
async def test_a_sum_that_nothing_explains_is_for_people(
    open_month: PlantedWorld, units: int
) -> None:
    """Somebody else told Stripe: what is off is said to the unit, and nothing is sent."""
    await open_month.tell(units)
    assert await open_month.blamed() == [(Step.STRIPE, "", units)]
    assert await open_month.repair() == [(Step.STRIPE, Outcome.BY_HAND)]
    assert await open_month.world.plan() == 0


@pytest.mark.parametrize(
    ("level", "name"), [(0, "groups by minute"), (1, "groups by hour"), (2, "groups by day")]
)
async def test_a_group_that_is_off_is_blamed_and_made_anew(
    open_month: PlantedWorld, level: int, name: str
) -> None:
    """By its length, whatever the rollups of the whole meter say."""
    planted, clock = open_month, open_month.world.clock
    seats = MeterName("seats")
    known = await planted.catalogs.effective(clock.now_us())
    meters = {**known.meters, seats: Meter(seats, group_by=("region",))}
    change = CatalogChange(replace(known, meters=meters), effective_at_us=1)
    await planted.catalogs.write(change, known.version)
    postgres = planted.world.postgres
    await KeepRollups(PostgresRollups(postgres), planted.catalogs, clock).run_once()
    at_us = START_US
    events = [
        event(
            100 + number,
            tenant_id=TENANT,
            meter=seats,
            amount=number,
            event_time_us=at_us,
            dimensions={"region": f"r{number % 2}"},
        )
        for number in range(1, 5)
    ]
    await PostgresLedger(postgres).persist(LedgerBatch(tuple(events)))

    async def seated() -> Reconciled:
        (found,) = [
            each
            for each in await planted.reconcile.of_period(TENANT, JANUARY)
            if each.pair.meter == seats
        ]
        return found

    assert not (await seated()).drifts
    await planted.edit(
        f"update tallygate.group_usage set sum = sum + 1 where level = {level}"
        f" and group_id = (select min(group_id) from tallygate.group_usage)"
    )
    found = await seated()
    assert [(each.step, each.name, int(each.units)) for each in found.found] == [
        (Step.ROLLUP, name, 1)
    ]
    (done,) = await repairs_of(postgres, clock, SHARDS).run([found], apply=True)
    assert (done.outcome, (await seated()).drifts) == (Outcome.DONE, ())


async def reconciled(planted: PlantedWorld, *options: str) -> Finished:
    """Run the command on January."""
    asked = ("reconcile", TENANT, *options, "--json")
    return await tallygate(*asked, postgres_dsn=planted.world.dsn)


async def test_the_command_finds_shows_and_repairs(planted: PlantedWorld) -> None:
    """Exit 0 while all agrees, 1 once something does not; a dry run first, then it is whole."""
    asked = ("--period", "2026-01-15", "--destinations")
    assert (await reconciled(planted, *asked)).code == 0
    await planted.edit("update tallygate.usage_hour set sum = sum + 1")
    found = await reconciled(planted, *asked, "--repair")
    assert found.code == 1, found.err
    (row,) = rows_of(found, "repairs")
    assert (row["step"], row["name"], row["drift"]) == ("rollup", "hour", 1)
    (row,) = rows_of(found, "carried out")
    assert (row["outcome"], row["how"]) == ("would be done", "1 buckets are made anew")
    found = await reconciled(planted, *asked, "--repair", "--apply")
    assert [row["outcome"] for row in rows_of(found, "carried out")] == ["done"]
    assert (await reconciled(planted, *asked)).code == 0
    wrong = await reconciled(planted, *asked, "--apply")
    assert (wrong.code, "--repair" in wrong.err) == (2, True)


async def test_the_command_goes_around_invoices(planted: PlantedWorld) -> None:
    """What is closed and what is invoiced is due until it was recorded, each by its kind."""
    await planted.edit("update tallygate.period_revision set closed_at = now()")
    for kind in ("before", "after"):
        found = await reconciled(planted, f"--{kind}-invoice")
        assert (found.code, len(rows_of(found, "pairs"))) == (0, 1), found.err
        found = await reconciled(planted, f"--{kind}-invoice", "--record")
        assert [row["verdict"] for row in rows_of(found, "pairs")] == ["exact"]
        assert rows_of(await reconciled(planted, f"--{kind}-invoice"), "pairs") == []
    async with connection(planted.world.dsn) as admin:
        rows = await admin.fetch("select kind, pairs, exact from tallygate.reconcile_run")
    assert sorted(map(tuple, rows)) == [("after", 1, 1), ("before", 1, 1)]
