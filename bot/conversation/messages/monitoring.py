"""What the monitor saw in a running job, and what ending it has saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bot.conversation.messages.keys import LONGEST_CHECK_TEXT, LONGEST_CHECK_TITLE, within_limit
from bot.conversation.messages.wording import duration, listed, usd
from bot.domain.diagnosis import Diagnosis
from bot.domain.inert import clipped, code, inert_line, inert_plain

_TIERS = {
    "preflight": "before its first step",
    "hard": "because no further step can take this back",
    "soft": "because two independent signs of it last",
}


def stopped_sentence(stopped: Mapping[str, Any]) -> str:
    """Why the monitor ended a run and what that saved, one line; `stopped` is the data of a MONITORED event, or of a
    JOB_REFUSED."""
    cause = stopped["diagnoses"][0]
    if stopped.get("refused"):
        return f"Not started, because of what is known before the first step: {cause['cause']}"
    of = f" of {stopped['total_steps']:,}" if stopped.get("total_steps") else ""
    where = f"at step {stopped['step']:,}{of}" if stopped["step"] else _TIERS["preflight"]
    why = "" if stopped["tier"] == "preflight" else f", {_TIERS.get(stopped['tier'], '')}"
    return f"Ended by the monitor {where}{why}: {cause['cause']} {saved_words(stopped)}".strip()


def saved_words(stopped: Mapping[str, Any]) -> str:
    """`That saved about 14 min of GPU time (0.93 USD).`, nothing where it is not known."""
    seconds = stopped.get("saved_seconds")
    if not seconds:
        return ""
    money = f" ({usd(stopped['saved_usd'])})" if stopped.get("saved_usd") else ""
    return f"That saved about {duration(seconds)} of {stopped.get('device') or 'machine'} time{money}."


def stopping_check(stopped: Mapping[str, Any]) -> tuple[str, str]:
    """(title, summary) of the run's check while the job is being ended."""
    symptom = stopped["diagnoses"][0]["symptom"]
    title = clipped(inert_plain(f"ended by the monitor: {symptom} at step {stopped['step']:,}"), LONGEST_CHECK_TITLE)
    lines = [f"**{inert_line(stopped_sentence(stopped), 700)}**"]
    lines += [_signal(item) for item in stopped.get("signals", ())]
    first = "A checkpoint is made first. " if stopped.get("worth_saving") else ""
    lines.append(f"{first}The diagnosis and what comes next follow in the review.")
    return title, within_limit("\n\n".join(lines) + "\n", LONGEST_CHECK_TEXT)


def _signal(item: Mapping[str, Any]) -> str:
    return f"- {code(item['key'], 80)} is {code(str(item['value']), 40)} at step {item['step']:,}, and has been so."


def monitor_advice(found: Sequence[Diagnosis], *, would_end: bool = False) -> str:
    """A running check's line on what the monitor sees and does nothing about."""
    if not found:
        return ""
    names = listed([f"`{each.symptom}` ({inert_line(each.cause, 200)})" for each in found[:3]])
    policy = " The policy's `monitor: advise` lets it go on." if would_end else ""
    return f"The monitor sees {names}.{policy}"
