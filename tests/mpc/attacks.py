"""Attacks on a run: a party, or two, send something else than the program says, or compute something else.

An attacker's messages to the other parties, and to a dealer, go through an interceptor; the dealer and all others
are honest. An attack succeeds if an honest party ends with a wrong result. It does not if honest parties end with an
error, or with the right result: that of the inputs that stand in the result, the honest ones being what they gave.

With oblivious transfer in place of a dealer the attacker can also make its material otherwise (:mod:`.tinkering`).
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpc import (
    F127,
    AgreementError,
    CheatingError,
    DataError,
    Party,
    PeerError,
    Share,
    agree,
    less_than,
    mask,
    matmul,
    multiply,
    open_,
    opening,
    sigmoid,
    to_bits,
    truncate,
)
from mpc.masks import Masked
from protocols.release.disclosure import DisclosureError
from tests.mpc import table_program
from tests.mpc.support import Message, Run, run
from tests.mpc.tinkering import TOWARD_ONE, Tinker, prompt, tinkering

BOUND = 50
# Points of the program where the attacker may change what it holds, with either preprocessing.
SUMMANDS = {"dealer": 9, "ot": 6, "ot bits": 3, "dealer table": 2, "ot table": 2}
NOTICED = CheatingError, PeerError, AgreementError
# How a table may also end: what a party says of its rows, or its labels, are not what the rules take.
REFUSED = DataError, DisclosureError
World = tuple[str, int, int]  # preprocessing (and what is run), parties, attacker


@dataclass(frozen=True)
class Attack:
    """What was tried: by whom, where and how."""

    seed: int
    preprocessing: str
    parties: int
    attacker: int
    kind: str
    step: str
    helper: int = -1  # a second attacker, who does the same

    def __str__(self) -> str:
        helped = f" with {self.helper}" if self.helper >= 0 else ""
        who = f"party {self.attacker} of {self.parties} ({self.preprocessing}){helped}"
        return f"seed {self.seed}: {who}, {self.kind} at {self.step!r}"


@dataclass
class Cheat:
    """Changes the attacker's summand of one array, which it then uses consistently."""

    rank: int
    at: int
    shift: int
    part: str
    met: int = 0

    def __call__(self, party: Party, x: Share) -> Share:
        self.met += party.rank == self.rank
        if party.rank != self.rank or self.met != self.at + 1:
            return x
        public = x.field.public
        values = x.values.copy()
        part = values[self.part] if values.dtype.names is not None and "mac" in values.dtype.names else values
        where = (0,) * part.ndim
        one = part[where if part.ndim else ...]
        changed = public.add(np.asarray(one), public.encode(self.shift))
        if part.ndim:
            part[where] = changed
        else:
            part[...] = changed
        if x.masked is not None:  # what it adds to the mask stays with it
            mask = x.masked.mask
            zero = x.field.zeros(x.shape)
            return Share(
                x.field, None, x.scale, x.magnitude, leads=x.leads, masked=Masked(x.masked.offset, _other(mask, zero))
            )
        return Share(x.field, values, x.scale, x.magnitude, leads=x.leads)


def _other(mask: Any, zero: Any) -> Any:
    return type(mask)(mask.field, zero, mask.recipe, mask.pieces)


async def without_bits(party: Party, data: tuple[Any, Cheat | None]) -> Any:
    """What runs without a dealer: inputs, products, a truncation, openings on the way, to one and to all."""
    values, cheat = data
    changed: Callable[[Party, Share], Share] = cheat or (lambda _, x: x)
    inputs = await party.share(values[:2], bound=4, shape=(2,), scale=4)
    x = inputs[0]
    for one in inputs[1:]:
        x = x + one
    x = changed(party, x)
    y = inputs[0] - changed(party, inputs[-1])
    await agree(party, "terms", "the same")
    product = changed(party, await multiply(party, x, y))
    z = changed(party, await truncate(party, product, 4))
    kept = changed(party, await mask(party, y))
    form = changed(party, await matmul(party, z.reshape(1, 2), kept.reshape(2, 1)))
    (early,) = await open_(party, form.reshape(1))
    private = await open_(party, z, to=[party.size - 1])
    return early, private, await open_(party, *inputs, z)


