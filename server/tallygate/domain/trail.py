"""The chain of the audit log: what an entry is, how it is hashed, and what breaks the chain.

Guarantees: pure; a row that was changed, taken out, put in or moved breaks the chain at its place,
and so does a whole new chain where one hash of the old one was noted elsewhere.
Refuses to know: where rows are kept, and who asks.

A row's hash is the SHA-256 of its fields in this order, each as its length in bytes, a colon, its
UTF-8 and a comma: number, microseconds since 1970, actor, role, action, tenant, call, request,
digest of the request, outcome, and the hash of the row before in hex. Before the first stand 32
zero bytes.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tallygate.domain.errors import InvalidField

GENESIS: Final = bytes(32)
# A name, a mail address or a service account; longer ones are no names.
ACTOR_LENGTH_MAX: Final = 128
ASKED: Final = "asked"
DONE: Final = "done"
FAILED: Final = "failed"


@dataclass(frozen=True, slots=True)
class TrailEntry:
    """Who asked for what, about whom, and what came of it.

    `role` is what was asked: `control` or `command`. `request` is a summary without secrets, as
    JSON; `request_sha256` is of the whole. A change has two entries of one `call_id`, of which
    the first says `asked`; where the second is missing, nobody knows what came of it.
    """

    actor: str
    role: str
    action: str
    tenant_id: str = ""
    call_id: str = ""
    request: str = "{}"
    request_sha256: str = ""
    outcome: str = DONE


@dataclass(frozen=True, slots=True)
class TrailLink:
    """An entry as a row of the chain."""

    seq: int
    at_us: int
    entry: TrailEntry
    prev_hash: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class TrailHead:
    """The end of the chain: the last row's number and hash; 0 and zero bytes of an empty one."""

    seq: int = 0
    hash: bytes = GENESIS


class Flaw(StrEnum):
    """How the chain is broken."""

    REMOVED = "removed"
    CHANGED = "changed"
    DETACHED = "detached"
    REWRITTEN = "rewritten"


@dataclass(frozen=True, slots=True)
class ChainBreak:
    """A place at which the chain does not hold, and what is wrong there."""

    seq: int
    flaw: Flaw
    detail: str


def actor_name(value: str, field: str) -> str:
    """Return `value` if it may stand for who asks. Raises `InvalidField` naming `field`."""
    if not value.strip() or len(value) > ACTOR_LENGTH_MAX or not value.isprintable():
        raise InvalidField(
            f"must be 1 to {ACTOR_LENGTH_MAX} printable characters that say who asks", field=field
        )
    return value


def link_hash(seq: int, at_us: int, entry: TrailEntry, prev_hash: bytes) -> bytes:
    """Return what the row's hash must be."""
    fields = (
        *(str(seq), str(at_us), entry.actor, entry.role, entry.action, entry.tenant_id),
        *(entry.call_id, entry.request, entry.request_sha256, entry.outcome, prev_hash.hex()),
    )
    digest = hashlib.sha256()
    for each in fields:
        text = each.encode()
        digest.update(b"%d:%b," % (len(text), text))
    return digest.digest()


def linked(seq: int, at_us: int, entry: TrailEntry, prev_hash: bytes) -> TrailLink:
    """Return the entry as the row that follows the one of that hash."""
    return TrailLink(seq, at_us, entry, prev_hash, link_hash(seq, at_us, entry, prev_hash))


class ChainCheck:
    """Follows the chain from its first row, in the order of the numbers.

    `noted` are hashes by number that were written down elsewhere: who can write the whole table
    can make a new chain, but not one that has these.
    """

    def __init__(self, noted: Mapping[int, bytes] | None = None) -> None:
        self._noted = dict(noted or {})
        self._next = 1
        self._before = GENESIS

    @property
    def rows(self) -> int:
        """Return the number of the last row that was looked at."""
        return self._next - 1

    def add(self, link: TrailLink) -> Iterator[ChainBreak]:
        """Iterate over what is wrong with the next row."""
        gap = link.seq != self._next
        if gap:
            last = link.seq - 1
            which = f"row {last} is" if last == self._next else f"rows {self._next} to {last} are"
            yield ChainBreak(self._next, Flaw.REMOVED, f"{which} not there")
        if link.hash != link_hash(link.seq, link.at_us, link.entry, link.prev_hash):
            yield ChainBreak(link.seq, Flaw.CHANGED, "the row's hash is not that of its fields")
        elif link.prev_hash != self._before and not gap:
            yield ChainBreak(link.seq, Flaw.DETACHED, "the row does not follow the one before it")
        noted = self._noted.pop(link.seq, None)
        if noted is not None and noted != link.hash:
            yield ChainBreak(link.seq, Flaw.REWRITTEN, "the row's hash is not the one noted")
        self._next, self._before = link.seq + 1, link.hash

    def end(self, head: TrailHead) -> Iterator[ChainBreak]:
        """Iterate over what is wrong with the end of the chain, after its last row."""
        if head.seq >= self._next:
            detail = f"the log's end says that there are {head.seq} rows"
            yield ChainBreak(self._next, Flaw.REMOVED, detail)
        elif (head.seq, head.hash) != (self.rows, self._before):
            detail = "the last row is not the one that the log's end says"
            yield ChainBreak(self.rows, Flaw.DETACHED, detail)
        for seq in sorted(self._noted):
            yield ChainBreak(seq, Flaw.REWRITTEN, "the row that was noted is not there")
