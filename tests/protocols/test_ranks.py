"""Rank tests against SciPy, with ties; by sorting and on a grid; what is opened."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mpc import AgreementError, DataError, Party, concatenate, open_, prepare
from protocols.comparisons.rank_distributions import asymptotic_p_value, exact_p_value, newcombe_interval
from protocols.comparisons.rank_sums import doubled_ranks
from protocols.comparisons.ranks import kruskal_wallis, mann_whitney
from protocols.pools.grids import Grid, prefix_sums
from protocols.release.disclosure import Disclosure, DisclosureError
from tests.protocols.helpers import diabetes, heart, run
from tests.protocols.promises import at_rank, watched

WORLDS = [("dealer", 2), ("dealer", 3), ("prss", 3), ("ot", 2)]
WAYS: list[dict[str, Any]] = [{"bound": 128}, {"resolution": 1.0, "bound": 128}, {"grid": (0, 120, 1)}]
NAN = float("nan")


def split(partition: str, parties: int, *columns: Any) -> list[Any]:
    if partition == "rows":
        cuts = np.sort(np.random.default_rng(parties).choice(np.arange(1, len(columns[0])), parties - 1, replace=False))
        return list(zip(*(np.split(column, cuts) for column in columns), strict=True))
    return [tuple(c if rank == (k + 1) % parties else None for k, c in enumerate(columns)) for rank in range(parties)]


def all_of(program: Any, parts: list[Any], preprocessing: str = "prss") -> Any:
    results = run(program, parts, preprocessing)
    for result in results[1:]:
        assert str(result.to_dict()) == str(results[0].to_dict())
    return results[0]


def ages() -> tuple[Any, Any, Any]:
    """Ages (with many ties), whether the disease progressed, and classes of the body mass index."""
    data = diabetes()
    return data.X[:, 0][:160], data.y[:160], np.digitize(data.X[:, 2][:160], [22, 25, 30])


# ---- Mann and Whitney ---------------------------------------------------------------------------


@pytest.mark.parametrize(("preprocessing", "parties"), WORLDS)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_mann_whitney_with_ties_as_scipy(way: dict[str, Any], preprocessing: str, parties: int) -> None:
    x, group, _ = ages()

    async def program(party: Party, own: Any) -> Any:
        return await mann_whitney(party, *own, categories=(0, 1), **way)

    with watched() as promises:
        found = all_of(at_rank(program), split("rows", parties, x, group), preprocessing)
    assert promises.check(parties) > 3
    expected = stats.mannwhitneyu(x[group == 0], x[group == 1])
    assert found.statistic == expected.statistic
    assert found.p_value == pytest.approx(expected.pvalue, abs=1e-12)
    assert found.estimate == expected.statistic / (found.group_n[0] * found.group_n[1])
    assert found.tie_correction == pytest.approx(stats.tiecorrect(stats.rankdata(x)), abs=1e-12)
    assert not found.exact


@pytest.mark.parametrize("alternative", ["two-sided", "less", "greater"])
def test_mann_whitney_of_columns_with_missing_values_as_scipy(alternative: str) -> None:
    x, group, _ = ages()
    x, group = x.copy(), group.astype(float)
    x[::7] = NAN
    group[3::11] = NAN
    kept = ~np.isnan(x) & ~np.isnan(group)

    async def program(party: Party, own: Any) -> Any:
        return await mann_whitney(party, *own, partition="columns", categories=(0, 1), alternative=alternative)

    for preprocessing, parties in (("dealer", 2), ("prss", 3)):
        with watched() as promises:
            found = all_of(at_rank(program), split("columns", parties, x, group), preprocessing)
        promises.check(parties)
        expected = stats.mannwhitneyu(x[kept & (group == 0)], x[kept & (group == 1)], alternative=alternative)
        assert found.statistic == expected.statistic
        assert found.p_value == pytest.approx(expected.pvalue, abs=1e-12)
        assert found.n == kept.sum()


@pytest.mark.parametrize("alternative", ["two-sided", "less", "greater"])
def test_small_samples_without_ties_have_an_exact_p(alternative: str) -> None:
    data = heart()
    x, group = data.X[:20, 1], np.array([0] * 6 + [1] * 14)
    assert len(set(x)) == 20

    async def program(party: Party, own: Any) -> Any:
        return await mann_whitney(party, *own, categories=(0, 1), alternative=alternative)

    found = all_of(program, split("rows", 3, x, group))
    expected = stats.mannwhitneyu(x[:6], x[6:], alternative=alternative)
    assert found.exact
    assert found.tie_correction == 1
    assert (found.statistic, found.p_value) == (expected.statistic, pytest.approx(expected.pvalue, abs=1e-14))


@given(
    st.lists(st.integers(-4, 4), min_size=2, max_size=30),
    st.integers(1, 8),
    st.sampled_from(["two-sided", "less", "greater"]),
)
@settings(max_examples=60)
def test_p_values_from_u_and_ties_are_those_of_the_data(values: list[int], first: int, alternative: str) -> None:
    first = min(first, len(values) - 1)
    x, y = np.array(values[:first]), np.array(values[first:])
    n = np.array([x.size, y.size])
    u = float(stats.mannwhitneyu(x, y).statistic)
    _, counts = np.unique(values, return_counts=True)
    ties = int((counts**3 - counts).sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = stats.mannwhitneyu(x, y, alternative=alternative, method="asymptotic").pvalue
    assert asymptotic_p_value(u, n, ties, alternative) == pytest.approx(min(1.0, expected), abs=1e-12)
    order = np.random.default_rng(first).permutation(len(values)) * 1.0
    exact = stats.mannwhitneyu(order[:first], order[first:], alternative=alternative, method="exact")
    assert exact_p_value(float(exact.statistic), n, alternative) == pytest.approx(exact.pvalue, abs=1e-12)


def test_newcombe_intervals_cover_and_end_where_they_should() -> None:
    n = np.array([30, 20])
    low, high = newcombe_interval(0.7, n, 0.95)
    assert 0.5 < low < 0.7 < high < 0.9
    assert newcombe_interval(1 - 0.7, n, 0.95) == pytest.approx([1 - high, 1 - low])
    assert newcombe_interval(1.0, n, 0.95)[1] == 1.0
    assert 0.7 < newcombe_interval(1.0, n, 0.95)[0] < 1.0
    assert newcombe_interval(0.0, n, 0.95)[0] == 0.0
    # Coverage for exponential and for normal values.
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(400):
        x, y = rng.normal(0.8, 1, 30), rng.normal(0, 1, 20)
        low, high = newcombe_interval((x[:, None] > y).mean(), n, 0.95)
        covered.append(low <= stats.norm.cdf(0.8 / math.sqrt(2)) <= high)
    assert 0.92 <= np.mean(covered) <= 0.98


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_all_values_equal_and_groups_that_do_not_overlap(way: dict[str, Any]) -> None:
    async def program(party: Party, own: Any) -> Any:
        return await mann_whitney(party, *own, categories=(0, 1), **way)

    group = np.array([0, 1] * 6)
    same = all_of(program, split("rows", 3, np.full(12, 30.0), group))
    assert (same.statistic, same.p_value, same.tie_correction, same.estimate) == (18.0, 1.0, 0.0, 0.5)
    apart = all_of(program, split("rows", 3, np.where(group == 0, 90.0, 30.0) + np.arange(12), group))
    assert (apart.statistic, apart.estimate, apart.exact) == (36.0, 1.0, True)


# ---- Kruskal and Wallis -------------------------------------------------------------------------


@pytest.mark.parametrize(("preprocessing", "parties"), WORLDS)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_kruskal_wallis_with_ties_as_scipy(way: dict[str, Any], preprocessing: str, parties: int) -> None:
    x, _, group = ages()

    async def program(party: Party, own: Any) -> Any:
        return await kruskal_wallis(party, *own, categories=range(5), **way)

    with watched() as promises:
        found = all_of(at_rank(program), split("rows", parties, x, group), preprocessing)
    assert promises.check(parties) > 3
    expected = stats.kruskal(*(x[group == k] for k in range(4)))
    assert found.groups == ("0", "1", "2", "3")
    assert found.df == 3
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-7)
    assert found.p_value == pytest.approx(expected.pvalue, abs=1e-8)
    assert found.epsilon_squared == pytest.approx(expected.statistic / (len(x) - 1), rel=1e-7)


def test_kruskal_wallis_of_columns_with_missing_values_and_heavy_ties() -> None:
    x, _, group = ages()
    x = np.where(x > 60, 1.0, 0.0)
    x[::7] = NAN
    kept = ~np.isnan(x)

    async def program(party: Party, own: Any) -> Any:
        return await kruskal_wallis(party, *own, partition="columns", categories=(0, 1, 2, 3), resolution=1, bound=1)

    for preprocessing, parties in (("dealer", 2), ("prss", 3)):
        with watched() as promises:
            found = all_of(at_rank(program), split("columns", parties, x, group), preprocessing)
        promises.check(parties)
        expected = stats.kruskal(*(x[kept & (group == k)] for k in range(4)))
        assert found.statistic == pytest.approx(expected.statistic, rel=1e-7)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_kruskal_wallis_where_all_or_all_but_one_are_equal(way: dict[str, Any]) -> None:
    async def program(party: Party, own: Any) -> Any:
        return await kruskal_wallis(party, *own, categories=(0, 1), **way)

    group = np.array([0, 1] * 30)
    same = all_of(program, split("rows", 3, np.full(60, 30.0), group))
    assert math.isnan(same.statistic)
    assert math.isnan(same.p_value)
    assert same.suppressed == ("all values are equal",)
    x = np.full(60, 30.0)
    x[4] = 31
    found = all_of(program, split("rows", 3, x, group))
    assert found.statistic == pytest.approx(stats.kruskal(x[group == 0], x[group == 1]).statistic, rel=1e-7)


# ---- ranks --------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 15), min_size=1, max_size=12))
@settings(max_examples=15)
def test_doubled_ranks_are_those_of_scipy(values: list[int]) -> None:
    async def program(party: Party, own: Any) -> Any:
        keys = concatenate(await party.share(own, bound=15))
        return await open_(party, await doubled_ranks(party.at("ranks"), keys, 4))

    parts = np.split(np.array(values), [len(values) // 2])
    np.testing.assert_array_equal(run(program, parts)[0], 2 * stats.rankdata(values))


@given(st.lists(st.integers(-5, 5), min_size=0, max_size=20))
@settings(max_examples=20)
def test_prefix_sums(values: list[int]) -> None:
    async def program(party: Party, own: Any) -> Any:
        x = await party.share(own, bound=5, owner=0, shape=(1, len(values)))
        return await open_(party, prefix_sums(x, 100))

    found = run(program, [np.array([values], dtype=np.int64), None])[0]
    np.testing.assert_array_equal(found, np.cumsum([values], axis=1).reshape(1, -1))


# ---- grids --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "grid", [(1, 1, 1), (2, 1, 1), (0, 1, 0), (0, 1, -1), (0, 1e9, 1), (0, NAN, 1), (0, np.inf, 1)]
)
def test_what_is_no_grid(grid: Any) -> None:
    with pytest.raises(ValueError, match="grid is"):
        Grid(*grid)


def test_values_beyond_a_grid_are_counted_and_not_shown() -> None:
    async def program(party: Party, own: Any) -> Any:
        return await mann_whitney(party, *own, grid=(0, 10, 1))

    with pytest.raises(DataError, match="party 1: 1 of 5 values are beyond the agreed") as caught:
        run(program, [(np.arange(5.0), [0, 1, 0, 1, 0]), (np.array([1, 2, 3, 4, -0.5]), [0, 1, 0, 1, 0])])
    assert "-0.5" not in str(caught.value)


def test_a_grid_costs_the_same_for_any_number_of_rows() -> None:
    async def program(party: Party, own: Any) -> Any:
        await mann_whitney(party, *own, grid=(0, 100, 1), categories=(0, 1))
        return party.costs.total.elements_opened, party.costs.rounds

    rng = np.random.default_rng(2)
    costs = [
        run(program, split("rows", 3, rng.integers(0, 100, n).astype(float), rng.integers(0, 2, n)))[0]
        for n in (50, 5000)
    ]
    # Sizes, group sizes; of 101 points and 2 groups: counts, doubled ranks, lengths, squares; two results.
    assert costs[0] == costs[1]
    assert costs[0][0] == 3 + 2 + 101 * (2 + 4) + 2


# ---- what is opened -----------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_recipients_learn_u_and_ties_or_h(way: dict[str, Any]) -> None:
    x, two, group = (one[:40] for one in ages())

    async def program(party: Party, own: Any) -> Any:
        found = await mann_whitney(party.at("a"), own[0], own[1], categories=(0, 1), to=[1], **way)
        seen = len(party.costs.openings)
        other = await kruskal_wallis(party.at("b"), own[0], own[2], categories=(0, 1, 2, 3), to=[1], **way)
        openings = [(one.elements, one.to) for one in party.costs.openings]
        return found, other, openings[:seen], openings[seen:]

    for rank, (found, other, first, second) in enumerate(run(program, split("rows", 3, x, two, group), "prss")):
        assert (found is None, other is None) == (rank != 1, rank != 1)
        assert first == [(3, None), (2, None), (2, (1,))]
        assert second == [(3, None), (4, None), (2, (1,))]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_other_data_with_the_same_u_and_ties_looks_the_same(way: dict[str, Any]) -> None:
    async def program(party: Party, own: Any) -> Any:
        await mann_whitney(party, *own, categories=(0, 1), **way)
        return [(one.step, one.digest) for one in party.costs.openings]

    # U = 4.5 of 4 and 3 rows, with one pair of equal values.
    group = np.array([0, 0, 0, 0, 1, 1, 1])
    values = [np.array([1.0, 2, 3, 5, 0, 5, 9]), np.array([40.0, 43, 44, 46, 42, 45, 46])]
    us = [float(stats.mannwhitneyu(x[:4], x[4:]).statistic) for x in values]
    assert us[0] == us[1]
    seen = [run(program, split("rows", 3, x, group), "prss")[0] for x in values]
    assert seen[0] == seen[1]
    assert all(digest for _, digest in seen[0])


@pytest.mark.parametrize("partition", ["rows", "columns"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_they_can_be_prepared(way: dict[str, Any], partition: str) -> None:
    if partition == "columns" and "grid" in way:
        return
    x, two, group = (one[:30].astype(float) for one in ages())
    x[3] = NAN

    async def work(party: Party, own: Any) -> Any:
        first = await mann_whitney(party.at("a"), own[0], own[1], categories=(0, 1), partition=partition, **way)
        second = await kruskal_wallis(party.at("b"), own[0], own[2], categories=range(4), partition=partition, **way)
        return first, second

    async def program(party: Party, own: Any) -> Any:
        await prepare(party, work, own)
        return await work(party, own)

    kept = ~np.isnan(x)
    for preprocessing, parties in (("dealer", 2), ("prss", 3)):
        first, second = run(program, split(partition, parties, x, two, group), preprocessing)[0]
        assert first.statistic == stats.mannwhitneyu(x[kept & (two == 0)], x[kept & (two == 1)]).statistic
        expected = stats.kruskal(*(x[kept & (group == k)] for k in range(4) if (kept & (group == k)).any()))
        assert second.statistic == pytest.approx(expected.statistic, rel=1e-7)


def test_a_control_of_cells_holds_for_columns_of_0_and_1_too() -> None:
    rule = Disclosure("cells", minimum_cell=5)
    group = np.array([0, 1] * 20)
    rare = ((np.arange(40) == 3) | (group == 0)).astype(float)
    for test in (mann_whitney, kruskal_wallis):

        async def program(party: Party, own: Any, test: Any = test) -> Any:
            return await test(party, *own, categories=(0, 1), disclosure=rule)

        with pytest.raises(DisclosureError, match="0 and 1"):
            run(program, split("rows", 3, rare, group))
        assert all_of(program, split("rows", 3, rare + np.arange(40), group)).n == 40


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"alternative": "x"}, "alternative is one of"),
        ({"confidence": 2}, "confidence"),
        ({"grid": (0, 9, 1), "partition": "columns"}, "grid is for"),
        ({"grid": (0, 9, 1), "resolution": 1}, "grid is for"),
        ({"grid": (0, 9, 1), "bound": 9.0}, "grid is for"),
        ({"resolution": 0}, "resolution"),
        ({"resolution": NAN}, "resolution"),
    ],
)
def test_arguments_that_make_no_sense(arguments: Any, text: str) -> None:
    async def program(party: Party, own: Any) -> Any:
        return await mann_whitney(party, *own, **arguments)

    with pytest.raises(ValueError, match=text):
        run(program, split("rows", 2, np.arange(8.0), np.array([0, 1] * 4)))


def test_too_few_or_too_many_groups_and_too_fine_a_resolution() -> None:
    async def program(party: Party, own: Any) -> Any:
        return await mann_whitney(party, *own, categories=(0, 1))

    with pytest.raises(DataError, match="groups of 8 and 0 rows"):
        run(program, split("rows", 2, np.arange(8.0), np.zeros(8, int)))

    async def three(party: Party, own: Any) -> Any:
        return await mann_whitney(party, *own)

    with pytest.raises(DataError, match="has 3 categories"):
        run(three, split("rows", 2, np.arange(9.0), np.arange(9) % 3))

    async def one(party: Party, own: Any) -> Any:
        return await kruskal_wallis(party, *own, categories=(0, 1))

    with pytest.raises(DataError, match="8 rows in 1 groups"):
        run(one, split("rows", 2, np.arange(8.0), np.zeros(8, int)))

    async def fine(party: Party, own: Any) -> Any:
        return await kruskal_wallis(party, *own, resolution=1e-15, bound=8)

    with pytest.raises(DataError, match="resolution is below"):
        run(fine, split("rows", 2, np.arange(8.0), np.array([0, 1] * 4)))


def test_different_grids_and_resolutions_do_not_meet() -> None:
    for name, values in (("resolution", (1.0, 0.5)), ("grid", ((0, 9, 1), (0, 9, 0.5)))):

        async def program(party: Party, own: Any, name: str = name, values: Any = values) -> Any:
            return await mann_whitney(party, *own, **{name: values[party.rank]})

        with pytest.raises(AgreementError, match=f"says {name} ="):
            run(program, split("rows", 2, np.arange(8.0), np.array([0, 1] * 4)))


def test_results_read_as_those_of_others() -> None:
    x, two, group = (one[:40] for one in ages())

    async def program(party: Party, own: Any) -> Any:
        return await mann_whitney(party.at("a"), own[0], own[1]), await kruskal_wallis(party.at("b"), own[0], own[2])

    first, second = run(program, split("rows", 2, x, two, group))[0]
    assert "P(0 > 1)" in str(first)
    assert "asymptotic" in str(first)
    assert "Kruskal-Wallis" in str(second)
    assert second.to_dict()["df"] == second.df


# ---- nearly all values are equal ----------------------------------------------------------------


def exact_h(x: Any, group: Any) -> float:
    """Return H in exact fractions: SciPy's own loses digits here."""
    n = len(x)
    doubled = [int(r) for r in 2 * stats.rankdata(x)]
    sizes = {k: int((group == k).sum()) for k in set(group.tolist())}
    apart = {k: sum(r for r, g in zip(doubled, group, strict=True) if g == k) - s * (n + 1) for k, s in sizes.items()}
    squares = sum(int(t) ** 3 for t in np.unique(x, return_counts=True)[1])
    return float(3 * (n - 1) * sum(Fraction(d * d, sizes[k]) for k, d in apart.items()) / (n**3 - squares))


