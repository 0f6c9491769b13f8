"""What an entry of an access log was: the usage that the catalog's rules make of it.

Guarantees: the same entry makes the same events with the same ids, however often it comes.
Refuses to know: Envoy's messages, and how usage is recorded.
"""

from collections.abc import Sequence
from functools import lru_cache
from re import Pattern
from typing import Final, Protocol

from tallygate.domain.envoy import LogField, LogGiven, LogKind, LogMeasure, LogPlace, LogRule
from tallygate.domain.envoy_match import compiled, shortened
from tallygate.domain.errors import InvalidField
from tallygate.domain.event import EventContext
from tallygate.domain.ids import AMOUNT_MAX, EventId, OperationId, tenant_id
from tallygate.domain.request import UsageRequest

CONTEXT: Final = EventContext(sdk="envoy")
# Of all catalogs that a process has seen lately.
_PATTERNS_HELD: Final = 1_024


class LogRecord(Protocol):
    """One entry, of something that has ended."""

    @property
    def kind(self) -> LogKind:
        """What it is of."""
        ...

    @property
    def identity(self) -> str:
        """A text of at most 40 that no other entry has."""
        ...

    @property
    def ended_at_us(self) -> int:
        """When what it tells of had ended, 0 where it does not say."""
        ...

    def text(self, given: LogGiven) -> str:
        """Return a value, empty where there is none."""
        ...

    def measure(self, measure: LogMeasure) -> int:
        """Return a number, 0 where there is none."""
        ...


def rule_of(rules: Sequence[LogRule], record: LogRecord) -> LogRule | None:
    """Return the first rule that an entry meets."""
    for rule in rules:
        if rule.kind in (None, record.kind) and all(
            _one_of(record, field, values) for field, values in rule.where
        ):
            return rule
    return None


def usage_of(rule: LogRule, record: LogRecord) -> list[UsageRequest]:
    """Return the events of an entry, none for what is 0. Raises `InvalidField` naming the field."""
    tenant = tenant_id(record.text(rule.tenant), "tenant")
    dimensions = {name: shortened(record.text(given)) for name, given in rule.dimensions}
    found = {name: value for name, value in dimensions.items() if value}
    operation = OperationId(f"als-{record.identity}")
    events = []
    for meter, measure in rule.meters:
        amount = record.measure(measure)
        if amount > AMOUNT_MAX:
            raise InvalidField(f"must be at most {AMOUNT_MAX}", field=measure.value)
        if amount > 0:
            events.append(
                UsageRequest(
                    tenant_id=tenant,
                    meter=meter,
                    amount=amount,
                    event_id=EventId(f"{operation}:{meter}"),
                    operation_id=OperationId(f"{operation}:{meter}"),
                    event_time_us=record.ended_at_us,
                    dimensions=found,
                    context=CONTEXT,
                )
            )
    return events


def _one_of(record: LogRecord, field: LogField, values: Sequence[str]) -> bool:
    value = record.text(LogGiven(LogPlace.FIELD, (field.value,)))
    return any(_pattern(each).fullmatch(value) for each in values)


@lru_cache(maxsize=_PATTERNS_HELD)
def _pattern(text: str) -> Pattern[str]:
    return compiled(text)
