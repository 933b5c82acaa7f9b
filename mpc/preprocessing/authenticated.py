"""Preprocessing by a dealer for parties that may cheat: everything it deals has MACs.

As :mod:`mpc.preprocessing.dealer`, with these differences:

- alpha, the key of all MACs over a field, is the sum of what the parties' seeds give: the dealer knows it, each
  party its summand.
- A mask's MACs are dealt: all parties but the last expand their summands, the last one gets a correction. A mask
  that is shifted is another mask, with MACs of its own.
- The parts that parties expand for an answer come from a stream that is named by a hash of the whole request. The
  last party, who asks, could ask for something else than the program needs (the product of other masks, say), and
  would get it with valid MACs. The others expand their parts for what the program needs; so what it got and what
  they hold sum up to uniform values with uniform MACs, which no check passes but with probability 1/p.

Threat model: all parties but one may do as they please; the dealer follows the protocol and colludes with nobody.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING

from mpc.authenticated import Authenticated
from mpc.authenticated_words import authenticated
from mpc.errors import SecurityError
from mpc.masks import Structure
from mpc.preprocessing.answers import Local
from mpc.preprocessing.dealer import DEALER_KEY, Correction, DealerClient, DealerMask
from mpc.preprocessing.requests import Base, BitsRequest, Dealt, MacsRequest, MoveRequest, Recipe, Request, require_room
from mpc.preprocessing.serve import Dealer, OpenDealt, field_named
from mpc.words import W64, WORD_BITS

if TYPE_CHECKING:
    from mpc.field import Field, FieldArray
    from mpc.masks import Mask
    from mpc.party import Party
    from mpc.preprocessing.carriages import Carriage
    from mpc.preprocessing.permutations import Move, Permutation
    from mpc.prg import RandomStream

_NONCE = 16  # requests of a scope are numbered in steps of so much: where a stream may be entered


def key_label(field: Field) -> str:
    """Return the label of the stream that a party's summand of a key comes from."""
    return f"key|{field.name}"


def _answer_label(request: bytes) -> str:
    digest = hashlib.blake2b(request, digest_size=32, person=b"sottovoce.ask").hexdigest()
    return f"answer|{digest}"


def _drawn(field: Authenticated, stream: RandomStream, shape: tuple[int, ...]) -> FieldArray:
    values = stream.elements(field.public, shape)
    return field.joined(values, stream.elements(field.public, (*shape, *field.mac_entries)))


