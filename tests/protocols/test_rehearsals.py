"""Analyses that are prepared where what they ask for follows from sizes that are opened: none fails, all are right."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from mpc import Party, prepare
from protocols.comparisons.correlations import correlation
from protocols.comparisons.quantiles import quantile
from protocols.comparisons.ranks import kruskal_wallis, mann_whitney
from protocols.survival.kaplan_meier import kaplan_meier
from protocols.survival.log_rank import log_rank
from tests.protocols.helpers import run

ROWS = 48
RNG = np.random.default_rng(4)
X = RNG.integers(1, 40, ROWS).astype(float)
Y = X + RNG.integers(0, 20, ROWS)
TWO, THREE = RNG.integers(0, 2, ROWS), RNG.integers(0, 3, ROWS)
WORLDS = [("dealer", 2), ("prss", 3), ("ot", 2)]


async def both(party: Party, work: Any, own: Any) -> tuple[Any, Any]:
    """Return what the analysis finds without preparation, and with it."""
    plain = await work(party.at("plain"), own)
    seat = party.at("prepared")
    await prepare(seat, work, own)
    return plain, await work(seat, own)


def numbers(value: Any) -> list[float]:
    """Return all numbers of a result, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [one for part in value for one in numbers(part)]
    return [float(value)] if isinstance(value, int | float) else []


def prepared(work: Any, columns: list[Any], partition: str, preprocessing: str, parties: int) -> Any:
    if partition == "rows":
        own: list[Any] = [tuple(column[rank::parties] for column in columns) for rank in range(parties)]
    else:
        own = [tuple(c if rank == k % parties else None for k, c in enumerate(columns)) for rank in range(parties)]

    async def program(party: Party, ours: Any) -> Any:
        return await both(party, work, ours)

    plain, found = run(program, own, preprocessing)[0]
    first, second = numbers(plain.to_dict()), numbers(found.to_dict())
    np.testing.assert_allclose(second, first, rtol=1e-7, atol=1e-8)
    return found


@pytest.mark.parametrize(
    ("resolution", "partition", "preprocessing", "parties"),
    [
        (1.0, "rows", "dealer", 2),
        (1.0, "columns", "prss", 3),
        (1.0, "rows", "ot", 2),
        (0.25, "rows", "prss", 3),
        (0.25, "columns", "ot", 2),
        (0.25, "columns", "dealer", 2),
        (None, "rows", "prss", 3),
        (None, "columns", "dealer", 2),
        (None, "columns", "ot", 2),
    ],
)
def test_rank_tests_without_a_bound(resolution: float | None, partition: str, preprocessing: str, parties: int) -> None:
    async def two(party: Party, own: Any) -> Any:
        return await mann_whitney(party, *own, categories=(0, 1), resolution=resolution, partition=partition)

    async def three(party: Party, own: Any) -> Any:
        return await kruskal_wallis(party, *own, categories=(0, 1, 2), resolution=resolution, partition=partition)

    found = prepared(two, [X, TWO], partition, preprocessing, parties)
    assert found.statistic == stats.mannwhitneyu(X[TWO == 0], X[TWO == 1]).statistic
    found = prepared(three, [X, THREE], partition, preprocessing, parties)
    assert found.statistic == pytest.approx(stats.kruskal(*(X[THREE == k] for k in range(3))).statistic, rel=1e-6)


@pytest.mark.parametrize(
    ("q", "to", "preprocessing", "parties"),
    [
        (0.3, None, "dealer", 2),
        (0.3, None, "prss", 3),
        (0.3, [0], "ot", 2),
        (0.0, [0], "dealer", 2),
        (0.0, [0], "prss", 3),
        (0.0, None, "ot", 2),
    ],
)
def test_quantiles_without_a_bound(q: float, to: list[int] | None, preprocessing: str, parties: int) -> None:
    async def work(party: Party, own: Any) -> Any:
        return await quantile(party, own[0], q, resolution=1.0, to=to)

    found = prepared(work, [X], "rows", preprocessing, parties)
    assert found.values == pytest.approx([np.quantile(X, q)])


@pytest.mark.parametrize(("preprocessing", "parties"), WORLDS)
def test_spearman_without_a_bound(preprocessing: str, parties: int) -> None:
    async def work(party: Party, own: Any) -> Any:
        return await correlation(party, np.stack(own, axis=1), kind="spearman", resolution=1.0)

    found = prepared(work, [X, Y], "rows", preprocessing, parties)
    assert found.correlation[0, 1] == pytest.approx(stats.spearmanr(X, Y).statistic, abs=1e-7)


@pytest.mark.parametrize(("preprocessing", "parties"), WORLDS)
@pytest.mark.parametrize("partition", ["rows", "columns"])
def test_survival_with_a_step_alone(partition: str, preprocessing: str, parties: int) -> None:
    async def curve(party: Party, own: Any) -> Any:
        return await kaplan_meier(party, own[0], own[1], grid=4.0, partition=partition)

    async def compared(party: Party, own: Any) -> Any:
        return await log_rank(party, *own, grid=4.0, categories=(0, 1), partition=partition)

    assert prepared(curve, [X, TWO], partition, preprocessing, parties).n == ROWS
    assert prepared(compared, [X, TWO, 1 - TWO], partition, preprocessing, parties).n == ROWS


@pytest.mark.parametrize("rows", [1, 2])
def test_one_row_which_is_what_a_rehearsal_takes_there_to_be(rows: int) -> None:
    async def work(party: Party, own: Any) -> Any:
        return await kaplan_meier(party, own[0], own[1], grid=4.0)

    assert prepared(work, [X[:rows], TWO[:rows]], "rows", "prss", 3).n == rows
