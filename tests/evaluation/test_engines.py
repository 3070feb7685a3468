"""The evaluator's engines: their arithmetic against what the field uses, and each on a tiny model in a real process."""

from __future__ import annotations

import base64
import io
import json
import math
import random
import shutil
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot.domain.metrics import METRICS
from bot.errors import UserError
from bot.evaluation.benchmark_checks import BACKENDS, ENGINES, TAKES
from bot.evaluation.benchmark_file import Benchmark, read_benchmark_file
from bot.evaluation.benchmarks import BUNDLE, fresh_items, items, load_benchmark, write_job_files
from bot.practice.sense_tasks import SENSE_TASKS, rows
from bot.practice.tiny_models import build
from bot.practice.warm import Warm
from tests.evaluation.test_bundle import loaded

# Loaded once: each job would import them again.
IMPORTS = (
    "torch",
    "yaml",
    "numpy",
    "PIL.Image",
    "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert",
    "transformers.models.whisper.modeling_whisper",
    "transformers.models.whisper.processing_whisper",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.vit.modeling_vit",
    "transformers.models.resnet.modeling_resnet",
    "transformers.models.vit.image_processing_pil_vit",
)
ENGINE_OF = {"classify": "classify", "vision": "vision", "speech": "speech", "pretrain": "likelihood"}


# --- Arithmetic -----------------------------------------------------------------------------------------------------


def test_bundle_and_bot_know_the_same_engines_and_count_alike() -> None:
    assert loaded(BUNDLE).ENGINES == ENGINES
    assert loaded(BUNDLE, "extraction").TAKES == TAKES and loaded(BUNDLE, "language_model").BACKENDS == BACKENDS
    counting = loaded(BUNDLE, "scores").COUNTING
    assert counting == {name: str(metric.counting) for name, metric in METRICS.items()}
    assert {metric for metrics in ENGINES.values() for metric in metrics} == set(METRICS)


def labelled(rng: random.Random, n: int, labels: str = "abc") -> list[dict[str, Any]]:
    """Samples of a classifier that is right more often than not, with the last label as the positive one of two."""
    found = []
    for _ in range(n):
        wanted = rng.choice(labels + labels[0])
        weights = {label: rng.random() + (label == wanted) * 0.6 for label in labels}
        shares = {label: weight / sum(weights.values()) for label, weight in weights.items()}
        positive = labels[-1] if len(labels) == 2 else ""
        given = max(shares, key=lambda label: shares[label])
        found.append({"response": given, "reference": wanted, "_shares": shares, "_positive": positive})
    return found


@pytest.mark.slow  # importing scikit-learn takes seconds
def test_metrics_of_labels_are_scikit_learns_and_the_mean_of_their_items() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores, rng = loaded(BUNDLE, "scores"), random.Random(0)
    for labels in ("abc", "ab", "abcd"):
        for _ in range(10):
            samples = labelled(rng, 60, labels)
            wanted, given = [s["reference"] for s in samples], [s["response"] for s in samples]
            shares = [[s["_shares"][label] for label in labels] for s in samples]
            of_last = [row[-1] for row in shares]
            theirs = {"macro_f1": metrics.f1_score(wanted, given, average="macro", zero_division=0)}
            if len(labels) == 2:
                theirs["f1"] = metrics.f1_score(wanted, given, pos_label=labels[-1], zero_division=0)
                theirs["roc_auc"] = metrics.roc_auc_score([w == labels[-1] for w in wanted], of_last)
            else:
                theirs["roc_auc"] = metrics.roc_auc_score(wanted, shares, multi_class="ovr", labels=list(labels))
            for metric, value in theirs.items():
                assert scores.value_and_error(metric, samples)[0] == pytest.approx(value), metric
                assert sum(sample["score"] for sample in samples) / 60 == pytest.approx(value), metric


@pytest.mark.parametrize(
    ("metric", "labels"), [("macro_f1", "abc"), ("f1", "ab"), ("roc_auc", "ab"), ("roc_auc", "abc")]
)
def test_pseudo_values_standard_error_is_what_resampling_finds(metric: str, labels: str) -> None:
    scores, rng = loaded(BUNDLE, "scores"), random.Random(1)
    samples = labelled(rng, 200, labels)

    def value(chosen: list[dict[str, Any]]) -> tuple[float, float]:
        found: tuple[float, float] = scores.value_and_error(metric, [dict(sample) for sample in chosen])
        return found

    drawn = [value(rng.choices(samples, k=len(samples)))[0] for _ in range(300)]
    mean = sum(drawn) / len(drawn)
    spread = math.sqrt(sum((one - mean) ** 2 for one in drawn) / len(drawn))
    assert value(samples)[1] == pytest.approx(spread, rel=0.15)


