"""Whether probabilities mean what they say: calibration tables and the Brier score."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import Party, Share, multiply, open_, truncate
from mpc.elementary import divide
from protocols.prediction.scores import Scored, bring_together, grouped, probabilities, public_edges, wide_enough
from protocols.regression.logistic import logistic_regression
from protocols.release.disclosure import Disclosure, Release
from protocols.release.outcome import Result, notes, number, table
from protocols.release.suppression import rounded
from protocols.shares import sum_of

# Sums of squares are opened with so many fraction bits.
_SQUARE_SCALE = 36
_ROOM_BITS = 76
_MEAN_SCALE = 40
# Logits of probabilities nearer to 0 or 1 than this are cut.
_NEAREST = 1e-6


@dataclass(frozen=True, eq=False)
class BrierResult(Result):
    """The mean squared difference between probability and outcome.

    Attributes
    ----------
    score : float
    skill : float
        One less the score divided by that of the prevalence, given to every row.
    n, positives, negatives : int
    names : tuple of str
    missing : dict of str to int or None
    suppressed : tuple of str
    """

    score: float
    skill: float
    n: int
    positives: int
    negatives: int
    names: tuple[str, ...]
    missing: dict[str, int | None]
    suppressed: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return score and skill."""
        text = f"Brier score of {self.names[0]} for {self.names[1]}: {number(self.score)} (skill {number(self.skill)})"
        return "\n".join([text, *notes(self.n, self.missing, self.suppressed)])


