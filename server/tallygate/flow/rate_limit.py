"""Envoy ─▶ [ rate_limit ] ─▶ admit: a call's descriptors become charges, and these its answer.

If we die here before `admit` has decided, nothing was charged. If we die after it, the charge
stands and Envoy, which hears nothing, does as its failure mode says.

Guarantees: a call is over its limit if any of its descriptors is, but those that only observe; of
descriptors that are charged together all are charged or none. Who is not known, suspended, or not
readable is over its limit, as nothing was granted to him.
Refuses to know: Envoy's messages.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from tallygate.domain.decision import Decided
from tallygate.domain.envoy import Charging, RateDomain, RateRule, WithoutRedis
from tallygate.domain.envoy_answer import RateAnswer, RateStatus, status_of
from tallygate.domain.envoy_match import Descriptor, RuleTree, Wanted, wanted
from tallygate.domain.errors import (
    BackendUnavailable,
    CatalogNotLoaded,
    CounterOverflow,
    InvalidField,
    TallygateError,
    TenantSuspended,
    TooManyLimits,
    UnknownTenant,
)
from tallygate.domain.event import EventContext
from tallygate.domain.ids import MeterName, OperationId, TenantId
from tallygate.domain.request import (
    ConsumeRequest,
    ConsumeResult,
    QuotaRequest,
    QuotaResult,
)
from tallygate.flow.admit import Admit
from tallygate.ports import CatalogView, Clock

CONTEXT: Final = EventContext(sdk="envoy")
# What is wrong with who asks, or for whom: another try would end alike.
REFUSING: Final = (UnknownTenant, TenantSuspended, InvalidField, TooManyLimits, CounterOverflow)
NO_DOMAIN: Final = RateDomain()

_PASSED: Final = RateStatus(remaining=None)
_UNMATCHED: Final = RateStatus()
_REFUSED: Final = RateStatus(over=True)


class RateObserver(Protocol):
    """What is told of descriptors."""

    def descriptors(self, outcome: str, count: int) -> None:
        """So many were ok, over_limit, refused, shadowed, passed, unmatched or failed."""


@dataclass(frozen=True, slots=True)
class RateAsked:
    """A call: its domain, its descriptors, and the id made for it."""

    domain: str
    descriptors: tuple[Descriptor, ...]
    operation_id: OperationId


@dataclass(frozen=True, slots=True)
class RatePlan:
    """A call as the catalog has it: what each descriptor wants, or why it cannot be told."""

    asked: RateAsked
    domain: RateDomain
    slots: tuple[Wanted | RateRule | InvalidField | None, ...]
    """Per descriptor: a charge; a rule that passes; a fault; None where no rule is for it."""

    @property
    def meters(self) -> tuple[tuple[TenantId, MeterName], ...]:
        """For whom, and on which meters, something is asked."""
        return tuple((each.tenant_id, each.item.meter) for _, each in self.charges)

    @property
    def charges(self) -> list[tuple[int, Wanted]]:
        """The charges with the places of their descriptors."""
        return [(place, each) for place, each in enumerate(self.slots) if isinstance(each, Wanted)]


class RateLimit:
    """Answers Envoy. `expires_at` is loop time, in seconds, when it gives up."""

    def __init__(
        self, admit: Admit, view: CatalogView, clock: Clock, observer: RateObserver
    ) -> None:
        self._admit = admit
        self._view = view
        self._clock = clock
        self._observer = observer
        # Of the domains of the catalog in use, as far as they were asked for.
        self._trees: dict[str, RuleTree] = {}
        self._version = 0

    def read(self, asked: RateAsked) -> RatePlan:
        """Return what a call asks for. Raises `CatalogNotLoaded`."""
        catalog = self._view.current()
        domain = catalog.envoy.domains.get(asked.domain)
        if domain is None:
            return RatePlan(asked, NO_DOMAIN, (None,) * len(asked.descriptors))
        if catalog.version != self._version:
            self._version, self._trees = catalog.version, {}
        tree = self._trees.get(asked.domain)
        if tree is None:
            tree = self._trees[asked.domain] = RuleTree(domain.rules)
        rules = tree.rules_of(asked.descriptors)
        slots = [
            _slot(rule, descriptor, place)
            for place, (rule, descriptor) in enumerate(zip(rules, asked.descriptors, strict=True))
        ]
        return RatePlan(asked, domain, tuple(slots))

    async def decide(self, plan: RatePlan, expires_at: float) -> RateAnswer:
        """Charge what the call asks for. Raises the `TallygateError` that leaves it undecided."""
        statuses, outcomes = _before(plan)
        faults = [each for each in plan.slots if isinstance(each, InvalidField)]
        answer = RateAnswer(plan.domain, over=bool(faults), statuses=())
        if faults:
            answer = replace(answer, reason=faults[0].reason)
        groups = _groups(plan, spared=bool(faults))
        requests = [_request(plan, group, number) for number, group in enumerate(groups)]
        results = await self._admit.consume(requests, expires_at) if requests else []
        for group, request, result in zip(groups, requests, results, strict=True):
            shadow = group[0][1].rule.shadow
            heard = self._heard(plan.domain, request, result, shadow=shadow)
            found = [self._status(heard, each, alone=len(group) == 1) for _, each in group]
            for (place, _), (status, outcome) in zip(group, _blamed(heard, found), strict=True):
                statuses[place] = status
                outcomes[outcome] += 1
            answer = _joined(answer, request, heard, shadow=shadow)
        for place, each in plan.charges:
            if not each.item.amount:
                statuses[place] = await self._standing(each, expires_at)
                outcomes["ok"] += 1
        for outcome, count in outcomes.items():
            self._observer.descriptors(outcome, count)
        return replace(answer, statuses=tuple(statuses))

    def _heard(
        self,
        domain: RateDomain,
        request: ConsumeRequest,
        result: ConsumeResult | TallygateError,
        *,
        shadow: bool,
    ) -> Decided | TallygateError:
        """Return a decision, or an error that is an answer. Raises an error that is none."""
        if isinstance(result, ConsumeResult):
            return result.decision
        if shadow or isinstance(result, REFUSING):
            return result
        away = isinstance(result, BackendUnavailable) and not isinstance(result, CatalogNotLoaded)
        if away and domain.without_redis is WithoutRedis.REFUSE:
            return result
        raise result

    def _status(
        self, heard: Decided | TallygateError, each: Wanted, *, alone: bool
    ) -> tuple[RateStatus, str]:
        """Return a descriptor's status, and how it is counted."""
        if isinstance(heard, TallygateError):
            return (_UNMATCHED, "failed") if each.rule.shadow else (_REFUSED, "refused")
        lineage = self._view.lineage_held(each.tenant_id) or ()
        status = status_of(heard, each.item, self._view.current(), lineage, alone=alone)
        if heard.allowed:
            return status, "ok"
        if each.rule.shadow:
            return replace(status, over=False), "shadowed"
        return status, "over_limit" if status.over else "ok"

    async def _standing(self, each: Wanted, expires_at: float) -> RateStatus:
        """Return where the limits of a descriptor without hits stand."""
        question = QuotaRequest(each.tenant_id, (each.item.meter,), each.item.dimensions)
        try:
            found: QuotaResult = await self._admit.quota(question, expires_at)
        except TallygateError:
            # It takes nothing, so that nothing can be refused.
            return _UNMATCHED
        lineage = self._view.lineage_held(each.tenant_id) or ()
        decision = Decided(True, self._clock.now_us(), tuple(found.readings))
        return status_of(decision, each.item, self._view.current(), lineage, alone=False)


