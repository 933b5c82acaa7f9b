"""The depot: material that was made ahead of time, sealed on this node's disk, each batch used once or never.

A directory with the ledger (:mod:`parties.node.batches`) and one sealed file for each batch that is left. A file gets
its name when it is whole; it loses it when its batch is spent, before the first of its bytes is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from parties.governance.files import make_private_directory, reason, sync_directory
from parties.node.batches import ENDED, UNSPENT, Batch, BatchError, BatchLedger, is_batch_name
from parties.node.sealing import SALT_BYTES, Opener, Sealer
from parties.node.store import RESERVE_BYTES

LEDGER = "batches.jsonl"
# What the others are told of what is over, so that they see what they missed.
_MOST_ENDED = 256
_SUFFIX = ".sealed"
# Several studies may write at once, each a piece between two looks at the disk.
_ROOM_BYTES = 16 << 20

# Derives a key from a salt, and from the node's key.
Derive = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Offer:
    """What a party says of a batch to the others."""

    name: str
    state: str
    matching: str


@dataclass(frozen=True, slots=True)
class Left:
    """What is left for one study: batches, bytes, entries of products, and when the oldest was made."""

    batches: int
    size: int
    products: int
    oldest: str


def matching_hash(*, study: str, batch: str, parties: int, structure: str, products: int) -> str:
    """Return the hash that all parties of a batch compute alike, from what is public about it."""
    terms = json.dumps([study, batch, parties, structure, products], separators=(",", ":"))
    return hashlib.sha256(b"sottovoce batch 1\n" + terms.encode()).hexdigest()


class Making:
    """A batch that is being made: a file without a name; see :meth:`Depot.begin`."""

    def __init__(self, name: str, file: IO[bytes], path: Path, key: bytes, header: dict[str, Any]) -> None:
        self.name = name
        self.key = key
        self.header = header
        self._file = file
        self._path = path
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Write bytes that are sealed."""
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def sealer(self) -> Sealer:
        """Return what seals; for one who has the key."""
        return Sealer(self.write, self.key, self.header)

    def close(self) -> str:
        """Bring it all to the disk; returns its hash."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._hash.hexdigest()

    def drop(self) -> None:
        """Leave nothing of it, on a full disk, too."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink()


class Taken:
    """A batch that was spent: its bytes can be read once, and its file has no name any more."""

    def __init__(self, batch: Batch, file: IO[bytes], key: bytes, header: dict[str, Any]) -> None:
        self.name = batch.name
        self.batch = batch
        self.key = key
        self.header = header
        self._file = file
        self._hash = hashlib.sha256()

    def __enter__(self) -> Taken:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, count: int) -> bytes:
        """Read sealed bytes."""
        data = self._file.read(count)
        self._hash.update(data)
        return data

    def opener(self) -> Opener:
        """Return what opens; for one who has the key."""
        return Opener(self.read, self.key, self.header)

    @property
    def is_ours(self) -> bool:
        """Whether what was read to the end is what the ledger says that we have written."""
        return self._hash.hexdigest() == self.batch.digest

    def close(self) -> None:
        """Give it back to the system."""
        self._file.close()


