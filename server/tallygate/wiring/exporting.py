"""What exports and archives are put together with.

Guarantees: nothing here outlives its `async with`; Parquet is asked for only when it is wanted.
Refuses to know: what is exported.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path

from tallygate.adapters.export.text_files import CsvFile, JsonLinesFile
from tallygate.adapters.export.whole_file import WholeFile
from tallygate.adapters.postgres.export_rows import PostgresExportSource
from tallygate.adapters.postgres.pool import PoolOptions, Postgres
from tallygate.domain.export import Subject, columns_of
from tallygate.ports.export import ExportSource, FileRefused, RowFile
from tallygate.settings import Settings


class Format(StrEnum):
    """How a file is written."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


@asynccontextmanager
async def exporting(settings: Settings) -> AsyncIterator[ExportSource]:
    """Lend what reads rows to export."""
    assert settings.postgres_dsn is not None
    postgres = Postgres(
        settings.postgres_dsn.get_secret_value(),
        PoolOptions(connections_max=1, connect_timeout_ms=settings.postgres_connect_timeout_ms),
    )
    try:
        yield PostgresExportSource(postgres)
    finally:
        await postgres.close()


def row_file(path: Path, form: Format, subject: Subject, *, replace: bool = False) -> RowFile:
    """Begin a file. Raises `FileRefused`, also where Parquet is not installed."""
    columns = columns_of(subject)
    if form is not Format.PARQUET:
        kind = CsvFile if form is Format.CSV else JsonLinesFile
        return kind(WholeFile(path, replace=replace), columns)
    try:
        from tallygate.adapters.export.parquet import ParquetFile  # noqa: PLC0415
    except ModuleNotFoundError:
        missing = "needs the extra `archive`: pip install 'tallygate[archive]'"
        raise FileRefused(missing, field="--format parquet") from None
    return ParquetFile(WholeFile(path, replace=replace), columns)
