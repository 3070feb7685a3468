"""Rules about what the rows are as a whole: one class almost alone, another language, the test's own items."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import finite, shown
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, percent, seen
from bot.diagnosis.rules.pairs import known_pairs, training_pairs
from bot.domain.diagnosis import Severity, Symptom
from bot.domain.languages import shares_of

# SageMaker Debugger's ClassImbalance: the commonest class ten times the rarest.
RATIO = 10.0
ROWS = 50
MOST_KINDS = 20
# Of the rows, a language that the goal does not ask for.†
WRONG_LANGUAGE = 0.5
# open-r1's decontamination: 8 words in a row. Shorter prompts count when they are equal as a whole.
WORDS_IN_A_ROW = 8
# Two equal prompts among hundreds happen by chance where prompts are short.†
OVERLAP = 0.02
FRESH_GAP = 0.1
_SOURCE_KEYS = ("data_sources", "train_file", "dataset_name")


def imbalance(observations: Observations) -> Answer:
    labels = observations.part("labels")
    counts = {str(k): n for k, v in labels.items() if v is not None and (n := finite(v)) is not None and n >= 0}
    what = "label"
    wanted: Mapping[str, float] = {}
    if not counts:
        found = _kinds(observations)
        if found is None:
            return None
        what, counts, wanted = found
    total = sum(counts.values())
    if total < ROWS or len(counts) < 2:
        return None
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    share = counts[most] / total
    ratio = counts[most] / max(1.0, counts[least])
    expected = wanted.get(most, 1 / len(counts))
    lopsided = ratio > RATIO and share > 0.5
    # As many as the benchmark has of it is no imbalance, whatever the ratio.
    if not lopsided or share < expected + 0.25:
        return RuledOut(Symptom.IMBALANCE, f"{what} {most!r} is {percent(share)} of {total:.0f} rows")
    return finding(
        observations,
        Symptom.IMBALANCE,
        Basis.DATA,
        severity=Severity.HARMFUL if share >= 0.8 else Severity.ADVICE,
        confidence=0.9 if share >= 0.9 else 0.7,
        evidence=[
            seen(f"labels.{most}", None, counts[most]),
            seen(f"labels.{least}", None, counts[least]),
            seen("rows", None, total),
        ],
        cause=f"Rows with the {what} {most!r} are {percent(share)} of {total:.0f} training rows, {least!r} "
        f"{percent(counts[least] / total)}: always giving the former is nearly right there.",
        key=observations.first_key(*_SOURCE_KEYS),
        harm=share,
        runner_up="label_noise: a column that holds the same value for most rows",
        refuted_by="the same score on the rare kinds after training on equal shares",
    )


def _kinds(observations: Observations) -> tuple[str, dict[str, float], dict[str, float]] | None:
    """The answers where they are a handful, else the tasks that prompts begin with; and the benchmark's shares."""
    train, known = training_pairs(observations), known_pairs(observations)
    if len(train) < ROWS:
        return None
    for what, part in (("answer", 1), ("first word", 0)):
        mine, theirs = (_counts(pairs, part) for pairs in (train, known))
        if mine is not None and len(mine) >= 2:
            total = sum(theirs.values()) if theirs else 0
            wanted = {kind: count / total for kind, count in theirs.items()} if theirs and total >= 20 else {}
            if part == 0 and not wanted:
                continue  # nothing says that the shares should be others
            missing = {kind: 0.0 for kind, share in wanted.items() if share >= 0.05 and kind not in mine}
            return what, {**missing, **mine}, wanted
    return None


def _counts(pairs: Sequence[tuple[str, str]], part: int) -> dict[str, float] | None:
    """Rows of each kind, None when there are too many kinds to be classes."""
    texts = [pair[part].strip() for pair in pairs if pair[part].strip()]
    kinds = Counter(text if part == 1 else text.split()[0].lower() for text in texts)
    if not kinds or len(kinds) > MOST_KINDS or len(texts) < 5 * len(kinds):
        return None
    return {kind[:40]: float(count) for kind, count in kinds.most_common()}


