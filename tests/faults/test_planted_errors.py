"""An error in any one step between an event and its invoice is found there, and nowhere else."""

from collections.abc import AsyncIterator

import pytest

from tallygate.domain.reconcile import Figure, Step, Verdict
from tests.planted_world import HOOK, USED, PlantedWorld, planted_world
from tests.stripe_world import METER, TENANT


@pytest.fixture
async def planted(postgres_dsn: str) -> AsyncIterator[PlantedWorld]:
    """A January that is over, and of which everything agrees."""
    async with planted_world(postgres_dsn) as lent:
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
