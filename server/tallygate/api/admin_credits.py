"""The part of the AdminService that is about credits and resets.

Guarantees: what converts is well-formed; a page token is checked like any other input.
Refuses to know: rules, storage, and how errors are told.
"""

from typing import Any, Final

import grpc

from tallygate.api import convert_times as times
from tallygate.api.paging import decoded, encoded, foreign_token, name, page_size
from tallygate.domain import ids
from tallygate.domain.credit import NEVER_US, CreditGrant, GrantAsked, GrantId, burn_down_order
from tallygate.domain.ids import LimitId
from tallygate.flow.grant import Granting
from tallygate.flow.reset import ResetAsked, Resetting
from tallygate.gen.v1 import admin_pb2_grpc, credit_pb2
from tallygate.ports.credit import CreditQuery

Context = grpc.aio.ServicerContext

CREDITS_PAGE_MAX: Final = 1_000


class CreditCalls(admin_pb2_grpc.AdminServiceServicer):
    """Converts, grants or resets, converts back."""

    def __init__(self, granting: Granting, resetting: Resetting) -> None:
        self._granting = granting
        self._resetting = resetting

    async def GrantCredit(  # noqa: N802  the name is the proto's
        self, request: credit_pb2.GrantCreditRequest, context: "Context[Any, Any]"
    ) -> credit_pb2.GrantCreditResponse:
        """Add prepaid credits to a balance."""
        grant, replayed = await self._granting.grant(_asked(request))
        return credit_pb2.GrantCreditResponse(grant=_grant_message(grant), replayed=replayed)

    async def ListCredits(  # noqa: N802
        self, request: credit_pb2.ListCreditsRequest, context: "Context[Any, Any]"
    ) -> credit_pb2.ListCreditsResponse:
        """List grants in burn-down order, a page at a time."""
        count = page_size(request.page_size, CREDITS_PAGE_MAX)
        found = await self._granting.grants(
            CreditQuery(
                tenant_id=ids.tenant_id(request.tenant_id),
                limit_id=_limit_id(request.limit_id) if request.limit_id else None,
                limit=count + 1,
                after=_place(decoded(request.page_token, 4)),
            )
        )
        page = found[:count]
        token = encoded([*burn_down_order(page[-1])]) if len(found) > count else ""
        return credit_pb2.ListCreditsResponse(
            grants=[_grant_message(grant) for grant in page], next_page_token=token
        )

    async def ResetLimit(  # noqa: N802
        self, request: credit_pb2.ResetLimitRequest, context: "Context[Any, Any]"
    ) -> credit_pb2.ResetLimitResponse:
        """Set what is used of a limit to what reservations hold."""
        reset, replayed = await self._resetting.reset(
            ResetAsked(
                tenant_id=ids.tenant_id(request.tenant_id),
                limit_id=_limit_id(request.limit_id),
                operation_id=ids.operation_id(request.operation_id),
                reason=request.reason,
                actor=request.actor,
                dimensions=dict(request.dimensions),
            )
        )
        return credit_pb2.ResetLimitResponse(
            used_before=reset.used_before, used_after=reset.used_after, replayed=replayed
        )


def _asked(request: credit_pb2.GrantCreditRequest) -> GrantAsked:
    starts_us, expires_us = 0, NEVER_US
    if request.HasField("starts_at"):
        starts_us = times.instant_us(request.starts_at, "starts_at")
    if request.HasField("expires_at"):
        expires_us = times.instant_us(request.expires_at, "expires_at")
    return GrantAsked(
        tenant_id=ids.tenant_id(request.tenant_id),
        limit_id=_limit_id(request.limit_id),
        grant_id=GrantId(ids.operation_id(request.grant_id, "grant_id")),
        amount=ids.amount(request.amount),
        priority=request.priority,
        starts_us=starts_us,
        expires_us=expires_us,
        reason=request.reason,
        actor=request.actor,
    )


def _grant_message(grant: CreditGrant) -> credit_pb2.CreditGrant:
    message = credit_pb2.CreditGrant(
        grant_id=grant.grant_id,
        tenant_id=grant.tenant_id,
        limit_id=grant.limit_id,
        amount=grant.amount,
        remaining=grant.remaining,
        priority=grant.priority,
        reason=grant.reason,
        actor=grant.actor,
    )
    message.starts_at.FromMicroseconds(grant.starts_us)
    message.created_at.FromMicroseconds(grant.created_at_us)
    if grant.expires_us != NEVER_US:
        message.expires_at.FromMicroseconds(grant.expires_us)
    return message


def _limit_id(value: str) -> LimitId:
    return LimitId(name(value, "limit_id"))


def _place(position: list[object]) -> tuple[str, int, int, int] | None:
    if not position:
        return None
    limit_id, *numbers = position
    if not isinstance(limit_id, str) or not all(type(each) is int for each in numbers):
        raise foreign_token()
    priority, expires_us, seq = (int(str(each)) for each in numbers)
    if abs(priority) >= 2**31 or not 0 <= expires_us <= NEVER_US or not 0 < seq < 2**63:
        raise foreign_token()
    return name(limit_id, "page_token"), priority, expires_us, seq
