# /// script
# requires-python = ">=3.11"
# dependencies = ["torch>=2.13,<2.14", "trl>=1.16,<2", "peft>=0.21"]
# ///
"""Supervised fine-tuning with TRL: one recipe in, one model out.

    uv run train.py --config recipe.yaml                              # everything is in the recipe
    uv run train.py --config recipe.yaml --learning_rate 1e-4         # a flag wins over the recipe
    uv run train.py --config recipe.yaml --smoke                      # two steps, to see that it runs
    uv run train.py --config recipe.yaml --learning_rate_probe 1e-5,1e-4,1e-3
    uv run train.py --config recipe.yaml --timing_probe 20            # how long a step takes here, and its memory
    accelerate launch train.py --config recipe.yaml                   # several GPUs
    uv run train.py --config recipe.yaml --resume_from_checkpoint out/checkpoint-200

Checkpoints are made as the recipe says: `save_steps: 200` makes checkpoint-200, checkpoint-400 and so on (500 is TRL's
own), `save_total_limit: 2` deletes older ones, `save_strategy: "no"` makes none, for a run that is sooner done again.
A run that finds checkpoints in its output_dir goes on from the newest whole one, and ends with the same weights, bit
for bit on a processor, as one that was never interrupted.

The recipe is flat YAML, one key per line. Its keys are those of TRL's SFTConfig (learning_rate, max_length, packing,
...) and ModelConfig (dtype, use_peft, lora_r, ...) plus the few in `Experiment` below. Rows are JSONL in any format
that TRL's SFTTrainer takes: prompt and completion, messages, or text.

What it writes below `output_dir` (default `out`):

    setup.json           steps, rows, device and parameters of this run, before the first step
    data_audit.json      what is trained on: truncation, end tokens, empty labels, duplicates; before the first step
    checkpoint-N/        weights, optimizer and random states after step N, where the recipe saves
    latest               name of the newest whole one, replaced when that is complete
    metrics.jsonl        one JSON object per logged step, while it trains; NaN and infinities as strings
    trainer_state.json   TRL's own record
    model/               weights, tokenizer and configuration (LoRA is merged; the adapter itself lies in adapter/)
    summary.json         steps done, seconds, final loss
    probe.json           instead of all that: the learning-rate range test
    timing.json          or, with --timing_probe: steps, seconds_per_step, peak_memory_gib

Exit code 2 and one line on stderr: the recipe or the data must change. Any other failure keeps its traceback.
"""

import difflib
import gc
import json
import math
import os
import re
import resource
import sys
import time
import typing
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
warnings.filterwarnings("ignore", category=FutureWarning)  # libraries telling each other what they will rename
STARTED = time.monotonic()

gc.disable()  # importing makes a million long-lived objects, and each collection looks at all of them again
import torch  # noqa: E402
import yaml  # noqa: E402
from datasets import Dataset, disable_progress_bars  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed  # noqa: E402
from transformers.trainer_callback import PrinterCallback  # noqa: E402
from transformers.utils.logging import disable_progress_bar  # noqa: E402
from trl import ModelConfig, SFTConfig, SFTTrainer, TrlParser, get_peft_config, get_quantization_config  # noqa: E402

gc.enable()
gc.freeze()

Json = dict[str, Any]
EOS_WINDOW = 3
"""An end token this close to the last supervised token counts: Qwen's template, for one, ends a turn with it and a
line break."""
RENAMED = {
    "warmup_ratio": "warmup_steps (a value below 1 is a share of all steps)",
    "max_seq_length": "max_length",
    "torch_dtype": "dtype",
    "evaluation_strategy": "eval_strategy",
}
"""Keys that many published recipes still use."""
PROBE_STEPS = 20
PROBE_WARMUP_STEPS = 3
PROBE_TOLERANCE = 1.05


