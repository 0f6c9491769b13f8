"""Around one decision: which accounts it meets, as what, and how its answer is put.

Guarantees: an answer is put in one way, whether the limits refuse or it is a repeat's.
Refuses to know: counters.
"""

from collections.abc import Sequence
from dataclasses import replace

from tallygate.domain.decision import (
    Charge,
    Decided,
    Mode,
    Operation,
)
from tallygate.domain.detail import (
    Extension,
    Hold,
    Settlement,
    Share,
)
from tallygate.domain.ids import AccountId
from tallygate.domain.limit import Verdict


def asking(operation: Operation) -> Mode:
    """Return as what an operation's charges meet their limits."""
    if isinstance(operation.detail, Settlement):
        return Mode.RECORD if operation.detail.record_excess else Mode.CONSUME
    return Mode.RECORD if operation.mode is Mode.LATE else operation.mode


def shares_told(operation: Operation) -> tuple[Share, ...]:
    """Return what the operation says that its reservation holds."""
    match operation.detail:
        case Settlement(portions=portions):
            return tuple(portion.share for portion in portions)
        case Extension(shares=shares):
            return shares
        case _:
            return ()


def leaves_traces(operation: Operation) -> bool:
    """Say whether the operation is remembered, or makes or resolves a reservation."""
    resolves = isinstance(operation.detail, Hold | Settlement | Extension)
    return operation.operation_id is not None or resolves


def touched(operation: Operation) -> list[AccountId]:
    """Return the accounts that an operation meets, each once."""
    accounts = [charge.account for charge in operation.charges]
    accounts += [share.account for share in shares_told(operation)]
    return list(dict.fromkeys(accounts))


def replayed(answer: Decided, operation: Operation) -> Decided:
    """Return the first answer; whose its limits are is told where they are this call's too."""
    ids = [reading.limit_id for reading in answer.readings]
    readings = tuple(
        replace(reading, account=account)
        for reading, account in zip(answer.readings, accounts_of(ids, operation), strict=True)
    )
    return replace(answer, readings=readings, replayed=True)


def accounts_of(limit_ids: Sequence[str], operation: Operation) -> list[AccountId]:
    """Return whose the limits of an answer to the operation are, empty where that is unknown."""
    charges = operation.charges
    if operation.mode is Mode.RESET:
        charges = tuple(charge for charge in charges for _ in range(2))
    if [*limit_ids] != [charge.limit_id for charge in charges]:
        return [AccountId("")] * len(limit_ids)
    return [charge.account for charge in charges]


def refusal(charges: Sequence[Charge], verdicts: Sequence[Verdict], now_us: int) -> Decided:
    """Return the answer of limits of which some refuse."""
    refusing = [
        (charge.limit_id, verdict.retry_after_us)
        for charge, verdict in zip(charges, verdicts, strict=True)
        if verdict.refuses
    ]
    waits = [wait for _, wait in refusing if wait is not None]
    return Decided(
        allowed=False,
        at_us=now_us,
        readings=tuple(verdict.before for verdict in verdicts),
        refused_by=refusing[0][0],
        # The call passes when every refusing limit lets it, and never when one never does.
        retry_after_us=max(waits) if len(waits) == len(refusing) else None,
    )
