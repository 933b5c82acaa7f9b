"""The building blocks that `sottovoce bench` times: their operands and what is done with them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc import F61, F127, less_than, mask, matmul, multiply, sigmoid, truncate

if TYPE_CHECKING:
    from mpc.field import Field
    from mpc.party import Party

Operands = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """One row: how its operands come about, and what is timed."""

    name: str
    amount: int
    unit: str
    goal_seconds: float
    operands: Callable[[Party, int], Awaitable[Operands]]
    program: Callable[..., Awaitable[Any]]


# ---- operands -----------------------------------------------------------------------------------


def vectors(field: Field) -> Callable[[Party, int], Awaitable[Operands]]:
    async def operands(party: Party, amount: int) -> Operands:
        values = np.arange(amount) % 1000 - 500
        x = await party.share(values, bound=500, owner=0, field=field)
        y = await party.share(values[::-1], bound=500, owner=1, field=field)
        return x, y

    return operands


def _matrices(*shapes: tuple[int, int]) -> Callable[[Party, int], Awaitable[Operands]]:
    async def operands(party: Party, amount: int) -> Operands:
        halves = [np.full(shape, 0.5) for shape in shapes]
        return tuple([await party.share(half, bound=1.0, owner=k) for k, half in enumerate(halves)])

    return operands


async def _fractions(party: Party, amount: int) -> Operands:
    values = np.linspace(-10, 10, amount)
    x = await party.share(values, bound=10.0, owner=0)
    y = await party.share(values[::-1], bound=10.0, owner=1)
    return x, y


async def _born_masked(party: Party, amount: int) -> Operands:
    x, y = await _fractions(party, amount)
    return await truncate(party, x.lifted(40)), await truncate(party, y.lifted(40))


async def _masked_matrix(party: Party, amount: int) -> Operands:
    x, y = await _matrices((1000, 100), (100, 1))(party, amount)
    return await mask(party, x), y


async def _arguments(party: Party, amount: int) -> Operands:
    return (await party.share(np.linspace(-22, 22, amount), bound=22.0, owner=0),)


async def _scalar(party: Party, amount: int) -> Operands:
    return await party.share(1, bound=1, owner=0), amount


# ---- programs -----------------------------------------------------------------------------------


async def _fixed_point(party: Party, x: Any, y: Any) -> Any:
    return await truncate(party, await multiply(party, x, y))


async def _dependent(party: Party, x: Any, amount: int) -> Any:
    for _ in range(amount):
        x = await multiply(party, x, x)
    return x


def workloads(quick: bool) -> list[Work]:
    """Return the rows; ``quick`` makes them ten times smaller."""
    million, many, steps = (10**5, 10**4, 50) if quick else (10**6, 10**5, 300)
    words = f"10^{len(str(million)) - 1}", f"10^{len(str(many)) - 1}"
    return [
        Work(f"{words[0]} products, F61", million, "product", 0.20, vectors(F61), multiply),
        Work(f"{words[0]} products, F127", million, "product", 0.35, vectors(F127), multiply),
        Work(f"{words[0]} fixed-point products, fresh", million, "product", 0.55, _fractions, _fixed_point),
        Work(f"{words[0]} fixed-point products, chained", million, "product", 0.30, _born_masked, _fixed_point),
        Work("256x256 @ 256x256", 256**3, "mult-add", 0.10, _matrices((256, 256), (256, 256)), matmul),
        Work("1000x100 @ 100x1", 10**5, "mult-add", 0.01, _matrices((1000, 100), (100, 1)), matmul),
        Work("the same, matrix masked before", 10**5, "mult-add", 0.01, _masked_matrix, matmul),
        Work(f"{words[1]} sigmoids", many, "sigmoid", 0.15, _arguments, sigmoid),
        Work(f"{words[1]} comparisons", many, "comparison", 0.20, vectors(F127), less_than),
        Work(f"{steps} dependent scalar products", steps, "product", steps * 0.0004, _scalar, _dependent),
    ]
