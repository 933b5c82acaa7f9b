"""t-tests and the analysis of variance against SciPy and statsmodels; what is opened; what is refused."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mpc import AgreementError, DataError, Party, prepare
from protocols.comparisons.anova import AnovaResult, anova
from protocols.comparisons.group_means import weighted
from protocols.comparisons.means import TTestResult, t_test
from protocols.release.disclosure import Disclosure, DisclosureError
from tests.mpc.support import opened
from tests.protocols.helpers import breast_cancer, diabetes, run, run_one
from tests.protocols.promises import at_rank, watched

WORLDS = [("dealer", 2), ("dealer", 3), ("prss", 3), ("ot", 2)]
PARTITIONS = ["rows", "columns"]
NAN = float("nan")


def split(partition: str, parties: int, *columns: Any) -> list[Any]:
    """Split columns into rows, or hand each to one party."""
    if partition == "rows":
        cuts = np.sort(np.random.default_rng(parties).choice(np.arange(1, len(columns[0])), parties - 1, replace=False))
        return list(zip(*(np.split(column, cuts) for column in columns), strict=True))
    return [tuple(c if rank == (k + 1) % parties else None for k, c in enumerate(columns)) for rank in range(parties)]


def all_of(program: Any, parts: list[Any], preprocessing: str = "prss") -> Any:
    """Run, check that all parties got the same, return it."""
    results = run(program, parts, preprocessing)
    for result in results[1:]:
        assert str(result.to_dict()) == str(results[0].to_dict())
    return results[0]


def compare(found: TTestResult, expected: Any) -> None:
    interval = expected.confidence_interval(found.confidence)
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-6)
    assert found.df == pytest.approx(expected.df, rel=1e-6)
    assert found.p_value == pytest.approx(expected.pvalue, abs=1e-7, rel=1e-5)
    assert found.conf_int == pytest.approx([interval.low, interval.high], rel=1e-6)


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize(("preprocessing", "parties"), WORLDS)
@pytest.mark.parametrize("kind", ["welch", "student"])
def test_two_groups_as_scipy(kind: str, preprocessing: str, parties: int, partition: str) -> None:
    data = breast_cancer()
    x, group = data.X[:, 9], data.y  # fractal dimension: hardly differs

    async def program(party: Party, own: Any) -> Any:
        return await t_test(party, *own, kind=kind, partition=partition, bound=0.1, categories=(0, 1))

    with watched() as promises:
        found = all_of(at_rank(program), split(partition, parties, x, group), preprocessing)
    assert promises.check(parties) > 3
    expected = stats.ttest_ind(x[group == 0], x[group == 1], equal_var=kind == "student")
    compare(found, expected)
    assert found.estimate == pytest.approx(x[group == 0].mean() - x[group == 1].mean(), rel=1e-6)
    assert found.group_n.tolist() == [212, 357]
    assert found.missing == {"x": 0, "group": 0}
    if kind == "welch":
        deviations = [x[group == k].std(ddof=1) for k in (0, 1)]
        assert found.std_dev == pytest.approx(deviations, rel=1e-6)


@pytest.mark.parametrize("alternative", ["two-sided", "less", "greater"])
@pytest.mark.parametrize("partition", PARTITIONS)
def test_pairs_and_one_sample_as_scipy(partition: str, alternative: str) -> None:
    data = diabetes()
    x, y = data.X[:, 4].copy(), data.X[:, 5].copy()  # cholesterols: highly correlated, other exponents
    x[7], y[[9, 30]] = NAN, NAN
    kept = ~np.isnan(x) & ~np.isnan(y)

    async def pairs(party: Party, own: Any) -> Any:
        return await t_test(
            party,
            own[0],
            y=own[1],
            kind="paired",
            partition=partition,
            alternative=alternative,
            confidence=0.9,
            mean=70,
        )

    found = all_of(pairs, split(partition, 3, x, y))
    expected = stats.ttest_1samp((x - y)[kept], 70, alternative=alternative)
    compare(found, expected)
    assert found.missing == {"pair": 3}
    assert found.n == kept.sum() == found.group_n[0]
    assert found.std_dev == pytest.approx([(x - y)[kept].std(ddof=1)], rel=1e-6)

    async def sample(party: Party, own: Any) -> Any:
        return await t_test(party, own[0], kind="one_sample", mean=189, partition=partition, alternative=alternative)

    found = all_of(sample, split(partition, 3, x))
    compare(found, stats.ttest_1samp(x[~np.isnan(x)], 189, alternative=alternative))


def test_columns_of_a_pair_may_be_held_in_any_order() -> None:
    x, y = diabetes().X[:, 4], diabetes().X[:, 5]
    expected = stats.ttest_rel(x, y)
    for held in ([(None, y), (x, None), (None, None)], [(x, y), (None, None), (None, None)]):

        async def program(party: Party, own: Any) -> Any:
            return await t_test(party, own[0], y=own[1], kind="paired", partition="columns", bound=512)

        compare(all_of(program, held), expected)

    async def wrong(party: Party, own: Any) -> Any:
        return await t_test(party, own[0], y=own[1], kind="paired", partition="columns")

    with pytest.raises(DataError, match="one party gives x, and one gives y"):
        run(wrong, [(x, None), (x, None)])


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize(("preprocessing", "parties"), WORLDS)
@pytest.mark.parametrize("welch", [False, True])
def test_several_groups_as_statsmodels(welch: bool, preprocessing: str, parties: int, partition: str) -> None:
    from statsmodels.stats.oneway import anova_oneway

    data = diabetes()
    x, group = data.X[:, 3], np.digitize(data.X[:, 2], [22, 25, 30, 34])

    async def program(party: Party, own: Any) -> Any:
        return await anova(party, *own, welch=welch, partition=partition, bound=160, categories=range(6))

    with watched() as promises:
        found = all_of(at_rank(program), split(partition, parties, x, group), preprocessing)
    assert promises.check(parties) > 3
    expected = anova_oneway(x, group, use_var="unequal" if welch else "equal")
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-6)
    assert (found.df_between, found.df_within) == pytest.approx((expected.df_num, expected.df_denom), rel=1e-6)
    assert found.p_value == pytest.approx(expected.pvalue, abs=1e-7, rel=1e-5)
    assert found.groups == ("0", "1", "2", "3", "4")  # nobody is in 5
    if not welch:
        total = ((x - x.mean()) ** 2).sum()
        assert found.sum_squares_between + found.sum_squares_within == pytest.approx(total, rel=1e-7)
        assert found.eta_squared == pytest.approx(found.sum_squares_between / total, rel=1e-6)
        assert found.mean.size == 0
    else:
        assert found.mean == pytest.approx([x[group == k].mean() for k in range(5)], rel=1e-7)
        assert math.isnan(found.eta_squared)


def test_groups_that_hardly_differ_and_are_of_very_different_size() -> None:
    rng = np.random.default_rng(3)
    group = np.repeat([0, 1, 2], [1500, 4, 40])
    x = 100 + rng.normal(size=group.size) * np.array([1.0, 30.0, 0.1])[group]

    async def program(party: Party, own: Any) -> Any:
        return await anova(party, *own, bound=4000, categories=(0, 1, 2))

    found = all_of(program, split("rows", 3, x, group))
    expected = stats.f_oneway(*(x[group == k] for k in range(3)))
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-6)

    async def student(party: Party, own: Any) -> Any:
        return await t_test(party, *own, kind="student", bound=4000, categories=(0, 1))

    two = group < 2
    compare(
        all_of(student, split("rows", 3, x[two], group[two])),
        stats.ttest_ind(x[group == 0], x[group == 1]),
    )


def test_a_bound_of_thousands_of_deviations_costs_no_digits() -> None:
    rng = np.random.default_rng(4)
    group = rng.integers(0, 3, 300)
    x = rng.normal(size=300) + 0.3 * group + 5

    async def program(party: Party, own: Any) -> Any:
        return (
            await anova(party, *own, bound=2.0**13, categories=(0, 1, 2)),
            await t_test(party, own[0], own[1] > 0, bound=2.0**13),
        )

    one, two = run(program, split("rows", 3, x, group))[0]
    expected = stats.f_oneway(*(x[group == k] for k in range(3)))
    assert one.statistic == pytest.approx(expected.statistic, rel=1e-6)
    compare(two, stats.ttest_ind(x[group == 0], x[group > 0], equal_var=False))


# ---- degenerate data ----------------------------------------------------------------------------


@pytest.mark.parametrize("partition", PARTITIONS)
def test_values_that_do_not_vary_give_no_t_and_no_f(partition: str) -> None:
    group = np.array([0, 1] * 20)
    x = np.where(group == 1, 7.25, 3.5)

    async def program(party: Party, own: Any) -> Any:
        shared: Any = {"partition": partition, "bound": 8, "categories": (0, 1)}
        return (
            await t_test(party, *own, **shared),
            await t_test(party, *own, kind="student", **shared),
            await anova(party, *own, **shared),
            await anova(party, *own, welch=True, **shared),
            await t_test(party, own[0], kind="one_sample", partition=partition, bound=8),
        )

    welch, student, classic, other, sample = run(program, split(partition, 3, x, group))[0]
    for found in (welch, student):
        assert found.estimate == pytest.approx(3.5 - 7.25)
        assert found.std_err == 0
        assert math.isnan(found.statistic)
        assert "do not vary" in found.suppressed[0]
        assert "do not vary" in found.summary()
    assert math.isnan(classic.statistic)
    assert math.isnan(other.p_value)
    assert classic.sum_squares_between == pytest.approx(40 * (7.25 - 3.5) ** 2 / 4)
    assert sample.std_dev[0] == pytest.approx(x.std(ddof=1))


@pytest.mark.parametrize("exponent", [900, 515, -560, -980])
@pytest.mark.parametrize("kind", ["welch", "student", "one_sample", "paired"])
def test_bounds_near_the_ends_of_floats_do_not_matter(kind: str, exponent: int) -> None:
    x, y = np.split(np.random.default_rng(2).normal(0.3, 1, 80), 2)
    both, group = np.concatenate([x, y]), np.arange(80) // 40

    async def program(party: Party, own: Any) -> Any:
        data = [np.ldexp(one, exponent) for one in own[:2]]
        bound, mean = math.ldexp(8.0, exponent), math.ldexp(0.125, exponent)
        if kind in ("welch", "student"):
            return await t_test(party, data[0], own[2], kind=kind, mean=mean, bound=bound, categories=(0, 1))
        return await t_test(party, data[0], kind=kind, y=data[1] if kind == "paired" else None, mean=mean, bound=bound)

    found = all_of(program, split("rows", 3, both, -both[::-1], group))
    if kind in ("welch", "student"):
        expected = stats.ttest_ind(x - 0.125, y, equal_var=kind == "student")
    else:
        expected = stats.ttest_1samp(both if kind == "one_sample" else both + both[::-1], 0.125)
    assert found.suppressed == ()
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-6)
    assert found.df == pytest.approx(expected.df, rel=1e-6)
    assert found.p_value == pytest.approx(expected.pvalue, abs=1e-7)
    interval = expected.confidence_interval(0.95)
    shift = 0.125 if kind in ("welch", "student") else 0.0
    assert np.ldexp(found.conf_int, -exponent) == pytest.approx(np.array(interval) + shift, rel=1e-6)
    null = math.ldexp(0.125, exponent)
    assert found.estimate == pytest.approx(found.statistic * found.std_err + null, rel=1e-6, abs=null * 1e-6)


@pytest.mark.parametrize("exponent", [900, 515, -560, -980])
@pytest.mark.parametrize("welch", [False, True])
def test_bounds_near_the_ends_of_floats_do_not_matter_to_an_analysis_of_variance(welch: bool, exponent: int) -> None:
    from statsmodels.stats.oneway import anova_oneway

    x, group = np.random.default_rng(2).normal(0.3, 1, 60), np.arange(60) % 3

    async def program(party: Party, own: Any) -> Any:
        bound = math.ldexp(8.0, exponent)
        return await anova(party, np.ldexp(own[0], exponent), own[1], welch=welch, bound=bound, categories=(0, 1, 2))

    found = all_of(program, split("rows", 3, x, group))
    expected = anova_oneway(x, group, use_var="unequal" if welch else "equal")
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-6)
    assert found.p_value == pytest.approx(expected.pvalue, abs=1e-7)
    if welch:
        assert np.ldexp(found.mean, -exponent) == pytest.approx([x[group == k].mean() for k in range(3)], rel=1e-6)
    else:
        assert found.sum_squares_within == (math.inf if exponent > 0 else 0.0)


def test_a_constant_sample() -> None:
    async def program(party: Party, own: Any) -> Any:
        return await t_test(party, own, kind="one_sample", bound=16)

    found = all_of(program, [np.full(4, 0.1), np.full(5, 0.1), np.full(1, 0.1)])
    assert (found.std_err, found.estimate) == (0.0, pytest.approx(0.1))


@pytest.mark.parametrize("partition", PARTITIONS)
def test_too_few_rows_are_refused(partition: str) -> None:
    x, group = np.arange(5.0), np.array([0, 0, 0, 0, 1])

    async def two(party: Party, own: Any) -> Any:
        return await t_test(party, *own, partition=partition, categories=(0, 1))

    with pytest.raises(DataError, match="groups of 4 and 1 rows"):
        run(two, split(partition, 2, x, group))

    async def several(party: Party, own: Any) -> Any:
        return await anova(party, *own, partition=partition, categories=(0, 1, 2))

    with pytest.raises(DataError, match="4 rows in 1 groups"):
        run(several, split(partition, 2, x[:4], group[:4]))


def test_three_groups_are_no_two() -> None:
    async def program(party: Party, own: Any) -> Any:
        return await t_test(party, *own)

    with pytest.raises(DataError, match="group has 3 categories"):
        run(program, split("rows", 2, np.arange(9.0), np.arange(9) % 3))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"kind": "z"}, "kind is one of"),
        ({"alternative": "both"}, "alternative is one of"),
        ({"confidence": 1.0}, "confidence"),
        ({"y": [1.0]}, "y is for paired"),
        ({"kind": "one_sample"}, "there is no group"),
        ({"kind": "paired", "y": np.arange(9.0)}, "no group"),
    ],
)
def test_arguments_that_do_not_belong_together(arguments: Any, text: str) -> None:
    async def program(party: Party, own: Any) -> Any:
        return await t_test(party, *own, **arguments)

    with pytest.raises(ValueError, match=text):
        run(program, split("rows", 2, np.arange(9.0), np.arange(9) % 2))


@pytest.mark.parametrize(("name", "values"), [("kind", ("welch", "student")), ("mean", (0.0, 1.0))])
def test_parties_that_ask_for_different_tests_do_not_meet(name: str, values: Any) -> None:
    async def program(party: Party, own: Any) -> Any:
        return await t_test(party, *own, **{name: values[party.rank]})

    with pytest.raises(AgreementError, match=f"says {name} ="):
        run(program, split("rows", 2, np.arange(9.0), np.arange(9) % 2))


def test_two_columns_are_no_sample() -> None:
    async def program(party: Party, own: Any) -> Any:
        return await t_test(party, own, kind="one_sample")

    with pytest.raises(DataError, match="x has 2 columns"):
        run(program, [np.zeros((4, 2)), np.zeros((4, 2))])


# ---- what is opened -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "elements"), [("welch", 3 + 2 + 3), ("student", 3 + 2 + 2), ("one_sample", 2 + 2), ("paired", 2 + 2)]
)
def test_nothing_is_opened_but_sizes_and_what_the_test_is_made_of(kind: str, elements: int) -> None:
    x, group = breast_cancer().X[:, 1], breast_cancer().y

    async def program(party: Party, own: Any) -> Any:
        two = {"group": own[1]} if kind in ("welch", "student") else {}
        pair = {"y": own[0] ** 0.5} if kind == "paired" else {}
        agreed: Any = {"categories": (0, 1)} if two else {}
        result = await t_test(party, own[0], kind=kind, bound=64, to=[1], **two, **pair, **agreed)
        return result, [(one.elements, one.to) for one in party.costs.openings]

    results = run(program, split("rows", 3, x, group))
    assert [result is None for result, _ in results] == [True, False, True]
    for _, openings in results:
        assert sum(count for count, _ in openings) == elements
        assert [to for _, to in openings] == [None] * (len(openings) - 1) + [(1,)]


@pytest.mark.parametrize(("welch", "elements"), [(False, 2), (True, 6)])
def test_an_analysis_of_variance_opens_two_numbers(welch: bool, elements: int) -> None:
    x, group = breast_cancer().X[:, 1], np.arange(569) % 3

    async def program(party: Party, own: Any) -> Any:
        result = await anova(party, *own, welch=welch, bound=64, to=[0, 2], categories=(0, 1, 2))
        return result, [(one.elements, one.to) for one in party.costs.openings]

    results = run(program, split("rows", 3, x, group), "dealer")
    assert [result is None for result, _ in results] == [False, True, False]
    assert results[0][1] == [(3, None), (3, None), (elements, (0, 2))]


def test_costs_are_those_of_the_docstrings() -> None:
    x, group = breast_cancer().X[:, 1], np.arange(569) % 3

    async def program(party: Party, own: Any) -> Any:
        counts = []
        for call in (
            lambda: t_test(party, own[0], own[1] > 0, bound=64, categories=(0, 1)),
            lambda: t_test(party, own[0], own[1] > 0, bound=64, categories=(0, 1), kind="student"),
            lambda: anova(party, *own, bound=64, categories=(0, 1, 2)),
            lambda: anova(party, *own, bound=64, categories=(0, 1, 2), welch=True),
        ):
            before = party.costs.total
            await call()
            spent = party.costs.since(before)
            counts.append((spent.rounds, spent.elements_opened))
        return counts

    welch, student, classic, other = run(program, split("rows", 3, x, group))[0]
    # Two rounds and four elements more for the pooled variance, of which one is opened instead of two.
    assert (student[0] - welch[0], student[1] - welch[1]) == (2, 2 + 2 - 1)
    # Of g = 3 groups: two weighted means, two truncations of g entries and one entry.
    assert (classic[0] - other[0], classic[1] - other[1]) == (2 + 2 + 3, 2 * (3 + 2) + 2 * 3 + 1 + 2 - 6)


def test_a_control_of_cells_holds_for_each_group() -> None:
    rule = Disclosure("cells", minimum_cell=5)
    group = np.array([0, 1] * 20)
    x = np.arange(40.0)

    async def program(party: Party, own: Any) -> Any:
        return await t_test(party, *own, disclosure=rule, categories=(0, 1))

    compare(all_of(program, split("rows", 3, x, group)), stats.ttest_ind(x[group == 0], x[group == 1], equal_var=False))
    rare = ((x == 3) | (group == 0)).astype(float)
    with pytest.raises(DisclosureError, match="0 and 1"):
        run(program, split("rows", 3, rare, group))

    async def several(party: Party, own: Any) -> Any:
        return await anova(party, *own, disclosure=rule, categories=(0, 1))

    with pytest.raises(DisclosureError, match="0 and 1"):
        run(several, split("rows", 3, rare, group))


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize(("preprocessing", "parties"), [("dealer", 2), ("prss", 3)])
def test_they_can_be_prepared(preprocessing: str, parties: int, partition: str) -> None:
    x, group = breast_cancer().X[:, 1], breast_cancer().y

    async def work(party: Party, own: Any) -> Any:
        shared: Any = {"partition": partition, "bound": 64}
        return (
            await t_test(party, *own, kind="student", categories=(0, 1), **shared),
            await t_test(party, own[0], y=own[0], kind="paired", **shared),
            await anova(party, *own, categories=(0, 1), **shared),
        )

    async def program(party: Party, own: Any) -> Any:
        await prepare(party, work, own)
        return await work(party, own)

    student, _, classic = run(program, split(partition, parties, x, group), preprocessing)[0]
    compare(student, stats.ttest_ind(x[group == 0], x[group == 1]))
    assert classic.statistic == pytest.approx(student.statistic**2, rel=1e-6)


# ---- parts --------------------------------------------------------------------------------------


def test_weighted_means_keep_all_their_bits(rng: np.random.Generator) -> None:
    values = rng.uniform(-1, 1, (4, 3)) * 2.0 ** -np.arange(0, 30, 10)
    sizes = np.array([1, 10**6, 12, 500])
    found = opened(lambda party, x: weighted(party, x.lifted(60).bounded_by(1.0), sizes), values, bound=1.0, parties=3)
    exact = sizes @ (np.rint(values * 2**24) / 2**24) / sizes.sum()
    np.testing.assert_allclose(found, exact, atol=2.0**-39, rtol=0)
    np.testing.assert_allclose(found[2], exact[2], rtol=1e-6)


def test_results_read_as_those_of_others() -> None:
    x, group = breast_cancer().X[:, 1], breast_cancer().y

    async def program(party: Party, own: Any) -> Any:
        return await t_test(party, *own), await anova(party, *own)

    one, two = run(program, split("rows", 2, x, group))[0]
    assert isinstance(one, TTestResult)
    assert "mean(0) - mean(1)" in str(one)
    assert "Groups: 0 212, 1 357" in str(one)
    assert isinstance(two, AnovaResult)
    assert "Residual" in str(two)
    assert two.to_dict()["mean"] == []
    assert one.to_dict()["groups"] == ["0", "1"]


@pytest.mark.parametrize(("bound", "few"), [(1e3, False), (1e6, True)])
def test_a_loose_bound_is_told_of(bound: float, few: bool) -> None:
    rng = np.random.default_rng(3)
    x, group = rng.normal(5, 1, 60), np.arange(60) % 2
    parts = [(x[:25], group[:25]), (x[25:], group[25:])]
    for analysis in (t_test, anova):
        found = run_one(analysis, parts, "dealer", bound=bound)
        assert ("less than six digits" in " ".join(found.suppressed)) == few


def test_rare_pairs_are_not_told_by_their_differences() -> None:
    x = np.arange(60) % 2
    y = x.copy()
    y[:2] = 1 - y[:2]

    async def program(party: Party, data: Any) -> Any:
        few = Disclosure("few", minimum_cell=5)
        return await t_test(party, data[0], y=data[1], kind="paired", disclosure=few)

    with pytest.raises(DisclosureError, match="each combination of values of two columns"):
        run(program, [(x[:20], y[:20]), (x[20:], y[20:])], "dealer")
