"""No secret in replies, logs, metrics or pages, whatever goes wrong."""

from pathlib import Path

import pytest

from tallygate.adapters.embedded import EmbeddedRedis
from tests.e2e import catalogs
from tests.e2e.calls import consume, quota
from tests.e2e.processes import Server, site, tallygate

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


@pytest.mark.slow
async def test_no_secret_is_told_on_a_bad_day(tmp_path: Path, own_redis: EmbeddedRedis) -> None:
    """Redis and Postgres refuse or are away, settings are faulty: causes are told, no secret."""
    url = own_redis.url.replace("unix://", f"unix://user:{PASSWORD}@")
    dsn = (
        f"postgresql://billing:{POSTGRES_PASSWORD}@127.0.0.1:1/ledger?password={POSTGRES_PASSWORD}"
    )
    file = catalogs.write(tmp_path, catalogs.OPEN)
    heard = ""
    async with site(tmp_path, redis_url=url, catalog=file, log_level="debug") as place:
        # This Redis knows no such user: every use of it fails by its password.
        serve = await place.start("serve")
        ingest = await place.start("ingest", postgres_dsn=dsn)
        heard += await replies(serve.address)
        for each in (serve, ingest):
            await each.process.said("loop_failing")
        await own_redis.stop()
        heard += await replies(serve.address)
        heard += await said(serve) + await said(ingest)
        for each in (serve, ingest):
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
    assert "hunter2" not in heard
