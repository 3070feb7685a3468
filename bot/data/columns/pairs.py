"""A question and what is answered to it, or compared with: for supervised fine-tuning and for rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .answers import EQUALS, answer_use, reference_use
from .choices import choices_of, ready_made
from .expressions import value_of
from .facts import USUAL, Column, Kind, containing
from .judgements import Judged, listed_judged, points, siblings, two_judged
from .languages import either_way
from .mapping import (
    FEWEST,
    NUMBERS,
    Candidate,
    Table,
    Unclear,
    Use,
    conversation_in,
    conversation_of,
    named_use,
    said_by,
)
from .names import ANSWERS, PROMPTS, REFERENCES, SYSTEMS, TOOLS, is_guess, is_try, rank_of, words_of
from .opposites import opposites
from .questions import question_use, unnamed
from .turns import SPEAKERS, as_turns

_ANSWER_WORDS = frozenset(ANSWERS) | {"conversation", "messages", "model", "chat", "text", "summary"}
_RIGHT = frozenset({"correct", "correctness", "accepted", "safe", "valid", "passed", "success", "successful",
                    "verified", "approved", "resolved", "solved", "thumbs", "reward"})  # fmt: skip
"""Words of columns that say of an answer whether it is one to learn."""
_MARKUP = ("<html", "<!DOCTYPE", "<!doctype", "<svg", "<div", "\\begin{", "\\documentclass")
_TWO = 2
_BAD_WORDS = frozenset({"bad", "incorrect", "wrong", "fail", "failed", "unsafe", "rejected", "invalid", "harmful",
                        "poor", "false", "no"})  # fmt: skip
_LONG_LIST = 4
"""Words from which on the elements of a list are answers of their own, not ways to say the same."""


_SAME = ("answer", "answers", "text", "value", "aliases", "target", "targets", "label", "labels", "solutions")
"""Lists of these names hold what one answer can be called, where they are short."""


def pair_uses(table: Table, method: str) -> tuple[list[Use], list[str]]:
    """(uses, notes). Raises: Unclear."""
    refuse_single_messages(table)
    refuse_media(table, method)
    asked, said = named_use(table, "prompt"), named_use(table, "completion")
    talk = named_use(table, "messages")
    notes: list[str] = []
    unnamed_yet = talk is None and asked is None and said is None
    if unnamed_yet:
        talk = (_better_talk(table) if method != "grpo" else None) or _conversation(table, method)
    if talk is not None:
        if unnamed_yet and method != "grpo":
            _refuse_worse(table, talk)
        return [talk, *_beside(table, talk, notes)], notes
    if unnamed_yet and (uses := _with_choices(table)) is not None:
        return [*uses, *_beside(table, uses[0], notes)], notes
    if unnamed_yet and method != "grpo" and (way := either_way(table)) is not None:
        raise way
    said = said or (reference_use(table, asked) if method == "grpo" else _answer(table, asked, notes))
    if said is None and asked is None and (late := _marked_conversation(table)) is not None:
        return [late, *_beside(table, late, notes)], notes
    if asked is None and (better := _better_conversation(table, said)) is not None:
        return [better, *_beside(table, better, notes)], notes
    asked = asked or question_use(table, besides=[] if said is None else table.read(said), answer=said)
    if said is None:
        late = _marked_conversation(table)
        if late is not None and "prompt" not in table.named:
            return [late, *_beside(table, late, notes)], notes
        raise unnamed(table, "completion", asked)
    _refuse_judged(table, said, method)
    return [asked, said, *_beside(table, asked, notes)], notes


def _with_choices(table: Table) -> list[Use] | None:
    """A question with its choices, and the right one. Raises: Unclear."""
    found = choices_of(table)
    if found is None:
        return None
    if ready := ready_made(table, found):
        raise Unclear(
            f"{' and '.join(ready)} hold the question with its choices, and {', '.join(found.columns)} the choices "
            "by themselves.", [f"data_prompt_column: {one}" for one in ready],
        )  # fmt: skip
    right = Use("completion", found.right, found.evidence)
    question = question_use(table, besides=[*found.columns, found.answer], answer=right)
    whole = f"{question.expression} + {found.listed}"
    return [Use("prompt", whole, f"{question.evidence}; its choices below it"), right]


# --- One answer of several --------------------------------------------------------------------------------------------


def _answer(table: Table, asked: Use | None, notes: list[str]) -> Use | None:
    """The answer to learn: the better one, where the rows hold several and say which that is. Raises: Unclear."""
    besides = table.read(asked) if asked is not None else []
    if (tries := _tries(table)) is not None:
        notes.append(f"{', '.join(one.path for one in tries[1:])}: other answers of the same, left out.")
        return Use("completion", tries[0].path, f"{tries[0].evidence()}; the first of {len(tries)}")
    try:
        judged = _judged(table)
    except Unclear as unclear:
        raise _as_answer(unclear) from None
    if judged is None:
        return _refuse_list(table, answer_use(table, besides, notes))
    better = replace(judged.good, role="completion")
    plain = answer_use(table, [*besides, *table.read(judged.good, judged.bad)], notes)
    if plain is None or _among(table, better.expression, plain.expression.removesuffix("[0]")):
        return better
    if _alike(table, better.expression, plain.expression):
        return plain
    raise Unclear(
        f"{plain.expression} is an answer, and {better.expression} the better one of several: which is to be learned?",
        [f"data_completion_column: {one.expression}" for one in (plain, better)],
    )


def _tries(table: Table) -> list[Column] | None:
    """Numbered answers of one teacher, `r1_solution_1` and on, where nothing tells a better one."""
    groups: dict[tuple[str, ...], list[Column]] = {}
    for column in table.columns:
        words = words_of(column.path)
        if is_try(words) and column.kind is Kind.TEXT and column.filled >= FEWEST:
            groups.setdefault(tuple(words[:-1]), []).append(column)
    several = [one for one in groups.values() if len(one) >= 2]
    judges = any(points(one.path) is not None and one.kind in (*NUMBERS, Kind.NUMBERS) for one in table.columns)
    plain = any((rank_of(one.path, ("answer", "response", "solution", "output")) or (9,))[0] == 0
                and one.is_text for one in table.columns)  # fmt: skip
    return several[0] if len(several) == 1 and not judges and not plain else None


def _judged(table: Table) -> Judged | None:
    """The better of two answers by their names, by a score, a rank, or a column that names it. Raises: Unclear."""
    if (pair := opposites(table)) is not None:
        return Judged(*pair)
    return two_judged(table, _ANSWER_WORDS) or listed_judged(table)


def _better_talk(table: Table) -> Use | None:
    """Of two columns of whole conversations the better one; None where there are none. Raises: Unclear."""
    try:
        two = siblings(table, _ANSWER_WORDS, (Kind.TURNS,))
        if two is None or two.left.answered < FEWEST:
            return None
        judged = two_judged(table, _ANSWER_WORDS, whole=True)
    except Unclear as unclear:
        raise _as_answer(unclear, "messages") from None
    return replace(judged.good, role="messages") if judged is not None else None


def _refuse_worse(table: Table, talk: Use) -> None:
    """Raises: Unclear where the answers of conversations are the worse ones of those that the rows judge."""
    try:
        judged = _judged(table)
    except Unclear:
        return  # not what is learned; whether it should be is asked by `accounting`
    if judged is None:
        return
    rows = [(as_turns(value_of(talk.expression, row)), value_of(judged.bad.expression, row)) for row in table.rows]
    told = [turns[-1]["content"].strip() == str(bad).strip() for turns, bad in rows if turns and isinstance(bad, str)]
    if sum(told) >= FEWEST * max(1, len(told)):
        raise Unclear(
            f"{talk.expression} ends in answers that are not the best ones ({judged.good.sentence()}): are they to be "
            "learned?", [f"data_messages_column: {talk.expression}"],
        )  # fmt: skip


def _as_answer(unclear: Unclear, role: str = "completion") -> Unclear:
    """The question with the lines that answer it where nothing is rejected."""
    lines = [line.partition(" and ")[0].replace("data_chosen_column", f"data_{role}_column", 1)
             for line in unclear.question.answers]  # fmt: skip
    return Unclear(unclear.question.text, lines)


def _alike(table: Table, one: str, other: str) -> bool:
    """Whether two expressions say the same in most rows."""
    return containing(table.rows, one, other) >= USUAL and containing(table.rows, other, one) >= USUAL


def _among(table: Table, one: str, path: str) -> bool:
    """Whether a list holds what an expression says, in most rows."""
    pairs = [(value_of(one, row), value_of(path, row)) for row in table.rows]
    told = [said in several for said, several in pairs if isinstance(several, list) and said is not None]
    return bool(told) and sum(told) >= USUAL * len(told)


def _refuse_list(table: Table, said: Use | None) -> Use | None:
    """Raises: Unclear where the answer is the first of several that differ, and nothing says which is the best."""
    if said is None or not said.expression.endswith("[0]"):
        return said
    path = said.expression.removesuffix("[0]")
    column = table.at(path)
    if column is None or column.length < 2:
        return said
    if column.words < _LONG_LIST and words_of(path)[-1] in _SAME:
        return said
    raise Unclear(
        f"{path} holds several answers to each question ({column.evidence()}), and nothing says which is the best.",
        [f"data_completion_column: {path}[{at}]" for at in (0, -1)],
    )


# --- Of other forms ---------------------------------------------------------------------------------------------------


def refuse_single_messages(table: Table) -> None:
    """Rows that are one message each of a conversation cannot be told apart into questions and answers here."""
    for column in table.columns:
        spoken = {value.lower() for value in column.values}
        if words_of(column.path)[-1:] == ["role"] and len(spoken) >= 2 and spoken <= SPEAKERS.keys():
            raise Unclear(
                f"Every row is a single message, and {column.path} says whose. Build conversations of them first: one "
                'row for each, `{"messages": [{"role": "user", "content": "..."}, ...]}`.'
            )


def refuse_media(table: Table, method: str) -> None:
    """Raises: Unclear where the rows hold images or recordings, which a method of texts would leave out."""
    for column in table.columns:
        if column.kind is Kind.IMAGE and method in ("sft", "distill") and _is_drawn(table):
            continue
        if column.kind in (Kind.IMAGE, Kind.AUDIO) and column.rows and not table.named:
            raise Unclear(
                f"{column.path} holds {column.kind}, and {method} reads texts alone: rows that are about them would be "
                "learned without them. Name data without them, or the columns to use all the same."
            )


def _is_drawn(table: Table) -> bool:
    """Whether the image is but what the rows' markup looks like, which is to be written from a description."""
    texts = [one for one in table.columns if one.kind is Kind.TEXT and one.filled >= USUAL]
    marked = [one for one in texts if all(str(row.get(one.path) or "<").lstrip().startswith(_MARKUP)
                                          for row in table.rows)]  # fmt: skip
    told = [one for one in texts if one not in marked and words_of(one.path)[-1] in ("description", "caption", "idea")
            and one.unlike >= USUAL and one.words >= _LONG_LIST]  # fmt: skip
    return len(marked) == len(told) == 1


