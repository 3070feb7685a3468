# /// script
# requires-python = ">=3.11"
# dependencies = ["torch>=2.13,<2.14", "trl>=1.16,<2", "peft>=0.21"]
# ///
"""Direct preference optimization with TRL: of two answers to a prompt the better becomes likelier than the worse.

    uv run train.py --config recipe.yaml                              # everything is in the recipe
    uv run train.py --config recipe.yaml --learning_rate 1e-6         # a flag wins over the recipe
    uv run train.py --config recipe.yaml --smoke                      # two steps, to see that it runs
    uv run train.py --config recipe.yaml --learning_rate_probe 1e-7,1e-6,1e-5
    uv run train.py --config recipe.yaml --timing_probe 20            # how long a step takes here, and its memory
    accelerate launch train.py --config recipe.yaml                   # several GPUs
    uv run train.py --config recipe.yaml --resume_from_checkpoint out/checkpoint-200

The recipe is flat YAML, one key per line. Its keys are those of TRL's DPOConfig (beta, loss_type, loss_weights,
precompute_ref_log_probs, ...) and ModelConfig (dtype, use_peft, lora_r, ...) plus the few in `Experiment` below. Rows
are JSONL with prompt, chosen and rejected, or with prompt and completion: then the completion is what is chosen, and
what is rejected is a wrong answer of the model itself, sampled before training (at most `rejected_samples` for each
prompt; a prompt that is always answered rightly is left out).

What it writes below `output_dir` (default `out`):

    pairs.jsonl          prompt, chosen and rejected, where the model's own answers were sampled
    setup.json           steps, rows, device and parameters of this run, before the first step
    environment.json     exact versions of all libraries, machine, threads and determinism of this run
    data_audit.json      what is trained on and how: lengths of both answers, equal pairs, end tokens, template,
                         vocabulary, LoRA's targets, precision; before the first step
    checkpoint-N/        weights, optimizer and random states after step N, where the recipe saves
    latest               name of the newest whole one, replaced when that is complete
    metrics.jsonl        one JSON object per logged step: loss, rewards/accuracies, rewards/margins, logps/chosen, ...
                         At five points `probe/termination_rate` and `probe/exact_match`: greedy answers to a few
                         validation prompts, against the chosen ones
    completions.jsonl    those answers
    trainer_state.json   TRL's own record
    model/               weights, tokenizer and configuration (LoRA is merged; the adapter itself lies in adapter/)
    summary.json         steps done, seconds, mean loss
    probe.json           instead of all that: the learning-rate range test
    timing.json          or, with --timing_probe: steps, seconds_per_step, peak_memory_gib

What stands below the line "Shared" is the same in every training script.

Exit code 2 and one line on stderr: the recipe or the data must change. Any other failure keeps its traceback.
"""

import contextlib
import difflib
import gc
import hashlib
import importlib.util
import json
import math
import os
import platform
import re
import resource
import shutil
import sys
import time
import typing
import warnings
from collections.abc import Iterator
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
from accelerate.utils import gather_object  # noqa: E402
from datasets import Dataset, disable_progress_bars  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed  # noqa: E402
from transformers.integrations import is_deepspeed_zero3_enabled  # noqa: E402
from transformers.trainer_callback import PrinterCallback  # noqa: E402
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available  # noqa: E402
from transformers.utils.logging import disable_progress_bar  # noqa: E402
from trl import DPOConfig, DPOTrainer, ModelConfig, TrlParser, get_peft_config, get_quantization_config  # noqa: E402

gc.enable()
gc.freeze()

Json = dict[str, Any]
METHOD, CONFIG, MODEL_CLASS = "dpo", DPOConfig, AutoModelForCausalLM
COLUMNS = ({"prompt", "chosen", "rejected"}, {"prompt", "completion"})
NEEDED = (
    "DPO needs prompt, chosen and rejected (or prompt and completion, to sample what is rejected): "
    "name them with data_prompt_column, data_chosen_column and data_rejected_column"
)
EOS_WINDOW = 3
"""An end token this close to the last supervised token counts: Qwen's template, for one, ends a turn with it and a
line break."""
ANSWERED_AT_ONCE = 128
"""Prompts of one batch while wrong answers are sampled."""


@dataclass
class Keys:
    """Keys of every recipe that TRL does not know. Those called data_* are for data/prepare.py, only allowed here."""

    init_from: str | None = field(default=None, metadata={"help": "Model to start from: a Hub id or a folder."})
    train_file: str = field(default="data/train.jsonl", metadata={"help": "Rows to train on."})
    validation_file: str = field(
        default="data/validation.jsonl", metadata={"help": "Rows for eval_loss; none are used when it does not exist."}
    )
    data_sources: str | None = field(default=None, metadata={"help": "Read by data/prepare.py."})
    data_messages_column: str = field(default="auto", metadata={"help": "Read by data/prepare.py."})
    data_prompt_column: str = field(default="auto", metadata={"help": "Read by data/prepare.py."})
    data_completion_column: str = field(default="auto", metadata={"help": "Read by data/prepare.py."})
    data_system_column: str = field(default="auto", metadata={"help": "Read by data/prepare.py."})
    data_tools_column: str = field(default="auto", metadata={"help": "Read by data/prepare.py."})
    data_chosen_column: str = field(default="auto", metadata={"help": "Read by data/prepare.py."})
    data_rejected_column: str = field(default="auto", metadata={"help": "Read by data/prepare.py."})
    data_text_column: str = field(default="auto", metadata={"help": "Read by data/prepare.py."})
    data_label_column: str = field(default="auto", metadata={"help": "Read by data/prepare.py."})
    data_image_column: str = field(default="auto", metadata={"help": "Read by data/prepare.py."})
    data_audio_column: str = field(default="auto", metadata={"help": "Read by data/prepare.py."})
    data_deduplicate: bool = field(default=True, metadata={"help": "Read by data/prepare.py."})
    data_max_rows: int | None = field(default=None, metadata={"help": "Read by data/prepare.py."})
    data_validation_rows: int = field(default=0, metadata={"help": "Read by data/prepare.py."})
    added_tokens: str | None = field(
        default=None, metadata={"help": "Comma-separated tokens that the tokenizer gets, if it lacks them."}
    )
    train_added_tokens: bool = field(
        default=True, metadata={"help": "With LoRA: train the embeddings of added_tokens too."}
    )
    probe_rows: int = field(
        default=16, metadata={"help": "Validation prompts that are answered at five points of the run; 0 for none."}
    )
    timing_probe: int | None = field(
        default=None, metadata={"help": "Steps to take instead of training, to see their time and memory."}
    )
    smoke: bool = field(default=False, metadata={"help": "Two steps on a few rows."})
    audit_only: bool = field(
        default=False, metadata={"help": "Write data_audit.json and end, before any weight is loaded."}
    )


@dataclass
class Experiment(Keys):
    """The recipe's keys besides those of TRL's DPOConfig and ModelConfig."""

    method: str = field(default=METHOD, metadata={"help": "What this script does; anything else is refused."})
    rejected_samples: int = field(
        default=4, metadata={"help": "Answers sampled at most for each prompt, until one is wrong."}
    )
    learning_rate_probe: str | None = field(
        default=None, metadata={"help": "Comma-separated learning rates to compare instead of training."}
    )


