"""Rules about the rows as the trainer tokenises them: cut ends, missing end tokens, nothing supervised."""

from __future__ import annotations

from typing import Any

from bot.diagnosis.curves import observed
from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import count, shown
from bot.diagnosis.remedies import DEFAULT_BATCH_SIZE, DEFAULT_MAX_LENGTH, max_length_for, power_of_two
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, percent, seen
from bot.diagnosis.rules.pairs import training_pairs
from bot.domain.diagnosis import Severity, Symptom

# Shares from which a fault of the rows is worth a run: the field's usual five per cent.†
WORTH_SAYING = 0.05
EOS_SHARE = 0.99


def truncation(observations: Observations) -> Answer:
    audit = observations.audit
    rows = count(audit.get("rows", 0)) or 0
    if "max_completion_length" in audit:
        return None  # references that the cap on sampled answers would cut: another rule's
    if not rows or "truncated_rows" not in audit:
        return _truncation_unaudited(observations)
    cut, dropped = count(audit["truncated_rows"]) or 0, count(audit.get("dropped_rows", 0)) or 0
    share = min(1.0, max(cut, dropped) / rows)
    limit = _max_length(observations)
    lengths = audit.get("token_lengths")
    lengths = lengths if isinstance(lengths, dict) else {}
    longest = count(lengths["max"]) if lengths.get("max") is not None else None
    if not cut and not dropped:
        return RuledOut(Symptom.TRUNCATION, f"0 of {rows} rows exceed max_length {limit} (longest: {longest} tokens)")
    severity = Severity.ADVICE if share <= WORTH_SAYING else Severity.HARMFUL
    if share > 0.99 and not observations.met:
        severity = Severity.FATAL
    p95 = count(lengths["p95"]) if lengths.get("p95") is not None else None
    return finding(
        observations,
        Symptom.TRUNCATION,
        Basis.DATA,
        severity=severity,
        confidence=0.95,
        evidence=[
            seen("truncated_rows", None, cut),
            seen("rows", None, rows),
            seen("max_length", None, limit),
            seen("token_lengths.p95", None, p95),
            seen("token_lengths.max", None, longest),
        ],
        cause=f"max_length {limit} cuts {cut} of {rows} training rows ({percent(cut / rows)}"
        f"{f', and {dropped} are dropped whole' if dropped else ''}); the longest has {longest} tokens, and "
        f"what is cut "
        "is the end of the answer.",
        key="max_length",
        suggested=max_length_for(lengths, limit),
        harm=share,
        runner_up="missing_eos: answers without an end token, whatever their length",
        refuted_by=f"an audit with max_length {longest} that still counts truncated rows",
    )


def _max_length(observations: Observations) -> int:
    for holder in (observations.recipe, observations.audit):
        limit = count(holder["max_length"]) if holder.get("max_length") is not None else None
        if limit:
            return limit
    return DEFAULT_MAX_LENGTH


def _truncation_unaudited(observations: Observations) -> Answer:
    """Without the audit only the clear cases show."""
    limit = _max_length(observations)
    per_row = _tokens_per_row(observations)
    if per_row is None or not 0.95 * limit <= per_row <= 1.001 * limit:
        return _truncation_by_characters(observations)
    step = int(observations.steps[-1]["step"])
    return finding(
        observations,
        Symptom.TRUNCATION,
        Basis.DATA,
        severity=Severity.HARMFUL,
        confidence=0.85,
        evidence=[
            seen("num_tokens", step, observations.steps[-1]["num_tokens"]),
            seen("tokens_per_row", step, per_row),
            seen("max_length", None, limit),
        ],
        cause=f"Up to step {step} a row had {shown(per_row)} tokens on average, which is max_length {limit}: "
        f"nearly every "
        "row is cut there.",
        key="max_length",
        suggested=power_of_two(2 * limit),
        runner_up="none: rows that were built to exactly that length would look the same",
        refuted_by="the tokenizer's own count of rows above max_length",
    )


def _tokens_per_row(observations: Observations) -> float | None:
    """Mean tokens of a row as trained, from TRL's running num_tokens; None for packed rows or unknown batches."""
    tokens = observed(observations, "num_tokens")
    if len(tokens) < 3 or observations.recipe.get("packing") is True or tokens.last_step < 1:
        return None
    rows = observations.setting("per_device_train_batch_size", DEFAULT_BATCH_SIZE)
    rows *= observations.setting("gradient_accumulation_steps", 1)
    return tokens.values[-1] / tokens.last_step / rows if rows >= 1 else None


def _truncation_by_characters(observations: Observations) -> Answer:
    """Six characters a token is more than any tokenizer averages on prose, and none makes more tokens than bytes."""
    lengths = sorted(len(p) + len(c) for p, c in training_pairs(observations))
    if not lengths or observations.recipe.get("max_length", 0) is None:
        return None
    limit = _max_length(observations)
    longest = max(len((p + c).encode()) for p, c in training_pairs(observations))
    if longest + 64 <= limit:  # 64 for a chat template's own tokens
        return RuledOut(
            Symptom.TRUNCATION, f"the longest of {len(lengths)} rows has {longest} bytes, below max_length {limit}"
        )
    surely = sum(length / 6 > limit for length in lengths) / len(lengths)
    if surely <= WORTH_SAYING:
        return None
    p95 = lengths[int(0.95 * (len(lengths) - 1))]
    return finding(
        observations,
        Symptom.TRUNCATION,
        Basis.DATA,
        severity=Severity.HARMFUL,
        confidence=0.7,
        evidence=[
            seen("rows_over_six_characters_per_token", None, surely),
            seen("max_length", None, limit),
            seen("characters.p95", None, p95),
        ],
        cause=f"{percent(surely)} of the training rows have more than {6 * limit} characters, which max_length "
        f"{limit} cuts "
        "at even six characters a token.",
        key="max_length",
        suggested=power_of_two(round(p95 / 3.5)),
        harm=surely,
        runner_up="none: lengths were counted in characters, without the tokenizer",
        refuted_by="the tokenizer's own count of rows above max_length",
    )


