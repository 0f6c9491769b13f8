"""API keys: whose they are, what they may do, whether they still hold.

Guarantees: a key of the right form is taken unless it was revoked; a restricted key that was given
permissions has no others; a refused key is shown by its ends alone.
Refuses to know: sessions of the meter event stream.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from .errors import forbidden, unauthenticated

ACCOUNT: Final = "acct_fake"
KEYS_MAX: Final = 1_000
_FORM: Final = re.compile(r"^(?P<kind>sk|rk)_(?P<mode>test|live)_\w+$")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key: what it may do is None where it may do everything."""

    text: str
    livemode: bool
    permissions: frozenset[str] | None = None

    def demand(self, permission: str) -> None:
        """Refuse what the key may not do. Raises `StripeFault`: 403."""
        if self.permissions is not None and permission not in self.permissions:
            raise forbidden(
                f"The provided key '{shown(self.text)}' does not have the required permissions for "
                f"this endpoint on account '{ACCOUNT}'. Having the 'rak_{permission}' permission "
                "would allow this request to continue."
            )


class KeyRing:
    """Keys that were restricted or revoked; all others of the right form may do everything."""

    def __init__(self) -> None:
        self._permissions: dict[str, frozenset[str]] = {}
        self._revoked: set[str] = set()

    def restrict(self, key: str, permissions: frozenset[str]) -> None:
        """Let a key do only this. Raises `ValueError` where there are too many keys."""
        if len(self._permissions) >= KEYS_MAX:
            raise ValueError(f"at most {KEYS_MAX} keys are restricted")
        self._permissions[key] = permissions

    def revoke(self, key: str) -> None:
        """Take a key back. Raises `ValueError` where there are too many keys."""
        if len(self._revoked) >= KEYS_MAX:
            raise ValueError(f"at most {KEYS_MAX} keys are revoked")
        self._revoked.add(key)

    def restore(self, key: str) -> None:
        """Let a key be as if nothing had been said of it."""
        self._revoked.discard(key)
        self._permissions.pop(key, None)

    def read(self, authorization: str | None) -> ApiKey:
        """Return the key of a request. Raises `StripeFault`: 401."""
        text = token(authorization)
        if not text:
            raise unauthenticated(
                "You did not provide an API key. Provide it in the Authorization header, as "
                "'Authorization: Bearer YOUR_SECRET_KEY'."
            )
        form = _FORM.match(text)
        if form is None:
            raise unauthenticated(f"Invalid API Key provided: {shown(text)}")
        if text in self._revoked:
            raise unauthenticated(f"Expired API Key provided: {shown(text)}", "api_key_expired")
        return ApiKey(text, form["mode"] == "live", self._permissions.get(text))


def token(authorization: str | None) -> str:
    """Return what an Authorization header carries, as Bearer or as the user of Basic."""
    scheme, _, rest = (authorization or "").partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


def shown(key: str) -> str:
    """Return a key as it may be shown."""
    return key if len(key) <= 12 else f"{key[:8]}{'*' * (len(key) - 12)}{key[-4:]}"
