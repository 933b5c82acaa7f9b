"""What a computation will cost, before anybody has shown a number: the very protocol, run on made-up data.

All parties, and the dealer where there is one, run in one event loop (:mod:`mpc.hops`) on arrays of the real
shapes. Messages and their sizes do not depend on secrets, so what is counted there is what the real run will
send, to the byte; a program whose steps depend on what it opens is told apart by trying unlike data.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from mpc.costs import StepCost
from mpc.errors import SottovoceError
from mpc.hops import HopLoop, HopNetwork
from mpc.made_up import is_made_up, make_up
from mpc.memory import root_cause, run_together
from mpc.session import check_preprocessing, check_security

if TYPE_CHECKING:
    from mpc.party import Party

Program = Callable[["Party", Any], Awaitable[Any]]
_MOST_TRIALS = 8


@dataclass(frozen=True, slots=True)
class Network:
    """What the links between the parties do.

    Attributes
    ----------
    name : str
    round_trip_seconds : float
        Between any two of them.
    bits_per_second : float
        Of each party's access, in either direction.
    """

    name: str
    round_trip_seconds: float
    bits_per_second: float

    def seconds(self, hops: int, busiest_bytes: int) -> float:
        """Return how long messages are under way: half a round trip each hop, and the busiest access."""
        return hops * self.round_trip_seconds / 2 + 8 * busiest_bytes / self.bits_per_second


NETWORKS = (
    Network("loopback", 0.00024, 4e9),
    Network("LAN", 0.001, 1e9),
    Network("WAN", 0.050, 100e6),
)


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """What a program will cost; see :func:`estimate`.

    Attributes
    ----------
    parties : int
    preprocessing : str
    trials : int
        How many unlike sets of made-up data were tried; 1 where the data was given. Sets that the program refused
        are not counted.
    varies : bool
        Whether the trials differed: the program's steps depend on what it opens, and the figures are those of the
        costliest trial.
    rounds : int
        Messages that all parties send without waiting for each other; as ``party.costs.rounds`` counts them:
        protocols that run side by side one after the other.
    hops : int
        The longest chain of messages that wait for one another: what a network's delay is multiplied with.
    messages, elements_opened, triples : int
        Of the party that has most; see :class:`mpc.Costs`.
    revealed : int
        Numbers that are opened without a mask: results, and what the program makes public on its way.
    bytes_sent : tuple of int
        Payload of each party; without the frames and TLS of a real link, and without joining.
    dealer_bytes : int
        What the dealer sends, to the last party.
    busiest_bytes : int
        What goes in or out of the busiest node, whichever is more.
    local_seconds : float
        Computing time of one party, as measured on this machine, to 10 ms or so.
    seconds : dict of str to float
        By network, from the first message to the result; a rough figure.
    steps : dict of str to StepCost
        By step, at the party that sends most.
    """

    parties: int
    preprocessing: str
    trials: int
    varies: bool
    rounds: int
    hops: int
    messages: int
    elements_opened: int
    triples: int
    revealed: int
    bytes_sent: tuple[int, ...]
    dealer_bytes: int
    busiest_bytes: int
    local_seconds: float
    seconds: dict[str, float]
    steps: dict[str, StepCost] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, numbers and texts, fit for JSON."""
        return asdict(self) | {"bytes_sent": list(self.bytes_sent)}

    def summary(self) -> str:
        """Return a table for people."""
        head = f"Cost preview: {self.parties} parties, preprocessing {self.preprocessing}"
        rows = [
            ("rounds", f"{self.rounds:,}"),
            ("messages that wait for one another", f"{self.hops:,}"),
            ("elements opened, masked or as results", f"{self.elements_opened:,}"),
            ("  of these without a mask", f"{self.revealed:,}"),
            ("products of masks", f"{self.triples:,}"),
            ("sent by a party, at most", _bytes(max(self.bytes_sent))),
            ("sent by all", _bytes(sum(self.bytes_sent))),
            *([("sent by the dealer", _bytes(self.dealer_bytes))] if self.preprocessing == "dealer" else []),
            ("computing at a party", _duration(self.local_seconds)),
            *((f"time on {name}", _duration(seconds)) for name, seconds in self.seconds.items()),
        ]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name.ljust(width)}  {value:>12}" for name, value in rows]
        rule = "-" * max(map(len, [*lines, head]))
        return "\n".join([head, rule, *lines, rule, *self._remarks()])

    def _remarks(self) -> list[str]:
        if self.varies:
            return [
                "The steps depend on what is opened: these are the figures of the costliest of",
                f"{self.trials} trials, no bound. Fix the number of steps for exact ones.",
            ]
        if self.trials > 1:
            return [f"The same in {self.trials} trials on unlike made-up data. Times are rough."]
        return ["As counted in one trial. Times are rough."]

    def __str__(self) -> str:
        """Return the summary."""
        return self.summary()


@dataclass(frozen=True, slots=True)
class _Trial:
    """What one run cost."""

    totals: tuple[StepCost, ...]
    hops: int
    revealed: int
    dealer_bytes: int
    busiest_bytes: int
    steps: dict[str, StepCost]
    busy_seconds: float

    @property
    def counted(self) -> tuple[Any, ...]:
        """Everything that two runs of a program have in common if its steps do not depend on the data."""
        totals = ((t.rounds, t.messages, t.bytes_sent, t.elements_opened, t.triples) for t in self.totals)
        return (*totals, self.hops, self.revealed, self.dealer_bytes, self.busiest_bytes)

    @property
    def size(self) -> tuple[int, int, int, float]:
        """What makes one trial costlier than another; of equals the fastest is the better measurement."""
        sent = sum(t.bytes_sent for t in self.totals)
        return (self.hops, max(t.rounds for t in self.totals), sent, -self.busy_seconds)


