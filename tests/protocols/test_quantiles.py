"""Quantiles against numpy, found in three ways; what is opened; what a disclosure control refuses."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc import AgreementError, DataError, Party, PeerError, prepare
from protocols.comparisons.quantiles import quantile
from protocols.release.disclosure import Disclosure, DisclosureError
from tests.mpc.support import Message
from tests.mpc.support import run as run_tapped
from tests.protocols.helpers import breast_cancer, run
from tests.protocols.promises import at_rank, watched

METHODS = ["linear", "inverted_cdf"]
Q = [0.0, 0.25, 0.37, 1.0]
NAN = float("nan")
# Searched; sorted, as not all learn it; on a grid. Values have one digit after the point.
WAYS: list[dict[str, Any]] = [
    {"bound": 64},
    {"bound": 64, "to": [0]},
    {"bound": 64, "resolution": 0.1},
    {"bound": 64, "resolution": 0.1, "to": [0]},
    {"grid": (0, 64, 0.1)},
    {"grid": (0, 64, 0.1), "to": [0]},
]


def columns(rows: int = 91) -> tuple[Any, Any]:
    data = breast_cancer()
    return np.rint(data.X[:rows, 0] * 10) / 10, np.digitize(data.X[:rows, 1], [16, 20, 24])


def numpys(values: Any, q: Any, method: Any = "linear") -> Any:
    return np.quantile(values, q, method=method)


def split(partition: str, parties: int, *given_columns: Any) -> list[Any]:
    if partition == "rows":
        rows = len(given_columns[0])
        cuts = np.sort(np.random.default_rng(parties).choice(np.arange(1, rows), parties - 1, replace=False))
        return list(zip(*(np.split(column, cuts) for column in given_columns), strict=True))
    return [
        tuple(c if rank == (k + 1) % parties else None for k, c in enumerate(given_columns)) for rank in range(parties)
    ]


@pytest.mark.parametrize(
    ("preprocessing", "parties", "way"),
    [
        *(("dealer", 2, way) for way in WAYS),
        *(("prss", 3, way) for way in WAYS),
        ("dealer", 3, WAYS[2]),
        ("prss", 5, WAYS[2]),
        *(("ot", 2, way) for way in WAYS[::2]),
    ],
    ids=str,
)
@pytest.mark.parametrize("method", METHODS)
def test_quantiles_as_numpy(way: dict[str, Any], method: str, preprocessing: str, parties: int) -> None:
    x, group = columns()

    async def program(party: Party, own: Any) -> Any:
        whole = await quantile(party.at("a"), own[0], Q, method=method, **way)
        grouped = await quantile(party.at("b"), own[0], Q, by=own[1], categories=range(4), method=method, **way)
        return whole, grouped

    with watched() as promises:
        results = run(at_rank(program), split("rows", parties, x, group), preprocessing)
    promises.check(parties)
    whole, grouped = results[0]
    assert [one is None for one, _ in results] == [bool(rank) and "to" in way for rank in range(parties)]
    np.testing.assert_allclose(whole.values, numpys(x, Q, method=method), rtol=1e-9)
    for k in range(4):
        np.testing.assert_allclose(grouped.values[k], numpys(x[group == k], Q, method=method), rtol=1e-9)
    assert grouped.group_n.tolist() == np.bincount(group).tolist()
    assert whole.groups == ()
    assert grouped.groups == ("0", "1", "2", "3")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("resolution", [None, 0.1])
def test_quantiles_of_columns_with_missing_values(method: str, resolution: float | None) -> None:
    x, group = columns()
    group = group.astype(float)
    x[::5], group[3::13] = NAN, NAN
    kept = ~np.isnan(x) & ~np.isnan(group)

    async def program(party: Party, own: Any) -> Any:
        shared: Any = {"partition": "columns", "bound": 64, "resolution": resolution, "method": method}
        return (
            await quantile(party.at("a"), own[0], Q, by=own[1], categories=range(4), **shared),
            await quantile(party.at("b"), own[0], 0.5, **shared),
        )

    for preprocessing, parties in (("dealer", 2), ("prss", 3)):
        with watched() as promises:
            grouped, median = run(at_rank(program), split("columns", parties, x, group), preprocessing)[0]
        promises.check(parties)
        for k in range(4):
            expected = numpys(x[kept & (group == k)], Q, method=method)
            np.testing.assert_allclose(grouped.values[k], expected, rtol=1e-9)
        np.testing.assert_allclose(median.values, [numpys(x[~np.isnan(x)], 0.5, method=method)], rtol=1e-9)
        assert grouped.n == kept.sum()


@given(
    st.lists(st.integers(-8, 8), min_size=1, max_size=12),
    st.lists(st.sampled_from([0, 1 / 3, 0.5, 0.37, 0.999, 1]) | st.floats(0, 1), min_size=1, max_size=3),
    st.sampled_from(METHODS),
    st.sampled_from([{}, {"to": [0]}, {"resolution": 0.5}, {"grid": (-8, 8, 0.5)}]),
    st.integers(0, 12),
)
@settings(max_examples=40)
def test_any_few_values_give_what_numpy_gives(
    values: list[int], q: list[float], method: str, way: dict[str, Any], cut: int
) -> None:
    array = np.array(values) / 2

    async def program(party: Party, own: Any) -> Any:
        bound: dict[str, Any] = {} if "grid" in way else {"bound": 4}
        return await quantile(party, own, q, method=method, **bound, **way)

    found = run(program, np.split(array, [min(cut, array.size)]))[0]
    np.testing.assert_allclose(found.values, numpys(array, q, method=method), atol=2e-8)


def test_values_that_hardly_differ_under_a_loose_bound_and_none_at_all() -> None:
    x = 1000 + np.array([1, 2, 3, 5, 8, 13]) * 1e-6

    async def program(party: Party, own: Any) -> Any:
        return await quantile(party, own, [0.3, 0.5]), await quantile(party, own, 0.5, bound=2e4)

    loose, bounded = run(program, np.split(x, [2, 2]))[0]
    np.testing.assert_allclose(loose.values - 1000, numpys(x, [0.3, 0.5]) - 1000, atol=1e-8)
    np.testing.assert_allclose(bounded.values, np.median(x), atol=1e-7)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_group_without_rows_has_no_quantile(way: dict[str, Any]) -> None:
    x, _ = columns(20)

    async def program(party: Party, own: Any) -> Any:
        return await quantile(party, own[0], [0.25, 0.5], by=own[1], categories=(0, 1, 2), **way)

    found = run(program, split("rows", 3, x, np.arange(20) % 2 * 2))[0]
    assert found.group_n.tolist() == [10, 0, 10]
    assert np.isnan(found.values[1]).all()
    np.testing.assert_allclose(found.values[2], numpys(x[1::2], [0.25, 0.5]), rtol=1e-9)

    async def none(party: Party, own: Any) -> Any:
        return await quantile(party, own, 0.5, **way)

    with pytest.raises(DataError, match="there is no row"):
        run(none, [x[:0], x[:0]])


# ---- what is opened -----------------------------------------------------------------------------


def test_a_search_opens_only_on_which_side_of_public_numbers_the_quantile_lies() -> None:
    """All that is opened follows from the result: counts of candidates below it, and the result."""
    x, _ = columns()

    async def program(party: Party, own: Any) -> Any:
        before = len(party.costs.openings)
        found = await quantile(party, own, [0.5, 0.41], bound=64)
        return found, [(one.elements, one.step.rsplit("/", 2)[-2]) for one in party.costs.openings[before:]]

    found, openings = run(program, [one for (one,) in split("rows", 3, x)], "prss")[0]
    assert openings == [(2, "sizes"), *[(2, "side")] * 6, (2, "between")] or openings == [
        (2, "sizes"),
        (2, "side"),
        *[(2, f"side.{k}") for k in range(2, 7)],
        (2, "between"),
    ]
    np.testing.assert_allclose(found.values, numpys(x, [0.5, 0.41]), rtol=1e-9)


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("preprocessing", ["dealer", "prss"])
def test_other_data_with_the_same_quantiles_looks_the_same(preprocessing: str, way: dict[str, Any]) -> None:
    """Whatever is opened is a function of sizes and quantiles: digests of all of it are equal."""
    x = np.sort(columns(30)[0])
    other = x.copy()
    # The 14th to 17th row stay: quantiles lie between these.
    other[:13] = np.linspace(0, x[12], 13).round(1)
    other[17:] = np.linspace(x[17], 63, 13).round(1)[::-1]

    async def program(party: Party, own: Any) -> Any:
        found = await quantile(party, own, [0.46, 0.5, 0.535], **way)
        return found, [(one.step, one.digest) for one in party.costs.openings]

    first = run(program, np.split(x, [4, 20]), preprocessing)[0]
    second = run(program, np.split(np.random.default_rng(0).permutation(other), [12, 15]), preprocessing)[0]
    np.testing.assert_array_equal(first[0].values, second[0].values)
    assert first[1] == second[1]
    assert all(digest for _, digest in first[1])


@pytest.mark.parametrize("way", [{"bound": 64, "to": [2]}, {"grid": (0, 64, 0.5), "to": [2]}], ids=str)
def test_others_learn_sizes_and_no_more(way: dict[str, Any]) -> None:
    x, _ = columns()

    async def program(party: Party, own: Any) -> Any:
        found = await quantile(party, own, Q, **way)
        return found is None, [(one.elements, one.to) for one in party.costs.openings]

    for rank, (nothing, openings) in enumerate(run(program, [one for (one,) in split("rows", 3, x)], "prss")):
        assert nothing == (rank != 2)
        assert openings == [(2, None), (4, (2,))]


@pytest.mark.parametrize("way", [{"bound": 64}, {"grid": (0, 64, 0.5)}], ids=str)
def test_the_cost_of_search_and_grid_does_not_depend_on_the_rows(way: dict[str, Any]) -> None:
    async def program(party: Party, own: Any) -> Any:
        await quantile(party, own, 0.4, **way)
        return party.costs.total.elements_opened, party.costs.rounds

    rng = np.random.default_rng(3)
    costs = [run(program, np.split(rng.uniform(0, 60, n), [5, 9]), "prss")[0] for n in (12, 4002)]
    assert costs[0] == costs[1]


def test_rounds_of_a_search_are_those_of_the_docstring() -> None:
    async def program(party: Party, own: Any) -> Any:
        counts = []
        for size in ({"method": "inverted_cdf"}, {}, {"resolution": 1.0}):
            before = party.costs.total
            await quantile(party, own, 0.4, bound=64, **size)
            spent = party.costs.since(before)
            counts.append((spent.rounds, spent.elements_opened))
        return counts

    one, between, whole = run(program, np.split(np.arange(24.0), [5, 9]), "prss")[0]
    base = 3  # agreement, sharing of the numbers of rows, their opening
    assert one[0] == base + 6 * 12
    assert between[0] == base + 6 * 47 + 36
    assert whole[0] < base + 2 * 47 + 36


def test_rounds_of_a_search_of_five_parties_are_those_of_the_docstring() -> None:
    async def program(party: Party, own: Any) -> Any:
        await quantile(party, own, 0.4, bound=64, method="inverted_cdf")
        return party.costs.rounds

    parts = np.array_split(np.arange(24.0), 5)
    assert run(program, parts, "prss")[0] == 3 + 84
    assert run(program, parts, "dealer")[0] == 3 + 60


@pytest.mark.parametrize("partition", ["rows", "columns"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_it_can_be_prepared(way: dict[str, Any], partition: str) -> None:
    if partition == "columns" and "grid" in way:
        return
    x, group = (one.astype(float) for one in columns(40))
    x[3] = NAN

    async def work(party: Party, own: Any) -> Any:
        return await quantile(party, own[0], Q, by=own[1], categories=range(4), partition=partition, **way)

    async def program(party: Party, own: Any) -> Any:
        await prepare(party, work, own)
        return await work(party, own)

    for preprocessing, parties in (("dealer", 2), ("prss", 3)):
        found = run(program, split(partition, parties, x, group), preprocessing)[0]
        for k in range(4):
            rows = x[(group == k) & ~np.isnan(x)]
            if rows.size:
                np.testing.assert_allclose(found.values[k], numpys(rows, Q), rtol=1e-9)


# ---- disclosure control -------------------------------------------------------------------------

RULE = Disclosure("cells", minimum_cell=5)


@pytest.mark.parametrize("way", WAYS[2:5], ids=str)
@pytest.mark.parametrize(
    ("q", "allowed"),
    [
        ([0.5], True),
        ([0.0], False),
        ([1.0], False),
        ([0.25, 0.75], True),
        ([4 / 39], True),  # the fifth row of 40
        ([4 / 39 - 0.001], False),
        ([35 / 39], True),
        ([35 / 39 + 0.001], False),
        ([0.5, 0.5], True),
        ([0.5, 0.51], False),
        ([20 / 39, 25 / 39], True),
        ([20 / 39, 24 / 39], False),
    ],
)
def test_enough_rows_on_either_side_and_between(way: dict[str, Any], q: list[float], allowed: bool) -> None:
    x, _ = columns(40)

    async def program(party: Party, own: Any) -> Any:
        try:
            found = await quantile(party, own, q, disclosure=RULE, **way)
        except DisclosureError as error:
            return str(error), [one.elements for one in party.costs.openings]
        return found

    results = run(program, [one for (one,) in split("rows", 3, x)])
    if allowed:
        np.testing.assert_allclose(results[0].values, numpys(x, q), rtol=1e-9)
    else:
        for message, openings in results:
            assert "at least 5 rows on either side" in message
            assert sum(openings) <= 4


def test_small_groups_are_refused() -> None:
    x, _ = columns(40)

    async def program(party: Party, own: Any) -> Any:
        return await quantile(party, own[0], 0.5, by=own[1], categories=(0, 1), disclosure=RULE)

    with pytest.raises(DisclosureError, match="5 rows for each category"):
        run(program, split("rows", 3, x, (np.arange(40) < 4).astype(int)))


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"q": 1.5}, "q goes from"),
        ({"q": NAN}, "q goes from"),
        ({"q": []}, "q goes from"),
        ({"q": [[0.5]]}, "q goes from"),
        ({"q": 0.5, "method": "nearest"}, "method is one of"),
        ({"q": 0.5, "resolution": -1}, "resolution"),
        ({"q": 0.5, "grid": (0, 9, 1), "partition": "columns"}, "grid is for"),
        ({"q": 0.5, "grid": (0, 9, 1), "bound": 9.0}, "grid is for"),
    ],
)
def test_arguments_that_make_no_sense(arguments: Any, text: str) -> None:
    async def program(party: Party, own: Any) -> Any:
        return await quantile(party, own, **arguments)

    with pytest.raises(ValueError, match=text):
        run(program, np.split(np.arange(8.0), [3]))


def test_wrong_data_and_different_questions() -> None:
    async def program(party: Party, own: Any) -> Any:
        return await quantile(party, own, 0.5, grid=(0, 5, 1))

    with pytest.raises(DataError, match="2 of 5 values of x are beyond the agreed"):
        run(program, np.split(np.arange(8.0), [3]))

    async def wide(party: Party, own: Any) -> Any:
        return await quantile(party, own, 0.5)

    with pytest.raises(DataError, match="x has 2 columns"):
        run(wide, [np.zeros((3, 2))] * 2)

    async def fine(party: Party, own: Any) -> Any:
        return await quantile(party, own, 0.5, resolution=1e-15, bound=8)

    with pytest.raises(DataError, match="resolution is below"):
        run(fine, np.split(np.arange(8.0), [3]))

    async def other(party: Party, own: Any) -> Any:
        return await quantile(party, own, [0.5, 0.25][party.rank])

    with pytest.raises(AgreementError, match="says q ="):
        run(other, np.split(np.arange(8.0), [3]))


def test_a_table_shows_quantiles_by_group() -> None:
    x, group = columns(40)

    async def program(party: Party, own: Any) -> Any:
        return await quantile(party, own[0], [0.25, 0.5], by=own[1])

    text = str(run(program, split("rows", 2, x, group))[0])
    assert "25 %" in text
    assert "50 %" in text
    assert "Rows: 40" in text


# ---- peers that fail ----------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0, 4, 11, 20, 35])
def test_a_peer_that_cuts_its_messages_short_is_named(kept: int) -> None:
    """What runs side by side fails with the peer's fault itself, not with a group of them."""
    x = np.arange(60.0)
    sent = 0

    def tamper(message: Message) -> list[Message]:
        nonlocal sent
        if message.frm != 2 or "pass" not in message.step:
            return [message]
        sent += 1
        return [message if sent <= kept else message._replace(data=message.data[:-1])]

    async def program(party: Party, own: Any) -> Any:
        return await quantile(party, own, 0.3, bound=100.0)

    found = run_tapped(
        program, [x[rank::3] for rank in range(3)], preprocessing="prss", tamper=tamper, timeout_seconds=2
    )
    assert sent > kept
    for outcome in found.outcomes[:2]:
        assert isinstance(outcome, PeerError), repr(outcome)
    assert any(outcome.rank == 2 for outcome in found.outcomes[:2])
