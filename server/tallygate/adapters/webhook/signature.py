"""Signatures of webhooks, after Standard Webhooks: HMAC-SHA256 over id, timestamp and payload.

Guarantees: a secret never appears in an error or a representation.
Refuses to know: HTTP, and where secrets are kept.
"""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from tallygate.domain.errors import InvalidField

PREFIX: Final = "whsec_"
# The bounds that the specification sets on a symmetric key.
KEY_BYTES_MIN: Final = 24
KEY_BYTES_MAX: Final = 64
# While a secret is rotated there are two; more are a mistake, and each costs header space.
KEYS_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """The keys that sign for one destination, the newest first."""

    keys: tuple[bytes, ...] = field(repr=False)

    def sign(self, message_id: str, timestamp_s: int, payload: bytes) -> str:
        """Return the `webhook-signature` header: one signature per key, so that keys can rotate."""
        signed = f"{message_id}.{timestamp_s}.".encode() + payload
        return " ".join(f"v1,{_hmac(key, signed)}" for key in self.keys)


def signing_keys(secret: str, field_name: str = "secret") -> SigningKeys:
    """Read `whsec_` and base64; several, separated by spaces, while a secret is rotated.

    Raises `InvalidField` naming `field_name`, never showing the secret.
    """
    parts = secret.split()
    if not 1 <= len(parts) <= KEYS_MAX:
        raise InvalidField(f"must hold from 1 to {KEYS_MAX} secrets", field=field_name)
    return SigningKeys(tuple(_key(part, field_name) for part in parts))


def _key(secret: str, field_name: str) -> bytes:
    if not secret.startswith(PREFIX):
        raise InvalidField(f"must begin with {PREFIX}", field=field_name)
    encoded = secret.removeprefix(PREFIX)
    try:
        # Some generators leave the padding out.
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        # From None, as the cause holds the secret in its traceback's locals.
        raise InvalidField(f"must be {PREFIX} and base64", field=field_name) from None
    if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        raise InvalidField(
            f"must hold from {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes", field=field_name
        )
    return key


def _hmac(key: bytes, signed: bytes) -> str:
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
