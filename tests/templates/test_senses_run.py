"""Texts, images and recordings with labels: what their scripts write, audit and refuse, on untrained tiny models."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot.diagnosis import preflight
from bot.domain.diagnosis import Severity, Symptom
from bot.practice.sense_tasks import SENSE_TASKS, png, rows
from bot.practice.tiny_models import MAKERS
from bot.practice.warm import Ended, Warm

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "templates" / "scripts"
pytestmark = pytest.mark.timeout(600)
# Loaded once: each job would import them again.
IMPORTS = (
    "torch", "yaml", "numpy", "datasets", "peft", "trl.trainer.utils", "trl.scripts.utils", "transformers.trainer",
    "transformers.trainer_seq2seq", "PIL.Image",
    "transformers.models.bert.modeling_bert", "transformers.models.bert.tokenization_bert",
    "transformers.models.resnet.modeling_resnet", "transformers.models.vit.modeling_vit",
    "transformers.models.vit.image_processing_pil_vit", "transformers.models.whisper.modeling_whisper",
    "transformers.models.whisper.processing_whisper",
)  # fmt: skip
BUILD = """
import sys
from pathlib import Path
from bot.practice.tiny_models import build
for name in sys.argv[2:]: build(name, 0, Path(sys.argv[1]) / name)
"""


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    with Warm(IMPORTS) as started:
        yield started


@pytest.fixture(scope="module")
def models(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every tiny model under its name."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "build.py").write_text(BUILD)
    job = warm.start(["build.py", str(folder), *MAKERS], cwd=folder, log=folder / "log.txt",
                     environment={"PYTHONPATH": str(ROOT)})  # fmt: skip
    ended = job.wait(120)
    assert ended is not None and ended.exit_code == 0, (folder / "log.txt").read_text()
    return folder


class Job:
    """A training job's folder."""

    def __init__(self, warm: Warm, path: Path, models: Path, task: str) -> None:
        self.warm, self.path, self.out, self.task = warm, path, path / "out", SENSE_TASKS[task]
        self.base = models / self.task.base
        (path / "data").mkdir(parents=True)
        self.data(rows(task, "train", 40, 0))
        self.data(rows(task, "train", 48, 0)[40:], "validation")

    def data(self, drawn: list[dict[str, Any]], name: str = "train") -> None:
        (self.path / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in drawn))

    def ended(self, *flags: str, **recipe: Any) -> Ended:
        settings = {"learning_rate": 1e-3, "per_device_train_batch_size": 8, "save_strategy": "no", "seed": 0}
        (self.path / "recipe.yaml").write_text(yaml.safe_dump(settings | {"method": self.task.method} | recipe))
        script = str(SCRIPTS / f"{self.task.method}.py")
        words = [script, "--config", "recipe.yaml", *flags]
        if "init_from" not in recipe:
            words += ["--init_from", str(self.base)]
        (self.path / "log.txt").unlink(missing_ok=True)
        ended = self.warm.start(words, cwd=self.path, log=self.path / "log.txt").wait(300)
        assert ended is not None
        return ended

    @property
    def log(self) -> str:
        return (self.path / "log.txt").read_text()

    def run(self, *flags: str, **recipe: Any) -> None:
        assert self.ended(*flags, **recipe).exit_code == 0, self.log

    def refusal(self, *flags: str, **recipe: Any) -> str:
        assert self.ended(*flags, **recipe).exit_code == 2, self.log
        assert "Traceback" not in self.log
        return self.log.strip().splitlines()[-1]

    def json(self, name: str) -> Any:
        return json.loads((self.out / name).read_text())

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / name).read_text().splitlines()]


@pytest.fixture
def place(warm: Warm, models: Path, tmp_path: Path) -> Any:
    return lambda task: Job(warm, tmp_path / task, models, task)


LORA = {"use_peft": True, "lora_r": 2, "lora_target_modules": "all-linear"}
OF_THE_MACHINE = {"steps_per_epoch", "warm_up_steps", "precision", "attention"}
ALWAYS = {"setup.json", "environment.json", "data_audit.json", "metrics.jsonl", "trainer_state.json", "model",
          "summary.json"}  # fmt: skip


