"""Reading files that others may have written, and writing files that must survive a crash."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path

from parties.governance.errors import GovernanceError


def read_bounded(
    path: Path,
    *,
    limit: int,
    what: str,
    error: type[GovernanceError],
    private: bool = False,
    trusted: bool = False,
) -> bytes:
    """Read a regular file of bounded size.

    Parameters
    ----------
    path : Path
    limit : int
        The most bytes.
    what : str
        What the file is, for messages.
    error : type
        The class of error to raise.
    private : bool
        Refuse a file that others than its owner can read or write, or that belongs to somebody else.
    trusted : bool
        Refuse a file that everybody can write.
    """
    try:
        # Not blocking: opening a pipe that somebody put there would wait for ever.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as failure:
        raise error(f"{what} {shown(path)} cannot be read: {reason(failure)}") from None
    facts = os.fstat(handle)
    if not stat.S_ISREG(facts.st_mode):
        os.close(handle)
        raise error(f"{what} {shown(path)} is not a regular file")
    with open(handle, "rb") as file:
        if trusted and facts.st_mode & stat.S_IWOTH:
            raise error(f"{what} {shown(path)} can be written by everybody: chmod o-w {shown(path)}")
        if private and facts.st_uid not in (os.geteuid(), 0):
            raise error(
                f"{what} {shown(path)} belongs to another user (uid {facts.st_uid}): chown it to the node's user"
            )
        if private and facts.st_mode & 0o077 and not _is_credential(path, facts):
            raise error(
                f"{what} {shown(path)} can be read or written by others (mode {stat.S_IMODE(facts.st_mode):o}): "
                f"chmod 600 {shown(path)}"
            )
        try:
            data = file.read(limit + 1)
        except OSError as failure:
            raise error(f"{what} {shown(path)} cannot be read: {reason(failure)}") from None
    if len(data) > limit:
        raise error(f"{what} {shown(path)} is larger than {limit} bytes")
    return data


def _is_credential(path: Path, facts: os.stat_result) -> bool:
    """Whether systemd passed this file to us, and to nobody else.

    It belongs to root, in a directory of root's that it made for this service. What shows as the right of a
    group to read is the mask of an access list that names our user alone.
    """
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory or path.parent != Path(directory) or facts.st_uid != 0 or facts.st_mode & 0o077 != 0o040:
        return False
    around = os.stat(directory)
    return around.st_uid == 0 and not around.st_mode & 0o022


def write_new(path: Path, data: bytes, *, mode: int, what: str, error: type[GovernanceError]) -> None:
    """Write a file that must not exist yet; it is there with all its content or not at all."""
    try:
        temporary = _write_beside(path, data, mode)
        try:
            _name(temporary, path)
        finally:
            os.unlink(temporary)
        sync_directory(path.parent)
    except FileExistsError:
        raise error(f"{what} {shown(path)} exists already and is not overwritten: remove it, or name another") from None
    except OSError as failure:
        raise error(f"{what} {shown(path)} cannot be written: {reason(failure)}") from None


def replace(path: Path, data: bytes, *, mode: int, what: str, error: type[GovernanceError]) -> None:
    """Write a file in place of the one that may be there; whoever reads sees the old or the new."""
    try:
        temporary = _write_beside(path, data, mode)
        try:
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        sync_directory(path.parent)
    except OSError as failure:
        raise error(f"{what} {shown(path)} cannot be written: {reason(failure)}") from None


def make_private_directory(path: Path, *, error: type[GovernanceError]) -> None:
    """Make a directory that only we can enter, unless it is there; its parents get the usual mode."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_dir():
            path.mkdir(mode=0o700, exist_ok=True)
            sync_directory(path.parent)
    except OSError as failure:
        raise error(f"directory {shown(path)} cannot be made: {reason(failure)}") from None


def reason(failure: OSError) -> str:
    """Say in words why the system refused."""
    return (failure.strerror or type(failure).__name__).lower()


def shown(path: Path) -> str:
    """Return a path in a form that is fit for a terminal and a log: one line, no control characters."""
    text = os.fspath(path)
    return text if text.isprintable() else ascii(text)


def _write_beside(path: Path, data: bytes, mode: int) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
    except OSError:
        os.unlink(temporary)
        raise
    return temporary


def _name(temporary: Path, path: Path) -> None:
    """Give a file its name; unlike a rename, this never replaces what is there."""
    try:
        os.link(temporary, path)
    except OSError as failure:
        if failure.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        # A file system without hard links: the name is taken first, and then filled.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.replace(temporary, path)
        temporary.touch(mode=0o600)  # for the caller to remove


def sync_directory(path: Path) -> None:
    """Have the names in a directory on the disk: a file that was made, renamed or removed there."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
