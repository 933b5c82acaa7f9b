"""A worker that never stops talking: the node goes on with its other work, and its time is over when it is."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from mpc.costs import MOST_OPENINGS, Costs, Opening
from parties.node.messages import Limits, Opened, Progress
from parties.node.telling import Teller
from parties.node.workers import Worker
from tests.node.support import on_uvloop
from tests.node.test_worker_hostile import assignment, bad_worker

FLOOD = "hello()\nwhile True: say({'kind': 'progress', 'phase': 'computing'})"


def test_who_never_pauses_leaves_the_node_time_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad_worker(monkeypatch, FLOOD)
    monkeypatch.setattr("parties.node.hearing.EVENTS_A_SECOND", 100)

    async def main() -> tuple[int, int, Any]:
        turns = heard = 0
        event: Any = None

        async def others() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.01)
                turns += 1

        given = assignment(limits=Limits(time_seconds=1.0))
        worker = await Worker.start(given, ledger=tmp_path / "ledger", directory=tmp_path)
        try:
            worker._deadline = asyncio.get_running_loop().time() + 1.0
            running = asyncio.create_task(others())
            async for event in worker.events():
                heard += isinstance(event, Progress) and not worker._process.killed
            running.cancel()
        finally:
            await worker.close()
        return turns, heard, event

    began = time.monotonic()
    turns, heard, last = on_uvloop(main())
    assert time.monotonic() - began < 15
    assert turns > 20
    assert 100 <= heard <= 500
    assert last.error_type == "TimeLimit"


def test_a_program_that_opens_without_end_is_told_of_a_few_times() -> None:
    told: list[Any] = []

    class Line:
        def post(self, message: Any) -> None:
            told.append(message)

    line: Any = Line()
    teller = Teller(line, ["north", "city"])
    teller.costs = costs = Costs()
    opening = Opening(step="open", shapes=((1,),), elements=1, to=None, digest=None)
    for number in range(3 * MOST_OPENINGS):
        costs.opened(opening)
        if number % 10 == 0:
            teller.openings()
    teller.openings(last=True)
    heard = [Opened.model_validate(message) for message in told]
    assert sum(len(one.openings) for one in heard) == MOST_OPENINGS
    assert sum(one.untold for one in heard) == 2 * MOST_OPENINGS
    assert len([one for one in heard if one.untold]) < 20
