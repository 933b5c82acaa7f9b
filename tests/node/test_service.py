"""Nodes over real links, with workers that only pretend: the life of a study, and everything that gets in its way."""

import asyncio
import contextlib
import datetime
import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from mpc.errors import SottovoceError
from parties.governance.audit import read_entries, verify
from parties.governance.cards import make_card
from parties.governance.errors import AuditError
from parties.governance.keys import generate
from parties.governance.studies import Study, study_of
from parties.node import attempts, metrics, scheduler
from parties.node.messages import Failed
from parties.node.owner import NotNowError, Owner
from parties.node.service import Node, now
from parties.node.store import StoreError
from tests.node.world import NAMES, World, study_fields, until

STOPPED = Failed(error_type="WorkerDied", text="killed by signal 9", for_peers="killed by signal 9")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture(autouse=True)
def quick_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that are for people and busy networks."""
    monkeypatch.setattr(scheduler, "_REPEAT_SECONDS", 0.1)
    monkeypatch.setattr(attempts, "_GRACE_SECONDS", 0.1)


def run(work: Callable[[], Any]) -> None:
    async def main() -> None:
        await work()
        await asyncio.sleep(0)
        assert {task for task in asyncio.all_tasks() if task is not asyncio.current_task()} == set()

    asyncio.run(main())


def events(world: World, name: str) -> list[tuple[str, dict[str, Any]]]:
    return [(entry.event, entry.fields) for entry in read_entries(world.directory / name / "state" / "audit.jsonl")]


async def agree(nodes: list[Node], study: Study, program: str | None = None, *names: str) -> None:
    """Propose at the first node, approve at all."""
    Owner(nodes[0]).propose(study.plain(), program)
    await until(lambda: all(study.hash in node.library.entries for node in nodes))
    for node in nodes:
        if not names or node.config.name in names:
            Owner(node).approve(study.hash)
    await until(lambda: all(len(state(node, study).approvals) == (len(names) or len(nodes)) for node in nodes))


def state(node: Node, study: Study) -> Any:
    return node.library.entries[study.hash].state(node.clock())


async def settled(nodes: list[Node], study: Study, phase: str, seconds: float = 30.0) -> None:
    with contextlib.suppress(TimeoutError):
        await until(lambda: all(state(node, study).phase == phase for node in nodes), seconds)
    assert [state(node, study).phase for node in nodes] == [phase] * len(nodes), [state(n, study).text for n in nodes]


def outcome(node: Node, study: Study, name: str, attempt: int = 1) -> dict[str, Any]:
    record = node.library.entries[study.hash].own(name, "outcome", attempt)
    assert record is not None
    return record.body


# ---- from proposal to result ----------------------------------------------------------------------


def test_a_study_from_proposal_to_result(world: World) -> None:
    async def work() -> None:
        async with world.nodes() as nodes:
            study = world.study()
            await agree(nodes, study)
            Owner(nodes[1]).run("Age", dry=False)
            await settled(nodes, study, "finished")
            await until(lambda: all(state(node, study).missing == () for node in nodes))
            results = [Owner(node).result("Age") for node in nodes]
            assert {one["digest"] for one in results} == {results[0]["digest"]}
            assert results[0]["result"]["analyses"]["mean age"]["mean"] == 45.0625
            assert [one["from"] for one in results] == [None] * 3
            assert world.bench.alive == []
            assert len(world.bench.sessions) == 1

    run(work)
    logs = [world.directory / name / "state" / "audit.jsonl" for name in NAMES]
    for name, log in zip(NAMES, logs, strict=True):
        others = [other for other in logs if other != log]
        assert verify(log, world.keys[name].certificate, others) == []
        said = [event for event, _ in events(world, name)]
        for event in (
            "genesis",
            "started",
            "proposal",
            "approval",
            "run",
            "ready",
            "session",
            "rows",
            "result",
            "outcome",
        ):
            assert event in said
        assert said.count("witness") >= 2  # of the heads of the others' logs
        assert said[-1] == "stopped"
        assert "45.0625" not in log.read_text()


def test_a_dry_run_gives_no_result(world: World) -> None:
    async def work() -> None:
        async with world.nodes() as nodes:
            study = world.study()
            await agree(nodes, study)
            Owner(nodes[0]).run("Age", dry=True)
            await until(lambda: all(state(node, study).dry_run_passed for node in nodes))
            await settled(nodes, study, "approved")
            with pytest.raises(NotNowError, match="there is no result yet"):
                Owner(nodes[0]).result("Age")
            Owner(nodes[0]).run("Age", dry=False)
            await settled(nodes, study, "finished")

    run(work)


def test_a_dealer_takes_part_and_gets_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, dealer="helper")
    world.write_config("helper", source=False)

    async def work() -> None:
        async with world.nodes() as nodes:
            study = world.study(preprocessing="dealer", dealer="helper", recipients=["north"])
            await agree(nodes, study)
            Owner(nodes[0]).run("Age", dry=False)
            await settled(nodes, study, "finished")
            for node in nodes:
                if node.config.name == "north":
                    await until(lambda: Owner(nodes[1]).show("Age")["result"]["here"])
                else:
                    with pytest.raises(NotNowError, match="its results go to north"):
                        Owner(node).result("Age")

    run(work)


def test_progress_is_told_until_the_end(world: World) -> None:
    async def work() -> None:
        async with world.nodes() as nodes:
            study = world.study()
            await agree(nodes, study)
            owner = Owner(nodes[0])
            assert [view["phase"] async for view in owner.progress("Age")] == ["approved"]
            owner.run("Age", dry=False)
            views = [view async for view in owner.progress("Age")]
            assert views[0]["queued"] or views[0]["running"]
            assert views[-1]["phase"] == "finished"
            assert views[-1]["over"]

    run(work)


def test_studies_wait_for_their_turn(world: World) -> None:
    for name in NAMES:
        world.write_config(name, "[limits]\nstudies_at_once = 1\n")

    async def work() -> None:
        most = begun = 0

        def plan(name: str, attempt: int, dry: bool) -> None:
            nonlocal most, begun
            most = max(most, len(world.bench.alive))
            begun = max(begun, sum(state(nodes[0], study).active for study in studies))

        world.bench.plan = plan
        studies: list[Study] = []
        async with world.nodes() as nodes:
            studies = [world.study(title=f"Study {k}") for k in range(4)]
            for study in studies:
                await agree(nodes, study)
            for study in studies:
                Owner(nodes[0]).run(study.title, dry=False)
            with pytest.raises(SottovoceError, match=r"in the queue already|under way already"):
                Owner(nodes[0]).run(studies[3].title, dry=False)
            assert len(nodes[0].scheduler.queued) >= 3
            for study in studies:
                await settled(nodes, study, "finished", 15.0)
            assert most <= 3  # one at each node
            assert begun == 1  # nobody is kept waiting by what waits here

    run(work)


def test_two_who_run_it_at_once_run_it_once(world: World) -> None:
    async def work() -> None:
        async with world.nodes() as nodes:
            study = world.study()
            await agree(nodes, study)
            for node in nodes:
                Owner(node).run("Age", dry=False)
            await settled(nodes, study, "finished")
            assert state(nodes[0], study).attempt.number == 1
            assert len(world.bench.workers) == 3

    run(work)


def test_a_dry_and_a_real_run_at_once_are_sorted_out(world: World) -> None:
    async def work() -> None:
        async with world.nodes() as nodes:
            study = world.study()
            await agree(nodes, study)
            Owner(nodes[0]).run("Age", dry=False)
            Owner(nodes[1]).run("Age", dry=True)
            # Whoever began it does it again; in the end it is computed.
            await until(lambda: any(state(node, study).phase == "finished" for node in nodes), 20.0)
            await settled(nodes, study, "finished")

    run(work)


# ---- who may do what ------------------------------------------------------------------------------


def test_what_the_owner_may_not_do_is_told_with_a_remedy(world: World) -> None:
    async def work() -> None:
        async with world.nodes() as nodes:
            owner, study = Owner(nodes[0]), world.study()
            with pytest.raises(SottovoceError, match="sottovoce list"):
                owner.approve("Age")
            owner.propose(study.plain(), None)
            with pytest.raises(NotNowError, match="proposed already, by city: it is proposed"):
                owner.propose(study.plain(), None)
            with pytest.raises(NotNowError, match="it waits for the approval of city, north and south"):
                owner.run("Age", dry=False)
            owner.approve("Age")
            with pytest.raises(NotNowError, match="city has approved it already"):
                owner.approve("Age")
            with pytest.raises(NotNowError, match="there is no result yet"):
                owner.result("Age")
            owner.reject("Age", "no time")
            for attempt in (owner.approve, lambda which: owner.run(which, dry=False)):
                with pytest.raises(NotNowError, match="rejected by city: no time"):
                    attempt("Age")
            with pytest.raises(NotNowError, match="it is over already"):
                owner.cancel("Age", "again")
            past = world.study(deadline=(now() - datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"))
            with pytest.raises(NotNowError, match="has passed: set a later one"):
                owner.propose(past.plain(), None)
            with pytest.raises(NotNowError, match="city takes no part"):
                owner.propose(
                    study_of({**study_fields(("north", "south")), "preprocessing": "dealer", "dealer": "x"}).plain(),
                    None,
                )

    with pytest.raises(SottovoceError, match="no member 'x'"):
        run(work)


def test_nobody_approves_after_the_deadline(world: World) -> None:
    async def work() -> None:
        clock = [now()]
        async with world.nodes(clock=lambda: clock[0]) as nodes:
            study = world.study()
            await agree(nodes, study, None, "city", "north")
            clock[0] += datetime.timedelta(days=2)
            assert state(nodes[2], study).phase == "expired"
            with pytest.raises(NotNowError, match="cannot be approved any more: its deadline passed"):
                Owner(nodes[2]).approve("Age")
            with pytest.raises(NotNowError, match="propose it again with a later one"):
                Owner(nodes[0]).run("Age", dry=False)

    run(work)


def test_a_program_is_refused_until_the_owner_allows_it(world: World) -> None:
    text = "async def study(party, table):\n    return {'n': 1}\n"
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    world.write_config("north", f'allow_programs = ["{sha256}"]\n')

    async def work() -> None:
        async with world.nodes() as nodes:
            study = world.study(analyses=[], program={"file": "study.py", "sha256": sha256})
            Owner(nodes[1]).propose(study.plain(), text)
            await until(lambda: all(study.hash in node.library.entries for node in nodes))
            Owner(nodes[1]).approve("Age")
            with pytest.raises(NotNowError, match=f'allow just this text with allow_programs = ."{sha256}"'):
                Owner(nodes[0]).approve("Age")
            assert Owner(nodes[0]).show("Age")["program"] == text

    run(work)


def test_what_the_owner_forbids_after_approving_is_not_run(world: World) -> None:
    async def work() -> None:
        study = world.study()
        async with world.nodes() as nodes:
            await agree(nodes, study)
        world.write_config("south", '[policy]\nprotocols = ["sum"]\n')
        async with world.nodes() as nodes:
            Owner(nodes[0]).run("Age", dry=False)
            await settled(nodes, study, "failed")
            told = outcome(nodes[0], study, "south")
            assert told["text"] == "the owner of south does not allow this study any more"
            assert not state(nodes[0], study).again
            (note,) = Owner(nodes[2]).show("Age")["notes"]
            assert "the protocol 'mean' is not allowed here" in note["text"]
            assert [worker.name for worker in world.bench.workers].count("south") == 0
            with pytest.raises(NotNowError, match="it is not run: the protocol 'mean' is not allowed"):
                Owner(nodes[2]).run("Age", dry=False)

    run(work)


def test_a_study_that_differs_by_one_byte_is_told(world: World) -> None:
    async def work() -> None:
        async with world.nodes() as nodes:
            study = world.study()
            await agree(nodes, study)
            changed = study_of({**study.plain(), "minimum_parties": 3})
            view = Owner(nodes[1]).propose(changed.plain(), None)
            (namesake,) = view["namesakes"]
            assert namesake["differences"] == ["minimum_parties is 2 in the first, 3 in the second"]
            await until(lambda: all(changed.hash in node.library.entries for node in nodes))
            assert Owner(nodes[0]).show(changed.hash)["namesakes"] == [
                {"study": study.hash, "differences": ["minimum_parties is 2 in the first, 3 in the second"]}
            ]
            with pytest.raises(SottovoceError, match="2 studies fit"):
                Owner(nodes[0]).approve("Age")
            assert state(nodes[0], changed).approvals == ()

    run(work)
    assert any(event == "namesake" for event, _ in events(world, "city"))


# ---- what goes wrong ------------------------------------------------------------------------------


def test_a_member_that_is_not_linked_is_named_at_once(world: World) -> None:
    async def work() -> None:
        study = world.study()
        async with world.nodes() as nodes:
            await agree(nodes, study)
        async with world.nodes("city", "north") as nodes:
            with pytest.raises(NotNowError, match="there is no link to south"):
                Owner(nodes[0]).run("Age", dry=False)

    run(work)


def test_a_member_that_never_gets_ready_is_named(world: World) -> None:
    async def work() -> None:
        async with world.nodes(ready_seconds=0.4) as nodes:
            study = world.study()
            await agree(nodes, study)
            nodes[2].scheduler.look = lambda entry: None  # type: ignore[method-assign]
            nodes[2].scheduler._do = lambda entry: None  # type: ignore[method-assign]
            Owner(nodes[0]).run("Age", dry=False)
            await settled(nodes, study, "failed")
            await until(lambda: len(state(nodes[0], study).attempt.failures) >= 2)
            for name in ("city", "north"):
                told = outcome(nodes[0], study, name)
                # Who comes second may hear of it from the first.
                assert told["text"].endswith("not ready within 0.4 s: south")
                assert told["culprit"] == "south"
            assert world.bench.alive == []
            assert "south" in state(nodes[2], study).text

    run(work)


def test_a_worker_that_dies_makes_another_attempt(world: World) -> None:
    async def work() -> None:
        world.bench.plan = lambda name, attempt, dry: (STOPPED if name == "south" else "hang") if attempt == 1 else None
        async with world.nodes() as nodes:
            study = world.study()
            await agree(nodes, study)
            Owner(nodes[0]).run("Age", dry=False)
            await settled(nodes, study, "finished", 10.0)
            assert state(nodes[1], study).finished_in == 2
            assert outcome(nodes[0], study, "south")["error_type"] == "WorkerDied"
            assert outcome(nodes[0], study, "city")["culprit"] == "south"
            sessions = list(world.bench.sessions)
            assert len(sessions) == 2

    run(work)


def test_a_fault_that_would_come_again_is_not_repeated(world: World) -> None:
    secret = "column age: 3 values are beyond the bounds, of which PRIVATE"
    fault = Failed(error_type="DataError", text=secret, for_peers="")

    async def work() -> None:
        world.bench.plan = lambda name, attempt, dry: fault if name == "south" else "hang"
        async with world.nodes() as nodes:
            study = world.study()
            await agree(nodes, study)
            Owner(nodes[0]).run("Age", dry=False)
            await settled(nodes, study, "failed")
            await until(lambda: state(nodes[0], study).attempt.reported)
            await asyncio.sleep(0.3)
            assert state(nodes[0], study).attempt.number == 1
            assert outcome(nodes[0], study, "south")["text"] == ""
            assert "DataError" in state(nodes[0], study).text
            (note,) = Owner(nodes[2]).show("Age")["notes"]
            assert secret in note["text"]
            Owner(nodes[0]).run("Age", dry=False)  # by hand it may be tried again
            await until(lambda: state(nodes[0], study).attempt.number == 2)

    run(work)
    assert "PRIVATE" not in (world.directory / "city" / "state" / "audit.jsonl").read_text()


@pytest.mark.parametrize("how", ["cancel", "reject"])
def test_a_study_that_is_ended_while_it_runs_stops_everywhere(world: World, how: str) -> None:
    async def work() -> None:
        world.bench.plan = lambda name, attempt, dry: "hang"
        async with world.nodes() as nodes:
            study = world.study()
            await agree(nodes, study)
            Owner(nodes[0]).run("Age", dry=False)
            await until(lambda: len(next(iter(world.bench.sessions.values()), {})) == 3)
            getattr(Owner(nodes[2]), how)("Age", "the patients said no")
            await settled(nodes, study, f"{how}led" if how == "cancel" else "rejected")
            await until(lambda: world.bench.alive == [])
            assert all("by south: the patients said no" in worker.stopped for worker in world.bench.workers)
            await until(lambda: not any(node.scheduler.runs for node in nodes))

    run(work)


def test_versions_must_be_the_same(world: World) -> None:
    async def work() -> None:
        async with world.nodes() as nodes:
            study = world.study()
            await agree(nodes, study)
            import dataclasses

            nodes[2].office = dataclasses.replace(nodes[2].office, version="9.9")
            nodes[2].scheduler.office = nodes[2].office
            Owner(nodes[0]).run("Age", dry=False)
            await settled(nodes, study, "failed")
            told = outcome(nodes[0], study, "city")
            assert "south runs version 9.9 and city" in told["text"]
            assert "install the same version everywhere" in told["text"]
            assert not state(nodes[0], study).again
            assert world.bench.sessions == {}

    run(work)


# ---- restarts -------------------------------------------------------------------------------------


def test_everything_is_there_after_a_restart(world: World) -> None:
    async def work() -> None:
        study = world.study()
        async with world.nodes() as nodes:
            await agree(nodes, study)
        async with world.nodes() as nodes:
            assert state(nodes[0], study).phase == "approved"
            Owner(nodes[0]).run("Age", dry=False)
            await settled(nodes, study, "finished")
        async with world.nodes("south", linked=False) as (south,):
            assert Owner(south).result("Age")["result"]["summary"] == "mean 45.0625"

    run(work)


@contextlib.asynccontextmanager
async def killed(node: Node) -> AsyncIterator[None]:
    """End a node as SIGKILL does: nothing is said, nothing is written."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AuditError("dead")

    node.say = refuse  # type: ignore[method-assign]
    node.gossip.announce = refuse  # type: ignore[method-assign]
    node.note = refuse  # type: ignore[method-assign]
    import dataclasses

    node.office = dataclasses.replace(node.office, say=refuse, note=refuse)
    node.scheduler.office = node.office
    for task in [*node._tasks, *node.scheduler._tasks.values()]:
        task.cancel()
    yield
    await node.close("killed")


