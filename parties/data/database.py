"""Rows from databases through SQLAlchemy: one SELECT, read-only where the database can be told so, streamed."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from parties.data.errors import SourceError
from parties.data.files import below, places_of

_ROWS = 2048
_CONNECT_SECONDS = 15
_WHO = "the configured sql source"


def read_sql(url: str, query: str, wanted: Mapping[str, str], base: Path) -> Generator[Mapping[str, Any]]:
    """Yield chunks of the rows of a query, as Python's objects.

    Parameters
    ----------
    url : str
        SQLAlchemy's; may hold a password, which stands in no error.
    query : str
        One SELECT.
    wanted : mapping
        Names in the query's result, by names in the study.
    base : Path
        The directory that the file of an SQLite database is below, if its path is relative.

    Raises
    ------
    SourceError
        No driver, no connection, a query that the database refuses, a column that is not in its result. What
        the database says is left out, as it may quote values; its error code is not.

    Notes
    -----
    SQLite is opened read-only (a file that is not there is an error, not a new database). PostgreSQL, and
    what SQLAlchemy knows of its kind, runs the query in a read-only transaction with a cursor at the server,
    so that memory holds one chunk. Where a database knows neither, give the node a user that may only read.
    """
    doing = "its url is not one that SQLAlchemy understands"
    try:
        engine = _engine(url, base)
        try:
            doing = "the database cannot be reached, or does not let us in"
            with engine.connect() as connection:
                doing = "the query fails"
                yield from _rows(_read_only(connection), query, wanted)
        finally:
            engine.dispose()
    except SourceError:
        raise
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        extra = (
            "'sottovoce[node]'" if missing == "sqlalchemy" else "'sottovoce[postgres]', for postgresql+psycopg:// urls"
        )
        raise SourceError(f"{_WHO} needs {missing!a}: pip install {extra}") from None
    except Exception as error:  # noqa: BLE001 - whatever a driver raises: its text may quote rows or the url
        raise SourceError(f"{_WHO}: {doing} ({_code(error)})") from None


def _engine(url: str, base: Path) -> Any:
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.pool import NullPool

    parsed = make_url(url)
    arguments: dict[str, Any] = {}
    match parsed.get_backend_name():
        case "sqlite":
            parsed = _sqlite_read_only(parsed, base)
        case "postgresql" if parsed.get_driver_name() in ("psycopg", "psycopg2"):
            # A database that declares no encoding (SQL_ASCII) would give bytes instead of text.
            arguments |= {"connect_timeout": _CONNECT_SECONDS, "client_encoding": "utf8"}
    # Nothing that the driver says may reach a log: it could quote rows or parameters.
    return create_engine(parsed, poolclass=NullPool, hide_parameters=True, echo=False, connect_args=arguments)


def _sqlite_read_only(url: Any, base: Path) -> Any:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise SourceError(f"{_WHO}: the url of an SQLite database names a file, as sqlite:///rows.db does")
    path = below(base, url.database, "sql")
    return url.set(database=f"file:{quote(str(path))}", query={**url.query, "mode": "ro", "uri": "true"})


def _read_only(connection: Any) -> Any:
    if connection.dialect.name == "postgresql":
        connection = connection.execution_options(postgresql_readonly=True)
    return connection.execution_options(stream_results=True, max_row_buffer=_ROWS)


def _rows(connection: Any, query: str, wanted: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    from sqlalchemy import text

    # A colon is no parameter of ours: 10:30, ::int.
    result = connection.execute(text(query.replace(":", "\\:")))
    if not result.returns_rows:
        raise SourceError(f"{_WHO}: the query returns no rows: it takes one SELECT")
    places = places_of(list(result.keys()), wanted, _WHO)
    for rows in result.partitions(_ROWS):
        yield {name: [row[place] for row in rows] for name, place in places.items()}


def _code(error: Exception) -> str:
    """Name the error by its class and, where there is one, the code of SQL: both are free of data."""
    original = getattr(error, "orig", None)
    code = getattr(original, "sqlstate", None) or getattr(original, "sqlite_errorname", None)
    name = type(original if original is not None else error).__name__
    return f"{name}, {code}" if isinstance(code, str) and code.isascii() and len(code) <= 40 else name
