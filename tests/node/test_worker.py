"""Workers of a study: real processes, a connection port for each member, as at nodes that are far apart."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parties.governance.canonical import canonical, digest
from parties.identity import Identity, make_identity
from parties.node.ledger import check_ledgers
from parties.node.workers import (
    Costs,
    Failed,
    Finished,
    MemberAddress,
    Opened,
    Progress,
    Relaying,
    Rows,
    WorkerError,
)
from tests.node.support import children, on_uvloop, open_descriptors
from tests.node.teams import ROWS, SUMMED, Team, study_with, team
from tests.relay.world import World


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path):
    """After each test: no descriptor, no process, no directory of a worker."""
    before = open_descriptors(), children()
    yield
    assert (open_descriptors(), children()) == before
    assert list(tmp_path.glob("*/workers/worker-*")) == []


# ---- a study that goes well ---------------------------------------------------------------------


def test_a_study_from_first_connection_to_result(tmp_path: Path):
    async def main() -> Team:
        async with team(tmp_path, study_with(dry_run=True)) as members:
            await members.run()
            return members

    done = on_uvloop(main())

    # 1. All learn the same, and it is right.
    for member in done.members:
        assert isinstance(member.last, Finished)
        result: Any = member.last.result
        assert result["analyses"]["sums"]["values"] == SUMMED
        assert member.last.digest == digest("sottovoce result 1", canonical(member.last.result))
        assert "190" not in repr(member.last)
    assert len({member.last.digest for member in done.members}) == 1
    assert list(tmp_path.glob("*/workers/worker.stderr")) == []

    # 2. Each tells its own rows only, and only after the dry run.
    assert {member.name: member.of(Rows) for member in done.members} == {
        "north": [Rows(count=2)],
        "city": [Rows(count=1)],
        "south": [Rows(count=1, dropped=1)],
    }
    for member in done.members:
        phases = list(dict.fromkeys(event.phase for event in member.of(Progress)))
        assert phases == ["connecting", "joining", "dry run", "loading", "computing", "leaving"]
        place = member.events.index(member.of(Rows)[0])
        phase_then = [event.phase for event in member.events[:place] if isinstance(event, Progress)][-1]
        assert phase_then == "loading"
        assert [event.rounds for event in member.of(Progress)] == sorted(e.rounds for e in member.of(Progress))

    # 3. What was opened is told once, and agrees with what it cost; the same values have the same digest.
    for member in done.members:
        openings = [opening for event in member.of(Opened) for opening in event.openings]
        assert [one.step for one in openings] == [
            "dry run/sums/disclosure/open",
            "dry run/sums/open",
            "sums/disclosure/open",
            "sums/open",
        ]
        (costs,) = member.of(Costs)
        assert openings[3].elements == costs.steps["sums/open"].elements_opened == 2
        assert openings[1].digest != openings[3].digest
        assert sum(event.untold for event in member.of(Opened)) == 0
        assert openings == [o for event in done["north"].of(Opened) for o in event.openings]
        assert costs.wire.keys() == {"north", "city", "south"} - {member.name}
        assert all(sent > 1000 and received > 1000 for sent, received in costs.wire.values())
        assert costs.reconnects == 0
        rounds = sum(step.rounds for step in costs.steps.values())
        assert rounds == member.of(Progress)[-1].rounds > 10
    sent_to = {m.name: m.of(Costs)[0].wire for m in done.members}
    # All but what was under way when it was told: acknowledgements, the goodbye.
    assert abs(sent_to["north"]["city"][0] - sent_to["city"]["north"][1]) < 500

    # 4. The ledgers hold all seeds: two pairs and two sets at each, in one session.
    paths = [member.ledger for member in done.members]
    assert check_ledgers(paths) == []
    for path in paths:
        noted = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(noted) == 4
        assert {line["session"] for line in noted} == {done.session.hex()}
        assert {line["study"] for line in noted} == {done.study.hash}


PROGRAM_COMPARES = """
from mpc import is_negative, open_

async def study(party, table):
    first, second = await party.share([party.rank], bound=100, shape=(1,))
    return int((await open_(party, await is_negative(party, first - second)))[0])