def test_classifier_of_texts_counts_its_labels_and_goes_on_from_its_own_model(place: Any) -> None:
    job = place("topic")
    job.run("--smoke", class_weights="balanced")
    assert {path.name for path in job.out.iterdir()} == ALWAYS
    audit = job.json("data_audit.json")
    assert set(audit["labels"]) == set(job.task.labels) and sum(audit["labels"].values()) == audit["rows"] == 40
    assert audit["head"] == "new" and audit["truncated_rows"] == audit["contradicting_texts"] == 0
    assert audit["vocabulary"]["largest_id"] < audit["vocabulary"]["embeddings"]
    evaluated = [row for row in job.lines("metrics.jsonl") if "eval_loss" in row]
    assert {"eval_accuracy", "eval_macro_f1"} <= evaluated[-1].keys()
    assert job.json("setup.json")["method"] == "classify"
    assert not (job.out / "model" / "training_args.bin").exists()
    names = json.loads((job.out / "model" / "config.json").read_text())["id2label"]
    assert sorted(names.values()) == sorted(job.task.labels)
    (job.out / "model").rename(job.path / "earlier")
    job.run("--smoke", init_from="earlier")
    assert job.json("data_audit.json")["head"] == "kept"


def test_classifier_of_texts_trains_an_adapter_and_merges_it(place: Any) -> None:
    job = place("sentiment")
    job.run("--smoke", use_peft=True, lora_r=4, lora_target_modules="all-linear")
    lora = job.json("data_audit.json")["lora"]
    assert lora["matched_modules"] > 0 and lora["trainable_parameters"] < job.json("setup.json")["parameters"] / 2
    assert (job.out / "adapter" / "adapter_config.json").is_file()
    job.run("--smoke", init_from="out/model")
    assert job.json("data_audit.json")["head"] == "kept", "the merged model knows its labels"


def test_range_and_timing_probes_measure_instead_of_training(place: Any) -> None:
    job = place("sentiment")
    job.run("--learning_rate_probe", "1e-5,1e-3")
    assert [trial["learning_rate"] for trial in job.json("probe.json")["trials"]] == [1e-5, 1e-3]
    job.run("--timing_probe", "3")
    assert job.json("timing.json")["seconds_per_step"] > 0
    assert not (job.out / "model").exists()


@pytest.mark.parametrize("task", ["shapes", "colours"])
def test_classifier_of_images_measures_what_the_model_sees(place: Any, task: str) -> None:
    job = place(task)
    job.run("--smoke", augmentation="flip,crop,brightness", class_weights=f"{SENSE_TASKS[task].labels[0]}=2")
    assert {path.name for path in job.out.iterdir()} == ALWAYS
    images = job.json("data_audit.json")["images"]
    side = 32 if task == "shapes" else 16
    assert images["seen_as"] == [3, side, side] and images["longest_edge"]["max"] == 16 and images["uniform"] == 0
    assert all(-1 <= value <= 1 for value in images["mean"]) and all(0 < value < 1.5 for value in images["std"])
    assert (job.out / "model" / "preprocessor_config.json").is_file()
    assert "eval_accuracy" in job.lines("metrics.jsonl")[-1]


def test_blank_and_contradicting_images_are_counted(place: Any) -> None:
    job = place("shapes")
    blank = png([(9, 9, 9)] * 256)
    job.data([{"image": blank, "label": label} for label in ("circle", "square")] * 10)
    job.data([], "validation")
    job.run("--smoke")
    audit = job.json("data_audit.json")
    assert audit["images"]["uniform"] == 20 and audit["contradicting_images"] == 1 and audit["distinct_prompts"] == 1
    (job.path / "data_audit.json").write_text(json.dumps(audit))
    first, second = preflight(job.path).diagnoses
    assert (first.symptom, first.severity, second.symptom) == (
        Symptom.LABEL_NOISE,
        Severity.FATAL,
        Symptom.DUPLICATES,
    )


def test_speech_recogniser_measures_its_recordings_and_writes_down_what_it_hears(place: Any) -> None:
    job = place("orders")
    wordy = rows("orders", "train", 1, 5)[0] | {"text": "x" * 60}
    job.data([*rows("orders", "train", 30, 0), wordy])
    job.run("--smoke")
    audit = job.json("data_audit.json")
    assert audit["rows"] == 31 and audit["dropped_rows"] == 1 and audit["audio"]["texts_too_long"] == 1
    assert audit["audio"]["sampling_rates"] == {"8000": 31} and audit["audio"]["model_rate"] == 16000
    assert 0.2 < audit["audio"]["seconds"]["p50"] < 1.0 and audit["audio"]["silent_rows"] == 0
    assert {"eval_wer", "eval_cer", "eval_termination_rate"} <= job.lines("metrics.jsonl")[-1].keys()
    heard = job.lines("completions.jsonl")
    assert {row["reference"] for row in heard} <= {row["text"] for row in rows("orders", "train", 48, 0)}
    assert any((job.out / "model" / f"{name}_config.json").is_file() for name in ("processor", "preprocessor"))


def of_languages(job: Job, **settings: Any) -> str:
    """The name of a folder with the base, whose generation is configured as a checkpoint of Whisper's has it."""
    shutil.copytree(job.base, job.path / "base")
    path = job.path / "base" / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return "base"


