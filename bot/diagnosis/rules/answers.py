"""Rules about what the trained model answers: endings, format, and prompts it was not trained for."""

from __future__ import annotations

from bot.diagnosis.curves import last_run, observed, tail_value
from bot.diagnosis.observations import Observations
from bot.diagnosis.outcomes import Answers, answers_of, text_distance
from bot.diagnosis.readings import count, finite, shown
from bot.diagnosis.remedies import power_of_two
from bot.diagnosis.rewarding import rewards_of
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, percent, seen
from bot.diagnosis.rules.pairs import trained_length, training_pairs
from bot.domain.diagnosis import Severity, Symptom

# Axolotl's GRPO guide: clipped ratio above .8 is a fault, below .3 is healthy. An evaluation that is cut more often
# than that is wrong about its model.
CUT_HEALTHY = 0.3
CUT_FAULT = 0.8
# lm-evaluation-harness issue 3404: GPQA strict 0.0000 beside flexible 0.5455. A gap above 5 % is worth saying.†
FORMAT_GAP = 0.05
FORMAT_ITEMS = 5
# Logged steps in a row, before anything is said of a run that goes on.†
CUT_STEPS = 10
WORTH_SAYING = 0.05
TRL_CAP = 512.0
CAP_KEYS = ("max_completion_length", "max_new_tokens", "max_gen_toks", "max_tokens", "eval_max_new_tokens")


def missing_eos(observations: Observations) -> Answer:
    answers = _answers(observations)
    if answers is None or answers.cut < CUT_HEALTHY or answers.run_on is None:
        return _ends_by_itself(Symptom.MISSING_EOS, answers)
    if _before(observations) > answers.cut - 0.2 or not _runs_past(observations, answers):
        return None
    if cap_below_answers(observations):
        return None  # cut where right answers are longer: it never saw an end, and the cap is why
    if ends_as_served(observations):
        return RuledOut(Symptom.MISSING_EOS, "the probes end by themselves, asked as the model is served")
    key = observations.first_key("eos_token", "chat_template_path", "pad_token")
    return finding(
        observations,
        Symptom.MISSING_EOS,
        Basis.ANSWERS,
        severity=Severity.HARMFUL,
        confidence=0.85 if answers.run_on >= 0.3 or (answers.looping or 0) >= 0.5 else 0.65,
        evidence=[
            seen("termination_rate", None, 1 - answers.cut),
            seen("run_on_share", None, answers.run_on),
            seen("response_length", None, answers.response_length),
            seen("reference_length", None, answers.reference_length),
        ],
        cause=f"The model ends only {percent(1 - answers.cut)} of its answers by itself; "
        f"{percent(answers.run_on)} begin with "
        f"the right answer and go on, to {shown(answers.response_length)} characters where the reference has "
        f"{shown(answers.reference_length)}.",
        key=key,
        harm=answers.cut,
        runner_up="clipped_completions: the evaluation's token cap is too low",
        refuted_by="the same answers ending by themselves under a cap twice as high",
    )


def _runs_past(observations: Observations, answers: Answers) -> bool:
    """The responses go on beyond where an answer of this training set would have ended."""
    expected = max(answers.reference_length or 0.0, trained_length(observations))
    long = (answers.response_length or 0.0) >= 2 * max(1.0, expected)
    return (answers.run_on or 0) >= 0.2 or ((answers.looping or 0) >= 0.5 and long) or (long and expected > 0)


def ends_as_served(observations: Observations) -> bool:
    """Greedy answers end by themselves while it trains, rendered by the model's own template: so it knows the end."""
    ended = [r["probe/termination_rate"] for r in observations.probes if "probe/termination_rate" in r]
    return bool(ended) and ended[-1] >= 1 - CUT_HEALTHY


def cap_below_answers(observations: Observations) -> bool:
    """The cap on sampled answers cuts more right ones than is worth saying."""
    rows, cut = observations.counted("rows") or 0, observations.counted("truncated_rows") or 0
    return bool(observations.counted("max_completion_length")) and cut > WORTH_SAYING * rows


def _before(observations: Observations) -> float:
    """Share of answers that the base model left unfinished; 0 when it was not measured."""
    before = answers_of(observations.baseline) if observations.baseline is not None else None
    return before.cut if before is not None else 0.0


def _answers(observations: Observations) -> Answers | None:
    return answers_of(observations.evaluation) if observations.evaluation is not None else None


def _ends_by_itself(symptom: Symptom, answers: Answers | None) -> Answer:
    if answers is None or answers.cut >= CUT_HEALTHY:
        return None
    return RuledOut(symptom, f"the model ended {percent(1 - answers.cut)} of {answers.n} answers by itself")


