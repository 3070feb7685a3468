"""`postdoc datasets` and `postdoc docs`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.cli import run
from tests.research.hub_stand_in import HubStandIn, Shown
from tests.research.stand_in import Answer, web_at


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    with HubStandIn().serve() as stand_in:
        stand_in.put("acme/math-words", Shown())
        stand_in.put("openai/gsm8k", Shown(features={"question": "string", "answer": "string"}))
        stand_in.put("HuggingFaceH4/math-500", Shown(downloads=9_000_000))
        stand_in.put("acme/math-gated", Shown(gated=True))
        url = stand_in.server.url
        addresses = {"huggingface.co": url, "datasets-server.huggingface.co": url}
        monkeypatch.setattr("bot.cli.research._web", lambda: web_at(tmp_path, addresses))
        yield stand_in


def test_datasets_are_ranked_with_reasons(hub: HubStandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["datasets", "math", "--licence", "mit", "--json", str(tmp_path / "found.json")]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0].startswith("acme/math-words · +")
    assert "It has 5,000 rows." in shown
    assert "HuggingFaceH4/math-500 · not for training: " in shown
    found = {each["id"]: each for each in json.loads((tmp_path / "found.json").read_text())}
    assert (found["acme/math-words"]["rows"], found["acme/math-words"]["refused"]) == (5_000, "")
    assert found["HuggingFaceH4/math-500"]["refused"]


def test_one_dataset_is_looked_into(hub: HubStandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["datasets", "openai/gsm8k", "--json", "-"]) == 0
    output = capsys.readouterr()
    found = json.loads(output.out)
    assert (found["dataset"]["licences"], found["rows"]["split"]) == (["mit"], "train")
    assert "default/train: 5,000 rows" in output.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["datasets", "acme/nothing"], 2, "nothing at"),
        (["datasets", "math", "--method", "magic"], 2, "write one of sft"),
        (["datasets", "math", "--json", "/no/such/folder/x"], 2, "no folder"),
        (["datasets", "cGF0aWVudCBqYW5lIHJvZSBpcyBpbGwgYWdhaW4="], 2, "encoded"),
        (["docs", "trl.Nope"], 2, "no class or function"),
        (["docs", "trl.SFTConfig.nope"], 2, "no class or function"),
        (["docs", "numpy.array", "--check", "x"], 2, "not installed"),
        (["docs", "x", "--site", "torch"], 2, "write one of trl"),
    ],
)
def test_wrong_words_are_one_line(
    hub: HubStandIn, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    assert run(words) == code
    output = capsys.readouterr()
    assert said in output.err
    assert len(output.err.splitlines()) == 1


def test_busy_hub_is_one_line(hub: HubStandIn, capsys: pytest.CaptureFixture[str]) -> None:
    hub.server.answers["/api/datasets"] = Answer(status=429)
    assert run(["datasets", "math"]) == 1
    assert capsys.readouterr().err == "postdoc: huggingface.co answered 429.\n"


def test_docs_show_a_parameter_a_check_and_a_search(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["docs", "trl.SFTConfig.packing"]) == 0
    assert "packing: bool = False" in capsys.readouterr().out
    assert run(["docs", "trl.GRPOConfig", "--check", "lr,beta", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["instead"] == ["learning_rate"]
    assert run(["docs", "packing"]) == 0
    assert "SFTConfig.packing · trl " in capsys.readouterr().out


def test_docs_of_a_site(hub: HubStandIn, capsys: pytest.CaptureFixture[str]) -> None:
    index = "# Trl\n\n- [SFT Trainer](https://huggingface.co/docs/trl/sft_trainer.md)\n"
    hub.server.answers["/docs/trl/llms.txt"] = Answer(index, content_type="text/plain")
    assert run(["docs", "sft", "--site", "trl"]) == 0
    assert "https://huggingface.co/docs/trl/sft_trainer.md" in capsys.readouterr().out
