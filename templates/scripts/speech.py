# /// script
# requires-python = ">=3.11"
# dependencies = ["torch>=2.13,<2.14", "trl>=1.16,<2", "peft>=0.21"]
# ///
"""Speech recognition with transformers' Seq2SeqTrainer: Whisper and its like learn to write what they hear.

    uv run train.py --config recipe.yaml                              # everything is in the recipe
    uv run train.py --config recipe.yaml --learning_rate 1e-5         # a flag wins over the recipe
    uv run train.py --config recipe.yaml --smoke                      # two steps, to see that it runs
    uv run train.py --config recipe.yaml --learning_rate_probe 1e-6,1e-5,1e-4
    uv run train.py --config recipe.yaml --timing_probe 20            # how long a step takes here, and its memory
    uv run train.py --config recipe.yaml --audit_only                 # data_audit.json, without any weight or step
    accelerate launch train.py --config recipe.yaml                   # several GPUs
    uv run train.py --config recipe.yaml --resume_from_checkpoint out/checkpoint-200

The recipe is flat YAML, one key per line. Its keys are those of transformers' Seq2SeqTrainingArguments (learning_rate,
generation_max_length, ...) and TRL's ModelConfig (dtype, use_peft, lora_r, ...) plus the few in `SpeechSettings` and
`Experiment` below. Rows are JSONL with audio (base64 of a WAV file with whole-number samples, of any rate and number of
channels) and text. Recordings longer than the model's window, and texts longer than it can write, are left out.

What it writes below `output_dir` (default `out`):

    setup.json           steps, rows, device and parameters of this run, before the first step
    environment.json     exact versions of all libraries, machine, threads and determinism of this run
    data_audit.json      what is trained on and how: seconds, rates, silence, lengths of texts, LoRA's targets
    checkpoint-N/        weights, optimizer and random states after step N, where the recipe saves
    latest               name of the newest whole one, replaced when that is complete
    metrics.jsonl        one JSON object per logged step: loss, grad_norm, eval_loss, eval_wer and eval_cer (errors per
                         word and character, case and marks ignored), eval_termination_rate
    completions.jsonl    what it writes for a few validation recordings, at every evaluation
    trainer_state.json   the trainer's own record
    model/               weights, processor and configuration (LoRA is merged; the adapter itself lies in adapter/)
    summary.json         steps done, seconds, mean loss
    probe.json           instead of all that: the learning-rate range test
    timing.json          or, with --timing_probe: steps, seconds_per_step, peak_memory_gib

What stands below the line "Shared" is the same in every training script.

Exit code 2 and one line on stderr: the recipe or the data must change. Any other failure keeps its traceback.
"""

