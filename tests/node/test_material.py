"""Material through real nodes and workers: made when the owner asks, used by the next attempt, once."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from parties.governance.studies import Study
from parties.node import metrics
from parties.node.material_messages import Prepare
from parties.node.owner import NotNowError, Owner
from parties.node.sandbox import make_sandbox, start_all, stop_all
from parties.node.scheduler import run_body
from parties.node.service import Node
from parties.node.states import Phase, Preparation
from parties.node.workers import Assignment, Worker
from tests.node.support import on_uvloop
from tests.node.test_commands import invoke
from tests.node.world import World, until

PAIR = ("city", "north")


def study_of(world: World, **changes: Any) -> Study:
    given = {
        "contributors": list(PAIR),
        "recipients": list(PAIR),
        "preprocessing": "ot",
        "dry_run": False,
        "time_limit_seconds": 120,
        **changes,
    }
    return world.study(**given)


async def agree(nodes: list[Node], study: Study) -> None:
    Owner(nodes[0]).propose(study.plain(), None)
    await until(lambda: all(study.hash in node.library.entries for node in nodes))
    for node in nodes:
        Owner(node).approve(study.hash)
    await until(lambda: all(node.library.entries[study.hash].phase(node.clock()) is Phase.APPROVED for node in nodes))


async def over(nodes: list[Node], study: Study, attempts: int, seconds: float = 60.0) -> list[Any]:
    """Wait until so many attempts are over everywhere; returns the states."""

    def states() -> list[Any]:
        return [node.library.entries[study.hash].state(node.clock()) for node in nodes]

    await until(
        lambda: (
            all(len(s.attempts) >= attempts and s.attempts[-1].reported for s in states())
            and not any(node.scheduler.runs for node in nodes)
        ),
        seconds,
    )
    return states()


def left(nodes: list[Node], study: Study) -> list[list[str]]:
    offers = [node.depot.offers(study.hash) for node in nodes]
    return [sorted(one.name for one in those if one.state in ("made", "ready")) for those in offers]


def audited(node: Node, event: str) -> list[dict[str, Any]]:
    lines = (node.config.state / "audit.jsonl").read_text().splitlines()
    return [entry["fields"] for entry in map(json.loads, lines) if entry["event"] == event]


def sent(node: Node) -> int:
    """Bytes of all steps of a node's last attempt."""
    return sum(step["bytes"] for step in audited(node, "sent")[-1]["steps"].values())


@pytest.fixture
def pair(tmp_path: Path) -> World:
    return World(tmp_path, PAIR)


def test_material_from_the_owners_wish_to_its_use(pair: World) -> None:
    async def scene() -> None:
        async with pair.nodes(start_worker=None, ready_seconds=30.0) as nodes:
            study = study_of(pair)
            await agree(nodes, study)
            owner = Owner(nodes[0])
            view = owner.prepare(study.hash, runs=2, rows=2)
            assert "preparation 1" in view["text"]
            states = await over(nodes, study, 1)
            assert [state.phase for state in states] == [Phase.APPROVED] * 2, [s.text for s in states]
            assert not any(state.used or state.dry_run_passed for state in states)
            ours, theirs = left(nodes, study)
            assert ours == theirs
            assert len(ours) == 2
            shown = owner.show(study.hash)["material"]
            assert shown["batches"] == 2
            assert shown["bytes"] > 1000
            assert shown["products"] >= 10
            assert shown["oldest"].endswith("Z")
            assert 0 <= shown["age_seconds"] < 60
            whole = owner.status()["material"]
            assert {**whole, "age_seconds": 0} == {**shown, "age_seconds": 0}
            assert b"sottovoce_material_batches 2.0" in metrics.figures(nodes[0])
            made = sent(nodes[0])

            owner.run(study.hash, dry=False)
            states = await over(nodes, study, 2)
            assert [state.phase for state in states] == [Phase.FINISHED] * 2, [s.text for s in states]
            mean = owner.result(study.hash)["result"]["analyses"]["mean age"]["values"]["age"]
            assert mean == pytest.approx(45.0, abs=1e-4)
            assert sent(nodes[0]) < made / 4
            # One was used, and the study is over: the other is of no use any more.
            for node in nodes:
                assert sorted(batch.state for batch in node.depot.batches()) == ["discarded", "spent"]
                assert not list(node.depot.directory.glob("*.sealed"))
                assert [one["what"] for one in audited(node, "material")][:5] == ["made", "ready"] * 2 + ["spent"]

    on_uvloop(scene())


