"""Harrell's concordance on shares: of all pairs whose order in time is known, how many the model puts in order."""

from __future__ import annotations

import numpy as np

from mpc import Party, Share, less_than, mask, matmul, multiply, stack, truncate
from mpc.elementary import divide
from protocols.survival.cox_order import RiskOrder

MOST_ROWS = 20_000
# Linear predictors that are closer than this count as the same: rounding is well below.
_SAME = 2.0**-19
_PREDICTOR_SCALE = 28
_RESULT_SCALE = 30
_PAIRS_AT_ONCE = 1 << 17


async def concordance(party: Party, order: RiskOrder, coefficients: Share) -> Share:
    """Compute the concordance of linear predictors and times.

    Parameters
    ----------
    party : Party
        A scope of its own.
    order : RiskOrder
    coefficients : Share
        Shape (columns,).

    Returns
    -------
    Share
        Shape (1,): of the pairs in one stratum of which one row has the event while the other is at risk (and has no
        event at the same time), the part in which the first has the higher predictor; equal ones count a half.

    Raises
    ------
    ValueError
        There are more than 20,000 rows.

    Notes
    -----
    Nothing is revealed. Semi-honest. Error: pairs whose predictors differ by less than 2^-19 count a half, as
    equal ones do; and ``2^-30``. Cost with n rows: ``3 n^2 / 2`` comparisons, in pieces of 2^17 pairs, and ``n^2``
    elements besides. Source: Harrell et al., J. Amer. Medical Assoc. 247, 1982.
    """
    rows = len(order.event)
    if rows > MOST_ROWS:
        raise ValueError(f"concordance compares all pairs of rows, at most {MOST_ROWS} of them")
    w = await mask(party, coefficients)
    eta = await truncate(party, await matmul(party, order.X, w), _PREDICTOR_SCALE)
    first = await _run_begins(party.at("begins"), order)

    # 1. For each event j, rows i before its run: they are at risk. Pieces of whole columns j.
    concordant = party.constant(0, shape=(1,))
    comparable = party.constant(0, shape=(1,))
    start = 0
    for size in order.blocks[:-1]:
        stop = start + size
        last = start + 1
        while last < stop:
            until = min(stop, last + max(1, _PAIRS_AT_ONCE // (last - start)))
            pairs = [(i, j) for j in range(last, until) for i in range(start, j)]
            i, j = np.array(pairs).T
            found = await _compared(party.at("pairs"), eta, first, order.event, i, j)
            concordant, comparable = concordant + found[0], comparable + found[1]
            last = until
        start = stop

    # 2. Twice the concordant pairs, over the comparable ones.
    most = max(1, rows * (rows - 1) // 2)
    counts = concordant.bounded_by(2 * most), comparable.bounded_by(most)
    ratio = await divide(party.at("ratio"), *counts, lower=1, upper=most, scale=_RESULT_SCALE)
    return ratio.scaled_down(1).bounded_by(1.01)


async def _run_begins(party: Party, order: RiskOrder) -> Share:
    """Return where the run of each event begins, its own place for all other rows."""
    place = party.constant(np.arange(len(order.event)).reshape(1, -1))
    _, first = await order.gather(party, place, place)
    if first is None:
        raise ValueError("a gather of two gives two")
    return first.reshape(-1)


async def _compared(
    party: Party, eta: Share, first: Share, event: Share, i: np.ndarray, j: np.ndarray
) -> tuple[Share, Share]:
    """Return twice the concordant pairs, and the comparable ones, each of shape (1,)."""
    ahead = eta[j] - eta[i]
    higher = await less_than(party.at("higher"), np.array([[-_SAME], [_SAME]]), stack([ahead, ahead]))
    at_risk = await less_than(party.at("at risk"), i, first[j])
    at_risk = await multiply(party.at("events"), at_risk, event.reshape(-1)[j])
    at_risk = await mask(party.at("weights"), at_risk.bounded_by(1))
    score = await multiply(party.at("score"), higher.sum(axis=0).bounded_by(2), at_risk)
    return score.sum().reshape(1), at_risk.sum().reshape(1)
