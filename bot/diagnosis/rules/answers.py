"""Rules about what the trained model answers: endings, format, and prompts it was not trained for."""

from __future__ import annotations

from bot.diagnosis.curves import held_out_of, observed, tail_value
from bot.diagnosis.observations import Observations
from bot.diagnosis.outcomes import Answers, answers_of, text_distance
from bot.diagnosis.readings import count, finite, shown
from bot.diagnosis.remedies import power_of_two
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, percent, seen
from bot.diagnosis.rules.pairs import known_pairs, training_pairs
from bot.domain.diagnosis import Severity, Symptom

# Axolotl's GRPO guide: clipped ratio above .8 is a fault, below .3 is healthy. An evaluation that is cut more often
# than that is wrong about its model.
CUT_HEALTHY = 0.3
CUT_FAULT = 0.8
# lm-evaluation-harness issue 3404: GPQA strict 0.0000 beside flexible 0.5455. A gap above 5 % is worth saying.†
FORMAT_GAP = 0.05
FORMAT_ITEMS = 5
CAP_KEYS = ("max_completion_length", "max_new_tokens", "max_gen_toks", "max_tokens", "eval_max_new_tokens")


def missing_eos(observations: Observations) -> Answer:
    answers = _answers(observations)
    if answers is None or answers.cut < CUT_HEALTHY or answers.run_on is None:
        return _ends_by_itself(Symptom.MISSING_EOS, answers)
    if _before(observations) > answers.cut - 0.2 or not _runs_past(observations, answers):
        return None
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
    expected = max(answers.reference_length or 0.0, _trained_length(observations))
    long = (answers.response_length or 0.0) >= 2 * max(1.0, expected)
    return (answers.run_on or 0) >= 0.2 or ((answers.looping or 0) >= 0.5 and long) or (long and expected > 0)


