"""Scores beside what came to pass: how they are brought together, and counted between public thresholds.

A score is a number of each row, ours to show or not: it may be given by the parties that hold the rows, or be
shared already, as the probabilities of a model that nobody knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party, Share, concatenate, less_than, matmul, multiply, open_, stack
from protocols.pools.joining import pool
from protocols.pools.pool import INPUT_SCALE, Pool, Sizes
from protocols.pools.row_pool import RowPool, total
from protocols.pools.variables import Categorical, Numeric, Variable, binary, numeric
from protocols.release.disclosure import Release
from protocols.rows import Bound
from protocols.shares import sum_of

MOST_EDGES = 1000
Side = Literal["left", "right"]


class Scored:
    """Scores and outcomes of the rows of all parties; made by :func:`bring_together`.

    Attributes
    ----------
    made : Pool
    sizes : Sizes
        Complete rows, and what is missing.
    classes : numpy.ndarray
        Public: rows with y = 0 and with y = 1.
    names : tuple of str
    """

    def __init__(self, made: Pool, given: Share | None, sizes: Sizes, classes: NDArray[np.int64]) -> None:
        self.made = made
        self.sizes = sizes
        self.classes = classes
        self._given = given
        self._vectors: tuple[Share, Share] | None = None
        score = made.names["score"][0] if given is None else "shared score"
        self.names = (score, made.names["y"][0])

    @property
    def exponent(self) -> int:
        """Scores are shared in units of two to this."""
        return int(self.made.exponents["score"][0]) if self._given is None else 0

    @property
    def own(self) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
        """Scores and outcomes of our complete rows, where parties hold both; else None."""
        if self._given is not None or not isinstance(self.made, RowPool):
            return None
        return self.made.numbers("score").values[:, 0], self.made.codes("y")

    async def vectors(self) -> tuple[Share, Share]:
        """Return scores, shape (rows,), and indicators of y = 0 and y = 1, shape (rows, 2), 0 in incomplete rows."""
        if self._vectors is None:
            whats = ["y"] if self._given is not None else ["y", "score"]
            y, *scores = await self.made.vectors(*whats)
            if self.made.weight is not None:
                weight = self.made.weight.reshape(len(y), 1)
                y = (await multiply(self.made.party.at("complete"), y, weight)).bounded_by(1)
            score = self._given if self._given is not None else scores[0]
            if len(score) != len(y):
                raise DataError(f"{self.made.protocol}: there are {len(score)} shared scores and {len(y)} rows of y")
            self._vectors = score.reshape(len(y)), y
        return self._vectors

    async def counts(self, edges: NDArray[np.float64], side: Side) -> Share:
        """Count the complete rows of either class between thresholds.

        Parameters
        ----------
        edges : numpy.ndarray
            Public, ascending, k of them.
        side : {"left", "right"}
            A score that equals an edge is above it ("left") or below it ("right").

        Returns
        -------
        Share
            Integers, shape (k + 1, 2).

        Notes
        -----
        Nothing is revealed. Cost where parties hold scores and outcomes: that of sharing. Else comparisons of k rows
        entries, 1 round and ``(k + 2) rows`` elements.
        """
        scope = self.made.party.at("bins")
        own = self.own
        if own is not None:
            table = np.zeros((len(edges) + 1, 2), np.int64)
            np.add.at(table, (_bins(own[0], edges, side), own[1]), 1)
            return await total(scope, table)
        _, y = await self.vectors()
        above = await self._above(scope, edges, side)
        return _between((await matmul(scope, above.T, y)).bounded_by(len(y)), y.sum(axis=0))

    async def sums(self, edges: NDArray[np.float64]) -> Share:
        """Add up the scores of complete rows between thresholds; shape (k + 1,), in units of ``2^exponent``."""
        scope = self.made.party.at("sums")
        own = self.own
        if own is not None:
            sums = np.zeros(len(edges) + 1)
            np.add.at(sums, _bins(own[0], edges, "right"), np.ldexp(own[0], -self.exponent))
            return sum_of(await scope.share(sums, bound=float(1 << 32), scale=INPUT_SCALE, shape=sums.shape))
        score, _ = await self.vectors()
        if self.made.weight is not None:
            score = await multiply(scope, score, self.made.weight)
        above = await self._above(scope, edges, "right")
        return _between(await matmul(scope, above.T, score), score.sum())

    async def _above(self, party: Party, edges: NDArray[np.float64], side: Side) -> Share:
        """Return 1 where a score is above an edge, shape (rows, k)."""
        score, _ = await self.vectors()
        # Edges are rounded as scores are, so that equal ones stay equal.
        places = np.array([round(float(np.ldexp(e, score.scale - self.exponent))) for e in edges], dtype=object)
        column = Share(score.field, score.values, 0, score.magnitude, leads=score.leads).reshape(len(score), 1)
        spread = column.broadcast_to((len(score), len(edges)))
        return 1 - await less_than(party, spread, places) if side == "left" else await less_than(party, places, spread)


def _bins(scores: NDArray[np.float64], edges: NDArray[np.float64], side: Side) -> NDArray[np.int64]:
    return np.asarray(np.searchsorted(edges, scores, side="right" if side == "left" else "left"), dtype=np.int64)


def _between(above: Share, whole: Share) -> Share:
    """Return what is between edges from what is above each, and the whole."""
    upper = concatenate([whole.reshape(1, *whole.shape), above])
    zero = (whole - whole).reshape(1, *whole.shape)
    return (upper - concatenate([above, zero])).bounded_by(upper.bound)


async def bring_together(
    party: Party,
    protocol: str,
    score: Any,
    y: Any,
    *,
    partition: str,
    bound: Bound,
    release: Release,
    terms: Mapping[str, object],
) -> Scored:
    """Check scores and outcomes, agree, and open how many rows there are of either class.

    Parameters
    ----------
    party : Party
    protocol : str
    score : array_like, Share or None
        Numbers of our rows; or shared ones of all rows, those of party 0 first.
    y : array_like or None
        0 and 1 of our rows. Beside shared scores nothing may be missing in it, if rows are partitioned.
    partition, bound, release, terms
        See :func:`protocols.pools.joining.pool`.

    Raises
    ------
    DataError
        Our data is wrong; or, at all parties, one of the classes has no row.
    DisclosureError
        At all parties: too few rows, too few of a class, or of a score that is 0 or 1 either in a class.

    Notes
    -----
    All parties learn the number of complete rows, of those of each class, and how often each variable is missing.
    """
    given = score if isinstance(score, Share) else None
    if given is not None and given.shape not in ((given.size,), (given.size, 1)):
        raise ValueError(f"shared scores have shape (rows,), not {given.shape}")
    variables: dict[str, Variable | None] = {
        "y": None if y is None else binary(y, rank=party.rank, what="y"),
    }
    kinds: dict[str, type[Variable]] = {"y": Categorical}
    if given is None:
        variables["score"] = None if score is None else numeric(score, rank=party.rank, what="score", bound=bound)
        kinds["score"] = Numeric
    ours = variables["y"]
    if given is not None and partition == "rows" and ours is not None and not ours.complete.all():
        raise DataError(f"party {party.rank}: y is missing in some rows, but every row has a shared score")
    said = {**terms, "shared": None if given is None else [given.size, given.scale]}
    made = await pool(
        party.at("pool"), protocol, variables, kinds=kinds, partition=partition, release=release, terms=said
    )
    if given is None and len(made.names["score"]) != 1:
        raise DataError(f"{protocol}: score has {len(made.names['score'])} columns; it takes one")
    sizes = await made.open_sizes()
    classes = await made.group_sizes("y")
    if given is None:
        # A score of 0 and 1 makes a table of four cells of the result.
        await made.check_values("score", by="y", sums=False)
    if not classes.all() and not party.rehearsing:
        raise DataError(
            f"{protocol}: there are {classes[0]} rows with y = 0 and {classes[1]} with y = 1; it takes both"
        )
    return Scored(made, None if given is None else given.reshape(given.size), sizes, classes)


def probabilities(values: Any, *, rank: int) -> None:
    """Refuse probabilities of our own that are none.

    Raises
    ------
    DataError
        Tells how many.
    """
    if values is None or isinstance(values, Share):
        return
    array = numeric(values, rank=rank, what="probability")
    wrong = int(((array.values < 0) | (array.values > 1)).sum())
    if wrong:
        raise DataError(f"party {rank}: {wrong} of {array.values.size} probabilities are below 0 or above 1")


def public_edges(edges: Sequence[float], what: str) -> NDArray[np.float64]:
    """Return public thresholds, ascending.

    Raises
    ------
    ValueError
    """
    array = np.asarray(edges, dtype=np.float64)
    if array.ndim != 1 or not 1 <= array.size <= MOST_EDGES or not np.isfinite(array).all():
        raise ValueError(f"{what} takes from 1 to {MOST_EDGES} finite numbers")
    if (np.diff(array) <= 0).any():
        raise ValueError(f"{what} takes ascending numbers")
    return array


async def wide_enough(party: Party, table: Share, minimum: int) -> list[int]:
    """Find which neighbouring bins to put together so that each holds enough rows of either class.

    Parameters
    ----------
    party : Party
        A scope of its own.
    table : Share
        Counts, shape (bins, classes).
    minimum : int
        0 or 1 keeps all bins.

    Returns
    -------
    list of int
        Where the new bins begin; the first is 0. One bin is left at least.

    Notes
    -----
    All parties learn for each bin, and for each that was made of several, whether it holds enough rows of both
    classes: one bit. Nothing is withheld from what is left, so that no difference tells what is too small.
    Cost for each pass, mostly from one to three: two comparisons and 2 rounds.
    """
    starts = list(range(len(table)))
    while minimum > 1 and len(starts) > 1:
        scope = party.at("wide enough")
        short = await less_than(scope.at("cells"), grouped(table, starts), minimum)
        small = np.asarray(await open_(scope, 1 - await less_than(scope.at("any"), short.sum(axis=1), 1))) == 1
        if not small.any():
            break
        kept, k = [], 0
        while k < len(starts):
            kept.append(starts[k])
            k += 2 if small[k] else 1
        if small[-1] and kept[-1] == starts[-1]:
            kept.pop()  # the last one has no right neighbour
        starts = kept
    return starts


def grouped(table: Share, starts: Sequence[int]) -> Share:
    """Add up the rows of a table from each start to the next."""
    stops = [*starts[1:], len(table)]
    return stack([table[start:stop].sum(axis=0) for start, stop in zip(starts, stops, strict=True)])