@pytest.mark.parametrize(("n", "ones"), [(300, 1), (30_000, 1), (30_000, 30), (200_000, 1), (200_000, 200)])
def test_kruskal_wallis_is_as_exact_where_nearly_all_values_are_equal(n: int, ones: int) -> None:
    async def program(party: Party, own: Any) -> Any:
        return await kruskal_wallis(party, *own, categories=(0, 1, 2), grid=(0, 1, 1))

    x, group = np.zeros(n), np.random.default_rng(3).integers(0, 3, n)
    x[:ones] = 1
    with watched() as promises:
        found = all_of(at_rank(program), split("rows", 3, x, group))
    assert promises.check(3) > 3
    h = exact_h(x, group)
    assert found.statistic == pytest.approx(h, rel=2**-29, abs=2**-34 * math.sqrt(3 * n * h) + 2**-42 * n)


# ---- ties under a disclosure control ------------------------------------------------------------

CELLS = Disclosure("cells", minimum_cell=5)


def scores(levels: tuple[int, ...]) -> tuple[Any, Any]:
    """Scores with so many rows at each level, which do not go with the two groups."""
    order = np.random.default_rng(0).permutation(sum(levels))
    return np.repeat(np.arange(len(levels)) * 1.0, levels)[order], (np.arange(sum(levels)) % 2)[order]


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("levels", [(2, 28, 30), (20, 20, 20), (3, 57), (60,)])
def test_a_minimum_cell_rounds_the_correction_for_ties(levels: tuple[int, ...], way: dict[str, Any]) -> None:
    x, group = scores(levels)
    rule = Disclosure("cells", minimum_cell=5) if len(levels) > 2 else Disclosure("cells", minimum_cell=2)
    shifted = x + 3  # else it might be a table of 0 and 1

    async def program(party: Party, own: Any) -> Any:
        found = await mann_whitney(party, *own, categories=(0, 1), disclosure=rule, **way)
        return found, [one.elements for one in party.costs.openings][-1]

    with watched() as promises:
        found, last = run(at_rank(program), split("rows", 3, shifted, group), "prss")[0]
    promises.check(3)
    assert last == 4
    assert math.isnan(found.tie_correction)
    assert "rounded to one of" in found.suppressed[0]
    assert "few different values" in found.suppressed[1]
    expected = stats.mannwhitneyu(x[group == 0], x[group == 1])
    # U is told in steps of m / (8 k) of all pairs, the middle one among them.
    n, least = 60, rule.minimum_cell
    step = Fraction(900 * least, 8 * 30)
    assert (Fraction(found.statistic) - 450) % (Fraction(30 * least // 4) / 2) == 0
    assert abs(found.statistic - expected.statistic) <= step / 2
    # The variance is rounded up, by at most one step.
    y = 1 - sum(t**3 for t in levels) / n**3
    steps = 30 // least
    widest = n**3 * (1 - math.ceil(y * steps - 1e-9) / steps) - n
    assert found.p_value == pytest.approx(
        asymptotic_p_value(found.statistic, np.array([30, 30]), widest, "two-sided"), abs=1e-12
    )
    right = 1.0 if len(levels) == 1 else float(expected.pvalue)
    assert abs(found.p_value - right) <= 0.25


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_scores_that_differ_in_a_small_level_look_the_same_under_a_minimum_cell(way: dict[str, Any]) -> None:
    async def program(party: Party, own: Any) -> Any:
        found = await mann_whitney(party, *own, categories=(0, 1), disclosure=CELLS, to=[1], **way)
        return [(one.step, one.digest) for one in party.costs.openings], str(found)

    def opened(levels: tuple[int, ...]) -> Any:
        # As many of each level in both groups: U is the same for all.
        x, group = np.repeat(np.arange(3) * 1.0, levels), np.arange(60) % 2
        return run(program, split("rows", 3, x, group), "prss")

    first, second = opened((2, 28, 30)), opened((4, 24, 32))
    assert first == second
    assert first[0][1] == "None"
    assert opened((20, 20, 20)) != first


def test_without_ties_a_minimum_cell_changes_nothing() -> None:
    rng = np.random.default_rng(5)
    for size, exact in ((14, True), (60, False)):
        x, group = rng.permutation(size) * 1.0, np.arange(size) % 2

        async def program(party: Party, own: Any) -> Any:
            return await mann_whitney(party, *own, categories=(0, 1), disclosure=CELLS, bound=64)

        found = all_of(program, split("rows", 3, x, group))
        expected = stats.mannwhitneyu(x[group == 0], x[group == 1])
        assert (found.exact, found.tie_correction, found.suppressed) == (exact, 1.0, ())
        assert found.p_value == pytest.approx(expected.pvalue, abs=1e-12)


@pytest.mark.parametrize("preprocessing", ["dealer", "prss"])
@pytest.mark.parametrize("partition", ["rows", "columns"])
def test_a_test_under_a_minimum_cell_can_be_prepared(partition: str, preprocessing: str) -> None:
    x, group = scores((2, 28, 30))

    async def work(party: Party, own: Any) -> Any:
        return await mann_whitney(party, *own, categories=(0, 1), partition=partition, bound=8, disclosure=CELLS)

    async def program(party: Party, own: Any) -> Any:
        await prepare(party, work, own)
        return await work(party, own)

    found = run(program, split(partition, 3, x, group), preprocessing)[0]
    assert found.statistic == stats.mannwhitneyu(x[group == 0], x[group == 1]).statistic
    assert math.isnan(found.tie_correction)
