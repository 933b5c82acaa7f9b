"""Which code runs here, by version and by hash, so that members can compare."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

import mpc
import parties
import protocols


def code_version() -> dict[str, str]:
    """Return the version and the hashes of what is installed.

    Returns
    -------
    dict of str to str
        ``version``; ``sources``, the SHA-256 over names and content of all Python files of ``mpc``,
        ``protocols`` and ``parties``, the same at all members that run the same code; ``kernels``, the
        SHA-256 of the C extension, which differs between compilers (``"none"`` without one).
    """
    try:
        version = metadata.version("sottovoce")
    except metadata.PackageNotFoundError:
        version = "not installed"
    folders = [Path(package.__path__[0]) for package in (mpc, parties, protocols)]
    return {"version": version, "sources": _digest(folders, "*.py"), "kernels": _digest(folders, "*.so")}


def _digest(folders: list[Path], pattern: str) -> str:
    files = {
        f"{folder.name}/{path.relative_to(folder).as_posix()}": path
        for folder in folders
        for path in folder.rglob(pattern)
    }
    if not files:
        return "none"
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(name.encode() + b"\0" + hashlib.sha256(files[name].read_bytes()).digest())
    return total.hexdigest()
