"""Rules about the training data, from the audit that the script wrote before its first step and from the rows."""

from __future__ import annotations

from typing import Any

from bot.diagnosis.curves import series_of
from bot.diagnosis.folder import Observations
from bot.diagnosis.outcomes import RowFacts, row_facts, text_distance
from bot.diagnosis.readings import count, shown
from bot.diagnosis.remedies import DEFAULT_BATCH_SIZE, DEFAULT_MAX_LENGTH, column_for, max_length_for, power_of_two
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, percent, seen
from bot.diagnosis.rules.pairs import known_pairs, noise_of, training_pairs
from bot.domain.diagnosis import Severity, Symptom

# Shares from which a fault of the rows is worth a run: the field's usual five per cent.†
WORTH_SAYING = 0.05
EOS_SHARE = 0.99
# Half of a training set gone is no longer a matter of degree.
MOST = 0.5
# 30 % of shuffled answers still trained to .92-.97 on a task of .99; 60 % did not. Between 20 % and that it is harm
# only when the target was missed.†
NOISE_WORTH_SAYING = 0.1
NOISE_HARMFUL = 0.2


def wrong_columns(observations: Observations) -> Answer:
    """Columns that exist but hold the wrong thing: nothing crashes, and the loss looks fine."""
    facts = row_facts(observations.train_rows)
    if not facts.rows:
        return _empty_by_audit(observations)
    known = known_pairs(observations)
    echo = facts.echoes / facts.rows
    copies = sum(p.strip() == c.strip() for p, c in known) / len(known) if known else 0.0
    readable = str(observations.recipe.get("dataset_text_field", "text")) in observations.train_columns
    # A trainer that took steps has found its columns, whatever train.jsonl looks like here.
    if facts.without_text > MOST * facts.rows and not readable and not observations.steps:
        columns = ", ".join(observations.train_columns)
        what = f"its columns ({columns}) are none that a trainer knows"
        key = observations.first_key("data_prompt_column", "dataset_text_field")
        return _column_finding(observations, facts, key, what, facts.without_text / facts.rows, columns=columns)
    if facts.empty_completions > 0.2 * facts.rows:
        share = facts.empty_completions / facts.rows
        return _column_finding(
            observations, facts, "data_completion_column", f"the completion is empty in {percent(share)} of them", share
        )
    if echo > MOST and copies < MOST:
        return _column_finding(
            observations,
            facts,
            "data_completion_column",
            f"the completion repeats the prompt in {percent(echo)} of them",
            echo,
        )
    swapped = _swap_margin(training_pairs(observations), known)
    if swapped is not None and swapped > 0.5:
        what = (
            "prompts look like the benchmark's answers and completions like its questions: the two columns are swapped"
        )
        return _column_finding(
            observations, facts, observations.first_key("data_prompt_column", "data_completion_column"), what, 1.0
        )
    return RuledOut(
        Symptom.WRONG_COLUMNS,
        f"of {facts.rows} rows read {facts.empty_completions} have an empty completion and {facts.echoes} repeat their prompt",
    )


def _empty_by_audit(observations: Observations) -> Answer:
    lengths = observations.audit.get("answer_token_lengths")
    longest = count(lengths["max"]) if isinstance(lengths, dict) and lengths.get("max") is not None else None
    rows = count(observations.audit.get("rows", 0)) or 0
    # An end token alone is one token: no answer has any text.
    if longest is None or longest > 1 or not rows:
        return None
    facts = RowFacts(rows, 0, rows, 0, 0, 0)
    return _column_finding(
        observations, facts, "data_completion_column", f"the longest completion has {longest} token", 1.0
    )


def _swap_margin(train: list[tuple[str, str]], known: list[tuple[str, str]]) -> float | None:
    """How much better the training pairs fit the known ones crosswise than straight, in [-2, 2]."""
    if len(train) < 20 or len(known) < 20:
        return None
    (prompts, completions), (questions, answers) = (list(zip(*pairs, strict=True)) for pairs in (train, known))
    straight = text_distance(prompts, questions) + text_distance(completions, answers)
    return straight - text_distance(prompts, answers) - text_distance(completions, questions)


def _column_finding(
    observations: Observations, facts: RowFacts, key: str, what: str, share: float, *, columns: str = ""
) -> Answer:
    setting = observations.recipe.get(key)
    # Where the detection itself chose the column, only a name helps, and completions are what is wrong most often.
    suggested = (
        column_for(key, observations.train_columns, setting) if setting not in (None, "auto") or columns else None
    )
    return finding(
        observations,
        Symptom.WRONG_COLUMNS,
        Basis.DATA,
        severity=Severity.FATAL if share > MOST and not observations.met else Severity.HARMFUL,
        confidence=0.93 if share > MOST else 0.7,
        evidence=[
            seen("rows", None, facts.rows),
            seen("affected_share", None, share),
            seen("columns", None, columns or ", ".join(observations.train_columns) or "unknown"),
        ],
        cause=f"In {facts.rows} training rows, {what}{f' (`{key}: {setting}`)' if setting is not None else ''}.",
        key=key,
        suggested=suggested,
        harm=share,
        runner_up="the source file itself: a column that is empty or misnamed there",
        refuted_by="a row of train.jsonl, read by a person, whose completion answers its prompt",
    )


def truncation(observations: Observations) -> Answer:
    audit = observations.audit
    rows = count(audit.get("rows", 0)) or 0
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
        f"{f', and {dropped} are dropped whole' if dropped else ''}); the longest has {longest} tokens, and what is cut "
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
        cause=f"Up to step {step} a row had {shown(per_row)} tokens on average, which is max_length {limit}: nearly every "
        "row is cut there.",
        key="max_length",
        suggested=power_of_two(2 * limit),
        runner_up="none: rows that were built to exactly that length would look the same",
        refuted_by="the tokenizer's own count of rows above max_length",
    )