def main() -> None:
    experiment, args, model_args = parse_arguments()
    set_seed(args.seed)  # before the model: LoRA's initial weights are drawn while the trainer is built
    train_rows = read_rows(experiment.train_file)
    validation_rows = read_rows(experiment.validation_file, optional=True)
    train_rows, validation_rows = smoke_rows(experiment, args, train_rows, validation_rows)
    rates, timed = probe_rates(experiment.learning_rate_probe), timing_steps(experiment)
    if rates or timed:
        train_rows, validation_rows = prepare_probe(args, train_rows, timed or PROBE_STEPS), []

    args.model_init_kwargs = model_kwargs(args, model_args)
    tokenizer = load_tokenizer(experiment, args, model_args, train_rows)
    added = tokenizer.convert_tokens_to_ids(new_tokens(experiment))
    start = start_folder(experiment, args, tokenizer)
    if "rejected" not in train_rows[0]:
        if experiment.audit_only:
            fail("audit_only needs rows with rejected; those of train_file get theirs from the model: remove it")
        train_rows, validation_rows = sampled_pairs(experiment, args, tokenizer, start, train_rows, validation_rows)
    if not rates and not timed:
        choose_evaluation(args, bool(validation_rows), experiment)
    with settings_refused():
        trainer = DPOTrainer(
            model=start,
            args=args,
            train_dataset=dataset_of(train_rows),
            eval_dataset=dataset_of(validation_rows) if validation_rows else None,
            processing_class=tokenizer,
            quantization_config=get_quantization_config(model_args),
            peft_config=lora_config(model_args, start, added if experiment.train_added_tokens else []),
        )
    complete(trainer)
    if rates:
        write_json(trainer, "probe.json", probe_learning_rates(trainer, rates))
        return
    if timed:
        write_json(trainer, "timing.json", probe_timing(trainer))
        return

    audit, used = audit_data(trainer, train_rows)
    audit |= audit_model(trainer, model_args, used, added)
    write_json(trainer, "data_audit.json", audit)
    if experiment.audit_only:
        return
    if audit["rows"] == audit["dropped_rows"]:
        fail(
            f"no row is left to train on: all {audit['rows']} prompts fill max_length: {args.max_length} alone; "
            f"the longest row has {audit['token_lengths']['max']} tokens, so write a max_length of at least that"
        )
    refuse_foreign_tokens(audit["vocabulary"])
    add_logs(trainer, train_rows)
    add_probe(trainer, experiment, validation_rows, answer="chosen")
    train_and_save(trainer, tokenizer, experiment, start)


def sampled_pairs(
    experiment: Experiment, args: Any, tokenizer: Any, start: str, train: list[Json], validation: list[Json]
) -> tuple[list[Json], list[Json]]:
    """Both sets of rows with `chosen` and `rejected`: the completion, and a wrong answer of the model to start from.

    The processes of a launch divide the batches among them, each with the whole model on its own device, and draw what
    one would. All read the first one's file; a run that goes on reads the file that it began with.
    """
    path = Path(args.output_dir) / "pairs.jsonl"
    if not (path.is_file() and checkpoint_to_resume(args)):
        model = sampling_model(start, args)
        mine = [
            (split == "validation", at, {"split": split} | pair)
            for split, rows in (("train", train), ("validation", validation))
            for at, pair in pairs_of(model, tokenizer, rows, experiment.rejected_samples, args, split)
        ]
        del model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        pairs = [pair for _, _, pair in sorted(gather_object(mine), key=lambda one: one[:2])]
        if args.process_index == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs), encoding="utf-8")
        gather_object([0])  # nobody reads before it is written
    found: dict[str, list[Json]] = {"train": [], "validation": []}
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line:
            pair = json.loads(line)
            found[pair.pop("split")].append(pair)
    if not found["train"]:
        fail(
            f"the model answers all {len(train)} prompts rightly in {experiment.rejected_samples} samples: there is "
            "nothing to reject; take harder prompts, or another method"
        )
    set_seed(args.seed)  # so that training starts from the same random state whether or not answers were sampled
    return found["train"], found["validation"]


def sampling_model(start: str, args: Any) -> Any:
    """The model to start from, all of it on this process's device, whatever divides it in training."""
    if is_deepspeed_zero3_enabled():
        fail("sampling needs the whole model on each GPU, and ZeRO stage 3 divides it: launch with FSDP or stage 2")
    kwargs = {key: value for key, value in args.model_init_kwargs.items() if key != "device_map"}
    # Under FSDP transformers would leave every process but the first without weights; here each needs its own.
    divided = os.environ.pop("ACCELERATE_USE_FSDP", None)
    try:
        model = MODEL_CLASS.from_pretrained(start, trust_remote_code=args.trust_remote_code, **kwargs)
    finally:
        if divided is not None:
            os.environ["ACCELERATE_USE_FSDP"] = divided
    return model.to(args.device)


