"""What every `TokenVerifier` promises, and what a signed token is held to."""

import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tallygate.adapters.tokens.key_file import FileKeys
from tallygate.adapters.tokens.key_set import KeySetInvalid, parse_key_set
from tallygate.adapters.tokens.observer import SilentKeys
from tallygate.adapters.tokens.verifier import JwtVerifier, TokenTerms
from tallygate.domain.caller import AdminRole, Caller, Tenants
from tallygate.domain.errors import TokenExpired, Unauthenticated
from tallygate.ports.tokens import TokenVerifier
from tallygate.testing.tokens import FakeTokens
from tests.access.signing import AUDIENCE, ISSUER, Signer, key_set, signer, write_keys

TERMS = TokenTerms(ISSUER, AUDIENCE, leeway_s=1.0)
ADA = Caller(
    "ada",
    frozenset((AdminRole.READER, AdminRole.FINANCE)),
    Tenants.of(["acme", "team-*"], "tenants"),
)
GOOD: dict[str, Any] = {
    "roles": ["reader", "finance", "of-another-program"],
    "tenants": ["acme", "team-*"],
}


class Counted(SilentKeys):
    """Counts what sources of keys tell."""

    def __init__(self) -> None:
        self.keys = 0
        self.failures = 0

    def keys_read(self, keys: int) -> None:
        """Note how many there are."""
        self.keys = keys

    def keys_failed(self) -> None:
        """Count a failure."""
        self.failures += 1


def write(path: Path, content: bytes | None) -> None:
    """Give a file other content in its place, or take it away."""
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with the keys of one signer of each kind."""
    kinds = [signer(kind, kind) for kind in ("RS256", "ES256", "EdDSA")]
    return write_keys(tmp_path / "keys.json", signer(), *kinds)


@pytest.fixture
def verifier(path: Path) -> JwtVerifier:
    """A verifier over that file."""
    return JwtVerifier(FileKeys(path, SilentKeys()), TERMS)


@pytest.fixture(params=["fake", "signed"])
async def port(request: pytest.FixtureRequest, verifier: JwtVerifier) -> AsyncIterator[Any]:
    """Each kind of verifier, a good token, one of which the time is over, and one of nobody."""
    if request.param == "fake":
        fake: TokenVerifier = FakeTokens({"good": ADA}, frozenset(("over",)))
        yield fake, "good", "over", "of-nobody"
    else:
        signed: TokenVerifier = verifier
        over = signer().sign(exp=int(time.time()) - 60)
        yield signed, signer().sign(**GOOD), over, signer("stranger").sign()


async def test_each_verifier_tells_whose_a_token_is(port: Any) -> None:
    """A good token has a name, roles and tenants; one that is over, or of nobody, is refused."""
    verify, good, over, foreign = port
    assert await verify.verify(good) == ADA
    with pytest.raises(TokenExpired):
        await verify.verify(over)
    with pytest.raises(Unauthenticated) as refused:
        await verify.verify(foreign)
    assert refused.value.reason == "UNAUTHENTICATED"


@pytest.mark.parametrize("kind", ["RS256", "ES256", "EdDSA"])
async def test_each_algorithm_is_verified(verifier: JwtVerifier, kind: str) -> None:
    """A token counts by a key of its own kind."""
    assert (await verifier.verify(signer(kind, kind).sign())).name == "ada"


BAD: dict[str, dict[str, Any]] = {
    "`aud` is not": {"aud": "another"},
    "`iss` is not": {"iss": "https://evil.example.org"},
    "lacks `exp`": {"exp": None},
    "lacks `sub`": {"sub": None},
    "lacks `aud`": {"aud": None},
    # In 2038: whatever lies between collecting and running.
    "time has not come": {"nbf": 2**31 - 1},
    "`sub` must": {"sub": "a\nb"},
    "`roles` is no list": {"roles": {"admin": True}},
    "`tenants` is no list": {"tenants": [1]},
    "`tenants` must be printable": {"tenants": ["two words"]},
}


@pytest.mark.parametrize("said", BAD)
async def test_claims_are_held_to_the_terms(verifier: JwtVerifier, said: str) -> None:
    """Each claim that is wrong is refused, and named."""
    with pytest.raises(Unauthenticated, match=said):
        await verifier.verify(signer().sign(**BAD[said]))


def _unsigned(header: dict[str, Any]) -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    claims = {"sub": "eve", "iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 60}
    return f"{part(header)}.{part(claims)}."


async def test_forged_tokens_are_refused(verifier: JwtVerifier) -> None:
    """No signature, another's, a shared secret made of the public key, or another algorithm."""
    own = signer("RS256", "RS256")
    pem = own.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    shared = jwt.api_jws.PyJWS().encode(
        b"{}", base64.b64encode(pem), algorithm="HS256", headers={"kid": "RS256"}
    )
    good = signer().sign()
    swapped = good.rpartition(".")[0] + "." + signer().sign(sub="eve").rpartition(".")[2]
    forged = [
        *(_unsigned({"alg": "none", "kid": "one"}), shared, swapped),
        *(
            Signer("one", "ES256", signer("other").key).sign(),
            signer().sign(header={"crit": ["x"]}),
        ),
        *(Signer("RS256", "ES256", signer().key).sign(), _unsigned({"alg": "ES256", "kid": 7})),
        *("", "a.b.c", "a" * 9_000, "\u00e9.b.c", good[:-9], signer().sign(header={"kid": None})),
    ]
    for token in forged:
        with pytest.raises(Unauthenticated) as refused:
            await verifier.verify(token)
        assert not isinstance(refused.value, TokenExpired)
        assert "eve" not in refused.value.message
        assert refused.value.__cause__ is None


