"""Rules about recordings and pictures, as the audits of the speech and vision scripts count them."""

from __future__ import annotations

from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import finite, shown
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, percent, seen
from bot.diagnosis.rules.rows import source_of, unlearnable
from bot.domain.diagnosis import Severity, Symptom

# To leave out what exceeds the model's window is how Whisper is fine-tuned; a run on less than half of the recordings
# is another one than was asked for.†
MOST = 0.5


def recordings_left_out(observations: Observations) -> Answer:
    """Recordings above the encoder's window, and texts above what the decoder can write, are not trained on."""
    rows, left_out = observations.counted("rows"), observations.counted("dropped_rows")
    if not rows or left_out is None or not observations.part("audio"):
        return None
    if not left_out:
        return RuledOut(Symptom.TRUNCATION, f"0 of {rows} recordings or texts are longer than the model takes")
    window = finite(observations.part("audio").get("window_seconds") or 0)
    too_long = observations.counted("longer_than_window", "audio") or 0
    too_wordy = observations.counted("texts_too_long", "audio") or 0
    share = min(1.0, left_out / rows)
    why = [f"{too_long} are longer than the {shown(window)} s that the model hears"] if too_long and window else []
    why += [f"the texts of {too_wordy} are longer than it can write"] if too_wordy else []
    return finding(
        observations,
        Symptom.TRUNCATION,
        Basis.DATA,
        severity=Severity.HARMFUL if share > MOST else Severity.ADVICE,
        confidence=0.95,
        evidence=[
            seen("dropped_rows", None, left_out),
            seen("rows", None, rows),
            seen("audio.longer_than_window", None, too_long),
            seen("audio.texts_too_long", None, too_wordy),
        ],
        cause=f"{left_out} of {rows} recordings ({percent(share)}) are left out whole"
        f"{': ' + ', and '.join(why) if why else ''}. Cut into pieces with their texts they would be learned from.",
        key=source_of(observations),
        harm=share,
        runner_up="none: the script counted them",
        refuted_by="an audit of the same rows that leaves none out",
    )


def nothing_to_hear(observations: Observations) -> Answer:
    found, rows = observations.counted("silent_rows", "audio"), observations.counted("rows")
    return unlearnable(
        observations, "audio.silent_rows", found, rows, "recordings are silent and have a text all the same"
    )


def nothing_to_see(observations: Observations) -> Answer:
    found, sampled = observations.counted("uniform", "images"), observations.counted("sampled", "images")
    what = "sampled pictures are of one colour, as the model sees them, and have a class all the same"
    return unlearnable(observations, "images.uniform", found, sampled, what)


RULES = (
    Rule(Symptom.TRUNCATION, recordings_left_out, "Whisper hears 30 s (2212.04356, section 2.1) †", preflight=True),
    Rule(Symptom.LABEL_NOISE, nothing_to_hear, "† silent recordings with a text", preflight=True),
    Rule(Symptom.LABEL_NOISE, nothing_to_see, "† pictures of one colour with a class", preflight=True),
)
