"""A program of somebody else tries what it can, and a worker that does not keep to the rules."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mpc import DataError
from mpc.memory import run_in_memory
from parties.node import enter, workers
from parties.node.messages import MessageError, from_worker
from parties.node.process import Process
from parties.node.program import ProgramError, load_program, plain, run_program
from parties.node.workers import Assignment, Failed, Finished, Limits, Opened, Worker, WorkerError
from tests.node.support import children, on_uvloop, open_descriptors
from tests.node.teams import LIMITS, Team, study_with, team
from tests.ports import free_ports

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path):
    before = open_descriptors(), children()
    yield
    assert (open_descriptors(), children()) == before
    assert list(tmp_path.glob("**/worker-*")) == []


# ---- a hostile program --------------------------------------------------------------------------

PROGRAM = '''
import ctypes, fcntl, os, resource, signal, socket, subprocess, sys, threading

NODE = {node!r}

def attempt(what):
    try:
        done = what()
    except BaseException as error:
        return type(error).__name__
    return "done: " + repr(done)[:60]

def read(path):
    with open(path, "rb") as file:
        return len(file.read())

def write(path):
    with open(path, "wb") as file:
        return file.write(b"x")

def trace(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, pid, None, None) != 0:
        raise OSError(ctypes.get_errno(), "refused")

def whisper(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)

def call(name, *given):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*given) == -1:
        raise OSError(ctypes.get_errno(), "refused")

def grow():
    return len(bytearray(2 * 2**30))

def find_settings():
    """Look through all our memory for what the process that loads the rows was told."""
    import gc
    mark = "".join(["unmention", "able"])
    seen, found, look = set(), [], gc.get_objects()
    while look:
        thing = look.pop()
        if id(thing) in seen or thing is mark:
            continue
        seen.add(id(thing))
        if isinstance(thing, (str, bytes, bytearray)):
            text = thing if isinstance(thing, str) else bytes(thing).decode("latin-1")
            if mark in text:
                found.append(type(thing).__name__)
        else:
            look += gc.get_referents(thing)
    return found

def is_ledger(handle):
    try:
        return os.path.samestat(os.fstat(handle), os.stat(NODE + "/ledger"))
    except OSError:
        return False

def is_limited(which):
    return resource.getrlimit(which)[1] != resource.RLIM_INFINITY

async def study(party, table):
    print("rows:", table.columns)
    parent = os.getppid()
    return {{
        "rows": table.rows,
        "own directory": attempt(lambda: write("own")),
        "key": attempt(lambda: read(NODE + "/key.pem")),
        "rows of the node": attempt(lambda: read(NODE + "/rows.csv")),
        "ledger": attempt(lambda: read(NODE + "/ledger")),
        "ledger, written": attempt(lambda: write(NODE + "/ledger")),
        "listed": attempt(lambda: os.listdir(NODE)),
        "key, by name of the process": attempt(lambda: read(f"/proc/{{parent}}/environ")),
        "passwords": attempt(lambda: read("/etc/passwd")),
        "home": attempt(lambda: os.listdir("/root")),
        "written elsewhere": attempt(lambda: write(NODE + "/../was-here")),
        "program": attempt(lambda: subprocess.run(["/bin/true"])),
        "fork": attempt(os.fork),
        "exec": attempt(lambda: os.execv("/bin/true", ["true"])),
        "kill": attempt(lambda: os.kill(parent, signal.SIGTERM)),
        "kill all": attempt(lambda: os.killpg(os.getpgid(0), signal.SIGTERM)),
        "trace": attempt(lambda: trace(parent)),
        "local service": attempt(lambda: whisper(NODE + "/node.sock")),
        "other port": attempt(lambda: socket.create_connection(("127.0.0.1", 9), 1)),
        "datagram": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
        "listen": attempt(lambda: socket.create_server(("127.0.0.1", 0))),
        "raw packets": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),
        "more memory": attempt(grow),
        "limits lifted": attempt(lambda: resource.setrlimit(resource.RLIMIT_DATA, (-1, -1))),
        "own session": attempt(os.setsid),
        "rights": attempt(lambda: os.chmod(NODE + "/key.pem", 0o644)),
        "owner": attempt(lambda: os.chown(NODE + "/key.pem", 1, 1)),
        "times": attempt(lambda: os.utime(NODE + "/key.pem")),
        "mark": attempt(lambda: os.setxattr(NODE + "/key.pem", "user.x", b"y")),
        "shortened": attempt(lambda: os.truncate(NODE + "/ledger", 0)),
        "removed": attempt(lambda: os.unlink(NODE + "/key.pem")),
        "renamed": attempt(lambda: os.rename(NODE + "/key.pem", "key.pem")),
        "linked": attempt(lambda: os.link(NODE + "/key.pem", "key.pem")),
        "slowed down": attempt(lambda: os.setpriority(os.PRIO_PROCESS, parent, 19)),
        "moved": attempt(lambda: os.sched_setaffinity(parent, {{0}})),
        "signals by descriptor": attempt(lambda: fcntl.fcntl(0, fcntl.F_SETOWN, parent)),
        "watched": attempt(lambda: call("inotify_init1", 0)),
        "shared memory": attempt(lambda: call("shmget", 1, 4096, 0o1600)),
        "rights to trace": attempt(lambda: call("prctl", 4, 1, 0, 0, 0)),
        "thread": attempt(lambda: threading.Thread(target=len, args=("",)).start()),
        "environment": sorted(set(os.environ) - {{"LC_CTYPE"}}),
        "arguments": [a for a in sys.argv if NODE in a and "hidden" not in a],
        "secrets": attempt(find_settings),
        "limited": [is_limited(w) for w in (resource.RLIMIT_DATA, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE)],
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "ledger is open": [handle for handle in range(256) if is_ledger(handle)],
    }}
'''


@pytest.mark.skipif(sys.platform != "linux", reason="what confines a process is Linux's")
def test_a_program_reaches_little_beside_its_rows(tmp_path: Path):
    place = tmp_path / "north"
    place.mkdir()
    (place / "key.pem").write_text("the node's key")
    program = PROGRAM.format(node=str(place))

    ports = free_ports(3)

    async def main() -> Team:
        study = study_with(program, recipients=["north", "city"])
        with listening(place / "node.sock"):
            source = {"kind": "csv", "path": "rows.csv", "missing": ["unmentionable"]}
            options = {"north": {"source": source, "reaches": tuple(f"127.0.0.1:{port}" for port in ports)}}
            async with team(tmp_path, study, program=program, options=options, ports=ports) as members:
                await members.run()
                return members

    done = on_uvloop(main())
    assert [type(member.last) for member in done.members] == [Finished] * 3, done.members
    assert done["south"].last.result is None  # it is no recipient, whatever its program gave back
    found = done["north"].last.result["value"]
    confined_by = set(done["north"].worker.confined_by)
    assert confined_by - {enter.PORTS} == enter.NEEDED
    assert found["other port"] == "PermissionError" if enter.PORTS in confined_by else "ConnectionRefusedError"

    allowed = {name: told for name, told in found.items() if isinstance(told, str) and told.startswith("done")}
    assert allowed == {"thread": "done: None", "secrets": "done: []"}
    assert found["rows"] == 2
    assert found["arguments"] == found["ledger is open"] == []
    assert found["limited"] == [True] * 3
    assert found["core"] == 0
    names = set(found["environment"])
    assert names <= {"HOME", "TMPDIR", "PYTHONDONTWRITEBYTECODE", *_inherited(), *_threads(), "PYTHONPATH"}
    assert {found[name] for name in ("key", "rows of the node", "ledger", "listed", "passwords")} == {"PermissionError"}
    assert not (tmp_path / "was-here").exists()
    # What it printed went nowhere that lasts, and nobody was killed.
    assert list(tmp_path.glob("*/workers/*")) == []
    assert (place / "ledger").read_text().count("\n") == 4


@pytest.mark.parametrize("machine", sorted(enter._NUMBERS))
def test_numbers_of_system_calls_are_the_kernels(machine: str):
    headers = {
        "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        "aarch64": Path("/usr/include/asm-generic/unistd.h"),
    }
    if not headers[machine].exists():
        pytest.skip("the kernel's headers are not installed")
    defined = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", headers[machine].read_text()))
    for name, number in enter._NUMBERS[machine].items():
        assert int(defined.get(name, number)) == number, name
    assert len(set(enter._NUMBERS[machine]) & set(defined)) > 80


@pytest.mark.parametrize("machine", sorted(enter._NUMBERS))
def test_the_filter_decides_as_it_should(machine: str):
    """Run on the filter machine's rules themselves, also for the processor that this is not."""
    numbers = enter._NUMBERS[machine]
    program = enter.system_call_filter(machine, 1234)

    def decide(
        name: str,
        *arguments: int,
        architecture: int = enter._MACHINES[machine],
        number: int | None = None,
        program: list[enter.Instruction] = program,
    ):
        packet = struct.pack("=IIQ", numbers[name] if number is None else number, architecture, 0)
        packet += b"".join(struct.pack("=Q", a & (2**64 - 1)) for a in (*arguments, 0, 0, 0, 0, 0, 0)[:6])
        accumulator = at = 0
        while True:
            code, then, otherwise, value = program[at]
            at += 1
            if code == 0x20:
                (accumulator,) = struct.unpack_from("=I", packet, value)
            elif code == 0x54:
                accumulator &= value
            elif code == 0x06:
                return {0x7FFF0000: "allowed", 0x00050001: "refused", 0x00050026: "absent"}[value]
            else:
                holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: accumulator & value != 0}[code]
                at += then if holds else otherwise

    assert decide("execve") == decide("kill") == decide("bind") == decide("prctl") == "refused"
    assert decide("clone3") == decide("io_uring_setup") == "absent"
    assert decide("execve", number=10_000) == "allowed"
    assert decide("execve", number=10_000, architecture=0x40000003) == "refused"
    assert decide("execve", number=0x40000000 + numbers["execve"]) == "refused"
    assert decide("clone", 0x3D0F00) == "allowed"
    assert decide("clone", 17) == "refused"
    assert decide("tgkill", 1234) == "allowed"
    assert decide("tgkill", 1) == "refused"
    assert decide("truncate") == "refused"
    assert decide("openat2") == "absent"
    assert decide("openat", 3, 4, 0o2000000) == "allowed"
    assert decide("openat", 3, 4, 0o2001000) == "refused"
    if "open" in numbers:
        assert decide("open", 4, 0) == "allowed"
        assert decide("open", 4, 0o1000) == "refused"
    assert decide("socketpair", 1, 1 | 0x80800) == "allowed"
    assert decide("socketpair", 1, 2) == decide("socketpair", 1, 5) == "refused"
    assert decide("prlimit64", 0, 7, 0) == "allowed"
    assert decide("prlimit64", 0, 7, 4096) == decide("prlimit64", 0, 7, 1 << 40) == "refused"
    assert decide("socket", 2, 1 | 0x80800) == decide("socket", 10, 2) == decide("socket", 2, 2) == "allowed"
    assert (
        decide("socket", 1, 1)
        == decide("socket", 16, 3)
        == decide("socket", 2, 3)
        == decide("socket", 38, 5)
        == "refused"
    )
    narrow = enter.system_call_filter(machine, 1234, datagrams=False)
    assert decide("socket", 2, 1 | 0x80000, program=narrow) == "allowed"
    assert decide("socket", 2, 2 | 0x80000, program=narrow) == "refused"
    assert [decide("fcntl", 3, command) for command in (8, 10, 15)] == ["refused"] * 3
    assert [decide("fcntl", 3, command) for command in (1, 2, 3, 4, 9, 1030)] == ["allowed"] * 6
    assert [decide("ioctl", 3, command) for command in (0x8901, 0x8902, 0x5412)] == ["refused"] * 3
    assert [decide("ioctl", 3, command) for command in (0x5401, 0x5421)] == ["allowed"] * 2


