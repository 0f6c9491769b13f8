"""Closed periods that are to be invoiced, in memory.

Guarantees: passes the same contract tests as the queue in Postgres.
Refuses to know: how an invoice is worked out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tallygate.domain.ids import TenantId
from tallygate.domain.window import Window
from tallygate.ports.invoice_due import DueCount, DueInvoice, Hold, Withheld


@dataclass(slots=True)
class _Row:
    due: DueInvoice
    next_us: int
    held: Withheld | None = None
    held_us: int = 0


@dataclass(slots=True)
class FakeInvoiceQueue:
    """The `InvoiceQueue` port; `told` is what was told to be held, and why."""

    told: list[tuple[DueInvoice, Hold]] = field(default_factory=list)
    _rows: dict[tuple[TenantId, int], _Row] = field(default_factory=dict)
    _tokens: int = 0

    def closed(self, tenant_id: TenantId, period: Window, revision: int, at_us: int) -> None:
        """Have a revision of a period be closed."""
        key = (tenant_id, period.start_us)
        attempts = self._rows[key].due.attempts if key in self._rows else 0
        row = _Row(DueInvoice(tenant_id, period, revision, attempts, ""), at_us)
        if key in self._rows:
            row.held, row.held_us = self._rows[key].held, self._rows[key].held_us
        self._rows[key] = row

    async def claim(self, now_us: int, count: int, lease_us: int) -> Sequence[DueInvoice]:
        """Take up to `count` that are due, the first of each tenant; nobody else has them then."""
        self._tokens += 1
        firsts: dict[TenantId, int] = {}
        for tenant_id, start_us in sorted(self._rows):
            firsts.setdefault(tenant_id, start_us)
        due = [row for key in firsts.items() if (row := self._rows[key]).next_us <= now_us]
        due.sort(key=lambda row: (row.next_us, row.due.tenant_id))
        for row in due[:count]:
            row.next_us = now_us + lease_us
            token, attempts = str(self._tokens), row.due.attempts + 1
            row.due = replace(row.due, attempts=attempts, token=token)
        return [row.due for row in due[:count]]

    async def done(self, due: DueInvoice) -> bool:
        """Take one out, unless it was closed anew meanwhile; say whether it was still ours."""
        row = self._ours(due)
        if row is None or row.due.revision != due.revision:
            return False
        del self._rows[due.tenant_id, due.period.start_us]
        return True

    async def hold(self, due: DueInvoice, hold: Hold, now_us: int) -> bool:
        """Note why one is not invoiced, and tell it where that is new; say whether it was told."""
        row = self._ours(due)
        if row is None:
            return False
        row.due, row.next_us = replace(row.due, token=""), hold.next_us
        if row.held is hold.reason:
            return False
        row.held, row.held_us = hold.reason, now_us
        self.told.append((due, hold))
        return True

    async def counts(self) -> Sequence[DueCount]:
        """Count what is to be invoiced, by why it is held."""
        found: dict[Withheld | None, list[int]] = {}
        for row in self._rows.values():
            found.setdefault(row.held, []).append(row.held_us if row.held else row.next_us)
        ordered = sorted(found.items(), key=lambda each: each[0] or "")
        return [DueCount(held, len(since), min(since)) for held, since in ordered]

    def _ours(self, due: DueInvoice) -> _Row | None:
        row = self._rows.get((due.tenant_id, due.period.start_us))
        return row if row is not None and row.due.token == due.token != "" else None
