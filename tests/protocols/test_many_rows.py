"""Passes over rows block by block: the same results as at once, on both sides of a block's end, in little memory."""

import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mpc import DataError, Party
from mpc.memory import run_in_memory
from protocols import (
    Disclosure,
    contingency_table,
    linear_regression,
    proportion,
    secure_mean,
    secure_sum,
    secure_variance,
    t_test,
)
from protocols.pools.arrays import cells_of, local_sum, own_array
from protocols.pools.blocks import Spread, Total, blocks, in_units
from protocols.pools.frames import Frame
from protocols.pools.numbers import Numeric
from protocols.pools.variables import Categorical, Column, categorical, numeric
from protocols.release.disclosure import quotas

BLOCK = 1 << 16
AROUND = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3]
RNG = np.random.default_rng(5)


def run(program: Callable[[Party, Any], Any], inputs: list[Any]) -> Any:
    return run_in_memory(program, inputs, preprocessing="dealer")[0]


# ---- blocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", AROUND)
@pytest.mark.parametrize("columns", [1, 4, 5, 300, 10**6])
def test_blocks_cover_all_rows_once(rows: int, columns: int) -> None:
    found = list(blocks(rows, columns))
    assert [0, *(part.stop for part in found)] == [*(part.start for part in found), rows]
    assert all(0 < part.stop - part.start <= BLOCK for part in found)
    assert all((part.stop - part.start) * columns <= max(1 << 18, 256 * columns) for part in found)


def test_a_total_keeps_what_each_step_rounds() -> None:
    found = Total((2,))
    for part in (1e16, 1.0, 1.0, -1e16):
        found.add(np.array([part, 0.0]))
    found.add(np.array(3.0), at=1)
    assert found.value.tolist() == [2.0, 3.0]


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_sums_are_as_exact_as_they_say(offset: float) -> None:
    values = RNG.standard_normal(5 * BLOCK + 7) + offset
    exact = sum(map(Fraction, values.tolist()), Fraction(0))
    error = abs(Fraction(float(local_sum(values))) - exact)
    assert error < Fraction(float(np.abs(values).sum())) / 2**48


@pytest.mark.parametrize("rows", AROUND)
@pytest.mark.parametrize("diagonal", [True, False])
@pytest.mark.parametrize("kind", ["alone", "weights", "groups"])
def test_the_spread_of_blocks_is_that_of_all_rows(rows: int, diagonal: bool, kind: str) -> None:
    values = RNG.standard_normal((rows, 2)) * [1.0, 2.0] + [1000.0, -3.0]
    weights = RNG.random(rows) if kind == "weights" else None
    codes = RNG.integers(0, 3, rows) if kind == "groups" else None
    groups = 3 if kind == "groups" else 1
    found = Spread(groups, 2, diagonal=diagonal)
    for part in blocks(rows, 2):
        found.add(
            in_units(values[part], np.array([10, 2])),
            weights=None if weights is None else weights[part],
            codes=None if codes is None else codes[part].astype(np.int8),
        )
    units, held = values / [1024, 4], np.ones(rows) if weights is None else weights
    for k in range(groups):
        ours = np.ones(rows, bool) if codes is None else codes == k
        assert found.weight[k] == pytest.approx(held[ours].sum())
        mean = np.average(units[ours], axis=0, weights=held[ours]) if ours.any() else np.zeros(2)
        np.testing.assert_allclose(found.means[k], mean, rtol=1e-12)  # numpy adds up rows one by one
        scatter = ((units[ours] - 0.5).T * held[ours]) @ (units[ours] - 0.5)
        expected = np.diag(scatter) if diagonal else scatter
        np.testing.assert_allclose(found.around(np.full((groups, 2), 0.5))[k], expected, rtol=1e-11, atol=1e-9)


def test_units_beyond_the_range_of_a_factor() -> None:
    exponents = np.array([1023, -1060])
    values = np.array([[1e308, 1e-318], [-1.0, 0.0]])
    np.testing.assert_array_equal(in_units(values, exponents), np.ldexp(values, -exponents).T)


