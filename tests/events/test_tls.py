"""Events over TLS: who has no certificate of ours is not heard, and renewals cut nobody."""

import ssl
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from tallygate.adapters.catalog.identities import parse_identities
from tallygate.api.caller import Permits, caller_of
from tallygate.api.events_http import PATHS, EventsApi, EventsOptions, HttpContext
from tallygate.api.events_listener import EventsListener
from tallygate.api.peer_door import PeerDoor
from tallygate.domain.certificate import ServerCredentials
from tallygate.domain.identity import NOBODY
from tallygate.flow.take_events import TakeEvents
from tallygate.testing.capture import FakeRecorder
from tests.events.test_http import Heard
from tests.events.test_rules import cloud, reader
from tests.tls.certs import Authority, Made

SENDER = "spiffe://example.org/ns/shop/sa/sender"
OTHER = "spiffe://example.org/ns/shop/sa/other"
RULES = f"""\
version: 1
identities:
  - id: {SENDER}
    tenants: [acme]
    roles: [sender]
"""


def believing(
    authority: Authority, made: Made | None = None, folder: Path | None = None
) -> ssl.SSLContext:
    """Return how somebody connects, with a certificate of his own or without."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    if made is not None and folder is not None:
        context.load_cert_chain(*made.write(folder, "caller"))
    return context


async def status(http: aiohttp.ClientSession, url: str, event: Any, context: ssl.SSLContext) -> int:
    """Send an event over a connection."""
    async with http.post(url, json=[event], ssl=context) as answer:
        return answer.status


class Refusals:
    """Hears of refusals."""

    def caller_refused(self, *_: object) -> None:
        """Hear of one."""


async def test_a_unix_socket_is_who_may_open_it(tmp_path: Path) -> None:
    """There the rule of sockets counts; who is gone before he is looked at is nobody."""
    rules = "version: 1\nidentities: [{id: unix, tenants: [acme], roles: [sender]}]"
    heard = Heard()
    door = PeerDoor(Permits(parse_identities(rules), Refusals()), heard)
    api = EventsApi(TakeEvents(FakeRecorder(), reader), door, heard, EventsOptions())
    listener = EventsListener(f"unix:{tmp_path}/events.sock", api.app(), grace_s=0.1)
    await listener.start()
    connector = aiohttp.UnixConnector(f"{tmp_path}/events.sock")
    async with aiohttp.ClientSession(connector=connector) as http:
        for event, expected in ((cloud(), 204), (cloud(subject="beta"), 403)):
            async with http.post(f"http://events{PATHS[0]}", json=[event]) as answer:
                assert answer.status == expected
    await listener.stop()
    assert not (tmp_path / "events.sock").exists()
    gone = HttpContext(cast(Any, SimpleNamespace(transport=None)))
    assert caller_of(cast(Any, gone)) == NOBODY


async def test_certificates_are_asked_for_and_renewed(tmp_path: Path) -> None:
    """A SPIFFE id with the role sends for its tenants; who comes anew sees the new certificate."""
    authority, next_one = Authority(), Authority("next")
    server = authority.server()
    now = ServerCredentials(server.pem, server.key_pem, authority.pem)
    current = [now]

    permits = Permits(parse_identities(RULES), Refusals())
    recorder, heard = FakeRecorder(), Heard()
    api = EventsApi(TakeEvents(recorder, reader), PeerDoor(permits, heard), heard, EventsOptions())
    listener = EventsListener("127.0.0.1:0", api.app(), lambda: current[0], grace_s=0.1)
    await listener.start()
    url = f"https://127.0.0.1:{listener.port}{PATHS[0]}"
    sender = believing(authority, authority.client(SENDER), tmp_path)
    async with aiohttp.ClientSession() as http:
        assert await status(http, url, cloud(), sender) == 204
        assert await status(http, url, cloud(subject="beta"), sender) == 403
        with pytest.raises((aiohttp.ClientError, OSError)):
            await status(http, url, cloud(), believing(authority))
        other = believing(authority, authority.client(OTHER), tmp_path)
        assert await status(http, url, cloud(), other) == 403
        renewed = next_one.server()
        current[0] = replace(now, chain=renewed.pem, key=renewed.key_pem)
        await listener.renew()
        # The connection that is open goes on; a new one is shown the new certificate.
        assert await status(http, url, cloud(id="2"), sender) == 204
        fresh = believing(next_one, authority.client(SENDER), tmp_path)
        assert await status(http, url, cloud(id="3"), fresh) == 204
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientError):
            await status(http, url, cloud(id="4"), sender)
    await listener.stop()
    assert len({use.event_id for use in recorder.known.values()}) == 6
