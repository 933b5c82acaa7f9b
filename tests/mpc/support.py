"""Running all parties in one event loop, watching what they send, and meddling with it."""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from mpc import F127, Field, Party, Share, join, open_, serve_dealer
from mpc.costs import Costs, StepCost
from mpc.errors import for_peers
from mpc.memory import MemoryNetwork, root_cause
from mpc.prg import Prg
from mpc.session import MakeSource

Program = Callable[[Party, Any], Awaitable[Any]]

# Sizes and preprocessings that every protocol is tried with.
WORLDS = [(2, "dealer"), (3, "dealer"), (3, "prss"), (4, "prss"), (5, "prss"), (2, "ot")]
SMALL_WORLDS = [(2, "dealer"), (3, "dealer"), (3, "prss"), (2, "ot")]
ALL_WORLDS = [*WORLDS, (5, "dealer"), (7, "dealer"), (6, "prss"), (7, "prss"), (3, "ot"), (4, "ot")]


def in_turn(worlds: Sequence[tuple[int, str]], values: Sequence[Any]) -> list[tuple[int, str, Any]]:
    """Try each value on each preprocessing, with numbers of parties in turn: all worlds, but not each with each value.

    There have to be as many values as worlds of a preprocessing.
    """
    kinds: dict[str, list[tuple[int, str]]] = {}
    for world in worlds:
        kinds.setdefault(world[1], []).append(world)
    assert len(values) >= max(map(len, kinds.values()))
    return [(*those[k % len(those)], value) for k, value in enumerate(values) for those in kinds.values()]


class Message(NamedTuple):
    frm: int
    to: int
    step: str
    data: bytes


# From one message that was sent to the messages that arrive in its place.
Tamper = Callable[[Message], Sequence[Message]]


class TappedNetwork(MemoryNetwork):
    """A network that notes all messages as they were sent, and may let others arrive."""

    def __init__(self, size: int, *, tamper: Tamper | None = None, timeout_seconds: float = 20.0) -> None:
        super().__init__(size, timeout_seconds=timeout_seconds)
        self.log: list[Message] = []
        self._tamper = tamper

    def _post(self, frm: int, to: int, step: str, data: bytes) -> None:
        sent = Message(frm, to, step, data)
        self.log.append(sent)
        for message in [sent] if self._tamper is None else self._tamper(sent):
            super()._post(*message)


class ImpatientLoop(asyncio.SelectorEventLoop):
    """An event loop that does not wait for a timer: where nothing else is to be done, it is later at once."""

    def __init__(self) -> None:
        super().__init__()
        self._ahead = 0.0
        select = self._selector.select  # type: ignore[attr-defined]

        def impatient(timeout: float | None = None) -> Any:
            if timeout is not None and timeout > 0:
                self._ahead += timeout
                timeout = 0
            return select(timeout)

        self._selector.select = impatient  # type: ignore[attr-defined]

    def time(self) -> float:
        return super().time() + self._ahead


@dataclass
class Run:
    """What came of a run: per party the outcome (a value or an exception), and everything that was sent."""

    outcomes: list[Any]
    parties: list[Party]
    log: list[Message]
    dealer: Exception | None

    @property
    def results(self) -> list[Any]:
        cause = root_cause(self.outcomes)
        if cause is not None:
            raise cause[1]
        return self.outcomes

    @property
    def sent(self) -> list[Message]:
        """All messages but those of joining and leaving."""
        return [m for m in self.log if not m.step.startswith("join/") and m.data != b"leave"]

    def told(self) -> list[Message]:
        """All of :attr:`sent`, those of oblivious transfer without what is in them.

        That is padded by what public-key transfers have made of randomness of their own, which no test seeds.
        """
        return sorted(m._replace(data=bytes(len(m.data))) if of_transfers(m.step) else m for m in self.sent)

    def sent_after_inputs(self) -> list[Message]:
        """All messages but those of joining, leaving and input sharing."""
        return [m for m in self.sent if "/header#" not in m.step]