@dataclass
class Experiment:
    """The recipe's keys that TRL does not know. Those called data_* are for data/prepare.py and only allowed here."""

    method: str = field(default="sft", metadata={"help": "What this script does; anything else is refused."})
    init_from: str | None = field(default=None, metadata={"help": "Model to start from: a Hub id or a folder."})
    train_file: str = field(default="data/train.jsonl", metadata={"help": "Rows to train on."})
    validation_file: str = field(
        default="data/validation.jsonl", metadata={"help": "Rows for eval_loss; none are used when it does not exist."}
    )
    data_sources: str | None = field(default=None, metadata={"help": "Read by data/prepare.py."})
    data_prompt_column: str = field(default="auto", metadata={"help": "Read by data/prepare.py."})
    data_completion_column: str = field(default="auto", metadata={"help": "Read by data/prepare.py."})
    data_deduplicate: bool = field(default=True, metadata={"help": "Read by data/prepare.py."})
    data_max_rows: int | None = field(default=None, metadata={"help": "Read by data/prepare.py."})
    data_validation_rows: int = field(default=0, metadata={"help": "Read by data/prepare.py."})
    learning_rate_probe: str | None = field(
        default=None, metadata={"help": "Comma-separated learning rates to compare instead of training."}
    )
    timing_probe: int | None = field(
        default=None, metadata={"help": "Steps to take instead of training, to see their time and memory."}
    )
    smoke: bool = field(default=False, metadata={"help": "Two steps on a few rows."})


def main() -> None:
    experiment, args, model_args = parse_arguments()
    set_seed(args.seed)  # before the model: LoRA's initial weights are drawn while the trainer is built
    train_rows = read_rows(experiment.train_file, experiment)
    validation_rows = read_rows(experiment.validation_file, experiment, optional=True)
    if experiment.smoke:
        train_rows, validation_rows = train_rows[:64], validation_rows[:16]
        args.max_steps, args.save_strategy = 2, "no"
    rates = probe_rates(experiment)
    timed = timing_steps(experiment)
    if rates or timed:
        train_rows, validation_rows = prepare_probe(args, train_rows, timed or PROBE_STEPS), []
    choose_evaluation(args, bool(validation_rows), experiment)

    args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype or "float32",
    } | (args.model_init_kwargs or {})
    tokenizer = AutoTokenizer.from_pretrained(
        experiment.init_from, revision=model_args.model_revision, trust_remote_code=args.trust_remote_code
    )
    trainer = SFTTrainer(
        model=experiment.init_from,
        args=args,
        train_dataset=Dataset.from_list(train_rows),
        eval_dataset=Dataset.from_list(validation_rows) if validation_rows else None,
        processing_class=tokenizer,
        quantization_config=get_quantization_config(model_args),
        peft_config=get_peft_config(model_args),
    )
    trainer.remove_callback(PrinterCallback)
    if rates:
        write_json(trainer, "probe.json", probe_learning_rates(trainer, rates))
        return
    if timed:
        write_json(trainer, "timing.json", probe_timing(trainer))
        return

    audit = audit_data(trainer, train_rows)
    write_json(trainer, "data_audit.json", audit)
    if audit["rows"] == audit["dropped_rows"]:
        fail(
            f"no row is left to train on: all {audit['rows']} prompts fill max_length: {args.max_length} alone; "
            f"the longest row has {audit['token_lengths']['max']} tokens, so write a max_length of at least that"
        )
    trainer.add_callback(MetricsLog(Path(args.output_dir), len(train_rows)))
    trainer.add_callback(CheckpointLog(Path(args.output_dir)))
    result = trainer.train(resume_from_checkpoint=checkpoint_to_resume(args))
    trainer.save_state()
    save_model(trainer, tokenizer, experiment)
    write_json(
        trainer,
        "summary.json",
        {
            "method": experiment.method,
            "init_from": experiment.init_from,
            "global_step": trainer.state.global_step,
            "max_steps": trainer.state.max_steps,
            "epoch": trainer.state.epoch,
            "train_loss": plain(result.training_loss),
            "train_seconds": round(result.metrics["train_runtime"], 2),
            "total_seconds": round(time.monotonic() - STARTED, 2),
        },
    )
    if trainer.is_world_process_zero():
        print(f"done: {trainer.state.global_step} steps, model in {Path(args.output_dir) / 'model'}", flush=True)


# --- The recipe -----------------------------------------------------------------------------------------------------


