"""How well a score tells who is ill: the area under the ROC curve, with its interval, and the curve."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party, Share, multiply, open_
from mpc.sorting import argsort, run_bounds
from protocols.distributions import normal_half_width
from protocols.prediction.roc_steps import in_roc_steps, of_steps, roc_steps
from protocols.prediction.scores import Scored, bring_together, grouped, public_edges, wide_enough
from protocols.release.disclosure import Disclosure, Release
from protocols.release.outcome import Result, notes, number, table
from protocols.release.steps import least_cell
from protocols.release.suppression import rounded
from protocols.rows import Bound

# 0, 0.05, ..., 1: for scores that are probabilities.
PROBABILITY_GRID = tuple(k / 20 for k in range(21))
# Up to so many rows the sums of squares, at most 2 rows^5, stay within the field.
_MOST_ROWS = 1 << 24


@dataclass(frozen=True, eq=False)
class RocResult(Result):
    """How well a score tells two classes apart.

    Attributes
    ----------
    auc : float
        Probability that a row with y = 1 has a higher score than one with y = 0; ties count half.
    std_err : float
        DeLong's; NaN if a class has a single row.
    conf_int : numpy.ndarray
        Shape (2,): ``auc`` plus and minus normal quantiles of ``std_err``, within 0 and 1.
    confidence : float
    n, positives, negatives : int
    thresholds, sensitivity, specificity : numpy.ndarray
        The curve: a row counts as positive if its score is at least the threshold. Empty if none was asked for.
    names : tuple of str
        Score and outcome.
    missing : dict of str to int or None
    suppressed : tuple of str
    """

    auc: float
    std_err: float
    conf_int: NDArray[np.float64]
    confidence: float
    n: int
    positives: int
    negatives: int
    thresholds: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    specificity: NDArray[np.float64]
    names: tuple[str, ...]
    missing: dict[str, int | None]
    suppressed: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return area, interval and curve."""
        low, high = self.conf_int.tolist()
        percent = f"{100 * self.confidence:g} %"
        lines = [
            f"ROC curve of {self.names[0]} for {self.names[1]}",
            f"Area: {number(self.auc)}, std err {number(self.std_err)}, {percent} interval {number(low)} to "
            f"{number(high)} (DeLong)",
            f"Positive {self.positives}, negative {self.negatives}",
        ]
        if self.thresholds.size:
            points = zip(self.thresholds, self.sensitivity, self.specificity, strict=True)
            rows = [[f"{t:g}", number(a), number(b), number(a + b - 1)] for t, a, b in points]
            lines.append(table(["threshold", "sensitivity", "specificity", "Youden"], rows))
        return "\n".join([*lines, *notes(self.n, self.missing, self.suppressed)])


