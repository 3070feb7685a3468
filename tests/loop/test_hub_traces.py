"""Traces into a private data set, through the real client against the stand-in of the Hub."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic_core import PydanticCustomError

from bot.config import Settings
from bot.errors import TransientError, UserError
from bot.loop.hub_traces import keep_traces
from tests.fakes.hub import FakeHub, Fault
from tests.fakes.hub_models import Model

REPO, PLACE, TOKEN = "acme/postdoc-traces", "acme--models--7", "hf_writer"
KEY = f"datasets/{REPO}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub().serve() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        yield hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "thought-1.jsonl").write_text('{"type": "user"}\n')
    return tmp_path


def keep(folder: Path, token: str = TOKEN) -> list[str]:
    return asyncio.run(keep_traces(folder, REPO, place=PLACE, token=token))


def test_traces_go_into_a_data_set_that_is_made_private_once_each(hub: FakeHub, folder: Path) -> None:
    assert keep(folder) == ["thought-1.jsonl"]
    kept = hub.models.models[KEY]
    assert kept.private and kept.files[f"{PLACE}/thought-1.jsonl"] == b'{"type": "user"}\n'
    asked = len(hub.asked)
    assert keep(folder) == [] and len(hub.asked) == asked, "nothing is asked where nothing is new"
    (folder / "thought-2.jsonl").write_text("{}\n")
    assert keep(folder) == ["thought-2.jsonl"] and len(kept.commits) == 2


def test_a_data_set_that_everybody_sees_gets_nothing(hub: FakeHub, folder: Path) -> None:
    hub.models.models[KEY] = Model(private=False)
    with pytest.raises(UserError, match="Everybody can see the data set"):
        keep(folder)
    assert hub.models.models[KEY].commits == []


def test_what_failed_goes_with_the_next(hub: FakeHub, folder: Path) -> None:
    hub.faults.append(Fault("/commit/", status=503, times=10))
    with pytest.raises(TransientError):
        keep(folder)
    hub.faults.clear()
    (folder / "thought-2.jsonl").write_text("{}\n")
    assert keep(folder) == ["thought-1.jsonl", "thought-2.jsonl"]


def test_a_token_that_may_not_write_is_one_sentence(hub: FakeHub, folder: Path) -> None:
    hub.models.writers["hf_other"] = {"someone"}
    with pytest.raises(UserError, match="does not let this server write"):
        keep(folder, "hf_other")


@pytest.mark.parametrize("named", ["acme", "https://huggingface.co/datasets/acme/x", "acme/x/y", "../x", "acme/"])
def test_a_setting_that_names_no_data_set_says_what_to_write(named: str) -> None:
    with pytest.raises(PydanticCustomError, match="write owner and name"):
        Settings._is_a_data_set(named)
    assert Settings._is_a_data_set("acme/postdoc-traces") == REPO and Settings._is_a_data_set("") == ""
