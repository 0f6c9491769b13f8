"""Ids and quantities: what passes, what is refused, and the field that is named."""

from collections.abc import Callable

import pytest

from tallygate.domain import ids
from tallygate.domain.errors import InvalidField
from tallygate.domain.ids import AMOUNT_MAX, TenantId

BOTH = [ids.tenant_id, ids.operation_id, ids.event_id]
GOOD = ["a", "x" * 128, "user:1/2,3;4{5}|6", "203.0.113.7", "2001:db8::1"]


@pytest.mark.parametrize("check", BOTH)
@pytest.mark.parametrize(
    "value", ["a", "x" * 128, "user:1/2,3;4{5}|6", "203.0.113.7", "2001:db8::1"]
)
def test_an_id_within_bounds_is_itself(check: Callable[..., str], value: str) -> None:
    """1 to 128 printable characters pass unchanged."""
    assert check(value) == value


@pytest.mark.parametrize("check", BOTH)
@pytest.mark.parametrize(
    "value", ["", "x" * 129, "a b", " ", "a\tb", "a\nb", "a\r\n", "a\x00b", "\x7f", "a\u2028b"]
)
def test_an_id_out_of_bounds_is_refused_by_name(check: Callable[..., str], value: str) -> None:
    """The error names the field that the caller knows it by."""
    with pytest.raises(InvalidField) as caught:
        check(value, "requests[3].id")
    assert caught.value.field == "requests[3].id"


@pytest.mark.parametrize("value", ["ümläut", "東京", "😀", "x" * 127 + "é"])
def test_only_tenants_may_be_named_beyond_ascii(value: str) -> None:
    """A tenant's name is the customer's own; an operation id travels in headers."""
    assert ids.tenant_id(value) == value
    with pytest.raises(InvalidField):
        ids.operation_id(value)


@pytest.mark.parametrize("value", ["\ud800", "a\u200bb", "a\u202eb", "a\u00a0b", "\ufffe"])
def test_a_tenant_s_name_holds_nothing_unseen(value: str) -> None:
    """Surrogates, zero-width and direction marks would make two names look like one."""
    with pytest.raises(InvalidField):
        ids.tenant_id(value)


@pytest.mark.parametrize("value", [1, 2, AMOUNT_MAX])
def test_an_amount_within_bounds_is_itself(value: int) -> None:
    """1 to 2^53 - 1 pass unchanged."""
    assert ids.amount(value) == value


@pytest.mark.parametrize("value", [0, -1, AMOUNT_MAX + 1, 2**63 - 1, -(2**63)])
def test_an_amount_out_of_bounds_is_refused_by_name(value: int) -> None:
    """No amount is clamped."""
    with pytest.raises(InvalidField) as caught:
        ids.amount(value, "items[2].amount")
    assert caught.value.field == "items[2].amount"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("requests", True),
        ("a", True),
        ("9.lives", True),
        ("a_b-c.d", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("", False),
        ("Requests", False),
        ("_a", False),
        ("a b", False),
        ("a,b", False),
        ("a;b", False),
        ("a/b", False),
        ("a\n", False),
        ("é", False),
    ],
)
def test_a_catalog_name_is_plain(value: str, expected: bool) -> None:
    """Names hold none of the marks that the script's replies are divided by."""
    assert ids.is_name(value) is expected


@pytest.mark.parametrize(
    ("root", "shards", "expected"),
    # CRC-32 of the text, as any other program works it out, modulo the shards.
    [("123456789", 16, 0xCBF43926 % 16), ("123456789", 256, 0x26), ("", 7, 0), ("a", 256, 0x43)],
)
def test_a_tenant_finds_the_same_shard_for_ever(root: str, shards: int, expected: int) -> None:
    """The shard is CRC-32's, by its published check values: stored counters depend on it."""
    assert ids.shard_of(TenantId(root), shards) == expected


def test_tenants_spread_over_the_shards() -> None:
    """Neighbouring names and addresses do not gather on a few shards."""
    counts = [0] * 16
    for number in range(4_096):
        counts[ids.shard_of(TenantId(f"203.0.{number // 256}.{number % 256}"), 16)] += 1
    assert min(counts) > 150
    assert max(counts) < 370
