"""Where an organisation's rows come from: its own configuration maps a file or a query to a study's columns."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator, model_validator

from parties.data.columns import ColumnLike, Table, TableBuilder
from parties.data.convert import MISSING, Style
from parties.data.database import read_sql
from parties.data.errors import SourceError
from parties.data.files import below, listed, read_csv, read_parquet

_MOST_SECRET_BYTES = 64 * 1024
_LONGEST_PATH = 4096


class _Source(BaseModel):
    """What all sources have.

    Attributes
    ----------
    columns : dict of str to str
        Names in the source, by names in the study; what is not named here has the same name in both.
    missing : tuple of str
        Texts that stand for a missing value.
    decimal : {".", ","}
        The decimal sign of numbers that are text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    columns: dict[str, str] = Field(default_factory=dict, max_length=512)
    missing: Annotated[tuple[str, ...], Field(strict=False, max_length=64)] = MISSING
    decimal: Literal[".", ","] = "."

    @property
    def style(self) -> Style:
        """How values are written."""
        return Style(self.decimal, tuple(text.strip() for text in self.missing))

    def wanted(self, schema: Sequence[ColumnLike]) -> dict[str, str]:
        """Return the source's names of the study's columns.

        Raises
        ------
        SourceError
            The mapping names a column that the study does not have.
        """
        names = [column.name for column in schema]
        unknown = sorted(set(self.columns) - set(names))
        if unknown:
            raise SourceError(
                f"the configured source maps {listed(unknown)}, which the study does not have; its columns are "
                f"{listed(names)}"
            )
        return {name: self.columns.get(name, name) for name in names}


class CsvSource(_Source):
    """A text file of rows, the first of which names the columns.

    Attributes
    ----------
    path : str
        Relative to the configuration, and then below its directory; or absolute.
    delimiter : str
        One character; ``"\\t"`` for a tab.
    encoding : str
        As Python names it; a byte order mark is skipped.
    """

    kind: Literal["csv"]
    path: Annotated[str, Field(min_length=1, max_length=_LONGEST_PATH)]
    delimiter: str = ","
    encoding: str = "utf-8"

    @field_validator("delimiter")
    @classmethod
    def _is_one_character(cls, delimiter: str) -> str:
        if len(delimiter) != 1 or delimiter in '"\r\n\0':
            raise ValueError("takes one character, not a quotation mark or a line break")
        return delimiter

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
        except (LookupError, ValueError):
            raise ValueError("takes the name of an encoding, such as utf-8, latin-1, cp1252 or utf-16") from None
        return encoding

    @model_validator(mode="after")
    def _signs_differ(self) -> Self:
        if self.delimiter == self.decimal:
            raise ValueError("delimiter and decimal are the same character")
        return self


class ParquetSource(_Source):
    """A Parquet file.

    Attributes
    ----------
    path : str
        Relative to the configuration, and then below its directory; or absolute.
    """

    kind: Literal["parquet"]
    path: Annotated[str, Field(min_length=1, max_length=_LONGEST_PATH)]


class SqlSource(_Source):
    """A query to a database.

    Attributes
    ----------
    url, url_env, url_file : str or None
        SQLAlchemy's URL of the database, the name of an environment variable that holds it, or a file that
        does; exactly one. A file or a variable keeps a password out of the configuration.
    query : str
        One SELECT; read-only where the database can be told so.
    """

    kind: Literal["sql"]
    url: Annotated[str | None, Field(repr=False, min_length=1, max_length=_LONGEST_PATH)] = None
    url_env: Annotated[str | None, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")] = None
    url_file: Annotated[str | None, Field(min_length=1, max_length=_LONGEST_PATH)] = None
    query: Annotated[str, Field(min_length=1, max_length=64 * 1024)]

    @field_validator("query")
    @classmethod
    def _is_one_select(cls, query: str) -> str:
        stripped = query.strip().removesuffix(";").rstrip()
        if stripped.split(None, 1)[:1] and stripped.split(None, 1)[0].lower() not in ("select", "with"):
            raise ValueError("takes one SELECT (or WITH ... SELECT)")
        if not stripped:
            raise ValueError("takes one SELECT (or WITH ... SELECT)")
        return stripped

    @model_validator(mode="after")
    def _one_url(self) -> Self:
        if sum(given is not None for given in (self.url, self.url_env, self.url_file)) != 1:
            raise ValueError("takes exactly one of url, url_env and url_file")
        return self


Source = Annotated[CsvSource | ParquetSource | SqlSource, Field(discriminator="kind")]


def parse_source(settings: Mapping[str, Any]) -> Source:
    """Read a source's settings, as they stand in a configuration.

    Raises
    ------
    pydantic.ValidationError
        Naming the key; whoever catches it writes where it stands.
    """
    adapter: TypeAdapter[Source] = TypeAdapter(Source, config=ConfigDict(hide_input_in_errors=True))
    return adapter.validate_python(dict(settings))


def resolved(source: Source, base: Path) -> Source:
    """Return the same source with what it refers to in it, for a process that does not have our environment.

    An absolute path stands for a relative one, and the database's URL for the variable or the file that holds it.

    Raises
    ------
    SourceError
        A path leads out of ``base``, or there is no URL where the source says.
    """
    if isinstance(source, SqlSource):
        return source.model_copy(update={"url": _url(source, base), "url_env": None, "url_file": None})
    return source.model_copy(update={"path": str(below(base, source.path, source.kind))})


def load(source: Source, schema: Sequence[ColumnLike], base: Path) -> Table:
    """Read our rows and check them against the study's schema.

    Parameters
    ----------
    source : Source
    schema : sequence of ColumnLike
    base : Path
        The directory that relative paths are below.

    Returns
    -------
    Table

    Raises
    ------
    SourceError
        The rows cannot be read.
    DataError
        They can, and do not fit the schema: counts by column, never values.
    """
    source = resolved(source, base)
    wanted = source.wanted(schema)
    builder = TableBuilder(schema, f"the configured {source.kind} source", source.style)
    with closing(_chunks(source, wanted, base)) as chunks:
        for chunk in chunks:
            builder.add(chunk)
    return builder.table()


def _chunks(source: Source, wanted: Mapping[str, str], base: Path) -> Generator[Mapping[str, Any]]:
    if isinstance(source, CsvSource):
        return read_csv(Path(source.path), wanted, delimiter=source.delimiter, encoding=source.encoding)
    if isinstance(source, ParquetSource):
        return read_parquet(Path(source.path), wanted)
    return read_sql(source.url or "", source.query, wanted, base)


def _url(source: SqlSource, base: Path) -> str:
    """Find the database's URL."""
    if source.url_env is not None:
        url = os.environ.get(source.url_env, "")
        if not url:
            raise SourceError(f"the configured sql source: the environment variable {source.url_env} is not set")
    elif source.url_file is not None:
        path = below(base, source.url_file, "sql")
        try:
            with path.open("rb") as file:
                url = file.read(_MOST_SECRET_BYTES).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(
                f"the configured sql source: url_file {str(path)!a} cannot be read ({type(error).__name__})"
            ) from None
    else:
        url = source.url or ""
    return url
