"""Entries as bytes.

Guarantees: what was encoded decodes to the same entry, but for charges, which are bound anew.
Refuses to know: records and files.

A body is one byte for its kind, then fixed numbers, then texts by their lengths, then the payload.
A resolution (`x`) is a list of marks, a release (`l`) the name of a reservation. A group (`g`) is
what its calls have in common, then their ids in a row. A batch (`b`) is the bodies of its entries,
each behind its length.
"""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tallygate.domain.alike import Alike
from tallygate.domain.decision import Mode, Operation
from tallygate.domain.detail import Detail, Given, Hold, Late, Refund
from tallygate.domain.given import given_in
from tallygate.domain.ids import (
    AccountId,
    EventId,
    OperationId,
    ReservationId,
    SourceId,
    TenantId,
)
from tallygate.domain.made import made_ids
from tallygate.ports.journal import Batch, Entry, EntryKind, Group, HeldKey

RESOLVED: Final = b"x"
RELEASED: Final = b"l"
GROUP: Final = b"g"
BATCH: Final = b"b"
# Kind, mode; shard, events, first number; when accepted, when used, when it ends; six lengths.
_FIXED: Final = struct.Struct(">ccHIQqqqHHHHHI")
# Kind; shard, when granted; events of each call; lengths of the tenant and of an id; parts, calls.
_GROUP: Final = struct.Struct(">cHqIHHHI")
# Of an entry of a batch.
_SIZE: Final = struct.Struct(">I")
# An enumeration's members are slow to find, and every entry has two.
_KINDS: Final = {each: each.value.encode() for each in EntryKind}
_MODES: Final = {each: each.value.encode() for each in Mode}


@dataclass(frozen=True, slots=True)
class Resolved:
    """Marks of entries that need nothing any more."""

    marks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Released:
    """A reservation that is over."""

    key: HeldKey


Item = Entry | Group | Batch | Resolved | Released


def encode(item: Item) -> bytes:
    """Return an item's bytes."""
    match item:
        case Entry():
            return _entry(item)
        case Group():
            return _group(item)
        case Batch(placed):
            parts = [BATCH]
            for each in placed:
                body = _entry(each)
                parts += (_SIZE.pack(len(body)), body)
            return b"".join(parts)
        case Resolved(marks):
            return RESOLVED + struct.pack(f">{len(marks)}Q", *marks)
        case Released(key):
            return RELEASED + json.dumps(key).encode()


def decode(body: bytes) -> Item:
    """Return the item of these bytes. Raises ValueError for bytes that are none."""
    try:
        kind = body[:1]
        if kind == RESOLVED:
            return Resolved(struct.unpack(f">{(len(body) - 1) // 8}Q", body[1:]))
        if kind == RELEASED:
            tenant, reservation = json.loads(body[1:])
            return Released((TenantId(tenant), ReservationId(reservation)))
        if kind == GROUP:
            return _read_group(body)
        if kind == BATCH:
            return _read_batch(body)
        return _read_entry(body)
    except (struct.error, TypeError, KeyError, UnicodeDecodeError) as error:
        raise ValueError("the bytes are no entry of a journal") from error


def _entry(entry: Entry) -> bytes:
    operation = entry.operation
    tenant = operation.tenant_id.encode()
    operation_id = (operation.operation_id or "").encode()
    fingerprint = operation.fingerprint.encode()
    source = entry.source_id.encode()
    reason = operation.reject_reason.encode()
    more = b"" if operation.detail is None and not entry.debits else _more(entry)
    fixed = _FIXED.pack(
        _KINDS[entry.kind],
        _MODES[operation.mode],
        operation.shard,
        operation.event_count,
        entry.first_seq,
        entry.at_us,
        operation.event_time_us,
        entry.expires_us,
        len(tenant),
        len(operation_id),
        len(fingerprint),
        len(source),
        len(reason),
        len(more),
    )
    return b"".join(
        (fixed, tenant, operation_id, fingerprint, source, reason, more, operation.payload)
    )


def _more(entry: Entry) -> bytes:
    """Return what few entries have: details and debits."""
    more: dict[str, Any] = {}
    match entry.operation.detail:
        case Refund(event_id, units, units_max, counted):
            more["refund"] = [event_id, units, units_max, counted]
        case Hold(reservation_id, ttl_us):
            more["hold"] = [reservation_id, ttl_us]
        case _:
            # A settlement is over, and its events are facts: they are handed in without it, call
            # by call.
            pass
    given = given_in(entry.operation)
    if given:
        more["given"] = [_run(each) for each in given]
    if entry.debits:
        more["debits"] = entry.debits
    return json.dumps(more).encode() if more else b""


