"""Columns that are joined arrive as the values that they were joined of."""

import pytest

from tallygate.adapters.postgres.columns import joined
from tallygate.ports import UnstorableBatch
from tests.servers import connection

SPLIT = "select case when $1::text = '' then array[''] else string_to_array($1, $2::text) end"


@pytest.mark.parametrize(
    "values",
    [
        ["a", "b"],
        [""],
        ["", ""],
        ["one\x1fvalue", "another"],
        ["\x1f\ue000", "", "\ue001"],
        ["ü,{}\"'\\", "NULL", "null"],
        [f"{number}" for number in range(3_000)],
    ],
    ids=lambda values: ascii(values)[:20],
)
async def test_every_value_arrives(postgres_dsn: str, values: list[str]) -> None:
    """Empty ones, and those that hold the usual separator, as well."""
    (text, other), mark = joined([values, ["x"] * len(values)])
    async with connection(postgres_dsn) as admin:
        assert await admin.fetchval(SPLIT, text, mark) == values
        assert await admin.fetchval(SPLIT, other, mark) == ["x"] * len(values)


def test_no_separator_left() -> None:
    """A batch with every separator in it is divided, not stored wrongly."""
    every = "\x1f" + "".join(map(chr, range(0xE000, 0xF900)))
    with pytest.raises(UnstorableBatch):
        joined([[every, "a"]])
    assert joined([[every[:-1]]])[1] == every[-1]
