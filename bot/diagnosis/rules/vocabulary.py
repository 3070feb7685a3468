"""Rules about token ids: ids that the model has no row for, tokens that were added and are not trained."""

from __future__ import annotations

from bot.diagnosis.observations import Observations
from bot.diagnosis.readings import count
from bot.diagnosis.rules.ends import crashed_by
from bot.diagnosis.rules.finding import Answer, Basis, Rule, RuledOut, finding, seen
from bot.domain.diagnosis import Severity, Symptom


def tokenizer(observations: Observations) -> Answer:
    vocabulary = observations.part("vocabulary")
    rows, largest = (observations.counted(key, "vocabulary") for key in ("embeddings", "largest_id"))
    size = observations.counted("tokenizer", "vocabulary")
    crash = crashed_by(observations, Symptom.TOKENIZER)
    outside = rows is not None and largest is not None and largest >= rows
    if not outside and crash is None:
        if rows is None or largest is None:
            return None
        return RuledOut(Symptom.TOKENIZER, f"the largest id of the data is {largest}, and the model has {rows} rows")
    key = observations.first_key("tokenizer_name_or_path", "tokenizer_name", "added_tokens", "init_from")
    evidence = [seen("embeddings", None, rows), seen("largest_id", None, largest), seen("tokenizer", None, size)]
    if crash is not None:
        evidence.insert(0, seen("log", None, crash.exception))
    if vocabulary:
        cause = (
            f"The data holds token id {largest}, the tokenizer has {size} tokens and the model {rows} rows: they do "
        )
        cause += "not belong together."
    else:
        assert crash is not None
        cause = f"A token id lies outside the model's embedding table ({crash.exception}): tokenizer and model do not "
        cause += "belong together, or tokens were added and the table was not resized."
    return finding(
        observations,
        Symptom.TOKENIZER,
        Basis.DATA if outside else Basis.CRASH,
        severity=Severity.FATAL,
        confidence=0.97 if outside else 0.75,
        evidence=evidence,
        cause=cause,
        key=key,
        runner_up="max_length: positions beyond those that the model has raise the same error",
        refuted_by="a largest token id below the number of embedding rows",
    )


def embedding(observations: Observations) -> Answer:
    raw = observations.part("vocabulary").get("new_untrained_tokens")
    tokens = len(raw) if isinstance(raw, list) else count(raw) if raw is not None else None
    if tokens is None:
        return _resized(observations)
    if not tokens:
        return RuledOut(Symptom.EMBEDDING, "every token of the data has an embedding row that is trained or was before")
    ids = ", ".join(str(token) for token in raw[:5]) if isinstance(raw, list) else str(tokens)
    return finding(
        observations,
        Symptom.EMBEDDING,
        Basis.DATA,
        severity=Severity.HARMFUL,
        confidence=0.93,
        evidence=[
            seen("new_untrained_tokens", None, tokens),
            seen("embeddings", None, observations.counted("embeddings", "vocabulary")),
        ],
        cause=f"{tokens} token{'' if tokens == 1 else 's'} of the data (id {ids}) were added and have rows of random "
        "numbers that the adapter leaves as they are: the model reads noise there, and cannot write them.",
        key=observations.first_key("trainable_token_indices", "lora_modules_to_save", "modules_to_save", "added_tokens")
        if "lora_modules_to_save" not in observations.recipe
        else "lora_modules_to_save",
        suggested="embed_tokens" if observations.recipe.get("use_peft") is True else None,
        harm=0.8,
        runner_up="template_mismatch: the new tokens are part of a template that only training knows",
        refuted_by="rows of these tokens that differ before and after training",
    )


def _resized(observations: Observations) -> Answer:
    """TRL says so itself when a cloned template brings tokens that the adapter does not train."""
    if "Cloning chat template added new tokens" not in observations.log:
        return None
    return finding(
        observations,
        Symptom.EMBEDDING,
        Basis.DATA,
        severity=Severity.HARMFUL,
        confidence=0.7,
        evidence=[
            seen("log", None, "Cloning chat template added new tokens"),
            seen("lora_modules_to_save", None, str(observations.recipe.get("lora_modules_to_save"))),
        ],
        cause="The chat template brought new tokens, and the adapter does not train lm_head: the model may not learn "
        "to write them (TRL's own warning, 1 line of the log).",
        key="lora_modules_to_save",
        suggested="lm_head",
        harm=0.6,
        runner_up="chat_template_path: a template without new tokens",
        refuted_by="answers in which the new tokens occur",
    )


RULES = (
    Rule(
        Symptom.TOKENIZER,
        tokenizer,
        "largest id against embedding rows; torch's IndexError and assertion",
        preflight=True,
    ),
    Rule(
        Symptom.EMBEDDING,
        embedding,
        "peft's guide: trainable_token_indices, modules_to_save; TRL's warning",
        preflight=True,
    ),
)
