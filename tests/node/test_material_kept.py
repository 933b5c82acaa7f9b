"""Material that is kept while it may be of use, discarded when it is of none, and in nobody's way if it is broken."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import logging
import resource
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc import Party
from mpc.prepare import Stock
from mpc.preprocessing.ot import OtMask
from mpc.preprocessing.requests import Base, Recipe
from mpc.preprocessing.serve import field_named
from mpc.stock import Record, Tally, encode, end
from parties.governance.studies import Study
from parties.node import scheduler
from parties.node.batches import BatchError
from parties.node.depot import Depot, Offer
from parties.node.keepers import DepotKeeper
from parties.node.matching import use
from parties.node.owner import Owner
from parties.node.sealing import Opener
from parties.node.service import Node, now
from tests.node.test_depot import HASH, LATER, NAME, STUDY, Team, filled, program
from tests.node.test_service import agree, settled, state
from tests.node.world import World, until

FULL = "the ledger of material cannot be written: the disk is full"
THIRD = NAME[:-1] + "2"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture(autouse=True)
def quick_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_TICK_SECONDS", 0.05)


# ---- using it -------------------------------------------------------------------------------------


class Cramped(DepotKeeper):
    """Keeps batches for a party that has memory for so many pieces, and counts what it still holds in the end."""

    def __init__(self, depot: Depot, party: Party, pieces: int) -> None:
        super().__init__(depot, STUDY, "attempt")
        self.party = party
        self.left = pieces
        self.held = -1

    async def spend(self, name: str) -> Opener:
        opener = await super().spend(name)
        if not self.left:
            raise MemoryError
        read = opener.read

        def until_it_is_full(count: int) -> bytes:
            self.left -= 1
            if not self.left:
                raise MemoryError
            return read(count)

        opener.read = until_it_is_full  # type: ignore[method-assign]
        return opener

    async def close(self) -> bool:
        stocks = [made() for made in MADE]
        self.held = sum(one is not None and one.source is self.party.preprocessing for one in stocks)
        return await super().close()


MADE: list[weakref.ref[Stock]] = []


class Watched(Stock):
    """Is seen going away."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        MADE.append(weakref.ref(self))


