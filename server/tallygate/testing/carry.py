"""A carrier in memory, between the shards of a quota store in memory.

Guarantees: passes the same contract tests as the carrier in Redis.
Refuses to know: families and catalogs.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

from tallygate.domain.account import Accounts
from tallygate.domain.errors import BackendUnavailable
from tallygate.domain.ids import TenantId, tenant_of
from tallygate.ports.carry import Move
from tallygate.testing.quota import FakeQuotaStore


class FakeCounterCarrier:
    """The `CounterCarrier` port over the accounts of a `FakeQuotaStore`."""

    def __init__(self, store: FakeQuotaStore) -> None:
        self._store = store
        # By shard and tenant, the version of the last move.
        self._marks: dict[tuple[int, TenantId], int] = {}

    async def carry(self, moves: Sequence[Move], version: int) -> int:
        """Carry what belongs to the tenants; return how many things were written."""
        if not all(self._shard(each).open for move in moves for each in _shards(move)):
            raise BackendUnavailable("a shard's counters are being rebuilt")
        written = 0
        target = {move.tenant_id: move.to_shard for move in moves}
        for move in moves:
            if self._advance(move.from_shard, move.tenant_id, version):
                self._shard(move.from_shard).moved.add(move.tenant_id)
            if self._advance(move.to_shard, move.tenant_id, version):
                written += self._copy(move, target)
                self._shard(move.to_shard).moved.discard(move.tenant_id)
        return written

    def _advance(self, shard: int, tenant_id: TenantId, version: int) -> bool:
        newer = self._marks.get((shard, tenant_id), 0) < version
        if newer:
            self._marks[shard, tenant_id] = version
        return newer

    def _shard(self, shard: int) -> Accounts:
        return self._store.shard(shard)

    def _copy(self, move: Move, target: dict[TenantId, int]) -> int:
        tenant_id = move.tenant_id
        old, new = self._shard(move.from_shard), self._shard(move.to_shard)
        accounts = {of: each for of, each in old.accounts.items() if tenant_of(of) == tenant_id}
        records = {key: each for key, each in old.operations.items() if key[0] == tenant_id}
        refunded = {key: each for key, each in old.refunded.items() if key[0] == tenant_id}
        held = {key: each for key, each in old.reservations.items() if key[0] == tenant_id}
        new.accounts |= deepcopy(accounts)
        new.operations |= records
        new.refunded |= refunded
        for key, kept in held.items():
            shares = tuple(
                share
                for share in kept.reservation.shares
                if target.get(tenant_of(share.account)) == move.to_shard
            )
            left = replace(kept.reservation, shares=shares)
            new.reservations[key] = replace(kept, reservation=left)
        for account in accounts.values():
            account.holds.clear()
        return len(accounts) + len(records) + len(refunded) + len(held)


def _shards(move: Move) -> tuple[int, int]:
    return move.from_shard, move.to_shard
