"""The pages that alerts lead to, taken apart.

Owns what each page has to have. Refuses to know what to do.
"""

import re
from pathlib import Path
from typing import Final

from . import made
from .rule import RUNBOOKS

FOLDER: Final = made.ROOT / RUNBOOKS
PARTS: Final = ("Meaning", "Impact", "Diagnosis", "Cure")


def pages() -> dict[str, Path]:
    """Return each alert's page by the alert's name; the index is none."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.md")) if path.stem != "README"}


def queries(page: Path) -> list[str]:
    """Return what a page would have Prometheus asked, a line each."""
    return _lines(page.read_text(), "promql")


def statements(page: Path) -> list[str]:
    """Return what a page would have Postgres asked."""
    blocks = re.findall(r"^```sql\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [each.strip().removesuffix(";") for each in blocks]


def _lines(text: str, language: str) -> list[str]:
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def parts(text: str) -> list[str]:
    """Return the headings of a page."""
    return re.findall(r"^## (.*)$", text, re.MULTILINE)