@pytest.fixture
def uncollected(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stocks that go away when the last reference does, or never."""
    monkeypatch.setattr("mpc.stock.Stock", Watched)
    MADE.clear()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("pieces", [0, 1, 5])
@pytest.mark.usefixtures("uncollected")
def test_what_does_not_fit_into_the_memory_is_let_go_of(tmp_path: Path, pieces: int) -> None:
    """When the file is opened, at its first piece, and at another one: all compute without it."""
    team = Team(tmp_path)
    team.make()
    keepers: list[Cramped] = []

    async def work(party: Party, keeper: DepotKeeper) -> Any:
        if party.rank == 1:
            keepers.append(Cramped(keeper._depot, party, pieces))
        name = await use(party, keepers[0] if party.rank == 1 else keeper, team.told.append)
        (square,) = await program(party, 1.0)
        assert square == pytest.approx(2.25)
        return name

    assert team.session(work) == [None, None]
    (keeper,) = keepers
    assert keeper.held == 0
    assert len(MADE) == (2 if pieces else 1)
    assert [made() for made in MADE] == [None] * len(MADE)
    assert team.states() == [["spent"], ["spent"]]
    assert sorted(team.told)[0].endswith("does not fit into the memory that this process may use")
    assert any("party 1 cannot read it" in told for told in team.told)


def large(where: Depot, arrays: int) -> None:
    """Put a batch of so many arrays of 8 MB into a depot."""
    field = field_named("F61")
    making = where.begin(STUDY, NAME)
    sealer, tally, shape = making.sealer(), Tally(), (1_000_000,)
    for number in range(arrays):
        base = Base("x", 16 * number, field.name, shape, 0)
        mask = OtMask(field, np.zeros(shape, np.uint64), Recipe.of(base), 1, field.bits)
        for part in encode(Record("x", ("uniform", field.name, shape), mask, ()), tally):
            sealer.add(part)
    sealer.add(end())
    sealer.finish()
    where.made(making, matching=HASH, products=0)


def go_on_within_a_limit(place: Path) -> None:
    """Compute where one party's batch is larger than what its process may use; in a process of its own."""
    team = Team(place)
    team.make()
    team.use()  # whatever is made at the first use is there
    for rank, arrays in ((0, 1), (1, 30)):
        with contextlib.closing(team.depot(rank)) as one:
            large(one, arrays)
    facts = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    # Both parties hold room for the rest here.
    most = int(facts["VmData"].split()[0]) * 1024 + (300 << 20)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    assert team.use() == [None, None]
    assert any("does not fit" in told for told in team.told), team.told
    np.empty(most // 4 - (8 << 20), np.uint8)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere this limit is none")
def test_a_limit_that_a_batch_exceeds_leaves_room_to_go_on(tmp_path: Path) -> None:
    """A real one: threads still start, and there is memory in one piece."""
    work = "import pathlib, sys, tests.node.test_material_kept as t; t.go_on_within_a_limit(pathlib.Path(sys.argv[1]))"
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", work, str(tmp_path)], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("what", ["offers", "discard"])
def test_a_ledger_that_cannot_be_written_is_in_nobodys_way(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One member cannot say what it has, or discard what the other one does not have."""
    team = Team(tmp_path)
    team.timeout = 20.0
    team.make()
    if what == "discard":
        shutil.rmtree(tmp_path / "0")

    async def work(party: Party, keeper: DepotKeeper) -> Any:
        async def fail(*given: Any) -> list[Offer]:
            raise BatchError(FULL)

        if party.rank == 1:
            monkeypatch.setattr(keeper, what, fail)
        name = await use(party, keeper, team.told.append)
        (square,) = await program(party, 1.0)
        assert square == pytest.approx(2.25)
        return name

    assert team.session(work) == [None, None]
    assert any(told.endswith(FULL) for told in team.told)
    # The next attempt goes on as if nothing had been.
    assert team.use() == [None, None]
    assert team.states()[1] == ["discarded"]


# ---- discarding it --------------------------------------------------------------------------------


def states(node: Node) -> list[str]:
    return [batch.state for batch in node.depot.batches()]


async def looked(node: Node) -> None:
    """Wait until the scheduler has looked at everything."""
    node.scheduler.look_everywhere()
    await until(lambda: not node.scheduler._due)


def test_a_clock_that_is_wrong_for_a_moment_costs_no_material(world: World) -> None:
    async def work() -> None:
        clock = [now()]
        async with world.nodes("city", linked=False, clock=lambda: clock[0]) as (node,):
            study = world.study()
            Owner(node).propose(study.plain(), None)
            filled(node.depot, study=study.hash)
            began, hour = clock[0], datetime.timedelta(hours=1)
            for hours in (25, 47, 0):
                clock[0] = began + hours * hour
                await looked(node)
                assert state(node, study).phase == ("expired" if hours else "proposed")
                assert states(node) == ["made"]
            clock[0] = began + 72 * hour  # two days beyond the deadline
            await until(lambda: states(node) == ["discarded"])
            assert not list(node.depot.directory.glob("*.sealed"))

    asyncio.run(work())


def test_what_ends_for_good_is_discarded_at_once(world: World) -> None:
    async def work() -> None:
        async with world.nodes("city", linked=False) as (node,):
            study = world.study()
            Owner(node).propose(study.plain(), None)
            filled(node.depot, study=study.hash)
            await looked(node)
            assert states(node) == ["made"]
            Owner(node).cancel("Age", "no")
            await until(lambda: states(node) == ["discarded"])
            await until(lambda: study.hash not in node.scheduler._open)

    asyncio.run(work())


def test_material_of_a_study_that_was_removed_is_discarded(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """But not that of one that is damaged: it may be put back."""
    studies = [world.study(title=title) for title in ("Kept", "Removed", "Damaged", "Emptied")]
    directories = [world.directory / "city" / "state" / "studies" / study.hash for study in studies]

    async def work() -> None:
        async with world.nodes("city", linked=False) as (node,):
            for number, study in enumerate(studies):
                Owner(node).propose(study.plain(), None)
                filled(node.depot, NAME[:-1] + str(number), study=study.hash)
        shutil.rmtree(directories[1])
        whole = (directories[2] / "study.json").read_bytes()
        (directories[2] / "study.json").write_bytes(whole.replace(b'"Damaged"', b'"damaged"'))
        (directories[3] / "study.json").unlink()
        caplog.clear()
        with caplog.at_level(logging.INFO):
            async with world.nodes("city", linked=False) as (node,):
                assert node.library.left_out == {studies[2].hash, studies[3].hash}
                await until(lambda: "discarded" in states(node))
                await looked(node)
                assert states(node) == ["made", "discarded", "made", "made"]
        told = [record.getMessage() for record in caplog.records if "material of study" in record.getMessage()]
        assert len(told) == 3
        assert f"{studies[1].hash[:12]} is discarded" in told[0]
        assert {line.split()[3] for line in told if "is kept" in line} == {study.hash[:12] for study in studies[2:]}
        (directories[2] / "study.json").write_bytes(whole)
        async with world.nodes("city", linked=False) as (node,):
            await looked(node)
            assert states(node) == ["made", "discarded", "made", "made"]
            assert set(node.library.entries) == {studies[0].hash, studies[2].hash}

    asyncio.run(work())


def fails(error: Exception) -> Callable[..., None]:
    def fail(*given: Any) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", [BatchError(FULL), PermissionError(13, "Permission denied", "/state/material/x")])
def test_material_that_cannot_be_discarded_is_told_and_tried_again(
    world: World, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All else goes on: of the study that is over, of others, and of one that was removed."""

    async def work() -> None:
        study, other, removed = world.study(), world.study(title="Other"), world.study(title="Removed")
        async with world.nodes() as nodes:
            await finish(nodes, study)
        lost = world.directory / "south" / "state" / "studies" / study.hash / "result.json"
        lost.unlink()
        async with world.nodes("city", "north", linked=False) as nodes:
            with monkeypatch.context() as patch:
                south = world.node("south")
                filled(south.depot, NAME, study=study.hash)
                filled(south.depot, LATER, study=other.hash)
                filled(south.depot, THIRD, study=removed.hash)
                patch.setattr(south.depot, "forget", fails(error))
                await south.__aenter__()
                try:
                    everybody = [*nodes, south]
                    await until(lambda: all(len(node.peers.connected) == 2 for node in everybody))
                    await until(lost.exists)  # fetched from another recipient
                    await finish(everybody, other)
                    told = Owner(south).status()["trouble"]
                    assert told in (FULL, "/state/material/x: permission denied")
                    assert states(south) == ["made"] * 3
                    assert {study.hash, other.hash} <= south.scheduler._open
                    patch.undo()
                    await until(lambda: states(south) == ["discarded"] * 3)
                    await until(lambda: Owner(south).status()["trouble"] == "" and not south.scheduler._open)
                finally:
                    await south.close("the end")

    asyncio.run(work())


async def finish(nodes: list[Node], study: Study) -> None:
    await agree(nodes, study)
    Owner(nodes[0]).run(study.title, dry=False)
    await settled(nodes, study, "finished")
    await until(lambda: all(state(node, study).attempt.reported for node in nodes))
    await until(lambda: not any(node.scheduler.runs for node in nodes))
