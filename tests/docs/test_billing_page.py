"""The walk through an invoice does what docs/billing.md shows, command by command."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from .walk import Walk


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_an_invoice_from_event_to_stripe(tmp_path: Path) -> None:
    """Each command prints what is shown beneath it, and ends as the page says."""
    async with AsyncExitStack() as stack:
        await Walk("docs/billing.md", tmp_path, stack).run()