async def test_no_tenants_is_not_all_tenants(verifier: JwtVerifier) -> None:
    """An empty list of tenants covers none; a token without the claim covers all."""
    nobodys = await verifier.verify(signer().sign(tenants=[]))
    assert not nobodys.tenants.covers("acme")
    assert (await verifier.verify(signer().sign())).tenants.covers("acme")


async def test_keys_rotate_without_a_refused_call(path: Path) -> None:
    """Old and new keys count side by side, and one that is taken out counts no more."""
    counted = Counted()
    verifier = JwtVerifier(FileKeys(path, counted), TERMS)
    old, new = signer(), signer("two")
    with pytest.raises(Unauthenticated):
        await verifier.verify(new.sign())
    write_keys(path, old, new)
    for each in (old, new):
        assert (await verifier.verify(each.sign())).name
    write_keys(path, new)
    assert (await verifier.verify(new.sign())).name
    with pytest.raises(Unauthenticated, match="no key that is trusted"):
        await verifier.verify(old.sign())
    assert (counted.keys, counted.failures) == (1, 0)


async def test_a_broken_file_leaves_the_keys(path: Path) -> None:
    """What cannot be read is told once for each state, and the last keys count on."""
    counted = Counted()
    verifier = JwtVerifier(FileKeys(path, counted), TERMS)
    write(path, b"{")
    for _ in range(2):
        assert (await verifier.verify(signer().sign())).name
    assert counted.failures == 1
    write(path, None)
    for _ in range(2):
        assert (await verifier.verify(signer().sign())).name
    assert counted.failures == 2
    write_keys(path, signer("two"))
    assert (await verifier.verify(signer("two").sign())).name


def test_a_file_that_cannot_be_used_is_refused_at_the_start(tmp_path: Path) -> None:
    """The fault names the setting and the file."""
    for content in (None, b"[]"):
        if content is not None:
            (tmp_path / "keys.json").write_bytes(content)
        with pytest.raises(KeySetInvalid) as raised:
            FileKeys(tmp_path / "keys.json", SilentKeys())
        assert raised.value.field == "token_keys_file"
        assert "keys.json" in raised.value.message


SHORT = rsa.generate_private_key(65_537, 1_024)
SETS: dict[str, bytes] = {
    "is not JSON": b"\xff",
    "no list `keys`": b'{"keys": {}}',
    "is no object": b'{"keys": [1]}',
    "more than 64": key_set(*[signer()] * 65),
    "another key of its `kid`": key_set(signer(), signer()),
    "private or shared": key_set(signer(), more=[{"kty": "oct", "k": "c2VjcmV0"}]),
    "fewer than 2048": key_set(Signer("short", "RS256", SHORT)),
    "is no ES256 key": key_set(more=[{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]),
    "no key for RS256": key_set(more=[signer().public(use="enc")]),
    "larger than": b" " * 300_000,
}


@pytest.mark.parametrize("said", SETS)
def test_key_sets_are_held_to_their_form(said: str) -> None:
    """A set that cannot be trusted is refused, with the place of what is wrong."""
    with pytest.raises(KeySetInvalid, match=said):
        parse_key_set(SETS[said])


def test_keys_for_other_purposes_are_passed_over() -> None:
    """Providers list keys for encryption, and of other kinds, in the same set."""
    others = [{**signer("x").public(), "alg": "ES512"}, {"kty": "EC", "crv": "P-521", "kid": "y"}]
    assert set(parse_key_set(key_set(signer(), more=others)).keys) == {"one"}
