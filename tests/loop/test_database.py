"""A database that cannot be opened is one clear line."""

from __future__ import annotations

import pytest

from bot.errors import SettingsError
from bot.loop.database import open_database


@pytest.mark.parametrize("url", ["sqlite:////proc/nowhere/journal.sqlite", "no-such-dialect://x", "not a url"])
def test_database_that_cannot_be_opened_is_one_clear_line(url: str) -> None:
    with pytest.raises(SettingsError) as error:
        open_database(url)
    assert "POSTDOC_DATABASE_URL" in str(error.value)
    assert "\n" not in str(error.value)