class RecipeParser(TrlParser):  # type: ignore[misc]
    """TRL's parser, strict about the recipe: every value is checked as if it had been typed on the command line."""

    def set_defaults_with_config(self, **recipe: object) -> list[str]:
        hints: Json = {}
        for dataclass_type in self.dataclass_types:
            hints |= typing.get_type_hints(dataclass_type)
        for key, value in recipe.items():
            if key in RENAMED:
                fail(f"{key} is called {RENAMED[key]} by now")
            if key not in hints:
                close = difflib.get_close_matches(key, hints, n=1)
                fail(f"unknown key {key}" + (f"; did you mean {close[0]}?" if close else ": remove the line"))
            if value is None and type(None) not in typing.get_args(hints[key]):
                fail(f"{key} has no value; write one or remove the line")
            if value is False and key.endswith("_strategy"):
                value = "no"  # YAML reads a bare `no` as false
            if isinstance(value, dict):
                value = json.dumps(value)
            # argparse converts and checks string defaults only; YAML reads 2e-5 as a string anyway
            as_it_is = value is None or (isinstance(value, list) and "list" in str(hints[key]))
            recipe[key] = value if as_it_is else str(value)
        unused: list[str] = super().set_defaults_with_config(**recipe)
        return unused

    def error(self, message: str) -> NoReturn:
        match = re.search(r"argument (--[\w-]+).*?: invalid (\w+) value: (.*)", message)
        if match:
            kind = {"int": "a whole number", "_accept_none": "a number", "float": "a number"}.get(match[2], match[2])
            fail(f"{match[1].lstrip('-')} needs {kind}, not {match[3]}")
        fail(re.sub(r"argument --([\w-]+)\S*:", r"\1:", message))


def parse_arguments() -> tuple[Experiment, SFTConfig, ModelConfig]:
    """The recipe, then the flags over it, on top of defaults that suit the machine."""
    gpu = torch.cuda.is_available()
    parser = RecipeParser((Experiment, SFTConfig, ModelConfig))
    parser.set_defaults(
        output_dir="out",
        logging_steps=1,
        logging_nan_inf_filter=False,  # the trainer's default prints a NaN loss as 0.0, which looks perfect
        report_to="none",
        disable_tqdm=True,
        use_cpu=not (gpu or torch.backends.mps.is_available()),  # or `bf16: true` is refused where there is no GPU
        bf16=gpu and torch.cuda.is_bf16_supported(),
        gradient_checkpointing=gpu,
        dataloader_pin_memory=gpu,
    )
    try:
        experiment, args, model_args = parser.parse_args_and_config()
    except OSError as error:
        fail(f"cannot read the recipe: {error}")
    except yaml.YAMLError as error:
        fail("the recipe is not YAML: " + " ".join(str(error).split()))
    except ValueError as error:
        fail(" ".join(str(error).split()))
    if experiment.method != "sft":
        fail(f"this script trains method: sft, and the recipe says method: {experiment.method}")
    experiment.init_from = experiment.init_from or model_args.model_name_or_path
    if not experiment.init_from:
        fail("init_from is missing; write the Hub id or the folder of the model to start from")
    for key in ("learning_rate", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps"):
        if not getattr(args, key) > 0:
            fail(f"{key} needs a number above 0, not {getattr(args, key)}")
    if args.max_length is not None and args.max_length < 2:
        fail(f"max_length needs at least 2 tokens (or null for no limit), not {args.max_length}")
    return experiment, args, model_args


def choose_evaluation(args: SFTConfig, has_validation: bool, experiment: Experiment) -> None:
    """With validation rows eval_loss is measured ten times a run, unless the recipe says how often."""
    if not has_validation:
        if args.eval_strategy != "no" and not experiment.learning_rate_probe:
            fail(
                f"eval_strategy: {args.eval_strategy} needs rows in {experiment.validation_file}, which has none; "
                "set data_validation_rows, or remove eval_strategy"
            )
        return
    if args.eval_strategy == "no":
        args.eval_strategy = "steps"
        args.eval_steps = args.eval_steps or 0.1
    if args.per_device_eval_batch_size == SFTConfig.per_device_eval_batch_size:
        args.per_device_eval_batch_size = args.per_device_train_batch_size


# --- The rows -------------------------------------------------------------------------------------------------------


def read_rows(path: str, experiment: Experiment, optional: bool = False) -> list[Json]:
    """The JSON objects of `path`, whose columns must be ones that SFT knows."""
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")  # splitlines() would also cut at U+2028 in a text
    except FileNotFoundError:
        if optional:
            return []
        fail(f"there is no {path}; run data/prepare.py first, or set train_file")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError:
            fail(f"{path} line {number} is not JSON; every line must be one JSON object")
        if row is not None and not isinstance(row, dict):
            fail(f"{path} line {number} is not a JSON object")
        if row is not None:
            rows.append(row)
    if not rows and not optional:
        fail(f"{path} has no rows; look at dropped in data/build.json")
    if rows and not ({"prompt", "completion"} <= rows[0].keys() or {"messages", "text"} & rows[0].keys()):
        fail(
            f"{path} has the columns {', '.join(rows[0])}; SFT needs prompt and completion (or messages, or text): "
            "name them with data_prompt_column and data_completion_column"
        )
    return rows


def audit_data(trainer: SFTTrainer, rows: list[Json]) -> Json:
    """What the tokenised rows that TRL trains on look like, measured on the labels themselves."""
    args, prepared = trainer.args, trainer.train_dataset
    whole = prepared
    reaches_limit = args.max_length is not None and any(len(ids) >= args.max_length for ids in prepared["input_ids"])
    if args.packing or reaches_limit or len(prepared) < len(rows):
        # Packing and truncation hide where a row ended, so the rows are tokenised once more without them.
        limit, args.max_length = args.max_length, None
        whole = trainer._prepare_dataset(
            Dataset.from_list(rows), trainer.processing_class, args, False, None, "whole train"
        )
        args.max_length = limit
    end_ids = end_token_ids(trainer)
    limit = None if args.packing else args.max_length
    lengths, answers, supervised_ends, zero_labels, dropped = [], [], 0, 0, 0
    for labels in whole["labels"]:
        answer = [label for label in labels if label != -100]
        kept = [label for label in labels[:limit] if label != -100]
        lengths.append(len(labels))
        answers.append(len(answer))
        zero_labels += not kept
        dropped += bool(args.max_length and not args.packing and not kept)
        supervised_ends += any(label in end_ids for label in kept[-EOS_WINDOW:])
    texts = [json.dumps(row, sort_keys=True) for row in rows]
    prompts = {json.dumps(row.get("prompt", row.get("messages", row.get("text")))) for row in rows}
    return {
        "rows": len(rows),
        "columns": sorted(rows[0]),
        "max_length": args.max_length,
        "packing": args.packing,
        "truncated_rows": 0 if limit is None else sum(length > limit for length in lengths),
        "dropped_rows": dropped,
        "supervised_eos_rows": supervised_ends,
        "zero_label_rows": zero_labels,
        "token_lengths": percentiles(lengths),
        "answer_token_lengths": percentiles(answers),
        "pad_token_id": trainer.processing_class.pad_token_id,
        "eos_token_ids": sorted(end_ids),
        "duplicate_rows": len(texts) - len(set(texts)),
        "distinct_prompts": len(prompts),
    }


def end_token_ids(trainer: SFTTrainer) -> set[int]:
    """Every token that ends generation for this model."""
    configured = trainer.model.generation_config.eos_token_id
    ids = set(configured) if isinstance(configured, list) else {configured}
    return (ids | {trainer.processing_class.eos_token_id}) - {None}


def percentiles(values: list[int]) -> Json:
    ordered = sorted(values)
    return {
        name: ordered[round(share * (len(ordered) - 1))] for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1))
    }


