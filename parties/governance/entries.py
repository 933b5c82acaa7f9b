"""Entries of an audit log: their bytes, their chain, and reading them without trusting the file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from pydantic import AfterValidator, Field

from parties.governance.canonical import canonical, digest, parse_canonical
from parties.governance.checks import Hex256, Hex512, Strict, Time, from_plain
from parties.governance.errors import AuditError, CanonicalError, KeyFileError
from parties.governance.files import reason, shown
from parties.governance.keys import certificate_der, verify

DOMAIN = "sottovoce audit 1"
FIELDS_LIMIT = 64 * 1024
LINE_LIMIT = FIELDS_LIMIT + 1024
FIRST = "0" * 64
GENESIS = "genesis"
WITNESS = "witness"
REPAIRED = "repaired"
LOG_FILE = "audit.jsonl"


def _event(text: str) -> str:
    if not (1 <= len(text) <= 40 and text.isascii() and text.replace(" ", "").replace("-", "").isalnum()):
        raise ValueError("an event is named by 1 to 40 letters, digits, spaces and hyphens")
    return text


class _Line(Strict):
    number: Annotated[int, Field(ge=0)]
    time: Time
    event: Annotated[str, AfterValidator(_event)]
    fields: dict[str, Any]
    previous: Hex256
    signature: Hex512


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry.

    Attributes
    ----------
    number : int
        From 0, without gaps.
    time : str
        UTC.
    event : str
    fields : dict
        Of JSON's types.
    previous : str
        Hash of the entry before.
    signature : str
        Of all of the above.
    hash : str
        Of the entry's line.
    """

    number: int
    time: str
    event: str
    fields: dict[str, Any]
    previous: str
    signature: str
    hash: str

    @property
    def signed(self) -> bytes:
        """What the signature covers."""
        return signed_content(self.number, self.time, self.event, self.fields, self.previous)

    def is_signed_by(self, certificate: bytes) -> bool:
        """Whether the key of a certificate made the signature."""
        return verify(certificate, DOMAIN, self.signed, bytes.fromhex(self.signature))

    def plain(self) -> dict[str, Any]:
        """Return JSON's types."""
        return {
            "number": self.number,
            "time": self.time,
            "event": self.event,
            "fields": self.fields,
            "previous": self.previous,
            "signature": self.signature,
        }


def signed_content(number: int, time: str, event: str, fields: dict[str, Any], previous: str) -> bytes:
    """Return what the signature of an entry covers."""
    return canonical({"number": number, "time": time, "event": event, "fields": fields, "previous": previous})


def parse_line(line: bytes) -> Entry:
    """Make an entry of its line, without the line break.

    Raises
    ------
    AuditError
        Saying why it is none; without a line number.
    """
    try:
        value = parse_canonical(line, limit=LINE_LIMIT)
    except CanonicalError:
        raise AuditError("is not an entry") from None
    one = from_plain(_Line, value, "is not an entry", AuditError)
    return Entry(one.number, one.time, one.event, one.fields, one.previous, one.signature, digest(DOMAIN, line))


@dataclass(slots=True)
class Tail:
    """What a crash may have left after the last whole line."""

    position: int = 0
    torn: bytes = b""


class Chain:
    """Checks that entries follow one another; remembers the last."""

    def __init__(self) -> None:
        self.number = -1
        self.hash = FIRST

    def fault(self, entry: Entry) -> str | None:
        """Say why an entry does not follow the one before; None if it does."""
        if entry.number != self.number + 1:
            return f"has number {entry.number}, here stands entry {self.number + 1}"
        if entry.previous != self.hash:
            return "does not follow from the line before" if self.number >= 0 else "does not begin a log"
        return None

    def step(self, entry: Entry) -> None:
        """Go on to the next entry."""
        self.number, self.hash = entry.number, entry.hash


def lines(file: BinaryIO, tail: Tail) -> Iterator[tuple[int, bytes]]:
    """Give whole lines with their numbers, from 1; what is left at the end goes into ``tail``.

    A crash can leave a last line without its break, or blocks of zeros: no entry holds a zero byte.
    """
    number = 0
    while line := file.readline(LINE_LIMIT + 2):
        number += 1
        if line.endswith(b"\n") and b"\0" not in line:
            tail.position += len(line)
            yield number, line[:-1]
            continue
        rest = line + file.read(LINE_LIMIT + 2)
        if len(rest) > 2 * LINE_LIMIT or rest.count(b"\n") > 1 or (b"\n" in rest and b"\0" not in line):
            raise AuditError(f"line {number}: is not an entry")
        tail.torn = rest
        return


def open_log(path: Path) -> BinaryIO:
    """Open a log for reading.

    Raises
    ------
    AuditError
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as failure:
        raise AuditError(f"audit log {shown(path)} cannot be read: {reason(failure)}") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise AuditError(f"audit log {shown(path)} is not a regular file")
    return open(handle, "rb")


def genesis_certificate(entry: Entry) -> bytes:
    """Return the certificate (DER) that a log names in its first entry.

    Raises
    ------
    AuditError
    """
    pem = entry.fields.get("certificate")
    if entry.event != GENESIS or not isinstance(pem, str):
        raise AuditError("does not begin a log")
    try:
        return certificate_der(pem)
    except KeyFileError:
        raise AuditError("names no valid certificate") from None


def find_log(path: Path) -> Path:
    """Return the log of a node's directory, or the log itself.

    Raises
    ------
    AuditError
    """
    if not path.is_dir():
        return path
    for candidate in (path / LOG_FILE, path / "state" / LOG_FILE):
        if candidate.is_file():
            return candidate
    raise AuditError(f"directory {shown(path)} holds no audit log ({LOG_FILE}, or state/{LOG_FILE})")


def read_entries(path: Path) -> Iterator[Entry]:
    """Give all whole entries of a log, in order; a torn end is left out.

    Raises
    ------
    AuditError
        With the number of the line that is no entry or does not follow; signatures are up to ``verify``.
    """
    chain, tail = Chain(), Tail()
    with open_log(path) as file:
        try:
            for number, line in lines(file, tail):
                try:
                    entry = parse_line(line)
                except AuditError as error:
                    raise AuditError(f"line {number}: {error}") from None
                if fault := chain.fault(entry):
                    raise AuditError(f"line {number}: {fault}")
                chain.step(entry)
                yield entry
        except AuditError as error:
            raise AuditError(f"audit log {shown(path)}: {error}") from None
