"""Task files as a person would write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

TASK = '''"""Write a word backwards."""

TARGET = 0.9
ROWS, DEV, SEALED = 50, 10, 20


def draw(rng):
    word = "".join(rng.choice("abcdefgh") for _ in range(5))
    return {"prompt": f"reverse {word}", "completion": word[::-1]}
'''


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a task file: the plain one, with one part replaced, and with lines added."""

    def written(old: str = "", new: str = "", *, more: str = "", name: str = "words.py") -> Path:
        assert old in TASK
        path = tmp_path / name
        path.write_text((TASK.replace(old, new) if old else TASK) + more)
        return path

    return written
