"""Of two answers the better one, with the question that both answer: for dpo and reward models."""

from __future__ import annotations

from .expressions import value_of
from .facts import USUAL, Column, Kind
from .judgements import SCORES, Judged, begins_with_question, listed_judged, turned, two_judged
from .mapping import Table, Unclear, Use, named_use
from .names import ANSWERS, rank_of, without, words_of
from .opposites import opposites
from .pairs import pair_uses, refuse_media, refuse_single_messages
from .questions import question_use

_WORSE = frozenset({"rejected", "incorrect", "wrong", "worse", "worst", "loser", "losing", "bad", "negative",
                    "dispreferred", "distractor", "unsafe", "corrupted"})  # fmt: skip


def preference_uses(table: Table, method: str) -> tuple[list[Use], list[str]]:
    """(uses, notes) with prompt, chosen and rejected. For dpo also prompt and completion, where nothing says which of
    two answers is better: its script samples the others then. Raises: Unclear."""
    refuse_single_messages(table)
    refuse_media(table, method)
    named = _named_pair(table)
    if named is not None:
        return _whole(table, *named), []
    if (pair := opposites(table)) is not None:
        return _whole(table, *pair), []
    for found in (two_judged, listed_judged):
        if (judged := found(table)) is not None:
            return _whole(table, *_comparable(table, judged)), []
    return _without_pairs(table, method)


def _comparable(table: Table, judged: Judged) -> tuple[Use, Use, Use | None]:
    """Raises: Unclear where one of more than two answers is the best, and nothing says which is the worse."""
    if table.share(judged.good.expression) and not table.share(judged.bad.expression):
        raise Unclear(f"{judged.good.expression} is the best of several answers, and no column says which is worse: "
                      "name that one in data_rejected_column.")  # fmt: skip
    return judged.good, judged.bad, judged.asked


def _without_pairs(table: Table, method: str) -> tuple[list[Use], list[str]]:
    scores = [column.path for column in table.columns
              if column.kind in (Kind.TRUTH, Kind.WHOLE, Kind.NUMBER) and _is_judgement(column)]  # fmt: skip
    if scores:
        raise Unclear(
            f"Every row has one answer, and {', '.join(scores[:4])} tells how good it is; {method} needs two answers "
            "to a question. Build pairs of the rows with the same question first (`chosen` the one with the higher "
            "score), or write `method: sft`."
        )
    worse = [column.path for column in table.columns if column.is_text and _WORSE & set(words_of(column.path))]
    if worse and method == "dpo":
        raise Unclear(
            f"{', '.join(worse)} could be worse answers, and it is not plain to which: name both sides.",
            [f"data_chosen_column: {column.path} and data_rejected_column: {one}" for one in worse
             for column in table.columns if rank_of(column.path, ANSWERS) is not None and column.path not in worse][:4],
        )  # fmt: skip
    if method == "dpo":
        uses, notes = pair_uses(table, "sft")
        return uses, [*notes, "Nothing is rejected in the data: dpo samples the rejected answers from the model."]
    columns = ", ".join(table.names)
    raise Unclear(
        f"cannot tell which column to use for the better and the worse answer; the columns are {columns}: name one of "
        "them in data_chosen_column and data_rejected_column."
    )


def _is_judgement(column: Column) -> bool:
    words = set(words_of(column.path))
    return bool(words & (SCORES | {"label", "helpfulness", "correctness"})) and not words & {"id", "num", "len"}


def _named_pair(table: Table) -> tuple[Use, Use] | None:
    """What the recipe names; of `by(...)` or `higher(...)` the other side follows from the one."""
    good, bad = named_use(table, "chosen"), named_use(table, "rejected")
    if good is None and bad is None:
        return None
    if good is not None and bad is not None:
        return good, bad
    if good is not None and (other := turned(good.expression)) is not None:
        return good, Use("rejected", other, "the other one")
    pair = opposites(table)
    if pair is None:
        missing = "rejected" if good is not None else "chosen"
        raise Unclear(
            f"cannot tell which column is the {missing} answer; the columns are {', '.join(table.names)}: name one of "
            f"them in data_{missing}_column."
        )
    return good or pair[0], bad or pair[1]


# --- The question -----------------------------------------------------------------------------------------------------


def _whole(table: Table, good: Use, bad: Use, found: Use | None = None) -> list[Use]:
    """With the question: of its own column, or what both answers begin with. Raises: Unclear."""
    asked = named_use(table, "prompt") or found
    shared, rest, worse = (
        f"{name}({one.expression}, {other.expression})"
        for name, one, other in (("shared", good, bad), ("rest", good, bad), ("rest", bad, good))
    )
    nested = any(word in good.expression for word in "(,")
    if not nested and begins_with_question(table, good.expression, bad.expression):
        evidence = f"both are whole conversations and begin alike in {table.share(shared):.0%} of the rows"
        prompt = asked or Use("prompt", shared, evidence)
        uses = [prompt, Use("chosen", rest, good.evidence), Use("rejected", worse, bad.evidence)]
        return uses if asked is not None else [*uses, *_system_beside(table, shared)]
    read = table.read(good, bad)
    related = [
        column.path for column in table.columns if without(column.path, "chosen") or without(column.path, "rejected")
    ]
    if asked is None:
        asked = question_use(table, besides=[*read, *related], answer=Use("chosen", read[0], "") if read else None)
    if not nested and table.share(f"after({good.expression}, {asked.expression})") >= USUAL:
        good = Use(
            "chosen", f"after({good.expression}, {asked.expression})", f"{good.evidence}; begins with the prompt"
        )
        bad = Use("rejected", f"after({bad.expression}, {asked.expression})", f"{bad.evidence}; begins with the prompt")
    return [asked, good, bad, *_system_beside(table, asked.expression)]


def _system_beside(table: Table, prompt: str) -> list[Use]:
    begun = [value_of(prompt, row) for row in table.rows]
    if any(isinstance(one, list) and one and one[0].get("role") == "system" for one in begun):
        return []
    found = [column for rank, column in table.ranked(("system", "system_prompt")) if rank[0] == 0 and column.is_text]
    return [Use("system", found[0].path, found[0].evidence())] if found and found[0].path not in prompt else []
