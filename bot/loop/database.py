"""The one SQL database: SQLite by default, PostgreSQL by one setting when one process is not enough.

Several processes may open the same database, SQLite on one machine included. A database that goes away while we run
raises `TransientError` wherever it is used, so that what needs it waits or asks its sender to wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import CreateColumn

from bot.domain.redaction import redact
from bot.errors import SettingsError, TransientError

metadata = sa.MetaData()
"""Every table of ours registers here; DBOS keeps its own beside them."""

CONNECT_SECONDS = 5
_POSTGRESQL = {
    # A host that swallows packets is noticed within seconds.
    "connect_timeout": str(CONNECT_SECONDS),
    "keepalives_idle": "10",
    "tcp_user_timeout": "15000",
    # Whatever the database was created with; in one of SQL_ASCII the driver would answer in bytes.
    "client_encoding": "utf8",
}
_SCHEMA_LOCK = 0x706F7374
"""Key of the advisory lock under which a PostgreSQL schema is changed; any number that nobody else uses."""


def open_database(url: str) -> sa.Engine:
    """An engine for `url` with our tables present (those of the modules that have been imported).

    `postgres://` and `postgresql://` mean the psycopg 3 driver. Raises: SettingsError when it cannot be opened; its
    text carries no password.
    """
    named = "the database"
    try:
        place = _place(url)
        named = f"the database {place.render_as_string(hide_password=True)!r}"
        engine = _engine(place)
        _bring_up_to_date(engine)
    except (sa.exc.SQLAlchemyError, OSError, ImportError) as error:
        reason = _reason(error, url)
        raise SettingsError(f"POSTDOC_DATABASE_URL: {named} cannot be opened ({redact(reason)}).") from error
    # Only from here on: until now an outage is a wrong setting.
    sa.event.listen(engine, "handle_error", _translate)
    return engine


def database_now(engine: sa.Engine) -> sa.ColumnElement[float]:
    """The database's own clock in Unix seconds: the one clock that all processes share."""
    if engine.dialect.name == "sqlite":
        return sa.literal_column("(julianday('now') - 2440587.5) * 86400.0", sa.Float)
    return sa.literal_column("extract(epoch from clock_timestamp())::double precision", sa.Float)


def _place(url: str) -> sa.URL:
    place = sa.make_url(url)
    if place.drivername in ("postgres", "postgresql"):
        place = place.set(drivername="postgresql+psycopg")
    if place.get_backend_name() == "postgresql":
        # In the URL, because DBOS connects with it too.
        place = place.update_query_dict({**_POSTGRESQL, **place.query})
    return place


def _engine(place: sa.URL) -> sa.Engine:
    if place.get_backend_name() == "postgresql":
        return sa.create_engine(place, pool_pre_ping=True, pool_timeout=CONNECT_SECONDS)
    engine = sa.create_engine(place)
    if engine.dialect.name == "sqlite":
        if place.database:
            Path(place.database).parent.mkdir(parents=True, exist_ok=True)
        sa.event.listen(engine, "connect", _tune_sqlite)
    return engine


def _tune_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # a delivery that was acknowledged survives a power cut
    cursor.close()


def _bring_up_to_date(engine: sa.Engine) -> None:
    """Create the tables, columns and indexes that are missing. Nothing is ever taken away or changed.

    So an older version goes on working on a newer one's database: it names the columns that it reads, and what it does
    not know of is nullable or has a default.
    """
    with _alone(engine) as connection:
        metadata.create_all(connection)
        present = sa.inspect(connection)
        for table in metadata.sorted_tables:
            columns = {column["name"] for column in present.get_columns(table.name)}
            for column in table.columns:
                if column.name not in columns:
                    name = connection.dialect.identifier_preparer.format_table(table)
                    definition = CreateColumn(column).compile(dialect=connection.dialect)
                    connection.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN {definition}")
            for index in table.indexes:
                index.create(connection, checkfirst=True)


@contextmanager
def _alone(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that no other process changes the schema beside."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            # The driver opens a transaction by itself before INSERT and its like only, not before CREATE TABLE.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
        yield connection
        connection.commit()


def _translate(context: Any) -> None:
    """Whatever may pass (no connection, a lock, a full disk) is a TransientError to all who use the database."""
    error = context.sqlalchemy_exception
    if context.is_pre_ping:
        return  # the pool connects anew by itself
    if context.is_disconnect or isinstance(error, (sa.exc.OperationalError, sa.exc.InterfaceError)):
        raise TransientError(f"the database cannot be used now ({_first_line(context.original_exception)})")


def _reason(error: BaseException, url: str) -> str:
    """The first line of what the driver said, without the URL's password should a driver repeat it."""
    if isinstance(error, sa.exc.ArgumentError):
        return "it is not a URL that SQLAlchemy understands; write postgresql://host/name, the user before the host"
    original = getattr(error, "orig", None) or error
    reason = _first_line(original)
    try:
        password = sa.make_url(url).password
    except sa.exc.ArgumentError:
        password = None
    return reason.replace(str(password), "***") if password else reason


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
