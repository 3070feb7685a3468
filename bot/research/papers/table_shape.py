"""What a table of hyperparameters is: which cells are names, which are values, and what stands over and beside each.

Only shapes that leave no doubt are read: names down one column with values beside them, such pairs side by side, or
names across a row with values below. Everything else is no table of hyperparameters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bot.research.papers.model import Table
from bot.research.papers.naming import SIZE
from bot.research.papers.table_names import key_of

Row = tuple[str, ...]
_WORD_VALUE = re.compile(
    r"(?:\W*|✓|✗|yes|no|true|false|none|on|off|n/?a|enabled|disabled|"
    r"(?:paged[- ]?|fused )?(?:8-bit )?(?:Adam\w*|SGD|Lion|Muon|Adafactor|RMSProp|LAMB|SOAP|Sophia)\b.*|"
    r"(?:linear|cosine|constant|polynomial|WSD|inverse|warmup-stable|step)\b.*|"
    r"bf(?:loat)?16.*|fp?(?:loat)?(?:16|32).*|\d.*|[≤<~≈∼=±{\[($β].*\d.*|10\^.*)",
    re.IGNORECASE | re.DOTALL,
)

_CORNER = re.compile(
    r"(?:hyper-?\s?)?(?:parameters?|params?\.?)|settings?|config(?:uration)?|models?|stages?|phases?|names?|options?|"
    r"arguments?|keys?|methods?",
    re.IGNORECASE,
)
"""What stands in the corner over a column of names."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One value with all that the table says of it."""

    name: str
    text: str
    over: tuple[str, ...]
    """Heads above its column, outermost first; where names stand across, what its row is called."""
    group: str
    """The line that heads the rows around it; empty where there is none."""
    column: int
    """Which of the values of that name it is: the column, or the row where names stand across."""


@dataclass(frozen=True, slots=True)
class Shape:
    entries: tuple[Entry, ...]
    across: bool
    """Names stand across, a row for each model or stage."""
    heads: tuple[tuple[str, ...], ...]
    """What stands over each value column, or what each row is called."""
    others: tuple[str, ...] = ()
    """Heads of the columns that are neither a name's nor a value's."""
    blocks: int = 1
    """Columns of names that stand side by side, each with its values."""


def shape_of(table: Table) -> Shape | None:
    """The shape of a table of hyperparameters; None where it is none, or its shape is in doubt."""
    rows = tuple(row for row in table.rows if any(cell.strip() for cell in row))
    width = max((len(row) for row in rows), default=0)
    if width < 2 or len({len(row) for row in rows}) != 1:
        return None
    across = _across(rows)
    if across is not None:
        return across
    names = _name_columns(rows, width)
    return _down(rows, names, width) if names else None


def is_value(cell: str) -> bool:
    """Whether a cell can hold a value: a number, or one of the words that settings are given in."""
    text = cell.strip()
    return bool(text) and not SIZE.fullmatch(text) and bool(_WORD_VALUE.fullmatch(text))


def group_heading(row: Row) -> str | None:
    """The text of a row that only heads those below it."""
    texts = [cell.strip() for cell in row if cell.strip()]
    whole = len(set(texts)) == 1 and (len(texts) == len(row) or (len(texts) == 1 and bool(row[0].strip())))
    if whole and not is_value(texts[0]):
        return texts[0]
    return None


def _name_columns(rows: Sequence[Row], width: int) -> list[int]:
    """Columns that hold names and no values, with a column of values to the right of each."""
    body = [row for row in rows if group_heading(row) is None]
    found = []
    for column in range(width - 1):
        cells = [row[column] for row in body if row[column].strip()]
        keys = sum(_is_key(cell) for cell in cells)
        beside = [row[column + 1] for row in body if _is_key(row[column]) and row[column + 1].strip()]
        values = sum(is_value(cell) and not _is_key(cell) for cell in cells)
        if keys and values <= len(cells) * 0.1 and sum(map(is_value, beside)) >= max(1, len(beside) * 0.6):
            found.append(column)
    return found


