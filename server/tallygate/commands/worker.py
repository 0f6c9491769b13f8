"""A process of `serve --processes`: `python -m tallygate.commands.worker`, started by its parent.

Guarantees: Ctrl-C in a terminal, which reaches every process, is the parent's affair.
Refuses to know: settings from anywhere but the parent.
"""

import asyncio
import signal
import sys

from tallygate.commands.output import EXIT_FAILED
from tallygate.wiring.log import configure_logging
from tallygate.wiring.worker import work
from tallygate.wiring.worker_line import WorkerLine


def main() -> int:
    """Run until told to end; return the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = WorkerLine(int(sys.argv[1]))
    order = line.order()
    if order is None:
        return EXIT_FAILED
    settings = order.settings
    configure_logging(level=settings.log_level, style=settings.log_format)
    return 0 if asyncio.run(work(order, line)) else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
