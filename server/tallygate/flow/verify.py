"""ledger ─▶ [ verify ] ─▶ differences: counters, rollups, partitions, deliveries, balances.

If we die here, nothing has happened: verification reads, and changes nothing.

Guarantees: on a live system, what is in flight is no difference; a difference of one unit is one;
a check that could not be made is said, and never passes for one that found nothing.
Refuses to know: SQL, Redis, and how differences are shown.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from tallygate.domain.completeness import Identity
from tallygate.domain.drift import Check, Difference, blamed, spelled
from tallygate.domain.errors import TallygateError
from tallygate.domain.ids import TenantId
from tallygate.ports.audit import DestinationTotal, GroupAudit, LedgerAudit, Month

# What a report keeps of each check; all are counted.
KEPT_MAX: Final = 1_000

Progress = Callable[[str, int], None]
"""Told what was compared just now, and how many of it."""


class CounterCheck(Protocol):
    """Compares counters with the ledger and what is in flight."""

    async def compare(
        self, tenant_id: TenantId | None, note: Callable[[int], None]
    ) -> "CounterFindings":
        """Return what differs. Raises `BackendUnavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class CounterFindings:
    """What was found of counters: differences, how many were compared, and which could not be.

    `young` are lower than their windows' usage, as their limits are younger than these windows.
    """

    differences: tuple[Difference, ...] = ()
    compared: int = 0
    in_flight: int = 0
    young: int = 0
    unverified: tuple[str, ...] = ()


@dataclass(slots=True)
class Report:
    """What a verification came to.

    `counts` are differences by check, also of those that `differences` has no room for; `compared`
    says of each kind how many were looked at; `unverified` which checks could not be made, and why.
    """

    differences: list[Difference] = field(default_factory=list)
    counts: dict[Check, int] = field(default_factory=lambda: dict.fromkeys(Check, 0))
    compared: dict[str, int] = field(default_factory=dict)
    destinations: list[DestinationTotal] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether everything was compared and nothing differs."""
        return not any(self.counts.values()) and not self.unverified

    def add(self, found: Iterable[Difference]) -> None:
        """Count differences, and keep them as far as there is room."""
        for each in found:
            if self.counts[each.check] < KEPT_MAX:
                self.differences.append(each)
            self.counts[each.check] += 1

    def count(self, what: str, number: int) -> None:
        """Note that so many were compared."""
        self.compared[what] = self.compared.get(what, 0) + number


class NumbersCheck(Protocol):
    """Compares the numbers that were given out with those that have arrived."""

    async def compare(self) -> Identity:
        """Return the identity's terms. Raises `BackendUnavailable` and `Overloaded`."""
        ...


@dataclass(frozen=True, slots=True)
class VerifyParts:
    """What verification reads. What is None is not compared: there is no Redis to ask."""

    ledger: LedgerAudit
    groups: GroupAudit
    counters: CounterCheck | None = None
    numbers: NumbersCheck | None = None


class Verify:
    """Compares a live installation with its ledger."""

    def __init__(self, parts: VerifyParts, progress: Progress = lambda _what, _count: None) -> None:
        self._parts = parts
        self._progress = progress

    async def run(self, tenant_id: TenantId | None = None) -> Report:
        """Compare everything, of one tenant or of all; return what differs.

        Raises `BackendUnavailable` when Postgres does not answer. A Redis that does not answer
        leaves counters unverified, and the rest is compared.
        """
        report = Report()
        await self._usage(report, tenant_id)
        await self._messages(report, tenant_id)
        if self._parts.counters is not None:
            await self._counters(report, self._parts.counters, tenant_id)
        if self._parts.numbers is not None and tenant_id is None:
            await self._numbers(report, self._parts.numbers)
        return report

    async def _usage(self, report: Report, tenant_id: TenantId | None) -> None:
        ledger = self._parts.ledger
        months = await ledger.months(tenant_id)
        for month, leaves in _by_month(months):
            # Other months are other buckets: one at a time bounds what is sorted at once.
            found = await ledger.unequal(month, tenant_id)
            report.add(blamed(found, " and ".join(leaves) or "usage_event"))
            report.add(await self._parts.groups.unequal(month, tenant_id))
            report.count("events", month.events)
            self._progress("events", month.events)
        report.unverified += [
            f"rollups by group of meter {meter}: they lack events, as they are made anew"
            for meter in await self._parts.groups.incomplete()
        ]
        dropped = len({month.from_us for month in months if month.dropped})
        if dropped:
            report.count("months archived", dropped)
        report.add(await ledger.archives(tenant_id))
        report.count("partitions", len({month.leaf for month in months if month.leaf}))
        report.add(_misplaced(months))
        report.add(await ledger.unnamed(tenant_id))
        self._progress("keys", sum(month.events for month in months))
        report.add(await ledger.accounts(tenant_id))

    async def _messages(self, report: Report, tenant_id: TenantId | None) -> None:
        ledger = self._parts.ledger
        report.add(await ledger.untold(tenant_id))
        if tenant_id is None:
            report.add(await ledger.undelivered())
        report.destinations = list(await ledger.destinations(tenant_id))
        report.add(
            Difference(
                check=Check.DELIVERY,
                what=each.destination,
                tenant_id=tenant_id or TenantId(""),
                where=each.meter,
                expected=each.ledger,
                found=each.told,
                detail="the destination's total is not the ledger's",
            )
            for each in report.destinations
            if each.told != each.ledger
        )
        told = sum(each.events for each in report.destinations)
        report.count("told events", told)
        self._progress("told events", told)

    async def _counters(
        self, report: Report, counters: CounterCheck, tenant_id: TenantId | None
    ) -> None:
        try:
            found = await counters.compare(
                tenant_id, lambda count: self._progress("counters", count)
            )
        except TallygateError as error:
            report.unverified.append(f"counters: {error.message}")
            return
        report.add(found.differences)
        report.count("counters", found.compared)
        report.count("events in flight", found.in_flight)
        report.count("counters younger than their window", found.young)
        report.unverified += found.unverified

    async def _numbers(self, report: Report, numbers: NumbersCheck) -> None:
        try:
            found = await numbers.compare()
        except TallygateError as error:
            report.unverified.append(f"sequence numbers: {error.message}")
            return
        report.count("numbers given out", found.accepted)
        report.add(
            Difference(
                check=Check.COMPLETENESS,
                what=source,
                tenant_id=TenantId(""),
                where=f"shard {shard}: {start} to {end}",
                expected=end - start + 1,
                found=0,
                detail="numbers were given out, and are neither stored nor on their way",
            )
            for (source, shard), ranges in found.missing.items()
            for start, end in ranges
        )


def _by_month(months: Sequence[Month]) -> list[tuple[Month, list[str]]]:
    """Return each month once, its events added up, with its partitions."""
    found: dict[int, tuple[Month, list[str]]] = {}
    for each in months:
        before, leaves = found.get(each.from_us, (None, []))
        events = each.events + (before.events if before else 0)
        whole = Month(each.from_us, each.to_us, each.leaf, events, each.dropped)
        found[each.from_us] = (whole, [*leaves, each.leaf] if each.leaf else leaves)
    return list(found.values())


def _misplaced(months: Sequence[Month]) -> list[Difference]:
    """Return the months whose events lie in more than one partition."""
    return [
        Difference(
            check=Check.LEDGER,
            what=" and ".join(leaves),
            tenant_id=TenantId(""),
            where=spelled(month.from_us),
            expected=1,
            found=len(leaves),
            detail="a month's events lie in one partition",
        )
        for month, leaves in _by_month(months)
        if len(leaves) > 1
    ]
