"""In which unit a run counts its loss: nats where it is known to be a mean cross-entropy, else the loss it began with.

Thresholds in nats hold for language models and classifiers. Of a regression, a value function or a matched flow only
the run's own beginning says what is little and what is much.

Not covered: a regression of which nothing tells but a recipe that names its model, with losses of the size of a
language model's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

from bot.diagnosis.curves import LOSS_FLOOR, LossShape, observed, shape_of
from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import count

CROSS_ENTROPY, OTHER_LOSS = "cross_entropy", "other"
"""Values of `loss` in setup: what the model's own files say."""
MOST_NATS = 25.0
"""† No mean cross-entropy begins above it: twice what equal chances for the largest vocabularies cost (ln 262,144 is
12.5). Sums over a sequence or over accumulated batches do."""
LEAST_NATS = 0.02
"""† A language model that begins below it has nothing to learn, so a run that does is likelier to count otherwise."""
FALLING = -2.0
"""† Standard errors by which a loss falls that is still on its way."""

# Names that `compute_metrics` returns in transformers' examples and in `evaluate`, for numbers and for classes.
_OF_NUMBERS = re.compile(
    r"(?:^|[_/])(?:r?mse|mae|mape|r2(?:_score)?|r_squared|explained_variance|pearson\w*|spearman\w*)$"
    r"|(?:^|[_/])(?:mse|l1|l2|huber|value|vf|action|flow|velocity|diffusion|denois\w*|recon\w*|regression)_?loss$",
    re.IGNORECASE,
)
_OF_CLASSES = re.compile(
    r"(?:^|[_/])(?:mean_token_accuracy|num_tokens|num_input_tokens_seen|perplexity|ppl|accuracy|acc|f1(?:_\w+)?"
    r"|precision|recall|mcc|matthews_correlation|auc|bleu|rouge\w*|wer|cer|exact_match)$",
    re.IGNORECASE,
)
# A recipe's own words for its loss. IPO (arXiv 2310.12036, equation 17) is a squared error among losses of preference.
_SQUARED = re.compile(
    r"(?<![a-z])(?:ipo|r?mse|mae|l1|l2|huber|regression|diffusion)(?![a-z])|squared|flow", re.IGNORECASE
)
_LOSS_KEYS = ("loss_type", "loss_fn", "loss_function", "loss", "criterion", "problem_type", "objective")


def in_nats(observations: Observations) -> bool:
    """Whether the training loss is known to be a mean cross-entropy (or a logistic loss), so that numbers in nats mean
    for it what they mean elsewhere."""
    return observations.once("loss in nats", lambda: _in_nats(observations))


def _in_nats(observations: Observations) -> bool:
    loss = observed(observations, "loss")
    first = _first(observations)
    if (len(loss) and min(loss.values) < -LOSS_FLOOR) or first > MOST_NATS or _counts_otherwise(observations):
        return False
    recipe, told = observations.recipe, observations.setup.get("loss")
    if told == CROSS_ENTROPY or _method_known(observations):
        return True
    if told == OTHER_LOSS or any(_OF_CLASSES.search(key) for key in _keys(observations)):
        return told != OTHER_LOSS
    # A model that is named and of which nothing more is told: recipes are written for language models.
    return first >= LEAST_NATS and any(recipe.get(key) for key in ("init_from", "model_name_or_path"))


def _method_known(observations: Observations) -> bool:
    """Somebody named it, or it is another than imitation, which is also what nothing speaks for."""
    return observations.named_method is not None or observations.method != "sft"


def _counts_otherwise(observations: Observations) -> bool:
    """Something names another loss: the recipe, or what is measured beside it."""
    recipe = observations.recipe
    named = any(_SQUARED.search(str(recipe[key])) for key in _LOSS_KEYS if recipe.get(key) is not None)
    measured = any(_OF_NUMBERS.search(key) for key in _keys(observations))
    return named or measured or (recipe.get("num_labels") == 1 and observations.method != "reward")


def _keys(observations: Observations) -> Iterator[str]:
    for record in (*observations.steps[:3], *observations.evals):
        yield from record


def _first(observations: Observations) -> float:
    loss, shape = observed(observations, "loss"), shape_of(observations)
    return shape.initial if shape is not None else median(loss.values[:3]) if len(loss) else 1.0


def loss_unit(observations: Observations) -> float:
    """What takes the place of one nat in this run's losses: 1, or the loss that the run began with."""
    return 1.0 if in_nats(observations) else abs(_first(observations)) or 1.0


def times(observations: Observations, factor: float) -> float:
    """By which factor a loss changes where a cross-entropy would by `factor`. The loss may be a square, so that twice
    the error is four times the loss."""
    return factor if in_nats(observations) else factor**2


def chance_of(observations: Observations) -> float | None:
    """What equal chances for all classes cost a classifier: ln k nats, by the number of classes that is written down or
    by its first loss, which is that of a new head. None of what is no classifier."""
    if observations.method not in ("classify", "vision"):
        return None
    classes = count(observations.setup["classes"]) if observations.setup.get("classes") is not None else None
    classes = classes or len(observations.part("labels"))
    return math.log(classes) if classes >= 2 else _first(observations)


def still_falls(shape: LossShape) -> bool:
    """The loss goes down by more than its noise where the schedule last was alive."""
    return shape.late is not None and shape.late.relative_change < 0 and shape.late.z <= FALLING


def told_by_model(config: Mapping[str, Any], adapter: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers' config.json and PEFT's adapter_config.json say of the loss, as keys of setup: `loss`, `method`
    and `classes`; empty where they say nothing."""
    names = config.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else ""
    labels = config.get("id2label")
    # Two classes are transformers' default, and defaults are not written.
    classes = len(labels) if isinstance(labels, dict) else 2
    task = str(adapter.get("task_type") or "").upper()
    if str(config.get("problem_type") or "") == "regression":
        return {"loss": OTHER_LOSS}
    if name.endswith(("ForSequenceClassification", "ForImageClassification", "ForAudioClassification")):
        # One output is a reward model's, or a number that is to be told.
        method = "vision" if "Image" in name else "classify"
        return {"method": method, "classes": classes} if classes > 1 else {"loss": OTHER_LOSS}
    if name.endswith(_OF_WORDS) or task in ("CAUSAL_LM", "SEQ_2_SEQ_LM", "TOKEN_CLS", "QUESTION_ANS"):
        return {"loss": CROSS_ENTROPY}
    return {"loss": OTHER_LOSS} if name else {}


_OF_WORDS = (
    "CausalLM", "LMHeadModel", "ForConditionalGeneration", "EncoderDecoderModel", "ChatModel", "ForSeq2SeqLM",
    "ForMaskedLM", "ForTokenClassification", "ForQuestionAnswering", "ForCTC", "ForMultipleChoice",
)  # fmt: skip
