"""Sealed files, the ledger of material, the depot, and what parties say to each other about it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mpc import Party, PeerError, multiply, open_
from mpc.memory import run_together
from mpc.plan import plan_of
from parties.governance.keys import generate
from parties.node import batches
from parties.node.batches import BatchError, BatchLedger
from parties.node.depot import Depot, Making, Offer
from parties.node.desk import Desk
from parties.node.keepers import DepotKeeper, NodeKeeper, NoKeeper
from parties.node.matching import agree, produce, share_plan, use
from parties.node.material_messages import Material, Stored
from parties.node.messages import as_json
from parties.node.sealing import CHUNK, Opener, Sealer, SealError, read_head
from tests.mpc.support import Message, TappedNetwork

STUDY, OTHER = "a" * 64, "b" * 64
HEADER = {"batch": "one", "format": 1}
NAME = "0" * 32 + "-0"
LATER = "0" * 32 + "-1"
HASH = "c" * 64


def derive(secret: bytes = b"a node's key") -> Callable[[bytes], bytes]:
    return lambda salt: hashlib.blake2b(salt, key=secret, digest_size=32).digest()


def clock() -> str:
    return "2030-01-01T00:00:00Z"


def depot(directory: Path, secret: bytes = b"a node's key") -> Depot:
    return Depot(directory, derive(secret), clock)


def filled(where: Depot, name: str = NAME, content: bytes = b"material", study: str = STUDY) -> Making:
    making = where.begin(study, name)
    sealer = making.sealer()
    sealer.add(content)
    sealer.finish()
    where.made(making, matching=HASH, products=7)
    return making


# ---- sealed files ---------------------------------------------------------------------------------


def sealed(content: bytes, key: bytes, header: dict[str, Any] | None = None) -> bytes:
    file = BytesIO()
    sealer = Sealer(file.write, key, HEADER if header is None else header)
    for start in range(0, len(content), 700_001):
        sealer.add(content[start : start + 700_001])
    sealer.finish()
    assert sealer.written == len(file.getvalue())
    return file.getvalue()


def opened(data: bytes, key: bytes, size: int, header: dict[str, Any] | None = None) -> bytes:
    opener = Opener(BytesIO(data).read, key, HEADER if header is None else header)
    content = opener.read(size)
    opener.finish()
    return content


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 5])
def test_what_was_sealed_is_opened(size: int) -> None:
    key, content = secrets.token_bytes(32), secrets.token_bytes(size)
    data = sealed(content, key)
    assert opened(data, key, size) == content
    assert size < 32 or content[:32] not in data
    with pytest.raises(SealError, match="ends too early"):
        opened(data, key, size + 1)
    if size:
        with pytest.raises(SealError, match="more than it should"):
            opened(data, key, size - 1)


def test_every_byte_is_watched() -> None:
    key, content = secrets.token_bytes(32), bytes(200)
    data = sealed(content, key)
    for place in range(len(data)):
        with pytest.raises(SealError):
            opened(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], key, 200)
        with pytest.raises(SealError):
            opened(data[:place], key, 200)
    with pytest.raises(SealError):
        opened(data + b"x", key, 200)


def test_chunks_stay_where_they_are() -> None:
    key, content = secrets.token_bytes(32), secrets.token_bytes(3 * CHUNK)
    data = sealed(content, key)
    head, step = len(data) - 3 * (CHUNK + 16), CHUNK + 16
    first, second, third = (data[head + k * step : head + (k + 1) * step] for k in range(3))
    for parts in ((second, first, third), (first, third), (first, second), (first, second, second, third)):
        with pytest.raises(SealError, match="altered, cut off"):
            opened(data[:head] + b"".join(parts), key, len(parts) * CHUNK)


def test_another_file_and_another_key_are_refused() -> None:
    key = secrets.token_bytes(32)
    data = sealed(b"content", key)
    with pytest.raises(SealError, match="another one than its name says"):
        opened(data, key, 7, {**HEADER, "batch": "two"})
    with pytest.raises(SealError, match="another key"):
        opened(data, secrets.token_bytes(32), 7)
    # Its head was exchanged, too: then the chunks do not fit.
    other = sealed(b"content", key, {**HEADER, "batch": "two"})
    with pytest.raises(SealError, match="altered"):
        opened(data[: -7 - 16] + other[-7 - 16 :], key, 7)
    for junk in (b"", b"junk", b"sottovoce sealed 1\n\xff\xff\xff\xff", b"sottovoce sealed 1\n\0\0\0\x02[]"):
        with pytest.raises(SealError, match="no sealed file"):
            read_head(BytesIO(junk).read)


def test_keys_follow_from_the_nodes_key() -> None:
    key, other = generate("north"), generate("north")
    salt = bytes(32)
    assert key.derived("domain", salt) == key.renew().derived("domain", salt)
    keys = {
        key.derived("domain", salt),
        key.derived("another", salt),
        key.derived("domain", bytes(31) + b"1"),
        other.derived("domain", salt),
    }
    assert {len(one) for one in keys} == {32}
    assert len(keys) == 4


# ---- the ledger -----------------------------------------------------------------------------------


@contextlib.contextmanager
def ledger(path: Path) -> Iterator[BatchLedger]:
    book = BatchLedger(path, clock)
    try:
        yield book
    finally:
        book.close()


MADE = {"matching": HASH, "digest": HASH, "size": 5, "products": 7}
BEGUN = {"study": STUDY, "salt": "d" * 64}


def test_batches_go_one_way(tmp_path: Path) -> None:
    facts: dict[str, dict[str, Any]] = {"begun": BEGUN, "made": MADE}
    ways = {
        (): {"begun"},
        ("begun",): {"made", "discarded"},
        ("begun", "made"): {"ready", "spent", "discarded"},
        ("begun", "made", "ready"): {"spent", "discarded"},
        ("begun", "made", "ready", "spent"): set(),
        ("begun", "made", "discarded"): set(),
    }
    for number, (way, allowed) in enumerate(ways.items()):
        for event in batches.FOLLOWS:
            path = tmp_path / f"{number} {event}"
            with ledger(path) as book:
                for step in way:
                    book.note(step, NAME, **facts.get(step, {}))  # type: ignore[arg-type]
                before = path.read_bytes()
                if event in allowed:
                    assert book.note(event, NAME, **facts.get(event, {})).state == event  # type: ignore[arg-type]
                else:
                    with pytest.raises(BatchError, match="cannot be"):
                        book.note(event, NAME, **facts.get(event, {}))  # type: ignore[arg-type]
                    assert path.read_bytes() == before
                states = {one.name: one.state for one in book}
            with ledger(path) as again:
                assert {one.name: one.state for one in again} == states


def test_a_torn_line_is_dropped_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "book"
    with ledger(path) as book:
        book.note("begun", NAME, **BEGUN)
        book.note("made", NAME, **MADE)
        book.note("spent", NAME, why="attempt 1")
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    for cut in range(len(lines[0]) + len(lines[1]), len(content)):
        path.write_bytes(content[:cut])
        with ledger(path) as book:
            assert [one.state for one in book] == ["made"]
        assert path.read_bytes() == b"".join(lines[:2])
    for changed in (lines[1:], [lines[0], lines[0]], [lines[0], b"{}\n"], [*lines, lines[2]], [b"x" * 9000 + b"\n"]):
        path.write_bytes(b"".join(changed))
        with pytest.raises(BatchError, match="altered or damaged"):
            BatchLedger(path, clock)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with ledger(tmp_path / "book"), pytest.raises(BatchError, match="held by another process"):
        BatchLedger(tmp_path / "book", clock)
    with ledger(tmp_path / "book") as book:
        book.close()
        with pytest.raises(BatchError, match="closed"):
            book.note("begun", NAME, **BEGUN)


def test_a_full_disk_is_told_and_nothing_has_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ledger(tmp_path / "book") as book:
        book.note("begun", NAME, **BEGUN)
        before = (tmp_path / "book").read_bytes()
        for fault in ("write", "fsync"):
            with monkeypatch.context() as patch:

                def full(*given: Any) -> int:
                    raise OSError(28, "No space left on device")

                patch.setattr(os, fault, full)
                with pytest.raises(BatchError, match="disk is full"):
                    book.note("made", NAME, **MADE)
            assert (tmp_path / "book").read_bytes() == before
            assert [one.state for one in book] == ["begun"]
        book.note("made", NAME, **MADE)


def test_a_ledger_that_changes_under_our_hands_is_not_used(tmp_path: Path) -> None:
    with ledger(tmp_path / "book") as book:
        book.note("begun", NAME, **BEGUN)
        with (tmp_path / "book").open("a") as file:
            file.write("more\n")
        with pytest.raises(BatchError, match="changed by somebody else"):
            book.note("made", NAME, **MADE)


# ---- the depot ------------------------------------------------------------------------------------


def test_a_batch_is_read_once(tmp_path: Path) -> None:
    with contextlib.closing(depot(tmp_path / "d")) as ours:
        making = filled(ours, content=b"x" * 3_000_000)
        assert ours.left(STUDY).batches == ours.left().batches == 1
        assert ours.left(STUDY).size == making.size > 3_000_000
        assert ours.left(STUDY).products == 7
        assert ours.left(OTHER).batches == 0
        ours.ready(NAME)
        with ours.take(NAME, "attempt 1") as taken:
            # Before the first byte is read, the ledger says so and the file has lost its name.
            assert b'"spent"' in (tmp_path / "d" / "batches.jsonl").read_bytes()
            assert not list((tmp_path / "d").glob("*.sealed"))
            opener = taken.opener()
            assert opener.read(3_000_000) == b"x" * 3_000_000
            opener.finish()
            assert taken.is_ours
        with pytest.raises(BatchError, match="not there to be used"):
            ours.take(NAME, "attempt 2")
        with pytest.raises(BatchError, match="spent already"):
            ours.begin(STUDY, NAME)
    with contextlib.closing(depot(tmp_path / "d")) as again, pytest.raises(BatchError, match="not there to be used"):
        again.take(NAME, "attempt 2")


def test_the_directory_is_for_us_alone(tmp_path: Path) -> None:
    with contextlib.closing(depot(tmp_path / "d")) as ours:
        filled(ours)
        assert (tmp_path / "d").stat().st_mode & 0o077 == 0
        assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "d").iterdir())
        for name in ("", "../x", "a/b", NAME + "/", NAME.replace("0", "g", 1)):
            with pytest.raises(BatchError):
                ours.begin(STUDY, name)


def test_what_a_crash_leaves_is_discarded(tmp_path: Path) -> None:
    ours = depot(tmp_path / "d")
    filled(ours)
    making = ours.begin(STUDY, LATER)
    making.write(b"half")
    making.close()
    ours.close()  # as if killed
    (tmp_path / "d" / f"{'f' * 32}-0.sealed").write_bytes(b"nobody's")
    with contextlib.closing(depot(tmp_path / "d")) as again:
        assert [batch.state for batch in again.batches()] == ["made", "discarded"]
        assert sorted(path.name for path in (tmp_path / "d").iterdir()) == [f"{NAME}.sealed", "batches.jsonl"]


@pytest.mark.parametrize("what", ["gone", "cut"])
def test_what_lost_its_file_is_discarded(tmp_path: Path, what: str) -> None:
    for running in (False, True):
        ours = depot(tmp_path / str(running))
        filled(ours)
        path = tmp_path / str(running) / f"{NAME}.sealed"
        path.write_bytes(path.read_bytes()[:-1]) if what == "cut" else path.unlink()
        if not running:
            ours.close()
            ours = depot(tmp_path / str(running))
        assert [offer.state for offer in ours.offers(STUDY)] in (["discarded"], [])
        assert ours.left(STUDY).batches == 0
        assert [batch.state for batch in ours.batches()] == ["discarded"]
        ours.close()


def test_batches_of_a_study_that_is_over_are_discarded(tmp_path: Path) -> None:
    with contextlib.closing(depot(tmp_path / "d")) as ours:
        filled(ours)
        filled(ours, LATER, study=OTHER)
        ours.forget(STUDY)
        assert [batch.state for batch in ours.batches()] == ["discarded", "made"]
        assert [path.stem for path in (tmp_path / "d").glob("*.sealed")] == [LATER]


# ---- between parties ------------------------------------------------------------------------------


async def program(party: Party, scale: float) -> Any:
    x = await party.share([1.5 * scale] if party.rank == 0 else None, bound=4.0, owner=0, shape=(1,))
    return await open_(party, await multiply(party, x, x))


class Team:
    """Parties in one event loop, each with a depot."""

    def __init__(self, place: Path, size: int = 2) -> None:
        self.place = place
        self.size = size
        self.told: list[str] = []
        self.network: Any = None
        self.timeout = 20.0

    def depot(self, rank: int) -> Depot:
        return depot(self.place / str(rank), b"key of %d" % rank)

    def session(self, work: Any, tamper: Any = None) -> list[Any]:
        async def one(party: Party, where: Depot) -> Any:
            try:
                return await work(party, DepotKeeper(where, STUDY, "attempt"))
            finally:
                where.close()

        depots = [self.depot(rank) for rank in range(self.size)]
        self.network = TappedNetwork(self.size, tamper=tamper, timeout_seconds=self.timeout)
        together = run_together(one, depots, preprocessing="ot", network=self.network, seats=self.network.transport)
        return [outcome for outcome, _ in asyncio.run(together)]

    def make(self, runs: int = 1, tamper: Any = None) -> list[Any]:
        session = secrets.token_bytes(16)

        async def work(party: Party, keeper: DepotKeeper) -> list[str]:
            async def find() -> Any:
                return await asyncio.to_thread(plan_of, program, [0.5] * party.size)

            plan = await share_plan(party.transport, find)
            return await produce(party, keeper, plan, study=STUDY, session=session, runs=runs, tell=self.told.append)

        return self.session(work, tamper)

    def use(self, tamper: Any = None) -> list[Any]:
        async def work(party: Party, keeper: Any) -> Any:
            name = await use(party, keeper, self.told.append)
            (square,) = await program(party, 1.0)
            assert square == pytest.approx(2.25)
            return name

        return self.session(work, tamper)

    def states(self) -> list[list[str]]:
        found = []
        for rank in range(self.size):
            with contextlib.closing(self.depot(rank)) as one:
                found.append([batch.state for batch in one.batches()])
        return found


@pytest.mark.parametrize("size", [2, 3])
def test_what_was_made_together_is_used_together_the_oldest_first(tmp_path: Path, size: int) -> None:
    team = Team(tmp_path, size)
    names, *others = team.make(runs=2)
    assert others == [names] * (size - 1)
    assert team.states() == [["ready", "ready"]] * size
    assert team.use() == [names[0]] * size
    assert team.use() == [names[1]] * size
    assert team.states() == [["spent", "spent"]] * size
    assert team.use() == [None] * size  # made as it goes
    digests = []
    for rank in range(size):
        with contextlib.closing(team.depot(rank)) as one:
            assert len({batch.matching for batch in one.batches()}) == 2
            digests += [batch.digest for batch in one.batches()]
    assert len(set(digests)) == 2 * size


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:],
        lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:],
        lambda data: bytes(len(data)),
    ],
)
def test_a_file_that_was_altered_is_not_used_by_anybody(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    team = Team(tmp_path)
    team.make()
    (path,) = (tmp_path / "1").glob("*.sealed")
    path.write_bytes(change(path.read_bytes()))
    assert team.use() == [None, None]
    assert team.states() == [["spent"], ["spent"]]
    assert any("sealed file" in told for told in team.told)
    assert any("party 1 cannot read it" in told for told in team.told)


def test_files_that_were_exchanged_are_not_used(tmp_path: Path) -> None:
    team = Team(tmp_path)
    team.make(runs=2)
    first, second = sorted((tmp_path / "0").glob("*.sealed"))
    first.rename(tmp_path / "aside")
    second.rename(first)
    (tmp_path / "aside").rename(second)
    assert team.use() == [None, None]
    assert any("another one than its name says" in told for told in team.told)


def test_another_partys_file_is_not_used(tmp_path: Path) -> None:
    team = Team(tmp_path)
    team.make()
    (ours,), (theirs,) = (tmp_path / "0").glob("*.sealed"), (tmp_path / "1").glob("*.sealed")
    size = ours.stat().st_size
    ours.write_bytes(theirs.read_bytes()[:size].ljust(size, b"\0"))
    assert team.use() == [None, None]
    assert team.states() == [["spent"], ["spent"]]


def test_a_file_of_another_key_is_not_used(tmp_path: Path) -> None:
    """A node that got another key cannot read what it has, and says so."""
    team = Team(tmp_path)
    team.make()
    before = team.depot
    team.depot = lambda rank: depot(tmp_path / str(rank), b"a new key") if rank == 1 else before(rank)  # type: ignore[method-assign]
    assert team.use() == [None, None]
    assert any("another key" in told for told in team.told)


def test_a_store_that_was_taken_back_in_time_is_noticed(tmp_path: Path) -> None:
    team = Team(tmp_path)
    team.make(runs=2)
    shutil.copytree(tmp_path / "1", tmp_path / "backup")
    first = team.use()[0]
    shutil.rmtree(tmp_path / "1")
    shutil.copytree(tmp_path / "backup", tmp_path / "1")
    second = team.use()
    assert second[0] == second[1] != first
    assert team.states() == [["spent", "spent"], ["discarded", "spent"]]
    assert any("taken back in time" in told for told in team.told)
    # And all is lost with a store that was removed: the others have nothing to use either.
    team.make()
    shutil.rmtree(tmp_path / "0")
    assert team.use() == [None, None]
    assert team.states()[1][-1] == "discarded"


def test_material_that_differs_is_discarded_by_all(tmp_path: Path) -> None:
    def other(message: Message) -> list[Message]:
        return [message._replace(data=b"x" * 64)] if message.step == "material/made.0" else [message]

    team = Team(tmp_path)
    names = team.make()[0]
    for outcome in team.make(tamper=other):
        assert isinstance(outcome, PeerError)
    assert team.states() == [["ready", "discarded"]] * 2
    assert team.use() == [names[0]] * 2  # what was there before is still good


@pytest.mark.parametrize(("step", "whole"), [("material/item.2/", False), ("material/made.0", True)])
def test_what_all_have_whole_is_used_and_the_rest_is_discarded(tmp_path: Path, step: str, whole: bool) -> None:
    """A message is lost: of the material itself, or the word that it is whole, which it is then."""

    def lose(message: Message) -> list[Message]:
        return [] if message.frm == 1 and message.step.startswith(step) else [message]

    team = Team(tmp_path)
    team.timeout = 0.5
    assert any(isinstance(outcome, PeerError) for outcome in team.make(tamper=lose))
    assert team.states() == ([["made"], ["ready"]] if whole else [["discarded"], ["discarded"]])
    team.timeout = 20.0
    ours, theirs = team.use()
    assert ours == theirs
    assert (ours is not None) == whole
    left = [[state for state in one if state in ("made", "ready")] for one in team.states()]
    assert left == [[], []]


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"nonsense",
        b"{}",
        b"[[1, 2, 3]]",
        b'[["x", "ready", ""]]',
        json.dumps([[NAME, "lost", ""]]).encode(),
        json.dumps([[NAME, "ready", "x" * 65]]).encode(),
        json.dumps([[NAME, "ready", HASH]] * 600).encode(),
        b"[" * 50_000,
    ],
)
def test_a_list_that_is_none_names_the_peer(tmp_path: Path, said: bytes) -> None:
    def nonsense(message: Message) -> list[Message]:
        return [message._replace(data=said)] if message.frm == 1 and message.step == "material/offers" else [message]

    outcome, _ = Team(tmp_path).use(tamper=nonsense)
    assert isinstance(outcome, PeerError)
    assert (outcome.rank, outcome.step) == (1, "material/offers")


@pytest.mark.parametrize("said", [b"[]x", b"\xff" * 10])
def test_a_plan_that_is_none_names_the_peer(tmp_path: Path, said: bytes) -> None:
    def nonsense(message: Message) -> list[Message]:
        if message.step == "material/plan":
            return [message._replace(data=len(said).to_bytes(8, "big"))]
        return [message._replace(data=said)] if message.step == "material/plan.0" else [message]

    _, outcome = Team(tmp_path).make(tamper=nonsense)
    assert isinstance(outcome, PeerError)
    assert (outcome.rank, outcome.step) == (0, "material/plan")
    assert "no valid plan" in str(outcome)


def offer(number: int, state: str, matching: str = "h") -> Offer:
    return Offer(f"{'0' * 32}-{number}", state, matching)


def test_all_agree_on_what_they_have_in_common() -> None:
    """Whatever each has: the same list everywhere, and everything else is discarded with a reason."""
    names = [f"{'0' * 32}-{k}" for k in range(7)]
    lists = [
        [offer(0, "ready"), offer(1, "made"), *(offer(k, "ready") for k in (2, 3, 4)), offer(6, "spent")],
        [
            *(offer(1, "ready"), offer(0, "ready"), offer(2, "ready", "other")),
            *(offer(3, "spent"), offer(4, "discarded"), offer(5, "made")),
        ],
    ]

    async def work(party: Party, ours: list[Offer]) -> Any:
        return await agree(party.transport, ours)

    pairs = asyncio.run(run_together(work, lists, preprocessing="ot"))
    first, second = (outcome for outcome, _ in pairs)
    assert first.common == second.common == names[:2]
    assert first.discard.keys() == set(names[2:5])
    assert second.discard.keys() == {names[2], names[5]}
    assert "another one of this name" in first.discard[names[2]]
    assert "party 1 has spent it" in first.discard[names[3]]
    assert "party 1 has discarded it" in first.discard[names[4]]
    assert "party 0 does not have it" in second.discard[names[5]]


def test_one_that_keeps_nothing_keeps_nobody_waiting(tmp_path: Path) -> None:
    team = Team(tmp_path)
    team.make()

    async def work(party: Party, keeper: Any) -> Any:
        return await use(party, NoKeeper() if party.rank else keeper, team.told.append)

    assert team.session(work) == [None, None]
    assert team.states() == [["discarded"], ["ready"]]


# ---- the desk -------------------------------------------------------------------------------------


def test_a_worker_touches_its_own_studys_material_alone(tmp_path: Path) -> None:
    """Whatever a program asks for that got at its worker's socket."""

    async def scene() -> None:
        with contextlib.closing(depot(tmp_path / "d")) as ours:
            filled(ours, study=OTHER)
            noted: list[str] = []
            async with desk_of(ours, noted) as desk:
                for ask in ("discard", "ready", "spend", "made"):
                    request = Material.model_validate({"ask": ask, "name": NAME, "matching": HASH})
                    stored, along = await desk.answer(request)
                    assert not stored.ok
                    assert "no such batch" in stored.text
                    assert along is None
                stored, _ = await desk.answer(Material(ask="offers"))
                assert stored.offers == ()
                stored, _ = await desk.answer(Material(ask="begin", name=NAME))
                assert not stored.ok  # there was one of this name
                stored, _ = await desk.answer(Material(ask="close"))
                assert not stored.ok
                stored, along = await desk.answer(Material(ask="begin", name=LATER))
                assert stored.ok
                assert along is not None
                assert str(stored.key) not in repr(stored)
                stored, _ = await desk.answer(Material(ask="begin", name=LATER[:-1] + "2"))
                assert "one batch at a time" in stored.text
                along.close()
            assert noted == ["discarded"]
            assert [batch.state for batch in ours.batches()] == ["made", "discarded"]
        async with desk_of(None) as nothing:
            stored, _ = await nothing.answer(Material(ask="offers"))
            assert stored.text == "this node keeps no material"

    asyncio.run(scene())


