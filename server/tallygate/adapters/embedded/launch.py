"""The last step before an embedded server: run as a script, it prepares itself and execs.

Owns what only the child can do to itself: to die with its parent, and to give up root, which
Postgres insists on. Guarantees that the server never starts when a step failed. Standard library
only and never imported by the product, since it runs isolated (`python -I -S`). Refuses to know
which server follows.

An unprivileged account cannot enter folders that only root may enter, such as a checkout below
root's home. Opening those folders to everybody would be worse than the problem, so the child keeps
one capability (CAP_DAC_OVERRIDE) instead, and only when it is told to.
See capabilities(7), "Ambient" and "The securebits flags".
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
PR_SET_SECUREBITS = 28
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
# Keeps capabilities over setuid, and keeps access(2) honouring them afterwards.
SECBIT_NO_SETUID_FIXUP = 1 << 2
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522


class CapabilityHeader(ctypes.Structure):
    """`cap_user_header_t`: the version of the call and the process, 0 for this one."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class CapabilitySets(ctypes.Structure):
    """`cap_user_data_t`: the three sets, 32 capabilities at a time."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def prctl(libc: ctypes.CDLL, option: int, *arguments: int) -> None:
    """Ask the kernel, unused arguments being zero; raise OSError when it refuses."""
    padded = [*arguments, 0, 0, 0, 0][:4]
    if libc.prctl(option, *[ctypes.c_ulong(value) for value in padded]) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")


def become(libc: ctypes.CDLL, uid: int, gid: int, *, cross_folders: bool) -> None:
    """Give up root for `uid:gid`, keeping the right to cross any folder if so asked."""
    if cross_folders:
        prctl(libc, PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if cross_folders:
        bit = 1 << CAP_DAC_OVERRIDE
        header = CapabilityHeader(CAPABILITY_VERSION_3, 0)
        sets = (CapabilitySets * 2)(CapabilitySets(bit, bit, bit), CapabilitySets(0, 0, 0))
        if libc.capset(ctypes.byref(header), ctypes.byref(sets)) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"capset: {os.strerror(number)}")
        prctl(libc, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE)


def main(arguments: list[str]) -> None:
    """Prepare by `parent death_signal uid gid cross_folders`, then exec the rest of the line."""
    parent, death_signal, uid, gid, cross_folders = (int(value) for value in arguments[:5])
    command = arguments[5:]
    libc = ctypes.CDLL(None, use_errno=True)
    if uid >= 0:
        become(libc, uid, gid, cross_folders=bool(cross_folders))
    if sys.platform == "linux":
        # After setuid, which clears it. A parent that died before this line sends nothing any
        # more, hence the look at who our parent is now.
        prctl(libc, PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:
            sys.exit("the starting process is gone")
    os.execv(command[0], command)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        sys.exit(f"cannot launch {sys.argv[6:7]}: {error}")