def _slot(
    rule: RateRule | None, descriptor: Descriptor, place: int
) -> Wanted | RateRule | InvalidField | None:
    if rule is None or not rule.meter:
        return rule
    try:
        return wanted(rule, descriptor, f"descriptors[{place}]")
    except InvalidField as error:
        return rule if rule.shadow else error


def _before(plan: RatePlan) -> tuple[list[RateStatus], Counter[str]]:
    """Return what can be said of each descriptor before anything is charged."""
    statuses: list[RateStatus] = []
    outcomes: Counter[str] = Counter()
    for each in plan.slots:
        match each:
            case None:
                statuses.append(_UNMATCHED)
                outcomes["unmatched"] += 1
            case RateRule(shadow=True):
                statuses.append(_UNMATCHED)
                outcomes["failed"] += 1
            case RateRule():
                statuses.append(_PASSED)
                outcomes["passed"] += 1
            case InvalidField():
                statuses.append(_REFUSED)
                outcomes["refused"] += 1
            case Wanted():
                statuses.append(_UNMATCHED)
    return statuses, outcomes


def _groups(plan: RatePlan, *, spared: bool) -> list[list[tuple[int, Wanted]]]:
    """Return which charges are made as one; none but those that observe where a call is refused.

    What only observes is charged by itself: it must not refuse the others.
    """
    together = plan.domain.charging is Charging.TOGETHER
    groups: list[list[tuple[int, Wanted]]] = []
    of_tenant: dict[TenantId, list[tuple[int, Wanted]]] = {}
    for place, each in plan.charges:
        if not each.item.amount:
            continue
        if each.rule.shadow or not together:
            groups.append([(place, each)])
        elif spared:
            continue
        elif each.tenant_id in of_tenant:
            of_tenant[each.tenant_id].append((place, each))
        else:
            of_tenant[each.tenant_id] = [(place, each)]
            groups.append(of_tenant[each.tenant_id])
    return groups


