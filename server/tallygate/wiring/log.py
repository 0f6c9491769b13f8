"""How a process logs, for commands, which name no adapter.

Guarantees: nothing but what the adapter does.
Refuses to know: who logs what.
"""

from tallygate.adapters.log import configure_logging

__all__ = ["configure_logging"]
