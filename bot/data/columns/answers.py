"""What is answered, or what a rule compares answers with."""

from __future__ import annotations

from collections.abc import Sequence

from .facts import USUAL, Column, Kind, containing
from .mapping import FEWEST, NUMBERS, Candidate, Table, Unclear, Use, asked_by, said_by
from .names import ANSWERS, PROMPTS, REASONING, REFERENCES, TESTS, WRITTEN, is_about, rank_of, words_of
from .questions import LONG, is_sentence

_PROSE = 30
"""Words from which on a reference is no result that an answer could match."""
_ANSWERED_BY = frozenset(WRITTEN) - {"label", "intent", "text", "explanation", "rationale"}
"""Names that make an answer even where the question has a name like `text`."""

_GUESSED = frozenset({"predicted", "prediction", "predictions", "pred", "guess", "guessed"})
_TRUE = frozenset({"truth", "gold", "golden", "reference", "expected", "correct", "actual"})


def _answers(table: Table, names: Sequence[str], besides: Sequence[str], deepest: int = 0) -> list[Candidate]:
    return [
        (rank, column) for rank, column in table.ranked(names, besides=besides, deepest=deepest)
        if said_by(column) is not None and column.filled >= FEWEST and (not column.is_constant or _as_trl(table))
        and not (column.is_identifier and rank[0] > 0)
        and (column.kind is not Kind.TURNS or column.pattern.split(",")[0] == "assistant" or column.answered >= USUAL)
    ]  # fmt: skip


def _as_trl(table: Table) -> bool:
    """The columns of TRL's prompt-completion format and no others: whoever wrote them has said which is the answer."""
    return set(table.names) == {"prompt", "completion"}


def answer_use(table: Table, besides: Sequence[str], notes: list[str]) -> Use | None:
    """The column to learn to write; None where none is called one. Raises: Unclear."""
    candidates = _answers(table, ANSWERS, besides, deepest=1)
    plain = [one for one in candidates if one[0][0] <= 1 and one[1].path != "chosen"]
    candidates = plain or candidates
    if not candidates:
        return _written(table, besides)
    best = candidates[0][1]
    if best.is_constant:
        notes.append(f"{best.path} is the same in every row looked at: there is one answer to learn.")
    for rank, rival in candidates[1:]:
        best = _better_answer(table, best, rival, rank[0], notes)
    notes += [
        f"{column.path} holds reasoning, which is left out: the answer is learned without it."
        for column in table.columns
        if column.is_text and REASONING & set(words_of(column.path)) and column.filled >= FEWEST and column.words >= 5
        and column is not best and rank_of(column.path, ANSWERS) is None
    ]  # fmt: skip
    _refuse_guess(table, best)
    first = f", the first of {best.length} or so" if best.kind is Kind.ALTERNATING else ""
    return Use("completion", said_by(best) or best.path, best.evidence() + first)


def _better_answer(table: Table, best: Column, rival: Column, tier: int, notes: list[str]) -> Column:
    """Of two columns that are called an answer the one that shows the work. Raises: Unclear."""
    if not (rival.is_text or rival.kind in NUMBERS) or "." in rival.path or rank_of(rival.path, ANSWERS) is None:
        return best
    if containing(table.rows, best.path, rival.path) >= 0.6:
        return best
    if best.kind is Kind.ALTERNATING:
        return best
    marked = _marks(table)
    longer = rival.characters >= LONG * max(1, best.characters)
    if marked and rival.is_text and rival.rows:
        raise Unclear(
            f"{best.path} and {rival.path} are answers, and {marked} says that some are bad: which one is it?",
            [f"data_completion_column: {one.path}" for one in (best, rival)],
        )
    if rival.is_text and (longer or containing(table.rows, rival.path, best.path) >= 0.6):
        notes.append(f"{best.path} is the result of {rival.path}, which is learned whole.")
        return rival
    alike = [word for word in words_of(rival.path) if not word.isdigit()] == [
        word for word in words_of(best.path) if not word.isdigit()
    ]
    if alike:
        notes.append(f"{rival.path} is another answer to the same question, and left out.")
        return best
    if rival.characters * LONG <= best.characters or tier > 0:
        return best
    raise Unclear(
        f"{best.path} and {rival.path} could both be the answer ({best.evidence()}; {rival.evidence()}).",
        [f"data_completion_column: {one.path}" for one in (best, rival)],
    )


