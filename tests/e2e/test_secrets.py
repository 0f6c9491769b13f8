"""No secret in replies, logs, metrics or pages, whatever goes wrong."""

from pathlib import Path

import pytest

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.gen.v1 import admin_pb2, admin_pb2_grpc
from tests.access.signing import signer, write_keys
from tests.e2e import catalogs
from tests.e2e.calls import consume, quota
from tests.e2e.processes import Server, site, tallygate
from tests.sidecar import channel, failure

PASSWORD = "hunter2-a-redis-password"
POSTGRES_PASSWORD = "hunter2-a-postgres-password"
PAGES = ("/metrics", "/readyz?verbose", "/livez", "/nothing")


async def said(server: Server) -> str:
    """Return all that a process has said and shows."""
    pages = [text for _, text in [await server.page(path) for path in PAGES]]
    return "".join([*server.process.out, *server.process.err, *pages])


async def replies(address: str) -> str:
    """Return what a caller is told, of one call that may fail."""
    async with quota(address) as stub:
        try:
            return str(await stub.CheckAndConsume(consume("told"), timeout=5.0))
        except Exception as error:  # noqa: BLE001  whatever is told is looked at
            return repr(error)


async def refused(address: str, token: str) -> str:
    """Return what control tells whoever has a token, of one call that fails."""
    metadata = [("authorization", f"Bearer {token}")]
    async with channel(address) as opened:
        stub = admin_pb2_grpc.AdminServiceStub(opened)
        request = admin_pb2.ListMetersRequest()
        return repr(await failure(stub.ListMeters(request, metadata=metadata, timeout=30.0)))


@pytest.mark.slow
async def test_no_secret_is_told_on_a_bad_day(tmp_path: Path, own_redis: EmbeddedRedis) -> None:
    """Redis and Postgres refuse or are away, settings are faulty: causes are told, no secret."""
    url = own_redis.url.replace("unix://", f"unix://user:{PASSWORD}@")
    dsn = (
        f"postgresql://billing:{POSTGRES_PASSWORD}@127.0.0.1:1/ledger?password={POSTGRES_PASSWORD}"
    )
    file = catalogs.write(tmp_path, catalogs.OPEN)
    heard = ""
    # Of a stranger, of ours but over, and good: each is refused, or its call fails.
    over = signer().sign(iss="tallygate", exp=1)
    tokens = [signer("stranger").sign(), over, signer().sign(iss="tallygate", roles=["admin"])]
    keys = write_keys(tmp_path / "keys.json", signer())
    async with site(tmp_path, redis_url=url, catalog=file, log_level="debug") as place:
        # This Redis knows no such user: every use of it fails by its password.
        serve = await place.start("serve")
        ingest = await place.start("ingest", postgres_dsn=dsn)
        heard += await replies(serve.address)
        control = await place.start("control", postgres_dsn=dsn, token_keys_file=keys)
        for token in tokens:
            heard += await refused(control.address, token)
        for each in (serve, ingest, control):
            await each.process.said("loop_failing")
        await own_redis.stop()
        heard += await replies(serve.address)
        heard += await said(serve) + await said(ingest) + await said(control)
        for each in (serve, ingest, control):
            assert await each.terminate() == 0
            heard += "".join([*each.process.out, *each.process.err])
    for verb in ("check-config", "doctor"):
        finished = await tallygate(verb, redis_url=url, postgres_dsn=dsn, log_level="shouting")
        heard += finished.out + finished.err
        finished = await tallygate(verb, redis_url=url, postgres_dsn=dsn)
        heard += finished.out + finished.err
    # It did say something, of the very things that have secrets.
    assert "loop_failing" in heard
    assert "BACKEND_UNAVAILABLE" in heard
    assert "TOKEN_EXPIRED" in heard
    assert "hunter2" not in heard
    for token in tokens:
        assert not any(part in heard for part in token.split("."))
