"""Nodes that are killed while their workers prepare and use material: ``python -m tests.node.kill_nodes --moments 50``.

Two nodes as processes, as in a sandbox. Again and again one of them prepares or runs a study; at a random moment one of
them gets SIGKILL and is started again. Studies go on by themselves, all finish in the end, and the ledgers must agree.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parties.governance.studies import parse_study
from parties.node.client import DeniedError, NodeClient, NodeUnreachableError
from parties.node.sandbox import make_sandbox, start_all, stop_all
from parties.node.store import running_pid

NAMES = ("north", "city")
ANALYSIS = '[[analyses]]\nname = "means"\nprotocol = "mean"\ncolumns = ["age", "bmi"]\n'
WAIT = 120.0


class Pair:
    """Two nodes of a sandbox; its dealer is there, and has nothing to do."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        make_sandbox(directory, 2, with_dealer=True)
        text = (directory / "study.toml").read_text().replace('"dealer"\ndealer = "dealer"', '"ot"')
        text = text.replace('disclosure = "vantage6"', 'disclosure = "none"\ndry_run = false\nattempts = 10')
        self.text = text.split("[[analyses]]")[0] + ANALYSIS
        self.clients = {name: NodeClient(directory / name / "state") for name in NAMES}
        start_all(directory, WAIT)

    def propose(self, title: str) -> str:
        study = parse_study(self.text.replace('"Readmission"', f'"{title}"'))
        self.clients["north"].post("studies", {"study": study.plain(), "program": None})
        for name in reversed(NAMES):
            until(lambda name=name: self._done(name, "approve", {"study": study.hash}))  # type: ignore[misc]
        return study.hash

    def _done(self, name: str, what: str, body: dict[str, Any]) -> bool:
        try:
            self.clients[name].post(what, body)
        except (DeniedError, NodeUnreachableError):
            return False
        return True

    def begin(self, what: str, study: str) -> bool:
        body = {"runs": 2, "rows": 120} if what == "prepare" else {"dry": False}
        return self._done("north", what, {"study": study, **body})

    def phase(self, study: str) -> str | None:
        """Return the phase once nothing happens any more and both say the same."""
        try:
            views = [client.get("study", study=study) for client in self.clients.values()]
        except (DeniedError, NodeUnreachableError):
            return None
        phases = {str(view["phase"]) for view in views}
        return phases.pop() if all(view["over"] for view in views) and len(phases) == 1 else None

    def settled(self, study: str) -> str:
        until(lambda: self.phase(study) not in (None, "proposed"))
        return self.phase(study) or self.settled(study)

    def kill(self, name: str) -> None:
        state = self.directory / name / "state"
        pid = running_pid(state)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        until(lambda: running_pid(state) is None)
        start_all(self.directory, WAIT)

    def books(self) -> list[dict[str, list[str]]]:
        """Return each node's ledger: what happened to each batch, in order."""
        found = []
        for name in NAMES:
            book: dict[str, list[str]] = {}
            for line in (self.directory / name / "state" / "material" / "batches.jsonl").read_text().splitlines():
                entry = json.loads(line)
                book.setdefault(entry["batch"], []).append(entry["event"])
            found.append(book)
        return found

    def left(self) -> list[list[str]]:
        return [sorted(name for name, did in book.items() if did[-1] in ("made", "ready")) for book in self.books()]


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.05)


def run(directory: Path, moments: int, seed: int) -> dict[str, Any]:
    """Kill so many times; check the ledgers."""
    draw = random.Random(seed)
    pair = Pair(directory)
    kills: Counter[str] = Counter()
    try:
        while kills.total() < moments:
            study = pair.propose(f"Study {kills.total()}")
            for what in ("prepare", "prepare", "run", "prepare", "run"):
                if pair.settled(study) not in ("approved", "failed") or not pair.begin(what, study):
                    break
                time.sleep(draw.uniform(0.3, 3.0))
                pair.kill(draw.choice(NAMES))
                kills[what] += 1
            while pair.settled(study) in ("approved", "failed") and pair.begin("run", study):
                time.sleep(0.5)
            assert pair.settled(study) == "finished"
        until(lambda: pair.left() == [[], []])
        books = pair.books()
        for book in books:
            assert all(did.count("spent") <= 1 and did[-1] in ("spent", "discarded") for did in book.values())
        return {"kills": dict(kills), "batches": [dict(Counter(did[-1] for did in book.values())) for book in books]}
    finally:
        stop_all(directory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="kills-"))
    try:
        print(json.dumps(run(place / "sandbox", given.moments, given.seed)))  # noqa: T201
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