def _conversation(table: Table, method: str) -> Use | None:
    """A column of conversations, unless the question and what to compare with stand in columns of their own."""
    found = conversation_of(table, [Kind.TURNS, Kind.ALTERNATING])
    if found is not None and method == "grpo":
        _refuse_checked(table, found)
        apart = [one for one in (table.ranked(PROMPTS), table.ranked(REFERENCES)) if one and one[0][0][0] == 0]
        return None if len(apart) == 2 and _first_said(table.ranked(REFERENCES)) is not None else found
    if found is not None and found.expression.startswith("turns(") and _has_plain_pair(table):
        return None
    return found


def _refuse_checked(table: Table, talk: Use) -> None:
    """Raises: Unclear where conversations end in answers, and a column of its own says what is right."""
    right = [one for rank, one in table.ranked(EQUALS) if rank[0] == 0 and (one.is_text or one.kind in NUMBERS)]
    asked = [one for rank, one in table.ranked(PROMPTS) if rank[0] == 0]
    if not right or asked:
        return
    ends = [(as_turns(value_of(talk.expression, row)), row.get(right[0].path)) for row in table.rows]
    same = [turns[-1]["content"].strip() == str(said).strip() for turns, said in ends if turns and said is not None]
    if sum(same) < USUAL * len(same):
        raise Unclear(
            f"{talk.expression} ends in answers, and {right[0].path} says what is right: answers would be compared "
            "with the last turn. Put the question into a column of its own to compare with the other.",
            [f"data_messages_column: {talk.expression}"],
        )


