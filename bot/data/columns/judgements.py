"""Several answers, and what says which is better: a score or a rank of each, or a column that names one.

Which way a number points is never assumed: its name has to say it (a score or a rank), and its values must not gainsay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from .expressions import divided, is_absent, number_of, value_of
from .facts import MOST_VALUES, USUAL, Column, Kind
from .mapping import FEWEST, NUMBERS, Table, Unclear, Use, said_by
from .names import ANSWERS, SIDES, is_about, without, words_of

SCORES = frozenset({"score", "scores", "rating", "ratings", "reward", "rewards", "winner", "wins", "votes", "grade",
                    "grades", "quality", "upvotes", "ups", "likes", "preferred", "chosen", "overall"})  # fmt: skip
"""More of it is better."""
RANKS = frozenset({"rank", "ranks"})
"""Less of it is better."""
_ORDERS = frozenset({"ranking", "rankings", "order", "position", "positions", "place"})
"""Ranks of the answers as they stand, or the answers' numbers from the best down."""
_BAD = frozenset({"toxicity", "toxic", "harm", "harmfulness", "harmful", "error", "errors", "loss", "perplexity",
                  "cost", "penalty", "risk", "violation", "violations", "bias", "hallucination", "unsafe", "negative",
                  "distance", "downvotes", "severity", "rejected", "worse"})  # fmt: skip
_SELECTORS = frozenset({"winner", "preference", "preferred", "choice", "chosen", "label", "labels", "better",
                        "selected", "verdict", "best", "pick", "safer", "judgement", "judgment"})  # fmt: skip
_WORST = frozenset({"loser", "worse", "worst", "rejected"})
_DENIED = frozenset({"not", "worse", "worst", "loses", "lost", "loser", "bad", "rejected", "neither", "tie", "both",
                     "equal"})  # fmt: skip
_FURTHER = ("0", "1", "2", "3", "4", "a", "b", "c", "d", "third", "three")
ANSWER_TEXTS = ("response", "text", "answer", "content", "completion", "output", "summary", "generation", "message",
                "value", "body")  # fmt: skip
ANSWER_KINDS = (Kind.TEXT, Kind.MARKED, Kind.TURNS, Kind.ALTERNATING, Kind.OBJECT)


@dataclass(frozen=True, slots=True)
class Judged:
    """The better and the worse of several answers."""

    good: Use
    bad: Use
    asked: Use | None = None
    """What is asked, where both are whole conversations that begin alike."""


@dataclass(frozen=True, slots=True)
class Two:
    """Two columns of answers and the words that tell them apart."""

    left: Column
    right: Column
    sides: tuple[str, str]
    said: tuple[str, str] = ("", "")
    """Expressions of the answers."""


def turned(expression: str) -> str | None:
    """The expression for the other one of two answers; None where there is no telling."""
    for one, other in (("higher(", "lower("), ("lower(", "higher("), ("best(", "worst("), ("worst(", "best("),
                       ("lowest(", "highest("), ("pick(", "other("), ("pick1(", "other1(")):  # fmt: skip
        if expression.startswith(one):
            return other + expression.removeprefix(one)
    if expression.startswith("by(") and expression.endswith(")"):
        selector, *cases = divided(expression[3:-1], ",")
        pairs = [case.partition("=")[::2] for case in cases]
        if len({said for _, said in pairs}) == 2:
            first, second = dict.fromkeys(said for _, said in pairs)
            swapped = [f"{word}={second if said == first else first}" for word, said in pairs]
            return f"by({', '.join([selector, *swapped])})"
    return None


def begins_with_question(table: Table, one: str, other: str) -> bool:
    """Whether two columns hold conversations that begin alike, with a question, and end in different answers."""
    rows = [row for row in table.rows if not is_absent(row.get(one)) and not is_absent(row.get(other))]
    rows = [row for row in rows if row[one] != row[other]]
    shared = [value_of(f"shared({one}, {other})", row) for row in rows]
    rest = [value_of(f"rest({one}, {other})", row) for row in rows]
    good = [bool(begin) and bool(end) and begin[-1]["role"] != "assistant"
            for begin, end in zip(shared, rest, strict=True)]  # fmt: skip
    return bool(rows) and sum(good) >= USUAL * len(good)


# --- Which way a number points ----------------------------------------------------------------------------------------


def points(name: str) -> int | None:
    """1 where more is better, by the name; -1 where less is; 0 where the name leaves it open; None for no judgement."""
    words = set(words_of(name))
    if words & (SCORES | RANKS | _ORDERS) and words & _BAD - {"rejected"}:
        return 0
    found = {sign for names, sign in ((SCORES, 1), (RANKS, -1), (_ORDERS, 0)) if words & names}
    return found.pop() if len(found) == 1 else 0 if found else None


