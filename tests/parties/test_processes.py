"""Child processes: reports come back, deaths are seen, and nobody is left behind."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from parties.processes import Child, run_forked

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")


def run(*functions: Callable[[], bytes], timeout: float = 20.0, grace: float = 0.2) -> list[Child]:
    return run_forked(
        functions,
        timeout_seconds=timeout,
        grace_seconds=grace,
        is_failure=lambda report: report.startswith(b"failed"),
    )


@pytest.fixture(autouse=True)
def _nobody_is_left() -> Iterator[None]:
    yield
    with pytest.raises(ChildProcessError):  # there is no child to wait for
        os.waitpid(-1, os.WNOHANG)


def sleep() -> bytes:
    time.sleep(60)
    return b""


def kill_myself() -> bytes:
    os.kill(os.getpid(), signal.SIGKILL)
    return b""


def test_reports_of_any_size_come_back() -> None:
    sizes = [0, 1, 65536, 30_000_000]
    children = run(*(lambda size=size: b"x" * size for size in sizes))
    assert [child.report for child in children] == [b"x" * size for size in sizes]
    assert [child.status for child in children] == [0] * 4


def test_children_work_side_by_side_and_in_processes_of_their_own() -> None:
    children = run(*[lambda: str(os.getpid()).encode()] * 3)
    assert len({child.report for child in children} | {str(os.getpid()).encode()}) == 4


def test_a_killed_child_is_seen_at_once() -> None:
    began = time.monotonic()
    dead, other = run(kill_myself, sleep)
    assert time.monotonic() - began < 10
    assert (dead.report, dead.signal, dead.stopped) == (None, signal.SIGKILL, False)
    assert (other.report, other.stopped) == (None, True)


def test_an_exception_is_an_exit_status() -> None:
    def fail() -> bytes:
        raise ValueError

    def leave() -> bytes:
        os._exit(3)

    assert [child.status for child in run(fail, leave)] == [70, 3]


def test_half_a_report_is_none() -> None:
    def stop_halfway() -> bytes:
        threading.Timer(0.02, lambda: os._exit(0)).start()
        return bytes(10**8)  # more than fits into a pipe, or is likely to be read until then

    child = run(stop_halfway)[0]
    assert child.report is None or len(child.report) == 10**8


def test_after_a_failure_the_others_get_their_grace() -> None:
    def soon() -> bytes:
        time.sleep(0.3)
        return b"done"

    failed, slow, stuck = run(lambda: b"failed", soon, sleep, grace=0.8)
    assert (failed.report, slow.report, stuck.report, stuck.stopped) == (b"failed", b"done", None, True)


def test_a_run_that_takes_too_long_is_ended() -> None:
    began = time.monotonic()
    done, late = run(lambda: b"done", sleep, timeout=0.3)
    assert time.monotonic() - began < 10
    assert (done.report, late.report, late.stopped) == (b"done", None, True)


def test_a_run_can_be_cancelled() -> None:
    cancelled = threading.Event()
    threading.Timer(0.2, cancelled.set).start()
    (child,) = run_forked(
        [sleep], timeout_seconds=20, grace_seconds=1, is_failure=lambda report: False, cancelled=cancelled
    )
    assert child.stopped


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_leaves_nobody() -> None:
    def interrupt_parent() -> bytes:
        time.sleep(0.2)
        os.kill(os.getppid(), signal.SIGINT)
        return sleep()

    with pytest.raises(KeyboardInterrupt):
        run(interrupt_parent, sleep)


def test_an_interrupt_from_the_keyboard_is_the_parents_business() -> None:
    def interrupt_myself() -> bytes:
        os.kill(os.getpid(), signal.SIGINT)
        return b"still here"

    assert run(interrupt_myself)[0].report == b"still here"


@pytest.mark.skipif(sys.platform == "win32", reason="looks for processes by signal 0")
def test_children_end_when_their_parent_is_killed() -> None:
    """A parent in the middle is killed with SIGKILL; its children, even busy ones, end by themselves."""
    reading, writing = os.pipe()

    def busy() -> bytes:
        os.write(writing, f"{os.getpid()}\n".encode())
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            sum(range(1000))
        return b""

    parent = os.fork()
    if parent == 0:
        with contextlib.suppress(BaseException):
            run(busy, busy)
        os._exit(0)
    try:
        told = b""
        while told.count(b"\n") < 2:
            told += os.read(reading, 100)
        children = [int(line) for line in told.split()]
    finally:
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        os.close(reading)
        os.close(writing)
    deadline = time.monotonic() + 5
    while any(is_running(pid) for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether a process, which is no child of ours, runs; one that has ended and was not yet reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return not os.path.isdir("/proc/self")
