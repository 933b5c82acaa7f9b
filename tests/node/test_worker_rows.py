"""How rows get to the process that computes: one process knows where they are, the other one asks."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mpc.errors import DataError, for_peers
from parties.codec import encode
from parties.data.columns import Table
from parties.data.errors import SourceError
from parties.identity import make_identity
from parties.node.computing import Attempt
from parties.node.enter import NEEDED
from parties.node.messages import Assigned, Assignment
from parties.node.process import Process
from parties.node.rows import LoadError, digest_of, give_error, give_table, take_table, wait_until_asked
from parties.node.starting import start_loader
from tests.node.support import children, on_uvloop, open_descriptors
from tests.node.teams import LIMITS, ROWS, study_with

MOST = 10**6


@pytest.fixture(autouse=True)
def nothing_is_left():
    before = open_descriptors(), children()
    yield
    assert (open_descriptors(), children()) == before


def assignment(place: Path, source: dict[str, Any] | None, **fields: Any) -> Assignment:
    study = study_with()
    given = {"study": study.plain(), "study_hash": study.hash, "rank": 0, "attempt": 1, "limits": LIMITS}
    return Assignment(**{**given, "source": source, "base": str(place), **fields})


@asynccontextmanager
async def loader(place: Path, source: dict[str, Any], **fields: Any) -> AsyncIterator[tuple[Process, socket.socket]]:
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryFile() as said, theirs:
        process = start_loader(assignment(place, source, **fields), theirs, place, said)
        theirs.close()
        try:
            yield process, ours
        finally:
            ours.close()
            await process.end()


async def load(place: Path, source: dict[str, Any]) -> Table | Exception:
    async with loader(place, source) as (_, sock):
        try:
            return (await take_table(sock, limit=MOST))[0]
        except DataError as error:
            return error


def test_the_process_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It finds a file, and says what is in the way of others; passwords are read in its environment."""
    (tmp_path / "rows.csv").write_text(ROWS["south"])
    (tmp_path / "other.csv").write_text("age,dose\n1,2\n999,3\n")
    monkeypatch.setenv("OUR_DATABASE", "sqlite:////no/such/place/secret.db")
    sources: list[dict[str, Any]] = [
        {"kind": "csv", "path": "rows.csv"},
        {"kind": "csv", "path": "absent.csv"},
        {"kind": "csv", "path": "../../etc/passwd"},
        {"kind": "csv", "path": "other.csv"},
        {"kind": "tape", "path": "secret"},
        {"kind": "sql", "url_env": "OUR_DATABASE", "query": "SELECT age, dose FROM rows"},
    ]

    async def main() -> list[Any]:
        return await asyncio.gather(*(load(tmp_path, source) for source in sources))

    table, absent, outside, wrong, unknown, database = on_uvloop(main())
    assert (table.rows, table.dropped, list(table.columns)) == (1, 1, ["age", "dose"])
    assert (table.columns["age"].tolist(), table.columns["dose"].tolist()) == ([70], [4.5])
    assert isinstance(absent, SourceError)
    assert "absent.csv" in str(absent)
    assert isinstance(outside, SourceError)
    assert type(wrong) is DataError
    assert "999" not in str(wrong)
    assert isinstance(unknown, LoadError)
    assert "not what this version knows" in str(unknown)
    assert isinstance(database, SourceError)
    for error in (absent, outside, wrong, unknown, database):
        assert "secret" not in str(error)
        assert for_peers(error) == ""


def test_rows_that_changed_since_they_were_used_are_not_handed_over(tmp_path: Path):
    """The hash is keyed: who has only the hash cannot try what the rows may have been."""
    key, other = bytes(range(32)), bytes(range(1, 33))
    source = {"kind": "csv", "path": "rows.csv"}

    async def rows(**fields: Any) -> Any:
        async with loader(tmp_path, source, **fields) as (_, sock):
            return await take_table(sock, limit=MOST)

    async def main() -> None:
        (tmp_path / "rows.csv").write_text(ROWS["north"])
        (table, digest), (_, same), (_, keyed), (_, none) = await asyncio.gather(
            rows(rows_key=key), rows(rows_key=key), rows(rows_key=other), rows()
        )
        assert (digest, none) == (same, None)
        assert len({digest, keyed, digest_of(table, b"")}) == 3
        assert (await rows(rows_key=key, rows_digest=digest))[1] == digest
        (tmp_path / "rows.csv").write_text(ROWS["north"].replace("1.5", "1.4999999"))
        with pytest.raises(DataError, match="have changed since something of this study was opened") as told:
            await rows(rows_key=key, rows_digest=digest)
        assert for_peers(told.value) == ""

    on_uvloop(main())


