"""What a process gives back of the memory that it no longer uses.

Guarantees: a large block that is freed goes back to the system, as long as the process lives.
Refuses to know: who asked for it.

glibc takes blocks above a threshold from the system one by one, and gives each back when it is
freed. By default the first such block to be freed raises the threshold to its own size, for good:
from then on its like come from the heap, where what lives long between them keeps the rest from
being given back. A process that reads batches of a megabyte grows by some hundred kilobytes a
minute for as long as the gaps last.
"""

import ctypes
from typing import Final

# Of malloc.h. Setting one of the thresholds, even to its default, ends their growing.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
THRESHOLD_BYTES: Final = 128 * 1024
# Heaps beside the main one, which threads would each have their own of.
ARENAS: Final = 2


def give_back() -> bool:
    """Have freed memory given back; return whether this libc can be told, as glibc can."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    mallopt.restype = ctypes.c_int
    told = [
        mallopt(_M_MMAP_THRESHOLD, THRESHOLD_BYTES),
        mallopt(_M_TRIM_THRESHOLD, THRESHOLD_BYTES),
        mallopt(_M_ARENA_MAX, ARENAS),
    ]
    return all(told)
