"""Faults 1 to 11: rates, schedules, clipping, half precision, frozen weights, too many rounds, too narrow a task."""

from __future__ import annotations

import json
from collections.abc import Callable

from bot.zoo.faults.fault import GROSS, LENGTH, MEDIUM, RATE, ROWS, SCRIPT, SUBTLE, Fault, on
from bot.zoo.folders import damage_weight
from bot.zoo.specimen import SFT, Specimen, plain

SOLVABLE = on(SFT, "reverse", "json", "dedup", "upper", "last")
HARD = on(SFT, "sort", "max", "sort", "max", "sort")
MIXED = (*on(SFT, "reverse", "json"), *on("sft+", "reverse", "json"), *on(SFT, "sort"))


def rate_too_high(specimen: Specimen, severity: str) -> None:
    factor = {GROSS: 100.0, MEDIUM: 30.0, SUBTLE: 12.0}[severity]
    specimen.recipe["learning_rate"] = round(specimen.recipe["learning_rate"] * factor, 6)


def rate_too_low(specimen: Specimen, severity: str) -> None:
    factor = {GROSS: 1000.0, MEDIUM: 200.0, SUBTLE: 50.0}[severity]
    specimen.recipe["learning_rate"] = float(f"{specimen.recipe['learning_rate'] / factor:.2g}")


def no_warm_up(specimen: Specimen, severity: str) -> None:
    specimen.recipe["learning_rate"] = {GROSS: 4e-2, MEDIUM: 3e-2, SUBTLE: 2.2e-2}[severity]
    specimen.recipe["warmup_steps"] = 0
    specimen.recipe["lr_scheduler_type"] = "constant"


def outlier_without_clipping(specimen: Specimen, severity: str) -> None:
    """Rows of noise, many times as long as the others, meet an optimizer whose steps grow with the gradient."""
    count = {GROSS: 60, MEDIUM: 25, SUBTLE: 10}[severity]
    rng = specimen.random("outliers")
    signs = "#$%&*+<=>?@^~|"
    for _ in range(count):
        noise = "".join(rng.choice(signs) for _ in range(100))
        specimen.rows.insert(rng.randrange(len(specimen.rows)), {"prompt": noise[:12], "completion": noise})
    clipped_sgd(specimen)
    specimen.recipe["max_grad_norm"] = 0.0


def clipped_sgd(specimen: Specimen) -> None:
    """The control of the fault above: the same optimizer with its clipping."""
    specimen.recipe |= {"optim": "sgd", "optim_args": "momentum=0.9", "learning_rate": 0.3,
                        "lr_scheduler_type": "linear", "max_grad_norm": 1.0}  # fmt: skip
    specimen.recipe["max_steps"] = max(200, specimen.steps)


def half_precision(specimen: Specimen, severity: str) -> None:
    specimen.recipe["dtype"] = "float16"


# A loss that a user writes so that long answers do not outweigh short ones; an empty answer is divided by nothing.
PER_ANSWER_LOSS = '''
    def per_answer_loss(model, inputs, return_outputs=False, **others):
        """Every answer counts the same, however long it is."""
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        targets = inputs["labels"][:, 1:]
        losses = torch.nn.functional.cross_entropy(
            outputs.logits[:, :-1].transpose(1, 2), targets, ignore_index=-100, reduction="none"
        )
        lengths = (targets != -100).sum(1) - 1  # the end token is not part of the answer
        loss = (losses.sum(1) / lengths).mean()
        return (loss, outputs) if return_outputs else loss

    trainer.compute_loss = per_answer_loss
'''