def test_area_under_the_curve_counts_ties_half_and_leaves_out_a_label_that_nobody_has() -> None:
    values = loaded(BUNDLE, "pseudo_values")
    rows = [("b", 0.5), ("a", 0.5), ("b", 0.9), ("a", 0.1)]
    samples = [{"reference": r, "response": r, "_shares": {"a": 1 - p, "b": p}, "_positive": "b"} for r, p in rows]
    assert values.roc_auc(samples)[0] == pytest.approx(3.5 / 4)
    only = [{**sample, "reference": "b"} for sample in samples]
    assert values.roc_auc(only)[0] == 0.5, "nothing to tell apart"


def test_weighted_values_are_ratios_of_sums() -> None:
    scores = loaded(BUNDLE, "scores")
    samples = [{"score": 0.5, "weight": 2.0}, {"score": 0.0, "weight": 6.0}]
    assert scores.value_and_error("wer", samples)[0] == pytest.approx(1 / 8)
    nats = [{"score": 1.0, "weight": 10.0}, {"score": 2.0, "weight": 30.0}]
    value, error = scores.value_and_error("perplexity", nats)
    assert value == pytest.approx(math.exp(1.75))
    assert error > 0


@pytest.mark.parametrize(
    ("heard", "wanted", "errors"),
    [("a b c", "a b c", 0), ("", "a b", 2), ("a x c", "a b c", 1), ("a a b c", "a b c", 1), ("b c", "a b c", 1)],
)
def test_word_errors_are_the_fewest_edits(heard: str, wanted: str, errors: int) -> None:
    assert loaded(BUNDLE, "speech").edits(heard.split(), wanted.split()) == errors


def test_normalised_texts_keep_words_of_every_script() -> None:
    basic = loaded(BUNDLE, "speech").basic
    assert basic("  Hello, World!  It's 5. ") == "hello world it's 5"
    assert basic("Grüße — ÀÉ; 日本") == "grüße àé 日本"


def test_windows_predict_every_token_once_with_all_the_context_that_fits() -> None:
    windows = loaded(BUNDLE, "likelihood").windows
    whole = [0, *range(1, 11)]
    for longest, stride in ((4, 4), (4, 1), (4, 3), (20, 20), (1, 1)):
        found = windows(list(range(1, 11)), 0, longest, stride)
        predicted = [token for tokens, n in found for token in tokens[-n:]]
        assert predicted == whole[1:], (longest, stride)
        assert all(len(tokens) <= longest + 1 for tokens, _ in found)


def test_recording_is_brought_to_the_models_rate_whatever_its_width() -> None:
    np = pytest.importorskip("numpy")
    speech = loaded(BUNDLE, "speech")
    tone = np.sin(2 * np.pi * 300 * np.arange(8000) / 8000)
    for width, raw in (
        (1, (128 + 100 * tone).astype(np.uint8).tobytes()),
        (2, (30000 * tone).astype("<i2").tobytes()),
        (3, b"".join(int(x).to_bytes(3, "little", signed=True) for x in 8_000_000 * tone)),
        (4, (2_000_000_000 * tone).astype("<i4").tobytes()),
    ):
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(width)
            file.setframerate(8000)
            file.writeframes(raw)
        heard = speech.sound({"id": "x", "audio": base64.b64encode(buffer.getvalue()).decode()}, 16000)
        assert len(heard) == 16000
        spectrum = np.abs(np.fft.rfft(heard))
        assert int(spectrum[1:].argmax()) + 1 == 300
        assert 0.7 < float(heard.max()) <= 1.0


# --- Benchmarks of other engines --------------------------------------------------------------------------------------


def benchmark(folder: Path, name: str, n: int = 20, **more: Any) -> Benchmark:
    task = SENSE_TASKS[name]
    folder.mkdir(parents=True, exist_ok=True)
    drawn = rows(name, "dev", 4 * n, seed=0)
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in drawn))
    content = {
        "engine": ENGINE_OF[task.method],
        "metric": task.metric,
        "items": {"file": "items.jsonl"},
        "splits": {"dev": {"n": n}, "sealed": {"n": n}},
    }
    (folder / "own.yaml").write_text(yaml.safe_dump(content | more))
    return read_benchmark_file("own", folder / "own.yaml")


