"""A party: one organisation's seat in a computation."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.costs import Costs
from mpc.errors import SecurityError
from mpc.field import F127
from mpc.inputs import share_own, share_owned
from mpc.mac_check import PIECE
from mpc.share import FRACTION_BITS, Share

if TYPE_CHECKING:
    from mpc.costs import StepCost
    from mpc.field import Field, FieldArray
    from mpc.mac_check import Guard
    from mpc.preprocessing import Preprocessing
    from mpc.prg import RandomStream
    from mpc.share import Public
    from mpc.transport import Buffer, Transport

_LABEL = re.compile(r"[A-Za-z0-9 _-]{1,60}")
_NUMBER = re.compile(r"\.[0-9]+")
_LONGEST_PATH = 150  # a step adds a name and numbers, and has 200 bytes in a frame
OpenStream = Callable[[str, str], "RandomStream"]


class Party:
    """One organisation's seat: rank, size, transport, preprocessing, costs, and a scope of names.

    Messages and randomness are named by scope and step, the same at all parties because all run the
    same program. Within one scope the steps of a protocol follow one another; protocols that run side
    by side each need a scope of their own, ``party.at("label")``.

    Parameters
    ----------
    rank, size : int
        Our number, from 0, and how many parties there are.
    transport : Transport
        Links to the others.
    preprocessing : Preprocessing
        Source of masks and of their products.
    open_stream : callable
        ``open_stream(key, label)`` opens the stream of a label under one of the seeds that were agreed
        when the parties joined.
    costs : Costs
        Where this party's costs are counted.

    Attributes
    ----------
    guard : Guard or None
        What keeps notes of openings, where parties may cheat (``security="malicious"``); all seats have the same.
    checks : Party or None
        The seat that checks are made at.
    opened : list of str
        Labels of the sub-scopes that were opened from this seat.
    """

    __slots__ = (
        "_busy",
        "_children",
        "_messages",
        "_open_stream",
        "_steps",
        "_streams",
        "_unchecked",
        "checks",
        "costs",
        "guard",
        "opened",
        "path",
        "preprocessing",
        "rank",
        "rehearsing",
        "size",
        "transport",
    )

    fraction_bits = FRACTION_BITS

    def __init__(
        self,
        rank: int,
        size: int,
        transport: Transport,
        preprocessing: Preprocessing,
        open_stream: OpenStream,
        costs: Costs | None = None,
        path: str = "",
    ) -> None:
        self.rank = rank
        self.size = size
        self.transport = transport
        self.preprocessing = preprocessing
        self.costs = costs if costs is not None else Costs()
        self.path = path
        self._open_stream = open_stream
        self._streams: dict[tuple[str, str], RandomStream] = {}
        self._children: dict[str, int] = {}
        self.opened: list[str] = []
        self._steps = 0
        self._messages: dict[str, StepCost] = {}
        self._busy = ""
        self._unchecked = 0
        self.rehearsing = False
        self.guard: Guard | None = None
        self.checks: Party | None = None

    # ---- names ----------------------------------------------------------------------------------

    def at(self, label: str) -> Party:
        """Return our seat in a sub-scope; a label that is used again gets a number.

        No two seats have the same path, so no two draw from the same streams.
        """
        if not _LABEL.fullmatch(label):
            # A dot or a slash could spell the path of another scope: its masks would be used twice.
            raise ValueError("a scope label is 1 to 60 letters, digits, spaces, hyphens or underscores")
        uses = self._children[label] = self._children.get(label, 0) + 1
        self.opened.append(label)
        name = label if uses == 1 else f"{label}.{uses}"
        path = f"{self.path}/{name}" if self.path else name
        if len(path) > _LONGEST_PATH:
            raise ValueError(f"scopes are nested too deeply: a path has at most {_LONGEST_PATH} characters")
        seat = self._seat(path, self.costs)
        seat.rehearsing = self.rehearsing
        return seat

    def _seat(self, path: str, costs: Costs) -> Party:
        seat = Party(self.rank, self.size, self.transport, self.preprocessing, self._open_stream, costs, path)
        seat.guard, seat.checks = self.guard, self.checks
        return seat

    def rehearsal(self) -> Party:
        """Return a seat in a scope of its own where openings send nothing and give zeros.

        Sub-scopes and steps are numbered on from where we stand, so that a program which is rehearsed
        there names them as it will name them here.
        """
        seat = self._seat(self.at("prepared").path, Costs())
        seat.rehearsing = True
        seat._children = dict(self._children)
        seat._steps = self._steps
        return seat

    def awake(self, preprocessing: Preprocessing, costs: Costs) -> Party:
        """Return this seat of a rehearsal, same scope and streams, with openings that do open."""
        seat = self._seat(self.path, costs)
        seat.preprocessing = preprocessing
        seat._streams, seat._children = self._streams, self._children
        return seat

    def next_step(self, name: str) -> str:
        """Return the label of the next step of this scope; no two steps share a label."""
        self._steps += 1
        return f"{self.path}/{name}#{self._steps}"

    def cost_of(self, name: str) -> StepCost:
        """Return the counters of one kind of step, which scopes of the same labels share."""
        cost = self._messages.get(name)
        if cost is None:
            path = f"{self.path}/{name}" if self.path else name
            cost = self._messages[name] = self.costs.step(_NUMBER.sub("", path))
        return cost

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Hold this scope while something is opened in it.

        Two protocols at once in one scope would draw their masks in an order that depends on what
        arrives first, and differs between parties.

        Raises
        ------
        RuntimeError
            If something else is being opened in this scope.
        """
        if self._busy:
            raise RuntimeError(
                f"{name!r} begins while {self._busy!r} is under way in the same scope: "
                'protocols that run side by side each need their own, party.at("label")'
            )
        self._busy = name
        try:
            yield
        finally:
            self._busy = ""

    @property
    def others(self) -> list[int]:
        """The other parties' ranks, beginning with our successor so that not all talk to one first."""
        return [(self.rank + k) % self.size for k in range(1, self.size)]

    # ---- randomness -----------------------------------------------------------------------------

    def stream(self, key: str, use: str) -> RandomStream:
        """Return this scope's stream of an agreed seed, for one use; it is read on, never again."""
        stream = self._streams.get((key, use))
        if stream is None:
            stream = self._streams[key, use] = self._open_stream(key, f"{use}|{self.path}")
        return stream

    def stream_once(self, key: str, label: str) -> RandomStream:
        """Open the stream of a whole label, which no scope is part of; the caller vouches that it is used once."""
        return self._open_stream(key, label)

    def pair_stream(self, other: int, use: str) -> RandomStream:
        """Return this scope's stream that only we and one other party know."""
        return self.stream(f"pair {min(self.rank, other)}-{max(self.rank, other)}", use)

    def zero_share(self, field: Field, shape: tuple[int, ...]) -> FieldArray:
        """Draw our summand of a fresh sharing of zero; nothing is sent.

        The summands of any proper subset of the parties are uniform and independent (pairwise seeds;
        Cramer, Damgaard, Ishai, TCC 2005, section 3). Added to what is about to be opened, it leaves
        nothing to see in the summands but their sum.
        """
        total: FieldArray | None = None
        for other in range(self.size):
            if other == self.rank:
                continue
            drawn = self.pair_stream(other, "zero").elements(field, shape)
            if total is None:
                total = drawn if other > self.rank else field.neg(drawn)
            else:
                total = field.add(total, drawn) if other > self.rank else field.sub(total, drawn)
        return field.zeros(shape) if total is None else total

    # ---- checks ---------------------------------------------------------------------------------

    @property
    def security(self) -> str:
        """``"malicious"`` where parties may cheat, else ``"semi-honest"``."""
        return "semi-honest" if self.guard is None else "malicious"

    def over(self, field: Field) -> Field:
        """Return the field that shares over ``field`` are made of: with MACs, where parties may cheat."""
        return field if self.guard is None else self.guard.over(field)

    async def verify(self) -> None:
        """Check all that was opened and announced so far; nothing is to be checked where parties are semi-honest.

        Raises
        ------
        CheatingError
            See :mod:`mpc.mac_check`.
        """
        if self.guard is None or self.checks is None or self.rehearsing:
            return
        self._unchecked = 0
        await self.guard.check(self.checks)

    def has_opened(self, count: int) -> bool:
        """Count what was opened in this scope since it was last checked; tell whether a check is due."""
        self._unchecked += count
        return self._unchecked >= PIECE

    def heard(self, step: str, said: Mapping[int, Buffer]) -> None:
        """Note what parties said to all at a step, so that nobody can have told others something else."""
        if self.guard is not None and not self.rehearsing:
            self.guard.announced(step, said)

    def semi_honest_only(self, what: str, instead: str) -> None:
        """Refuse what does not hold against parties that cheat.

        Raises
        ------
        SecurityError
            Before anything is sent.
        """
        if self.guard is not None:
            raise SecurityError(f"{what} does not run with security='malicious': {instead}")

    # ---- messages -------------------------------------------------------------------------------

    async def send(self, to: int, step: str, data: Buffer, cost: StepCost) -> None:
        """Send one message and count it."""
        cost.messages += 1
        cost.bytes_sent += len(data) if not isinstance(data, memoryview) else data.nbytes
        await self.transport.send(to, step, data)

    # ---- values ---------------------------------------------------------------------------------

    async def share(
        self,
        values: Any,
        *,
        bound: float,
        owner: int | None = None,
        field: Field = F127,
        shape: tuple[int | None, ...] | list[tuple[int | None, ...]] | None = None,
        scale: int = FRACTION_BITS,
    ) -> Any:
        """Split values into random summands, one for each party.

        Parameters
        ----------
        values : array_like or None
            Integers are shared as integers, floats as fixed point with 24 fraction bits (rounded to
            nearest). With an ``owner``, only that party's values count.
        bound : float
            Public bound on the absolute values, in their units, the same at all parties.
        owner : int, optional
            The party whose values are shared; by default every party shares its own.
        field : Field
        shape : tuple of (int or None), or list of them, optional
            The shape that we expect of every array that is shared, ours and others'; None stands for an
            axis of any length, as in ``(None, columns)``. Without an owner a list may say it for each
            party. What a party announces is checked before anything is allocated. Without a shape an
            array of any is taken from anybody, so state it wherever it is known.
        scale : int
            Fraction bits of floats.

        Returns
        -------
        Share or list of Share
            With an owner one share; without, all parties' shares in rank order (their shapes may
            differ).

        Raises
        ------
        DataError
            Before anything is sent: values out of bounds, NaN, infinite, not numbers. The message
            names party, columns and counts, never values. Or another shape than expected, or more than
            2^28 entries.
        RangeError
            Before anything is sent: the bound does not fit the field.
        AgreementError
            The parties declared different bounds, fields or shapes; it names the party that differs.
        PeerError
            A party announced what makes no sense, or more than 2^28 entries.

        Notes
        -----
        All summands but the owner's are expanded from pairwise seeds; the owner keeps the rest. Only
        a public header travels: shape, kind (integer or fixed point), bound and field, which all
        parties learn. The values are hidden from any coalition of the others, computationally (AES).
        Cost: 1 round; about 100 bytes to each party; no element is sent.
        Where parties may cheat, the owner sends its values bit by bit, masked: see :mod:`mpc.bit_inputs`.
        """
        field = self.over(field)
        if owner is None:
            return await share_own(self.at("share"), values, bound=bound, field=field, scale=scale, shape=shape)
        if isinstance(shape, list):
            raise TypeError("the owner's array has one shape")
        return await share_owned(
            self.at("share"), values, bound=bound, owner=owner, field=field, shape=shape, scale=scale
        )

    def constant(
        self, public: Public, *, scale: int | None = None, field: Field = F127, shape: tuple[int, ...] | None = None
    ) -> Share:
        """Return a share of a public value: the leading party holds it, the others hold zero.

        Parameters
        ----------
        public : int, float or array of them
            The same at all parties.
        scale : int, optional
            Fraction bits; by default 0 for integers and 24 for floats.
        field : Field
        shape : tuple of int, optional
            Shape to repeat the value to.
        """
        array = np.asarray(public)
        if scale is None:
            scale = FRACTION_BITS if array.dtype.kind == "f" else 0
        field = self.over(field)
        zero = Share(field, field.zeros(array.shape if shape is None else shape), scale, 0, leads=self.rank == 0)
        return zero + public

    # ---- the end --------------------------------------------------------------------------------

    async def leave(self) -> None:
        """Say that our program has ended, so that a dealer may stop serving us.

        Where parties may cheat, what was opened and announced since the last check is checked.
        """
        await self.verify()
        await self.preprocessing.leave(self)

    @staticmethod
    def clock() -> float:
        """Return the event loop's time in seconds."""
        return asyncio.get_running_loop().time()

    def __repr__(self) -> str:
        return f"Party({self.rank} of {self.size}, at {self.path or 'the top'!r})"
