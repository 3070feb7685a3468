"""What explains what: a fault shows in many places, and only its cause is worth a change.

Two causes that stand on their own feet are both named. A finding counted over the data is hidden only where the cause
is about the data, too: a low learning rate does not put end tokens into the rows.
"""

from __future__ import annotations

from bot.diagnosis.rules.finding import Basis, Finding
from bot.domain.diagnosis import Severity, Symptom

_S = Symptom

# What a trained model says in the end: anything that spoils training can cause these.
ANSWERS = frozenset(
    {_S.MISSING_EOS, _S.CLIPPED_COMPLETIONS, _S.EXTRACTION_FAIL, _S.TEMPLATE_MISMATCH, _S.EVAL_PROMPT_MISMATCH}
)
# How far it came.
PROGRESS = frozenset({_S.PLATEAU, _S.OVERFIT, _S.LOSS_SPIKE})
# How a policy behaves whose rewards are wrong.
POLICY = frozenset(
    {_S.ENTROPY_COLLAPSE, _S.KL_BLOWUP, _S.ZERO_STD, _S.CLIPPED_COMPLETIONS, _S.GRAD_EXPLOSION, _S.PLATEAU}
)
PAIRS = frozenset({_S.DPO_OVERSHOOT, _S.DPO_DISPLACEMENT})
# Ends of a job that say why it ended; what the log says besides is a consequence of it.
_ENDS = frozenset({_S.SCRIPT_ERROR, _S.FROZEN, _S.STALL}) | PROGRESS | ANSWERS

