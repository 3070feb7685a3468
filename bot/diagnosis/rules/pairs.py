"""Training pairs against pairs that are known to be right: the evaluation's own prompts and references."""

from __future__ import annotations

from dataclasses import dataclass

from bot.diagnosis.observations import Observations
from bot.diagnosis.outcomes import Pairing, pairing_of

# Tasks whose right answers share less than this with their own question (beyond chance) cannot be judged this way.†
RELATED = 0.1


@dataclass(frozen=True, slots=True)
class Noise:
    """Estimated share of training rows whose answer belongs to another prompt, in [0, 1]."""

    share: float
    train: Pairing
    known: Pairing


def training_pairs(observations: Observations) -> list[tuple[str, str]]:
    return [
        (r.prompt, r.completion) for r in observations.train_rows if r.prompt is not None and r.completion is not None
    ]


def known_pairs(observations: Observations) -> list[tuple[str, str]]:
    """Pairs that are right: the benchmark's items, else eval.jsonl (which a faulty preparation may have built too)."""
    samples = observations.evaluation.samples if observations.evaluation is not None else ()
    pairs = [(s.prompt, s.reference) for s in samples if s.prompt is not None and s.reference is not None]
    if len(pairs) >= 20:
        return pairs
    return [
        (r.prompt, r.completion) for r in observations.eval_rows if r.prompt is not None and r.completion is not None
    ]


def trained_length(observations: Observations) -> float:
    """Median length in characters of what the model was taught to answer; 0 when unknown."""
    lengths = sorted(len(completion) for _, completion in training_pairs(observations))
    return float(lengths[len(lengths) // 2]) if lengths else 0.0


def noise_of(observations: Observations) -> Noise | None:
    """None when either side has too few pairs, or when right pairs of this task show no relation to measure."""
    return observations.once("noise", lambda: _noise_of(observations))


def _noise_of(observations: Observations) -> Noise | None:
    known = pairing_of(known_pairs(observations))
    # Repeated rows would be compared with themselves.
    train = pairing_of(list(dict.fromkeys(training_pairs(observations))))
    if known is None or train is None or known.excess < RELATED or known.z < 5:
        return None
    return Noise(min(1.0, max(0.0, 1 - train.excess / known.excess)), train, known)
