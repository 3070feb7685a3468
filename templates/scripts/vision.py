# /// script
# requires-python = ">=3.11"
# dependencies = ["torch>=2.13,<2.14", "trl>=1.16,<2", "peft>=0.21", "pillow>=11"]
# ///
"""Image classification with transformers' Trainer: a label for every image.

    uv run train.py --config recipe.yaml                              # everything is in the recipe
    uv run train.py --config recipe.yaml --learning_rate 1e-3         # a flag wins over the recipe
    uv run train.py --config recipe.yaml --smoke                      # two steps, to see that it runs
    uv run train.py --config recipe.yaml --learning_rate_probe 1e-4,1e-3,1e-2
    uv run train.py --config recipe.yaml --timing_probe 20            # how long a step takes here, and its memory
    uv run train.py --config recipe.yaml --audit_only                 # data_audit.json, without any weight or step
    accelerate launch train.py --config recipe.yaml                   # several GPUs
    uv run train.py --config recipe.yaml --resume_from_checkpoint out/checkpoint-200

The recipe is flat YAML, one key per line. Its keys are those of transformers' TrainingArguments (learning_rate,
label_smoothing_factor, ...) and TRL's ModelConfig (dtype, ...) plus the few in `VisionSettings` and `Experiment` below.
Rows are JSONL with image (base64 of a PNG, a JPEG or what else Pillow reads) and label. A model that knows the data's
labels already keeps its output layer; any other gets a new one. Images are resized by the model's own image processor
and augmented by a few lines of arithmetic below; torchvision is not needed.

What it writes below `output_dir` (default `out`):

    setup.json           steps, rows, device and parameters of this run, before the first step
    environment.json     exact versions of all libraries, machine, threads and determinism of this run
    data_audit.json      what is trained on and how: rows of each label, sizes, mean and spread of what the model sees
    checkpoint-N/        weights, optimizer and random states after step N, where the recipe saves
    latest               name of the newest whole one, replaced when that is complete
    metrics.jsonl        one JSON object per logged step: loss, grad_norm, eval_loss, eval_accuracy, eval_macro_f1
    trainer_state.json   the trainer's own record
    model/               weights, image processor and configuration
    summary.json         steps done, seconds, mean loss
    probe.json           instead of all that: the learning-rate range test
    timing.json          or, with --timing_probe: steps, seconds_per_step, peak_memory_gib

What stands below the line "Shared" is the same in every training script.

Exit code 2 and one line on stderr: the recipe or the data must change. Any other failure keeps its traceback.
"""