def language_mismatch(observations: Observations) -> Answer:
    wanted = str(observations.goal.get("language") or observations.recipe.get("language") or "").lower()[:2]
    told = observations.part("languages")
    shares = {str(k)[:2].lower(): s for k, v in told.items() if v is not None and (s := finite(v)) is not None}
    if not shares:
        shares = shares_of(f"{p} {c}" for p, c in training_pairs(observations)[:500])
    if not wanted:
        asked = shares_of(f"{p} {c}" for p, c in known_pairs(observations)[:500])
        wanted = next((code for code, share in asked.items() if share > 0.8), "")
    if not shares or not wanted:
        return None
    share, most = shares.get(wanted, 0.0), max(shares, key=shares.__getitem__)
    if share >= WRONG_LANGUAGE or most == wanted:
        return RuledOut(Symptom.LANGUAGE_MISMATCH, f"{percent(share)} of the rows are in {wanted}")
    return finding(
        observations,
        Symptom.LANGUAGE_MISMATCH,
        Basis.DATA,
        severity=Severity.HARMFUL,
        confidence=0.9 if share < 0.1 else 0.7,
        evidence=[
            seen(f"languages.{most}", None, shares[most]),
            seen(f"languages.{wanted}", None, share),
            seen("language", None, wanted),
        ],
        cause=f"{percent(shares[most])} of the training rows are in {most} and {percent(share)} in {wanted}, which is "
        "what "
        "is asked for.",
        key=observations.first_key(*_SOURCE_KEYS),
        harm=1 - share,
        runner_up="names and notation that only look like another language",
        refuted_by="twenty training rows, read by a person, that are in the language asked for",
    )


def contamination(observations: Observations) -> Answer:
    """The items of the evaluation among the training rows, or a score that fresh items do not confirm."""
    shared = _shared_items(observations)
    gap = _fresh_gap(observations)
    if shared is None and gap is None:
        return None
    items, total, example = shared or (0, 0, "")
    overlaps = total > 0 and items >= max(2, OVERLAP * total)
    evaluation, fresh = observations.evaluation, observations.fresh
    if not overlaps and not gap:
        if not total:
            return None
        return RuledOut(Symptom.CONTAMINATION, f"{items} of {total} evaluation items stand in the training rows")
    evidence = [seen("shared_items", None, items), seen("items", None, total)] if total else []
    told = [f"{items} of {total} evaluation items stand in the training rows (such as {example!r})"] if overlaps else []
    if gap and evaluation is not None and fresh is not None:
        evidence += [seen("value", None, evaluation.value), seen("fresh.value", None, fresh.value)]
        told.append(
            f"the score is {shown(evaluation.value)} on the benchmark and {shown(fresh.value)} on {fresh.n} fresh "
            "items of "
            "the same kind"
        )
    return finding(
        observations,
        Symptom.CONTAMINATION,
        Basis.DATA,
        severity=Severity.HARMFUL,
        confidence=0.95 if overlaps and gap else 0.85,
        evidence=evidence,
        cause=f"The score is void: {' and '.join(told)}.",
        key=observations.first_key(*_SOURCE_KEYS),
        harm=1.0,
        runner_up="overfit: rows learned by heart, without those of the test",
        refuted_by="the same score on items that were written after the training rows",
        whatever_the_score=True,
    )


def _fresh_gap(observations: Observations) -> bool | None:
    """True when fresh items score far below the benchmark's; None when they were not asked."""
    evaluation, fresh = observations.evaluation, observations.fresh
    if evaluation is None or fresh is None or not fresh.n or observations.lower_is_better:
        return None
    error = math.hypot(evaluation.standard_error, math.sqrt(max(0.0, fresh.value * (1 - fresh.value)) / fresh.n))
    return evaluation.value - fresh.value > max(FRESH_GAP, 3 * error)


def _shared_items(observations: Observations) -> tuple[int, int, str] | None:
    """(evaluation items whose prompt stands in a training row, items with a text, one of them), None without texts."""
    samples = observations.evaluation.samples if observations.evaluation is not None else ()
    items = [(s.prompt, s.reference or "") for s in samples if s.prompt is not None]
    train = [(r.prompt or "", r.completion or "") for r in observations.train_rows if r.prompt or r.completion]
    if len(items) < 5 or not train:
        return None
    prompts = {_plain(p) for p, _ in train}
    runs = {run for p, c in train for run in _runs(f"{p} {c}")}
    found = [p for p, _ in items if _plain(p) in prompts or any(run in runs for run in _runs(p))]
    return len(found), len(items), found[0][:60] if found else ""


_NOT_A_WORD = re.compile(r"[^\w]+")


def _plain(text: str) -> str:
    return _NOT_A_WORD.sub(" ", text.lower()).strip()


def _runs(text: str) -> set[str]:
    words = _plain(text[:4000]).split()
    return {" ".join(words[i : i + WORDS_IN_A_ROW]) for i in range(len(words) - WORDS_IN_A_ROW + 1)}


RULES = (
    Rule(
        Symptom.IMBALANCE, imbalance, "SageMaker Debugger ClassImbalance: ratio 10; half of the rows †", preflight=True
    ),
    Rule(Symptom.LANGUAGE_MISMATCH, language_mismatch, "† half of the rows in another language", preflight=True),
    Rule(
        Symptom.CONTAMINATION,
        contamination,
        "open-r1's decontamination: 8 words in a row; fresh items (GSM1k, arXiv 2405.00332); 2 % and 10 points †",
    ),
)
