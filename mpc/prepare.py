"""Preparing: take the correlated randomness of a computation before its inputs matter.

A rehearsal runs the same program in a scope of its own, with every opening answered by zeros: nothing
of the data is sent, and every mask and product that the program asks for is taken from the
preprocessing and kept. The real run then finds them in stock, in the same order, and its online phase
waits for nobody. Whatever was not foreseen is taken as usual.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mpc.costs import Costs
from mpc.errors import SottovoceError
from mpc.preprocessing.answers import Local
from mpc.preprocessing.carriages import Carriage

if TYPE_CHECKING:
    from mpc.field import Field, FieldArray
    from mpc.masks import Mask
    from mpc.party import Party
    from mpc.preprocessing import Operation, Preprocessing
    from mpc.preprocessing.permutations import Move, Permutation

Item = tuple[Hashable, Any, tuple[str, ...]]
_NOTHING = object()


class PreparationError(SottovoceError, RuntimeError):
    """The program asks for something else than what was prepared for it."""


class Stock:
    """A preprocessing that hands out what was prepared, each item once, and passes on what was not.

    Parameters
    ----------
    source : Preprocessing
        Where what was not prepared is taken.
    strict : bool
        Whether a program that asks for something else than was prepared is refused. If not, what was prepared for
        that scope is dropped and taken as usual, at all parties alike: what is asked for is public.
    """

    def __init__(self, source: Preprocessing, *, strict: bool = True) -> None:
        self.name = source.name
        self.source = source
        self.strict = strict
        self._shelves: dict[str, deque[Item]] = {}

    def __len__(self) -> int:
        """Return how many items are left."""
        return sum(map(len, self._shelves.values()))

    def items(self) -> Iterator[tuple[str, Hashable, Any, tuple[str, ...]]]:
        """Yield what is left: path, what will be asked for, the item, and scopes that were opened to make it."""
        for path, shelf in self._shelves.items():
            for wanted, item, scopes in shelf:
                yield path, wanted, item, scopes

    def put(self, path: str, wanted: Hashable, item: Any, scopes: Sequence[str] = ()) -> None:
        """Keep an item for the scope that will ask for it, with the sub-scopes that were opened to make it."""
        self._shelves.setdefault(path, deque()).append((wanted, item, tuple(scopes)))

    def _take(self, party: Party, wanted: Hashable) -> Any:
        shelf = self._shelves.get(party.path)
        if not shelf:
            return _NOTHING
        prepared, item, scopes = shelf.popleft()
        if prepared != wanted:
            if not self.strict:
                del self._shelves[party.path]
                return _NOTHING
            raise PreparationError(
                f"the program asks for {_words(wanted)} where {_words(prepared)} was prepared: "
                "prepare with the same program and the same shapes"
            )
        for label in scopes:  # counted here, too, so that later scopes of this label are named as in the rehearsal
            party.at(label)
        return item

    async def uniform(self, party: Party, field: Field, shape: tuple[int, ...]) -> Mask:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        found = self._take(party, ("uniform", field.name, shape))
        if found is not _NOTHING:
            mask: Mask = found
            return mask
        return await self.source.uniform(party, field, shape)

    async def bounded(self, party: Party, field: Field, shape: tuple[int, ...], bits: int) -> Mask:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        found = self._take(party, ("bounded", field.name, shape, bits))
        if found is not _NOTHING:
            mask: Mask = found
            return mask
        return await self.source.bounded(party, field, shape, bits)

    async def shifted(self, party: Party, mask: Mask, bits: int) -> Mask:
        """See :class:`mpc.preprocessing.Preprocessing`; an item only where it takes MACs."""
        found = None if party.guard is None else self._take(party, ("shifted", mask.recipe, bits))
        if found is not None and found is not _NOTHING:
            shifted: Mask = found
            return shifted
        return await self.source.shifted(party, mask, bits)

    async def known(
        self, party: Party, field: Field, shape: tuple[int, ...], bits: int, owner: int
    ) -> tuple[Mask, FieldArray | None]:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        found = self._take(party, ("known", field.name, shape, bits, owner))
        if found is not _NOTHING:
            known: tuple[Mask, FieldArray | None] = found
            return known
        return await self.source.known(party, field, shape, bits, owner)

    async def product(self, party: Party, a: Mask, b: Mask, operation: Operation) -> Awaitable[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        found = self._take(party, ("product", a.recipe, b.recipe, operation))
        return await self.source.product(party, a, b, operation) if found is _NOTHING else Local(found)

    async def waves(
        self, party: Party, mask: Mask, *, period: int, harmonics: tuple[int, ...], scale: int
    ) -> Awaitable[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        found = self._take(party, ("waves", mask.recipe, period, harmonics, scale))
        if found is not _NOTHING:
            return Local(found)
        return await self.source.waves(party, mask, period=period, harmonics=harmonics, scale=scale)

    async def signs(self, party: Party, mask: Mask, field: Field, count: int) -> Awaitable[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        found = self._take(party, ("signs", mask.recipe, field.name, count))
        return await self.source.signs(party, mask, field, count) if found is _NOTHING else Local(found)

    async def bits(self, party: Party, mask: Mask, count: int) -> Awaitable[FieldArray] | None:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        found = self._take(party, ("bits", mask.recipe, count))
        if found is _NOTHING:
            return await self.source.bits(party, mask, count)
        return None if found is None else Local(found)

    def addends(self, party: Party, mask: Mask, public: FieldArray, count: int) -> list[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`; nothing is taken for it."""
        return self.source.addends(party, mask, public, count)

    def pieces_of(self, size: int) -> int:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        return self.source.pieces_of(size)

    async def permutation(self, party: Party, count: int) -> Permutation:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        found = self._take(party, ("permutation", count))
        if found is not _NOTHING:
            permutation: Permutation = found
            return permutation
        return await self.source.permutation(party, count)

    async def carriage(self, party: Party, move: Move, field: Field, shape: tuple[int, ...]) -> Carriage:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        found = self._take(party, ("carriage", move.route, field.name, shape))
        if found is not _NOTHING:
            return Carriage(move, field, shape, found)
        return await self.source.carriage(party, move, field, shape)

    async def carry(self, party: Party, jobs: Sequence[tuple[Carriage, FieldArray]]) -> list[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`; what it needs was taken before."""
        return await self.source.carry(party, jobs)

    async def leave(self, party: Party) -> None:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        await self.source.leave(party)


class Recorder:
    """A preprocessing for rehearsals: takes from the source, waits for the answer, puts it into stock."""

    def __init__(self, stock: Stock, rehearsed: str, real: Party) -> None:
        self.name = stock.name
        self._stock = stock
        self._source = stock.source
        self._rehearsed = rehearsed
        self._real = real.path
        self._costs = real.costs

    def _live(self, party: Party) -> Party:
        """Return the same seat awake: a preprocessing that talks must really do so."""
        return party.awake(self._source, self._costs)

    def _put(self, party: Party, wanted: Hashable, item: Any, scopes: Sequence[str]) -> None:
        inner = party.path[len(self._rehearsed) :]
        path = self._real + inner if self._real else inner.removeprefix("/")
        self._stock.put(path, wanted, item, scopes)

    async def uniform(self, party: Party, field: Field, shape: tuple[int, ...]) -> Mask:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        live = self._live(party)
        mask = await self._source.uniform(live, field, shape)
        self._put(party, ("uniform", field.name, shape), mask, live.opened)
        return mask

    async def bounded(self, party: Party, field: Field, shape: tuple[int, ...], bits: int) -> Mask:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        live = self._live(party)
        mask = await self._source.bounded(live, field, shape, bits)
        self._put(party, ("bounded", field.name, shape, bits), mask, live.opened)
        return mask

    async def shifted(self, party: Party, mask: Mask, bits: int) -> Mask:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        live = self._live(party)
        shifted = await self._source.shifted(live, mask, bits)
        if party.guard is not None:
            self._put(party, ("shifted", mask.recipe, bits), shifted, live.opened)
        return shifted

    async def known(
        self, party: Party, field: Field, shape: tuple[int, ...], bits: int, owner: int
    ) -> tuple[Mask, FieldArray | None]:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        live = self._live(party)
        known = await self._source.known(live, field, shape, bits, owner)
        self._put(party, ("known", field.name, shape, bits, owner), known, live.opened)
        return known

    async def product(self, party: Party, a: Mask, b: Mask, operation: Operation) -> Awaitable[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        live = self._live(party)
        values = await (await self._source.product(live, a, b, operation))
        self._put(party, ("product", a.recipe, b.recipe, operation), values, live.opened)
        return Local(values)

    async def waves(
        self, party: Party, mask: Mask, *, period: int, harmonics: tuple[int, ...], scale: int
    ) -> Awaitable[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        live = self._live(party)
        asked = await self._source.waves(live, mask, period=period, harmonics=harmonics, scale=scale)
        values = await asked
        self._put(party, ("waves", mask.recipe, period, harmonics, scale), values, live.opened)
        return Local(values)

    async def signs(self, party: Party, mask: Mask, field: Field, count: int) -> Awaitable[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        live = self._live(party)
        values = await (await self._source.signs(live, mask, field, count))
        self._put(party, ("signs", mask.recipe, field.name, count), values, live.opened)
        return Local(values)

    async def bits(self, party: Party, mask: Mask, count: int) -> Awaitable[FieldArray] | None:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        live = self._live(party)
        asked = await self._source.bits(live, mask, count)
        values = None if asked is None else await asked
        self._put(party, ("bits", mask.recipe, count), values, live.opened)
        return None if values is None else Local(values)

    def addends(self, party: Party, mask: Mask, public: FieldArray, count: int) -> list[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        return self._source.addends(party, mask, public, count)

    def pieces_of(self, size: int) -> int:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        return self._source.pieces_of(size)

    async def permutation(self, party: Party, count: int) -> Permutation:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        live = self._live(party)
        permutation = await self._source.permutation(live, count)
        self._put(party, ("permutation", count), permutation, live.opened)
        return permutation

    async def carriage(self, party: Party, move: Move, field: Field, shape: tuple[int, ...]) -> Carriage:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        live = self._live(party)
        carriage = await (await self._source.carriage(live, move, field, shape)).arrived()
        self._put(party, ("carriage", move.route, field.name, shape), carriage.material, live.opened)
        return carriage

    async def carry(self, party: Party, jobs: Sequence[tuple[Carriage, FieldArray]]) -> list[FieldArray]:
        """See :class:`mpc.preprocessing.Preprocessing`: in a rehearsal nothing is sent."""
        return await self._source.carry(party, jobs)

    async def leave(self, party: Party) -> None:
        """A rehearsal leaves nothing."""


async def prepare(party: Party, program: Callable[..., Awaitable[Any]], *args: Any) -> Costs:
    """Take the randomness that ``program(party, *args)`` will need, before it runs.

    Parameters
    ----------
    party : Party
        The seat that the program will run at, next and with the same arguments.
    program : callable
        A protocol, or any coroutine function of a party. Its steps must not depend on opened values;
        where they do, what was not foreseen is taken as usual.
    *args
        Its arguments; only shapes, scales and bounds of shares matter.

    Returns
    -------
    Costs
        What the program will cost online (openings and products).

    Raises
    ------
    PreparationError
        Later, in the real run, if it asks for something else than was prepared. What was prepared and
        not used is never used for anything else.

    Notes
    -----
    Reveals nothing but shapes. Costs the local computation once more, and the messages of the
    preprocessing. Call it at all parties.
    """
    stock = party.preprocessing
    if not isinstance(stock, Stock):
        stock = party.preprocessing = Stock(stock)
    seat = party.rehearsal()
    seat.preprocessing = Recorder(stock, seat.path, party)
    await program(seat, *args)
    return seat.costs


def _words(wanted: Hashable) -> str:
    parts = wanted if isinstance(wanted, tuple) else (wanted,)
    return " ".join(str(part) for part in parts if isinstance(part, tuple | str | int))
