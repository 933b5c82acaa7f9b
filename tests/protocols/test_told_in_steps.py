"""Results that are told in steps under a minimum cell: how they are rounded, and what they leave open."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mpc import Party, concatenate, open_
from mpc.prepare import prepare
from protocols.comparisons.rank_ties import tie_steps
from protocols.comparisons.ranks import kruskal_wallis, mann_whitney
from protocols.prediction.prediction_quality import roc_auc
from protocols.prediction.roc_steps import roc_steps
from protocols.release.disclosure import Disclosure
from protocols.release.steps import at_least, in_buckets, nearest
from protocols.survival.log_rank import log_rank
from tests.protocols.helpers import run
from tests.protocols.promises import at_rank, watched

CELLS = Disclosure("cells", minimum_cell=5)


def split(*columns: Any) -> list[Any]:
    """Rows of three parties."""
    return list(zip(*(np.split(column, [17, 40]) for column in columns), strict=True))


def tables(sizes: tuple[int, int], levels: int) -> tuple[Any, Any]:
    """All ways in which groups of these sizes can have so many values: shapes (ways, levels)."""
    one, other = (
        np.array([way for way in itertools.product(range(n + 1), repeat=levels) if sum(way) == n]) for n in sizes
    )
    return one, other


def determined(cells: Any, told: Any, least: int) -> float:
    """Return for what part of the tables with a cell of 1 to least - 1 rows what is told leaves one number for it."""
    _, same = np.unique(told, axis=0, return_inverse=True)
    same = same.reshape(-1)
    small, known = np.zeros(len(same), np.bool_), np.zeros(len(same), np.bool_)
    for cell in cells.T:
        low, high = np.full(same.max() + 1, 1 << 30), np.full(same.max() + 1, -1)
        np.minimum.at(low, same, cell)
        np.maximum.at(high, same, cell)
        few = (cell > 0) & (cell < least)
        small |= few
        known |= few & (low == high)[same]
    return float(known[small].mean())


def of_pairs(one: Any, other: Any) -> Any:
    """Return the cells of each pair of ways."""
    return np.concatenate([np.repeat(one, len(other), axis=0), np.tile(other, (len(one), 1))], axis=1)


# ---- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("preprocessing", "parties"), [("dealer", 2), ("prss", 3), ("ot", 2)])
def test_rounding_on_shares(preprocessing: str, parties: int) -> None:
    whole = np.array([0, 1, 6, 7, 8, 20, 21, 22, 1 << 40, (1 << 47) - 1, 12_345_678_901])
    some = np.array([0.5, -0.5, 1.0, -0.999999, 3.14159, -1e-3, 0.0, 1e-9, 1000.0, 0.74999, 0.7501])

    async def program(party: Party, own: Any) -> Any:
        (x, *_), (z, *_) = [
            await party.at(name).share(values * (party.rank == 0), bound=bound, shape=values.shape, scale=scale)
            for name, values, bound, scale in (("x", whole, 1 << 47, 0), ("z", some, 1024.0, 40))
        ]
        quotients = [await nearest(party.at(f"by {s}"), x, s, bits=48, most_bits=28) for s in (1 << 20, 1 << 24)]
        fine = await nearest(party.at("fine"), x[:8], 14, bits=48, most_bits=28)
        told = await in_buckets(party.at("told"), z, 48, low=14, signed=True, most=64)
        reached = await at_least(party.at("limits"), x[6:7], [0, 21, 22, 1 << 60], count=6, bound=1 << 47)
        opened = await open_(party, concatenate([*quotients, fine, reached]))
        return np.asarray(opened), told.read(await open_(party, told.parts))

    with watched() as promises:
        opened, numbers = run(at_rank(program), [None] * parties, preprocessing)[0]
    promises.check(parties)
    expected = [(int(v) + (s >> 1)) // s for s in (1 << 20, 1 << 24) for v in whole]
    expected += [(int(v) + 7) // 14 for v in whole[:8]] + [1, 1, 0, 0, 0, 0]
    assert opened.tolist() == expected
    small = np.abs(some) < 2.0**-26
    assert not numbers[small].any()
    np.testing.assert_allclose(numbers[~small], some[~small], rtol=1.001 / 96)
    mantissa = np.frexp(np.abs(numbers[~small]))[0]
    np.testing.assert_allclose((mantissa - 0.5) * 96 % 1, 0.5)


# ---- ranks --------------------------------------------------------------------------------------


def test_a_minimum_cell_leaves_u_as_it_is_where_there_are_many_values() -> None:
    rng = np.random.default_rng(5)
    x, group = rng.integers(0, 12, 60).astype(float), rng.integers(0, 2, 60)

    async def program(party: Party, own: Any) -> Any:
        return await mann_whitney(party, *own, categories=(0, 1), bound=16, disclosure=CELLS)

    found = run(at_rank(program), split(x, group), "prss")[0]
    expected = stats.mannwhitneyu(x[group == 0], x[group == 1])
    assert found.statistic == expected.statistic
    assert len(found.suppressed) == 1
    assert expected.pvalue <= found.p_value <= expected.pvalue + 0.02


@pytest.mark.parametrize("seed", range(3))
def test_a_minimum_cell_rounds_h(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, group = rng.integers(2, 5, 60).astype(float), rng.integers(0, 3, 60)

    async def program(party: Party, own: Any) -> Any:
        return await kruskal_wallis(party, *own, categories=(0, 1, 2), bound=8, disclosure=CELLS)

    with watched() as promises:
        found = run(at_rank(program), split(x, group), "prss")[0]
    promises.check(3)
    right = stats.kruskal(*(x[group == k] for k in range(3))).statistic
    assert found.statistic == pytest.approx(right, rel=5 / (4 * 60))
    assert abs(found.statistic / right - 1) > 1e-7
    assert found.p_value == stats.chi2.sf(found.statistic, 2)
    assert "one part in 48" in found.suppressed[0]
    # It is one of 24 numbers of each octave.
    ratio = found.statistic / (3 * 59 * (60**3 * ((1 << 76) // 60**3) / 2**76))
    mantissa = math.frexp(ratio)[0]
    assert (mantissa - 0.5) * 48 % 1 == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize(("sizes", "levels", "most"), [((31, 29), 2, 0.01), ((40, 20), 2, 0.02), ((12, 11), 3, 0.001)])
def test_what_is_told_of_few_values_leaves_their_counts_open(sizes: tuple[int, int], levels: int, most: float) -> None:
    """Of all tables with a cell of 1 to 4 rows: how often U and y, as they are told, leave one number for it."""
    one, other = tables(sizes, levels)
    n = sum(sizes)
    half = np.cumsum(one, axis=1) - one / 2
    doubled = (2 * (half @ other.T)).astype(np.int64)  # twice U of the second group
    cubes = ((one[:, np.newaxis] + other[np.newaxis]) ** 3).sum(axis=-1)
    steps = tie_steps(np.array(sizes), 5)
    assert steps is not None
    few = (12 * cubes > n**3) & (cubes > n)
    offset = -sizes[0] * sizes[1] % steps.width
    u = np.where(few, (doubled + offset + steps.width // 2) // steps.width, doubled)
    count = np.where(few, steps.few, steps.many)
    y = -((cubes - n**3) * count // n**3)

    def told(*what: Any) -> float:
        shown = np.stack(np.broadcast_arrays(*what), axis=-1).reshape(len(one) * len(other), -1)
        return determined(of_pairs(one, other), shown, 5)

    assert told(few, u, y) <= most
    assert told(few, doubled, -((cubes - n**3) * steps.many // n**3)) > 5 * most  # as it was: U with all its digits


# ---- areas under ROC curves ---------------------------------------------------------------------


def areas(one: Any, other: Any) -> tuple[Any, Any]:
    """Return area and DeLong's standard error of each pair of ways: shapes (ways, ways)."""
    negatives, positives = one[0].sum(), other[0].sum()
    below = (np.cumsum(one, axis=1) - one / 2) / negatives
    above = (np.cumsum(other[:, ::-1], axis=1)[:, ::-1] - other / 2) / positives
    area = below @ other.T / positives
    of_ones = below**2 @ other.T - positives * area**2
    of_zeros = one @ (above**2).T - negatives * area**2
    variance = of_ones / (positives * (positives - 1)) + of_zeros / (negatives * (negatives - 1))
    return area, np.sqrt(np.maximum(variance, 0))


