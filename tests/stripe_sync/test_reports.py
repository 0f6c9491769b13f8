"""Reports of errors: signed, taken once, joined to their sends, which go again after a fix."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal

import aiohttp
import stripe

from tallygate.adapters.stripe.reports import StripeErrorReports
from tallygate.api.stripe_reports import BODY_BYTES_MAX, ReportsListener
from tallygate.domain.catalog import Tenant
from tallygate.domain.errors import BackendUnavailable
from tallygate.domain.ids import PlanName
from tallygate.domain.stripe_intent import SendState
from tallygate.domain.window import MINUTE_US
from tallygate.flow.stripe_mend import Mend
from tallygate.flow.stripe_report import TakeReports
from tallygate.ports.stripe_store import ReportedError
from tallygate_fake_stripe import Behaviour, Fault, FaultKind
from tests.servers import connection
from tests.stripe_world import (
    CUSTOMER,
    DESTINATION,
    HOUR_S,
    START_US,
    TENANT,
    StripeWorld,
    stripe_world,
)

KIND = "v1.billing.meter.error_report_triggered"


class Heard:
    """What was told of reports."""

    def __init__(self) -> None:
        self.secret = ""
        self.outcomes: list[str] = []
        self.counted: list[tuple[Mapping[str, int], int]] = []

    def reported(self, _: str, outcome: str) -> None:
        """Keep it."""
        self.outcomes.append(outcome)

    def errors(self, _: str, codes: Mapping[str, int], unnamed: int) -> None:
        """Keep it."""
        self.counted.append((codes, unnamed))


@asynccontextmanager
async def listening(world: StripeWorld, heard: Heard) -> AsyncIterator[str]:
    """Take reports of the world's account; lend the endpoint's address."""
    take = TakeReports(world.sends, world.clock, heard)
    listener = ReportsListener("127.0.0.1:0", take.take)
    await listener.start()
    url = f"http://127.0.0.1:{listener.port}/stripe/{DESTINATION}"
    secret = world.stripe.add_webhook(url, [KIND, "v1.billing.meter.no_meter_found"])
    heard.secret = secret
    take.sources[DESTINATION] = StripeErrorReports(world.client(), lambda: secret)
    try:
        yield url
    finally:
        await listener.stop()


async def told(world: StripeWorld, amount: int = 5) -> None:
    """Have a settled window's usage sent."""
    await world.use(amount, START_US + MINUTE_US)
    world.pass_s(HOUR_S + 601)
    await world.sync()


async def test_a_report_rejects_what_it_names(postgres_dsn: str) -> None:
    """A send that Stripe took and could not use is rejected with the code, and goes again once."""
    heard = Heard()
    behaviour = Behaviour(signed_by_system_clock=True)
    async with stripe_world(postgres_dsn, behaviour) as world, listening(world, heard):
        ghost = Tenant(TENANT, PlanName("p"), stripe_customer_id="cus_gone")
        await world.declare(tenants=[ghost])
        await told(world)
        world.pass_s(600)
        await world.stripe.settle()
        assert await world.rows("state, code") == [("rejected", "meter_event_customer_not_found")]
        assert heard.outcomes == ["noted"]
        assert heard.counted == [({"meter_event_customer_not_found": 1}, 0)]
        fixed = Tenant(TENANT, PlanName("p"), stripe_customer_id=CUSTOMER)
        await world.declare(tenants=[fixed])
        mend = Mend(world.sends, world.catalogs, world.clock)
        assert (await mend.retry(DESTINATION, code="no_such_code")).again == 0
        assert (await mend.retry(DESTINATION)).again == 1
        assert (await mend.retry(DESTINATION)).again == 0
        await world.sync()
        assert world.total() == Decimal(5)
        assert await world.plan() == 0
        states = await world.rows("state, customer, replaces is not null")
        assert states == [("settled", "cus_gone", False), ("delivered", CUSTOMER, True)]


async def test_a_report_that_comes_again_changes_nothing(postgres_dsn: str) -> None:
    """The same body twice is worked off once; what was sent again since is left alone."""
    heard = Heard()
    behaviour = Behaviour(signed_by_system_clock=True)
    async with stripe_world(postgres_dsn, behaviour) as world, listening(world, heard) as url:
        world.stripe.faults.add(Fault(FaultKind.ASYNC_ERROR, count=1))
        await told(world)
        world.pass_s(600)
        await world.stripe.settle()
        await Mend(world.sends, world.catalogs, world.clock).retry(DESTINATION)
        await world.send()
        (delivery,) = world.stripe.deliveries
        async with aiohttp.ClientSession() as session:
            body = delivery.payload.decode()
            signed = stripe.WebhookSignature.generate_signature_header(body, heard.secret)
            headers = {"stripe-signature": signed}
            async with session.post(url, data=delivery.payload, headers=headers) as again:
                assert again.status == 200
        assert heard.outcomes == ["noted", "repeated"]
        assert await world.states() == {"settled": 1, "delivered": 1}


