"""Trusted keys at an address, as identity providers publish them (JWKS).

Guarantees: one request at a time, bounded in time and size, and not more often than the options
say, whatever tokens name; redirects are not followed. Keys that could not be read anew are trusted
no longer than the options say: a key that was taken back is not trusted for ever.
Refuses to know: what keys are used for.
"""

import asyncio
import ssl
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import structlog

from tallygate.adapters.tokens.key_set import (
    SET_BYTES_MAX,
    KeySet,
    KeySetInvalid,
    TokenKey,
    parse_key_set,
)
from tallygate.adapters.tokens.observer import KeyObserver
from tallygate.domain.errors import BackendUnavailable, InvalidField
from tallygate.ports import Clock

LOOPBACK: Final = frozenset(("localhost", "127.0.0.1", "::1"))

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class UrlOptions:
    """How long to wait for keys, how often to ask, and how long what was read is trusted."""

    timeout_s: float = 5.0
    # For a key that nobody knows, and after a failure: a forged token has us ask no more often.
    refresh_min_s: float = 30.0
    # Asked anew once this old, in use all the while ...
    refresh_s: float = 300.0
    # ... and trusted no more once this old.
    age_max_s: float = 3_600.0


class UrlKeys:
    """A `KeySource` over HTTP. It asks at first use."""

    def __init__(
        self, url: str, clock: Clock, observer: KeyObserver, options: UrlOptions | None = None
    ) -> None:
        """Raises `InvalidField` for an address that anybody on the way could answer for."""
        parts = urlsplit(url)
        if parts.scheme != "https" and parts.hostname not in LOOPBACK:
            raise InvalidField(
                "must be an https address: whoever answers decides who is trusted",
                field="token_keys_url",
            )
        self._url = url
        self._clock = clock
        self._observer = observer
        self._options = options or UrlOptions()
        self._keys = KeySet()
        self._read_s = self._asked_s = float("-inf")
        self._asking: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def find(self, kid: str) -> TokenKey | None:
        """Return the key of an id. Raises `BackendUnavailable` while there are none to go by."""
        now_s, options = self._clock.monotonic(), self._options
        found = self._keys.find(kid)
        age_s = now_s - self._read_s
        if found is None or age_s >= options.refresh_s:
            asking = self._ask(now_s)
            if asking is not None and (found is None or age_s >= options.age_max_s):
                # Shielded: others wait for the same answer.
                await asyncio.shield(asking)
                found = self._keys.find(kid)
        if self._clock.monotonic() - self._read_s >= options.age_max_s:
            raise BackendUnavailable("the keys that tokens are verified with cannot be read")
        return found

    async def close(self) -> None:
        """Give up what is under way, and close the connection."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def _ask(self, now_s: float) -> asyncio.Task[None] | None:
        """Return what is under way; begin where there is nothing, unless it was just asked."""
        if self._asking is not None and not self._asking.done():
            return self._asking
        if now_s - self._asked_s < self._options.refresh_min_s:
            return None
        self._asked_s = now_s
        self._asking = asyncio.create_task(self._refresh(), name="token-keys")
        return self._asking

    async def _refresh(self) -> None:
        """Read the keys; what goes wrong is told, and leaves those that there are."""
        try:
            keys = parse_key_set(await self._fetch())
        except (aiohttp.ClientError, ssl.SSLError, OSError, TimeoutError) as error:
            # Its kind alone: a text may quote the address, which may hold a password.
            self._failed(type(error).__name__)
        except KeySetInvalid as error:
            self._failed(error.message)
        else:
            self._keys, self._read_s = keys, self._clock.monotonic()
            self._observer.keys_read(len(keys.keys))

    def _failed(self, cause: str) -> None:
        log.error("token_keys_unreadable", cause=cause)
        self._observer.keys_failed()

    async def _fetch(self) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._options.timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        async with self._session.get(self._url, allow_redirects=False) as response:
            if response.status != 200:
                raise KeySetInvalid(f"HTTP {response.status}")
            received = b""
            async for part in response.content.iter_any():
                received += part
                if len(received) > SET_BYTES_MAX:
                    break
            return received