def _down(rows: Sequence[Row], names: Sequence[int], width: int) -> Shape | None:
    """Names down a column, or several such columns side by side with one value each."""
    ends = [*names[1:], width]
    spans = [range(name + 1, end) for name, end in zip(names, ends, strict=True)]
    if len(names) > 1 and (names[0] > 0 or any(len(span) != 1 for span in spans)):
        return None
    head = _header_rows(rows, names)
    heads = {column: _over(rows[:head], column) for span in spans for column in span}
    if len(names) > 1:  # what stands over a name's column stands over the pair
        heads = {name + 1: tuple(dict.fromkeys((*_over(rows[:head], name), *heads[name + 1]))) for name in names}
    entries: list[Entry] = []
    group = side = ""
    for row in rows[head:]:
        if (heading := group_heading(row)) is not None:
            if not _is_key(heading):
                group, side = heading, ""
            continue
        # What stands beside a name holds for the rows below it that say nothing there.
        side = " ".join(dict.fromkeys(cell for cell in row[: names[0]] if cell.strip())) or side
        for name, span in zip(names, spans, strict=True):
            entries += [
                Entry(row[name], row[at], heads[at], f"{group} {side}".strip(), at) for at in span if row[name].strip()
            ]
    return Shape(tuple(entries), False, tuple(heads.values()), blocks=len(names))


def _header_rows(rows: Sequence[Row], names: Sequence[int]) -> int:
    """How many rows head the columns: those before the first with a value beside a name."""
    for number, row in enumerate(rows):
        if number and row[names[0]].strip() and not _CORNER.fullmatch(row[names[0]].strip()):
            break
        if any(is_value(row[name + 1]) for name in names) and any(row[name].strip() for name in names):
            break
        if any(_is_key(row[name]) and row[name + 1].strip() for name in names):
            break
    else:
        return 0
    # A line right above the values that spans the table heads rows, not columns.
    while number and group_heading(rows[number - 1]) is not None:
        number -= 1
    return number


def _over(header: Sequence[Row], column: int) -> tuple[str, ...]:
    """Heads over a column, outermost first; what spans columns stands over each of them."""
    return tuple(dict.fromkeys(row[column].strip() for row in header if row[column].strip()))


def _across(rows: Sequence[Row]) -> Shape | None:
    """Names across a row of heads, a line of values for each model or stage below it."""
    for number, row in enumerate(rows[:3]):
        if number + 1 >= len(rows):
            return None
        if any(is_value(cell) for cell in row):
            return None
        keys = [column for column, cell in enumerate(row) if _is_key(cell)]
        if len(keys) >= 2:
            return _across_from(rows, number, keys)
    return None


def _across_from(rows: Sequence[Row], head: int, keys: Sequence[int]) -> Shape | None:
    entries: list[Entry] = []
    titles: list[tuple[str, ...]] = []
    group = ""
    told = _title_columns(rows[head:], keys[0])
    for number, row in enumerate(rows[head + 1 :]):
        if (heading := group_heading(row)) is not None:
            group = heading
            continue
        if sum(is_value(row[column]) for column in keys) * 2 < len(keys):
            return None
        title = tuple(row[at].strip() for at in told if row[at].strip() and not is_value(row[at]))
        titles.append(title)
        for column in keys:
            over = tuple(dict.fromkeys((*_over(rows[:head], column), *title)))
            entries.append(Entry(rows[head][column], row[column], over, group, number))
    others = tuple(cell for column, cell in enumerate(rows[head]) if column > keys[0] and column not in keys)
    nameless = len(titles) > 1 and not all(titles)
    return None if nameless or not titles else Shape(tuple(entries), True, tuple(titles), others)


_OF_DATA = re.compile(r"(?:training |train )?(?:data|data ?sets?|corpus|corpora|mixture|source)", re.IGNORECASE)


def _title_columns(rows: Sequence[Row], width: int) -> list[int]:
    """Columns that name the rows; that of the data is none of them where the others tell the rows apart."""
    every = list(range(width))
    bare = [at for at in every if not _OF_DATA.fullmatch(rows[0][at].strip())]
    titles = [tuple(row[at] for at in bare) for row in rows[1:]]
    return bare if bare and len(set(titles)) == len(titles) else every


def _is_key(cell: str) -> bool:
    return key_of(cell) is not None
