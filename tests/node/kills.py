"""Parties that make and use material over real links, and are killed: ``python -m tests.node.kills --moments 50``.

Each party is a process with a depot of its own. In each round all meet in a new session, and either make a batch or
use one; meanwhile one of them, or all, get SIGKILL: at a random time, or at the k-th time that one brings something to
its disk (before or after). Whatever a party takes from a batch it first writes down, so that a second use would show.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mpc import is_negative, join, multiply, open_, shuffle, sigmoid, truncate
from mpc.party import Party
from mpc.plan import plan_of
from mpc.preprocessing.ot import OtMask
from parties.identity import Identity, make_identity
from parties.mesh import Member, Mesh, Patience
from parties.node.batches import UNSPENT
from parties.node.depot import Depot
from parties.node.keepers import DepotKeeper
from parties.node.matching import agree, produce, share_plan, use

STUDY = hashlib.sha256(b"a study").hexdigest()
X, Y = np.array([1.5, -2.0, 0.25]), np.array([0.5, 3.0, -1.0])
SECONDS = 60.0


async def program(party: Party, scale: float) -> Any:
    """Something of everything: products, a comparison, a sigmoid, a shuffle."""
    x = await party.share(X * scale if party.rank == 0 else None, bound=4.0, owner=0, shape=X.shape)
    y = await party.share(Y * scale if party.rank == 1 else None, bound=4.0, owner=1, shape=Y.shape)
    z = await truncate(party, await multiply(party, x, y))
    p, negative = await sigmoid(party, z.bounded_by(16)), await is_negative(party, x - y)
    (mixed,) = await shuffle(party.at("mix"), [x])
    return await open_(party.at("end"), z, p, negative, mixed)


def check(results: Any) -> None:
    z, p, negative, mixed = results
    np.testing.assert_allclose(z, X * Y, atol=1e-5)
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-X * Y)), atol=2e-4)
    np.testing.assert_array_equal(negative, X < Y)
    np.testing.assert_allclose(sorted(mixed), sorted(X))


def depot_of(place: Path, rank: int) -> Depot:
    secret = hashlib.sha256(f"key of party {rank}".encode()).digest()
    return Depot(
        place / f"party {rank}",
        lambda salt: hashlib.blake2b(salt, key=secret, digest_size=32).digest(),
        lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


class Round:
    """One session: its members, where they listen, and its name."""

    def __init__(self, identities: list[Identity], session: bytes) -> None:
        self.identities = identities
        self.session = session
        self.listeners = [socket.create_server(("127.0.0.1", 0)) for _ in identities]
        self.members = [
            Member(one.certificate, *listener.getsockname()[:2])
            for one, listener in zip(identities, self.listeners, strict=True)
        ]

    def close(self) -> None:
        for listener in self.listeners:
            listener.close()


async def sit(place: Path, meeting: Round, rank: int, what: str) -> None:
    """Be one party for one session."""
    depot = depot_of(place, rank)
    keeper = DepotKeeper(depot, STUDY, meeting.session.hex())
    patience = Patience(connect_seconds=20.0, receive_seconds=30.0, close_seconds=2.0)
    mesh = Mesh(
        meeting.identities[rank],
        rank,
        meeting.members,
        parties=len(meeting.identities),
        session=meeting.session,
        listener=meeting.listeners[rank],
        patience=patience,
    )
    async with mesh:
        if what == "meet":
            for name, why in (await agree(mesh, await keeper.offers())).discard.items():
                await keeper.discard(name, why)
            return
        party = await join(mesh, preprocessing="ot")
        if what == "make":

            async def find() -> Any:
                return await asyncio.to_thread(plan_of, program, [0.5] * party.size)

            plan = await share_plan(mesh, find)
            await produce(party, keeper, plan, study=STUDY, session=meeting.session, runs=1, tell=lambda _: None)
            return
        used = await use(party, keeper, lambda _: None)
        if used is not None:
            write_down(place / f"uses {rank}", used, party.preprocessing)
        check(await program(party, 1.0))
        await party.leave()


def write_down(path: Path, name: str, stock: Any) -> None:
    masks = [
        hashlib.sha256(item.field.to_bytes(item.summand)).hexdigest()
        for _, _, item, _ in stock.items()
        if isinstance(item, OtMask)
    ]
    with path.open("a") as file:
        file.write(json.dumps([name, masks]) + "\n")
        file.flush()
        os.fsync(file.fileno())


def die_at(number: int, *, before: bool) -> None:
    """Kill ourselves at the so many-th time that something is brought to the disk."""
    left = [number]

    def deadly(work: Callable[..., Any]) -> Callable[..., Any]:
        def do(*given: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0 and before:
                os.kill(os.getpid(), signal.SIGKILL)
            result = work(*given, **named)
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return do

    os.fsync = deadly(os.fsync)
    os.rename = deadly(os.rename)
    os.unlink = deadly(os.unlink)


def start(place: Path, meeting: Round, rank: int, what: str, dies: tuple[int, bool] | None) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        sys.stderr = open(place / f"said {rank}", "a")
        for other, listener in enumerate(meeting.listeners):
            if other != rank:
                listener.close()
        if dies is not None:
            die_at(dies[0], before=dies[1])
        asyncio.run(asyncio.wait_for(sit(place, meeting, rank, what), SECONDS))
        status = 0
    except BaseException as error:  # noqa: BLE001 - it is the end of the process
        print(f"{what}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)  # noqa: T201
    finally:
        os._exit(status)


def ended(children: dict[int, int], seconds: float) -> bool:
    """Wait for processes; returns whether all are gone. Statuses are in their place then."""
    until = time.monotonic() + seconds
    while any(status == -1 for status in children.values()) and time.monotonic() < until:
        for child in [child for child, status in children.items() if status == -1]:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                children[child] = status
        time.sleep(0.005)
    return all(status != -1 for status in children.values())


def session(
    place: Path,
    identities: list[Identity],
    what: str,
    *,
    kill_after: float | None = None,
    victims: list[int] | None = None,
    dies: tuple[int, int, bool] | None = None,
) -> tuple[list[int], float]:
    """Let all parties meet once; returns how each ended, and how long it took."""
    meeting = Round(identities, os.urandom(16))
    began = time.monotonic()
    try:
        pids = [
            start(place, meeting, rank, what, None if dies is None or dies[0] != rank else dies[1:])
            for rank in range(len(identities))
        ]
    finally:
        meeting.close()
    children = dict.fromkeys(pids, -1)
    if kill_after is not None and not ended(children, kill_after):
        for victim in victims or [0]:
            if children[pids[victim]] == -1:
                os.kill(pids[victim], signal.SIGKILL)
    if not ended(children, SECONDS + 10):
        for child in [child for child, status in children.items() if status == -1]:
            os.kill(child, signal.SIGKILL)
        raise RuntimeError(f"a party that was not killed hangs: {what}")
    return [children[pid] for pid in pids], time.monotonic() - began


def uses(place: Path, rank: int) -> Iterator[tuple[str, list[str]]]:
    path = place / f"uses {rank}"
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):  # a torn last line: nothing was taken yet
            yield json.loads(line)


def check_books(place: Path, size: int) -> dict[str, Any]:
    """Check that all parties agree on what is left, and that nothing was used twice."""
    depots = [depot_of(place, rank) for rank in range(size)]
    try:
        books = [{batch.name: batch for batch in depot.batches()} for depot in depots]
    finally:
        for depot in depots:
            depot.close()
    left = [sorted(name for name, batch in book.items() if batch.state in UNSPENT) for book in books]
    assert all(one == left[0] for one in left), left
    spent = {name for book in books for name, batch in book.items() if batch.state == "spent"}
    assert not spent & set(left[0])
    matching = [{name: book[name].matching for name in left[0]} for book in books]
    assert all(one == matching[0] for one in matching)
    used = [list(uses(place, rank)) for rank in range(size)]
    for rank, of_rank in enumerate(used):
        masks = Counter(mask for _, those in of_rank for mask in those)
        assert not [mask for mask, times in masks.items() if times > 1]
        names = [name for name, _ in of_rank]
        assert len(set(names)) == len(names)
        assert all(books[rank][name].state == "spent" for name in names)
    states = Counter(batch.state for batch in books[0].values())
    return {"left": len(left[0]), "used": [len(one) for one in used], "states of party 0": dict(states)}


def run(place: Path, *, size: int, moments: int, seed: int) -> dict[str, Any]:
    """Make, use, and kill; then check the books."""
    draw = random.Random(seed)
    identities = [make_identity(f"party {rank}") for rank in range(size)]
    takes = {}
    for what in ("make", "use", "make"):
        statuses, takes[what] = session(place, identities, what)
        assert statuses == [0] * size, (what, statuses)
    killed: Counter[str] = Counter()
    for moment in range(moments):
        what = "make" if moment % 2 == 0 else "use"
        if moment % 3 == 2:  # at the disk
            dies = (draw.randrange(size), draw.randint(1, 7), draw.random() < 0.5)
            statuses, _ = session(place, identities, what, dies=dies)
        else:
            victims = list(range(size)) if draw.random() < 0.2 else [draw.randrange(size)]
            after = draw.uniform(0.02, 1.1 * takes[what])
            statuses, _ = session(place, identities, what, kill_after=after, victims=victims)
        killed[f"{what}: {'killed' if 9 in statuses else 'was faster'}"] += 1
        if moment % 5 == 4:  # somebody always has something to use
            session(place, identities, "make")
    before = check_if_agreed(place, size)
    statuses, _ = session(place, identities, "meet")
    assert statuses == [0] * size
    found = check_books(place, size)
    statuses, _ = session(place, identities, "use")
    assert statuses == [0] * size
    return {**found, "kills": dict(killed), "agreed before they met": before}


def check_if_agreed(place: Path, size: int) -> bool:
    """Whether the books agreed even before the parties met again."""
    left = []
    for rank in range(size):
        depot = depot_of(place, rank)
        left.append(sorted(batch.name for batch in depot.batches() if batch.state in UNSPENT))
        depot.close()
    return all(one == left[0] for one in left)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--parties", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="kills-"))
    try:
        print(json.dumps(run(place, size=given.parties, moments=given.moments, seed=given.seed)))  # noqa: T201
    except BaseException:
        for path in sorted(place.glob("said *")):
            print(path.name, path.read_text()[-2000:], file=sys.stderr)  # noqa: T201
        raise
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
