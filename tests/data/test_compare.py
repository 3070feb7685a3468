"""`bot.evaluation.compare`: evaluation files in, a comparison or one clear sentence out."""

from __future__ import annotations

import json

import pytest

from bot.domain.evaluation import Verdict
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


def test_different_harnesses_are_not_compared(tmp_path):
    a, b = write(tmp_path / "a.json", document()), write(tmp_path / "b.json", document(harness_digest="d2"))
    with pytest.raises(UserError, match="d1 and d2"):
        compare_files(a, b)
