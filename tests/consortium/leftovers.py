"""What a consortium that has ended may have left behind: processes, listening ports, sockets, temporary files."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path


def processes_in(folder: Path) -> dict[int, str]:
    """Return the processes, other than ours, that were started for this folder: what they run, by process id.

    They work in it, name it in their arguments, or hold a file of it open. A worker is found by its working
    directory, whatever its parent has become.
    """
    ours = {os.getpid(), os.getppid()}
    return {pid: found for pid in _pids() - ours if (found := _belongs(pid, str(folder)))}


def _pids() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()}


def _belongs(pid: int, folder: str) -> str:
    base = Path("/proc", str(pid))
    try:
        state, parent, *_ = (base / "stat").read_text("utf-8").rpartition(")")[2].split()
        if state == "Z":  # it has ended; its parent has not asked for the status yet
            return ""
        arguments = (base / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:  # it ended while we looked
        return ""
    try:
        if folder in arguments or os.readlink(base / "cwd").startswith(folder):
            return arguments or "?"
        for handle in os.listdir(base / "fd"):
            if os.readlink(base / "fd" / handle).startswith(folder):
                return arguments or "?"
    except PermissionError:
        # A worker lets nobody look in but root. One that has lost its node should be gone, whosesoever it was.
        return arguments if parent == "1" and "parties.node." in arguments else ""
    except OSError:
        return ""
    return ""


def answering(ports: Iterable[int], host: str = "127.0.0.1") -> list[int]:
    """Return those of the ports on which somebody accepts connections."""
    found = []
    for port in ports:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex((host, port)) == 0:
                found.append(port)
    return found


def sockets_in(folder: Path) -> list[str]:
    """Return the Unix sockets below a folder that a process still holds."""
    lines = Path("/proc/net/unix").read_text("utf-8").splitlines()[1:]
    paths = [line.split(maxsplit=7)[-1] for line in lines if len(line.split(maxsplit=7)) == 8]
    return sorted({path for path in paths if path.startswith(str(folder))})


def left_behind(folder: Path, ports: Iterable[int] = (), *, patience_seconds: float = 5.0) -> list[str]:
    """Return a sentence for each thing that is still there after a moment; none is how it should be."""
    deadline = time.monotonic() + patience_seconds
    while True:
        found = [f"process {pid}: {what}" for pid, what in sorted(processes_in(folder).items())]
        found += [f"port {port} answers" for port in answering(ports)]
        found += [f"socket {path}" for path in sockets_in(folder)]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def open_files(pid: int) -> int:
    """Return how many files, sockets included, a process holds."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory_mb(pid: int) -> float:
    """Return what a process holds in memory and no other shares, in MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8").splitlines()
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:"))]
    return sum(kilobytes) / 1000
