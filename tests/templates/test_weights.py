"""Weights that no process holds whole (DeepSpeed) and weights that were rounded (bitsandbytes): neither is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.practice.warm import Warm
from tests.templates.conftest import run_warm
from tests.templates.skeleton import definitions

pytestmark = pytest.mark.timeout(600)
CHECKS = Path(__file__).with_name("weights_checks.py")
NAMES = [one.name for one in definitions(CHECKS.read_text()) if "(base: str)" in one.text.partition("\n")[0]]


@pytest.mark.parametrize("name", NAMES)
def test_weights(warm: Warm, untrained_base: Path, tmp_path: Path, name: str) -> None:
    done = run_warm(warm, CHECKS, name, untrained_base, cwd=tmp_path)
    assert done.returncode == 0, done.output


def test_there_is_something_to_check() -> None:
    assert len(NAMES) == 3
