"""READMEs made of one template, what differs by language, and programs that are run.

Owns how a page is made, and the regions of the programs. Guarantees that a placeholder without a
text, and a region that no page shows, are faults. Refuses to know how the programs are run.
"""

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml

HERE: Final = Path(__file__).parent
CLIENTS: Final = HERE.parent
TEMPLATE: Final = CLIENTS / "README.template.md"
WIDTH: Final = 120

MARK: Final = re.compile(r"^\s*(?:#|//) \[(/?)([a-z-]+)\]$")
PLACE: Final = re.compile(r"\{\{([a-z_-]+)\}\}")
NOT_SHOWN: Final = {"folder", "sample"}
PROSE: Final = {"error_kinds", "stats", "middleware"}


def languages() -> Mapping[str, Mapping[str, str]]:
    """Return what differs, by language."""
    found: Mapping[str, Mapping[str, str]] = yaml.safe_load((HERE / "words.yaml").read_text())
    return found


def regions(text: str) -> dict[str, str]:
    """Return what a program shows, by the names of its regions, without their indentation."""
    found: dict[str, str] = {}
    name, lines = "", []
    for line in text.splitlines():
        mark = MARK.match(line)
        if mark is None:
            lines.append(line)
        elif mark[1]:
            if mark[2] != name:
                raise ValueError(f"[/{mark[2]}] ends [{name}]")
            found[name] = textwrap.dedent("\n".join(lines))
            name = ""
        else:
            name, lines = mark[2], []
    if name:
        raise ValueError(f"[{name}] has no end")
    return found


def page(words: Mapping[str, str]) -> str:
    """Return a language's README."""
    shown = regions((HERE / words["sample"]).read_text())
    texts = {
        name: textwrap.fill(text, WIDTH, break_on_hyphens=False, break_long_words=False)
        if name in PROSE
        else text
        for name, text in words.items()
    } | shown
    used: set[str] = set()

    def text_of(place: re.Match[str]) -> str:
        used.add(place[1])
        return texts[place[1]]

    made = PLACE.sub(text_of, TEMPLATE.read_text())
    unused = set(texts) - used - NOT_SHOWN
    if unused:
        raise ValueError(f"no page shows {sorted(unused)}")
    return made


def stale() -> list[Path]:
    """Return the READMEs that are not what the template gives."""
    found = []
    for words in languages().values():
        path = CLIENTS / words["folder"] / "README.md"
        if not path.exists() or path.read_text() != page(words):
            found.append(path)
    return found


def write() -> list[Path]:
    """Write every README whose client is there; return what was written."""
    found = []
    for words in languages().values():
        folder = CLIENTS / words["folder"]
        if folder.is_dir():
            (folder / "README.md").write_text(page(words))
            found.append(folder / "README.md")
    return found