def missing_eos(observations: Observations) -> Answer:
    audit = observations.audit
    rows = count(audit.get("rows", 0)) or 0
    if not rows or "supervised_eos_rows" not in audit:
        return None
    ended = min(rows, count(audit["supervised_eos_rows"]) or 0)
    cut = max(count(audit.get("truncated_rows", 0)) or 0, count(audit.get("dropped_rows", 0)) or 0)
    share = ended / rows
    if share >= EOS_SHARE:
        return RuledOut(Symptom.MISSING_EOS, f"{ended} of {rows} rows end in a supervised end token")
    if rows - ended <= 1.02 * cut + 1:
        return RuledOut(
            Symptom.MISSING_EOS, f"the {rows - ended} rows without an end token are the {cut} that are truncated"
        )
    if _pads_with_an_end(observations):
        return None  # the other rule's: the end tokens are masked as padding
    rate = observations.evaluation.termination_rate if observations.evaluation is not None else None
    # A base model that ends this task by itself does so after training without the token, too (seen on real runs).
    harmless = rate is not None and rate >= 0.9
    key, suggested, why = _eos_blame(observations)
    evidence = [seen("supervised_eos_rows", None, ended), seen("rows", None, rows)]
    if rate is not None:
        evidence.append(seen("termination_rate", None, rate))
    return finding(
        observations,
        Symptom.MISSING_EOS,
        Basis.DATA,
        severity=Severity.ADVICE if harmless or share > 1 - WORTH_SAYING else Severity.HARMFUL,
        confidence=0.6 if harmless else 0.95,
        evidence=evidence,
        cause=f"Only {ended} of {rows} training rows end in a supervised end token"
        + (f", and the trained model ends {percent(rate)} of its answers by itself" if rate is not None else "")
        + f": {why}.",
        key=key,
        suggested=suggested,
        harm=1 - share,
        runner_up="truncation: the end was cut away",
        refuted_by="decoded labels of a few rows that do end in the end token",
    )


def _eos_blame(observations: Observations) -> tuple[str, Any, str]:
    audit, recipe = observations.audit, observations.recipe
    eos_ids = audit.get("eos_token_ids")
    pad = audit.get("pad_token_id")
    if isinstance(eos_ids, list) and pad is not None and pad in eos_ids:
        return "pad_token", None, f"the padding token ({pad}) is an end token, and padding is never trained"
    if recipe.get("chat_template_path") is not None:
        return "chat_template_path", None, f"the template {recipe['chat_template_path']} closes answers without it"
    if recipe.get("eos_token") is not None:
        return "eos_token", None, f"{recipe['eos_token']} is not what the template closes answers with"
    return observations.first_key("eos_token", "chat_template_path"), None, "the template closes answers without it"


def _pads_with_an_end(observations: Observations) -> bool:
    pad, ends = observations.audit.get("pad_token_id"), observations.audit.get("eos_token_ids")
    return pad is not None and isinstance(ends, list) and pad in ends


def pad_is_end(observations: Observations) -> Answer:
    """One token for padding and for the end: collators that mask the one mask the other with it."""
    if not _pads_with_an_end(observations):
        pad = observations.audit.get("pad_token_id")
        if pad is None or not isinstance(observations.audit.get("eos_token_ids"), list):
            return None
        return RuledOut(Symptom.PAD_EQ_EOS, f"padding has its own token ({pad})")
    rows, ended = observations.counted("rows") or 0, observations.counted("supervised_eos_rows")
    masked = ended is not None and rows > 0 and ended < EOS_SHARE * rows
    key, suggested, why = _eos_blame(observations)
    rate = observations.evaluation.termination_rate if observations.evaluation is not None else None
    harmless = not masked or (rate is not None and rate >= 0.9)
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
            else f"; {ended if ended is not None else 'all'} of {rows} rows keep their end token: no harm here."
        ),
        key=key,
        suggested=suggested,
        harm=1 - (ended or 0) / rows if rows else 0.5,
        runner_up="missing_eos: a template that closes answers without an end token",
        refuted_by="decoded labels of a few rows that do end in the end token",
    )


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
    loss, norm = observed(observations, "loss"), observed(observations, "grad_norm")
    dead = len(loss) >= 3 and not any(loss.values) and len(norm) >= 3 and not any(norm.values) and not norm.bad_steps
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
    last = loss.last_step if len(loss) else None
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


RULES = (
    Rule(Symptom.TRUNCATION, truncation, "TRL max_length (default 1024, keep_start); 5 % of rows †", preflight=True),
    Rule(Symptom.MISSING_EOS, missing_eos, "TRL issue 3091, transformers issue 48016; 99 % of rows †", preflight=True),
    Rule(Symptom.PAD_EQ_EOS, pad_is_end, "TRL issues 1623, 2059 and 3091; 99 % of rows †", preflight=True),
    Rule(Symptom.ASSISTANT_MASK_EMPTY, assistant_mask, "TRL issues 3927 and 5988: generation markers", preflight=True),
    Rule(
        Symptom.ALL_LABELS_MASKED,
        all_labels_masked,
        "unsloth issue 2900: no supervised token; loss and norm exactly 0",
        preflight=True,
        online=True,
    ),
)
