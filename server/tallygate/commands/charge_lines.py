"""Lines of invoices as a JSON document: what `tallygate stripe invoice-items` reads.

Guarantees: a document is taken whole, or refused with the field that is wrong; no amount passes
through a float.
Refuses to know: what becomes of lines.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from tallygate.domain.errors import InvalidField
from tallygate.domain.ids import MeterName, tenant_id
from tallygate.domain.stripe_intent import ChargeLine
from tallygate.domain.window import from_datetime

# A month's invoices of 10,000 tenants with ten lines each.
LINES_MAX: Final = 100_000
# Stripe's own bound of an amount.
AMOUNT_DIGITS_MAX: Final = 12
_KEYS: Final = ("tenant", "id", "amount", "currency", "description", "from", "to", "meter")


def charge_lines(text: str) -> list[ChargeLine]:
    """Return the lines of a document. Raises `InvalidField`."""
    try:
        document = json.loads(text)
    except ValueError:
        raise InvalidField("is not JSON", field="lines") from None
    found = document.get("lines") if isinstance(document, dict) else None
    if not isinstance(found, list) or len(found) > LINES_MAX:
        raise InvalidField(f"must be a list of at most {LINES_MAX} lines", field="lines")
    return [_line(each, f"lines[{index}]") for index, each in enumerate(found)]


# JSON is untyped: each field is checked as it is read.
def _line(found: Any, at: str) -> ChargeLine:  # noqa: ANN401
    if not isinstance(found, dict):
        raise InvalidField("must be an object", field=at)
    unknown = sorted(found.keys() - set(_KEYS))
    if unknown:
        raise InvalidField("is no field of a line", field=f"{at}.{unknown[0]}")
    amount = found.get("amount")
    if not isinstance(amount, int) or isinstance(amount, bool):
        raise InvalidField("must be whole, in the currency's smallest unit", field=f"{at}.amount")
    if len(str(abs(amount))) > AMOUNT_DIGITS_MAX:
        raise InvalidField(f"has more than {AMOUNT_DIGITS_MAX} digits", field=f"{at}.amount")
    return ChargeLine(
        tenant_id=tenant_id(_text(found, "tenant", at), f"{at}.tenant"),
        line_id=_text(found, "id", at),
        meter=MeterName(_text(found, "meter", at, "")),
        amount=amount,
        currency=_text(found, "currency", at),
        description=_text(found, "description", at, ""),
        from_us=_instant_us(found, "from", at),
        to_us=_instant_us(found, "to", at),
    )


def _text(found: Mapping[str, object], name: str, at: str, default: str | None = None) -> str:
    value = found.get(name, default)
    if not isinstance(value, str) or not value.isprintable():
        raise InvalidField("must be a printable text", field=f"{at}.{name}")
    return value


def _instant_us(found: Mapping[str, object], name: str, at: str) -> int:
    try:
        moment = datetime.fromisoformat(str(found.get(name)))
    except ValueError:
        raise InvalidField("must be a time as in ISO 8601", field=f"{at}.{name}") from None
    return from_datetime(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
