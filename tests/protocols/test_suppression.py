"""What is opened of tables of counts: attacked with everything that small tables allow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from mpc import Party, concatenate, less_than, prepare
from protocols.release.disclosure import Disclosure, Release
from protocols.release.suppression import OpenedCounts, lines_of, open_counts, rounded, withheld_counts
from protocols.release.withholding import most_large, steps_wanted
from tests.protocols.clear_counts import Clear, Nobody, finished, in_the_clear, seen, shown, tables
from tests.protocols.helpers import run


@pytest.fixture
def clear(monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_clear(monkeypatch)


def fewest_values(alike: Mapping[Any, list[tuple[Any, OpenedCounts]]], minimum: int, lines: Sequence[Any]) -> int:
    """Return how many values a small number has at least, among the tables with which exactly the same is opened."""
    fewest = 1 << 30
    for members in alike.values():
        cells = np.array([cells for cells, _ in members])
        entries = np.hstack([cells, *(cells[:, line].sum(axis=1, keepdims=True) for line in lines)])
        values = np.array([*members[0][1].counts, *members[0][1].totals])
        small: Any = (entries < minimum).any(axis=0)
        small[-1] = False  # the number of rows is public
        assert np.isnan(values[small]).all()
        known = ~np.isnan(values)
        assert (entries[:, known] == values[known]).all()
        if small.any():
            fewest = min(fewest, *(len(np.unique(column)) for column in entries[:, small].T))
    return fewest


ALL_TABLES = [
    ((2,), range(15), (2, 3, 5)),
    ((3,), range(18), (2, 3, 5)),
    ((4,), (3, 6, 7, 8, 9, 12, 14), (2, 3, 5)),
    ((5,), (4, 8, 10), (2, 3)),
    ((2, 2), range(4, 17, 2), (2, 3)),
    ((2, 2), (17, 20), (3, 5)),
    ((2, 3), (6, 9), (2, 3)),
    ((2, 2, 2), (6,), (2,)),
]


@pytest.mark.usefixtures("clear")
@pytest.mark.parametrize(("shape", "rows", "minima"), ALL_TABLES)
def test_no_small_number_is_told(shape: tuple[int, ...], rows: Iterable[int], minima: tuple[int, ...]) -> None:
    """Take all tables with all that is opened of them, on the way to the result, too."""
    lines = lines_of(shape)
    for n in rows:
        for minimum in minima:
            alike = defaultdict(list)
            for cells in tables(n, int(np.prod(shape))):
                opened, everything = seen(np.reshape(cells, shape), minimum)
                alike[everything].append((cells, opened))
            assert fewest_values(alike, minimum, lines) >= 1 + min(steps_wanted(minimum), n), (n, minimum)


SIZES = [((4, 6), 3, 2), ((5, 7), 3, 3), ((7, 9), 2, 3), ((4, 3, 5), 2, 3), ((11, 15), 2, 5)]


@pytest.mark.usefixtures("clear")
@pytest.mark.parametrize(("sizes", "columns", "minimum"), SIZES)
def test_no_small_number_is_told_beside_known_totals(sizes: tuple[int, ...], columns: int, minimum: int) -> None:
    """Take all tables of groups whose sizes are known, and the totals over the groups, opened before."""
    release = Release(None, Disclosure("test", minimum_cell=minimum))
    rows, alike, lines = len(sizes), defaultdict(list), lines_of((len(sizes), columns))
    for parts in product(*(list(tables(n, columns)) for n in sizes)):
        table, party = np.array(parts), Nobody()
        sums: Any = Clear(table.sum(axis=0))
        hidden, _ = finished(withheld_counts(party, sums, lines_of((columns,)), release))  # type: ignore[arg-type]
        known = {
            "told": [*range(rows), *(rows + np.flatnonzero(~hidden[:columns]))],
            "withheld": (rows + np.flatnonzero(hidden[:columns])).tolist(),
        }
        opened, everything = seen(table, minimum, **known)
        assert not np.isnan(opened.totals[known["told"]]).any()
        alike[tuple(party.seen), everything].append((table.reshape(-1), opened))
    assert fewest_values(alike, minimum, lines) > steps_wanted(minimum)
    assert any(not np.isnan(members[0][1].counts).any() for members in alike.values()) == (
        min(sizes) >= columns * minimum
    )


@pytest.mark.usefixtures("clear")
@pytest.mark.parametrize("shape", [(5,), (3, 3), (4, 5), (2, 2, 3)])
def test_no_withheld_number_is_a_combination_of_what_is_opened(
    shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    lines = lines_of(shape)
    equations = np.array([np.isin(np.arange(np.prod(shape)), line) for line in lines], dtype=float)
    system = np.hstack([equations, -np.eye(len(lines))])
    hidden_ones = 0
    for _ in range(60):
        table = rng.negative_binomial(1, 0.08, size=shape)
        opened = shown(table, 5)
        unknown = np.isnan([*opened.counts, *opened.totals])
        unknown[-1] = False  # the number of rows is public
        held = system[:, unknown]
        rank = np.linalg.matrix_rank(held) if held.size else 0
        for k in range(held.shape[1]):
            without = np.linalg.matrix_rank(np.delete(held, k, axis=1))
            assert without == rank, "an unknown that no other unknown makes up for is known"
        # Withheld cells of a line whose total is known add up to the minimum.
        for total, line in zip(opened.totals, lines, strict=True):
            held_cells = line[np.isnan(opened.counts[line])]
            if held_cells.size and not np.isnan(total) and (~np.isnan(opened.counts[line])).any():
                assert table.reshape(-1)[held_cells].sum() >= 5
        hidden_ones += int(unknown.any())
    assert hidden_ones > 20


@pytest.mark.usefixtures("clear")
def test_small_totals_do_not_follow_from_the_others() -> None:
    opened = shown([[1, 1], [6, 7]], 5)
    assert np.isnan(opened.totals[:2]).all()  # 2, and 15 - 2
    opened = shown([[1, 1, 1], [6, 7, 8], [9, 9, 9]], 5)
    assert np.isnan(opened.totals[0])
    assert np.isnan(opened.totals[:3]).sum() > 1


@pytest.mark.usefixtures("clear")
def test_a_cycle_of_zeros_is_not_told_by_counts_not_being_negative() -> None:
    table = [[0, 9, 20], [20, 9, 0], [9, 20, 9]]
    opened = shown(table, 5)
    assert np.isnan(opened.counts).sum() >= 4
    assert opened.totals[-1] == 96


@pytest.mark.usefixtures("clear")
def test_a_table_without_small_cells_is_opened_whole() -> None:
    opened = shown([[5, 6], [7, 8]], 5)
    assert opened.counts.tolist() == [5, 6, 7, 8]
    assert opened.totals.tolist() == [11, 15, 12, 14, 26]
    assert opened.reasons == ()


@pytest.mark.usefixtures("clear")
def test_what_is_large_enough_stays(rng: np.random.Generator) -> None:
    table = rng.integers(50, 100, size=(5, 6))
    table[2, 3] = 1
    opened = shown(table, 5)
    assert np.isnan(opened.counts).sum() == 2  # the cell, and one more of its row
    assert not np.isnan(opened.totals[:5]).any()
    assert np.isnan(opened.totals).sum() == 2  # of their columns
    assert opened.primary.sum() == 1
    assert len(opened.reasons) == 2


@pytest.mark.usefixtures("clear")
def test_many_small_cells_take_no_time(rng: np.random.Generator) -> None:
    opened = shown(rng.poisson(6, size=(15, 10)), 5)
    assert np.isnan(opened.counts).sum() >= opened.primary.sum() > 3


@pytest.mark.usefixtures("clear")
def test_a_companion_just_at_the_minimum_is_not_enough() -> None:
    opened = shown([0, 9, 30, 5], 5)
    assert np.isnan(opened.counts).tolist() == [True, True, False, True]
    assert np.isnan(shown([0, 30, 5], 5).counts).all()
    assert np.isnan(shown([0, 5, 30], 5).counts).tolist() == [True, False, True]


@pytest.mark.usefixtures("clear")
def test_lines_that_do_not_suffice_are_withheld_together() -> None:
    opened = shown([[0, 6], [1, 30], [20, 20]], 5)  # 0 + 6 is not enough
    assert np.isnan(opened.totals[:2]).all()
    assert opened.totals[2] == 40
    assert np.isnan(opened.counts).tolist() == [True, True, True, True, False, False]
    opened = shown([[0, 8], [1, 30], [20, 20]], 5)
    assert opened.totals[:3].tolist() == [8, 31, 40]


@pytest.mark.usefixtures("clear")
def test_many_cells_at_the_minimum_are_not_named() -> None:
    opened, everything = seen([5, 5, 0, 5, 0, 0], 5)  # 15 rows, 3 large cells
    assert np.isnan(opened.counts).all()
    assert not opened.primary.any()
    assert opened.reasons == ("6 cells are withheld: some of them have too few rows, or may have",)
    assert everything == ((15,), (1,), (15,))  # rows, one bit, and the total again


def test_at_how_many_large_cells_their_places_are_told() -> None:
    assert most_large(4, 20, 5) == 4
    assert most_large(4, 19, 5) == 4  # 3 large ones leave 4
    assert most_large(6, 16, 5) == 1  # 3 large ones leave 1
    assert most_large(6, 4, 5) is None
    assert most_large(6, 6, 5) is None
    assert most_large(6, 24, 5) is None  # all cells may be 4
    assert most_large(6, 22, 5) == 6


# ---- on shares ----------------------------------------------------------------------------------

TABLE = [[0, 9, 20], [20, 9, 3], [9, 20, 9]]


async def opened_by(party: Party, table: Any, release: Release) -> OpenedCounts | None:
    array = np.asarray(table)
    shares = await party.share(array.reshape(-1) if party.rank == 0 else None, bound=1000, owner=0, shape=(array.size,))
    return await open_counts(party.at("cells"), shares, lines_of(array.shape), release)


PATHS = [
    [0, 5, 30, 5],
    [0, 9, 30, 5],
    [[0, 6], [1, 30], [20, 20]],
    [5, 5, 0, 5, 0, 0],
    [1, 2, 1],
    [[[0, 9], [9, 9]]] * 2,
]


@pytest.mark.parametrize("table", PATHS)
def test_shares_go_all_the_ways_that_numbers_go(table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def program(party: Party, _: Any) -> Any:
        return await opened_by(party, table, Release(None, Disclosure("test", minimum_cell=5)))

    results = run(program, [None] * 3, "prss")
    with monkeypatch.context() as patched:
        in_the_clear(patched)
        expected = shown(table, 5)
    for found in results:
        for name in ("counts", "totals", "primary", "secondary"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize(
    ("preprocessing", "parties"), [("dealer", 2), ("dealer", 3), ("prss", 3), ("prss", 5), ("ot", 2)]
)
def test_shares_give_what_numbers_in_the_clear_give(
    preprocessing: str, parties: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Release(None, Disclosure("test", minimum_cell=5))

    async def program(party: Party, _: Any) -> Any:
        await prepare(party, opened_by, TABLE, release)
        return await opened_by(party, TABLE, release)

    results = run(program, [None] * parties, preprocessing)
    with monkeypatch.context() as patched:
        in_the_clear(patched)
        expected = shown(TABLE, 5)
    for found in results:
        np.testing.assert_array_equal(found.counts, expected.counts)
        np.testing.assert_array_equal(found.totals, expected.totals)
    assert expected.primary.sum() == 2


@pytest.mark.parametrize(("preprocessing", "parties"), [("dealer", 2), ("prss", 3)])
def test_rounded_counts_of_a_prepared_run(preprocessing: str, parties: int) -> None:
    release = Release((0,), Disclosure.preset("opensafely"))

    async def program(party: Party, _: Any) -> Any:
        await prepare(party, opened_by, TABLE, release)
        return await opened_by(party, TABLE, release)

    first, *others = run(program, [None] * parties, preprocessing)
    assert others == [None] * (parties - 1)
    known = first.counts[~np.isnan(first.counts)]
    assert (known % 5 == 0).all()
    assert np.isnan(first.counts).sum() >= 4
    assert first.totals[-1] == 100  # 99 rows


def test_rounding_is_exact_at_all_edges() -> None:
    values = np.array([0, 1, 2, 3, 7, 8, 12, 13, 2**31 + 2, 2**31 + 3, 2**32])

    async def program(party: Party, _: Any) -> Any:
        shares = await party.share(values if party.rank == 0 else None, bound=2**32, owner=0, shape=values.shape)
        from mpc import open_

        return await open_(party, await rounded(party, shares, 5))

    for result in run(program, [None] * 3, "prss"):
        assert result.tolist() == [5 * ((v + 2) // 5) for v in values.tolist()]


# A table, how many cells each set has that is compared, whether there are several at first, patterns asked for.
COSTS = [([[9, 9], [9, 9]], (), False, 0), ([[0, 9], [9, 9]], (2, 3), False, 2), ([[0, 9], [1, 9]], (2, 2), True, 1)]


@pytest.mark.parametrize(("table", "sets", "several", "bits"), COSTS)
def test_cost_with_a_minimum(table: Any, sets: tuple[int, ...], several: bool, bits: int) -> None:
    """Count what is opened: rows, which cells are small, which pattern, what is shown; and what comparisons take."""

    async def program(party: Party, _: Any) -> Any:
        opened = await opened_by(party, table, Release(None, Disclosure("test", minimum_cell=5)))
        assert opened is not None
        return party.costs.elements_opened, int((~np.isnan([*opened.counts, *opened.totals])).sum())

    async def comparisons(party: Party, _: Any) -> Any:
        shares = await party.share(np.zeros(4, int) if party.rank == 0 else None, bound=1000, owner=0, shape=(4,))
        await less_than(party.at("cells"), shares, 5)
        if sets:
            await less_than(party.at("sets"), concatenate([shares[:k].sum().reshape(1) for k in sets]), 5)
        if several:
            await less_than(party.at("any"), shares[:1].bounded_by(2), 1)
        return party.costs.elements_opened

    everything, known = run(program, [None] * 2)[0]
    assert everything == run(comparisons, [None] * 2)[0] + (4 + 1) + known + bits


def test_without_a_rule_all_is_opened_in_one_round() -> None:
    async def program(party: Party, _: Any) -> Any:
        shares = await party.share(np.arange(6) if party.rank == 0 else None, bound=10, owner=0, shape=(6,))
        rounds, elements = party.costs.rounds, party.costs.elements_opened
        opened = await open_counts(party.at("cells"), shares, lines_of((2, 3)), Release(None, None))
        assert opened is not None
        return opened.counts.tolist(), party.costs.rounds - rounds, party.costs.elements_opened - elements

    assert run(program, [None] * 2)[0] == ([0, 1, 2, 3, 4, 5], 1, 6 + 6)
