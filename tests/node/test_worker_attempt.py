"""The phases of an attempt, with all members in one event loop: nobody goes on before all may."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mpc.errors import AgreementError, SottovoceError
from mpc.memory import MemoryNetwork, MemoryTransport
from parties.data.columns import Table
from parties.governance.studies import Study
from parties.identity import make_identity
from parties.node.computing import Attempt, TimeLimitError
from parties.node.enter import NEEDED
from parties.node.ledger import Ledger, open_ledger
from parties.node.messages import Assigned, Assignment, Limits
from tests.node.teams import study_with

# The last one takes its time with the dry run, and tells the others nothing of it.
SLOW = """
import asyncio

async def study(party, table):
    if party.path.startswith("dry run") and party.rank == 2:
        await asyncio.sleep(0.3)
    return table.rows
"""


class Mesh(MemoryTransport):
    """All are there."""

    async def connect(self) -> None:
        return


class Teller:
    """Keeps in one list what all members do."""

    costs: Any = None

    def __init__(self, name: str, log: list[tuple[str, str]]) -> None:
        self.name = name
        self.log = log

    def enter(self, phase: str) -> None:
        self.log.append((self.name, phase))

    def note(self, text: str) -> None:
        return

    def rows(self, count: int, dropped: int, digest: str | None) -> None:
        self.log.append((self.name, f"{count} rows"))


def attempts(
    study: Study, changes: Mapping[str, Mapping[str, Any]] | None = None, *, program: str | None = None
) -> list[Attempt]:
    made = []
    for rank, name in enumerate(study.members):
        given = {"study": study.plain(), "study_hash": study.hash, "rank": rank, "attempt": 1, "program": program}
        assigned = Assigned(assignment=Assignment(**{**given, **(changes or {}).get(name, {})}))
        made.append(Attempt(assigned, make_identity(name), list(NEEDED)))
    return made


async def compute(tmp_path: Path, those: list[Attempt], monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], list[Any]]:
    log: list[tuple[str, str]] = []
    network = MemoryNetwork(sum(1 for one in those if one._study.dealer != one._name))

    async def load(attempt: Attempt, teller: Any) -> Table:
        teller.enter("loading")
        return Table({"age": [1], "dose": [1.0]}, 1)  # type: ignore[dict-item] # nobody looks

    monkeypatch.setattr(Attempt, "_load", load)

    async def one(rank: int, attempt: Attempt) -> Any:
        with open_ledger(tmp_path / f"ledger {rank}") as file:
            handle = os.dup(file.fileno())
        with Ledger(handle, study=attempt._study.hash, attempt=1, session=bytes(16)) as ledger:
            mesh: Any = Mesh(network, rank)
            teller: Any = Teller(attempt._name, log)
            try:
                return await attempt._compute(mesh, ledger, teller)
            except AgreementError as error:
                return error

    async with asyncio.timeout(30):
        return await asyncio.gather(*(one(rank, attempt) for rank, attempt in enumerate(those))), log


def test_nobody_touches_data_before_all_have_done_the_dry_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    study = study_with(SLOW, dry_run=True)
    those = attempts(study, program=SLOW)
    results, log = asyncio.run(compute(tmp_path, those, monkeypatch))
    assert [result["value"] for result in results] == [1, 1, 1]
    begun = log.index(("south", "dry run"))
    loading = [log.index((name, "loading")) for name in study.members]
    assert begun < min(loading)
    # Each dry run has ended before the first one loads: south's, which is the slowest, too.
    phases = [phase for name, phase in log if name == "south"]
    assert phases == ["connecting", "joining", "dry run", "loading", "computing"]
    assert min(loading) > max(log.index((name, "dry run")) for name in study.members)


def test_the_slowest_dry_run_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    study = study_with(SLOW, dry_run=True)
    those = attempts(study, program=SLOW)
    began: dict[str, float] = {}
    enter = Teller.enter

    def timed(self: Teller, phase: str) -> None:
        began[f"{self.name} {phase}"] = asyncio.get_running_loop().time()
        enter(self, phase)

    monkeypatch.setattr(Teller, "enter", timed)
    asyncio.run(compute(tmp_path, those, monkeypatch))
    assert began["north loading"] - began["north dry run"] > 0.25


@pytest.mark.parametrize("changes", [{"attempt": 2}, {"dry_only": True}])
def test_all_must_start_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]):
    """What the node of one member says differs: all stop before a seed is made, the dealer too."""
    study = study_with(preprocessing="dealer", dealer="helper")
    those = attempts(study, {"city": changes})
    results, log = asyncio.run(compute(tmp_path, those, monkeypatch))
    assert [type(result) for result in results] == [AgreementError] * 4
    assert str(results[0]) == "city computes another study or attempt than north: all must start the same one"
    assert str(results[3]) == "city computes another study or attempt than helper: all must start the same one"
    assert {phase for _, phase in log} == {"connecting"}
    assert all((tmp_path / f"ledger {rank}").read_bytes() == b"" for rank in range(4))


def test_recipients_share_a_salt_that_nobody_else_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All members read the hash of a result, and who guesses the result could check it."""

    async def one(self: Attempt, party: Any, table: Any, teller: Any) -> Any:
        return {"count": 7} if self._name in self._study.recipients else None

    monkeypatch.setattr(Attempt, "_run_once", one)
    for name in "123":
        (tmp_path / name).mkdir()
    study = study_with(recipients=["city", "south"])
    results, _ = asyncio.run(compute(tmp_path / "1", attempts(study), monkeypatch))
    assert results[0] is None
    assert results[1] == results[2]
    assert results[1]["count"] == 7
    assert len(bytes.fromhex(results[1]["salt"])) == 32
    again, _ = asyncio.run(compute(tmp_path / "2", attempts(study), monkeypatch))
    assert again[1]["salt"] != results[1]["salt"]
    # A program may tell each something else: then there is nothing to compare, and nothing to share.
    study = study_with(SLOW)
    results, _ = asyncio.run(compute(tmp_path / "3", attempts(study, program=SLOW), monkeypatch))
    assert len({result["salt"] for result in results}) == 3


