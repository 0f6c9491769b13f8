"""docs/reservations.md: its code runs against a live server, and its table has every outcome."""

from pathlib import Path

from tallygate.commands.dev import development
from tallygate.gen.v1 import quota_pb2
from tallygate.settings import Settings

from .pages import block, pages, rows
from .test_examples import ADDRESS, FREE, run_python

PAGE = "docs/reservations.md"


async def test_examples_print_what_they_show(tmp_path: Path) -> None:
    """Reserve, commit and refund print what the page says; the heartbeat's work is committed."""
    settings = Settings(
        data_dir=tmp_path,
        grpc_address=(FREE,),
        ops_address=FREE,
        control_address=FREE,
        default_deadline_ms=10_000,
    )
    async with development(settings) as running:
        address = running.process.grpc_addresses[0]

        def code(holding: str) -> str:
            shown = block(PAGE, "python", holding).replace(ADDRESS, address)
            # The deadline is for a reader's machine, not for a loaded one.
            return shown.replace("timeout=1.0", "timeout=10.0")

        printed = await run_python(code("download-7"))
        assert printed == block(PAGE, "text", "refunded")
        printed = await run_python(code("threading"))
        assert printed == "the work: True\nRESERVATION_OUTCOME_COMMITTED\n"


def test_every_outcome_is_explained() -> None:
    """The table has each outcome that the proto can send, and no other."""
    shown = {cells[0].strip("`") for cells in rows(pages()[PAGE])}
    outcomes = quota_pb2.ReservationOutcome.DESCRIPTOR.values
    sent = {each.name.removeprefix("RESERVATION_OUTCOME_") for each in outcomes}
    assert shown == sent - {"UNSPECIFIED"}
