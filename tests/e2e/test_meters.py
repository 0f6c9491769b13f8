"""Meters that group, from the catalog to the command: used, asked for, changed, verified."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer

from tallygate.commands.usage_windows import WindowsAsked, request_of
from tallygate.domain.window import DAY_US, HOUR_US, MINUTE_US
from tests.e2e import catalogs
from tests.e2e.calls import consume, quota
from tests.e2e.processes import rows_of, site, tallygate
from tests.servers import connection, eventually
from tests.usage_events import NOON_US

CATALOG = """\
version: 1
default_plan: free
meters:
  requests: {group_by: [GROUP]}
  users: {aggregation: unique, unique_by: user_id}
plans:
  free: {}
"""
SETTLE_S = 30.0
USED = (("eu", "ann", 5), ("eu", "bob", 2), ("us", "ann", 1))


async def test_groups_follow_the_catalog(tmp_path: Path, redis_url: str, postgres_dsn: str) -> None:
    """Usage is kept by group; another grouping is made of the same events; all of it verifies."""
    settings: dict[str, Any] = {"redis_url": redis_url, "postgres_dsn": postgres_dsn}
    async with site(tmp_path, redis_url=redis_url) as place:
        control = await place.start("control", postgres_dsn=postgres_dsn)
        await place.start("ingest", postgres_dsn=postgres_dsn)
        serve = await place.start("serve")
        to = ("--control-address", control.address)

        async def grouped(name: str) -> dict[str, int]:
            """Return acme's requests by a name, once the rollups are whole."""
            document = catalogs.write(tmp_path, CATALOG.replace("GROUP", name))
            applied = await tallygate("apply", "-f", document, *to)
            assert applied.code == 0, applied.err + applied.out

            async def whole() -> bool:
                async with connection(postgres_dsn) as admin:
                    found = await admin.fetchval(
                        "select count(*) from tallygate.rollup_shape where active"
                        " and complete = '{(,)}' and (definition -> 'group_by' ? $1"
                        " or meter = 'users')",
                        name,
                    )
                return int(found) == 2

            await eventually(whole, SETTLE_S, what="rollups that are whole")
            if not stored:
                return {}
            asked = ("--tenant", "acme", "--meter", "requests", "--group-by", name)
            answer = await tallygate("usage", *asked, "--json", *to)
            assert answer.code == 0, answer.err
            return {row[name]: row["quantity"] for row in rows_of(answer, "requests of acme")}

        stored = False
        await grouped("region")
        await serve.ready()
        async with quota(serve.address) as stub:
            for number, (region, user, amount) in enumerate(USED):
                request = consume(f"op-{number}", amount, "acme")
                request.items.add(meter="users", amount=1)
                for item in request.items:
                    item.dimensions.update({"region": region, "user_id": user})
                assert (await stub.CheckAndConsume(request)).allowed

        async def there() -> bool:
            async with connection(postgres_dsn) as admin:
                found = await admin.fetchval("select count(*) from tallygate.usage_event")
            return int(found) == 2 * len(USED)

        await eventually(there, SETTLE_S, what="all events in the ledger")
        stored = True
        assert await grouped("user_id") == {"ann": 6, "bob": 2}
        rebuilt = await tallygate("rollups", "rebuild", "--meter", "requests", **settings)
        assert rebuilt.code == 0, rebuilt.err
        status = await tallygate("rollups", "status", "--json", **settings)
        assert status.code == 0, status.err
        assert [row["meter"] for row in rows_of(status, "rollups")] == ["requests", "users"]


ASKED: dict[str, Any] = {"tenant": "acme", "meter": "requests"}


def test_the_last_day_is_asked_for_unless_told() -> None:
    """Up to the minute that is under way, so that what just happened shows."""
    request = request_of(WindowsAsked(**ASKED, group_by="region, sku"), NOON_US + 5)
    assert request.to.ToMicroseconds() == NOON_US + MINUTE_US
    assert getattr(request, "from").ToMicroseconds() == NOON_US + MINUTE_US - DAY_US
    assert list(request.group_by) == ["region", "sku"]


def test_durations_and_bounds_are_read() -> None:
    """As people write them, in UTC where they name no zone."""
    asked = WindowsAsked(
        **ASKED, sliding="1h", step="5m", from_minute="2026-11-01", to_minute="2026-11-01T12:00Z"
    )
    request = request_of(asked, NOON_US)
    assert request.length.ToMicroseconds() == HOUR_US
    assert request.step.ToMicroseconds() == 5 * MINUTE_US
    first = getattr(request, "from").ToDatetime(UTC)
    assert first == datetime(2026, 11, 1, tzinfo=UTC)
    assert request.to.ToMicroseconds() - getattr(request, "from").ToMicroseconds() == DAY_US // 2


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"tenant": ""}, "--tenant"),
        ({"meter": ""}, "--meter"),
        ({"by": "week"}, "--by"),
        ({"sliding": "1h"}, "--step"),
        ({"step": "1h"}, "--sliding"),
        ({"sliding": "1h", "step": "5m", "session_gap": "5m"}, "--sliding"),
        ({"sliding": "1h", "step": "5m", "by": "day"}, "--by"),
        ({"sliding": "one hour", "step": "5m"}, "--sliding"),
        ({"session_gap": "0m"}, "--session-gap"),
    ],
)
def test_a_wrong_option_is_named(given: dict[str, str], option: str) -> None:
    """Before anything is asked."""
    with pytest.raises(typer.BadParameter) as raised:
        request_of(WindowsAsked(**{**ASKED, **given}), NOON_US)
    assert raised.value.param_hint == option


@pytest.mark.parametrize(
    ("given", "option"),
    [({"from_minute": "yesterday"}, "--from"), ({"to_minute": "25:00"}, "--to")],
)
def test_a_wrong_time_is_named(
    given: dict[str, str], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With how a time is written."""
    with pytest.raises(typer.Exit):
        request_of(WindowsAsked(**{**ASKED, **given}), NOON_US)
    assert option in capsys.readouterr().err
