"""From the rows or columns that parties bring to the standardised design of a logistic regression, on shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import AgreementError, DataError, Party, Share, concatenate, multiply, open_
from protocols.agreement import agree
from protocols.magnitudes import agree_exponents, exponents_of
from protocols.pools.variables import Column
from protocols.regression.coding import Bounds
from protocols.regression.glm import Sample, check_crossed, presence, sample
from protocols.regression.options import Options
from protocols.regression.standardise import Design, OwnColumns, own_columns, standardise_columns, standardise_rows
from protocols.release.disclosure import Release, check_cells, check_public
from protocols.rows import Bound, column_bounds, labels, refuse, stated, within
from protocols.shares import sum_of

_NAME = "logistic_regression"
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


def _named(names: Sequence[str] | None, columns: int) -> tuple[str, ...]:
    if names is None:
        return tuple(f"x{j + 1}" for j in range(columns))
    if len(names) != columns:
        raise AgreementError(f"logistic_regression: {len(names)} names for {columns} columns")
    return tuple(str(name) for name in names)


async def prepare_rows(
    party: Party,
    X: NDArray[np.float64],
    y: Any,
    bound: Bound,
    options: Options,
    names: Sequence[str] | None,
    release: Release,
    references: NDArray[np.float64] | None = None,
) -> Prepared:
    """Agree, share and standardise, where the parties hold different rows; ``references``: first categories."""
    rows, columns = X.shape
    if y is None:
        raise DataError(f"party {party.rank}: with partition='rows' every party gives y for its rows")
    ours = labels(y, rank=party.rank, rows=rows)
    bounds = column_bounds(bound, columns, rank=party.rank)
    if bounds is not None:
        within(X, bounds, rank=party.rank, what="X")
    terms = {"columns": columns, "bound": stated(bound, bounds), **options.terms(names), **release.terms()}
    counts = [one["rows"] for one in await agree(party, "logistic_regression", terms, {"rows": rows})]
    named = _named(names, columns)
    if not sum(counts):
        raise DataError("logistic_regression: no party has a row")
    check_public(
        release.disclosure,
        "logistic_regression",
        rows=sum(counts),
        parties=sum(count > 0 for count in counts),
        parameters=columns + 1,
    )
    columns_of_cells = X if references is None else np.column_stack([X, references])
    await check_crossed(party.at("disclosure"), release.disclosure, _NAME, columns_of_cells, ours.astype(np.float64))
    if bounds is None:
        exponents = await agree_exponents(party.at("bounds"), X)
    else:
        exponents = exponents_of(bounds)
    target = concatenate(await party.share(ours, bound=1))
    design = await standardise_rows(party.at("standardise"), X, counts, exponents)
    return Prepared(design, target, None, named, n=sum(counts))


async def prepare_columns(
    party: Party,
    X: NDArray[np.float64],
    y: Any,
    bound: Bound,
    options: Options,
    names: Sequence[str] | None,
    release: Release,
    kept: NDArray[np.bool_] | None = None,
) -> Prepared:
    """Agree, standardise and share, where the parties hold different columns; ``kept`` are rows complete here."""
    rows, columns = X.shape
    if not rows:
        raise DataError(f"party {party.rank}: X has no rows")
    bounds = column_bounds(bound, columns, rank=party.rank)
    if bounds is not None:
        within(X, bounds, rank=party.rank, what="X")
    ours = None if y is None else labels(y, rank=party.rank, rows=rows)
    own = own_columns(party, X if kept is None else X[kept])
    declared = await agree(
        party,
        "logistic_regression",
        {"rows": rows, **options.terms(names), **release.terms()},
        {"columns": columns, "gives y": int(ours is not None)},
    )
    givers = [rank for rank, one in enumerate(declared) if one["gives y"]]
    if len(givers) != 1:
        said = "no party gives y" if not givers else f"parties {', '.join(map(str, givers))} give y"
        raise AgreementError(f"logistic_regression: {said}; with partition='columns' exactly one does")
    counts = tuple(one["columns"] for one in declared)
    named = _named(names, sum(counts))
    check_public(release.disclosure, "logistic_regression", rows=rows, parties=party.size, parameters=sum(counts) + 1)
    cells = X if ours is None else np.column_stack([ours, X])
    cells = cells if kept is None else cells[kept]
    await check_cells(party.at("disclosure"), release.disclosure, "logistic_regression", cells, pooled=False)
    target = await party.share(ours, bound=1, owner=givers[0], shape=(rows,))
    own = OwnColumns(own.mean, own.deviation, counts)
    if kept is not None:
        if not kept.any():
            raise DataError(f"party {party.rank}: there is no complete row")
        X = np.where(kept[:, np.newaxis], X, own.mean)  # standardised to 0
    design = await standardise_columns(party.at("standardise"), X, own)
    return Prepared(design, target, own, named, n=rows)


# ---- with categories, missing values, weights or offsets ------------------------------------------


async def prepare_sample(
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
    """Code, count and weigh what the parties bring, then prepare it as the functions above do.

    Notes
    -----
    Beside what these reveal, all parties learn what :func:`protocols.regression.glm.sample` says, in how many rows each
    variable is missing (with columns: at each party), and the power of 16 above all weights.
    """
    _check_labels(y, party.rank)
    ours = await sample(
        party.at("sample"),
        _NAME,
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
    limits = None if np.isnan(ours.coded.bounds).any() else ours.coded.bounds
    if options.partition == "rows":
        return await _sampled_rows(party, ours, limits, options, release)
    return await _sampled_columns(party, ours, limits, options, release)


def _check_labels(y: Any, rank: int) -> None:
    """Refuse an outcome that is neither 0, 1 nor missing."""
    if y is None:
        return
    array = np.asarray(y)
    known = array[array == array] if array.dtype.kind == "f" else array
    if array.dtype.kind in "fiu":
        refuse(np.asarray((known != 0) & (known != 1)), "neither 0 nor 1", "code y as 0 and 1", rank=rank, what="y")


async def _sampled_rows(
    party: Party, ours: Sample, limits: NDArray[np.float64] | None, options: Options, release: Release
) -> Prepared:
    target, references = ours.vectors["y"].values, ours.coded.references
    found = await prepare_rows(party, ours.coded.X, target, limits, options, ours.names, release, references)
    counts = sum_of(await party.share(np.array(list(ours.missing.values()), np.int64), bound=1 << 40))
    opened = np.asarray(await open_(party.at("missing"), counts)).tolist()
    found = replace(found, missing=dict(zip(ours.missing, map(int, opened), strict=True)))
    if (weights := ours.values("weights")) is not None:
        (exponent,) = (await agree_exponents(party.at("weights"), weights[:, np.newaxis])).tolist()
        shared = await party.share(np.ldexp(weights, -exponent), bound=1.0, scale=WEIGHT_SCALE)
        found = replace(found, weights=concatenate(shared), weight_power=exponent // 2, weighted=True)
    if (offset := ours.values("offset")) is not None:
        shared = await party.share(offset, bound=LARGEST_OFFSET, scale=OFFSET_SCALE)
        found = replace(found, offset=concatenate(shared))
    return found


async def _sampled_columns(
    party: Party, ours: Sample, limits: NDArray[np.float64] | None, options: Options, release: Release
) -> Prepared:
    kept, rows = ours.present, ours.rows
    references = ours.coded.references
    # Every party takes part, also one without categories.
    await check_cells(party.at("references"), release.disclosure, _NAME, references[kept], pooled=False)
    found = await prepare_columns(
        party,
        ours.coded.X,
        ours.values("y"),
        limits,
        options,
        ours.names,
        release,
        kept=None if kept.all() else kept,
    )
    present = await presence(party.at("presence"), ours)
    if present is not None:
        gone = await party.share(np.array([int((~kept).sum())], np.int64), bound=max(1, rows))
        n, *absent = (int(one) for one in await open_(party.at("missing"), present.sum(), *[g.sum() for g in gone]))
        if not party.rehearsing:
            parameters = found.design.matrix.shape[1]
            check_public(release.disclosure, _NAME, rows=n, parties=party.size, parameters=parameters)
        missing: dict[str, int | None] = {f"party {k}": count for k, count in enumerate(absent) if ours.gaps[k]}
        found = replace(found, weights=present, n=n, missing=missing)
    if "weights" in ours.givers:
        found = await _weighted(party.at("weights"), ours, found)
    if "offset" in ours.givers:
        offset = ours.values("offset")
        shared = await party.share(
            offset, bound=LARGEST_OFFSET, owner=ours.givers["offset"], shape=(rows,), scale=OFFSET_SCALE
        )
        found = replace(found, offset=shared)
    return found


async def _weighted(party: Party, ours: Sample, found: Prepared) -> Prepared:
    """Take in the weights that one party holds."""
    giver, rows, weights = ours.givers["weights"], ours.rows, ours.values("weights")
    power = 0
    if weights is not None:
        power = 2 * math.ceil(math.log2(max(float(weights.max(initial=0.0)), 2.0**-24)) / 4)
    declared = await agree(party, _NAME, {}, {"power": power + 64})
    power = declared[giver]["power"] - 64
    scaled = None if weights is None else np.ldexp(weights, -2 * power)
    shared = await party.share(scaled, bound=1.0, owner=giver, shape=(rows,), scale=WEIGHT_SCALE)
    if found.weights is not None:
        shared = (await multiply(party, shared, found.weights)).bounded_by(1)
    return replace(found, weights=shared, weight_power=power, weighted=True)
