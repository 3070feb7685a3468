"""The one SQL database: SQLite by default, any other that SQLAlchemy speaks by one setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bot.conversation.redaction import redact
from bot.errors import SettingsError

metadata = sa.MetaData()
"""Every table of ours registers here; DBOS keeps its own beside them."""


def open_database(url: str) -> sa.Engine:
    """An engine for `url` with our tables present (those of the modules that have been imported).

    Raises: SettingsError when the database cannot be opened.
    """
    try:
        engine = sa.create_engine(url)
        if engine.dialect.name == "sqlite":
            if engine.url.database:
                Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)
            sa.event.listen(engine, "connect", _tune_sqlite)
        metadata.create_all(engine)
    except (sa.exc.SQLAlchemyError, ImportError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(
            f"POSTDOC_DATABASE_URL: the database {_without_password(url)} cannot be opened ({redact(reason)})."
        ) from error
    return engine


def _without_password(url: str) -> str:
    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except sa.exc.ArgumentError:
        return "(not an SQLAlchemy URL)"


def _tune_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # a delivery that was acknowledged survives a power cut
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.close()
