"""Tallygate: a quota-and-metering sidecar.

Owns the package's name and version. Guarantees that importing it starts nothing, connects to
nothing and configures nothing. Refuses to know any of its own modules.
"""

from importlib.metadata import version

__version__ = version("tallygate")
