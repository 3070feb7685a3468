"""Rules about which tokens are learned: padding that masks the ends, answers that are not marked, nothing "
"supervised."""

from __future__ import annotations

from bot.diagnosis.curves import observed
from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import Record, count
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, percent, seen
from bot.diagnosis.rules.tokens import EOS_SHARE, WORTH_SAYING, eos_blame, pads_with_an_end
from bot.domain.diagnosis import Severity, Symptom

# Logged steps of exactly no loss and no gradient, from which on the batches lack labels: a solved batch has a loss of
# 1e-6, not of 0.†
EMPTY_BATCHES = 3
EMPTY_SHARE = 0.03


def pad_is_end(observations: Observations) -> Answer:
    """One token for padding and for the end: collators that mask the one mask the other with it."""
    if not pads_with_an_end(observations):
        pad = observations.audit.get("pad_token_id")
        if pad is None or not isinstance(observations.audit.get("eos_token_ids"), list):
            return None
        return RuledOut(Symptom.PAD_EQ_EOS, f"padding has its own token ({pad})")
    rows, ended = observations.counted("rows") or 0, observations.counted("supervised_eos_rows")
    masked = ended is not None and rows > 0 and ended < EOS_SHARE * rows
    key, suggested, why = eos_blame(observations)
    rate = _ends_now(observations)
    # The audit reads labels as they are prepared; a collator that masks padding masks the ends after that.
    runs_on = rate is not None and rate < 0.7 and _ended_before(observations) - rate > 0.2
    harmless = not runs_on and (not masked or (rate is not None and rate >= 0.9))
    return finding(
        observations,
        Symptom.PAD_EQ_EOS,
        Basis.DATA,
        severity=Severity.ADVICE if harmless else Severity.HARMFUL,
        confidence=0.5 if harmless else 0.95,
        evidence=[
            seen("pad_token_id", None, str(observations.audit.get("pad_token_id"))),
            seen("supervised_eos_rows", None, ended),
            seen("rows", None, rows),
        ],
        cause=f"Token {observations.audit.get('pad_token_id')} is padding and end at once"
        + (
            f", and only {ended} of {rows} rows end in a supervised end token: {why}."
            if masked
            else f", and the model ends {percent(rate or 0.0)} of its answers by itself: masked padding hides them."
            if runs_on
            else f"; {ended if ended is not None else 'all'} of {rows} rows keep their end token: no harm here."
        ),
        key=key,
        suggested=suggested,
        harm=1.0 if runs_on else 1 - (ended or 0) / rows if rows else 0.5,
        runner_up="missing_eos: a template that closes answers without an end token",
        refuted_by="decoded labels of a few rows that do end in the end token",
    )


def _ends_now(observations: Observations) -> float | None:
    """Share of answers that the model ends by itself: in the evaluation, or in the last probe of a run that goes on."""
    if observations.evaluation is not None:
        return observations.evaluation.termination_rate
    ended = _probed_ends(observations)
    return ended[-1] if len(ended) >= 2 else None


def _ended_before(observations: Observations) -> float:
    """Share of answers that the base model ended by itself; all of them when it was not asked."""
    rate = observations.baseline.termination_rate if observations.baseline is not None else None
    if rate is None and observations.running:
        rate = max(_probed_ends(observations), default=None)
    return 1.0 if rate is None else rate


def _probed_ends(observations: Observations) -> list[float]:
    return [r["probe/termination_rate"] for r in observations.probes if "probe/termination_rate" in r]


def assistant_mask(observations: Observations) -> Answer:
    """assistant_only_loss, and a template that does not mark what the assistant says (or leaves the end out)."""
    if observations.recipe.get("assistant_only_loss") is not True:
        return None
    rows = observations.counted("rows") or 0
    marked = observations.counted("assistant_mask_rows", "template")
    masked = observations.counted("zero_label_rows")
    if marked is None and masked is not None and rows:
        marked = rows - masked
    outside = "does not include the assistant turn's end-of-turn token in the loss mask" in observations.log
    if marked is None and not outside:
        return None
    if rows and marked is not None and marked <= (1 - WORTH_SAYING) * rows and not _by_length(observations):
        what = f"{rows - marked} of {rows} rows have no token inside {{% generation %}} markers"
        severity, confidence, harm = (
            Severity.FATAL if marked <= 0.01 * rows else Severity.HARMFUL,
            0.95,
            1 - marked / rows,
        )
    elif outside:
        what = "the template closes an assistant's turn outside {% generation %} markers, so 0 rows teach the end"
        severity, confidence, harm = Severity.HARMFUL, 0.7, 0.7
    else:
        return RuledOut(Symptom.ASSISTANT_MASK_EMPTY, f"{marked} of {rows} rows have a marked answer")
    return finding(
        observations,
        Symptom.ASSISTANT_MASK_EMPTY,
        Basis.DATA,
        severity=severity,
        confidence=confidence,
        evidence=[
            seen("template.assistant_mask_rows", None, marked),
            seen("rows", None, rows),
            seen("assistant_only_loss", None, "true"),
        ],
        cause=f"With assistant_only_loss only marked tokens are learned, and {what}.",
        key="assistant_only_loss",
        suggested=False,
        harm=harm,
        runner_up="chat_template_path: a template with generation markers would keep the mask",
        refuted_by="a decoded label row with a token that is not -100",
    )


