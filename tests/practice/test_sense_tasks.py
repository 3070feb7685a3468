"""Practice rows beyond chat: what they hold, and that no training row is ever evaluated."""

from __future__ import annotations

import base64
import io
import wave

import pytest

from bot.domain.methods import METHODS
from bot.domain.metrics import METRICS
from bot.evaluation.tasks import split_of
from bot.practice.sense_tasks import HERTZ, SENSE_TASKS, SIDE, content_of, png, rows
from bot.practice.tiny_models import MAKERS, cached_path, main, vocabulary


@pytest.mark.parametrize("name", SENSE_TASKS)
def test_rows_have_their_methods_columns_and_stay_in_their_split(name: str) -> None:
    task = SENSE_TASKS[name]
    train, dev = rows(name, "train", 12, seed=0), rows(name, "dev", 4, seed=1)
    assert all(tuple(sorted(row)) == tuple(sorted(METHODS[task.method].columns)) for row in train + dev)
    assert {split_of(name, content_of(row)) for row in train} == {"train"}
    assert {split_of(name, content_of(row)) for row in dev} == {"dev"}
    assert rows(name, "train", 12, seed=0) == train
    assert rows(name, "train", 12, seed=1) != train
    assert task.metric in METRICS and METRICS[task.metric].has(task.target) and task.base in MAKERS
    assert not task.labels or {row["label"] for row in train} <= set(task.labels)


@pytest.mark.parametrize("name", [name for name, task in SENSE_TASKS.items() if task.labels])
def test_labels_are_balanced_enough_that_one_answer_wins_nothing(name: str) -> None:
    drawn = [row["label"] for row in rows(name, "train", 200, seed=0)]
    assert set(drawn) == set(SENSE_TASKS[name].labels)
    assert max(map(drawn.count, set(drawn))) < 0.6 * len(drawn)


def test_images_are_what_pillow_reads() -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = [(x * 10, y * 10, 7) for y in range(SIDE) for x in range(SIDE)]
    read = image.open(io.BytesIO(base64.b64decode(png(pixels))))
    assert read.size == (SIDE, SIDE) and read.mode == "RGB"
    assert read.getpixel((3, 5)) == (30, 50, 7)


@pytest.mark.parametrize("name", ["digits", "orders", "letters", "hiss"])
def test_speech_fits_the_second_that_the_tiny_whisper_hears(name: str) -> None:
    for row in rows(name, "train", 25, seed=3):
        with wave.open(io.BytesIO(base64.b64decode(row["audio"]))) as file:
            assert file.getframerate() == HERTZ and file.getnchannels() == 1
            assert 0.1 < file.getnframes() / HERTZ < 1.0


def test_exhausted_task_says_so() -> None:
    with pytest.raises(ValueError, match="ask for fewer"):
        rows("series", "dev", 5000, seed=0)


def test_vocabulary_knows_every_word_of_the_texts() -> None:
    known = set(vocabulary())
    for name, task in SENSE_TASKS.items():
        if task.method == "classify":
            assert {word for row in rows(name, "train", 100, seed=0) for word in row["text"].split()} <= known


def test_cache_folder_follows_name_and_seed() -> None:
    assert len({cached_path(name, seed) for name in MAKERS for seed in (0, 1)}) == 2 * len(MAKERS)


def test_unknown_tiny_model_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["postdoc/tiny-llama"]) == 2
    assert capsys.readouterr().err.startswith("there is no tiny model postdoc/tiny-llama; write one of postdoc/tiny-b")