# --- The learning-rate range test -----------------------------------------------------------------------------------


def probe_rates(experiment: Experiment) -> list[float]:
    try:
        rates = [float(rate) for rate in (experiment.learning_rate_probe or "").split(",") if rate.strip()]
    except ValueError:
        rates = [-1.0]
    if any(not 0 < rate < math.inf for rate in rates):
        fail(
            f"learning_rate_probe needs numbers above 0 with commas between them, not {experiment.learning_rate_probe}"
        )
    return rates


def prepare_probe(args: SFTConfig, rows: list[Json], steps: int) -> list[Json]:
    """A handful of steps at a constant rate; nothing is evaluated or saved. Returns the rows that it needs."""
    args.max_steps, args.warmup_steps, args.lr_scheduler_type = steps, PROBE_WARMUP_STEPS, "constant_with_warmup"
    args.eval_strategy = args.save_strategy = "no"
    args.logging_steps = 1
    needed = steps * args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return rows if args.packing else rows[:needed]


def probe_learning_rates(trainer: SFTTrainer, rates: list[float]) -> Json:
    """Every rate from the same weights on the same batches; the smallest rate within 5 % of the lowest last loss wins.

    The smallest, because a short test flatters large steps: what still falls after 20 steps can diverge after 200.
    """
    weights = {
        name: weight.detach().clone() for name, weight in trainer.model.named_parameters() if weight.requires_grad
    }
    trials = []
    for rate in rates:
        with torch.no_grad():
            for name, weight in trainer.model.named_parameters():
                if name in weights:
                    weight.copy_(weights[name])
        set_seed(trainer.args.seed)
        trainer.args.learning_rate, trainer.optimizer, trainer.lr_scheduler = rate, None, None
        trainer.train()
        steps = [row for row in trainer.state.log_history if "loss" in row]
        first, last = steps[0]["loss"], mean([row["loss"] for row in steps[-5:]])
        diverged = not math.isfinite(last) or last > 1.5 * first
        trials.append(
            {
                "learning_rate": rate,
                "loss_first": plain(first),
                "loss_last": plain(last),
                "grad_norm_last": plain(float(steps[-1]["grad_norm"])),
                "diverged": diverged,
            }
        )
        if trainer.is_world_process_zero():
            print(f"probe: learning_rate {rate:g}: loss {first:.3f} -> {last:.3f}", flush=True)
    return {"steps": trainer.args.max_steps, "trials": trials} | suggestion(trials)


