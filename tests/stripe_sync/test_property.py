"""Whatever happens to usage and to calls, in the end Stripe has what the ledger has."""

from decimal import Decimal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallygate.domain.window import HOUR_US, MINUTE_US
from tallygate_fake_stripe import Fault, FaultKind
from tests.servers import connection
from tests.stripe_world import START_US, stripe_world

KINDS = [
    FaultKind.ERROR_AFTER,
    FaultKind.ERROR_BEFORE,
    FaultKind.DROP_AFTER,
    FaultKind.DROP_BEFORE,
    FaultKind.RATE_LIMITED,
    FaultKind.LOCK_TIMEOUT,
    FaultKind.CONFLICT,
]
ACTS = st.one_of(
    st.tuples(st.just("use"), st.integers(1, 1_000), st.integers(0, 6 * 60)),
    st.tuples(st.just("refund"), st.integers(1, 1_000), st.integers(0, 6 * 60)),
    st.tuples(st.just("fault"), st.sampled_from(KINDS), st.integers(1, 3)),
    st.tuples(st.just("pass"), st.integers(1, 300), st.just(0)),
    st.tuples(st.just("sync"), st.just(0), st.just(0)),
    st.tuples(st.just("restart"), st.just(0), st.just(0)),
)
CLEAR = (
    "truncate tallygate.stripe_send, tallygate.stripe_lane;"
    " alter table tallygate.stripe_intent disable trigger append_only_truncate;"
    " truncate tallygate.stripe_intent cascade;"
    " alter table tallygate.stripe_intent enable trigger append_only_truncate;"
    " truncate tallygate.usage_minute, tallygate.usage_hour, tallygate.usage_day"
)


@given(st.lists(ACTS, max_size=25))
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_stripe_ends_with_what_the_ledger_has(
    postgres_dsn: str, acts: list[tuple[str, object, int]]
) -> None:
    """Late usage, refunds, failures, pauses and restarts, in any order: the totals are equal."""
    async with connection(postgres_dsn) as admin:
        await admin.execute(CLEAR)
    async with stripe_world(postgres_dsn) as world:
        # Each example's events are others to the ledger, which keeps what it had.
        world.numbers = world_numbers()
        used = 0
        for act, value, extra in acts:
            if act == "use":
                used += int(str(value))
                await world.use(int(str(value)), START_US + extra * MINUTE_US)
            elif act == "refund":
                used -= int(str(value))
                at_us = START_US + extra * MINUTE_US
                await world.use(-int(str(value)), at_us, refund_of="x")
            elif act == "fault":
                world.stripe.faults.add(Fault(FaultKind(str(value)), count=extra))
            elif act == "pass":
                world.pass_s(int(str(value)) * 60)
            elif act == "restart":
                world.sender, world.planner = world.new_sender(), world.new_planner()
            else:
                await world.sync()
        world.stripe.faults.clear()
        world.planner = world.new_planner()
        world.pass_s(12 * HOUR_US // 1_000_000)
        states: dict[str, int] = {}
        for _ in range(100):
            await world.plan()
            await world.send(3)
            states = await world.states()
            if set(states) <= {"delivered", "settled"}:
                break
            world.pass_s(1_800)
        assert set(states) <= {"delivered", "settled"}, await world.rows("state, kind, reason")
        assert world.total() == Decimal(used)


def world_numbers() -> int:
    """Return a number after all that were used before."""
    USED[0] += 1_000
    return USED[0]


USED = [0]