def not_a_number(specimen: Specimen, severity: str) -> None:
    """Gross: the model to start from is damaged. Else empty answers among the rows, and a loss that divides by them."""
    if severity == GROSS:
        specimen.base_edits.append(damage_weight)
        return
    specimen.insert(PER_ANSWER_LOSS)
    rng = specimen.random("empty")
    every = {MEDIUM: 150, SUBTLE: 600}[severity]
    rows = [
        {"prompt": row["prompt"], "completion": "" if n % every == every // 2 else row["completion"]}
        for n, row in enumerate(specimen.rows)
    ]
    rng.shuffle(rows)
    specimen.train_rows, specimen.validation_rows = rows[100:], [row for row in rows[:100] if row["completion"]]


def frozen(specimen: Specimen, severity: str) -> None:
    kept = {GROSS: "False", MEDIUM: '"layers.0.input_layernorm" in name', SUBTLE: '"input_layernorm" in name'}[severity]
    specimen.insert(
        f"    for name, weight in trainer.model.named_parameters():\n        weight.requires_grad_({kept})\n"
    )


def stale_optimizer(specimen: Specimen, severity: str) -> None:
    """The optimizer holds weights that are no part of the model any more."""
    part = {GROSS: "model", MEDIUM: "model.model.layers"}[severity]
    target = {GROSS: "trainer.model_wrapped = trainer.model", MEDIUM: "trainer.model.model.layers"}[severity]
    specimen.insert(
        f"    import copy\n\n    trainer.create_optimizer()\n    {target} = copy.deepcopy(trainer.{part})\n"
    )


def few_rows(specimen: Specimen, severity: str) -> None:
    rows = {GROSS: 32, MEDIUM: 64, SUBTLE: 128}[severity]
    specimen.recipe["data_max_rows"] = rows
    specimen.recipe["num_train_epochs"] = {GROSS: 100, MEDIUM: 60, SUBTLE: 40}[severity]
    specimen.recipe["per_device_train_batch_size"] = 16
    del specimen.recipe["max_steps"]


def narrow_task(specimen: Specimen, severity: str) -> None:
    """Goes on from a model that has another skill, and shows it nothing of that skill, or too little."""
    before_a_chain(specimen)
    if severity == GROSS:
        return
    if severity == MEDIUM:
        specimen.recipe["learning_rate"] = 1e-3
        return
    replay = plain(SFT, str(specimen.old_task), specimen.seed + 50).rows
    specimen.rows += replay[: len(specimen.rows) // 100]


def before_a_chain(specimen: Specimen) -> None:
    """The model to start from is the outcome of a run on another task, which is asked again afterwards."""
    specimen.old_task = "reverse" if specimen.task != "reverse" else "json"
    specimen.earlier = plain(SFT, specimen.old_task, specimen.seed)
    specimen.recipe["init_from"] = "postdoc/tiny-qwen3-instruct"


def with_replay(specimen: Specimen) -> None:
    """The control of the fault above: a fifth of the rows shows the old skill."""
    before_a_chain(specimen)
    specimen.rows += plain(SFT, str(specimen.old_task), specimen.seed + 50).rows[: len(specimen.rows) // 4]


def schedule_ends_early(specimen: Specimen, severity: str) -> None:
    share = {GROSS: 0.06, MEDIUM: 0.12, SUBTLE: 0.2}[severity]
    decay = max(2, round(specimen.steps * share))
    specimen.recipe["lr_scheduler_type"] = "warmup_stable_decay"
    specimen.recipe["lr_scheduler_kwargs"] = json.dumps(
        {"num_decay_steps": decay - decay // 2, "num_stable_steps": decay // 2}
    )


SCHEDULE = ("lr_scheduler_type", "lr_scheduler_kwargs")
FAULTS = (
    Fault(1, "learning rate times 100", ("divergence", "grad_explosion"), RATE, rate_too_high, "training",
          (*SOLVABLE[:2], ("dpo", "last"), *MIXED[2:4]), held_out_severity=MEDIUM, neighbours=("plateau",)),
    Fault(2, "learning rate by 1000", ("plateau",), (*RATE, *LENGTH), rate_too_low, "training",
          (*SOLVABLE[:3], ("grpo", "last"), MIXED[3]), held_out_severity=SUBTLE),
    Fault(3, "no warm-up and a high rate", ("divergence", "grad_explosion"), (*RATE, "warmup_steps"), no_warm_up,
          "training", SOLVABLE, held_out_severity=MEDIUM, neighbours=("plateau",)),
    Fault(4, "clipping off and outlier rows", ("loss_spike", "grad_explosion", "divergence"),
          ("max_grad_norm", *RATE, *ROWS), outlier_without_clipping, "training", on(SFT, "last", "upper"),
          held_out_severity=SUBTLE, neighbours=("nan_inf",)),
    Fault(5, "fp16 overflow", ("nan_inf", "dtype"), ("dtype", "fp16"), half_precision, "training", SOLVABLE,
          severities=(GROSS,)),
    Fault(6, "damaged weight, or a batch with an empty answer", ("nan_inf",), ("init_from", *SCRIPT, *ROWS),
          not_a_number, "training", SOLVABLE, held_out_severity=SUBTLE),
    Fault(7, "all weights frozen", ("frozen", "lora_targets"), (*SCRIPT, "lora_target_modules"), frozen, "training",
          SOLVABLE, held_out_severity=SUBTLE, neighbours=("plateau", "script_error"), fails=(GROSS,)),
    Fault(8, "optimizer over stale weights", ("frozen",), SCRIPT, stale_optimizer, "training", SOLVABLE,
          severities=(GROSS, MEDIUM), held_out=True, neighbours=("plateau",)),
    Fault(9, "many rounds over few rows", ("overfit",), (*LENGTH, "data_max_rows", *ROWS), few_rows, "training", HARD,
          held_out_severity=MEDIUM, neighbours=("duplicates",)),
    Fault(10, "narrow task, old task asked again", ("forgetting",), (*LENGTH, *RATE, *ROWS), narrow_task, "training",
          on(SFT, "json", "upper", "dedup", "last", "sort"), held_out_severity=SUBTLE),
    Fault(11, "schedule at zero after a fifth", ("plateau",), (*SCHEDULE, *RATE), schedule_ends_early, "training",
          on(SFT, "sort", "max", "reverse", "json", "dedup"), neighbours=("frozen",), held_out_severity=SUBTLE),
)  # fmt: skip
CONTROLS: dict[int, Callable[[Specimen], None]] = {4: clipped_sgd, 10: with_replay}
"""What a control needs of a fault whose change is not the only thing that it changes."""