def _inherited() -> tuple[str, ...]:
    from parties.node.starting import _INHERITED

    return _INHERITED


def _threads() -> tuple[str, ...]:
    from parties.node.starting import _THREADS

    return _THREADS


@contextmanager
def listening(path: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        yield


def test_a_program_that_fails_tells_type_and_line_and_no_value(tmp_path: Path):
    program = "\n".join(
        [
            "import sys",
            "async def study(party, table):",
            "    print(table.columns['dose'], file=sys.stderr)",
            "    if party.rank == 1:",
            "        {}[str(table.columns['dose'])]",
            "    await party.share([1], bound=1)",
        ]
    )

    async def main() -> Team:
        async with team(tmp_path, study_with(program), program=program) as members:
            await members.run()
            return members

    done = on_uvloop(main())
    failed = done["city"].last
    assert (failed.error_type, failed.text) == ("KeyError", "study.py failed at line 5: KeyError")
    assert failed.for_peers == failed.text
    for name in ("north", "south"):
        assert "city stopped: ProgramError: study.py failed at line 5: KeyError" in done[name].last.text
        assert done[name].last.culprit == 1
    # What it wrote is kept for its own organisation alone.
    assert "3.5" in (tmp_path / "city" / "workers" / "worker.stderr").read_text()
    assert (tmp_path / "city" / "workers" / "worker.stderr").stat().st_mode & 0o777 == 0o600


def test_where_programs_cannot_be_confined_they_do_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program = "async def study(party, table):\n    return 1\n"
    monkeypatch.setattr("parties.node.starting._MAIN", ["-c", UNCONFINED.format(root=str(ROOT))], raising=True)

    async def main(**options: Any) -> None:
        async with team(
            tmp_path, study_with(program), program=program, names=["north"], options={"north": options}
        ) as members:
            assert members["north"].worker.confined_by == ("limits",)

    with pytest.raises(WorkerError, match=r"UnconfinedError: .*files, system calls"):
        on_uvloop(main())
    on_uvloop(main(allow_unconfined=True))


UNCONFINED = """
import sys
sys.path.insert(0, {root!r})
from parties.node import enter
enter.close_files = enter.close_system_calls = lambda *given, **named: 0
enter.main()
"""


# ---- programs, without processes ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "p.py defines no study"),
        ("def study(party, table): pass", "p.py defines no study"),
        ("async def study(party): pass", "p.py defines no study"),
        ("\n\n1 +", "p.py does not load at line 3: SyntaxError"),
        ("a = 1\nb = {}['secret']", "p.py does not load at line 2: KeyError"),
        ("raise SystemExit('secret')", "p.py does not load at line 1: SystemExit"),
        ("raise type('s e c', (Exception,), {})()", "p.py does not load at line 1: an exception"),
        ("class E(BaseException): pass\nraise E('secret')", "p.py does not load at line 2: E"),
        ("async def study(party, table):\n  raise ValueError('secret')", "p.py failed at line 2: ValueError"),
        (
            "import asyncio\nasync def study(party, table):\n"
            "  async with asyncio.TaskGroup() as g:\n    g.create_task(x())\n\nasync def x():\n  int('secret')",
            "p.py failed at line 7: ValueError",
        ),
        ("async def study(party, table):\n  return float('nan')", "not finite"),
        ("async def study(party, table):\n  return object()", "holds a object"),
        ("async def study(party, table):\n  a = []\n  a.append(a)\n  return a", "nested too deeply"),
    ],
)
def test_programs_that_do_not_work(text: str, why: str):
    async def main() -> None:
        await run_program(load_program(text, "p.py"), "p.py", None, None)

    with pytest.raises(ProgramError) as told:
        asyncio.run(main())
    assert why in str(told.value)
    assert "secret" not in str(told.value)
    assert told.value.__cause__ is None