"""


@pytest.mark.parametrize("security", ["semi-honest", "malicious"])
@pytest.mark.parametrize("program", [None, PROGRAM_COMPARES], ids=["analyses", "a program of one's own"])
def test_two_members_with_oblivious_transfer_need_nobody_else(program: str | None, security: str, tmp_path: Path):
    """Each notes its own seed and that of the pair; a confined program loads what transfers need."""
    both = ["north", "city"]
    terms: dict[str, Any] = {"preprocessing": "ot", "security": security, "dry_run": True}
    study = study_with(program, contributors=both, recipients=both, **terms)

    async def main() -> Team:
        async with team(tmp_path, study, program=program) as members:
            await members.run()
            return members

    done = on_uvloop(main())
    for member in done.members:
        assert isinstance(member.last, Finished), member.last
        result: Any = member.last.result
        if program is None:
            assert result["analyses"]["sums"]["values"] == {"age": 120, "dose": 7.5}
        else:
            assert result["value"] == 1
        assert len(member.ledger.read_text().splitlines()) == 2
        (costs,) = member.of(Costs)
        assert any(name.endswith("/transfers") and step.bytes_sent for name, step in costs.steps.items())
    assert check_ledgers([member.ledger for member in done.members]) == []


def test_tables_where_members_may_cheat(tmp_path: Path):
    """In confined workers, with a dry run, by oblivious transfer."""
    both = ["north", "south"]
    columns = [
        {"name": "age", "type": "integer", "unit": "years", "lower": 0, "upper": 120},
        {"name": "dose", "type": "number", "unit": "mg", "lower": 0, "upper": 10, "missing": "keep"},
    ]
    analyses = [
        {"name": "ages", "protocol": "histogram", "column": "age", "edges": [0, 50, 120]},
        {"name": "doses", "protocol": "histogram", "column": "dose", "edges": [0, 2, 4, 10]},
    ]
    terms: dict[str, Any] = {"preprocessing": "ot", "security": "malicious", "dry_run": True}
    study = study_with(contributors=both, recipients=["south"], columns=columns, analyses=analyses, **terms)

    async def main() -> Team:
        async with team(tmp_path, study) as members:
            await members.run()
            return members

    done = on_uvloop(main())
    assert done["north"].last == Finished()
    found: Any = done["south"].last.result["analyses"]
    assert found["ages"]["counts"] == [2, 2]
    assert (found["doses"]["counts"], found["doses"]["missing"]) == ([1, 1, 1], {"x": 1})
    assert check_ledgers([member.ledger for member in done.members]) == []


@pytest.mark.parametrize("security", ["semi-honest", "malicious"])
def test_a_dealer_and_a_recipient_without_rows(tmp_path: Path, security: str):
    """Who contributes nothing takes part; who is no recipient learns nothing; the dealer has no data."""
    study = study_with(
        contributors=["north", "south"],
        recipients=["city", "south"],
        preprocessing="dealer",
        dealer="helper",
        security=security,
    )
    assert study.members == ("north", "south", "city", "helper")

    async def main() -> Team:
        async with team(tmp_path, study) as members:
            await members.run()
            return members

    done = on_uvloop(main())
    assert {member.name: type(member.last) for member in done.members} == dict.fromkeys(study.members, Finished)
    for name in ("south", "city"):
        assert done[name].last.result["analyses"]["sums"]["values"] == {"age": 140, "dose": 8.5}
    for name in ("north", "helper"):
        assert done[name].last == Finished()
    assert done["city"].of(Rows) == done["helper"].of(Rows) == []
    assert [event.phase for event in done["helper"].of(Progress)][-2:] == ["serving", "leaving"]
    # What was opened, and to whom: only they have a digest of it.
    for name, knows in (("north", False), ("south", True), ("city", True)):
        last = [opening for event in done[name].of(Opened) for opening in event.openings][-1]
        assert (last.step, last.to) == ("sums/open to", (1, 2))
        assert (last.digest is not None) == knows
    assert check_ledgers([member.ledger for member in done.members]) == []


# ---- what goes wrong ----------------------------------------------------------------------------


def test_rows_that_do_not_fit_are_told_to_their_owner_alone(tmp_path: Path):
    rows = {**ROWS, "city": "age,dose\n50,3.5\n777,1\nsecret,2\n"}

    async def main() -> Team:
        async with team(tmp_path, study_with(dry_run=True), rows=rows) as members:
            await members.run()
            return members

    done = on_uvloop(main())
    city = done["city"].last
    assert isinstance(city, Failed)
    assert (city.error_type, city.phase, city.of_peer, city.for_peers) == ("DataError", "loading", False, "")
    assert "age" in city.text
    assert "777" not in city.text
    assert "secret" not in city.text
    for name in ("north", "south"):
        failed = done[name].last
        assert (failed.error_type, failed.of_peer, failed.culprit) == ("PeerError", True, 1)
        assert failed.text == failed.for_peers
        assert "city stopped: DataError" in failed.text
        assert "age" not in failed.text
    said = [path.read_text() for path in tmp_path.glob("*/workers/worker.stderr")]
    assert not any("777" in text or "secret" in text for text in said)


def test_one_that_is_killed_is_named_by_the_others(tmp_path: Path):
    """Killed as soon as it computes: the node hears how, the others who, once the time for resuming is over."""

    async def main() -> Team:
        async with team(tmp_path, study_with(PROGRAM_WAITS, resume_seconds=1), program=PROGRAM_WAITS) as members:

            def kill(member: Any, event: Any) -> None:
                if member.name == "city" and isinstance(event, Progress) and event.phase == "computing":
                    os.kill(member.worker.pid, 9)

            await members.begin()
            await members.listen(kill)
            return members

    done = on_uvloop(main())
    assert done["city"].last.error_type == "WorkerDied"
    assert "killed by signal 9 (SIGKILL)" in done["city"].last.text
    for name in ("north", "south"):
        failed = done[name].last
        assert (failed.error_type, failed.of_peer, failed.culprit) == ("PeerError", True, 1), failed
        assert "city" in failed.text
    # The seeds that it had are in its ledger, and nothing there says otherwise.
    assert len(done["city"].ledger.read_text().splitlines()) == 4
    assert check_ledgers([member.ledger for member in done.members]) == []


PROGRAM_WAITS = """
import asyncio
from mpc import open_

