"""Passwords that change in their files while a process runs.

Guarantees: a new one counts once the server has let us in by it, and no call is cut by that; one
that cannot be used leaves the old one, is told once for each state of the file, and tried again.
Refuses to know: what connections are used for.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tallygate.adapters.prometheus.access import AccessMetrics
from tallygate.adapters.redis.client import translate
from tallygate.adapters.redis.credentials import RedisCredentials, drain, try_out
from tallygate.domain.errors import TallygateError
from tallygate.settings_types import SecretUrl

LOOK_MS: Final = 1_000
SECRET_BYTES_MAX: Final = 64 * 1024

log = structlog.get_logger(__name__)

Take = Callable[[str], Awaitable[None]]


class Rotation:
    """One secret in a file: `take` is given what it holds whenever that has changed.

    `take` raises a `TallygateError` where the new one cannot be used.
    """

    def __init__(self, name: str, secret: SecretUrl, take: Take, metrics: AccessMetrics) -> None:
        assert secret.file is not None
        self._name = name
        self._path: Path = secret.file
        self._held = secret.get_secret_value()
        self._take = take
        self._metrics = metrics
        self._told = ""

    async def run_once(self) -> int:
        """Look at the file once; return 1 where a new secret was taken over."""
        try:
            with self._path.open("rb") as file:
                found = file.read(SECRET_BYTES_MAX).decode().strip()
            # A scheme at least: what is half written is read again.
            if found == self._held or "://" not in found:
                return 0
            await self._take(found)
        except (OSError, UnicodeDecodeError) as error:
            self._reject(type(error).__name__)
            return 0
        except TallygateError as error:
            self._reject(error.message)
            return 0
        self._held, self._told = found, ""
        self._metrics.rotated(self._name)
        log.info("secret_rotated", name=self._name)
        return 1

    def _reject(self, cause: str) -> None:
        if cause != self._told:
            self._told = cause
            self._metrics.rejected(self._name)
            log.error("secret_rejected", name=self._name, cause=cause)


def taking_redis(credentials: RedisCredentials, clients: list[Redis]) -> Take:
    """Return what has all clients of a process go over to another password."""

    async def take(url: str) -> None:
        try:
            if clients:
                await try_out(clients[0], url)
            credentials.accept(url)
            for client in clients:
                await drain(client)
        except (RedisError, OSError) as error:
            raise translate(error) from error

    return take
