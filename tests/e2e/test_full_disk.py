"""A real process whose disk is full: what it says of it, and that it goes on when there is room.

The disk is a small file system where one may be mounted, which needs root, and everywhere a bound
that the system sets to the process's files. Which there are is decided at collection.
"""

import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tallygate.adapters.embedded import EmbeddedRedis
from tallygate.gen.v1 import event_pb2, usage_pb2
from tests.chaos.disk import SmallDisk, small_disk
from tests.e2e import catalogs
from tests.e2e.calls import CALL_TIMEOUT_S
from tests.e2e.processes import site
from tests.e2e.test_outage import TENANT, usage
from tests.servers import eventually
from tests.sidecar import failure

pytestmark = pytest.mark.slow

JOURNAL, REDIS = event_pb2.DURABILITY_JOURNAL, event_pb2.DURABILITY_REDIS
FULL = 1


def _mountable() -> bool:
    with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder) / "disk") as disk:
        return disk is not None


WAYS = ["bounded", *(["mounted"] if _mountable() else [])]


@dataclass(slots=True)
class Disk:
    """What may be full: a file system, or the files of a process."""

    small: SmallDisk | None
    pid: int = 0

    def fill(self) -> None:
        """Leave no room."""
        if self.small is not None:
            self.small.fill()
        else:
            self._bound(1)

    def clear(self) -> None:
        """Give the room back."""
        if self.small is not None:
            self.small.clear()
        else:
            self._bound(resource.RLIM_INFINITY)

    def _bound(self, size: int) -> None:
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, hard))


@contextmanager
def disk_of(way: str, folder: Path) -> Iterator[Disk]:
    """Lend the disk below a folder."""
    with small_disk(folder) if way == "mounted" else nullcontext(None) as small:
        yield Disk(small)


def record(number: int, least: int = 0) -> usage_pb2.RecordUsageRequest:
    """Return an event to record, at least as durable as that."""
    return usage_pb2.RecordUsageRequest(
        tenant_id=TENANT,
        meter="requests",
        amount=1,
        event_id=f"event-{number}",
        min_durability=least,  # type: ignore[arg-type]  # an enum's number
    )


@pytest.mark.parametrize("way", WAYS)
async def test_a_full_disk_is_told_and_got_over(
    tmp_path: Path, own_redis: EmbeddedRedis, way: str
) -> None:
    """Nothing says `JOURNAL` meanwhile; what said so, before and after, is read by a successor."""
    folder = tmp_path / "data"
    file = catalogs.write(tmp_path, catalogs.OPEN)
    with disk_of(way, folder) as disk:
        async with site(tmp_path, redis_url=own_redis.url, catalog=file, data_dir=folder) as place:
            serve = await place.start("serve")
            disk.pid = serve.process.child.pid
            async with usage(serve.address) as stub:

                async def recorded(number: int, least: int = 0) -> int:
                    asked = record(number, least)
                    return (await stub.RecordUsage(asked, timeout=CALL_TIMEOUT_S)).durability

                assert await recorded(1) == JOURNAL
                disk.fill()
                # The last page that a file has may take some more.
                told_of = [await recorded(number) for number in range(2, 62)]
                # Nothing more is promised of the disk: Redis alone has it, and that is said.
                assert told_of == sorted(told_of, reverse=True)
                assert told_of[-10:] == [REDIS] * 10
                told = await failure(stub.RecordUsage(record(62, JOURNAL), timeout=CALL_TIMEOUT_S))
                assert (told.code, told.comes_back) == (grpc.StatusCode.UNAVAILABLE, True)
                assert await serve.metric("tallygate_journal_state") == FULL
                assert [(await serve.page(name))[0] for name in ("/livez", "/readyz")] == [200] * 2
                # With Redis away as well there is nowhere to keep it: that is said, and no crash.
                await own_redis.stop()
                told = await failure(stub.RecordUsage(record(63), timeout=CALL_TIMEOUT_S))
                assert told.code is grpc.StatusCode.UNAVAILABLE
                assert told.pushback_ms == str((told.retry_us or 0) // 1000) != "0", told
                await own_redis.start()
                disk.clear()

                async def taking() -> bool:
                    return await serve.metric("tallygate_journal_state") == 0

                await eventually(taking, 30.0, what="a journal that takes entries")

                async def back() -> bool:
                    try:
                        return await recorded(63) == JOURNAL
                    except grpc.aio.AioRpcError as error:
                        if error.code() is grpc.StatusCode.UNAVAILABLE:
                            return False
                        raise

                await eventually(back, 30.0, what="Redis and the disk")
                assert await recorded(64, JOURNAL) == JOURNAL
            await serve.process.kill()
            heir = await place.start("serve")
            kept = await heir.metric("tallygate_journal_unconfirmed_events")
            assert kept >= 3
            assert await heir.metric("tallygate_journal_state") == 0
