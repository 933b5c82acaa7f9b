"""Preprocessing: where masks and the products of masks come from.

Two primitives carry every protocol: a random array that nobody knows (a :class:`mpc.masks.Mask`) and
shares of a product of two masks. A Beaver triple is ``uniform, uniform, product``. The waves of a mask
(sines and cosines of its multiples) serve the functions that are evaluated by Fourier series. Secret
permutations serve shuffling and sorting.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from mpc.field import Field, FieldArray
    from mpc.masks import Mask
    from mpc.party import Party
    from mpc.preprocessing.carriages import Carriage
    from mpc.preprocessing.permutations import Move, Permutation

Operation = Literal["multiply", "matmul"]


class Preprocessing(Protocol):
    """The interface of the trust models: ``dealer``, ``prss`` and ``ot``.

    Everything is taken in the order of the program, within the scope of ``party``, and is spent once
    taken, whatever becomes of the round it was meant for.
    """

    name: str

    async def uniform(self, party: Party, field: Field, shape: tuple[int, ...]) -> Mask:
        """Take a mask whose entries are uniform in the field."""

    async def bounded(self, party: Party, field: Field, shape: tuple[int, ...], bits: int) -> Mask:
        """Take a mask that is a sum of integers, each uniform in ``[0, 2^bits)``.

        Any coalition that the trust model allows misses at least one of the ``mask.pieces`` integers.
        """

    async def shifted(self, party: Party, mask: Mask, bits: int) -> Mask:
        """Divide every integer of a bounded mask by ``2^bits``, and round it.

        Local but for MACs, where summands have them: those of a mask that is shifted are others.
        """

    async def known(
        self, party: Party, field: Field, shape: tuple[int, ...], bits: int, owner: int
    ) -> tuple[Mask, FieldArray | None]:
        """Take a mask that one party knows, uniform in the field (``bits`` 0) or in ``[0, 2^bits)``; its values there.

        For inputs and outputs where summands have MACs.
        """

    async def product(self, party: Party, a: Mask, b: Mask, operation: Operation) -> Awaitable[FieldArray]:
        """Ask for our summand of ``a * b`` or ``a @ b``; awaiting the answer gives it."""

    async def waves(
        self, party: Party, mask: Mask, *, period: int, harmonics: tuple[int, ...], scale: int
    ) -> Awaitable[FieldArray]:
        """Ask for our summand of the cosines, then the sines, of a mask's multiples.

        Entry ``[..., j]`` encodes ``cos(2 pi h_j mask / period)`` with ``scale`` fraction bits, entry
        ``[..., len(harmonics) + j]`` the sine.
        """

    async def signs(self, party: Party, mask: Mask, field: Field, count: int) -> Awaitable[FieldArray]:
        """Ask for our summand, over ``field``, of ``(-1)^bit`` for the first bits of a flat mask of words."""

    async def bits(self, party: Party, mask: Mask, count: int) -> Awaitable[FieldArray] | None:
        """Ask for XOR shares of the lowest ``count`` bits of a flat bounded mask, in planes.

        None where the mask is a sum of addends that single parties know; then see :meth:`addends`.
        """

    def addends(self, party: Party, mask: Mask, public: FieldArray, count: int) -> list[FieldArray]:
        """Return our XOR shares of addends whose sum is ``public + mask``, in planes of ``count`` bits.

        Local: each addend is known to one party, which holds all of it.
        """

    def pieces_of(self, size: int) -> int:
        """Return how many integers a bounded mask is a sum of."""

    async def permutation(self, party: Party, count: int) -> Permutation:
        """Take a secret uniform permutation of so many rows; it may move any number of arrays."""

    async def carriage(self, party: Party, move: Move, field: Field, shape: tuple[int, ...]) -> Carriage:
        """Take what it needs to move one array of this shape, once.

        The first axis holds the rows; for packed words the bits of the last axis do.
        """

    async def carry(self, party: Party, jobs: Sequence[tuple[Carriage, FieldArray]]) -> list[FieldArray]:
        """Move arrays together, given our summands; their moves have the same hops. Sends messages."""

    async def leave(self, party: Party) -> None:
        """Say that we take nothing more."""
