"""One case with one client: each step done, and what it brings held against what is expected.

Owns the proxy, the drivers and the tenant of a case. Guarantees that a step which brings something
else ends the case, with what was expected and what was there. Refuses to know other cases.
"""

import asyncio
import contextlib
import itertools
import struct
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc

from clients.conformance.cases import Case, Step
from clients.conformance.drivers import Driver, DriverEnded, Language, driver
from clients.conformance.faults import ALWAYS, Attempt, Fault
from clients.conformance.matching import differences, filled
from clients.conformance.proxy import FaultProxy, fault_proxy
from clients.conformance.world import World
from tallygate.gen.v1 import quota_pb2, quota_pb2_grpc
from tests.servers import eventually

SETTLE_S: Final = 15.0
"""For what comes to hold by itself: a flush, an event on its way to the ledger."""

PATIENT_MS: Final = 20_000
"""The deadline of clients whose case is not about deadlines: machines full of tests are slow."""

GAP_SLACK_MS: Final = 20
"""By how much a client's timer may be early beside another clock."""

TENANTLESS: Final = frozenset({"flush", "stats", "close", "bye", "hello"})
_HEADER: Final = struct.Struct("<II")


class Otherwise(Exception):
    """A step brought something else than the case expects."""


@dataclass(slots=True)
class Lane:
    """A client's driver, lent to case after case: one that a case kills is started anew."""

    language: Language
    stack: AsyncExitStack
    running: Driver | None = None

    async def driver(self) -> Driver:
        """Return the driver, started where there is none."""
        if self.running is None or self.running.process.returncode is not None:
            self.running = await self.stack.enter_async_context(driver(self.language))
        return self.running


