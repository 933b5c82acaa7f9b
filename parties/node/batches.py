"""The ledger of material: what became of every batch, on the disk before it happens.

One line for each event, only appended to. A batch is ``begun`` before its file is, ``made`` when the file is whole on
our disk, ``ready`` when all parties have said so, ``spent`` before the first of its elements leaves the file, or
``discarded``. Nothing follows the last two: a batch that was spent is never read again, whatever crashed meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from parties.governance.errors import GovernanceError
from parties.governance.files import reason, shown, sync_directory

Event = Literal["begun", "made", "ready", "spent", "discarded"]
FOLLOWS: dict[str, frozenset[str | None]] = {
    "begun": frozenset({None}),
    "made": frozenset({"begun"}),
    "ready": frozenset({"made"}),
    "spent": frozenset({"made", "ready"}),
    "discarded": frozenset({"begun", "made", "ready"}),
}
ENDED = frozenset({"spent", "discarded"})
UNSPENT = frozenset({"made", "ready"})
_BATCH = re.compile(r"[0-9a-f]{32}-[0-9]{1,4}")
_HEX = re.compile(r"[0-9a-f]{64}")
_LINE_BYTES = 2048


class BatchError(GovernanceError):
    """The ledger of material cannot be read or written, or something would be used twice.

    What is said while studies run names no file: it goes to the other members.
    """


@dataclass(frozen=True, slots=True)
class Batch:
    """What is known of one batch.

    Attributes
    ----------
    name : str
        The session that made it, and a number.
    state : str
        The last event.
    study : str
        Hash of the study that it is for.
    salt : str
        Of the sealed file's key.
    code : str
        What says which code made it.
    matching : str
        The hash that all parties share; empty until it is made.
    digest : str
        SHA-256 of our file; nobody else's is the same.
    size, products : int
        Bytes of our file; entries of products.
    made : str
        When.
    why : str
        What it was spent on, or why it was discarded.
    """

    name: str
    state: str
    study: str
    salt: str
    code: str = ""
    matching: str = ""
    digest: str = ""
    size: int = 0
    products: int = 0
    made: str = ""
    why: str = ""


def is_batch_name(text: object) -> bool:
    """Whether this may name a batch; it becomes the name of a file."""
    return isinstance(text, str) and _BATCH.fullmatch(text) is not None


class BatchLedger:
    """The ledger of one party, held by one process at a time.

    Parameters
    ----------
    path : Path
        Made if there is none.
    now : callable
        Returns the time as text.

    Raises
    ------
    BatchError
        It is held, cannot be read, or says what cannot be.
    """

    def __init__(self, path: Path, now: Callable[[], str]) -> None:
        self._path = path
        self._now = now
        self._batches: dict[str, Batch] = {}
        is_new = not path.exists()
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as failure:
            raise BatchError(f"{shown(path)} cannot be opened: {reason(failure)}") from None
        try:
            if is_new:
                sync_directory(path.parent)
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BatchError(f"{shown(path)} is held by another process: stop that one first") from None
            self._end = self._read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process hold it."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __iter__(self) -> Iterator[Batch]:
        return iter(list(self._batches.values()))

    def get(self, name: str) -> Batch | None:
        """Return a batch, if it is known."""
        return self._batches.get(name)

    def note(self, event: Event, name: str, **facts: Any) -> Batch:
        """Note an event; when this returns, it is on the disk.

        Raises
        ------
        BatchError
            It must not happen, or cannot be noted: then it must not be done.
        """
        if self._handle < 0:
            raise BatchError("the ledger of material is closed")
        fields = {"batch": name, "event": event, "time": self._now(), **facts}
        try:
            batch = self._after(fields)
        except ValueError as error:
            raise BatchError(f"batch {name} cannot be {event}: {error}") from None
        line = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
        if len(line) > _LINE_BYTES:  # it could not be read again
            raise BatchError(f"batch {name} cannot be {event}: there is too much to note")
        self._write(line + b"\n")
        self._batches[name] = batch
        return batch

    def _write(self, line: bytes) -> None:
        try:
            if os.fstat(self._handle).st_nlink == 0 or os.fstat(self._handle).st_size != self._end:
                raise BatchError(
                    "this node's ledger of material was changed by somebody else: nothing is taken from it any more"
                )
            if os.write(self._handle, line) == len(line):
                os.fsync(self._handle)
                self._end += len(line)
                return
            why = "the disk is full"
        except OSError as failure:
            why = "the disk is full" if failure.errno in (errno.ENOSPC, errno.EDQUOT) else reason(failure)
        with contextlib.suppress(OSError):
            os.ftruncate(self._handle, self._end)
        raise BatchError(f"the ledger of material cannot be written: {why}")

    def _read(self) -> int:
        content = bytearray()
        while part := os.pread(self._handle, 1 << 20, len(content)):
            content += part
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(self._handle, whole)  # whoever wrote it was stopped before anything came of it
        for number, line in enumerate(bytes(content[:whole]).split(b"\n")[:-1], 1):
            try:
                if len(line) > _LINE_BYTES:
                    raise ValueError("too long")
                fields = json.loads(line)
                batch = self._after(fields)
            except (ValueError, TypeError, KeyError, RecursionError):
                raise BatchError(
                    f"line {number} of {shown(self._path)} cannot be read: it was altered or damaged. Remove the "
                    "directory: what was prepared is lost, and nothing is used twice"
                ) from None
            self._batches[batch.name] = batch
        return whole

    def _after(self, fields: dict[str, Any]) -> Batch:
        """Return a batch after an event."""
        name, event, time = fields["batch"], fields["event"], fields["time"]
        if not is_batch_name(name) or event not in FOLLOWS or not isinstance(time, str):
            raise ValueError("no such event")
        before = self._batches.get(name)
        if (None if before is None else before.state) not in FOLLOWS[event]:
            raise ValueError("it is not known here" if before is None else f"it is {before.state} already")
        if before is None:
            return Batch(name, "begun", _hex(fields["study"]), _hex(fields["salt"]), str(fields.get("code", "")))
        if event == "made":
            size, products = fields["size"], fields["products"]
            if not isinstance(size, int) or not isinstance(products, int):
                raise ValueError("no sizes")
            matching, digest = _hex(fields["matching"]), _hex(fields["digest"])
            return replace(
                before, state=event, matching=matching, digest=digest, size=size, products=products, made=time
            )
        return replace(before, state=event, why=str(fields.get("why", "")))


def _hex(text: object) -> str:
    if not isinstance(text, str) or not _HEX.fullmatch(text):
        raise ValueError("no hash")
    return text
