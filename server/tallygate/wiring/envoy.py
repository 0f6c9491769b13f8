"""What answers Envoy, put together: its rate limit service and its access log service.

Guarantees: without an address for Envoy nothing of this is imported.
Refuses to know: how charges are decided and usage recorded.
"""

from typing import TYPE_CHECKING, Any, Final

from tallygate.api.server import Register
from tallygate.domain.errors import TallygateError
from tallygate.flow.access_logs import AccessLogs
from tallygate.flow.admit import Admit
from tallygate.flow.rate_limit import RateLimit
from tallygate.ports import CatalogView

if TYPE_CHECKING:
    from tallygate.wiring.host import Host

SERVICES: Final = (
    "envoy.service.ratelimit.v3.RateLimitService",
    "envoy.service.accesslog.v3.AccessLogService",
)


class EnvoyMissing(TallygateError):
    """Envoy's messages are not installed: install tallygate[envoy], or set no envoy_address."""

    reason = "INVALID_FIELD"


def envoy_services(host: "Host", admit: Admit, view: CatalogView) -> dict[str, Register]:
    """Return the services that Envoy calls. Raises `EnvoyMissing`."""
    try:
        from envoy.service.accesslog.v3 import als_pb2_grpc  # noqa: PLC0415
        from envoy.service.ratelimit.v3 import rls_pb2_grpc  # noqa: PLC0415

        from tallygate.api.envoy_limit import RateLimitServicer  # noqa: PLC0415
        from tallygate.api.envoy_logs import AccessLogServicer  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise EnvoyMissing(field="envoy_address") from error
    metrics, permits = host.metrics.envoy, host.secured.permits
    deadline_s = host.settings.default_deadline_ms / 1000
    limits = RateLimitServicer(RateLimit(admit, view, host.clock, metrics), deadline_s, permits)
    logs = AccessLogServicer(AccessLogs(admit, view, metrics), permits)

    def register_limits(registry: Any) -> None:  # noqa: ANN401  it has of a server what is asked
        rls_pb2_grpc.add_RateLimitServiceServicer_to_server(limits, registry)

    def register_logs(registry: Any) -> None:  # noqa: ANN401  the same
        als_pb2_grpc.add_AccessLogServiceServicer_to_server(logs, registry)

    return dict(zip(SERVICES, (register_limits, register_logs), strict=True))
