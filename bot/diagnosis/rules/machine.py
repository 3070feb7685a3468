"""Rules about the machine under a job: its time limit, its disk, processes that wait for each other, and silence."""

from __future__ import annotations

from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import count, finite, shown
from bot.diagnosis.remedies import duration_key, scaled_duration
from bot.diagnosis.rules.ends import crash_of, crashed_by, has_end, job_words, logged_step
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, seen
from bot.domain.diagnosis import Severity, Symptom

# A job that dies this close to the whole length of the run has been stopped by something else than its length.
NEARLY_DONE = 0.98
# SageMaker Debugger's StalledTrainingRule.
STALL_SECONDS = 1800
# A pace is known once so much of the run has been done: the first steps compile, allocate and fill caches.†
PACE_KNOWN = 0.05
TIMEOUT_KEYS = ("timeout_seconds", "timeout_minutes", "timeout_hours", "timeout")


def out_of_time(observations: Observations) -> Answer:
    crash = crash_of(observations)
    by_supervisor = observations.job.get("failure") == "timeout"
    if not by_supervisor and (crash is None or crash.symptom is not Symptom.JOB_TIMEOUT):
        return RuledOut(Symptom.JOB_TIMEOUT, "the job ended before its time limit") if has_end(observations) else None
    step, planned = observations.last_step, observations.planned_steps
    words = job_words(observations) if by_supervisor else crash.exception if crash is not None else ""
    share = step / planned if planned else None
    key = next((k for k in TIMEOUT_KEYS if k in observations.recipe), None)
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


def too_long_for_its_limit(observations: Observations) -> Answer:
    """Seconds a step times the planned steps, against the time limit: before the first step from a timing probe, later
    from the time that the steps so far have taken."""
    limit = _limit_seconds(observations)
    planned, done = observations.planned_steps, observations.last_step
    if limit is None or not planned or observations.finished or observations.failed:
        return None
    elapsed = _number(observations.job, "seconds")
    paced = _number(observations.timing, "seconds_per_step")
    measured_at = None
    if elapsed is not None and done >= max(3, PACE_KNOWN * planned):
        paced, measured_at = elapsed / done, done
    if paced is None:
        return None
    needed = paced * planned
    if needed <= limit:
        return RuledOut(
            Symptom.JOB_TIMEOUT, f"{planned} steps of {shown(paced)} s need {shown(needed)} of {limit:.0f} s"
        )
    key = next((k for k in TIMEOUT_KEYS if k in observations.recipe), None) or duration_key(observations.recipe)
    # A fifth more than needed: evaluation and saving come after the last step.
    own_limit = round(1.2 * needed / {"timeout_minutes": 60, "timeout_hours": 3600}.get(key, 1))
    shorter = scaled_duration(observations.recipe, 0.8 * limit / needed)
    return finding(
        observations,
        Symptom.JOB_TIMEOUT,
        Basis.DATA,
        severity=Severity.FATAL if needed > 1.1 * limit else Severity.HARMFUL,
        confidence=0.9 if needed > 1.3 * limit else 0.7,
        evidence=[
            seen("seconds_per_step", measured_at, paced),
            seen("planned_steps", None, planned),
            seen("timeout_seconds", None, limit),
        ],
        cause=f"At {shown(paced)} s a step the {planned} steps need {shown(needed)} s, and the time limit is "
        f"{limit:.0f} s: the job would end at about step {int(limit / paced)}.",
        key=key,
        suggested=own_limit if key in TIMEOUT_KEYS else shorter,
        runner_up="a machine that was busy while the pace was measured",
        refuted_by="a later pace that would fit",
        certain_at=measured_at,
    )


def _limit_seconds(observations: Observations) -> float | None:
    for holder, key, unit in (
        (observations.recipe, "timeout_seconds", 1),
        (observations.recipe, "timeout_minutes", 60),
        (observations.recipe, "timeout_hours", 3600),
        (observations.job, "timeout_seconds", 1),
        (observations.hardware, "timeout_seconds", 1),
    ):
        value = _number(holder, key)
        if value is not None and value > 0:
            return value * unit
    return None


def _number(holder: object, key: str) -> float | None:
    value = holder.get(key) if isinstance(holder, dict) else None
    return finite(value) if value is not None else None