def suggestion(trials: list[Json]) -> Json:
    usable = [trial for trial in trials if not trial["diverged"] and trial["loss_last"] < 0.95 * trial["loss_first"]]
    if not usable:
        return {"suggested": None, "reason": "no learning rate lowered the loss by 5 % without diverging"}
    lowest = min(trial["loss_last"] for trial in usable)
    close = [trial for trial in usable if trial["loss_last"] <= PROBE_TOLERANCE * lowest]
    best = min(close, key=lambda trial: trial["learning_rate"])
    reason = (
        f"after {PROBE_STEPS} steps the loss was {best['loss_last']:.3f} at {best['learning_rate']:g}; the lowest of "
        f"{len(trials)} rates was {lowest:.3f}, and the smallest rate within 5 % of it is taken"
    )
    return {"suggested": best["learning_rate"], "reason": reason}


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


# --- The timing probe -----------------------------------------------------------------------------------------------


def timing_steps(experiment: Experiment) -> int:
    steps = experiment.timing_probe
    if steps is not None and steps < 3:
        fail(f"timing_probe needs at least 3 steps, because the first is always slow, not {steps}")
    return steps or 0


class StepClock(TrainerCallback):  # type: ignore[misc]
    """When each step ended, once the device has done it."""

    def __init__(self) -> None:
        self.ended: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ended.append(time.monotonic())


def probe_timing(trainer: SFTTrainer) -> Json:
    """The first step allocates, compiles and makes the optimizer's states, so time counts from its end."""
    clock = StepClock()
    trainer.add_callback(clock)
    trainer.train()
    between = [later - earlier for earlier, later in zip(clock.ended, clock.ended[1:], strict=False)]
    found = {
        "steps": len(clock.ended),
        "seconds_per_step": round(mean(between), 6),
        "peak_memory_gib": peak_memory_gib(),
    }
    print(f"timing: {found['seconds_per_step']:.3g} s a step, peak {found['peak_memory_gib']:.2f} GiB", flush=True)
    return found


def peak_memory_gib() -> float:
    """Of the fullest GPU, as its allocator holds it; of this process's memory where there is none."""
    if torch.cuda.is_available():
        return max(torch.cuda.max_memory_reserved(index) for index in range(torch.cuda.device_count())) / 2**30
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return float(kibibytes / 2**20)


# --- Writing --------------------------------------------------------------------------------------------------------


