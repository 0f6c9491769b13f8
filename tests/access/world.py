"""An installation whose every process has a user of its own in Redis and in Postgres.

Guarantees: passwords are asked for and lie in files, as mounted secrets do; whatever a user was
refused is found afterwards. Refuses to know what is done with it.
"""

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
from redis.asyncio import Redis

from tallygate.adapters.embedded import EmbeddedPostgres
from tallygate.adapters.postgres.migrate import apply_roles, migrate
from tallygate.adapters.redis import acl
from tallygate.settings_sources import load_settings
from tallygate.wiring.host import Running
from tallygate.wiring.process import running
from tallygate.wiring.roles import Role
from tests.servers import COMMAND_TIMEOUT_S, Databases, connection, eventually, run

LOGINS = "tallygate_tests_logins"
"""Whoever is in this group is asked for a password."""
SHARDS = 2
MIGRATOR = "tallygate_tests_migrator"
# The sidecar has none.
LEDGER_ROLES = ("ingest", "relay", "control", "read")


def login(role: str) -> str:
    """Return the login role that a process has in Postgres."""
    return f"tallygate_tests_{role}"


async def command(client: Redis, *words: str) -> object:
    """Send a command that redis-py has no method for."""
    answer: object = await cast(Any, client).execute_command(*words)
    return answer


def put(path: Path, text: str) -> Path:
    """Put a text in the place of a file, as a mounted secret is replaced."""
    draft = path.with_suffix(".new")
    draft.write_text(f"{text}\n")
    draft.replace(path)
    return path


def with_user(url: str, user: str, password: str) -> str:
    """Return a server's address with a user in it."""
    parts = urlsplit(url)
    netloc = f"{quote(user)}:{quote(password)}@{parts.netloc.rpartition('@')[2]}"
    text = urlunsplit(parts._replace(netloc=netloc))
    # A socket has no host, and its path follows the user.
    return text if parts.netloc or parts.scheme != "unix" else f"unix://{netloc}{parts.path}"


def _prepend(path: Path, line: str) -> None:
    given = path.read_text()
    path.with_suffix(".kept").write_text(given)
    path.write_text(f"{line}{given}")


@contextmanager
def asking_for_passwords(server: EmbeddedPostgres) -> Iterator[None]:
    """Have a Postgres ask those of one group for passwords, as the trusting one of tests does not.

    The group's members go with the block.
    """

    async def begin() -> Path:
        async with connection(server.dsn) as admin:
            await admin.execute(f"create role {LOGINS} nologin")
            path = Path(await admin.fetchval("show hba_file"))
            _prepend(path, f"local all +{LOGINS} scram-sha-256\n")
            await admin.execute("select pg_reload_conf()")
            await admin.execute(f"create role {login('probe')} login password 'x' in role {LOGINS}")

            async def asked() -> bool:
                try:
                    async with connection(as_login(server.dsn, "probe", "wrong")):
                        return False
                except asyncpg.InvalidPasswordError:
                    return True

            await eventually(asked, what="a Postgres that asks for passwords")
        return path

    async def end(path: Path) -> None:
        async with connection(server.dsn) as admin:
            path.with_suffix(".kept").replace(path)
            await admin.execute("select pg_reload_conf()")
            for role in (*map(login, (*LEDGER_ROLES, "probe")), LOGINS):
                await admin.execute(f"drop role if exists {role}")

    path = run(begin())
    try:
        yield
    finally:
        run(end(path))


def as_login(dsn: str, role: str, password: str) -> str:
    """Return a database's address under a login role."""
    return with_user(dsn, login(role), password)


