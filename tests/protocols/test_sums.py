"""Sums, means and variances against numpy; what they cost; what they refuse."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mpc import F127, AgreementError, DataError, Party, RangeError
from mpc.memory import run_in_memory
from protocols import PrecisionWarning, secure_mean, secure_sum, secure_variance
from tests.protocols.helpers import run, run_one

MODELS = [("dealer", 2), ("dealer", 3), ("prss", 3), ("prss", 5), ("ot", 2), ("ot", 3)]


@pytest.mark.parametrize(("preprocessing", "parties"), MODELS)
def test_integer_vectors_sum_exactly_at_any_size_the_field_holds(preprocessing: str, parties: int) -> None:
    most = F127.half // parties
    vectors = [np.array([most, -most, (1 << 64) + k, 0], dtype=object) for k in range(parties)]
    total = run_one(secure_sum, vectors, preprocessing)
    assert total.tolist() == [most * parties, -most * parties, (parties << 64) + sum(range(parties)), 0]


def test_an_integer_that_the_field_cannot_sum_is_refused_before_anything_is_sent() -> None:
    vectors = [np.array([F127.half // 2 + 1], dtype=object), np.array([0])]
    with pytest.raises((DataError, RangeError)):
        run_one(secure_sum, vectors)


def test_int64_edges() -> None:
    info = np.iinfo(np.int64)
    vectors = [np.array([info.max, info.min, -1]), np.array([info.max, info.min, 1])]
    assert run_one(secure_sum, vectors).tolist() == [2 * info.max, 2 * info.min, 0]


def test_rows_of_integers_sum_exactly_beyond_int64() -> None:
    info = np.iinfo(np.int64)
    parts = [np.full((5, 2), [info.max, info.min]), np.zeros((0, 2), np.int64), np.array([[1, -1]])]
    assert run_one(secure_sum, parts).tolist() == [5 * info.max + 1, 5 * info.min - 1]


@given(st.lists(st.lists(st.floats(-1e9, 1e9), min_size=3, max_size=3), min_size=2, max_size=4))
@settings(max_examples=15)
@example([[0.0, 0.0, 1.0], [0.0, 0.0, 536870911.00000006], [0.0, 0.0, -477276268.0]])
def test_floats_sum_to_the_last_bits(rows: list[list[float]]) -> None:
    total = run_one(secure_sum, [np.array(row) for row in rows])
    # The exact sum: adding float64 one by one would lose more than we do where terms cancel.
    exact = [math.fsum(column) for column in zip(*rows, strict=True)]
    np.testing.assert_allclose(total, exact, rtol=1e-15, atol=1e-11)


def test_bounds_agree_whatever_type_they_have() -> None:
    bounds: list[Any] = [10, np.int64(10), np.float64(10.0)]

    async def program(party: Party, data: Any) -> Any:
        return await secure_sum(party, data, bound=bounds[party.rank])

    assert run(program, [1, 2, 3]) == [6, 6, 6]


def test_the_most_negative_integer_is_beyond_any_smaller_bound() -> None:
    with pytest.raises(DataError, match="beyond the agreed bound"):
        run_one(secure_sum, [np.array([np.iinfo(np.int64).min]), np.array([0])], bound=2.0**62)


def test_a_number_and_a_scalar_bound() -> None:
    assert run_one(secure_sum, [2, 3, 4], bound=10) == 9
    assert run_one(secure_sum, [2.5, 3.0, 4.0], bound=10) == 9.5


def test_small_numbers_keep_their_digits_under_a_tight_bound(rng: np.random.Generator) -> None:
    parts = [rng.normal(size=(40, 2)) * [1e-12, 1e12] for _ in range(3)]
    total = run_one(secure_sum, parts, bound=[1e-11, 1e13])
    pooled = np.concatenate(parts)
    exact = [math.fsum(column) for column in pooled.T]
    assert (np.abs(total - exact) <= 2.0**-48 * np.abs(pooled).sum(axis=0)).all()  # as documented: terms may cancel


@pytest.mark.parametrize(("preprocessing", "parties"), MODELS)
def test_mean_and_variance_of_unequal_parts(preprocessing: str, parties: int, rng: np.random.Generator) -> None:
    sizes = [40, 1, 0, 7, 23][:parties]
    parts = [rng.normal(size=(size, 3)) * [1, 50, 1e-3] + [0, 1000, 1 + k] for k, size in enumerate(sizes)]
    pooled = np.concatenate(parts)
    bound = [10, 2000, 10]
    means = [math.fsum(column) / len(pooled) for column in pooled.T]  # exact: terms near zero cancel
    off = np.abs(run_one(secure_mean, parts, preprocessing, bound=bound) - means)
    assert (off <= 2.0**-48 * np.abs(pooled).mean(axis=0)).all()  # as is documented of sums
    variance = run_one(secure_variance, parts, preprocessing, bound=bound)
    np.testing.assert_allclose(variance, pooled.var(axis=0, ddof=1), rtol=1e-7)


def test_one_column_gives_a_number(rng: np.random.Generator) -> None:
    parts = [rng.normal(size=size) for size in (5, 8)]
    pooled = np.concatenate(parts)
    mean, variance = run_one(secure_mean, parts), run_one(secure_variance, parts, bound=8.0, ddof=0)
    assert isinstance(mean, float)
    assert isinstance(variance, float)
    assert mean == pytest.approx(pooled.mean(), abs=1e-12)
    assert variance == pytest.approx(pooled.var(), rel=1e-8)


def test_integer_means_are_exact_quotients() -> None:
    parts = [np.array([[2**62, 1], [2**62, 2]]), np.array([[2**62, 4]])]
    assert run_one(secure_mean, parts).tolist() == [2.0**62, 7 / 3]


def test_a_variance_far_from_the_origin_loses_nothing(rng: np.random.Generator) -> None:
    parts = [1e6 + rng.normal(size=(30, 1)) for _ in range(3)]
    variance = run_one(secure_variance, parts, bound=2e6)
    np.testing.assert_allclose(variance, np.concatenate(parts).var(axis=0, ddof=1), rtol=1e-4)


def test_equal_rows_have_no_variance_and_are_named() -> None:
    with pytest.warns(PrecisionWarning, match="column 1 is constant"):
        variance = run_one(secure_variance, [np.array([[0.0, 5.0]]), np.array([[1.0, 5.0], [2.0, 5.0]])], bound=8)
    assert variance == pytest.approx([1, 0], abs=1e-9)


def test_without_a_bound_the_parties_find_one(rng: np.random.Generator) -> None:
    parts = [rng.normal(size=(20, 3)) * [1e-6, 1, 1e14] for _ in range(3)]
    pooled = np.concatenate(parts)
    np.testing.assert_allclose(run_one(secure_variance, parts), pooled.var(axis=0, ddof=1), rtol=1e-9)
    means = run_one(secure_mean, parts, count="secret")
    found = 16.0 ** np.ceil(np.log2(np.abs(pooled).max(axis=0)) / 4)  # the bounds, to which errors are relative
    assert (np.abs(means - pooled.mean(axis=0)) <= found * 2.0**-33).all()


@pytest.mark.parametrize("preprocessing", ["dealer", "prss"])
@pytest.mark.parametrize("sizes", [(1, 0, 0), (3, 0, 9), (500, 1, 12)])
def test_the_mean_of_a_secret_number_of_rows(
    preprocessing: str, sizes: tuple[int, ...], rng: np.random.Generator
) -> None:
    parts = [rng.uniform(-100, 100, size=(size, 2)) for size in sizes]
    means = run_one(secure_mean, parts, preprocessing, bound=100, count="secret")
    np.testing.assert_allclose(means, np.concatenate(parts).mean(axis=0), atol=100 * 2.0**-33)


def test_without_a_row_there_is_no_mean() -> None:
    nothing = [np.zeros((0, 2)), np.zeros((0, 2))]
    wanted: tuple[dict[str, Any], ...] = ({}, {"bound": 1.0, "count": "secret"})
    for parameters in wanted:
        with pytest.raises(DataError, match="no party has a row"):
            run_one(secure_mean, nothing, **parameters)
    with pytest.raises(DataError, match="too few"):
        run_one(secure_variance, [np.zeros((1, 2)), np.zeros((0, 2))])
    assert run_one(secure_sum, nothing).tolist() == [0, 0]


def costs_of(protocol: Any, inputs: list[Any], **parameters: Any) -> tuple[int, int, int]:
    async def program(party: Party, data: Any) -> Any:
        await protocol(party, data, **parameters)
        clear = sum(cost.elements_opened for name, cost in party.costs.by_step.items() if name.endswith("open"))
        return party.costs.rounds, party.costs.elements_opened, clear

    costs: list[tuple[int, int, int]] = run(program, inputs)
    assert len(set(costs)) == 1
    return costs[0]


def test_costs_are_as_documented() -> None:
    k, n = 4, 3
    parts = [np.linspace(0, 1, (5 + j) * k).reshape(5 + j, k) for j in range(n)]
    assert costs_of(secure_sum, parts) == (3, k, k)
    assert costs_of(secure_sum, [np.ones(k)] * n) == (3, k, k)
    assert costs_of(secure_mean, parts) == (4, k + 1, k + 1)
    assert costs_of(secure_variance, parts, bound=2) == (9, 1 + n + k + n * k + 2 * k, 1 + k)
    assert costs_of(secure_mean, parts, bound=2, count="secret")[2] == k + 1  # the means, and whether there is a row


def fails_with(protocol: Any, inputs: list[Any], error: type[Exception], text: str, **parameters: Any) -> None:
    with pytest.raises(error, match=text) as caught:
        run_one(protocol, inputs, **parameters)
    assert "31337" not in str(caught.value)


@pytest.mark.parametrize("protocol", [secure_sum, secure_mean, secure_variance])
def test_bad_data_is_named_without_showing_it(protocol: Any) -> None:
    good = np.zeros((3, 2))
    for value, text in [
        (np.nan, "party 1: 1 of 6 values of the input are NaN or infinite in column 1"),
        (np.inf, "NaN"),
    ]:
        bad = good.copy()
        bad[2, 1] = value
        fails_with(protocol, [good, bad, good], DataError, text)
    bad = good.copy()
    bad[:2, 0] = 31337
    fails_with(
        protocol,
        [good, good, bad],
        DataError,
        "party 2: 2 of 6 .* beyond the agreed bound of 100 in column 0",
        bound=100,
    )
    fails_with(protocol, [good, good, bad], DataError, r"0 \(2 rows, bound 5\)", bound=[5, 50])
    fails_with(protocol, [good, np.array([["31337", "a"]])], DataError, "not made of numbers")
    fails_with(protocol, [good, np.zeros((2, 2, 2))], DataError, "shape")


@pytest.mark.parametrize("protocol", [secure_sum, secure_mean, secure_variance])
def test_parties_that_disagree_are_told_so(protocol: Any) -> None:
    fails_with(protocol, [np.zeros((3, 2)), np.zeros((3, 4))], AgreementError, r"shape = \[[24]\]")
    fails_with(protocol, [np.zeros((3, 2)), np.zeros((3, 2), int)], AgreementError, "numbers = 'integers'")

    async def program(party: Party, data: Any) -> Any:
        return await protocol(party, data, bound=1.0 + party.rank)

    with pytest.raises(AgreementError, match="bound = "):
        run_in_memory(program, [np.zeros((3, 2))] * 2, preprocessing="dealer")


def test_vectors_of_different_lengths_do_not_add_up() -> None:
    fails_with(secure_sum, [np.zeros(3), np.zeros(4)], AgreementError, "shape")


def test_parameters_are_checked() -> None:
    wrong: tuple[dict[str, Any], ...] = (
        {"count": "none"},
        {"bound": -1.0},
        {"bound": np.nan},
        {"bound": [1.0, 2.0, 3.0]},
    )
    for parameters in wrong:
        with pytest.raises(ValueError, match=r"bound|count"):
            run_one(secure_mean, [np.zeros((3, 2))] * 2, **parameters)