def _gainsaid(table: Table, sign: int, expressions: Sequence[str]) -> bool:
    """Whether the values leave the meaning of the name open: ranks that are none, scores that only number."""
    groups = []
    for row in table.rows:
        values = [value_of(one, row) for one in expressions]
        flat = values[0] if len(values) == 1 and isinstance(values[0], list) else values
        numbers = [number for value in flat if (number := number_of(value)) is not None]
        if len(numbers) == len(flat) >= 2:
            groups.append(numbers)
    if sign < 0:
        return any(not number.is_integer() or not 0 <= number <= len(one) for one in groups for number in one)
    counted = [sorted(one) == [float(at + 1) for at in range(len(one))] for one in groups]
    return len(counted) >= 2 and all(counted)


def _ways(good: str, evidence: str) -> tuple[Use, Use]:
    other = turned(good)
    assert other is not None
    return Use("chosen", good, evidence), Use("rejected", other, evidence)


def _pointed(table: Table, texts: str, numbers: Column) -> Judged:
    """Of a list of answers the better one, by a list of numbers. Raises: Unclear where more could be worse."""
    sign = points(numbers.path)
    pair = f"({texts}, {numbers.path})"
    if not sign or _gainsaid(table, sign, [numbers.path]):
        lines = [f"data_chosen_column: best{pair}", f"data_chosen_column: lowest{pair}"]
        if set(words_of(numbers.path)) & _ORDERS:
            lines.append(f"data_chosen_column: pick({numbers.path}[0], {texts}) and data_rejected_column: "
                         f"pick({numbers.path}[-1], {texts})")  # fmt: skip
        raise Unclear(
            f"{numbers.path} ({numbers.evidence()}) orders {texts}, and neither its name nor its values say whether "
            "more of it is better.", lines,
        )  # fmt: skip
    return Judged(*_ways(f"{'best' if sign > 0 else 'lowest'}{pair}", f"by {numbers.path}: {numbers.evidence()}"))


# --- Two answers ------------------------------------------------------------------------------------------------------


def two_judged(table: Table, named: frozenset[str] | None = None, *, whole: bool = False) -> Judged | None:
    """Answers like response_a and response_b, with a score of each or a column that names one; of those alone whose
    name has a word of `named`, if given; conversations `whole`, or without what both begin with. Raises: Unclear."""
    two = siblings(table, named, (Kind.TURNS,) if whole else ANSWER_KINDS[:4]) or _of_two_models(table)
    if two is None:
        return None
    one, other, asked = (two.left.path, two.right.path, None) if whole else _apart(table, two)
    two = replace(two, said=(one, other))
    scored = _scored(table, two)
    selected = [found for column in table.columns if (found := _selection(table, two, column)) is not None]
    clear = [found for found in selected if isinstance(found, tuple)]
    judges = [*([scored] if scored is not None else []), *clear]
    if not judges:
        doubts = [found for found in selected if isinstance(found, Unclear)]
        raise doubts[0] if doubts else Unclear(
            f"{two.left.path} and {two.right.path} are two answers, and no column says which is better.",
            [f"data_chosen_column: {a.path} and data_rejected_column: {b.path}"
             for a, b in ((two.left, two.right), (two.right, two.left))],
        )  # fmt: skip
    for another in judges[1:]:
        if not _agree(table, judges[0][0].expression, another[0].expression):
            raise Unclear(
                "Several columns say which answer is better, and they differ: by which one?",
                [f"data_chosen_column: {found[0].expression}" for found in judges],
            )
    return Judged(*judges[0], asked)


def _apart(table: Table, two: Two) -> tuple[str, str, Use | None]:
    """(expression of one answer, of the other, the question where both are whole conversations that begin alike)."""
    one, other = two.left, two.right
    shared = f"shared({one.path}, {other.path})"
    if one.kind in (Kind.TURNS, Kind.MARKED) and begins_with_question(table, one.path, other.path):
        evidence = f"{one.path} and {other.path} are whole conversations and begin alike"
        return f"rest({one.path}, {other.path})", f"rest({other.path}, {one.path})", Use("prompt", shared, evidence)
    return said_by(one) or one.path, said_by(other) or other.path, None


def _agree(table: Table, one: str, other: str) -> bool:
    pairs = [(value_of(one, row), value_of(other, row)) for row in table.rows]
    both = [(mine, yours) for mine, yours in pairs if mine is not None and yours is not None]
    same = [bool(mine == yours) for mine, yours in both]
    return sum(same) >= USUAL * len(same)


