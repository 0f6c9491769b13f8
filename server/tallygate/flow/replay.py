"""ledger ─▶ [ replay ] ─▶ rollups · outbox ─▶ [ replay ] ─▶ deliveries: what was made, made again.

If we die here, what is made anew is so, a day of a tenant's meter or a batch of messages at a time,
and the same command goes on with the rest.

Guarantees: a dry run changes nothing and says what would be; rollups are exact while ingest goes
on; a message goes to a destination once more for each replay, under the id that it has; months
whose events were dropped stay as they are, and are counted.
Refuses to know: SQL, and which rollups there are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from tallygate.domain.drift import Unequal
from tallygate.domain.errors import InvalidField
from tallygate.domain.ids import MeterName, TenantId
from tallygate.domain.window import DAY_US
from tallygate.ports.recompute import DayAsked, RollupRecompute
from tallygate.ports.redeliver import MessageReplay, RedeliverAsked, RedeliverCounts

# Ten years, as for partitions: more is a slip of the keyboard.
DAYS_MAX: Final = 3_660
# What a report keeps; all are counted.
KEPT_MAX: Final = 1_000
# A transaction of some milliseconds, so that relays hardly wait.
MESSAGES_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class RecomputeAsked:
    """Which rollups: the days that the range touches, of one tenant and meter or of all."""

    from_us: int
    to_us: int
    tenant_id: TenantId | None = None
    meter: MeterName | None = None
    apply: bool = False

    def days(self) -> range:
        """Return the first instants of the days in UTC. Raises `InvalidField`."""
        first, end = self.from_us // DAY_US, -(-self.to_us // DAY_US)
        if not 0 < end - first <= DAYS_MAX:
            raise InvalidField(f"must be 1 to {DAYS_MAX} days after --from", field="--to")
        return range(first * DAY_US, end * DAY_US, DAY_US)


@dataclass(slots=True)
class Recomputed:
    """What a replay of rollups came to: days looked at, buckets that differed, and were mended."""

    days: int = 0
    archived_days: int = 0
    different: int = 0
    mended: int = 0
    differences: list[Unequal] = field(default_factory=list)


async def recompute(
    stores: Sequence[RollupRecompute],
    asked: RecomputeAsked,
    progress: Callable[[int, int], None],
) -> Recomputed:
    """Hold every store's rollups against the ledger day by day, and mend them if so asked."""
    days = asked.days()
    found = Recomputed()
    for number, day_us in enumerate(days, 1):
        for store in stores:
            if await store.archived(day_us) is not None:
                found.archived_days += 1
                break
            await _day(store, asked, day_us, found)
        else:
            found.days += 1
        progress(number, len(days))
    return found


async def _day(
    store: RollupRecompute, asked: RecomputeAsked, day_us: int, found: Recomputed
) -> None:
    differences = await store.differences(DayAsked(day_us, asked.tenant_id, asked.meter))
    found.different += len(differences)
    found.differences += differences[: KEPT_MAX - len(found.differences)]
    if asked.apply:
        for tenant_id, meter in sorted({(each.tenant_id, each.meter) for each in differences}):
            found.mended += await store.recompute(tenant_id, meter, day_us)


async def redeliver(
    messages: MessageReplay,
    asked: RedeliverAsked,
    *,
    apply: bool,
    progress: Callable[[int, int], None],
) -> tuple[RedeliverCounts, int]:
    """Count what would be sent again, and have it sent if so asked; return both numbers.

    Raises `NotFound` for an unknown destination.
    """
    if asked.from_us >= asked.to_us:
        raise InvalidField("must be after --from", field="--to")
    counts = await messages.counts(asked)
    sent = 0
    after: tuple[str, int] | None = None
    while apply:
        batch = await messages.again(asked, after, MESSAGES_BATCH)
        sent += batch.again
        progress(sent, counts.again)
        if batch.after is None:
            break
        after = batch.after
    return counts, sent
