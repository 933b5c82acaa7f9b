"""Workers of several members on one machine: each behind doors of its own, as at real nodes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parties.governance.studies import Study, study_of
from parties.identity import host_name
from parties.node.doors import Doors, listen
from parties.node.workers import Assignment, Event, Limits, MemberAddress, Worker

COLUMNS = [
    {"name": "age", "type": "integer", "unit": "years", "lower": 0, "upper": 120},
    {"name": "dose", "type": "number", "unit": "mg", "lower": 0, "upper": 10, "missing": "drop"},
]
SUMS = [{"name": "sums", "protocol": "sum", "columns": ["age", "dose"]}]
LIMITS = Limits(cores=1, memory_mb=1024, time_seconds=60)
ROWS = {"north": "age,dose\n30,1.5\n40,2.5\n", "city": "age,dose\n50,3.5\n", "south": "age,dose\n60,\n70,4.5\n"}
SUMMED = {"age": 190, "dose": 12.0}  # the row without a dose is dropped


def study_with(program: str | None = None, **fields: Any) -> Study:
    """A study of three hospitals, as it should be but for the fields that are given."""
    given: dict[str, Any] = {
        "format": 1,
        "title": "A test",
        "purpose": "To test",
        "consortium": "tests",
        "contributors": ["north", "city", "south"],
        "recipients": ["north", "city", "south"],
        "preprocessing": "prss",
        "disclosure": "none",
        "deadline": "2100-01-01T00:00:00Z",
        "time_limit_seconds": 60,
        "resume_seconds": 5,
        "dry_run": False,
        "columns": COLUMNS,
        "analyses": SUMS,
        **fields,
    }
    if program is not None:
        given["analyses"] = []
        given["program"] = {"file": "study.py", "sha256": hashlib.sha256(program.encode()).hexdigest()}
    return study_of(given)


@dataclass
class Member:
    """One member of a team."""

    name: str
    worker: Worker
    doors: Doors
    ledger: Path
    events: list[Event] = field(default_factory=list)

    @property
    def last(self) -> Any:
        return self.events[-1]

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@dataclass
class Team:
    """The members of one attempt, whose workers have started."""

    study: Study
    members: list[Member]
    session: bytes = field(default_factory=lambda: secrets.token_bytes(16))

    def __getitem__(self, name: str) -> Member:
        return next(member for member in self.members if member.name == name)

    def addresses(self) -> list[MemberAddress]:
        return [
            MemberAddress(name=one.name, certificate=one.worker.certificate, host="127.0.0.1", port=one.doors.ports[0])
            for one in self.members
        ]

    async def begin(self) -> None:
        for member in self.members:
            await member.worker.begin(self.addresses(), self.session)

    async def listen(self, heard: Callable[[Member, Event], Any] | None = None) -> None:
        """Take all events of all workers."""

        async def one(member: Member) -> None:
            async for event in member.worker.events():
                member.events.append(event)
                if heard is not None:
                    heard(member, event)

        async with asyncio.timeout(60):
            await asyncio.gather(*(one(member) for member in self.members))

    async def run(self) -> None:
        await self.begin()
        await self.listen()


@contextlib.asynccontextmanager
async def team(
    tmp_path: Path,
    study: Study,
    *,
    program: str | None = None,
    rows: dict[str, str] | None = None,
    options: dict[str, dict[str, Any]] | None = None,
    names: Sequence[str] | None = None,
    ports: Sequence[int] | None = None,
) -> AsyncIterator[Team]:
    """Start a worker for each member of a study."""
    async with contextlib.AsyncExitStack() as stack:
        members = []
        for rank, name in enumerate(study.members):
            if names is not None and name not in names:
                continue
            place = tmp_path / name
            place.mkdir(exist_ok=True)
            source = None
            if name in study.contributors:
                (place / "rows.csv").write_text((rows or ROWS)[name])
                source = {"kind": "csv", "path": "rows.csv"}
            given: dict[str, Any] = {
                "study": study.plain(),
                "study_hash": study.hash,
                "rank": rank,
                "attempt": 1,
                "program": program,
                "source": source,
                "base": str(place),
                "limits": LIMITS,
                "connect_seconds": 10.0,
                **(options or {}).get(name, {}),
            }
            doors = Doors(listen("127.0.0.1", 0 if ports is None else ports[rank]))
            stack.callback(doors.close)
            doors.open()
            worker = await Worker.start(Assignment(**given), ledger=place / "ledger", directory=place / "workers")
            stack.push_async_callback(worker.close)
            doors.route(host_name(worker.certificate), worker.adopt)
            members.append(Member(name, worker, doors, place / "ledger"))
        yield Team(study, members)
