"""Faults 26 to 30: adapters, and preference pairs."""

from __future__ import annotations

from bot.zoo.faults.fault import EVALUATOR, GROSS, MEDIUM, RATE, ROWS, SUBTLE, Fault, on
from bot.zoo.specimen import DPO, SFT, Specimen

PAIRS = on(DPO, "last", "upper", "max", "last", "upper")


def one_target(specimen: Specimen, severity: str) -> None:
    """One projection of one layer, one of every layer, or two of every layer with a rank of one.

    A single name is a pattern that has to match the whole of a module's name.
    """
    targets: dict[str, object] = {
        GROSS: ".*layers[.]0[.]self_attn[.]q_proj", MEDIUM: ".*q_proj", SUBTLE: ["q_proj", "k_proj"]
    }  # fmt: skip
    specimen.recipe["lora_target_modules"] = targets[severity]
    if severity == SUBTLE:
        specimen.recipe |= {"lora_r": 1, "lora_alpha": 2}


def base_is_evaluated(specimen: Specimen, severity: str) -> None:
    specimen.evaluates_base = True


def swapped_pairs(specimen: Specimen, severity: str) -> None:
    """Gross: the recipe names each column for the other. Else most of the rows have them the wrong way round."""
    if severity == GROSS:
        specimen.recipe |= {"data_chosen_column": "rejected", "data_rejected_column": "chosen"}
        return
    share = {MEDIUM: 0.85, SUBTLE: 0.6}[severity]
    rng = specimen.random("swapped")
    for row in specimen.rows:
        if rng.random() < share:
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]


def overshoot(specimen: Specimen, severity: str) -> None:
    specimen.recipe |= {
        "loss_type": ["sigmoid"], "learning_rate": {GROSS: 2e-2, MEDIUM: 8e-3, SUBTLE: 4e-3}[severity],
        "beta": {GROSS: 0.01, MEDIUM: 0.01, SUBTLE: 0.03}[severity],
    }  # fmt: skip
    specimen.recipe.pop("loss_weights", None)


def nearly_equal_pairs(specimen: Specimen, severity: str) -> None:
    """What is rejected differs from what is chosen in one character; no term of the loss holds the chosen one up."""
    share = {GROSS: 1.0, MEDIUM: 0.8, SUBTLE: 0.6}[severity]
    rng = specimen.random("pairs")
    for row in specimen.rows:
        if rng.random() < share:
            answer = row["chosen"]
            place = rng.randrange(len(answer))
            other = "0123456789" if answer[place].isdigit() else "abcdefghijklmnopqrstuvwxyz"
            other = other.upper() if answer[place].isupper() else other
            letter = rng.choice([letter for letter in other if letter != answer[place]])
            row["rejected"] = answer[:place] + letter + answer[place + 1 :]
    specimen.recipe |= {"loss_type": ["sigmoid"], "learning_rate": 1.5e-3, "beta": 0.05}
    specimen.recipe.pop("loss_weights", None)


LOSS = ("loss_type", "loss_weights")
FAULTS = (
    Fault(26, "adapter on one module", ("lora_targets",), ("lora_target_modules", "lora_r"), one_target, "data",
          on("sft+", "reverse", "json", "dedup", "last", "sort"), held_out_severity=MEDIUM,
          neighbours=("plateau", "frozen")),
    Fault(27, "the base model is evaluated", ("adapter_unused",), EVALUATOR, base_is_evaluated, "evaluation",
          (*on("sft+", "reverse", "json"), *on(SFT, "dedup"), *on(DPO, "upper"), *on("sft+", "last")),
          severities=(GROSS,)),
    Fault(28, "chosen and rejected swapped", ("dpo_flipped",), (*ROWS, "data_chosen_column", "data_rejected_column"),
          swapped_pairs, "training", PAIRS, held_out_severity=MEDIUM, neighbours=("dpo_displacement",)),
    Fault(29, "beta tiny and rate high", ("dpo_overshoot",), (*RATE, "beta", *LOSS), overshoot, "training", PAIRS,
          held_out_severity=MEDIUM, neighbours=("dpo_displacement", "divergence")),
    Fault(30, "chosen nearly equals rejected", ("dpo_displacement",), (*LOSS, *RATE, *ROWS), nearly_equal_pairs,
          "training", PAIRS, held_out=True, neighbours=("dpo_overshoot", "dpo_flipped")),
)  # fmt: skip
