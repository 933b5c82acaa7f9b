"""How the two processes of an attempt are started: what each is given, and what it is not."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from parties.node import enter
from parties.node.ledger import open_ledger
from parties.node.messages import Assignment
from parties.node.process import Process

START_SECONDS = 60.0
OPEN_FILES = 1024
FILE_BYTES = 256 * 1024 * 1024
# All that the process that computes can write is what it says on standard output and error.
_SAID_BYTES = 16 * 1024 * 1024
# Of our environment the process that computes gets these: where programs and libraries are, language, time zone, and
# the authorities that may vouch for a relay, if they are others than the system's.
_INHERITED = (
    *("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "SOTTOVOCE_KERNELS"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR"),
)
# Run by its path: what is imported before it locks the process in would not be locked in.
_MAIN = [str(Path(enter.__file__).resolve())]
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


def start_worker(assignment: Assignment, exchange: socket.socket, ledger: Path, home: Path, said: IO[bytes]) -> Process:
    """Start the process that computes.

    Parameters
    ----------
    assignment : Assignment
        Of which it is told its limits here, and the rest over the exchange.
    exchange : socket.socket
        Its end; stays ours to close.
    ledger : Path
        Of the node; the process gets it open, and cannot open it again.
    home : Path
        An empty directory, its own.
    said : file
        Takes what it writes on standard output and error.

    Raises
    ------
    OSError
        If it cannot be started.
    """
    limits = assignment.limits
    with open_ledger(ledger) as noted:
        settings = {
            "exchange": exchange.fileno(),
            "ledger": noted.fileno(),
            "cores": limits.cores,
            "memory_mb": limits.memory_mb,
            "cpu_seconds": computing_seconds(assignment),
            "files": OPEN_FILES,
            "file_bytes": _SAID_BYTES,
            **_reach(assignment.reaches),
            "readable": [path for path in (assignment.relaying.ca_file,) if path],
            "hidden": str(ledger.parent.resolve()),
        }
        return Process(
            [*_MAIN, json.dumps(settings)],
            descriptors=(exchange.fileno(), noted.fileno()),
            directory=home,
            environment={
                **{name: os.environ[name] for name in _INHERITED if name in os.environ},
                **dict.fromkeys(_THREADS, str(limits.cores)),
                "HOME": str(home),
                "TMPDIR": str(home),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            stderr=said,
        )


def start_loader(assignment: Assignment, rows: socket.socket, home: Path, said: IO[bytes]) -> Process:
    """Start the process that loads our rows; see :mod:`parties.node.loader`.

    Parameters
    ----------
    assignment : Assignment
        Says where they are.
    rows : socket.socket
        Where it is asked for them; stays ours to close.
    home, said : Path, file
        As above.

    Raises
    ------
    OSError
        If it cannot be started.
    """
    from parties.node.loader import LoaderSettings

    settings = LoaderSettings(
        columns=assignment.study.get("columns"),
        source=assignment.source or {},
        base=assignment.base,
        limits=assignment.limits,
        cpu_seconds=computing_seconds(assignment),
        rows_key=assignment.rows_key,
        rows_digest=assignment.rows_digest,
    )
    with _in_memory(settings.model_dump_json().encode()) as file:
        return Process(
            ["-m", "parties.node.loader", str(rows.fileno())],
            descriptors=(rows.fileno(),),
            directory=home,
            # Drivers of databases find there what they need. It runs no code but ours and theirs.
            environment={**os.environ, "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
            settings=file,
            stderr=said,
        )


def computing_seconds(assignment: Assignment) -> int:
    """Return how much computing time a process of an attempt may take, on all its cores together."""
    return max(1, round(assignment.limits.cores * (assignment.limits.time_seconds + START_SECONDS)))


def _reach(reaches: Sequence[str] | None) -> dict[str, Any]:
    """Return the ports that may be connected to, and whether there are names to resolve."""
    if reaches is None:
        return {"ports": None, "names": True}
    hosts, _, ports = zip(*(place.rpartition(":") for place in reaches), strict=True) if reaches else ((), (), ())
    return {"ports": sorted({int(port) for port in ports}), "names": not all(map(_is_address, hosts))}


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _in_memory(content: bytes) -> IO[bytes]:
    """Return an open file that was never on a disk (Linux), or has no name there."""
    file: IO[bytes]
    if hasattr(os, "memfd_create"):
        file = os.fdopen(os.memfd_create("settings", os.MFD_CLOEXEC), "w+b")
    else:
        file = tempfile.TemporaryFile()
    file.write(content)
    file.seek(0)
    return file