def test_a_node_that_is_restarted_while_a_study_runs(world: World) -> None:
    """Its attempt is never continued, the others stop, and whoever began it begins it again."""

    async def work() -> None:
        study = world.study()
        world.bench.plan = lambda name, attempt, dry: "hang" if attempt == 1 else None
        south = world.node("south")
        async with world.nodes("city", "north", linked=False) as nodes:
            await south.__aenter__()
            await until(lambda: all(len(node.peers.connected) == 2 for node in (*nodes, south)))
            await agree([*nodes, south], study)
            Owner(nodes[0]).run("Age", dry=False)
            await until(lambda: len(next(iter(world.bench.sessions.values()), {})) == 3)
            async with killed(south):
                pass
            async with world.nodes("south", linked=False) as (again,):
                await until(lambda: again.library.entries[study.hash].own("south", "outcome", 1) is not None)
                assert outcome(again, study, "south")["error_type"] == "NodeRestarted"
                await settled([*nodes, again], study, "finished", 15.0)
                assert state(again, study).finished_in == 2
                assert outcome(nodes[0], study, "city")["culprit"] == "south"

    run(work)


def test_a_result_that_was_written_before_the_crash_is_told_after_it(world: World) -> None:
    async def work() -> None:
        study = world.study(recipients=["south"])
        south = world.node("south")
        async with world.nodes("city", "north", linked=False) as nodes:
            await south.__aenter__()
            await until(lambda: all(len(node.peers.connected) == 2 for node in (*nodes, south)))
            await agree([*nodes, south], study)
            keep = south.results.keep

            def keep_and_die(*arguments: Any, **more: Any) -> str:
                digest = keep(*arguments, **more)
                dead.set()
                raise asyncio.CancelledError(digest)

            dead = asyncio.Event()
            south.results.keep = keep_and_die  # type: ignore[method-assign]
            Owner(nodes[0]).run("Age", dry=False)
            await dead.wait()
            async with killed(south):
                pass
            async with world.nodes("south", linked=False) as (again,):
                await settled([*nodes, again], study, "finished", 10.0)
                assert state(again, study).finished_in == 1
                assert Owner(again).result("Age")["from"] is None

    run(work)