def ids_of(job: Job, *tokens: str) -> dict[str, int]:
    known = json.loads((job.base / "tokenizer.json").read_text())["added_tokens"]
    return {one["content"]: one["id"] for one in known if one["content"] in tokens}


def test_recogniser_of_several_languages_is_told_which_and_keeps_it(place: Any) -> None:
    job = place("orders")
    job.run("--audit_only")
    silent = job.json("data_audit.json")
    task, stamps = (ids_of(job, token)[token] for token in ("<|transcribe|>", "<|notimestamps|>"))
    base = of_languages(
        job, is_multilingual=True, lang_to_id=ids_of(job, "<|en|>"), task_to_id={"transcribe": task},
        no_timestamps_token_id=stamps,
    )  # fmt: skip
    assert "language is missing: base writes 1 languages" in job.refusal(init_from=base)
    job.run("--smoke", init_from=base, language="english")
    audit = job.json("data_audit.json")
    assert audit["audio"]["language"] == "english" and silent["audio"]["language"] is None
    assert audit["answer_token_lengths"]["max"] == silent["answer_token_lengths"]["max"] + 2, "language and task"
    job.run("--smoke", init_from="out/model")
    assert job.json("data_audit.json")["audio"]["language"] == "english"


def test_recogniser_of_english_alone_may_be_told_so(place: Any) -> None:
    job = place("orders")
    base = of_languages(job, is_multilingual=False)
    job.run("--smoke", init_from=base, language="en")
    assert job.json("data_audit.json")["audio"]["language"] is None
    assert "german means nothing to a model of one language" in job.refusal(init_from=base, language="german")


