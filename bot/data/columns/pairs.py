"""A question and what is answered to it, or compared with: for supervised fine-tuning and for rewards."""

from __future__ import annotations

from collections.abc import Sequence

from .choices import choices_of, ready_made
from .facts import MOST_VALUES, USUAL, Column, Kind, containing
from .mapping import (
    FEWEST,
    NUMBERS,
    WORDS_OF_ROLES,
    Candidate,
    Table,
    Unclear,
    Use,
    asked_by,
    conversation_in,
    conversation_of,
    is_question,
    key_of_role,
    named_use,
    said_by,
)
from .names import (
    ANSWERS,
    CONTEXTS,
    CONVERSATIONS,
    PROMPTS,
    READ,
    REASONING,
    REFERENCES,
    SYSTEMS,
    TESTS,
    TOOLS,
    WRITTEN,
    is_about,
    rank_of,
    words_of,
)
from .turns import SPEAKERS

_LEADS = ("instruction", "instructions", "definition", "prompt", "task_description")
_FOLLOWS = ("input", "inputs")
_ASKS = ("question", "query", "problem")
_ANSWERED_BY = frozenset(WRITTEN) - {"label", "intent", "text", "explanation", "rationale"}
"""Names that make an answer even where the question has a name like `text`."""
_LONG = 4
"""So many times longer an answer is the worked-out one and the other its result."""


def pair_uses(table: Table, method: str) -> tuple[list[Use], list[str]]:
    """(uses, notes). Raises: Unclear."""
    refuse_single_messages(table)
    refuse_media(table, method)
    asked, said = named_use(table, "prompt"), named_use(table, "completion")
    talk = named_use(table, "messages")
    notes: list[str] = []
    if talk is None and asked is None and said is None:
        talk = _conversation(table, method)
    if talk is not None:
        return [talk, *_beside(table, talk, notes)], notes
    if asked is None and said is None and (found := choices_of(table)) is not None:
        if ready := ready_made(table, found):
            raise Unclear(
                f"{' and '.join(ready)} hold the question with its choices, and {', '.join(found.columns)} the choices "
                "by themselves.", [f"data_prompt_column: {one}" for one in ready],
            )  # fmt: skip
        right = Use("completion", found.right, found.evidence)
        question = question_use(table, besides=[*found.columns, found.answer], answer=right)
        uses = [
            Use("prompt", f"{question.expression} + {found.listed}", f"{question.evidence}; its choices below it"),
            right,
        ]
        return [*uses, *_beside(table, uses[0], notes)], notes
    said = said or (_reference(table, asked) if method == "grpo" else _answer(table, asked, notes))
    if said is None and asked is None and (late := _marked_conversation(table)) is not None:
        return [late, *_beside(table, late, notes)], notes
    if asked is None and (said is None or said.expression == "chosen") and (better := _better_conversation(table)):
        return [better, *_beside(table, better, notes)], notes
    asked = asked or question_use(table, besides=_columns_in(table, said), answer=said)
    if said is None:
        late = _marked_conversation(table)
        if late is not None and "prompt" not in table.named:
            return [late, *_beside(table, late, notes)], notes
        raise _unnamed(table, "completion", asked)
    _refuse_judged(table)
    return [asked, said, *_beside(table, asked, notes)], notes


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
        if column.kind in (Kind.IMAGE, Kind.AUDIO) and column.rows and not table.named:
            raise Unclear(
                f"{column.path} holds {column.kind}, and {method} reads texts alone: rows that are about them would be "
                "learned without them. Name data without them, or the columns to use all the same."
            )


def _conversation(table: Table, method: str) -> Use | None:
    """A column of conversations, unless the question and what to compare with stand in columns of their own."""
    found = conversation_of(table, [Kind.TURNS, Kind.ALTERNATING])
    if found is not None and method == "grpo":
        apart = [one for one in (table.ranked(PROMPTS), table.ranked(REFERENCES)) if one and one[0][0][0] == 0]
        return None if len(apart) == 2 and _first_said(table.ranked(REFERENCES)) is not None else found
    if found is not None and found.expression.startswith("turns(") and _has_plain_pair(table):
        return None
    return found


def _first_said(candidates: Sequence[Candidate]) -> str | None:
    return next((said for _, column in candidates if (said := said_by(column)) is not None), None)