@pytest.mark.parametrize(
    ("sizes", "levels", "most"),
    [((40, 20), 3, 0.001), ((40, 20), 2, 0.01), ((31, 29), 2, 0.01), ((50, 7), 2, 0.01), ((8, 7), 2, 0.05)],
)
def test_area_and_error_leave_the_counts_of_few_values_open(sizes: tuple[int, int], levels: int, most: float) -> None:
    one, other = tables(sizes, levels)
    area, error = areas(one, other)
    steps = roc_steps(5, np.array(sizes))

    def told(*what: Any) -> Any:
        return np.stack([np.round(each, 9).reshape(-1) for each in what], axis=1)

    shown = told(np.floor(area * steps + 0.5), np.maximum(1, np.ceil(error * steps - 1 / 32)))
    assert determined(of_pairs(one, other), shown, 5) <= most
    if (sizes, levels) == ((40, 20), 3):
        # All digits tell nearly every table, as that of 30, 9 and 1 rows with 3, 7 and 10; now 3,000 look like it.
        assert determined(of_pairs(one, other), told(area, error), 5) > 0.9
        cells = of_pairs(one, other)
        at = int(np.flatnonzero((cells == [30, 9, 1, 3, 7, 10]).all(axis=1))[0])
        alike = cells[(shown == shown[at]).all(axis=1)]
        assert len(alike) > 1000
        assert set(alike[:, 2]) >= set(range(8))