def test_workers_that_are_killed_make_and_use_nothing_twice(pair: World) -> None:
    """While material is made, and when it has just been spent: each time all goes on with other material."""
    workers: list[Worker] = []

    async def start(assignment: Assignment, directory: Path) -> Worker:
        state = Path(assignment.base) / "state"
        worker = await Worker.start(assignment, ledger=state / "ledger.jsonl", directory=state / directory)
        workers.append(worker)
        return worker

    async def scene() -> None:
        async with pair.nodes(start_worker=start, ready_seconds=30.0) as nodes:
            study = study_of(pair, attempts=5)
            await agree(nodes, study)
            Owner(nodes[0]).prepare(study.hash, runs=2, rows=2)
            await until(lambda: nodes[1].depot.batches(), 30.0)
            os.kill(workers[-1].pid, signal.SIGKILL)
            states = await over(nodes, study, 2)  # it begins again by itself
            assert [state.phase for state in states] == [Phase.APPROVED] * 2, [s.text for s in states]
            ours, theirs = left(nodes, study)
            assert ours == theirs
            assert len(ours) >= 2

            Owner(nodes[0]).run(study.hash, dry=False)
            await until(lambda: any(batch.state == "spent" for batch in nodes[0].depot.batches()), 30.0)
            os.kill(workers[-1].pid, signal.SIGKILL)
            states = await over(nodes, study, 4)
            assert [state.phase for state in states] == [Phase.FINISHED] * 2, [s.text for s in states]
            spent = [[one.name for one in node.depot.batches() if one.state == "spent"] for node in nodes]
            assert [len(those) for those in spent] == [2, 2] or sorted(map(len, spent)) == [1, 2], spent
            for node in nodes:
                told = [one["batch"] for one in audited(node, "material") if one["what"] == "spent"]
                assert len(told) == len(set(told))
                assert not list(node.depot.directory.glob("*.sealed"))

    on_uvloop(scene())


def test_a_store_that_was_taken_back_in_time_is_noticed(pair: World) -> None:
    """One node's depot is restored from a backup: the others have spent what it offers, and nothing is used twice."""

    async def scene() -> None:
        study = study_of(pair, attempts=5, recipients=["city"])
        async with pair.nodes(start_worker=None, ready_seconds=30.0) as nodes:
            await agree(nodes, study)
            Owner(nodes[0]).prepare(study.hash, runs=1, rows=2)
            await over(nodes, study, 1)
            kept = {path.name: path.read_bytes() for path in nodes[1].depot.directory.iterdir()}
            # An attempt spends it, and fails.
            batch = nodes[0].depot.offers(study.hash)[0].name
            nodes[0].depot.take(batch, "attempt 2").close()
            nodes[1].depot.take(batch, "attempt 2").close()
        for name, content in kept.items():
            (pair.directory / "north" / "state" / "material" / name).write_bytes(content)
        async with pair.nodes(start_worker=None, ready_seconds=30.0) as nodes:
            assert nodes[1].depot.left(study.hash).batches == 1
            Owner(nodes[0]).run(study.hash, dry=False)
            states = await over(nodes, study, 2)
            assert [state.phase for state in states] == [Phase.FINISHED] * 2, [s.text for s in states]
            (restored,) = nodes[1].depot.batches()
            assert restored.state == "discarded"
            assert "taken back in time" in restored.why

    on_uvloop(scene())