def _refuse_guess(table: Table, best: Column) -> None:
    """A prediction beside the truth that it was scored against is no answer to learn unasked. Raises: Unclear."""
    if not _GUESSED & set(words_of(best.path)):
        return
    for column in table.columns:
        if column is best or not (column.is_text or column.kind in NUMBERS) or not _TRUE & set(words_of(column.path)):
            continue
        if any(row.get(column.path) != row.get(best.path) for row in table.rows):
            raise Unclear(
                f"{best.path} is what was predicted, and {column.path} says otherwise in some rows: which is to be "
                "learned?", [f"data_completion_column: {one.path}" for one in (column, best)],
            )  # fmt: skip


def _marks(table: Table) -> str:
    """A column that says of some rows that they are wrong; "" where there is none."""
    for column in table.columns:
        told = {*words_of(column.path)} & {"score", "correct", "verified", "passed", "reward", "accuracy", "grade"}
        bad = {"False", "0", "0.0"} & set(column.values)
        if told and bad and column.kind in (Kind.TRUTH, Kind.WHOLE, Kind.NUMBER):
            return column.path
    return ""


def _written(table: Table, besides: Sequence[str]) -> Use | None:
    """A summary, a program, a translation: what is written from something that is read."""
    strong = "prompt" in table.named or any(
        rank[0] <= 1 and asked_by(column) is not None and is_sentence(column)
        for rank, column in table.ranked(PROMPTS, besides=besides)
    )
    candidates = [
        column for rank, column in _answers(table, WRITTEN, besides)
        if rank[0] <= 1 and not is_about(column.path)
        and (strong or column.names or rank_of(column.path, tuple(_ANSWERED_BY)))
    ]  # fmt: skip
    if not candidates:
        return None
    exact = [one for one in candidates if (rank_of(one.path, WRITTEN) or (9,))[0] == 0]
    best = (exact or candidates)[0]
    return Use("completion", said_by(best) or best.path, best.evidence())


def reference_use(table: Table, asked: Use | None) -> Use | None:
    """What a rule can compare an answer with: the short one of several, and of a worked one its end."""
    besides = table.read(asked) if asked is not None else []
    tests = [column.path for rank, column in table.ranked(TESTS, besides=besides) if rank[0] == 0]
    if tests:
        raise Unclear(
            f"{', '.join(tests)} holds tests of a program, and no function of rewards.py runs programs. Write one, or "
            "name what answers are compared with.", [f"data_completion_column: {one}" for one in tests],
        )  # fmt: skip
    candidates = [
        (rank, column) for rank, column in _answers(table, REFERENCES, besides, deepest=1)
        if not (rank[0] > 0 and column.kind is Kind.OBJECT)
    ]  # fmt: skip
    candidates = [one for one in candidates if one[0][0] <= 1] or candidates
    if not candidates:
        return None
    best = candidates[0][1]
    for _, rival in candidates[1:]:
        worked = best.is_text and best.final < USUAL and best.characters > LONG * max(1, rival.characters)
        if worked and (rival.is_text or rival.kind in NUMBERS) and rival.rows:
            best = rival
    said = said_by(best) or best.path
    if best.is_text and best.final >= USUAL:
        return Use("completion", f"final({said})", f"{best.evidence()}; a rule compares with that")
    if best.is_text and best.words > _PROSE:
        raise Unclear(
            f"{best.path} is prose ({best.evidence()}), and no rule compares an answer with that. Name what ends in a "
            "result, or what answers are compared with all the same.", [f"data_completion_column: {said}"],
        )  # fmt: skip
    return Use("completion", said, best.evidence())