def test_nothing_is_loaded_before_it_is_asked_for(tmp_path: Path):
    """The dry run comes first: here the file is written only then."""

    async def main() -> Table:
        async with loader(tmp_path, {"kind": "csv", "path": "rows.csv"}) as (_, sock):
            await asyncio.sleep(0.7)
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
            (tmp_path / "rows.csv").write_text(ROWS["north"])
            return (await take_table(sock, limit=MOST))[0]

    assert on_uvloop(main()).rows == 2


def test_a_process_that_loads_and_dies_is_noticed(tmp_path: Path):
    async def main() -> None:
        async with loader(tmp_path, {"kind": "csv", "path": "rows.csv"}) as (process, sock):
            os.kill(process.pid, 9)
            with pytest.raises(LoadError, match="ended without a word"):
                await take_table(sock, limit=MOST)

    on_uvloop(main())


def test_who_does_not_ask_gets_nothing_and_ends_it(tmp_path: Path):
    async def main() -> None:
        async with loader(tmp_path, {"kind": "csv", "path": "rows.csv"}) as (process, sock):
            sock.close()
            async with asyncio.timeout(30):
                await process.wait()

    on_uvloop(main())


# ---- over a pair of sockets, without processes --------------------------------------------------


def taken(answer: Any, limit: int = MOST) -> Table:
    ours, theirs = socket.socketpair()

    async def main() -> Table:
        giving = asyncio.get_running_loop().run_in_executor(None, answer, theirs)
        try:
            return (await take_table(ours, limit=limit))[0]
        finally:
            await giving

    with theirs:
        return asyncio.run(main())


def raw(content: bytes, size: int | None = None) -> Any:
    def answer(sock: socket.socket) -> None:
        assert wait_until_asked(sock)
        sock.sendall(struct.pack("<Q", len(content) if size is None else size) + content)
        sock.close()

    return answer


def test_a_large_table_arrives_whole():
    import numpy as np

    columns = {"a": np.arange(10**5), "b": np.linspace(0, 1, 10**5), "c": np.arange(10**5) % 2 == 0}

    def answer(sock: socket.socket) -> None:
        assert wait_until_asked(sock)
        give_table(sock, Table(columns, 10**5, 7))

    table = taken(answer, limit=10**7)
    assert (table.rows, table.dropped) == (10**5, 7)
    for name, values in columns.items():
        assert table.columns[name].dtype == values.dtype
        assert np.array_equal(table.columns[name], values)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (raw(b"", size=MOST + 1), "rows take 1000001 bytes"),
        (raw(b"", size=2**63), "rows take"),
        (raw(b"abc", size=100), "ended without a word"),
        (raw(b""), "gave something else"),
        (raw(b"garbage"), "gave something else"),
        (raw(encode({"table": 1})), "gave something else"),
        (raw(encode({"table": {"columns": {}}})), "gave something else"),
        (raw(encode([])), "gave something else"),
    ],
)
def test_what_is_no_table_is_refused(answer: Any, why: str):
    with pytest.raises(LoadError, match=why):
        taken(answer)


def test_a_fault_of_a_driver_tells_type_and_place_and_no_text():
    def answer(sock: socket.socket) -> None:
        assert wait_until_asked(sock)
        try:
            raise KeyError("a secret value")
        except KeyError as error:
            give_error(sock, error)

    with pytest.raises(LoadError, match=r"our rows cannot be loaded: KeyError at test_worker_rows\.py:\d+$"):
        taken(answer)


def test_a_contributor_without_a_source_says_so(tmp_path: Path):
    attempt = Attempt(Assigned(assignment=assignment(tmp_path, None)), make_identity("one"), list(NEEDED))

    class Teller:
        def enter(self, phase: str) -> None:
            assert phase == "loading"

    teller: Any = Teller()
    with pytest.raises(LoadError, match=r"north contributes rows .* no source for it: add one to node\.toml"):
        asyncio.run(attempt._load(teller))
