"""Sessions of the meter event stream.

Guarantees: a token is good until its session expires, then refused as expired; a token that was
never given out is refused as wrong.
Refuses to know: what is sent under a token.
"""

import hashlib
from dataclasses import dataclass

from .errors import StripeFault, unauthenticated
from .keys import shown
from .tables import Table


@dataclass(frozen=True, slots=True)
class Session:
    """Who may stream, and until when."""

    id: str
    token: str
    account: str
    livemode: bool
    created_us: int
    expires_us: int


class Sessions:
    """All sessions that were opened, by their tokens."""

    def __init__(self, most: int) -> None:
        self._open: Table[Session] = Table("meter event session", most)

    def begin(
        self, id_: str, account: str, *, livemode: bool, now_us: int, length_us: int
    ) -> Session:
        """Open a session. Raises `StripeFault` where there are too many."""
        oldest = next(iter(self._open), None)
        # Long enough after its end, nobody is told any more that it was one.
        if oldest is not None and now_us > oldest.expires_us + length_us:
            self._open.remove(oldest.token)
        text = "mes_" + hashlib.sha256(f"{account} {id_}".encode()).hexdigest()
        session = Session(id_, text, account, livemode, now_us, now_us + length_us)
        return self._open.add(text, session)

    def read(self, text: str, now_us: int) -> Session:
        """Return the session of a token. Raises `StripeFault`: 401."""
        session = self._open.find(text)
        if session is None:
            raise unauthenticated(f"Invalid session token provided: {shown(text)}")
        if now_us >= session.expires_us:
            raise StripeFault(
                401,
                "temporary_session_expired",
                "The session has expired; create another one.",
                "billing_meter_event_session_expired",
            )
        return session
