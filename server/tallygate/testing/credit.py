"""A credit ledger, a reset audit and counters' epochs in memory.

Guarantees: they pass the same contract tests as those in Postgres and Redis; burns are read from a
`FakeLedger`, so that both see the same books.
Refuses to know: messages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tallygate.domain.credit import (
    LIVE_GRANTS_MAX,
    CreditGrant,
    GrantAsked,
    LimitReset,
    burn_down_order,
)
from tallygate.domain.errors import (
    BackendUnavailable,
    CounterOverflow,
    OperationIdReused,
    TooManyItems,
)
from tallygate.domain.event import BalanceBurn
from tallygate.domain.ids import AMOUNT_MAX, LimitId, OperationId, TenantId
from tallygate.ports.credit import BalanceState, CreditQuery
from tallygate.testing.ledger import FakeLedger

_Key = tuple[TenantId, LimitId]


@dataclass(slots=True)
class _Posted:
    """Units that went from a grant to `expired`."""

    key: _Key
    seq: int
    units: int


class FakeCreditLedger:
    """The `CreditLedger` port. Set `down` to have no call answered."""

    def __init__(self, ledger: FakeLedger) -> None:
        self._ledger = ledger
        self._grants: dict[_Key, list[CreditGrant]] = {}
        self._states: dict[_Key, BalanceState] = {}
        self._expired: list[_Posted] = []
        self.down = False

    async def grant(
        self, asked: GrantAsked, overdraft: int, now_us: int
    ) -> tuple[CreditGrant, bool]:
        """Make a grant, or return it as it was made before. See the port."""
        self._answer()
        key = (asked.tenant_id, asked.limit_id)
        made = self._grants.setdefault(key, [])
        for grant in made:
            if grant.grant_id == asked.grant_id:
                if not grant.is_what(asked):
                    raise OperationIdReused(field="grant_id")
                return self._current(grant), True
        self._check_room(made, asked, overdraft, now_us)
        new = CreditGrant(
            tenant_id=asked.tenant_id,
            limit_id=asked.limit_id,
            grant_id=asked.grant_id,
            seq=self._state(key).last_seq + 1,
            amount=asked.amount,
            remaining=asked.amount,
            priority=asked.priority,
            starts_us=asked.starts_us or now_us,
            expires_us=asked.expires_us,
            created_at_us=now_us,
            reason=asked.reason,
            actor=asked.actor,
        )
        made.append(new)
        self._states[key] = replace(self._state(key), last_seq=new.seq)
        return new, False

    async def grants(self, query: CreditQuery) -> list[CreditGrant]:
        """Return a tenant's grants in burn-down order, at most `query.limit`."""
        self._answer()
        found = [
            self._current(grant)
            for (tenant_id, limit_id), made in self._grants.items()
            if tenant_id == query.tenant_id and query.limit_id in (None, limit_id)
            for grant in made
            if query.after is None or burn_down_order(grant) > query.after
        ]
        return sorted(found, key=burn_down_order)[: query.limit]

    async def balances(
        self, after: tuple[str, str], count: int, *, unpublished: bool
    ) -> list[BalanceState]:
        """Return up to `count` balances by tenant and limit: all, or those not given whole."""
        self._answer()
        used = {(burn.tenant_id, burn.limit_id) for burn in self._ledger.burns.values()}
        states = [self._state(key) for key in sorted({*self._states, *used}) if key > after]
        wanted = [
            state
            for state in states
            if not unpublished or state.published_seq < state.last_seq or not state.published_epoch
        ]
        return wanted[:count]

    async def live(
        self, tenant_id: TenantId, limit_id: LimitId, now_us: int
    ) -> Sequence[CreditGrant]:
        """Return up to 64 grants that have units left and no past expiry, by number."""
        self._answer()
        made = [self._current(grant) for grant in self._grants.get((tenant_id, limit_id), ())]
        return [grant for grant in made if grant.remaining > 0 and grant.expires_us > now_us][
            :LIVE_GRANTS_MAX
        ]

    async def owed(self, tenant_id: TenantId, limit_id: LimitId, epoch: str) -> int:
        """Return the overdraft in use but for what was used up in that epoch."""
        self._answer()
        burns = self._burns((tenant_id, limit_id), 0)
        return max(0, sum(burn.amount for burn in burns if burn.counter_epoch != epoch))

    async def open(self, tenant_id: TenantId, limit_id: LimitId) -> int:
        """Return a balance's newest number; number 1 is left out where there is no grant yet."""
        self._answer()
        state = self._state((tenant_id, limit_id))
        seq = max(1, state.last_seq)
        self._states[tenant_id, limit_id] = replace(state, last_seq=seq)
        return seq

    async def published(self, state: BalanceState) -> None:
        """Mark what counters have been given; a mark of the same epoch never goes back."""
        self._answer()
        key = (state.tenant_id, state.limit_id)
        known = self._state(key)
        same = known.published_epoch == state.published_epoch
        if same and known.published_seq > state.published_seq:
            return
        self._states[key] = replace(state, last_seq=known.last_seq)

    async def expire(self, expired_before_us: int, count: int, now_us: int) -> int:
        """Post what is left of up to `count` grants that expired by then; return how many."""
        self._answer()
        due = [
            grant
            for key in sorted(self._grants)
            for grant in map(self._current, self._grants[key])
            if grant.expires_us <= expired_before_us and grant.remaining
        ][:count]
        for grant in due:
            key = (grant.tenant_id, grant.limit_id)
            self._expired.append(_Posted(key, grant.seq, grant.remaining))
        return len(due)

    def _state(self, key: _Key) -> BalanceState:
        return self._states.get(key) or BalanceState(*key, last_seq=0)

    def _burns(self, key: _Key, place: int) -> list[BalanceBurn]:
        return [
            burn
            for burn in self._ledger.burns.values()
            if (burn.tenant_id, burn.limit_id) == key and burn.grant_seq == place
        ]

    def _current(self, grant: CreditGrant) -> CreditGrant:
        key = (grant.tenant_id, grant.limit_id)
        burnt = sum(burn.amount for burn in self._burns(key, grant.seq))
        lost = sum(
            each.units for each in self._expired if each.key == key and each.seq == grant.seq
        )
        return replace(grant, remaining=grant.amount - burnt - lost)

    def _check_room(
        self, made: Sequence[CreditGrant], asked: GrantAsked, overdraft: int, now_us: int
    ) -> None:
        valid = [self._current(grant) for grant in made if grant.expires_us > now_us]
        kept = sorted(valid, key=lambda grant: (grant.remaining <= 0, -grant.seq))
        if sum(grant.remaining > 0 for grant in kept) >= LIVE_GRANTS_MAX:
            raise TooManyItems(field="limit_id")
        units = sum(grant.amount for grant in kept[:LIVE_GRANTS_MAX])
        if units + asked.amount + overdraft > AMOUNT_MAX:
            raise CounterOverflow(field="amount")

    def _answer(self) -> None:
        if self.down:
            raise BackendUnavailable


@dataclass(slots=True)
class FakeResetAudit:
    """The `ResetAudit` port. Set `down` to have no call answered."""

    resets: dict[tuple[str, str], LimitReset] = field(default_factory=dict)
    down: bool = False

    async def find(self, tenant_id: TenantId, operation_id: OperationId) -> LimitReset | None:
        """Return the reset that an operation made, None when there is none."""
        self._answer()
        return self.resets.get((tenant_id, operation_id))

    async def write(self, reset: LimitReset) -> LimitReset:
        """Write a reset; return it, or what another call wrote under its operation before."""
        self._answer()
        return self.resets.setdefault((reset.tenant_id, reset.operation_id), reset)

    def _answer(self) -> None:
        if self.down:
            raise BackendUnavailable


@dataclass(slots=True)
class FakeCounterEpochs:
    """The `CounterEpochs` port; a test sets what it answers."""

    found: dict[int, str] = field(default_factory=dict)
    lives: int = 1

    async def life(self) -> str:
        """Return the number of the server's life."""
        return str(self.lives)

    async def epochs(self) -> Mapping[int, str]:
        """Return the epoch by shard."""
        return dict(self.found)
