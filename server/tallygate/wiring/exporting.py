"""What exports and archives are put together with.

Guarantees: nothing here outlives its `async with`; Parquet is asked for only when it is wanted.
Refuses to know: what is exported.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tallygate.adapters.clock import SystemClock
from tallygate.adapters.export.text_files import CsvFile, JsonLinesFile
from tallygate.adapters.export.whole_file import WholeFile, digest_of
from tallygate.adapters.postgres.export_rows import PostgresExportSource
from tallygate.adapters.postgres.outbox_upkeep import PostgresOutboxUpkeep
from tallygate.adapters.postgres.pool import PoolOptions, Postgres
from tallygate.adapters.postgres.retention import PostgresRetention
from tallygate.domain.export import Subject, columns_of
from tallygate.domain.retention import MonthFacts, Policy
from tallygate.domain.window import to_datetime
from tallygate.flow.retention import RetentionParts, Upkeep
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


@dataclass(frozen=True, slots=True)
class Retaining:
    """What retention works with, and what prunes messages."""

    parts: RetentionParts
    upkeep: Upkeep


@asynccontextmanager
async def retaining(settings: Settings, actor: str) -> AsyncIterator[Retaining]:
    """Lend what archives and drops."""
    assert settings.postgres_dsn is not None
    postgres = Postgres(
        settings.postgres_dsn.get_secret_value(),
        PoolOptions(connections_max=1, connect_timeout_ms=settings.postgres_connect_timeout_ms),
    )
    policy = Policy(settings.retention_event_months, settings.retention_message_days)
    try:
        yield Retaining(
            RetentionParts(PostgresRetention(postgres), SystemClock(), policy, actor),
            PostgresOutboxUpkeep(postgres),
        )
    finally:
        await postgres.close()


@dataclass(frozen=True, slots=True)
class ArchiveFiles:
    """The `Files` of retention, in one folder."""

    folder: Path
    form: Format = Format.JSONL

    @property
    def format(self) -> str:
        """Return how files are written."""
        return self.form.value

    def begin(self, facts: MonthFacts, archive_id: str) -> RowFile:
        """Begin the file of a month. Raises `FileRefused`."""
        # With the archive's id, as a month may be archived again when events came since.
        name = f"events-{to_datetime(facts.month_us):%Y-%m}-{archive_id[:8]}.{self.form.value}"
        return row_file(self.folder.resolve() / name, self.form, Subject.EVENTS)

    def digest(self, path: str) -> str:
        """Return the SHA-256 of a file in hex. Raises `FileRefused` where there is none."""
        return digest_of(Path(path))


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