def _by_length(observations: Observations) -> bool:
    """The rows without labels are those that were cut."""
    cut = max(observations.counted("truncated_rows") or 0, observations.counted("dropped_rows") or 0)
    masked = observations.counted("zero_label_rows") or 0
    return bool(masked) and masked <= cut


def all_labels_masked(observations: Observations) -> Answer:
    audit = observations.audit
    rows = count(audit.get("rows", 0)) or 0
    masked = count(audit["zero_label_rows"]) or 0 if rows and "zero_label_rows" in audit else None
    if observations.reinforcement or observations.method == "grpo":
        return None  # nothing is supervised there; a loss of 0 is the groups' lack of spread
    cut = max(count(audit.get("truncated_rows", 0)) or 0, count(audit.get("dropped_rows", 0)) or 0)
    dead = _nothing_supervised(observations)
    if masked == 0 and (emptied := _emptied_batches(observations, rows)) is not None:
        return emptied
    if masked is not None and masked <= WORTH_SAYING * rows and not dead:
        return RuledOut(Symptom.ALL_LABELS_MASKED, f"{masked} of {rows} rows have no supervised token")
    if (masked is not None and masked and masked <= cut) or (masked is None and not dead):
        return None  # truncation's finding: it took the labels with it
    if observations.recipe.get("assistant_only_loss") is True and masked:
        return None  # the mask's own rule names it
    share = masked / rows if masked is not None and rows else 1.0
    key = next(
        (k for k in ("assistant_only_loss", "completion_only_loss") if observations.recipe.get(k) is True),
        "completion_only_loss",
    )
    last = observations.last_step or None
    evidence = [seen("zero_label_rows", None, masked), seen("rows", None, rows)] if masked is not None else []
    evidence += [seen("loss", last, 0.0), seen("grad_norm", last, 0.0)] if dead else []
    by = (
        f"{masked} of {rows} training rows have no supervised token"
        if masked
        else "loss and grad_norm are exactly 0 at every step"
    )
    return finding(
        observations,
        Symptom.ALL_LABELS_MASKED,
        Basis.DATA,
        severity=Severity.FATAL if dead or share > 0.99 else Severity.HARMFUL,
        confidence=0.95 if dead else 0.9,
        evidence=evidence,
        cause=f"{by[0].upper()}{by[1:]}, so there is nothing to learn from"
        + (f": `{key}` masks what the template does not mark as an answer." if key in observations.recipe else "."),
        key=key,
        suggested=False if observations.recipe.get(key) is True else None,
        harm=share,
        runner_up="wrong_columns: the completions are empty",
        refuted_by="a decoded label row with a token that is not -100",
    )


def _nothing_supervised(observations: Observations) -> bool:
    """Loss and gradient of exactly 0 at every step: no token was scored."""
    loss, norm = observed(observations, "loss"), observed(observations, "grad_norm")
    return len(loss) >= 3 and not any(loss.values) and len(norm) >= 3 and not any(norm.values) and not norm.bad_steps


def _emptied_batches(observations: Observations, rows: int) -> Answer:
    """Every row has labels as it was prepared, and batches reach the model without any: what collates them, which is
    the script's, takes the labels away. Rounding never makes a loss and a gradient exactly 0 together."""
    empty = [int(record["step"]) for record in observations.steps if _without_labels(record)]
    logged = len(observations.steps)
    if len(empty) < max(EMPTY_BATCHES, EMPTY_SHARE * logged) or not observations.imitation:
        return None
    share = len(empty) / logged
    return finding(
        observations,
        Symptom.ALL_LABELS_MASKED,
        Basis.DATA,
        severity=Severity.FATAL if share > 0.9 else Severity.HARMFUL,
        confidence=0.95 if share > 0.5 else 0.85,
        evidence=[
            seen("zero_label_rows", None, 0),
            seen("rows", None, rows),
            seen("loss", empty[-1], 0.0),
            seen("grad_norm", empty[-1], 0.0),
            seen("steps_without_labels", empty[-1], len(empty)),
        ],
        cause=f"All {rows} rows have supervised tokens as they were prepared, and {len(empty)} of {logged} logged "
        f"steps had none (loss and grad_norm exactly 0, last at step {empty[-1]}): what makes the batches "
        "masks the labels, by a marker that the rows do not hold, say.",
        key=None,
        file="train.py",
        harm=share,
        runner_up="max_length: answers that are cut away whole",
        refuted_by="a decoded batch, as the model gets it, with a label in every row",
        certain_at=empty[EMPTY_BATCHES - 1],
    )


def _without_labels(record: Record) -> bool:
    """Nothing was scored: of a batch that is solved to the last digit the tokens are right, of this one none."""
    return record.get("loss") == 0 and record.get("grad_norm") == 0 and not record.get("mean_token_accuracy")


RULES = (
    Rule(Symptom.PAD_EQ_EOS, pad_is_end, "TRL issues 1623, 2059 and 3091; 99 % of rows †", preflight=True, online=True),
    Rule(Symptom.ASSISTANT_MASK_EMPTY, assistant_mask, "TRL issues 3927 and 5988: generation markers", preflight=True),
    Rule(
        Symptom.ALL_LABELS_MASKED,
        all_labels_masked,
        "unsloth issue 2900: no supervised token; loss and norm exactly 0",
        preflight=True,
        online=True,
    ),
)