def test_a_recipient_that_lost_its_result_gets_it_from_another(world: World) -> None:
    async def work() -> None:
        study = world.study()
        world.bench.plan = lambda name, attempt, dry: "hang" if name == "south" else None
        south = world.node("south")
        async with world.nodes("city", "north", linked=False) as nodes:
            await south.__aenter__()
            await until(lambda: all(len(node.peers.connected) == 2 for node in (*nodes, south)))
            await agree([*nodes, south], study)
            Owner(nodes[0]).run("Age", dry=False)
            await settled(nodes, study, "finished")
            async with killed(south):
                pass
            async with world.nodes("south", linked=False) as (again,):
                await until(lambda: Owner(again).show("Age")["result"]["here"])
                assert Owner(again).result("Age")["from"] in ("city", "north")
                await until(lambda: outcome(again, study, "south")["ok"])
                assert world.bench.workers[-1].assignment.attempt == 1  # nothing was computed again

    run(work)
    results = [fields for event, fields in events(world, "south") if event == "result"]
    assert results[0]["source"] in ("city", "north")


def test_a_node_that_is_stopped_says_so(world: World) -> None:
    async def work() -> None:
        study = world.study()
        world.bench.plan = lambda name, attempt, dry: "hang"
        async with world.nodes("city", "north", linked=False) as nodes:
            async with world.nodes("south", linked=False) as (south,):
                everybody = [*nodes, south]
                await until(lambda: all(len(node.peers.connected) == 2 for node in everybody))
                await agree(everybody, study)
                Owner(nodes[0]).run("Age", dry=False)
                await until(lambda: len(next(iter(world.bench.sessions.values()), {})) == 3)
            await until(lambda: state(nodes[0], study).phase == "failed")
            told = outcome(nodes[0], study, "south")
            assert (told["error_type"], told["text"]) == ("NodeStopped", "the node of south was stopped")
            assert "the node of south was stopped" in nodes[0].peers.trouble("south")
            assert state(nodes[0], study).attempt.failures
            await until(lambda: world.bench.alive == [])

    run(work)