@pytest.mark.parametrize(
    ("task", "recipe"),
    [("orders", {}), ("orders", LORA), ("topic", {}), ("topic", LORA), ("shapes", {}), ("colours", {})],
)
def test_audit_is_that_of_the_training_but_for_the_machine_and_needs_no_weights(
    place: Any, task: str, recipe: dict[str, Any]
) -> None:
    job = place(task)
    bare = shutil.copytree(job.base, job.path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    job.run("--audit_only", init_from=bare.name, **recipe)
    assert [path.name for path in job.out.iterdir()] == ["data_audit.json"]
    found = job.json("data_audit.json")
    job.run("--smoke", **recipe)
    trained = job.json("data_audit.json")
    assert found == {key: value for key, value in trained.items() if key not in OF_THE_MACHINE}
    assert {"rows", {"orders": "audio", "topic": "labels"}.get(task, "images")} <= found.keys()


BROKEN = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 40).decode()
REFUSED: dict[str, tuple[str, dict[str, Any], list[dict[str, Any]] | None, str]] = {
    "one label": ("topic", {}, [{"text": "a", "label": "x"}] * 4, "every row has the label x"),
    "other columns": ("topic", {}, [{"prompt": "a", "completion": "x"}], "a classifier needs text and label"),
    "label only in validation": (
        "topic", {}, [{"text": "a", "label": "food"}, {"text": "b", "label": "sport"}], "and no row of the training"
    ),
    "weight of no label": ("topic", {"class_weights": "fud=2"}, None, "fud=2 names no label; write none, balanced or"),
    "word for a weight": ("topic", {"class_weights": "food=much"}, None, "class_weights: food needs a number"),
    "more tokens than positions": ("topic", {"max_length": 512}, None, "the model's 128 positions; write 128"),
    "no limit and a long text": (
        "topic", {"max_length": None}, [{"text": "table " * 200, "label": one} for one in "ab"], "write max_length: 128"
    ),
    "token for images": ("shapes", {"added_tokens": "<x>"}, None, "added_tokens means nothing to an image classifier"),
    "token for recordings": ("orders", {"added_tokens": "<x>"}, None, "keep their vocabulary here"),
    "another method": ("topic", {"method": "sft"}, None, "this script trains method: classify"),
    "unknown augmentation": ("shapes", {"augmentation": "twist"}, None, "twist is not known; write none, or some"),
    "adapter for images": ("shapes", {"use_peft": True}, None, "image classifiers are trained whole here"),
    "broken image": (
        "shapes", {}, [{"image": BROKEN, "label": "a"}, {"image": BROKEN, "label": "b"}], "image is not the base64"
    ),
    "broken recording": ("orders", {}, [{"audio": BROKEN, "text": "a"}], "audio is not the base64 of a WAV"),
    "texts for a longer model": (
        "orders", {}, [rows("orders", "train", 1, 0)[0] | {"text": "word " * 40}], "no row is left to train on"
    ),
    "language without a token": ("orders", {"language": "german"}, None, "means nothing to a model of one language"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_recipe_or_rows_are_refused_in_one_line(place: Any, case: str) -> None:
    task, recipe, drawn, words = REFUSED[case]
    job = place(task)
    if drawn is not None:
        job.data(drawn)
        if case != "label only in validation":
            job.data([], "validation")
    assert words in job.refusal(**recipe)


def test_roberta_has_fewer_positions_than_its_configuration_says(place: Any) -> None:
    job = place("topic")
    shutil.copytree(job.base, job.path / "roberta")
    config = json.loads((job.base / "config.json").read_text())
    config |= {"model_type": "roberta", "architectures": ["RobertaForMaskedLM"]}
    (job.path / "roberta" / "config.json").write_text(json.dumps(config))
    assert "the model's 127 positions; write 127" in job.refusal(init_from="roberta", max_length=128)


# --- What an update is ----------------------------------------------------------------------------------------------


# BERT's dropout makes its first loss another one, though not twice as large.
@pytest.mark.parametrize(
    ("task", "recipe", "within"),
    [
        ("topic", {}, 0.1),
        ("colours", {"class_weights": "red=1"}, 1e-4),
        ("orders", {}, 1e-4),
        ("orders", {"label_smoothing_factor": 0.1}, 1e-4),
    ],
)
def test_two_accumulated_batches_are_one_of_twice_the_rows(
    place: Any, task: str, recipe: dict[str, Any], within: float
) -> None:
    job, found = place(task), []
    for rows_at_once, batches in ((8, 1), (4, 2)):
        job.run(
            max_steps=1, per_device_train_batch_size=rows_at_once, gradient_accumulation_steps=batches,
            eval_strategy="no", **recipe,
        )  # fmt: skip
        found.append(next(row for row in job.lines("metrics.jsonl") if "loss" in row))
    whole, parts = found
    assert parts["loss"] == pytest.approx(whole["loss"], rel=within)
    assert parts["grad_norm"] == pytest.approx(whole["grad_norm"], rel=5 * within)


def test_resumed_classifier_of_images_sees_the_augmented_images_that_it_would_have_seen(place: Any) -> None:
    job = place("shapes")
    recipe = {"augmentation": "flip,crop,brightness", "max_steps": 6, "save_strategy": "steps", "save_steps": 3}
    job.run(**recipe)
    whole, losses = (job.out / "model" / "model.safetensors").read_bytes(), job.lines("metrics.jsonl")
    shutil.rmtree(job.out / "checkpoint-6")
    job.run(**recipe)
    assert job.json("setup.json")["resumed_from"] == 3
    assert (job.out / "model" / "model.safetensors").read_bytes() == whole
    assert [row.get("loss") for row in job.lines("metrics.jsonl")] == [row.get("loss") for row in losses]


@pytest.mark.parametrize("task", ["shapes", "orders"])
def test_weights_of_half_precision_get_inputs_of_half_precision(place: Any, task: str) -> None:
    job = place(task)
    job.run("--smoke", dtype="bfloat16")
    assert job.json("data_audit.json")["precision"]["dtype"] == "bfloat16"
    assert any("eval_loss" in row for row in job.lines("metrics.jsonl"))


def test_labels_that_are_numbers_keep_their_order(place: Any) -> None:
    job = place("topic")
    job.data([{"text": f"table {label}", "label": label} for label in (10, 9, 2, 0)] * 4)
    job.data([], "validation")
    job.run("--smoke")
    names = json.loads((job.out / "model" / "config.json").read_text())["id2label"]
    assert [names[str(number)] for number in range(4)] == ["0", "2", "9", "10"]


MASKED = """
import sys
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
shape = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **shape)).save_pretrained("masked")
tokenizer.save_pretrained("masked")
"""


@pytest.mark.parametrize("targets", ["query,value", "all-linear"])
def test_adapter_brings_every_new_layer_along(place: Any, warm: Warm, targets: str) -> None:
    """A masked language model has no pooler (DeBERTa-v3 neither), and PEFT by itself trains the classifier alone."""
    job = place("topic")
    (job.path / "build.py").write_text(MASKED)
    built = warm.start(["build.py", str(job.base)], cwd=job.path, log=job.path / "build.txt").wait(120)
    assert built is not None and built.exit_code == 0, (job.path / "build.txt").read_text()
    job.run("--smoke", init_from="masked", use_peft=True, lora_target_modules=targets)
    saved = (job.out / "adapter" / "adapter_model.safetensors").read_bytes()
    assert b"pooler.dense.weight" in saved and b"model.classifier.weight" in saved
    job.run("--smoke", init_from="out/model")
    assert job.json("data_audit.json")["head"] == "kept"
