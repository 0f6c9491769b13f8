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
COMMON: Final = ("state", "limits", "answer")
# Made when a call first needs one of them: a script's functions are made anew by each call.
RARE: Final = ("kinds", "holds", "given", "details", "modes")
LAST: Final = ("admit",)

_RARE: Final = """
function rare()
if is_rare then
  return is_rare
end
{rare}
end
"""


def load(redis_version: str) -> Script:
    """Return `admit.lua`, joined from its parts, as a server of that version wants it."""
    # Headers are for people: a server would keep and hash them.
    body = _joined(COMMON) + _RARE.replace("{rare}", _joined(RARE)) + _joined(LAST)
    if int(redis_version.partition(".")[0]) >= SHEBANG_MAJOR:
        body = f"#!lua\n{body}"
    return Script(body, hashlib.sha1(body.encode(), usedforsecurity=False).hexdigest())


def _joined(parts: tuple[str, ...]) -> str:
    folder = resources.files("tallygate.adapters.redis.lua")
    return "\n".join(_code(folder.joinpath(f"{part}.lua").read_text()) for part in parts)


def _code(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("--"))
