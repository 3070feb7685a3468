"""Rules about jobs that the data or the script ended: columns, empty rows, masks, and any other exception."""

from __future__ import annotations

from bot.diagnosis.defaults import max_length
from bot.diagnosis.observations import Observations
from bot.diagnosis.outcomes import row_facts
from bot.diagnosis.remedies import column_for, max_length_for
from bot.diagnosis.rules.ends import crash_of, crashed_by, has_end, job_words, killed, logged_step
from bot.diagnosis.rules.finding import RECIPE, Answer, Basis, Rule, RuledOut, finding, seen
from bot.domain.diagnosis import Evidence, Severity, Symptom

_COLUMN_KEYS = (
    "data_completion_column",
    "data_prompt_column",
    "dataset_text_field",
    "text_column",
    "prompt_column",
    "response_column",
)


def wrong_columns(observations: Observations) -> Answer:
    crash = crashed_by(observations, Symptom.WRONG_COLUMNS)
    if crash is None:
        return None
    recipe = observations.recipe
    blamed = crash.subject if crash.subject in _COLUMN_KEYS else None
    blamed = blamed or next((k for k in _COLUMN_KEYS if str(recipe.get(k)) == crash.subject), None)
    key = blamed or observations.first_key("data_prompt_column", "data_completion_column", "dataset_text_field")
    present = crash.columns or observations.train_columns
    columns = ", ".join(present) or "unknown"
    missing = f"column {recipe.get(key, crash.subject)!r}" if crash.subject else "a column"
    return finding(
        observations,
        Symptom.WRONG_COLUMNS,
        Basis.CRASH,
        severity=Severity.FATAL,
        confidence=0.95 if crash.subject else 0.85,
        evidence=[seen("log", logged_step(observations), crash.exception), seen("columns", None, columns)],
        cause=f"The job asked for {missing}, which the data, with {len(present)} columns ({columns}), does not have: "
        f"{crash.exception}{' (' + crash.where + ')' if crash.where else ''}.",
        key=key,
        suggested=column_for(key, present, recipe.get(key)),
        runner_up="script_error: the script asks for a key that no column was meant to have",
        refuted_by=f"a {missing} in every row of the file that the job read",
    )


def all_rows_dropped(observations: Observations) -> Answer:
    """TRL drops rows whose labels are all cut away; with every row gone the sampler has nothing to draw."""
    crash = crashed_by(observations, Symptom.TRUNCATION)
    if crash is None:
        return None
    lengths = observations.audit.get("token_lengths")
    limit = max_length(observations)
    length = f"max_length {limit}" if limit is not None else "the maximal length"
    evidence = [seen("log", None, crash.exception)]
    evidence += [seen("max_length", None, limit)] if limit is not None else []
    suggested = 2 * limit if limit is not None else None
    if isinstance(lengths, dict) and limit is not None:
        suggested = max_length_for(lengths, limit)
    facts = row_facts(observations.train_rows)
    if facts.rows and facts.empty_completions == facts.rows:
        return None  # nothing was cut: there were no answers to begin with, which is the data rules' finding
    return finding(
        observations,
        Symptom.TRUNCATION,
        Basis.CRASH,
        severity=Severity.FATAL,
        confidence=0.85,
        evidence=evidence,
        cause=f"No training row was left: every row's prompt alone fills {length}, and rows without a "
        f"supervised token are dropped ({crash.exception}).",
        key="max_length",
        suggested=suggested,
        runner_up="wrong_columns: the completions are empty",
        refuted_by=f"rows whose prompt and completion together are shorter than {length} (in tokens)",
    )


def refused_mask(observations: Observations) -> Answer:
    crash = crashed_by(observations, Symptom.ASSISTANT_MASK_EMPTY)
    if crash is None:
        return None
    return finding(
        observations,
        Symptom.ASSISTANT_MASK_EMPTY,
        Basis.CRASH,
        severity=Severity.FATAL,
        confidence=0.9,
        evidence=[seen("log", None, crash.exception), seen("assistant_only_loss", None, "true")],
        cause="assistant_only_loss needs a chat template with {% generation %} markers and this one has none, so no "
        f"token would be trained ({crash.exception}).",
        key="assistant_only_loss",
        suggested=False,
        runner_up="chat_template_path: a template with generation markers would keep the mask",
        refuted_by="a chat template whose assistant turns lie between {% generation %} and {% endgeneration %}",
    )


# Ends that another rule names, whatever the log says besides.
_NAMED_ENDS = ("oom", "timeout", "platform", "disk_full", "stall", "stalled")


def script_error(observations: Observations) -> Answer:
    """Any other exception, with its most telling line, in the file and on the line that raised it."""
    crash, kind = crash_of(observations), observations.job.get("failure")
    if kind in _NAMED_ENDS or (crash is None and (kind is None or killed(observations))):
        return RuledOut(Symptom.SCRIPT_ERROR, "no traceback ends the log") if has_end(observations) else None
    if crash is not None and crash.symptom is not Symptom.SCRIPT_ERROR:
        return None
    words = crash.exception if crash is not None else job_words(observations)
    subject = crash.subject if crash is not None else ""
    # A line of the recipe is what a person can change; without one, the line of the script that raised it.
    key = subject if observations.line(subject) is not None else None
    own = crash.script_line if crash is not None else None
    file, line = own if own is not None and key is None else (RECIPE, None)
    where = f" at {crash.where}" if crash is not None and crash.where else ""
    evidence: list[Evidence] = [seen("log", logged_step(observations), words)]
    if (exit_code := observations.job.get("exit_code")) is not None:
        evidence.append(seen("exit_code", None, exit_code if isinstance(exit_code, int) else str(exit_code)))
    return finding(
        observations,
        Symptom.SCRIPT_ERROR,
        Basis.CRASH,
        severity=Severity.FATAL,
        confidence=0.9,
        evidence=evidence,
        cause=f"The script stopped{where} after {observations.last_step} logged steps: {words}."
        + (f" The recipe's key `{key}` is named in it." if key else ""),
        key=key,
        file=file,
        line=line,
        runner_up="the environment: a library version that the script was not written for",
        refuted_by="the same script and recipe ending well in the same environment",
    )


RULES = (
    Rule(Symptom.WRONG_COLUMNS, wrong_columns, "KeyError 'text' or 'prompt', TRL's 'Unexpected input keys'"),
    Rule(Symptom.TRUNCATION, all_rows_dropped, "TRL drops fully masked rows: num_samples=0"),
    Rule(Symptom.ASSISTANT_MASK_EMPTY, refused_mask, "TRL's ValueError for assistant_only_loss without markers"),
    Rule(Symptom.SCRIPT_ERROR, script_error, "the last traceback of the log"),
)