def run(
    program: Program,
    inputs: Sequence[Any] | None = None,
    *,
    parties: int = 3,
    preprocessing: str = "dealer",
    preprocessings: Sequence[str] | None = None,
    security: str = "semi-honest",
    make_source: Callable[[int], MakeSource] | None = None,
    tamper: Tamper | None = None,
    timeout_seconds: float = 20.0,
) -> Run:
    """Run ``program(party, data)`` at every party, and a dealer beside them where they want one."""
    size = parties if inputs is None else len(inputs)
    data = [None] * size if inputs is None else list(inputs)
    named = [preprocessing] * size if preprocessings is None else list(preprocessings)
    network = TappedNetwork(size, tamper=tamper, timeout_seconds=timeout_seconds)
    seats: list[Any] = [None] * size
    faults: list[Exception] = []

    def sources(rank: int) -> dict[str, Any]:
        return {} if make_source is None else {"make_source": make_source(rank)}

    async def one(rank: int) -> Any:
        transport = network.transport(rank)
        try:
            seats[rank] = await join(transport, preprocessing=named[rank], security=security, **sources(rank))
            outcome = await program(seats[rank], data[rank])
            await seats[rank].leave()
        except Exception as error:  # noqa: BLE001 - it is the outcome
            await transport.abort(type(error).__name__, for_peers(error))
            return error
        await transport.close()
        return outcome

    async def dealer() -> None:
        transport = network.transport(size)
        try:
            await serve_dealer(transport, security=security, **sources(size))
        except Exception as error:  # noqa: BLE001 - it is the outcome
            faults.append(error)
            await transport.abort(type(error).__name__, for_peers(error))

    async def everybody() -> list[Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(rank)) for rank in range(size)]
            if "dealer" in named:
                group.create_task(dealer())
        return [task.result() for task in tasks]

    with asyncio.Runner(loop_factory=ImpatientLoop) as runner:
        outcomes = runner.run(everybody())
    return Run(outcomes, seats, network.log, faults[0] if faults else None)


_TRANSFERS = re.compile(r"(/choices|/corrections)\.\d+$|^transfers/extension|(^|/)lattice|(^|/)waves(\.\d+)?/truncate#")


def of_transfers(step: str) -> bool:
    """Whether a message makes material by oblivious transfer, or lattices, or truncates such material."""
    return _TRANSFERS.search(step) is not None


def but_transfers(costs: Costs, before: StepCost | None = None) -> StepCost:
    """Return the sum over all steps but those that make material by oblivious transfer; less what was before."""
    total = StepCost()
    for name, cost in costs.by_step.items():
        if not name.endswith(("/transfers", "/lattice")):
            total.add(cost)
    return StepCost(*(getattr(total, c.name) - (getattr(before, c.name) if before else 0) for c in fields(StepCost)))


def same(results: Sequence[Any]) -> Any:
    """Return what all parties hold, once it is known that they hold the same."""
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
        assert getattr(result, "dtype", None) == getattr(results[0], "dtype", None)
    return results[0]


async def shares_of(party: Party, values: Sequence[Any], bound: Any, field: Field = F127) -> list[Share]:
    """Share the k-th array as party k mod n; only the owner's values are looked at."""
    bounds = bound if isinstance(bound, list) else [bound] * len(values)
    shares = []
    for k, array in enumerate(values):
        owner = k % party.size
        held = array if party.rank == owner else None
        shares.append(await party.share(held, bound=bounds[k], owner=owner, shape=np.shape(array), field=field))
    return shares


def opened(
    protocol: Callable[..., Awaitable[Share]],
    *values: Any,
    bound: Any = 2**30,
    parties: int = 3,
    preprocessing: str = "dealer",
    field: Field = F127,
    security: str = "semi-honest",
) -> Any:
    """Share arrays, run ``protocol(party, *shares)``, open what it returns."""

    async def program(party: Party, _: Any) -> Any:
        return await open_(party, await protocol(party, *await shares_of(party, values, bound, field)))

    return same(run(program, parties=parties, preprocessing=preprocessing, security=security).results)


def seeded(text: str) -> Callable[[int], MakeSource]:
    """Make sources for :func:`run` whose seeds follow from a text: every run draws the same."""

    def for_rank(rank: int) -> MakeSource:
        def make(name: str, seed: bytes) -> Prg:
            known = f"dealer {rank}" if name == "dealer" else name
            return Prg(hashlib.blake2b(f"{text}: {known}".encode(), digest_size=32).digest())

        return make

    return for_rank


def exact(values: Any) -> np.ndarray:
    """Return an object array of Python integers."""
    array = np.asarray(values)
    integers = np.empty(array.shape, dtype=object)
    integers.reshape(-1)[:] = [int(v) for v in array.flat]
    return integers
