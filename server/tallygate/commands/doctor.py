"""`tallygate doctor`: looks at everything an installation needs, and says what is wrong with it.

Guarantees: it changes nothing, waits for nothing longer than a few seconds, and shows no secret.
Refuses to know: how to mend things; the detail says what to look at.
"""

from dataclasses import dataclass
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tallygate.domain.errors import CatalogInvalid, TallygateError
from tallygate.settings import Settings
from tallygate.wiring.dialing import Dialing, opened
from tallygate.wiring.securing import examined
from tallygate.wiring.tools import pending, read_catalog, redis_facts

CALL_TIMEOUT_S: Final = 3.0
# Good to have, but a single Redis that a team has chosen is not a fault.
ADVISED: Final = frozenset({"maxmemory", "min_replicas", "replicas", "version"})
HINTS: Final = {
    "appendfsync": "set appendfsync to everysec or always",
    "maxmemory": "set maxmemory, or the system ends Redis when memory runs out",
    "min_replicas": "set min-replicas-to-write, to bound what a failover can lose",
    "noeviction": "set maxmemory-policy to noeviction, or counters are thrown away",
    "persistence": "set appendonly to yes, or a restart resets every counter",
    "persistence_healthy": "the last save has failed: look at the disk and at Redis' log",
    "primary": "this is a replica: it refuses writes",
    "replicas": "nothing takes over when this Redis fails",
    "version": "7.2 and later can confirm that a write is on disk",
}
# Clocks further apart than this make windows of different sidecars begin visibly apart.
SKEW_MAX_S: Final = 0.5
FAULTS_TOLD: Final = 3
# Whoever renews by hand has a week; those that live for hours are renewed by a machine.
SOON_DAYS: Final = 7.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: ok, wrong, advised, or skipped because nothing is set up for it."""

    check: str
    state: str
    detail: str


async def examine(settings: Settings) -> list[Finding]:
    """Return a finding for each part of the installation."""
    dialing = Dialing.of(settings)
    findings = [await _server("data plane", each, dialing) for each in settings.grpc_address]
    findings += [await _server("Envoy", each, dialing) for each in settings.envoy_address]
    findings.append(await _server("control", settings.control_address, dialing))
    findings.append(_access(settings))
    ops = dialing if settings.tls_ops == "on" else None
    findings.append(await _server("health and metrics", settings.ops_address, ops))
    findings.append(_security(settings))
    findings += await _redis(settings)
    findings.append(await _postgres(settings))
    findings.append(_catalog(settings))
    return findings


async def _server(name: str, address: str, dialing: Dialing | None) -> Finding:
    check = f"{name} at {address}"
    try:
        async with opened(address, dialing) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            reply = await health.Check(health_pb2.HealthCheckRequest(), timeout=CALL_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        return Finding(check, "wrong", f"{error.code().name}: nothing healthy answers")
    except TallygateError as error:
        return Finding(check, "wrong", error.message)
    serving = reply.status == health_pb2.HealthCheckResponse.SERVING
    return Finding(check, "ok" if serving else "wrong", "serving" if serving else "not serving")


def _security(settings: Settings) -> Finding:
    if settings.tls_cert_file is None and settings.tls_identities is None:
        return Finding("certificates", "skipped", "TALLYGATE_TLS_CERT_FILE is not set")
    faults, ends_in_days = examined(settings)
    if faults:
        where = "; ".join(f"{each.path}: {each.message}" for each in faults[:FAULTS_TOLD])
        return Finding("certificates", "wrong", where)
    if ends_in_days is None:
        return Finding("certificates", "ok", "rules for callers alone")
    state = "wrong" if ends_in_days <= 0 else "advised" if ends_in_days < SOON_DAYS else "ok"
    return Finding("certificates", state, f"the next is over in {ends_in_days:.1f} days")


def _access(settings: Settings) -> Finding:
    if settings.lets_everybody_in(settings.control_address):
        detail = "other machines can call it, and are not asked who they are: see docs/access.md"
        return Finding("who may call control", "advised", detail)
    return Finding("who may call control", "ok", "")


async def _redis(settings: Settings) -> list[Finding]:
    if settings.redis_url is None:
        return [Finding("redis", "skipped", "TALLYGATE_REDIS_URL is not set")]
    try:
        facts = await redis_facts(settings.redis_url.get_secret_value())
    except TallygateError as error:
        return [Finding("redis", "wrong", error.message)]
    findings = [Finding("redis", "ok", f"version {facts.version}")]
    near = facts.skew_s <= SKEW_MAX_S
    findings.append(
        Finding("redis clock", "ok" if near else "wrong", f"{facts.skew_s * 1000:.0f} ms from ours")
    )
    findings += [
        Finding(f"redis {check}", _state(check, bool(good)), "" if good else HINTS.get(check, ""))
        for check, good in sorted(facts.posture.items())
    ]
    return findings


def _state(check: str, good: bool) -> str:
    if good:
        return "ok"
    return "advised" if check in ADVISED else "wrong"


async def _postgres(settings: Settings) -> Finding:
    if settings.postgres_dsn is None:
        return Finding("postgres", "skipped", "TALLYGATE_POSTGRES_DSN is not set")
    try:
        missing = await pending(settings.postgres_dsn.get_secret_value())
    except TallygateError as error:
        return Finding("postgres", "wrong", error.message)
    if missing:
        return Finding("postgres", "wrong", f"run `tallygate migrate`: {missing[0]} is missing")
    return Finding("postgres", "ok", "schema is current")


def _catalog(settings: Settings) -> Finding:
    if settings.catalog is None:
        return Finding("catalog file", "skipped", "TALLYGATE_CATALOG is not set")
    try:
        read_catalog(settings.catalog)
    except CatalogInvalid as error:
        return Finding("catalog file", "wrong", f"{error.message}; see `tallygate check-config`")
    return Finding("catalog file", "ok", str(settings.catalog))
