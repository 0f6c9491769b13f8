"""What a ledger transaction writes of balances: burns as postings, and falls to low marks.

Guarantees: a burn is posted once for its source, lane, entry and number, however often the stream
gives it out; each posting takes from one account what it puts into another.
Refuses to know: grants. A burn of one that is not there is posted all the same, to be seen.
"""

from collections.abc import Sequence
from typing import Final

from tallygate.adapters.postgres.pool import Lent
from tallygate.adapters.postgres.queries import query
from tallygate.domain.event import BalanceBurn, ThresholdCrossing

USED: Final = "used"
OVERDRAFT: Final = "overdraft"
UNFUNDED: Final = "unfunded"


def account_of_grant(seq: int) -> str:
    """Return the account that holds what is left of a balance's grant of that number."""
    return f"grant:{seq}"


async def insert(connection: Lent, burns: Sequence[BalanceBurn]) -> int:
    """Post burns; return how many had not been posted before."""
    if not burns:
        return 0
    first = {
        (each.source_id, each.source_lane, each.entry_id, each.number): each
        for each in reversed(burns)
    }
    balances = sorted({(each.tenant_id, each.limit_id) for each in first.values()})
    await connection.execute(query("ledger_note_balances"), *map(list, zip(*balances, strict=True)))
    # In the order of their keys, so that two ingesters wait for each other, not forever.
    rows = [_row(each) for _, each in sorted(first.items())]
    columns = zip(*rows, strict=True)
    return int(await connection.fetchval(query("ledger_insert_burns"), *map(list, columns)))


def _row(burn: BalanceBurn) -> tuple[object, ...]:
    match burn.grant_seq:
        case 0:
            account = OVERDRAFT
        case -1:
            account = UNFUNDED
        case seq:
            account = account_of_grant(seq)
    # What came back goes the other way: no amount in the ledger is below 0.
    sides = (account, USED) if burn.amount > 0 else (USED, account)
    return (
        burn.tenant_id,
        burn.limit_id,
        *sides,
        abs(burn.amount),
        burn.burned_at_us,
        burn.counter_epoch,
        burn.source_id,
        burn.source_lane,
        burn.entry_id,
        burn.number,
    )


async def insert_lows(
    connection: Lent, lows: Sequence[ThresholdCrossing]
) -> list[ThresholdCrossing]:
    """Keep falls to low marks; return those that were not told before."""
    if not lows:
        return []
    first = {
        (each.tenant_id, each.limit_id, each.threshold, each.crossed_at_us): each
        for each in reversed(lows)
    }
    rows = [(*key, each.meter, each.used) for key, each in sorted(first.items())]
    columns = zip(*rows, strict=True)
    stored = await connection.fetch(query("ledger_insert_lows"), *map(list, columns))
    return [
        first[row["tenant_id"], row["limit_id"], row["threshold"], row["crossed_at_us"]]
        for row in stored
    ]