class MetricsLog(TrainerCallback):  # type: ignore[misc]
    """Appends every log of the trainer to metrics.jsonl, so that the run can be followed and judged while it trains."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder, self.path, self.rows = folder, folder / "metrics.jsonl", rows

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        if not state.is_world_process_zero:
            return
        kept = self.path.read_text().splitlines() if state.global_step and self.path.exists() else []
        kept = [line for line in kept if json.loads(line)["step"] <= state.global_step]  # a resumed run does them again
        self.path.write_text("".join(line + "\n" for line in kept))
        setup = {
            "max_steps": state.max_steps,
            "resumed_from": state.global_step,
            "rows": self.rows,
            "device": str(args.device),
            "gpus": torch.cuda.device_count(),
            "processes": args.world_size,
            "bf16": args.bf16,
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "trainable_parameters": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        }
        (self.folder / "setup.json").write_text(json.dumps(setup, indent=1))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
        if not state.is_world_process_zero or "train_runtime" in logs:
            return
        row = {"step": state.global_step} | {key: plain(value) for key, value in logs.items()}
        with open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")
        every = max(1, state.max_steps // 20)
        if "loss" in logs and (state.global_step % every == 0 or state.global_step == 1):
            print(f"step {state.global_step}/{state.max_steps} loss {logs['loss']:.4f}", flush=True)
        if "eval_loss" in logs:
            print(f"step {state.global_step}/{state.max_steps} eval_loss {logs['eval_loss']:.4f}", flush=True)


class CheckpointLog(TrainerCallback):  # type: ignore[misc]
    """Names the newest whole checkpoint in `latest`, so that whoever carries it away never takes a half-written one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if not state.is_world_process_zero:
            return
        name = f"checkpoint-{state.global_step}"
        if missing_parts(self.folder / name):
            return  # `save_only_model`: weights to look at, not to go on from
        partial = self.folder / ".latest"
        partial.write_text(name)
        os.replace(partial, self.folder / "latest")


def save_model(trainer: SFTTrainer, tokenizer: Any, experiment: Experiment) -> None:
    """A folder that transformers loads by itself: an adapter is merged into its base, whose path nobody else knows."""
    folder = Path(trainer.args.output_dir) / "model"
    adapter = folder.with_name("adapter")
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not hasattr(model, "merge_and_unload"):
        trainer.save_model(str(folder))  # by all processes: under FSDP each holds a part
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle: nobody should have to load it
        return
    if trainer.is_fsdp_enabled:
        weights = trainer.accelerator.get_state_dict(trainer.model)  # by all processes; whole on the first alone
        if trainer.is_world_process_zero():
            model.save_pretrained(adapter, state_dict=weights)
            model = adapted_base(adapter, experiment, trainer.args)
    elif trainer.is_world_process_zero():
        model.save_pretrained(adapter)
    if trainer.is_world_process_zero():
        model.merge_and_unload().save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def adapted_base(adapter: Path, experiment: Experiment, args: SFTConfig) -> Any:
    """The base once more, whole and with the adapter: what FSDP has divided cannot be merged."""
    kwargs = {key: value for key, value in args.model_init_kwargs.items() if key != "device_map"}
    base = AutoModelForCausalLM.from_pretrained(
        experiment.init_from, trust_remote_code=args.trust_remote_code, device_map="cpu", **kwargs
    )
    from peft import PeftModel  # only here: without an adapter nobody needs it

    return PeftModel.from_pretrained(base, adapter)


def checkpoint_to_resume(args: SFTConfig) -> str | None:
    """The recipe's checkpoint, or the newest whole one below output_dir when a job is started again."""
    folder = Path(args.output_dir)
    if args.resume_from_checkpoint:
        lacking = missing_parts(Path(args.resume_from_checkpoint))
        if lacking:
            fail(f"resume_from_checkpoint: {args.resume_from_checkpoint} lacks {' and '.join(lacking)}")
        return str(args.resume_from_checkpoint)
    named = folder / (folder / "latest").read_text().strip() if (folder / "latest").is_file() else None
    if named is not None and re.fullmatch(r"checkpoint-\d+", named.name) and not missing_parts(named):
        return str(named)  # a later one may lie there that was being written when the machine went away
    found = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdecimal()]
    whole = [path for path in found if not missing_parts(path)]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def missing_parts(checkpoint: Path) -> list[str]:
    """What a checkpoint needs and lacks. Without its optimizer a run resumes silently and ends with other weights."""
    parts = {"trainer_state.json": ("trainer_state.json",), "the optimizer's state": ("optimizer*", "global_step*")}
    return [name for name, patterns in parts.items() if not any(any(checkpoint.glob(p)) for p in patterns)]


def write_json(trainer: SFTTrainer, name: str, value: Json) -> None:
    if trainer.is_world_process_zero():
        path = Path(trainer.args.output_dir) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=1) + "\n")


def plain(value: object) -> object:
    """`value` as JSON has it: strict parsers reject a bare NaN."""
    value = value.item() if isinstance(value, torch.Tensor) else value
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def fail(message: str) -> NoReturn:
    """The person's words are wrong: one line that says what to write instead."""
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr, flush=True)
    sys.exit(2)


if __name__ == "__main__":
    disable_progress_bars()
    disable_progress_bar()
    main()
