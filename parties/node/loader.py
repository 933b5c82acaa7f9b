"""The process that loads our rows: it alone knows where they are, and runs no study.

It is started when an attempt begins, reads its settings from standard input, gets ready, and loads when the
process that computes asks. Passwords of databases stay here.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from mpc.errors import DataError, SottovoceError
from parties.node import enter
from parties.node.message_base import Base64
from parties.node.messages import Limits
from parties.node.process import follow
from parties.node.rows import digest_of, give_error, give_table, wait_until_asked
from parties.node.starting import FILE_BYTES, OPEN_FILES

if TYPE_CHECKING:
    from parties.data.columns import Table
    from parties.data.sources import Source
    from parties.governance.schema import Column

_MOST_SETTINGS = 16 * 1024 * 1024


class LoaderSettings(BaseModel):
    """What it is told."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    columns: JsonValue
    source: dict[str, JsonValue] = Field(repr=False)
    base: str
    limits: Limits
    cpu_seconds: Annotated[int, Field(ge=1)]
    rows_key: Base64 | None = Field(default=None, repr=False)
    rows_digest: str | None = None


class ChangedError(DataError):
    """The rows are not those that an earlier attempt was computed with."""


class SettingsError(SottovoceError, ValueError):
    """The settings of a source, or the study's columns, are not what this version knows."""


def main(descriptor: int) -> None:
    """Get ready, wait until asked, load, hand over."""
    enter.belong_to_node()
    settings = LoaderSettings.model_validate_json(sys.stdin.buffer.read(_MOST_SETTINGS))
    sys.stdin.close()
    limits = settings.limits
    enter.restrict(limits.cores, limits.memory_mb, settings.cpu_seconds, OPEN_FILES, FILE_BYTES)
    with socket.socket(fileno=descriptor) as sock:
        follow(descriptor)
        ready: tuple[tuple[Column, ...], Source] | Exception
        try:
            ready = _understand(settings)
        except Exception as error:  # noqa: BLE001 - whatever it was: who asks must hear of it
            ready = error
        if not wait_until_asked(sock):
            return
        try:
            if isinstance(ready, Exception):
                raise ready
            columns, source = ready
            table = _load(source, columns, Path(settings.base))
            digest = None if settings.rows_key is None else digest_of(table, settings.rows_key)
            if settings.rows_digest not in (None, digest):
                raise ChangedError(
                    "our rows have changed since something of this study was opened; opening it again on other rows "
                    "would tell the difference: propose a new study"
                )
            give_table(sock, table, digest)
        except Exception as error:  # noqa: BLE001 - the same
            with contextlib.suppress(OSError):  # who asked is gone
                give_error(sock, error)


def _understand(settings: LoaderSettings) -> tuple[tuple[Column, ...], Source]:
    from parties.data.sources import parse_source
    from parties.governance.schema import Column

    try:
        # Of a study the columns alone: to know its analyses is to load all that computes.
        columns = TypeAdapter(tuple[Column, ...]).validate_json(json.dumps(settings.columns))
        return columns, parse_source(settings.source)
    except ValidationError:
        raise SettingsError(
            "the study's columns, or the settings of the source of our rows, are not what this version knows"
        ) from None


def _load(source: Source, columns: tuple[Column, ...], base: Path) -> Table:
    from parties.data.sources import load

    return load(source, columns, base)


if __name__ == "__main__":
    main(int(sys.argv[1]))
