"""What a party's process reports: a value and what it cost, or how it failed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

from mpc.costs import Costs, StepCost
from mpc.errors import PeerError, SottovoceError
from parties.errors import PartyError

if TYPE_CHECKING:
    from parties.faults import Traffic

# Frames of these packages say nothing about where in the program it went wrong.
_NOT_THE_PROGRAM = frozenset({"mpc", "protocols", "parties", "asyncio", "uvloop", "contextlib"})
_PLACES = 5


@dataclass(frozen=True, slots=True)
class PartyCosts:
    """What a run cost one party.

    Attributes
    ----------
    rank : int
        Its rank; the dealer's is the number of parties.
    seconds : float
        From when all were connected to its result.
    cpu_seconds : float
        Computing time of its process, with start and connecting.
    peak_memory_bytes : int
        Most memory that its process ever held; 0 where the platform does not tell.
    wire_sent, wire_received : int
        Bytes over its connections, with our headers, WebSocket and TLS. 0 in one process.
    steps : Costs
        Rounds, payload bytes, elements and triples by step.
    """

    rank: int
    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    steps: Costs
    wire_sent: int = 0
    wire_received: int = 0

    @classmethod
    def measure(cls, rank: int, seconds: float, steps: Costs | None) -> PartyCosts:
        """Ask the operating system what this process took so far."""
        return cls(rank, seconds, time.process_time(), peak_memory_bytes(), Costs() if steps is None else steps)

    def with_traffic(self, traffic: Mapping[int, Traffic]) -> PartyCosts:
        """Add what went over the connections."""
        return replace(
            self,
            wire_sent=sum(link.wire_sent for link in traffic.values()),
            wire_received=sum(link.wire_received for link in traffic.values()),
        )


@dataclass(frozen=True, slots=True)
class RunCosts:
    """What a run cost, for all parties.

    Attributes
    ----------
    seconds : float
        From the call to the last result: processes, certificates and connecting included.
    parties : tuple of PartyCosts
        In rank order; the dealer, if there was one, comes last.
    """

    seconds: float
    parties: tuple[PartyCosts, ...]

    @property
    def total(self) -> StepCost:
        """The sum over all steps of all parties."""
        total = StepCost()
        for party in self.parties:
            total.add(party.steps.total)
        return total

    @property
    def rounds(self) -> int:
        """Rounds of the party that had most."""
        return max(party.steps.rounds for party in self.parties)

    @property
    def bytes_sent(self) -> int:
        """Payload bytes that all parties sent together."""
        return self.total.bytes_sent

    @property
    def wire_bytes(self) -> int:
        """Bytes over all connections, each counted once, where it was sent."""
        return sum(party.wire_sent for party in self.parties)

    @property
    def peak_memory_bytes(self) -> int:
        """Memory of the party that held most."""
        return max(party.peak_memory_bytes for party in self.parties)


class Results(list[Any]):
    """Return values in rank order.

    Attributes
    ----------
    costs : RunCosts
        What the run cost.
    """

    def __init__(self, values: Sequence[Any], costs: RunCosts) -> None:
        super().__init__(values)
        self.costs = costs


@dataclass(frozen=True, slots=True)
class Report:
    """A party's result, encoded, and what it cost."""

    value: bytes = field(repr=False)
    costs: PartyCosts


@dataclass(frozen=True, slots=True)
class Failure:
    """How a party failed, without data.

    Attributes
    ----------
    error_type : str
        Name of the exception class.
    text : str
        Its text if it is an error of ours, whose texts hold no data; otherwise empty.
    places : tuple of str
        Where in the program, innermost last: file, line and function.
    of_peer : bool
        Whether it failed because another one did.
    when : float
        On this machine's clock.
    """

    error_type: str
    text: str
    places: tuple[str, ...]
    of_peer: bool
    when: float

    def error(self, rank: int, name: str) -> PartyError:
        """Return the error to raise for this failure of a party."""
        said = f": {self.text}" if self.text else ""
        where = f" (at {', from '.join(reversed(self.places))})" if self.places else ""
        return PartyError(f"{name}: {self.error_type}{said}{where}", rank=rank, error_type=self.error_type)


def failure_of(error: BaseException) -> Failure:
    """Describe an exception without its data."""
    cause = cause_of(error)
    return Failure(
        type(cause).__name__,
        str(cause) if isinstance(cause, SottovoceError) else "",
        tuple(_places(cause) or _places(error)),
        isinstance(cause, PeerError),
        time.monotonic(),
    )


def cause_of(error: BaseException) -> BaseException:
    """Return the exception itself or, of a TaskGroup's, the first inside that is not about a peer."""
    causes = list(_inside(error))
    return next((cause for cause in causes if not isinstance(cause, PeerError)), causes[0])


def _inside(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _inside(part)
    else:
        yield error


def _places(error: BaseException) -> list[str]:
    frames = [
        f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"
        for frame, line in walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in _NOT_THE_PROGRAM
    ]
    return frames[-_PLACES:]


def peak_memory_bytes() -> int:
    """Return the most memory that this process ever held, 0 where the platform does not tell."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