# ---- variables ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64, np.float32, np.float64, np.bool_])
def test_numbers_of_any_type_are_not_copied(dtype: Any) -> None:
    given = (np.arange(2 * (BLOCK + 1)) % 2).reshape(-1, 2).astype(dtype)
    found = numeric(given, rank=0, what="x", bound=1.0)
    assert found._columns is given
    assert (found.whole, found.gaps, found.largest.tolist()) == (True, False, [0.0, 1.0])
    assert found.values.dtype == np.float64
    np.testing.assert_array_equal(found.values, given)
    assert found.present.all()
    assert found.complete.all()
    if dtype is np.float64:
        assert np.shares_memory(found.values, given)
        with pytest.raises(ValueError, match="read-only"):
            found.values[0] = 7


@pytest.mark.parametrize("row", [0, BLOCK - 1, BLOCK, 2 * BLOCK])
def test_what_is_wrong_is_found_in_each_block(row: int) -> None:
    given = np.zeros((2 * BLOCK + 1, 2))
    given[row, 1] = np.nan
    found = numeric(given, rank=0, what="x")
    assert found.gaps
    assert np.flatnonzero(~found.complete).tolist() == [row]
    assert found.values[row].tolist() == [0.0, 0.0]
    assert found.kept(found.complete).rows == 2 * BLOCK
    given[row, 1] = np.inf
    with pytest.raises(DataError, match="party 3: 1 values of x are infinite"):
        numeric(given, rank=3, what="x")
    with pytest.raises(DataError, match=r"party 3: 1 of .* values of the input are NaN or infinite in column 1"):
        own_array(3, given, None)
    given[row, 1] = -9.0
    with pytest.raises(DataError, match=r"of x are beyond the agreed bound of 8 in column 1 \(1 rows"):
        numeric(given, rank=0, what="x", bound=8.0)
    with pytest.raises(DataError, match=r"of the input are beyond the agreed bound of 8 in column 1 \(1 rows"):
        own_array(0, given, 8.0)
    with pytest.raises(DataError, match="1 of 131073 values of x are outside the declared bounds"):
        Frame({"x": given[:, 1]}, [Column("x", "number", lower=-8, upper=20)], rank=0)
    assert not numeric(given + 0.5, rank=0, what="x").whole


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint64, np.float32, np.float64, "Int64", "category", str])
def test_categories_of_any_type(dtype: Any) -> None:
    plain = np.concatenate([np.zeros(BLOCK, np.int64), [1, 2, 1]])
    given = plain.astype(dtype) if not isinstance(dtype, str) else pd.Series(plain).astype(dtype)
    labels: tuple[Any, ...] = ("0", "1", "2") if dtype is str else (0, 1, 2)
    found = categorical(given, rank=0, what="g", categories=labels)
    assert (found.own, found.rows) == (labels, len(plain))
    assert found.codes.dtype == np.int64
    np.testing.assert_array_equal(found.codes, plain)
    turned = found.relabelled({labels[0]: "a", labels[1]: None, labels[2]: "b"}, ("b", "a"))
    np.testing.assert_array_equal(turned.codes, np.array([1, -1, 0])[plain])
    assert turned.complete.tolist() == (plain != 1).tolist()
    with pytest.raises(DataError, match="party 7: 3 of 65539 values of g are none of its 2 categories"):
        categorical(given, rank=7, what="g", categories=(labels[0], "c"))


def test_numbers_far_apart_are_categories_too() -> None:
    given = np.array([0.0, 2.0**52, np.nan, 0.0, -(2.0**52)])
    found = categorical(given, rank=0, what="g")
    assert found.labels == (0, 2**52, None, 0, -(2**52))
    assert categorical(np.array([2**63 - 1, -(2**63 - 1)]), rank=0, what="g").own == (-(2**63 - 1), 2**63 - 1)
    assert categorical(np.array([np.nan, np.nan]), rank=0, what="g").labels == (None, None)
    with pytest.raises(DataError, match="no category"):
        categorical(np.array([0.0, np.inf]), rank=0, what="g")
    with pytest.raises(DataError, match="no category"):
        categorical(np.array([2.0**60, 2.0**60 + 256]), rank=0, what="g")


