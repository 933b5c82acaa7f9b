"""The dealer's side: expand everybody's summands, compute the product, send the correction."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from mpc.errors import PeerError
from mpc.field import F61, F127, GF
from mpc.indices import R32
from mpc.preprocessing.carriages import dealt_correction
from mpc.preprocessing.permutations import Move, Permutation, Place, draw_permutation
from mpc.preprocessing.requests import (
    LEAVE,
    REQUEST_LIMIT,
    BitsRequest,
    Dealt,
    MacsRequest,
    MoveRequest,
    ProductRequest,
    Recipe,
    Request,
    SignsRequest,
    Term,
    answer_chunks,
    parse_request,
    require_room,
    require_room_to_move,
)
from mpc.waves import angles_to_waves
from mpc.words import W64, WORD_BITS, bit_planes, signs, unpack_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import Field, FieldArray
    from mpc.prg import RandomStream
    from mpc.transport import Transport

# opens party `rank`'s stream of a label at a position
OpenDealt = Callable[[int, str, int], "RandomStream"]
# A permutation moves several arrays, and is kept for the next as long as so many, of so many rows, are not exceeded.
_MOST_KEPT = 1024
_ROWS_KEPT = 1 << 24
_BLOCK = 16  # every draw begins at a multiple of so many bytes


class Dealer:
    """Answers the requests of one session.

    Parameters
    ----------
    size : int
        Number of parties.
    open_stream : callable
        ``open_stream(rank, label, position)``: the stream under the seed that we share with a party.
    """

    def __init__(self, size: int, open_stream: OpenDealt) -> None:
        self._size = size
        self._open = open_stream
        self._spent: dict[tuple[str, str], int] = {}
        self._kept: OrderedDict[tuple[int, Place], NDArray[np.intp]] = OrderedDict()
        self._rows_kept = 0

    def answer(self, request: Request) -> tuple[Field, FieldArray]:
        """Return the correction that the last party needs.

        Raises
        ------
        ValueError
            If the request makes no sense, asks for more than is dealt at once, or for a pad that was used before.
        """
        if isinstance(request, MoveRequest):
            return self._moved(request)
        if isinstance(request, MacsRequest):
            raise ValueError("MACs are asked for where parties follow the protocol")
        if isinstance(request, ProductRequest):
            field, a = self._total(request.a)
            other_field, b = self._total(request.b)
            if field is not other_field:
                raise ValueError("masks of two fields")
            require_room(field, request.result_shape(a.shape, b.shape))
            dealt = field.mul(a, b) if request.operation == "multiply" else field.matmul(a, b)
        elif isinstance(request, BitsRequest):
            source, mask = self._total(request.mask)
            if source is W64:
                raise ValueError("planes of what is packed already")
            require_room(W64, (request.count, -(-mask.size // WORD_BITS)))
            field, dealt = W64, bit_planes(source, mask.reshape(-1), request.count)
        elif isinstance(request, SignsRequest):
            source, words = self._total(request.mask)
            field = field_named(request.field)
            if source is not W64 or field is W64:
                raise ValueError("signs are elements made of packed bits")
            if request.count > words.size * WORD_BITS:
                raise ValueError("more signs than bits")
            require_room(field, (request.count,))
            dealt = signs(field, unpack_bits(words.reshape(-1), request.count))
        else:
            field, mask = self._total(request.mask)
            require_room(field, (*mask.shape, 2 * len(request.harmonics)))
            dealt = angles_to_waves(
                field, field.residue(mask, request.period), request.period, request.harmonics, request.scale
            )
        return self._dealt(field, dealt, request)

    def _total(self, recipe: Recipe) -> tuple[Field, FieldArray]:
        """Sum all parties' summands of a mask, each shifted for itself."""
        total: FieldArray | None = None
        field = field_named(recipe.terms[0].base.field)
        for term in recipe.terms:
            if term.base.field != field.name:
                raise ValueError("a mask over two fields")
            require_room(field, term.base.shape)
            for rank in range(self._size):
                summand = self._summand(rank, field, term)
                if total is not None and summand.shape != total.shape:
                    raise ValueError("a mask of several shapes")
                total = summand if total is None else field.add(total, summand)
        if total is None:
            raise ValueError("a mask of nothing")
        return field, total

    def _summand(self, rank: int, field: Field, term: Term) -> FieldArray:
        base = term.base
        stream = self._open(rank, f"mask|{base.path}", base.position)
        if base.owner not in (None, rank):
            summand = field.zeros(base.shape)
        elif base.bits:
            summand = stream.bounded(field, base.bits, base.shape)
        else:
            summand = stream.elements(field, base.shape)
        for structure in term.structures:
            summand = structure.apply(field, summand)
        return summand if term.factor == 1 else field.scale_int(summand, term.factor)

    def _dealt(self, field: Field, dealt: FieldArray, request: Dealt) -> tuple[Field, FieldArray]:
        # A pad hides the product from the last party; it is used for one product only.
        self._spend("pad", request.path, request.pad_at, dealt.size * field.element_bytes)
        for rank in range(self._size - 1):
            pad = self._open(rank, f"pad|{request.path}", request.pad_at).elements(field, dealt.shape)
            dealt = field.sub(dealt, pad)
        return field, dealt

    def _spend(self, use: str, path: str, position: int, count: int) -> None:
        if position < self._spent.get((use, path), 0):
            raise ValueError(f"a {use} was asked for twice")
        self._spent[use, path] = position + count

    def _moved(self, request: MoveRequest) -> tuple[Field, FieldArray]:
        field, shape, count = field_named(request.field), request.shape, request.move.rows
        room = shape[-1] * WORD_BITS >= count if field is W64 and shape else shape[:1] == (count,)
        if not room:
            raise ValueError("a permutation of other rows than the array has")
        require_room_to_move(field, shape, count)
        undo, apply = (place and Permutation(place, self._factors(place)) for place in request.move)
        hops = Move(undo, apply).hops()
        size_bytes = math.prod(shape) * field.element_bytes
        self._spend("move", request.path, request.masks_at, len(hops) * -(-size_bytes // _BLOCK) * _BLOCK)

        def drawn(rank: int, number: int) -> FieldArray:
            stream = self._open(rank, f"move|{request.path}", request.masks_at)
            for _ in range(number):
                stream.skip(size_bytes)
            return stream.elements(field, shape)

        before = [drawn(rank, 0) for rank in range(self._size) if rank != hops[0].factor]
        between = [drawn(hop.factor, stop + 1) for stop, hop in enumerate(hops[:-1])]
        self._spend("pad", request.path, request.pad_at, size_bytes)
        after = [
            self._open(rank, f"pad|{request.path}", request.pad_at).elements(field, shape)
            for rank in range(self._size - 1)
        ]
        return field, dealt_correction(field, hops, count, before, between, after)

    def _factors(self, place: Place) -> list[NDArray[np.intp] | None]:
        return [self._factor(rank, place) for rank in range(self._size)]

    def _factor(self, rank: int, place: Place) -> NDArray[np.intp]:
        factor = self._kept.pop((rank, place), None)
        if factor is None:
            factor = draw_permutation(self._open(rank, f"permutation|{place.path}", place.position), place.rows)
            self._rows_kept += place.rows
        self._kept[rank, place] = factor
        while len(self._kept) > _MOST_KEPT or self._rows_kept > max(_ROWS_KEPT, 2 * self._size * place.rows):
            _, oldest = self._kept.popitem(last=False)
            self._rows_kept -= len(oldest)
        return factor


def field_named(name: str) -> Field:
    """Return the field of a name; ``ValueError`` if there is none."""
    for field in (F61, F127, W64, R32):
        if name == field.name:
            return field
    if name.startswith("GF(") and name.endswith(")") and name[3:-1].isdecimal() and len(name) < 16:
        return GF(int(name[3:-1]))
    raise ValueError("no such field")


async def serve(transport: Transport, dealer: Dealer) -> None:
    """Answer the last party's requests until all parties have left.

    Raises
    ------
    PeerError
        The last party went away, was late, or asked for something that no program asks for.
    """
    size = transport.size
    last = size - 1
    number = 0
    while True:
        step = f"request {number}"
        data = await transport.receive_upto(last, step, REQUEST_LIMIT)
        if data == LEAVE:
            break
        try:
            field, correction = dealer.answer(parse_request(data))
        except (ValueError, TypeError, IndexError, KeyError, MemoryError) as error:
            raise PeerError(f"party {last} sent an invalid request at step {step!r}", rank=last, step=step) from error
        flat = np.ascontiguousarray(correction).reshape(-1)
        for k, part in enumerate(answer_chunks(flat.size, field)):
            await transport.send(last, f"correction {number}.{k}", field.to_bytes(flat[part]))
        number += 1
    for rank in range(last):
        await transport.receive(rank, "leave", len(LEAVE))
