"""Frames: what is declared holds of the rows, or an error says which column, and of no value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mpc import DataError
from protocols.pools.frames import Frame, columns_of
from protocols.pools.variables import Categorical, Column, Numeric

AGE = Column("age", "integer", "years", 0, 120)
SEX = Column("sex", "category", categories=("f", "m"))
DATA: dict[str, Any] = {"age": [40, None, 71], "sex": ["f", "m", None], "name": ["x", "y", "z"]}


def test_a_frame_holds_what_is_declared() -> None:
    for data in (DATA, pd.DataFrame(DATA)):
        frame = Frame(data, [AGE, SEX], rank=1)
        age, sex = frame.variable("age"), frame.variable("sex")
        assert isinstance(age, Numeric)
        assert isinstance(sex, Categorical)
        assert age.values[:, 0].tolist() == [40, 0, 71]
        assert age.present[:, 0].tolist() == [True, False, True]
        assert (sex.labels, sex.categories) == (("f", "m", None), ("f", "m"))
        assert (frame.rows, frame.names) == (3, ("age", "sex"))
        assert frame.take(["sex"]).names == ("sex",)
        assert frame.describe()["column age"] == {
            "type": "integer",
            "unit": "years",
            "lower": 0,
            "upper": 120,
            "categories": [],
        }
        assert "71" not in repr(frame)


@pytest.mark.parametrize(
    ("column", "values", "text"),
    [
        (AGE, [40, 31337, -31337], "party 2: 2 of 3 values of age are .*bound"),
        (Column("age", "number", lower=0, upper=40000), [-31337.0, 1, 1], "party 2: 1 of 3 values .* outside"),
        (AGE, [3.1337, 1, 2], "party 2: 1 of 3 values of age are no whole numbers"),
        (AGE, ["31337", 1, 2], "party 2: age is not made of numbers"),
        (Column("age", "number"), [np.inf, 1, 2], "infinite"),
        (SEX, ["f", "m", "31337"], "party 2: 1 of 3 values of sex"),
        (Column("dead", "boolean"), [0, 1, 31337], "party 2: 1 of 3 values of dead"),
        (AGE, [[1, 2]], "2 columns and 1 names"),
    ],
)
def test_what_does_not_fit_is_named_without_showing_it(column: Column, values: Any, text: str) -> None:
    with pytest.raises(DataError, match=text) as caught:
        Frame({column.name: values}, [column], rank=2)
    assert "31337" not in str(caught.value)


def test_what_is_missing_or_there_twice_is_named() -> None:
    with pytest.raises(DataError, match="party 0: column sex is not in the data"):
        Frame({"age": [1]}, [AGE, SEX], rank=0)
    assert Frame({"age": [1]}, [AGE, SEX], rank=0, partial=True).variable("sex") is None
    with pytest.raises(ValueError, match="same name"):
        Frame(DATA, [AGE, AGE], rank=0)
    with pytest.raises(DataError, match="same name"):
        Frame(pd.DataFrame([[1, 2]], columns=["age", "age"]), [AGE], rank=0)
    with pytest.raises(DataError, match="age has 1 rows and sex has 2"):
        Frame({"age": [1], "sex": ["f", "m"]}, [AGE, SEX], rank=0)
    with pytest.raises(ValueError, match="no column 'x'"):
        Frame(DATA, [AGE], rank=0).column("x")
    with pytest.raises(DataError, match="mapping"):
        Frame([1, 2], [AGE], rank=0)


def test_types_say_what_columns_hold() -> None:
    data = pd.DataFrame(
        {
            "float": [1.5, np.nan],
            "int": [1, 0],
            "nullable": pd.array([1, None], dtype="Int64"),
            "flag": [True, False],
            "nullable flag": pd.array([True, None], dtype="boolean"),
            "text": ["a", None],
            "factor": pd.Categorical(["b", "a"], categories=["b", "a"]),
            "nothing": pd.array([None, None], dtype="Float64"),
        }
    )
    found = {column.name: (column.type, column.categories) for column in columns_of(data, rank=0)}
    assert found == {
        "float": ("number", ()),
        "int": ("number", ()),
        "nullable": ("number", ()),
        "flag": ("boolean", ()),
        "nullable flag": ("boolean", ()),
        "text": ("category", ()),
        "factor": ("category", ("b", "a")),
        "nothing": ("number", ()),
    }
    assert Frame(data, rank=0).rows == 2
    for odd in (pd.to_datetime(["2020-01-01"]), [1, "a"], [None]):
        with pytest.raises(DataError, match="column odd holds neither"):
            columns_of({"odd": odd}, rank=0)
