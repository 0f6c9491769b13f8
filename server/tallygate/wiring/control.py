"""What a control process consists of: the admin service and the loops beside it.

Guarantees: the loops here can run in several processes at once; what one has done, another finds
done.
Refuses to know: who runs the loops, and where the service listens.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from redis.asyncio import Redis

from tallygate.adapters.catalog.document import YamlCatalogDocuments
from tallygate.adapters.clock import SystemClock
from tallygate.adapters.log import redact_value
from tallygate.adapters.postgres.catalog_store import PostgresCatalogStore
from tallygate.adapters.postgres.credit_ledger import PostgresCreditLedger, PostgresResetAudit
from tallygate.adapters.postgres.group_remake import PostgresRollups
from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.trail import PostgresTrailLog
from tallygate.adapters.postgres.usage_reader import PostgresUsageReader
from tallygate.adapters.prometheus.credits import CreditMetrics
from tallygate.adapters.prometheus.metrics import Metrics
from tallygate.adapters.prometheus.rollups import RollupMetrics
from tallygate.adapters.redis.carrier import RedisCounterCarrier
from tallygate.adapters.redis.catalog_publisher import RedisCatalogPublisher
from tallygate.adapters.redis.epochs import RedisCounterEpochs, RedisCounterStages
from tallygate.adapters.redis.stream import RedisUsageStream, StreamOptions
from tallygate.api.admin import AdminParts, AdminServicer
from tallygate.api.audited import AuditedRegistry
from tallygate.api.server import Register
from tallygate.flow.apply import Apply
from tallygate.flow.carry import Carry
from tallygate.flow.credit import CreditParts, ExpireCredits, PublishCredits
from tallygate.flow.grant import Granting
from tallygate.flow.loop import Counts, Loop, LoopObserver, LoopOptions
from tallygate.flow.loop import Step as LoopStep
from tallygate.flow.publish import Publish
from tallygate.flow.remake import KeepRollups
from tallygate.flow.reset import ResetParts, Resetting
from tallygate.flow.trail import Trail
from tallygate.gen.v1 import admin_pb2_grpc
from tallygate.ports import QuotaStore
from tallygate.wiring.access import door_of
from tallygate.wiring.events import prepare_events
from tallygate.wiring.figures import start_figures
from tallygate.wiring.host import Host, Running
from tallygate.wiring.insight import start_insight
from tallygate.wiring.invoicing import invoicing_of, start_issuing
from tallygate.wiring.periods import PeriodPace, closing_of, orders_of, pace_of
from tallygate.wiring.reconciling import start_reconciling
from tallygate.wiring.roles import ADMIN
from tallygate.wiring.steps import Step
from tallygate.wiring.store import open_store
from tallygate.wiring.usage import windows_of

PUBLISH_MS: Final = 250
# A grant can be used this long after it was made, at the latest, where nothing is amiss.
CREDITS_MS: Final = 250
# Expiries are posted a day late by design; a minute more is nothing.
EXPIRE_MS: Final = 60_000
# A new shape has no events until then; what is read meanwhile says so.
REMAKE_MS: Final = 1_000
# A period that somebody closes by hand is closed while he waits.
PERIODS_MS: Final = 1_000


@dataclass(frozen=True, slots=True)
class ControlBackends:
    """The connections that a control process works with."""

    postgres: Postgres
    redis: Redis
    counters: QuotaStore
    shards: int
    # Whether counters that are new, or were lost, are decided by at once.
    opens_new: bool = False
    periods: PeriodPace = field(default_factory=PeriodPace)


@dataclass(frozen=True, slots=True)
class Control:
    """The admin service, and the loops beside it."""

    servicer: AdminServicer
    loops: tuple[Loop, ...]


async def prepare_control(host: Host, running: Running) -> Callable[[], Awaitable[None]]:
    """Put the control plane together; return what has it listen."""
    settings, metrics = host.settings, host.metrics
    client = host.redis(settings.redis_timeout_ms)
    store = await open_store(settings, client, metrics)
    opens_new = settings.counter_rebuild == "none"
    backends = ControlBackends(
        host.postgres(), client, store, settings.shards, opens_new, pace_of(settings)
    )
    control = control_of(backends, metrics, host.observer)
    for loop in control.loops:
        host.spawn(loop)
    trail = Trail(PostgresTrailLog(backends.postgres), metrics.trail)
    # Before the connections, and after the server whose calls it records.
    host.stack.push_async_callback(trail.close)
    start_insight(host)
    start_reconciling(host)
    start_issuing(host, trail)
    start_figures(host)
    door = door_of(host)
    services: dict[str, Register] = {
        ADMIN: lambda registry: admin_pb2_grpc.add_AdminServiceServicer_to_server(
            control.servicer,
            AuditedRegistry(registry, trail, redact_value, door),  # type: ignore[arg-type]
        )
    }

    events = await prepare_events(host, running, door)

    async def start() -> None:
        running.control_addresses = await host.listen((settings.control_address,), services)
        if events is not None:
            await events()

    return start


def control_of(backends: ControlBackends, metrics: Metrics, observer: LoopObserver) -> Control:
    """Return a process's control on these connections."""
    clock = SystemClock()
    catalogs = PostgresCatalogStore(backends.postgres)
    credit = PostgresCreditLedger(backends.postgres)
    shards = backends.shards

    def loop(name: str, step: LoopStep[Counts], idle_ms: int) -> Loop:
        return Loop(name, step, clock, observer, LoopOptions(idle_ms=idle_ms))

    publisher = RedisCatalogPublisher(backends.redis)
    carrier = RedisCounterCarrier(backends.redis, opens_new=backends.opens_new)
    carry = Carry(catalogs, publisher, carrier, shards)
    publish = Publish(catalogs, publisher, clock, carry)
    credits_ = PublishCredits(
        CreditParts(
            ledger=credit,
            store=backends.counters,
            # It only asks how much of the streams is left, and consumes nothing.
            stream=RedisUsageStream(backends.redis, StreamOptions(shards, consumer="credits")),
            epochs=RedisCounterEpochs(backends.redis, shards),
            catalogs=catalogs,
            clock=clock,
            shards=shards,
            published=publisher,
            observer=CreditMetrics(metrics),
            stages=None if backends.opens_new else RedisCounterStages(backends.redis, shards),
        )
    )
    audit = PostgresResetAudit(backends.postgres)
    resetting = Resetting(ResetParts(backends.counters, audit, catalogs, clock, shards, publisher))
    rollups = PostgresRollups(backends.postgres)
    keep = KeepRollups(rollups, catalogs, clock, RollupMetrics(metrics))
    closing = closing_of(backends.postgres, backends.redis, shards, metrics, backends.periods)
    return Control(
        servicer=AdminServicer(
            AdminParts(
                apply=Apply(catalogs, YamlCatalogDocuments(), clock),
                store=catalogs,
                usage=PostgresUsageReader(backends.postgres),
                windows=windows_of(backends.postgres, catalogs, clock),
                granting=Granting(credit, catalogs, clock),
                resetting=resetting,
                periods=orders_of(backends.postgres, backends.periods),
                invoicing=invoicing_of(backends.postgres),
            )
        ),
        loops=(
            loop("publish", Step(publish.run_once), PUBLISH_MS),
            loop("credits", credits_, CREDITS_MS),
            loop("credit_expiry", ExpireCredits(credit, clock), EXPIRE_MS),
            loop("rollups", keep, REMAKE_MS),
            *((loop("periods", closing, PERIODS_MS),) if backends.periods.closing else ()),
        ),
    )
