"""sender ──HTTP──▶ [ take_events ] ──gRPC──▶ a sidecar's RecordUsage: events of other systems.

If we die here, nothing was said to the sender: it sends the same again, and what was recorded is
known by its ids.

Guarantees: a list with an event that is none, or that nothing here understands, is refused whole
before anything is recorded; a sender hears that all is well only when a sidecar has all of it.
Refuses to know: HTTP, and who may send for whom.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tallygate.domain.cloudevent import CloudEvent, Json, event_of, events_of
from tallygate.domain.errors import InvalidField, TallygateError
from tallygate.domain.event_rules import EventReader
from tallygate.domain.recording import TOGETHER_MAX, Later, Outcome, Recorded, Refused, Use
from tallygate.ports.recording import UsageRecorder


@dataclass(frozen=True, slots=True)
class EventFault:
    """What is wrong with one event of a list."""

    index: int
    reason: str
    message: str
    field: str = ""
    id: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Understood:
    """Events, and the usage that they are: each use with the place of its event."""

    events: Sequence[CloudEvent] = ()
    uses: Sequence[tuple[int, Use]] = ()
    ignored: int = 0
    faults: Sequence[EventFault] = ()

    def tenants(self) -> list[str]:
        """Return whose usage it is, each once."""
        return list(dict.fromkeys(use.tenant_id for _, use in self.uses))


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of the usage. With `later_ms` above 0, the same is to be sent again."""

    recorded: int = 0
    replayed: int = 0
    faults: Sequence[EventFault] = field(default_factory=list)
    later_ms: int = 0
    why: str = ""


class TakeEvents:
    """Understands events by the rules of now, and has them recorded."""

    def __init__(self, recorder: UsageRecorder, reader: Callable[[], EventReader]) -> None:
        self._recorder = recorder
        self._reader = reader

    def understand(self, document: "Json") -> Understood:
        """Return what a document says, or all that is wrong with it. Raises `InvalidField`."""
        reader = self._reader()
        events, uses, faults, ignored = list[CloudEvent](), list[tuple[int, Use]](), [], 0
        for index, each in events_of(document):
            try:
                event = event_of(each)
                found = reader.uses(event)
            except TallygateError as error:
                faults.append(_fault(index, each, error))
                continue
            events.append(event)
            ignored += found is None
            uses += [(index, use) for use in found or ()]
        return Understood(events, uses, ignored, faults)

    async def record(self, understood: Understood) -> Taken:
        """Have all of it recorded; where nobody takes it now, the rest is not tried."""
        recorded = replayed = later_ms = 0
        faults, why = list[EventFault](), ""
        for start in range(0, len(understood.uses), TOGETHER_MAX):
            part = understood.uses[start : start + TOGETHER_MAX]
            outcomes = await self._recorder.record([use for _, use in part])
            for (index, use), outcome in zip(part, outcomes, strict=True):
                match outcome:
                    case Recorded(replayed=known):
                        recorded += not known
                        replayed += known
                    case Refused():
                        faults.append(_refused(index, use, outcome))
                    case Later():
                        later_ms = max(later_ms, outcome.after_ms, 1)
                        why = why or _said(outcome)
            if later_ms:
                break
        return Taken(recorded, replayed, faults, later_ms, why)


def _said(outcome: Outcome) -> str:
    return outcome.message if isinstance(outcome, Later) else ""


def _fault(index: int, document: "Json", error: TallygateError) -> EventFault:
    named = {}
    if isinstance(document, dict):
        named = {
            name: value[:200]
            for name in ("id", "source")
            if isinstance(value := document.get(name), str)
        }
    field_name = error.field if isinstance(error, InvalidField) or error.field else "event"
    return EventFault(index, error.reason, error.message, field_name, **named)


def _refused(index: int, use: Use, outcome: Refused) -> EventFault:
    return EventFault(index, outcome.reason, f"{use.meter}: {outcome.message}", outcome.field)
