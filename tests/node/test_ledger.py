"""The ledger of seeds: on the disk before a seed is used, and no seed twice."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mpc import multiply, open_
from mpc.memory import MemoryNetwork
from mpc.prg import Prg, new_seed
from mpc.session import join
from parties.node import ledger as module
from parties.node.ledger import Ledger, LedgerError, check_ledgers, commit, open_ledger

STUDY = "ab" * 32
ROOT = Path(__file__).parents[2]


@contextmanager
def session(path: Path, number: int = 1) -> Iterator[Ledger]:
    with open_ledger(path) as file:
        handle = os.dup(file.fileno())
    with Ledger(handle, study=STUDY, attempt=1, session=bytes([number]) * 16) as ledger:
        yield ledger


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_seed_is_noted_and_opened(tmp_path: Path):
    path = tmp_path / "ledger"
    seed = new_seed()
    with session(path) as ledger:
        source = ledger.make_source("pair 0-1", seed)
        assert isinstance(source, Prg)
        assert list(source.stream("a").raw(32)) == list(Prg(seed).stream("a").raw(32))
    (line,) = lines(path)
    assert {key: value for key, value in line.items() if key != "time"} == {
        "attempt": 1,
        "commitment": commit(seed),
        "seed": "pair 0-1",
        "session": "01" * 16,
        "study": STUDY,
    }
    assert seed.hex() not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_commitment_is_what_it_says():
    """Frozen: ledgers of different versions are compared."""
    assert commit(bytes(32)) == "e9940e5a71b37c629fc1001ccef2c5cd"


def test_a_seed_that_comes_up_twice_stops_the_session(tmp_path: Path):
    path = tmp_path / "ledger"
    seed = new_seed()
    with session(path) as ledger:
        ledger.note("pair 0-1", seed)
        with pytest.raises(LedgerError, match=r"came up twice .'pair 0-2'.: .*snapshot"):
            ledger.note("pair 0-2", seed)
    with session(path, 2) as ledger:
        ledger.note("pair 0-1", new_seed())
        with pytest.raises(LedgerError, match="twice"):
            ledger.make_source("pair 0-1", seed)
    assert len(lines(path)) == 2


def test_workers_side_by_side_see_each_others_seeds(tmp_path: Path):
    path = tmp_path / "ledger"
    seed = new_seed()
    with session(path, 1) as one, session(path, 2) as two:
        for _ in range(5):
            one.note("x", new_seed())
            two.note("x", new_seed())
        one.note("y", seed)
        with pytest.raises(LedgerError, match="twice"):
            two.note("y", seed)
    assert len(lines(path)) == 11
    assert check_ledgers([path]) == []


def test_a_session_that_comes_up_twice_is_refused(tmp_path: Path):
    path = tmp_path / "ledger"
    with session(path) as ledger:
        ledger.note("x", new_seed())
    with pytest.raises(LedgerError, match=r"session 0101.* already"), session(path):
        pass


def test_nothing_is_noted_once_it_is_closed(tmp_path: Path):
    with session(tmp_path / "ledger") as ledger:
        ledger.close()
        with pytest.raises(LedgerError, match="closed"):
            ledger.note("x", new_seed())
        ledger.close()


def test_half_a_line_is_dropped_and_the_next_is_whole(tmp_path: Path):
    path = tmp_path / "ledger"
    with session(path, 1) as ledger:
        ledger.note("x", new_seed())
    whole = path.read_bytes()
    for length in (1, 50, len(whole) - 1):
        path.write_bytes(whole + whole[:length])
        assert check_ledgers([path]) == []
        with session(path, 2) as ledger:
            ledger.note("y", new_seed())
        assert [line["seed"] for line in lines(path)] == ["x", "y"]
        assert path.read_bytes().startswith(whole)


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"no json",
        b"[" * 1500,
        b"\xff\xfe",
        b'{"attempt":1,"commitment":"zz","seed":"x","session":"00","study":"00","time":"now"}',
        b'{"attempt":1,"commitment":"00","seed":"x","session":"00","study":"00","time":"now"}',
        b'{"attempt":"1","commitment":"' + b"00" * 16 + b'","seed":"x","session":"00","study":"00","time":"now"}',
        b'{"attempt":1,"commitment":7,"seed":"x","session":"00","study":"00","time":"now"}',
        b" " * 3000,
    ],
)
def test_an_altered_ledger_is_refused_with_the_line(tmp_path: Path, line: bytes):
    path = tmp_path / "ledger"
    with session(path) as ledger:
        ledger.note("x", new_seed())
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(LedgerError, match=r"line 2 of .* altered or damaged"), session(path, 2):
        pass
    with pytest.raises(LedgerError, match=rf"line 2 of the ledger {path}"):
        check_ledgers([path])


def test_a_link_in_its_place_is_refused(tmp_path: Path):
    target = tmp_path / "elsewhere"
    target.write_text("")
    (tmp_path / "ledger").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        open_ledger(tmp_path / "ledger")


@pytest.mark.parametrize("how", ["full", "half", "unsynced"])
def test_a_seed_that_cannot_be_noted_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str):
    path = tmp_path / "ledger"
    write = os.write

    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    def half(handle: int, data: bytes) -> int:
        return write(handle, data[:40])

    with session(path) as ledger:
        ledger.note("x", new_seed())
        before = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync" if how == "unsynced" else "write", half if how == "half" else fail)
            with pytest.raises(LedgerError, match=r"cannot be written: (the disk is full|No space left)"):
                ledger.make_source("y", new_seed())
        assert path.read_bytes() == before
        ledger.note("z", new_seed())
    assert [line["seed"] for line in lines(path)] == ["x", "z"]


def test_ledgers_of_several_nodes_are_compared(tmp_path: Path):
    """Two parties note the seed that they share in one session; anything else is found."""
    north, south = tmp_path / "north", tmp_path / "south"
    shared, stale = new_seed(), new_seed()
    for path in (north, south):
        with session(path, 1) as ledger:
            ledger.note("pair 0-1", shared)
    assert check_ledgers([north, south]) == []
    with session(north, 2) as ledger:
        ledger.note("pair 0-2", stale)
    with session(south, 3) as ledger:
        ledger.note("pair 0-2", stale)
    (finding,) = check_ledgers([north, south])
    assert f"commitment {commit(stale)}" in finding
    assert "03" * 16 in finding
    assert "02" * 16 in finding
    doubled = tmp_path / "doubled"
    doubled.write_bytes(north.read_bytes().splitlines(keepends=True)[0] * 2)
    assert any("twice" in finding for finding in check_ledgers([doubled]))
    with pytest.raises(LedgerError, match="cannot be read"):
        check_ledgers([tmp_path / "absent"])


def test_it_serves_a_computation(tmp_path: Path):
    """With join's hook each party has all its seeds noted, and the computation runs on them."""

    async def seat(network: MemoryNetwork, rank: int) -> list[int]:
        with session(tmp_path / f"ledger {rank}") as ledger:
            party = await join(network.transport(rank), preprocessing="prss", make_source=ledger.make_source)
        # It is closed: all seeds of a session are there once it is joined.
        share = await party.share([1, 2], bound=10, owner=0, shape=(2,))
        return list(await open_(party, await multiply(party, share, share)))

    async def main() -> list[list[int]]:
        network = MemoryNetwork(3)
        return await asyncio.gather(*(seat(network, rank) for rank in range(3)))

    results = asyncio.run(main())
    assert results == [[1, 4]] * 3
    paths = [tmp_path / f"ledger {rank}" for rank in range(3)]
    assert check_ledgers(paths) == []
    assert {line["seed"] for line in lines(paths[0])} >= {"pair 0-1", "pair 0-2"}


KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from typing import Any
from parties.node import ledger as module
from parties.node.ledger import Ledger, open_ledger

class Seen(Exception): pass

def use(seed):
    # The first use of a seed: this process is gone before it returns.
    print(module.commit(seed), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

module.Prg = use
file = open_ledger(Path({path!r}))
ledger = Ledger(file.fileno(), study="ab" * 32, attempt=1, session=os.urandom(16))
ledger.make_source("pair 0-1", os.urandom(32))
"""


def test_killed_at_the_first_use_of_a_seed_its_line_is_there(tmp_path: Path):
    path = tmp_path / "ledger"
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", KILLED.format(root=str(ROOT), path=str(path))],
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert lines(path)[-1]["commitment"] == done.stdout.strip()
    assert check_ledgers([path]) == []


def test_the_line_is_on_the_disk_before_the_seed_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In this order: written, flushed to the disk, opened."""
    order: list[str] = []
    write, fsync = os.write, os.fsync
    with session(tmp_path / "ledger") as ledger:

        def noted(name: str, call):
            def run(*given):
                order.append(name)
                return call(*given)

            return run

        monkeypatch.setattr(os, "write", noted("write", write))
        monkeypatch.setattr(os, "fsync", noted("fsync", fsync))
        monkeypatch.setattr(module, "Prg", noted("open", Prg))
        ledger.make_source("x", new_seed())
    assert order == ["write", "fsync", "open"]