def test_the_queue_survives_a_restart(world: World) -> None:
    async def work() -> None:
        study = world.study()
        async with world.nodes() as nodes:
            await agree(nodes, study)
            nodes[0].scheduler._serve_queue = lambda: None  # type: ignore[method-assign]
            Owner(nodes[0]).run("Age", dry=False)
        async with world.nodes() as nodes:
            await settled(nodes, study, "finished")

    run(work)


# ---- disks and files ------------------------------------------------------------------------------


def test_a_full_disk_is_told_to_all_and_nothing_is_announced(world: World) -> None:
    async def work() -> None:
        async with world.nodes() as nodes:
            study = world.study()
            Owner(nodes[0]).propose(study.plain(), None)
            await until(lambda: all(study.hash in node.library.entries for node in nodes))
            append = nodes[2].store.append

            def full(study_hash: str, record: dict[str, Any]) -> None:
                raise StoreError("the disk is full: records.jsonl was not written")

            nodes[2].store.append = full  # type: ignore[method-assign]
            with pytest.raises(StoreError, match="disk is full"):
                Owner(nodes[2]).approve("Age")
            Owner(nodes[0]).approve("Age")
            entry = nodes[0].library.entries[study.hash]
            await until(lambda: entry.troubles)
            assert entry.troubles["south"] == "south refuses our approval: south cannot write to its disk"
            assert state(nodes[0], study).approvals == ("city",)
            nodes[2].store.append = append  # type: ignore[method-assign]
            Owner(nodes[2]).approve("Age")

    run(work)


