"""Requests of CheckAndConsume that say what one before them said, under another operation id.

Guarantees: a request that is found here is what reading and checking it anew would give.
Refuses to know: what is decided of it.

Most callers ask for the same again and again: to read and check it takes two to four times as long
as to find it.
"""

from typing import Final

from tallygate.api.content import without_id
from tallygate.api.convert import consume_request, operation_id_of
from tallygate.domain.request import ConsumeRequest
from tallygate.gen.v1 import quota_pb2

# Contents that are kept: some kilobytes each, at most.
CONTENTS_MAX: Final = 4_000
# A longer one is seldom sent twice, as dimensions and metadata are what makes it long.
CONTENT_BYTES_MAX: Final = 512


class Contents:
    """Remembers contents by their bytes."""

    def __init__(self) -> None:
        self._known: dict[bytes, ConsumeRequest] = {}

    def request(self, data: bytes) -> ConsumeRequest:
        """Return the request that these bytes are. Raises `DecodeError` and `InvalidField`."""
        known, named = self._known.get(data), ""
        if known is None:
            found = without_id(data)
            if found is not None:
                content, named = found
                known = self._known.get(content)
            if known is None:
                return self._read(data, found[0] if found is not None else b"")
        # By place, as names cost twice as much, and nearly every call comes through here.
        return ConsumeRequest(
            known.tenant_id,
            known.items,
            operation_id_of(named),
            known.context,
            known.min_durability,
        )

    def _read(self, data: bytes, content: bytes) -> ConsumeRequest:
        message = quota_pb2.CheckAndConsumeRequest.FromString(data)
        request = consume_request(message)
        if not message.operation_id:
            # Without an id, it is its own content; with one that was not found, it is nobody's.
            content = data
        if content and len(content) <= CONTENT_BYTES_MAX:
            if len(self._known) >= CONTENTS_MAX:
                self._known.clear()
            self._known[content] = request
        return request
