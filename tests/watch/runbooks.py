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


def parts(text: str) -> list[str]:
    """Return the headings of a page."""
    return re.findall(r"^## (.*)$", text, re.MULTILINE)
