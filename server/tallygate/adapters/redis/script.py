"""A Lua script as Redis knows it: its text for the server's version, its digest, its loading.

Guarantees: on Redis 7 and later a script carries the `#!lua` line, under which a script that could
run out of memory half-way is refused before it starts; on 6.2 the same text runs plain.
Refuses to know: what the script does.
"""

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Final

# The first major version that knows the `#!lua` line.
SHEBANG_MAJOR = 7


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and the digest under which EVALSHA finds it."""

    text: str
    sha: str


# In the order in which they build on each other.
PARTS: Final = ("state", "limits", "holds", "answer", "given", "modes", "admit")


def load(redis_version: str) -> Script:
    """Return `admit.lua`, joined from its parts, as a server of that version wants it."""
    folder = resources.files("tallygate.adapters.redis.lua")
    # Headers are for people: a server would keep and hash them.
    body = "\n".join(_code(folder.joinpath(f"{part}.lua").read_text()) for part in PARTS)
    if int(redis_version.partition(".")[0]) >= SHEBANG_MAJOR:
        body = f"#!lua\n{body}"
    return Script(body, hashlib.sha1(body.encode(), usedforsecurity=False).hexdigest())


def _code(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("--"))
