"""How often Python looks for garbage that only refers to itself.

Guarantees: what a process was put together with is looked through once, and never again.
Refuses to know: what is garbage.

What a call makes is freed by counting references as soon as it is answered. The collector finds
next to nothing after it, and by default looks each time 700 objects more are alive: with 128 calls
inside all the time, each look going over what they hold, and often over all there is.
"""

import gc
from typing import Final

# Objects more than at the last look: what some hundred calls inside hold, and at most about a
# megabyte of garbage, as failures leave it (their tracebacks), however long it trickles.
YOUNG: Final = 5_000
# Looks at the young until one at the middle-aged, and of these until one at everything.
MIDDLE: Final = 20
OLD: Final = 20


def collect_seldom() -> None:
    """Collect what starting has left, leave out what stays, and look seldom from now on."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
