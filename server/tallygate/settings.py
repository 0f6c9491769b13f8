"""The one settings object: frozen, every number with its unit and its reason.

Guarantees: a `Settings` that exists is valid; its repr and dumps show no password.
Refuses to know where values come from (see `settings_sources`) and who uses them.
"""

from decimal import Decimal
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from tallygate.domain.retention import EVENT_MONTHS_MIN
from tallygate.settings_access import AccessSettings
from tallygate.settings_capture import CaptureSettings
from tallygate.settings_envoy import EnvoySettings
from tallygate.settings_injector import InjectorSettings
from tallygate.settings_tls import TlsSettings
from tallygate.settings_tracing import TracingSettings
from tallygate.settings_types import Address, Addresses, PostgresDsn, RedisUrl
from tallygate.settings_watch import WatchSettings

MIB = 1024 * 1024


class Settings(
    AccessSettings,
    EnvoySettings,
    CaptureSettings,
    InjectorSettings,
    TlsSettings,
    TracingSettings,
    WatchSettings,
):
    """Everything that an operator may set. Each field is also `TALLYGATE_` and its name."""

    grpc_address: Addresses = ("127.0.0.1:50051",)
    """Where the data plane listens; several, comma-separated: `unix:/path,127.0.0.1:50051`."""

    processes: int = Field(default=1, ge=1, le=64)
    """How many processes of `serve` listen together on a TCP address, about one per core. Each has
    its own share of the clients' connections, and what other settings bound holds for each."""

    transport: Literal["auto", "grpcio", "native"] = "auto"
    """What carries gRPC calls: `native` (HTTP/2 in Rust, several times the calls per second),
    `grpcio`, or `auto`: native where it is installed and able to do all that is set, else grpcio.
    What native cannot do is refused at start when it is asked for by name."""

    ops_address: Address = "127.0.0.1:9464"
    """Where health, metrics and reflection listen; a listener of its own, out of overload's way."""

    control_address: Address = "127.0.0.1:50052"
    """Where the admin service listens."""

    redis_url: RedisUrl | None = None
    """The Redis that counts: `redis://`, `rediss://`, `unix://`, or of a cluster
    `redis+cluster://` or `rediss+cluster://`. `dev` starts its own without."""

    postgres_dsn: PostgresDsn | None = None
    """The Postgres that holds the ledger. `dev` starts its own without."""

    data_dir: Path = Path(".tallygate")
    """Where this installation keeps its files: the journal, the source's id, embedded servers.
    Each sidecar needs a folder of its own, which outlives its container."""

    catalog: Path | None = None
    """A catalog file to serve from, without Postgres."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severity that is logged."""

    log_format: Literal["json", "console"] = "json"
    """JSON lines for machines, or coloured lines for people."""

    shards: int = Field(default=16, ge=1, le=256)
    """Virtual shards, each one stream; fixed at first start. 16 spread over any likely cluster."""

    operation_ttl_s: int = Field(default=15 * 60, ge=60, le=24 * 3600)
    """How long Redis answers a repeated operation id: beyond any client's retries, and the
    largest consumer of Redis memory: some 500 bytes each, 450 MB at 1,000 calls per second."""

    counter_rebuild: Literal["ledger", "none"] = "ledger"
    """What becomes of counters that Redis has lost. With `ledger`, hard limits are decided by
    their `on_outage` rules until an ingester has rebuilt the counters. With `none`, for a sidecar
    without a ledger, they begin at 0 at once."""

    redis_timeout_ms: int = Field(default=500, ge=1, le=60_000)
    """For one pipeline's answer: a hundred times its usual time, half the default deadline."""

    postgres_connect_timeout_ms: int = Field(default=5_000, ge=1, le=120_000)
    """For a connection to Postgres: starting a backend and TLS take tens of milliseconds."""

    postgres_statement_timeout_ms: int = Field(default=30_000, ge=100, le=600_000)
    """For one statement; a batch of 1,000 events takes 20 ms, a waiting lock the rest."""

    postgres_pool_max: int = Field(default=8, ge=2, le=100)
    """Connections per process; a hundred processes then stay below a usual max_connections."""

    stream_entries_max: int = Field(default=500_000, ge=1, le=100_000_000)
    """Entries of a shard's stream that may wait for the ledger: some hundred bytes each at low
    load, and many calls' events at high load. At the bound nothing is added: limits follow their
    `on_outage` rules, and `RecordUsage` goes into the journal. Only with a ledger."""

    admit_queue_max: int = Field(default=4_096, ge=1, le=1_000_000)
    """Calls that may wait for a decision: about a second's worth; one more is refused at once."""

    admit_batch_max: int = Field(default=128, ge=1, le=1_000)
    """Operations in one pipeline: past 128 the pipeline's own time grows, not its yield."""

    breaker_hang_ms: int = Field(default=250, ge=5, le=60_000)
    """How long a decision waits for Redis before the limits' `on_outage` rules decide: a quarter
    of the default deadline, a hundred times Redis' usual answer."""

    breaker_failures_max: int = Field(default=3, ge=1, le=1_000)
    """Failed pipelines in a row after which Redis is not asked any more but by probes."""

    journal: Literal["on", "off"] = "on"
    """Whether the sidecar keeps on its own disk what the ledger has not confirmed. `off` is for a
    Redis without a ledger, as nothing would ever be confirmed, or for a disk that is lost with the
    process."""

    journal_max_bytes: int = Field(default=1024 * MIB, ge=16 * MIB, le=1024 * 1024 * MIB)
    """Size of the journal on disk: about five million events, an hour without ledger or Redis at
    1,000 a second. Beyond, nothing is entered, and replies say `REDIS`."""

    outage_backlog_max: int = Field(default=50_000, ge=0, le=10_000_000)
    """Operations granted without Redis that are held in memory: ten seconds at 5,000 a second.
    With a journal, more of `RecordUsage` is held on the disk alone; else one more is refused.
    With 0 nothing is granted without Redis."""

    outage_backlog_max_bytes: int = Field(default=128 * MIB, ge=0, le=16 * 1024 * MIB)
    """Memory for the same: room for 50,000 operations of two limits each."""

    outage_records: Literal["accept", "refuse"] = "refuse"
    """Without a journal: whether `RecordUsage`, and calls of which no limit says what to do, are
    accepted into memory while Redis is away, where a crash loses them. `refuse` lets callers keep
    what they have, as UNAVAILABLE asks of them. With a journal they are accepted into that."""

    leases: Literal["off", "on"] = "off"
    """Whether hot calls are granted from units that the sidecar has leased. What is granted so is
    in the journal until it is settled; without one, a crash loses up to `lease_unsettled_max` calls
    of a kind."""

    lease_hot_per_s: int = Field(default=50, ge=1, le=1_000_000)
    """Calls per second of one kind from which it is leased for: below, a lease saves no work."""

    lease_ttl_ms: int = Field(default=2_000, ge=200, le=60_000)
    """How long Redis keeps a lease whose sidecar has died; half of it is for use, half to settle
    in: four times as long as a decision waits for Redis."""

    lease_unsettled_max: int = Field(default=4_096, ge=1, le=100_000)
    """Calls of one kind granted and not yet settled; one more is decided by Redis. A crash loses
    no more than these, without a journal. They are settled about every 20 ms: enough for 100,000 a
    second."""

    lease_grants_known_max: int = Field(default=20_000, ge=1_000, le=1_000_000)
    """Grants of which a repeat is answered at once: four seconds' worth at 5,000 a second. Later
    repeats are found when they are settled."""

    message_max_bytes: int = Field(default=4 * MIB, ge=1024, le=64 * MIB)
    """The largest message in or out: gRPC's own default, and far above 1,000 items."""

    metadata_max_bytes: int = Field(default=16 * 1024, ge=4096, le=MIB)
    """The largest set of headers, against header floods."""

    streams_max: int = Field(default=128, ge=1, le=100_000)
    """Calls at once on one connection; more wait in its client. Another connection's call waits
    for these: 128 keep a pipeline full, and 1,000 would only wait longer."""

    calls_max: int = Field(default=8_192, ge=1, le=1_000_000)
    """Calls at once, over all connections: a full queue, and as many that are on their way in or
    out. One more is refused before its message is read. Some 20 KB of memory each."""

    calls_max_bytes: int = Field(default=64 * MIB, ge=MIB, le=4 * 1024 * MIB)
    """Bytes of requests inside at once: what they become in memory is several times that."""

    connection_age_ms: int = Field(default=0, ge=0, le=7 * 86_400_000)
    """After this long a connection is closed once its calls have ended, so that clients of several
    sidecars spread anew; 0 for never, as one app's connection to its sidecar needs no other."""

    connection_idle_ms: int = Field(default=600_000, ge=1_000, le=7 * 86_400_000)
    """A connection without calls for this long is closed; its client opens another when it asks."""

    watches_max: int = Field(default=1_000, ge=0, le=100_000)
    """Watches at once, over all connections; more of them on one question cost little."""

    watched_questions_max: int = Field(default=250, ge=0, le=10_000)
    """Distinct questions of watches: each costs up to 0.25 ms of a core, some eight times a second,
    so that these keep to their 250 ms and leave the rest to decisions."""

    watch_stale_ms: int = Field(default=5_000, ge=100, le=600_000)
    """How long a watch stays open while nothing can be read: beyond a failover of Redis, and as
    long as anybody should be shown what may have changed."""

    default_deadline_ms: int = Field(default=1_000, ge=1, le=60_000)
    """For calls that come without a deadline: nobody waits longer for permission."""

    drain_grace_ms: int = Field(default=10_000, ge=0, le=600_000)
    """For calls in flight at shutdown: a third of Kubernetes' 30 s, as the app goes first."""

    loop_stall_ms: int = Field(default=10_000, ge=100, le=600_000)
    """Without a heartbeat for this long, `/livez` fails: only a restart cures a stalled loop."""

    catalog_poll_ms: int = Field(default=500, ge=10, le=60_000)
    """Between looks for a new catalog, so that a change is taken over within a second."""

    ingest_batch_max: int = Field(default=1_000, ge=1, le=10_000)
    """Events in one ledger transaction: the knee of measured throughput is at 500 to 1,000."""

    ingest_block_ms: int = Field(default=200, ge=1, le=10_000)
    """How long a read waits for events; also how soon an ingester sees that it shall stop."""

    ingest_claim_idle_ms: int = Field(default=60_000, ge=100, le=3_600_000)
    """When another ingester takes over unacknowledged events; must exceed the longest batch."""

    period_closing: bool = True
    """Whether control closes billing periods. Off while ingesters of an older version run."""

    period_grace_s: int = Field(default=172_800, ge=0, le=31_622_400)
    """How long usage is waited for after a billing period: 48 h, a weekend without its journals."""

    period_correction_delay_s: int = Field(default=3_600, ge=0, le=2_678_400)
    """How long late events are gathered before a period that they correct is closed again."""

    invoice_issuing: bool = True
    """Whether control issues the invoices of periods as they are closed. What is closed while it is
    off is issued once it is on."""

    invoice_hold_on_drift: bool = True
    """Whether a closed period is reconciled first, and not invoiced while its rollups or frozen
    totals drift."""

    relay_claim_max: int = Field(default=100, ge=1, le=1_000)
    """Outbox messages claimed at once: what one relay sends well within its lease."""

    relay_poll_ms: int = Field(default=500, ge=10, le=60_000)
    """Between looks at an empty outbox."""

    relay_lease_ms: int = Field(default=60_000, ge=1_000, le=3_600_000)
    """How long a claim holds; must exceed the time to send what was claimed."""

    relay_send_timeout_ms: int = Field(default=10_000, ge=100, le=120_000)
    """For one delivery: slow receivers answer in seconds, dead ones never."""

    relay_attempts_max: int = Field(default=20, ge=1, le=1_000)
    """Attempts before a message is parked: with the backoff below, about half a day."""

    relay_backoff_ms: int = Field(default=1_000, ge=1, le=600_000)
    """The first wait after a failed delivery; each further one doubles, with jitter."""

    relay_backoff_max_ms: int = Field(default=3_600_000, ge=1_000, le=86_400_000)
    """The longest wait between two attempts."""

    retention_event_months: int = Field(default=0, ge=0, le=1_200)
    """Whole months for which events are kept before `tallygate retention apply` may drop them, from
    14: longer than any limit's window. 0 for ever. Keys and rollups are kept for ever."""

    retention_message_days: int = Field(default=0, ge=0, le=3_660)
    """Days for which delivered messages are kept before the same command prunes them; 0 for
    ever."""

    anomalies: Literal["on", "off"] = "on"
    """Whether control looks for hours of usage that are not as the weeks before have them."""

    anomaly_sensitivity: Decimal = Field(default=Decimal(4), gt=0, le=1_000)
    """How many deviations from what is expected are usual: of noise, four leave out all but one
    hour in ten thousand."""

    anomaly_events_min: int = Field(default=100, ge=0, le=1_000_000_000)
    """In hours with fewer events, had and expected, nothing is an anomaly: of a hundred, ten more
    or less are chance."""

    reconcile: Literal["daily", "off"] = "daily"
    """Whether control reconciles the current and the last billing period of every tenant, each
    day."""

    reconcile_stripe: int = Field(default=0, ge=0, le=1_000_000)
    """How many sums the daily run asks Stripe for, at most: one for each customer, meter and
    period. Stripe allows 10,000 reads a month, or 500 for each payment: 300 a day are within that.
    Control then needs the accounts' keys; 0 asks for none."""

    stripe_reports_address: Address | None = None
    """Where a relay takes Stripe's reports of errors, over plain HTTP behind what ends TLS; unset,
    it takes none."""

    stripe_plan_ms: int = Field(default=60_000, ge=100, le=3_600_000)
    """Between looks for usage that Stripe is not to be told of yet: short beside the 10 min after
    which a window counts as settled."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take only what is given: `Settings()` in a test must not depend on the machine."""
        # Asked for by name by the library; their values belong to `settings_sources`.
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    def shown(self) -> dict[str, str]:
        """Return every setting as text that may be printed."""
        return {
            name: ",".join(value) if isinstance(value, tuple) else str(value)
            for name, value in self
            if value is not None
        }

    @model_validator(mode="after")
    def check_together(self) -> Self:
        """Refuse values that are each right and wrong together."""
        on_unix = [each.startswith("unix:") for each in (*self.grpc_address, *self.envoy_address)]
        if self.processes > 1 and any(on_unix):
            raise ValueError(
                "processes above 1 need TCP in grpc_address: a Unix socket has one listener, and"
                " nothing divides its connections"
            )
        on_tcp = not all(on_unix)
        if self.tls_identities is not None and on_tcp and self.tls_client_ca_file is None:
            raise ValueError(
                "tls_identities needs tls_client_ca_file, or Unix sockets alone in grpc_address:"
                " over TCP nobody proves otherwise who he is"
            )
        if 0 < self.retention_event_months < EVENT_MONTHS_MIN:
            raise ValueError(
                f"retention_event_months must be 0, for ever, or at least {EVENT_MONTHS_MIN}:"
                " counters are made anew of events"
            )
        if self.ingest_claim_idle_ms <= self.postgres_statement_timeout_ms:
            raise ValueError(
                "ingest_claim_idle_ms must exceed postgres_statement_timeout_ms, or a slow batch"
                " is taken over while it is being written"
            )
        if self.relay_lease_ms <= self.relay_send_timeout_ms:
            raise ValueError(
                "relay_lease_ms must exceed relay_send_timeout_ms, or a slow delivery is sent twice"
            )
        return self