def siblings(table: Table, named: frozenset[str] | None, kinds: Sequence[Kind] = ANSWER_KINDS[:4]) -> Two | None:
    """The two longest columns whose names differ in a side: response_a and response_b, answer_1 and answer_2. Raises:
    Unclear where there are more of that name."""
    texts = _answers(table, named, kinds)
    found = []
    for sides in SIDES:
        for one in texts:
            stem = without(one.path, sides[0])
            for other in texts:
                if stem is not None and any(stem) and without(other.path, sides[1]) == stem and one.kind is other.kind:
                    found.append((stem, Two(one, other, sides)))
    found.sort(key=lambda one: -one[1].left.characters)
    if not found:
        return None
    stem, two = found[0]
    more = [one for one in texts if any(without(one.path, side) == stem for side in _FURTHER)]
    more = [one for one in more if one not in (two.left, two.right)]
    if more:
        every = [two.left, two.right, *more]
        raise Unclear(
            f"{', '.join(one.path for one in every)} are several answers: which is better, and which worse?",
            [f"data_chosen_column: {one.path} and data_rejected_column: {other.path}"
             for one, other in zip(every, [*every[1:], every[0]], strict=True)],
        )  # fmt: skip
    return two


def _answers(table: Table, named: frozenset[str] | None, kinds: Sequence[Kind]) -> list[Column]:
    return [column for column in table.columns if column.kind in kinds and column.filled >= FEWEST
            and not is_about(column.path) and (named is None or named & set(words_of(column.path)))]  # fmt: skip


def _of_two_models(table: Table) -> Two | None:
    """Two answers whose names begin differently, of which each has a score: gpt_answer with gpt_score."""
    for one, other in combinations(_answers(table, frozenset(ANSWERS), ANSWER_KINDS[:4]), 2):
        mine, yours = words_of(one.path), words_of(other.path)
        same = 0
        while same < min(len(mine), len(yours)) and mine[-1 - same] == yours[-1 - same]:
            same += 1
        sides = " ".join(mine[: len(mine) - same]), " ".join(yours[: len(yours) - same])
        if same and all(sides) and any(points(each.path) is not None and each.kind in NUMBERS
                                       and without(each.path, sides[0]) for each in table.columns):  # fmt: skip
            return Two(one, other, sides)
    return None


def _scored(table: Table, two: Two) -> tuple[Use, Use] | None:
    """By scores, ranks, or by a mark, of each answer. Raises: Unclear."""
    for one in table.columns:
        stem = without(one.path, two.sides[0])
        sign = points(one.path) if stem is not None else None
        if sign is None or not (one.kind in NUMBERS or (one.kind is Kind.TEXT and one.numeric >= USUAL)):
            continue
        other = next((each for each in table.columns if without(each.path, two.sides[1]) == stem), None)
        if other is None:
            continue
        pair = f"({two.said[0]}, {one.path}, {two.said[1]}, {other.path})"
        if not sign or _gainsaid(table, sign, [one.path, other.path]):
            raise Unclear(
                f"{one.path} and {other.path} tell {two.left.path} from {two.right.path}, and neither their names nor "
                "their values say whether more is better.",
                [f"data_chosen_column: {way}{pair}" for way in ("higher", "lower")],
            )
        return _ways(f"{'higher' if sign > 0 else 'lower'}{pair}", f"by {one.path} and {other.path}: {one.evidence()}")
    return None


def _selection(table: Table, two: Two, column: Column) -> tuple[Use, Use] | Unclear | None:
    """By a column that names one of the answers; Unclear where its values leave open which."""
    values = list(Counter(str(row[column.path]) for row in table.rows if row.get(column.path) is not None))
    plain = column.kind in (*NUMBERS, Kind.TEXT) and len(values) <= MOST_VALUES
    words = set(words_of(column.path))
    if not words & (_SELECTORS | _WORST) or not plain or column in (two.left, two.right):
        return None
    sides = {value: _side(value, two) for value in values}
    left = [value for value, side in sides.items() if side == 0]
    right = [value for value, side in sides.items() if side == 1]
    counted = all(number_of(value) is not None for value in values)
    if left and right and not (counted and set(values) - set(two.sides)):
        cases = [f"{value}={two.said[0]}" for value in left] + [f"{value}={two.said[1]}" for value in right]
        one, other = _ways(f"by({', '.join([column.path, *cases])})", column.evidence())
        if words & _WORST and not words & _SELECTORS:
            return replace(other, role="chosen"), replace(one, role="rejected")
        return one, other
    numbers = {number for value in values if (number := number_of(value)) is not None}
    if len(numbers) < 2 and column.kind is not Kind.TRUTH:
        return None
    return Unclear(
        f"{column.path} ({column.evidence()}) says which of {two.left.path} and {two.right.path} is better, and not in "
        "words.", _readings(column, two, numbers, values),
    )  # fmt: skip


