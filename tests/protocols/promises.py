"""Watch ``Share.bounded_by``: after a run, check every promise that a protocol made against the secret itself.

All parties of an in-memory run make the same promises in the same order within a task; their summands
are put together here, which no party could do.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from contextlib import contextmanager
from contextvars import ContextVar
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc import Share

if TYPE_CHECKING:
    from collections.abc import Iterator

_rank: ContextVar[int] = ContextVar("rank")


class Promises:
    """What was promised where: for each place and occasion the parties' summands and the magnitude."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], dict[int, tuple[Share, int]]] = defaultdict(dict)
        self._occasions: dict[tuple[Any, ...], int] = defaultdict(int)

    def record(self, share: Share, promised: int) -> None:
        frame = sys._getframe(2)
        task = asyncio.current_task()
        coroutine = task.get_coro() if task is not None else None
        place = (frame.f_code.co_filename.rsplit("/", 1)[-1], frame.f_lineno, getattr(coroutine, "__qualname__", ""))
        rank = _rank.get()
        occasion = self._occasions[(rank, *place)]
        self._occasions[(rank, *place)] += 1
        self._made[(*place, occasion)][rank] = (share, promised)

    def check(self, parties: int) -> int:
        """Compare every promise with the secret; returns how many were made."""
        for place, held in self._made.items():
            assert len(held) == parties, f"{place}: only {sorted(held)} promised"
            shares = [held[rank][0] for rank in range(parties)]
            promised = {held[rank][1] for rank in range(parties)}
            assert len(promised) == 1, f"{place}: different promises {promised}"
            field = shares[0].field
            total = shares[0].values
            for share in shares[1:]:
                total = field.add(total, share.values)
            if not total.size:
                continue
            secret = max(abs(int(value)) for value in np.asarray(field.decode(total)).flat)
            unit = 1 << shares[0].scale
            assert secret <= max(promised), (
                f"{place}: a value of {secret / unit:.6g} was promised to be below {max(promised) / unit:.6g}"
            )
        return len(self._made)


@contextmanager
def watched() -> Iterator[Promises]:
    """Record all promises made inside."""
    promises = Promises()
    original = Share.bounded_by

    def bounded_by(self: Share, bound: float | Fraction) -> Share:
        result = original(self, bound)
        if _rank.get(None) is not None:
            promises.record(self, result.magnitude)
        return result

    Share.bounded_by = bounded_by  # type: ignore[method-assign]
    try:
        yield promises
    finally:
        Share.bounded_by = original  # type: ignore[method-assign]


def at_rank(program: Any) -> Any:
    """Let the watch know which party a program runs for."""

    async def marked(party: Any, data: Any) -> Any:
        _rank.set(party.rank)
        return await program(party, data)

    return marked
