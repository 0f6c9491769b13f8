"""What a harness records: the calls and their answers, and what is found when all is at rest.

Owns the plain data that the oracle judges. Refuses to know where it comes from: the simulator and
the harness of real processes fill the same classes. Times are microseconds since the Unix epoch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What was asked."""

    CONSUME = "consume"
    RECORD = "record"
    RESERVE = "reserve"
    COMMIT = "commit"
    RELEASE = "release"
    REFUND = "refund"


class Answer(StrEnum):
    """What a call came to.

    GRANTED: it was done, now or before. REFUSED: a limit refused. CLOSED: its reservation was
    resolved otherwise. FAILED: an error which says that nothing was done. OPEN: no answer came, or
    one that leaves open whether it was done.
    """

    GRANTED = "granted"
    REFUSED = "refused"
    CLOSED = "closed"
    FAILED = "failed"
    OPEN = "open"


class Held(StrEnum):
    """How safely a granted call's events are held, as its reply says."""

    UNSPECIFIED = ""
    BUFFERED = "BUFFERED"
    REDIS = "REDIS"
    JOURNAL = "JOURNAL"
    POSTGRES = "POSTGRES"


@dataclass(frozen=True, slots=True)
class Call:
    """One try of a call; its retries have the same tenant, kind and operation.

    `units` are asked for, by meter. `events` are the ids the reply names as recorded. `decision` is
    what a repeat must be told again, word for word. `accounts` are all that the reply shows figures
    of. `text` is the whole of what the caller was told. `gated` says that hard limits were asked.
    """

    kind: Kind
    tenant: str
    operation: str
    sidecar: str
    sent_us: int
    ended_us: int
    answer: Answer
    units: tuple[tuple[str, int], ...] = ()
    events: tuple[str, ...] = ()
    held: Held = Held.UNSPECIFIED
    replayed: bool = False
    degraded: bool = False
    decision: str = ""
    accounts: tuple[str, ...] = ()
    text: str = ""
    gated: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """One event in the ledger. `refund_of` is empty for usage; a refund's amount is below 0."""

    tenant: str
    event: str
    meter: str
    amount: int
    event_time_us: int
    received_us: int
    operation: str
    source: str
    lane: int
    seq: int
    epoch: str = ""
    refund_of: str = ""
    dimensions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rollup:
    """What the ledger's rollup has of a tenant's meter in [starts_us, ends_us)."""

    tenant: str
    meter: str
    starts_us: int
    ends_us: int
    count: int
    sum: int


@dataclass(frozen=True, slots=True)
class Counter:
    """A counter of a window [starts_us, ends_us) as it stands; `held` of `used` is reserved.

    `family` are the tenants whose events count in it: its own, and those below it. `per` is the
    dimension's key and value for a limit per dimension. `limit` is None where nothing is refused;
    `allowance` is by how much faults may have had it passed: the published budgets.
    """

    account: str
    limit_id: str
    meter: str
    family: frozenset[str]
    starts_us: int
    ends_us: int
    used: int
    held: int = 0
    per: tuple[str, str] | None = None
    limit: int | None = None
    allowance: int = 0


@dataclass(frozen=True, slots=True)
class Lane:
    """The numbers of one source in one shard.

    `accepted` were given out, `persisted` the ledger has, dead letters included; `in_stream` and
    `in_journal` await it; `lost` are known to be lost. `gaps` are missing below the highest.
    """

    source: str
    lane: int
    accepted: int
    persisted: int
    in_stream: int = 0
    in_journal: int = 0
    lost: int = 0
    gaps: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """What a destination is to be told, or was told; `events` are pairs of tenant and event id.

    Of a message that tells no events, `events` is empty.
    """

    message_id: str
    destination: str
    events: tuple[tuple[str, str], ...]
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Rest:
    """What is found when the faults are over and all has had its time.

    `drained_s` is how long it took from healing until nothing lagged, None when it never did;
    `drain_max_s` is how long it may take. `wanted` are the messages in the outbox, per destination;
    `taken` are those that destinations took, each time that they did. `parked` are messages set
    aside for a person, which a destination refused for good.
    """

    ledger: tuple[Row, ...]
    counters: tuple[Counter, ...] = ()
    rollups: tuple[Rollup, ...] = ()
    lanes: tuple[Lane, ...] = ()
    wanted: tuple[Message, ...] = ()
    taken: tuple[Message, ...] = ()
    parked: frozenset[str] = frozenset()
    dead_letters: tuple[tuple[str, str], ...] = ()
    journal_left: int = 0
    drained_s: float | None = 0.0
    drain_max_s: float = 60.0


@dataclass(frozen=True, slots=True)
class History:
    """All that was asked and found. `secrets` must appear in no text, `logs` are lines of logs.

    `lossy` are the kinds of holding that the faults of this run may break, as documented: REDIS
    where Redis and the journals behind it were lost together. `forgotten_us` are the instants at
    which operations were forgotten, as Redis lost its data; `memory_us` is for how long one is
    remembered otherwise. `tenants` are the parents of tenants, "" for none.
    """

    calls: tuple[Call, ...]
    rest: Rest
    tenants: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()
    lossy: frozenset[Held] = frozenset()
    forgotten_us: tuple[int, ...] = ()
    memory_us: int = 900_000_000
