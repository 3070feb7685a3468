"""What an evaluation's responses and the training rows themselves show: endings, format, repetition, pairing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from bot.diagnosis.observations import Row
from bot.domain.evaluation import Evaluation

# Looking at more than this many pairs changes no share by more than two points and only costs time.
PAIRS = 300


@dataclass(frozen=True, slots=True)
class Answers:
    """Shares over an evaluation's samples. Those that need texts are None when the samples carry none."""

    n: int
    cut: float
    """Ended by the token cap instead of by the model."""
    run_on: float | None = None
    """Begin with the reference and then go on: the answer was right, the end was missing."""
    prefix: float | None = None
    """Are a proper, non-empty beginning of the reference."""
    looping: float | None = None
    """End in a repetition of themselves."""
    empty: float | None = None
    echo: float | None = None
    """Repeat the prompt instead of answering."""
    distinct: float | None = None
    """Distinct responses per sample."""
    response_length: float | None = None
    """Median, in characters."""
    reference_length: float | None = None


def answers_of(evaluation: Evaluation) -> Answers | None:
    """The shares, None without samples."""
    samples = evaluation.samples
    if not samples:
        return None
    n = len(samples)
    cut = sum(sample.finish == "length" for sample in samples) / n
    texts = [
        (s.prompt or "", s.response.strip(), s.reference.strip())
        for s in samples
        if s.response is not None and s.reference is not None
    ]
    if len(texts) < n:
        return Answers(n, cut)
    return Answers(
        n=n,
        cut=cut,
        run_on=_share([bool(ref) and r.startswith(ref) and len(r) > len(ref) for _, r, ref in texts]),
        prefix=_share([0 < len(r) < len(ref) and ref.startswith(r) for _, r, ref in texts]),
        looping=_share([loops(r) for _, r, _ in texts]),
        empty=_share([not r for _, r, _ in texts]),
        echo=_share([bool(r) and r != ref and r == p.strip() for p, r, ref in texts]),
        distinct=len({r for _, r, _ in texts}) / n,
        response_length=median(len(r) for _, r, _ in texts),
        reference_length=median(len(ref) for _, _, ref in texts),
    )


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)


def loops(text: str) -> bool:
    """True when the text ends in at least four copies of the same piece, together twelve characters or more."""
    for period in range(1, min(64, len(text) // 4) + 1):
        piece = text[-period:]
        copies = 1
        while text[: len(text) - copies * period].endswith(piece):
            copies += 1
        if copies >= 4 and copies * period >= 12:
            return True
    return False


@dataclass(frozen=True, slots=True)
class Pairing:
    """How much more a completion shares with its own prompt than with other rows' prompts."""

    excess: float
    """Mean difference of the shared share of characters, in [-1, 1]; 0 when pairs are random."""
    z: float
    n: int


def pairing_of(pairs: Sequence[tuple[str, str]]) -> Pairing | None:
    """The pairing of (prompt, completion) texts, None with fewer than 20 usable ones.

    Shuffled answers leave every text intact and break only this. It sees nothing in tasks whose answers share no
    characters with their questions (a class name, a count): there the excess is 0 for correct data too, and callers
    must compare with pairs that are known to be right.
    """
    usable = [(p, c) for p, c in pairs if p.strip() and c.strip()][:PAIRS]
    n = len(usable)
    if n < 20:
        return None
    prompts = [Counter(p.lower()) for p, _ in usable]
    shared = [c.lower() for _, c in usable]
    # Far apart: neighbours may be alike in a sorted file, and an off-by-one shift pairs a row with its neighbour.
    offsets = (n // 3, n // 2 + 1, 2 * n // 3 + 1)
    differences = []
    for i, completion in enumerate(shared):
        others = [_shared_share(completion, prompts[(i + k) % n]) for k in offsets]
        differences.append(_shared_share(completion, prompts[i]) - fmean(others))
    mean = fmean(differences)
    error = math.sqrt(max(1e-12, fmean((d - mean) ** 2 for d in differences)) / n)
    return Pairing(mean, mean / error, n)


def _shared_share(completion: str, prompt: Counter[str]) -> float:
    """Share of the completion's characters, with their counts, that the prompt holds."""
    counts = Counter(completion[:400])
    total = sum(counts.values())
    return sum(min(k, prompt[char]) for char, k in counts.items()) / total


def text_distance(left: Sequence[str], right: Sequence[str]) -> float:
    """How different two sets of texts look, in [0, 1]: characters used, and length. 0 is alike."""
    if not left or not right:
        return 0.0
    a, b = _characters(left), _characters(right)
    variation = sum(abs(a.get(char, 0.0) - b.get(char, 0.0)) for char in a.keys() | b.keys()) / 2
    ratio = (1 + median(map(len, left))) / (1 + median(map(len, right)))
    return max(variation, 1 - math.exp(-abs(math.log(ratio))))


def _characters(texts: Sequence[str]) -> dict[str, float]:
    counts: Counter[str] = Counter()
    for text in texts[:PAIRS]:
        counts.update(text[:400])
    total = sum(counts.values()) or 1
    return {char: count / total for char, count in counts.items()}


@dataclass(frozen=True, slots=True)
class RowFacts:
    """What the rows of train.jsonl hold, counted over those that were read."""

    rows: int
    duplicates: int
    """Rows equal to an earlier one."""
    empty_completions: int
    echoes: int
    """Rows whose completion is the prompt."""
    conflicting: int
    """Rows whose prompt also occurs with another completion."""
    without_text: int
    """Rows in no format that a trainer knows."""


def row_facts(rows: Sequence[Row]) -> RowFacts:
    pairs = [(row.prompt, row.completion) for row in rows if row.completion is not None]
    completions_of: dict[str, set[str]] = {}
    for prompt, completion in pairs:
        if prompt is not None:
            completions_of.setdefault(prompt, set()).add(completion or "")
    return RowFacts(
        rows=len(rows),
        duplicates=len(pairs) - len(set(pairs)),
        empty_completions=sum(not (completion or "").strip() for _, completion in pairs),
        echoes=sum(bool(p) and p == c for p, c in pairs),
        conflicting=sum(p is not None and len(completions_of[p]) > 1 for p, _ in pairs),
        without_text=len(rows) - len(pairs),
    )
