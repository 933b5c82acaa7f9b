"""What is opened of tables of counts: attacked with everything that small tables allow."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest

from mpc import Party, prepare
from protocols.disclosure import Disclosure, Release
from protocols.suppression import OpenedCounts, lines_of, open_counts, rounded
from protocols.withholding import Layout
from tests.protocols.clear_counts import in_the_clear, shown, tables
from tests.protocols.helpers import run


@pytest.fixture
def clear(monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_clear(monkeypatch)


# Shape, minimum, numbers of rows, and the largest part of the tables that the rule itself may tell something of.
ALL_TABLES = [
    ((2,), 3, (5, 8), 0.0),
    ((3,), 3, (6, 9, 13), 0.05),
    ((4,), 3, (8, 12), 0.05),
    ((2, 2), 3, (7, 9, 12), 0.03),
]


@pytest.mark.usefixtures("clear")
@pytest.mark.parametrize(("shape", "minimum", "rows", "most"), ALL_TABLES)
def test_no_small_number_is_told(shape: tuple[int, ...], minimum: int, rows: tuple[int, ...], most: float) -> None:
    """Take all tables with what is opened of them, and look for a small number that can have one value only.

    Who knows what is opened, and what is below the minimum, always sees three tables that fit. Who also knows the
    rule can leave out those of which something else would have been opened: that tells a number in rare cases.
    """
    lines = lines_of(shape)
    for n in rows:
        alike: dict[Any, list[Any]] = defaultdict(list)
        for cells in tables(n, int(np.prod(shape))):
            opened = shown(np.reshape(cells, shape), minimum)
            entries = np.array([*cells, *(sum(cells[k] for k in line) for line in lines)])
            values = np.array([*opened.counts, *opened.totals])
            assert ((values == entries) | np.isnan(values)).all()
            assert np.isnan(values[entries < minimum]).all()
            alike[tuple((entries < minimum).tolist())].append((entries, values))
        everything, told_by_rule = 0, 0
        for small, members in alike.items():
            entries, values = np.array([e for e, _ in members]), np.array([v for _, v in members])
            everything += len(members)
            for pattern in np.unique(np.nan_to_num(values, nan=-1), axis=0):
                known = pattern >= 0
                if not known[:-1].any():
                    continue  # nothing but the number of rows is opened
                fits = (entries[:, known] == pattern[known]).all(axis=1)
                told = np.array(small) & (np.ptp(entries[fits], axis=0) < min(2, minimum - 1))
                assert not told.any(), f"{entries[fits][0]}: {pattern}"
                same = (np.nan_to_num(values, nan=-1) == pattern).all(axis=1)
                told_by_rule += int(same.sum()) * bool((np.array(small) & (np.ptp(entries[same], axis=0) == 0)).any())
        assert told_by_rule <= most * everything


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
    assert np.isnan(opened.counts).sum() == 4  # the cell, and a rectangle with it
    assert not np.isnan(opened.totals).any()
    assert opened.primary.sum() == 1
    assert len(opened.reasons) == 2


@pytest.mark.usefixtures("clear")
def test_many_small_cells_take_no_time(rng: np.random.Generator) -> None:
    opened = shown(rng.poisson(8, size=(15, 10)), 5)
    assert np.isnan(opened.counts).sum() >= opened.primary.sum() > 3


def test_moves_lead_to_tables_with_the_same_totals() -> None:
    lines = lines_of((3, 3))
    layout = Layout(9, lines)
    hidden = np.zeros(layout.entries, np.bool_)
    hidden[[0, 1, 2, 3, 4, 5, 8]] = True
    hidden[[9, 10]] = True  # the totals of the first two rows
    small = np.zeros_like(hidden)
    small[[0, 9]] = True
    for entry in (0, 9):
        moves = layout.moves(entry, hidden, small)
        assert moves
        for move in moves:
            assert move[entry]
            assert not move[~hidden].any()
            assert [move[9 + k] for k in range(len(lines))] == [move[line].sum() for line in lines]


# ---- on shares ----------------------------------------------------------------------------------

TABLE = [[0, 9, 20], [20, 9, 3], [9, 20, 9]]


async def opened_by(party: Party, table: Any, release: Release) -> OpenedCounts | None:
    array = np.asarray(table)
    shares = await party.share(array.reshape(-1) if party.rank == 0 else None, bound=1000, owner=0, shape=(array.size,))
    return await open_counts(party.at("cells"), shares, lines_of(array.shape), release)


@pytest.mark.parametrize(("preprocessing", "parties"), [("dealer", 2), ("dealer", 3), ("prss", 3), ("prss", 5)])
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


def test_without_a_rule_all_is_opened_in_one_round() -> None:
    async def program(party: Party, _: Any) -> Any:
        shares = await party.share(np.arange(6) if party.rank == 0 else None, bound=10, owner=0, shape=(6,))
        rounds, elements = party.costs.rounds, party.costs.elements_opened
        opened = await open_counts(party.at("cells"), shares, lines_of((2, 3)), Release(None, None))
        assert opened is not None
        return opened.counts.tolist(), party.costs.rounds - rounds, party.costs.elements_opened - elements

    assert run(program, [None] * 2)[0] == ([0, 1, 2, 3, 4, 5], 1, 6 + 6)
