"""Processes of a node: Python in a session of its own, which inherits what it is given and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import site
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_POLL_SECONDS = 0.02
# How long a killed process may take to be gone: only a system call that hangs holds it.
_KILLED_SECONDS = 5.0
_ORPHANED_STATUS = 71


class Process:
    """A child, from its start until nothing is left of it.

    Parameters
    ----------
    arguments : sequence of str
        For Python; everybody on the machine can read them.
    descriptors : sequence of int
        Those that it is given, under the same numbers.
    directory : Path
        Where it works.
    environment : mapping
        Its whole environment, but for what finds our packages.
    settings : file, optional
        Its standard input; by default nothing.
    stderr : file
        Where it writes what it says, on standard output too.

    Notes
    -----
    On Linux the system kills it when the thread that started it ends: start it in the thread that lives
    as long as the node, which is the event loop's.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        descriptors: Sequence[int],
        directory: Path,
        environment: Mapping[str, str],
        stderr: IO[bytes],
        settings: IO[bytes] | None = None,
    ) -> None:
        self._popen = subprocess.Popen(  # noqa: S603 - our own interpreter, our own modules
            [sys.executable, "-P", *arguments],
            stdin=subprocess.DEVNULL if settings is None else settings,
            stdout=stderr,
            stderr=stderr,
            pass_fds=tuple(descriptors),
            cwd=directory,
            env={**environment, **_import_path(environment)},
            start_new_session=True,
        )
        self.pid = self._popen.pid
        self.killed = False

    def has_ended(self) -> bool:
        """Whether it has ended; it may still have to be reaped."""
        if self._popen.returncode is not None:
            return True
        if not hasattr(os, "waitid"):
            return self._popen.poll() is not None
        # WNOWAIT: until it is reaped, its process group cannot become another's.
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    async def wait(self) -> None:
        """Wait until it has ended by itself."""
        if self.has_ended():
            return
        try:
            handle = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # not Linux, or no descriptor is left
            while not self.has_ended():  # noqa: ASYNC110 - then only asking tells
                await asyncio.sleep(_POLL_SECONDS)
            return
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        try:
            loop.add_reader(handle, over.set)
            try:
                await over.wait()
            finally:
                loop.remove_reader(handle)
        finally:
            os.close(handle)

    def kill(self) -> None:
        """Kill it, and what it may have started in its process group."""
        if self._popen.returncode is None:
            self.killed = self.killed or not self.has_ended()
            with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left in it
                os.killpg(self.pid, signal.SIGKILL)

    async def end(self) -> None:
        """Kill what is left, and reap it."""
        self.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KILLED_SECONDS):
                await self.wait()
        self._popen.poll()

    def how_it_ended(self) -> str:
        """Say how it ended, for people, once it was reaped."""
        status = self._popen.returncode
        if status is None:
            return "the system cannot end it"
        if self.killed:
            return "it closed its connection to the node, went on, and was killed"
        if status >= 0:
            return f"it ended with status {status}"
        how = f"it was killed by signal {-status} ({_signal_name(-status)})"
        if -status == signal.SIGKILL:
            how += "; if nobody did that on purpose, the machine may be short of memory"
        elif -status == signal.SIGXCPU:
            how += ", since it took more computing time than it may"
        return how


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _import_path(environment: Mapping[str, str]) -> dict[str, str]:
    """Say where our packages are, unless the interpreter looks there anyway."""
    root = str(Path(__file__).resolve().parents[2])
    known = {str(Path(place).resolve()) for place in site.getsitepackages()}
    if root in known:
        return {}
    rest = environment.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([root, rest] if rest else [root])}


def follow(lifeline: int) -> None:
    """End when the other end of a socket is closed, whatever ended its process.

    A thread waits for that: an event loop that is busy would not see it. On Linux the system kills us as
    well (:func:`parties.node.enter.belong_to_node`).
    """
    threading.Thread(target=_end_with, args=(lifeline,), name="lifeline", daemon=True).start()


def _end_with(lifeline: int) -> None:
    poll = select.poll()
    poll.register(lifeline, 0)  # tells of nothing but that the other end is closed
    poll.poll()
    os._exit(_ORPHANED_STATUS)