def pairs_of(
    model: Any, tokenizer: Any, rows: list[Json], samples: int, args: Any, split: str
) -> list[tuple[int, Json]]:
    """(place of its row, pair) for each row of this process's share with a wrong answer among `samples`; empty answers
    and right ones are not taken. Each batch is drawn from a seed of its own."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    ends = end_token_ids(model, tokenizer)
    references = [text_of(row["completion"]) for row in rows]
    longest = max((len(tokenizer(one, add_special_tokens=False).input_ids) for one in references), default=0)
    rejected: dict[int, str] = {}
    order = sorted(range(len(rows)), key=lambda at: len(text_of(rows[at]["prompt"])))  # alike lengths: less padding
    batches = [order[first : first + ANSWERED_AT_ONCE] for first in range(0, len(order), ANSWERED_AT_ONCE)]
    for number in range(args.process_index, len(batches), args.world_size):
        torch.manual_seed(int(hashlib.sha256(f"{args.seed}/{split}/{number}".encode()).hexdigest()[:8], 16))
        for _ in range(samples):
            batch = [at for at in batches[number] if at not in rejected]
            prompts = [render(tokenizer, rows[at]["prompt"]) for at in batch]
            said = (
                answers(
                    model, tokenizer, prompts, ends, int(longest * 1.5) + 16, do_sample=True, temperature=1.0, top_k=0
                )
                if batch
                else []
            )
            for at, (text, _) in zip(batch, said, strict=True):
                if text.strip() and text.strip() != references[at].strip():
                    rejected[at] = text
    return [
        (
            at,
            {
                "prompt": rows[at]["prompt"],
                "chosen": rows[at]["completion"],
                "rejected": text
                if isinstance(rows[at]["completion"], str)
                else [{"role": "assistant", "content": text}],
            },
        )
        for at, text in sorted(rejected.items())
    ]


def audit_data(trainer: Any, rows: list[Json]) -> tuple[Json, set[int]]:
    """(what the pairs look like in tokens, as TRL prepared them; their token ids)"""
    args, prepared = trainer.args, trainer.train_dataset
    if len(prepared) < len(rows):  # rows whose prompt fills max_length are gone already
        limit, args.max_length = args.max_length, None
        prepared = trainer._prepare_dataset(dataset_of(rows), trainer.processing_class, args, "whole train")
        args.max_length = limit
    end_ids = end_token_ids(trainer.model, trainer.processing_class)
    prompts, chosen, rejected = (prepared[column] for column in ("prompt_ids", "chosen_ids", "rejected_ids"))
    longest = [len(p) + max(len(c), len(r)) for p, c, r in zip(prompts, chosen, rejected, strict=True)]
    limit = args.max_length
    kept = [ids[: None if limit is None else max(0, limit - len(p))] for p, ids in zip(prompts, chosen, strict=True)]
    audit = audit_rows(rows, ("chosen", "rejected")) | {
        "max_length": limit,
        "truncated_rows": 0 if limit is None else sum(length > limit for length in longest),
        "dropped_rows": len(rows) - len(trainer.train_dataset),
        "supervised_eos_rows": sum(any(token in end_ids for token in ids[-EOS_WINDOW:]) for ids in kept),
        "zero_label_rows": sum(not ids for ids in kept),
        "token_lengths": percentiles(longest),
        "answer_token_lengths": percentiles([len(ids) for ids in chosen]),
        "chosen_equals_rejected_rows": sum(one == other for one, other in zip(chosen, rejected, strict=True)),
        "mean_chosen_tokens": round(mean([len(ids) for ids in chosen]), 2),
        "mean_rejected_tokens": round(mean([len(ids) for ids in rejected]), 2),
        "pad_token_id": trainer.processing_class.pad_token_id,
        "eos_token_ids": sorted(end_ids),
        "template": audit_template(trainer.processing_class, rows, prompts[:COMPARED_ROWS]),
    }
    return audit, set().union(*prompts, *chosen, *rejected)


# --- Shared: what follows is the same, word for word, in every script that has it -----------------------------------

RENAMED = {
    "warmup_ratio": "warmup_steps (a value below 1 is a share of all steps)",
    "max_seq_length": "max_length",
    "torch_dtype": "dtype",
    "evaluation_strategy": "eval_strategy",
}
"""Keys that many published recipes still use."""
AUDITED = ("sft", "dpo", "grpo", "reward", "pretrain", "classify", "vision", "speech")
"""Methods whose audit needs no weights."""
PROBE_STEPS = 20
PROBE_WARMUP_STEPS = 3
PROBE_TOLERANCE = 1.05
COMPARED_ROWS = 256
"""Rows whose prompt is rendered a second time, as generation would."""
BEHAVIOUR_POINTS = (0.05, 0.25, 0.5, 0.75, 1.0)
"""Shares of a run after which the model answers a few validation prompts."""
BEHAVIOUR_TOKENS = 512
"""Longest answer that such a probe waits for; prompts with longer references are not asked."""
BEHAVIOUR_PROMPT_TOKENS = 4096
"""Longest prompt that is asked: a batch of longer ones could need more memory than a training step."""
MOST_COMPLETIONS = 200
"""Rows of completions.jsonl."""
WATCHED_TENSORS = 64
WATCHED_VALUES = 256
FROZEN_AFTER = 3
"""Steps with a gradient after which weights that never moved are called frozen."""


# --- The recipe -----------------------------------------------------------------------------------------------------


class RecipeParser(TrlParser):  # type: ignore[misc]
    """TRL's parser, strict about the recipe: every value is checked as if it had been typed on the command line."""

    recipe: typing.ClassVar[Json] = {}
    """What the file says, as it was read."""

    def set_defaults_with_config(self, **recipe: object) -> list[str]:
        RecipeParser.recipe = dict(recipe)
        if recipe.get("fp16") and "bf16" not in recipe:
            recipe["bf16"] = False  # the default of most GPUs, and the two exclude each other
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
            kinds = [hints[key]] if typing.get_origin(hints[key]) is list else typing.get_args(hints[key])
            lists = [kind for kind in kinds if typing.get_origin(kind) is list]
            if value is None or (isinstance(value, list) and list in kinds):
                recipe[key] = value
            elif lists and (isinstance(value, list) or str not in kinds):
                recipe[key] = as_list(key, value, *typing.get_args(lists[0]))
            else:
                recipe[key] = str(value)
        unused: list[str] = super().set_defaults_with_config(**recipe)
        return unused

    def error(self, message: str) -> NoReturn:
        match = re.search(r"argument (--[\w-]+).*?: invalid (\w+) value: (.*)", message)
        if match:
            kind = {"int": "a whole number", "_accept_none": "a number", "float": "a number"}.get(match[2], match[2])
            fail(f"{match[1].lstrip('-')} needs {kind}, not {match[3]}")
        fail(re.sub(r"argument --([\w-]+)\S*:", r"\1:", message))


def as_list(key: str, value: object, kind: type) -> list[Any]:
    """A YAML list, or words with commas between them, as a list of `kind`."""
    parts = value if isinstance(value, list) else [part.strip() for part in str(value).split(",")]
    try:
        return [kind(part) for part in parts]
    except (TypeError, ValueError):
        fail(f"{key} needs {'numbers' if kind in (int, float) else 'words'} with commas between them, not {value}")


def refuse_repeated_keys(words: list[str]) -> None:
    """YAML takes the last of two lines with one key and says nothing."""
    path = words[words.index("--config") + 1] if "--config" in words[:-1] else None
    try:
        root = yaml.compose(Path(path).read_text(encoding="utf-8")) if path else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return  # the parser says what is wrong with it
    keys = [key.value for key, _ in root.value] if isinstance(root, yaml.MappingNode) else []
    repeated = sorted({str(key) for key in keys if keys.count(key) > 1})
    if repeated:
        fail(f"the recipe has {repeated[0]} more than once; keep one of the lines")


def given_keys(words: list[str]) -> set[str]:
    """Keys that the recipe or a flag names, whatever they say: a default is nobody's wish."""
    return {*RecipeParser.recipe, *(word[2:].partition("=")[0] for word in words if word.startswith("--"))}