def disk_full(observations: Observations) -> Answer:
    crash = crashed_by(observations, Symptom.DISK_FULL)
    if crash is None and observations.job.get("failure") != "disk_full":
        return RuledOut(Symptom.DISK_FULL, "nothing failed to be written") if has_end(observations) else None
    words = crash.exception if crash is not None else job_words(observations)
    kept = count(observations.recipe["save_total_limit"]) if observations.recipe.get("save_total_limit") else None
    told = observations.recipe.get("save_steps") is not None or observations.defaults_hold
    every = observations.setting("save_steps", 500) if told else None
    rarer = round(4 * every) if every is not None else None
    each = f" of each {shown(every)} steps" if every is not None else ""
    saving = str(observations.recipe.get("save_strategy", "steps")).lower() not in ("no", "false")
    # Checkpoints are what fills a disk: as few as resuming needs, then less often, then none.
    key, suggested = ("save_total_limit", 1) if kept is None or kept > 1 else ("save_steps", rarer)
    return finding(
        observations,
        Symptom.DISK_FULL,
        Basis.CRASH,
        severity=Severity.FATAL,
        confidence=0.95,
        evidence=[
            seen("log", logged_step(observations), words),
            seen("save_total_limit", None, kept if kept is not None else "all are kept"),
            *([seen("save_steps", None, every)] if every is not None else []),
        ],
        cause=f"The disk (or its quota) was full after {observations.last_step} logged steps: {words}. "
        f"{'Every' if kept is None else f'The last {kept}'} of the checkpoints{each} "
        f"{'are' if saving else 'would be'} kept.",
        key=key,
        suggested=suggested if saving else None,
        runner_up="a cache of models or data on the same disk",
        refuted_by="free space on that disk when the write failed",
    )


def collective_timeout(observations: Observations) -> Answer:
    crash = crashed_by(observations, Symptom.NCCL_TIMEOUT)
    if crash is None:
        return None
    what = f" in {crash.subject}" if crash.subject else ""
    lost = "closed by peer" in crash.exception or "RemoteError" in crash.exception
    return finding(
        observations,
        Symptom.NCCL_TIMEOUT,
        Basis.CRASH,
        severity=Severity.FATAL,
        confidence=0.8 if lost else 0.9,
        evidence=[
            seen("log", logged_step(observations), crash.exception),
            seen("ddp_timeout", None, observations.setting("ddp_timeout", 1800)),
            seen("step", None, observations.last_step),
        ],
        cause=f"Processes waited for each other{what} until the limit, after {observations.last_step} logged steps: "
        f"{crash.exception}. One of them was slower by that much, or dead.",
        key="ddp_timeout",
        # Twice as long tells a slow process from a dead one.
        suggested=round(2 * observations.setting("ddp_timeout", 1800)),
        runner_up="oom: the process that did not come had died of its memory before",
        refuted_by="a stack of every process that shows the same line",
    )


def stall(observations: Observations) -> Answer:
    """Nothing was written for half an hour, while the job went on."""
    quiet = _number(observations.job, "seconds_since_output")
    named = observations.job.get("failure") in ("stall", "stalled")
    if not named and quiet is None:
        return None
    if not named and (quiet or 0) < STALL_SECONDS:
        return RuledOut(Symptom.STALL, f"the last output is {shown(quiet)} s old")
    silence = shown(quiet) if quiet is not None else f"more than {STALL_SECONDS}"
    pinned = (count(observations.recipe.get("dataloader_num_workers", 0) or 0) or 0) > 0
    return finding(
        observations,
        Symptom.STALL,
        Basis.CRASH,
        severity=Severity.FATAL,
        confidence=0.85,
        evidence=[
            seen("seconds_since_output", observations.last_step, quiet),
            seen("limit_seconds", None, STALL_SECONDS),
        ],
        cause=f"Nothing has been written for {silence} s "
        f"since step {observations.last_step}, and the job is still there.",
        key="dataloader_num_workers" if pinned else None,
        suggested=0 if pinned else None,
        runner_up="nccl_timeout: a collective operation that has not timed out yet",
        refuted_by="a stack of the process (py-spy dump) that moves between two looks",
    )


RULES = (
    Rule(Symptom.JOB_TIMEOUT, out_of_time, "the supervisor's time-out flag; Slurm's, Actions' and HF Jobs' messages"),
    Rule(
        Symptom.JOB_TIMEOUT,
        too_long_for_its_limit,
        "estimated time at 5 % of the run above the limit †; Hugging Face Jobs ends a job after 30 minutes by default",
        preflight=True,
        online=True,
    ),
    Rule(Symptom.DISK_FULL, disk_full, "ENOSPC, EDQUOT and EFBIG in the words of Python, Rust and PyTorch"),
    Rule(Symptom.NCCL_TIMEOUT, collective_timeout, "torch's watchdog; Axolotl's NCCL guide; open-r1 issue 620"),
    Rule(Symptom.STALL, stall, "SageMaker Debugger StalledTrainingRule: 1800 s"),
)
