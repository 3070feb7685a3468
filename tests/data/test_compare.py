"""`bot.evaluation.compare`: evaluation files in, a comparison or one clear sentence out."""

from __future__ import annotations

import json
import random

import pytest

from bot.domain.comparison import compare_seeds
from bot.domain.evaluation import Evaluation, Verdict
from bot.errors import UserError
from bot.evaluation.compare import compare_files, load_evaluation


def document(scores=(1.0, 0.0, 1.0), **changed):
    samples = [{"id": f"h{place}", "score": score, "finish": "stop"} for place, score in enumerate(scores)]
    value = sum(scores) / len(scores)
    return {
        "benchmark": "practice/reverse", "harness_digest": "d1", "model": "m", "metric": "exact_match", "value": value,
        "standard_error": 0.1, "n": len(scores), "split": "dev", "strict": None, "lenient": None, "samples": samples,
    } | changed  # fmt: skip


def write(path, data):
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_compare_files_tells_b_from_a(tmp_path):
    a = write(tmp_path / "a.json", document([0.0] * 10 + [1.0] * 30))
    b = write(tmp_path / "b.json", document([1.0] * 40))
    found = compare_files(a, b)
    assert (found.verdict, found.difference, found.discordant) == (Verdict.BETTER, 0.25, (0, 10))
    assert compare_files(b, a).verdict is Verdict.WORSE
    assert set(found.as_dict()) == {
        "difference", "ci_low", "ci_high", "p_value", "n", "discordant", "verdict", "minimum_detectable", "n_needed",
    }  # fmt: skip


def test_loaded_evaluation_keeps_every_sample(tmp_path):
    loaded = load_evaluation(write(tmp_path / "a.json", document()))
    assert loaded.scores() == {"h0": 1.0, "h1": 0.0, "h2": 1.0}
    assert loaded.n == 3


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ("{", "is not JSON"),
        ("[1]", "holds a JSON list"),
        ({"benchmark": "x"}, "harness_digest, model, metric, split, value, standard_error, n are missing"),
        (document(value=41.5), "fractions from 0 to 1"),
        (document(value="0.4"), "`value` is not a number"),
        (document(value=float("nan")), "`value` is not a number"),
        (document(n=0), "`n` is not a count"),
        (document(n=2.5), "`n` is not a count"),
        (document(standard_error=-1), "is negative"),
        (document(harness_digest=""), "`harness_digest` is empty"),
        (document(split=3), "`split` is not text"),
        (document(samples="x"), "`samples` is not a list"),
        (document(samples=[{"id": "x"}]), "no numeric `score`"),
        (document(samples=[{"score": 1.0}]), "samples of another form"),
        (document(samples=["x"]), "no numeric `score`"),
        (document(value=0.9), "has been edited: its samples make 0.666667, and it says 0.9"),
        (document(n=30), "has been edited: it says n = 30 and holds 3 samples"),
    ],
)
def test_files_that_are_no_evaluation_are_refused_in_words(tmp_path, data, word):
    with pytest.raises(UserError, match=word):
        load_evaluation(write(tmp_path / "a.json", data))


def test_absent_files_and_folders_are_refused_in_words(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load_evaluation(tmp_path / "absent.json")
    with pytest.raises(UserError, match="is a folder"):
        load_evaluation(tmp_path)


def test_folders_of_seeds_are_pooled_with_the_variance_between_them(tmp_path):
    rng = random.Random(0)

    def folder(name, shares):
        (tmp_path / name).mkdir()
        for seed, share in enumerate(shares):
            scores = [float(rng.random() < share) for _ in range(400)]
            write(tmp_path / name / f"seed{seed}.json", document(scores))
        return tmp_path / name

    a, close, far = folder("a", [0.5] * 4), folder("b", [0.30, 0.75, 0.45, 0.70]), folder("c", [0.7] * 4)
    unsure, sure = compare_files(a, close), compare_files(a, far)
    assert unsure.verdict is Verdict.CANNOT_TELL and unsure.ci_high - unsure.ci_low > 0.3
    assert sure.verdict is Verdict.BETTER and sure.ci_high - sure.ci_low < 0.15
    assert sure.as_dict()["seeds"] == [4, 4]
    assert sure.difference == pytest.approx(0.2, abs=0.05)
    one = tmp_path / "a" / "seed0.json"
    assert compare_files(one, far).seeds == (1, 4)
    assert compare_files(a, a).verdict is Verdict.CANNOT_TELL
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="is a folder without"):
        compare_files(empty, one)


@pytest.mark.slow
def test_pooling_seeds_keeps_its_level():
    """Recipes that are equally good, whose seeds differ: different in one comparison of twenty, not in most."""
    rng = random.Random(1)

    def side():
        shares = [min(max(rng.gauss(0.5, 0.06), 0), 1) for _ in range(3)]
        return [Evaluation.from_dict(document([float(rng.random() < share) for _ in range(150)])) for share in shares]

    told = sum(compare_seeds(side(), side()).verdict is not Verdict.CANNOT_TELL for _ in range(60))
    assert told <= 8


def test_different_harnesses_are_not_compared(tmp_path):
    a, b = write(tmp_path / "a.json", document()), write(tmp_path / "b.json", document(harness_digest="d2"))
    with pytest.raises(UserError, match="d1 and d2"):
        compare_files(a, b)
