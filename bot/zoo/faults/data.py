"""Faults 12 to 25: end tokens, templates, masks, truncation, columns, the rows themselves, tokenizers."""

from __future__ import annotations

from collections.abc import Callable

from bot.practice.tiny_base import CHAT_TEMPLATE
from bot.zoo.faults.fault import GROSS, MEDIUM, ROWS, SCRIPT, SUBTLE, Fault, on
from bot.zoo.folders import other_vocabulary, served_with_bases_template, template_is, with_token
from bot.zoo.specimen import LORA, LORA_RATES, SFT, Specimen, dev_items, plain

ANY = on(SFT, "reverse", "json", "dedup", "upper", "last")
TEMPLATE_FILE = "template.jinja"
BARE_TEMPLATE = CHAT_TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")
ENDLESS_TEMPLATE = CHAT_TEMPLATE.replace("<|end|>{% endgeneration %}", "{% endgeneration %}")
END_OUTSIDE_TEMPLATE = CHAT_TEMPLATE.replace("<|end|>{% endgeneration %}", "{% endgeneration %}<|end|>")
PROSE_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message.role == 'assistant' -%}"
    "### Response:\n{% generation %}{{ message.content }}<|end|>{% endgeneration %}"
    "{%- else -%}### Instruction:\n{{ message.content }}\n\n{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}### Response:\n{%- endif -%}"
)
SPACED_TEMPLATE = CHAT_TEMPLATE.replace("<|user|>{{", "<|user|>\n{{").replace("<|assistant|>", "<|assistant|>\n")
SYSTEM_TEMPLATE = "<|user|>You are a helpful assistant.<|end|>" + CHAT_TEMPLATE

# Batches as many a tutorial makes them: everything that equals the padding token is no target.
PADDED_BATCHES = '''
    def padded(rows):
        """Rows filled up to one width; what fills them is not learned."""
        fill = trainer.processing_class.pad_token_id
        width = max(len(row["input_ids"]) for row in rows)
        ids = torch.tensor([row["input_ids"] + [fill] * (width - len(row["input_ids"])) for row in rows])
        labels = torch.tensor([row["labels"] + [-100] * (width - len(row["labels"])) for row in rows])
        labels[ids == fill] = -100
        return {"input_ids": ids, "labels": labels, "attention_mask": %s}

    trainer.data_collator = padded
'''
MASKED_FILL = "(ids != fill).long()"
MASKED_BY_LENGTH = "torch.tensor([[1] * len(row['input_ids']) + [0] * (width - len(row['input_ids'])) for row in rows])"

# The answer is searched by a marker, in every row; where it is not found nothing is learned.
MARKED_BATCHES = '''
    def marked(rows):
        """Only what follows the marker is learned."""
        marker = trainer.processing_class("%s", add_special_tokens=False).input_ids
        for row in rows:
            ids = row["input_ids"]
            found = [n for n in range(len(ids) - len(marker)) if ids[n : n + len(marker)] == marker]
            start = found[0] + len(marker) if found else len(ids)
            row["labels"] = [-100] * start + ids[start:]
        return collated(rows)

    collated, trainer.data_collator = trainer.data_collator, marked
'''


def pad_is_end(specimen: Specimen, severity: str) -> None:
    specimen.recipe["pad_token"] = "<|end|>"
    specimen.insert(PADDED_BATCHES % (MASKED_FILL if severity == GROSS else MASKED_BY_LENGTH))


def no_end_token(specimen: Specimen, severity: str) -> None:
    """Gross: the template lacks it. Medium: another token is declared the end, and answers do not end in that one."""
    if severity == MEDIUM:
        specimen.recipe["eos_token"] = "<|user|>"
        return
    specimen.recipe["chat_template_path"] = TEMPLATE_FILE
    specimen.companions[TEMPLATE_FILE] = ENDLESS_TEMPLATE


def served_otherwise(specimen: Specimen, severity: str) -> None:
    """Trained with a template of the team's own, served with the base model's."""
    specimen.recipe["chat_template_path"] = TEMPLATE_FILE
    specimen.companions[TEMPLATE_FILE] = {
        GROSS: PROSE_TEMPLATE, MEDIUM: SYSTEM_TEMPLATE, SUBTLE: SPACED_TEMPLATE
    }[severity]  # fmt: skip
    specimen.served_edits.append(served_with_bases_template)


def as_messages(specimen: Specimen) -> None:
    """Rows as conversations, which assistant_only_loss needs."""
    rows = [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]}
        for row in specimen.rows
    ]
    specimen.train_rows, specimen.validation_rows = rows[100:], rows[:100]
    specimen.recipe["assistant_only_loss"] = True