@pytest.mark.parametrize(("preprocessing", "parties"), [("dealer", 3), ("prss", 3)])
@pytest.mark.parametrize("kind", ["few values", "many values", "apart"])
def test_a_minimum_cell_rounds_area_and_error(kind: str, preprocessing: str, parties: int) -> None:
    rng = np.random.default_rng(2)
    y = np.arange(60) % 3 // 2
    noise = rng.integers(1, 4, 60) + 1.0 if kind == "few values" else rng.uniform(size=60)
    x = noise / 4 + (y if kind == "apart" else 0.2 * y * (kind == "many values"))

    async def program(party: Party, own: Any) -> Any:
        exact = await roc_auc(party.at("exact"), *own, bound=4, grid=None)
        return exact, await roc_auc(party.at("told"), *own, bound=4, grid=None, disclosure=CELLS)

    with watched() as promises:
        exact, found = run(at_rank(program), split(x, y), preprocessing)[0]
    promises.check(parties)
    steps = 32
    assert found.auc == math.floor(exact.auc * steps + 0.5) / steps
    assert found.std_err == max(1, math.ceil(exact.std_err * steps - 1 / 32)) / steps
    assert not exact.suppressed
    assert "32 steps" in found.suppressed[0]
    reach = stats.norm.ppf(0.975) * found.std_err
    assert found.conf_int.tolist() == np.clip([found.auc - reach, found.auc + reach], 0, 1).tolist()


# ---- log-rank tests -----------------------------------------------------------------------------


def in_an_octave(x: Any, buckets: int) -> Any:
    """Return octave and bucket of numbers, as one number."""
    mantissa, octave = np.frexp(np.round(x, 9))
    return octave * 1024 + np.sign(mantissa) * np.floor((np.abs(mantissa) - 0.5) * 2 * buckets)


@pytest.mark.parametrize(("rows", "events", "most"), [((30, 30), (6, 8), 0.01), ((60, 50), (6, 7), 0.005)])
def test_differences_leave_the_counts_of_few_times_open(
    rows: tuple[int, int], events: tuple[int, int], most: float
) -> None:
    """Two intervals and two groups: of all events and censored rows of the first, with the totals known."""
    early = np.meshgrid(
        *(np.arange(e + 1) for e in events), *(np.arange(n - e + 1) for n, e in zip(rows, events, strict=True))
    )
    e1, e2, c1, c2 = (one.reshape(-1) for one in early)

    def compared(d1: Any, d2: Any, n1: Any, n2: Any) -> tuple[Any, Any]:
        d, n = d1 + d2, np.maximum(n1 + n2, 1)
        return d1 - d * n1 / n, np.where(n > 1, d * n1 * n2 / n**2 * (n - d) / np.maximum(n - 1, 1), 0)

    first = compared(e1, e2, *rows)
    second = compared(events[0] - e1, events[1] - e2, rows[0] - e1 - c1, rows[1] - e2 - c2)
    difference, variance = (a + b for a, b in zip(first, second, strict=True))
    cells = np.stack([e1, e2, c1, c2, events[0] - e1, events[1] - e2], axis=1)
    buckets = 2 * sum(rows) // 5
    shown = np.stack([in_an_octave(one, buckets) for one in (difference, variance)], axis=1)
    exact = np.stack([np.round(one, 9) for one in (difference, variance)], axis=1)
    assert determined(cells, shown, 5) <= most
    assert determined(cells, exact, 5) > 3 * most


