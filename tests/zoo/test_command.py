"""`postdoc zoo`: scoring what is there, and one line for what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bot.cli import run
from bot.zoo.replayed import replayed_traces
from bot.zoo.traces import pack


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    pack(list(replayed_traces())[:4], tmp_path / "traces.tar.xz")
    return tmp_path / "traces.tar.xz"


def test_scores_an_archive_and_writes_the_documented_json(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = archive.with_name("out.json")
    assert run(["zoo", "--traces", str(archive), "--json", str(target)]) == 0
    found = json.loads(target.read_text())
    keys = {
        "recall",
        "precision",
        "top1",
        "line",
        "false_aborts",
        "healthy",
        "median_detection_fraction",
        "steps_saved",
    }
    assert keys <= found["summary"].keys()
    assert found["replayed"]["faulty"] == 4
    assert {"sagemaker", "axolotl", "majority", "random"} == found["baselines"].keys()
    assert all(keys <= part.keys() for part in found["baselines"].values())
    assert "replayed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--traces", "nowhere"], "nothing there"),
        (["--traces", "a", "--make", "b"], "one of them"),
        (["--traces", "a", "--only", "1"], "--make"),
        (["--repairs"], "--make"),
        (["--make", "{tmp}/zoo", "--only", "99"], "no such fault"),
    ],
)
def test_wrong_words_are_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["zoo", *(word.replace("{tmp}", str(tmp_path)) for word in words)]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1
