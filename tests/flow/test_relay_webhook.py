"""Webhooks against real HTTP: signatures as others verify them, and every kind of refusal."""

import asyncio
import base64
import logging
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tallygate.adapters.webhook.sender import WebhookOptions, WebhookSender, retry_after_ms
from tallygate.adapters.webhook.signature import signing_keys
from tallygate.domain.errors import InvalidField
from tallygate.ports import DestinationRefused
from tallygate.testing.webhook import WebhookReceiver
from tests.flow.relay_parts import SECRET, SystemClock, delivery, webhook_config

OTHER_SECRET = "whsec_" + base64.b64encode(b"another key of 32 bytes, exactly").decode()
NOW_US = 1_800_000_000_000_000


class Sent:
    """What an unsuspecting HTTP server got."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.body = b""
        self.calls = 0
        self.answer = web.Response(status=204)

    async def receive(self, request: web.Request) -> web.StreamResponse:
        """Keep the call and answer it."""
        self.calls += 1
        self.headers = dict(request.headers)
        self.body = await request.read()
        return self.answer


@pytest.fixture
async def plain() -> AsyncIterator[tuple[Sent, str]]:
    """A plain HTTP server that checks nothing, and its address."""
    sent = Sent()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", sent.receive)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield sent, f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    await runner.cleanup()


async def _send(url: str, secret: str = SECRET, options: WebhookOptions | None = None) -> None:
    sender = WebhookSender(webhook_config(url, secret), SystemClock(), options)
    try:
        await sender.send(delivery())
    finally:
        await sender.close()


async def _refusal(url: str, options: WebhookOptions | None = None) -> DestinationRefused:
    with pytest.raises(DestinationRefused) as caught:
        await _send(url, options=options)
    return caught.value


async def test_signature_verifies_with_the_standard_library(plain: tuple[Sent, str]) -> None:
    """The independent Standard Webhooks package accepts what we sign, and nothing altered."""
    sent, url = plain
    await _send(url)
    assert Webhook(SECRET).verify(sent.body, sent.headers) == {"type": "usage.batch"}
    assert sent.headers["Content-Type"] == "application/json"
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(sent.body + b" ", sent.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER_SECRET).verify(sent.body, sent.headers)


async def test_both_secrets_verify_during_a_rotation(plain: tuple[Sent, str]) -> None:
    """With two secrets set, a receiver that knows either accepts."""
    sent, url = plain
    await _send(url, f"{OTHER_SECRET} {SECRET}")
    for secret in (SECRET, OTHER_SECRET):
        assert Webhook(secret).verify(sent.body, sent.headers)


async def test_receiver_refuses_a_foreign_signature() -> None:
    """The shipped receiver answers 401 to what another secret signed, and does not keep it."""
    async with WebhookReceiver(SECRET) as receiver:
        with pytest.raises(DestinationRefused, match="HTTP 401"):
            await _send(receiver.url, OTHER_SECRET)
        assert (receiver.unsigned, len(receiver.received)) == (1, 0)


async def test_receiver_refuses_an_old_timestamp() -> None:
    """The shipped receiver refuses a replay from outside its tolerance."""
    async with WebhookReceiver(SECRET, now_s=lambda: NOW_US / 1e6 + 10**9) as receiver:
        with pytest.raises(DestinationRefused, match="HTTP 401"):
            await _send(receiver.url)


async def test_redirects_are_not_followed(plain: tuple[Sent, str]) -> None:
    """A redirect is a refusal: the signed message goes nowhere that the catalog does not name."""
    sent, url = plain
    sent.answer = web.Response(status=307, headers={"location": "/elsewhere"})
    refused = await _refusal(url)
    assert (sent.calls, refused.transient) == (1, True)
    assert refused.reason == "HTTP 307: redirects are not followed"


@pytest.mark.parametrize(
    ("status", "transient"),
    [(400, True), (401, True), (404, True), (408, True), (410, False), (429, True), (500, True)],
)
async def test_only_gone_ends_the_attempts(status: int, transient: bool) -> None:
    """Every refusal but 410 Gone is worth another try."""
    async with WebhookReceiver(SECRET) as receiver:
        receiver.fail_next(status)
        refused = await _refusal(receiver.url)
    assert refused.transient is transient
    assert refused.reason.startswith(f"HTTP {status}")


async def test_no_answer_in_time_is_transient() -> None:
    """A receiver that hangs is given up on after the timeout."""
    async with WebhookReceiver(SECRET) as receiver:
        receiver.hang_next()
        refused = await _refusal(receiver.url, WebhookOptions(timeout_ms=200))
        assert len(receiver.received) == 1
    assert (refused.reason, refused.transient) == ("timed out", True)


async def test_nobody_listening_is_transient() -> None:
    """A receiver that is away is worth another try, and the reason names no address."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        refused = await _refusal(f"http://127.0.0.1:{bound.getsockname()[1]}/")
    assert (refused.reason, refused.transient) == ("cannot connect", True)


async def test_garbage_for_http_is_transient() -> None:
    """What answers but does not speak HTTP is a refusal, not a crash."""

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"secret babble\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        refused = await _refusal(f"http://127.0.0.1:{port}/")
    assert refused.transient
    assert "babble" not in refused.reason


async def test_neither_answer_nor_address_nor_secret_is_logged(
    plain: tuple[Sent, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Of a failed call, a log could learn the status alone."""
    sent, url = plain
    sent.answer = web.Response(status=500, text="their stack trace")
    with caplog.at_level(logging.INFO, logger="tallygate"):
        refused = await _refusal(f"{url}?token=hidden")
    assert str(refused) == "HTTP 500"
    for text in ("their stack", "hidden", SECRET):
        assert text not in caplog.text
    assert SECRET not in repr(webhook_config(url))
    assert repr(signing_keys(SECRET)) == "SigningKeys()"


@pytest.mark.parametrize(
    ("header", "wait_ms"),
    [
        (None, None),
        ("120", 120_000),
        (" 0 ", 0),
        ("-5", None),
        ("soon", None),
        ("9" * 5_000, None),
        ("Fri, 15 Jan 2027 08:00:30 GMT", 30_000),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0),
        ("Fri, 99 Jan 2027 07:00:00 GMT", None),
    ],
)
def test_retry_after_is_read_in_both_forms(header: str | None, wait_ms: int | None) -> None:
    """`Retry-After` is seconds or a date; what is neither says nothing."""
    assert retry_after_ms(header, NOW_US) == wait_ms


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        SECRET.removeprefix("whsec_"),
        "whsec_not base64!",
        "whsec_" + base64.b64encode(b"too short").decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
        "whsec_é",
        " ".join([SECRET] * 5),
    ],
)
def test_unusable_secret_is_refused_unshown(secret: str) -> None:
    """A secret that cannot sign is refused by name, its text kept out of the error."""
    with pytest.raises(InvalidField) as caught:
        WebhookSender(webhook_config("http://localhost/", secret), SystemClock())
    assert caught.value.field == "secret"
    assert not secret.removeprefix("whsec_") or secret not in str(caught.value)


@pytest.mark.parametrize("url", ["", "ftp://host/", "http://", "/path", "http://[::1"])
def test_unusable_address_is_refused(url: str) -> None:
    """An address that is not HTTP is refused by name."""
    with pytest.raises(InvalidField) as caught:
        WebhookSender(webhook_config(url), SystemClock())
    assert caught.value.field == "url"
