"""Attackers that make material by oblivious transfer otherwise than they should, and keep to it in what they send.

What is changed here cannot be had by changing a message: hashes of what was said, proofs and sums are computed from
what was changed. Also base transfers that take no time, for runs that are not about them.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np

from mpc import Party, session
from mpc.ot import base, bit_ands, bit_macs, checking, macs, meeting
from mpc.ot.correlated import Correlated, Prover
from mpc.ot.ends import ChooserEnd
from mpc.ot.extension import Chooser
from mpc.ot.link import Link
from mpc.ot.pairs import Pairs
from tests.mpc import support

# Whose task it is that runs; set where a party takes its seat.
RANK: ContextVar[int] = ContextVar("rank", default=-1)
# What is made for one other party: other bits of a factor, another factor, another element that gets a MAC, one at a
# single digit of the holder's key, another key of MACs; of packed bits: the bits, the key, and both ends of products.
TOWARD_ONE = (
    "choices", "values", "element", "element at a digit", "key", "packed", "packed key", "offered row", "chosen row",
)  # fmt: skip
# Numbers where bits are brought; packed bits unlike elements; other choice bits in one tree of an extension; sums of
# trees that do not fit; an extension's proof.
KINDS = (*TOWARD_ONE, "no bits", "untied", "row", "trees", "proof")


@dataclass
class Tinker:
    """One change: what kind, the how-many-eth time that it could be made, toward whom.

    With ``at`` -1 nothing is changed, and ``met`` tells how often each kind could be.
    """

    rank: int
    kind: str = ""
    at: int = -1
    target: int = -1
    chance: random.Random = field(default_factory=random.Random)
    met: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return f"{self.kind} {self.at} toward {self.target}"

    def due(self, kind: str, toward: int = -1) -> bool:
        """Whether the change is to be made here."""
        if RANK.get() != self.rank or (self.at >= 0 and toward not in (-1, self.target)):
            return False
        self.met[kind] += 1
        return kind == self.kind and self.met[kind] == self.at + 1

    def shifted(self, base_field: Any, values: Any) -> Any:
        """Change one element of an array."""
        changed = values.copy()
        flat = changed.reshape(-1)
        at = self.chance.randrange(flat.size)
        shift = self.chance.choice([1, -1, 1 << 60, 1 << 100])
        flat[at : at + 1] = base_field.add(flat[at : at + 1], base_field.encode([shift]))
        return changed

    def other_bit(self, bits: Any) -> Any:
        """Change one of an array of bits."""
        changed = bits.copy()
        changed.flat[self.chance.randrange(bits.size)] ^= 1
        return changed

    def flipped(self, data: bytes) -> bytes:
        """Flip one bit."""
        at = self.chance.randrange(8 * len(data))
        return data[: at // 8] + bytes([data[at // 8] ^ 1 << at % 8]) + data[at // 8 + 1 :]


class _Loops:
    """Corrections of one tree are others than those of the rest."""

    def __init__(self, loops: Any, tinker: Tinker, base_field: Any, at: int) -> None:
        self._loops, self._tinker, self._field, self._left = loops, tinker, base_field, at

    def prove(self, pads: Any, values: Any, sums: Any, corrections: Any) -> Any:
        after = self._loops.prove(pads, values, sums, corrections)
        if not self._left:
            corrections[...] = self._tinker.shifted(self._field, corrections)
        self._left -= 1
        return after


@contextlib.contextmanager
def tinkering(tinker: Tinker | None) -> Iterator[None]:
    """Let one party make its material in another way."""
    if tinker is None:
        yield
        return
    choose, offer, extend = Pairs.choose, Pairs.offer, Prover.extend
    hold, authenticate, grown, grow = Correlated.hold_setup, macs.Macs.authenticate, Chooser.extend, Chooser.from_keys
    proof, told, again = checking.proof, ChooserEnd.choose, meeting.meet_again
    bring, offer_rows, choose_rows = bit_macs.BitMacs.bring, bit_ands._offer, bit_ands._choose

    async def chosen(self: Any, scope: Party, other: int, kind: Any, choices: Any, width: int) -> Any:
        if choices.size and tinker.due("choices", other):
            choices = tinker.other_bit(choices)
        return await choose(self, scope, other, kind, choices, width)

    async def offered(self: Any, scope: Party, other: int, kind: Any, values: Any) -> Any:
        if values.size and tinker.due("values", other):
            values = tinker.shifted(kind.field, values)
        return await offer(self, scope, other, kind, values)

    async def extended(self: Any, scope: Party, values: Any) -> Any:
        if tinker.due("element", self.other):
            values = tinker.shifted(self.field, values)
        if not tinker.due("element at a digit", self.other):
            return await extend(self, scope, values)
        loops = self._loops
        self._loops = _Loops(loops, tinker, self.field, tinker.chance.randrange(len(self._leaves)))
        try:
            return await extend(self, scope, values)
        finally:
            self._loops = loops

    async def held(cls: Any, scope: Party, pairs: Any, other: int, base_field: Any, delta: Any) -> Any:
        if tinker.due("key", other):
            delta = tinker.shifted(base_field, delta.reshape(1)).reshape(delta.shape)
        return await hold(scope, pairs, other, base_field, delta)

    async def authenticated(self: Any, scope: Party, over: Any, own: Any, *more: Any, **options: Any) -> Any:
        if options.get("bits") and any(own.tobytes()) and tinker.due("no bits"):
            own = tinker.shifted(over.public, own)
        return await authenticate(self, scope, over, own, *more, **options)

    async def packed(self: Any, scope: Party, step: str, bits: Any) -> Any:
        return await told(self, scope, step, tinker.other_bit(bits) if tinker.due("packed", self.other) else bits)

    async def met_again(scope: Party, pairs: Any, other: int, choices: Any) -> Any:
        return await again(
            scope, pairs, other, tinker.other_bit(choices) if tinker.due("packed key", other) else choices
        )

    async def brought(self: Any, scope: Party, bits: Any) -> Any:
        return await bring(self, scope, tinker.other_bit(bits) if tinker.due("untied") else bits)

    async def rows_offered(scope: Party, pairs: Any, other: int, rows: Any) -> Any:
        if tinker.due("offered row", other):
            rows = rows._replace(bits=tinker.other_bit(rows.bits))
        return await offer_rows(scope, pairs, other, rows)

    async def rows_chosen(scope: Party, pairs: Any, other: int, x: Any) -> Any:
        return await choose_rows(scope, pairs, other, tinker.other_bit(x) if tinker.due("chosen row", other) else x)

    def extension(self: Any, count: int) -> Any:
        message, bits, keys = grown(self, count)
        return tinker.flipped(message) if tinker.due("row") else message, bits, keys

    def trees(cls: Any, *given: Any, **options: Any) -> Any:
        chooser, sums = grow(*given, **options)
        return chooser, tinker.flipped(sums) if tinker.due("trees") else sums

    def proven(*given: Any, **options: Any) -> bytes:
        shown = proof(*given, **options)
        return tinker.flipped(shown) if tinker.due("proof") else shown

    with contextlib.ExitStack() as stack:
        for where, name, instead in (
            (Pairs, "choose", chosen),
            (Pairs, "offer", offered),
            (Prover, "extend", extended),
            (Correlated, "hold_setup", classmethod(held)),
            (macs.Macs, "authenticate", authenticated),
            (Chooser, "extend", extension),
            (Chooser, "from_keys", classmethod(trees)),
            (checking, "proof", proven),
            (ChooserEnd, "choose", packed),
            (bit_macs, "meet_again", met_again),
            (bit_macs.BitMacs, "bring", brought),
            (bit_ands, "_offer", rows_offered),
            (bit_ands, "_choose", rows_chosen),
        ):
            stack.enter_context(patch.object(where, name, instead))
        yield


# ---- who runs, and quick base transfers ---------------------------------------------------------------------------


async def _join(transport: Any, **options: Any) -> Party:
    RANK.set(transport.rank)
    return await session.join(transport, **options)


def _keys(link: Link, count: int) -> np.ndarray:
    drawn = hashlib.shake_256(link.session + bytes(sorted([link.party_rank, link.other]))).digest(count * 32)
    return np.frombuffer(drawn, np.uint8).reshape(count, 2, 16)


async def _send(link: Link, count: int) -> np.ndarray:
    await link.send("points", bytes(64 * count))
    await link.receive("pairs", 64 * count)
    return _keys(link, count)


async def _receive(link: Link, choices: np.ndarray) -> np.ndarray:
    await link.send("pairs", bytes(64 * len(choices)))
    await link.receive("points", 64 * len(choices))
    keys: np.ndarray = _keys(link, len(choices))[np.arange(len(choices)), choices]
    return keys


@contextlib.contextmanager
def prompt(*, real: bool = False) -> Iterator[None]:
    """Let base transfers be quick (whoever listens would know all keys), and tasks know whose they are."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(support, "join", _join))
        if not real:
            stack.enter_context(patch.object(base, "send", _send))
            stack.enter_context(patch.object(base, "receive", _receive))
        yield