class Wire:
    """An exchange between a worker's keeper and its node's desk, in one event loop."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.keeper = NodeKeeper(self)  # type: ignore[arg-type]
        self.tasks: list[asyncio.Task[None]] = []

    def post(self, message: dict[str, Any]) -> None:
        self.tasks.append(asyncio.ensure_future(self._answer(message)))

    async def _answer(self, message: dict[str, Any]) -> None:
        stored, along = await self.desk.answer(Material.model_validate(message))
        self.keeper.heard(Stored.model_validate(as_json(stored)), along)


def desk_of(ours: Depot | None, noted: list[str] | None = None, *, runs: int = 9, spends: bool = True) -> Desk:
    def note(event: str, **fields: Any) -> None:
        if noted is not None:
            noted.append(fields["what"])

    return Desk(ours, STUDY, 1, note, session=NAME[:32], runs=runs, spends=spends)


def test_a_worker_seals_and_its_node_keeps(tmp_path: Path) -> None:
    async def scene() -> None:
        content = secrets.token_bytes(3 * CHUNK + 7)
        noted: list[str] = []
        with contextlib.closing(depot(tmp_path / "d")) as ours:
            async with desk_of(ours, noted) as desk:
                keeper = Wire(desk).keeper
                sealer = await keeper.begin(NAME)
                await asyncio.to_thread(sealer.add, content)
                sealer.finish()
                await keeper.made(NAME, HASH, 7)
                await keeper.ready(NAME)
                assert await keeper.offers() == [Offer(NAME, "ready", HASH)]
                opener = await keeper.spend(NAME)
                assert await asyncio.to_thread(opener.read, len(content)) == content
                opener.finish()
                assert await keeper.close()
                assert not await keeper.close()
                with pytest.raises(BatchError, match="not there to be used"):
                    await keeper.spend(NAME)
            assert noted == ["made", "ready", "spent"]

    asyncio.run(scene())


@pytest.mark.parametrize("how", ["leaves", "discards", "full", "reads little"])
def test_a_worker_that_does_not_come_to_an_end_leaves_nothing(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        with contextlib.closing(depot(tmp_path / "d")) as ours:
            filled(ours, LATER, content=bytes(3 * CHUNK))
            async with desk_of(ours) as desk:
                wire = Wire(desk)
                if how == "reads little":
                    opener = await wire.keeper.spend(LATER)
                    assert opener.read(5) == bytes(5)
                else:
                    sealer = await wire.keeper.begin(NAME)
                    if how == "full":
                        monkeypatch.setattr("parties.node.depot.RESERVE_BYTES", 1 << 60)
                    with contextlib.suppress(BatchError):
                        sealer.add(bytes(CHUNK + 1))
                        sealer.finish()
                    if how == "full":
                        with pytest.raises(BatchError, match="the disk is full"):
                            await wire.keeper.made(NAME, HASH, 7)
                    elif how == "discards":
                        await wire.keeper.discard(NAME, "no more")
            wire.keeper._drop()
            states = [batch.state for batch in ours.batches()]
            assert states == (["spent"] if how == "reads little" else ["made", "discarded"])
            assert len(list((tmp_path / "d").iterdir())) == (1 if how == "reads little" else 2)

    asyncio.run(scene())


def full_disk(monkeypatch: pytest.MonkeyPatch, ledger: Path) -> None:
    """Let nothing be written to a ledger any more."""
    write = os.write

    def full(handle: int, data: bytes) -> int:
        if os.fstat(handle).st_ino == ledger.stat().st_ino:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, data)

    monkeypatch.setattr(os, "write", full)


def test_no_line_is_written_that_could_not_be_read_again(tmp_path: Path) -> None:
    """A worker says why it discards a batch, in 4000 letters, and the node must be able to start again."""

    async def scene() -> None:
        with contextlib.closing(depot(tmp_path / "d")) as ours:
            async with desk_of(ours) as desk:
                wire = Wire(desk)
                await wire.keeper.begin(NAME)
                stored, _ = await desk.answer(Material(ask="discard", name=NAME, why="\u2028\u00e9\n" * 1333))
                assert stored.ok
                wire.keeper._drop()
            filled(ours, LATER)
            with pytest.raises(BatchError, match="too much to note"):
                ours.discard(LATER, "x" * 4000)

    asyncio.run(scene())
    with contextlib.closing(depot(tmp_path / "d")) as again:
        first, second = again.batches()
        assert first.state == "discarded"
        assert len(first.why) <= 200
        assert "\n" not in first.why
        assert second.state == "discarded"  # its file is gone, so that nobody can use it


@pytest.mark.parametrize("when", ["the file", "the ledger", "begun before"])
def test_what_fills_the_disk_is_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    where = tmp_path / "d"
    with contextlib.closing(depot(where)) as ours:
        making = ours.begin(STUDY, NAME)
        making.write(bytes(100_000))
        if when == "begun before":  # and killed
            making._file.close()
            ours.close()
            full_disk(monkeypatch, where / "batches.jsonl")
            with pytest.raises(BatchError, match="disk is full"):
                depot(where)
        else:
            if when == "the file":
                making._file.flush()
                handle = making._file.fileno()
                making.write(b"not yet flushed")
                os.dup2(os.open("/dev/full", os.O_WRONLY), handle)
            else:
                full_disk(monkeypatch, where / "batches.jsonl")
            with pytest.raises(BatchError, match=r"no space left|disk is full"):
                ours.made(making, matching=HASH, products=7)
        assert [path.name for path in where.iterdir()] == ["batches.jsonl"]
        assert ours.left().batches == 0
        monkeypatch.undo()
    with contextlib.closing(depot(where)) as again:
        assert [batch.state for batch in again.batches()] == ["discarded"]


def test_all_that_is_being_made_counts_against_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of two studies at once; and a little is left on the disk for what a node has to note."""
    ours = Depot(tmp_path / "d", derive(), clock, most_bytes=1_000_000)
    with contextlib.closing(ours):
        first, second = ours.begin(STUDY, NAME), ours.begin(OTHER, LATER)
        first.write(bytes(400_000))
        second.write(bytes(400_000))
        ours.check_room(200_000)
        with pytest.raises(BatchError, match="material may take"):
            ours.check_room(200_001)
        ours.made(first, matching=HASH, products=1)
        ours.drop(second, "no more")
        ours.check_room(600_000)
        with pytest.raises(BatchError, match="material may take"):
            ours.check_room(600_001)
        ours.discard(NAME, "no more")
        ours.check_room(1_000_000)
        free = 64 << 20
        monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=free // 512, f_frsize=512))
        ours.check_room(1000)
        free = 33 << 20
        ours.check_room(1000)
        free = (32 << 20) + 512
        with pytest.raises(BatchError, match="the disk is full"):
            ours.check_room(1000)


