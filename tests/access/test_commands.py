"""`tallygate token` and `tallygate redis acl`, and what our commands send."""

from pathlib import Path

import pytest

from tallygate.commands.channel import Target, TokenKept
from tallygate.settings import Settings
from tallygate.settings_access import stays_here
from tests.e2e.processes import tallygate


async def test_keys_and_tokens_are_made_and_checked(tmp_path: Path) -> None:
    """A token of the folder's key is good, of a retired key no more, and none is shown."""
    keys, token = tmp_path / "keys.json", tmp_path / "token"
    made = await tallygate("token", "keys", "--out", tmp_path, "--json")
    kid = made.json()["keys"][0]["key"]
    minted = await tallygate(
        *("token", "mint", "--key", tmp_path / "signing.pem", "--subject", "ci"),
        *("--role", "operator", "--tenant", "acme", "--tenant", "team-*", "--out", token),
    )
    assert (minted.code, minted.out) == (0, "")
    assert oct(token.stat().st_mode & 0o777) == "0o600"
    assert oct((tmp_path / "signing.pem").stat().st_mode & 0o777) == "0o600"
    checked = await tallygate("token", "check", "--json", token_keys_file=keys, token_file=token)
    assert checked.figures("token") == {
        "subject": "ci",
        "roles": "operator",
        "tenants": "acme team-*",
    }
    for more in ([], ["--retire", kid]):
        assert (await tallygate("token", "keys", "--out", tmp_path, *more)).code == 0
    refused = await tallygate("token", "check", "--file", token, token_keys_file=keys)
    assert refused.code == 1
    assert "no key that is trusted" in refused.err
    again = await tallygate("token", "keys", "--out", tmp_path, "--retire", kid)
    assert "is no key of this set" in again.err
    said = checked.out + checked.err + refused.out + refused.err + minted.err
    assert token.read_text().strip() not in said


async def test_users_of_redis_are_printed(tmp_path: Path) -> None:
    """A line for each role that has a password, which is in none of them."""
    (tmp_path / "serve").write_text("hunter2\n")
    printed = await tallygate("redis", "acl", "--passwords", tmp_path)
    assert printed.out.startswith("user tallygate-serve reset on #")
    assert printed.out.count("\n") == 1
    assert "hunter2" not in printed.out
    (tmp_path / "serve").write_text("")
    assert "is empty" in (await tallygate("redis", "acl", "--passwords", tmp_path)).err


async def test_roles_of_postgres_are_printed() -> None:
    """The script needs no database to be shown."""
    printed = await tallygate("migrate", "--show-roles")
    assert "tallygate_ingest" in printed.out


def test_a_token_leaves_the_machine_encrypted_alone(tmp_path: Path) -> None:
    """To another machine it is not sent in the clear, unless somebody says that a mesh encrypts."""
    file = tmp_path / "token"
    file.write_text("a.b.c\n")
    near = Target("127.0.0.1:50052", file).headers()
    assert ("authorization", "Bearer a.b.c") in near
    with pytest.raises(TokenKept, match="unencrypted"):
        Target("control.tallygate:50052", file).headers()
    assert Target("control.tallygate:50052", file, "any").headers() == near
    for content in (b"", b"two words", b"\xff"):
        file.write_bytes(content)
        with pytest.raises(TokenKept) as kept:
            Target("127.0.0.1:50052", file).headers()
        assert kept.value.field == "token_file"


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/run/control.sock", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("control:1", False),
    ],
)
def test_an_open_control_is_one_that_others_reach(address: str, here: bool) -> None:
    """Without keys it is open where other machines can call it, and with keys nowhere."""
    assert stays_here(address) is here
    assert Settings(control_address=address).lets_everybody_in(address) is not here
    asks = Settings(control_address=address, token_keys_url="https://id.example.org/keys")
    assert not asks.lets_everybody_in(address)


def test_two_sets_of_keys_are_refused() -> None:
    """Which of them counts would be a guess."""
    with pytest.raises(ValueError, match="leave one"):
        Settings(token_keys_url="https://id.example.org/k", token_keys_file=Path("k"))
