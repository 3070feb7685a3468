"""Rules about the rows as the trainer tokenises them: cut ends, missing end tokens, nothing supervised."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from bot.diagnosis.curves import observed
from bot.diagnosis.defaults import batch_size, max_length
from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import count, shown
from bot.diagnosis.remedies import DEFAULT_MAX_LENGTH, max_length_for, power_of_two
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, percent, seen
from bot.diagnosis.rules.pairs import training_pairs
from bot.domain.diagnosis import Severity, Symptom

# Shares from which a fault of the rows is worth a run: the field's usual five per cent.†
WORTH_SAYING = 0.05
EOS_SHARE = 0.99
# Tokens of one step beside another's, that are as many.†
SAME = 1e-3


def truncation(observations: Observations) -> Answer:
    audit = observations.audit
    rows = count(audit.get("rows", 0)) or 0
    if "max_completion_length" in audit:
        return None  # references that the cap on sampled answers would cut: another rule's
    if "audio" in audit:
        return None  # recordings, which are left out whole: another rule's
    if not rows or "truncated_rows" not in audit:
        return _truncation_unaudited(observations)
    cut, dropped = count(audit["truncated_rows"]) or 0, count(audit.get("dropped_rows", 0)) or 0
    share = min(1.0, max(cut, dropped) / rows)
    limit = max_length(observations) or DEFAULT_MAX_LENGTH  # the audit is Postdoc's own, and so is the script
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


def _truncation_unaudited(observations: Observations) -> Answer:
    """Without the audit only the clear cases show."""
    limit = max_length(observations)
    per_row = _tokens_per_row(observations)
    if limit is None:
        return None
    if per_row is None or not 0.95 * limit <= per_row <= 1.001 * limit:
        return _truncation_by_characters(observations, limit)
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
    """Mean tokens of a row as trained, from TRL's running num_tokens; None for unknown batches, and where every logged
    step had as many: rows that are packed or padded to one length say nothing of what was cut."""
    tokens = observed(observations, "num_tokens")
    if len(tokens) < 3 or observations.recipe.get("packing") is True or tokens.last_step < 1:
        return None
    batch = batch_size(observations)
    told = list(zip(tokens.steps, tokens.values, strict=True))
    per_step = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(told)]
    if batch is None or max(per_step) - min(per_step) <= SAME * max(per_step):
        return None
    rows = batch * observations.setting("gradient_accumulation_steps", 1)
    return tokens.values[-1] / tokens.last_step / rows if rows >= 1 else None


def _truncation_by_characters(observations: Observations, limit: int) -> Answer:
    """Six characters a token is more than any tokenizer averages on prose, and none makes more tokens than bytes."""
    lengths = sorted(len(p) + len(c) for p, c in training_pairs(observations))
    if not lengths or observations.recipe.get("max_length", 0) is None:
        return None
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
    if pads_with_an_end(observations):
        return None  # the other rule's: the end tokens are masked as padding
    rate = observations.evaluation.termination_rate if observations.evaluation is not None else None
    # A base model that ends this task by itself does so after training without the token, too (seen on real runs).
    harmless = rate is not None and rate >= 0.9
    key, suggested, why = eos_blame(observations)
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


def eos_blame(observations: Observations) -> tuple[str, Any, str]:
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


def pads_with_an_end(observations: Observations) -> bool:
    pad, ends = observations.audit.get("pad_token_id"), observations.audit.get("eos_token_ids")
    return pad is not None and isinstance(ends, list) and pad in ends


RULES = (
    Rule(Symptom.TRUNCATION, truncation, "TRL max_length (default 1024, keep_start); 5 % of rows †", preflight=True),
    Rule(Symptom.MISSING_EOS, missing_eos, "TRL issue 3091, transformers issue 48016; 99 % of rows †", preflight=True),
)