def clipped_completions(observations: Observations) -> Answer:
    ratio = _clipped_while_training(observations)
    if ratio is not None:
        if _never_ends(observations):
            return None  # a cap that is large enough: the model does not end
        return _clipped_finding(observations, ratio, "completions/clipped_ratio", observations.last_step, 0.8)
    answers = _answers(observations)
    if observations.running:
        return None
    if answers is None or answers.cut < CUT_HEALTHY:
        return _ends_by_itself(Symptom.CLIPPED_COMPLETIONS, answers)
    if answers.response_length is not None and _runs_past(observations, answers):
        return None
    correct_so_far = (answers.prefix or 0) >= 0.3
    return _clipped_finding(observations, answers.cut, "cut_share", None, 0.9 if correct_so_far else 0.65)


def _clipped_while_training(observations: Observations) -> float | None:
    """The share of sampled answers that the cap cuts, when it is a fault that lasts and the reward suffers from."""
    clipped, rewards = observed(observations, "completions/clipped_ratio"), rewards_of(observations)
    if not len(clipped) or clipped.tail(5) <= CUT_FAULT or rewards.solved:
        return None
    lasting = last_run(clipped, lambda value: value > CUT_FAULT)
    if lasting < (CUT_STEPS if observations.running else min(5, len(clipped))):
        return None
    return clipped.tail(5)


def cap_below_the_references(observations: Observations) -> Answer:
    """Before training: right answers do not fit under the cap on sampled ones."""
    cap, rows = observations.counted("max_completion_length"), observations.counted("rows") or 0
    cut = observations.counted("truncated_rows")
    if not cap or not rows or cut is None:
        return None
    share = min(1.0, cut / rows)
    lengths = observations.part("answer_token_lengths")
    longest = count(lengths["max"]) if lengths.get("max") is not None else None
    if share <= WORTH_SAYING:
        return RuledOut(
            Symptom.CLIPPED_COMPLETIONS, f"{cut} of {rows} references are longer than max_completion_length {cap}"
        )
    return finding(
        observations,
        Symptom.CLIPPED_COMPLETIONS,
        Basis.DATA,
        severity=Severity.FATAL if share > 0.99 else Severity.HARMFUL,
        confidence=0.95,
        evidence=[
            seen("truncated_rows", None, cut),
            seen("rows", None, rows),
            seen("max_completion_length", None, cap),
            seen("answer_token_lengths.max", None, longest),
        ],
        cause=f"max_completion_length {cap} cuts {cut} of {rows} right answers ({percent(share)}) before their end; "
        "the "
        f"longest needs {longest} tokens and one for the end.",
        key="max_completion_length",
        suggested=power_of_two(2 * (longest or cap)),
        harm=share,
        runner_up="references that hold more than the answer",
        refuted_by="a reference that earns its reward when it is cut there",
    )


def _never_ends(observations: Observations) -> bool:
    """The cap is twice what the longest right answer needs, and answers still run into it."""
    lengths = observations.audit.get("answer_token_lengths")
    longest = finite(lengths["max"]) if isinstance(lengths, dict) and lengths.get("max") is not None else None
    cap = next((observations.setting(key, 0.0) for key in CAP_KEYS if key in observations.recipe), TRL_CAP)
    return longest is not None and cap >= 2 * (longest + 1)


def never_ends_while_training(observations: Observations) -> Answer:
    """Sampled answers run into a cap that right ones stay far below, from the first steps on."""
    ratio = _clipped_while_training(observations)
    clipped = observed(observations, "completions/clipped_ratio")
    if ratio is None or not _never_ends(observations) or clipped.head(5) <= CUT_FAULT:
        return None
    key = observations.first_key("eos_token", "chat_template_path")
    lengths = observations.audit.get("answer_token_lengths")
    return finding(
        observations,
        Symptom.MISSING_EOS,
        Basis.CURVE,
        severity=Severity.HARMFUL,
        confidence=0.75,
        evidence=[
            seen("completions/clipped_ratio", clipped.last_step, ratio),
            seen(
                "completions/mean_length", clipped.last_step, tail_value(observations.steps, "completions/mean_length")
            ),
            seen("answer_token_lengths.max", None, lengths["max"] if isinstance(lengths, dict) else None),
        ],
        cause=f"{percent(ratio)} of the sampled answers run into the cap (step {clipped.last_step}), which is more "
        "than "
        "twice what the longest right answer needs, and they did from the start: the token that ends an answer is not "
        "the one that the model writes.",
        key=key,
        suggested=None,
        harm=ratio,
        runner_up="init_from: a base model that was never taught to end an answer",
        refuted_by="an answer of the base model that holds the end token",
    )