def test_a_result_that_cannot_be_written_ends_the_attempt(world: World) -> None:
    async def work() -> None:
        async with world.nodes() as nodes:
            study = world.study(recipients=["south"])
            await agree(nodes, study)

            def full(study_hash: str, content: bytes) -> bool:
                raise StoreError("the disk is full: result.json was not written")

            nodes[2].store.save_result = full  # type: ignore[method-assign]
            Owner(nodes[0]).run("Age", dry=False)
            await settled(nodes, study, "failed")
            assert outcome(nodes[0], study, "south")["text"] == "south cannot take part"
            assert "disk is full" in Owner(nodes[2]).show("Age")["notes"][0]["text"]

    run(work)


def test_an_outcome_that_cannot_be_written_is_told_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "_AGAIN_SECONDS", 0.1)

    async def work() -> None:
        async with world.nodes() as nodes:
            study = world.study()
            await agree(nodes, study)
            append, count = nodes[2].store.append, 0

            def sometimes(study_hash: str, record: dict[str, Any]) -> None:
                nonlocal count
                if record["kind"] == "outcome" and record["author"] == "south" and count < 3:
                    count += 1
                    raise StoreError("the disk is full")
                append(study_hash, record)

            nodes[2].store.append = sometimes  # type: ignore[method-assign]
            Owner(nodes[0]).run("Age", dry=False)
            await settled(nodes, study, "finished")
            await until(lambda: state(nodes[0], study).missing == ())
            assert count == 3

    run(work)


