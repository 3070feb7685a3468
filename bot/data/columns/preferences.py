"""Of two answers the better one: by their names, by a score, or by what a column says of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .expressions import divided, is_absent, number_of, value_of
from .facts import MOST_VALUES, USUAL, Column, Kind
from .mapping import FEWEST, NUMBERS, Table, Unclear, Use, named_use, said_by
from .names import CHOSEN, OPPOSITES, REJECTED, SIDES, is_about, without, words_of
from .pairs import pair_uses, question_use, refuse_media, refuse_single_messages

_SCORES = frozenset({"score", "scores", "rating", "ratings", "reward", "rewards", "winner", "wins", "votes", "grade",
                     "quality", "upvotes", "ups", "preferred", "chosen", "overall"})  # fmt: skip
_RANKS = frozenset({"rank", "ranks", "ranking", "position"})
_SELECTORS = frozenset({"winner", "preference", "preferred", "choice", "chosen", "label", "labels", "better",
                        "selected", "verdict", "best", "pick", "safer", "judgement", "judgment"})  # fmt: skip
_ANSWER_TEXTS = ("response", "text", "answer", "content", "completion", "output", "summary", "generation", "message",
                 "value", "body")  # fmt: skip
_ANSWER_KINDS = (Kind.TEXT, Kind.MARKED, Kind.TURNS, Kind.ALTERNATING, Kind.OBJECT)


@dataclass(frozen=True, slots=True)
class _Two:
    """Two columns of answers and the words that tell them apart."""

    left: Column
    right: Column
    sides: tuple[str, str]
    said: tuple[str, str] = ("", "")
    """Expressions of the answers."""


def preference_uses(table: Table, method: str) -> tuple[list[Use], list[str]]:
    """(uses, notes) with prompt, chosen and rejected. For dpo also prompt and completion, where nothing says which of
    two answers is better: its script samples the others then. Raises: Unclear."""
    refuse_single_messages(table)
    refuse_media(table, method)
    named = _named_pair(table)
    if named is not None:
        return _whole(table, *named), []
    if (pair := _opposites(table)) is not None:
        good, bad = pair
        return _whole(table, Use("chosen", good.path, good.evidence()), Use("rejected", bad.path, bad.evidence())), []
    for found in (_two_judged, _listed_judged):
        if (judged := found(table)) is not None:
            return _whole(table, *judged), []
    return _without_pairs(table, method)


def _without_pairs(table: Table, method: str) -> tuple[list[Use], list[str]]:
    scores = [column.path for column in table.columns
              if column.kind in (Kind.TRUTH, Kind.WHOLE, Kind.NUMBER) and _is_judgement(column)]  # fmt: skip
    if scores:
        raise Unclear(
            f"Every row has one answer, and {', '.join(scores[:4])} tells how good it is; {method} needs two answers "
            "to a question. Build pairs of the rows with the same question first (`chosen` the one with the higher "
            "score), or write `method: sft`."
        )
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
    return bool(words & (_SCORES | {"label", "helpfulness", "correctness"})) and not words & {"id", "num", "len"}


def _named_pair(table: Table) -> tuple[Use, Use] | None:
    """What the recipe names; of `by(...)` or `higher(...)` the other side follows from the one."""
    good, bad = named_use(table, "chosen"), named_use(table, "rejected")
    if good is None and bad is None:
        return None
    if good is not None and bad is not None:
        return good, bad
    if good is not None and (turned := _turned(good.expression)) is not None:
        return good, Use("rejected", turned, "the other one")
    pair = _opposites(table)
    if pair is None:
        missing = "rejected" if good is not None else "chosen"
        raise Unclear(
            f"cannot tell which column is the {missing} answer; the columns are {', '.join(table.names)}: name one of "
            f"them in data_{missing}_column."
        )
    return good or Use("chosen", pair[0].path, pair[0].evidence()), bad or Use(
        "rejected", pair[1].path, pair[1].evidence()
    )


def _turned(expression: str) -> str | None:
    """The expression for the other one of two answers; None where there is no telling."""
    for one, other in (("higher(", "lower("), ("lower(", "higher("), ("best(", "worst("), ("lowest(", "highest("),
                       ("pick(", "other(")):  # fmt: skip
        if expression.startswith(one):
            return other + expression.removeprefix(one)
    if expression.startswith("by(") and expression.endswith(")"):
        selector, *cases = divided(expression[3:-1], ",")
        pairs = [case.partition("=")[::2] for case in cases]
        if len({said for _, said in pairs}) == 2:
            first, second = dict.fromkeys(said for _, said in pairs)
            turned = [f"{word}={second if said == first else first}" for word, said in pairs]
            return f"by({', '.join([selector, *turned])})"
    return None


# --- The question -----------------------------------------------------------------------------------------------------


def _whole(table: Table, good: Use, bad: Use, found: Use | None = None) -> list[Use]:
    """With the question: of its own column, or what both answers begin with. Raises: Unclear."""
    asked = named_use(table, "prompt") or found
    shared, rest, worse = (
        f"{name}({one.expression}, {other.expression})"
        for name, one, other in (("shared", good, bad), ("rest", good, bad), ("rest", bad, good))
    )
    nested = any(word in good.expression for word in "(,")
    if not nested and _begins_with_question(table, good.expression, bad.expression):
        evidence = f"both are whole conversations and begin alike in {table.share(shared):.0%} of the rows"
        prompt = asked or Use("prompt", shared, evidence)
        uses = [prompt, Use("chosen", rest, good.evidence), Use("rejected", worse, bad.evidence)]
        return uses if asked is not None else [*uses, *_system_beside(table, shared)]
    read = [leaf.path for leaf in table.leaves if leaf.path in f"{good.expression} {bad.expression}"]
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


def _begins_with_question(table: Table, one: str, other: str) -> bool:
    """Whether two columns hold conversations that begin alike, with a question, and end in different answers."""
    rows = [row for row in table.rows if not is_absent(row.get(one)) and not is_absent(row.get(other))]
    rows = [row for row in rows if row[one] != row[other]]
    shared = [value_of(f"shared({one}, {other})", row) for row in rows]
    rest = [value_of(f"rest({one}, {other})", row) for row in rows]
    good = [bool(begin) and bool(end) and begin[-1]["role"] != "assistant"
            for begin, end in zip(shared, rest, strict=True)]  # fmt: skip
    return bool(rows) and sum(good) >= USUAL * len(good)


def _system_beside(table: Table, prompt: str) -> list[Use]:
    begun = [value_of(prompt, row) for row in table.rows]
    if any(isinstance(one, list) and one and one[0].get("role") == "system" for one in begun):
        return []
    found = [column for rank, column in table.ranked(("system", "system_prompt")) if rank[0] == 0 and column.is_text]
    return [Use("system", found[0].path, found[0].evidence())] if found and found[0].path not in prompt else []


# --- Two answers by name ----------------------------------------------------------------------------------------------


def _opposites(table: Table) -> tuple[Column, Column] | None:
    """Two columns whose names differ in `chosen` and `rejected`, or in other words of that meaning. Raises: Unclear."""
    found: list[tuple[int, int, Column, Column]] = []
    texts = [column for column in table.columns if column.kind in _ANSWER_KINDS and column.filled >= FEWEST]
    for at, (good, bad) in enumerate(OPPOSITES):
        for one in texts:
            stem = without(one.path, good)
            other = [each for each in texts if each is not one and stem is not None and without(each.path, bad) == stem]
            for each in other:
                if each.kind is one.kind and stem is not None and not _is_fact(one, stem):
                    found.append((len(stem), at, one, each))
    if not found:
        good_ones, bad_ones = table.ranked(CHOSEN), table.ranked(REJECTED)
        exact = [one for rank, one in good_ones if rank[0] == 0 and one.kind in _ANSWER_KINDS]
        worse = [one for rank, one in bad_ones if rank[0] == 0 and one.kind in _ANSWER_KINDS]
        return (exact[0], worse[0]) if len(exact) == len(worse) == 1 else None
    found.sort(key=lambda one: one[:2])
    size, at, good_one, bad_one = found[0]
    rivals = [one for one in found[1:] if one[:2] == (size, at)]
    if rivals:
        pairs = [(good_one, bad_one), *((one[2], one[3]) for one in rivals)]
        raise Unclear(
            "There are several pairs of a better and a worse answer.",
            [f"data_chosen_column: {one.path} and data_rejected_column: {other.path}" for one, other in pairs],
        )
    _check_scores(table, good_one, bad_one)
    return good_one, bad_one


def _is_fact(column: Column, stem: tuple[str, ...]) -> bool:
    """`chosen_model`, `chosen-rating`: about the answer."""
    return is_about("_".join(word for word in stem if word) or "answer") or (
        column.kind is Kind.TEXT and column.coded >= USUAL and bool([word for word in stem if word])
    )


def _check_scores(table: Table, good: Column, bad: Column) -> None:
    """Where the data has scores of both, the better answer must have the higher one. Raises: Unclear."""
    for one in table.columns:
        for chosen, rejected in OPPOSITES[:6]:
            stem = without(one.path, chosen)
            if stem is None or one.kind not in NUMBERS or not set(stem) & (_SCORES | {"margin"}) - {"chosen"}:
                continue
            other = next((each for each in table.columns if without(each.path, rejected) == stem), None)
            if other is None:
                continue
            pairs = [(number_of(row.get(one.path)), number_of(row.get(other.path))) for row in table.rows]
            told = [(mine, yours) for mine, yours in pairs if mine is not None and yours is not None and mine != yours]
            if told and sum(mine < yours for mine, yours in told) > 0.5 * len(told):
                raise Unclear(
                    f"{good.path} has the lower score in most rows ({one.path} against {other.path}): which answer is "
                    "the better one?",
                    [f"data_chosen_column: {a.path} and data_rejected_column: {b.path}"
                     for a, b in ((good, bad), (bad, good))],
                )  # fmt: skip


# --- Two answers and a judgement --------------------------------------------------------------------------------------


def _two_judged(table: Table) -> tuple[Use, ...] | None:
    """Answers like response_a and response_b, with a score of each or a column that names one. Raises: Unclear."""
    two = _siblings(table)
    if two is None:
        return None
    one, other, asked = _apart(table, two)
    judged = _judged_two(table, replace(two, said=(one, other)))
    return judged if asked is None else (*judged, asked)


def _judged_two(table: Table, two: _Two) -> tuple[Use, Use]:
    named = [one for column in table.columns if (one := _selection(table, two, column)) is not None]
    scored = _scored(table, two)
    if scored is not None:
        return scored
    clear = [one for one in named if isinstance(one, tuple)]
    if not clear:
        doubts = [one for one in named if isinstance(one, Unclear)]
        raise doubts[0] if doubts else Unclear(
            f"{two.left.path} and {two.right.path} are two answers, and no column says which is better.",
            [f"data_chosen_column: {one.path} and data_rejected_column: {other.path}"
             for one, other in ((two.left, two.right), (two.right, two.left))],
        )  # fmt: skip
    first = clear[0]
    for another in clear[1:]:
        if not _agree(table, first[0].expression, another[0].expression):
            raise Unclear(
                "Several columns say which answer is better, and they differ: by which one?",
                [f"data_chosen_column: {one[0].expression}" for one in clear],
            )
    return first


def _apart(table: Table, two: _Two) -> tuple[str, str, Use | None]:
    """(expression of one answer, of the other, the question where both are whole conversations that begin alike)."""
    one, other = two.left, two.right
    shared = f"shared({one.path}, {other.path})"
    if one.kind in (Kind.TURNS, Kind.MARKED) and _begins_with_question(table, one.path, other.path):
        evidence = f"{one.path} and {other.path} are whole conversations and begin alike"
        return f"rest({one.path}, {other.path})", f"rest({other.path}, {one.path})", Use("prompt", shared, evidence)
    return said_by(one) or one.path, said_by(other) or other.path, None


def _agree(table: Table, one: str, other: str) -> bool:
    pairs = [(value_of(one, row), value_of(other, row)) for row in table.rows]
    both = [(mine, yours) for mine, yours in pairs if mine is not None and yours is not None]
    same = [bool(mine == yours) for mine, yours in both]
    return sum(same) >= USUAL * len(same)


def _siblings(table: Table) -> _Two | None:
    texts = [column for column in table.columns if column.kind in _ANSWER_KINDS[:4] and column.filled >= FEWEST
             and not is_about(column.path) and not (column.kind is Kind.TEXT and column.coded >= USUAL)]  # fmt: skip
    found = []
    for sides in SIDES:
        for one in texts:
            stem = without(one.path, sides[0])
            for other in texts:
                if stem is not None and any(stem) and without(other.path, sides[1]) == stem and one.kind is other.kind:
                    found.append(_Two(one, other, sides))
    found.sort(key=lambda two: -two.left.characters)
    return found[0] if found else None


def _scored(table: Table, two: _Two) -> tuple[Use, Use] | None:
    """By scores, or by a mark, of each answer."""
    for one in table.columns:
        stem = without(one.path, two.sides[0])
        if stem is None or one.kind not in (*NUMBERS, Kind.TEXT) or not set(stem) & _SCORES:
            continue
        if one.kind is Kind.TEXT and one.numeric < USUAL:
            continue
        other = next((each for each in table.columns if without(each.path, two.sides[1]) == stem), None)
        if other is not None:
            pair = f"({two.said[0]}, {one.path}, {two.said[1]}, {other.path})"
            evidence = f"by {one.path} and {other.path}: {one.evidence()}"
            return Use("chosen", f"higher{pair}", evidence), Use("rejected", f"lower{pair}", evidence)
    return None


def _selection(table: Table, two: _Two, column: Column) -> tuple[Use, Use] | Unclear | None:
    """By a column that names one of the answers; Unclear where its values leave open which."""
    values = list(Counter(str(row[column.path]) for row in table.rows if row.get(column.path) is not None))
    plain = column.kind in (*NUMBERS, Kind.TEXT) and len(values) <= MOST_VALUES
    if not set(words_of(column.path)) & _SELECTORS or not plain:
        return None
    sides = {value: _side(value, two) for value in values}
    left = [value for value, side in sides.items() if side == 0]
    right = [value for value, side in sides.items() if side == 1]
    counted = all(number_of(value) is not None for value in values)
    if left and right and not (counted and set(values) - set(two.sides)):
        chosen = [f"{value}={two.said[0]}" for value in left] + [f"{value}={two.said[1]}" for value in right]
        said = f"by({', '.join([column.path, *chosen])})"
        turned = _turned(said)
        assert turned is not None
        return Use("chosen", said, column.evidence()), Use("rejected", turned, column.evidence())
    numbers = {number for value in values if (number := number_of(value)) is not None}
    if len(numbers) < 2 and column.kind is not Kind.TRUTH:
        return None
    return Unclear(
        f"{column.path} ({column.evidence()}) says which of {two.left.path} and {two.right.path} is better, and not in "
        "words.", _readings(column, two, numbers, values),
    )  # fmt: skip


def _readings(column: Column, two: _Two, numbers: set[float], values: Sequence[str]) -> list[str]:
    one, other = two.said
    if min(numbers, default=0) < 0:
        return [f"data_chosen_column: higher({a}, 0, {b}, {column.path})" for a, b in ((one, other), (other, one))]
    low, high = sorted(values)[:2] if len(values) > 1 else ("0", "1")
    return [f"data_chosen_column: by({column.path}, {high}={a}, {low}={b})" for a, b in ((one, other), (other, one))]


def _side(value: str, two: _Two) -> int | None:
    """Which answer a value names: `model_a`, `A`, `response_1`, or the column itself; numbers only where the columns
    are numbered alike."""
    if value in (two.left.path, two.right.path):
        return int(value == two.right.path)
    words = words_of(value)
    named = [at for at, side in enumerate(two.sides) if side in words]
    return named[0] if len(named) == 1 and not {"tie", "both", "equal"} & set(words) else None


# --- Lists of answers -------------------------------------------------------------------------------------------------


def _listed_judged(table: Table) -> tuple[Use, Use] | None:
    """A list of answers with a score or a rank of each, or a column with the number of the better one. Raises:
    Unclear."""
    for column in table.columns:
        if column.kind is Kind.RECORDS and column.length >= 2 and (found := _records_judged(table, column)) is not None:
            return found
    for column in table.columns:
        if column.kind is not Kind.ALTERNATING or column.length < 2 or column.words < 2:
            continue
        for scores in table.columns:
            words = set(words_of(scores.path))
            if scores.kind is Kind.NUMBERS and scores.length == column.length and words & (_SCORES | _RANKS):
                return _ordered(column.path, scores.path, bool(words & _RANKS), scores)
        if (found := _indexed(table, column.path, column)) is not None:
            return found
    return None


def _records_judged(table: Table, column: Column) -> tuple[Use, Use] | None:
    inner = {one.path.rpartition(".")[2]: one for one in column.fields}
    text = next((name for name in _ANSWER_TEXTS if name in inner and inner[name].kind in _ANSWER_KINDS[:3]), None)
    if text is None:
        return None
    numbers = [one for one in column.fields if one.kind in NUMBERS or (one.is_text and one.numeric >= USUAL)]
    ranks = [one for one in numbers if _RANKS & set(words_of(one.path))]
    scores = [one for one in numbers if _SCORES & set(words_of(one.path))]
    overall = [one for one in scores if "overall" in words_of(one.path)] or [
        one for one in scores if len(words_of(one.path)) == 1
    ]
    told = overall if len(overall) == 1 else scores if len(scores) == 1 else []
    if told or (len(ranks) == 1 and not scores):
        by = told[0] if told else ranks[0]
        return _ordered(f"{column.path}.{text}", by.path, not told, by)
    if scores:
        raise Unclear(
            f"{column.path} has several scores of each answer: {', '.join(one.path for one in scores)}. By which one?",
            [f"data_chosen_column: best({column.path}.{text}, {one.path})" for one in scores],
        )
    return _indexed(table, f"{column.path}.{text}", column)


def _ordered(texts: str, numbers: str, ranks: bool, column: Column) -> tuple[Use, Use]:
    good, bad = ("lowest", "highest") if ranks else ("best", "worst")
    evidence = f"by {numbers}: {column.evidence()}"
    return Use("chosen", f"{good}({texts}, {numbers})", evidence), Use(
        "rejected", f"{bad}({texts}, {numbers})", evidence
    )


def _indexed(table: Table, texts: str, answers: Column) -> tuple[Use, Use] | None:
    for column in table.columns:
        if (
            answers.length == 2
            and column.kind is Kind.WHOLE
            and set(column.values) <= {"0", "1"}
            and (set(words_of(column.path)) & _SELECTORS)
        ):
            evidence = f"{column.path} counts from 0: {column.evidence()}"
            return Use("chosen", f"pick({column.path}, {texts})", evidence), Use(
                "rejected", f"other({column.path}, {texts})", evidence
            )
    return None
