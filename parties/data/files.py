"""Rows from files, chunk by chunk: CSV with the standard library, Parquet with pyarrow."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from parties.data.errors import SourceError

_LONGEST_VALUE = 128 * 1024
_CSV_ROWS = 2048  # more at a time is slower: Python's garbage collector looks at all of them
_PARQUET_ROWS = 65_536


def read_csv(
    path: Path, wanted: Mapping[str, str], *, delimiter: str, encoding: str
) -> Generator[Mapping[str, Sequence[str]]]:
    """Yield chunks of text.

    Parameters
    ----------
    path : Path
    wanted : mapping
        Names in the file, by names in the study. Other columns are not looked at.
    delimiter, encoding : str
        See :class:`parties.data.sources.CsvSource`.

    Raises
    ------
    SourceError
        No file, no header, a column that is not there or is there twice, rows of other lengths, bytes that
        are not of the encoding, a quotation mark that is not closed.
    """
    who = "the configured csv source"
    with _readable(path, who):
        # The byte order mark that some programs begin UTF-8 with is no part of the first name.
        name = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
        with path.open(encoding=name, errors="strict", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            try:
                header = next(reader, None)
                if not header or not any(cell.strip() for cell in header):
                    raise SourceError(f"{who}: {_quoted(path)} has no first line that names the columns")
                places = places_of([cell.strip() for cell in header], wanted, who, show=False)
                yield from _chunks(reader, len(header), places, who)
            except csv.Error:
                raise SourceError(
                    f"{who}: line {reader.line_num} of {_quoted(path)} is no CSV with this delimiter: a quotation "
                    "mark that is not closed or stands inside a value, or a value of more than 128 KiB"
                ) from None
            except UnicodeError:
                raise SourceError(
                    f"{who}: {_quoted(path)} holds bytes that are not {encoding}, at or after line "
                    f"{reader.line_num + 1}; set encoding, for example to cp1252 or latin-1"
                ) from None


def _chunks(
    reader: Iterator[list[str]], width: int, places: Mapping[str, int], who: str
) -> Iterator[Mapping[str, Sequence[str]]]:
    """Yield columns of so many rows; empty lines at the end, or of several columns, are no rows."""
    pick = itemgetter(*places.values())
    seen = blank = 0
    while lines := _next_lines(reader):
        rows = lines
        if blank or set(map(len, lines)) != {width}:
            rows = []
            for number, line in enumerate(lines, seen + 1):
                if len(line) == width:
                    # The empty line of a file with one column is a missing value, if rows follow.
                    rows += [[""]] * blank
                    rows.append(line)
                    blank = 0
                elif line:
                    raise SourceError(
                        f"{who}: row {number} after the header has {len(line)} values, and the header {width}; check "
                        "the delimiter, and put values that contain it into quotation marks"
                    )
                elif width == 1:
                    blank += 1
        seen += len(lines)
        if rows:
            columns = zip(*map(pick, rows), strict=True) if len(places) > 1 else [tuple(map(pick, rows))]
            yield dict(zip(places, columns, strict=True))


def _next_lines(reader: Iterator[list[str]]) -> list[list[str]]:
    """Read some lines; the limit for a value is the csv module's own, which any library may have changed."""
    before = csv.field_size_limit(_LONGEST_VALUE)
    try:
        return list(islice(reader, _CSV_ROWS))
    finally:
        csv.field_size_limit(before)


def read_parquet(path: Path, wanted: Mapping[str, str]) -> Generator[Mapping[str, Any]]:
    """Yield chunks: arrays of numbers as numpy arrays, everything else as Python's objects.

    Parameters
    ----------
    path : Path
    wanted : mapping
        Names in the file, by names in the study.

    Raises
    ------
    SourceError
        No file, no Parquet, a column that is not there or is there twice.
    """
    who = "the configured parquet source"
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise SourceError(f"{who} needs pyarrow: pip install 'sottovoce[node]'") from None
    with _readable(path, who):
        try:
            with parquet.ParquetFile(path) as file:
                places_of(file.schema_arrow.names, wanted, who)
                columns = list(dict.fromkeys(wanted.values()))
                for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=columns):
                    yield {name: _plain(batch.column(place)) for name, place in wanted.items()}
        except pa.ArrowException as error:
            raise SourceError(
                f"{who}: {_quoted(path)} is no Parquet file, or is damaged ({type(error).__name__})"
            ) from None


def _plain(array: Any) -> Any:
    """Return numbers of an Arrow array as a numpy array, masked where they are null; everything else as a list."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        return array.to_pylist()
    if not array.null_count:
        return array.to_numpy(zero_copy_only=False)
    filled = array.fill_null(False if pa.types.is_boolean(kind) else 0)
    return np.ma.MaskedArray(filled.to_numpy(zero_copy_only=False), array.is_null().to_numpy(zero_copy_only=False))


def places_of(names: Sequence[str], wanted: Mapping[str, str], who: str, *, show: bool = True) -> dict[str, int]:
    """Return where each of the study's columns stands.

    With ``show`` an error lists the names that there are. The first line of a text file may be a row instead
    of names, and is shown to nobody.
    """
    absent = sorted({name for name in wanted.values() if name not in names})
    if absent:
        alike = sorted({name for name in names if _bare(name) in {_bare(one) for one in absent}})
        has = f"it has {listed(names)}"
        if not show:
            has = f"its first line names {len(names)} columns" if len(names) > 1 else "its delimiter is another one"
            has += f", among them {listed(alike)}" if alike else ""
        raise SourceError(
            f"{who} has no column {listed(absent)}; {has}. Map the study's columns to those of the source in the "
            "configuration: columns = { study = source }"
        )
    twice = sorted({name for name in wanted.values() if names.count(name) > 1})
    if twice:
        raise SourceError(f"{who} has more than one column {listed(twice)}; give them different names")
    return {name: names.index(column) for name, column in wanted.items()}


def _bare(name: str) -> str:
    """Return a name without what people vary."""
    return "".join(filter(str.isalnum, name)).casefold()


def below(base: Path, path: str, kind: str) -> Path:
    """Return an absolute path; a relative one must stay below the base, also through symbolic links."""
    given = Path(path)
    if "\0" in path:
        raise SourceError(f"the configured {kind} source: path is no path")
    if given.is_absolute():
        return given
    base = base.resolve()
    found = (base / given).resolve()
    if not found.is_relative_to(base):
        raise SourceError(
            f"the configured {kind} source: path {path!a} leads out of the configuration's directory; write it "
            "as an absolute path if that is meant"
        )
    return found


@contextmanager
def _readable(path: Path, who: str) -> Iterator[None]:
    """Say in one line what keeps a file from being read."""
    try:
        if path.exists() and not path.is_file():
            raise SourceError(f"{who}: {_quoted(path)} is no file")
        yield
    except FileNotFoundError:
        raise SourceError(f"{who}: there is no file {_quoted(path)}") from None
    except PermissionError:
        raise SourceError(f"{who}: {_quoted(path)} may not be read by the user that runs this node") from None
    except OSError as error:
        raise SourceError(f"{who}: {_quoted(path)} cannot be read ({type(error).__name__})") from None


def _quoted(path: Path) -> str:
    return ascii(str(path))


def listed(names: Sequence[str]) -> str:
    """Show names of columns, bounded and printable."""
    shown = ", ".join(ascii(name if len(name) <= 64 else name[:61] + "...") for name in names[:20])
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")