def refused(world: World, name: str = "north") -> str:
    async def work() -> str:
        with pytest.raises(SottovoceError) as caught:
            async with world.node(name):
                pass
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return asyncio.run(work())


def test_what_keeps_a_node_from_starting_is_told_with_a_remedy(world: World) -> None:
    home = world.directory / "north"
    (home / "key.pem").chmod(0o640)
    assert "chmod 600" in refused(world)
    (home / "key.pem").chmod(0o600)

    world.consortium.revoke("north", "stolen").save(home / "consortium.toml")
    assert "revoked in" in (text := refused(world))
    assert "(stolen): it needs a new one" in text

    stranger = generate("north")
    (home / "key.pem").unlink()
    stranger.save(home)
    world.consortium.save(home / "consortium.toml")
    assert "holds no member with our key" in refused(world)

    (home / "key.pem").unlink()
    (home / "certificate.pem").unlink()
    world.keys["north"].renew().save(home)
    assert "does not hold our certificate" in refused(world)
    (home / "certificate.pem").unlink()
    (home / "key.pem").unlink()
    old = generate("north", datetime.timedelta(seconds=-1))
    old.save(home)
    assert "expired on" in refused(world)


def test_names_and_addresses_must_fit_the_file(world: World) -> None:
    home = world.directory / "north"
    good = (home / "node.toml").read_text()
    (home / "node.toml").write_text(good.replace('name = "north"', 'name = "south"'))
    assert "says that we are south" in refused(world)
    (home / "node.toml").write_text("\n".join(line for line in good.splitlines() if not line.startswith("listen")))
    assert "does not set listen" in refused(world)
    (home / "node.toml").write_text(good)

    async def twice() -> str:
        async with world.node("north"):
            with pytest.raises(SottovoceError) as caught:
                world.node("north")
        return str(caught.value)

    assert "another node runs in" in asyncio.run(twice())

    async def same_port() -> str:
        world.addresses["city"] = world.addresses["north"]
        world.write_config("city")
        async with world.node("north"):
            with pytest.raises(SottovoceError) as caught:
                async with world.node("city"):
                    pass
        return str(caught.value)

    assert "cannot listen on" in asyncio.run(same_port())


