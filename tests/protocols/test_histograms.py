"""Histograms of real data against numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from mpc import AgreementError, DataError, Party
from protocols.release.disclosure import Disclosure
from protocols.tables.histograms import histogram
from tests.protocols.helpers import diabetes, run, run_one


@pytest.mark.parametrize(("preprocessing", "parties"), [("dealer", 2), ("prss", 3), ("prss", 5), ("ot", 2)])
@pytest.mark.parametrize("column", [0, 2, 5])
def test_counts_and_density_are_those_of_numpy(preprocessing: str, parties: int, column: int) -> None:
    x = diabetes().X[:, column]
    edges = np.quantile(x, [0.1, 0.2, 0.5, 0.9]).round(1)
    found = run_one(histogram, np.array_split(x, parties), preprocessing, bins=edges)
    assert found.counts.tolist() == np.histogram(x, edges)[0].tolist()
    np.testing.assert_allclose(found.density, np.histogram(x, edges, density=True)[0], rtol=1e-12)
    assert (found.below, found.above) == ((x < edges[0]).sum(), (x > edges[-1]).sum())
    assert found.n == 442


def test_edges_belong_to_the_bin_on_their_right_but_for_the_last() -> None:
    parts = [[0.0, 1.0, 2.0, np.nan], [np.nextafter(0.0, -1), np.nextafter(2.0, 3)], [1.0, -0.0]]
    found = run_one(histogram, parts, bins=[0, 1, 2])
    assert (found.below, found.counts.tolist(), found.above) == (1, [2, 3], 1)
    assert (found.n, found.missing) == (7, {"x": 1})
    assert "[1, 2]" in found.summary()


def test_a_withheld_bin_leaves_the_density_of_the_others() -> None:
    x = np.repeat([0.5, 1.5, 2.5, 3.5, 9, -9], [10, 2, 12, 30, 8, 7])
    found = run_one(histogram, np.array_split(x, 3), bins=[0, 1, 2, 3, 4], disclosure=Disclosure("t", minimum_cell=5))
    assert np.isnan(found.counts[1])
    shown = ~np.isnan(found.counts)
    if not np.isnan([found.below, found.above]).any():
        np.testing.assert_allclose(found.density[shown], found.counts[shown] / 54)
    assert "withheld" in found.summary()


def test_columns_and_recipients() -> None:
    x = diabetes().X[:, 2]

    async def program(party: Party, data: Any) -> Any:
        return await histogram(party, data, bins=[18, 25, 30], partition="columns", to=[2])

    *others, found = run(program, [x, None, None])
    assert others == [None, None]
    assert found.counts.tolist() == np.histogram(x, [18, 25, 30])[0].tolist()


def test_costs_are_as_documented() -> None:
    async def program(party: Party, data: Any) -> Any:
        await histogram(party, data, bins=[0, 1, 2, 3])
        return party.costs.rounds, party.costs.elements_opened

    assert run(program, [np.ones(3), np.zeros(4)]) == [(5, 2 + 3 + 3)] * 2


@pytest.mark.parametrize("bins", [[1], [1, 1], [2, 1], [0, np.nan], [[0, 1]], np.arange(300)])
def test_edges_are_checked(bins: Any) -> None:
    with pytest.raises(ValueError, match="bins"):
        run_one(histogram, [[1.0], [2.0]], bins=bins)


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(DataError, match="party 1: 1 values of x are infinite"):
        run_one(histogram, [[1.0], [np.inf]], bins=[0, 1])
    with pytest.raises(DataError, match="one column"):
        run_one(histogram, [np.ones((2, 2)), np.ones((2, 2))], bins=[0, 1])

    async def differing(party: Party, data: Any) -> Any:
        return await histogram(party, data, bins=[0, 1 + party.rank])

    with pytest.raises(AgreementError, match="bins"):
        run(differing, [[1.0], [0.0]])


@pytest.mark.parametrize("partition", ["rows", "columns"])
def test_what_is_outside_joins_the_outermost_bins(partition: str) -> None:
    """With edges as far as values go nothing is outside, and nothing is withheld for it."""
    values = np.arange(60) % 30
    few = Disclosure("few", minimum_cell=5)

    async def program(party: Party, data: Any) -> Any:
        return await histogram(party, data, bins=[0, 10, 20, 29], outside="join", partition=partition, disclosure=few)

    parts = [values[:20], values[20:]] if partition == "rows" else [values, None]
    found = run(program, parts)[0]
    assert found.counts.tolist() == [20, 20, 20]
    assert not found.suppressed
    assert math.isnan(found.below)
    assert "below" not in found.summary()
    # Half of the values lie below the first edge: they count there.
    low = [part if part is None else np.where(part < 15, -5, part) for part in parts]
    assert run(program, low)[0].counts.tolist() == [30, 10, 20]


def test_one_bin_is_no_histogram_of_all() -> None:
    with pytest.raises(ValueError, match="at least two bins"):
        run_one(histogram, [np.arange(5.0)] * 2, bins=[0, 1], outside="join")
    with pytest.raises(ValueError, match="'count' or 'join'"):
        run_one(histogram, [np.arange(5.0)] * 2, bins=[0, 1], outside="leave")
