"""What regressions say of missing values, and which cells a disclosure control lets them open."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mpc import Party
from protocols.regression.linear_regression import linear_regression
from protocols.regression.logistic import logistic_regression
from protocols.regression.poisson import poisson_regression
from protocols.regression.results import ConvergenceWarning
from protocols.release.disclosure import Disclosure, DisclosureError
from tests.protocols.helpers import run

FITS: dict[str, Callable[..., Any]] = {
    "linear": linear_regression,
    "logistic": logistic_regression,
    "poisson": poisson_regression,
}
FIVE = Disclosure("five", minimum_cell=5)
ROWS = 120


def fitted(name: str, inputs: list[Any], **options: Any) -> Any:
    """The result, or why there is none, which is the same at all parties."""
    more = {} if name == "linear" else {"steps": 2}

    async def program(party: Party, data: Any) -> Any:
        try:
            return await FITS[name](party, *data, **more, **options)
        except DisclosureError as error:
            return str(error)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = run(program, inputs)
    assert len({str(one) for one in found}) == 1
    return found[0]


def outcome(name: str, rng: np.random.Generator) -> Any:
    y = rng.poisson(2.0, ROWS).astype(float)
    return (y > 1).astype(float) if name == "logistic" else y


def gaps(values: Any, count: int) -> Any:
    holed = values.copy()
    holed[:count] = np.nan
    return holed


# ---- missing values -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", FITS)
def test_small_numbers_of_missing_values_are_withheld(name: str, rng: np.random.Generator) -> None:
    X = {"few": gaps(rng.normal(size=ROWS), 4), "many": gaps(rng.normal(size=ROWS), 5), "none": rng.normal(size=ROWS)}
    inputs = [({k: v[c] for k, v in X.items()}, outcome(name, rng)[c]) for c in (slice(0, 3), slice(3, ROWS))]
    told = {"few": 4, "many": 5, "none": 0, "y": 0}
    assert fitted(name, inputs).missing == told
    fit = fitted(name, inputs, disclosure=FIVE)
    assert fit.missing == {**told, "few": None}
    assert "Missing: few withheld, many 5" in fit.summary()
    assert fit.to_dict()["missing"]["few"] is None
    assert fitted(name, inputs, disclosure=Disclosure("one", minimum_cell=1)).missing == told


@pytest.mark.parametrize("name", FITS)
def test_predictors_that_are_called_as_the_outcome(name: str, rng: np.random.Generator) -> None:
    X = {"y": gaps(rng.normal(size=ROWS), 2), "X.y": gaps(rng.normal(size=ROWS), 3), "weights": rng.normal(size=ROWS)}
    y = outcome(name, rng)
    y[10:17] = np.nan
    fit = fitted(name, [(X, y), (X, y)])
    assert fit.missing == {"X.y": 4, "X.X.y": 6, "X.weights": 0, "y": 14}
    assert fit.names == ("y", "X.y", "weights")


def test_all_leave_out_missing_values_by_default(rng: np.random.Generator) -> None:
    X = gaps(rng.normal(size=(ROWS, 2)), 7)
    for name in FITS:
        assert fitted(name, [(X, outcome(name, rng))] * 2).n == 2 * (ROWS - 7)


@pytest.mark.parametrize("name", FITS)
def test_too_few_complete_rows_are_not_counted_in_the_open(name: str, rng: np.random.Generator) -> None:
    inputs = [(gaps(rng.normal(size=(ROWS, 1)), 10), None), (rng.normal(size=(ROWS, 1)), outcome(name, rng))]
    text = fitted(name, inputs, partition="columns", disclosure=Disclosure("strict", minimum_rows=111))
    assert "at least 111 rows in which nothing is missing" in text
    assert "110" not in text
    assert fitted(name, inputs, partition="columns", disclosure=Disclosure("strict", minimum_rows=110)).n == 110


# ---- cells, where columns are split -------------------------------------------------------------


def split(name: str, binary: Any, rng: np.random.Generator, *, gone: Any, y: Any = None) -> list[Any]:
    """A column of 0 and 1 at one party, the outcome at another, and a third that misses some rows."""
    third = np.where(gone, np.nan, rng.normal(size=ROWS))
    answer = outcome(name, rng) if y is None else y
    return [(binary[:, np.newaxis], None), (rng.normal(size=(ROWS, 1)), answer), (third[:, np.newaxis], None)]


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("value", [0, 1])
def test_cells_count_the_rows_that_are_used(name: str, value: int, rng: np.random.Generator) -> None:
    """Enough rows at the column's holder say nothing: others miss values in them."""
    row = np.arange(ROWS)
    binary = np.where(row < 30, value, 1 - value)
    y = np.where(name == "logistic", row % 2, 2.0 + row % 3)
    guard = {"partition": "columns", "disclosure": FIVE}
    enough = 20 if name == "logistic" else 25
    text = fitted(name, split(name, binary, rng, gone=row < enough + 1, y=y), **guard)
    assert isinstance(text, str), text
    assert "only 0 and 1" in text
    assert fitted(name, split(name, binary, rng, gone=row < enough, y=y), **guard).n == ROWS - enough


@pytest.mark.parametrize("name", FITS)
def test_cells_of_a_column_with_a_yes_no_outcome(name: str, rng: np.random.Generator) -> None:
    """Four of the thirty have the outcome: a table would withhold that."""
    row = np.arange(ROWS)
    binary = (row < 30).astype(float)
    guard = {"partition": "columns", "disclosure": FIVE}
    for few, refused in ((4, True), (5, False)):
        y = ((row < few) | (row % 2 == 1) & (row >= 30)).astype(float)
        for gone in (row < 0, row == 119):
            said = fitted(name, split(name, binary, rng, gone=gone, y=y), **guard)
            assert isinstance(said, str) == refused, (few, said)
            assert not refused or "together with each value of a yes-no outcome" in said
    # Another value of the outcome in one row: if that is not used the rest is a table.
    if name != "logistic":
        y = np.where(row == 119, 7.0, row < 4)
        assert isinstance(fitted(name, split(name, binary, rng, gone=row == 119, y=y), **guard), str)
        assert not isinstance(fitted(name, split(name, binary, rng, gone=row == 118, y=y), **guard), str)


def test_another_value_in_a_row_that_is_not_used_makes_no_table_a_measurement(rng: np.random.Generator) -> None:
    row = np.arange(ROWS)
    binary = np.where(row == 119, 2.0, row < 4)
    guard = {"partition": "columns", "disclosure": FIVE}
    y = np.where(row % 2, 1.5, 3.0)
    assert "only 0 and 1" in fitted("linear", split("linear", binary, rng, gone=row == 119, y=y), **guard)
    assert fitted("linear", split("linear", binary, rng, gone=row == 118, y=y), **guard).n == ROWS - 1


@pytest.mark.parametrize("name", FITS)
def test_first_categories_of_columns_are_counted(name: str, rng: np.random.Generator) -> None:
    """They have no column in the model."""
    row = np.arange(ROWS)
    y = np.where(name == "logistic", row % 2, 2.0 + row % 3)
    least = 10 if name == "logistic" else 5  # of ten rows five have the outcome
    for few, refused in ((least - 1, True), (least, False)):
        labels = pd.Categorical(np.where(row < few, "a", np.where(row % 4 < 2, "b", "c")), categories=["a", "b", "c"])
        inputs = split(name, row, rng, gone=row == 119, y=y)
        inputs[0] = (pd.DataFrame({"stage": labels}), None)
        said = fitted(name, inputs, partition="columns", disclosure=FIVE)
        assert isinstance(said, str) == refused, said
        assert not refused or "only 0 and 1" in said