def parse_arguments() -> tuple[Any, Any, Any]:
    """(Experiment, CONFIG, ModelConfig): the recipe, then the flags over it, on defaults that suit the machine."""
    gpu = torch.cuda.is_available()
    refuse_repeated_keys(sys.argv[1:])
    parser = RecipeParser((Experiment, CONFIG, ModelConfig))
    parser.set_defaults(
        output_dir="out",
        logging_steps=1,
        logging_nan_inf_filter=False,  # the trainer's default prints a NaN loss as 0.0, which looks perfect
        report_to="none",
        disable_tqdm=True,
        use_cpu=not (gpu or torch.backends.mps.is_available()),  # or `bf16: true` is refused where there is no GPU
        bf16=gpu and torch.cuda.is_bf16_supported(including_emulation=False),
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
    if experiment.method != METHOD:
        fail(f"this script trains method: {METHOD}, and the recipe says method: {experiment.method}")
    experiment.given = given_keys(sys.argv[1:])
    named = [RecipeParser.recipe.get(key) for key in ("init_from", "model_name_or_path")]
    if all(named) and named[0] != named[1]:
        fail("init_from and model_name_or_path name two models; keep init_from alone")
    unused = sorted(key for key in experiment.given if key.startswith("lora_") or key in ("use_dora", "use_rslora"))
    if unused and not model_args.use_peft:
        print(f"{', '.join(unused)}: not used without use_peft: true", flush=True)
    experiment.init_from = experiment.init_from or model_args.model_name_or_path
    if not experiment.init_from:
        fail("init_from is missing; write the Hub id or the folder of the model to start from")
    for key in ("learning_rate", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps"):
        if not getattr(args, key) > 0:
            fail(f"{key} needs a number above 0, not {getattr(args, key)}")
    limit = getattr(args, "max_length", None)
    if limit is not None and limit < 2:
        fail(f"max_length needs at least 2 tokens (or null for no limit), not {limit}")
    if args.use_liger_kernel and importlib.util.find_spec("liger_kernel") is None:
        args.use_liger_kernel = False
        print("use_liger_kernel: liger-kernel is not installed here; going on without", flush=True)
    if experiment.audit_only and METHOD not in AUDITED:
        fail(
            f"audit_only is for {', '.join(AUDITED)}; what {METHOD} trains on is known with the model alone: remove it"
        )
    if not experiment.audit_only:  # which need not run where the training does
        refuse_missing_packages(args, model_args)
    if args.use_cpu and args.world_size > 1:  # transformers tells GPUs alone how long to wait for each other
        torch.distributed.distributed_c10d._set_pg_timeout(args.ddp_timeout_delta)
    return experiment, args, model_args


def refuse_missing_packages(args: Any, model_args: Any) -> None:
    """What an optimizer or rounded weights need besides PyTorch would be missed once the model is loaded, or later."""
    from transformers import Trainer  # only here: nobody else needs its name

    for key in ("load_in_8bit", "load_in_4bit"):
        if getattr(model_args, key) and importlib.util.find_spec("bitsandbytes") is None:
            fail(
                f"{key} needs bitsandbytes, which is not installed here: `pip install bitsandbytes`, or remove the line"
            )
    try:
        with contextlib.suppress(ValueError):  # it is judged with the model
            Trainer.get_optimizer_cls_and_kwargs(args)
    except ImportError as error:
        optimizer = getattr(args.optim, "value", args.optim)
        fail(f"optim: {optimizer}: {' '.join(str(error).split())}, or write optim: adamw_torch")


def model_kwargs(args: Any, model_args: Any) -> Json:
    """What from_pretrained is given. FlashAttention where it is asked for and works; else PyTorch's own attention."""
    attention = model_args.attn_implementation
    usable = {"flash_attention_2": is_flash_attn_2_available, "flash_attention_3": is_flash_attn_3_available}
    if attention in usable and not usable[attention]():
        print(f"attn_implementation: {attention} does not work here; sdpa is used instead", flush=True)
        attention = "sdpa"
    return {
        "revision": model_args.model_revision,
        "attn_implementation": attention,
        "dtype": model_args.dtype or "float32",
    } | (args.model_init_kwargs or {})


def choose_evaluation(args: Any, has_validation: bool, experiment: Any) -> None:
    """With validation rows eval_loss is measured ten times a run, unless the recipe says how often."""
    if not has_validation:
        if args.eval_strategy != "no":
            fail(
                f"eval_strategy: {args.eval_strategy} needs rows in {experiment.validation_file}, which has none; "
                "set data_validation_rows, or remove eval_strategy"
            )
        return
    if args.eval_strategy == "no" and "eval_strategy" not in experiment.given:
        args.eval_strategy = "steps"
        args.eval_steps = args.eval_steps or 0.1
    if "per_device_eval_batch_size" not in experiment.given:
        args.per_device_eval_batch_size = args.per_device_train_batch_size


@contextlib.contextmanager
def settings_refused() -> Iterator[None]:
    """Libraries check settings while they build, each with an error whose text says what is wrong."""
    try:
        yield
    except (ImportError, OSError, ValueError) as error:
        fail(" ".join(str(error).split()))


# --- The rows -------------------------------------------------------------------------------------------------------


def read_rows(path: str, optional: bool = False) -> list[Json]:
    """The JSON objects of `path`, whose columns must be ones that this method knows."""
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
    known = next((columns for columns in COLUMNS if rows and columns <= rows[0].keys()), None)
    if rows and known is None:
        fail(f"{path} has the columns {', '.join(rows[0])}; {NEEDED}")
    for number, row in enumerate(rows, start=1):
        if lacking := sorted((known or set()) - row.keys()):
            fail(f"{path} row {number} has no {lacking[0]}, and row 1 has; all rows need the same columns")
    return rows


def dataset_of(rows: list[Json]) -> Any:
    """The rows with the columns of all of them: by itself `datasets` takes those of the first row and drops the others,
    and gives every dictionary (a tool's arguments, say) the keys of all others with nothing in them."""
    columns = {key: None for row in rows for key in row}
    return Dataset.from_list([columns | row for row in rows], on_mixed_types="use_json")


def smoke_rows(experiment: Any, args: Any, train: list[Json], validation: list[Json]) -> tuple[list[Json], list[Json]]:
    """With --smoke two steps on a few rows are enough to see that everything runs.

    Where a run that may go on has written, a smoke run has a folder of its own: nothing of the other one changes.
    """
    if not experiment.smoke:
        return train, validation
    args.max_steps, args.save_strategy, args.resume_from_checkpoint = 2, "no", None
    folder = Path(args.output_dir)
    begun = any(any(folder.glob(name)) for name in ("checkpoint-*", "round-*", "samples"))
    args.distributed_state.wait_for_everyone()  # all have looked before one writes there
    if begun:
        args.output_dir = str(folder / "smoke")
        print(f"smoke: a run in {folder} may go on, so this one writes to {args.output_dir}", flush=True)
    return train[:64], validation[:16]


def text_of(value: object) -> str:
    """The text of a column: of the last message, where it holds messages."""
    if isinstance(value, list):
        value = value[-1].get("content") if value and isinstance(value[-1], dict) else None
    return "" if value is None else str(value)


def render(tokenizer: Any, prompt: object) -> list[int]:
    """The prompt's token ids as generation is given them: a plain text is what a user says."""
    if tokenizer.chat_template is None:
        return list(tokenizer(text_of(prompt)).input_ids)
    turns = prompt if isinstance(prompt, list) else [{"role": "user", "content": text_of(prompt)}]
    return list(tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"])


# --- The model to start from ----------------------------------------------------------------------------------------


def load_tokenizer(experiment: Any, args: Any, model_args: Any, rows: list[Json]) -> Any:
    if str(experiment.init_from).startswith(("/", ".", "~")) and not Path(experiment.init_from).is_dir():
        fail(f"init_from: there is no folder {experiment.init_from}; write a folder with a model, or its Hub id")
    with settings_refused():
        tokenizer = AutoTokenizer.from_pretrained(
            experiment.init_from, revision=model_args.model_revision, trust_remote_code=args.trust_remote_code
        )
    messages = [value for value in rows[0].values() if isinstance(value, list) and value and isinstance(value[0], dict)]
    if messages and tokenizer.chat_template is None and not getattr(args, "chat_template_path", None):
        fail(
            f"the rows are conversations, and the tokenizer of {experiment.init_from} has no chat template: "
            + ("set chat_template_path to a model with one, or " if hasattr(args, "chat_template_path") else "")
            + "start from a model with one, or write prompts and answers as plain texts"
        )
    tokenizer.add_tokens(new_tokens(experiment))
    return tokenizer


def new_tokens(experiment: Any) -> list[str]:
    return [token.strip() for token in (experiment.added_tokens or "").split(",") if token.strip()]


def load_no_weights(args: Any, embeddings: int = 0) -> None:
    """From here on every model is its modules alone, with their names and shapes, whoever loads it. It has at least as
    many `embeddings`."""
    import transformers  # only here: nobody else needs more than the names above

    def modules(model_class: Any, path: Any, *_: Any, config: Any = None, **others: Any) -> Any:
        revision = others.get("revision") or "main"
        config = config or model_class.config_class.from_pretrained(path, revision=revision)
        config.name_or_path = str(path)  # where a reference model is looked for
        if embeddings:
            config.get_text_config().vocab_size = max(config.get_text_config().vocab_size, embeddings)
        known = {key: others[key] for key in ("dtype", "attn_implementation") if others.get(key) not in (None, "auto")}
        before = getattr(transformers, (config.architectures or [""])[0], model_class)
        with torch.device("meta"):
            model, saved = model_class._from_config(config, **known), before._from_config(config)
        if model.can_generate():
            with contextlib.suppress(OSError):  # few models come without one
                model.generation_config = transformers.GenerationConfig.from_pretrained(path, revision=revision)
        if not others.get("output_loading_info"):
            return model
        prefix = f"{model.base_model_prefix}."
        names = {name.removeprefix(prefix) for name in saved.state_dict()}
        new = [name for name in model.state_dict() if name.removeprefix(prefix) not in names]
        return model, {"missing_keys": new, "mismatched_keys": []}

    transformers.PreTrainedModel.from_pretrained = classmethod(modules)
    torch.nn.Module.to = lambda module, *_, **__: module  # there is nothing that could be moved
    args.use_vllm = False  # GRPO's alone; it would load them a second time


def start_folder(experiment: Any, args: Any, tokenizer: Any) -> str:
    """`init_from`, or below output_dir its copy with an embedding for every token that the recipe adds.

    A copy in a folder, because reference models and merged adapters load the start a second time.
    """
    if experiment.audit_only:
        load_no_weights(args, len(tokenizer) if experiment.added_tokens else 0)
        return str(experiment.init_from)
    with settings_refused():
        config = AutoConfig.from_pretrained(
            experiment.init_from,
            revision=args.model_init_kwargs["revision"],
            trust_remote_code=args.trust_remote_code,
        )
    if not experiment.added_tokens or len(tokenizer) <= config.get_text_config().vocab_size:
        return str(experiment.init_from)
    folder = Path(args.output_dir) / "start"
    with args.main_process_first(local=False), settings_refused():
        if args.process_index == 0:
            kwargs = {key: value for key, value in args.model_init_kwargs.items() if key != "device_map"}
            model = MODEL_CLASS.from_pretrained(
                experiment.init_from, trust_remote_code=args.trust_remote_code, device_map="cpu", **kwargs
            )
            model.resize_token_embeddings(len(tokenizer))
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    return str(folder)


def remove_start(trainer: Any) -> None:
    if trainer.is_world_process_zero():
        shutil.rmtree(Path(trainer.args.output_dir) / "start", ignore_errors=True)


def is_divided(trainer: Any) -> bool:
    """Whether processes may hold a part of the model each, so that none can be asked alone."""
    return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)


def lora_config(model_args: Any, start: str, trained_tokens: list[int]) -> Any:
    """None without `use_peft`. The embeddings of `trained_tokens` are trained besides the adapter."""
    config = get_peft_config(model_args)
    if config is not None and trained_tokens:
        config.trainable_token_indices = trained_tokens
        if not AutoConfig.from_pretrained(start).tie_word_embeddings:
            config.modules_to_save = sorted({*(config.modules_to_save or []), "lm_head"})  # or they are never said
    return config


def complete(trainer: Any) -> None:
    """What a built trainer lacks or has too much of."""
    trainer.remove_callback(PrinterCallback)
    gathered = "zero_optimization.stage3_gather_16bit_weights_on_model_save"
    if is_zero3(trainer) and not trainer.accelerator.state.deepspeed_plugin.hf_ds_config.get_value(gathered):
        fail(f"deepspeed: {gathered} must be true, or nobody could load what is trained")
    head = trainer.model.get_output_embeddings() if hasattr(trainer.model, "get_output_embeddings") else None
    if head is not None and not hasattr(head, "bias"):
        head.bias = None  # TRL's fused loss asks for it; an output layer of which PEFT trains some tokens has none
    if not any(weight.is_meta for weight in trainer.model.parameters()):  # an audit may run where nothing is trained
        with settings_refused():  # an optimizer that wants something of the model would miss it at the first step
            trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)


# --- The audit ------------------------------------------------------------------------------------------------------


def audit_rows(rows: list[Json], answers: tuple[str, ...]) -> Json:
    """Counts that need no tokenizer; `answers` are the columns that hold what is learned."""
    texts = [json.dumps(row, sort_keys=True) for row in rows]
    prompts = {json.dumps(row.get("prompt", row.get("messages", row.get("text")))) for row in rows}
    found = [row.get(column) for row in rows for column in answers if column in rows[0]]
    null = [
        value is None or (isinstance(value, list) and any(t.get("content") is None for t in value)) for value in found
    ]
    empty = [not none and not text_of(value).strip() for value, none in zip(found, null, strict=True)]
    return {
        "rows": len(rows),
        "columns": sorted(rows[0]),
        "duplicate_rows": len(texts) - len(set(texts)),
        "distinct_prompts": len(prompts),
        "null_completions": sum(null),
        "empty_completions": sum(empty),
    }


def audit_template(tokenizer: Any, rows: list[Json], prompts: list[list[int]]) -> Json:
    """Whether training shows the model what generation will: token by token, for the first rows.

    `prompts` are the token ids that training puts before the answer, in the order of `rows`; [] where nothing is.
    """
    equal = compared = double = 0
    for row, trained in zip(rows, prompts, strict=False):
        turns = row.get("messages") or []
        before = next((at for at, turn in enumerate(turns) if turn.get("role") == "assistant"), 0)
        prompt = row.get("prompt", turns[:before])
        double += tokenizer.bos_token_id is not None and trained[:2] == [tokenizer.bos_token_id] * 2
        if prompt and trained:
            compared += 1
            equal += trained == render(tokenizer, prompt)
    return {"train_prefix_equal_rows": equal, "compared_rows": compared, "double_bos_rows": double}


def audit_model(trainer: Any, model_args: Any, used: set[int], added: list[int]) -> Json:
    """The model as it will be trained. `used`: the token ids of the data; `added`: those that the recipe adds."""
    args, model = trainer.args, trainer.model
    embeddings = model.get_input_embeddings()
    trained = any(weight.requires_grad for weight in embeddings.parameters())
    named = model_args.lora_target_modules
    rows_per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    # GRPO counts answers, not rows, and may train on each of them several times.
    answers_per_row = getattr(args, "num_generations", 1) * getattr(args, "num_iterations", 1)
    steps_per_epoch = max(1, math.ceil(len(trainer.train_dataset) * answers_per_row / rows_per_step))
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * steps_per_epoch)
    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    found: Json = {
        "vocabulary": {
            "tokenizer": len(trainer.processing_class),
            "embeddings": whole_shape(embeddings.weight)[0],
            "largest_id": max(used, default=0),
            "new_untrained_tokens": [] if trained else sorted(used & set(added)),
        },
    }
    if not embeddings.weight.is_meta:  # with --audit_only this need not be the machine that trains
        found |= {
            "steps_per_epoch": steps_per_epoch,
            "warm_up_steps": args.get_warmup_steps(steps),
            "attention": {"implementation": model.config._attn_implementation},
            "precision": {
                "dtype": str(model.dtype).removeprefix("torch."),
                "fp16": args.fp16,
                "bf16": bool(args.bf16),
                "device_capability": capability and ".".join(map(str, capability)),
            },
        }
        if getattr(args, "packing", False):
            found["attention"]["packing_is_isolated"] = packing_is_isolated(trainer)
    if model_args.use_peft:
        found["lora"] = {
            "target_modules": named if isinstance(named, list) else [named] if named else None,
            "matched_modules": sum(hasattr(module, "lora_A") for module in model.modules()),
            "trainable_parameters": size_of(weight for weight in model.parameters() if weight.requires_grad),
        }
    return found


