"""Removing what workers leave: directories of theirs, in which a program may have done what it liked."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

# How the name of a worker's directory begins.
HOME = "worker-"


def clear_away(directory: Path) -> None:
    """Remove what workers left whose node was killed; to be called before any worker is started.

    Parameters
    ----------
    directory : Path
        That of :meth:`parties.node.workers.Worker.start`, or the one above it.
    """
    for study in (directory, *directory.glob("*")):
        for home in study.glob(f"{HOME}*"):
            remove(home)


def remove(home: Path) -> None:
    """Remove a worker's directory, as far as that can be done; raises nothing."""
    # Deeper directories than Python can go down may be there only where nothing confines programs.
    with contextlib.suppress(RecursionError):
        shutil.rmtree(home, ignore_errors=True)
