"""`docs/settings.md`, made from the settings themselves: `python -m tests.docs.settings_page`.

Owns the page's form. Guarantees that every setting is on it. Refuses to know what settings do.
"""

from collections.abc import Iterator

from tallygate.settings import Settings
from tallygate.settings_sources import ENV_PREFIX, secret_fields

from .pages import ROOT

PAGE = ROOT / "docs" / "settings.md"

HEAD = """\
# Settings

Each setting comes from a flag (`--redis-url`), else from the environment (`TALLYGATE_REDIS_URL`),
else from the file that `--config` or `TALLYGATE_CONFIG` names (`redis_url = "…"`, TOML or YAML).
All faults are told at once, with what a misspelled name probably meant. `tallygate check-config`
shows what is in effect, secrets hidden. Not every setting has a flag; `--help` of a command lists
those it takes. A secret can also come from a file: SECRETS.

Made from `server/tallygate/settings.py`; do not edit.

| variable | default | what |
|---|---|---|
"""


def render() -> str:
    """Return the page."""
    secrets = ", ".join(f"`{ENV_PREFIX}{name.upper()}_FILE`" for name in secret_fields())
    return HEAD.replace("SECRETS", secrets) + "".join(_rows())


def _rows() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        default = field.default
        shown = ",".join(default) if isinstance(default, tuple) else default
        value = "" if shown is None or shown == "" else f"`{shown}`"
        text = " ".join((field.description or "").split()).replace("|", "\\|")
        yield f"| `{ENV_PREFIX}{name.upper()}` | {value} | {text} |\n"


if __name__ == "__main__":
    PAGE.write_text(render())