async def study(party, table):
    while True:
        await asyncio.sleep(0.01)
        await open_(party, await party.share([1], bound=1, owner=0, shape=(1,)))
"""

PROGRAM_COUNTS = """
import asyncio
from mpc import open_

async def study(party, table):
    total = 0
    for number in range(60):
        await asyncio.sleep(0.02)
        total += int(sum(await open_(party, await party.share([number], bound=100, owner=number % 3, shape=(1,)))))
    return total
"""


class Passage:
    """Stands before a member's doors, and cuts every connection when told."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> int:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onwards = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, onwards]

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        for task in (asyncio.create_task(copy(reader, onwards)), asyncio.create_task(copy(there, writer))):
            self._tasks.add(task)


def test_connections_that_are_cut_are_made_again_through_the_doors(tmp_path: Path):
    async def main() -> Team:
        study = study_with(PROGRAM_COUNTS)
        async with team(tmp_path, study, program=PROGRAM_COUNTS) as members:
            passage = Passage(members["north"].doors.ports[0])
            async with passage as port:
                addresses = members.addresses()
                addresses[0] = addresses[0].model_copy(update={"port": port})
                for member in members.members:
                    await member.worker.begin(addresses, members.session)
                cuts = iter((10, 60))
                due = [next(cuts)]

                def heard(member: Any, event: Any) -> None:
                    if isinstance(event, Progress) and member.name == "north" and event.rounds >= due[0]:
                        passage.cut()
                        due[0] = next(cuts, 10**9)

                await members.listen(heard)
                for member in members.members:  # their goodbyes go through it too
                    await member.worker.close()
            return members

    done = on_uvloop(main())
    assert [type(member.last) for member in done.members] == [Finished] * 3, [m.last for m in done.members]
    assert {member.last.result["value"] for member in done.members} == {sum(range(60))}
    assert done["north"].of(Costs)[0].reconnects >= 2
    assert done["north"].doors.counts["led on"] >= 4


def test_members_behind_firewalls_meet_at_the_relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With the private authority's file as the one thing more that the process may read, and a pass of its node.

    North is told of the file, the others find it in their environment.
    """
    world = World(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(world.authority))

    async def main() -> Team:
        relaying = {"relaying": Relaying(ca_file=str(world.authority))}
        async with world.relay() as relay:
            options = {"north": relaying}
            async with team(tmp_path, study_with(), options=options) as members:
                at_relay = {"host": "", "port": 0, "relay": f"https://127.0.0.1:{relay.port}"}
                addresses = [one.model_copy(update=at_relay) for one in members.addresses()]
                for member in members.members:
                    holder = Identity(member.worker.certificate, b"")
                    await member.worker.begin(addresses, members.session, world.pass_of(member.name, holder))
                await members.listen()
                return members

    done = on_uvloop(main())
    assert [type(member.last) for member in done.members] == [Finished] * 3, [m.last for m in done.members]
    assert {member.last.digest for member in done.members} == {done["north"].last.digest}
    assert {member.doors.counts["accepted"] for member in done.members} == {0}


PROGRAM_DEAF = """
from mpc import open_

async def study(party, table):
    if party.rank == 0:
        while True:  # hears nothing, and gives up nothing
            try:
                while True:
                    pass
            except BaseException:
                pass
    await open_(party, await party.share([1], bound=1, owner=0, shape=(1,)))