class AuthenticatedClient(DealerClient):
    """What a party knows of the dealer; see the module's documentation."""

    async def uniform(self, party: Party, field: Field, shape: tuple[int, ...]) -> Mask:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        require_room(field, shape)
        stream = party.stream(DEALER_KEY, "mask")
        base = Base(party.path, stream.position, field.name, shape, 0)
        return await self._mask(party, field, stream.elements(field.public, shape), Recipe.of(base))

    async def bounded(self, party: Party, field: Field, shape: tuple[int, ...], bits: int) -> Mask:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        require_room(field, shape)
        stream = party.stream(DEALER_KEY, "mask")
        base = Base(party.path, stream.position, field.name, shape, bits)
        return await self._mask(party, field, stream.bounded(field.public, bits, shape), Recipe.of(base))

    async def shifted(self, party: Party, mask: Mask, bits: int) -> Mask:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        shift = Structure("shift", (bits,))
        values, _ = mask.field.parts(mask.summand)
        return await self._mask(party, mask.field, shift.apply(mask.field.public, values), mask.recipe.after(shift))

    async def known(
        self, party: Party, field: Field, shape: tuple[int, ...], bits: int, owner: int
    ) -> tuple[Mask, FieldArray | None]:
        """See :class:`mpc.preprocessing.Preprocessing`: the owner's summand is all of it."""
        require_room(field, shape)
        stream = party.stream(DEALER_KEY, "mask")
        base = Base(party.path, stream.position, field.name, shape, bits, owner)
        known: FieldArray | None = None
        if party.rank == owner:
            known = stream.bounded(field.public, bits, shape) if bits else stream.elements(field.public, shape)
        else:  # all streams move on alike, so that one position says where the owner's mask is
            stream.skip(math.prod(shape) * (_bounded_bytes(bits) if bits else field.public.element_bytes))
        values = field.public.zeros(shape) if known is None else known
        return await self._mask(party, field, values, Recipe.of(base)), known

    async def _mask(self, party: Party, field: Field, values: FieldArray, recipe: Recipe) -> DealerMask:
        """Join a mask's values with their MACs."""
        ours = _with_macs(field)
        request = MacsRequest(recipe, party.path, party.stream(DEALER_KEY, "pad").position)
        shape = (*values.shape, *ours.mac_entries)
        macs = await (await self._ask(party, ours.public, shape, request.to_bytes()))
        return DealerMask(ours, ours.joined(values, macs), recipe, party.size)

    async def _ask(self, party: Party, field: Field, shape: tuple[int, ...], request: bytes) -> Awaitable[FieldArray]:
        require_room(field, shape)
        party.stream(DEALER_KEY, "pad").skip(_NONCE)
        if not self._is_last:
            stream = party.stream_once(DEALER_KEY, _answer_label(request))
            drawn = _drawn(field, stream, shape) if isinstance(field, Authenticated) else stream.elements(field, shape)
            return Local(drawn)
        number = self._requests
        self._requests += 1
        await party.send(self._dealer, f"request {number}", request, party.cost_of("dealer"))
        return Correction(party, field, shape, self._dealer, number)

    async def bits(self, party: Party, mask: Mask, count: int) -> Awaitable[FieldArray] | None:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        request = BitsRequest(mask.recipe, count, party.path, party.stream(DEALER_KEY, "pad").position)
        shape = (count, -(-mask.summand.size // WORD_BITS))
        return await self._ask(party, party.over(W64), shape, request.to_bytes())

    async def permutation(self, party: Party, count: int) -> Permutation:
        """Refuse: nothing checks what is carried through a permutation."""
        raise SecurityError(_NO_PERMUTATIONS)

    async def carriage(self, party: Party, move: Move, field: Field, shape: tuple[int, ...]) -> Carriage:
        """Refuse; see :meth:`permutation`."""
        raise SecurityError(_NO_PERMUTATIONS)

    async def carry(self, party: Party, jobs: Sequence[tuple[Carriage, FieldArray]]) -> list[FieldArray]:
        """Refuse; see :meth:`permutation`."""
        raise SecurityError(_NO_PERMUTATIONS)


_NO_PERMUTATIONS = "security='malicious' has no secret permutations: shuffle, sort and argsort do not run"


def _bounded_bytes(bits: int) -> int:
    return 16 if bits > 64 else 8


def _with_macs(field: Field) -> Authenticated:
    if not isinstance(field, Authenticated):
        raise SecurityError(f"security='malicious' works with MACs, and here is a value over {field} that has none")
    return field


class AuthenticatedDealer(Dealer):
    """Answers the requests of one session with values and MACs; see :class:`mpc.preprocessing.serve.Dealer`."""

    def __init__(self, size: int, open_stream: OpenDealt) -> None:
        super().__init__(size, open_stream)
        self._fields: dict[str, Authenticated] = {}

    def answer(self, request: Request) -> tuple[Field, FieldArray]:
        """Return the correction that the last party needs; see :meth:`mpc.preprocessing.serve.Dealer.answer`."""
        if isinstance(request, MoveRequest):
            raise ValueError(_NO_PERMUTATIONS)
        if not isinstance(request, MacsRequest):
            return super().answer(request)
        base, total = self._total(request.mask)
        macs = self._with_macs(base).public_mac(total)
        for stream in self._answers(request):
            macs = base.sub(macs, stream.elements(base, macs.shape))
        return base, macs

    def _dealt(self, field: Field, dealt: FieldArray, request: Dealt) -> tuple[Field, FieldArray]:
        ours = self._with_macs(field)
        values, macs = dealt, ours.public_mac(dealt)
        for stream in self._answers(request):
            values = field.sub(values, stream.elements(field, values.shape))
            macs = field.sub(macs, stream.elements(field, macs.shape))
        return ours, ours.joined(values, macs)

    def _answers(self, request: Dealt) -> list[RandomStream]:
        """Open the streams of the parties' parts of an answer. Asked for twice, it is the same answer."""
        label = _answer_label(request.to_bytes())
        return [self._open(rank, label, 0) for rank in range(self._size - 1)]

    def _with_macs(self, field: Field) -> Authenticated:
        """Return the field with all of its key: alpha."""
        ours = self._fields.get(field.name)
        if ours is None:
            base = field_named(field.name)
            alpha = base.zeros((1,))
            for rank in range(self._size):
                alpha = base.add(alpha, self._open(rank, key_label(base), 0).elements(base, (1,)))
            ours = self._fields[field.name] = authenticated(base, alpha.reshape(()))
        return ours
