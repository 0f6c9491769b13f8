"""What an invoice's lines say to people.

Guarantees: whoever works out what is said gets the line's amount before rounding.
Refuses to know: tables and pages.
"""

from decimal import Decimal

from tallygate.domain.invoice import InvoiceLine, LineKind, Part
from tallygate.domain.window import Window, to_datetime, zone_of


def title(line: InvoiceLine) -> str:
    """Return what a line is for."""
    name = line.description or line.price_id
    match line.kind:
        case LineKind.DISCOUNT:
            return f"Discount on {name}" if name else f"Discount of plan {line.plan}"
        case LineKind.MINIMUM:
            return f"Up to the minimum of {name or f'plan {line.plan}'}"
        case LineKind.CREDITS:
            return f"Credits for {name}"
        case _:
            return name


def whose(line: InvoiceLine, time_zone: str) -> str:
    """Return what a line is for, whose usage it is, and of which period where that is closed."""
    told, of = title(line), group(line)
    if of:
        told = f"{told} ({of})"
    if line.adjusts is not None:
        told = f"{told}, late usage of {stretch(line.adjusts, time_zone)}"
    return told


def group(line: InvoiceLine) -> str:
    """Return whose usage it is, empty where a price tells none apart."""
    return ", ".join(f"{key}={value}" for key, value in line.group)


def working(line: InvoiceLine) -> str:
    """Return how a line's amount comes about, in its own unit."""
    match line.kind:
        case LineKind.DISCOUNT:
            return f"{plain(line.percent)} % off"
        case LineKind.MINIMUM:
            return f"at least {plain(line.charged)} {line.unit}{_exchanged(line)}"
        case LineKind.CREDITS:
            grant = line.burn.grant_id if line.burn is not None else ""
            return f"{plain(-line.charged)} of grant {grant}{_exchanged(line)}"
        case _:
            parts = " + ".join(_part(part) for part in line.parts) or "0"
            return f"{parts} {line.unit}{_exchanged(line)}"


def quantity(line: InvoiceLine) -> str:
    """Return what was used, and what of it is included."""
    if line.kind is not LineKind.USAGE:
        return ""
    free = f", {line.included:,} included" if line.included else ""
    return f"{line.quantity:,f}{free}"


def stretch(window: Window, time_zone: str) -> str:
    """Return a stretch of time in a zone: days alone where it begins and ends with them."""
    zone = zone_of(time_zone)
    ends = [to_datetime(at).astimezone(zone) for at in (window.start_us, window.end_us)]
    whole = all(not (end.hour or end.minute or end.second or end.microsecond) for end in ends)
    if whole:
        return " to ".join(end.date().isoformat() for end in ends)
    return " to ".join(end.isoformat(sep=" ") for end in ends)


def plain(amount: Decimal) -> str:
    """Return a decimal without an exponent, and without zeros that say nothing."""
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _part(part: Part) -> str:
    flat = f" + {plain(part.flat)}" if part.flat else ""
    return f"{plain(part.units)} x {_short(part.each)}{flat}"


def _short(each: Decimal) -> str:
    """Return a price per unit; a share of a fee may have no end, and is cut."""
    text = plain(each)
    return f"{each:.12f}…" if len(text) > 30 else text


def _exchanged(line: InvoiceLine) -> str:
    return f" at {_short(line.rate)}" if line.rate != 1 else ""
