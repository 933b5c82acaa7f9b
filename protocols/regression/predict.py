"""Scoring rows that nobody shows with a model that nobody knows."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import Party, Share, concatenate, matmul, multiply, open_, sigmoid, truncate
from mpc.tasks import side_by_side
from protocols.agreement import agree
from protocols.regression.model import SharedModel
from protocols.regression.newton import LARGEST_PREDICTOR
from protocols.regression.standardise import SPREAD_OCTAVES
from protocols.rows import matrix, within
from protocols.shares import clamped

_INPUT_SCALE = 36
_STANDARD_SCALE = 20
_WEIGHT_SCALE = 24
_RESULT_SCALE = 24


async def predict_proba(
    party: Party,
    X: Any,
    model: SharedModel,
    *,
    to: Collection[int] | None = None,
    reveal: bool = True,
) -> NDArray[np.float64] | Share | None:
    """Compute the probability of y = 1 for rows of all parties.

    Parameters
    ----------
    party : Party
    X : array_like
        Shape (rows, columns), partitioned as the model was: our rows (also none), or our columns.
    model : SharedModel
        From ``logistic_regression(..., reveal=False)``.
    to : collection of int, optional
        Ranks of the parties that learn the probabilities of all rows. By default every party learns those
        of its own rows; where columns are partitioned, all parties learn them.
    reveal : bool
        False: return the probabilities shared, scale 24, the rows of party 0 first.

    Returns
    -------
    numpy.ndarray, Share or None
        Probabilities, off by at most 1e-5; None at a party that is not in ``to``.

    Raises
    ------
    DataError
        Before anything is sent: X is NaN, infinite, of the wrong shape, or beyond the model's bounds.
    AgreementError
        The parties disagree on ``to``, ``reveal`` or the number of columns.

    Notes
    -----
    A party that may ask for many rows can compute the model from the answers, as from any model that
    answers: limit the number of rows in the study. Apart from that nothing is revealed; the number of
    rows of each party is public. Semi-honest.
    Cost: one comparison of ``2 rows`` entries and about 9 rounds; ``rows (2 columns + 4)`` elements opened.
    """
    data = matrix(X, rank=party.rank, what="X")
    recipients = None if to is None else sorted(set(to))
    scope = party.at("predict")
    by_rows = model.partition == "rows"
    columns = data.shape[1]
    if by_rows and columns == model.columns:
        within(data, np.ldexp(1.0, model.exponents), rank=party.rank, what="X")
    terms: dict[str, object] = {"to": recipients, "reveal": reveal}
    terms |= {"columns": columns} if by_rows else {"rows": len(data)}
    declared = await agree(scope, "predict_proba", terms, {"rows": len(data), "columns": columns})
    if by_rows and columns != model.columns:
        raise ValueError(f"the model has {model.columns} columns, X has {columns}")
    if not by_rows and model.own is not None and columns != model.own.mean.size:
        raise ValueError(f"the model has {model.own.mean.size} columns of ours, X has {columns}")

    # 1. Standardise: at most 2^18 standard deviations from the mean, as slopes are at most 2^18.
    if by_rows:
        counts = [one["rows"] for one in declared]
        standard = await _standardised_rows(scope, data, model, counts)
    else:
        counts = [len(data)]
        standard = await _standardised_columns(scope, data, model)

    # 2. Linear predictors, clamped to where the sigmoid is 0 or 1 to within 2e-8.
    weights = await truncate(scope, model.coefficients, _WEIGHT_SCALE)
    z = await matmul(scope, standard, weights[1:]) + weights[0]
    z = await clamped(scope, await truncate(scope, z, _STANDARD_SCALE), LARGEST_PREDICTOR)
    p = await sigmoid(scope, z, limit=LARGEST_PREDICTOR, error=1e-6)
    p = await truncate(scope, p, _RESULT_SCALE)
    if not reveal:
        return p

    # 3. To whom it may concern.
    if recipients is not None or not by_rows:
        opened = await open_(scope, p, to=recipients)
        return None if opened is None else _clipped(opened)
    edges = np.concatenate([[0], np.cumsum(counts)])
    async with side_by_side() as group:
        tasks = [
            group.create_task(open_(scope.at(f"to {rank}"), p[int(edges[rank]) : int(edges[rank + 1])], to=[rank]))
            for rank in range(party.size)
        ]
    return _clipped(tasks[party.rank].result())


async def _standardised_rows(party: Party, X: NDArray[np.float64], model: SharedModel, counts: list[int]) -> Share:
    if model.slope is None:
        raise ValueError("a model that was fitted to rows has slopes")
    u = np.ldexp(X, -model.exponents)
    shapes: list[tuple[int | None, ...]] = [(rows, model.columns) for rows in counts]
    data = concatenate(await party.share(u, bound=1.0, scale=_INPUT_SCALE, shape=shapes))
    scaled = await multiply(party, data, model.slope) - model.offset
    return await truncate(party, scaled, _STANDARD_SCALE)


async def _standardised_columns(party: Party, X: NDArray[np.float64], model: SharedModel) -> Share:
    if model.own is None:
        raise ValueError("a model that was fitted to columns knows ours")
    furthest = 2.0**SPREAD_OCTAVES
    standard = np.clip(model.own.apply(X), -furthest, furthest)
    shapes: list[tuple[int | None, ...]] = [(len(X), width) for width in model.own.counts]
    return concatenate(await party.share(standard, bound=furthest, scale=_STANDARD_SCALE, shape=shapes), axis=1)


def _clipped(probabilities: Any) -> NDArray[np.float64]:
    return np.clip(np.asarray(probabilities, dtype=np.float64), 0.0, 1.0)
