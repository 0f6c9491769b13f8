"""Every process does its work with the rights that are shipped for it, and with no others."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import grpc
import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from tallygate.adapters.embedded import EmbeddedPostgres
from tallygate.adapters.redis import acl, keys
from tallygate.adapters.redis.client import connect
from tallygate.adapters.redis.credentials import RedisCredentials, without_user
from tallygate.adapters.redis.posture import read_posture
from tallygate.commands.channel import Target, channel
from tallygate.commands.usage import apply
from tallygate.domain.errors import InvalidField
from tallygate.gen.v1 import admin_pb2, admin_pb2_grpc
from tests.access.signing import signer, write_keys
from tests.access.world import (
    LEDGER_ROLES,
    SHARDS,
    World,
    as_login,
    asking_for_passwords,
    command,
    login,
    put,
    with_user,
    world,
)
from tests.e2e import catalogs
from tests.e2e.calls import CALL_TIMEOUT_S, consume, quota
from tests.servers import Databases, RedisBinary, connection, eventually

CALLERS = 3
APPEND_ONLY = ("usage_event", "event_key", "audit_log", "invoice", "period_total")
HOOKS = """
destinations:
  hooks:
    kind: webhook
    url: http://127.0.0.1:9/hooks
    types: [usage.batch]
    secret: {file: FILE}
"""


@pytest.fixture(scope="module")
def asking(postgres_server: EmbeddedPostgres) -> Iterator[None]:
    """The worker's Postgres asks for passwords."""
    with asking_for_passwords(postgres_server):
        yield


class Load:
    """Calls to a sidecar and to control, one after the other, and what became of them."""

    def __init__(self) -> None:
        self.answered: Counter[str] = Counter()
        self.failed: list[str] = []
        self.over = asyncio.Event()

    async def consume(self, address: str, name: int) -> None:
        """Charge again and again."""
        async with quota(address) as stub:
            while not self.over.is_set():
                try:
                    request = consume(f"{name}-{self.answered[str(name)]}")
                    await stub.CheckAndConsume(request, timeout=CALL_TIMEOUT_S)
                    self.answered[str(name)] += 1
                except grpc.aio.AioRpcError as error:
                    self.failed.append(repr(error))

    async def read(self, control: Target) -> None:
        """Ask control again and again."""
        async with channel(control) as lent:
            stub = admin_pb2_grpc.AdminServiceStub(lent)
            while not self.over.is_set():
                try:
                    await stub.QueryUsage(admin_pb2.QueryUsageRequest(), timeout=CALL_TIMEOUT_S)
                    self.answered["control"] += 1
                except grpc.aio.AioRpcError as error:
                    self.failed.append(repr(error))

    async def more(self, calls: int = 10) -> None:
        """Wait until everybody has been answered so many times more."""
        names = [*map(str, range(CALLERS)), "control"]
        wanted = {name: self.answered[name] + calls for name in names}
        await eventually(
            lambda: all(self.answered[name] >= count for name, count in wanted.items()),
            30.0,
            what="answers to everybody",
        )


async def test_passwords_rotate_under_load(
    asking: None,
    tmp_path: Path,
    redis_url: str,
    redis_binary: RedisBinary,
    databases: Databases,
) -> None:
    """Each process works under its own users; new passwords are taken over, and no call fails."""
    token = put(tmp_path / "token", signer().sign(sub="ci", roles=["admin"], iss="tallygate"))
    secret = put(tmp_path / "hook", "whsec_" + "c2VjcmV0LW9mLTMyLWJ5dGVz" * 2)
    trusted = write_keys(tmp_path / "keys.json", signer())
    async with world(tmp_path, redis_url, databases, redis_binary.version[0]) as place:
        control = await place.start("control", token_keys_file=trusted)
        target = Target(control.control_addresses[0], token)
        document = catalogs.OPEN + HOOKS.replace("FILE", str(secret))
        assert not (await apply(target, document)).faults
        serve = await place.start("serve")
        await place.start("ingest")
        await place.start("relay")
        await eventually(serve.ready, what="a sidecar with a catalog")
        await eventually(lambda: _open(place), 30.0, what="shards that are open")
        load = Load()
        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                group.create_task(load.consume(serve.grpc_addresses[0], number))
            group.create_task(load.read(target))
            await load.more()
            before = await _clients(place)
            await place.rotate()
            await place.forget_old()
            await load.more()
            load.over.set()
        assert load.failed == []
        assert {user for _, user in before} == {
            acl.user_name(role) for role in ("serve", "ingest", "control")
        }
        calls = sum(load.answered[str(number)] for number in range(CALLERS))
        async with connection(place.dsn) as admin:

            async def stored() -> bool:
                count = await admin.fetchval("select count(*) from tallygate.usage_event")
                return bool(count == calls)

            await eventually(stored, 30.0, what="every event in the ledger")
            actors = await admin.fetch("select distinct actor, role from tallygate.audit_log")
        assert [tuple(each) for each in actors] == [("ci", "control:admin")]
        await _ledger_is_append_only(place)
        refused = [each for each in await place.refused() if each["object"] not in TOLERATED]
        assert refused == []


# What redis-py says of itself, and what a posture asks where it may: both do without an answer.
TOLERATED = frozenset(("client|setinfo", "client|maint_notifications", "config|get", "client"))


