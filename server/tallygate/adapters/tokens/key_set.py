"""A set of public keys (JWKS), read and checked.

Guarantees: each key is for one algorithm, as strong as that asks for, and public; how many there
are is bounded. A set that holds a private or a shared key is refused: it lies where others read it.
Refuses to know: where sets come from.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from tallygate.domain.errors import TallygateError

# A provider has a few, and twice as many while it rotates.
KEYS_MAX: Final = 64
SET_BYTES_MAX: Final = 256 * 1024
RSA_BITS_MIN: Final = 2_048
ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
# What a key's kind and curve are used for here; others are for other purposes, or other servers.
_KINDS: Final[Mapping[tuple[str, str], str]] = {
    ("RSA", ""): "RS256",
    ("EC", "P-256"): "ES256",
    ("OKP", "Ed25519"): "EdDSA",
}
_PRIVATE: Final = frozenset(("d", "p", "q", "dp", "dq", "qi", "k"))


class KeySetInvalid(TallygateError):
    """The set of keys cannot be used."""

    reason = "INVALID_FIELD"


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A public key by its id, and the one algorithm that it is used with."""

    kid: str
    algorithm: str
    key: Any = field(repr=False)  # `cryptography` has a type for each kind


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys by id; those without one stand under the empty id."""

    keys: Mapping[str, TokenKey] = field(default_factory=dict)

    def find(self, kid: str) -> TokenKey | None:
        """Return the key of an id. A token that names none may be of a set of one key."""
        if not kid and len(self.keys) == 1:
            return next(iter(self.keys.values()))
        return self.keys.get(kid)


def parse_key_set(data: bytes) -> KeySet:
    """Return the keys of a JSON document. Raises `KeySetInvalid`, naming what is wrong by place."""
    if len(data) > SET_BYTES_MAX:
        raise KeySetInvalid(f"it is larger than {SET_BYTES_MAX} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        # The fault quotes the text, which may be a key by mistake.
        raise KeySetInvalid("it is not JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise KeySetInvalid("it is no key set: it has no list `keys`")
    if len(entries) > KEYS_MAX:
        raise KeySetInvalid(f"it has more than {KEYS_MAX} keys")
    found: dict[str, TokenKey] = {}
    for place, entry in enumerate(entries):
        key = _key(entry, f"keys[{place}]")
        if key is None:
            continue
        if key.kid in found:
            raise KeySetInvalid(f"keys[{place}]: there is another key of its `kid`")
        found[key.kid] = key
    if not found:
        raise KeySetInvalid(f"it has no key for {', '.join(ALGORITHMS)}")
    return KeySet(found)


def _key(entry: object, path: str) -> TokenKey | None:
    """Return a key, None for one that is meant for something else."""
    if not isinstance(entry, dict):
        raise KeySetInvalid(f"{path} is no object")
    if _PRIVATE & entry.keys():
        raise KeySetInvalid(f"{path} holds a private or shared key: only public ones belong here")
    algorithm = _KINDS.get((str(entry.get("kty")), str(entry.get("crv", ""))))
    if (
        algorithm is None
        or entry.get("use", "sig") != "sig"
        or "verify" not in entry.get("key_ops", ["verify"])
        or entry.get("alg", algorithm) not in (algorithm, _KIND_NAMES.get(algorithm))
    ):
        return None
    kid = entry.get("kid", "")
    if not isinstance(kid, str):
        raise KeySetInvalid(f"{path}.kid is no text")
    try:
        key = jwt.PyJWK(entry, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        raise KeySetInvalid(f"{path} is no {algorithm} key") from None
    if isinstance(key, RSAPublicKey) and key.key_size < RSA_BITS_MIN:
        raise KeySetInvalid(f"{path} is an RSA key of fewer than {RSA_BITS_MIN} bits")
    return TokenKey(kid, algorithm, key)


# Newer sets call it by its curve.
_KIND_NAMES: Final[Mapping[str, str]] = {"EdDSA": "Ed25519"}