def _readings(column: Column, two: Two, numbers: set[float], values: Sequence[str]) -> list[str]:
    one, other = two.said
    if min(numbers, default=0) < 0:
        return [f"data_chosen_column: higher({a}, 0, {b}, {column.path})" for a, b in ((one, other), (other, one))]
    low, high = sorted(values)[:2] if len(values) > 1 else ("0", "1")
    if column.kind is Kind.TRUTH:
        low, high = "false", "true"
    return [f"data_chosen_column: by({column.path}, {high}={a}, {low}={b})" for a, b in ((one, other), (other, one))]


def _side(value: str, two: Two) -> int | None:
    """Which answer a value names: `model_a`, `A`, `response_1`, or the column itself; numbers only where the columns
    are numbered alike."""
    if value in (two.left.path, two.right.path):
        return int(value == two.right.path)
    words = words_of(value)
    named = [at for at, side in enumerate(two.sides) if side in words]
    return named[0] if len(named) == 1 and len(words) <= 3 and not _DENIED & set(words) else None


# --- Lists of answers -------------------------------------------------------------------------------------------------


def listed_judged(table: Table) -> Judged | None:
    """A list of answers with a score or a rank of each, or a column with the number of the better one. Raises:
    Unclear."""
    for column in table.columns:
        if (found := _listed(table, column)) is not None:
            return found
    return None


def _listed(table: Table, column: Column) -> Judged | None:
    """Of one column: a list of objects, lists in an object, or a list of texts beside a list of numbers."""
    if column.kind is Kind.RECORDS and column.length >= 2:
        text = _text_field(column, ANSWER_KINDS[:3])
        numbers = [one for one in column.fields if one.kind in NUMBERS or (one.is_text and one.numeric >= USUAL)]
        return _by_numbers(table, text.path, column, numbers) if text is not None else None
    if column.kind is Kind.OBJECT:
        inner, beside = _text_field(column, (Kind.ALTERNATING,)), list(column.fields)
    else:
        inner, beside = column if column.kind is Kind.ALTERNATING and column.words >= 1 else None, table.columns
    if inner is None or inner.length < 2:
        return None
    numbers = [one for one in beside if one.kind is Kind.NUMBERS and one.length == inner.length]
    return _by_numbers(table, inner.path, inner, numbers)


def _text_field(column: Column, kinds: Sequence[Kind]) -> Column | None:
    inner = {one.path.rpartition(".")[2]: one for one in column.fields if one.kind in kinds}
    return next((inner[name] for name in ANSWER_TEXTS if name in inner), None)


def _by_numbers(table: Table, texts: str, answers: Column, numbers: Sequence[Column]) -> Judged | None:
    """By the one list of scores or of ranks; by the overall one of several. Raises: Unclear."""
    telling = [one for one in numbers if points(one.path) is not None]
    scores = [one for one in telling if (points(one.path) or 0) > 0]
    plain = [one for one in scores if "overall" in words_of(one.path)] or [
        one for one in scores if len(words_of(one.path)) == 1
    ]
    told = plain if len(plain) == 1 else scores or telling
    if len(told) == 1:
        return _pointed(table, texts, told[0])
    if told:
        raise Unclear(
            f"{texts} has several numbers for each answer: {', '.join(one.path for one in told)}. By which one?",
            [f"data_chosen_column: {'best' if points(one.path) else 'lowest'}({texts}, {one.path})" for one in told],
        )
    return _indexed(table, texts, answers)


def _indexed(table: Table, texts: str, answers: Column) -> Judged | None:
    """By a column with the number of the better one. Raises: Unclear where it may count from 0 or from 1."""
    for column in table.columns:
        values = {number for row in table.rows if (number := number_of(row.get(column.path))) is not None}
        chooses = column.kind is Kind.WHOLE and bool(set(words_of(column.path)) & _SELECTORS)
        if not chooses or not values or not all(0 <= value <= answers.length for value in values):
            continue
        certain = not set(words_of(column.path)) & {"label", "labels"}  # a class of the row, as often
        if certain and {0, answers.length} & values in ({0}, {answers.length}):
            base = "" if 0 in values else "1"
            evidence = f"{column.path} counts from {base or 0}: {column.evidence()}"
            return Judged(*_ways(f"pick{base}({column.path}, {texts})", evidence))
        raise Unclear(
            f"{column.path} ({column.evidence()}) may number the better one of {texts}, and the rows do not show "
            "whether from 0 or from 1.",
            [f"data_chosen_column: {name}({column.path}, {texts})" for name in ("pick", "pick1")],
        )
    return None
