"""Building the tiny base: its cache key, its card, and two builders at once."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bot.practice.tiny_base import CHAT_TEMPLATE, Configuration, cached_path, chat_prompt, is_built
from bot.practice.warm import Warm
from tests.templates.conftest import BUILD, ROOT


def test_cache_key_follows_everything_that_decides_the_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ours = Configuration()
    assert cached_path() == tmp_path / "postdoc" / "models" / "postdoc" / "tiny-qwen3" / ours.digest
    others = [replace(ours, seed=1), replace(ours, steps=999), replace(ours, learning_rate=1e-3)]
    assert len({ours.digest, *(other.digest for other in others)}) == 4
    assert not is_built(cached_path())


def test_cache_key_is_computed_without_torch() -> None:
    code = "import sys; from bot.practice.tiny_base import cached_path; cached_path(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_built_model_has_a_licence_a_chat_template_and_readable_files(untrained_base: Path) -> None:
    card = (untrained_base / "README.md").read_text()
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "apache-2.0"
    assert "329,904 parameters" in card
    assert (untrained_base / "chat_template.jinja").read_text() == CHAT_TEMPLATE
    assert json.loads((untrained_base / "config.json").read_text())["model_type"] == "qwen3"
    assert all(file.stat().st_mode & 0o044 for file in untrained_base.iterdir())
    assert chat_prompt("hi") == "<|user|>hi<|end|><|assistant|>"


@pytest.mark.timeout(300)
def test_second_builder_waits_and_builds_nothing(tmp_path: Path, warm: Warm) -> None:
    path = tmp_path / "models" / "tiny"
    leftover = tmp_path / "models" / ".tiny.building-dead"
    leftover.mkdir(parents=True)
    (tmp_path / "build.py").write_text(BUILD)
    logs = [tmp_path / "one.txt", tmp_path / "two.txt"]
    builders = [warm.start([str(tmp_path / "build.py"), str(path)], cwd=tmp_path, log=log) for log in logs]
    ended = [builder.wait(240) for builder in builders]
    assert [one and one.exit_code for one in ended] == [0, 0]
    assert sorted(log.read_text().split()[:3] for log in logs) == [[], ["1", "2", "3"]]
    assert is_built(path) and not leftover.exists()
    assert sorted(entry.name for entry in path.parent.iterdir()) == [".tiny.lock", "tiny"]
