"""recount ─▶ [ rebuilt ] ─▶ rebuild: one account's sums as the counters take them.

If we die here, nothing has happened yet.

Guarantees: sums reach the epoch they were made for or none.
Refuses to know: where they come from, and when they are given.
"""

from dataclasses import replace

from tallygate.domain.decision import Mode, Operation
from tallygate.domain.detail import Rebuilt
from tallygate.domain.ids import tenant_of
from tallygate.domain.limit import in_reach
from tallygate.flow.recount import Recounted


def rebuilding(found: Recounted, epoch: str) -> Operation:
    """Return what gives an account its sums."""
    return Operation(
        mode=Mode.REBUILD,
        tenant_id=tenant_of(found.account),
        shard=found.shard,
        charges=found.charges,
        detail=Rebuilt(found.slots),
        epoch=epoch,
    )


def still_live(operation: Operation, now_us: int) -> list[Operation]:
    """Return the operation without the windows that have passed; nothing where none is left."""
    assert isinstance(operation.detail, Rebuilt)
    kept = [
        (charge, slots)
        for charge, slots in zip(operation.charges, operation.detail.slots, strict=True)
        if in_reach(charge.rule, now_us)
    ]
    if not kept:
        return []
    charges, slots = zip(*kept, strict=True)
    return [replace(operation, charges=charges, detail=Rebuilt(slots))]