def test_a_worker_is_told_that_there_is_no_room(tmp_path: Path) -> None:
    async def scene() -> None:
        noted: list[str] = []
        with contextlib.closing(Depot(tmp_path / "d", derive(), clock, most_bytes=CHUNK)) as ours:
            async with desk_of(ours, noted) as desk:
                keeper = Wire(desk).keeper
                sealer = await keeper.begin(NAME)

                def fill() -> None:
                    for _ in range(99):
                        sealer.add(bytes(CHUNK))

                with pytest.raises(BatchError, match="this node takes no more material"):
                    await asyncio.to_thread(fill)
                await keeper.discard(NAME, "it was not finished")
            (batch,) = ours.batches()
            assert (batch.state, noted) == ("discarded", ["discarded"])
            assert "limits.material_mb" in batch.why  # the owner reads what it was

    asyncio.run(scene())


def test_an_attempt_makes_what_it_was_asked_for_and_a_dry_one_uses_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        with contextlib.closing(depot(tmp_path / "d")) as ours:
            filled(ours, LATER)
            for runs, name in ((0, NAME), (1, LATER[:-1] + "2"), (9, "1" * 32 + "-0")):
                async with desk_of(ours, runs=runs) as desk:
                    for ask in ("begin", "ready") if name != NAME else ("begin",):
                        stored, along = await desk.answer(Material.model_validate({"ask": ask, "name": name}))
                        assert not stored.ok
                        assert along is None
            async with desk_of(ours, runs=0, spends=False) as desk:
                stored, _ = await desk.answer(Material(ask="spend", name=LATER))
                assert stored.text == "a dry run uses nothing up"
                stored, _ = await desk.answer(Material(ask="ready", name=LATER))
                assert stored.text == "this attempt makes no such batch"
            assert [(batch.name, batch.state) for batch in ours.batches()] == [(LATER, "made")]

    asyncio.run(scene())


