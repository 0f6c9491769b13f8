"""Tokens in memory.

Guarantees: passes the same contract tests as the verifier of signed ones.
Refuses to know: signatures.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tallygate.domain.caller import Caller
from tallygate.domain.errors import TokenExpired, Unauthenticated


@dataclass(slots=True)
class FakeTokens:
    """The `TokenVerifier` port over a mapping; `failure` is raised instead while it is set."""

    callers: Mapping[str, Caller] = field(default_factory=dict)
    expired: frozenset[str] = frozenset()
    failure: Exception | None = None

    async def verify(self, token: str) -> Caller:
        """Return whose token it is."""
        if self.failure is not None:
            raise self.failure
        if token in self.expired:
            raise TokenExpired
        if token not in self.callers:
            raise Unauthenticated
        return self.callers[token]
