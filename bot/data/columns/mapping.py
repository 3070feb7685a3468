"""What a mapping consists of: the columns as a table, what each part of a row is made from, or the question.

A mapping is made by names, types and values, with the evidence for each use. What is not plain is asked, with the lines
of recipe.yaml that would answer. Not covered: whether the values are true or good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .expressions import Unreadable, columns_of, is_absent, paths_of, value_of
from .facts import USUAL, Column, Kind, facts_of
from .names import CONVERSATIONS, is_about, rank_of
from .turns import doubled_content

LOOKED_AT = 200
"""Rows that a mapping is made from."""
FEWEST = 0.5
"""Share of the rows looked at that must come out right; below it something has been misread."""
INNER = ("text", "ground_truth", "value", "answer", "content", "full_text", "normalized_value", "response", "spans",
         "input_text", "body")  # fmt: skip
"""Fields that hold what an object is about, in order."""
ROLES = {
    "sft": ("prompt", "completion"), "distill": ("prompt", "completion"), "rft": ("prompt", "completion"),
    "synthetic": ("prompt", "completion"), "grpo": ("prompt", "completion"), "dpo": ("prompt", "chosen", "rejected"),
    "reward": ("prompt", "chosen", "rejected"), "pretrain": ("text",), "classify": ("text", "label"),
    "vision": ("image", "label"), "speech": ("audio", "text"),
}  # fmt: skip
"""Method -> columns of its rows; the first one is what no validation row shares with a training row."""
BESIDE = ("messages", "system", "tools")
"""What a row of conversations may be made from, too."""
WORDS_OF_ROLES = {
    "prompt": "the question", "completion": "the answer", "chosen": "the better answer", "rejected": "the worse answer",
    "text": "the text", "label": "the class", "image": "the image", "audio": "the recording",
    "messages": "the conversation", "system": "the system message", "tools": "the tools",
}  # fmt: skip


def key_of_role(role: str) -> str:
    return f"data_{role}_column"


@dataclass(frozen=True, slots=True)
class Use:
    """What one part of a row is made from."""

    role: str
    """prompt, completion, messages ...: `data_<role>_column` of recipe.yaml."""
    expression: str
    """See `expressions`."""
    evidence: str

    def sentence(self) -> str:
        return f"{self.role}: {self.expression} ({self.evidence})"


@dataclass(frozen=True, slots=True)
class Question:
    """What a person has to decide."""

    text: str
    answers: tuple[str, ...]
    """Lines of recipe.yaml, any one of which would answer; several keys of one answer are divided by " and "."""

    def sentence(self) -> str:
        if not self.answers:
            return self.text
        return f"{self.text} Write into recipe.yaml {', or '.join(f'`{line}`' for line in self.answers)}"


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    method: str
    uses: tuple[Use, ...] = ()
    """Empty where there is a question."""
    question: Question | None = None
    notes: tuple[str, ...] = ()
    """What was left out although it might be wanted, one sentence each."""
    columns: tuple[str, ...] = field(default=())
    """Every column of the data."""
    rows: int = 0
    """That were looked at."""

    @property
    def expressions(self) -> dict[str, str]:
        return {use.role: use.expression for use in self.uses}

    def lines(self) -> list[str]:
        """Lines of recipe.yaml that say the same."""
        return [f"{key_of_role(use.role)}: {use.expression}" for use in self.uses]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"ask": self.question.sentence() if self.question is not None else None}


class Unclear(Exception):
    """The data does not say; carries the question."""

    def __init__(self, text: str, answers: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.question = Question(text, tuple(answers))


Candidate = tuple[tuple[int, int], Column]


class Table:
    """The rows that are looked at, and what is known about their columns."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], features: Any, named: Mapping[str, str]) -> None:
        self.rows = rows
        self.columns = facts_of(rows, features)
        self.named = dict(named)
        self.leaves = [leaf for column in self.columns for leaf in _leaves(column)]

    @property
    def names(self) -> list[str]:
        return [column.path for column in self.columns]

    def at(self, path: str) -> Column | None:
        return next((column for column in self.leaves if column.path == path), None)

    def read(self, *uses: Use) -> list[str]:
        """Columns and fields that the uses are made from."""
        return [path for use in uses for path in paths_of(use.expression, self.names)]

    def share(self, *expressions: str) -> float:
        """Of the rows looked at, those where every expression says something."""
        made = [all(not is_absent(value_of(one, row)) for one in expressions) for row in self.rows]
        return sum(made) / len(made) if made else 0.0

    def ranked(self, names: Sequence[str], *, besides: Sequence[str] = (), deepest: int = 1) -> list[Candidate]:
        """Columns whose name fits, the best first; fields of objects after the columns themselves."""
        taken = set(besides) | {name for one in self.named.values() for name in _read_by(one, self.names)}
        found = []
        for column in self.leaves:
            depth = column.path.count(".") if column not in self.columns else 0
            rank = rank_of(column.path, names)
            if rank is None or column.path in taken or depth > deepest or column.kind is Kind.EMPTY:
                continue
            found.append(((rank[0] + depth, rank[1]), column))
        return sorted(found, key=lambda one: one[0])