def test_other_code_uses_nothing_of_what_was_made(tmp_path: Path) -> None:
    for code, states in (("one", ["made"]), ("one", ["made", "made"]), ("two", ["discarded", "discarded", "made"])):
        with contextlib.closing(Depot(tmp_path / "d", derive(), clock, code=code)) as ours:
            filled(ours, f"{NAME[:-1]}{len(states)}")
            assert [batch.state for batch in ours.batches()] == states
            assert len(list((tmp_path / "d").glob("*.sealed"))) == states.count("made")


@pytest.mark.parametrize("fault", ["open", "rename", "write", "ledger", "spend"])
def test_no_file_is_named_to_other_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    def broken(*given: Any, **more: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error", str(given[0]))

    async def scene() -> list[str]:
        texts: list[str] = []
        with contextlib.closing(depot(tmp_path / "d")) as ours:
            filled(ours, LATER)
            async with desk_of(ours) as desk:
                if fault == "spend":
                    ours._path(LATER).unlink()
                if fault == "ledger":
                    (tmp_path / "d" / "batches.jsonl").unlink()
                if fault == "open":
                    monkeypatch.setattr(os, "open", broken)
                begun, along = await desk.answer(Material(ask="begin", name=NAME))
                texts.append(begun.text)
                if along is not None:
                    along.close()
                if fault in ("rename", "write"):
                    monkeypatch.setattr(os, fault, broken)
                for ask in ("made", "spend", "discard", "offers"):
                    name = LATER if ask == "spend" else NAME
                    request = {"ask": ask, "name": name, "matching": HASH}
                    stored, along = await desk.answer(Material.model_validate(request))
                    texts.append(stored.text)
                    if along is not None:
                        along.close()
                monkeypatch.undo()
        return texts

    texts = [text for text in asyncio.run(scene()) if text]
    assert texts
    assert not [text for text in texts if str(tmp_path) in text or "jsonl" in text or ".sealed" in text]