def _trained_length(observations: Observations) -> float:
    """Median length in characters of what the model was taught to answer; 0 when unknown."""
    lengths = sorted(len(completion) for _, completion in training_pairs(observations))
    return float(lengths[len(lengths) // 2]) if lengths else 0.0


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
    ratio = tail_value(observations.steps, "completions/clipped_ratio")
    if ratio is not None and ratio > CUT_FAULT:
        return _clipped_finding(
            observations, ratio, "completions/clipped_ratio", int(observations.steps[-1]["step"]), 0.8
        )
    answers = _answers(observations)
    if answers is None or answers.cut < CUT_HEALTHY:
        return _ends_by_itself(Symptom.CLIPPED_COMPLETIONS, answers)
    if answers.response_length is not None and _runs_past(observations, answers):
        return None
    correct_so_far = (answers.prefix or 0) >= 0.3
    return _clipped_finding(observations, answers.cut, "cut_share", None, 0.9 if correct_so_far else 0.65)


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
    if evaluation is None or evaluation.lenient is None or not evaluation.n:
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


def template_mismatch(observations: Observations) -> Answer:
    """It knows the held-out rows as they were rendered for training, and fails on the same questions as served."""
    evaluation = observations.evaluation
    learned, how = _learned(observations)
    if evaluation is None or learned is None or not learned:
        return RuledOut(Symptom.TEMPLATE_MISMATCH, how) if how else None
    key = "chat_template_path"
    own = observations.recipe.get(key) is not None
    warned = "Mismatch between tokenized prompt" in observations.log
    far = observations.missed_by_far and evaluation.value <= 0.5 * (observations.target or 0.0)
    expected = _expected_score(observations)
    # The two measurements must contradict each other (so many right tokens in a row make more right answers than were
    # found), unless there is a reason to suspect the template.
    contradicted = (
        evaluation.n >= 20 and evaluation.value < 0.25 * expected and expected > 0.15 and not observations.met
    )
    in_another_form = evaluation.lenient is not None and evaluation.lenient > evaluation.value + 0.2
    if not (contradicted or (far and (own or warned))) or in_another_form:
        return RuledOut(Symptom.TEMPLATE_MISMATCH, f"{how} and the score is {shown(evaluation.value)}")
    known, train = known_pairs(observations), training_pairs(observations)
    if known and train and text_distance([p for p, _ in train], [p for p, _ in known]) > 0.6:
        return None  # trained on other questions: no template would help
    return finding(
        observations,
        Symptom.TEMPLATE_MISMATCH,
        Basis.ANSWERS,
        severity=Severity.HARMFUL,
        confidence=0.85 if own else 0.7 if warned else 0.5,
        evidence=[
            *(seen(r, s, v) for r, s, v in _learned_numbers(observations)),
            seen("value", None, evaluation.value),
        ],
        cause=f"{how[0].upper()}{how[1:]}, yet only {percent(evaluation.value)} of {evaluation.n} answers are "
        f"right when "
        f"the model is served: "
        f"{'the template ' + str(observations.recipe[key]) if own else 'the prompt as rendered for training'} "
        "is not the one it is asked with.",
        key=key,
        harm=0.9,
        runner_up="another task: the held-out rows are not what the benchmark asks",
        refuted_by="the same score when the benchmark's prompts are rendered with the training template",
    )


def _learned(observations: Observations) -> tuple[bool | None, str]:
    """Whether training taught what the rows hold, judged on rows it did not see (or saw at most twice)."""
    numbers = {key: value for key, _, value in _learned_numbers(observations)}
    accuracy = numbers.get("eval_mean_token_accuracy", numbers.get("mean_token_accuracy"))
    loss = numbers.get("eval_loss", numbers.get("loss"))
    if loss is None:
        return None, ""
    where = "held-out rows" if "eval_loss" in numbers else "rows seen for the first time"
    good = accuracy >= 0.8 if accuracy is not None else loss < 0.5
    words = f"the loss on {where} is {shown(loss)}" + (
        f" with {percent(accuracy)} of the tokens right" if accuracy is not None else ""
    )
    return good, words


def _expected_score(observations: Observations) -> float:
    """Share of whole answers that the token accuracy on unseen rows promises; 0 when it was not measured."""
    numbers = {key: value for key, _, value in _learned_numbers(observations)}
    accuracy = numbers.get("eval_mean_token_accuracy", numbers.get("mean_token_accuracy"))
    lengths = observations.audit.get("answer_token_lengths")
    tokens = finite(lengths["p50"]) if isinstance(lengths, dict) and lengths.get("p50") is not None else None
    if tokens is None:
        # One token a character at most: too many tokens only make the promise smaller.
        tokens = max(3.0, _trained_length(observations))
    return accuracy**tokens if accuracy is not None and 0 < accuracy <= 1 else 0.0


def _learned_numbers(observations: Observations) -> list[tuple[str, int, float]]:
    held_out = held_out_of(observations, "eval_loss")
    if len(held_out):
        accuracy = held_out_of(observations, "eval_mean_token_accuracy")
        last = [("eval_loss", held_out.last_step, held_out.values[-1])]
        return last + ([("eval_mean_token_accuracy", accuracy.last_step, accuracy.values[-1])] if len(accuracy) else [])
    epoch = observed(observations, "epoch")
    loss, seen_accuracy = tail_value(observations.steps, "loss"), tail_value(observations.steps, "mean_token_accuracy")
    if loss is None or not len(epoch) or epoch.values[-1] > 2:
        return []
    numbers = [("loss", epoch.last_step, loss)]
    return numbers + ([("mean_token_accuracy", epoch.last_step, seen_accuracy)] if seen_accuracy is not None else [])


RULES = (
    Rule(Symptom.MISSING_EOS, missing_eos, "† termination rate, against the base model's"),
    Rule(
        Symptom.CLIPPED_COMPLETIONS, clipped_completions, "Axolotl GRPO guide: clipped ratio above .8, healthy below .3"
    ),
    Rule(
        Symptom.EXTRACTION_FAIL,
        extraction_fail,
        "lm-evaluation-harness issues 3404 and 3407: strict far below flexible",
    ),
    Rule(Symptom.TEMPLATE_MISMATCH, template_mismatch, "† learned as rendered, fails as served"),
)
