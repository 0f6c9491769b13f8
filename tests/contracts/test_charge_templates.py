"""An operation's charges are encoded once for all who are charged alike."""

from dataclasses import replace

import pytest

from tallygate.adapters.redis import templates
from tallygate.adapters.redis.templates import Templates, template
from tallygate.domain.ids import TenantId
from tests.builders import charges, now_us, rate, window

LIMITS = (window(), rate())


def test_tenants_and_amounts_leave_no_trace() -> None:
    """Two tenants of a plan, with other amounts, have the same template."""
    at_us = now_us()
    one = charges(LIMITS, 1, at_us=at_us)
    other = charges(LIMITS, 5, TenantId("other"), at_us=at_us)
    assert template(one) == template(other) == Templates().of(one)


def test_what_a_limit_says_is_in_it() -> None:
    """Another limit, window or order is another template; no charge is none."""
    at_us = now_us()
    found = [
        charges(LIMITS, at_us=at_us, amount=1),
        charges((window(limit=101), rate()), at_us=at_us, amount=1),
        charges(LIMITS, at_us=at_us + 90 * 86_400_000_000, amount=1),
        charges(LIMITS[::-1], at_us=at_us, amount=1),
        charges(LIMITS[:1], at_us=at_us, amount=1),
    ]
    kept = Templates()
    assert len({kept.of(each) for each in found}) == len(found)
    assert [kept.of(each) for each in found] == [template(each) for each in found]
    assert kept.of(()) == template(()) == b""


def test_a_template_is_never_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are asked for, one after the other, each gets what is its own."""
    monkeypatch.setattr(templates, "KEPT_MAX", 3)
    monkeypatch.setattr(templates, "ALIKE_MAX", 2)
    kept = Templates()
    (plain,) = charges(LIMITS[:1], 1)
    for limit in range(1, 200):
        # The tuple is forgotten at once: the next may be made in its place.
        asked = (replace(plain, limit=limit % 7),)
        assert kept.of(asked) == template(asked)