def _has_plain_pair(table: Table) -> bool:
    return any(rank[0] == 0 and column.is_text for rank, column in table.ranked(PROMPTS)) and any(
        rank[0] == 0 and column.is_text for rank, column in table.ranked(ANSWERS)
    )


def _marked_conversation(table: Table) -> Use | None:
    return conversation_of(table, [Kind.MARKED])


def _better_conversation(table: Table) -> Use | None:
    """The better of two conversations, where the data hold nothing else to learn from."""
    column = table.at("chosen")
    said = conversation_in(column) if column is not None and column.answered >= FEWEST and column.pattern else None
    if column is None or said is None or "user" not in column.pattern:
        return None
    return Use("messages", said, f"the better of two: {column.evidence()}")


# --- The question -----------------------------------------------------------------------------------------------------


def _columns_in(table: Table, use: Use | None) -> list[str]:
    return [] if use is None else [leaf.path for leaf in table.leaves if leaf.path in use.expression]


def _is_sentence(column: Column) -> bool:
    """Not one of a few words that sort the rows."""
    sorts = column.kind is Kind.TEXT and column.coded >= USUAL and column.rows > MOST_VALUES and column.unlike < FEWEST
    return not sorts


def question_use(table: Table, *, besides: Sequence[str] = (), answer: Use | None = None) -> Use:
    """The column with the question, and what belongs before and after it. Raises: Unclear."""
    candidates = [
        (rank, column) for rank, column in table.ranked(PROMPTS, besides=besides)
        if asked_by(column) is not None and column.filled >= FEWEST and _is_sentence(column)
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
        candidates = _without_rendered(table, candidates, answer)
    if not candidates:
        return _read_before(table, besides, answer)
    tier = min(rank[0] for rank, _ in candidates)
    best = [column for rank, column in candidates if rank[0] == tier]
    return _around(table, best, besides)


def _without_rendered(table: Table, candidates: list[Candidate], answer: Use) -> list[Candidate]:
    """Without texts that hold another of the candidates and the answer: a template filled in."""
    source = _columns_in(table, answer)[:1]
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
    said = asked_by(base) or base.path
    if not contexts or base.kind is Kind.TURNS:
        return Use("prompt", said, base.evidence())
    optional = "?" if contexts[0].filled < 1 else ""
    last = words_of(base.path)[-1] in _LEADS[:2]
    whole = f"{said} + {contexts[0].path}{optional}" if last else f"{contexts[0].path}{optional} + {said}"
    return Use("prompt", whole, f"{base.evidence()}; {contexts[0].path} belongs to it: {contexts[0].evidence()}")


def _exactly(table: Table, best: Sequence[Column], names: Sequence[str], besides: Sequence[str]) -> Column | None:
    """The column with one of the names, sought among the best first."""
    ranked = [one for rank, one in table.ranked(names, besides=besides) if rank[0] == 0 and one.is_text]
    return next((one for one in ranked if one in best), next((one for one in ranked if _is_sentence(one)), None))


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
        if rank[0] == column.path.count(".") and column.is_text and column.filled >= FEWEST and _is_sentence(column)
        and not column.is_identifier
    ]  # fmt: skip
    if candidates and answer is not None:
        best = candidates[0]
        rivals = [one for one in candidates[1:] if one.characters * _LONG >= best.characters]
        rivals = [one for one in rivals if containing(table.rows, best.path, one.path) < USUAL]
        if not rivals:
            return Use("prompt", asked_by(best) or best.path, best.evidence())
        raise Unclear(
            f"{' and '.join(one.path for one in (best, *rivals))} could each be what is asked.",
            [f"data_prompt_column: {one.path}" for one in (best, *rivals)],
        )
    raise _unnamed(table, "prompt", answer)


