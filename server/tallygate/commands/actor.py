"""Who runs a command, as the audit log has it.

Guarantees: it is the user of the process by the system's own account, not by what the environment
says.
Refuses to know: what he may do.
"""

import os
import pwd
import socket

from tallygate.domain.trail import ACTOR_LENGTH_MAX


def os_actor() -> str:
    """Return USER@HOST in printable ASCII, as a call's metadata can carry no more."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        # A container's user need not have a name.
        user = f"uid-{os.getuid()}"
    name = f"{user}@{socket.gethostname()}"
    return "".join(each if "!" <= each <= "~" else "?" for each in name)[:ACTOR_LENGTH_MAX]