def whole_shape(weight: Any) -> tuple[int, ...]:
    """Of all processes together: ZeRO stage 3 leaves an empty tensor in each, and the shape beside it."""
    return tuple(getattr(weight, "ds_shape", weight.shape))


def size_of(weights: Any) -> int:
    return sum(math.prod(whole_shape(weight)) for weight in weights)


def packing_is_isolated(trainer: Any) -> bool:
    """Whether packed rows are kept apart, so that each is trained on as if it stood alone."""
    packed = next((row for row in trainer.train_dataset if len(row.get("seq_lengths") or []) > 1), None)
    isolated = packed is not None and (is_divided(trainer) or not first_row_is_seen(trainer, packed))
    if not isolated and trainer.is_world_process_zero():
        print("packing: packed rows see each other here (data_audit.json)", flush=True)
    return isolated


def first_row_is_seen(trainer: Any, packed: Json) -> bool:
    """Measured: whether the first row of a packed block changes what the model says about the second one."""
    first, second = packed["seq_lengths"][:2]
    ids = packed["input_ids"][: first + second]
    said = []
    trainer.model.eval()
    with torch.no_grad():
        for token in (ids[0], ids[0] - 1 if ids[0] else 1):
            row = {"input_ids": [token, *ids[1:]], "labels": ids, "seq_lengths": [first, second]}
            batch = trainer._prepare_inputs(trainer.data_collator([row]))
            batch.pop("labels")
            said.append(trainer.model(**batch).logits[0, first:].float())
    trainer.model.train()
    return bool((said[0] - said[1]).abs().max() >= 1e-3)