@dataclass(frozen=True, eq=False)
class CalibrationResult(Result):
    """Predicted probabilities beside observed frequencies.

    Attributes
    ----------
    edges : numpy.ndarray
        Shape (bins + 1,), from 0 to 1; a probability that equals an edge belongs to the bin below.
    count, positives : numpy.ndarray
        Rows of each bin, and those with y = 1; as rounded, if the disclosure control rounds.
    mean_predicted, observed : numpy.ndarray
        NaN for an empty bin.
    in_the_large : float
        Observed prevalence less the mean prediction.
    expected_calibration_error : float
        Mean distance between observed and predicted, of the bins, weighted by their rows.
    brier : float
    slope, slope_std_err, intercept : float
        Of a logistic regression of y on the logit of the probability; NaN unless asked for.
    n : int
    names : tuple of str
    missing : dict of str to int or None
    suppressed : tuple of str
    """

    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    positives: NDArray[np.int64]
    mean_predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    in_the_large: float
    expected_calibration_error: float
    brier: float
    slope: float
    slope_std_err: float
    intercept: float
    n: int
    names: tuple[str, ...]
    missing: dict[str, int | None]
    suppressed: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return the table, and what sums it up."""
        rows = [
            [f"{low:g} to {high:g}", str(n), number(p), number(o)]
            for low, high, n, p, o in zip(
                self.edges[:-1], self.edges[1:], self.count, self.mean_predicted, self.observed, strict=True
            )
        ]
        head = ["probability", "rows", "predicted", "observed"]
        lines = [table(head, rows, title=f"Calibration of {self.names[0]} for {self.names[1]}")]
        lines.append(
            f"In the large: {number(self.in_the_large)}  Brier score: {number(self.brier)}  "
            f"Expected calibration error: {number(self.expected_calibration_error)}"
        )
        if not math.isnan(self.slope):
            lines.append(
                f"Slope: {number(self.slope)} (std err {number(self.slope_std_err)})  "
                f"Intercept: {number(self.intercept)}"
            )
        return "\n".join([*lines, *notes(self.n, self.missing, self.suppressed)])


async def brier_score(
    party: Party,
    probability: Any,
    y: Any,
    *,
    partition: str = "rows",
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> BrierResult | None:
    """Compute the Brier score over the rows of all parties.

    Parameters and errors as of :func:`calibration`.

    Returns
    -------
    BrierResult or None
        None at a party that is not in ``to``.

    Notes
    -----
    All parties learn how many rows there are of each class and how often each variable is missing; the recipients
    the score. Semi-honest. Error: below 2^-24, mostly much less.
    Cost besides those of pool and sizes: where parties hold both columns, 2 rounds and 1 element. Else 4 rounds and
    ``2 rows + 2`` elements.
    """
    probabilities(probability, rank=party.rank)
    release = Release.of(party, to, disclosure)
    scope = party.at("brier")
    scored = await bring_together(
        scope, "brier_score", probability, y, partition=partition, bound=1.0, release=release, terms={}
    )
    total = await open_(scope, await _squares(scope.at("squares"), scored), to=release.to)
    if total is None:
        return None
    n = scored.sizes.n
    score = float(total) / max(n, 1)
    negatives, positives = scored.classes.tolist()
    reference = positives * negatives / max(n, 1) ** 2
    skill = 1 - score / reference if reference else math.nan
    return BrierResult(score, skill, n, positives, negatives, scored.names, scored.sizes.missing)


async def calibration(
    party: Party,
    probability: Any,
    y: Any,
    *,
    bins: int | Sequence[float] = 10,
    slope: bool = False,
    partition: str = "rows",
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> CalibrationResult | None:
    """Compare predicted probabilities with observed frequencies, over the rows of all parties.

    Parameters
    ----------
    party : Party
    probability : array_like, Share or None
        Of y = 1, for our rows; or shared, see :func:`protocols.prediction.prediction_quality.roc_auc`.
    y : array_like or None
        0 and 1, of our rows.
    bins : int or sequence of float
        How many bins of equal width from 0 to 1, or their public inner edges, ascending.
    slope : bool
        Also fit a logistic regression of y on the logit: takes probabilities that the holders of rows give.
    partition : {"rows", "columns"}
    to : collection of int, optional
        Ranks of the parties that learn the result; all by default.
    disclosure : Disclosure, optional
        Neighbouring bins are put together until each holds the minimum of rows of both classes.

    Returns
    -------
    CalibrationResult or None
        None at a party that is not in ``to``.

    Raises
    ------
    DataError
        Before anything is sent: a probability is below 0 or above 1, y is neither 0 nor 1, shapes differ. At all
        parties: a class has no row.
    AgreementError
        The parties differ in a parameter.
    DisclosureError
        At all parties: too few rows, or too few of a class.

    Notes
    -----
    All parties learn how many rows there are of each class, how often each variable is missing, and under a minimum
    cell which bins were put together (:func:`protocols.prediction.scores.wide_enough`). The recipients learn for each
    bin its rows of each class and its sum of probabilities, and the Brier score; with ``slope`` intercept, slope and
    their standard errors (see :func:`protocols.logistic_regression`). Semi-honest.
    Error: probabilities are rounded to 2^-40 (shared ones to their scale), the Brier score is off by less than
    2^-24; where counts are rounded, means are off by 1e-9.
    Cost besides those of pool and sizes: where parties hold both columns, 4 rounds and ``3 bins + 2`` elements. Else
    two comparisons of ``(bins - 1) rows`` entries, 6 rounds and about ``(2 bins + 4) rows`` elements.
    """
    probabilities(probability, rank=party.rank)
    edges = _edges(bins)
    if slope and (isinstance(probability, Share) or partition != "rows"):
        raise ValueError("calibration: slope takes probabilities of one's own rows, which shared ones are not")
    release = Release.of(party, to, disclosure)
    terms = {"edges": edges.tolist(), "slope": slope}
    scope = party.at("calibration")
    scored = await bring_together(
        scope, "calibration", probability, y, partition=partition, bound=1.0, release=release, terms=terms
    )
    found = await _bins(scope.at("table"), scored, edges, release)
    line = await _line(scope.at("slope"), scored, release) if slope else (math.nan, math.nan, math.nan)
    if found is None or line is None:
        return None
    starts, cells, means, total, squares, reasons = found
    n, count = scored.sizes.n, cells.sum(axis=1)
    observed = np.where(count > 0, cells[:, 1] / np.maximum(count, 1), np.nan)
    apart = np.where(count > 0, np.abs(observed - means), 0.0)
    kept = edges[[start - 1 for start in starts[1:]]]
    return CalibrationResult(
        np.array([0.0, *kept, 1.0]),
        count,
        cells[:, 1],
        means,
        observed,
        float(scored.classes[1] - total) / max(n, 1),
        float((count * apart).sum() / max(int(count.sum()), 1)),
        squares / max(n, 1),
        *line,
        n,
        scored.names,
        scored.sizes.missing,
        reasons,
    )


def _edges(bins: int | Sequence[float]) -> NDArray[np.float64]:
    """Return the inner edges."""
    if isinstance(bins, int):
        if not 2 <= bins <= 1000:
            raise ValueError("there are from 2 to 1000 bins")
        return np.arange(1, bins) / bins
    edges = public_edges(bins, "bins")
    if edges[0] <= 0 or edges[-1] >= 1:
        raise ValueError("inner edges of bins are above 0 and below 1")
    return edges


_Found = tuple[list[int], NDArray[np.int64], NDArray[np.float64], float, float, tuple[str, ...]]


async def _bins(party: Party, scored: Scored, edges: NDArray[np.float64], release: Release) -> _Found | None:
    """Open the table, bin by bin, and the sum of squares."""
    rules = release.disclosure
    counts = await scored.counts(edges, "right")
    sums = await scored.sums(edges)
    squares = await _squares(party.at("squares"), scored)
    starts = await wide_enough(party, counts, 0 if rules is None else rules.minimum_cell)
    cells, sums = grouped(counts, starts), grouped(sums, starts)
    reasons = []
    if len(starts) <= len(edges):
        reasons.append(f"{len(edges) + 1 - len(starts)} bins are put together with others: too few rows of a class")
    opening = [sums, sums.sum()]
    if rules is not None and rules.rounding > 1:
        # The sums would tell the counts that are rounded; so the division happens on shares.
        bits = scored.sizes.n.bit_length()
        scope = party.at(f"rounded {len(starts)} of {bits} bits")
        rows, most = cells.sum(axis=1).bounded_by(1 << bits), 1.001 * 2.0**bits
        opening[0] = await divide(scope.at("means"), sums.bounded_by(most), rows, lower=1.0, scale=_MEAN_SCALE)
        cells = (await rounded(scope, cells.reshape(-1), rules.rounding)).reshape(-1, 2)
        reasons.append(f"counts are rounded to multiples of {rules.rounding}")
    opened = await open_(party, cells, *opening, squares, to=release.to)
    if opened[0] is None:
        return None
    table_, by_bin, total, square = opened
    rows_ = np.asarray(table_, dtype=np.int64).sum(axis=1)
    means = by_bin if rules is not None and rules.rounding > 1 else by_bin / np.maximum(rows_, 1)
    means = np.where(rows_ > 0, means, np.nan)
    return starts, np.asarray(table_, dtype=np.int64), means, float(total), float(square), tuple(reasons)


async def _squares(party: Party, scored: Scored) -> Share:
    """Return the sum of squared differences between probability and outcome."""
    own = scored.own
    if own is not None:
        ours = float(((own[0] - own[1]) ** 2).sum())
        return sum_of(await party.share(np.float64(ours), bound=float(1 << 32), scale=_SQUARE_SCALE, shape=()))
    score, y = await scored.vectors()
    apart = score - y[:, 1].lifted(score.scale)
    if scored.made.weight is not None:
        apart = await multiply(party, apart, scored.made.weight)
    scale = min(30, (_ROOM_BITS - len(score).bit_length()) // 2)
    apart = await truncate(party, apart, min(scale, score.scale))
    square = (await multiply(party, apart, apart)).sum()
    return await truncate(party, square.bounded_by(1.01 * len(score) + 1), _SQUARE_SCALE)


async def _line(party: Party, scored: Scored, release: Release) -> tuple[float, float, float] | None:
    """Return slope, its standard error and intercept of y on the logit."""
    own = scored.own
    if own is None:
        raise TypeError("the slope takes probabilities of one's own rows")
    p = np.clip(own[0], _NEAREST, 1 - _NEAREST)
    logit = np.log(p / (1 - p)).reshape(-1, 1)
    fit = await logistic_regression(
        party, logit, own[1], bound=14.0, names=["logit"], to=release.to, disclosure=release.disclosure
    )
    return None if fit is None else (float(fit.coef[0]), float(fit.std_err[1]), float(fit.intercept))