async def bits_alone(party: Party, data: tuple[Any, Cheat | None]) -> Any:
    """A comparison and the bits of a number, which take packed bits."""
    values, cheat = data
    changed: Callable[[Party, Share], Share] = cheat or (lambda _, x: x)
    inputs = await party.share(np.rint(values[:2]).astype(np.int64), bound=7, shape=(2,))
    x = changed(party, inputs[0] - inputs[-1])
    less = changed(party, await less_than(party, x, 1))
    bits = changed(party, await to_bits(party, inputs[-1] + 7))
    return await open_(party, *inputs, less, bits)


async def program(party: Party, data: tuple[Any, Cheat | None]) -> Any:
    """Inputs of all parties, one of each protocol, an opening on the way, private and public ones at the end."""
    values, cheat = data
    changed: Callable[[Party, Share], Share] = cheat or (lambda _, x: x)
    inputs = await party.share(values, bound=BOUND, shape=(3,))
    x = inputs[0]
    for one in inputs[1:]:
        x = x + one
    x = changed(party, x)
    y = inputs[0] - changed(party, inputs[-1])
    await agree(party, "terms", "the same")
    product = changed(party, await multiply(party, x, y))
    z = changed(party, await truncate(party, product))
    kept = changed(party, await mask(party, y))
    cube = await truncate(party, await multiply(party, z, kept))
    form = changed(party, await matmul(party, x.reshape(1, 3), kept.reshape(3, 1)))
    (early,) = await open_(party, form.reshape(1) + 1)
    curve = changed(party, await sigmoid(party, x.scaled_down(8).bounded_by(20.0), limit=20.0))
    less = changed(party, await less_than(party, x, y))
    bits = changed(party, await to_bits(party, inputs[-1].lifted(24) + BOUND, field=F127))
    long = await open_(party, x.reshape(3, 1).broadcast_to((3, 12)) * 3)
    private = await open_(party, z, to=[party.size - 1])
    return early, long, private, await open_(party, *inputs, z, cube, curve, less, bits)


def inputs_of(parties: int) -> list[np.ndarray]:
    return [np.array([3.0 - k, 1.5 * k - 2, 4.25 + k]) for k in range(parties)]


def is_right(outcome: Any, parties: int, *attackers: int) -> bool:
    """Whether a result is that of inputs within bounds, the honest ones' as they were given."""
    if isinstance(outcome, table_program.Told):
        return table_program.is_right(outcome, parties, attackers)
    if len(outcome) == 3:
        return _is_right_without_bits(outcome, parties, *attackers)
    if not isinstance(outcome[-1], tuple):
        return _are_right_bits(outcome, *attackers)
    early, long, private, (*inputs, z, cube, curve, less, bits) = outcome
    if not _are_inputs(inputs, BOUND, attackers):
        return False
    x, y = np.sum(inputs, axis=0), inputs[0] - inputs[-1]
    near = 1e-4
    encoded = np.rint((inputs[-1] + BOUND) * 2.0**24).astype(object)
    found = np.sum(bits.astype(object) * np.array([1 << j for j in range(bits.shape[-1])], object), axis=-1)
    return bool(
        np.isclose(early, x @ y + 1, atol=near)
        and np.array_equal(long, np.repeat(x[:, np.newaxis], 12, axis=1) * 3)
        and (private is None or np.allclose(private, x * y, atol=near))
        and np.allclose(z, x * y, atol=near)
        and np.allclose(cube, x * y * y, rtol=1e-4, atol=1e-3)
        and np.allclose(curve, 1 / (1 + np.exp(-x / 256)), atol=2e-4)
        and np.array_equal(less, (x < y).astype(np.int64))
        and np.array_equal(found, encoded)
    )