EXPLAINS: dict[Symptom, frozenset[Symptom]] = {
    # The job ended for a reason of its own.
    _S.WRONG_COLUMNS: frozenset(_S) - {
        _S.WRONG_COLUMNS, _S.OOM, _S.JOB_TIMEOUT, _S.CONTAMINATION, _S.IMBALANCE, _S.DPO_FLIPPED
    },
    _S.OOM: _ENDS | {_S.NCCL_TIMEOUT, _S.HOST_OOM},
    _S.HOST_OOM: _ENDS | {_S.NCCL_TIMEOUT},
    _S.JOB_TIMEOUT: _ENDS | {_S.NCCL_TIMEOUT},
    _S.DISK_FULL: _ENDS,
    _S.AUTH: _ENDS,
    _S.RATE_LIMIT: _ENDS,
    _S.DATASET_SCRIPT: _ENDS,
    _S.DEPS: _ENDS,
    _S.DTYPE: _ENDS | {_S.NAN_INF},
    _S.NCCL_TIMEOUT: _ENDS,
    _S.TOKENIZER: _ENDS | {_S.EMBEDDING, _S.LABEL_NOISE},
    # Nothing was learned, or nothing that can be.
    _S.ALL_LABELS_MASKED: _ENDS | {_S.NAN_INF, _S.ADAPTER_UNUSED},
    _S.ASSISTANT_MASK_EMPTY: _ENDS | {_S.NAN_INF, _S.ALL_LABELS_MASKED, _S.PAD_EQ_EOS},
    _S.LORA_TARGETS: _ENDS | {_S.ADAPTER_UNUSED, _S.LABEL_NOISE},
    _S.FROZEN: (_ENDS - {_S.FROZEN}) | {_S.ADAPTER_UNUSED, _S.LABEL_NOISE},
    _S.EMBEDDING: ANSWERS | PROGRESS | {_S.SCRIPT_ERROR},
    _S.NAN_INF: ANSWERS
    | PROGRESS
    | {_S.DIVERGENCE, _S.GRAD_EXPLOSION, _S.FROZEN, _S.REWARD_ZERO, _S.ZERO_STD, _S.KL_BLOWUP, _S.FORGETTING},
    _S.DIVERGENCE: ANSWERS | PROGRESS | PAIRS | {_S.GRAD_EXPLOSION, _S.FORGETTING, _S.ADAPTER_UNUSED},
    _S.GRAD_EXPLOSION: PROGRESS,
    _S.LOSS_SPIKE: frozenset({_S.PLATEAU}) | ANSWERS,
    # The rows say it, and everything after them follows.
    _S.TRUNCATION: ANSWERS | {_S.SCRIPT_ERROR, _S.OVERFIT, _S.ALL_LABELS_MASKED, _S.PAD_EQ_EOS},
    _S.LABEL_NOISE: ANSWERS | PROGRESS | {_S.DIVERGENCE, _S.IMBALANCE, _S.REWARD_ZERO, _S.REWARD_HACK},
    _S.DUPLICATES: ANSWERS | {_S.OVERFIT, _S.PLATEAU, _S.FORGETTING, _S.IMBALANCE},
    _S.IMBALANCE: ANSWERS | PROGRESS,
    _S.LANGUAGE_MISMATCH: ANSWERS | PROGRESS | {_S.LABEL_NOISE},
    _S.PACKING_LEAK: ANSWERS | {_S.PLATEAU},
    _S.CONTAMINATION: frozenset({_S.OVERFIT, _S.TEMPLATE_MISMATCH, _S.EVAL_PROMPT_MISMATCH}),
    _S.OVERFIT: ANSWERS | {_S.PLATEAU},
    _S.PLATEAU: ANSWERS,
    # Answers.
    _S.MISSING_EOS: frozenset(
        {_S.CLIPPED_COMPLETIONS, _S.EXTRACTION_FAIL, _S.TEMPLATE_MISMATCH, _S.EVAL_PROMPT_MISMATCH, _S.REWARD_ZERO,
         _S.ZERO_STD}
    ),
    _S.PAD_EQ_EOS: frozenset({_S.MISSING_EOS, *ANSWERS}),
    _S.CLIPPED_COMPLETIONS: frozenset(
        {_S.EXTRACTION_FAIL, _S.TEMPLATE_MISMATCH, _S.EVAL_PROMPT_MISMATCH, _S.REWARD_ZERO, _S.ZERO_STD}
    ),
    _S.ADAPTER_UNUSED: ANSWERS | PROGRESS,
    _S.TEMPLATE_MISMATCH: frozenset({_S.EXTRACTION_FAIL, _S.EVAL_PROMPT_MISMATCH}),
    _S.EVAL_PROMPT_MISMATCH: frozenset({_S.EXTRACTION_FAIL}),
    # Pairs.
    _S.DPO_FLIPPED: PAIRS | PROGRESS | ANSWERS | {_S.WRONG_COLUMNS},
    _S.DPO_OVERSHOOT: PROGRESS | ANSWERS | {_S.DPO_DISPLACEMENT},
    _S.DPO_DISPLACEMENT: PROGRESS | ANSWERS,
    # Rewards: wrong ones make any policy odd, and a policy that ran away earns nothing.
    _S.REWARD_INVERTED: POLICY | ANSWERS | {_S.REWARD_HACK, _S.LENGTH_HACK, _S.REWARD_ZERO, _S.SCRIPT_ERROR},
    _S.REWARD_ZERO: (POLICY | ANSWERS | {_S.SCRIPT_ERROR}) - {_S.CLIPPED_COMPLETIONS, _S.MISSING_EOS},
    _S.LENGTH_HACK: POLICY | ANSWERS | {_S.REWARD_HACK},
    _S.REWARD_HACK: POLICY | ANSWERS,
    _S.KL_BLOWUP: ANSWERS | {_S.ENTROPY_COLLAPSE, _S.GRAD_EXPLOSION, _S.PLATEAU},
    _S.ZERO_STD: (ANSWERS - {_S.MISSING_EOS, _S.CLIPPED_COMPLETIONS}) | {
        _S.ENTROPY_COLLAPSE, _S.KL_BLOWUP, _S.GRAD_EXPLOSION, _S.FROZEN, _S.PLATEAU
    },
    _S.ENTROPY_COLLAPSE: ANSWERS,
    _S.ROLLOUT_MISMATCH: frozenset({_S.KL_BLOWUP, _S.ENTROPY_COLLAPSE}),
}  # fmt: skip
# A loss that was still falling is a remark, not the cause, once one of these accounts for the missed score.
_OUTWEIGH_A_SHORT_RUN = ANSWERS | {
    _S.TRUNCATION, _S.LABEL_NOISE, _S.DUPLICATES, _S.OVERFIT, _S.ADAPTER_UNUSED, _S.IMBALANCE, _S.LANGUAGE_MISMATCH,
    _S.PACKING_LEAK, _S.LORA_TARGETS, _S.PAD_EQ_EOS,
}  # fmt: skip
_DATA_CAUSES = frozenset(
    {_S.WRONG_COLUMNS, _S.TRUNCATION, _S.ALL_LABELS_MASKED, _S.ASSISTANT_MASK_EMPTY, _S.PAD_EQ_EOS, _S.DPO_FLIPPED,
     _S.REWARD_INVERTED, _S.TOKENIZER}
)  # fmt: skip
_ASKED_OTHERWISE = frozenset({_S.TEMPLATE_MISMATCH, _S.EVAL_PROMPT_MISMATCH})
RIGHT_SO_FAR = 0.8
"""Confidence from which on answers were cut that had begun well: the cap is the cause. Below it they were wrong from
the start, and a model that is asked in another form than it was taught does not end either."""
_ORDER = {Severity.FATAL: 0, Severity.HARMFUL: 1, Severity.ADVICE: 2}


def hides(cause: Finding, consequence: Finding) -> bool:
    """True when `cause` is enough to explain `consequence`. Advice explains nothing but advice."""
    first, second = cause.diagnosis.symptom, consequence.diagnosis.symptom
    if second is Symptom.PLATEAU and consequence.harm < 1 and first in _OUTWEIGH_A_SHORT_RUN:
        return cause.diagnosis.severity is not Severity.ADVICE
    if first in _ASKED_OTHERWISE and second is Symptom.CLIPPED_COMPLETIONS:
        return consequence.diagnosis.confidence < RIGHT_SO_FAR
    if second not in EXPLAINS.get(first, frozenset()) or cause is consequence:
        return False
    if first is Symptom.PLATEAU and cause.harm < 1:
        return False
    if first is Symptom.CLIPPED_COMPLETIONS and second in _ASKED_OTHERWISE:
        return cause.diagnosis.confidence >= RIGHT_SO_FAR
    if _ORDER[cause.diagnosis.severity] > _ORDER[consequence.diagnosis.severity]:
        return cause.diagnosis.severity is not Severity.ADVICE
    return consequence.basis is not Basis.DATA or first in _DATA_CAUSES