def _first_said(candidates: Sequence[Candidate]) -> str | None:
    return next((said for _, column in candidates if (said := said_by(column)) is not None), None)


def _has_plain_pair(table: Table) -> bool:
    return any(rank[0] == 0 and column.is_text for rank, column in table.ranked(PROMPTS)) and any(
        rank[0] == 0 and column.is_text for rank, column in table.ranked(ANSWERS)
    )


def _marked_conversation(table: Table) -> Use | None:
    return conversation_of(table, [Kind.MARKED])


def _better_conversation(table: Table, said: Use | None) -> Use | None:
    """The better of two conversations, where that is the answer, or there is nothing else to learn from."""
    column = table.at(said.expression if said is not None else "chosen")
    if column is None or column.kind not in (Kind.TURNS, Kind.MARKED) or "user" not in column.pattern:
        return None
    told = conversation_in(column) if column.answered >= FEWEST else None
    return Use("messages", told, f"the better of two: {column.evidence()}") if told is not None else None


# --- Beside -----------------------------------------------------------------------------------------------------------


def _beside(table: Table, main: Use, notes: list[str]) -> list[Use]:
    """System message and tools, where the data has columns for them."""
    uses = []
    said = table.at(main.expression.removeprefix("turns(").removesuffix(")"))
    for role, names in (("system", SYSTEMS), ("tools", TOOLS)):
        if (named := named_use(table, role)) is not None:
            uses.append(named)
            continue
        found = [column for rank, column in table.ranked(names) if rank[0] == 0 and column.path not in main.expression]
        if not found or "." in found[0].path:
            continue
        column = found[0]
        if role == "system" and (not column.is_text or (said is not None and said.pattern.startswith("system"))):
            continue
        if role == "tools" and column.kind not in (Kind.RECORDS, Kind.OBJECT, Kind.TEXT):
            continue
        uses.append(Use(role, column.path, column.evidence()))
    return uses


