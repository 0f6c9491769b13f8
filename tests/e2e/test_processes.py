"""Processes that serve one port together are one sidecar to callers, operators and the ledger."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from tallygate.gen.v1 import quota_pb2
from tests.e2e import catalogs
from tests.e2e.calls import CALL_TIMEOUT_S, LOST, Ledger, consume
from tests.e2e.groups import each, labelled, quotas, ready, serving, workers
from tests.e2e.processes import Server, Site, site, tallygate
from tests.servers import eventually

# Each starts several processes, more than once.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROCESSES = 3
LIMIT = 200
CALLS = 450
TENANT = "acme"
SETTLE_S = 60.0
REFUSED_EXIT = 1


@pytest.fixture
async def place(tmp_path: Path, redis_url: str) -> AsyncIterator[Site]:
    """An installation with a hard limit, and no ledger."""
    file = catalogs.write(tmp_path, catalogs.limited(LIMIT))
    async with site(
        tmp_path,
        redis_url=redis_url,
        catalog=file,
        counter_rebuild="none",
        # On a busy machine: no test here is about an outage.
        redis_timeout_ms=10_000,
    ) as place:
        yield place


async def start(place: Site, count: int = PROCESSES, **settings: object) -> Server:
    """Start a group; return it once all of its processes are ready."""
    server = await place.start("serve", "--processes", count, **settings)
    await ready(server)
    return server


async def test_a_limit_is_exact_over_all_processes(place: Site) -> None:
    """Callers of every process get as many units as there are; the sums are those of the calls."""
    server = await start(place)
    async with quotas(server.address) as stubs:

        async def call(number: int) -> bool:
            request = consume(f"op-{number}", 1, TENANT)
            stub = stubs[number % len(stubs)]
            return (await stub.CheckAndConsume(request, timeout=CALL_TIMEOUT_S)).allowed

        answers = await each(CALLS, call)
        assert len(serving(server)) == PROCESSES == len(workers(server))
    assert answers == {True: LIMIT, False: CALLS - LIMIT}
    decided = await labelled(server, "tallygate_decisions_total")
    assert decided['{outcome="allowed"}'] == LIMIT
    assert decided['{outcome="refused"}'] == CALLS - LIMIT
    assert await server.metric("tallygate_events_accepted_total") == LIMIT
    timed = await labelled(server, "tallygate_rpc_duration_seconds_count")
    assert sum(timed.values()) == CALLS
    sizes = await labelled(server, "process_resident_memory_bytes")
    assert {*sizes} == {f'{{process="{name}"}}' for name in ("0", "1", "2", "group")}
    assert await server.terminate() == 0


async def test_leases_are_exact_over_all_processes(place: Site) -> None:
    """Each process leases for itself, and together they grant what the limit has, to the unit."""
    server = await start(place, leases="on", lease_hot_per_s=1)
    async with quotas(server.address) as stubs:
        rounds, allowed = 0, 0

        async def call(number: int) -> bool:
            request = consume(f"op-{rounds}-{number}", 1, TENANT)
            stub = stubs[number % len(stubs)]
            return (await stub.CheckAndConsume(request, timeout=CALL_TIMEOUT_S)).allowed

        async def spent() -> bool:
            # What a process has leased and does not use comes back to the others.
            nonlocal rounds, allowed
            allowed += (await each(len(stubs), call))[True]
            rounds += 1
            return allowed >= LIMIT and await used() == allowed

        async def used() -> int:
            request = quota_pb2.GetQuotaRequest(tenant_id=TENANT)
            return (await stubs[0].GetQuota(request, timeout=CALL_TIMEOUT_S)).limits[0].used

        await eventually(spent, SETTLE_S, what="all units are granted and settled")
        assert allowed == LIMIT
        assert (await each(len(stubs), call)) == {False: len(stubs)}
    assert await server.metric("tallygate_lease_grants_total") > 0
    assert await server.metric("tallygate_lease_lost_total") == 0


@pytest.mark.faults_long
async def test_further_roles_run_once(place: Site, postgres_dsn: str) -> None:
    """What is accepted by any process is ingested by one, and completeness closes over all."""
    settings = {"postgres_dsn": postgres_dsn, "counter_rebuild": "ledger"}
    server = await place.start(
        "serve", "--processes", PROCESSES, "--with", "ingest,control", **settings
    )
    applied = await tallygate(
        *("apply", "-f", place.settings["catalog"]),
        control_address=server.address.rpartition(", ")[2],
    )
    assert applied.code == 0, applied.err
    address = server.address.partition(", ")[0]
    await ready(server)
    async with quotas(address) as stubs:

        async def allowed() -> bool:
            # Before the ledger has opened the counters, they refuse to decide.
            try:
                await call(0)
            except grpc.aio.AioRpcError as error:
                if error.code() not in LOST:
                    raise
                return False
            return True

        async def call(number: int) -> bool:
            request = consume(f"op-{number}", 1, TENANT)
            stub = stubs[number % len(stubs)]
            return (await stub.CheckAndConsume(request, timeout=CALL_TIMEOUT_S)).allowed

        await eventually(allowed, SETTLE_S, what="counters are open")
        assert await each(LIMIT, call) == {True: LIMIT}
    ledger = Ledger(postgres_dsn)

    async def whole() -> bool:
        # Two loops look, one at numbers and one at the ledger's share of them.
        persisted = await server.metric("tallygate_completeness_persisted")
        ratio = await server.metric("tallygate_completeness_ratio")
        return (persisted, ratio) == (LIMIT, 1)

    await eventually(whole, SETTLE_S, what="the ledger has every number")
    assert await ledger.count() == LIMIT
    assert await server.metric("tallygate_events_accepted_total") == LIMIT
    assert await server.metric("tallygate_events_persisted_total") == LIMIT
    assert await server.metric("tallygate_completeness_accepted") == LIMIT
    assert await server.metric("tallygate_completeness_unaccounted") == 0
    assert await server.terminate() == 0


async def test_a_port_has_one_group(place: Site) -> None:
    """A second group, and a single process, are refused on a group's port, and told so once."""
    server = await start(place, 2)
    for count in (2, 1):
        second = await tallygate(
            *("serve", "--processes", count),
            **place.settings,
            grpc_address=server.address,
            ops_address="127.0.0.1:0",
            data_dir=place.folder / "second",
        )
        assert second.code == REFUSED_EXIT
        assert second.err.count("cannot listen on") == 1, second.err
    # It is not disturbed.
    async with quotas(server.address) as stubs:

        async def call(number: int) -> bool:
            request = consume(f"op-{number}", 1, TENANT)
            return (await stubs[number].CheckAndConsume(request, timeout=CALL_TIMEOUT_S)).allowed

        assert await each(len(stubs), call) == {True: len(stubs)}


async def test_a_single_process_keeps_groups_away(place: Site) -> None:
    """A group is refused where another server listens."""
    server = await place.start("serve")
    second = await tallygate(
        *("serve", "--processes", 2),
        **place.settings,
        grpc_address=server.address,
        ops_address="127.0.0.1:0",
        data_dir=place.folder / "second",
    )
    assert second.code == REFUSED_EXIT
    assert f"cannot listen on {server.address}" in second.err


async def test_what_no_process_can_do_is_told_once(place: Site) -> None:
    """A fault that every process would meet ends the command with a line, not with one for each."""
    await (await place.start("serve")).terminate()
    failed = await tallygate(
        *("serve", "--processes", PROCESSES),
        **place.settings,
        shards=8,
        grpc_address="127.0.0.1:0",
        ops_address="127.0.0.1:0",
        data_dir=place.folder / "other",
    )
    assert failed.code == REFUSED_EXIT
    assert len([line for line in failed.err.splitlines() if line.startswith("tallygate:")]) == 1
    assert "16" in failed.err
