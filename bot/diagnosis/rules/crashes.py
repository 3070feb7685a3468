"""Rules about jobs that ended wrongly: memory, time, columns, and any other exception."""

from __future__ import annotations

from bot.diagnosis.curves import observed
from bot.diagnosis.logs import Crash, last_crash
from bot.diagnosis.observations import Observations
from bot.diagnosis.outcomes import row_facts
from bot.diagnosis.readings import count, finite
from bot.diagnosis.remedies import (
    DEFAULT_BATCH_SIZE,
    column_for,
    duration_key,
    max_length_for,
    scaled_duration,
    smaller_memory,
)
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, seen
from bot.domain.diagnosis import Evidence, Severity, Symptom

_COLUMN_KEYS = (
    "data_completion_column",
    "data_prompt_column",
    "dataset_text_field",
    "text_column",
    "prompt_column",
    "response_column",
)
# A job that dies this close to the whole length of the run has been stopped by something else than its length.
NEARLY_DONE = 0.98


def crash_of(observations: Observations) -> Crash | None:
    """How the job ended, None when it did not crash. A job that succeeded, or whose model was evaluated, did not."""
    if observations.finished:
        return None
    names = frozenset(str(v) for k, v in observations.recipe.items() if k.endswith(("_column", "_field")))
    return last_crash(observations.log, column_names=names)


def out_of_memory(observations: Observations) -> Answer:
    crash = crash_of(observations)
    by_kernel = observations.job.get("failure") == "oom"
    if not by_kernel and (crash is None or crash.symptom is not Symptom.OOM):
        return (
            RuledOut(Symptom.OOM, "the log and the job's status show no allocation failure")
            if _has_end(observations)
            else None
        )
    key, suggested = smaller_memory(observations.recipe)
    step = _last_step(observations)
    words = crash.exception if crash is not None and crash.symptom is Symptom.OOM else _job_words(observations)
    batch = count(observations.recipe.get("per_device_train_batch_size", DEFAULT_BATCH_SIZE))
    peak = finite(observations.job.get("peak_memory_gib", "")) if observations.job else None
    evidence = [seen("log", step, words), seen("per_device_train_batch_size", None, batch)]
    evidence += [seen("peak_memory_gib", step, peak)] if peak is not None else []
    phase = f" in the {crash.phase} phase" if crash is not None and crash.phase else ""
    return finding(
        observations,
        Symptom.OOM,
        Basis.CRASH,
        severity=Severity.FATAL,
        confidence=0.97,
        evidence=evidence,
        cause=f"The job ran out of memory{phase} after {step or 0} logged steps with {batch} sequences per "
        f"device ({words}).",
        key=key,
        suggested=suggested,
        runner_up="max_length: a few very long rows fill the memory of their batch",
        refuted_by="the same allocation failure with the batch at 1, or before the first batch is built",
    )


def out_of_time(observations: Observations) -> Answer:
    crash = crash_of(observations)
    by_supervisor = observations.job.get("failure") == "timeout"
    if not by_supervisor and (crash is None or crash.symptom is not Symptom.JOB_TIMEOUT):
        return RuledOut(Symptom.JOB_TIMEOUT, "the job ended before its time limit") if _has_end(observations) else None
    step, planned = _last_step(observations) or 0, _planned_steps(observations)
    words = _job_words(observations) if by_supervisor else crash.exception if crash is not None else ""
    share = step / planned if planned else None
    key = next(
        (k for k in ("timeout_seconds", "timeout_minutes", "timeout_hours", "timeout") if k in observations.recipe),
        None,
    )
    if key is not None:
        limit = observations.setting(key, 0.0)
        # A fifth more than the pace so far needs: evaluation and saving come after the last step.
        suggested: float | int | None = round(limit * 1.2 / share) if share and limit > 0 else round(limit * 2) or None
    else:
        key = duration_key(observations.recipe)
        suggested = (
            scaled_duration(observations.recipe, max(0.05, 0.8 * share)) if share and share < NEARLY_DONE else None
        )
    reached = f"at step {step} of {planned}" if planned else f"at step {step}"
    return finding(
        observations,
        Symptom.JOB_TIMEOUT,
        Basis.CRASH,
        severity=Severity.FATAL,
        confidence=0.97,
        evidence=[
            seen("job.failure", step, words or "timeout"),
            seen("step", step, step),
            seen("planned_steps", None, planned),
        ],
        cause=f"The time limit ended the job {reached}; at that pace the whole run does not fit into it.",
        key=key,
        suggested=suggested,
        runner_up="a stalled data loader or a machine shared with others: the pace, not the length",
        refuted_by="steps that stopped coming long before the limit (a stall), or a pace that would have fitted",
    )


def wrong_columns(observations: Observations) -> Answer:
    crash = crash_of(observations)
    if crash is None or crash.symptom is not Symptom.WRONG_COLUMNS:
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
        evidence=[seen("log", _last_step(observations), crash.exception), seen("columns", None, columns)],
        cause=f"The job asked for {missing}, which the data, with {len(present)} columns ({columns}), does not have: "
        f"{crash.exception}{' (' + crash.where + ')' if crash.where else ''}.",
        key=key,
        suggested=column_for(key, present, recipe.get(key)),
        runner_up="script_error: the script asks for a key that no column was meant to have",
        refuted_by=f"a {missing} in every row of the file that the job read",
    )


