"""Stripe's own client, as this project uses it: bounded, without retries of its own.

Guarantees: no call outlasts its timeout, connections are bounded, and a call goes out once; the key
is the one of now.
Refuses to know: what is asked.
"""

from dataclasses import dataclass
from typing import Final

import aiohttp
import stripe
from stripe import RequestOptions

from tallygate.adapters.stripe.secrets import Keys

STRIPE_URL: Final = "https://api.stripe.com"
# The client wants a key when it is made; each call gives the one of now.
_NO_KEY: Final = "unset"


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How calls are bounded, and where they go. `account` is a connected one."""

    url: str = STRIPE_URL
    account: str = ""
    timeout_ms: int = 15_000
    connect_timeout_ms: int = 5_000
    connections_max: int = 128


class Client:
    """One account's client. Its connections open at first use."""

    def __init__(self, keys: Keys, options: ClientOptions) -> None:
        self._keys = keys
        self._options = options
        self._session: aiohttp.ClientSession | None = None
        self._opened: stripe.StripeClient | None = None

    @property
    def account(self) -> str:
        """The connected account that calls are for, empty for the key's own."""
        return self._options.account

    def stripe(self) -> stripe.StripeClient:
        """Return the client, opened. Needs a running loop."""
        if self._opened is None:
            options = self._options
            # Else it tells Stripe of the machine and of each call before, and keeps a file for it.
            stripe.enable_telemetry = False
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=options.connections_max),
                cookie_jar=aiohttp.DummyCookieJar(),
                # Answers are short: to have them packed costs more than it saves.
                skip_auto_headers=("Accept-Encoding",),
                trust_env=False,
            )
            timeout = aiohttp.ClientTimeout(
                total=options.timeout_ms / 1000, sock_connect=options.connect_timeout_ms / 1000
            )
            transport = stripe.AIOHTTPClient(timeout=timeout, session=self._session)
            if options.url.rstrip("/") == STRIPE_URL:
                self._opened = stripe.StripeClient(
                    _NO_KEY, max_network_retries=0, http_client=transport
                )
            else:
                url = options.url.rstrip("/")
                self._opened = stripe.StripeClient(
                    _NO_KEY,
                    max_network_retries=0,
                    http_client=transport,
                    base_addresses={"api": url, "meter_events": url},
                )
        return self._opened

    def calling(self, idempotency_key: str = "") -> RequestOptions:
        """Return the options of a call. Raises `KeyMissing`."""
        options: RequestOptions = {"api_key": self._keys()}
        if self._options.account:
            options["stripe_account"] = self._options.account
        if idempotency_key:
            options["idempotency_key"] = idempotency_key
        return options

    async def close(self) -> None:
        """Close every connection."""
        session, self._session, self._opened = self._session, None, None
        if session is not None:
            await session.close()