def test_a_log_that_was_altered_keeps_the_node_from_starting(world: World) -> None:
    async def once() -> None:
        async with world.node("north"):
            pass

    asyncio.run(once())
    log = world.directory / "north" / "state" / "audit.jsonl"
    log.write_text(log.read_text().replace('"studies":0', '"studies":1'))
    assert "put it aside for an inquiry" in refused(world)


def test_another_consortium_file_takes_over_without_a_restart(world: World) -> None:
    async def work() -> None:
        async with world.nodes() as nodes:
            revoked = world.consortium.revoke("south", "stolen")
            for name in ("city", "north"):
                revoked.save(world.directory / name / "consortium.toml")
            for node in nodes[:2]:
                node.reload()
            await until(lambda: nodes[0].peers.connected == {"north"} and nodes[1].peers.connected == {"city"})
            await until(lambda: not nodes[2].peers.connected and "or revoked" in nodes[2].peers.trouble("city"))
            with pytest.raises(SottovoceError, match="no member 'south'"):
                Owner(nodes[0]).propose(world.study().plain(), None)
            (world.directory / "city" / "consortium.toml").write_text("nonsense")
            with pytest.raises(SottovoceError):
                nodes[0].reload()
            assert nodes[0].consortium == revoked

    run(work)


def test_what_computes_with_a_member_that_is_revoked_is_stopped(tmp_path: Path) -> None:
    world = World(tmp_path, dealer="helper")
    world.write_config("helper", source=False)

    async def work() -> None:
        world.bench.plan = lambda name, attempt, dry: "hang"
        async with world.nodes() as nodes:
            two, dealer = ["city", "north"], {"preprocessing": "dealer", "dealer": "helper"}
            study = world.study()
            other = world.study(title="Without south", contributors=two, recipients=two, **dealer)
            await agree(nodes[:3], study)
            await agree([nodes[0], nodes[1], nodes[3]], other)
            for one in (study, other):
                Owner(nodes[0]).run(one.title, dry=False)
            await until(lambda: len([worker for worker in world.bench.workers if worker.session]) == 6)
            revoked = world.consortium.revoke("south", "stolen")
            revoked.save(world.directory / "city" / "consortium.toml")
            nodes[0].reload()
            await until(lambda: study.hash not in nodes[0].scheduler.runs)
            told = outcome(nodes[0], study, "city")
            assert (told["ok"], told["error_type"], told["retry"]) == (False, "MemberRemoved", False)
            assert told["text"] == "south was revoked"
            stopped = {worker.name: worker.stopped for worker in world.bench.workers if worker.closed}
            assert stopped["city"] == "south was revoked"
            # What has nothing to do with it goes on, and nothing begins again.
            assert other.hash in nodes[0].scheduler.runs
            nodes[0].reload()
            await asyncio.sleep(0.3)
            assert other.hash in nodes[0].scheduler.runs
            assert [worker.name for worker in world.bench.workers].count("city") == 2

    run(work)


