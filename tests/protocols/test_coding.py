"""Predictors as columns of numbers, and categories as indicators, alike at all parties."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mpc import AgreementError, DataError, Party
from protocols.pools.variables import Column
from protocols.regression.coding import Coded, code_columns, code_rows, coded, predictors
from protocols.release.disclosure import Disclosure, Release
from tests.protocols.helpers import run

NOBODY = Release(None, None)


def frame(*rows: tuple[Any, ...]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["age", "stage", "smokes"])


HERE = frame((61.0, "I", True), (70.0, "II", False), (np.nan, "II", True))
THERE = frame((55.0, "III", False), (48.0, None, False))


def by_rows(*frames: Any, release: Release = NOBODY, **options: Any) -> list[Coded]:
    async def program(party: Party, X: Any) -> Coded:
        found = predictors(X, rank=party.rank, **options)
        return await code_rows(party, "cox", found, release, {})

    return run(program, list(frames))


def test_categories_become_indicators_of_all_but_the_first() -> None:
    here, there = by_rows(HERE, THERE)
    assert here.names == there.names == ("age", "stage[T.II]", "stage[T.III]", "smokes")
    np.testing.assert_array_equal(here.X, [[61, 0, 0, 1], [70, 1, 0, 0], [0, 1, 0, 1]])
    np.testing.assert_array_equal(there.X, [[55, 0, 1, 0], [48, 0, 0, 0]])
    assert here.present.tolist() == [True, True, False]
    assert there.present.tolist() == [True, False]
    assert here.references[:, 0].tolist() == [1, 0, 0]
    np.testing.assert_array_equal(here.bounds, [np.nan, 1, 1, 1])
    kept = there.kept(there.present)
    assert kept.rows == 1
    assert kept.absent["stage"].tolist() == [False]


def test_the_design_is_that_of_statsmodels() -> None:
    import statsmodels.formula.api as smf

    pooled = pd.concat([HERE, THERE]).dropna()
    wanted = smf.ols("age ~ age + stage + C(smokes)", pooled)
    order = ["age", "stage[T.II]", "stage[T.III]", "C(smokes)[T.True]"]
    parts = by_rows(HERE, THERE)
    ours = np.concatenate([part.X[part.present] for part in parts])
    np.testing.assert_array_equal(ours, wanted.exog[:, [wanted.exog_names.index(name) for name in order]])


def test_declared_columns_give_order_bounds_and_the_reference() -> None:
    columns = [
        Column("stage", "category", categories=("III", "II", "I")),
        Column("age", "integer", lower=18, upper=110),
        Column("smokes", "boolean"),
    ]
    here, _ = by_rows(HERE, THERE, columns=columns)
    assert here.names == ("stage[T.II]", "stage[T.I]", "age", "smokes")
    np.testing.assert_array_equal(here.bounds, [1, 1, 110, 1])
    one, _ = by_rows(HERE, THERE, columns=columns, names=["age"])
    assert one.names == ("age",)
    declared = HERE.assign(stage=pd.Categorical(HERE.stage, ["II", "I", "III"]))
    same = THERE.assign(stage=pd.Categorical(THERE.stage, ["II", "I", "III"]))
    assert by_rows(declared, same)[0].names[1:3] == ("stage[T.I]", "stage[T.III]")


def test_mappings_arrays_and_bounds() -> None:
    table = {"dose": [1, 2, 3], "arm": np.array(["a", "b", "a"])}
    found = coded(
        [
            one if one.rows and not hasattr(one, "labels") else one.declared(("a", "b"), rank=0)  # type: ignore[union-attr]
            for one in predictors(table, rank=0, bound={"dose": 10})
        ]
    )
    assert found.names == ("dose", "arm[T.b]")
    np.testing.assert_array_equal(found.bounds, [10, 1])
    array = coded(predictors(np.ones((2, 3)), rank=0, bound=2.0))
    assert array.names == ("x1", "x2", "x3")
    assert not array.named
    assert coded(predictors(np.ones((2, 1)), rank=0, names=["dose"])).names == ("dose",)


def test_columns_of_several_parties() -> None:
    async def program(party: Party, X: Any) -> Any:
        return await code_columns(party, "cox", predictors(X, rank=party.rank), NOBODY, {})

    (left, names), (right, same) = run(program, [HERE[["age", "stage"]], np.ones((3, 2))])
    assert names == same == ("age", "stage[T.II]", "x3", "x4")
    assert left.X.shape == (3, 2)
    assert right.names == ("x1", "x2")


def refused(text: str, error: type[Exception], *frames: Any, release: Release = NOBODY, **options: Any) -> None:
    with pytest.raises(error, match=text) as caught:
        by_rows(*frames, release=release, **options)
    assert "31337" not in str(caught.value)


def test_names_are_all_different() -> None:
    for names in (["a", "a"], ["b", "a", "b"]):
        with pytest.raises(ValueError, match="names are all different"):
            predictors(np.ones((3, 2)), rank=0, names=names)
    twice = pd.DataFrame([[1.0, 2.0]], columns=["a", "a"])
    for table in (twice, {"1": [1.0], 1: [2.0]}):
        with pytest.raises(DataError, match="party 2: two columns of X have one name"):
            predictors(table, rank=2)
    with pytest.raises(ValueError, match="X is an array"):
        predictors(np.ones((3, 1)), rank=0, columns=[Column("age", "number")])


def test_what_does_not_fit_is_refused() -> None:
    strict = Release(None, Disclosure.preset("vantage6"))
    refused("nobody declared its categories", DataError, HERE, THERE, release=strict)
    refused("predictors", AgreementError, HERE, THERE[["age", "smokes"]])
    refused("predictors", AgreementError, HERE, THERE.assign(stage=[1, 2]))
    refused("X has no column dose", DataError, HERE, THERE, names=["dose"])
    refused("party 1: 1 of 2 values of X .* bound", DataError, HERE, THERE.assign(age=[31337, 1]), bound=120)
    unknown = [Column("stage", "category", categories=("I", "II"))]
    refused("party 1: 1 of 2 values of stage are none of its 2 categories", DataError, HERE, THERE, columns=unknown)
    refused("bound has shape", DataError, HERE, THERE, bound=[1.0])
    refused("3 columns of numbers|no names that bounds", DataError, np.ones((3, 2)), np.ones((3, 2)), bound={"a": 1.0})
    refused("at least one column", DataError, np.ones(3), np.ones(3))
    refused("X has no column", DataError, {}, {})
    refused("same rows", DataError, {"a": [1, 2], "b": [1]}, {"a": [1, 2], "b": [1]})
