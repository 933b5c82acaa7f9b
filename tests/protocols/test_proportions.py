"""Proportions of real data against statsmodels; what they cost, open and refuse."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from statsmodels.stats.proportion import proportion_confint

from mpc import AgreementError, DataError, Party, prepare
from protocols.release.disclosure import Disclosure, DisclosureError
from protocols.tables.proportions import ProportionResult, proportion
from tests.protocols.helpers import run, run_one

REFERENCES = {"wilson": "wilson", "clopper-pearson": "beta"}


@lru_cache
def marriages() -> NDArray[np.int64]:
    """How 6,366 women rate their marriage, from 1 to 5 (statsmodels: fair)."""
    from statsmodels.datasets import fair

    found: NDArray[np.int64] = fair.load_pandas().data["rate_marriage"].to_numpy().astype(np.int64)
    return found


def split(values: NDArray[Any], parties: int) -> list[NDArray[Any]]:
    return np.split(values, [len(values) * k // (parties + 2) for k in range(1, parties)])


@pytest.mark.parametrize(
    ("preprocessing", "parties"), [("dealer", 2), ("dealer", 3), ("prss", 3), ("prss", 5), ("ot", 2)]
)
@pytest.mark.parametrize("method", ["wilson", "clopper-pearson"])
def test_marriages(preprocessing: str, parties: int, method: str) -> None:
    values = marriages()
    found = run_one(
        proportion, split(values, parties), preprocessing, categories=[1, 2, 3, 4, 5], method=method, confidence=0.9
    )
    counts = np.bincount(values, minlength=6)[1:]
    assert found.counts.tolist() == counts.tolist()
    assert (found.n, found.total, found.missing) == (len(values), len(values), {"values": 0})
    np.testing.assert_allclose(found.estimate, counts / len(values), rtol=1e-12)
    expected = np.array(proportion_confint(counts, len(values), alpha=0.1, method=REFERENCES[method])).T
    np.testing.assert_allclose(found.conf_int, expected, rtol=1e-10)
    assert "5" in found.summary()
    json.dumps(found.to_dict())


@pytest.mark.parametrize("method", ["wilson", "clopper-pearson"])
def test_none_and_all(method: str) -> None:
    found = run_one(proportion, [[1, 1, 1], [True, True]], method=method)
    low, high = proportion_confint(5, 5, method=REFERENCES[method])
    np.testing.assert_allclose(found.conf_int[1], [low, high], rtol=1e-12)
    low, high = proportion_confint(0, 5, method=REFERENCES[method])
    np.testing.assert_allclose(found.conf_int[0], [low, high], rtol=1e-12, atol=0)


def test_missing_values_are_told_apart_and_labels_are_found() -> None:
    found = run_one(proportion, [["b", None, "a"], [np.nan, "c", "a"], ["a"]])
    assert (found.categories, found.counts.tolist()) == (("a", "b", "c"), [3, 1, 1])
    assert (found.n, found.missing["values"]) == (5, 2)


def test_one_level_opens_two_counts() -> None:
    async def program(party: Party, data: Any) -> Any:
        found = await proportion(party, data, level="b", categories=["a", "b", "c"])
        assert found is not None
        return found, sum(one.elements for one in party.costs.openings)

    for found, elements in run(program, [["a", "b"], ["c", "b"], ["b"]]):
        assert (found.categories, found.counts.tolist()) == (("b", "(all others)"), [3, 2])
        assert elements == 2 + 2 + 1


def test_small_cells_are_withheld_with_one_that_would_tell_them() -> None:
    rule = Disclosure("test", minimum_cell=5)
    parts = [["a"] * 20 + ["b"] * 2, ["b"] + ["c"] * 30, ["a"] * 3 + ["c"] * 9]
    found = run_one(proportion, parts, categories=["a", "b", "c"], disclosure=rule)
    assert np.isnan(found.counts[1])
    assert np.isnan(found.counts).sum() == 2
    assert np.isnan(found.estimate[1])
    assert np.isnan(found.conf_int[1]).all()
    assert found.n == 65
    assert any("too few" in text for text in found.suppressed)


def test_rounded_counts_say_so_and_only_the_named_learn_them() -> None:
    parts = [["a"] * 21, ["b"] * 33, ["a"] * 12]

    async def program(party: Party, data: Any) -> ProportionResult | None:
        same: dict[str, Any] = {"categories": ["a", "b"], "to": [1], "disclosure": Disclosure.preset("opensafely")}
        await prepare(party, lambda seat: proportion(seat, data, **same))
        return await proportion(party, data, **same)

    nobody, found, also_nobody = run(program, parts, "prss")
    assert (nobody, also_nobody) == (None, None)
    assert found.counts.tolist() == [35, 35]
    assert "rounded" in found.suppressed[-1]


def test_columns() -> None:
    found = run_one(proportion, [None, np.array([1, 0, 1, 1]), None], partition="columns")
    assert found.counts.tolist() == [1, 3]


def test_costs_are_as_documented() -> None:
    async def program(party: Party, data: Any) -> Any:
        await proportion(party, data, categories=[1, 2, 3, 4, 5])
        return party.costs.rounds, party.costs.elements_opened

    assert run(program, split(marriages(), 3)) == [COSTS] * 3


COSTS = (5, 2 + 5 + 1)


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(ValueError, match="confidence"):
        run_one(proportion, [[1], [0]], confidence=95)
    with pytest.raises(ValueError, match="method"):
        run_one(proportion, [[1], [0]], method="wald")
    with pytest.raises(DataError, match="level"):
        run_one(proportion, [[1], [0]], level="31337")
    with pytest.raises(DataError, match="party 1: 1 of 2 values of values are none of its 2"):
        run_one(proportion, [["a", "b"], ["a", "31337"]], categories=["a", "b"])
    with pytest.raises(DisclosureError, match="10 rows"):
        run_one(proportion, [[1], [0], [1]], disclosure=Disclosure.preset("vantage6"))

    async def differing(party: Party, data: Any) -> Any:
        return await proportion(party, data, confidence=0.9 + party.rank / 100)

    with pytest.raises(AgreementError, match="confidence"):
        run(differing, [[1], [0]])
