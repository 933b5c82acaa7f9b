"""Which loops transfers run on: the C extension, or the numpy twin where it is missing or not wanted."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from mpc import _twin_transfers as twin
from mpc.field import BACKEND_VARIABLE, F61, _warn_once


@dataclass(frozen=True, slots=True)
class Loops:
    """The loops of oblivious transfer; :mod:`mpc._twin_transfers` documents them.

    Attributes
    ----------
    transpose : callable
        ``f(rows, out=None)``: bits of 128 rows to entries of 128 bits.
    fold : callable
        ``f(leaves, out=(total, bits))``: sums over the leaves of a tree.
    correct : callable
        ``f(row, masks, x, out=None)``.
    spread, gather : callable
        ``f(keys, first, step, blocks, out=None)`` and ``f(keys, blocks, out=None)``: what the hash does around AES.
    both : callable
        ``f(keys, flips, delta, out=None)``: both keys of each transfer.
    restore : callable
        ``f(entries, out=None)``: entries of 128 bits back to bits of 128 rows.
    evaluate : callable
        ``f(row, point, out=None)``: a row as a polynomial over GF(2^128), for the check against dishonest choosers.
    combine : callable
        ``f(entries, points, out=None)``: the same for the 128 rows that entries come from.
    """

    transpose: Callable[..., Any]
    fold: Callable[..., Any]
    correct: Callable[..., Any]
    spread: Callable[..., Any]
    gather: Callable[..., Any]
    both: Callable[..., Any]
    restore: Callable[..., Any]
    evaluate: Callable[..., Any]
    combine: Callable[..., Any]


TWIN = Loops(
    twin.transpose,
    twin.fold,
    twin.correct,
    twin.spread,
    twin.gather,
    twin.both,
    twin.restore,
    twin.evaluate,
    twin.combine,
)


def compiled() -> Loops | None:
    """Return the C loops, None where they were not built."""
    try:
        from mpc import _transfers as c
    except ImportError:
        return None
    return Loops(c.transpose, c.fold, c.correct, c.spread, c.gather, c.both, c.restore, c.evaluate, c.combine)


@cache
def loops() -> Loops:
    """Return the loops in use, by the same rules as those of the fields: one variable, one warning."""
    if F61.backend == "numpy":
        return TWIN
    found = compiled()
    if found is None:
        if os.environ.get(BACKEND_VARIABLE) == "c":
            raise ImportError(f"{BACKEND_VARIABLE}=c, but the extension mpc._transfers was not built")
        _warn_once()
    return found or TWIN