def test_the_text_of_an_error_of_ours_that_the_program_raises_is_its_own():
    """Texts of such errors go to the other members, since ours hold no data: a program's may."""
    source = (
        "from mpc import RangeError, multiply\n"
        "async def study(party, table):\n"
        "    if table == 'ours':\n"
        "        await party.share([1], bound=0.5)\n"
        "    raise RangeError('row 4711')\n"
    )
    study = load_program(source, "study.py")

    async def program(party: Any, table: str) -> Any:
        return await run_program(study, "study.py", party, table)

    with pytest.raises(ProgramError) as told:
        run_in_memory(program, ["", ""], preprocessing="dealer")
    assert str(told.value) == "study.py failed at line 5: RangeError"
    with pytest.raises(DataError):
        run_in_memory(program, ["ours", "ours"], preprocessing="dealer")


def test_results_are_made_plain():
    import numpy as np

    class Fit:
        def to_dict(self) -> dict[str, Any]:
            return {"coef": np.arange(3.0)}

        def summary(self) -> str:
            return "a table"

    async def main(value: object) -> Any:
        async def study(party, table):
            return value

        return await run_program(study, "p.py", None, None)

    assert asyncio.run(main(Fit())) == {"value": {"coef": [0.0, 1.0, 2.0]}, "summary": "a table"}
    value = {"a": (np.int64(3), np.bool_(True), None, "x", np.float32(0.5)), 2: np.zeros((2, 1), np.int64)}
    assert plain(value) == {"a": [3, True, None, "x", 0.5], "2": [[0], [0]]}