@pytest.mark.parametrize("name", ["topic", "shapes", "digits", "grammar"])
def test_items_of_every_engine_are_divided_by_their_content(tmp_path: Path, name: str) -> None:
    own = benchmark(tmp_path, name, fresh={"n": 5})
    dev, sealed, fresh = items(own, "dev"), items(own, "sealed"), fresh_items(own)
    contents = [item.content for item in [*dev, *sealed, *fresh]]
    assert len(contents) == len(set(contents))
    assert len(dev) == len(sealed) == 20 and len(fresh) == 5


def test_only_the_dev_job_gets_fresh_items_and_old_tasks(tmp_path: Path) -> None:
    (tmp_path / "old.jsonl").write_text('{"prompt": "2+2", "reference": 4}\n')
    content = dict(load_benchmark("practice/reverse").configuration)
    content |= {"fresh": {"n": 3}, "old_tasks": ["upper", "old.jsonl"]}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    own = read_benchmark_file("own", tmp_path / "own.yaml")
    for split, sets in (
        ("dev", {None: 200, "holdout": 100, "fresh": 3, "old:upper": 50, "old:old": 1}),
        ("sealed", {None: 200}),
    ):
        job = write_job_files(own, split, tmp_path / split)
        written = [json.loads(line) for line in Path(job["items.jsonl"]).read_text().splitlines()]
        found = [row.get("set") for row in written]
        assert {one: found.count(one) for one in set(found)} == sets
    fresh = {item.prompt for item in fresh_items(own)}
    assert not fresh & {item.prompt for split in ("dev", "sealed") for item in items(own, split)}


def test_image_may_be_a_file_beside_the_benchmark_and_nowhere_else(tmp_path: Path) -> None:
    own = benchmark(tmp_path / "b", "shapes")
    content = items(own, "dev")[0].media["image"]
    (tmp_path / "b" / "one.png").write_bytes(base64.b64decode(content))
    (tmp_path / "secret.png").write_bytes(b"secret")
    row = {"image": "one.png", "label": "circle"}
    (tmp_path / "b" / "items.jsonl").write_text("".join(json.dumps(row | {"x": n}) + "\n" for n in range(3)))
    found = [item for split in ("dev", "sealed") for item in _items_or_none(own, split)]
    assert [item.media["image"] for item in found] == [content]
    for wrong in ("../secret.png", "none.png"):
        (tmp_path / "b" / "items.jsonl").write_text(json.dumps(row | {"image": wrong}) + "\n")
        with pytest.raises(UserError, match="no such file lies beside it"):
            items(own, "dev")


def _items_or_none(own: Benchmark, split: str) -> list[Any]:
    try:
        return items(own, split)
    except UserError:
        return []


# --- Real models ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    with Warm(IMPORTS) as started:
        yield started


def evaluated(warm: Warm, own: Benchmark, model: Path, folder: Path) -> tuple[int, str, dict[str, Any]]:
    files = write_job_files(own, "dev", folder / "job")
    job = warm.start(
        [str(BUNDLE / "evaluate.py"), "--model", str(model), "--benchmark", files["benchmark.yaml"],
         "--items", files["items.jsonl"], "--split", "dev", "--output", "out.json"],
        cwd=folder, log=folder / "log.txt",
    )  # fmt: skip
    ended = job.wait(90)
    assert ended is not None
    written = folder / "out.json"
    found = json.loads(written.read_text()) if written.exists() else {}
    return ended.exit_code, (folder / "log.txt").read_text(), found


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> dict[str, Path]:
    """Every tiny model, built by a job."""
    folder = tmp_path_factory.mktemp("models")
    script = folder / "build.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom bot.practice.tiny_models import build\n"
        "for name in sys.argv[2:]: build(name, 0, Path(sys.argv[1]) / name)\n"
    )
    names = sorted({task.base for task in SENSE_TASKS.values()})
    root = str(BUNDLE.parents[2])
    job = warm.start([str(script), str(folder), *names], cwd=folder, log=folder / "log.txt",
                     environment={"PYTHONPATH": root})  # fmt: skip
    ended = job.wait(120)
    assert ended is not None and ended.exit_code == 0, (folder / "log.txt").read_text()
    return {name: folder / name for name in names}


