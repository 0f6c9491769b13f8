"""The time of encoded events, set after the fact.

Guarantees: everything else of the events stays as it is, fields of a later version included.
Refuses to know: why an event is dated later than it was encoded.
"""

from tallygate.gen.v1 import event_pb2


class ProtobufEventDater:
    """Dates a `UsageEventBatch`."""

    def dated(self, payload: bytes, at_us: int) -> bytes:
        """Return the batch with that time in each event that names none."""
        batch = event_pb2.UsageEventBatch.FromString(payload)
        for event in batch.events:
            if not event.HasField("event_time"):
                event.event_time.FromMicroseconds(at_us)
        return batch.SerializeToString(deterministic=True)