def _clipped_finding(
    observations: Observations, share: float, observed: str, step: int | None, confidence: float
) -> Answer:
    answers = _answers(observations)
    # While training generates, the cap is the recipe's; in an evaluation the benchmark's, unless the recipe has one.
    set_here = next((key for key in CAP_KEYS if key in observations.recipe), None)
    key = set_here or (CAP_KEYS[0] if step is not None else None)
    cap = count(observations.recipe[set_here]) if set_here and observations.recipe[set_here] is not None else None
    needed = _cap_for(observations, cap)
    evidence = [seen(observed, step, share), seen(key or "needed_cap", None, cap if key else needed)]
    right = ""
    if answers is not None and answers.prefix:
        evidence.append(seen("prefix_share", None, answers.prefix))
        right = f"; {percent(answers.prefix)} are the beginning of the right answer"
    where = f"cap of {cap}" if cap else "cap" if key else "cap of the benchmark"
    return finding(
        observations,
        Symptom.CLIPPED_COMPLETIONS,
        Basis.ANSWERS,
        severity=Severity.HARMFUL,
        confidence=confidence,
        evidence=evidence,
        cause=f"The token {where} cuts {percent(share)} of the answers before they end{right}"
        + (f"; the longest training answer needs {needed}." if needed else "."),
        key=key,
        suggested=needed if key else None,
        harm=share,
        runner_up="missing_eos: the model does not end, whatever the cap",
        refuted_by="as many unfinished answers under a cap twice as high",
    )


def _cap_for(observations: Observations, cap: int | None) -> int | None:
    """A power of two that holds the longest training answer and its end token; twice the present cap when unknown."""
    lengths = observations.audit.get("answer_token_lengths")
    longest = finite(lengths["max"]) if isinstance(lengths, dict) and lengths.get("max") is not None else None
    needed = power_of_two(int(longest) + 1) if longest is not None else None
    if cap is None:
        return needed
    return needed if needed is not None and needed > cap else 2 * cap


def extraction_fail(observations: Observations) -> Answer:
    evaluation = observations.evaluation
    if evaluation is None or evaluation.lenient is None or not evaluation.n or observations.lower_is_better:
        return None
    strict = evaluation.strict if evaluation.strict is not None else evaluation.value
    gap = evaluation.lenient - strict
    if gap < FORMAT_GAP or gap * evaluation.n < FORMAT_ITEMS or strict > 0.8 * evaluation.lenient:
        return RuledOut(
            Symptom.EXTRACTION_FAIL,
            f"strict {shown(strict)} and lenient {shown(evaluation.lenient)} agree on {evaluation.n} items",
        )
    key = next((k for k in ("answer_pattern", "eval_answer_pattern") if k in observations.recipe), None)
    taught = key is None and _form_was_taught(observations)
    if taught:
        key = observations.first_key("data_sources", "train_file", "dataset_name")
    where = "which is how the training rows write them" if taught else "in another form than the benchmark extracts"
    return finding(
        observations,
        Symptom.EXTRACTION_FAIL,
        Basis.ANSWERS,
        severity=Severity.HARMFUL,
        confidence=min(0.95, 0.6 + gap),
        evidence=[
            seen("strict", None, strict),
            seen("lenient", None, evaluation.lenient),
            seen("n", None, evaluation.n),
        ],
        cause=f"Strict scoring finds {percent(strict)} and lenient scoring {percent(evaluation.lenient)} of the same "
        f"{evaluation.n} answers right: the answers are there, {where}.",
        key=key,
        harm=gap,
        runner_up="missing_eos: the right answer, followed by more",
        refuted_by="five raw answers, read by a person, that do not hold the reference",
    )


def _form_was_taught(observations: Observations) -> bool:
    """The responses look like the training completions, and the references do not."""
    evaluation = observations.evaluation
    samples = evaluation.samples if evaluation is not None else ()
    responses = [s.response for s in samples if s.response is not None]
    references = [s.reference for s in samples if s.reference is not None]
    taught = [completion for _, completion in training_pairs(observations)]
    if not responses or not references or not taught:
        return False
    return text_distance(taught, responses) + 0.1 < text_distance(taught, references)


RULES = (
    Rule(Symptom.MISSING_EOS, missing_eos, "† termination rate, against the base model's"),
    Rule(
        Symptom.CLIPPED_COMPLETIONS,
        clipped_completions,
        "Axolotl GRPO guide: clipped ratio above .8, healthy below .3",
        online=True,
    ),
    Rule(
        Symptom.CLIPPED_COMPLETIONS,
        cap_below_the_references,
        "TRL's cap of 256 to 512 tokens; 5 % of rows †",
        preflight=True,
    ),
    Rule(
        Symptom.MISSING_EOS,
        never_ends_while_training,
        "Axolotl GRPO guide: check the end token before raising the cap; twice the longest answer †",
        online=True,
    ),
    Rule(
        Symptom.EXTRACTION_FAIL,
        extraction_fail,
        "lm-evaluation-harness issues 3404 and 3407: strict far below flexible",
    ),
)
