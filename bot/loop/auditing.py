"""When a job that only audits the data is worth its start: what a training job would write about its tokens, masks and
weights before its first step, known before a machine that costs something is asked for.

Not covered: scripts that are not the shipped ones, and runs that start from an earlier run's model.
"""

from __future__ import annotations

import yaml

from bot.conversation.policy import Policy
from bot.domain.experiment import Experiment, JobRole, Run
from bot.domain.methods import METHODS
from bot.domain.recipe import differences, earlier_run
from bot.loop.spending import data_key

NOT_AUDITED = frozenset(
    {
        "learning_rate", "lr_scheduler_type", "warmup_ratio", "warmup_steps", "weight_decay", "max_grad_norm",
        "num_train_epochs", "max_steps", "adam_beta1", "adam_beta2", "adam_epsilon", "label_smoothing_factor",
        "logging_steps", "eval_steps", "eval_strategy", "save_steps", "save_strategy", "save_total_limit", "beta",
    }
)  # fmt: skip
"""Keys that say how long and how fast is trained, never what on: an audit stands when one of them changes."""
AUDITING_ROLES = (JobRole.TRAIN, JobRole.AUDIT)
"""Jobs that write data_audit.json for a run."""


def prepares_alike(one: Run, other: Run) -> bool:
    """Whether two runs tokenise the same rows in the same way."""
    changed = differences(yaml.safe_load(one.recipe) or {}, yaml.safe_load(other.recipe) or {})
    return one.digests == other.digests and changed.keys() <= NOT_AUDITED


def audit_wanted(x: Experiment, run: Run) -> bool:
    """Whether the run's data is to be audited by a job of its own before it is trained on: the machine costs something
    (noted when the data was checked), findings may refuse a run, and no job has looked at data prepared alike."""
    checked = x.data.get(data_key(run.recipe, run.digests), {})
    method = METHODS.get(run.method)
    if not checked.get("audit_first") or method is None or not method.audited:
        return False
    if Policy.from_dict(x.policy).monitor != "abort" or run.digests != x.shipped_digests:
        return False
    if earlier_run((yaml.safe_load(run.recipe) or {}).get("init_from")) is not None:
        return False
    looked = (job for job in x.jobs.values() if job.role in AUDITING_ROLES and not job.refused and job.run != run.n)
    return not any(prepares_alike(x.runs[job.run - 1], run) for job in looked)