def _leaves(column: Column) -> list[Column]:
    inner = column.fields if column.kind is Kind.OBJECT else ()
    return [column, *(leaf for one in inner for leaf in _leaves(one))]


def _read_by(expression: str, columns: Sequence[str]) -> list[str]:
    try:
        return columns_of(expression, columns)
    except Unreadable:
        return []


# --- What a column can be ---------------------------------------------------------------------------------------------

NUMBERS = (Kind.WHOLE, Kind.NUMBER, Kind.TRUTH, Kind.CLASS)


def said_by(column: Column) -> str | None:
    """The expression for a column's text; None where it holds none."""
    if column.kind is Kind.ALTERNATING:
        return f"{column.path}[0]"
    if column.spelled or column.kind in (Kind.TEXT, Kind.MARKED, *NUMBERS):
        return column.path
    if column.kind is Kind.TURNS:
        return column.path
    if column.kind is Kind.OBJECT:
        inner = {one.path.rpartition(".")[2]: one for one in column.fields}
        return next((said for name in INNER if name in inner and (said := said_by(inner[name]))), None)
    return None


def is_question(column: Column) -> bool:
    """It can be what is asked: a text, or turns of which the last is not an answer."""
    if column.kind is Kind.TURNS or (column.kind is Kind.MARKED and column.answered < 1 - USUAL):
        return column.answered < 1 - USUAL
    return column.is_text


def asked_by(column: Column) -> str | None:
    """The expression for a column as what is asked."""
    if column.kind is Kind.OBJECT:
        said = said_by(column)
        return said if said is not None and "[" not in said else None
    if column.kind is Kind.ALTERNATING and column.spelled:
        return f"{column.path}[0]"  # the first question of several
    if not is_question(column):
        return None
    parsed = column.kind is Kind.MARKED or (column.kind is Kind.TURNS and column.spelled)
    return f"turns({column.path})" if parsed else column.path


def named_use(table: Table, role: str) -> Use | None:
    """The use that the recipe names. Raises: Unclear when it is none."""
    said = table.named.get(role)
    if said is None:
        return None
    try:
        columns_of(said, table.names)
    except Unreadable as error:
        raise Unclear(
            f"{key_of_role(role)}: {error}; the columns are {', '.join(table.names)}.",
        ) from None
    column = table.at(said)
    if column is not None:
        said = _as_named(column, role) or said
    return Use(role, said, "named in the recipe" + (f": {column.evidence()}" if column is not None else ""))


def _as_named(column: Column, role: str) -> str | None:
    if role == "messages":
        return conversation_in(column)
    if role == "completion":
        return said_by(column)
    return asked_by(column) if role == "prompt" else None


# --- Conversations ----------------------------------------------------------------------------------------------------


def conversation_in(column: Column) -> str | None:
    """The expression for whole conversations; None where the column holds none."""
    if column.kind is Kind.TURNS:
        return f"turns({column.path})" if column.spelled else column.path
    return f"turns({column.path})" if column.kind in (Kind.MARKED, Kind.ALTERNATING) else None


def conversation_of(table: Table, kinds: Sequence[Kind], *, least: float = 0.5) -> Use | None:
    """The column of whole conversations, where there is one. Raises: Unclear where there are several that differ."""
    found = []
    for rank, column in table.ranked(CONVERSATIONS, besides=("chosen", "rejected")):
        if column.kind in kinds and column.answered >= least and column.filled >= FEWEST:
            if column.kind is Kind.ALTERNATING and (rank[0] > 0 or column.length < 2 or column.words < 2):
                continue
            found.append(column)
    others = [column for column in table.columns if column.kind in kinds and column.kind is Kind.TURNS
              and column.answered >= least and column not in found and not is_about(column.path)
              and column.path not in ("chosen", "rejected")]  # fmt: skip
    if not found and len(others) == 1 and others[0].length >= 2:
        found = others
    if not found:
        return None
    best = found[0]
    forms = next((keys for row in table.rows if (keys := doubled_content(row.get(best.path)))), [])
    if forms:
        raise Unclear(f"The messages of {best.path} say the same twice, under {' and '.join(forms)}. Keep one of them.")
    rivals = [one for one in found[1:] if one.kind is best.kind and not _same_conversations(table, best, one)]
    if rivals:
        raise Unclear(
            f"{best.path} and {' and '.join(one.path for one in rivals)} hold different conversations: which one is to "
            "be learned?", [f"data_messages_column: {one.path}" for one in (best, *rivals)],
        )  # fmt: skip
    same = f"; {found[1].path} says the same" if len(found) > 1 and found[1].kind is best.kind else ""
    return Use("messages", conversation_in(best) or best.path, best.evidence() + same)


def _same_conversations(table: Table, one: Column, other: Column) -> bool:
    pairs = [(value_of(f"turns({one.path})", row), value_of(f"turns({other.path})", row)) for row in table.rows]
    both = [(mine, yours) for mine, yours in pairs if mine and yours]
    same = [_contents(mine) == _contents(yours) for mine, yours in both]
    return sum(same) >= USUAL * len(same)


def _contents(turns: Sequence[Mapping[str, Any]]) -> list[str]:
    return [turn["content"].strip() for turn in turns if turn["role"] != "system"]
