"""A small consortium for tests: keys, files, studies, and workers that only pretend to compute."""

import asyncio
import contextlib
import datetime
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from parties.governance.cards import make_card
from parties.governance.consortium import Consortium, join
from parties.governance.keys import NodeKey, generate
from parties.governance.studies import Study, study_of
from parties.identity import make_identity
from parties.node.config import NodeConfig, load_config
from parties.node.hello import Timing
from parties.node.messages import Assignment, Event, Failed, Finished, MemberAddress, Progress, Rows, result_digest
from parties.node.service import Node, now
from tests.ports import free_ports

QUICK = Timing(first_pause=0.02, longest_pause=0.2, alive=1.0, silent=5.0, hello=2.0)
NAMES = ("city", "north", "south")
TOMORROW = (now() + datetime.timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
"""One deadline for a whole run: two studies of the same words are the same study, whatever second it is."""


class World:
    """Directories of several organisations below one temporary directory."""

    def __init__(self, directory: Path, names: tuple[str, ...] = NAMES, dealer: str | None = None) -> None:
        self.directory = directory
        self.names = names if dealer is None else (*names, dealer)
        self.keys: dict[str, NodeKey] = {name: generate(name) for name in self.names}
        self.addresses = {
            name: f"127.0.0.1:{port}" for name, port in zip(self.names, free_ports(len(self.names)), strict=True)
        }
        cards = [
            make_card(
                self.keys[name],
                name=name,
                organisation=f"{name.capitalize()} Hospital",
                role="dealer" if name == dealer else "party",
                address=self.addresses[name],
            )
            for name in self.names
        ]
        self.consortium: Consortium = join(cards, "hospitals")
        self.consortium_fingerprint = self.consortium.fingerprint
        for name in self.names:
            home = directory / name
            self.keys[name].save(home)
            self.consortium.save(home / "consortium.toml")
            (home / "data.csv").write_text("age\n40\n50\n")
            self.write_config(name)
        self.bench = Bench()

    def write_config(self, name: str, more: str = "", source: bool = True) -> None:
        home = self.directory / name
        text = (
            f'name = "{name}"\nconsortium = "consortium.toml"\nkey = "key.pem"\ncertificate = "certificate.pem"\n'
            f'listen = "{self.addresses[name]}"\n{more}\n'
        )
        if source:
            text += '[[sources]]\nstudy = "*"\nkind = "csv"\npath = "data.csv"\n'
        (home / "node.toml").write_text(text)

    def config(self, name: str) -> NodeConfig:
        return load_config(self.directory / name)

    def node(self, name: str, **more: Any) -> Node:
        options: dict[str, Any] = {"timing": QUICK, "start_worker": self.bench.start, "ready_seconds": 5.0}
        return Node(self.config(name), **{**options, **more})

    @contextlib.asynccontextmanager
    async def nodes(self, *names: str, linked: bool = True, **more: Any) -> AsyncIterator[list[Node]]:
        async with contextlib.AsyncExitStack() as stack:
            running = [await stack.enter_async_context(self.node(name, **more)) for name in names or self.names]
            if linked:
                await until(lambda: all(len(node.peers.connected) == len(running) - 1 for node in running))
            yield running

    def study(self, **changes: Any) -> Study:
        return study_of({**study_fields(self.names[: len(NAMES)]), **changes})


def study_fields(names: tuple[str, ...] = NAMES) -> dict[str, Any]:
    return {
        "format": 1,
        "title": "Age",
        "purpose": "To know the mean age.",
        "consortium": "hospitals",
        "contributors": list(names),
        "recipients": list(names),
        "preprocessing": "prss",
        "disclosure": "none",
        "deadline": TOMORROW,
        "columns": [{"name": "age", "type": "number", "lower": 0.0, "upper": 120.0}],
        "analyses": [{"name": "mean age", "protocol": "mean", "columns": ["age"]}],
    }


async def until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


class Bench:
    """Where pretended workers meet: those of one session finish together.

    ``plan(name, attempt)`` may return a Failed to report, ``"hang"``, or None to go well.
    """

    def __init__(self) -> None:
        self.plan: Callable[[str, int, bool], Failed | str | None] = lambda name, attempt, dry: None
        self.workers: list[FakeWorker] = []
        self.sessions: dict[bytes, dict[str, FakeWorker]] = {}

    async def start(self, assignment: Assignment, directory: Path) -> "FakeWorker":
        worker = FakeWorker(self, assignment)
        self.workers.append(worker)
        return worker

    @property
    def alive(self) -> list["FakeWorker"]:
        return [worker for worker in self.workers if not worker.closed]


class FakeWorker:
    def __init__(self, bench: Bench, assignment: Assignment) -> None:
        self.bench = bench
        self.assignment = assignment
        self.confined_by = ("nothing",)
        self.certificate = make_identity(f"worker {id(self)}").certificate
        members = study_of(assignment.study).members
        self.members = members
        self.name = members[assignment.rank]
        self.session = b""
        self.stopped = ""
        self.closed = False
        self.news = asyncio.Event()

    async def begin(self, members: Any, session: bytes, passes: bytes | None = None) -> None:
        self.session = session
        assert tuple(one.name for one in members) == self.members
        assert all(isinstance(one, MemberAddress) for one in members)
        assert members[self.assignment.rank].certificate == self.certificate
        self.bench.sessions.setdefault(session, {})[self.name] = self
        for worker in self.bench.sessions[session].values():
            worker.news.set()

    def adopt(self, sock: socket.socket) -> None:
        sock.close()

    async def events(self) -> AsyncIterator[Event]:
        yield Progress(phase="connecting")
        plan = self.bench.plan(self.name, self.assignment.attempt, self.assignment.dry_only)
        while not self.stopped and (
            len(self.bench.sessions.get(self.session, {})) < len(self.members) or plan == "hang"
        ):
            self.news.clear()
            await self.news.wait()
        if self.stopped:
            yield Failed(error_type="Stopped", text=self.stopped, for_peers=self.stopped)
        elif isinstance(plan, Failed):
            yield plan
        else:
            yield Rows(count=2)
            yield Progress(phase="computing", step="mean", rounds=3, seconds=0.1)
            await asyncio.sleep(0.02)
            study = study_of(self.assignment.study)
            result: dict[str, JsonValue] = {"analyses": {"mean age": {"mean": 45.0625}}, "summary": "mean 45.0625"}
            if self.name not in study.recipients or self.assignment.dry_only:
                yield Finished()
            else:
                yield Finished(result=result, digest=result_digest(result))

    async def stop(self, reason: str) -> None:
        self.stopped = self.stopped or reason
        self.news.set()

    async def close(self, *, failed: bool = False) -> None:
        self.closed = True


@contextlib.contextmanager
def no_tasks_left() -> Iterator[None]:
    yield
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
