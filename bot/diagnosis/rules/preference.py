"""Rules about preference pairs: margins that run away, both answers made unlikely, and pairs the wrong way round."""

from __future__ import annotations

from typing import Any

from bot.diagnosis.curves import Series, held_out_of, last_run, observed
from bot.diagnosis.learning_rates import tidy
from bot.diagnosis.observations import Observations
from bot.diagnosis.outcomes import text_distance
from bot.diagnosis.readings import finite, shown
from bot.diagnosis.remedies import IMITATION, USUAL_BETA, lacks_imitation
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, percent, seen
from bot.diagnosis.rules.pairs import known_pairs
from bot.domain.diagnosis import Evidence, Severity, Symptom

# TRL issue 1236 shows runs with margins far above this, losses of 0 and degraded samples.†
OVERSHOT_MARGIN = 10.0
# The same, in nats for each token of the rejected answer: 6 in healthy runs of the tiny model, 13 in displaced ones.†
OVERSHOT_NATS = 25.0
# Nats by which the chosen answers' own log-probability must have fallen. A fall of the rejected one alone, and a
# chosen *reward* below zero, are normal (TRL issue 1627, an author of DPO).†
DISPLACED = 2.0
DISPLACED_SHARE = 0.5
# Consecutive logged steps.†
PERSISTENT = 5
SWAPPED = 0.1
SAME = 0.02


