"""Plans: which material a program will take, found out by running it on made-up data, and made before it runs.

A rehearsal (:mod:`mpc.prepare`) knows nothing but zeros, and a program that looks at what it opens ends there: with no
rows, no study has a result. So the very program is run on made-up data instead, all parties in one process, as for the
cost preview. What it asks a preprocessing for, in which scope and which order, is the plan: names and shapes, nothing
of anybody's data. Where the real run asks for something else, it takes that as usual.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import warnings
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mpc import wanted as keys
from mpc.memory import MemoryNetwork, root_cause
from mpc.party import Party
from mpc.preprocessing.answers import Local, all_of
from mpc.preprocessing.carriages import Carriage
from mpc.preprocessing.ot import OWN_KEY, OtMask
from mpc.preprocessing.permutations import Move, Permutation, Place, Route
from mpc.preprocessing.pretend import Pretend, Table
from mpc.preprocessing.requests import Base, Recipe
from mpc.preprocessing.serve import field_named
from mpc.prg import Prg, new_seed
from mpc.stock import KEPT, Record, StockError, mask_at, permutation_at

if TYPE_CHECKING:
    from mpc.field import Field, FieldArray
    from mpc.masks import Mask
    from mpc.preprocessing import Operation
    from mpc.wanted import Wanted

Program = Callable[[Party, Any], Awaitable[Any]]
Keep = Callable[[Record], Awaitable[None]]

MOST_ITEMS = 1 << 20
MOST_BYTES = 1 << 28  # of a plan as text
_FOREVER = 1e9
# Answers that are waited for side by side.
_AT_ONCE = 32
_ENTRIES_AT_ONCE = 1 << 16


class Planned(NamedTuple):
    """One item of a plan: the scope that asks, what for, and where the mask or permutation was drawn in the trial."""

    path: str
    wanted: Wanted
    place: Base | Place | None


class Plan(NamedTuple):
    """Everything that a program asks a preprocessing for, in order."""

    items: tuple[Planned, ...]

    def to_bytes(self) -> bytes:
        """Encode for the wire."""
        content = [[one.path, keys.to_json(one.wanted), _place_to_json(one.place)] for one in self.items]
        return json.dumps(content, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Plan:
        """Decode and check.

        Raises
        ------
        ValueError
            It is no plan.
        """
        if len(data) > MOST_BYTES:
            raise ValueError("a plan of too many bytes")
        try:
            content = json.loads(data)
            items = tuple(_planned(*one) for one in content)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError("no plan") from error
        if len(items) > MOST_ITEMS:
            raise ValueError("a plan of too many items")
        return cls(items)

    @property
    def digest(self) -> str:
        """The hash of the plan."""
        return hashlib.sha256(b"sottovoce plan 1\n" + self.to_bytes()).hexdigest()


def _place_to_json(place: Base | Place | None) -> Any:
    return place.to_json() if isinstance(place, Base) else None if place is None else list(place)


def _planned(path: Any, wanted: Any, place: Any) -> Planned:
    if not isinstance(path, str) or len(path) > 400:
        raise ValueError("no scope")
    key = keys.from_json(wanted)
    if key[0] in ("uniform", "bounded"):
        return Planned(path, key, keys.base_from_json(place))
    return Planned(path, key, keys.place_from_json(place) if key[0] == "permutation" else None)


# ---- finding out ----------------------------------------------------------------------------------


class _Planner(Pretend):
    """Notes what its party asks for."""

    def __init__(self, rank: int, size: int, table: Table) -> None:
        super().__init__(rank, size, table)
        self.items: list[Planned] = []

    def _note(self, party: Party, wanted: Wanted, place: Base | Place | None = None) -> None:
        self.items.append(Planned(party.path, wanted, place))

    async def uniform(self, party: Party, field: Field, shape: tuple[int, ...]) -> Mask:
        mask = await super().uniform(party, field, shape)
        self._note(party, ("uniform", field.name, shape), mask.recipe.terms[0].base)
        return mask

    async def bounded(self, party: Party, field: Field, shape: tuple[int, ...], bits: int) -> Mask:
        mask = await super().bounded(party, field, shape, bits)
        self._note(party, ("bounded", field.name, shape, bits), mask.recipe.terms[0].base)
        return mask

    async def product(self, party: Party, a: Mask, b: Mask, operation: Operation) -> Awaitable[FieldArray]:
        self._note(party, ("product", a.recipe, b.recipe, operation))
        return await super().product(party, a, b, operation)

    async def waves(
        self, party: Party, mask: Mask, *, period: int, harmonics: tuple[int, ...], scale: int
    ) -> Awaitable[FieldArray]:
        self._note(party, ("waves", mask.recipe, period, tuple(harmonics), scale))
        return await super().waves(party, mask, period=period, harmonics=harmonics, scale=scale)

    async def signs(self, party: Party, mask: Mask, field: Field, count: int) -> Awaitable[FieldArray]:
        self._note(party, ("signs", mask.recipe, field.name, count))
        return await super().signs(party, mask, field, count)

    async def bits(self, party: Party, mask: Mask, count: int) -> Awaitable[FieldArray] | None:
        self._note(party, ("bits", mask.recipe, count))
        return await super().bits(party, mask, count)

    async def permutation(self, party: Party, count: int) -> Permutation:
        permutation = await super().permutation(party, count)
        self._note(party, ("permutation", count), permutation.place)
        return permutation

    async def carriage(self, party: Party, move: Move, field: Field, shape: tuple[int, ...]) -> Carriage:
        self._note(party, ("carriage", move.route, field.name, shape))
        return await super().carriage(party, move, field, shape)


def plan_of(program: Program, inputs: Sequence[Any]) -> Plan:
    """Run a program on made-up data of all parties, in an event loop of its own, and note what it asks for.

    Parameters
    ----------
    program : async callable
        ``await program(party, data)``, which the real run calls in the same scope.
    inputs : sequence
        Made-up data of each party. Their shapes, and whatever steps depend on, should be as in the real run.

    Returns
    -------
    Plan
        What the first party asks for, which is what all ask for. If the program depends on what it opens, another
        run may ask for more, less or something else.

    Raises
    ------
    Exception
        What the program raises on the made-up data.

    Notes
    -----
    Cost: the computation of all parties in one process, without the transfers. Blocks; it may run in a thread.
    """
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is odd about made-up data
        return runner.run(_try_out(program, inputs))


async def _try_out(program: Program, inputs: Sequence[Any]) -> Plan:
    size = len(inputs)
    network, table = MemoryNetwork(size, timeout_seconds=_FOREVER), Table(size)
    planner = _Planner(0, size, table)
    shared = {f"pair {low}-{high}": Prg(new_seed()) for high in range(size) for low in range(high)}

    async def one(rank: int) -> Any:
        transport = network.transport(rank)
        seeds = {**shared, OWN_KEY: Prg(new_seed())}
        source = planner if rank == 0 else Pretend(rank, size, table)
        party = Party(rank, size, transport, source, lambda key, label: seeds[key].stream(label))
        try:
            await program(party, inputs[rank])
        except Exception as error:  # noqa: BLE001 - it is raised again below, once for all
            await transport.abort(type(error).__name__, "")
            return error
        return None

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(rank)) for rank in range(size)]
        # Nobody waits for summands of a party that has failed.
        while pending := [task for task in tasks if not task.done()]:
            done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if any(task.result() is not None for task in done):
                await asyncio.wait(pending, timeout=1.0)
                for task in tasks:
                    task.cancel()
                break
    cause = root_cause([None if task.cancelled() else task.result() for task in tasks])
    if cause is not None:
        raise cause[1]
    return Plan(tuple(planner.items))


# ---- making ---------------------------------------------------------------------------------------


async def make(party: Party, plan: Plan, keep: Keep) -> None:
    """Make what a plan asks for.

    Parameters
    ----------
    party : Party
        In a session of its own, or in a scope of its own.
    plan : Plan
        The same at all parties.
    keep : async callable
        Is given each item, in the plan's order.

    Raises
    ------
    StockError
        The preprocessing's material ends with its session; or the plan does not make sense.

    Notes
    -----
    Reveals nothing but the plan. Cost: the messages of the preprocessing. Memory: masks and permutations stay as long
    as something later in the plan is made of them, products until they are kept.
    """
    source = party.preprocessing
    if source.name not in KEPT:
        raise StockError(f"material of {source.name!r} ends with its session: only that of 'ot' can be kept")
    party.semi_honest_only("keeping material", "material with MACs ends with its session")
    maker = _Maker(party, _last_uses(plan))
    waiting: list[tuple[Planned, Party, Awaitable[FieldArray]]] = []
    entries = 0
    for number, planned in enumerate(plan.items):
        seat = party.at("item")
        answer, size = await maker.begin(number, planned, seat)
        waiting.append((planned, seat, answer))
        entries += size
        if len(waiting) >= _AT_ONCE or entries >= _ENTRIES_AT_ONCE:
            await _keep_all(maker, waiting, keep)
            waiting, entries = [], 0
    await _keep_all(maker, waiting, keep)


async def _keep_all(maker: _Maker, waiting: list[tuple[Planned, Party, Awaitable[FieldArray]]], keep: Keep) -> None:
    answers = await all_of([answer for _, _, answer in waiting])
    for (planned, seat, _), values in zip(waiting, answers, strict=True):
        await keep(Record(planned.path, planned.wanted, maker.item(seat, values), tuple(seat.opened)))


def _last_uses(plan: Plan) -> dict[Base | Place, int]:
    """Return the last item that needs a mask or a permutation."""
    last: dict[Base | Place, int] = {}
    for number, planned in enumerate(plan.items):
        if planned.place is not None:
            if planned.place in last:
                raise StockError("the plan draws a mask twice")
            last[planned.place] = number
        for part in planned.wanted:
            if isinstance(part, Recipe):
                last.update((term.base, number) for term in part.terms)
            elif isinstance(part, Route):
                last.update((place, number) for place in part if place is not None)
    return last


class _Maker:
    """Makes items one by one; keeps masks and permutations as long as they are needed."""

    def __init__(self, party: Party, last: dict[Base | Place, int]) -> None:
        self._source = party.preprocessing
        self._last = last
        self._kept: dict[Base | Place, Any] = {}
        self._items: dict[str, Any] = {}

    async def begin(self, number: int, planned: Planned, seat: Party) -> tuple[Awaitable[FieldArray], int]:
        """Begin to make an item; returns what to wait for, and how many entries that has."""
        try:
            return await self._begin(planned, seat)
        except (KeyError, ValueError, TypeError) as error:
            raise StockError(f"item {number} of the plan makes no sense") from error
        finally:
            for place in [place for place in self._used(planned) if self._last[place] <= number]:
                self._kept.pop(place, None)

    def _used(self, planned: Planned) -> set[Base | Place]:
        places: set[Base | Place] = set() if planned.place is None else {planned.place}
        for part in planned.wanted:
            if isinstance(part, Recipe):
                places.update(term.base for term in part.terms)
            elif isinstance(part, Route):
                places.update(place for place in part if place is not None)
        return places

    async def _begin(self, planned: Planned, seat: Party) -> tuple[Awaitable[FieldArray], int]:
        source, place = self._source, planned.place
        kind, *rest = planned.wanted
        if isinstance(place, Base):
            field, shape = field_named(rest[0]), rest[1]
            if place.field != field.name or place.shape != shape:
                raise ValueError("a mask of another shape")
            drawn = await (
                source.uniform(seat, field, shape) if kind == "uniform" else source.bounded(seat, field, shape, rest[2])
            )
            if not isinstance(drawn, OtMask):
                raise TypeError("a mask of another preprocessing")
            self._kept[place] = self._items[seat.path] = mask_at(field, drawn, place)
            return Local(field.zeros(0)), math.prod(shape)
        if isinstance(place, Place):
            permutation = permutation_at(await source.permutation(seat, place.rows), place)
            self._kept[place] = self._items[seat.path] = permutation
            return Local(field_named("F61").zeros(0)), place.rows
        if kind == "product":
            a, b, operation = rest
            first, second = self._mask(a), self._mask(b)
            size = max(first.summand.size, second.summand.size)
            return await source.product(seat, first, second, operation), size
        if kind == "waves":
            recipe, period, harmonics, scale = rest
            mask = self._mask(recipe)
            answer = await source.waves(seat, mask, period=period, harmonics=harmonics, scale=scale)
            return answer, 2 * len(harmonics) * mask.summand.size
        if kind == "signs":
            recipe, name, count = rest
            return await source.signs(seat, self._mask(recipe), field_named(name), count), count
        if kind == "bits":
            recipe, count = rest
            if await source.bits(seat, self._mask(recipe), count) is not None:
                raise TypeError("bits of another preprocessing")
            self._items[seat.path] = None
            return Local(field_named("F61").zeros(0)), 0
        route, name, shape = rest
        move = Move(*(None if one is None else self._kept[one] for one in route))
        carriage = await source.carriage(seat, move, field_named(name), shape)
        if carriage.material is None:
            raise TypeError("a carriage of another preprocessing")
        self._items[seat.path] = carriage.material
        return carriage.material.after, math.prod(shape)

    def _mask(self, recipe: Recipe) -> OtMask:
        """Return the mask of a recipe."""
        total: OtMask | None = None
        for term in recipe.terms:
            mask: OtMask = self._kept[term.base]
            for structure in term.structures:
                mask = mask.after(structure)
            if term.factor != 1:
                mask = mask.times(term.factor)
            mask = mask if total is None else _sum(total, mask)
            total = mask
        if total is None:
            raise ValueError("a mask of nothing")
        return total

    def item(self, seat: Party, values: FieldArray) -> Any:
        """Return what was made at a seat, given the answer."""
        if seat.path not in self._items:
            return values
        item = self._items.pop(seat.path)
        return item._replace(after=Local(values)) if hasattr(item, "after") and hasattr(item, "_replace") else item


def _sum(a: OtMask, b: OtMask) -> OtMask:
    total = a.plus(b)
    if total is None:
        raise ValueError("a mask of too many terms")
    return total