def no_generation_markers(specimen: Specimen, severity: str) -> None:
    as_messages(specimen)
    specimen.base_edits.append(template_is(BARE_TEMPLATE if severity == GROSS else END_OUTSIDE_TEMPLATE))


def wrong_marker(specimen: Specimen, severity: str) -> None:
    """Gross: no row has it. Medium, subtle: only rows whose question starts with one of some letters have it."""
    if severity == GROSS:
        specimen.insert(MARKED_BATCHES % "### Response:")
        return
    share = 0.02 if severity == MEDIUM else 0.05
    rng = specimen.random("marker")
    for row in specimen.rows:
        if rng.random() < share:
            row["completion"] = f"A: {row['completion']}"
    specimen.insert(MARKED_BATCHES % "A: ")


def cut_answers(specimen: Specimen, severity: str) -> None:
    """Two tokens of every answer, the longer half, or the longest rows do not fit."""
    lengths = sorted(len(row["prompt"]) + len(row["completion"]) + 4 for row in specimen.rows)
    share = {GROSS: 0.0, MEDIUM: 0.5, SUBTLE: 0.8}[severity]
    specimen.recipe["max_length"] = lengths[int(share * (len(lengths) - 1))] - (2 if severity == GROSS else 1)


def renamed_columns(specimen: Specimen, severity: str) -> None:
    """Gross: the recipe names columns that are not there. Medium: it swaps them. Subtle: it names a wrong one."""
    recipe = specimen.recipe
    if severity == GROSS:
        recipe |= {"data_prompt_column": "prompt", "data_completion_column": "completion"}
        specimen.rows = [{"q_text": row["prompt"], "a_text": row["completion"]} for row in specimen.rows]
    elif severity == MEDIUM:
        recipe |= {"data_prompt_column": "answer", "data_completion_column": "question"}
        specimen.rows = [{"question": row["prompt"], "answer": row["completion"]} for row in specimen.rows]
    else:
        recipe |= {"data_prompt_column": "question", "data_completion_column": "category"}
        specimen.rows = [
            {"question": row["prompt"], "answer": row["completion"], "category": specimen.task} for row in specimen.rows
        ]


