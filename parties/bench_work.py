"""The building blocks that `sottovoce bench` times: their operands and what is done with them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc import F61, F127, less_than, mask, matmul, multiply, sigmoid, sort, truncate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import Field
    from mpc.party import Party

Operands = tuple[Any, ...]
REPETITIONS = 5
PARTIES = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One measured row.

    Attributes
    ----------
    seconds : float
        Median over the repetitions of the slowest party's time.
    per_second : float
        Amount of work a second.
    bytes_per_party : int
        Payload that the busiest party sent.
    rounds : int
    peak_memory_bytes : int
        Of the largest party process, start to end.
    limit_seconds : float
        What must move, at the speed of a plain TLS stream of this run, plus the local arithmetic of all
        parties over the cores; of rows of data, one pass of numpy over these. 0 where there is no such limit.
    ratio : float
        ``seconds / limit_seconds``.
    beside_bytes : int
        Of rows of data: the most memory that a party took beside these; 0 where nobody asked, or nobody can tell.
    """

    name: str
    preprocessing: str
    amount: int
    unit: str
    goal_seconds: float
    seconds: float
    all_seconds: tuple[float, ...]
    per_second: float
    bytes_per_party: int
    rounds: int
    peak_memory_bytes: int
    limit_seconds: float
    ratio: float
    beside_bytes: int = 0
    security: str = "semi-honest"


@dataclass(frozen=True, slots=True)
class Work:
    """One row: how its operands come about, what is timed, and how often after the first time."""

    name: str
    amount: int
    unit: str
    goal_seconds: float
    operands: Callable[[Party, int], Awaitable[Operands]]
    program: Callable[..., Awaitable[Any]]
    repetitions: int = REPETITIONS


def words(amount: int) -> str:
    """Return an amount as a power of ten, or a multiple of one."""
    digits = str(amount)
    power = f"10^{len(digits) - 1}"
    return power if digits[0] == "1" else f"{digits[0]} x {power}"


# ---- operands -----------------------------------------------------------------------------------


def vectors(field: Field) -> Callable[[Party, int], Awaitable[Operands]]:
    async def operands(party: Party, amount: int) -> Operands:
        values = np.arange(amount) % 1000 - 500
        x = await party.share(values, bound=500, owner=0, field=field)
        y = await party.share(values[::-1], bound=500, owner=1, field=field)
        return x, y

    return operands


def constants(field: Field) -> Callable[[Party, int], Awaitable[Operands]]:
    """Return public numbers, whose products take the same as those of secret ones and which nobody has to give."""

    async def operands(party: Party, amount: int) -> Operands:
        return tuple(party.constant(np.arange(amount) % 1000 - 500, field=field) for _ in range(2))

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


def scattered(amount: int, seed: int) -> NDArray[np.int64]:
    """Return whole numbers from ``-2^31`` to ``2^31 - 1`` in no order: multiples of an odd number, modulo 2^32."""
    return (np.arange(seed, seed + amount, dtype=np.int64) * 2654435761 & 0xFFFFFFFF) - 2**31


async def _pairs_of_32_bits(party: Party, amount: int) -> Operands:
    x = await party.share(scattered(amount, 0), bound=2**31, owner=0)
    y = await party.share(scattered(amount, 1), bound=2**31, owner=1)
    return x, y


async def _keys_of_32_bits(party: Party, amount: int) -> Operands:
    return (await party.share(scattered(amount, 0), bound=2**31, owner=0),)


async def _own_rows(party: Party, amount: int) -> Operands:
    return (scattered(amount // party.size, party.rank).astype(np.float64),)


async def _scalar(party: Party, amount: int) -> Operands:
    return await party.share(1, bound=1, owner=0), amount


# ---- programs -----------------------------------------------------------------------------------


async def _fixed_point(party: Party, x: Any, y: Any) -> Any:
    return await truncate(party, await multiply(party, x, y))


async def _dependent(party: Party, x: Any, amount: int) -> Any:
    for _ in range(amount):
        x = await multiply(party, x, x)
    return x


async def _median(party: Party, ours: Any) -> Any:
    from protocols import quantile

    return await quantile(party.at("median"), ours, 0.5, bound=2.0**31)


def workloads(quick: bool) -> list[Work]:
    """Return the rows; ``quick`` makes them ten times smaller."""
    million, many, steps, rows = (10**5, 10**4, 50, 3000) if quick else (10**6, 10**5, 300, 30_000)
    names = words(million), words(many)
    return [
        Work(f"{names[0]} products, F61", million, "product", 0.20, vectors(F61), multiply),
        Work(f"{names[0]} products, F127", million, "product", 0.35, vectors(F127), multiply),
        Work(f"{names[0]} fixed-point products, fresh", million, "product", 0.55, _fractions, _fixed_point),
        Work(f"{names[0]} fixed-point products, chained", million, "product", 0.30, _born_masked, _fixed_point),
        Work("256x256 @ 256x256", 256**3, "mult-add", 0.10, _matrices((256, 256), (256, 256)), matmul),
        Work("1000x100 @ 100x1", 10**5, "mult-add", 0.01, _matrices((1000, 100), (100, 1)), matmul),
        Work("the same, matrix masked before", 10**5, "mult-add", 0.01, _masked_matrix, matmul),
        Work(f"{names[1]} sigmoids", many, "sigmoid", 0.15, _arguments, sigmoid),
        Work(f"{names[1]} comparisons, 32 bits", many, "comparison", 0.20, _pairs_of_32_bits, less_than),
        Work(f"sort {names[1]} values, 32 bits", many, "value", 15.0, _keys_of_32_bits, sort, repetitions=1),
        Work(f"median of {rows} values", rows, "value", 2.0, _own_rows, _median, repetitions=3),
        Work(f"{steps} dependent scalar products", steps, "product", steps * 0.0004, _scalar, _dependent),
    ]
