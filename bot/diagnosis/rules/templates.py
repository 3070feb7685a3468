"""Rules about prompts as they are rendered: for training, for serving, and for the evaluation."""

from __future__ import annotations

from bot.diagnosis.curves import held_out_of, observed, tail_value
from bot.diagnosis.observations import Observations
from bot.diagnosis.outcomes import answers_of, text_distance
from bot.diagnosis.readings import finite, shown
from bot.diagnosis.rules.answers import ends_as_served
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, percent, seen
from bot.diagnosis.rules.pairs import known_pairs, trained_length, training_pairs
from bot.domain.diagnosis import Severity, Symptom

# Rows whose rendered prompt may differ from what generation is given: rows without a prompt of their own.†
RENDERED_ALIKE = 0.95
# Share of right answers while training, asked as served, from which an evaluation that finds hardly any is odd.†
PROBED_RIGHT = 0.5
# Share of the answers, and standard errors of the score, that must be lacking of what held-out tokens promise before a
# template of the recipe's own is doubted.†
DOUBTED, DOUBTED_ERRORS = 0.25, 4
# Share of answers that are the beginning of the right one, or begin with it: then the question was understood.†
BEGUN_RIGHT = 0.3


def rendered_otherwise(observations: Observations) -> Answer:
    """The prompts that training shows are not the ones that generation is given, token by token."""
    compared, equal, double = (
        observations.counted(key, "template") for key in ("compared_rows", "train_prefix_equal_rows", "double_bos_rows")
    )
    rows = observations.counted("rows") or compared or 0
    doubled = bool(double) and bool(compared or rows) and double / max(1, compared or rows) > 1 - RENDERED_ALIKE  # type: ignore[operator]
    unlike = compared is not None and equal is not None and compared > 0 and equal / compared < RENDERED_ALIKE
    if not doubled and not unlike:
        if compared is None or not compared:
            return None
        return RuledOut(
            Symptom.TEMPLATE_MISMATCH, f"{equal} of {compared} prompts are rendered as generation is given them"
        )
    if doubled:
        cause = (
            f"{double} of {compared or rows} rows begin with two beginning-of-text tokens: the template writes one and "
        )
        cause += "the tokenizer adds another, which no prompt will have when it is served."
    else:
        cause = (
            f"Only {equal} of {compared} prompts, as rendered for training, are what generation is given: the model "
        )
        cause += "learns to answer prompts that it will not be asked."
    own = observations.recipe.get("chat_template_path") is not None
    return finding(
        observations,
        Symptom.TEMPLATE_MISMATCH,
        Basis.DATA,
        severity=Severity.HARMFUL,
        confidence=0.93 if unlike else 0.8,
        evidence=[
            seen("template.train_prefix_equal_rows", None, equal),
            seen("template.compared_rows", None, compared),
            seen("template.double_bos_rows", None, double),
        ],
        cause=cause,
        key="chat_template_path" if own else observations.first_key("chat_template_path", "init_from"),
        file="recipe.yaml",
        harm=0.9,
        runner_up="wrong_columns: rows that are rendered already",
        refuted_by="equal token ids for one prompt, rendered both ways",
    )


def template_mismatch(observations: Observations) -> Answer:
    """It knows the held-out rows as they were rendered for training, and fails on the same questions as served."""
    evaluation = observations.evaluation
    learned, how = _learned(observations)
    if evaluation is None or observations.share_right is None:
        return None  # what training promises is a share of right answers
    if learned is None or not learned:
        return RuledOut(Symptom.TEMPLATE_MISMATCH, how) if how else None
    key = "chat_template_path"
    own = observations.recipe.get(key) is not None
    compared, equal = (observations.counted(k, "template") for k in ("compared_rows", "train_prefix_equal_rows"))
    if not own and compared and equal == compared:
        return None  # rendered as served, token by token: then it is the evaluation that asks otherwise
    exact = [r["probe/exact_match"] for r in observations.probes if "probe/exact_match" in r]
    if exact and exact[-1] >= PROBED_RIGHT and not own:
        return None  # right as it is served: the same
    warned = "Mismatch between tokenized prompt" in observations.log
    far = observations.missed_by_far and evaluation.value <= 0.5 * (observations.target or 0.0)
    expected = _expected_score(observations)
    lacking = max(DOUBTED, DOUBTED_ERRORS * evaluation.standard_error)
    doubted = own and observations.missed_by_far and expected - evaluation.value > lacking
    # The two measurements must contradict each other (so many right tokens in a row make more right answers than were
    # found), unless there is a reason to suspect the template.
    contradicted = (
        evaluation.n >= 20 and evaluation.value < 0.25 * expected and expected > 0.15 and not observations.met
    )
    in_another_form = evaluation.lenient is not None and evaluation.lenient > evaluation.value + 0.2
    if not (contradicted or doubted or (far and (own or warned))) or in_another_form:
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
        tokens = max(3.0, trained_length(observations))
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


