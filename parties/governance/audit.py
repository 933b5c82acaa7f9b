"""The audit log of a node: append-only, each entry signed and bound to the one before by its hash.

Whoever alters, removes or inserts an entry breaks the chain, and cannot mend it without the node's key.
The node's owner has that key, and could write another log: so nodes tell each other the heads of their
logs, each log keeps the heads that others told, and :func:`verify` holds a log against those.
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from parties.governance.canonical import canonical
from parties.governance.checks import one_line, write_time
from parties.governance.entries import (
    DOMAIN,
    FIELDS_LIMIT,
    FIRST,
    GENESIS,
    LOG_FILE,
    REPAIRED,
    WITNESS,
    Chain,
    Entry,
    Tail,
    find_log,
    genesis_certificate,
    lines,
    parse_line,
    read_entries,
    signed_content,
)
from parties.governance.errors import AuditError, CanonicalError
from parties.governance.files import reason, shown, sync_directory
from parties.governance.inspection import export, select, show, verify
from parties.governance.keys import NodeKey, certificate_pem, key_id_of
from parties.governance.versions import code_version

__all__ = [
    "LOG_FILE",
    "AuditLog",
    "Entry",
    "code_version",
    "export",
    "find_log",
    "read_entries",
    "select",
    "show",
    "verify",
]


class AuditLog:
    """A node's own log, open for appending; one process at a time.

    Parameters
    ----------
    path : Path
        Made with its first entry if it is not there.
    key : NodeKey
        Signs every entry.
    clock : callable
        Returns the time, with its zone.
    name : str
        The node's, for the first entry.

    Raises
    ------
    AuditError
        If the log is of another key, was altered (with the number of the line), is held by another
        process, or cannot be written.
    """

    def __init__(self, path: Path, key: NodeKey, clock: Callable[[], datetime.datetime], name: str = "") -> None:
        self._path = path
        self._key = key
        self._clock = clock
        self._mutex = threading.Lock()
        self._number = -1
        self._hash = FIRST
        self._broken = False
        self._handle = _open_for_appending(path)
        try:
            tail = self._walk()
            self._size = tail.position
            if tail.torn:
                os.ftruncate(self._handle, self._size)
            if self._number < 0:
                self._begin(name or key.name)
            if tail.torn:
                self.append(REPAIRED, removed_bytes=len(tail.torn), sha256=hashlib.sha256(tail.torn).hexdigest())
        except OSError as failure:
            self.close()
            raise AuditError(f"audit log {shown(path)} cannot be opened: {reason(failure)}") from None
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"AuditLog({shown(self._path)}, {self._number + 1} entries)"

    @property
    def head(self) -> tuple[int, str]:
        """Number and hash of the last entry: what others are told, so that they can witness it."""
        return self._number, self._hash

    @property
    def path(self) -> Path:
        """Where the log is."""
        return self._path

    def append(self, event: str, /, **fields: Any) -> Entry:
        """Write an entry; it is on the disk when this returns.

        Parameters
        ----------
        event : str
            What happened, in a few words.
        **fields
            Of JSON's types, 64 KiB at most; never values of the data.

        Raises
        ------
        AuditError
            If the fields are too large or not JSON, or the disk takes no more; the log is then as before.
        """
        with self._mutex:
            if self._broken or self._handle < 0:
                raise AuditError(f"audit log {shown(self._path)} is closed: it could not be written")
            time = write_time(self._clock())
            kept = _fit_for_json(fields)
            try:
                content = signed_content(self._number + 1, time, event, kept, self._hash)
                size = len(canonical(kept))
            except CanonicalError as error:
                raise AuditError(f"audit entry {one_line(event)}: {error}") from None
            if size > FIELDS_LIMIT:
                raise AuditError(f"audit entry {one_line(event)}: its fields take more than {FIELDS_LIMIT} bytes")
            signature = self._key.sign(DOMAIN, content).hex()
            line = canonical({**json.loads(content), "signature": signature})
            entry = parse_line(line)
            self._write(line + b"\n")
            self._number, self._hash = entry.number, entry.hash
            return entry

    def witness(self, *, member: str, key_id: str, number: int, entry_hash: str, study: str | None = None) -> Entry:
        """Keep what another node said about the head of its log, for :func:`verify` of that log."""
        return self.append(WITNESS, member=member, key=key_id, number=number, hash=entry_hash, study=study)

    def close(self) -> None:
        """Let another process have the log."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _walk(self) -> Tail:
        """Go through what is there: the chain of hashes, the first and the last signature.

        The last signature covers the hash of the line before, and so on: whoever has no key and altered any
        line could not have signed it.
        """
        chain, tail, last = Chain(), Tail(), None
        where = f"audit log {shown(self._path)}"
        remedy = "; put it aside for an inquiry, the node starts a new one"
        with open(os.dup(self._handle), "rb") as file:
            try:
                for number, line in lines(file, tail):
                    last = _next_entry(number, line, chain)
                    if number == 1:
                        self._check_genesis(last)
                if last is not None and not last.is_signed_by(self._key.certificate):
                    raise AuditError(f"line {last.number + 1}: the signature does not fit")
            except AuditError as error:
                raise AuditError(f"{where}: {error}{remedy}") from None
        self._number, self._hash = chain.number, chain.hash
        return tail

    def _check_genesis(self, entry: Entry) -> None:
        try:
            named = genesis_certificate(entry)
        except AuditError as error:
            raise AuditError(f"line 1: {error}") from None
        if key_id_of(named) != self._key.key_id:
            raise AuditError("line 1: it is the log of another key")

    def _begin(self, name: str) -> None:
        self.append(GENESIS, name=name, certificate=certificate_pem(self._key.certificate), **code_version())
        sync_directory(self._path.parent)

    def _write(self, data: bytes) -> None:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._handle, view) :]
            os.fsync(self._handle)
        except OSError as failure:
            try:
                os.ftruncate(self._handle, self._size)
            except OSError:
                self._broken = True  # a torn line may be there: repaired when the log is opened next
            raise AuditError(f"audit log {shown(self._path)} cannot be written: {reason(failure)}") from None
        self._size += len(data)


def _open_for_appending(path: Path) -> int:
    try:
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as failure:
        raise AuditError(f"audit log {shown(path)} cannot be opened: {reason(failure)}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as failure:
        os.close(handle)
        taken = isinstance(failure, BlockingIOError)
        why = "is in use: another node runs on this directory" if taken else f"cannot be locked: {reason(failure)}"
        raise AuditError(f"audit log {shown(path)} {why}") from None
    if os.fstat(handle).st_mode & 0o022:
        os.close(handle)
        raise AuditError(f"audit log {shown(path)} can be written by others: chmod 600 {shown(path)}")
    return handle


def _next_entry(number: int, line: bytes, chain: Chain) -> Entry:
    try:
        entry = parse_line(line)
    except AuditError as error:
        raise AuditError(f"line {number}: {error}") from None
    if fault := chain.fault(entry):
        raise AuditError(f"line {number}: {fault}")
    chain.step(entry)
    return entry


def _fit_for_json(value: Any) -> Any:
    """Return fields as JSON takes them: halves of characters, as file names may hold, become question marks."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list | tuple):
        return [_fit_for_json(item) for item in value]
    if isinstance(value, Mapping):
        return {_fit_for_json(str(key)): _fit_for_json(item) for key, item in value.items()}
    return value
