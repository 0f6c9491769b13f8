"""What must hold of a catalog's meters and destinations so that usage can go to Stripe.

Guarantees: a meter that passes has one place to go to, and no other meter shares its event name.
Refuses to know: documents, and what Stripe has.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from tallygate.domain.billed import PLAIN
from tallygate.domain.catalog import Catalog, Destination, Meter
from tallygate.domain.limit_rules import ADDING, is_key, key_message
from tallygate.domain.path_fault import PathFault, unknown
from tallygate.domain.stripe_sync import Mode, Proration, StripeAccount, StripeSync, SyncWindow, Way

EVENT_NAME_LENGTH_MAX: Final = 100
# Each combination of values is a series of its own at Stripe, which caps them per meter and hour.
DIMENSIONS_MAX: Final = 8
# Ten times the most that is known to be granted.
CALLS_PER_S_MAX: Final = 10_000
KIND: Final = "stripe"


def account_of(catalog: Catalog, sync: StripeSync) -> Destination | None:
    """Return where a meter's usage goes: what it names, or the only one there is."""
    found = [each for each in catalog.destinations if each.stripe is not None]
    if sync.destination:
        found = [each for each in found if each.name == sync.destination]
    return found[0] if len(found) == 1 else None


def synced(catalog: Catalog, destination: str, *ways: Way) -> list[tuple[Meter, StripeSync]]:
    """Return the meters that go to a destination by one of these ways."""
    found = []
    for meter in catalog.meters.values():
        sync = meter.stripe
        if sync is None or sync.way not in ways:
            continue
        account = account_of(catalog, sync)
        if account is not None and account.name == destination:
            found.append((meter, sync))
    return found


def stripe_faults(catalog: Catalog) -> Iterator[PathFault]:
    """Iterate over the faults of all meters' and destinations' parts for Stripe."""
    for destination in catalog.destinations:
        if destination.stripe is not None:
            yield from _account_faults(destination.stripe, f"destinations.{destination.name}")
    taken: dict[tuple[str, str], str] = {}
    for meter in catalog.meters.values():
        if meter.stripe is None:
            continue
        path = f"meters.{meter.name}.stripe"
        yield from _place_faults(catalog, meter.stripe, path)
        yield from _way_faults(meter, meter.stripe, path)
        yield from _window_faults(meter.stripe, path)
        yield from _dimension_faults(meter.stripe, path)
        yield from _name_faults(catalog, meter, taken, path)


def _account_faults(account: StripeAccount, path: str) -> Iterator[PathFault]:
    if not 0 <= account.calls_per_s <= CALLS_PER_S_MAX:
        yield PathFault(f"{path}.calls_per_s", f"must be from 0 to {CALLS_PER_S_MAX}")
    if account.account and not account.account.startswith("acct_"):
        yield PathFault(f"{path}.account", "must be the id of a connected account, acct_…")


def _place_faults(catalog: Catalog, sync: StripeSync, path: str) -> Iterator[PathFault]:
    known = [each.name for each in catalog.destinations if each.stripe is not None]
    at = f"{path}.destination"
    if sync.destination and sync.destination not in known:
        yield unknown(at, "destination of kind stripe", sync.destination, known)
    elif not sync.destination and len(known) != 1:
        message = "is required where there are several of kind stripe"
        yield PathFault(at, message if known else "needs a destination of kind stripe")
    found = account_of(catalog, sync)
    account = found.stripe if found is not None else None
    if sync.v2_stream and account is not None and account.mode is not Mode.LIVE:
        yield PathFault(f"{path}.v2_stream", "is there in live mode only")


def _way_faults(meter: Meter, sync: StripeSync, path: str) -> Iterator[PathFault]:
    events = sync.way is Way.METER_EVENTS
    if events and not sync.event_name:
        yield PathFault(f"{path}.event_name", "is required for meter_events")
    if not events and sync.event_name:
        yield PathFault(f"{path}.event_name", "is for meter_events only")
    if sync.way is not Way.INVOICE_ITEMS and not sync.since_us:
        yield PathFault(f"{path}.since", f"is required for {sync.way}: from when usage is sent")
    if sync.way is Way.QUANTITY and not sync.price:
        yield PathFault(f"{path}.price", "is required for quantity: the lookup key of its price")
    if events and meter.aggregation not in ADDING:
        message = f"needs a meter that adds up, {meter.name} takes the {meter.aggregation}"
        yield PathFault(f"{path}.way", message)
    if sync.way is Way.QUANTITY and meter.aggregation not in PLAIN:
        # Neither does a window's rollup of every meter say it, nor do windows add up to a period.
        plain = ", ".join(sorted(PLAIN))
        message = f"needs a meter that takes {plain}; {meter.name} takes the {meter.aggregation}"
        yield PathFault(f"{path}.way", message)
    if sync.way is Way.QUANTITY and "." in sync.scale:
        yield PathFault(f"{path}.scale", "must be whole for quantity: a subscription has no parts")
    if sync.way is not Way.QUANTITY and sync.proration is not Proration.CREATE:
        yield PathFault(f"{path}.proration", "is for quantity only")
    if not events:
        for name, value in _events_only(sync).items():
            if value:
                yield PathFault(f"{path}.{name}", "is for meter_events only")


def _events_only(sync: StripeSync) -> Mapping[str, object]:
    return {
        "early": sync.early,
        "overwrite": sync.overwrite,
        "v2_stream": sync.v2_stream,
        "dimensions": sync.dimensions,
    }


def _window_faults(sync: StripeSync, path: str) -> Iterator[PathFault]:
    if sync.overwrite and sync.window is SyncWindow.MINUTE:
        yield PathFault(f"{path}.overwrite", "needs a window of an hour or a day")
    if sync.overwrite and sync.early:
        yield PathFault(f"{path}.early", "does not go with overwrite: a total is sent once whole")
    if sync.since_us % sync.window_us:
        yield PathFault(f"{path}.since", f"must be the beginning of a UTC {sync.window}")


def _dimension_faults(sync: StripeSync, path: str) -> Iterator[PathFault]:
    if len(sync.dimensions) > DIMENSIONS_MAX:
        yield PathFault(f"{path}.dimensions", f"holds more than {DIMENSIONS_MAX}")
    if sync.dimensions and sync.overwrite:
        # Stripe keeps one event per customer and window, whatever its dimensions.
        yield PathFault(f"{path}.dimensions", "do not go with overwrite: make a meter for each")
    for key, name in sync.dimensions:
        for each in (key, name):
            if not is_key(each):
                yield PathFault(f"{path}.dimensions.{key}", key_message())
                break


def _name_faults(
    catalog: Catalog, meter: Meter, taken: dict[tuple[str, str], str], path: str
) -> Iterator[PathFault]:
    sync = meter.stripe
    assert sync is not None
    if len(sync.event_name) > EVENT_NAME_LENGTH_MAX:
        yield PathFault(f"{path}.event_name", f"must be at most {EVENT_NAME_LENGTH_MAX} characters")
    place = account_of(catalog, sync)
    if place is None or not sync.event_name:
        return
    first = taken.setdefault((place.name, sync.event_name), meter.name)
    if first != meter.name:
        yield PathFault(f"{path}.event_name", f"is that of meter {first} already")
