"""Dated rates of exchange in Postgres.

Guarantees: a rate is never edited; of two for one instant the later written one counts.
Refuses to know: where rates come from.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from tallygate.adapters.postgres.pool import Postgres
from tallygate.adapters.postgres.queries import query
from tallygate.domain.exchange import ExchangeRate


class PostgresExchangeRates:
    """The `ExchangeRates` port."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def at(
        self, currency: str, asked: Sequence[tuple[str, int]]
    ) -> Mapping[tuple[str, int], Decimal]:
        """Return what one of each currency was worth in `currency` at its instant, where known."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                query("exchange_rates_at"),
                currency,
                [base for base, _ in asked],
                [at_us for _, at_us in asked],
            )
        return {(row["base"], row["at_us"]): row["rate"] for row in rows}

    async def write(self, rates: Sequence[ExchangeRate]) -> int:
        """Write rates; return how many were not there alike before."""
        async with self._postgres.connection() as connection, connection.transaction():
            rows = await connection.fetch(
                query("exchange_rate_insert"),
                [rate.base for rate in rates],
                [rate.quote for rate in rates],
                [rate.from_us for rate in rates],
                [rate.rate for rate in rates],
                [rate.source for rate in rates],
            )
        return len(rows)

    async def page(self, base: str | None, quote: str | None, count: int) -> list[ExchangeRate]:
        """Return up to `count` rates, the newest first."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(query("exchange_rate_page"), base, quote, count)
        return [ExchangeRate(**dict(row)) for row in rows]