def _run(run: Given) -> tuple[Any, ...]:
    """Return calls as they are kept: those of a stem are told by it, and how many they are."""
    if run.stem:
        calls = len(run.operation_ids)
        return run.stem, calls, run.fingerprints[0], run.event_count, run.size_bytes
    return run.operation_ids, run.fingerprints, run.event_count, run.size_bytes


def _read_run(kept: Sequence[Any]) -> Given:
    if len(kept) == 4:
        ids, fingerprints, count, size = kept
        return Given(tuple(ids), tuple(fingerprints), count, size)
    stem, calls, fingerprint, count, size = kept
    return Given(tuple(made_ids(stem, 0, calls)), (fingerprint,) * calls, count, size, stem)


def _read_entry(body: bytes) -> Entry:
    found = _FIXED.unpack_from(body)
    kind, mode, shard, events, first_seq, at_us, event_time_us, expires_us, *lengths = found
    texts: list[bytes] = []
    at = _FIXED.size
    for length in lengths:
        texts.append(body[at : at + length])
        at += length
    tenant, operation_id, fingerprint, source, reason = (text.decode() for text in texts[:5])
    more = json.loads(texts[5]) if texts[5] else {}
    operation = Operation(
        mode=Mode(mode.decode()),
        tenant_id=TenantId(tenant),
        shard=shard,
        operation_id=OperationId(operation_id) if operation_id else None,
        fingerprint=fingerprint,
        event_count=events,
        event_time_us=event_time_us,
        payload=body[at:],
        reject_reason=reason,
        detail=_detail(more),
    )
    return Entry(
        kind=EntryKind(kind.decode()),
        operation=operation,
        at_us=at_us,
        source_id=SourceId(source),
        first_seq=first_seq,
        debits=tuple(
            (AccountId(account), field, units) for account, field, units in more.get("debits", ())
        ),
        expires_us=expires_us,
    )


def _read_batch(body: bytes) -> Batch:
    placed: list[Entry] = []
    at = len(BATCH)
    while at < len(body):
        (size,) = _SIZE.unpack_from(body, at)
        at += _SIZE.size
        if len(body) - at < size:
            raise ValueError("a batch ends within an entry")
        placed.append(_read_entry(body[at : at + size]))
        at += size
    return Batch(tuple(placed))


def _group(group: Group) -> bytes:
    alike, tenant = group.alike, group.alike.tenant_id.encode()
    ids = "".join(group.operation_ids).encode()
    fixed = _GROUP.pack(
        GROUP,
        group.shard,
        group.at_us,
        alike.event_count,
        len(tenant),
        len(group.operation_ids[0]),
        len(alike.parts),
        len(group.operation_ids),
    )
    sizes = struct.pack(f">{len(alike.parts)}I", *map(len, alike.parts))
    return b"".join((fixed, sizes, tenant, *alike.parts, ids))


def _read_group(body: bytes) -> Group:
    _, shard, at_us, count, tenant_bytes, id_bytes, parts, calls = _GROUP.unpack_from(body)
    sizes = struct.unpack_from(f">{parts}I", body, _GROUP.size)
    at = _GROUP.size + 4 * parts
    texts: list[bytes] = []
    for size in (tenant_bytes, *sizes):
        texts.append(body[at : at + size])
        at += size
    if len(body) != at + id_bytes * calls:
        raise ValueError("a group's length is not what its head says")
    ids = body[at:].decode("ascii")
    alike = Alike(
        TenantId(texts[0].decode()), count, id_bytes if parts > 1 else 0, tuple(texts[1:])
    )
    return Group(
        alike,
        shard,
        at_us,
        tuple(OperationId(ids[start : start + id_bytes]) for start in range(0, len(ids), id_bytes)),
    )


def _detail(more: dict[str, Any]) -> Detail | None:
    if "given" in more:
        return Late(tuple([_read_run(kept) for kept in more["given"]]))
    if "refund" in more:
        event_id, units, units_max, counted = more["refund"]
        return Refund(EventId(event_id), units, units_max, counted)
    if "hold" in more:
        reservation_id, ttl_us = more["hold"]
        return Hold(ReservationId(reservation_id), ttl_us)
    return None
