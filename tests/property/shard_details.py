"""What some operations have beside their charges, as somebody chooses.

Owns the choosing, and which numbers are worth choosing. Refuses to know who chooses.
"""

from tallygate.domain.account import Accounts
from tallygate.domain.balance import Balance
from tallygate.domain.catalog import Limit, LimitKind
from tallygate.domain.decision import Mode, Rule, SlidingRule, WindowRule
from tallygate.domain.detail import Given, Grant, Portion, Share
from tallygate.domain.ids import AMOUNT_MAX, LimitId, OperationId
from tallygate.domain.made import STEM_DIGITS, made_ids, stem_of_digits
from tallygate.domain.window import DAY_US, MINUTE_US, SECOND_US
from tests.property.shard_limits import METER, Chooser


def any_balance(choose: Chooser) -> Limit:
    """Return a balance that grants may be given to."""
    return Limit(
        limit_id=LimitId(f"balance-{choose.integer(1, 2)}"),
        meter=METER,
        kind=LimitKind.BALANCE,
        period=None,
        limit=0,
        overdraft=choose.integer(0, 5),
        low_at=choose.one_of([(), (5,), (10, 3, 0)]),
    )


def any_grants(choose: Chooser, last: int, now_us: int) -> list[Grant]:
    """Return grants, some of them known already; `last` is the last of them that is."""
    grants: list[Grant] = []
    # Now and then many, some used up: more than there is room for.
    many = choose.one_of([*[False] * 9, True])
    for _ in range(choose.integer(30, 40) if many else choose.integer(0, 3)):
        last += choose.integer(0, 1)
        granted = choose.one_of([1, 5, 12, 30, *([] if many else [AMOUNT_MAX])])
        starts_us = now_us + choose.one_of([-DAY_US, 0, SECOND_US])
        lasts_us = choose.one_of([SECOND_US, MINUTE_US, DAY_US, 0])
        grants.append(
            Grant(
                seq=last + 1,
                priority=choose.integer(-1, 2),
                starts_us=starts_us,
                expires_us=starts_us + lasts_us if lasts_us else AMOUNT_MAX,
                granted=granted,
                remaining=choose.one_of([granted, granted, granted, granted // 2, 0]),
            )
        )
    return grants


def any_portion(choose: Chooser, mode: Mode, share: Share) -> Portion:
    """Return a way to settle a share that its mode allows."""
    used: list[int] = []
    back: list[int] = []
    for piece in share.pieces:
        most = choose.one_of([0, 0, piece.amount]) if mode is Mode.RELEASE else piece.amount
        used.append(choose.integer(0, most))
        rest = piece.amount - used[-1]
        back.append(choose.integer(0, rest) if mode is Mode.SETTLE else rest)
    return Portion(share, tuple(used), tuple(back))


def any_slot(choose: Chooser, rule: Rule, now_us: int) -> tuple[int, int]:
    """Return units that an older epoch may have counted, at the edges of what counts still."""
    units = choose.one_of([1, 2, 7, AMOUNT_MAX])
    match rule:
        case WindowRule(starts_us, turns_us, _):
            start_us = choose.one_of([starts_us, starts_us, turns_us])
            return (start_us - choose.one_of([0, 0, DAY_US]), units)
        case SlidingRule(width_us, buckets):
            ago = choose.one_of([0, 1, buckets - 1, buckets, buckets + 1])
            return (now_us // width_us - ago, units)
        case _:
            return (0, units)


def turns(model: Accounts) -> list[list[int]]:
    """Return when holds end, when what is remembered is forgotten, and when grants change."""
    accounts = model.accounts.values()
    states = [state for each in accounts for state in each.counters.values()]
    grants = [grant for each in states if isinstance(each, Balance) for grant in each.grants]
    return [
        [each.next_hold_us for each in accounts if each.next_hold_us],
        [each.until_us for each in model.operations.values()],
        [each.until_us for each in model.reservations.values()],
        [end for each in grants for end in (each.starts_us, each.expires_us)],
    ]


STEMS = [stem_of_digits(digit * STEM_DIGITS) for digit in "0f"]
STEM_CALLS = 3


def any_name(choose: Chooser, mode: Mode) -> OperationId | None:
    """Return an operation's id, if any: at times one that was made for a call granted ahead."""
    if mode is Mode.CONSUME and choose.one_of([True, *[False] * 5]):
        return choose.one_of(made_ids(choose.one_of(STEMS), 0, STEM_CALLS))
    identity = choose.one_of([None, None, *range(4)])
    return OperationId(f"{mode.value}-{identity}") if identity is not None else None


def any_given(choose: Chooser) -> tuple[Given, ...]:
    """Return some calls that were granted ahead: their ids are those of other calls, too."""
    ids: list[OperationId | None] = [*(OperationId(f"c-{number}") for number in range(6)), None]
    runs: list[Given] = []
    if choose.one_of([True, False, False]):
        stem = choose.one_of(STEMS)
        of = tuple(made_ids(stem, 0, STEM_CALLS))
        print_ = (f"c{choose.integer(1, 3):x}",) * STEM_CALLS
        runs.append(Given(of, print_, choose.integer(1, 2), choose.integer(5, 6), stem))
    while ids and choose.integer(0, 2):
        start = choose.integer(0, len(ids) - 1)
        some, ids[start : start + 3] = ids[start : start + 3], []
        fingerprints = tuple(f"c{choose.integer(1, 3):x}" for _ in some)
        runs.append(Given(tuple(some), fingerprints, choose.integer(1, 2), choose.integer(5, 6)))
    return tuple(runs)


def events_given(given: tuple[Given, ...]) -> tuple[bytes, int]:
    """Return the payload and the number of events of such calls; no two calls have the same."""
    sizes = [run.size_bytes for run in given for _ in run.operation_ids]
    payload = b"".join(
        f"|{place}\n,{size}"[:size].encode().ljust(size) for place, size in enumerate(sizes)
    )
    return payload, sum(run.event_count * len(run.operation_ids) for run in given)
