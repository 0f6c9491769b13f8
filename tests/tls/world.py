"""A sidecar with TLS, rules for callers and a Unix socket, on a Redis of its own.

Guarantees: everything between the channel and Redis is what is shipped.
Refuses to know: which calls are made.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.settings import Settings
from tallygate.wiring.host import Running
from tallygate.wiring.process import running
from tallygate.wiring.roles import Role
from tests.e2e import catalogs
from tests.servers import UNSYNCED, eventually
from tests.tls.certs import Authority, Made

POLL_MS = 20
DOMAIN = "spiffe://example.org"
CHECKOUT = f"{DOMAIN}/ns/shop/sa/checkout"
RULES = f"""\
version: 1
identities:
  - id: {DOMAIN}/ns/*/sa/checkout
    tenants: [acme, team-*]
  - id: {DOMAIN}/ns/shop/sa/reports
    services: [usage]
    tenants: [acme]
  - id: {DOMAIN}/ns/shop/sa/narrow
    tenants: [acme]
    meters: [requests]
  - id: unix
    tenants: [local]
"""


@dataclass(slots=True)
class Secure:
    """A sidecar that is up, with what it and its callers prove themselves with."""

    folder: Path
    authority: Authority
    process: Running
    made: dict[str, Made] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where it speaks TLS."""
        return self.process.grpc_addresses[0]

    @property
    def socket(self) -> str:
        """Its Unix socket."""
        return self.process.grpc_addresses[1]

    def renew(self, made: Made) -> None:
        """Put another certificate and key in place, each at once."""
        for name, content in (("server.crt", made.pem), ("server.key", made.key_pem)):
            replace(self.folder / name, content)

    def client(self, identity: str) -> Made:
        """Return the certificate of a caller, always the same."""
        found = self.made.get(identity)
        if found is None:
            found = self.made[identity] = self.authority.client(identity)
        return found

    def client_context(self) -> ssl.SSLContext:
        """Return how somebody who is let in connects without gRPC."""
        cert, key = self.client(CHECKOUT).write(self.folder, "caller")
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        context.load_cert_chain(cert, key)
        context.set_alpn_protocols(["h2"])
        return context

    def metric(self, name: str, **labels: str) -> float:
        """Return what a metric shows."""
        return self.process.metrics.registry.get_sample_value(name, labels) or 0.0


def replace(path: Path, content: bytes) -> None:
    """Put a file in the place of another, as renewals do."""
    draft = path.with_suffix(".new")
    draft.write_bytes(content)
    draft.rename(path)


def secure_channel(address: str, *, roots: bytes, client: Made | None = None) -> grpc.aio.Channel:
    """Return a channel with a connection of its own."""
    credentials = grpc.ssl_channel_credentials(
        roots, client.key_pem if client else None, client.pem if client else None
    )
    own = ("grpc.use_local_subchannel_pool", 1)
    return grpc.aio.secure_channel(address, credentials, options=[own, ("grpc.enable_retries", 0)])


@asynccontextmanager
async def secured_sidecar(folder: Path, rules: str = RULES) -> AsyncIterator[Secure]:
    """Serve with TLS and rules until the end."""
    authority = Authority()
    cert, key = authority.server().write(folder, "server")
    identities = folder / "identities.yaml"
    identities.write_text(rules)
    async with EmbeddedRedis(folder / "redis", options=UNSYNCED) as redis:
        settings = Settings(
            grpc_address=("127.0.0.1:0", f"unix:{folder}/serve.sock"),
            ops_address="127.0.0.1:0",
            redis_url=redis.url,  # type: ignore[arg-type]  # parsed by the library
            catalog=catalogs.write(folder, catalogs.OPEN),
            data_dir=folder / "data",
            counter_rebuild="none",
            # So that a slow machine has no outage, which nothing here is about.
            breaker_hang_ms=20_000,
            redis_timeout_ms=20_000,
            default_deadline_ms=20_000,
            tls_cert_file=cert,
            tls_key_file=key,
            tls_client_ca_file=authority.write(folder),
            tls_identities=identities,
            tls_poll_ms=POLL_MS,
        )
        async with running(settings, frozenset({Role.SERVE})) as process:
            await eventually(process.ready, 30.0, what="a catalog")
            yield Secure(folder, authority, process)