def test_a_program_may_define_dataclasses():
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n  x: int\n"
        "async def study(party, table):\n  return A(1).x\n"
    )
    assert asyncio.run(run_program(load_program(text, "p.py"), "p.py", None, None))["value"] == 1


# ---- a worker that does not keep to the rules ---------------------------------------------------


def bad_worker(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let nodes start this instead of a worker; it finds its socket in ``sock``."""
    head = "import json, os, socket, struct, sys, time\n"
    head += "sock = socket.socket(fileno=int(sys.argv[1]))\n"
    head += "def say(m): c = json.dumps(m).encode(); sock.sendall(struct.pack('>I', len(c)) + c)\n"
    head += "def hello(): say({'kind': 'hello', 'certificate': 'AAAA', 'confined_by': []})\n"

    def start(assignment: Assignment, exchange: socket.socket, ledger: Path, home: Path, said: Any) -> Process:
        return Process(
            ["-c", head + script, str(exchange.fileno())],
            descriptors=(exchange.fileno(),),
            directory=home,
            environment={},
            stderr=said,
        )

    monkeypatch.setattr(workers, "start_worker", start)
    monkeypatch.setattr(workers, "STOP_SECONDS", 0.3)


def assignment(**fields: Any) -> Assignment:
    study = study_with()
    return Assignment(study=study.plain(), study_hash=study.hash, rank=0, attempt=1, **{"limits": LIMITS, **fields})


async def hear(tmp_path: Path, given: Assignment | None = None) -> list[Any]:
    worker = await Worker.start(given or assignment(), ledger=tmp_path / "ledger", directory=tmp_path)
    try:
        worker._deadline = asyncio.get_running_loop().time() + 1.0
        return [event async for event in worker.events()]
    finally:
        await worker.close()


@pytest.mark.parametrize(
    "script",
    [
        "hello(); sock.sendall(b'\\xff' * 100); time.sleep(60)",
        "hello(); say({'kind': 'progress', 'phase': 'nonsense'}); time.sleep(60)",
        "hello(); say({'kind': 'begin'}); time.sleep(60)",
        "hello(); say({'kind': 'rows', 'count': -1}); time.sleep(60)",
        "hello(); say({'kind': 'rows', 'count': '1'}); time.sleep(60)",
        "hello(); say({'kind': 'failed', 'error_type': 'a b'}); time.sleep(60)",
        "hello(); say({'kind': 'finished', 'result': {'a': 1}, 'digest': '0' * 64}); time.sleep(60)",
        "hello(); hello(); time.sleep(60)",
        "hello(); sock.sendall(struct.pack('>I', 100) + b'[' * 100); time.sleep(60)",
    ],
)
def test_nonsense_ends_the_attempt_and_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str):
    bad_worker(monkeypatch, script)
    (last,) = on_uvloop(hear(tmp_path))
    assert isinstance(last, Failed)
    assert last.error_type == "WorkerFault"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("hello()", "ended with status 0"),
        ("hello(); sys.exit(3)", "ended with status 3"),
        ("hello(); sock.close(); time.sleep(60)", "closed its connection to the node, went on, and was killed"),
        ("hello(); os.kill(os.getpid(), 11)", r"signal 11 \(SIGSEGV\)"),
        ("hello(); os.kill(os.getpid(), 24)", "more computing time"),
        # A child of its own holds its socket, in another session: the node does not wait for that.
        ("hello()\nif os.fork() == 0: os.setsid(); time.sleep(8); os._exit(0)", "ended with status 0"),
    ],
)
def test_who_ends_without_a_word_is_told_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str):
    bad_worker(monkeypatch, script)
    began = time.monotonic()
    (last,) = on_uvloop(hear(tmp_path))
    assert time.monotonic() - began < 7
    assert last.error_type == "WorkerDied"
    assert re.search(why, last.text)
    if "setsid" in script:
        time.sleep(1.6)


def test_what_it_started_is_killed_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bad_worker(
        monkeypatch,
        f"hello()\npid = os.fork()\nif pid: open({str(tmp_path / 'pid')!r}, 'w').write(str(pid))\n"
        "else: time.sleep(600)",
    )
    on_uvloop(hear(tmp_path))
    pid = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 2
    while is_alive(pid):
        assert time.monotonic() < until, "it outlived the worker"
        time.sleep(0.01)


@pytest.mark.parametrize(
    "said",
    [
        "{'kind': 'opened', 'openings': [], 'untold': 1}",
        "{'kind': 'opened', 'openings': [{'step': 'x', 'shapes': [], 'elements': 1}] * 100}",
        "{'kind': 'rows', 'count': 1}",
        "{'kind': 'progress', 'phase': 'computing', 'away': {'x' * 60_000: 1.0}}",
    ],
)
def test_who_says_too_much_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str):
    bad_worker(monkeypatch, f"hello()\nwhile True: say({said})")
    monkeypatch.setattr("parties.node.hearing.MOST_OPENINGS", 500)
    monkeypatch.setattr("parties.node.hearing.MOST_BYTES", 2**20)
    *events, last = on_uvloop(hear(tmp_path))
    assert (last.error_type, last.text) == ("WorkerFault", "the worker said more than any study has to say")
    assert len(events) <= 500


def test_who_floods_is_heard_no_faster_than_the_node_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bad_worker(
        monkeypatch,
        "hello()\nwhile True: say({'kind': 'opened', 'openings': [], 'untold': 1})",
    )

    async def main() -> tuple[int, Any]:
        worker = await Worker.start(assignment(), ledger=tmp_path / "ledger", directory=tmp_path)
        count = 0
        try:
            async for event in worker.events():
                if isinstance(event, Opened):
                    count += 1
                    await asyncio.sleep(0.001)
                    assert len(worker._exchange._received) < 2**20
                if count == 200:
                    await worker.stop("enough")
            return count, event
        finally:
            await worker.close()

    count, last = on_uvloop(main())
    assert 200 <= count < 200_000
    assert last.error_type == "Stopped"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("time.sleep(60)", "did not start within 0.5 s"),
        ("print('what it says', file=sys.stderr)", r"ended at its start; see worker\.stderr"),
        ("say({'kind': 'rows', 'count': 1}); time.sleep(60)", "ended at its start"),
        ("sock.sendall(b'\\xff' * 100); time.sleep(60)", "did not start: a message"),
        (
            "say({'kind': 'hello', 'certificate': '!', 'confined_by': []}); time.sleep(60)",
            "not valid: hello.certificate",
        ),
        ("say({'kind': 'hello', 'certificate': 'A' * 40000, 'confined_by': []}); time.sleep(60)", "not valid"),
    ],
)
def test_who_does_not_start_is_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str):
    bad_worker(monkeypatch, script)
    monkeypatch.setattr(workers, "START_SECONDS", 0.5)
    with pytest.raises(WorkerError, match=why):
        on_uvloop(hear(tmp_path))
    said = tmp_path / "worker.stderr"
    assert said.exists() == ("what it says" in script)


def test_who_hears_nothing_is_killed_when_its_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bad_worker(monkeypatch, "import signal\nsignal.signal(15, signal.SIG_IGN)\nhello(); time.sleep(600)")
    began = time.monotonic()
    (last,) = on_uvloop(hear(tmp_path, assignment(limits=Limits(time_seconds=1.0))))
    assert 1.2 < time.monotonic() - began < 30
    assert (last.error_type, last.text) == ("TimeLimit", "the study took longer than 1 s and was stopped")


def test_what_it_writes_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bad_worker(monkeypatch, "hello()\nfor k in range(2000): print('line', k, 'x' * 1000, file=sys.stderr)")
    on_uvloop(hear(tmp_path))
    said = (tmp_path / "worker.stderr").read_text()
    assert len(said) == 64 * 1024
    assert "line 1999" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["worker.stderr"]


def test_messages_are_checked_without_showing_what_was_in_them():
    with pytest.raises(MessageError) as told:
        from_worker({"kind": "rows", "count": "a secret"})
    assert str(told.value) == "a message that is not valid: rows.count: int_type"
    with pytest.raises(MessageError):
        from_worker({"kind": "secret"})
    with pytest.raises(MessageError):
        from_worker({"kind": "hello", "certificate": "AAAA", "confined_by": [], "more": "secret"})


def test_no_worker_where_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Out of descriptors or processes, at any point of the start: an error, and nothing is left."""

    def fail(*given: Any, **named: Any) -> Any:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    async def main(name: str) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(name, fail)
            with pytest.raises(WorkerError, match="no worker can be started: Resource temporarily"):
                await hear(tmp_path)

    for name in (
        "socket.socketpair",
        "tempfile.TemporaryFile",
        "subprocess.Popen",
        "parties.node.starting.open_ledger",
    ):
        asyncio.run(main(name))
        assert [path for path in tmp_path.iterdir() if path.name != "ledger"] == []


# ---- a node that dies ---------------------------------------------------------------------------

NODE = """
import asyncio, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from parties.identity import make_identity
from parties.node.workers import MemberAddress, Worker
from tests.node.test_worker_hostile import assignment

async def main():
    place = Path({place!r})
    given = assignment(source={{"kind": "csv", "path": "rows.csv"}}, base=str(place), connect_seconds=600.0)
    worker = await Worker.start(given, ledger=place / "ledger", directory=place / "workers")
    others = [make_identity(name).certificate for name in ("city", "south")]
    members = [MemberAddress(name=name, certificate=certificate, host="127.0.0.1", port=9)
               for name, certificate in zip(("north", "city", "south"), (worker.certificate, *others))]
    await worker.begin(members, bytes(16))
    async for event in worker.events():
        print(worker.pid, worker._loader.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_when_its_node_is_killed_nothing_goes_on(tmp_path: Path):
    """Neither the process that computes nor the one that loads, though nobody told them."""
    node = subprocess.Popen(
        [sys.executable, "-c", NODE.format(root=str(ROOT), place=str(tmp_path))],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert node.stdout is not None
        pids = [int(pid) for pid in node.stdout.readline().split()]
        assert len(pids) == 2
        assert all(is_alive(pid) for pid in pids)
        os.kill(node.pid, signal.SIGKILL)
        until = time.monotonic() + 2
        while any(is_alive(pid) for pid in pids):
            assert time.monotonic() < until, "a process outlived its node"
            time.sleep(0.01)
    finally:
        node.kill()
        node.wait()
        if node.stdout is not None:
            node.stdout.close()
    # A node that comes up again clears away what is left.
    (left,) = (tmp_path / "workers").glob("worker-*")
    (left / "file").write_text("")
    (tmp_path / "workers" / "worker.stderr").write_text("stays")
    workers.clear_away(tmp_path)
    assert [path.name for path in (tmp_path / "workers").iterdir()] == ["worker.stderr"]


PARENT = """
import subprocess, sys, time
child = "import sys, time; sys.path.insert(0, {root!r}); from parties.node import enter; enter.belong_to_node();"
child += "print('locked', flush=True); time.sleep(600)"
process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE)
process.stdout.readline()
print(process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills the children of who dies")
def test_the_system_kills_it_with_its_node_too():
    """Without the lifeline, which a program of somebody else might cut."""
    node = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(root=str(ROOT))], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with node:
        assert node.stdout is not None
        pid = int(node.stdout.readline())
        status = Path(f"/proc/{pid}/status").read_text()
        node.kill()
    assert "NoNewPrivs:\t1" in status
    until = time.monotonic() + 2
    while is_alive(pid):
        assert time.monotonic() < until, "a process outlived its node"
        time.sleep(0.01)


LIFELINE = """
import os, sys, socket, time
sys.path.insert(0, {root!r})
from parties.node.process import follow
follow(int(sys.argv[1]))
while True:  # busy, and without Linux' help
    pass
"""


def test_the_lifeline_ends_a_busy_process_too(tmp_path: Path):
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", LIFELINE.format(root=str(ROOT)), str(theirs.fileno())], pass_fds=[theirs.fileno()]
        )
    time.sleep(0.5)
    assert process.poll() is None
    ours.close()
    assert process.wait(5) == 71
