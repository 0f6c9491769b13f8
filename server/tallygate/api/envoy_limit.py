"""Envoy's RateLimitService: converts, asks the flow, converts back.

Guarantees: what breaks Envoy's own rules for a request is refused naming the field, a limit sent
along with a descriptor too: numbers come from the catalog alone. Where there are rules for callers,
nothing is charged for a tenant or a meter that they do not let the caller ask for.
Refuses to know: how decisions are made, and how errors are told.
"""

import asyncio
from typing import Any, Final

import grpc
from google.protobuf.struct_pb2 import Struct

from tallygate.api.caller import Permits, caller_of
from tallygate.api.convert import counted, operation_id_of
from tallygate.api.edge import remaining_s
from tallygate.api.envoy_headers import headers_of
from tallygate.api.guarded import Methods
from tallygate.domain.envoy_answer import RateAnswer, RateStatus, ShownLimit
from tallygate.domain.envoy_match import Descriptor
from tallygate.domain.errors import InvalidField
from tallygate.domain.identity import Service
from tallygate.domain.ids import AMOUNT_MAX
from tallygate.domain.request import ITEMS_MAX
from tallygate.domain.window import Period
from tallygate.flow.rate_limit import RateAsked, RateLimit, RatePlan
from tallygate.gen.envoy import rate_limit_pb2 as pb

Context = grpc.aio.ServicerContext[Any, Any]

SERVICE: Final = "envoy.service.ratelimit.v3.RateLimitService"
# The largest that Envoy's fields can hold: there are at least so many.
UINT32_MAX: Final = 2**32 - 1
ENTRIES_MAX: Final = 64

_RESPONSE: Final = pb.RateLimitResponse
_UNIT_OF: Final = {
    Period.SECOND: pb.RATE_LIMIT_UNIT_SECOND,
    Period.MINUTE: pb.RATE_LIMIT_UNIT_MINUTE,
    Period.HOUR: pb.RATE_LIMIT_UNIT_HOUR,
    Period.DAY: pb.RATE_LIMIT_UNIT_DAY,
    Period.WEEK: pb.RATE_LIMIT_UNIT_WEEK,
    Period.MONTH: pb.RATE_LIMIT_UNIT_MONTH,
    Period.YEAR: pb.RATE_LIMIT_UNIT_YEAR,
}


class RateLimitServicer:
    """Answers `ShouldRateLimit`, which is all that Envoy's service has."""

    def __init__(
        self, flow: RateLimit, default_deadline_s: float, permits: Permits | None = None
    ) -> None:
        self._flow = flow
        self._default_deadline_s = default_deadline_s
        self._permits = permits

    async def ShouldRateLimit(  # noqa: N802  the name is the proto's
        self, request: pb.RateLimitRequest, context: Context
    ) -> pb.RateLimitResponse:
        """Say whether a call is over any of its limits, charging it where it is over none."""
        expires_at = asyncio.get_running_loop().time() + remaining_s(
            context, self._default_deadline_s
        )
        plan = self._flow.read(asked_of(request))
        if self._permits is not None:
            self._check(caller_of(context), plan)
        return response_of(await self._flow.decide(plan, expires_at), request.domain)

    def _check(self, caller: str, plan: RatePlan) -> None:
        assert self._permits is not None
        for tenant, meter in plan.meters:
            self._permits.check(caller, Service.ENVOY, tenant, ((meter, "descriptors"),))


def asked_of(request: pb.RateLimitRequest) -> RateAsked:
    """Return what is asked for. Raises `InvalidField` and `TooManyItems`."""
    if not request.domain:
        raise InvalidField("is required", field="domain")
    counted(request.descriptors, ITEMS_MAX, "descriptors")
    hits = request.hits_addend or 1
    descriptors = [
        _descriptor(each, hits, f"descriptors[{place}]")
        for place, each in enumerate(request.descriptors)
    ]
    return RateAsked(request.domain, tuple(descriptors), operation_id_of(""))


def response_of(answer: RateAnswer, domain: str) -> pb.RateLimitResponse:
    """Return the answer as Envoy reads it."""
    response = _RESPONSE(
        overall_code=pb.RATE_LIMIT_CODE_OVER_LIMIT if answer.over else pb.RATE_LIMIT_CODE_OK,
        statuses=[_status(each) for each in answer.statuses],
    )
    for key, value in headers_of(answer):
        response.response_headers_to_add.add(key=key, value=value)
    if answer.domain.metadata:
        response.dynamic_metadata.CopyFrom(_metadata(answer, domain))
    return response


def _descriptor(message: pb.RateLimitDescriptor, hits: int, field: str) -> Descriptor:
    counted(message.entries, ENTRIES_MAX, f"{field}.entries")
    if message.HasField("limit"):
        raise InvalidField("is not taken: the catalog has the limits", field=f"{field}.limit")
    if message.HasField("hits_addend"):
        # Said of the descriptor itself, 0 means none; of the whole call it means it was not said.
        hits = message.hits_addend.value
        if hits > AMOUNT_MAX:
            raise InvalidField(f"must be at most {AMOUNT_MAX}", field=f"{field}.hits_addend")
    for place, each in enumerate(message.entries):
        if not each.key:
            raise InvalidField("is required", field=f"{field}.entries[{place}].key")
    return Descriptor(tuple([(each.key, each.value) for each in message.entries]), hits)


def _status(status: RateStatus) -> pb.RateLimitResponse.DescriptorStatus:
    remaining = UINT32_MAX if status.remaining is None else min(status.remaining, UINT32_MAX)
    message = _RESPONSE.DescriptorStatus(
        code=pb.RATE_LIMIT_CODE_OVER_LIMIT if status.over else pb.RATE_LIMIT_CODE_OK,
        limit_remaining=remaining,
        current_limit=_limit(status.limit) if status.limit is not None else None,
    )
    if status.resets_in_us:
        message.duration_until_reset.FromMicroseconds(status.resets_in_us)
    return message


def _limit(limit: ShownLimit) -> pb.RateLimitResponse.RateLimit:
    unit = pb.RATE_LIMIT_UNIT_UNSPECIFIED
    if limit.period is not None:
        unit = _UNIT_OF.get(limit.period, unit)
    units = min(limit.units, UINT32_MAX)
    return _RESPONSE.RateLimit(name=limit.name, requests_per_unit=units, unit=unit)


def _metadata(answer: RateAnswer, domain: str) -> Struct:
    """Return what Envoy's access logs and filters may use of a decision."""
    found = Struct()
    found.update(
        {
            "domain": domain,
            "tenants": [*answer.tenants],
            "over_limit": answer.over,
            "refused_by": answer.refused_by,
            "reason": answer.reason,
            "degraded": answer.degraded,
        }
    )
    return found


def register(servicer: RateLimitServicer, registry: Methods) -> None:
    """Register the service's one method; the service itself is Envoy's, and none of our protos."""
    handler = grpc.unary_unary_rpc_method_handler(
        servicer.ShouldRateLimit,
        request_deserializer=pb.RateLimitRequest.FromString,
        response_serializer=pb.RateLimitResponse.SerializeToString,
    )
    registry.add_registered_method_handlers(SERVICE, {"ShouldRateLimit": handler})
