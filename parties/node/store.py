"""What a node knows of its studies, on disk before anybody is told.

One directory for each study: ``study.json`` (as it was proposed), ``program.py``, ``records.jsonl`` (one
signed record a line, only appended to), ``notes.jsonl`` (what only the owner may read: why an attempt
failed here), ``rows.key`` and ``rows.json`` (on which rows it was computed) and ``result.json`` (written
once, whole or not at all). After a crash a torn last line is dropped: nobody was told of it.
``known.jsonl`` holds the hashes of all studies that ever were here, so that one whose directory was removed
does not come back.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parties.governance import files
from parties.governance.canonical import canonical, parse
from parties.governance.errors import CanonicalError, GovernanceError

_LONGEST_LINE = 1 << 20
_LONGEST_FILE = 1 << 28
_LONGEST_RESULT = 1 << 26
_KEY_BYTES = 32
_LOCK_TRIES = 10
_LOCK_PAUSE_SECONDS = 0.02
_HEX = frozenset("0123456789abcdef")
# Names of files that are not yet complete; see parties.governance.files.
_LEFT_OVER = re.compile(r"\..+\.[0-9a-f]{12}")
# A study is turned away while less than this is free, so that what runs can still be recorded.
RESERVE_BYTES = 16 << 20


class StoreError(GovernanceError):
    """The node's directory cannot be used, or a file in it cannot be written or is damaged."""


@dataclass(frozen=True, slots=True)
class StoredStudy:
    """A study as it lies on disk, not yet checked.

    Attributes
    ----------
    study : dict
        What ``study.json`` holds.
    program : str or None
        Text of its program.
    records : tuple of dict
        In the order in which they came.
    """

    study: dict[str, Any]
    program: str | None
    records: tuple[dict[str, Any], ...]