def _is_right_without_bits(outcome: Any, parties: int, *attackers: int) -> bool:
    early, private, (*inputs, z) = outcome
    x, y = np.sum(inputs, axis=0), inputs[0] - inputs[-1]
    near = (parties + 2) / 16
    return bool(
        _are_inputs(inputs, 4, attackers)
        and np.allclose(early, z @ y, atol=1e-9)
        and (private is None or np.array_equal(private, z))
        and np.allclose(z, x * y, atol=near)
    )


def _are_right_bits(outcome: Any, *attackers: int) -> bool:
    *inputs, less, bits = outcome
    given = [np.rint(one[:2]) for one in inputs_of(len(inputs))]
    found = bits @ (1 << np.arange(bits.shape[-1]))
    return bool(
        all(np.abs(ours).max() <= 7 for ours in inputs)
        and all(np.array_equal(ours, given[rank]) for rank, ours in enumerate(inputs) if rank not in attackers)
        and np.array_equal(less, inputs[0] - inputs[-1] < 1)
        and np.array_equal(found, inputs[-1] + 7)
    )


def _are_inputs(inputs: Iterable[np.ndarray], bound: int, attackers: Iterable[int]) -> bool:
    given = inputs_of(9)
    return all(
        np.abs(ours).max() <= bound and (rank in attackers or np.array_equal(ours, given[rank][: ours.size]))
        for rank, ours in enumerate(inputs)
    )


