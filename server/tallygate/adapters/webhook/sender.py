"""Sends messages as signed webhooks, after Standard Webhooks.

Guarantees: a message is sent byte for byte as the outbox holds it, under its own id, signed anew at
each attempt; no call outlasts its timeout; redirects are not followed; neither the address, the
secret nor what the receiver answers reaches a log.
Refuses to know: retries, leases, and what a message says.

The body is `{"type", "timestamp", "data"}` as JSON. The headers are `webhook-id` (the message's id:
receivers drop one they have seen), `webhook-timestamp` (seconds, when this attempt was signed) and
`webhook-signature` (`v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`); where the send is
recorded, `traceparent` as well. Any 2xx is taken as
delivered. 410 Gone ends the attempts for the message; all else is tried again, as receivers that
are deployed or misconfigured answer with almost any status for a while.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from tallygate.adapters.webhook.signature import signing_keys
from tallygate.domain.errors import InvalidField
from tallygate.domain.trace import header_of
from tallygate.ports import Clock, Delivery, DestinationConfig, DestinationRefused
from tallygate.ports.tracing import here

GONE: Final = 410
REDIRECTS: Final = range(300, 400)
SUCCESSES: Final = range(200, 300)
USER_AGENT: Final = "tallygate"


@dataclass(frozen=True, slots=True)
class WebhookOptions:
    """How calls are bounded."""

    timeout_ms: int = 10_000
    connect_timeout_ms: int = 5_000
    connections_max: int = 8


class WebhookSender:
    """The `DestinationSender` port over HTTP. Its connections open at first use."""

    def __init__(
        self, config: DestinationConfig, clock: Clock, options: WebhookOptions | None = None
    ) -> None:
        """Raises `InvalidField` for an address or a secret that cannot be used."""
        self._name = config.destination.name
        self._url = _url(config.destination.url)
        self._keys = signing_keys(config.secret)
        self._clock = clock
        self._options = options or WebhookOptions()
        self._session: aiohttp.ClientSession | None = None

    @property
    def name(self) -> str:
        """The destination's name in the catalog."""
        return self._name

    async def send(self, delivery: Delivery) -> None:
        """Deliver, or raise `DestinationRefused`."""
        try:
            async with self._opened().post(
                self._url,
                data=delivery.payload,
                headers=self._headers(delivery),
                allow_redirects=False,
            ) as response:
                # What the receiver says in its body is left unread.
                status, wish = response.status, response.headers.get("retry-after")
        except TimeoutError:
            raise DestinationRefused("timed out", transient=True) from None
        except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
            raise DestinationRefused(_connection_fault(error), transient=True) from error
        self._judge(status, wish)

    async def close(self) -> None:
        """Close every connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _judge(self, status: int, wish: str | None) -> None:
        if status in SUCCESSES:
            return
        if status == GONE:
            raise DestinationRefused(f"HTTP {status}: gone", transient=False)
        kind = ": redirects are not followed" if status in REDIRECTS else ""
        raise DestinationRefused(
            f"HTTP {status}{kind}",
            transient=True,
            retry_after_ms=retry_after_ms(wish, self._clock.now_us()),
        )

    def _headers(self, delivery: Delivery) -> Mapping[str, str]:
        timestamp_s = self._clock.now_us() // 1_000_000
        at = here()
        return {
            "content-type": "application/json",
            "user-agent": USER_AGENT,
            "webhook-id": delivery.message_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": self._keys.sign(
                delivery.message_id, timestamp_s, delivery.payload
            ),
            **({"traceparent": header_of(at)} if at else {}),
        }

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            options = self._options
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=options.connections_max),
                timeout=aiohttp.ClientTimeout(
                    total=options.timeout_ms / 1000,
                    sock_connect=options.connect_timeout_ms / 1000,
                ),
                # A receiver has no business setting state in us, nor making us inflate its answer.
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session


def retry_after_ms(header: str | None, now_us: int) -> int | None:
    """Return what a `Retry-After` header asks for, seconds or a date; None when it says nothing."""
    if header is None:
        return None
    header = header.strip()
    # Digits beyond any sensible wait say nothing either; the length bounds the conversion.
    if header.isascii() and header.isdigit() and len(header) < 10:
        return int(header) * 1000
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    now = datetime.fromtimestamp(now_us / 1e6, UTC)
    return max(0, int((when - now).total_seconds() * 1000))


def _url(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        raise InvalidField("must be an http or https address", field="url")
    return url


def _connection_fault(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return "TLS failed"
        case aiohttp.ClientConnectorDNSError():
            return "the host's name cannot be resolved"
        case aiohttp.ClientConnectorError() | ConnectionRefusedError():
            return "cannot connect"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            return "the connection broke"
        case _:
            return f"no HTTP answer: {type(error).__name__}"