def _refuse_judged(table: Table, said: Use, method: str) -> None:
    """Raises: Unclear where a column says of each answer whether it is right: the others would be learned, too. Beside
    a reference, a prediction is what was judged."""
    read = table.read(said)
    if method == "grpo" and any(is_guess(name) and name not in read for name in table.names):
        return
    for column in table.columns:
        if column.path not in read and not table.named and (_marks_bad(column) or _says_bad(column)):
            raise Unclear(
                f"{column.path} says of each answer whether it is right, and the others would be learned, too. Keep "
                "the rows that are to be learned, or name data_prompt_column and data_completion_column to use all."
            )


def _marks_bad(column: Column) -> bool:
    """True and false, or 1 and 0, with some of the bad."""
    named = bool(_RIGHT & set(words_of(column.path))) or rank_of(column.path, ("label",)) is not None
    bad = {"False"} if column.kind is Kind.TRUTH else {"0"} if "label" not in words_of(column.path) else set()
    told = column.kind is Kind.TRUTH or (column.kind is Kind.WHOLE and set(column.values) <= {"0", "1"})
    return named and told and bool(bad & set(column.values))


def _says_bad(column: Column) -> bool:
    """Two words, of which one is that of a bad answer: good and bad, correct and incorrect."""
    words = set(words_of(column.path))
    judged = bool(words & (_RIGHT | {"label", "quality", "verdict", "grade", "judgement", "judgment", "result"}))
    judged = judged and not words & {*PROMPTS}
    values = {value.strip().lower() for value in column.values}
    return column.kind is Kind.TEXT and judged and 0 < len(values) <= _TWO + 1 and bool(values & _BAD_WORDS)
