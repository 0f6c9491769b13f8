"""Makes keys, and tokens signed with them, for installations without an identity provider.

Guarantees: a private key is in a file that its owner alone may read, and in nothing else; a key
that is added leaves those that are trusted already; a file is there whole, or as it was before.
Refuses to know: what roles may do.
"""

import base64
import hashlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tallygate.adapters.tokens.key_set import SET_BYTES_MAX, KeySetInvalid, parse_key_set
from tallygate.adapters.tokens.verifier import TokenTerms
from tallygate.domain.caller import AdminRole
from tallygate.domain.errors import InvalidField, TallygateError

KEYS_NAME: Final = "keys.json"
PRIVATE_NAME: Final = "signing.pem"
RSA_BITS: Final = 3_072
PEM_BYTES_MAX: Final = 64 * 1024

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class KeyFileFault(TallygateError):
    """A file of keys cannot be read or written."""

    reason = "INVALID_FIELD"


@dataclass(frozen=True, slots=True)
class Granted:
    """What a token says: whose it is, which roles, whose data (all without names), how long."""

    subject: str
    roles: Sequence[AdminRole]
    tenants: Sequence[str]
    lifetime_s: int


def add_key(folder: Path, algorithm: str) -> str:
    """Make a key, trust it, and sign with it from now on; return its id.

    Tokens of earlier keys stay good until `retire_key`.
    """
    key = _made(algorithm)
    public = _public(key)
    entries = _entries(folder / KEYS_NAME) if (folder / KEYS_NAME).exists() else []
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    # Trusted before anything is signed with it.
    _write_set(folder / KEYS_NAME, [*entries, public])
    _write(folder / PRIVATE_NAME, pem, 0o600)
    return str(public["kid"])


def retire_key(folder: Path, kid: str) -> None:
    """Trust a key no more. Raises `InvalidField` for one that is not trusted."""
    entries = _entries(folder / KEYS_NAME)
    left = [each for each in entries if each.get("kid") != kid]
    if len(left) == len(entries):
        raise InvalidField("is no key of this set", field="--retire")
    if not left:
        raise InvalidField("is the only key: make another first", field="--retire")
    _write_set(folder / KEYS_NAME, left)


def mint(private: Path, granted: Granted, terms: TokenTerms, now_s: int) -> str:
    """Return a token signed with the key of a file. Raises `KeyFileFault`."""
    key = _load(private)
    public = _public(key)
    claims: dict[str, Any] = {
        "iss": terms.issuer,
        "aud": terms.audience,
        "sub": granted.subject,
        "iat": now_s,
        "exp": now_s + granted.lifetime_s,
        "jti": uuid.uuid4().hex,
        terms.roles_claim: [role.value for role in granted.roles],
    }
    if granted.tenants:
        claims[terms.tenants_claim] = [*granted.tenants]
    return jwt.encode(claims, key, algorithm=public["alg"], headers={"kid": public["kid"]})


def write_token(path: Path, token: str) -> None:
    """Keep a token in a file that its owner alone may read. Raises `KeyFileFault`."""
    _write(path, f"{token}\n".encode(), 0o600)


def _made(algorithm: str) -> PrivateKey:
    match algorithm:
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
        case "RS256":
            return rsa.generate_private_key(65_537, RSA_BITS)
        case _:
            raise InvalidField("must be ES256, EdDSA or RS256", field="--algorithm")


def _public(key: PrivateKey) -> dict[str, Any]:
    """Return a key's public part; its id is its thumbprint (RFC 7638)."""
    public: dict[str, Any]
    if isinstance(key, rsa.RSAPrivateKey):
        public = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        algorithm = "RS256"
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        public = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        algorithm = "ES256"
    else:
        public = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
        algorithm = "EdDSA"
    public = {name: public[name] for name in ("kty", "crv", "x", "y", "e", "n") if name in public}
    canonical = json.dumps(public, sort_keys=True, separators=(",", ":")).encode()
    kid = base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()
    return {**public, "kid": kid, "alg": algorithm, "use": "sig"}


def _load(path: Path) -> PrivateKey:
    try:
        with path.open("rb") as file:
            key = load_pem_private_key(file.read(PEM_BYTES_MAX), None)
    except OSError as error:
        raise KeyFileFault(f"{path} cannot be read: {error.strerror}", field="--key") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # What is wrong with it would quote it.
        raise KeyFileFault(f"{path} is no private key in PEM", field="--key") from None
    strong = isinstance(key, ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp256r1"
    )
    if not strong:
        raise KeyFileFault(f"{path} is no key for ES256, EdDSA or RS256", field="--key")
    assert isinstance(key, PrivateKey)
    return key


def _entries(path: Path) -> list[Mapping[str, Any]]:
    try:
        with path.open("rb") as file:
            data = file.read(SET_BYTES_MAX + 1)
        parse_key_set(data)
    except OSError as error:
        raise KeyFileFault(f"{path} cannot be read: {error.strerror}", field="--out") from None
    except KeySetInvalid as error:
        raise KeyFileFault(f"{path}: {error.message}", field="--out") from None
    entries: list[Mapping[str, Any]] = json.loads(data)["keys"]
    return entries


def _write_set(path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    data = json.dumps({"keys": [*entries]}, indent=2).encode() + b"\n"
    parse_key_set(data)
    _write(path, data, 0o644)


def _write(path: Path, data: bytes, mode: int) -> None:
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(opened, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        reason = f"{path} cannot be written: {error.strerror}"
        raise KeyFileFault(reason, field="--out") from None