def test_what_cannot_be_prepared_is_told(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def scene() -> None:
        async with world.nodes() as nodes:
            owner = Owner(nodes[0])
            waits, prss = world.study(preprocessing="ot"), world.study(title="Another")
            for study in (waits, prss):
                owner.propose(study.plain(), None)
            with pytest.raises(NotNowError, match="waits for the approval"):
                owner.prepare(waits.hash, runs=1, rows=10)
            with pytest.raises(NotNowError, match="1 to 100 runs"):
                owner.prepare(waits.hash, runs=0, rows=10)
            with pytest.raises(NotNowError, match="'prss' takes its material as it goes"):
                owner.prepare(prss.hash, runs=1, rows=10)

    on_uvloop(scene())


@pytest.mark.parametrize("second", [Preparation(2, 10), None])
def test_two_ways_to_begin_an_attempt_do_not_go_together(tmp_path: Path, second: Preparation | None) -> None:
    """One member prepares, another one begins a dry run, or prepares something else: nobody computes that attempt."""
    world = World(tmp_path)

    async def scene() -> None:
        async with world.nodes(ready_seconds=5.0) as nodes:
            study = world.study(preprocessing="ot")
            await agree(nodes, study)
            for node, prepare in zip(nodes, (Preparation(1, 10), second), strict=False):
                node.say(node.library.entries[study.hash], "run", run_body(1, True, prepare))
            await over(nodes, study, 2, 20.0)
            first = nodes[2].library.entries[study.hash].state(nodes[2].clock()).attempts[0]
            assert first.clash
            assert first.failures

    on_uvloop(scene())


def test_what_was_asked_for_is_in_the_records_of_all(tmp_path: Path) -> None:
    """And the pretended workers of these nodes are told of it."""
    world = World(tmp_path)

    async def scene() -> None:
        async with world.nodes() as nodes:
            study = world.study(preprocessing="ot")
            await agree(nodes, study)
            Owner(nodes[0]).prepare(study.hash, runs=3, rows=70)
            states = await over(nodes, study, 1)
            assert {state.attempts[0].prepare for state in states} == {Preparation(3, 70)}
            assert all(state.attempts[0].dry and state.left == study.attempts for state in states)
            told = [worker.assignment.prepare for worker in world.bench.workers]
            assert told == [Prepare(runs=3, rows=70)] * 3

    on_uvloop(scene())


def test_the_command_says_what_is_ready(tmp_path: Path) -> None:
    """A consortium of processes, as a person uses it: prepare, look, run."""
    directory = tmp_path / "sandbox"
    make_sandbox(directory, 2, with_dealer=True)
    north, study = directory / "north", directory / "study.toml"
    text = study.read_text().replace('"dealer"\ndealer = "dealer"', '"ot"')
    text = text.replace('disclosure = "vantage6"', 'disclosure = "none"\ndry_run = false').split("[[analyses]]")[0]
    study.write_text(text + '[[analyses]]\nname = "sums"\nprotocol = "mean"\ncolumns = ["age", "bmi"]\n')

    def command(*arguments: object, at: Path = north, code: int = 0) -> str:
        found = invoke(*arguments, node=at)
        assert found.exit_code == code, (found.output, found.exception)
        return found.output

    start_all(directory, 60.0)
    try:
        command("propose", study, "--approve")
        deadline = time.monotonic() + 30
        while "Readmission" not in command("list", "--json", at=directory / "city"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        command("approve", "Readmission", at=directory / "city")
        told = command("prepare", "Readmission", "--runs", 2, "--rows", 120, "--wait")
        assert "material for 2 runs is ready" in told
        assert "material for 2 runs is ready" in command("status", "Readmission")
        assert "material for 2 runs is ready" in command("status")
        command("run", "Readmission", "--wait")
        while "material for" in command("status"):  # the study is over: what is left is discarded
            assert time.monotonic() < deadline + 60
            time.sleep(0.05)
    finally:
        stop_all(directory)