async def roc_auc(
    party: Party,
    score: Any,
    y: Any,
    *,
    confidence: float = 0.95,
    grid: Sequence[float] | None = PROBABILITY_GRID,
    partition: str = "rows",
    bound: Bound = None,
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> RocResult | None:
    """Compute the area under the ROC curve over the rows of all parties, and points of the curve.

    Parameters
    ----------
    party : Party
    score : array_like, Share or None
        Numbers of our rows; or a share with an entry for each row of all parties, those of party 0 first, such as
        :func:`protocols.predict_proba` gives with ``reveal=False``: then neither model nor scores are seen by
        anybody. With ``partition="columns"`` None at the parties that do not hold the column.
    y : array_like or None
        0 and 1, of our rows.
    confidence : float
        Of the interval.
    grid : sequence of float, optional
        Public thresholds of the curve, ascending; by default 0, 0.05, ..., 1. None: no curve.
    partition : {"rows", "columns"}
    bound : float, optional
        Public bound on the absolute values of scores, agreed in the study.
    to : collection of int, optional
        Ranks of the parties that learn the result; all by default.
    disclosure : Disclosure, optional

    Returns
    -------
    RocResult or None
        None at a party that is not in ``to``.

    Raises
    ------
    DataError
        Before anything is sent if our data is wrong; at all parties if a class has no row.
    AgreementError
        The parties differ in a parameter.
    DisclosureError
        At all parties: too few rows, or too few of a class.

    Notes
    -----
    All parties learn how many rows there are of each class, how often each variable is missing, with rows how many
    each party holds and without a bound the score's order of magnitude; under a minimum cell also which thresholds
    are left out (:func:`protocols.prediction.scores.wide_enough`). The recipients learn the area and its variance
    (opened as whole numbers that, with the sizes of the classes, say the same) and the counts of the curve.
    Semi-honest. With a minimum cell m and k rows of the smaller class, area and standard error are told as multiples of
    ``m / (8 k)`` (at least 1/1000), the area rounded to the nearest, the error up, so that the interval is rather too
    wide: of a score with few values all their digits would tell how many rows of each class have each.
    Exact for scores that are equal or differ by ``2^-40`` of their bound (of shared scores: in any bit);
    closer ones count as tied.
    Method: with pooled mid-ranks and mid-ranks within each class the number of rows of the other class that are
    below each row is a difference (Sun, Xu, 2014); its squares give DeLong's variance (1988).
    Cost for k bits (42, of a model's probabilities 26): :func:`mpc.sorting.argsort` by k bits and by one,
    :func:`mpc.sorting.run_bounds` twice, arrays put in order 5 times; 2 rounds and ``rows + 2`` elements;
    with a minimum cell :func:`protocols.prediction.roc_steps.in_roc_steps`. For the curve see
    :meth:`protocols.prediction.scores.Scored.counts`.
    """
    if not 0 < confidence < 1:
        raise ValueError("confidence is between 0 and 1")
    edges = None if grid is None else public_edges(grid, "grid")
    release = Release.of(party, to, disclosure)
    terms = {"confidence": confidence, "grid": None if edges is None else edges.tolist()}
    scope = party.at("roc")
    scored = await bring_together(
        scope, "roc_auc", score, y, partition=partition, bound=bound, release=release, terms=terms
    )
    found = await _area(scope.at("area"), scored, release)
    curve, reasons = await _curve(scope.at("curve"), scored, edges, release)
    if found is None or curve is None:
        return None
    auc, std_err, rounding = found
    reach = normal_half_width(confidence) * std_err
    negatives, positives = scored.classes.tolist()
    return RocResult(
        auc,
        std_err,
        np.clip([auc - reach, auc + reach], 0.0, 1.0),
        confidence,
        scored.sizes.n,
        positives,
        negatives,
        *curve,
        scored.names,
        scored.sizes.missing,
        (*rounding, *reasons),
    )


# ---- the area -----------------------------------------------------------------------------------


async def _area(party: Party, scored: Scored, release: Release) -> tuple[float, float, tuple[str, ...]] | None:
    """Open the area and its standard error, and say how they are rounded."""
    below = await _below(party, scored)
    least = least_cell(release)
    if least is not None:
        steps = roc_steps(least, scored.classes)
        told = await open_(party, await in_roc_steps(party.at("steps"), below, scored.classes, steps), to=release.to)
        if told is None:
            return None
        reason = f"area and standard error are told in {steps} steps from 0 to 1, the error rounded up"
        return *of_steps(told, steps), (reason,)
    # The sum gives the area; with it and the sizes, this sum of squares says no more than the variance.
    squares = await multiply(party, below, below)
    negatives, positives = scored.classes.tolist()
    of_ones = slice(negatives, negatives + positives)
    weights = _weights(negatives, positives)
    mixed = squares[:negatives].sum() * weights[0] + squares[of_ones].sum() * weights[1]
    area, spread = await open_(party, below[of_ones].sum(), mixed, to=release.to)
    if area is None or spread is None:
        return None
    auc, variance = _decoded(int(area), int(spread), scored.classes)
    return auc, math.sqrt(variance) if variance >= 0 else math.nan, ()


async def _below(party: Party, scored: Scored) -> Share:
    """Return twice the rows of the other class that are below each row; those with y = 0 first, then those with 1."""
    score, y = await scored.vectors()
    rows = len(score)
    if rows > _MOST_ROWS:
        raise DataError(f"roc_auc: {rows} rows are more than {_MOST_ROWS}")

    # 1. Ranks among all rows; rows that do not count come last. Twice a mid-rank is first + last + 2.
    group = y[:, 1] if scored.made.weight is None else (2 - 2 * y[:, 0] - y[:, 1]).bounded_by(2)
    keys = Share(score.field, score.values, 0, score.magnitude, leads=score.leads)
    if scored.made.weight is not None:
        keys = await _behind(party.at("incomplete"), keys, scored.made.weight)
    order = await argsort(party.at("scores"), keys)
    keys, group = await order.apply(party.at("scores"), keys, group)
    first, last = await run_bounds(party.at("ties"), keys)

    # 2. Ranks within the classes: a stable sort by class keeps each in the order of scores.
    order = await argsort(party.at("classes"), group, bits=1 if scored.made.weight is None else 2)
    keys, group, ranks = await order.apply(party.at("classes"), keys, group, first + last)
    apart = keys + group * (2 * keys.magnitude + 1)
    first, last = await run_bounds(party.at("ties in classes"), apart)

    # 3. Where a row stands among all, less where it stands in its class: twice the rows of the other class below it.
    negatives, positives = scored.classes.tolist()
    before = np.zeros(rows, np.int64)
    before[negatives : negatives + positives] = 2 * negatives
    return (ranks - first - last + before).bounded_by(2 * rows)


async def _behind(party: Party, keys: Share, weight: Share) -> Share:
    """Return keys that are larger than all others where the weight is 0."""
    top = keys.magnitude + 1
    return (await multiply(party, keys - top, weight)) + top


def _weights(negatives: int, positives: int) -> tuple[int, int]:
    """Return by what the squares of the negatives and of the positives count."""
    return negatives * (positives - 1), positives * (negatives - 1)


def _decoded(area: int, spread: int, classes: NDArray[np.int64]) -> tuple[float, float]:
    """Return area and variance, exactly until the last division.

    With ``V_i = D_i / (2 n0)`` for the positives, ``D_i`` twice the negatives below, ``G_j`` twice the positives below
    a negative, DeLong's variance is ``sum (V_i - auc)^2 / (n1 (n1 - 1))`` and the same for the negatives; brought
    to the denominator ``(2 n0 n1)^2 (n0 - 1) (n1 - 1)``, the squares of D and G have the weights that were opened.
    """
    negatives, positives = classes.tolist()
    pairs = 2 * negatives * positives
    auc = Fraction(area, pairs) if pairs else Fraction(0)
    freedom = (negatives - 1) * (positives - 1)
    if freedom <= 0:
        return float(auc), math.nan
    numerator = spread - (negatives - 1) * area**2 - (positives - 1) * (pairs - area) ** 2
    return float(auc), float(Fraction(numerator, pairs**2 * freedom))


# ---- the curve ----------------------------------------------------------------------------------

_Curve = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


async def _curve(
    party: Party, scored: Scored, edges: NDArray[np.float64] | None, release: Release
) -> tuple[_Curve | None, tuple[str, ...]]:
    """Open how many rows of each class are between thresholds."""
    if edges is None:
        return (np.empty(0), np.empty(0), np.empty(0)), ()
    rules = release.disclosure
    counts = await scored.counts(edges, "left")
    starts = await wide_enough(party, counts, 0 if rules is None else rules.minimum_cell)
    kept = edges[[start - 1 for start in starts[1:]]]
    cells = grouped(counts, starts)
    reasons = []
    if len(kept) < len(edges):
        reasons.append(f"{len(edges) - len(kept)} thresholds are left out: too few rows of a class between them")
    if rules is not None and rules.rounding > 1:
        cells = (await rounded(party.at(f"rounded {len(starts)}"), cells.reshape(-1), rules.rounding)).reshape(-1, 2)
        reasons.append(f"the counts of the curve are rounded to multiples of {rules.rounding}")
    opened = await open_(party, cells, to=release.to)
    if opened is None:
        return None, ()
    below = np.cumsum(opened, axis=0)[:-1] / np.maximum(opened.sum(axis=0), 1)
    return (kept, 1.0 - below[:, 1], below[:, 0]), tuple(reasons)