@dataclass
class World:
    """The installation."""

    folder: Path
    redis_url: str
    dsn: str
    redis: Redis
    stack: AsyncExitStack
    passwords: dict[str, str] = field(default_factory=dict)
    processes: dict[str, Running] = field(default_factory=dict)

    async def grant(self, major: int) -> None:
        """Make every user of Redis and Postgres, as the shipped scripts do."""
        await self.redis.acl_log_reset()
        for role in acl.USERS:
            rules = acl.rules(role, self._fresh(f"redis-{role}"), major=major)
            await command(self.redis, "ACL", "SETUSER", acl.user_name(role), *rules)
        async with connection(self.dsn) as admin:
            for role in LEDGER_ROLES:
                password = self._fresh(f"postgres-{role}")
                await admin.execute(
                    f"create role {login(role)} login password '{password}'"
                    f" in role tallygate_{role}, {LOGINS}"
                )

    async def start(self, role: str, **settings: Any) -> Running:
        """Start a process that has its passwords from files."""
        self.write(role)
        environ = {
            "TALLYGATE_DATA_DIR": str(self.folder / role),
            # A machine full of tests is slow to answer, and no outage is meant.
            "TALLYGATE_SHARDS": str(SHARDS),
            "TALLYGATE_REDIS_TIMEOUT_MS": "10000",
            "TALLYGATE_BREAKER_HANG_MS": "10000",
            **{f"TALLYGATE_{name}_ADDRESS": "127.0.0.1:0" for name in ("GRPC", "CONTROL", "OPS")},
            **{f"TALLYGATE_{name.upper()}": str(value) for name, value in settings.items()},
        }
        if role != "relay":
            environ["TALLYGATE_REDIS_URL_FILE"] = str(self._file(role, "redis"))
        if role != "serve":
            environ["TALLYGATE_POSTGRES_DSN_FILE"] = str(self._file(role, "postgres"))
        process = await self.stack.enter_async_context(
            running(load_settings(environ=environ), frozenset({Role(role)}))
        )
        self.processes[role] = process
        return process

    async def rotate(self) -> None:
        """Give every process other passwords, and wait until each has taken them over."""
        async with connection(self.dsn) as admin:
            for role in self.processes:
                if role != "relay":
                    new = self._fresh(f"redis-{role}")
                    await self._acl(role, f">{new}")
                if role != "serve":
                    new = self._fresh(f"postgres-{role}")
                    await admin.execute(f"alter role {login(role)} password '{new}'")
                self.write(role)
        for role in self.processes:
            for name in (each for each, without in SECRETS.items() if role != without):
                await eventually(
                    partial(self.sample, role, "tallygate_secret_rotations_total", secret=name),
                    30.0,
                    what=f"a {role} with its new {name}",
                )

    async def forget_old(self) -> None:
        """Have Redis know the new passwords alone."""
        for role in self.processes:
            if role != "relay":
                password = self.passwords[f"redis-{role}"]
                await self._acl(role, "resetpass", f">{password}")

    def sample(self, role: str, name: str, **labels: str) -> float:
        """Return a process's metric."""
        registry = self.processes[role].metrics.registry
        return registry.get_sample_value(name, labels) or 0.0

    async def refused(self) -> list[dict[str, Any]]:
        """Return what Redis has refused users for want of rights."""
        return [dict(each) for each in await self.redis.acl_log()]

    def write(self, role: str) -> None:
        """Write a process's addresses where it reads them."""
        url = with_user(
            self.redis_url, acl.user_name(role), self.passwords.get(f"redis-{role}", "")
        )
        put(self._file(role, "redis"), url)
        put(
            self._file(role, "postgres"),
            as_login(self.dsn, role, self.passwords.get(f"postgres-{role}", "")),
        )

    def _file(self, role: str, server: str) -> Path:
        return self.folder / f"{role}-{server}"

    def _fresh(self, name: str) -> str:
        self.passwords[name] = f"hunter2-{name}-{secrets.token_hex(8)}"
        return self.passwords[name]

    async def _acl(self, role: str, *rules: str) -> None:
        await command(self.redis, "ACL", "SETUSER", acl.user_name(role), *rules)


SECRETS = {"redis_url": "relay", "postgres_dsn": "serve"}
"""Each secret of a process, and who has none of it."""


@asynccontextmanager
async def world(
    folder: Path, redis_url: str, databases: Databases, major: int
) -> AsyncIterator[World]:
    """Lend an installation on a database that a migrator without more rights has made."""
    name = await databases.create()
    admin_dsn = databases.dsn(name)
    migrator = with_user(admin_dsn, MIGRATOR, "none")
    async with connection(admin_dsn) as admin:
        await admin.execute(f"create role {MIGRATOR} login createrole")
        await admin.execute(f'grant create on database "{name}" to {MIGRATOR}')
    try:
        await migrate(migrator)
        await apply_roles(migrator)
        client = Redis.from_url(redis_url, socket_timeout=COMMAND_TIMEOUT_S, decode_responses=True)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(client.aclose)
            found = World(folder, redis_url, admin_dsn, client, stack)
            await found.grant(major)
            try:
                yield found
            finally:
                await stack.aclose()
    finally:
        await databases.drop(name)
        async with connection(databases.dsn("postgres")) as admin:
            await admin.execute(f"drop owned by {MIGRATOR}")
            await admin.execute(f"drop role {MIGRATOR}")