@dataclass(slots=True)
class Story:
    """A case as it goes on."""

    case: Case
    world: World
    lane: Lane
    other: Language
    proxy: FaultProxy
    folder: Path
    stack: AsyncExitStack
    tenant: str
    known: dict[str, Any] = field(default_factory=dict)
    drivers: dict[str, Driver] = field(default_factory=dict)
    later: dict[str, "asyncio.Future[dict[str, Any]]"] = field(default_factory=dict)
    expected_ledger: Mapping[str, Any] | None = None

    async def play(self) -> None:
        """Do every step. Raises `Otherwise` at the first that brings something else."""
        self.known |= {
            "tenant": self.tenant,
            "folder": str(self.folder),
            "sdk": self.lane.language.sdk,
        }
        for step in self.case.steps:
            fields = {
                key: value if key in ("as", "later") else filled(value, self.known)
                for key, value in step.fields.items()
            }
            try:
                await getattr(self, f"_{step.word}")(filled(step.value, self.known), fields)
            except (Otherwise, DriverEnded, AssertionError, KeyError) as error:
                told = str(error) if isinstance(error, Otherwise | DriverEnded) else repr(error)
                raise Otherwise(f"{step.shown()}\n    {told}{self._seen(step)}") from error

    def _seen(self, step: Step) -> str:
        if step.word not in ("do", "attempts", "arrived", "answered"):
            return ""
        lines = [f"{each.method} -> {each.ended or 'open'}" for each in self.proxy.attempts[-8:]]
        return "\n    attempts: " + (", ".join(lines) or "none")

    async def _start(self, name: str, fields: Mapping[str, Any]) -> None:
        language = self.other if fields.get("language") == "other" else self.lane.language
        self.drivers[name] = await self.stack.enter_async_context(driver(language))

    async def _driver(self, name: str) -> Driver:
        if name == "a" and name not in self.drivers:
            self.drivers["a"] = await self.lane.driver()
        return self.drivers[name]

    async def _open(self, name: str, fields: Mapping[str, Any]) -> None:
        over = fields.get("over", "tcp")
        options = {
            "target": f"127.0.0.1:{self.proxy.port}",
            "timeout_ms": PATIENT_MS,
            **fields.get("with", {}),
        }
        if options["timeout_ms"] == "default":
            del options["timeout_ms"]
        if over == "unix":
            options["target"] = f"unix://{self.proxy.path}"
        elif over in ("tls", "tls-nobody"):
            papers = self.world.papers
            options["target"] = f"127.0.0.1:{self.proxy.tls_port}"
            options["tls"] = {"ca_file": str(papers.ca_file)}
            if over == "tls":
                own = {"cert_file": str(papers.cert_file), "key_file": str(papers.key_file)}
                options["tls"] |= own
        told = await (await self._driver(fields.get("driver", "a"))).told(
            "open", client=self._client(name), **options
        )
        _hold({"error": fields["error"]} if "error" in fields else {"ok": {}}, told)

    def _client(self, name: str | None) -> str:
        # A driver serves many cases, whose clients must not share a name.
        return f"{self.tenant}/{name or 'c'}"

    async def _do(self, operation: str, fields: Mapping[str, Any]) -> None:
        asked = await self._driver(fields.get("driver", "a"))
        body = {"client": self._client(fields.get("client")), **fields.get("with", {})}
        self._add_tenant(operation, body)
        if operation == "flush":
            body.setdefault("timeout_ms", round(SETTLE_S * 1000))
        if "later" in fields:
            self.later[fields["later"]] = asked.ask(operation, **body)
            return
        told = await asked.told(operation, **body)
        if "until" in fields:
            loop = asyncio.get_running_loop()
            by = loop.time() + SETTLE_S
            while list(differences(fields["until"], told.get("ok"))) and loop.time() < by:
                await asyncio.sleep(0.02)
                told = await asked.told(operation, **body)
            _hold({"ok": fields["until"]}, told)
        self._take(told, fields)

    def _take(self, told: dict[str, Any], fields: Mapping[str, Any]) -> None:
        if "as" in fields:
            self.known[fields["as"]] = told
        if "error" in fields:
            _hold({"error": fields["error"]}, told)
        else:
            _hold({"ok": fields.get("ok", {})}, told)

    def _add_tenant(self, operation: str, body: dict[str, Any]) -> None:
        if operation in TENANTLESS:
            return
        if "call" in body:
            self._add_tenant(body["call"]["do"], body["call"])
            body["call"].setdefault("client", body["client"])
        for each in body.get("requests", [] if "call" in body else [body]):
            each.setdefault("tenant", self.tenant)

    async def _answered(self, name: str, fields: Mapping[str, Any]) -> None:
        async with asyncio.timeout(SETTLE_S):
            self._take(await self.later.pop(name), fields)

    async def _faults(self, faults: list[dict[str, Any]], _: Mapping[str, Any]) -> None:
        for each in faults:
            times = ALWAYS if each.get("times") == "always" else each.get("times", 1)
            self.proxy.faults.add(Fault(**{**each, "times": times}))

    async def _clear(self, value: Any, _: Mapping[str, Any]) -> None:
        self.proxy.faults.clear()

    async def _away(self, value: Any, _: Mapping[str, Any]) -> None:
        await self.proxy.away()

    async def _back(self, value: Any, _: Mapping[str, Any]) -> None:
        await self.proxy.back()

    async def _reset(self, value: Any, _: Mapping[str, Any]) -> None:
        self.proxy.reset()

    async def _arrived(self, method: str, fields: Mapping[str, Any]) -> None:
        count = fields.get("count", 1)
        await eventually(
            lambda: len(self.proxy.of(method)) >= count, SETTLE_S, what=f"{count} of {method}"
        )

    async def _attempts(self, method: str, fields: Mapping[str, Any]) -> None:
        if "ends" in fields:
            # A cancellation may still be on its way.
            await eventually(
                lambda: all(each.ended for each in self.proxy.of(method)), SETTLE_S, what="an end"
            )
        found = self.proxy.of(method)
        shown = [each.shown() for each in found]
        _hold(fields.get("count", len(found)), len(found), "how many attempts")
        _hold(fields.get("each", []) or [{}] * len(shown), shown, "attempts")
        for each in shown:
            _hold(fields.get("all", {}), each, "an attempt")
        for name in fields.get("same", ()):
            values = [each[name] for each in shown]
            if len({str(value) for value in values}) != 1 or not values[0]:
                raise Otherwise(f"{name} is not the same over attempts: {values}")
        for name, count in fields.get("distinct", {}).items():
            _hold(count, len({str(each[name]) for each in shown}), f"how many {name}")
        if "ends" in fields:
            _hold(fields["ends"], [each["ended"] for each in shown], "how attempts ended")
        if "gap_ms_min" in fields:
            _hold_gaps(found, fields["gap_ms_min"])

    async def _ledger(self, _: Any, fields: Mapping[str, Any]) -> None:
        self.expected_ledger = fields
        by = asyncio.get_running_loop().time() + SETTLE_S
        while True:
            faults = ledger_faults(fields, await self.world.events(self.tenant))
            if not faults:
                return
            if asyncio.get_running_loop().time() > by:
                raise Otherwise(f"the ledger: {faults}")
            await asyncio.sleep(0.05)

    async def _quota(self, expected: Mapping[str, Any], _: Mapping[str, Any]) -> None:
        stub = quota_pb2_grpc.QuotaServiceStub(self.world.channel)
        by = asyncio.get_running_loop().time() + SETTLE_S
        while True:
            faults = list(differences(expected, await self._used(stub), "used"))
            if not faults:
                return
            if asyncio.get_running_loop().time() > by:
                raise Otherwise("\n    ".join(faults))
            await asyncio.sleep(0.05)

    async def _used(self, stub: "quota_pb2_grpc.QuotaServiceAsyncStub") -> dict[str, int]:
        request = quota_pb2.GetQuotaRequest(tenant_id=self.tenant)
        try:
            reply = await stub.GetQuota(request, timeout=SETTLE_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return {}
        return {each.limit_id: each.used for each in reply.limits}

    async def _kill(self, name: str, _: Mapping[str, Any]) -> None:
        await (await self._driver(name)).kill()
        del self.drivers[name]

    async def _spool(self, name: str, fields: Mapping[str, Any]) -> None:
        files = sorted((self.folder / name).glob("*.spool"))
        if "files" in fields:
            _hold(fields["files"], len(files), "how many files")
        if "set_aside" in fields:
            aside = sorted((self.folder / name).glob("*.bad"))
            _hold(fields["set_aside"], len(aside), "how many files set aside")
        if "tear_bytes" in fields:
            whole = files[-1].read_bytes()
            files[-1].write_bytes(whole[: -fields["tear_bytes"]])
        if "flip_byte" in fields:
            # In the payload of the record of that number: its length stays as it was.
            flipped = bytearray(files[0].read_bytes())
            at = 0
            for _number in range(fields["flip_byte"]):
                at += _HEADER.size + _HEADER.unpack_from(flipped, at)[0]
            flipped[at + _HEADER.size + 3] ^= 0xFF
            files[0].write_bytes(flipped)


def ledger_faults(expected: Mapping[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """Return what the ledger has otherwise than a case expects."""
    sums: Counter[str] = Counter()
    for row in rows:
        sums[row["meter"]] += row["amount"]
    faults: list[str] = []
    if "events" in expected:
        faults += differences(expected["events"], len(rows), "how many events")
    # A whole comparison: usage of a meter that nobody meant is a fault too.
    if "sums" in expected and dict(sums) != dict(expected["sums"]):
        faults.append(f"expected sums {expected['sums']}, were {dict(sums)}")
    for row in rows:
        faults += differences(expected.get("each", {}), row, "an event")
    if "rows" in expected:
        faults += differences(expected["rows"], rows, "events")
    return faults


def _hold_gaps(attempts: Sequence[Attempt], least_ms: int) -> None:
    for before, after in itertools.pairwise(attempts):
        gap_ms = (after.came_s - (before.ended_s or before.came_s)) * 1000
        if gap_ms + GAP_SLACK_MS < least_ms:
            raise Otherwise(f"an attempt came {gap_ms:.0f} ms after the one before")


def _hold(expected: Any, actual: Any, path: str = "") -> None:
    faults = list(differences(expected, actual, path))
    if faults:
        raise Otherwise("\n    ".join(faults) + f"\n    was: {str(actual)[:800]}")


@asynccontextmanager
async def story(
    case: Case, world: World, lane: Lane, other: Language, run: str
) -> AsyncIterator[Story]:
    """Lend a case that has its proxy and nothing else yet."""
    async with AsyncExitStack() as stack:
        made = tempfile.TemporaryDirectory(prefix="c-", dir=world.folder)
        folder = Path(stack.enter_context(made))
        proxy = await stack.enter_async_context(
            fault_proxy(world.channel, folder, world.papers.server)
        )
        tenant = f"{lane.language.name}-{case.name}-{run}"
        told = Story(case, world, lane, other, proxy, folder, stack, tenant)
        try:
            yield told
        finally:
            await _ended(told)


async def _ended(told: Story) -> None:
    """Leave the lane's driver without anything of this case, or end it."""
    used = told.drivers.get("a")
    if used is None or used is not told.lane.running:
        return
    opened = [each.value for each in told.case.steps if each.word == "open"]
    told.proxy.faults.clear()
    with contextlib.suppress(DriverEnded):
        for name in opened:
            # One that a case has closed itself is closed again, which is no fault.
            await used.told("close", client=told._client(name), timeout_ms=0)
        if not told.later:
            return
    await used.kill()