def refuse_foreign_tokens(vocabulary: Json) -> None:
    if vocabulary["largest_id"] >= vocabulary["embeddings"]:
        fail(
            f"the data holds token id {vocabulary['largest_id']}, and the model has {vocabulary['embeddings']} "
            "embeddings: the tokenizer in init_from is not this model's; start from a folder where both belong "
            "together, or name new tokens in added_tokens"
        )


def end_token_ids(model: Any, tokenizer: Any) -> set[int]:
    """Every token that ends generation for this model."""
    configured = model.generation_config.eos_token_id
    ids = set(configured) if isinstance(configured, list) else {configured}
    return (ids | {tokenizer.eos_token_id}) - {None}


def percentiles(values: list[int]) -> Json:
    ordered = sorted(values)
    return {
        name: ordered[round(share * (len(ordered) - 1))] for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1))
    }


# --- The learning-rate range test -----------------------------------------------------------------------------------


def probe_rates(words: str | None) -> list[float]:
    try:
        rates = [float(rate) for rate in (words or "").split(",") if rate.strip()]
    except ValueError:
        rates = [-1.0]
    if any(not 0 < rate < math.inf for rate in rates):
        fail(f"learning_rate_probe needs numbers above 0 with commas between them, not {words}")
    return rates


def prepare_probe(args: Any, rows: list[Json], steps: int) -> list[Json]:
    """A handful of steps at a constant rate; nothing is evaluated or saved. Returns the rows that it needs."""
    args.max_steps, args.warmup_steps, args.lr_scheduler_type = steps, PROBE_WARMUP_STEPS, "constant_with_warmup"
    args.eval_strategy = args.save_strategy = "no"
    args.logging_steps = 1
    needed = steps * args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return rows if getattr(args, "packing", False) else rows[:needed]


def probe_learning_rates(trainer: Any, rates: list[float]) -> Json:
    """Every rate from the same weights on the same batches; the smallest rate within 5 % of the lowest last loss wins.

    The smallest, because a short test flatters large steps: what still falls after 20 steps can diverge after 200.
    """
    remove_start(trainer)
    if is_divided(trainer):
        fail(
            "learning_rate_probe begins each rate with the same weights, and here no process has all: launch one alone"
        )
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


def timing_steps(experiment: Any) -> int:
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


def probe_timing(trainer: Any) -> Json:
    """The first step allocates, compiles and makes the optimizer's states, so time counts from its end."""
    remove_start(trainer)
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


# --- What the model says while it trains ----------------------------------------------------------------------------


class CompletionsLog(TrainerCallback):  # type: ignore[misc]
    """completions.jsonl: answers that were sampled or asked for, at most MOST_COMPLETIONS of them."""

    def __init__(self, folder: Path) -> None:
        self.path, self.rows = folder / "completions.jsonl", 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if not state.is_world_process_zero:
            return
        rows = whole_rows(self.path) if state.global_step else []
        self.path.unlink(missing_ok=True)
        self.rows = 0
        self.write([row for row in rows if row["step"] <= state.global_step])  # a resumed run does the others again

    def write(self, rows: list[Json]) -> None:
        rows = rows[: MOST_COMPLETIONS - self.rows]
        self.rows += len(rows)
        if rows:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


