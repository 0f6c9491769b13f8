"""`python -m clients.readme`: write the READMEs of the clients; with `--check`, compare them."""

import sys

from clients.readme.pages import stale, write


def main(arguments: list[str]) -> int:
    """Write, or with `--check` compare; return the exit status."""
    if arguments == ["--check"]:
        found = stale()
        for path in found:
            print(f"stale: {path}; run python -m clients.readme", file=sys.stderr)
        return 1 if found else 0
    for path in write():
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
