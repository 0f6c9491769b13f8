"""Faults on demand: which calls go wrong, how, and how often.

Guarantees: one fault at most strikes a call, the first that matches; with the same seed the same
calls are struck; a call that is held stays held until it is let go.
Refuses to know: how an answer is made.
"""

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, Final

from .clock import US_PER_S
from .errors import RateLimitReason, full, invalid


class FaultKind(StrEnum):
    """What goes wrong."""

    # 429 with a reason; and the 429 for a locked object, which has none and should be tried again.
    RATE_LIMITED = "rate_limited"
    LOCK_TIMEOUT = "lock_timeout"
    # 409, as for two calls at once for one customer and meter.
    CONFLICT = "conflict"
    # 500 without and with effect: which of them it was, the caller cannot tell.
    ERROR_BEFORE = "error_before"
    ERROR_AFTER = "error_after"
    # 503 and a page of a proxy, both from before any endpoint.
    UNAVAILABLE = "unavailable"
    GARBLED = "garbled"
    # The connection is cut, without and with effect.
    DROP_BEFORE = "drop_before"
    DROP_AFTER = "drop_after"
    # The answer comes `delay_s` late, in real time; the effect comes late, too, or not.
    SLOW_BEFORE = "slow_before"
    SLOW_AFTER = "slow_after"
    # The call is kept, before its effect, until `release`.
    HOLD = "hold"
    # A meter event is taken and an error report tells of `code` later.
    ASYNC_ERROR = "async_error"
    # A meter event is taken and never counted, or counted twice: what reconciliation has to find.
    SWALLOW = "swallow"
    DOUBLE = "double"


_WHOLE_NAMES: Final = frozenset({"count", "after", "every", "seed", "retry_after_s"})
_NUMBER_NAMES: Final = frozenset({"probability", "from_s", "until_s", "delay_s"})
_WHOLE: Final = (int, type(None))
_NUMBER: Final = (int, float, type(None))

USAGE_KINDS: Final = frozenset({FaultKind.ASYNC_ERROR, FaultKind.SWALLOW, FaultKind.DOUBLE})


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, for which calls, how often. Texts to match may hold `*` and `?`."""

    kind: FaultKind
    method: str = "*"
    path: str = "*"
    event_name: str = "*"
    customer: str = "*"
    identifier: str = "*"
    # How often it strikes; None is without end.
    count: int | None = None
    # So many matching calls are let pass first; of the rest every n-th one is struck.
    after: int = 0
    every: int = 1
    # Of those, by chance, so many.
    probability: float = 1.0
    seed: int = 0
    # Only within this time of the fake's clock, in seconds since the Unix epoch.
    from_s: float | None = None
    until_s: float | None = None
    reason: RateLimitReason = RateLimitReason.ENDPOINT_RATE
    # What a rate limit says as `Retry-After`; None is without.
    retry_after_s: int | None = None
    delay_s: float = 0.0
    code: str = "meter_event_invalid_value"

    def __post_init__(self) -> None:
        """Take words for the kinds they name. Raises `ValueError`."""
        object.__setattr__(self, "kind", FaultKind(self.kind))
        object.__setattr__(self, "reason", RateLimitReason(self.reason))
        if self.every < 1 or self.after < 0 or not 0 <= self.probability <= 1 or self.delay_s < 0:
            raise ValueError("every is 1 or more, after 0 or more, probability from 0 to 1")
        if self.retry_after_s is not None and self.retry_after_s < 0:
            raise ValueError("retry_after_s is 0 or more")


@dataclass(frozen=True, slots=True)
class Subject:
    """What a call is about: of a meter event its name, the texts it carries, its identifier."""

    event_name: str = ""
    texts: tuple[str, ...] = ()
    identifier: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """A call, as faults look at it."""

    method: str
    path: str
    subjects: tuple[Subject, ...] = (Subject(),)


class Rule:
    """A fault at work, and what it has done."""

    def __init__(self, id_: int, fault: Fault) -> None:
        self.id = id_
        self.fault = fault
        self.matched = 0
        self.struck = 0
        self.holding = 0
        self._chance = random.Random(fault.seed)  # noqa: S311 - repeatable, not secret
        self._released = asyncio.Event()
        self._changed = asyncio.Condition()

    def strikes(self, seen: Seen, now_us: int) -> bool:
        """Tell whether a call goes wrong, and count it."""
        fault = self.fault
        if fault.count is not None and self.struck >= fault.count:
            return False
        if fault.from_s is not None and now_us < fault.from_s * US_PER_S:
            return False
        if fault.until_s is not None and now_us >= fault.until_s * US_PER_S:
            return False
        if not self._matches(seen):
            return False
        self.matched += 1
        beyond = self.matched - fault.after
        if beyond < 1 or beyond % fault.every:
            return False
        if fault.probability < 1 and self._chance.random() >= fault.probability:
            return False
        self.struck += 1
        return True

    async def hold(self) -> None:
        """Keep a call until `release`."""
        async with self._changed:
            self.holding += 1
            self._changed.notify_all()
        await self._released.wait()

    async def reached(self, calls: int = 1) -> None:
        """Wait until so many calls have been held."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.holding >= calls)

    def release(self) -> None:
        """Let go the calls that are held, and those that would be."""
        self._released.set()

    def read(self) -> dict[str, object]:
        """Return the fault with what it has done."""
        did = {"id": self.id, "matched": self.matched, "struck": self.struck}
        return {**did, "holding": self.holding, **asdict(self.fault)}

    def _matches(self, seen: Seen) -> bool:
        fault = self.fault
        return (
            fnmatchcase(seen.method, fault.method.upper())
            and fnmatchcase(seen.path, fault.path)
            and any(self._is_about(subject) for subject in seen.subjects)
        )

    def _is_about(self, subject: Subject) -> bool:
        fault = self.fault
        return (
            fnmatchcase(subject.event_name, fault.event_name)
            and fnmatchcase(subject.identifier, fault.identifier)
            and (
                fault.customer == "*"
                or any(fnmatchcase(text, fault.customer) for text in subject.texts)
            )
        )