def test_categories_that_are_made_of_numbers() -> None:
    values = np.arange(BLOCK + 2.0)
    values[-1] = np.nan
    numbers = numeric(values, rank=0, what="x")
    found = Categorical.of_numbers("x", 2, numbers, lambda part: part >= BLOCK - 1)
    same = Categorical.of_codes("x", 2, (values >= BLOCK - 1).astype(np.int64), numbers.complete)
    assert np.bincount(found.codes + 1).tolist() == np.bincount(same.codes + 1).tolist() == [1, BLOCK - 1, 2]


# ---- sums ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64, np.bool_])
def test_sums_of_integers_are_exact(dtype: Any) -> None:
    info = None if dtype is np.bool_ else np.iinfo(dtype)
    given = np.full(BLOCK + 3, True if info is None else info.max, dtype)
    assert int(local_sum(given)) == (BLOCK + 3) * int(given[0])
    if info is not None:
        assert local_sum(np.full((BLOCK + 3, 2), info.min, dtype)).tolist() == [(BLOCK + 3) * int(info.min)] * 2


@pytest.mark.parametrize("ones", [0, 1, 4, 5, 6, BLOCK])
@pytest.mark.parametrize("rows", [9, 10, 11, 30, BLOCK + 9])
def test_few_rows_keep_the_rule_for_cells_as_all_of_them(ones: int, rows: int) -> None:
    disclosure = Disclosure("few", minimum_cell=5)
    column = (np.arange(rows) < ones).astype(np.float64)
    other = column.copy()
    other[-1] = 0.5
    table = np.stack([column, 1 - column, other], axis=1)
    few = cells_of(table, disclosure)
    assert len(few) <= max(10, 9)
    for ours, all_of_them in zip(quotas(disclosure, rows, few), quotas(disclosure, rows, table), strict=True):
        np.testing.assert_array_equal(ours, all_of_them)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16])