class Store:
    """The directory of one node, held by one process at a time.

    Parameters
    ----------
    directory : Path
        Made if it is absent, with mode 0700; one that others can enter is refused.

    Raises
    ------
    StoreError
        If another process holds it, or it is not private.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        files.make_private_directory(directory, error=StoreError)
        facts = directory.stat()
        if facts.st_uid != os.geteuid():
            raise StoreError(f"directory {files.shown(directory)} belongs to another user (uid {facts.st_uid})")
        if facts.st_mode & 0o077:
            raise StoreError(
                f"directory {files.shown(directory)} can be entered by others (mode {stat.S_IMODE(facts.st_mode):o}): "
                f"chmod 700 {files.shown(directory)}"
            )
        self._lock = self._hold(directory / "lock")
        try:
            self._studies = directory / "studies"
            files.make_private_directory(self._studies, error=StoreError)
            self._sweep()
            # Never shortened: a study that its owner removed must not come back with its old approvals.
            self._known = {str(one.get("study")) for one in self._lines(directory / "known.jsonl")}
            for study_hash in self.hashes():
                self._remember(study_hash)
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        """Let another process hold the directory."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _sweep(self) -> None:
        """Remove what a crash left half-written, or with a second name, which would outlive what is deleted."""
        for path in (*self.directory.glob(".*"), *self._studies.glob("*/.*")):
            if _LEFT_OVER.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def _hold(self, path: Path) -> int:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as failure:
            raise self._failed("the lock file", failure) from None
        if not _locked(handle):
            os.close(handle)
            raise StoreError(
                f"another node runs in {files.shown(self.directory)}: stop that one first, or give this one "
                "a state directory of its own"
            )
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        return handle

    # ---- studies --------------------------------------------------------------------------------

    def hashes(self) -> Iterator[str]:
        """Yield the hashes of the studies that are there, in no particular order."""
        for path in self._studies.iterdir():
            if len(path.name) == 64 and set(path.name) <= _HEX:
                yield path.name

    def add(self, study_hash: str, study: dict[str, Any], program: str | None) -> None:
        """Keep a study; one that is there already stays as it is."""
        directory = self._directory(study_hash)
        if (directory / "study.json").exists():
            self._remember(study_hash)
            return
        self.check_room()
        files.make_private_directory(directory, error=StoreError)
        if program is not None:
            self._replace(directory / "program.py", program.encode())
        self._replace(directory / "study.json", canonical(study))
        self._remember(study_hash)

    def load(self, study_hash: str) -> StoredStudy | None:
        """Read a study and its records; None if it was never added in full.

        Raises
        ------
        StoreError
            If a file was altered: only a torn last line is what a crash leaves.
        """
        directory = self._directory(study_hash)
        if not (directory / "study.json").exists():
            return None
        study = self._parse(directory / "study.json", self._read(directory / "study.json", _LONGEST_LINE))
        program = None
        if (directory / "program.py").exists():
            program = self._read(directory / "program.py", _LONGEST_LINE).decode("utf-8", "replace")
        return StoredStudy(study, program, tuple(self._lines(directory / "records.jsonl")))

    def is_forgotten(self, study_hash: str) -> bool:
        """Whether a study was here once, and its directory has been removed since."""
        return study_hash in self._known and not (self._directory(study_hash) / "study.json").exists()

    def _remember(self, study_hash: str) -> None:
        if study_hash not in self._known:
            self._append(self.directory / "known.jsonl", canonical({"study": study_hash}))
            self._known.add(study_hash)

    def append(self, study_hash: str, record: dict[str, Any]) -> None:
        """Add a record; it is on disk when this returns."""
        self._append(self._directory(study_hash) / "records.jsonl", canonical(record))

    def note(self, study_hash: str, note: dict[str, Any]) -> None:
        """Add a note that only the owner reads."""
        self._append(self._directory(study_hash) / "notes.jsonl", canonical(note))

    def notes(self, study_hash: str) -> tuple[dict[str, Any], ...]:
        """Return the owner's notes on a study."""
        return tuple(self._lines(self._directory(study_hash) / "notes.jsonl"))

    # ---- rows -----------------------------------------------------------------------------------

    def rows_key(self, study_hash: str) -> bytes:
        """Return the secret with which this node hashes its rows for a study, made when first asked for."""
        path = self._directory(study_hash) / "rows.key"
        if not path.exists():
            self._replace(path, secrets.token_hex(_KEY_BYTES).encode())
        try:
            key = bytes.fromhex(self._read(path, 4 * _KEY_BYTES).decode("ascii"))
        except ValueError:
            key = b""
        if len(key) != _KEY_BYTES:
            raise StoreError(f"{files.shown(path)} is damaged: put it back from a backup, or propose the study anew")
        return key

    def pin_rows(self, study_hash: str, digest: str) -> None:
        """Keep the hash of the rows that a study is computed on; see :class:`parties.node.pins.Pin`."""
        self._replace(self._directory(study_hash) / "rows.json", canonical({"digest": digest}))

    def rows_digest(self, study_hash: str) -> str | None:
        """Return that hash; None if the study was not computed here."""
        path = self._directory(study_hash) / "rows.json"
        return str(self._parse(path, self._read(path, _LONGEST_LINE)).get("digest")) if path.exists() else None

    # ---- results --------------------------------------------------------------------------------

    def save_result(self, study_hash: str, content: bytes) -> bool:
        """Keep a result; returns False, and changes nothing, if there is one already."""
        path = self._directory(study_hash) / "result.json"
        if path.exists():
            return False
        files.write_new(path, content, mode=0o600, what="the result", error=StoreError)
        return True

    def result(self, study_hash: str) -> bytes | None:
        """Return the result, if there is one."""
        path = self._directory(study_hash) / "result.json"
        return self._read(path, _LONGEST_RESULT) if path.exists() else None

    # ---- the queue ------------------------------------------------------------------------------

    def save_queue(self, queue: Sequence[tuple[str, bool]]) -> None:
        """Keep which studies wait to be run here, and whether each is a dry run."""
        self._replace(self.directory / "queue.json", canonical({"queue": [list(one) for one in queue]}))

    def load_queue(self) -> list[tuple[str, bool]]:
        """Return what :meth:`save_queue` kept."""
        path = self.directory / "queue.json"
        if not path.exists():
            return []
        kept = self._parse(path, self._read(path, _LONGEST_LINE)).get("queue")
        return [(str(study), bool(dry)) for study, dry in kept] if isinstance(kept, list) else []

    # ---- the disk -------------------------------------------------------------------------------

    def free_bytes(self) -> int:
        """Return how much can still be written."""
        facts = os.statvfs(self.directory)
        return facts.f_bavail * facts.f_frsize

    def check_room(self) -> None:
        """Refuse to begin what could not be recorded; raises :class:`StoreError`."""
        free = self.free_bytes()
        if free < RESERVE_BYTES:
            raise StoreError(
                f"the disk of {files.shown(self.directory)} is nearly full ({free >> 20} MiB free): free at least "
                f"{RESERVE_BYTES >> 20} MiB"
            )

    def _directory(self, study_hash: str) -> Path:
        if len(study_hash) != 64 or not set(study_hash) <= _HEX:  # it becomes a path
            raise StoreError("a study is named by 64 hexadecimal digits")
        return self._studies / study_hash

    def _replace(self, path: Path, content: bytes) -> None:
        files.replace(path, content, mode=0o600, what=path.name, error=StoreError)

    def _read(self, path: Path, limit: int) -> bytes:
        return files.read_bounded(path, limit=limit, what=path.name, error=StoreError, private=True)

    def _parse(self, path: Path, content: bytes, line: int | None = None) -> dict[str, Any]:
        try:
            value = parse(content, limit=_LONGEST_LINE)
        except CanonicalError:
            value = None
        if not isinstance(value, dict):
            where = "" if line is None else f", line {line},"
            raise StoreError(
                f"{files.shown(path)}{where} is damaged, and not by a crash: put the file back from a backup"
            )
        return value

    def _append(self, path: Path, line: bytes) -> None:
        content = line + b"\n"
        try:
            handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as failure:
            raise self._failed(path.name, failure) from None
        try:
            before = os.fstat(handle).st_size
            try:
                before = _drop_torn_line(handle, before)
                written = 0
                while written < len(content):
                    written += os.write(handle, content[written:])
                os.fsync(handle)
            except OSError as failure:
                # Half a line would become a damaged one with the next that is appended.
                with contextlib.suppress(OSError):
                    os.ftruncate(handle, before)
                raise self._failed(path.name, failure) from None
            if before == 0:
                files.sync_directory(path.parent)
        finally:
            os.close(handle)

    def _lines(self, path: Path) -> Iterator[dict[str, Any]]:
        if not path.exists():
            return
        content = self._read(path, _LONGEST_FILE)
        *whole, torn = content.split(b"\n")
        if torn:
            os.truncate(path, len(content) - len(torn))
        for number, line in enumerate(whole, 1):
            yield self._parse(path, line, number)

    def _failed(self, what: str, failure: OSError) -> StoreError:
        where = f"{what} in {files.shown(self.directory)}"
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            return StoreError(f"the disk is full: {where} was not written, and nothing was announced; free some room")
        return StoreError(f"{where} cannot be written: {files.reason(failure)}")


def _locked(handle: int) -> bool:
    """Take the lock; whoever only looks (:func:`running_pid`) holds it for an instant, and is waited for."""
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_SECONDS)
        else:
            return True
    return False


def running_pid(directory: Path) -> int | None:
    """Return the number of the process that holds a node's directory; None if none does.

    Whoever holds the lock has written its number, so that it is never that of another process.
    """
    try:
        handle = os.open(directory / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        written = os.pread(handle, 20, 0)
        return int(written) if written.isdigit() else None
    else:
        return None
    finally:
        os.close(handle)


def _drop_torn_line(handle: int, size: int) -> int:
    """Cut off what a crash or a full disk left behind the last whole line; return the size."""
    if size == 0 or os.pread(handle, 1, size - 1) == b"\n":
        return size
    start = max(0, size - 2 * _LONGEST_LINE)
    size = start + os.pread(handle, size - start, start).rfind(b"\n") + 1
    os.ftruncate(handle, size)
    return size