"""


def test_stopping_is_told_to_the_others_and_cannot_be_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("parties.node.workers.STOP_SECONDS", 0.7)

    async def main() -> Team:
        async with team(tmp_path, study_with(PROGRAM_DEAF), program=PROGRAM_DEAF) as members:
            await members.begin()
            listening = asyncio.ensure_future(members.listen())
            async with asyncio.timeout(30):
                while not any(e.phase == "computing" for e in members["south"].of(Progress)):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            loop = asyncio.get_running_loop()
            began = loop.time()
            await members["city"].worker.stop("south asked for it")
            assert loop.time() - began < 3
            began = loop.time()
            await members["north"].worker.stop("so did we")
            assert 0.6 < loop.time() - began < 3
            await listening
            return members

    done = on_uvloop(main())
    assert (done["city"].last.error_type, done["city"].last.text) == ("Stopped", "south asked for it")
    assert (done["north"].last.error_type, done["north"].last.text) == ("Stopped", "so did we")
    assert (done["south"].last.of_peer, done["south"].last.culprit) == (True, 1)
    assert "city stopped: StoppedError: south asked for it" in done["south"].last.text


# ---- before anything is computed ----------------------------------------------------------------


def test_a_program_that_differs_by_a_byte_is_refused(tmp_path: Path):
    async def main() -> None:
        async with team(tmp_path, study_with(PROGRAM_WAITS), names=["north"], program=PROGRAM_WAITS + " "):
            pass

    with pytest.raises(WorkerError, match="refuses the study: StudyError"):
        on_uvloop(main())


async def alone(tmp_path: Path, begin: Callable[[Team], Any], **options: Any) -> Any:
    """One worker, whose others are nowhere: what it says last."""
    async with team(tmp_path, study_with(), names=["north"], options={"north": options}) as members:
        await begin(members)
        north = members["north"]
        async for event in north.worker.events():
            north.events.append(event)
        return north.last


def with_strangers(members: Team) -> list[MemberAddress]:
    return members.addresses() + [
        MemberAddress(name=name, certificate=make_identity(name).certificate, host="127.0.0.1", port=9)
        for name in ("city", "south")
    ]


def test_a_session_that_was_used_is_not_used_again(tmp_path: Path):
    """Also not when the machine was taken back: the ledger of its peers, or its own, would show it."""
    session = secrets.token_bytes(16)
    study = study_with()
    line = {
        "attempt": 1,
        "commitment": "00" * 16,
        "seed": "pair 0-1",
        "session": session.hex(),
        "study": study.hash,
        "time": "2026-01-01T00:00:00.000+00:00",
    }
    (tmp_path / "north").mkdir()
    (tmp_path / "north" / "ledger").write_text(json.dumps(line) + "\n")

    async def begin(members: Team) -> None:
        await members["north"].worker.begin(with_strangers(members), session)

    failed = on_uvloop(alone(tmp_path, begin))
    assert failed.error_type == "LedgerError"
    assert "already" in failed.text
    assert str(tmp_path) not in failed.for_peers


def test_others_that_do_not_come_are_named(tmp_path: Path):
    async def begin(members: Team) -> None:
        await members["north"].worker.begin(with_strangers(members), members.session)

    failed = on_uvloop(alone(tmp_path, begin, connect_seconds=0.5))
    assert (failed.error_type, failed.of_peer, failed.phase) == ("PeerError", True, "connecting"), failed
    assert "not there within 0.5 s: city" in failed.text
    assert "south" in failed.text


def test_members_other_than_the_studys_are_refused(tmp_path: Path):
    async def begin(members: Team) -> None:
        await members["north"].worker.begin(members.addresses() * 2, members.session)

    assert on_uvloop(alone(tmp_path, begin)).error_type == "NotAssignedError"


def test_a_worker_that_is_never_begun_leaves_nothing(tmp_path: Path):
    async def main() -> None:
        async with team(tmp_path, study_with(), names=["north"]) as members:
            worker = members["north"].worker
            assert worker.confined_by == ("limits", "files", "system calls")
            os.kill(worker.pid, 0)
            await worker.stop("nobody wants it")
            last = [event async for event in worker.events()]
            assert [(event.error_type, event.text) for event in last if isinstance(event, Failed)] == [
                ("Stopped", "nobody wants it")
            ]
            await worker.stop("again")
            await worker.close()
            await worker.close()

    on_uvloop(main())
    assert (tmp_path / "north" / "ledger").read_bytes() == b""


def test_starting_may_be_cancelled(tmp_path: Path):
    async def main() -> None:
        async with asyncio.timeout(0.3):
            async with team(tmp_path, study_with(), names=["north"]):
                pytest.fail("it started faster than Python does")

    with pytest.raises(TimeoutError):
        on_uvloop(main())