class Meddler:
    """The interceptor: changes what the attacker sends at one step, in one of several ways."""

    def __init__(self, attack: Attack, chance: random.Random) -> None:
        self.attack = attack
        self.chance = chance
        self.met = 0
        self._sent: list[bytes] = []
        self._shift = chance.randrange(1, 1 << 60)
        self._bit = chance.randrange(1 << 20)
        self._target = chance.choice([rank for rank in range(attack.parties) if rank != attack.attacker])

    def __call__(self, message: Message) -> list[Message]:
        if message.frm not in (self.attack.attacker, self.attack.helper) or message.to == self.attack.helper:
            return [message]
        changed = message
        if message.step == self.attack.step:
            self.met += 1
            changed = message._replace(data=self._changed(message))
            if self.attack.kind == "drop":
                return []
        self._sent.append(message.data)
        return [changed]

    def _changed(self, message: Message) -> bytes:
        data = message.data
        if not data:
            return data
        kind = self.attack.kind
        if kind == "flip to one" and message.to != self._target:
            return data
        if kind in ("flip", "flip to one"):  # the same bit to all
            at = self._bit % (8 * len(data))
            return data[: at // 8] + bytes([data[at // 8] ^ 1 << at % 8]) + data[at // 8 + 1 :]
        if kind == "shift" and len(data) % 16 == 0:  # the same amount to all: of an element modulo p
            return _shifted(data, 16 * (self._bit % (len(data) // 16)), self._shift)
        if kind == "shift last bits" and len(data) >= 16:
            return _shifted(data, 0, 1)
        if kind == "different" and len(data) % 16 == 0:
            return _shifted(data, 0, self._shift + message.to)
        if kind == "replay":
            alike = [old for old in self._sent if len(old) == len(data)]
            return self.chance.choice(alike) if alike else bytes(len(data))
        if kind == "random":
            return self.chance.randbytes(len(data) - 1) + bytes([data[-1] & 0x7F])
        return bytes(len(data))


def _shifted(data: bytes, at: int, shift: int) -> bytes:
    value = int.from_bytes(data[at : at + 16], "little")
    return data[:at] + ((value + shift) % F127.modulus).to_bytes(16, "little") + data[at + 16 :]


KINDS = ("flip", "flip to one", "shift", "shift last bits", "different", "replay", "random", "zeros", "drop")


def kinds_of(steps: Iterable[str]) -> dict[str, list[str]]:
    """Sort steps by what they are: without numbers, and scopes that are used again."""
    kinds: dict[str, list[str]] = {}
    for step in steps:
        kinds.setdefault(re.sub(r"\.?[0-9]+", "", step), []).append(step)
    return kinds


PROGRAMS = {"dealer": program, "ot": without_bits, "ot bits": bits_alone}


def _run(
    preprocessing: str, cheats: list[Cheat | None], tamper: Any, tinker: Tinker | None = None, *, real: bool = False
) -> Run:
    before = opening.BROADCAST_BYTES
    opening.BROADCAST_BYTES = 20 * 16  # so that a long array is opened the other way
    try:
        with prompt(real=real), tinkering(tinker):
            return run(
                PROGRAMS.get(preprocessing, table_program.program),
                list(zip(inputs_of(len(cheats)), cheats, strict=True)),
                preprocessing=preprocessing.split()[0],
                security="malicious",
                tamper=tamper,
            )
    finally:
        opening.BROADCAST_BYTES = before


@dataclass(frozen=True)
class Surface:
    """What a party can attack: the steps at which it sends, by kind, and how often it makes each sort of material."""

    steps: dict[str, list[str]]
    material: Counter[str]

    @classmethod
    def of(cls, preprocessing: str, parties: int, attacker: int) -> "Surface":
        """Look at an honest run."""
        tinker = None if preprocessing.startswith("dealer") else Tinker(attacker)
        done = _run(preprocessing, [None] * parties, None, tinker)
        assert all(is_right(outcome, parties, -1) for outcome in done.results)
        steps = sorted({m.step for m in done.log if m.frm == attacker})
        return cls(kinds_of(steps), tinker.met if tinker else Counter())


def attempt(seed: int, worlds: dict[World, Surface], *, real: bool = False) -> tuple[Attack, str]:
    """Try one random attack; returns it and what came of it: ``"stopped"``, ``"right"`` or ``"wrong"``."""
    chance = random.Random(seed)
    world = preprocessing, parties, attacker = chance.choice(sorted(worlds))
    surface, others = worlds[world], [rank for rank in range(parties) if rank != attacker]
    cheats: list[Cheat | None] = [None] * parties
    tamper: Meddler | None = None
    tinker: Tinker | None = None
    what = chance.random()
    if what < 0.2:
        shift = chance.choice([1, -1, 1 << 24, 1 << 60, 1 << 100])
        at = chance.randrange(SUMMANDS[preprocessing])
        cheat = cheats[attacker] = Cheat(attacker, at, shift, chance.choice(["value", "mac"]))
        attack = Attack(seed, *world, f"{cheat.part} summand {cheat.at} + {shift}", "its own memory")
    elif what < 0.6 and surface.material:
        kind, target = chance.choice(sorted(surface.material)), chance.choice(others)
        times = surface.material[kind] // (len(others) if kind in TOWARD_ONE else 1)
        tinker = Tinker(attacker, kind, chance.randrange(times), target, chance)
        attack = Attack(seed, *world, str(tinker), "its own material")
    else:
        helper = chance.choice(others) if parties > 2 and chance.random() < 0.3 else -1
        step = chance.choice(surface.steps[chance.choice(sorted(surface.steps))])
        attack = Attack(seed, *world, chance.choice(KINDS), step, helper)
        tamper = Meddler(attack, chance)
    done = _run(preprocessing, cheats, tamper, tinker, real=real)
    cheating = (attacker, attack.helper)
    honest = [outcome for rank, outcome in enumerate(done.outcomes) if rank not in cheating]
    results = [outcome for outcome in honest if not isinstance(outcome, Exception)]
    # What ends an honest party otherwise than these (beyond its bounds, say) was computed from what no check found.
    ends = NOTICED if preprocessing in PROGRAMS else NOTICED + REFUSED
    unlike = [one for one in honest if isinstance(one, Exception) and not isinstance(one, ends)]
    if unlike or not all(is_right(outcome, parties, *cheating) for outcome in results):
        return attack, "wrong"
    return attack, "right" if results else "stopped"


def all_worlds(preprocessing: str, sizes: tuple[int, ...] = (2, 3)) -> dict[World, Surface]:
    """Everybody as attacker, among so many parties."""
    return {(preprocessing, n, who): Surface.of(preprocessing, n, who) for n in sizes for who in range(n)}
