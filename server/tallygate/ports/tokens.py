"""The seam of bearer tokens: who a token proves its bearer to be.

Guarantees: what is returned was signed by a key that is trusted now.
Refuses to know: formats, keys, and what the bearer asks for.
"""

from typing import Protocol

from tallygate.domain.caller import Caller


class TokenVerifier(Protocol):
    """Tells whose a token is."""

    async def verify(self, token: str) -> Caller:
        """Return whose token it is.

        Raises `Unauthenticated`, which `TokenExpired` is, and `BackendUnavailable` where it cannot
        be told which keys are trusted.
        """
        ...
