"""An invoice as JSON: what is stored, hashed and handed out.

Guarantees: the same invoice gives the same bytes, and they read back equal; decimals are texts,
instants are microseconds.
Refuses to know: where documents are kept.
"""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from tallygate.domain.catalog import Aggregation
from tallygate.domain.ids import LimitId, MeterName, PlanName, TenantId
from tallygate.domain.invoice import (
    Burn,
    Invoice,
    InvoiceLine,
    LineKind,
    Part,
    Selection,
)
from tallygate.domain.price import PriceId, PriceModel
from tallygate.domain.window import Window

# JSON is untyped; what is read from it is checked by building the domain's own types.
Json = Mapping[str, Any]

FORMAT: Final = 1


def to_bytes(invoice: Invoice) -> bytes:
    """Return an invoice's one document: its keys in order, no blanks."""
    text = json.dumps(to_json(invoice), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def to_json(invoice: Invoice) -> dict[str, Any]:
    """Return an invoice as plain values."""
    return {
        "format": FORMAT,
        "tenant_id": invoice.tenant_id,
        "period": _window(invoice.period),
        "currency": invoice.currency,
        "lines": [line_json(line) for line in invoice.lines],
        "subtotal": _text(invoice.subtotal),
        "discounts": _text(invoice.discounts),
        "credits": _text(invoice.credits),
        "total": _text(invoice.total),
        "catalogs": list(invoice.catalogs),
        "unpriced": list(invoice.unpriced),
    }


def from_bytes(document: bytes) -> Invoice:
    """Return the invoice. Raises ValueError, KeyError or TypeError for what is none."""
    found = json.loads(document)
    if not isinstance(found, dict):
        raise TypeError("is not an object")
    return Invoice(
        tenant_id=TenantId(found["tenant_id"]),
        period=_read_window(found["period"]),
        currency=found["currency"],
        lines=tuple(_read_line(each) for each in found["lines"]),
        subtotal=Decimal(found["subtotal"]),
        discounts=Decimal(found["discounts"]),
        credits=Decimal(found["credits"]),
        total=Decimal(found["total"]),
        catalogs=tuple(int(each) for each in found["catalogs"]),
        unpriced=tuple(MeterName(each) for each in found["unpriced"]),
    )


def line_json(line: InvoiceLine) -> dict[str, Any]:
    """Return a line as plain values."""
    found: dict[str, Any] = {
        "number": line.number,
        "kind": line.kind,
        "plan": line.plan,
        "segment": _window(line.segment),
        "share": list(line.share),
        "amount": _text(line.amount),
        "exact": _text(line.exact),
        "charged": _text(line.charged),
        "unit": line.unit,
        "rate": _text(line.rate),
    }
    if line.price_id:
        found |= {"price_id": line.price_id, "model": line.model, "group": dict(line.group)}
        found |= {"quantity": _text(line.quantity), "count": line.count}
        found |= {"included": line.included, "parts": [_part(part) for part in line.parts]}
    if line.selection is not None:
        found["meter"] = line.selection.meter
        found["aggregation"] = line.selection.aggregation
        found["where"] = {key: list(values) for key, values in line.selection.where}
        found["per"] = line.selection.per
        found |= _own(line.selection)
    if line.percent:
        found["percent"] = _text(line.percent)
    if line.burn is not None:
        found["burn"] = {
            "limit_id": line.burn.limit_id,
            "seq": line.burn.seq,
            "grant_id": line.burn.grant_id,
            "units": _text(line.burn.units),
        }
    if line.description:
        found["description"] = line.description
    if line.adjusts is not None:
        found["adjusts"] = _window(line.adjusts)
    return found


def _read_line(found: Json) -> InvoiceLine:
    burn = found.get("burn")
    part_us, whole_us = found["share"]
    return InvoiceLine(
        number=int(found["number"]),
        kind=LineKind(found["kind"]),
        plan=PlanName(found["plan"]),
        segment=_read_window(found["segment"]),
        amount=Decimal(found["amount"]),
        exact=Decimal(found["exact"]),
        price_id=PriceId(found.get("price_id", "")),
        model=PriceModel(found["model"]) if "model" in found else None,
        selection=_read_selection(found) if "meter" in found else None,
        group=tuple(sorted(found.get("group", {}).items())),
        quantity=Decimal(found.get("quantity", 0)),
        count=int(found.get("count", 0)),
        included=int(found.get("included", 0)),
        parts=tuple(_read_part(each) for each in found.get("parts", ())),
        charged=Decimal(found["charged"]),
        percent=Decimal(found.get("percent", 0)),
        unit=found["unit"],
        rate=Decimal(found["rate"]),
        share=(int(part_us), int(whole_us)),
        burn=(
            Burn(LimitId(burn["limit_id"]), int(burn["seq"]), burn["grant_id"], _units(burn))
            if burn is not None
            else None
        ),
        description=found.get("description", ""),
        adjusts=_read_window(found["adjusts"]) if "adjusts" in found else None,
    )


def _units(burn: Json) -> Decimal:
    return Decimal(burn["units"])


def _part(part: Part) -> dict[str, Any]:
    return {
        "units": _text(part.units),
        "each": _text(part.each),
        "flat": _text(part.flat),
        "up_to": part.up_to,
    }


def _read_part(found: Json) -> Part:
    return Part(
        Decimal(found["units"]), Decimal(found["each"]), Decimal(found["flat"]), found["up_to"]
    )


def _read_selection(found: Json) -> Selection:
    return Selection(
        meter=MeterName(found["meter"]),
        aggregation=Aggregation(found["aggregation"]),
        where=tuple(sorted((key, tuple(values)) for key, values in found["where"].items())),
        per=found["per"],
        unique_by=found.get("unique_by", ""),
        percentile_ppm=int(found.get("percentile_ppm", 0)),
        series=tuple(found.get("series", ())),
    )


def _own(selection: Selection) -> dict[str, Any]:
    """Return what only some aggregations have: documents of all others stay as they were."""
    found: dict[str, Any] = {}
    if selection.unique_by:
        found["unique_by"] = selection.unique_by
    if selection.percentile_ppm:
        found["percentile_ppm"] = selection.percentile_ppm
    if selection.series:
        found["series"] = list(selection.series)
    return found


def _window(window: Window) -> dict[str, int]:
    return {"start_us": window.start_us, "end_us": window.end_us}


def _read_window(found: Json) -> Window:
    return Window(int(found["start_us"]), int(found["end_us"]))


def _text(amount: Decimal) -> str:
    return format(amount, "f")
