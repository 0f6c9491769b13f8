"""Which meters an account should have for a catalog, beside those it has: a plan, step by step.

Guarantees: what cannot be changed at Stripe is told, never worked around; the same catalog and the
same account give the same plan, and after it is done an empty one.
Refuses to know: how a step is done.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from tallygate.domain.catalog import Meter
from tallygate.domain.stripe_sync import CUSTOMER_KEY, VALUE_KEY, StripeSync

# Longer names are cut there.
DISPLAY_NAME_LENGTH_MAX: Final = 250


class Step(StrEnum):
    """What is to be done about a meter."""

    CREATE = "create"
    REACTIVATE = "reactivate"
    RENAME = "rename"
    CONFLICT = "conflict"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class AccountMeter:
    """A meter of an account. `window` is hour, day or empty."""

    meter_id: str
    event_name: str
    display_name: str
    formula: str
    window: str
    customer_key: str
    value_key: str
    active: bool


@dataclass(frozen=True, slots=True)
class MeterStep:
    """One step: which meter, as it is to be, and why where it cannot be."""

    step: Step
    wanted: AccountMeter
    reason: str = ""


def wanted_of(meter: Meter, sync: StripeSync) -> AccountMeter:
    """Return the meter that an account should have for one of ours."""
    return AccountMeter(
        meter_id="",
        event_name=sync.event_name,
        display_name=(meter.description or meter.name)[:DISPLAY_NAME_LENGTH_MAX],
        # We send what was counted, so that sums are taken of counts as well.
        formula="sum",
        window=sync.window.value if sync.overwrite else "",
        customer_key=CUSTOMER_KEY,
        value_key=VALUE_KEY,
        active=True,
    )


def steps(wanted: Iterable[AccountMeter], has: Sequence[AccountMeter]) -> Iterator[MeterStep]:
    """Iterate over what is to be done, by event name; two steps where one is not enough."""
    for each in sorted(wanted, key=lambda meter: meter.event_name):
        named = [meter for meter in has if meter.event_name == each.event_name]
        # Of meters of one name, one is active at most, and the newest is the last.
        found = next((meter for meter in named if meter.active), named[-1] if named else None)
        if found is None:
            yield MeterStep(Step.CREATE, each)
            continue
        faults = list(_conflicts(each, found))
        if faults:
            yield MeterStep(Step.CONFLICT, found, "; ".join(faults))
            continue
        kept = True
        if not found.active:
            kept = False
            yield MeterStep(Step.REACTIVATE, found)
        if found.display_name != each.display_name:
            kept = False
            yield MeterStep(Step.RENAME, replace(found, display_name=each.display_name))
        if kept:
            yield MeterStep(Step.KEEP, found)


def _conflicts(wanted: AccountMeter, found: AccountMeter) -> Iterator[str]:
    for name in ("formula", "window", "customer_key", "value_key"):
        want, has = getattr(wanted, name), getattr(found, name)
        if want != has:
            yield f"its {name} is {has or 'none'} and cannot become {want or 'none'}"
