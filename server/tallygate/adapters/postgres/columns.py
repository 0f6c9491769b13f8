"""Columns of values on their way to a statement, each as one text.

Guarantees: the server divides a column into the values that it was joined of, whatever they hold.
Refuses to know: what is done with them.

A driver's arrays are checked and measured element by element, which costs more than the statement;
joining costs next to nothing, and `string_to_array` hardly more than reading an array.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Final

from tallygate.ports import UnstorableBatch

# The separator that ASCII has for this, then characters that nobody has given a meaning.
_FIRST: Final = 0x1F
_PRIVATE_USE: Final = range(0xE000, 0xF900)


def joined(columns: Sequence[Sequence[str]]) -> tuple[list[str], str]:
    """Return each column as one text, and the character between the values, which none contains.

    Columns must not be empty. Raises `UnstorableBatch` where every such character occurs: a smaller
    batch, in the end of one event, has fewer.
    """
    for code in chain((_FIRST,), _PRIVATE_USE):
        mark = chr(code)
        texts = [mark.join(column) for column in columns]
        pairs = zip(texts, columns, strict=True)
        if all(text.count(mark) == len(column) - 1 for text, column in pairs):
            return texts, mark
    raise UnstorableBatch("NoCharacterLeft")
