"""From the rows or columns that parties bring to the standardised design of a logistic regression, on shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party, Share, concatenate, multiply
from protocols.agreement import agree
from protocols.magnitudes import agree_exponents
from protocols.pools.variables import Column, numeric
from protocols.regression.coding import Bounds
from protocols.regression.glm import column_sizes, presence, row_exponents, rows_by_party
from protocols.regression.options import Options
from protocols.regression.sample import Sample, sample
from protocols.regression.standardise import Design, OwnColumns, own_columns, standardise_columns, standardise_rows
from protocols.release.disclosure import Release
from protocols.rows import refuse

NAME = "logistic_regression"
WEIGHT_SCALE = 24
OFFSET_SCALE = 24
LARGEST_OFFSET = 64.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a solver needs.

    Attributes
    ----------
    design : Design
    target : Share
        Shape (rows,), 0 and 1; whatever where a row does not count.
    own : OwnColumns or None
        With ``partition="columns"``: ours.
    names : tuple of str
    weights : Share or None
        Shape (rows,), in units of ``4^weight_power``, at most 1; 0 where a row does not count.
    offset : Share or None
        Shape (rows,), scale 24.
    weight_power : int
    weighted : bool
        Whether weights were given.
    n : int
        Rows that count.
    missing : dict of str to int
    """

    design: Design
    target: Share
    own: OwnColumns | None
    names: tuple[str, ...]
    weights: Share | None = None
    offset: Share | None = None
    weight_power: int = 0
    weighted: bool = False
    n: int = 0
    missing: dict[str, int | None] = field(default_factory=dict)


async def prepare(
    party: Party,
    X: Any,
    y: Any,
    *,
    weights: Any,
    offset: Any,
    columns: Sequence[Column] | None,
    bound: Bounds,
    names: Sequence[str] | None,
    missing: str,
    options: Options,
    release: Release,
) -> Prepared:
    """Code, count, check, share and standardise what the parties bring.

    Notes
    -----
    All parties learn what :func:`protocols.regression.sample.sample` says; each party's number of complete rows, or of
    columns, and in how many rows each variable is missing (with columns: at each party); without bounds the power of
    16 above the largest value of each column, and of all weights.
    """
    _check_labels(y, party.rank)
    ours = await sample(
        party.at("sample"),
        NAME,
        X,
        {"y": (y, {}), "weights": (weights, {"least": 0.0}), "offset": (offset, {"bound": LARGEST_OFFSET})},
        columns=columns,
        bound=bound,
        names=names,
        partition=options.partition,
        missing=missing,
        release=release,
        terms=options.terms(names),
    )
    if options.partition == "rows":
        return await _from_rows(party, ours, release)
    return await _from_columns(party, ours, release)


def _check_labels(y: Any, rank: int) -> None:
    """Refuse an outcome that is neither 0, 1 nor missing."""
    if y is not None:
        found = numeric(y, rank=rank, what="y")
        other = found.present & (found.values != 0) & (found.values != 1)
        bad = np.asarray(other[:, 0] if other.shape[1] == 1 else other)
        refuse(bad, "neither 0 nor 1", "code y as 0 and 1", rank=rank, what="y")


async def _from_rows(party: Party, ours: Sample, release: Release) -> Prepared:
    counts, missing = await rows_by_party(party, NAME, ours, release)
    shapes: list[tuple[int | None, ...]] = [(rows,) for rows in counts]

    async def shared(values: NDArray[Any], bound: float, scale: int = 0) -> Share:
        return concatenate(await party.share(values, bound=bound, scale=scale, shape=shapes))

    exponents = await row_exponents(party.at("bounds"), ours.coded)
    target = await shared(ours.vectors["y"].values.astype(np.int64), 1)
    design = await standardise_rows(party.at("standardise"), ours.coded.X, counts, exponents)
    found = Prepared(design, target, None, ours.names, n=sum(counts), missing=missing)
    if (weights := ours.values("weights")) is not None:
        (exponent,) = (await agree_exponents(party.at("weights"), weights[:, np.newaxis])).tolist()
        scaled = await shared(np.ldexp(weights, -exponent), 1.0, WEIGHT_SCALE)
        found = replace(found, weights=scaled, weight_power=exponent // 2, weighted=True)
    if (offset := ours.values("offset")) is not None:
        found = replace(found, offset=await shared(offset, LARGEST_OFFSET, OFFSET_SCALE))
    return found


async def _from_columns(party: Party, ours: Sample, release: Release) -> Prepared:
    rows, kept, y = ours.rows, ours.present, ours.values("y")
    if not rows:
        raise DataError(f"party {party.rank}: X has no rows")
    if not kept.any():
        raise DataError(f"party {party.rank}: there is no complete row")
    own = own_columns(party, ours.coded.X[kept], ours.columns)
    present = await presence(party.at("presence"), ours)
    n, missing = await column_sizes(party.at("sizes"), NAME, ours, present, release)
    if not n and not party.rehearsing:
        raise DataError(f"{NAME}: there is no complete row")
    answer = None if y is None else y.astype(np.int64)
    target = await party.share(answer, bound=1, owner=ours.givers["y"], shape=(rows,))
    X = np.where(kept[:, np.newaxis], ours.coded.X, own.mean)  # standardised to 0 where it is missing
    design = await standardise_columns(party.at("standardise"), X, own)
    found = Prepared(design, target, own, ours.names, weights=present, n=n, missing=missing)
    if "weights" in ours.givers:
        found = await _weighted(party.at("weights"), ours, found)
    if "offset" in ours.givers:
        offset, giver = ours.values("offset"), ours.givers["offset"]
        shared = await party.share(offset, bound=LARGEST_OFFSET, owner=giver, shape=(rows,), scale=OFFSET_SCALE)
        found = replace(found, offset=shared)
    return found


async def _weighted(party: Party, ours: Sample, found: Prepared) -> Prepared:
    """Take in the weights that one party holds."""
    giver, rows, weights = ours.givers["weights"], ours.rows, ours.values("weights")
    power = 0
    if weights is not None:
        power = 2 * math.ceil(math.log2(max(float(weights.max(initial=0.0)), 2.0**-24)) / 4)
    declared = await agree(party, NAME, {}, {"power": power + 64})
    power = declared[giver]["power"] - 64
    scaled = None if weights is None else np.ldexp(weights, -2 * power)
    shared = await party.share(scaled, bound=1.0, owner=giver, shape=(rows,), scale=WEIGHT_SCALE)
    if found.weights is not None:
        shared = (await multiply(party, shared, found.weights)).bounded_by(1)
    return replace(found, weights=shared, weight_power=power, weighted=True)
