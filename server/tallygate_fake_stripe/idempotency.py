"""What was answered under which Idempotency-Key.

Guarantees: v1 repeats the first answer, a 500 too, once an endpoint has begun; v2 repeats what
succeeded and tries again what failed; a key that comes with another request is refused; a key whose
call is not answered yet is refused; keys are forgotten once their window is over.
Refuses to know: identifiers of meter events, which are another layer.
"""

import hashlib
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from .errors import full, invalid, key_in_use, key_reused

KEY_LENGTH_MAX: Final = 255


@dataclass(slots=True)
class Answer:
    """What was answered, byte for byte, with what a refusal says beside its body."""

    status: int
    body: bytes
    request_id: str
    headers: Mapping[str, str] = field(default_factory=dict)


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
        # Each in the order in which its keys expire, as all of an API live equally long.
        self._entries: dict[str, OrderedDict[str, _Entry]] = defaultdict(OrderedDict)

    def begin(
        self, api: str, key: str, *, path: str, body: bytes, now_us: int, window_us: int
    ) -> Answer | None:
        """Take a key up; return what was answered under it, None where the call is to be made.

        Raises `StripeFault`: 400 for another request, 409 while the first is not answered.
        """
        if len(key) > KEY_LENGTH_MAX:
            raise invalid(f"An idempotency key has at most {KEY_LENGTH_MAX} characters.")
        entries = self._entries[api]
        _forget(entries, now_us)
        digest = hashlib.sha256(body).digest()
        entry = entries.get(key)
        if entry is not None and entry.answer is not None and entry.expires_us <= now_us:
            del entries[key]
            entry = None
        if entry is None:
            if len(entries) >= self._most:
                raise full("idempotency keys", self._most)
            entries[key] = _Entry(path, digest, now_us + window_us)
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
        self._entries[api][key].answer = answer

    def let_go(self, api: str, key: str) -> None:
        """Forget a key whose call did not begin, so that it may be made again."""
        self._entries[api].pop(key, None)


def _forget(entries: OrderedDict[str, _Entry], now_us: int) -> None:
    """Forget keys whose time is over, from the front on."""
    while entries:
        entry = next(iter(entries.values()))
        if entry.answer is None or entry.expires_us > now_us:
            return
        entries.popitem(last=False)
