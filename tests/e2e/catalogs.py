"""Catalogs for processes under test.

Refuses to know how a catalog reaches a sidecar.
"""

from pathlib import Path

OPEN = """\
version: 1
default_plan: open
meters:
  requests: {aggregation: sum, unit: request}
plans:
  open:
    limits:
      - {id: monthly, meter: requests, kind: window, period: month, limit: 1_000_000}
"""
"""Refuses nothing that a test sends."""

FAULTY = """\
version: 1
default_plan: opne
meters:
  requests: {aggregation: summ, unit: request}
plans:
  open:
    limits:
      - {id: monthly, meter: request, kind: window, period: month, limit: 1_000_000}
"""
"""Three misspelled words, on lines 2, 4 and 8."""


def limited(limit: int) -> str:
    """Return the open catalog with another limit."""
    return OPEN.replace("1_000_000", str(limit))


def write(folder: Path, text: str, name: str = "catalog.yaml") -> Path:
    """Write a catalog as an editor does, whole: a new file that takes the old one's place."""
    draft = folder / f"{name}.new"
    draft.write_text(text)
    return draft.replace(folder / name)