def _unnamed(table: Table, role: str, other: Use | None) -> Unclear:
    """Neither names nor values say which column it is."""
    texts = [column for column in table.leaves if column.is_text and not column.is_identifier
             and not (other is not None and column.path in other.expression)]  # fmt: skip
    texts = [column for column in texts if not is_about(column.path)] or texts
    if role == "prompt" and other is None and (both := _either_way(table)) is not None:
        return both
    columns = ", ".join(table.names)
    if role == "prompt" and other is None:
        return Unclear(
            f"cannot tell which column to use; the columns are {columns}: name one of them in data_prompt_column and "
            "data_completion_column."
        )
    what = WORDS_OF_ROLES[role]
    names = PROMPTS if role == "prompt" else ANSWERS
    sparse = [one for one in table.columns if one.filled < FEWEST and (rank_of(one.path, names) or (9,))[0] == 0]
    if sparse:
        said = ", ".join(
            f"{one.path} is filled in {one.filled:.0%} of the first {len(table.rows)} rows" for one in sparse
        )
        return Unclear(f"{what} is missing: {said}.", [f"{key_of_role(role)}: {one.path}" for one in texts[:4]])
    return Unclear(
        f"cannot tell which column to use for {what}; the columns are {columns}: name one of them in "
        f"{key_of_role(role)}.", [f"{key_of_role(role)}: {one.path}" for one in texts[:4]],
    )  # fmt: skip


def _either_way(table: Table) -> Unclear | None:
    """An object of two texts, a sentence in two languages say: each could be the answer to the other."""
    for column in table.columns:
        texts = [one for one in column.fields if one.is_text]
        if column.kind is Kind.OBJECT and len(texts) == 2 == len(column.fields):
            one, other = (text.path for text in texts)
            return Unclear(
                f"{column.path} holds {one} and {other}: which is to be written from which?",
                [f"data_prompt_column: {a} and data_completion_column: {b}" for a, b in ((one, other), (other, one))],
            )
    return None


# --- The answer -------------------------------------------------------------------------------------------------------


def _answers(table: Table, names: Sequence[str], besides: Sequence[str], deepest: int = 0) -> list[Candidate]:
    return [
        (rank, column) for rank, column in table.ranked(names, besides=besides, deepest=deepest)
        if said_by(column) is not None and column.filled >= FEWEST and not (column.is_identifier and rank[0] > 0)
        and (column.kind is not Kind.TURNS or column.pattern.split(",")[0] == "assistant" or column.answered >= USUAL)
    ]  # fmt: skip


def _answer(table: Table, asked: Use | None, notes: list[str]) -> Use | None:
    """The column to learn to write; None where none is called one. Raises: Unclear."""
    besides = _columns_in(table, asked)
    candidates = _answers(table, ANSWERS, besides, deepest=1)
    plain = [one for one in candidates if one[0][0] <= 1 and one[1].path != "chosen"]
    candidates = plain or candidates
    if not candidates:
        return _written(table, besides)
    best = candidates[0][1]
    for rank, rival in candidates[1:]:
        best = _better_answer(table, best, rival, rank[0], notes)
    notes += [
        f"{column.path} holds reasoning, which is left out: the answer is learned without it."
        for column in table.columns
        if column.is_text and REASONING & set(words_of(column.path)) and column.filled >= FEWEST and column.words >= 5
        and column is not best and rank_of(column.path, ANSWERS) is None
    ]  # fmt: skip
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
    longer = rival.characters >= _LONG * max(1, best.characters)
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
    if rival.characters * _LONG <= best.characters or tier > 0:
        return best
    raise Unclear(
        f"{best.path} and {rival.path} could both be the answer ({best.evidence()}; {rival.evidence()}).",
        [f"data_completion_column: {one.path}" for one in (best, rival)],
    )


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
        rank[0] <= 1 and asked_by(column) is not None and _is_sentence(column)
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


def _reference(table: Table, asked: Use | None) -> Use | None:
    """What a rule can compare an answer with: the short one of several, and of a worked one its end."""
    besides = _columns_in(table, asked)
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
        worked = best.is_text and best.final < USUAL and best.characters > _LONG * max(1, rival.characters)
        if worked and (rival.is_text or rival.kind in NUMBERS) and rival.rows:
            best = rival
    said = said_by(best) or best.path
    if best.is_text and best.final >= USUAL:
        return Use("completion", f"final({said})", f"{best.evidence()}; a rule compares with that")
    return Use("completion", said, best.evidence())


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


def _refuse_judged(table: Table) -> None:
    """Raises: Unclear where a column says true or false of each answer: the bad ones would be learned, too."""
    for column in table.columns:
        named = rank_of(column.path, ("label", "correct", "accepted", "is_correct", "thumbs_up"))
        if column.kind is Kind.TRUTH and named is not None and "False" in column.values and not table.named:
            raise Unclear(
                f"{column.path} says true or false of each answer, and the false ones would be learned, too. Keep the "
                "rows that are to be learned, or name data_prompt_column and data_completion_column to use all."
            )
