"""The ledger: every seed that a node computes with, by its commitment, before it is used.

Masks come from seeds, and a mask that is used twice gives away the difference of what it hid. Seeds are
drawn anew for each session, so none ever comes up twice, unless the machine itself is taken back in time:
a snapshot that was restored, a clone that was started beside the original. That is seen here, unless the
ledger was taken back with the rest.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from mpc.errors import SottovoceError
from mpc.prg import Prg

_COMMITMENT_BYTES = 16
_LINE_BYTES = 2048
_FIELDS = {"attempt", "commitment", "seed", "session", "study", "time"}


class LedgerError(SottovoceError, RuntimeError):
    """A seed cannot be noted, or must not be used."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: which seed of which session, by its commitment."""

    session: str
    seed: str
    commitment: str
    study: str
    attempt: int


def commit(seed: bytes) -> str:
    """Return the name under which a seed is noted; nothing about the seed can be learnt from it."""
    return hashlib.blake2b(seed, digest_size=_COMMITMENT_BYTES, person=b"sottovoce.ledger").hexdigest()


def open_ledger(path: Path) -> IO[bytes]:
    """Open a ledger for :class:`Ledger`, here or in another process; made, readable by us alone, if there is none.

    Raises
    ------
    OSError
        If it cannot be.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        handle = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.fdopen(os.open(path, flags), "r+b", buffering=0)
    file = os.fdopen(handle, "r+b", buffering=0)
    try:
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)  # or the new name might be gone after a power cut, and what it holds with it
        finally:
            os.close(directory)
    except BaseException:
        file.close()
        raise
    return file


class Ledger:
    """The ledger of a node, open for one session; several workers may have it open at once.

    Parameters
    ----------
    handle : int
        The open file (:func:`open_ledger`); taken over.
    study : str
        Hash of the study.
    attempt : int
        Of the study.
    session : bytes
        What all members of this attempt agreed on.

    Raises
    ------
    LedgerError
        If the session was there before, or the file cannot be read.
    """

    def __init__(self, handle: int, *, study: str, attempt: int, session: bytes) -> None:
        self._handle = handle
        self._study = study
        self._attempt = attempt
        self._session = session.hex()
        self._known: set[str] = set()
        self._end = 0
        self._lines = 0
        try:
            with self._alone():
                sessions = {entry.session for entry in self._read_on()}
            if self._session in sessions:
                raise LedgerError(
                    f"session {self._session} is in this node's ledger already: was this machine restored from a "
                    "snapshot? No session is computed twice; run the study again"
                )
        except BaseException:
            os.close(self._handle)
            raise

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what comes after can neither note seeds nor touch what was noted."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def make_source(self, name: str, seed: bytes) -> Prg:
        """Note a seed, and only then open it: what :func:`mpc.session.join` is to be given.

        Raises
        ------
        LedgerError
            If this seed was there before, or cannot be noted; then it must not be used.
        """
        self.note(name, seed)
        return Prg(seed)

    def note(self, name: str, seed: bytes) -> None:
        """Note a seed; when this returns, the line is on the disk. Raises as :meth:`make_source`."""
        commitment = commit(seed)
        now = datetime.datetime.now(datetime.UTC)
        line = _line(
            {
                "attempt": self._attempt,
                "commitment": commitment,
                "seed": name,
                "session": self._session,
                "study": self._study,
                "time": now.isoformat(timespec="milliseconds"),
            }
        )
        with self._alone():
            self._read_on()
            if commitment in self._known:
                raise LedgerError(
                    f"a seed came up twice ({name!r}): was this machine restored from a snapshot, or cloned? "
                    "Nothing was computed with it; give the machine fresh randomness, then run the study again"
                )
            self._write(line)
            self._known.add(commitment)

    def _write(self, line: bytes) -> None:
        try:
            # O_APPEND, and others are kept out: it goes where we stopped reading.
            written = os.write(self._handle, line)
            if written == len(line):
                os.fsync(self._handle)
                self._end += written
                self._lines += 1
                return
            os.ftruncate(self._handle, self._end)
            why = "the disk is full"
        except OSError as error:
            # The seed is not used, and half a line would be in the way of the next one.
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, self._end)
            why = _reason(error)
        raise LedgerError(f"this node's ledger cannot be written: {why}")

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other workers of this node out; they are in for no longer than one line takes."""
        if self._handle < 0:
            raise LedgerError("the ledger is closed: no seed can be noted any more")
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._handle, fcntl.LOCK_UN)

    def _read_on(self) -> list[Entry]:
        """Read what was added since we last looked."""
        content = bytearray()
        while part := os.pread(self._handle, 1 << 20, self._end + len(content)):
            content += part
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            # Half a line: whoever wrote it was stopped before it was on the disk, and so before its seed
            # was used. Nobody else writes now.
            os.ftruncate(self._handle, self._end + whole)
        entries = list(_entries(bytes(content[:whole]), "this node's ledger", self._lines))
        self._end += whole
        self._lines += len(entries)
        self._known.update(entry.commitment for entry in entries)
        return entries


def check_ledgers(paths: Iterable[Path]) -> list[str]:
    """Look for a seed that was used in two sessions, or twice in one.

    Parameters
    ----------
    paths : iterable of Path
        Ledgers of one node or of several: parties that share a seed note the same commitment in the same
        session, and that is as it should be.

    Returns
    -------
    list of str
        One sentence for each thing that must not be; empty if all is well.

    Raises
    ------
    LedgerError
        If a file cannot be read.
    """
    findings: list[str] = []
    seen: dict[str, tuple[Path, Entry]] = {}
    for path in paths:
        here: set[str] = set()
        try:
            content = path.read_bytes()
        except OSError as error:
            raise LedgerError(f"the ledger {path} cannot be read: {_reason(error)}") from None
        for entry in _entries(content[: content.rfind(b"\n") + 1], f"the ledger {path}", 0):
            name = f"seed {entry.seed!r} of session {entry.session} (commitment {entry.commitment}, {path})"
            if entry.commitment in here:
                findings.append(f"{name} is in this ledger twice")
                continue
            here.add(entry.commitment)
            before, first = seen.setdefault(entry.commitment, (path, entry))
            if first.session != entry.session:
                findings.append(f"{name} was used in session {first.session} too ({before})")
            elif (first.study, first.attempt) != (entry.study, entry.attempt):
                findings.append(
                    f"{name} was used in attempt {first.attempt} of study {first.study[:12]} too ({before})"
                )
    return findings


def _entries(content: bytes, name: str, before: int) -> Iterator[Entry]:
    for number, line in enumerate(content.split(b"\n")[:-1], before + 1):
        try:
            if len(line) > _LINE_BYTES:
                raise ValueError("too long")
            yield _entry(json.loads(line))
        except (ValueError, RecursionError):
            raise LedgerError(
                f"line {number} of {name} cannot be read: it was altered or damaged; restore the "
                "file, or keep it elsewhere and begin a new one if no copy exists"
            ) from None


def _entry(fields: Any) -> Entry:
    if not isinstance(fields, dict) or set(fields) != _FIELDS:
        raise ValueError("other fields")
    texts = [fields[name] for name in ("session", "seed", "commitment", "study")]
    if not all(isinstance(text, str) for text in texts) or not isinstance(fields["attempt"], int):
        raise ValueError("other types")
    if len(bytes.fromhex(fields["commitment"])) != _COMMITMENT_BYTES:
        raise ValueError("no commitment")
    session, seed, commitment, study = texts
    return Entry(session, seed, commitment, study, fields["attempt"])


def _line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else type(error).__name__