def _request(plan: RatePlan, group: Sequence[tuple[int, Wanted]], number: int) -> ConsumeRequest:
    made = plan.asked.operation_id
    return ConsumeRequest(
        group[0][1].tenant_id,
        tuple([each.item for _, each in group]),
        OperationId(f"{made}.{number}") if number else made,
        CONTEXT,
    )


def _blamed(
    heard: Decided | TallygateError, found: Sequence[tuple[RateStatus, str]]
) -> Sequence[tuple[RateStatus, str]]:
    """Return the statuses of a charge, all of them over where it was refused by none of theirs.

    A limit on a meter that weighs others refuses what none of the descriptors names.
    """
    if isinstance(heard, TallygateError) or heard.allowed:
        return found
    if any(outcome in ("over_limit", "shadowed") for _, outcome in found):
        return found
    return [(replace(status, over=True), "over_limit") for status, _ in found]


def _joined(
    answer: RateAnswer,
    request: ConsumeRequest,
    heard: Decided | TallygateError,
    *,
    shadow: bool,
) -> RateAnswer:
    """Return the answer with what came of one more charge."""
    tenants = answer.tenants
    if request.tenant_id not in tenants:
        tenants = (*tenants, request.tenant_id)
    if isinstance(heard, TallygateError):
        if shadow:
            return replace(answer, tenants=tenants)
        return replace(
            answer,
            over=True,
            tenants=tenants,
            reason=answer.reason or heard.reason,
            retry_after_us=_longer(answer, heard.retry_after_us),
        )
    over = not heard.allowed and not shadow
    readings = answer.readings + tuple((heard.at_us, each) for each in heard.readings)
    return replace(
        answer,
        over=answer.over or over,
        readings=readings,
        refused_by=answer.refused_by or (heard.refused_by or "" if over else ""),
        retry_after_us=_longer(answer, heard.retry_after_us) if over else answer.retry_after_us,
        tenants=tenants,
        degraded=answer.degraded or heard.degraded,
    )


def _longer(answer: RateAnswer, retry_after_us: int | None) -> int | None:
    """Return when the call may pass: when all that refuse it let it, None if one never does."""
    if not answer.over:
        return retry_after_us
    if answer.retry_after_us is None or retry_after_us is None:
        return None
    return max(answer.retry_after_us, retry_after_us)
