"""What was answered under which Idempotency-Key.

Guarantees: v1 repeats the first answer, a 500 too, once an endpoint has begun; v2 repeats what
succeeded and tries again what failed; a key that comes with another request is refused; a key whose
call is not answered yet is refused; keys are forgotten once their window is over.
Refuses to know: identifiers of meter events, which are another layer.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from .errors import full, invalid, key_in_use, key_reused

KEY_LENGTH_MAX: Final = 255


@dataclass(slots=True)
class Answer:
    """What was answered, byte for byte."""

    status: int
    body: bytes
    request_id: str


@dataclass(slots=True)
class _Entry:
    path: str
    digest: bytes
    expires_us: int
    answer: Answer | None = None


class IdempotencyKeys:
    """The keys of one account, of v1 and v2 apart."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def begin(
        self, api: str, key: str, *, path: str, body: bytes, now_us: int, window_us: int
    ) -> Answer | None:
        """Take a key up; return what was answered under it, None where the call is to be made.

        Raises `StripeFault`: 400 for another request, 409 while the first is not answered.
        """
        if len(key) > KEY_LENGTH_MAX:
            raise invalid(f"An idempotency key has at most {KEY_LENGTH_MAX} characters.")
        self._forget(now_us)
        digest = hashlib.sha256(body).digest()
        entry = self._entries.get((api, key))
        if entry is not None and entry.answer is not None and entry.expires_us <= now_us:
            del self._entries[api, key]
            entry = None
        if entry is None:
            if len(self._entries) >= self._most:
                raise full("idempotency keys", self._most)
            self._entries[api, key] = _Entry(path, digest, now_us + window_us)
            return None
        if entry.path != path:
            raise key_reused(key, "endpoint")
        if entry.digest != digest:
            raise key_reused(key, "parameters")
        if entry.answer is None:
            raise key_in_use(key)
        return entry.answer

    def keep(self, api: str, key: str, answer: Answer) -> None:
        """Remember what a key's call was answered."""
        self._entries[api, key].answer = answer

    def let_go(self, api: str, key: str) -> None:
        """Forget a key whose call did not begin, so that it may be made again."""
        self._entries.pop((api, key), None)

    def _forget(self, now_us: int) -> None:
        # Windows differ between v1 and v2 only, so that old entries lie close to the front.
        while self._entries:
            entry = next(iter(self._entries.values()))
            if entry.answer is None or entry.expires_us > now_us:
                return
            self._entries.popitem(last=False)