class Faults:
    """All faults at work, in the order they were added."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rules: dict[int, Rule] = {}
        self._added = 0

    def __iter__(self) -> Iterator[Rule]:
        return iter(tuple(self._rules.values()))

    def add(self, fault: Fault) -> Rule:
        """Put a fault to work. Raises `StripeFault` where there are too many."""
        if len(self._rules) >= self._most:
            raise full("faults", self._most)
        self._added += 1
        rule = self._rules[self._added] = Rule(self._added, fault)
        return rule

    def get(self, id_: int) -> Rule | None:
        """Return a fault by its number, None where there is none."""
        return self._rules.get(id_)

    def remove(self, id_: int) -> None:
        """End a fault; what it holds is let go."""
        rule = self._rules.pop(id_, None)
        if rule is not None:
            rule.release()

    def clear(self) -> None:
        """End all faults; what they hold is let go."""
        for id_ in tuple(self._rules):
            self.remove(id_)

    def strike(self, seen: Seen, now_us: int) -> Rule | None:
        """Return the fault that strikes a call, None where none does."""
        return next((rule for rule in self._rules.values() if rule.strikes(seen, now_us)), None)


def fault_of(values: dict[str, Any]) -> Fault:
    """Read a fault, as the control surface is sent it. Raises `StripeFault`."""
    known = {each.name: each for each in fields(Fault)}
    for name, value in values.items():
        if name not in known:
            raise invalid(f"There is no {name} in a fault.", param=name)
        wanted = _WHOLE if name in _WHOLE_NAMES else _NUMBER if name in _NUMBER_NAMES else str
        if isinstance(value, bool) or not isinstance(value, wanted):
            raise invalid(f"Invalid {name}.", param=name)
    if "kind" not in values:
        raise invalid(f"A fault has a kind: {', '.join(FaultKind)}.", param="kind")
    try:
        return Fault(**values)
    except (TypeError, ValueError) as error:
        raise invalid(f"Invalid fault: {error}.") from None


def subjects(values: dict[str, Any]) -> tuple[Subject, ...]:
    """Return what the parameters of a call are about."""
    events = values.get("events")
    rows: Sequence[Any] = events if isinstance(events, list) else [values]
    return tuple(_subject(row) for row in rows if isinstance(row, dict)) or (Subject(),)


def _subject(row: dict[str, Any]) -> Subject:
    payload, cancel = row.get("payload"), row.get("cancel")
    texts = [row.get("customer"), *(payload.values() if isinstance(payload, dict) else ())]
    identifier = cancel.get("identifier") if isinstance(cancel, dict) else row.get("identifier")
    return Subject(
        event_name=_text(row.get("event_name")),
        texts=tuple(text for text in texts if isinstance(text, str)),
        identifier=_text(identifier),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