async def test_what_is_not_signed_is_refused(postgres_dsn: str) -> None:
    """Wrong, old and missing signatures, other addresses and large bodies lead to nothing."""
    heard = Heard()
    async with stripe_world(postgres_dsn) as world, listening(world, heard) as url:
        async with aiohttp.ClientSession() as session:

            async def status(path: str, body: bytes, **headers: str) -> int:
                async with session.post(path, data=body, headers=headers) as reply:
                    return reply.status

            good = b'{"id": "evt_1", "object": "v2.core.event", "type": "x"}'
            assert await status(url, good) == 400
            assert await status(url, good, **{"stripe-signature": "t=1,v1=00"}) == 400
            assert await status(url, b"\xff", **{"stripe-signature": "t=1,v1=00"}) == 400
            assert await status(f"{url}x", good) == 404
            assert await status(url, b"x" * (BODY_BYTES_MAX + 1)) == 413
            async with session.get(url) as reply:
                assert reply.status == 405
        assert set(heard.outcomes) == {"unsigned"}


async def test_what_cannot_be_worked_off_comes_again(postgres_dsn: str) -> None:
    """While the store or Stripe is away the answer is 503, and Stripe sends it again."""
    calls = 0

    async def away(_: str, __: bytes, ___: str) -> None:
        nonlocal calls
        calls += 1
        raise BackendUnavailable

    listener = ReportsListener("127.0.0.1:0", away)
    await listener.start()
    try:
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{listener.port}/stripe/x"
            async with session.post(url, data=b"{}") as reply:
                assert (reply.status, reply.headers["retry-after"]) == (503, "60")
        assert calls == 1
    finally:
        await listener.stop()


async def test_more_at_once_than_there_is_room_for(postgres_dsn: str) -> None:
    """Reports beyond the bound are told to come again; none waits for long."""
    going = asyncio.Event()

    async def wait(_: str, __: bytes, ___: str) -> None:
        await going.wait()

    listener = ReportsListener("127.0.0.1:0", wait)
    await listener.start()
    try:
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{listener.port}/stripe/x"

            async def post() -> int:
                async with session.post(url, data=b"{}") as reply:
                    if reply.status == 503:
                        going.set()
                    return reply.status

            found = await asyncio.gather(*(post() for _ in range(20)))
        assert {200, 503} == set(found)
        assert found.count(503) >= 1
    finally:
        await listener.stop()


async def test_errors_of_a_stream_open_its_events_again(postgres_dsn: str) -> None:
    """A report by the key of a call that carried many has each of them judged alone."""
    async with stripe_world(postgres_dsn) as world:
        await told(world)
        claim_key = "tallygate-batch-1"

        async with connection(world.dsn) as admin:
            await admin.execute("update tallygate.stripe_send set batch_key = $1", claim_key)
        now_us = world.clock.now_us()
        errors = [ReportedError(claim_key, "meter_event_invalid_value", "bad")]
        noted = await world.sends.report(DESTINATION, "evt_1", errors, now_us)
        assert (noted.new, noted.rejected, noted.opened) == (True, 0, 1)
        again = await world.sends.report(DESTINATION, "evt_1", errors, now_us)
        assert (again.new, again.opened) == (False, 0)
        assert await world.rows("state, alone, doubtful") == [("ambiguous", True, True)]
        await world.send()
        assert await world.rows("state") == [(SendState.DELIVERED,)]
        assert len(world.stripe.meter_events()) == 1


async def test_a_report_by_a_key_that_was_changed(postgres_dsn: str) -> None:
    """A send that went under another key, as Stripe had an error under its own, is found by it."""
    heard = Heard()
    behaviour = Behaviour(signed_by_system_clock=True)
    async with stripe_world(postgres_dsn, behaviour) as world, listening(world, heard):
        ghost = Tenant(TENANT, PlanName("p"), stripe_customer_id="cus_gone")
        await world.declare(tenants=[ghost])
        world.stripe.faults.add(Fault(FaultKind.ERROR_BEFORE, count=1))
        await told(world)
        for _ in range(30):
            world.pass_s(60)
            await world.send()
        await world.stripe.settle()
        assert await world.rows("state, code") == [("rejected", "meter_event_customer_not_found")]
        assert heard.counted == [({"meter_event_customer_not_found": 1}, 0)]
