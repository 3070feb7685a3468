"""Faults 39 to 47: the evaluator, memory, several processes, disks, time limits, the Hub."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bot.zoo.faults.fault import EVALUATOR, GROSS, LENGTH, MEDIUM, SCRIPT, SUBTLE, Fault, on
from bot.zoo.specimen import SFT, Specimen

ANY = on(SFT, "reverse", "json", "dedup", "upper", "last")


def broken_extraction(specimen: Specimen, severity: str) -> None:
    """The strict pattern finds nothing, half of each answer, or only some kinds of answers."""
    patterns = {GROSS: r"Answer: (\S+)", MEDIUM: r"^(\S{2})", SUBTLE: r"([a-m]\S*)"}

    def edit(benchmark: dict[str, Any]) -> None:
        benchmark["extraction"]["strict"] = {"pattern": patterns[severity]}

    specimen.benchmark_edits.append(edit)


def no_template_at_evaluation(specimen: Specimen, severity: str) -> None:
    """No chat template, or (medium) one with a system prompt that training never showed."""

    def edit(benchmark: dict[str, Any]) -> None:
        words = "Answer as short as you can, with nothing but the result of what you are asked to do."
        benchmark["chat"] = {"template": False} if severity == GROSS else {"template": True, "system": words}

    specimen.benchmark_edits.append(edit)


def memory_cap(specimen: Specimen, severity: str) -> None:
    specimen.recipe["per_device_train_batch_size"] = {GROSS: 2048, MEDIUM: 1024, SUBTLE: 512}[severity]
    specimen.address_space_gib = {GROSS: 0.8, MEDIUM: 0.6, SUBTLE: 0.45}[severity]


REPORT = """
    class Report(TrainerCallback):
        def on_step_end(self, args, state, control, **others):
            if state.global_step == {step} and args.process_index == 1:
                time.sleep(3600)  # until somebody has looked at it

    trainer.add_callback(Report())
"""


def sleeping_process(specimen: Specimen, severity: str) -> None:
    """One of two processes does something else, and the other waits for its gradients until `ddp_timeout`."""
    two_processes(specimen)
    specimen.insert(REPORT.format(step=specimen.steps // 4))
    specimen.recipe["ddp_timeout"] = COLLECTIVE_SECONDS


def two_processes(specimen: Specimen) -> None:
    """The control of the fault above: the same rows in every step, half of them in each process."""
    specimen.processes = 2
    specimen.recipe["per_device_train_batch_size"] //= 2


def full_disk(specimen: Specimen, severity: str) -> None:
    """Gross: no room for the second checkpoint's optimizer. Medium: a cap on the size of files."""
    specimen.recipe |= {"save_strategy": "steps", "save_steps": 20}
    if severity == GROSS:
        specimen.full_disk_at = "checkpoint-40/optimizer.pt"
    else:
        specimen.file_size_mib = 1.0


def short_limit(specimen: Specimen, severity: str) -> None:
    specimen.stop_at_share = {GROSS: 0.1, MEDIUM: 0.4, SUBTLE: 0.8}[severity]


def refusing_hub(specimen: Specimen, severity: str) -> None:
    specimen.hub = {GROSS: "gated", MEDIUM: "unauthorized", SUBTLE: "rate_limited"}[severity]
    specimen.recipe["init_from"] = "acme/tiny-instruct"


DATASET_SCRIPT = """
    from datasets import load_dataset

    extra = load_dataset("data/loader.py", split="train")
    train_rows += list(extra)
"""
LOADER = '''"""Rows for supervised fine-tuning."""
import datasets


class Rows(datasets.GeneratorBasedBuilder):
    def _info(self):
        return datasets.DatasetInfo(features=datasets.Features({"prompt": datasets.Value("string")}))
'''
ROWS_READ = "    train_rows = read_rows(experiment.train_file)\n"


def dataset_script(specimen: Specimen, severity: str) -> None:
    specimen.script_edits.append((ROWS_READ, ROWS_READ + DATASET_SCRIPT))
    specimen.companions["data/loader.py"] = LOADER


COLLECTIVE_SECONDS = 30
"""For one operation of all processes together; they start seconds apart on a busy machine, and wait for each other."""
MEMORY = ("per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing", "max_length")
DISK = ("save_steps", "save_total_limit", "save_strategy", "output_dir", "save_only_model")
FAULTS = (
    Fault(39, "broken extraction", ("extraction_fail",), EVALUATOR, broken_extraction, "evaluation",
          on(SFT, "json", "reverse", "last", "upper", "dedup"), held_out_severity=MEDIUM),
    Fault(40, "no template at evaluation", ("eval_prompt_mismatch", "template_mismatch"), EVALUATOR,
          no_template_at_evaluation, "evaluation", ANY, severities=(GROSS, MEDIUM), held_out_severity=MEDIUM),
    Fault(41, "memory cap", ("oom", "host_oom"), MEMORY, memory_cap, "crash", ANY, severities=(GROSS,), fails=(GROSS,)),
    Fault(42, "a process that sleeps", ("nccl_timeout",), ("ddp_timeout", *SCRIPT), sleeping_process, "crash", ANY,
          severities=(GROSS,), fails=(GROSS,)),
    Fault(43, "no room on the disk", ("disk_full",), DISK, full_disk, "crash", ANY,
          severities=(GROSS, MEDIUM), fails=(GROSS, MEDIUM), held_out=True, neighbours=("script_error",)),
    Fault(44, "time limit", ("job_timeout",), (*LENGTH, "timeout", "timeout_seconds"), short_limit, "crash", ANY,
          severities=(GROSS, MEDIUM), fails=(GROSS, MEDIUM), held_out_severity=MEDIUM),
    Fault(45, "the Hub refuses", ("auth",), ("init_from", "secrets"), refusing_hub, "crash", on(SFT, "reverse"),
          severities=(GROSS, MEDIUM), fails=(GROSS, MEDIUM)),
    Fault(46, "the Hub's rate limit", ("rate_limit",), ("init_from", "secrets"), lambda s, _: refusing_hub(s, SUBTLE),
          "crash", on(SFT, "json"), severities=(GROSS,), fails=(GROSS,)),
    Fault(47, "data set with a script", ("dataset_script",), ("train.py", "data_sources", "dataset_name"),
          dataset_script, "crash", on(SFT, "last"), severities=(GROSS,), fails=(GROSS,)),
)  # fmt: skip
CONTROLS: dict[int, Callable[[Specimen], None]] = {42: two_processes}
"""What a control needs of a fault whose change is not the only thing that it changes."""