import base64
import contextlib
import difflib
import gc
import importlib.util
import io
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
import unicodedata
import warnings
import wave
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
import numpy as np  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from datasets import disable_progress_bars  # noqa: E402
from transformers import (  # noqa: E402
    AutoConfig,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback  # noqa: E402
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available  # noqa: E402
from transformers.utils.logging import disable_progress_bar  # noqa: E402
from trl import ModelConfig, TrlParser, get_peft_config, get_quantization_config  # noqa: E402

gc.enable()
gc.freeze()

Json = dict[str, Any]
COLUMNS = ({"audio", "text"},)
NEEDED = "speech recognition needs audio and text: name them with data_audio_column and data_text_column"
CACHE_BYTES = 2**30
"""What was prepared is kept in memory up to so much; beyond it each row is prepared anew whenever it is its turn."""
SILENT = 0.001
"""A recording whose loudest sample is below that has nothing to hear (-60 dB)."""
SHOWN = 16
"""Validation recordings whose transcripts are written down at every evaluation."""


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
class SpeechSettings(Seq2SeqTrainingArguments):  # type: ignore[misc]
    """What TRL's configurations have and Seq2SeqTrainingArguments lacks."""

    model_init_kwargs: str | None = field(default=None, metadata={"help": "JSON for from_pretrained."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code that comes with the model."})


METHOD, CONFIG, MODEL_CLASS = "speech", SpeechSettings, AutoModelForSpeechSeq2Seq


@dataclass
class Experiment(Keys):
    """The recipe's keys besides those of SpeechSettings and ModelConfig."""

    method: str = field(default=METHOD, metadata={"help": "What this script does; anything else is refused."})
    language: str | None = field(
        default=None, metadata={"help": "Of the recordings, for a multilingual model: en, german, ..."}
    )
    speech_task: str = field(default="transcribe", metadata={"help": "transcribe or translate, with language."})
    learning_rate_probe: str | None = field(
        default=None, metadata={"help": "Comma-separated learning rates to compare instead of training."}
    )


def main() -> None:
    experiment, args, model_args = parse_arguments()
    set_seed(args.seed)  # before the model: LoRA's weights are drawn while it is built
    if experiment.added_tokens:
        fail("added_tokens: speech recognisers keep their vocabulary here; remove the line")
    train_rows = read_rows(experiment.train_file)
    validation_rows = read_rows(experiment.validation_file, optional=True)
    train_rows, validation_rows = smoke_rows(experiment, args, train_rows, validation_rows)
    rates, timed = probe_rates(experiment.learning_rate_probe), timing_steps(experiment)
    if rates or timed:
        train_rows, validation_rows = prepare_probe(args, train_rows, timed or PROBE_STEPS), []
    else:
        choose_evaluation(args, bool(validation_rows), experiment)

    args.model_init_kwargs = model_kwargs(args, model_args)
    args.remove_unused_columns = False  # rows become features only when they are needed
    args.predict_with_generate = bool(validation_rows)
    model_args.lora_task_type = None  # PEFT's wrapper for sequence to sequence expects token ids, not sound
    start = str(experiment.init_from)
    if experiment.audit_only:
        load_no_weights(args)
    with settings_refused():
        processor = AutoProcessor.from_pretrained(
            start, revision=model_args.model_revision, trust_remote_code=args.trust_remote_code
        )
        model = MODEL_CLASS.from_pretrained(
            start,
            trust_remote_code=args.trust_remote_code,
            quantization_config=get_quantization_config(model_args),
            **args.model_init_kwargs,
        )
    choose_language(experiment, model.generation_config, processor)
    args.generation_max_length = args.generation_max_length or model.config.max_target_positions
    adapter = lora_config(model_args, start, [])
    if adapter is not None:
        with settings_refused():
            model = adapted(model, adapter)
    heard = Recordings(train_rows, processor, model.config, experiment.train_file)
    if not heard.rows:
        fail(
            f"no row is left to train on: every recording is longer than {heard.window:g} s, or its text than "
            f"{model.config.max_target_positions} tokens; cut them into pieces"
        )
    checked = Recordings(validation_rows, processor, model.config, experiment.validation_file)
    trainer = SpeechTrainer(
        model=model,
        args=args,
        train_dataset=heard,
        eval_dataset=checked if checked.rows else None,
        processing_class=processor,
        data_collator=Padding(processor, model.config.decoder_start_token_id, model.dtype),
    )
    trainer.compute_metrics = Transcripts(trainer, processor, Path(args.output_dir))
    complete(trainer)
    if rates:
        write_json(trainer, "probe.json", probe_learning_rates(trainer, rates))
        return
    if timed:
        write_json(trainer, "timing.json", probe_timing(trainer))
        return

    audit = audit_data(trainer, train_rows)
    if not experiment.audit_only:  # which need not run on the machine that trains
        audit |= audit_training(trainer)
    if adapter is not None:
        audit["lora"] = {
            "target_modules": model_args.lora_target_modules,
            "matched_modules": sum(hasattr(module, "lora_A") for module in model.modules()),
            "trainable_parameters": size_of(weight for weight in model.parameters() if weight.requires_grad),
        }
    write_json(trainer, "data_audit.json", audit)
    if experiment.audit_only:
        return
    add_logs(trainer, heard.rows)
    train_and_save(trainer, processor, experiment, start)


def choose_language(experiment: Experiment, generation: Any, processor: Any) -> None:
    """Labels begin with the tokens of language and task, and the model is told to begin with them too.

    Without a language the model writes one that it guesses, and would be trained on labels that have none. A model that
    was trained here knows its own.
    """
    own = {key: getattr(generation, key, None) for key in ("language", "task")}
    task = experiment.speech_task if "speech_task" in experiment.given else own["task"] or experiment.speech_task
    if task not in ("transcribe", "translate"):
        fail(f"speech_task: {task} is not known; write transcribe or translate")
    language, languages = experiment.language or own["language"], getattr(generation, "lang_to_id", None)
    if not languages:
        english = getattr(generation, "is_multilingual", None) is False and str(language).lower() in ("en", "english")
        if language is not None and not english:  # Whisper's other models of one language are English
            fail(f"language: {language} means nothing to a model of one language; remove the line")
        return
    if language is None:
        fail(
            f"language is missing: {experiment.init_from} writes {len(languages)} languages and begins each text with "
            "one; write that of the recordings, language: en for example"
        )
    with settings_refused():
        processor.tokenizer.set_prefix_tokens(language=language, task=task)
        begin = processor.tokenizer.prefix_tokens
    if any(token is None or token == processor.tokenizer.unk_token_id for token in begin):
        fail(f"language: {language} has no token in this model's tokenizer; write another one")
    generation.language, generation.task = language, task
    generation.forced_decoder_ids = None


def adapted(model: Any, adapter: Any) -> Any:
    from peft import get_peft_model  # only here: without an adapter nobody needs it

    return get_peft_model(model, adapter)


# --- Recordings -----------------------------------------------------------------------------------------------------


class Recordings(torch.utils.data.Dataset):  # type: ignore[misc]
    """{"input_features", "labels"} of the rows that fit; features are made when they are needed."""

    def __init__(self, rows: list[Json], processor: Any, config: Any, path: str) -> None:
        self.processor, self.extractor = processor, processor.feature_extractor
        self.window = float(getattr(self.extractor, "chunk_length", 0) or math.inf)
        self.seconds: list[float] = []
        self.rates: dict[int, int] = {}
        self.silent = self.too_long = self.too_wordy = 0
        self.rows: list[Json] = []
        self.labels: list[list[int]] = []
        self.lengths: list[int] = []
        self.kept: dict[int, Any] = {}
        self.kept_bytes = 0
        for number, row in enumerate(rows, start=1):
            values, rate = recording(row["audio"], f"{path} row {number}")
            seconds = len(values) / rate
            ids = list(processor.tokenizer(text_of(row["text"])).input_ids)
            self.seconds.append(seconds)
            self.rates[rate] = self.rates.get(rate, 0) + 1
            self.silent += not len(values) or float(np.abs(values).max()) < SILENT
            self.lengths.append(len(ids))
            self.too_long += seconds > self.window
            self.too_wordy += len(ids) > config.max_target_positions
            if seconds <= self.window and len(ids) <= config.max_target_positions:
                self.rows.append(row)
                self.labels.append(ids)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Json:
        if index not in self.kept:
            values, rate = recording(self.rows[index]["audio"], f"row {index + 1}")
            values = resampled(values, rate, self.extractor.sampling_rate)
            found = self.extractor(values, sampling_rate=self.extractor.sampling_rate, return_tensors="pt")
            features = found[self.extractor.model_input_names[0]][0]
            if self.kept_bytes + features.nbytes > CACHE_BYTES:
                return {"features": features, "labels": self.labels[index]}
            self.kept[index] = features
            self.kept_bytes += features.nbytes
        return {"features": self.kept[index], "labels": self.labels[index]}


def recording(audio: object, where: str) -> tuple[Any, int]:
    """(one channel of float32 in [-1, 1], samples per second) of PCM with 8 (unsigned), 16, 24 or 32 bits."""
    try:
        with wave.open(io.BytesIO(base64.b64decode(str(audio), validate=True))) as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            raw = file.readframes(file.getnframes())
    except (ValueError, EOFError, wave.Error) as error:
        fail(f"{where}: audio is not the base64 of a WAV file with whole-number samples ({error}); convert it")
    if width == 1:
        values = np.frombuffer(raw, np.uint8).astype(np.float32) - 128
    elif width == 3:
        parts = np.frombuffer(raw, np.uint8).reshape(-1, 3).astype(np.int32)
        values = ((parts[:, 0] << 8 | parts[:, 1] << 16 | parts[:, 2] << 24) >> 8).astype(np.float32)
    else:
        values = np.frombuffer(raw, {2: "<i2", 4: "<i4"}[width]).astype(np.float32)
    return (values / float(2 ** (8 * width - 1))).reshape(-1, channels).mean(axis=1), rate


def resampled(values: Any, own: int, rate: int) -> Any:
    """At another rate, by its spectrum: nothing above half the lower rate remains. torchaudio is not needed."""
    if own == rate or not len(values):
        return values.astype(np.float32)
    length = round(len(values) * rate / own)
    return (np.fft.irfft(np.fft.rfft(values), length) * (length / len(values))).astype(np.float32)


class Padding:
    """A batch of features in the precision of the model's weights, and labels filled up with -100 whose first token the
    model itself puts before them."""

    def __init__(self, processor: Any, start_token_id: int, dtype: Any) -> None:
        self.name, self.start = processor.feature_extractor.model_input_names[0], start_token_id
        self.dtype = dtype

    def __call__(self, rows: list[Json]) -> Json:
        labels = [row["labels"][1:] if row["labels"][0] == self.start else row["labels"] for row in rows]
        width = max(map(len, labels))
        return {
            self.name: torch.stack([row["features"] for row in rows]).to(self.dtype),
            "labels": torch.tensor([ids + [-100] * (width - len(ids)) for ids in labels]),
        }


class SpeechTrainer(Seq2SeqTrainer):  # type: ignore[misc]
    """The trainer with a loss of its own: the mean over the tokens of all accumulated batches and all processes.

    Whisper's own is the mean over one batch, but the trainer takes it for such a part of a larger mean, and so
    multiplies gradients by the number of accumulated batches and of processes; and with label smoothing it takes away
    the labels that Whisper reads.
    """

    loss_is_scaled_for_ga = True

    def __init__(self, *words: Any, **settings: Any) -> None:
        super().__init__(*words, **settings)
        self.model_accepts_loss_kwargs = True  # so that num_items_in_batch is counted, whatever the model takes

    def compute_loss(
        self, model: Any, inputs: Json, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        outputs = model(**inputs)
        loss = torch.nn.functional.cross_entropy(
            outputs.logits.float().flatten(0, 1),
            inputs["labels"].flatten(),
            reduction="mean" if num_items_in_batch is None else "sum",
            label_smoothing=self.args.label_smoothing_factor,
        )
        if num_items_in_batch is not None:  # of all processes, whose gradients are averaged
            loss = loss * (self.args.world_size if self.args.average_tokens_across_devices else 1) / num_items_in_batch
        return (loss, outputs) if return_outputs else loss


# --- What it hears --------------------------------------------------------------------------------------------------


class Transcripts:
    """Errors per word and per character over all validation recordings; the first few are written down."""

    def __init__(self, trainer: Any, processor: Any, folder: Path) -> None:
        self.trainer, self.tokenizer, self.path = trainer, processor.tokenizer, folder / "completions.jsonl"

    def __call__(self, predicted: Any) -> Json:
        pad = self.tokenizer.pad_token_id
        ends = end_token_ids(self.trainer.model, self.tokenizer)
        said = [[token for token in ids if token != -100] for ids in predicted.predictions.tolist()]
        wanted = [[token for token in ids if token != -100] for ids in predicted.label_ids.tolist()]
        heard = self.tokenizer.batch_decode(
            [[t if t >= 0 else pad for t in ids] for ids in said], skip_special_tokens=True
        )
        texts = self.tokenizer.batch_decode(wanted, skip_special_tokens=True)
        ended = [any(token in ends for token in ids[1:]) for ids in said]
        self.write_down(heard, texts, ended)
        errors = {"wer": [0, 0], "cer": [0, 0]}
        for one, other in zip(map(normal, heard), map(normal, texts), strict=True):
            for name, left, right in (("wer", one.split(), other.split()), ("cer", list(one), list(other))):
                errors[name][0] += edits(left, right)
                errors[name][1] += len(right)
        rates = {name: wrong / max(1, total) for name, (wrong, total) in errors.items()}
        return rates | {"termination_rate": mean([float(one) for one in ended])}

    def write_down(self, heard: list[str], texts: list[str], ended: list[bool]) -> None:
        if not self.trainer.is_world_process_zero():
            return
        step = self.trainer.state.global_step
        rows = [row for row in whole_rows(self.path) if row["step"] < step]  # a resumed run does the others again
        rows += [
            {
                "step": step, "prompt": "", "completion": one, "reference": other, "rewards": {},
                "finish": "stop" if end else "length",
            }
            for one, other, end in list(zip(heard, texts, ended, strict=True))[:SHOWN]
        ]  # fmt: skip
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(json.dumps(row) + "\n" for row in rows[-MOST_COMPLETIONS:]))


def normal(text: str) -> str:
    """Letters and digits of any script in lower case; whatever else becomes a space."""
    kept = (c if unicodedata.category(c)[0] in "LNM" or c == "'" else " " for c in unicodedata.normalize("NFKC", text))
    return re.sub(r"\s+", " ", "".join(kept)).strip().lower()


def edits(heard: list[str], wanted: list[str]) -> int:
    """Fewest insertions, deletions and substitutions between two sequences (Levenshtein 1966)."""
    row = list(range(len(wanted) + 1))
    for n, one in enumerate(heard, start=1):
        before, row[0] = row[0], n
        for m, other in enumerate(wanted, start=1):
            before, row[m] = row[m], min(row[m] + 1, row[m - 1] + 1, before + (one != other))
    return row[-1]


def audit_data(trainer: Any, rows: list[Json]) -> Json:
    """Seconds, rates and silence of the recordings, and lengths of their texts; of all rows, those left out too."""
    heard = trainer.train_dataset
    tenths = [round(10 * seconds) for seconds in heard.seconds]
    return audit_rows(rows, ("text",)) | {
        "distinct_prompts": len({row["audio"] for row in rows}),
        "dropped_rows": len(rows) - len(heard),
        "truncated_rows": 0,
        "answer_token_lengths": percentiles(heard.lengths),
        "audio": {
            "seconds": {name: value / 10 for name, value in percentiles(tenths).items()},
            "hours": round(sum(heard.seconds) / 3600, 3),
            "window_seconds": heard.window if math.isfinite(heard.window) else None,
            "longer_than_window": heard.too_long,
            "texts_too_long": heard.too_wordy,
            "silent_rows": heard.silent,
            "sampling_rates": {str(rate): count for rate, count in sorted(heard.rates.items())},
            "model_rate": heard.extractor.sampling_rate,
            "language": getattr(trainer.model.generation_config, "language", None),
        },
    }


def audit_training(trainer: Any) -> Json:
    """The model as it will be trained, for what has neither chat nor vocabulary."""
    args = trainer.args
    rows_per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    steps_per_epoch = max(1, math.ceil(len(trainer.train_dataset) / rows_per_step))
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * steps_per_epoch)
    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    return {
        "steps_per_epoch": steps_per_epoch,
        "warm_up_steps": args.get_warmup_steps(steps),
        "precision": {
            "dtype": str(trainer.model.dtype).removeprefix("torch."),
            "fp16": args.fp16,
            "bf16": bool(args.bf16),
            "device_capability": capability and ".".join(map(str, capability)),
        },
    }


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


# --- The model to start from ----------------------------------------------------------------------------------------


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


def whole_shape(weight: Any) -> tuple[int, ...]:
    """Of all processes together: ZeRO stage 3 leaves an empty tensor in each, and the shape beside it."""
    return tuple(getattr(weight, "ds_shape", weight.shape))


def size_of(weights: Any) -> int:
    return sum(math.prod(whole_shape(weight)) for weight in weights)


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