def test_renewed_certificates_take_over_one_after_the_other(world: World) -> None:
    async def work() -> None:
        async with world.nodes() as nodes:
            renewed = world.keys["south"].renew()
            card = make_card(
                renewed, name="south", organisation="South Hospital", role="party", address=world.addresses["south"]
            )
            changed = world.consortium.renew(card)
            for name in NAMES:
                changed.save(world.directory / name / "consortium.toml")
            renewed.save_certificate(world.directory / "south" / "certificate.pem")
            for node in nodes:
                node.reload()
            await until(lambda: all(len(node.peers.connected) == 2 for node in nodes))
            study = world.study()
            await agree(nodes, study)
            Owner(nodes[2]).run("Age", dry=False)
            await settled(nodes, study, "finished")

    run(work)


def test_trouble_is_told_as_long_as_it_lasts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_TICK_SECONDS", 0.05)

    async def work() -> None:
        async with world.nodes() as nodes:
            study = world.study()
            await agree(nodes, study)
            node = nodes[0]

            def full(queue: Any) -> None:
                raise StoreError("the disk is full: queue.json was not written")

            Owner(node).run("Age", dry=False)
            with monkeypatch.context() as patch:
                patch.setattr(node.store, "save_queue", full)
                await until(lambda: "disk is full" in Owner(node).status()["trouble"])
                assert not metrics.health(node)[0]
            await until(lambda: Owner(node).status()["trouble"] == "")
            await settled(nodes, study, "finished")

    run(work)


def test_a_fault_of_ours_does_not_keep_us_from_dialling(world: World) -> None:
    async def work() -> None:
        async with world.nodes("city", "north", linked=False) as (city, north):
            await until(lambda: north.peers.connected and city.peers.connected)
            hear = north.gossip.hear

            def fault(peer: str, message: dict[str, Any]) -> bool:
                north.gossip.hear = hear  # type: ignore[method-assign]
                raise KeyError("a fault")

            north.gossip.hear = fault  # type: ignore[method-assign]
            ups = north.counts["links"]
            city.peers.push("north", {"kind": "have", "ids": []})
            await until(lambda: north.counts["links"] > ups)

    run(work)


def test_two_nodes_with_much_to_tell_do_not_wait_for_one_another(world: World) -> None:
    """Each asks the other for more than fits into queues and sockets together."""

    async def work() -> None:
        filler = "x" * 1900
        studies = [world.study(title=f"Study {k}", purpose=f"{k} {filler}") for k in range(30)]
        for name, ours in (("city", studies[:15]), ("north", studies[15:])):
            async with world.node(name) as node:
                for study in ours:
                    Owner(node).propose(study.plain(), None)
        async with world.nodes("city", "north", linked=False) as nodes:
            await until(lambda: all(len(node.library.entries) == 30 for node in nodes), 15.0)

    run(work)