@pytest.mark.parametrize("weights", [None, "wilcoxon", "peto"])
@pytest.mark.parametrize(("preprocessing", "groups"), [("dealer", 2), ("prss", 3)])
def test_a_minimum_cell_rounds_differences_and_covariances(preprocessing: str, groups: int, weights: Any) -> None:
    rng = np.random.default_rng(1)
    group = rng.permutation(60) % 7 % groups
    time, event = rng.integers(1, 9, 60), (rng.uniform(size=60) < 0.6).astype(np.int64)

    async def program(party: Party, own: Any) -> Any:
        options: dict[str, Any] = {"grid": (1, 8, 1), "categories": list(range(groups)), "weights": weights}
        exact = await log_rank(party.at("exact"), *own, **options)
        return exact, await log_rank(party.at("told"), *own, to=[1], disclosure=CELLS, **options)

    with watched() as promises:
        results = run(at_rank(program), split(time, event, group), preprocessing)
    promises.check(3)
    assert [told is None for _, told in results] == [True, False, True]
    exact, told = results[1]
    largest = int(np.argmax(exact.sizes))
    kept = np.delete(np.arange(groups), largest)
    unit = {None: 1.0, "wilcoxon": 64.0, "peto": 1.0}[weights]
    apart = told.observed - told.expected
    for found, right, scale in (
        (told.difference[kept], exact.difference[kept], unit),
        (told.covariance[np.ix_(kept, kept)], exact.covariance[np.ix_(kept, kept)], unit**2),
        (apart[kept], (exact.observed - exact.expected)[kept], 1.0),
    ):
        np.testing.assert_allclose(found, right, rtol=1.001 / 48, atol=1e-6 * scale)
        mantissa = np.frexp(np.abs(found / scale))[0]
        np.testing.assert_allclose((mantissa - 0.5) * 48 % 1, 0.5, atol=1e-6)
    for sums in (told.difference.sum(), told.covariance.sum(axis=0), told.covariance.sum(axis=1), apart.sum()):
        np.testing.assert_allclose(sums / unit**2, 0, atol=1e-9)
    assert told.statistic == pytest.approx(exact.statistic, rel=0.2)
    assert told.statistic != pytest.approx(exact.statistic, rel=1e-6)
    assert told.p_value == stats.chi2.sf(told.statistic, groups - 1)
    assert "one part in 48" in told.suppressed[0]


# ---- preparing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("partition", ["rows", "columns"])
@pytest.mark.parametrize("analysis", ["mann_whitney", "kruskal_wallis", "roc_auc", "log_rank"])
def test_what_is_told_in_steps_can_be_prepared(analysis: str, partition: str) -> None:
    """A rehearsal does not know how many rows there are, so neither how many steps."""
    rng = np.random.default_rng(4)
    x, group = rng.integers(1, 5, 60).astype(float), rng.permutation(60) % 2
    event = rng.permutation(60) % 3 // 2
    columns = (
        split(x, event, group) if partition == "rows" else [(x, None, None), (None, event, None), (None, None, group)]
    )

    async def program(party: Party, own: Any) -> Any:
        async def study(seat: Party) -> Any:
            options: dict[str, Any] = {"partition": partition, "disclosure": CELLS}
            if analysis == "log_rank":
                return await log_rank(seat, *own, grid=(1, 4, 1), categories=(0, 1), **options)
            if analysis == "roc_auc":
                return await roc_auc(seat, own[0], own[2], bound=8, grid=None, **options)
            test = mann_whitney if analysis == "mann_whitney" else kruskal_wallis
            return await test(seat, own[0], own[2], bound=8, categories=(0, 1), **options)

        await prepare(party, study)
        return await study(party)

    found = run(program, columns, "prss")[0]
    assert found.n == 60
    assert found.suppressed
