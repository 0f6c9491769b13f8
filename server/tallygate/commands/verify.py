"""`tallygate verify`: everything that was made of the ledger, compared with it, on a live system.

Guarantees: it changes nothing; exit code 0 says that all was compared and nothing differs, 1 that
something does, or could not be compared.
Refuses to know: how anything is compared.
"""

from typing import Annotated

import typer

from tallygate.commands.audited import needs_postgres, run_audited
from tallygate.commands.options import Config, Json, PostgresDsn, RedisUrl, settings_of
from tallygate.commands.output import EXIT_FAILED, Sheet, counting, show
from tallygate.domain import ids
from tallygate.flow.verify import Report
from tallygate.wiring.auditing import verifying


def verify(
    *,
    tenant: Annotated[str, typer.Option(help="Only this tenant.")] = "",
    rows: Annotated[int, typer.Option(help="How many differences to show.", min=1)] = 50,
    postgres_dsn: PostgresDsn = None,
    redis_url: RedisUrl = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Compare all that was made of the ledger with it, live; exit 1 if anything differs."""
    settings = settings_of(config, postgres_dsn=postgres_dsn, redis_url=redis_url)
    needs_postgres(settings)

    async def work() -> Report:
        asked = ids.tenant_id(tenant, "--tenant") if tenant else None
        with counting("rows compared") as note:
            async with verifying(settings, lambda _what, count: note(count)) as verification:
                return await verification.run(asked)

    report = run_audited(settings, "verify", work(), tenant_id=tenant, shows=True)
    show([*_sheets(report, rows)], as_json=as_json)
    if not report.clean:
        raise typer.Exit(EXIT_FAILED)


def _sheets(report: Report, rows: int) -> list[Sheet]:
    sheets = [
        Sheet("compared", ("what", "number"), [*report.compared.items()]),
        Sheet(
            "destinations",
            ("destination", "meter", "events", "told", "delivered", "parked", "ledger"),
            [
                (
                    *(each.destination, each.meter, each.events, each.told),
                    *(each.delivered, each.parked, each.ledger),
                )
                for each in report.destinations
            ],
        ),
    ]
    if report.differences:
        found = [
            (
                *(each.check.value, each.what, each.tenant_id, each.where),
                *(each.expected, each.found, each.detail),
            )
            for each in report.differences[:rows]
        ]
        columns = ("check", "what", "tenant", "where", "expected", "found", "detail")
        sheets.append(Sheet("differences", columns, found))
    if report.unverified:
        sheets.append(Sheet("not verified", ("what",), [(each,) for each in report.unverified]))
    counts = [(check.value, count) for check, count in report.counts.items()]
    sheets.append(Sheet("result", ("check", "differences"), counts))
    return sheets
