"""The digest that tells a repeat of a call from another one under the same id.

Guarantees: the same content gives the same digest, in every process and version; so do calls that
differ by their places on one stem alone.
Refuses to know: how content is encoded.
"""

import hashlib
from typing import Final

from tallygate.domain.decision import Mode
from tallygate.domain.made import without_places

FINGERPRINT_BYTES: Final = 16


def fingerprint(mode: Mode, payload: bytes, *more: str) -> str:
    """Return the digest of a call's events, and of what else makes it another one."""
    content = without_places(payload)
    digest = hashlib.blake2b(content, digest_size=FINGERPRINT_BYTES, person=mode.encode())
    for each in more:
        digest.update(f"|{each}".encode())
    return digest.hexdigest()
