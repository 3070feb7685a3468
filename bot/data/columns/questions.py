"""What is asked: the column with the question, and what belongs before and after it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import permutations

from .expressions import text_of_value, value_of
from .facts import MOST_VALUES, USUAL, Column, Kind, containing
from .languages import either_way
from .mapping import FEWEST, WORDS_OF_ROLES, Candidate, Table, Unclear, Use, asked_by, is_question, key_of_role
from .names import ANSWERS, CONTEXTS, CONVERSATIONS, PROMPTS, READ, is_about, rank_of, words_of
from .turns import ASSISTANT, SPEAKERS, USER

LONG = 4
"""So many times longer a text is what the other one is about, or the worked-out answer to its result."""
_LEADS = ("instruction", "instructions", "definition", "prompt", "task_description")
_BODIES = ("selftext", "body", "post", "description")
_SHORTENED = ("summary", "highlights", "abstract", "headline", "tldr", "title")
_HEADED = ("instruction", "instructions", "question", "questions", "problem", "query", "task")
"""Headings under which a model was to write a question; what stands under "Input:" belongs to the text above it."""
_SAID = 3
"""Words from which on the field of an object says something."""
_HEADING = re.compile(r"(?:^|\n)[#* \t\[<]*(\w+)[#* \t\]>]*:?[* \t]*\s*$")
_FOLLOWS = ("input", "inputs")
_ASKS = ("question", "query", "problem")


def is_sentence(column: Column) -> bool:
    """Not one of a few words that sort the rows."""
    sorts = column.kind is Kind.TEXT and column.coded >= USUAL and column.rows > MOST_VALUES and column.unlike < FEWEST
    return not sorts


def question_use(table: Table, *, besides: Sequence[str] = (), answer: Use | None = None) -> Use:
    """The column with the question, and what belongs before and after it. Raises: Unclear."""
    candidates = [
        (rank, column) for rank, column in table.ranked(PROMPTS, besides=besides)
        if asked_by(column) is not None and column.filled >= FEWEST and is_sentence(column)
    ]  # fmt: skip
    if not candidates:
        candidates = [
            (rank, column) for rank, column in table.ranked((*CONVERSATIONS, *READ), besides=besides)
            if rank[0] == 0 and column.kind is Kind.TURNS and is_question(column)
        ]  # fmt: skip
    turns = [column for column in table.columns if column.kind is Kind.TURNS and is_question(column)]
    if not candidates and len(turns) == 1:
        candidates = [((1, 0), turns[0])]  # whatever it is called
    if answer is not None:
        candidates = _without_rendered(table, _without_makers(table, candidates), answer)
    if not candidates:
        return _read_before(table, besides, answer)
    tier = min(rank[0] for rank, _ in candidates)
    best = [column for rank, column in candidates if rank[0] == tier]
    return _around(table, best, besides)


def _without_makers(table: Table, candidates: list[Candidate]) -> list[Candidate]:
    """Without texts that end in the heading of another candidate, "### Instruction:" say: what that one was made by."""
    ends = {column.path: headings(table, column) for _, column in candidates}
    named = [{*words_of(column.path)} for _, column in candidates]
    kept = [(rank, column) for (rank, column), own in zip(candidates, named, strict=True)
            if not any(ends[column.path] & {word, f"{word}s"} for other in named if other is not own
                       for word in other)]  # fmt: skip
    return kept or candidates


def headings(table: Table, column: Column) -> set[str]:
    """The word of the heading that the texts of a column end in; none where they end in anything else."""
    texts = [row[column.path] for row in table.rows if isinstance(row.get(column.path), str)]
    found = [match[1].lower() for text in texts if (match := _HEADING.search(text[-60:])) is not None]
    found = [word for word in found if word in _HEADED]
    return {max(set(found), key=found.count)} if found and len(found) >= USUAL * len(texts) else set()


def _without_rendered(table: Table, candidates: list[Candidate], answer: Use) -> list[Candidate]:
    """Without texts that hold another of the candidates and the answer: a template filled in."""
    source = table.read(answer)[:1]
    if not source:
        return candidates
    return [
        (rank, column) for rank, column in candidates
        if not (containing(table.rows, column.path, source[0]) >= USUAL
                and any(containing(table.rows, column.path, other.path) >= USUAL
                        for _, other in candidates if other is not column))
    ]  # fmt: skip


def _around(table: Table, best: list[Column], besides: Sequence[str]) -> Use:
    """One question of several columns that are named like one. Raises: Unclear."""
    base, rest = best[0], best[1:]
    lead = _exactly(table, best, _LEADS, besides)
    unseen = next((one for one in table.columns if one.path in _FOLLOWS and one.kind is Kind.EMPTY), None)
    follow = _exactly(table, best, _FOLLOWS, besides)
    if follow is None and lead is not None and words_of(lead.path)[-1] != "prompt":
        follow = next((one for one in best if one is not lead and words_of(one.path)[-1] in _ASKS), None)
    apart = (
        lead is not None
        and follow is not None
        and containing(table.rows, follow.path, lead.path) < USUAL
        and (containing(table.rows, lead.path, follow.path) < USUAL)
    )
    if lead is not None and follow is not None and lead.is_text and lead is not follow and apart:
        optional = "?" if follow.filled < 1 else ""
        said = f"{asked_by(lead)} + {asked_by(follow) or follow.path}{optional}"
        both = f"{lead.path}: {lead.evidence()}; {follow.path} belongs to it: {follow.evidence()}"
        base, rest = lead, [one for one in rest if one not in (lead, follow)]
        _refuse_rivals(table, base, rest, covered=(lead, follow))
        return Use("prompt", said, both)
    base = _refuse_rivals(table, base, rest, covered=(base,))
    if unseen is not None and lead is base and "prompt" not in base.path:
        evidence = f"{base.evidence()}; {unseen.path} belongs to it, and is empty in the rows looked at"
        return Use("prompt", f"{asked_by(base) or base.path} + {unseen.path}?", evidence)
    contexts = [
        one for rank, one in table.ranked(CONTEXTS, besides=[*besides, base.path])
        if rank[0] <= 1 and (one.is_text or one.kind is Kind.ALTERNATING) and one is not base and one.words >= 2
        and not containing(table.rows, base.path, one.path) >= USUAL and "." not in one.path
    ][:1]  # fmt: skip
    contexts = contexts or _within(table, base, besides)
    said = asked_by(base) or base.path
    if not contexts or base.kind is Kind.TURNS:
        return Use("prompt", said, base.evidence())
    optional = "?" if contexts[0].filled < 1 else ""
    last = words_of(base.path)[-1] in _LEADS[:2]
    whole = f"{said} + {contexts[0].path}{optional}" if last else f"{contexts[0].path}{optional} + {said}"
    return Use("prompt", whole, f"{base.evidence()}; {contexts[0].path} belongs to it: {contexts[0].evidence()}")


def _within(table: Table, base: Column, besides: Sequence[str]) -> list[Column]:
    """Of an object that is called a context, or of a list of them, the texts, where there is one field of texts."""
    for rank, column in table.ranked((*CONTEXTS, "passages", "documents", "paragraphs"), besides=[*besides, base.path]):
        if rank[0] == 0 and column.kind in (Kind.OBJECT, Kind.RECORDS):
            texts = [one for one in column.fields if one.kind in (Kind.TEXT, Kind.ALTERNATING) and one.words >= _SAID]
            return texts if len(texts) == 1 and _joins(table, texts[0]) else []
    return []


def _joins(table: Table, column: Column) -> bool:
    return sum(text_of_value(value_of(column.path, row)) is not None for row in table.rows) >= USUAL * len(table.rows)


def _exactly(table: Table, best: Sequence[Column], names: Sequence[str], besides: Sequence[str]) -> Column | None:
    """The column with one of the names, sought among the best first."""
    ranked = [one for rank, one in table.ranked(names, besides=besides) if rank[0] == 0 and one.is_text]
    return next((one for one in ranked if one in best), next((one for one in ranked if is_sentence(one)), None))


def _refuse_rivals(table: Table, base: Column, rest: Sequence[Column], covered: Sequence[Column]) -> Column:
    """`base`, or a column that holds all of it. Raises: Unclear where another column is as good and says more."""
    for rival in rest:
        if rank_of(rival.path, _LEADS + _FOLLOWS) is None and rival.kind is not base.kind:
            continue
        if any(containing(table.rows, one.path, rival.path) >= USUAL for one in covered):
            continue
        if containing(table.rows, rival.path, base.path) >= USUAL and rival.is_text:
            base = rival
            continue
        raise Unclear(
            f"{base.path} and {rival.path} could both be the question ({base.evidence()}; {rival.evidence()}).",
            [f"data_prompt_column: {one}" for one in
             (base.path, rival.path, f"{base.path} + {rival.path}")],
        )  # fmt: skip
    return base


def _read_before(table: Table, besides: Sequence[str], answer: Use | None) -> Use:
    """Where nothing is called a question: what is read before the answer, by its name. Raises: Unclear."""
    candidates = [
        column for rank, column in table.ranked(READ, besides=besides)
        if rank[0] == column.path.count(".") and column.is_text and column.filled >= FEWEST and is_sentence(column)
        and not column.is_identifier
    ]  # fmt: skip
    if candidates and answer is not None:
        best = candidates[0]
        rivals = [one for one in candidates[1:] if one.characters * LONG >= best.characters]
        rivals = [one for one in rivals if containing(table.rows, best.path, one.path) < USUAL]
        asker = next((one for one in candidates if SPEAKERS.get("_".join(words_of(one.path))) == USER), None)
        if asker is not None and SPEAKERS.get(answer.expression.lower()) == ASSISTANT:
            best, rivals = asker, []
        if rank_of(answer.expression, _SHORTENED) is not None:
            rivals = [one for one in rivals if words_of(one.path)[-1] not in _SHORTENED]  # a title is a shorter one
        if not rivals:
            return Use("prompt", asked_by(best) or best.path, best.evidence())
        if (whole := _titled(best, rivals, answer)) is not None:
            return whole
        raise Unclear(
            f"{' and '.join(one.path for one in (best, *rivals))} could each be what is asked.",
            [f"data_prompt_column: {one.path}" for one in (best, *rivals)],
        )
    raise unnamed(table, "prompt", answer)


def _titled(best: Column, rivals: Sequence[Column], answer: Use) -> Use | None:
    """A post of a title and a body, which are asked together."""
    title, *others = sorted((best, *rivals), key=lambda one: one.path != "title")
    if title.path.lower() != "title" or len(others) != 1 or others[0].path.lower() not in _BODIES:
        return None
    if rank_of(answer.expression, _SHORTENED) is not None:
        return None
    optional = "?" if others[0].filled < 1 else ""
    return Use("prompt", f"{title.path} + {others[0].path}{optional}", f"{others[0].path} belongs to {title.path}: "
               f"{others[0].evidence()}")  # fmt: skip


def unnamed(table: Table, role: str, other: Use | None) -> Unclear:
    """Neither names nor values say which column it is."""
    texts = [column for column in table.leaves if column.is_text and not column.is_identifier
             and not (other is not None and column.path in other.expression)]  # fmt: skip
    texts = [column for column in texts if not is_about(column.path)] or texts
    if role == "prompt" and other is None and (both := either_way(table)) is not None:
        return both
    columns = ", ".join(table.names)
    if role == "prompt" and other is None:
        return Unclear(
            f"cannot tell which column to use; the columns are {columns}: name one of them in data_prompt_column and "
            "data_completion_column.", [f"data_prompt_column: {one.path} and data_completion_column: {two.path}"
                                        for one, two in [*permutations(texts[:3], 2)][:4]],
        )  # fmt: skip
    what = WORDS_OF_ROLES[role]
    names = PROMPTS if role == "prompt" else ANSWERS
    sparse = [one for one in table.columns if one.filled < FEWEST and (rank_of(one.path, names) or (9,))[0] == 0]
    if sparse:
        said = ", ".join(
            f"{one.path} is filled in {one.filled:.0%} of the first {len(table.rows)} rows" for one in sparse
        )
        return Unclear(f"{what} is missing: {said}.", [f"{key_of_role(role)}: {one.path}" for one in texts[:4]])
    lines = [f"{key_of_role(role)}: {one}" for one in (*(one.path for one in texts), *_first_of_lists(table))]
    return Unclear(
        f"cannot tell which column to use for {what}; the columns are {columns}: name one of them in "
        f"{key_of_role(role)}.", lines[:4],
    )  # fmt: skip


def _first_of_lists(table: Table) -> list[str]:
    fields = [one for column in table.columns if column.kind is Kind.RECORDS for one in column.fields if one.is_text]
    lists = [column for column in table.columns if column.kind is Kind.ALTERNATING]
    return [f"{one.path}[0]" for one in (*fields, *lists) if one.words >= 2]
