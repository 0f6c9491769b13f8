"""What carries out the repairs of a reconciliation.

Guarantees: nothing that is lent outlives its `async with`.
Refuses to know: what is to be repaired.
"""

from tallygate.adapters.postgres.audit import PostgresLedgerAudit
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.counter_dues import PostgresCounterDues
from tallygate.adapters.postgres.group_remake import PostgresRollups
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.replays import PostgresMessageReplay, PostgresRollupRecompute
from tallygate.adapters.postgres.stripe_intents import PostgresStripeIntents
from tallygate.adapters.postgres.stripe_sends import PostgresStripeSends
from tallygate.domain.reconcile import Step
from tallygate.flow.reconcile_repair import DeliveredRepair, Repairs, RollupRepair
from tallygate.flow.reconcile_repair_counter import CounterRepair
from tallygate.flow.reconcile_repair_money import IntentRepair, MoneyParts, SendRepair
from tallygate.flow.remake import KeepRollups
from tallygate.ports import Clock


class SilentPlanning:
    """Hears what was planned, and tells nobody."""

    def planned(self, destination: str, kind: str, count: int) -> None:
        """Ignore it."""


def repairs_of(postgres: Postgres, clock: Clock, shards: int) -> Repairs:
    """Return what carries out repairs in an installation."""
    catalogs, sends = PostgresCatalogStore(postgres), PostgresStripeSends(postgres)
    money = MoneyParts(PostgresStripeIntents(postgres), sends, catalogs, clock, SilentPlanning())
    return Repairs(
        {
            Step.COUNTER: CounterRepair(PostgresCounterDues(postgres, shards), catalogs, clock),
            Step.ROLLUP: RollupRepair(
                (PostgresRollupRecompute(postgres),),
                KeepRollups(PostgresRollups(postgres), catalogs, clock),
                PostgresLedgerAudit(postgres),
            ),
            Step.DELIVERED: DeliveredRepair(PostgresMessageReplay(postgres)),
            Step.INTENTS: IntentRepair(money),
            Step.SENT: SendRepair(money),
            Step.STRIPE: SendRepair(money),
        }
    )