class Depot:
    """The depot of one node; held by one process at a time.

    Parameters
    ----------
    directory : Path
        Made if there is none, for us alone.
    derive : callable
        Makes the key of a file from its salt.
    now : callable
        Returns the time as text.
    most_bytes : int, optional
        What all files together may take.
    code : str, optional
        What tells one version of the code from another: material is used by the one that made it, and discarded by
        others, which may want something else under the same name.

    Raises
    ------
    BatchError
        It is held, or damaged.

    Notes
    -----
    What a crash has left half-made is discarded here, and what lost its file.
    """

    def __init__(
        self,
        directory: Path,
        derive: Derive,
        now: Callable[[], str],
        *,
        most_bytes: int | None = None,
        code: str = "",
    ) -> None:
        make_private_directory(directory, error=BatchError)
        self.directory = directory
        self.most_bytes = most_bytes
        self._code = code
        self._derive = derive
        self._makings: dict[str, Making] = {}
        self._ledger = BatchLedger(directory / LEDGER, now)
        try:
            self._sweep()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process hold it."""
        self._ledger.close()

    def _sweep(self) -> None:
        # Files first: if they fill the disk, nothing could be noted before they are gone.
        known = {batch.name for batch in self._ledger if batch.state in UNSPENT}
        for path in self.directory.iterdir():
            if path.name.startswith(".") or (path.suffix == _SUFFIX and path.stem not in known):
                path.unlink(missing_ok=True)
        for batch in self._ledger:
            if batch.state == "begun":
                self.discard(batch.name, "half made when the node went down")
            elif batch.state in UNSPENT and not self._is_there(batch):
                self.discard(batch.name, "its file is gone, or was cut off")
            elif batch.state in UNSPENT and batch.code != self._code:
                self.discard(batch.name, "another version of the code made it")

    def _path(self, name: str) -> Path:
        if not is_batch_name(name):  # it becomes a path
            raise BatchError("no name of a batch")
        return self.directory / f"{name}{_SUFFIX}"

    def _is_there(self, batch: Batch) -> bool:
        try:
            return self._path(batch.name).stat().st_size == batch.size
        except OSError:
            return False

    # ---- making ---------------------------------------------------------------------------------

    def begin(self, study: str, name: str) -> Making:
        """Begin a batch.

        Raises
        ------
        BatchError
            There was one of this name, or it cannot be written.
        """
        salt = secrets.token_bytes(SALT_BYTES)
        path = self._path(name)
        self._ledger.note("begun", name, study=study, salt=salt.hex(), code=self._code)
        part = path.with_name(f".{name}")
        try:
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as failure:
            self.discard(name, "its file cannot be written")
            raise BatchError(f"material cannot be written: {reason(failure)}") from None
        making = Making(name, os.fdopen(handle, "wb"), part, self._derive(salt), header_of(name, study, salt.hex()))
        self._makings[name] = making
        return making

    def check_room(self, more: int) -> None:
        """Refuse to take more bytes than there is room for, of all batches together.

        Raises
        ------
        BatchError
            They would be above ``most_bytes``, or the disk is all but full.
        """
        if self.most_bytes is not None:
            held = self.left().size + sum(making.size for making in list(self._makings.values()))
            if held + more > self.most_bytes:
                raise BatchError(f"material may take {self.most_bytes >> 20} MiB here (limits.material_mb)")
        facts = os.statvfs(self.directory)
        if facts.f_bavail * facts.f_frsize < RESERVE_BYTES + _ROOM_BYTES + more:
            raise BatchError("material cannot be written: the disk is full")

    def made(self, making: Making, *, matching: str, products: int) -> None:
        """Take note that a batch is whole; when this returns, it is on the disk with its name."""
        path = self._path(making.name)
        try:
            digest = making.close()
            os.rename(path.with_name(f".{making.name}"), path)
            sync_directory(self.directory)
            facts: dict[str, Any] = {"digest": digest, "size": making.size, "products": products}
            self._ledger.note("made", making.name, matching=matching, **facts)
        except OSError as failure:
            self.drop(making, "its file could not be written")
            raise BatchError(f"material cannot be written: {reason(failure)}") from None
        except BatchError:
            with contextlib.suppress(BatchError):  # it may be the ledger that cannot be written
                self.drop(making, "that it was made could not be noted")
            raise
        self._makings.pop(making.name, None)

    def drop(self, making: Making, why: str) -> None:
        """Leave nothing of a batch that is being made."""
        making.drop()
        self._makings.pop(making.name, None)
        self.discard(making.name, why)

    def ready(self, name: str) -> None:
        """Take note that all parties have the batch."""
        self._ledger.note("ready", name)

    # ---- using ----------------------------------------------------------------------------------

    def offers(self, study: str) -> list[Offer]:
        """Return what we have for a study, the oldest first, and what we had."""
        for batch in self._ledger:
            if batch.study == study and batch.state in UNSPENT and not self._is_there(batch):
                self.discard(batch.name, "its file is gone, or was cut off")
        ours = [batch for batch in self._ledger if batch.study == study and batch.state != "begun"]
        ended = [batch for batch in ours if batch.state in ENDED][-_MOST_ENDED:]
        left = [batch for batch in ours if batch.state in UNSPENT]
        return [Offer(batch.name, batch.state, batch.matching) for batch in (*left, *ended)]

    def take(self, name: str, why: str) -> Taken:
        """Spend a batch: from when this returns, nobody will ever read its file again but who has it now.

        Raises
        ------
        BatchError
            It was spent before, or this cannot be noted.
        """
        path = self._path(name)
        before = self._ledger.get(name)
        if before is None or before.state not in UNSPENT:
            raise BatchError(f"batch {name} is not there to be used")
        batch = self._ledger.note("spent", name, why=why)
        with contextlib.ExitStack() as undo:
            try:
                file = undo.enter_context(path.open("rb"))
                path.unlink()
                sync_directory(self.directory)
            except OSError as failure:
                raise BatchError(f"batch {name} cannot be read: {reason(failure)}; it is not used") from None
            undo.pop_all()
        return Taken(batch, file, self._derive(bytes.fromhex(batch.salt)), header_of(name, batch.study, batch.salt))

    def discard(self, name: str, why: str) -> None:
        """Never use a batch.

        Raises
        ------
        BatchError
            That cannot be noted. Its file is gone nevertheless, so it will be discarded.
        """
        for path in (self._path(name), self._path(name).with_name(f".{name}")):
            with contextlib.suppress(OSError):  # one that stays is not in the ledger's list when the node starts
                path.unlink(missing_ok=True)
        self._ledger.note("discarded", name, why=why)

    def forget(self, study: str) -> None:
        """Discard what is left for a study that is over."""
        for batch in self._ledger:
            if batch.study == study and batch.state in UNSPENT:
                self.discard(batch.name, "the study is over")

    # ---- looking --------------------------------------------------------------------------------

    def batch(self, name: str) -> Batch | None:
        """Return what is known of a batch."""
        return self._ledger.get(name)

    def batches(self) -> list[Batch]:
        """Return all that there ever were, in the order in which they were begun."""
        return list(self._ledger)

    def left(self, study: str | None = None) -> Left:
        """Return what is left for a study, or for all."""
        left = [batch for batch in self._ledger if batch.state in UNSPENT and study in (None, batch.study)]
        return Left(
            batches=len(left),
            size=sum(batch.size for batch in left),
            products=sum(batch.products for batch in left),
            oldest=min((batch.made for batch in left), default=""),
        )


def header_of(name: str, study: str, salt: str) -> dict[str, Any]:
    """Return the header of a batch's file."""
    return {"format": 1, "batch": name, "study": study, "salt": salt}
