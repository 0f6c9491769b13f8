"""Keys and tokens that tests make: one key of each kind, made once.

Guarantees: what is made here is made by no code of the product.
Refuses to know: what the product thinks of it.
"""

import functools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://id.example.org"
AUDIENCE = "tallygate"


@dataclass(frozen=True)
class Signer:
    """A private key under an id."""

    kid: str
    algorithm: str
    key: Any = field(repr=False)

    def public(self, **more: Any) -> dict[str, Any]:
        """Return its public part, as a set of keys has it."""
        kinds: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}
        found = kinds[self.algorithm].to_jwk(self.key.public_key(), as_dict=True)
        return {**found, "kid": self.kid, **more}

    def sign(self, *, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Return a good token for ada, with claims replaced; None leaves one out."""
        now = int(time.time())
        said: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "ada",
            "iat": now,
            "exp": now + 600,
            "roles": ["reader"],
            **claims,
        }
        said = {name: value for name, value in said.items() if value is not None}
        named = {"kid": self.kid, **(header or {})}
        return jwt.encode(
            said,
            self.key,
            algorithm=self.algorithm,
            headers={name: value for name, value in named.items() if value is not None},
        )


@functools.cache
def signer(kid: str = "one", algorithm: str = "ES256") -> Signer:
    """Return the signer of an id and a kind."""
    if algorithm == "RS256":
        return Signer(kid, algorithm, rsa.generate_private_key(65_537, 2_048))
    if algorithm == "EdDSA":
        return Signer(kid, algorithm, ed25519.Ed25519PrivateKey.generate())
    return Signer(kid, algorithm, ec.generate_private_key(ec.SECP256R1()))


def key_set(*signers: Signer, more: Sequence[dict[str, Any]] = ()) -> bytes:
    """Return a set of their public keys, and of others."""
    return json.dumps({"keys": [*(each.public() for each in signers), *more]}).encode()


def write_keys(path: Path, *signers: Signer) -> Path:
    """Put a set in the place of a file, as a mounted secret is replaced."""
    draft = path.with_suffix(".new")
    draft.write_bytes(key_set(*signers))
    draft.replace(path)
    return path