def flipped(observations: Observations) -> Answer:
    """What is called chosen is the worse answer."""
    rows = _by_rows(observations)
    if rows is not None:
        return rows
    trained, held = observed(observations, "rewards/accuracies"), held_out_of(observations, "eval_rewards/accuracies")
    margins = observed(observations, "rewards/margins")
    low = last_run(held, lambda value: value < 0.45) if len(held) else 0
    if len(held) >= 2 and low >= 2 and len(trained) >= PERSISTENT and trained.tail(3) > 0.6:
        return _flipped_finding(
            observations,
            [seen("eval_rewards/accuracies", held.last_step, held.values[-1]), _last(trained, "rewards/accuracies")],
            f"held-out pairs are ranked right in {percent(held.values[-1])} of cases while training pairs are in "
            f"{percent(trained.tail(3))}",
            0.75,
        )
    below = last_run(trained, lambda value: value < 0.5)
    negative = last_run(margins, lambda value: value < 0)
    if len(trained) >= 20 and below >= max(10, len(trained) // 2) and negative >= 10:
        return _flipped_finding(
            observations,
            [_last(trained, "rewards/accuracies"), _last(margins, "rewards/margins")],
            f"the margin is {shown(margins.tail(3))} and {percent(trained.tail(3))} of the pairs are ranked as called",
            0.8,
        )
    if not len(trained):
        return None
    return RuledOut(Symptom.DPO_FLIPPED, f"{percent(trained.tail(3))} of the pairs are ranked as called at the end")


def _by_rows(observations: Observations) -> Answer:
    """Rejected answers that look like the benchmark's references where the chosen ones do not."""
    pairs = [(r.completion, r.rejected) for r in observations.train_rows if r.completion and r.rejected]
    references = {p.strip(): c.strip() for p, c in known_pairs(observations)}
    if len(pairs) < 20 or len(references) < 20:
        return None
    chosen, rejected = (list(part) for part in zip(*pairs, strict=True))
    straight = text_distance(chosen, list(references.values()))
    crossed = text_distance(rejected, list(references.values()))
    echoes = [
        _echo(r.prompt, r.completion) - _echo(r.prompt, r.rejected) for r in observations.train_rows if r.rejected
    ]
    known = sum(_echo(p, c) for p, c in references.items()) / len(references)
    leaning = sum(echoes) / len(echoes)
    if straight - crossed <= SWAPPED and not (leaning > 0.3 and known < 0.3):
        return None
    return _flipped_finding(
        observations,
        [
            seen("distance.chosen", None, straight),
            seen("distance.rejected", None, crossed),
            seen("pairs", None, len(pairs)),
        ],
        f"in {len(pairs)} pairs the rejected answers look like the benchmark's references (distance {shown(crossed)}) "
        f"and the chosen ones do not ({shown(straight)})",
        0.85,
        Basis.DATA,
    )


def _echo(prompt: str | None, answer: str | None) -> float:
    """1 when the answer is its prompt again, or a part of it that is not the answer asked for."""
    return float(bool(prompt) and bool(answer) and str(answer).strip() == str(prompt).strip())


def _flipped_finding(
    observations: Observations, evidence: list[Evidence], how: str, confidence: float, basis: Basis = Basis.CURVE
) -> Answer:
    key = observations.first_key("data_chosen_column", "data_completion_column", "data_sources", "train_file")
    other = "data_rejected_column" if key == "data_chosen_column" else None
    return finding(
        observations,
        Symptom.DPO_FLIPPED,
        basis,
        severity=Severity.FATAL,
        confidence=confidence,
        evidence=evidence,
        cause=f"The pairs are the wrong way round: {how}.",
        key=key,
        suggested=observations.recipe.get(other) if other else None,
        runner_up="dpo_displacement: both answers became unlikely, whichever is called chosen",
        refuted_by="twenty pairs, read by a person, whose chosen answer is the better one",
    )


def _last(series: Series, key: str) -> Evidence:
    return seen(key, series.last_step, series.tail(3))


def overshoot(observations: Observations) -> Answer:
    """Margins far beyond what separates the pairs, with nothing left in the loss."""
    loss, margins = observed(observations, "loss"), observed(observations, "rewards/margins")
    accuracy = observed(observations, "rewards/accuracies")
    if not observations.preference or len(margins) < PERSISTENT or len(accuracy) < PERSISTENT:
        return None
    limit = _margin_limit(observations)
    beyond = last_run(margins, lambda value: value > limit)
    decided = accuracy.tail(5) >= 0.95
    if beyond < PERSISTENT or not decided:
        return RuledOut(
            Symptom.DPO_OVERSHOOT,
            f"the margin ended at {shown(margins.tail(3))} with {percent(accuracy.tail(3))} of the pairs ranked right",
        )
    rate = observations.rate
    chosen = observed(observations, "logps/chosen")
    absurd = limit < OVERSHOT_MARGIN and len(chosen) > 0 and chosen.tail(3) < chosen.head(3) - DISPLACED
    hurt = _hurt(observations) or (absurd and not observations.met)
    if rate.current > rate.band.high:
        key, suggested = "learning_rate", rate.lowered()
    elif observations.setting("beta", USUAL_BETA) < USUAL_BETA / 2:
        key, suggested = "beta", USUAL_BETA
    else:
        key, suggested = _held_up(observations) or ("learning_rate", rate.lowered())
    evidence = [_last(margins, "rewards/margins"), _last(accuracy, "rewards/accuracies")]
    evidence += [seen("loss", loss.last_step, loss.tail(3))] if len(loss) else []
    evidence += [_last(chosen, "logps/chosen")] if len(chosen) else []
    return finding(
        observations,
        Symptom.DPO_OVERSHOOT,
        Basis.CURVE,
        severity=Severity.HARMFUL if hurt else Severity.ADVICE,
        confidence=0.85 if hurt else 0.5,
        evidence=evidence,
        cause=f"Every pair is ranked right and the margin has grown to {shown(margins.tail(3))} (step "
        f"{margins.last_step}) under learning_rate {shown(rate.current)} and beta "
        f"{shown(observations.setting('beta', 0.1))}{_hurt_words(observations)}: the policy left the reference far "
        "behind.",
        key=key,
        suggested=suggested,
        harm=0.9,
        runner_up="dpo_displacement: the chosen answers became unlikely, too",
        refuted_by="samples that are as good as the base model's at this margin",
        certain_at=margins.steps[len(margins) - beyond + PERSISTENT - 1],
    )


def _margin_limit(observations: Observations) -> float:
    """A margin is beta times a distance in nats: with a tiny beta the distance is what is absurd, not the margin."""
    raw = observations.audit.get("mean_rejected_tokens")
    tokens = finite(raw) if raw is not None else None
    if not tokens:
        return OVERSHOT_MARGIN
    return min(OVERSHOT_MARGIN, OVERSHOT_NATS * tokens * max(1e-4, observations.setting("beta", USUAL_BETA)))


def displacement(observations: Observations) -> Answer:
    """The chosen answers became less likely, with the rejected ones."""
    chosen, rejected = observed(observations, "logps/chosen"), observed(observations, "logps/rejected")
    same = _same_answers(observations)
    if same is not None:
        return same
    if not observations.preference or len(chosen) < 2 * PERSISTENT or len(rejected) < 2 * PERSISTENT:
        return None
    start = chosen.head(3)
    limit = start - max(DISPLACED, DISPLACED_SHARE * abs(start))
    below = last_run(chosen, lambda value: value < limit)
    both = rejected.tail(3) < rejected.head(3)
    if below < PERSISTENT or not both:
        return RuledOut(
            Symptom.DPO_DISPLACEMENT, f"logps/chosen went from {shown(start)} to {shown(chosen.tail(3))} in the end"
        )
    hurt = _hurt(observations)
    rate = observations.rate
    if rate.current > rate.band.ceiling:
        key, suggested = "learning_rate", rate.lowered(3)
    else:
        key, suggested = _held_up(observations) or ("beta", tidy(3 * observations.setting("beta", USUAL_BETA)))
    return finding(
        observations,
        Symptom.DPO_DISPLACEMENT,
        Basis.CURVE,
        severity=Severity.HARMFUL if hurt else Severity.ADVICE,
        confidence=0.85 if hurt else 0.5,
        evidence=[
            seen("logps/chosen", chosen.first_step, start),
            _last(chosen, "logps/chosen"),
            seen("logps/rejected", rejected.first_step, rejected.head(3)),
            _last(rejected, "logps/rejected"),
        ],
        cause=f"The chosen answers' log-probability fell from {shown(start)} to {shown(chosen.tail(3))} (step "
        f"{chosen.last_step}) along with the rejected ones'{_hurt_words(observations)}: what the model says now is "
        "neither.",
        key=key,
        suggested=suggested,
        harm=0.8,
        runner_up="loss_type: without a term of imitation (sft beside sigmoid) nothing holds the chosen answers up",
        refuted_by="chosen answers as likely as before in a run whose score is as low",
        certain_at=chosen.steps[len(chosen) - below + PERSISTENT - 1],
    )


def _same_answers(observations: Observations) -> Answer:
    """Pairs whose two answers are nearly one: all that can separate them is noise."""
    equal, rows = observations.counted("chosen_equals_rejected_rows"), observations.counted("rows")
    pairs = [
        (r.completion, r.rejected)
        for r in observations.train_rows
        if r.completion is not None and r.rejected is not None
    ]
    if equal is None or not rows:
        equal, rows = sum(a == b for a, b in pairs), len(pairs)
    if not rows or equal / rows <= SAME:
        return None
    share = min(1.0, equal / rows)
    return finding(
        observations,
        Symptom.DPO_DISPLACEMENT,
        Basis.DATA,
        severity=Severity.HARMFUL if share > 0.2 else Severity.ADVICE,
        confidence=0.9 if share > 0.5 else 0.7,
        evidence=[seen("chosen_equals_rejected_rows", None, equal), seen("rows", None, rows)],
        cause=f"In {equal} of {rows} pairs ({percent(share)}) chosen and rejected are the same answer: what separates "
        "them is not there to be learned, and both become unlikely.",
        key=observations.first_key("data_rejected_column", "data_sources", "train_file", "dataset_name"),
        harm=share,
        runner_up="wrong_columns: both sides read the same column",
        refuted_by="pairs, read by a person, whose answers differ in what matters",
    )


def _held_up(observations: Observations) -> tuple[str, Any] | None:
    """(key, value) that adds a term of imitation where the loss has none."""
    return ("loss_type", IMITATION["loss_type"]) if lacks_imitation(observations.recipe) else None


def _hurt(observations: Observations) -> bool:
    """The answers became worse, or did not become what they were meant to: by the score, or by the probes."""
    exact = [r["probe/exact_match"] for r in observations.probes if "probe/exact_match" in r]
    # Sixteen answers have a standard error of a tenth: less than half of the best, and three tenths below it.
    fell = len(exact) >= 2 and exact[-1] < 0.5 * max(exact) and max(exact) - exact[-1] >= 0.3
    if observations.met:
        return False
    return fell or observations.worse_than_base or observations.poor


def _hurt_words(observations: Observations) -> str:
    after, before = observations.evaluation, observations.baseline
    if after is None or not _hurt(observations):
        return ""
    base = f" (base model: {shown(before.value)})" if before is not None else ""
    return f", and the score is {shown(after.value)}{base}"


RULES = (
    Rule(
        Symptom.DPO_FLIPPED,
        flipped,
        "Axolotl's DPO guide: accuracies below .5, negative margins; † pairs against references",
        preflight=True,
        online=True,
    ),
    Rule(Symptom.DPO_OVERSHOOT, overshoot, "TRL issue 1236; margin above 10, five in a row †", online=True),
    Rule(
        Symptom.DPO_DISPLACEMENT,
        displacement,
        "TRL's DPO guide: both log-probabilities fall; 2 nats and half †",
        preflight=True,
        online=True,
    ),
)