def _tokens_per_row(observations: Observations) -> float | None:
    """Mean tokens of a row as trained, from TRL's running num_tokens; None for packed rows or unknown batches."""
    tokens = series_of(observations.steps, "num_tokens")
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
        cause=f"{percent(surely)} of the training rows have more than {6 * limit} characters, which max_length {limit} cuts "
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


def all_labels_masked(observations: Observations) -> Answer:
    audit = observations.audit
    rows = count(audit.get("rows", 0)) or 0
    masked = count(audit["zero_label_rows"]) or 0 if rows and "zero_label_rows" in audit else None
    cut = max(count(audit.get("truncated_rows", 0)) or 0, count(audit.get("dropped_rows", 0)) or 0)
    loss, norm = series_of(observations.steps, "loss"), series_of(observations.steps, "grad_norm")
    dead = len(loss) >= 3 and not any(loss.values) and len(norm) >= 3 and not any(norm.values) and not norm.bad_steps
    if masked is not None and masked <= WORTH_SAYING * rows and not dead:
        return RuledOut(Symptom.ALL_LABELS_MASKED, f"{masked} of {rows} rows have no supervised token")
    if (masked is not None and masked and masked <= cut) or (masked is None and not dead):
        return None  # truncation's finding: it took the labels with it
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


def duplicates(observations: Observations) -> Answer:
    audit = observations.audit
    rows = count(audit.get("rows", 0)) or 0
    repeated = count(audit["duplicate_rows"]) if rows and audit.get("duplicate_rows") is not None else None
    if repeated is None:
        facts = row_facts(observations.train_rows)
        rows, repeated = facts.rows, facts.duplicates
    if not rows:
        return None
    share = min(1.0, repeated / rows)
    distinct = rows - min(repeated, rows)
    if share <= WORTH_SAYING:
        return RuledOut(Symptom.DUPLICATES, f"{repeated} of {rows} rows repeat an earlier one")
    already = observations.recipe.get("data_deduplicate") is True
    return finding(
        observations,
        Symptom.DUPLICATES,
        Basis.DATA,
        severity=Severity.HARMFUL if share > MOST else Severity.ADVICE,
        confidence=0.9 if share > MOST else 0.6,
        evidence=[
            seen("duplicate_rows", None, repeated),
            seen("rows", None, rows),
            seen("distinct_rows", None, distinct),
        ],
        cause=f"{repeated} of {rows} training rows ({percent(share)}) repeat an earlier row; {distinct} are distinct, so one "
        f"epoch shows each of them {shown(rows / max(1, distinct))} times.",
        key="data_sources" if already else "data_deduplicate",
        suggested=None if already else True,
        harm=share,
        runner_up="overfit: too many epochs over few rows",
        refuted_by="the same held-out loss after training on the distinct rows alone",
    )


def label_noise(observations: Observations) -> Answer:
    noise = noise_of(observations)
    if noise is None:
        return None
    completions = [c for _, c in training_pairs(observations)]
    references = [r for _, r in known_pairs(observations)]
    # Longer or differently written answers share characters with any prompt: the comparison means nothing then.
    if text_distance(completions, references) > 0.35:
        return None
    error = 3 / max(1.0, noise.known.z)
    if noise.share < max(NOISE_WORTH_SAYING, error):
        return RuledOut(
            Symptom.LABEL_NOISE,
            f"answers share {shown(noise.train.excess)} more with their own prompt than with others, as the benchmark's do ({shown(noise.known.excess)})",
        )
    harmful = noise.share >= NOISE_HARMFUL and not observations.met
    return finding(
        observations,
        Symptom.LABEL_NOISE,
        Basis.DATA,
        severity=Severity.HARMFUL if harmful else Severity.ADVICE,
        confidence=0.9 if noise.share >= MOST else 0.75,
        evidence=[
            seen("pairing.train", None, noise.train.excess),
            seen("pairing.benchmark", None, noise.known.excess),
            seen("noise_share", None, noise.share),
            seen("rows_compared", None, noise.train.n),
        ],
        cause=f"About {percent(round(noise.share, 2))} of the training answers belong to another prompt: an answer shares "
        f"{shown(noise.train.excess)} more of its characters with its own prompt than with others, where the benchmark's "
        f"share {shown(noise.known.excess)}.",
        key=observations.first_key("data_sources", "train_file", "dataset_name"),
        harm=noise.share,
        runner_up="learning_rate: too high a rate leaves the same floor in the loss",
        refuted_by="twenty training rows, read by a person, whose answers are right",
    )


RULES = (
    Rule(
        Symptom.WRONG_COLUMNS, wrong_columns, "TRL dataset formats; † empty, echoed and swapped columns", preflight=True
    ),
    Rule(Symptom.TRUNCATION, truncation, "TRL max_length (default 1024, keep_start); 5 % of rows †", preflight=True),
    Rule(Symptom.MISSING_EOS, missing_eos, "TRL issue 3091, transformers issue 48016; 99 % of rows †", preflight=True),
    Rule(Symptom.ALL_LABELS_MASKED, all_labels_masked, "unsloth issue 2900: no supervised token", preflight=True),
    Rule(Symptom.DUPLICATES, duplicates, "near-duplicates above 5 % †", preflight=True),
    Rule(Symptom.LABEL_NOISE, label_noise, "† pairing of answers with prompts against the benchmark's", preflight=True),
)