def test_dealers_note_their_seeds_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    study = study_with(SLOW, preprocessing="dealer", dealer="helper", dry_run=False)
    those = attempts(study, program=SLOW)
    results, log = asyncio.run(compute(tmp_path, those, monkeypatch))
    assert [result and result["value"] for result in results] == [1, 1, 1, None]
    assert ("helper", "serving") in log
    assert [len((tmp_path / f"ledger {rank}").read_text().splitlines()) for rank in range(4)] == [3, 3, 3, 3]


def test_a_dry_run_alone_touches_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    study = study_with()  # which asks for no dry run before the real one
    those = attempts(study, {name: {"dry_only": True} for name in study.members})
    results, log = asyncio.run(compute(tmp_path, those, monkeypatch))
    sums = results[0]["analyses"]["sums"]["values"]
    assert sums["age"] > 0  # of rows that were made up
    assert [result["analyses"]["sums"]["values"] for result in results] == [sums] * 3
    assert {phase for _, phase in log} == {"connecting", "joining", "dry run"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"study_hash": "0" * 64}, "the study has the hash [0-9a-f]{12}, and 000000000000 was approved"),
        ({"rank": 3}, "rank 3 has no part"),
        ({"program": SLOW}, "there is one that it does not name"),
        ({"study": {"format": 2}}, "format"),
    ],
)
def test_a_study_that_is_not_the_approved_one_is_refused(changes: dict[str, Any], why: str):
    study = study_with()
    given = {"study": study.plain(), "study_hash": study.hash, "rank": 0, "attempt": 1, **changes}
    with pytest.raises(SottovoceError, match=why):
        Attempt(Assigned(assignment=Assignment(**given)), make_identity("north"), list(NEEDED))


def test_the_time_limit_is_told_to_the_others(monkeypatch: pytest.MonkeyPatch):
    (attempt, *_) = attempts(study_with(), {"north": {"limits": Limits(time_seconds=0.1)}})
    told: list[BaseException] = []

    class Fake:
        async def stop(self, error: BaseException) -> None:
            told.append(error)

    async def forever(*given: Any) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(Attempt, "_make_mesh", lambda self, begin: Fake())
    monkeypatch.setattr(Attempt, "_compute", forever)
    nothing: Any = type("Nothing", (), {})()
    with pytest.raises(TimeLimitError, match=r"north had not finished within 0\.1 s"):
        asyncio.run(attempt.run(nothing, nothing, nothing))
    assert [str(error) for error in told] == ["north had not finished within 0.1 s, the limit of time"]