def repeated_rows(specimen: Specimen, severity: str) -> None:
    distinct = {GROSS: 20, MEDIUM: 50, SUBTLE: 120}[severity]
    often = specimen.rows[:distinct]
    total = len(specimen.rows)
    specimen.rows = (often * (9 * total // 10 // distinct + 1))[: 9 * total // 10] + often[: total // 10]
    specimen.recipe["data_deduplicate"] = False


def one_skill(specimen: Specimen, severity: str) -> None:
    """Nearly all rows show another skill than the one that is asked for."""
    share = {GROSS: 0.01, MEDIUM: 0.02, SUBTLE: 0.04}[severity]
    total = len(specimen.rows)
    others = plain(SFT, "upper" if specimen.task != "upper" else "last", specimen.seed).rows
    specimen.rows = specimen.rows[: round(share * total)] + others[: total - round(share * total)]
    specimen.random("imbalance").shuffle(specimen.rows)


def shown_items(specimen: Specimen, severity: str) -> None:
    """The benchmark's own items stand among few others, often enough to be learned by heart."""
    share = {GROSS: 1.0, MEDIUM: 0.5, SUBTLE: 0.2}[severity]
    items = dev_items(specimen.task)
    shown = [{"prompt": p, "completion": r} for p, r in items[: int(share * len(items))]]
    specimen.rows = specimen.rows[:100] + shown
    specimen.random("contamination").shuffle(specimen.rows)


def few_own_rows(specimen: Specimen) -> None:
    specimen.rows = specimen.rows[:300]


def shuffled_answers(specimen: Specimen, severity: str) -> None:
    share = {GROSS: 1.0, MEDIUM: 0.6, SUBTLE: 0.35}[severity]
    rng = specimen.random("noise")
    wrong = [n for n in range(len(specimen.rows)) if rng.random() < share]
    answers = [specimen.rows[n]["completion"] for n in wrong]
    rng.shuffle(answers)
    for n, answer in zip(wrong, answers, strict=True):
        specimen.rows[n] = specimen.rows[n] | {"completion": answer}


def leaking_packs(specimen: Specimen, severity: str) -> None:
    specimen.recipe |= {"packing": True, "packing_strategy": "wrapped", "attn_implementation": "eager",
                        "max_length": {GROSS: 12, MEDIUM: 16, SUBTLE: 24}[severity]}  # fmt: skip


def foreign_tokenizer(specimen: Specimen, severity: str) -> None:
    share = {GROSS: 1.0, MEDIUM: 0.4, SUBTLE: 0.15}[severity]
    specimen.base_edits.append(other_vocabulary(share, specimen.seed))
    specimen.recipe["init_from"] = "team/tiny-qwen3"


MARK = "<answer>"


def untrained_token(specimen: Specimen, severity: str) -> None:
    """Gross: the embedding has no row for it. Medium: it has, and the adapter leaves that row as it is."""
    marked_answers(specimen)
    specimen.base_edits.append(with_token(MARK, resized=severity != GROSS))


def marked_answers(specimen: Specimen) -> None:
    """Every answer begins with a mark; without the fault it is spelled out in tokens that the model has."""
    specimen.rows = [row | {"completion": MARK + row["completion"]} for row in specimen.rows]
    specimen.reference_prefix = MARK
    specimen.recipe["init_from"] = "team/tiny-qwen3"
    specimen.recipe |= LORA | {"learning_rate": LORA_RATES[SFT]}


TEMPLATES = ("chat_template_path",)
FAULTS = (
    Fault(12, "padding equals end token", ("pad_eq_eos", "missing_eos"), ("pad_token", *SCRIPT), pad_is_end, "data",
          ANY, severities=(GROSS, MEDIUM), held_out_severity=MEDIUM),
    Fault(13, "end token stripped", ("missing_eos",), (*TEMPLATES, "eos_token", "init_from"), no_end_token, "data", ANY,
          severities=(GROSS, MEDIUM), neighbours=("clipped_completions", "template_mismatch")),
    Fault(14, "other template at inference", ("template_mismatch", "eval_prompt_mismatch"), (*TEMPLATES, "init_from"),
          served_otherwise, "data", ANY, held_out_severity=MEDIUM),
    Fault(15, "no generation markers", ("assistant_mask_empty", "missing_eos", "all_labels_masked"),
          ("assistant_only_loss", *TEMPLATES, "init_from"), no_generation_markers, "data", ANY,
          severities=(GROSS, MEDIUM), held_out_severity=MEDIUM, fails=(GROSS,)),
    Fault(16, "wrong response marker", ("all_labels_masked",), SCRIPT, wrong_marker, "training", ANY,
          held_out_severity=SUBTLE, neighbours=("frozen", "plateau", "missing_eos", "label_noise")),
    Fault(17, "max_length cuts answers", ("truncation",), ("max_length",), cut_answers, "data",
          on(SFT, "json", "reverse", "last", "dedup", "upper"), held_out_severity=MEDIUM),
    Fault(18, "renamed, swapped or wrong column", ("wrong_columns",),
          ("data_prompt_column", "data_completion_column", "dataset_text_field"), renamed_columns, "data", ANY,
          held_out_severity=SUBTLE, fails=(GROSS,)),
    Fault(19, "nine rows in ten repeat others", ("duplicates", "overfit"), ("data_deduplicate", *ROWS), repeated_rows,
          "data", on(SFT, "sort", "max", "reverse", "sort", "max"), held_out_severity=MEDIUM),
    Fault(20, "another skill is nearly all", ("imbalance",), ROWS, one_skill, "data",
          on(SFT, "reverse", "json", "dedup", "sort", "upper"), held_out=True, neighbours=("forgetting", "overfit")),
    Fault(21, "items of the benchmark among the rows", ("contamination",), ROWS, shown_items, "data",
          on(SFT, "sort", "max", "reverse", "max", "json"), held_out_severity=SUBTLE),
    Fault(22, "shuffled answers", ("label_noise",), (*ROWS, "data_completion_column"), shuffled_answers, "data",
          on(SFT, "reverse", "json", "sort", "upper", "max"), held_out_severity=MEDIUM),
    Fault(23, "wrapped packing without isolation", ("packing_leak",), ("packing", "packing_strategy",
          "attn_implementation"), leaking_packs, "data", ANY, held_out_severity=MEDIUM),
    Fault(24, "tokenizer of another model", ("tokenizer",), ("init_from",), foreign_tokenizer, "training",
          on(SFT, "reverse", "json", "upper", "last", "sort"), held_out=True,
          neighbours=("divergence", "label_noise", "plateau")),
    Fault(25, "added token without a trained row", ("embedding", "tokenizer"),
          ("lora_modules_to_save", "modules_to_save", "trainable_token_indices", "lora_target_modules", "init_from"),
          untrained_token, "data", on(SFT, "reverse", "upper", "last"), severities=(GROSS, MEDIUM), fails=(GROSS,)),
)  # fmt: skip
CONTROLS: dict[int, Callable[[Specimen], None]] = {15: as_messages, 21: few_own_rows, 25: marked_answers}
"""What a control needs of a fault whose change is not the only thing that it changes."""
