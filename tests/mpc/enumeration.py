"""Trying every choice of the randomness that a coalition does not know, all of them in one run.

The protocols work entry by entry, so one run on arrays of L equal entries can be L executions: the streams
that the coalition does not know give entry number l the digits of l, in mixed radix, so that every
combination of their draws occurs exactly once. The streams that it knows are the same in all lanes. What the
coalition receives, lane by lane, is then its exact view, and two secrets are protected from each other if the
multisets of views are equal. How far apart they are otherwise is the statistical distance.
"""

import hashlib
import json
import math
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpc import Field, Party
from mpc.session import MakeSource
from mpc.words import W64, WORD_BITS, pack_bits, unpack_bits
from tests.mpc.support import Message, Run, Tamper, run

_PER_DRAW = 1 << 40  # positions: one unit for each draw, so that they do not depend on the number of lanes

# protocol(party, lanes, secret)
Protocol = Callable[[Party, int, Any], Awaitable[Any]]
Draw = tuple[str, str, int]  # name of the seed, label, number of the draw
Sabotage = Callable[[str, int], int | None]


@dataclass
class Lab:
    """Sources of randomness for one run.

    Parameters
    ----------
    coalition : set of int
        Knows all seeds that one of its members knows.
    lanes : int
        How many executions run side by side.
    plan : dict
        How many values, of which radix, each unknown draw gives to a lane; collected in a run of one lane.
    fixing : int
        Chooses the values of the known streams; 0 makes them all zero.
    known : str
        Draws (a regular expression for ``label#number``) that the coalition is told, although it could not
        know them: what is private then is private without that, too, and there is less to enumerate.
    copies : int
        How many times the lanes stand in every array, one block after the other.
    sabotage : callable, optional
        ``sabotage(label, number)``: the number of the draw that is given instead, -1 for zeros.
    """

    coalition: set[int]
    lanes: int = 1
    plan: dict[Draw, tuple[int, int]] = field(default_factory=dict)
    fixing: int = 0
    known: str = r"share\|"
    copies: int = 1
    sabotage: Sabotage | None = None

    def __post_init__(self) -> None:
        self._drawn: dict[Draw, np.ndarray] = {}
        self._strides: dict[Draw, int] = {}
        stride = 1
        for draw in sorted(self.plan):
            self._strides[draw] = stride
            count, radix = self.plan[draw]
            stride *= radix**count
        self._counted = stride

    @property
    def combinations(self) -> int:
        """How many lanes it takes to try everything."""
        return math.prod(radix**count for count, radix in self.plan.values())

    def knows(self, name: str, label: str, number: int) -> bool:
        members = {int(rank) for rank in re.findall(r"\d+", name)}
        return bool(members & self.coalition) or re.match(self.known, f"{label}#{number}") is not None

    def sources(self, rank: int) -> MakeSource:
        def make(name: str, seed: bytes) -> Any:
            return _Source(self, f"dealer {rank}" if name == "dealer" else name)

        return make

    def draw(self, name: str, label: str, number: int, count: int, radix: int) -> np.ndarray:
        """Return the integers of a draw, shape ``(lanes, count)``."""
        if self.sabotage is not None and not self.knows(name, label, number):
            instead = self.sabotage(label, number)
            if instead == -1:
                return np.zeros((self.lanes, count), np.int64)
            number = number if instead is None else instead
        draw = (name, label, number)
        if draw not in self._drawn:
            self._drawn[draw] = self._make(draw, count, radix)
        return self._drawn[draw]

    def _make(self, draw: Draw, count: int, radix: int) -> np.ndarray:
        if self.knows(*draw):
            values = [_fixed(f"{self.fixing} {draw} {k}", radix) if self.fixing else 0 for k in range(count)]
            return np.broadcast_to(np.array(values, np.int64), (self.lanes, count))
        if self.lanes == 1 and not self._strides:
            self.plan[draw] = (count, radix)
            return np.zeros((1, count), np.int64)
        assert self.plan[draw] == (count, radix), "the program draws otherwise when there are more lanes"
        lane = np.arange(self.lanes)
        return np.stack([lane // (self._strides[draw] * radix**k) % radix for k in range(count)], axis=-1)


def _fixed(text: str, radix: int) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little") % radix


@dataclass
class _Source:
    lab: Lab
    name: str

    def stream(self, label: str, position: int = 0) -> Any:
        return _Stream(self.lab, self.name, label, position // _PER_DRAW)


@dataclass
class _Stream:
    lab: Lab
    name: str
    label: str
    number: int

    @property
    def position(self) -> int:
        return self.number * _PER_DRAW

    def skip(self, count: int) -> None:
        self.number += 1

    def elements(self, field: Field, shape: tuple[int, ...]) -> np.ndarray:
        return self._drawn(field, shape, field.modulus)

    def bounded(self, field: Field, bits: int, shape: tuple[int, ...]) -> np.ndarray:
        return self._drawn(field, shape, 1 << bits)

    def _drawn(self, field: Field, shape: tuple[int, ...], radix: int) -> np.ndarray:
        lab, number = self.lab, self.number
        self.number += 1
        if OF_MACS.match(f"{self.label}#{number}"):
            return field.zeros(shape)
        if field is W64:
            count = math.prod(shape[:-1])
            bits = lab.draw(self.name, self.label, number, count, 2)
            return pack_bits(bits.T.astype(np.uint8)).reshape(shape)
        rows = lab.lanes * lab.copies
        count = math.prod(shape) // rows
        drawn = lab.draw(self.name, self.label, number, count, radix)
        values = field.encode(np.where(drawn > field.half, drawn - field.modulus, drawn))
        if len(shape) > 1 and shape[0] == rows:
            return np.tile(values, (lab.copies, 1)).reshape(shape)
        return np.tile(values.T, (1, lab.copies)).reshape(shape)  # several arrays, end to end


# Keys and MACs, where parties may cheat: zeros stand for them, as nothing that is opened is computed from them. Tests
# give streams of answers the name of their kind (:func:`named_answers`); values are drawn before their MACs.
OF_MACS = re.compile(r"key\||answer\|macs\||answer\|.*#1$")


def named_answers(request: bytes) -> str:
    """Name the stream of a dealt answer by kind, path and place, which are those in a run of one lane."""
    kind, *_, path, pad_at = json.loads(request)
    return f"answer|{kind}|{path}|{pad_at}"


# ---- views ------------------------------------------------------------------------------------------------------


def columns(message: Message, lanes: int, packed: bool, field: Field, blocks: dict[str, tuple[int, ...]]) -> np.ndarray:
    """Cut a message into what belongs to each lane, shape ``(lanes, values)``."""
    if "/input#" in message.step:  # masked bits, those of one lane in a row
        bits = np.unpackbits(np.frombuffer(message.data, np.uint8), bitorder="little")
        return bits[: bits.size // lanes * lanes].reshape(lanes, -1).astype(np.uint64)
    if packed:
        words = np.frombuffer(message.data, "<u8").reshape(-1, -(-lanes // WORD_BITS))
        return unpack_bits(words, lanes).T.astype(np.uint64)
    elements = np.frombuffer(message.data, f"<u{field.element_bytes}").astype(np.uint64)
    for step, widths in blocks.items():
        if step in message.step:  # several arrays end to end, so many values for each lane in a row
            parts = np.split(elements, np.cumsum(widths)[:-1] * lanes)
            return np.concatenate([part.reshape(lanes, -1) for part in parts], axis=1)
    return elements.reshape(-1, lanes).T


@dataclass
class View:
    """The multiset of what a coalition received, lane by lane, and what it received that is the same in all."""

    public: list[tuple[int, int, str, bytes]]
    codes: np.ndarray
    counts: np.ndarray
    messages: int

    def distance(self, other: "View") -> float:
        """The statistical distance of two views."""
        if self.public != other.public:
            return 1.0
        codes, where = np.unique(np.concatenate([self.codes, other.codes]), return_inverse=True)
        signed = np.concatenate([self.counts / self.counts.sum(), -other.counts / other.counts.sum()])
        return float(np.abs(np.bincount(where, signed, len(codes))).sum() / 2)

    def same_as(self, other: "View") -> bool:
        return (
            self.public == other.public
            and np.array_equal(self.codes, other.codes)
            and np.array_equal(self.counts, other.counts)
        )


PUBLIC = re.compile(r"/header#|^request |^leave")


def view_of(
    done: Run,
    lab: Lab,
    coalition: set[int],
    *,
    field: Field,
    packed: str = "$^",
    blocks: dict[str, tuple[int, ...]] | None = None,
) -> View:
    """Collect what the members of a coalition received from the others.

    Steps that match ``packed`` carry bits, the others elements of ``field``. ``blocks`` says which steps carry
    arrays with several values for each lane.
    """
    received = sorted(
        m for m in done.log if m.to in coalition and m.frm not in coalition and not m.step.startswith("join/")
    )
    public = [m for m in received if PUBLIC.search(m.step)]
    parts, factors, total = [np.zeros((lab.lanes, 0), np.uint64)], [], 1
    for message in received:
        if not PUBLIC.search(message.step):
            bits = re.search(packed, message.step) is not None
            parts.append(columns(message, lab.lanes, bits, field, blocks or {}))
            for _ in range(parts[-1].shape[1]):
                factors.append(total)
                total *= 2 if bits else field.modulus
    if total >= 1 << 64:  # more than one code holds: a fixed random combination tells views apart as well
        factors = [_fixed(f"factor {k}", 1 << 63) * 2 + 1 for k in range(len(factors))]
    matrix = np.concatenate(parts, axis=1)
    rows = matrix @ np.array(factors, np.uint64) if factors else np.zeros(lab.lanes, np.uint64)
    codes, counts = np.unique(rows, return_counts=True)
    return View([(m.frm, m.to, m.step, m.data) for m in public], codes, counts, len(received) - len(public))


def views(
    protocol: Protocol,
    secrets: Sequence[Any],
    *,
    coalition: set[int],
    parties: int,
    preprocessing: str,
    fixings: int = 2,
    most: int = 1 << 20,
    known: str = r"share\|",
    sabotage: Sabotage | None = None,
    security: str = "semi-honest",
    tamper: Tamper | None = None,
    **reading: Any,
) -> list[list[View]]:
    """Return, for each fixing of what the coalition knows, its views for the secrets."""

    def execute(lab: Lab, secret: Any) -> Run:
        async def program(party: Party, _: Any) -> None:
            await protocol(party, lab.lanes, secret)

        options: Any = {"security": security, "tamper": tamper, "make_source": lab.sources}
        done = run(program, parties=parties, preprocessing=preprocessing, **options)
        done.results  # noqa: B018 - raises what went wrong
        return done

    plan = Lab(coalition, known=known, sabotage=sabotage)
    execute(plan, secrets[0])
    lanes = plan.combinations
    assert lanes <= most, f"{lanes} lanes: {plan.plan}"
    found = []
    for fixing in range(fixings):
        row = []
        for secret in secrets:
            lab = Lab(coalition, lanes, dict(plan.plan), fixing, known, sabotage=sabotage)
            row.append(view_of(execute(lab, secret), lab, coalition, **reading))
        found.append(row)
    return found


def distance(protocol: Protocol, secrets: Sequence[Any], **options: Any) -> float:
    """Return the largest statistical distance between the views of two secrets."""
    return max(view.distance(row[0]) for row in views(protocol, secrets, **options) for view in row)
