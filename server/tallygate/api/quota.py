"""The QuotaService: ask before costly work.

Guarantees: what charges is not here: CheckAndConsume, alone and in lists, is in `calls`.
Refuses to know: how decisions are made, and how errors are told.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import grpc

from tallygate.api import convert
from tallygate.api import convert_reserve as reserving
from tallygate.api.edge import remaining_s
from tallygate.api.watch import watching
from tallygate.flow.admit import Admit
from tallygate.flow.lease import Leases
from tallygate.flow.refund import Refunds
from tallygate.flow.reserve import Reserve
from tallygate.flow.watch import Watches
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class QuotaFlows:
    """What the service asks."""

    admit: Admit
    reserve: Reserve
    refunds: Refunds
    watches: Watches
    # None where leases are off.
    leases: Leases | None = None


class QuotaServicer(quota_pb2_grpc.QuotaServiceServicer):
    """Converts, asks the flow, converts back."""

    def __init__(self, flows: QuotaFlows, default_deadline_s: float) -> None:
        self._admit = flows.admit
        self._reserve = flows.reserve
        self._refunds = flows.refunds
        self._watches = flows.watches
        self._default_deadline_s = default_deadline_s

    async def Check(  # noqa: N802  the name is the proto's
        self, request: quota_pb2.CheckRequest, context: Context
    ) -> quota_pb2.CheckResponse:
        """Answer as CheckAndConsume would, without charging."""
        question = convert.check_request(request)
        return convert.check_response(await self._admit.check(question, self._expires_at(context)))

    async def GetQuota(  # noqa: N802
        self, request: quota_pb2.GetQuotaRequest, context: Context
    ) -> quota_pb2.GetQuotaResponse:
        """Read where a tenant stands."""
        question = convert.quota_request(request)
        return convert.quota_response(await self._admit.quota(question, self._expires_at(context)))

    def WatchQuota(  # noqa: N802
        self, request: quota_pb2.WatchQuotaRequest, context: Context
    ) -> AsyncGenerator[quota_pb2.WatchQuotaResponse, None]:
        """Send where a tenant stands, as it changes."""
        return watching(self._watches, request)

    async def Reserve(  # noqa: N802
        self, request: quota_pb2.ReserveRequest, context: Context
    ) -> quota_pb2.ReserveResponse:
        """Hold units for work whose cost is not known yet."""
        asked = reserving.reserve_request(request)
        result = await self._reserve.reserve(asked, self._expires_at(context))
        return reserving.reserve_response(result)

    async def Commit(  # noqa: N802
        self, request: quota_pb2.CommitRequest, context: Context
    ) -> quota_pb2.CommitResponse:
        """Settle a reservation with what was used."""
        asked = reserving.commit_request(request)
        result = await self._reserve.commit(asked, self._expires_at(context))
        return reserving.commit_response(result)

    async def Release(  # noqa: N802
        self, request: quota_pb2.ReleaseRequest, context: Context
    ) -> quota_pb2.ReleaseResponse:
        """Give a reservation back."""
        asked = reserving.release_request(request)
        result = await self._reserve.release(asked, self._expires_at(context))
        return reserving.release_response(result)

    async def ExtendReservation(  # noqa: N802
        self, request: quota_pb2.ExtendReservationRequest, context: Context
    ) -> quota_pb2.ExtendReservationResponse:
        """Move the end of a reservation."""
        asked = reserving.extend_request(request)
        result = await self._reserve.extend(asked, self._expires_at(context))
        return reserving.extend_response(result)

    async def Refund(  # noqa: N802
        self, request: quota_pb2.RefundRequest, context: Context
    ) -> quota_pb2.RefundResponse:
        """Take back all or part of an event."""
        asked = reserving.refund_request(request)
        result = await self._refunds.refund(asked, self._expires_at(context))
        return reserving.refund_response(result)

    def _expires_at(self, context: Context) -> float:
        return asyncio.get_running_loop().time() + remaining_s(context, self._default_deadline_s)
