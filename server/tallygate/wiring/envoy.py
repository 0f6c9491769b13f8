"""What answers Envoy, put together: its rate limit service and its access log service.

Guarantees: both decide and record as the services for apps do.
Refuses to know: how charges are decided and usage recorded.
"""

from functools import partial
from typing import TYPE_CHECKING, Final

from tallygate.api import envoy_limit, envoy_logs
from tallygate.api.envoy_limit import RateLimitServicer
from tallygate.api.envoy_logs import AccessLogServicer
from tallygate.api.server import Register
from tallygate.flow.access_logs import AccessLogs
from tallygate.flow.admit import Admit
from tallygate.flow.rate_limit import RateLimit
from tallygate.ports import CatalogView

if TYPE_CHECKING:
    from tallygate.wiring.host import Host

SERVICES: Final = (envoy_limit.SERVICE, envoy_logs.SERVICE)


def envoy_services(host: "Host", admit: Admit, view: CatalogView) -> dict[str, Register]:
    """Return the services that Envoy calls."""
    metrics, permits = host.metrics.envoy, host.secured.permits
    deadline_s = host.settings.default_deadline_ms / 1000
    limit = RateLimitServicer(RateLimit(admit, view, host.clock, metrics), deadline_s, permits)
    logs = AccessLogServicer(AccessLogs(admit, view, metrics), permits)
    return {
        envoy_limit.SERVICE: partial(envoy_limit.register, limit),
        envoy_logs.SERVICE: partial(envoy_logs.register, logs),
    }