def test_means_and_variances_over_several_blocks(dtype: Any) -> None:
    parts = [(RNG.standard_normal((rows, 2)) * 50).astype(dtype) for rows in (BLOCK + 1, 0, 7)]
    whole = np.concatenate(parts).astype(np.float64)

    async def program(party: Party, data: Any) -> Any:
        return (
            await secure_sum(party.at("sum"), data),
            await secure_mean(party.at("mean"), data),
            await secure_mean(party.at("secret"), data, count="secret"),
            await secure_variance(party.at("variance"), data, bound=1000.0),
            await secure_variance(party.at("unbounded"), data),
        )

    total, mean, secret, variance, unbounded = run(program, parts)
    np.testing.assert_allclose(total, whole.sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(mean, whole.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(secret, whole.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(variance, whole.var(axis=0, ddof=1), rtol=1e-8)
    np.testing.assert_allclose(unbounded, whole.var(axis=0, ddof=1), rtol=1e-8)


def test_a_vector_may_change_once_it_is_given() -> None:
    async def program(party: Party, data: Any) -> Any:
        async def change() -> None:
            data[:] = 99

        import asyncio

        async with asyncio.TaskGroup() as group:
            found = group.create_task(secure_sum(party, data))
            group.create_task(change())
        return found.result()

    assert run(program, [np.array([1.0, 2.0]), np.array([10.0, 20.0])]).tolist() == [11.0, 22.0]


# ---- analyses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("gaps", [False, True])
def test_analyses_of_several_blocks(gaps: bool) -> None:
    frames = []
    for rows in (BLOCK + 5, 40):
        frame = pd.DataFrame({"x": RNG.standard_normal(rows) + 5, "z": RNG.standard_normal(rows)})
        frame["g"] = RNG.integers(0, 2, rows)
        frame["h"] = RNG.choice(["p", "q", "r"], rows)
        frame["y"] = 2 * frame.x - frame.z + frame.g.astype(float) + RNG.standard_normal(rows)
        frame["w"] = RNG.random(rows)
        if gaps:
            frame.loc[rows - 3, "x"] = np.nan
            frame.loc[3, "h"] = None
            frame["g"] = frame.g.astype("Int64")
            frame.loc[[3, 7], "g"] = pd.NA
        frames.append(frame)
    whole = pd.concat(frames, ignore_index=True)

    async def program(party: Party, frame: Any) -> Any:
        labels = ("p", "q", "r")
        return (
            await contingency_table(
                party.at("table"), frame.g, frame.h, row_categories=(0, 1), column_categories=labels
            ),
            await proportion(party.at("part"), frame.h, categories=labels),
            await t_test(party.at("t"), frame.x, group=frame.g, categories=(0, 1)),
            await linear_regression(party.at("plain"), frame[["x", "z", "g"]], frame.y),
            await linear_regression(party.at("weighted"), frame[["x", "z"]].to_numpy(), frame.y, weights=frame.w),
        )

    table, part, test, plain, weighted = run(program, frames)
    crossed = pd.crosstab(whole.g, whole.h)
    np.testing.assert_array_equal(table.counts, crossed.to_numpy())
    assert table.n == whole[["g", "h"]].notna().all(axis=1).sum()
    np.testing.assert_array_equal(part.counts, whole.h.value_counts().sort_index())
    complete = whole.dropna(subset=["x", "g"])
    by = complete.groupby("g").x
    assert abs(test.estimate) == pytest.approx(abs(by.mean().diff().iloc[-1]), rel=1e-7)
    assert test.std_err == pytest.approx(np.sqrt((by.var() / by.size()).sum()), rel=1e-7)
    for result, columns, weighing in ((plain, ["x", "z", "g"], False), (weighted, ["x", "z"], True)):
        complete = whole.dropna(subset=columns)
        root = np.sqrt(complete.w.to_numpy()) if weighing else np.ones(len(complete))
        X = np.column_stack([np.ones(len(complete)), complete[columns].to_numpy(float)]) * root[:, np.newaxis]
        expected = np.linalg.lstsq(X, complete.y.to_numpy() * root, rcond=None)[0]
        assert result.n == len(complete)
        np.testing.assert_allclose(result.coef, expected[1:], rtol=1e-6)


@pytest.mark.parametrize("what", ["mean", "table", "labels", "regression", "frame", "gaps"])
def test_memory_does_not_grow_with_rows(what: str) -> None:
    rows = 2_000_000
    X, codes = RNG.standard_normal((rows, 5)), RNG.integers(0, 4, rows)
    y = X.sum(axis=1)
    if what == "gaps":
        X[::1000, 2] = np.nan
    frame = {f"x{k}": np.ascontiguousarray(X[:, k]) for k in range(5)}
    small = X[:50], codes[:50], y[:50], {name: column[:50] for name, column in frame.items()}

    async def program(party: Party, data: Any) -> Any:
        X, codes, y, frame = data
        if what == "mean":
            await secure_mean(party.at("mean"), X, bound=10.0)
            return await secure_variance(party, X)
        if what == "table":
            return await contingency_table(party, codes, codes, row_categories=range(4), column_categories=range(4))
        if what == "labels":
            return await proportion(party, codes)
        return await linear_regression(party, frame if what == "frame" else X, y)

    run(program, [small, small])  # what is imported and kept is not counted
    tracemalloc.start()
    try:
        run(program, [(X, codes, y, frame), small])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The smallest copy of a column of numbers would be 16 MB; marks of rows are 2 MB.
    assert peak < 24_000_000


def test_numbers_of_another_protocol_keep_their_marks() -> None:
    present = np.array([[True], [False]])
    found = Numeric(("x",), np.array([[1.0], [0.0]]), present)
    assert found.gaps
    assert found.present is present
    assert found.block(slice(1, 2))[1].tolist() == [[False]]
    assert found.kept(np.array([True, False])).gaps is False