async def _ledger_is_append_only(place: World) -> None:
    """Under no login of a process can what was recorded be changed, or can the schema be."""
    statements = [
        *(f"delete from tallygate.{table}" for table in APPEND_ONLY),
        *(f"update tallygate.{table} set tenant_id = 'x'" for table in APPEND_ONLY),
        *(f"truncate tallygate.{table}" for table in APPEND_ONLY),
        *("drop table tallygate.usage_event", "create table tallygate.mine ()"),
        "create role tallygate_tests_mine superuser",
    ]
    for role in LEDGER_ROLES:
        dsn = as_login(place.dsn, role, place.passwords[f"postgres-{role}"])
        async with connection(dsn) as own:
            assert await own.fetchval("select current_user") == login(role)
            for statement in statements:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await own.execute(statement)
    wrong = as_login(place.dsn, "ingest", "hunter2")
    with pytest.raises(asyncpg.InvalidPasswordError):
        async with connection(wrong):
            pass


DENIED = (
    *("CONFIG GET maxmemory", "CONFIG SET maxmemory 1", "KEYS *", "FLUSHALL", "FLUSHDB"),
    *("ACL LIST", "ACL WHOAMI", "SHUTDOWN", "MONITOR", "CLIENT LIST"),
    *("SCRIPT FLUSH", "REPLICAOF NO ONE", "SAVE", "RENAME {tg:00}:m {tg:00}:x"),
    *("SET other 1", "GET other", "SET {tg:zz}:m 1", "XTRIM {tg:00}:s MAXLEN 0 EXTRA"),
    *("EVAL return(redis.call('GET','other')) 0", "MODULE LIST", "SWAPDB 0 1", "OBJECT HELP"),
)
CATALOG_WRITES = ("SET {tg:catalog}:snapshot x", "HSET {tg:tenant:0} acme x")


@pytest.mark.every_redis
@pytest.mark.parametrize("role", list(acl.USERS))
async def test_nothing_else_is_permitted(
    redis_url: str, redis_binary: RedisBinary, role: str
) -> None:
    """No user administrates, lists keys, or touches others'; control alone writes the catalog."""
    admin = Redis.from_url(redis_url)
    major = redis_binary.version[0]
    await command(
        admin, "ACL", "SETUSER", acl.user_name(role), *acl.rules(role, "secret", major=major)
    )
    client = connect(with_user(redis_url, acl.user_name(role), "secret"), 5_000)
    try:
        denied = [each for each in DENIED if not (role == "ingest" and each.startswith("XTRIM"))]
        if major >= acl.READ_ONLY_MAJOR and role != "control":
            denied += CATALOG_WRITES
        if role == "read":
            denied += ["HSET {tg:00}:m a 1", "XADD {tg:00}:s * a 1", "EVAL return(1) 0"]
        for each in denied:
            with pytest.raises(ResponseError) as refused:
                await command(client, *each.split())
            said = f"{type(refused.value).__name__} {refused.value}"
            named = any(word in said for word in ("ACL", "can't access"))
            assert isinstance(refused.value, NoPermissionError) or named, (each, said)
        # What only CONFIG tells is left out, and the rest is told.
        posture = await read_posture(client)
        assert {"persistence", "noeviction", "primary"} <= set(posture)
        assert not {"appendfsync", "min_replicas"} & set(posture)
        assert await client.get(keys.catalog_snapshot()) is None
    finally:
        await client.aclose()
        await command(admin, "ACL", "DELUSER", acl.user_name(role))
        await admin.aclose()


def test_what_scripts_call_is_permitted() -> None:
    """Every command in a script stands in the table of each user that runs scripts."""
    folder = Path(acl.__file__).parent
    text = "".join(path.read_text() for path in (folder / "lua").glob("*.lua"))
    called = {each.lower() for each in re.findall(r"(?:call|try)\(\s*'([A-Z]{2,})'", text)}
    called |= {each.lower() for each in re.findall(r"\{ '([A-Z]{2,})'", text)}
    assert {"xadd", "hset", "zadd", "zrangebyscore"} <= called
    for role in ("serve", "ingest", "control"):
        assert called - set(acl.USERS[role].commands) == CARRIED - set(acl.USERS[role].commands)


# Of the script that carries tenants between shards, which control alone runs.
CARRIED = frozenset(("restore", "unlink"))


def test_lines_hold_no_password() -> None:
    """A line has the password's digest, and on older servers no right that these do not know."""
    line = acl.line("serve", "hunter2")
    assert line.startswith("user tallygate-serve reset on #")
    assert "%R~{tg:catalog}:*" in line
    assert "hunter2" not in line
    assert "%R" not in acl.line("serve", "hunter2", major=6)
    with pytest.raises(InvalidField):
        acl.line("serve", "")


@pytest.mark.parametrize(
    ("url", "bare", "shown"),
    [
        ("redis://ada:p%40ss@h:1/0", "redis://h:1/0", ("ada", "p@ss")),
        ("redis://:pass@h", "redis://h", ("pass",)),
        ("redis://h:1", "redis://h:1", ()),
        ("unix://ada:pass@/run/r.sock?db=1", "unix:///run/r.sock?db=1", ("ada", "pass")),
        ("unix:///run/r.sock?password=pass", "unix:///run/r.sock", ("pass",)),
        ("redis+cluster://a:b@h:1,i:2/", "redis+cluster://h:1,i:2/", ("a", "b")),
    ],
)
def test_addresses_are_split_from_their_users(url: str, bare: str, shown: tuple[str, ...]) -> None:
    """User and password are taken out of an address wherever they stand in it."""
    assert without_user(url) == bare
    assert RedisCredentials(url).get_credentials() == shown


async def _open(place: World) -> bool:
    """Say whether every shard decides: a new one does once the ledger has been asked."""
    stages = [await place.redis.hget(keys.meta(shard), "open") for shard in range(SHARDS)]
    return set(stages) == {"1"}


async def _clients(place: World) -> set[tuple[str, str]]:
    """Return who is connected by our name: the connection's id, and its user."""
    found: set[tuple[str, str]] = set()
    for each in await place.redis.client_list():
        if each["name"] == "tallygate":
            found.add((each["id"], each["user"]))
    return found
