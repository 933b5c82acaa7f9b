"""Child processes by fork: each runs one function and hands one report back through a pipe.

Fork, because a program may be defined anywhere: in a script, in a notebook, inside a function. Nothing
is imported again and nothing is pickled on the way in.

No child outlives its parent: each holds the reading end of a pipe whose writing end only the parent
has, and ends when that pipe does, whatever ended the parent.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

_SIZE = struct.Struct("<Q")
_POLL_SECONDS = 0.1
_READ_BYTES = 1024 * 1024
_FAILED_STATUS = 70


@dataclass(slots=True)
class Child:
    """A child process, and what became of it.

    Attributes
    ----------
    report : bytes or None
        What its function returned; None if it ended without.
    signal : int or None
        What killed it.
    status : int or None
        Its exit status, where it had one; None while it runs.
    stopped : bool
        Whether it was we who killed it.
    """

    pid: int
    pipe: int
    report: bytes | None = None
    signal: int | None = None
    status: int | None = None
    stopped: bool = False
    received: bytearray | None = None

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.signal is None and self.status is None


def run_forked(
    functions: Sequence[Callable[[], bytes]],
    *,
    timeout_seconds: float,
    grace_seconds: float,
    is_failure: Callable[[bytes], bool],
    cancelled: threading.Event | None = None,
) -> list[Child]:
    """Run each function in a process of its own and wait until all have ended.

    When one fails, the others get ``grace_seconds`` to end by themselves; then, and when the whole run
    takes too long, they are killed. However this function ends, no child is left.

    Parameters
    ----------
    functions : sequence of callable
        Each returns its report.
    timeout_seconds : float
        For the whole run.
    grace_seconds : float
        For the others after the first failure.
    is_failure : callable
        Whether a report tells of a failure.
    cancelled : threading.Event, optional
        Ends the run when set.

    Returns
    -------
    list of Child
        In the order of ``functions``.
    """
    deadline = time.monotonic() + timeout_seconds
    lifeline, held_by_us = os.pipe()
    children: list[Child] = []
    try:
        for function in functions:
            children.append(_fork(function, children, lifeline, held_by_us))
        _supervise(children, deadline, grace_seconds, is_failure, cancelled)
    finally:
        for child in children:
            _stop(child)
        os.close(lifeline)
        os.close(held_by_us)
    return children


# ---- the child's side ---------------------------------------------------------------------------


def _fork(function: Callable[[], bytes], siblings: Sequence[Child], lifeline: int, held_by_us: int) -> Child:
    reading, writing = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        # What is buffered would be written by the child once more. A stream may be absent or closed.
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.flush()
    with warnings.catch_warnings():
        # Python 3.12 warns of a fork while other threads run, since the child may inherit a lock that
        # one of them held. The child begins with nothing but an event loop of its own, its parent's
        # threads being a notebook's, a test runner's, or those of BLAS, which knows how to fork.
        warnings.filterwarnings("ignore", r".*fork\(\) may lead to deadlocks", DeprecationWarning)
        try:
            pid = os.fork()
        except OSError:
            os.close(reading)
            os.close(writing)
            raise
    if pid == 0:
        _be_the_child(function, [reading, held_by_us, *(child.pipe for child in siblings)], lifeline, writing)
    os.close(writing)
    return Child(pid, reading, received=bytearray())


def _be_the_child(function: Callable[[], bytes], not_ours: Sequence[int], lifeline: int, writing: int) -> NoReturn:
    """Run the function, write its report, end; whatever happens, the parent's code does not go on here."""
    status = _FAILED_STATUS
    try:
        for handle in not_ours:
            os.close(handle)
        # The parent alone decides what an interrupt from the keyboard means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()
        report = function()
        for part in (_SIZE.pack(len(report)), report):
            view = memoryview(part)
            while view:
                view = view[os.write(writing, view[:_READ_BYTES]) :]
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, ValueError, OSError):
                stream.flush()
        status = 0
    finally:
        os._exit(status)


def _end_with_parent(lifeline: int) -> None:
    os.read(lifeline, 1)  # nobody ever writes: it returns when the parent is gone
    os._exit(_FAILED_STATUS)


# ---- the parent's side --------------------------------------------------------------------------


def _supervise(
    children: Sequence[Child],
    deadline: float,
    grace_seconds: float,
    is_failure: Callable[[bytes], bool],
    cancelled: threading.Event | None,
) -> None:
    with selectors.DefaultSelector() as selector:
        for child in children:
            selector.register(child.pipe, selectors.EVENT_READ, child)
        while any(child.running for child in children):
            now = time.monotonic()
            if now >= deadline or (cancelled is not None and cancelled.is_set()):
                return
            for key, _ in selector.select(min(_POLL_SECONDS, deadline - now)):
                child = key.data
                if not _read(child):
                    selector.unregister(child.pipe)
            for child in children:
                # The end of its pipe says that a child has ended; if a process that it started holds
                # the pipe open, only asking for its status does.
                if child.running and _reap(child):
                    failed = child.report is None or is_failure(child.report)
                    if failed:
                        deadline = min(deadline, time.monotonic() + grace_seconds)


def _read(child: Child) -> bool:
    """Take what is in a child's pipe; False at its end."""
    part = os.read(child.pipe, _READ_BYTES)
    if not part or child.received is None:
        return False
    received = child.received
    received += part
    return True


def _reap(child: Child) -> bool:
    pid, status = os.waitpid(child.pid, os.WNOHANG)
    if pid == 0:
        return False
    _note_end(child, status)
    received, child.received = child.received, None
    if received is not None:
        # What it wrote before it ended may still be in the pipe.
        os.set_blocking(child.pipe, False)
        with contextlib.suppress(BlockingIOError):
            while part := os.read(child.pipe, _READ_BYTES):
                received += part
        if len(received) >= _SIZE.size and len(received) - _SIZE.size == _SIZE.unpack_from(received)[0]:
            child.report = bytes(received[_SIZE.size :])
    return True


def _stop(child: Child) -> None:
    """Kill a child that still runs, and close its pipe."""
    if child.running:
        child.stopped = True
        os.kill(child.pid, signal.SIGKILL)
        _note_end(child, os.waitpid(child.pid, 0)[1])
    os.close(child.pipe)


def _note_end(child: Child, status: int) -> None:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        child.signal = -code
    else:
        child.status = code