def asked_otherwise(observations: Observations) -> Answer:
    """Asked as it is served the model answers right, and the evaluation finds hardly a right answer."""
    evaluation = observations.evaluation
    if evaluation is None or observations.share_right is None or observations.met:
        return None
    exact = [(int(r["step"]), r["probe/exact_match"]) for r in observations.probes if "probe/exact_match" in r]
    compared, equal = (observations.counted(k, "template") for k in ("compared_rows", "train_prefix_equal_rows"))
    alike = bool(compared) and equal == compared
    lenient = evaluation.lenient if evaluation.lenient is not None else evaluation.value
    low = evaluation.n >= 20 and max(evaluation.value, lenient) < 0.5
    probed = bool(exact) and exact[-1][1] >= PROBED_RIGHT and max(evaluation.value, lenient) < 0.5 * exact[-1][1]
    learned, how = _learned(observations)
    promised = _expected_score(observations)
    contradicted = bool(learned) and alike and promised > 0.3 and evaluation.value < 0.25 * promised
    own = observations.recipe.get("chat_template_path") is not None
    if not low or not (probed or contradicted) or (own and not probed):
        if not exact:
            return None
        return RuledOut(
            Symptom.EVAL_PROMPT_MISMATCH,
            f"the probes' {shown(exact[-1][1])} and the score of {shown(evaluation.value)} agree",
        )
    if _mostly_cut(observations) and not (probed and ends_as_served(observations)):
        return None  # answers that were cut: another rule's
    answers = answers_of(evaluation)
    if answers is not None and max(answers.prefix or 0.0, answers.run_on or 0.0) >= BEGUN_RIGHT:
        return None  # right as far as they go: the cap's fault, or the missing end's
    evidence = [seen("probe/exact_match", *exact[-1])] if exact else []
    evidence += [seen(k, s, v) for k, s, v in _learned_numbers(observations)]
    evidence += [seen("value", None, evaluation.value), seen("n", None, evaluation.n)]
    said = (
        f"{percent(exact[-1][1])} of the probes were right at step {exact[-1][0]}, asked as the model is served"
        if probed
        else f"{how}, on prompts that are rendered as they are served"
    )
    keys = [
        k for k in ("apply_chat_template", "eval_apply_chat_template", "eval_chat_template") if k in observations.recipe
    ]
    return finding(
        observations,
        Symptom.EVAL_PROMPT_MISMATCH,
        Basis.ANSWERS,
        severity=Severity.HARMFUL,
        confidence=0.85 if probed else 0.6,
        evidence=evidence,
        cause=f"{said[0].upper()}{said[1:]}, and {percent(evaluation.value)} of {evaluation.n} in the evaluation: it "
        "asks in "
        "another form (without the chat template, most often).",
        key=keys[0] if keys else None,
        suggested=True if keys and "apply" in keys[0] else None,
        harm=0.8,
        runner_up="extraction_fail: right answers that the scoring does not find",
        refuted_by="the same score with the prompts rendered by the model's own chat template",
    )


def _mostly_cut(observations: Observations) -> bool:
    samples = observations.evaluation.samples if observations.evaluation is not None else ()
    return sum(sample.finish == "length" for sample in samples) > 0.5 * len(samples)


RULES = (
    Rule(
        Symptom.TEMPLATE_MISMATCH,
        rendered_otherwise,
        "TRL's warning on tokenized prompts; token by token on the first rows, 95 % †",
        preflight=True,
    ),
    Rule(Symptom.TEMPLATE_MISMATCH, template_mismatch, "† learned as rendered, fails as served"),
    Rule(
        Symptom.EVAL_PROMPT_MISMATCH,
        asked_otherwise,
        "Hugging Face's evaluation guidebook: templates shift scores; † right as served, wrong as evaluated",
    ),
)