class BehaviourProbe(TrainerCallback):  # type: ignore[misc]
    """Greedy answers to a few validation prompts, given as generation will give them: loss curves alone hide an answer
    that never ends, or a template that only training knows."""

    def __init__(self, trainer: Any, questions: list[tuple[object, str]], limit: int, log: CompletionsLog) -> None:
        self.trainer, self.questions, self.limit, self.log = trainer, questions, limit, log

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        points = {max(1, round(share * state.max_steps)) for share in BEHAVIOUR_POINTS}
        if state.global_step in points and state.is_world_process_zero:
            logs = self.ask(state.global_step)
            state.log_history.append(logs | {"step": state.global_step})
            # Not through trainer.log(): TRL's would take the step's own metrics along and forget them.
            self.trainer.callback_handler.call_event("on_log", args, state, control, logs=logs)

    def ask(self, step: int) -> Json:
        tokenizer, model = self.trainer.processing_class, self.trainer.accelerator.unwrap_model(self.trainer.model)
        prompts = [render(tokenizer, prompt) for prompt, _ in self.questions]
        said = answers(model, tokenizer, prompts, end_token_ids(model, tokenizer), self.limit)
        rows = [
            {
                "step": step,
                "prompt": text_of(prompt),
                "completion": text,
                "reference": reference,
                "rewards": {"exact_match": float(text.strip() == reference.strip())},
                "finish": finish,
            }
            for (prompt, reference), (text, finish) in zip(self.questions, said, strict=True)
        ]
        self.log.write(rows)
        return {
            "probe/termination_rate": mean([float(row["finish"] == "stop") for row in rows]),
            "probe/exact_match": mean([row["rewards"]["exact_match"] for row in rows]),
        }


def answers(
    model: Any, tokenizer: Any, prompts: list[list[int]], ends: set[int], limit: int, **sampling: Any
) -> list[tuple[str, str]]:
    """(text, "stop" or "length") for each prompt of token ids, in one batch: greedy, unless `sampling` has its way."""
    width = max(map(len, prompts))
    ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    training = model.training
    model.eval()
    with torch.no_grad():
        said = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=limit,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=sorted(ends),
            **({"do_sample": False} | sampling),
        )[:, width:].tolist()
    model.train(training)
    found = []
    for one in said:
        end = next((at for at, token in enumerate(one) if token in ends), None)
        text = tokenizer.decode(one[:end], skip_special_tokens=True)
        found.append((text, "length" if end is None else "stop"))
    return found


def add_probe(
    trainer: Any,
    experiment: Any,
    rows: list[Json],
    answer: str,
    limit: int | None = None,
    log: CompletionsLog | None = None,
) -> None:
    """Asks the first validation prompts; `answer` is the column of their references, `limit` the tokens of an answer.

    Without a limit an answer may be half as long again as the longest reference. Prompts for whose answers the model
    has no positions are left out. Where each GPU holds a part of the model nobody is asked.
    """
    if is_divided(trainer) or experiment.probe_rows < 1:
        return
    tokenizer, config = trainer.processing_class, trainer.model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None) or math.inf
    asked, longest = [], 0
    for row in rows:
        reference = text_of(row.get(answer))
        length = len(tokenizer(reference, add_special_tokens=False).input_ids)
        room = limit or int(length * 1.5) + 16
        if not row.get("prompt") or not reference or (not limit and room > BEHAVIOUR_TOKENS):
            continue
        before = len(render(tokenizer, row["prompt"]))
        if before <= BEHAVIOUR_PROMPT_TOKENS and before + room <= positions:
            asked.append((row["prompt"], reference, before))
            longest = max(longest, room)
        if len(asked) == experiment.probe_rows:
            break
    asked = [one for one in asked if one[2] + longest <= positions]  # all may write as much as the longest
    if asked:
        if log is None:
            log = CompletionsLog(Path(trainer.args.output_dir))
            trainer.add_callback(log)
        trainer.add_callback(BehaviourProbe(trainer, [one[:2] for one in asked], longest, log))


# --- Writing --------------------------------------------------------------------------------------------------------