import base64
import contextlib
import difflib
import functools
import gc
import hashlib
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
import numpy as np  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from datasets import disable_progress_bars  # noqa: E402
from PIL import Image, UnidentifiedImageError  # noqa: E402
from transformers import (  # noqa: E402
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback  # noqa: E402
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available  # noqa: E402
from transformers.utils.logging import disable_progress_bar  # noqa: E402
from trl import ModelConfig, TrlParser  # noqa: E402

gc.enable()
gc.freeze()

Json = dict[str, Any]
COLUMNS = ({"image", "label"},)
NEEDED = "an image classifier needs image and label: name them with data_image_column and data_label_column"
MOST_LABELS = 1000
"""More than that are texts in the wrong column; ImageNet has as many."""
AUGMENTATIONS = ("flip", "crop", "brightness")
CACHE_BYTES = 2**30
"""What was prepared is kept in memory up to so much; beyond it each row is prepared anew whenever it is its turn."""
SAMPLED_IMAGES = 500
"""Images whose pixels are averaged: the default of SageMaker Debugger's rule CheckInputImages."""


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
class VisionSettings(TrainingArguments):  # type: ignore[misc]
    """What TRL's configurations have and TrainingArguments lacks."""

    model_init_kwargs: str | None = field(default=None, metadata={"help": "JSON for from_pretrained."})
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code that comes with the model."})


METHOD, CONFIG, MODEL_CLASS = "vision", VisionSettings, AutoModelForImageClassification


@dataclass
class Experiment(Keys):
    """The recipe's keys besides those of VisionSettings and ModelConfig."""

    method: str = field(default=METHOD, metadata={"help": "What this script does; anything else is refused."})
    class_weights: str = field(
        default="none", metadata={"help": "none, balanced, or `label=weight,...`: how much each label's errors count."}
    )
    augmentation: str = field(
        default="none", metadata={"help": "none, or some of flip, crop and brightness with commas between them."}
    )
    learning_rate_probe: str | None = field(
        default=None, metadata={"help": "Comma-separated learning rates to compare instead of training."}
    )


def main() -> None:
    experiment, args, model_args = parse_arguments()
    set_seed(args.seed)  # before the model: its output is drawn while it is built
    changes = augmentations(experiment.augmentation)
    if model_args.use_peft:
        fail("use_peft: image classifiers are trained whole here; remove the line")
    for key in ("load_in_8bit", "load_in_4bit", "added_tokens"):
        if getattr(experiment, key, None) or getattr(model_args, key, None):
            fail(f"{key} means nothing to an image classifier that is trained whole; remove the line")
    train_rows = read_rows(experiment.train_file)
    validation_rows = read_rows(experiment.validation_file, optional=True)
    with settings_refused():
        known = AutoConfig.from_pretrained(
            experiment.init_from, revision=model_args.model_revision, trust_remote_code=args.trust_remote_code
        )
    labels = label_settings(train_rows, known)
    train_rows, validation_rows = smoke_rows(experiment, args, train_rows, validation_rows)
    rates, timed = probe_rates(experiment.learning_rate_probe), timing_steps(experiment)
    if rates or timed:
        train_rows, validation_rows = prepare_probe(args, train_rows, timed or PROBE_STEPS), []
    else:
        choose_evaluation(args, bool(validation_rows), experiment)

    args.model_init_kwargs = model_kwargs(args, model_args) | labels
    args.remove_unused_columns = False  # rows become pixels only in the collator
    start = str(experiment.init_from)
    numbers = label_numbers(train_rows, labels["label2id"], experiment.train_file)
    if experiment.audit_only:
        load_no_weights(args)
    with settings_refused():
        # Pillow's arithmetic everywhere, as the evaluator's: with torchvision images are resized a little differently.
        processor = AutoImageProcessor.from_pretrained(
            start, backend="pil", revision=model_args.model_revision, trust_remote_code=args.trust_remote_code
        )
        model = MODEL_CLASS.from_pretrained(start, trust_remote_code=args.trust_remote_code, **args.model_init_kwargs)
    if args.gradient_checkpointing and not model.supports_gradient_checkpointing:
        args.gradient_checkpointing = False
    validated = label_numbers(validation_rows, labels["label2id"], experiment.validation_file)
    trainer = ClassifierTrainer(
        model=model,
        args=args,
        train_dataset=Pictures(train_rows, numbers, processor, experiment.train_file, changes, args.seed),
        eval_dataset=Pictures(validation_rows, validated, processor, experiment.validation_file)
        if validation_rows
        else None,
        processing_class=processor,
        data_collator=functools.partial(stacked, dtype=model.dtype),
        compute_metrics=label_metrics,
    )
    trainer.class_weights = weights_of_classes(experiment.class_weights, labels["label2id"], numbers)
    refuse_other_sizes(model.config, trainer.train_dataset)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(EpochOfPictures(trainer.train_dataset))
    if rates:
        write_json(trainer, "probe.json", probe_learning_rates(trainer, rates))
        return
    if timed:
        write_json(trainer, "timing.json", probe_timing(trainer))
        return

    audit = audit_data(trainer, train_rows)
    audit |= audit_labels(labels, numbers, known)
    if not experiment.audit_only:  # which need not run on the machine that trains
        audit |= audit_training(trainer)
    write_json(trainer, "data_audit.json", audit)
    if experiment.audit_only:
        return
    add_logs(trainer, train_rows)
    train_and_save(trainer, processor, experiment, start)


# --- Images ---------------------------------------------------------------------------------------------------------


class Pictures(torch.utils.data.Dataset):  # type: ignore[misc]
    """{"pixel_values": float32 (channels, height, width), "labels"} of rows, read and resized when they are needed."""

    def __init__(
        self,
        rows: list[Json],
        numbers: list[int],
        processor: Any,
        path: str,
        changes: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        self.rows, self.numbers, self.processor, self.path, self.changes = rows, numbers, processor, path, changes
        self.seed, self.epoch = seed, 0
        self.kept: dict[int, Any] = {}
        self.kept_bytes = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Json:
        pixels = self.resized(index)
        # Its own numbers for each image and epoch: loading runs ahead of training, so a resumed run would draw others.
        drawn = np.random.default_rng([self.seed, self.epoch, index])
        for change in self.changes:
            pixels = CHANGES[change](pixels, drawn)
        return {"pixel_values": normalised(pixels, self.processor), "labels": self.numbers[index]}

    def resized(self, index: int) -> Any:
        """uint8 (channels, height, width), as the processor resizes and crops it."""
        if index in self.kept:
            return self.kept[index]
        picture = opened(self.rows[index]["image"], f"{self.path} row {index + 1}")
        found = self.processor(picture, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
        pixels = np.clip(np.rint(found), 0, 255).astype(np.uint8)
        if self.kept_bytes + pixels.nbytes <= CACHE_BYTES:
            self.kept[index] = pixels
            self.kept_bytes += pixels.nbytes
        return pixels


def opened(image: object, where: str) -> Any:
    try:
        with Image.open(io.BytesIO(base64.b64decode(str(image), validate=True))) as found:
            return found.convert("RGB")
    except (ValueError, UnidentifiedImageError, OSError):
        fail(f"{where}: image is not the base64 of an image that Pillow reads; build the rows with data/prepare.py")


def normalised(pixels: Any, processor: Any) -> Any:
    """What the model sees: the processor's own rescaling and normalisation."""
    values = pixels.astype(np.float32)
    if processor.do_rescale:
        values *= processor.rescale_factor
    if processor.do_normalize:
        mean_, spread = (np.array(v, np.float32)[:, None, None] for v in (processor.image_mean, processor.image_std))
        values = (values - mean_) / spread
    return torch.from_numpy(values)


def stacked(rows: list[Json], dtype: Any) -> Json:
    """A batch in the precision of the model's weights."""
    return {
        "pixel_values": torch.stack([row["pixel_values"] for row in rows]).to(dtype),
        "labels": torch.tensor([row["labels"] for row in rows]),
    }


def augmentations(words: str) -> tuple[str, ...]:
    if words == "none":
        return ()
    named = tuple(word.strip() for word in words.split(","))
    if unknown := [word for word in named if word not in AUGMENTATIONS]:
        fail(f"augmentation: {unknown[0]} is not known; write none, or some of {', '.join(AUGMENTATIONS)}")
    return named


class EpochOfPictures(TrainerCallback):  # type: ignore[misc]
    """Tells the training images which epoch they are loaded for."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.pictures.epoch = int(state.epoch + 1e-6)


def flipped(pixels: Any, drawn: Any) -> Any:
    """Left for right, half of the time."""
    return pixels[:, :, ::-1].copy() if drawn.random() < 0.5 else pixels


def shifted(pixels: Any, drawn: Any) -> Any:
    """A crop of the image with a margin of an eighth around it, as ResNets are trained on CIFAR-10 (4 of 32 pixels; He
    et al. 2016, https://arxiv.org/abs/1512.03385, section 4.2)."""
    _, height, width = pixels.shape
    down, across = max(1, height // 8), max(1, width // 8)
    wide = np.pad(pixels, ((0, 0), (down, down), (across, across)))
    top, left = (int(drawn.integers(0, 2 * margin + 1)) for margin in (down, across))
    return wide[:, top : top + height, left : left + width]


def brightened(pixels: Any, drawn: Any) -> Any:
    """A fifth darker to a fifth brighter."""
    factor = 0.8 + 0.4 * float(drawn.random())
    return np.clip(pixels.astype(np.float32) * factor, 0, 255).astype(np.uint8)


CHANGES = {"flip": flipped, "crop": shifted, "brightness": brightened}


def refuse_other_sizes(config: Any, pictures: Pictures) -> None:
    """A model with learned positions takes images of one size, and the processor must make that size."""
    height, width = pictures.resized(0).shape[1:]
    size = getattr(config, "image_size", None)
    wanted = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if size is not None and (height, width) != wanted:
        fail(
            f"the image processor of init_from makes {height} by {width} pixels, and the model takes {wanted[0]} by "
            f"{wanted[1]}: start from a folder where both belong together"
        )


def audit_data(trainer: Any, rows: list[Json]) -> Json:
    """Sizes and doubles of the images, and mean and spread of what the model sees (its processor's normalisation)."""
    pictures = trainer.train_dataset
    step = max(1, len(rows) // SAMPLED_IMAGES)
    sampled = range(0, len(rows), step)
    seen = torch.stack([normalised(pictures.resized(index), pictures.processor) for index in sampled])
    sizes = [max(opened(rows[index]["image"], f"row {index + 1}").size) for index in sampled]
    by_image: dict[str, set[str]] = {}
    for row in rows:
        digest = hashlib.sha256(str(row["image"]).encode()).hexdigest()
        by_image.setdefault(digest, set()).add(str(row["label"]))
    return audit_rows(rows, ("label",)) | {
        "distinct_prompts": len(by_image),
        "contradicting_images": sum(len(labels) > 1 for labels in by_image.values()),
        "dropped_rows": 0,
        "images": {
            "sampled": len(seen),
            "mean": [round(value, 4) for value in seen.mean(dim=(0, 2, 3)).tolist()],
            "std": [round(value, 4) for value in seen.std(dim=(0, 2, 3)).tolist()],
            "uniform": int((seen.flatten(1).std(dim=1) < 0.01).sum()),
            "longest_edge": percentiles(sizes),
            "seen_as": list(seen.shape[1:]),
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


# --- Labels ---------------------------------------------------------------------------------------------------------


def label_settings(rows: list[Json], known: Any) -> Json:
    """What from_pretrained is told about labels: those of init_from (`known` is its configuration) where they cover the
    data's, else the data's own.

    So a run that goes on from an earlier one keeps its output layer, and any other gets a new one.
    """
    found = {str(row["label"]) for row in rows}
    # Numbers in their order, so that a label's place among the outputs is itself: as texts, 10 comes before 2.
    wanted = sorted(found, key=int) if all(label.isdecimal() for label in found) else sorted(found)
    if len(wanted) < 2:
        fail(f"every row has the label {wanted[0]}; a classifier needs two labels or more")
    if len(wanted) > MOST_LABELS:
        fail(
            f"{len(wanted)} labels in {len(rows)} rows: these are texts rather than labels; set data_label_column to "
            "the column with the labels"
        )
    names = {int(number): str(name) for number, name in (known.id2label or {}).items()}
    if not set(wanted) <= set(names.values()):
        names = dict(enumerate(wanted))
    return {
        "id2label": names,
        "label2id": {name: number for number, name in names.items()},
        "num_labels": len(names),
        "ignore_mismatched_sizes": True,
    }


def label_numbers(rows: list[Json], numbers: dict[str, int], path: str) -> list[int]:
    for row in rows:
        if str(row["label"]) not in numbers:
            fail(f"{path} has the label {row['label']}, and no row of the training data has: {', '.join(numbers)}")
    return [numbers[str(row["label"])] for row in rows]


def weights_of_classes(words: str, numbers: dict[str, int], found: list[int]) -> Any:
    """The loss's weight of every label: none, in inverse proportion to its rows, or as the recipe names them."""
    if words == "none":
        return None
    counts = [found.count(number) for number in range(len(numbers))]
    if words == "balanced":
        # As scikit-learn's compute_class_weight("balanced") does; a label without a row weighs nothing.
        return torch.tensor([len(found) / (len(numbers) * count) if count else 0.0 for count in counts])
    weights = dict.fromkeys(numbers, 1.0)
    for part in words.split(","):
        name, _, value = part.strip().rpartition("=")
        if name not in numbers:
            fail(f"class_weights: {part.strip()} names no label; write none, balanced or {next(iter(numbers))}=2,...")
        try:
            weights[name] = float(value)
        except ValueError:
            fail(f"class_weights: {name} needs a number, not {value}")
    if not all(0 <= weight < math.inf for weight in weights.values()) or not any(weights.values()):
        fail("class_weights needs numbers of 0 or more, at least one of them above 0")
    return torch.tensor([weights[name] for name, _ in sorted(numbers.items(), key=lambda pair: pair[1])])


class ClassifierTrainer(Trainer):  # type: ignore[misc]
    """The trainer with a loss of its own: the mean over each batch, in which labels may have weights.

    The models' own losses cannot be left to the trainer: those of BERT and ResNet are means too, but the trainer takes
    them for sums over all accumulated batches and all processes, and so multiplies gradients by their number.
    """

    loss_is_scaled_for_ga = False
    class_weights: Any = None

    def compute_loss(
        self, model: Any, inputs: Json, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs["labels"]
        outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
        weighted = self.class_weights is not None and model.training
        loss = torch.nn.functional.cross_entropy(
            outputs.logits.float(),
            labels,
            weight=self.class_weights.to(labels.device) if weighted else None,
            label_smoothing=self.args.label_smoothing_factor,
        )
        return (loss, outputs) if return_outputs else loss


def label_metrics(predicted: Any) -> Json:
    """Accuracy, and F1 averaged over the labels that occur or are given."""
    logits = predicted.predictions[0] if isinstance(predicted.predictions, tuple) else predicted.predictions
    given, wanted = logits.argmax(-1), predicted.label_ids
    f1 = []
    for number in set(given.tolist()) | set(wanted.tolist()):
        hits = int(((given == number) & (wanted == number)).sum())
        f1.append(2 * hits / int((given == number).sum() + (wanted == number).sum()))
    return {"accuracy": float((given == wanted).mean()), "macro_f1": mean(f1)}


def audit_labels(settings: Json, found: list[int], started_from: Any) -> Json:
    """How often each label occurs, and whether the output layer that knows them comes from init_from."""
    names = settings["id2label"]
    known = {str(name) for name in (started_from.id2label or {}).values()}
    return {
        "labels": {names[number]: found.count(number) for number in sorted(names)},
        "head": "kept" if set(names.values()) == known else "new",
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
