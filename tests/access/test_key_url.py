"""Keys at an address: asked for seldom, trusted for a while, and never in doubt."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from tallygate.adapters.tokens.key_url import UrlKeys, UrlOptions
from tallygate.domain.errors import BackendUnavailable, InvalidField
from tests.access.signing import key_set, signer
from tests.access.test_verifier import Counted

OPTIONS = UrlOptions(timeout_s=0.3, refresh_min_s=10.0, refresh_s=100.0, age_max_s=1_000.0)


@dataclass
class Provider:
    """An identity provider, and a clock."""

    body: bytes = b""
    status: int = 200
    asked: int = 0
    time_s: float = 5.0
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    def now_us(self) -> int:
        """Return the time."""
        return int(self.time_s * 1e6)

    def monotonic(self) -> float:
        """Return the time in seconds."""
        return self.time_s

    async def answer(self, _: web.Request) -> web.Response:
        """Answer a question for the keys."""
        self.asked += 1
        await self.answering.wait()
        return web.Response(body=self.body, status=self.status, headers={"location": "/keys"})


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    """A provider that listens."""
    found = Provider(key_set(signer()))
    found.answering.set()
    application = web.Application()
    application.router.add_get("/keys", found.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    found.url = f"http://127.0.0.1:{port}/keys"
    yield found
    await runner.cleanup()


@pytest.fixture
async def counted() -> Counted:
    """What is told of keys."""
    return Counted()


@pytest.fixture
async def keys(provider: Provider, counted: Counted) -> AsyncIterator[UrlKeys]:
    """The keys there."""
    found = UrlKeys(provider.url, provider, counted, OPTIONS)
    yield found
    await found.close()


async def test_many_ask_once(provider: Provider, keys: UrlKeys) -> None:
    """Those who come together wait for one answer, and what is known is not asked again."""
    provider.answering.clear()
    waiting = [asyncio.create_task(keys.find("one")) for _ in range(20)]
    while not provider.asked:
        await asyncio.sleep(0)
    provider.answering.set()
    assert all(await asyncio.gather(*waiting))
    assert await keys.find("one")
    assert provider.asked == 1


async def test_a_new_key_is_found(provider: Provider, keys: UrlKeys) -> None:
    """A key that nobody knows is asked for, but not more often than is allowed."""
    assert await keys.find("one")
    provider.body = key_set(signer(), signer("two"))
    for number in range(50):
        assert await keys.find(f"forged-{number}") is None
    assert provider.asked == 1
    provider.time_s += OPTIONS.refresh_min_s
    assert await keys.find("two")
    assert provider.asked == 2


async def test_known_keys_are_asked_for_anew_beside_calls(
    provider: Provider, keys: UrlKeys, counted: Counted
) -> None:
    """When they are old, calls go on with them meanwhile; a key that is gone is gone then."""
    assert await keys.find("one")
    provider.body = key_set(signer("two"))
    provider.time_s += OPTIONS.refresh_s
    assert await keys.find("one")
    assert keys._asking is not None
    await keys._asking
    assert await keys.find("one") is None
    assert counted.keys == 1


@pytest.mark.parametrize("fault", ["status", "redirect", "body", "large", "silent"])
async def test_a_provider_that_fails_leaves_the_keys_for_a_while(
    provider: Provider, keys: UrlKeys, counted: Counted, fault: str
) -> None:
    """The last keys count on, up to their age; after that nobody comes in, until they are read."""
    assert await keys.find("one")
    provider.status = {"status": 500, "redirect": 302}.get(fault, 200)
    provider.body = {"body": b"{}", "large": b"[" * 300_000}.get(fault, provider.body)
    if fault == "silent":
        provider.answering.clear()
    provider.time_s += OPTIONS.age_max_s - 1
    assert await keys.find("one")
    assert keys._asking is not None
    await keys._asking
    assert counted.failures == 1
    provider.time_s += OPTIONS.refresh_min_s
    provider.answering.set()
    if fault != "silent":
        with pytest.raises(BackendUnavailable):
            await keys.find("one")
        provider.time_s += OPTIONS.refresh_min_s
    provider.status, provider.body = 200, key_set(signer())
    assert await keys.find("one")


async def test_a_provider_that_is_away_at_first_is_told(keys: UrlKeys, provider: Provider) -> None:
    """Without keys nothing is verified: that is no refusal, as it may come right."""
    provider.status = 503
    for _ in range(2):
        with pytest.raises(BackendUnavailable):
            await keys.find("one")
    assert provider.asked == 1


@pytest.mark.parametrize("url", ["http://id.example.org/keys", "ftp://127.0.0.2/keys", "keys"])
def test_only_https_leaves_the_machine(provider: Provider, url: str) -> None:
    """Whoever answers in between would decide who is trusted."""
    with pytest.raises(InvalidField) as raised:
        UrlKeys(url, provider, Counted())
    assert raised.value.field == "token_keys_url"