def all_rows_dropped(observations: Observations) -> Answer:
    """TRL drops rows whose labels are all cut away; with every row gone the sampler has nothing to draw."""
    crash = crash_of(observations)
    if crash is None or crash.symptom is not Symptom.TRUNCATION:
        return None
    lengths = observations.audit.get("token_lengths")
    max_length = count(observations.recipe.get("max_length", 1024) or 1024) or 1024
    facts = row_facts(observations.train_rows)
    if facts.rows and facts.empty_completions == facts.rows:
        return None  # nothing was cut: there were no answers to begin with, which is the data rules' finding
    return finding(
        observations,
        Symptom.TRUNCATION,
        Basis.CRASH,
        severity=Severity.FATAL,
        confidence=0.85,
        evidence=[seen("log", None, crash.exception), seen("max_length", None, max_length)],
        cause=f"No training row was left: every row's prompt alone fills max_length {max_length}, and rows without a "
        f"supervised token are dropped ({crash.exception}).",
        key="max_length",
        suggested=max_length_for(lengths, max_length) if isinstance(lengths, dict) else max_length * 2,
        runner_up="wrong_columns: the completions are empty",
        refuted_by=f"rows whose prompt and completion together are shorter than {max_length} tokens",
    )


def refused_mask(observations: Observations) -> Answer:
    crash = crash_of(observations)
    if crash is None or crash.symptom is not Symptom.ALL_LABELS_MASKED:
        return None
    return finding(
        observations,
        Symptom.ALL_LABELS_MASKED,
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


def script_error(observations: Observations) -> Answer:
    crash = crash_of(observations)
    kind = observations.job.get("failure")
    if kind in ("oom", "timeout", "platform") or (crash is None and kind is None):
        return RuledOut(Symptom.SCRIPT_ERROR, "no traceback ends the log") if _has_end(observations) else None
    words = crash.exception if crash is not None else _job_words(observations)
    subject = crash.subject if crash is not None else ""
    key = subject if subject in observations.recipe else None
    where = f" at {crash.where}" if crash is not None and crash.where else ""
    evidence: list[Evidence] = [seen("log", _last_step(observations), words)]
    if (exit_code := observations.job.get("exit_code")) is not None:
        evidence.append(seen("exit_code", None, exit_code if isinstance(exit_code, int) else str(exit_code)))
    return finding(
        observations,
        Symptom.SCRIPT_ERROR,
        Basis.CRASH,
        severity=Severity.FATAL,
        confidence=0.9,
        evidence=evidence,
        cause=f"The script stopped{where} after {_last_step(observations) or 0} logged steps: {words}."
        + (f" The recipe's key `{key}` is named in it." if key else ""),
        key=key,
        runner_up="the environment: a library version that the script was not written for",
        refuted_by="the same script and recipe ending well in the same environment",
    )


def _has_end(observations: Observations) -> bool:
    """Something was observed of how the job ended."""
    return bool(observations.job) or bool(observations.log) or observations.evaluation is not None


def _job_words(observations: Observations) -> str:
    evidence = observations.job.get("evidence")
    words = "; ".join(str(item) for item in evidence) if isinstance(evidence, list) else ""
    return words[:200] or str(observations.job.get("failure") or observations.job.get("state") or "")


def _last_step(observations: Observations) -> int | None:
    return int(observations.steps[-1]["step"]) if observations.steps else None


def _planned_steps(observations: Observations) -> int | None:
    """Steps the run was meant to take: max_steps, or epochs over the epochs that its records reached."""
    if (planned := count(observations.setup.get("max_steps", "")) or 0) > 0:
        return planned
    if duration_key(observations.recipe) == "max_steps":
        return count(observations.recipe["max_steps"])
    epoch = observed(observations, "epoch")
    if len(epoch) and epoch.values[-1] > 0:
        return count(observations.setting("num_train_epochs", 3.0) / epoch.values[-1] * epoch.last_step)
    return None


RULES = (
    Rule(Symptom.OOM, out_of_memory, "cgroup oom_kill counter and the allocators' own messages"),
    Rule(Symptom.JOB_TIMEOUT, out_of_time, "the supervisor's time-out flag; Slurm's, Actions' and HF Jobs' messages"),
    Rule(Symptom.WRONG_COLUMNS, wrong_columns, "KeyError 'text' or 'prompt', TRL's 'Unexpected input keys'"),
    Rule(Symptom.TRUNCATION, all_rows_dropped, "TRL drops fully masked rows: num_samples=0"),
    Rule(Symptom.ALL_LABELS_MASKED, refused_mask, "TRL's ValueError for assistant_only_loss without markers"),
    Rule(Symptom.SCRIPT_ERROR, script_error, "the last traceback of the log"),
)
