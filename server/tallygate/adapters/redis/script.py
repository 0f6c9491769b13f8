"""A Lua script as Redis knows it: its text for the server's version, its digest, its loading.

Guarantees: on Redis 7 and later a script carries the `#!lua` line, under which a script that could
run out of memory half-way is refused before it starts; on 6.2 the same text runs plain.
Refuses to know: what the script does.
"""

import hashlib
from dataclasses import dataclass
from importlib import resources

# The first major version that knows the `#!lua` line.
SHEBANG_MAJOR = 7


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and the digest under which EVALSHA finds it."""

    name: str
    text: str
    sha: str


def load(name: str, redis_version: str) -> Script:
    """Return the script `lua/NAME.lua` as a server of that version wants it."""
    body = resources.files("tallygate.adapters.redis.lua").joinpath(f"{name}.lua").read_text()
    if int(redis_version.partition(".")[0]) >= SHEBANG_MAJOR:
        body = f"#!lua\n{body}"
    return Script(name, body, hashlib.sha1(body.encode(), usedforsecurity=False).hexdigest())
