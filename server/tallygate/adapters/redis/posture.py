"""Whether a Redis is set up as quotas need it: a check by name, 1 where it holds and 0 where not.

Guarantees: `INFO` alone answers every check that it can; what only `CONFIG` knows is left out where
the server does not let us ask, as managed services do not.
Refuses to know: what to do about a check that fails.
"""

from collections.abc import Mapping
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from tallygate.adapters.redis.client import translate
from tallygate.adapters.redis.wire import primaries

SECTIONS: Final = ("server", "persistence", "memory", "replication")

VERSION_MIN: Final = (7, 2)
"""The oldest release line that still got security fixes in 2025; 6.2 works, and is flagged."""

SETTINGS: Final = ("appendfsync", "min-replicas-to-write")


async def read_posture(client: Redis) -> dict[str, float]:
    """Return each check with 1 or 0; raise BackendUnavailable or StorageFault without `INFO`.

    `persistence`, `persistence_healthy`, `noeviction`, `maxmemory`, `version`, `primary` and
    `replicas` are always there; `appendfsync` and `min_replicas` only where `CONFIG` is allowed.
    Of a cluster's primaries the worst counts, check by check.
    """
    try:
        servers = await primaries(client)
    except (RedisError, OSError) as error:
        raise translate(error) from error
    checks: dict[str, float] = {}
    for server in servers:
        for name, holds in (await _posture_of(server)).items():
            checks[name] = min(holds, checks.get(name, holds))
    return checks


async def _posture_of(client: Redis) -> dict[str, float]:
    facts: dict[str, object] = {}
    try:
        for section in SECTIONS:
            # One by one, since Redis 6.2 takes a single section.
            facts |= await client.info(section)
        settings = await _settings(client)
    except (RedisError, OSError) as error:
        raise translate(error) from error
    checks = _of_info(facts) | _of_config(settings)
    return {name: float(holds) for name, holds in checks.items()}


async def _settings(client: Redis) -> dict[str, str]:
    """Return the settings we may see; none where CONFIG is forbidden, renamed or filtered."""
    found: dict[str, str] = {}
    for name in SETTINGS:
        try:
            answer = await client.config_get(name)
        except ResponseError:
            return found
        found |= {_text(key): _text(value) for key, value in answer.items()}
    return found


def _of_info(facts: Mapping[str, object]) -> dict[str, bool]:
    return {
        "persistence": _number(facts, "aof_enabled") == 1,
        # A server without an append-only file reports `ok` too: its health says nothing.
        "persistence_healthy": _number(facts, "aof_enabled") == 1
        and _text(facts.get("aof_last_write_status", "")) == "ok"
        and _text(facts.get("aof_last_bgrewrite_status", "")) == "ok",
        "noeviction": _text(facts.get("maxmemory_policy", "")) == "noeviction",
        # Without a bound the kernel ends Redis, where with one Redis refuses writes.
        "maxmemory": _number(facts, "maxmemory") > 0,
        "version": _version(_text(facts.get("redis_version", ""))) >= VERSION_MIN,
        "primary": _text(facts.get("role", "")) == "master",
        "replicas": _number(facts, "connected_slaves") > 0,
    }


def _of_config(settings: Mapping[str, str]) -> dict[str, bool]:
    checks: dict[str, bool] = {}
    if "appendfsync" in settings:
        checks["appendfsync"] = settings["appendfsync"] in {"everysec", "always"}
    if "min-replicas-to-write" in settings:
        checks["min_replicas"] = settings["min-replicas-to-write"] not in {"", "0"}
    return checks


def _version(text: str) -> tuple[int, ...]:
    parts = text.split(".")[:2]
    return tuple(int(part) if part.isdigit() else 0 for part in parts)


def _number(facts: Mapping[str, object], name: str) -> int:
    value = facts.get(name, 0)
    return int(value) if isinstance(value, int | float) else 0


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
