"""credit ledger ─▶ [ recredit ] ─▶ Redis: lost balances have their grants before use is handed in.

If we die here, the shard is not told what the ledger has seen, and whoever rebuilds it next gives
its balances their grants again, in another epoch.

Guarantees: when journals hand in what a loss took, it is taken from the grants that it was taken
from before, and not from nothing. A balance that another shard had is left to flow/credit.py.
Refuses to know: SQL, Lua, and how other counters are made anew.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace

from tallygate.domain.catalog import Catalog
from tallygate.domain.decision import Operation
from tallygate.domain.ids import shard_of
from tallygate.flow.credit import BALANCES_MAX, balance_of, due_of
from tallygate.flow.family import members
from tallygate.ports.credit import BalanceState, CreditLedger
from tallygate.ports.rebuild import Declared


@dataclass(frozen=True, slots=True)
class Recredit:
    """What the balances of shards whose counters were lost are to be given."""

    ledger: CreditLedger
    declared: Declared
    shards: int

    async def operations(
        self, epochs: Mapping[int, str], catalog: Catalog, now_us: int
    ) -> AsyncIterator[list[Operation]]:
        """Yield page by page what gives the balances of these shards, by epoch, all they have.

        Ask when the ledger has closed all epochs but these: what it has posted since is then in
        what is left. Raises what the ledger raises.
        """
        after = ("", "")
        while True:
            page = await self.ledger.balances(after, BALANCES_MAX, unpublished=False)
            found = await members(self.declared, catalog, sorted({each.tenant_id for each in page}))
            operations: list[Operation] = []
            for state in page:
                member = found.get(state.tenant_id)
                limit = balance_of(catalog, member, state.limit_id, now_us)
                if member is None or limit is None:
                    continue
                shard = shard_of(member.root, self.shards)
                if shard not in epochs or _elsewhere(state, shard):
                    continue
                mark = replace(state, published_shard=shard, published_epoch=epochs[shard])
                due = await due_of(self.ledger, mark, (member, limit), now_us, known=False)
                if due.operation is not None:
                    operations.append(replace(due.operation, epoch=epochs[shard]))
            if operations:
                yield operations
            if len(page) < BALANCES_MAX:
                return
            after = (page[-1].tenant_id, page[-1].limit_id)


def _elsewhere(state: BalanceState, shard: int) -> bool:
    """Say whether other counters had the balance, of which something may be under way still."""
    return bool(state.published_epoch) and state.published_shard != shard
