"""What material costs: the seconds and bytes of making triples, prepared ahead of their use."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from mpc import multiply, prepare
from mpc.inputs import agree
from parties.bench_limits import median
from parties.bench_work import PARTIES, REPETITIONS, Row, constants, words
from parties.simulate import simulate

if TYPE_CHECKING:
    from mpc.field import Field
    from mpc.party import Party


def _material(field: Field, amount: int, repetitions: int) -> Callable[[Party, Any], Awaitable[Any]]:
    async def study(party: Party, data: Any) -> Any:
        x, y = await constants(field)(party, amount)
        seconds, sent, rounds = [], 0, 0
        for _ in range(repetitions + 1):
            await agree(party, "beginning", "material")
            before = party.costs.total
            began = time.perf_counter()
            await prepare(party, multiply, x, y)
            seconds.append(time.perf_counter() - began)
            spent = party.costs.since(before)
            sent, rounds = spent.bytes_sent, spent.rounds
            await multiply(party, x, y)
        return seconds[1:], sent, rounds

    return study


def measure_material(
    preprocessing: str,
    field: Field,
    amount: int,
    goal: float,
    *,
    parties: int = PARTIES,
    security: str = "semi-honest",
    stream: float = 0.0,
    repetitions: int = REPETITIONS,
) -> Row:
    """Time how triples are made: masks, products, and what a dealer or the parties send for them.

    With a stream's bytes a second the limit is what must move; a dealer's bytes are not counted.
    """
    results = simulate(
        _material(field, amount, repetitions), [None] * parties, preprocessing=preprocessing, security=security
    )
    slowest = [max(times) for times in zip(*(result[0] for result in results), strict=True)]
    seconds = median(slowest)
    sent = [result[1] for result in results]
    limit = sum(sent) / stream if stream and preprocessing == "ot" else 0.0
    return Row(
        material_name(preprocessing, field, amount, parties, security),
        preprocessing,
        amount,
        "triple",
        goal,
        seconds,
        tuple(slowest),
        amount / seconds,
        max(sent) if preprocessing == "ot" else 0,
        max(result[2] for result in results) if preprocessing == "ot" else 0,
        max(costs.peak_memory_bytes for costs in results.costs.parties),
        limit,
        seconds / limit if limit else 0.0,
        security=security,
    )


def material_name(preprocessing: str, field: Field, amount: int, parties: int, security: str = "semi-honest") -> str:
    """Return how a row of triples is called."""
    between = f", {parties} parties" if preprocessing == "ot" else ""
    kind = "triples" if security == "semi-honest" else "triples with MACs"
    return f"{words(amount)} {kind}, {field}{between}"
