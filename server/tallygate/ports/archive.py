"""What is left to say of a month whose events were dropped.

Guarantees: none but that of its types.
Refuses to know: how months are dropped.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ArchivedMonth:
    """A month whose events are in a file alone; the digest is the file's SHA-256 in hex."""

    month_us: int
    file: str
    file_sha256: str
    dropped_at_us: int
