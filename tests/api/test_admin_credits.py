"""Credits and resets over a real channel, as operators meet them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from tallygate.adapters.catalog.document import parse
from tallygate.gen.v1 import credit_pb2
from tallygate.ports import CatalogChange, LedgerBatch
from tests.api.control import NOW, Control, controlled
from tests.catalog.documents import KINDS
from tests.sidecar import failure
from tests.usage_events import burn


@pytest.fixture
async def control() -> AsyncIterator[Control]:
    """A control with every kind of limit."""
    async with controlled() as found:
        parsed = parse(KINDS)
        await found.store.write(
            CatalogChange(parsed.catalog, parsed.tenants, effective_at_us=NOW), 1
        )
        yield found


def granted(number: int = 1, **fields: Any) -> credit_pb2.GrantCreditRequest:
    """Return a request for 100 units."""
    values = {"tenant_id": "acme", "limit_id": "prepaid", "amount": 100}
    return credit_pb2.GrantCreditRequest(**{**values, "grant_id": f"grant-{number}", **fields})


async def test_credits_are_granted_and_listed(control: Control) -> None:
    """A grant comes back as it was asked for, and is listed with what is left of it."""
    request = granted(priority=-2, reason="trial", actor="ann")
    request.expires_at.FromDatetime(datetime(2030, 1, 1, tzinfo=UTC))
    made = await control.stub.GrantCredit(request)
    assert not made.replayed
    assert (made.grant.amount, made.grant.remaining, made.grant.priority) == (100, 100, -2)
    assert (made.grant.reason, made.grant.actor) == ("trial", "ann")
    assert made.grant.expires_at == request.expires_at
    assert made.grant.created_at.ToMicroseconds() == NOW
    assert (await control.stub.GrantCredit(request)).replayed
    await control.ledger.persist(LedgerBatch((), burns=(burn(limit_id="prepaid", amount=30),)))
    listed = await control.stub.ListCredits(credit_pb2.ListCreditsRequest(tenant_id="acme"))
    assert [grant.remaining for grant in listed.grants] == [70]


async def test_grants_come_in_pages(control: Control) -> None:
    """Pages follow each other in burn-down order, and miss none."""
    for number in range(5):
        await control.stub.GrantCredit(granted(number, priority=number % 2))
    found: list[str] = []
    token = ""
    for _ in range(3):
        page = await control.stub.ListCredits(
            credit_pb2.ListCreditsRequest(
                tenant_id="acme", limit_id="prepaid", page_size=2, page_token=token
            )
        )
        found += [grant.grant_id for grant in page.grants]
        token = page.next_page_token
    assert found == ["grant-0", "grant-2", "grant-4", "grant-1", "grant-3"]
    assert not token


@pytest.mark.parametrize(
    ("request_", "code", "field"),
    [
        (granted(amount=0), "INVALID_ARGUMENT", "amount"),
        (granted(limit_id="UPPER"), "INVALID_ARGUMENT", "limit_id"),
        (granted(limit_id="at-once"), "INVALID_ARGUMENT", "limit_id"),
        (granted(limit_id="none"), "NOT_FOUND", ""),
        (granted(tenant_id="nobody"), "NOT_FOUND", ""),
        (granted(grant_id=""), "INVALID_ARGUMENT", "grant_id"),
    ],
    ids=str,
)
async def test_what_cannot_be_granted_is_refused(
    control: Control, request_: credit_pb2.GrantCreditRequest, code: str, field: str
) -> None:
    """The status and the field say what is wrong."""
    failed = await failure(control.stub.GrantCredit(request_))
    assert failed.code is getattr(grpc.StatusCode, code)
    assert field in failed.fields if field else True


async def test_other_content_under_a_grants_id_is_refused(control: Control) -> None:
    """The reason is that of any id used twice, and names `grant_id`."""
    await control.stub.GrantCredit(granted())
    failed = await failure(control.stub.GrantCredit(granted(amount=5)))
    assert failed.reason == "OPERATION_ID_REUSED"
    assert failed.fields == ["grant_id"]


@pytest.mark.parametrize("token", ["x", "W10=", "WzEsIDIsIDMsIDRd", "WyJhIiwgMSwgMSwgdHJ1ZV0="])
async def test_foreign_page_tokens_are_refused(control: Control, token: str) -> None:
    """A token that is not one of ours is a wrong field, not a fault of ours."""
    request = credit_pb2.ListCreditsRequest(tenant_id="acme", page_token=token)
    failed = await failure(control.stub.ListCredits(request))
    assert failed.fields == ["page_token"]


def reset(**fields: Any) -> credit_pb2.ResetLimitRequest:
    """Return a request to reset what one user has used."""
    values = {
        "tenant_id": "acme",
        "limit_id": "per-user",
        "dimensions": {"user_id": "7"},
        "reason": "charged twice",
        "actor": "ann",
        "operation_id": "reset-1",
    }
    return credit_pb2.ResetLimitRequest(**{**values, **fields})


async def test_a_limit_is_reset_and_audited(control: Control) -> None:
    """What was used before and is used now is told; the same call again is a repeat."""
    first = await control.stub.ResetLimit(reset())
    assert (first.used_before, first.used_after, first.replayed) == (0, 0, False)
    assert (await control.stub.ResetLimit(reset())).replayed
    (audit,) = control.audit.resets.values()
    assert (audit.actor, audit.reason, audit.scope) == ("ann", "charged twice", "user_id=7")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"reason": ""}, "reason"),
        ({"actor": ""}, "actor"),
        ({"operation_id": ""}, "operation_id"),
        ({"dimensions": {}}, "dimensions"),
        ({"limit_id": "prepaid", "dimensions": {}}, "limit_id"),
    ],
    ids=str,
)
async def test_what_cannot_be_reset_is_refused(
    control: Control, fields: dict[str, Any], field: str
) -> None:
    """A reset without a reason, an actor or an id is none; a balance is granted to, not reset."""
    failed = await failure(control.stub.ResetLimit(reset(**fields)))
    assert failed.fields == [field]