def test_recogniser_of_one_language_is_not_told_the_benchmarks(
    warm: Warm, models: dict[str, Path], tmp_path: Path
) -> None:
    """Whisper refuses a language where its checkpoint knows English alone, and the benchmark LibriSpeech names it."""
    model = tmp_path / "english"
    shutil.copytree(models["postdoc/tiny-whisper"], model)
    settings = json.loads((model / "generation_config.json").read_text())
    (model / "generation_config.json").write_text(json.dumps(settings | {"is_multilingual": False}))
    own = benchmark(tmp_path, "orders", speech={"normalise": "english", "language": "en"})
    code, log, found = evaluated(warm, own, model, tmp_path)
    assert code == 0, log
    assert found["n"] == 20


@pytest.mark.parametrize("name", ["topic", "colours", "orders", "grammar"])
def test_engine_evaluates_an_untouched_base_at_chance(
    warm: Warm, models: dict[str, Path], tmp_path: Path, name: str
) -> None:
    task = SENSE_TASKS[name]
    own = benchmark(tmp_path, name, fresh={"n": 4})
    code, log, found = evaluated(warm, own, models[task.base], tmp_path)
    assert code == 0, log
    assert found["metric"] == task.metric and found["n"] == 20 and found["fresh"]["n"] == 4
    metric = METRICS[task.metric]
    assert metric.has(found["value"])
    assert not metric.reached(found["value"], task.target)
    assert len(found["samples"]) == 20 and not any(key.startswith("_") for key in found["samples"][0])
    weights = [sample.get("weight", 1.0) for sample in found["samples"]]
    mean = sum(s["score"] * w for s, w in zip(found["samples"], weights, strict=True)) / sum(weights)
    assert metric.of_mean(mean) == pytest.approx(found["value"])
    if name == "grammar":
        assert found["value"] == pytest.approx(257, rel=0.2), "257 tokens, none of them likelier than another"


def test_unusable_recording_is_refused_in_one_line(warm: Warm, models: dict[str, Path], tmp_path: Path) -> None:
    own = benchmark(tmp_path, "orders")
    row = {"audio": base64.b64encode(b"ID3 not a WAV file at all" * 10).decode(), "text": "open door"}
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row | {"text": f"{n}"}) + "\n" for n in range(3)))
    split = "dev" if _items_or_none(own, "dev") else "sealed"
    files = write_job_files(own, split, tmp_path / "job")
    job = warm.start(
        [str(BUNDLE / "evaluate.py"), "--model", str(models["postdoc/tiny-whisper"]), "--benchmark",
         files["benchmark.yaml"], "--items", files["items.jsonl"], "--split", split, "--output", "out.json"],
        cwd=tmp_path, log=tmp_path / "log.txt",
    )  # fmt: skip
    ended = job.wait(60)
    assert ended is not None and ended.exit_code == 2
    assert (tmp_path / "log.txt").read_text().splitlines()[-1].endswith("RIFF id)")


@pytest.mark.slow
def test_likelihood_is_what_lm_evaluation_harness_computes(models: dict[str, Path], tmp_path: Path) -> None:
    script = tmp_path / "both.py"
    script.write_text(f"""
import json, sys
sys.path.insert(0, {str(BUNDLE)!r})
import argparse, likelihood
from lm_eval.models.huggingface import HFLM
from lm_eval.api.instance import Instance
texts = ["the cat sees a dog . " * 30, "a", "naïve — text"]
lm = HFLM(pretrained={str(models["postdoc/tiny-gpt2"])!r}, device="cpu", dtype="float32", batch_size=1)
theirs = lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {{}}, (text,), 0) for text in texts])
ours = likelihood.run(
    argparse.Namespace(model={str(models["postdoc/tiny-gpt2"])!r}, batch_size=4), {{"metric": "perplexity"}},
    [{{"id": str(n), "prompt": text}} for n, text in enumerate(texts)],
)
print(json.dumps([theirs, [-sample["_nats"] for sample in ours]]))
""")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    theirs, ours = json.loads(done.stdout.splitlines()[-1])
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_tiny_models_folder_is_named_without_building() -> None:
    with pytest.raises(KeyError):
        build("postdoc/none")