def estimate(
    program: Program,
    shapes: Any,
    *,
    parties: int = 3,
    preprocessing: str = "prss",
    security: str = "semi-honest",
    networks: Sequence[Network] = NETWORKS,
    trials: int = 2,
    slowdown: float = 1.0,
) -> CostEstimate:
    """Predict what a program will cost, from the shapes of its data alone.

    Parameters
    ----------
    program : async callable
        ``await program(party, data)``, as :func:`parties.simulate` takes it.
    shapes : description, or list of one for each party
        A description is a :class:`MadeUp` array, a tuple of whole numbers (the shape of an array of floats from -1
        to 1), or a mapping or tuple of descriptions, also lists inside these; anything else, an array too, is given
        to the program as it is. One that is no list stands for the data of every party.
    parties : int
        Where ``shapes`` is no list: how many there are.
    preprocessing : {"prss", "dealer", "ot"}
    security : {"semi-honest", "malicious"}
    networks : sequence of Network
        By default a loopback interface with what our own layers take there (a round of 0.12 ms, 4 Gbit/s), a LAN
        (1 ms, 1 Gbit/s) and a WAN (50 ms, 100 Mbit/s).
    trials : int
        How many unlike sets of data are made up, if anything is: in every second one all columns follow one hidden
        number a row, so that a fit takes long to converge; in the others they have nothing to do with each other.
    slowdown : float
        How much slower the parties' machines compute than this one.

    Returns
    -------
    CostEstimate

    Raises
    ------
    Exception
        What the program raises on the first set of made-up data, for example since a bound does not fit it.
    ValueError
        The preprocessing does not suit the number of parties, or the security model.

    Notes
    -----
    Rounds, elements and bytes are counted in a run of the program itself, and so are exact for the real data if
    its steps do not depend on what it opens, and its texts (names, labels, digits of public numbers) are as long.
    If the steps do, as with a fit that stops once it has converged or a table whose cells may be withheld, trials
    may differ, which ``varies`` tells; trials that agree do not prove that no data could differ.
    Time on a network is ``hops round_trip / 2 + 8 busiest_bytes / bits_per_second + local_seconds``: as if nobody
    computed while messages are under way. ``local_seconds`` is the processor time of the run divided by the number of
    parties, the dealer's work included. The run takes the memory of all parties, on this machine.
    """
    described = list(shapes) if isinstance(shapes, list) else [shapes] * parties
    size = len(described)
    check_preprocessing(preprocessing, size)
    check_security(security, preprocessing)
    if not 1 <= trials <= _MOST_TRIALS:
        raise ValueError(f"trials go from 1 to {_MOST_TRIALS}")
    count = trials if is_made_up(described) else 1
    runs = []
    for trial in range(count):
        inputs = [
            make_up(one, f"trial {trial} party {rank}", related=trial % 2 == 1) for rank, one in enumerate(described)
        ]
        try:
            runs.append(_outside_any_loop(partial(_try_out, program, inputs, preprocessing, security)))
        except SottovoceError:
            if not runs:
                raise
            # Other made-up data is refused, by a rule on small groups for example: that costs less.
    most = max(runs, key=lambda run: run.size)
    local_seconds = slowdown * most.busy_seconds / size
    return CostEstimate(
        parties=size,
        preprocessing=preprocessing,
        trials=len(runs),
        varies=any(run.counted != runs[0].counted for run in runs),
        rounds=max(t.rounds for t in most.totals),
        hops=most.hops,
        messages=max(t.messages for t in most.totals),
        elements_opened=max(t.elements_opened for t in most.totals),
        triples=max(t.triples for t in most.totals),
        revealed=most.revealed,
        bytes_sent=tuple(t.bytes_sent for t in most.totals),
        dealer_bytes=most.dealer_bytes,
        busiest_bytes=most.busiest_bytes,
        local_seconds=local_seconds,
        seconds={one.name: one.seconds(most.hops, most.busiest_bytes) + local_seconds for one in networks},
        steps=most.steps,
    )


def _try_out(program: Program, inputs: Sequence[Any], preprocessing: str, security: str) -> _Trial:
    """Run a program once, and count."""
    loop, network = HopLoop(), HopNetwork(len(inputs))
    began, ended = [], []

    async def measured(party: Party, data: Any) -> None:
        began.append((loop.time(), loop.busy_seconds()))
        await program(party, data)
        ended.append((loop.time(), loop.busy_seconds()))

    with asyncio.Runner(loop_factory=lambda: loop) as runner, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is odd about made-up data
        pairs = runner.run(
            run_together(measured, inputs, preprocessing=preprocessing, security=security, network=network)
        )
    cause = root_cause([outcome for outcome, _ in pairs])
    if cause is not None:
        raise cause[1]
    costs = [party.costs for _, party in pairs if party is not None]
    chattiest = max(costs, key=lambda one: one.bytes_sent)
    return _Trial(
        totals=tuple(one.total for one in costs),
        hops=round(max(hop for hop, _ in ended) - max(hop for hop, _ in began)),
        revealed=max(sum(opening.elements for opening in one.openings) for one in costs),
        dealer_bytes=network.sent[-1],
        busiest_bytes=max(*network.sent, *network.received),
        steps=chattiest.by_step,
        busy_seconds=max(at for _, at in ended) - min(at for _, at in began),
    )


def _outside_any_loop(run: Callable[[], _Trial]) -> _Trial:
    """Call a function that runs an event loop, from wherever we are: in a notebook, one is running already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def _bytes(count: float) -> str:
    """Write a number of bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _duration(seconds: float) -> str:
    """Write a time for people, to two digits or so."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.3g} min"
