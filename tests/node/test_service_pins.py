"""Once something of a study may have been opened, it is computed on the same rows or not at all."""

import asyncio
import itertools
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parties.data.columns import Table
from parties.node import attempts, scheduler
from parties.node.messages import Event, Failed, Finished, Opened, Opening, Rows
from parties.node.owner import Owner
from parties.node.pins import Pin
from parties.node.rows import digest_of
from parties.node.store import Store, StoreError
from tests.node.support import on_uvloop
from tests.node.teams import Team, study_with, team
from tests.node.test_service import agree, outcome, settled
from tests.node.world import FakeWorker, World

DIGEST = "a" * 64
ROWS = Rows(count=2, digest=DIGEST)
PROGRAM = "async def study(party, table):\n    return 1\n"


def opened(step: str) -> Opened:
    return Opened(openings=(Opening(step=step, shapes=((),), elements=1),))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "state")
    for study in (study_with(), study_with(PROGRAM)):
        made.add(study.hash, study.plain(), None)
    yield made
    made.close()


def test_the_first_rows_are_pinned_for_good(store: Store) -> None:
    pin = Pin(store, study_with().hash)
    pin.heed(opened("dry run/sums/open"))
    assert Pin(store, study_with().hash).digest is None
    pin.heed(ROWS)
    assert Pin(store, study_with().hash).digest == DIGEST
    pin.heed(Rows(count=2, digest="b" * 64))  # which only a worker that lies would say
    assert Pin(store, study_with().hash).digest == DIGEST
    assert Pin(store, study_with(PROGRAM).hash).digest is None


def test_the_key_is_the_nodes_own_and_stays(store: Store, tmp_path: Path) -> None:
    keys = {Pin(store, study.hash).key for study in (study_with(), study_with(PROGRAM)) for _ in range(2)}
    assert {len(key) for key in keys} == {32}
    assert len(keys) == 2  # one for each study
    path = tmp_path / "state" / "studies" / study_with().hash / "rows.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("beef")
    with pytest.raises(StoreError, match="is damaged"):
        Pin(store, study_with().hash)


# ---- at nodes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("pinned", [True, False])
def test_a_repeat_is_held_to_the_rows_of_the_attempt_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pinned: bool
) -> None:
    monkeypatch.setattr(scheduler, "_REPEAT_SECONDS", 0.1)
    monkeypatch.setattr(attempts, "_GRACE_SECONDS", 0.1)
    world = World(tmp_path)
    real = FakeWorker.events

    async def events(self: FakeWorker) -> AsyncIterator[Event]:
        async for event in real(self):
            if isinstance(event, Rows):
                if pinned or self.assignment.attempt > 1:
                    yield ROWS
            elif isinstance(event, Finished) and self.assignment.attempt == 1:
                yield Failed(error_type="PeerError", text="gone", for_peers="gone", of_peer=True)
            else:
                yield event

    monkeypatch.setattr(FakeWorker, "events", events)

    async def work() -> None:
        async with world.nodes() as nodes:
            study = world.study()
            await agree(nodes, study)
            Owner(nodes[0]).run("Age", dry=False)
            await settled(nodes, study, "finished")
            assert len(world.bench.workers) == 6
            for node in nodes:
                first, second = (worker.assignment for worker in world.bench.workers if worker.name == node.config.name)
                assert outcome(node, study, node.config.name)["ok"] is False
                assert first.rows_digest is None
                assert second.rows_digest == (DIGEST if pinned else None)
                assert first.rows_key == second.rows_key
            assert len({worker.assignment.rows_key for worker in world.bench.workers}) == 3

    asyncio.run(work())


# ---- at workers -------------------------------------------------------------------------------------


def test_other_rows_than_those_pinned_are_not_shared(tmp_path: Path) -> None:
    """Their owner reads why; the others the type alone; nothing is opened."""
    options: dict[str, Any] = {"city": {"rows_key": bytes(32), "rows_digest": DIGEST}}

    async def main() -> Team:
        async with team(tmp_path, study_with(), options=options) as members:
            await members.run()
            return members

    done = on_uvloop(main())
    city = done["city"].last
    assert isinstance(city, Failed)
    assert (city.phase, city.of_peer, city.for_peers) == ("loading", False, "")  # so it is not tried again
    assert "have changed since something of this study was opened" in city.text
    assert done["city"].of(Rows) == []
    for member in done.members:
        assert [one for event in member.of(Opened) for one in event.openings if one.digest is not None] == []
        assert isinstance(member.last, Failed)
        assert "changed since" not in member.last.for_peers


def test_workers_tell_the_hash_that_they_are_held_to(tmp_path: Path) -> None:
    key = bytes(range(32))

    async def main(**more: Any) -> Team:
        options = {one: {"rows_key": key, **more} for one in ("north", "city", "south")}
        async with team(tmp_path, study_with(), options=options) as members:
            await members.run()
            return members

    first = on_uvloop(main())
    (rows,) = first["north"].of(Rows)
    assert isinstance(first["north"].last, Finished)
    again = on_uvloop(main(rows_digest=rows.digest))
    assert again["north"].of(Rows) == [rows]
    assert isinstance(again["city"].last, Failed)  # whose rows are others


def test_nothing_is_computed_before_the_node_has_pinned_the_rows(tmp_path: Path) -> None:
    """Its node takes its time with city's rows, or may die meanwhile: nobody learns anything until it goes on."""

    async def main() -> Team:
        async with team(tmp_path, study_with()) as members:
            await members.begin()
            held = asyncio.Event()
            heard: dict[str, list[Event]] = {}

            async def one(member: Any) -> None:
                async for event in member.worker.events():
                    heard.setdefault(member.name, []).append(event)
                    if isinstance(event, Rows) and member.name == "city":
                        await held.wait()

            listening = [asyncio.create_task(one(member)) for member in members.members]
            async with asyncio.timeout(30):
                while not any(isinstance(event, Rows) for event in heard.get("city", [])):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                await asyncio.sleep(1.0)
                steps = {o.step for said in heard.values() for e in said if isinstance(e, Opened) for o in e.openings}
                assert steps == set()
                held.set()
                await asyncio.gather(*listening)
            assert [type(said[-1]) for said in heard.values()] == [Finished] * 3
            return members

    on_uvloop(main())


def test_the_order_of_rows_does_not_count(tmp_path: Path) -> None:
    columns = {
        "a": np.array([1, 1, -2, 3]),
        "b": np.array([0.5, -0.5, 0.25, 1e300]),
        "c": np.array([True, False, True, True]),
    }
    key = bytes(32)
    digest = digest_of(Table(columns, 4), key)
    for order in itertools.permutations(range(4)):
        same = {name: values[list(order)] for name, values in columns.items()}
        assert digest_of(Table(same, 4), key) == digest
    # But which values stand in one row does.
    other = {**columns, "a": columns["a"][[2, 1, 0, 3]]}
    assert digest_of(Table(other, 4), key) != digest
    assert digest_of(Table({**columns, "a": columns["a"] + 1}, 4), key) != digest
