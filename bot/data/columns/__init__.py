"""Which columns of a data set a method trains on, and how its rows are made from them.

`map_columns` finds the columns, `value_of` reads what it says of a row, `as_turns` reads a conversation in any form.

This folder goes byte for byte into every experiment, as `data/columns` beside the `data/prepare.py` that imports it. So
it takes the standard library alone, and imports its own modules relatively.
"""

from .by_method import map_columns
from .expressions import Unreadable, divided, is_absent, text_of_value, value_of
from .mapping import BESIDE, LOOKED_AT, ROLES, WORDS_OF_ROLES, ColumnMapping, Question, Use
from .turns import as_turns

__all__ = [
    "BESIDE",
    "LOOKED_AT",
    "ROLES",
    "WORDS_OF_ROLES",
    "ColumnMapping",
    "Question",
    "Unreadable",
    "Use",
    "as_turns",
    "divided",
    "is_absent",
    "map_columns",
    "text_of_value",
    "value_of",
]
