"""Rules about what the training rows say: the wrong columns, the same row again, answers of other prompts."""

from __future__ import annotations

import math

from bot.diagnosis.observations import Observations
from bot.diagnosis.outcomes import RowFacts, row_facts, text_distance
from bot.diagnosis.readings import count, shown
from bot.diagnosis.remedies import column_for
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, percent, seen
from bot.diagnosis.rules.pairs import known_pairs, noise_of, training_pairs
from bot.domain.diagnosis import Severity, Symptom

# Near-duplicates above five per cent are worth saying (SageMaker and the field's data guides).†
WORTH_SAYING = 0.05
# Half of a training set gone is no longer a matter of degree.
MOST = 0.5
ALL = 0.99
# 30 % of shuffled answers still trained to .92-.97 on a task of .99; 60 % did not. Between 20 % and that it is harm
# only when the target was missed.†
NOISE_WORTH_SAYING = 0.1
NOISE_HARMFUL = 0.2


def wrong_columns(observations: Observations) -> Answer:
    """Columns that exist but hold the wrong thing: nothing crashes, and the loss looks fine."""
    facts = row_facts(observations.train_rows)
    nulls = _nulls_by_audit(observations)
    if nulls is not None:
        return nulls
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
            observations, facts, observations.first_key("data_prompt_column", "data_completion_column"), what, 1.0,
            swapped=swapped,
        )  # fmt: skip
    return RuledOut(
        Symptom.WRONG_COLUMNS,
        f"of {facts.rows} rows read {facts.empty_completions} have an empty completion and {facts.echoes} "
        f"repeat their prompt",
    )


def _nulls_by_audit(observations: Observations) -> Answer:
    """Answers that are null are trained as empty ones, without a word."""
    rows = observations.counted("rows") or 0
    nulls, empty = observations.counted("null_completions") or 0, observations.counted("empty_completions") or 0
    if not rows or (nulls + empty) / rows <= WORTH_SAYING:
        return None
    share = min(1.0, (nulls + empty) / rows)
    facts = RowFacts(rows, 0, nulls + empty, 0, 0, 0)
    what = f"the answer is null in {nulls} and empty in {empty} of them, and the model learns to say nothing"
    return _column_finding(observations, facts, "data_completion_column", what, share)


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
    observations: Observations, facts: RowFacts, key: str, what: str, share: float, *, columns: str = "",
    swapped: float | None = None,
) -> Answer:  # fmt: skip
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
            *([seen("swapped", None, swapped)] if swapped is not None else []),
        ],
        cause=f"In {facts.rows} training rows, {what}{f' (`{key}: {setting}`)' if setting is not None else ''}.",
        key=key,
        suggested=suggested,
        harm=share,
        runner_up="the source file itself: a column that is empty or misnamed there",
        refuted_by="a row of train.jsonl, read by a person, whose completion answers its prompt",
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
        cause=f"{repeated} of {rows} training rows ({percent(share)}) repeat an earlier row; {distinct} are "
        f"distinct, so one "
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
    # Three standard errors of the ratio of the two excesses.
    error = 3 * math.hypot(1 / max(1.0, noise.known.z), (1 - noise.share) / max(1.0, abs(noise.train.z)))
    if noise.train.n < 30 or noise.share < max(NOISE_WORTH_SAYING, error):
        return RuledOut(
            Symptom.LABEL_NOISE,
            f"answers share {shown(noise.train.excess)} more with their own prompt than with others, as the "
            f"benchmark's do ({shown(noise.known.excess)})",
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
        cause=f"About {percent(round(noise.share, 2))} of the training answers belong to another prompt: an "
        f"answer shares "
        f"{shown(noise.train.excess)} more of its characters with its own prompt than with others, where the "
        f"benchmark's "
        f"share {shown(noise.known.excess)}.",
        key=source_of(observations),
        harm=noise.share,
        runner_up="learning_rate: too high a rate leaves the same floor in the loss",
        refuted_by="twenty training rows, read by a person, whose answers are right",
    )


def empty_texts(observations: Observations) -> Answer:
    found, rows = observations.counted("empty_texts"), observations.counted("rows")
    return unlearnable(observations, "empty_texts", found, rows, "texts are empty and have a class all the same")


def contradicting_classes(observations: Observations) -> Answer:
    """The same text or picture under several classes: at most one of them can be right."""
    of = observations.counted("distinct_prompts") or observations.counted("rows")
    for name, what in (("contradicting_texts", "texts"), ("contradicting_images", "pictures")):
        if (found := observations.counted(name)) is not None:
            return unlearnable(observations, name, found, of, f"distinct {what} stand under several classes")
    return None


def unlearnable(observations: Observations, name: str, found: int | None, of: int | None, what: str) -> Answer:
    """Rows whose class or text does not follow from what is read, seen or heard: labels that teach guessing."""
    if found is None or not of:
        return None
    share = min(1.0, found / of)
    if share <= WORTH_SAYING:
        return RuledOut(Symptom.LABEL_NOISE, f"{found} of {of} {what}")
    severity = Severity.HARMFUL if share >= NOISE_HARMFUL else Severity.ADVICE
    return finding(
        observations,
        Symptom.LABEL_NOISE,
        Basis.DATA,
        severity=Severity.FATAL if share > ALL and not observations.met else severity,
        confidence=0.9,
        evidence=[seen(name, None, found), seen("rows_compared", None, of)],
        cause=f"{found} of {of} ({percent(share)}) {what}.",
        key=source_of(observations),
        harm=share,
        runner_up="wrong_columns: another column holds what was meant",
        refuted_by="twenty of these rows, looked at by a person, whose answers are right",
    )


def source_of(observations: Observations) -> str:
    """The key that says where the rows come from."""
    return observations.first_key("data_sources", "train_file", "dataset_name")


RULES = (
    Rule(
        Symptom.WRONG_COLUMNS, wrong_columns, "TRL dataset formats; † empty, echoed and swapped columns", preflight=True
    ),
    Rule(Symptom.DUPLICATES, duplicates, "near-duplicates above 5 % †", preflight=True),
    Rule(Symptom.LABEL_NOISE, label_noise, "† pairing of answers with prompts against the benchmark's", preflight=True),
    Rule(Symptom.LABEL_NOISE, empty_texts, "† empty texts with a class", preflight=True),
    Rule(Symptom.LABEL_NOISE, contradicting_classes, "† one text or picture under several classes", preflight=True),
)