class MetricsLog(TrainerCallback):  # type: ignore[misc]
    """Appends every log of the trainer to metrics.jsonl, so that the run can be followed and judged while it trains."""

    def __init__(self, folder: Path, rows: int, trainer: Any) -> None:
        self.folder, self.path, self.rows, self.trainer = folder, folder / "metrics.jsonl", rows, trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        if not state.is_world_process_zero:
            return
        kept = whole_rows(self.path) if state.global_step else []
        kept = [row for row in kept if row["step"] <= state.global_step]  # a resumed run does the others again
        self.path.write_text("".join(json.dumps(row) + "\n" for row in kept))
        counted = [row["num_tokens"] for row in state.log_history if "num_tokens" in row]
        if counted and hasattr(self.trainer, "_total_train_tokens"):  # TRL keeps it in no checkpoint
            self.trainer._total_train_tokens = int(counted[-1])
        setup = {
            "method": METHOD,
            "max_steps": state.max_steps,
            "resumed_from": state.global_step,
            "rows": self.rows,
            "device": str(args.device),
            "gpus": torch.cuda.device_count(),
            "processes": args.world_size,
            "bf16": args.bf16,
            "optimizer": str(getattr(args.optim, "value", args.optim)),
            "scheduler": str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)),
            "parameters": size_of(model.parameters()),
            "trainable_parameters": size_of(weight for weight in model.parameters() if weight.requires_grad),
        }
        (self.folder / "setup.json").write_text(json.dumps(setup, indent=1))
        (self.folder / "environment.json").write_text(json.dumps(environment(args), indent=1))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
        if not state.is_world_process_zero or "train_runtime" in logs:
            return
        row = {"step": state.global_step} | {key: plain(value) for key, value in logs.items()}
        with open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")
        every = max(1, state.max_steps // 20)
        if "loss" in logs and (state.global_step % every == 0 or state.global_step == 1):
            reward = f" reward {logs['reward']:.4f}" if "reward" in logs else ""
            print(f"step {state.global_step}/{state.max_steps} loss {logs['loss']:.4f}{reward}", flush=True)
        if "eval_loss" in logs:
            print(f"step {state.global_step}/{state.max_steps} eval_loss {logs['eval_loss']:.4f}", flush=True)


def environment(args: Any) -> Json:
    """What decides the numbers besides recipe, rows and weights: libraries, machine, threads and determinism."""
    gpu = torch.cuda.is_available()
    models = re.findall(r"^model name\s*: (.*)$", read_text("/proc/cpuinfo"), re.MULTILINE)
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": models[0] if models else platform.processor(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda if gpu else None,
        "cudnn": torch.backends.cudnn.version() if gpu else None,
        "determinism": {
            "seed": args.seed,
            "data_seed": args.data_seed,
            "full_determinism": args.full_determinism,
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "matmul_precision": torch.get_float32_matmul_precision(),
            "cublas_workspace_config": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
            "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        },
        "libraries": installed_libraries(),
    }


def installed_libraries() -> dict[str, str]:
    """Name -> version, from the names of their folders, because reading 200 descriptions takes most of a second.

    https://packaging.python.org/en/latest/specifications/recording-installed-packages/
    """
    found: dict[str, str] = {}
    for place in sys.path:
        for folder in sorted(Path(place or ".").glob("*.dist-info")):
            name, _, version = folder.stem.partition("-")
            found.setdefault(name.lower().replace("_", "-"), version)
    return dict(sorted(found.items()))


def read_text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


class FrozenWatch(TrainerCallback):  # type: ignore[misc]
    """Whether training moves the weights at all: a sample of them before the first step and after the third that had a
    gradient (a GRPO whose first answers are all wrong has none, and is not frozen)."""

    def __init__(self, folder: Path) -> None:
        self.path, self.before, self.pushed = folder / "setup.json", None, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        self.before = weight_sample(model) if state.global_step == 0 else None

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        if self.before is not None and state.is_world_process_zero:
            # This process's part alone, where a model is divided: the others do not come along.
            grads = (part_here(weight.grad) for weight in model.parameters() if weight.grad is not None)
            self.pushed += any(bool(grad.any()) for grad in grads)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        if self.pushed < FROZEN_AFTER or self.before is None or not state.is_world_process_zero:
            return
        after, before = weight_sample(model), self.before
        self.before = None
        frozen = all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
        setup = json.loads(self.path.read_text()) | {"frozen_after_3_steps": frozen}
        self.path.write_text(json.dumps(setup, indent=1))


def part_here(tensor: Any) -> Any:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def weight_sample(model: Any) -> list[Any]:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    chosen = weights[:: max(1, math.ceil(len(weights) / WATCHED_TENSORS))]
    local = [part_here(weight).detach().flatten() for weight in chosen]
    return [flat[:: max(1, flat.numel() // WATCHED_VALUES)].cpu().clone() for flat in local]


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


class CheckpointRequest(TrainerCallback):  # type: ignore[misc]
    """Makes a checkpoint when somebody puts a file `checkpoint_now` into the folder, and takes the file away once the
    checkpoint is whole: so whoever is about to end this process knows that nothing is lost."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "checkpoint_now"

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        asked = self.path.exists()
        if args.world_size > 1:  # all save together, so the first one's word counts for all
            word = torch.tensor([int(asked)], device=args.device)
            torch.distributed.broadcast(word, 0)
            asked = bool(word.item())
        control.should_save = control.should_save or asked

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if state.is_world_process_zero:
            self.path.unlink(missing_ok=True)


class AllStepsDone(Exception):
    """The checkpoint is the one after the last step."""


class LastStep(TrainerCallback):  # type: ignore[misc]
    """Takes no step beyond the last: from a checkpoint after it (of a run that was ended before its model was saved)
    transformers would take one more before it looks."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if state.global_step >= state.max_steps:
            raise AllStepsDone


def add_logs(trainer: Any, rows: list[Json]) -> None:
    folder = Path(trainer.args.output_dir)
    asked = CheckpointRequest(folder)  # after the log: what is asked for is named before the request is gone
    for callback in (MetricsLog(folder, len(rows), trainer), FrozenWatch(folder), CheckpointLog(folder), asked):
        trainer.add_callback(callback)


def train_and_save(trainer: Any, tokenizer: Any, experiment: Any, start: str) -> None:
    """The training itself, from the newest checkpoint where there is one, and what it leaves behind."""
    trainer.add_callback(LastStep())
    if experiment.smoke:
        trainer.remove_callback(CheckpointRequest)  # nobody may take two steps for a run to go on from
    try:
        result = trainer.train(resume_from_checkpoint=checkpoint_to_resume(trainer.args))
    except AllStepsDone:
        result = trainer._finalize_training(None, 0, time.time())
    trainer.save_state()
    save_model(trainer, tokenizer, start)
    remove_start(trainer)
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]  # of all steps; a resumed run too
    write_json(
        trainer,
        "summary.json",
        {
            "method": experiment.method,
            "init_from": experiment.init_from,
            "global_step": trainer.state.global_step,
            "max_steps": trainer.state.max_steps,
            "epoch": trainer.state.epoch,
            "train_loss": plain(mean(losses) if losses else result.training_loss),
            "train_seconds": round(result.metrics["train_runtime"], 2),
            "total_seconds": round(time.monotonic() - STARTED, 2),
        },
    )
    if trainer.is_world_process_zero():
        print(
            f"done: {trainer.state.global_step} steps, model in {Path(trainer.args.output_dir) / 'model'}", flush=True
        )


def save_model(trainer: Any, tokenizer: Any, start: str) -> None:
    """A folder that transformers loads by itself: an adapter is merged into its base, whose path nobody else knows."""
    folder = Path(trainer.args.output_dir) / "model"
    adapter = folder.with_name("adapter")
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not hasattr(model, "merge_and_unload"):
        trainer.save_model(str(folder))  # by all processes: under FSDP each holds a part
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle: nobody should have to load it
        return
    weights, divided = None, trainer.is_fsdp_enabled or is_zero3(trainer)
    if divided:  # by all processes; whole on the first alone
        weights = trainer.accelerator.get_state_dict(trainer.model if trainer.is_fsdp_enabled else trainer.deepspeed)
    if not trainer.is_world_process_zero():
        return
    model.save_pretrained(adapter, state_dict=weights)
    if divided or is_rounded(model, start, trainer.args):
        model = adapted_base(model, adapter, start, trainer.args)
    model.merge_and_unload().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def is_zero3(trainer: Any) -> bool:
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    return plugin is not None and plugin.zero_stage == 3


def is_rounded(model: Any, start: str, args: Any) -> bool:
    """Whether load_in_8bit or load_in_4bit rounded the weights, of which `start` has the whole ones."""
    kept = {"revision": args.model_init_kwargs["revision"], "trust_remote_code": args.trust_remote_code}
    found = (model.config, AutoConfig.from_pretrained(start, **kept))
    return [getattr(config, "quantization_config", None) is None for config in found] == [False, True]


def adapted_base(model: Any, adapter: Path, start: str, args: Any) -> Any:
    """The base once more, whole and with the adapter: what is divided cannot be merged, and what load_in_8bit rounded
    would be rounded a second time. What `model` says of its tokens stays."""
    from peft import PeftModel  # only here: without an adapter nobody needs it
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()  # or it would be divided again, with processes that are not here
    kwargs = {key: value for key, value in args.model_init_kwargs.items() if key != "device_map"}
    base = MODEL_CLASS.from_pretrained(start, trust_remote_code=args.trust_remote_code, device_map="cpu", **kwargs)
    known, own = model.config.get_text_config(), base.config.get_text_config()
    if known.vocab_size != own.vocab_size:  # chat_template_path brought tokens
        base.resize_token_embeddings(known.vocab_size)
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(own, key, getattr(known, key, None))
    if base.can_generate():
        base.generation_config = model.generation_config
    return PeftModel.from_pretrained(base, adapter)


def checkpoint_to_resume(args: Any) -> str | None:
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


def whole_rows(path: Path) -> list[Json]:
    """The objects of a file that a run appends to, without the half line that a killed one, or a full disk, left."""
    found = []
    for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else []:
        with contextlib.suppress(ValueError):
            found += [json.loads(line)] if line else []
    return found


def write_json(trainer: Any, name: str, value: Json) -> None:
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
