"""What has to begin anew in a forked child: locks, threads and connections are the parent's."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """Something that a fork takes apart."""

    def forked(self) -> None:
        """Begin anew; this is the child, and its only thread."""


# Weak: what nobody holds any more is not kept for the sake of forks.
_EVERY: weakref.WeakSet[Forked] = weakref.WeakSet()


def begin_anew_when_forked(each: Forked) -> None:
    """Have `each.forked()` called in every child that is forked from now on."""
    _EVERY.add(each)


def _forked() -> None:
    for each in list(_EVERY):
        each.forked()


os.register_at_fork(after_in_child=_forked)
