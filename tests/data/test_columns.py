"""Values of files and databases against a schema: taken as they are meant, or counted; never guessed, never shown."""

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc import DataError
from mpc.errors import for_peers
from parties.data.columns import ColumnLike, Table, TableBuilder, check_table
from parties.data.convert import Style, convert
from parties.governance.schema import Column as StudyColumn
from tests.data.schema import boolean, category, integer, number

NOTHING = (0, 0, 0)
SEX = category("sex", "female", "male", "NA")


def one(value: Any, column: Any, **style: Any) -> Any:
    """What becomes of a value: itself, or the name of what is wrong with it, alone and in any company."""
    found = []
    for place, values in [(0, [value]), (0, [value, "junk", None]), (1, ["1", value]), (1, [None, value])]:
        answer = convert(values, column, Style(**style))
        faults = [name for name in ("missing", "wrong", "beyond") if getattr(answer, name)[place]]
        assert len(faults) <= 1
        found.append(faults[0] if faults else answer.values[place].item())
    assert len({repr(answer) for answer in found}) == 1, found
    return found[0]


# ---- numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1", 1.0),
        (" -2.5 ", -2.5),
        ("+3e2", 300.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("\t7\u00a0", 7.0),
        (7, 7.0),
        (True, 1.0),
        (np.float32(0.5), 0.5),
        (Decimal("1.25"), 1.25),
        ("", "missing"),
        ("  ", "missing"),
        ("NA", "missing"),
        ("nan", "missing"),
        (None, "missing"),
        (math.nan, "missing"),
        (Decimal("NaN"), "missing"),
        (Decimal("sNaN"), "missing"),
        (pd.NA, "missing"),
        (pd.NaT, "missing"),
        ("1,5", "wrong"),
        ("1 000", "wrong"),
        ("1_000", "wrong"),
        ("0x10", "wrong"),
        ("inf", "wrong"),
        ("-Infinity", "wrong"),
        (math.inf, "wrong"),
        (Decimal("Infinity"), "wrong"),
        ("\u0661\u0662", "wrong"),
        ("1e", "wrong"),
        ("--1", "wrong"),
        (".", "wrong"),
        ("\u22125", "wrong"),  # a typographic minus
        ("12 kg", "wrong"),
        (b"1", "wrong"),
        (1j, "wrong"),
        ([1], "wrong"),
        ("1e400", "beyond"),
        (10**400, "beyond"),
        (Decimal("1e999999"), "beyond"),
        ("9" * 5000, "beyond"),
        ("0" * 5000 + "1", 1.0),
        ("1000000.1", "beyond"),
        ("-1e6", -1e6),
        ("1e6", 1e6),
    ],
)
def test_numbers(value: Any, expected: Any) -> None:
    assert one(value, number("x")) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1,5", 1.5),
        ("-0,25", -0.25),
        ("12", 12.0),
        ("3,5e1", 35.0),
        (",5", 0.5),
        (1.5, 1.5),
        ("", "missing"),
        ("1.5", "wrong"),
        ("1.234,5", "wrong"),
        ("1,2,3", "wrong"),
    ],
)
def test_a_decimal_comma(value: Any, expected: Any) -> None:
    assert one(value, number("x"), decimal=",") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("12", 12),
        ("-0", 0),
        ("3.0", 3),
        ("1e3", 1000),
        (4.0, 4),
        (Decimal("5.00"), 5),
        (np.int8(-3), -3),
        ("3.5", "wrong"),
        (3.5, "wrong"),
        (Decimal("3.5"), "wrong"),
        ("9" * 30, "beyond"),
        ("9" * 5000, "beyond"),
        (2**70, "beyond"),
        (Decimal("1e30"), "beyond"),
        (Decimal("1e999999"), "beyond"),
        ("1000001", "beyond"),
        ("nan", "missing"),
        ("x", "wrong"),
    ],
)
def test_integers(value: Any, expected: Any) -> None:
    assert one(value, integer("x")) == expected


def test_large_integers_are_exact_or_refused() -> None:
    wide = integer("x", -(2.0**62), 2.0**62)
    exact = [2**53 + 1, -(2**61) - 1]
    assert convert([str(value) for value in exact], wide, Style()).values.tolist() == exact
    assert convert(exact, wide, Style()).values.tolist() == exact
    assert convert(np.array(exact), wide, Style()).values.tolist() == exact
    assert convert([Decimal(value) for value in exact], wide, Style()).values.tolist() == exact
    # In float64 they are already others; nobody can tell.
    for rounded in (["9007199254740993.0"], np.array([2.0**53]), [float(2**60)]):
        assert convert(rounded, wide, Style()).beyond.tolist() == [True]


@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint8, np.int64, np.uint64, np.float16, np.float32, np.float64, np.bool_]
)
def test_arrays_of_all_kinds_of_number(dtype: Any) -> None:
    array = np.array([0, 1, 1], dtype)
    for column, expected in [
        (number("x"), [0.0, 1.0, 1.0]),
        (integer("x"), [0, 1, 1]),
        (boolean("x"), [False, True, True]),
    ]:
        found = convert(array, column, Style())
        assert found.values.tolist() == expected
        assert not (found.missing | found.wrong | found.beyond).any()
    names = ("True", "False") if array.dtype == np.bool_ else ("1", "0")
    assert convert(array, category("x", *names), Style()).values.tolist() == [1, 0, 0]


def test_the_edges_of_words() -> None:
    column = integer("x", -(2.0**63), 2.0**63)
    assert convert(np.array([2**64 - 1, 5], np.uint64), column, Style()).beyond.tolist() == [True, False]
    assert convert([2**63, 2**63 - 1, -(2**63), -(2**63) - 1], column, Style()).beyond.tolist() == [
        True,
        False,
        False,
        True,
    ]
    masked = np.ma.MaskedArray([1, 2**62, 3], [False, True, False])
    found = convert(masked, integer("x", 0, 5), Style())
    assert (found.missing.tolist(), found.beyond.tolist()) == ([False, True, False], [False] * 3)


# ---- yes and no, categories -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["yes", "Y", "TRUE", " t ", "1", 1, 1.0, "1.0", True, np.True_, Decimal("1")], True),
        (["no", "n", "False", "f\n", "0", 0, 0.0, "0.0", False, np.False_, Decimal("0")], False),
        ([None, "", "NA", math.nan, pd.NA], "missing"),
        (["2", 2, -1, 0.5, "ja", "yes!", "10", Decimal("1e999999"), math.inf, b"1"], "wrong"),
    ],
)
def test_yes_and_no(values: list[Any], expected: Any) -> None:
    assert [one(value, boolean("x")) for value in values] == [expected] * len(values)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("female", 0), (" male\n", 1), ("NA", 2), ("Female", "wrong"), ("", "missing"), (None, "missing"), (1, "wrong")],
)
def test_categories(value: Any, expected: Any) -> None:
    assert one(value, SEX) == expected


@pytest.mark.parametrize("value", ["2", 2, 2.0, np.int16(2), Decimal("2.0"), np.float64(2)])
def test_categories_that_are_numbers(value: Any) -> None:
    stage = category("stage", "1", "2", "3")
    assert one(value, stage) == 1
    assert convert(np.array([2.0, np.nan, 9.0, np.inf]), stage, Style()).missing.tolist() == [False, True, False, False]
    assert convert(np.array([2.0, np.nan, 9.0, np.inf]), stage, Style()).wrong.tolist() == [False, False, True, True]


def test_own_words_for_missing() -> None:
    assert one("-99", number("x"), missing=("-99", "?")) == "missing"
    assert one("?", SEX, missing=("-99", "?")) == "missing"
    assert one("", number("x"), missing=("-99", "?")) == "wrong"


# ---- tables -----------------------------------------------------------------------------------------------------

SCHEMA: list[ColumnLike] = [
    number("age", 0, 120),
    integer("visits", 0, 1000),
    boolean("ill"),
    category("sex", "f", "m"),
]
ROWS: dict[str, Any] = {
    "age": ["31", "45.5", "7"],
    "visits": ["3", "0", "12"],
    "ill": ["yes", "no", "yes"],
    "sex": ["m", "f", "m"],
    "name": ["somebody", "who is", "not looked at"],
}


def test_a_table_has_the_types_of_its_schema() -> None:
    table = check_table(ROWS, SCHEMA, "city")
    assert (table.rows, table.dropped, table.names) == (3, 0, ("age", "visits", "ill", "sex"))
    assert [table.columns[name].dtype for name in table.names] == [np.float64, np.int64, np.bool_, np.int64]
    assert table.columns["age"].tolist() == [31, 45.5, 7]
    assert table.columns["visits"].tolist() == [3, 0, 12]
    assert table.columns["ill"].tolist() == [True, False, True]
    assert table.columns["sex"].tolist() == [1, 0, 1]
    assert table.matrix(["sex", "age"]).tolist() == [[1, 31], [0, 45.5], [1, 7]]
    assert repr(table) == "Table(3 rows, 4 columns, 0 rows dropped)"
    with pytest.raises(ValueError, match="read-only"):
        table.columns["age"][0] = 1


def test_frames_and_arrays_give_the_same_table() -> None:
    frame = pd.DataFrame({"age": [31, 45.5, 7], "visits": pd.array([3, 0, 12], "Int64"), "ill": [True, False, True]})
    frame["sex"] = pd.Categorical(["m", "f", "m"])
    expected = check_table(ROWS, SCHEMA, "city")
    for raw in (frame, {name: frame[name].to_numpy() for name in frame}, {**ROWS, "sex": np.array(["m", "f", "m"])}):
        table = check_table(raw, SCHEMA, "city")
        for name in table.names:
            np.testing.assert_array_equal(table.columns[name], expected.columns[name])


def test_the_schema_of_a_study_is_one() -> None:
    schema = [
        StudyColumn(name="age", type="number", lower=0, upper=120),
        StudyColumn(name="sex", type="category", categories=("f", "m"), missing="drop"),
    ]
    table = check_table({**ROWS, "sex": ["m", None, "f"]}, schema, "city")
    assert (table.rows, table.dropped) == (2, 1)
    assert table.columns["sex"].tolist() == [1, 0]


def test_what_is_wrong_is_counted_by_column_and_not_shown() -> None:
    raw = {
        "age": ["31337", "x31337", "", "150.5", "7"],
        "visits": ["1.5", "2", "3", "4", "99999"],
        "ill": ["yes", "31337", "maybe", "no", "no"],
        "sex": ["f", "m", "x", "m", "m"],
    }
    with pytest.raises(DataError) as caught:
        check_table(raw, SCHEMA, "city")
    text = str(caught.value)
    assert text == (
        "city: of 5 rows, in column 'age' 1 is not a number, 2 are beyond [0, 120], 1 is missing; in column 'visits' 1 "
        "is not a whole number, 1 is beyond [0, 1000]; in column 'ill' 2 are not yes or no; in column 'sex' 1 is not "
        "one of the 2 categories. Correct the source, map the column to another one in your configuration, or agree on "
        "another schema in the study"
    )
    assert "31337" not in text
    assert for_peers(caught.value) == ""


def test_rows_without_a_value_are_left_out_where_the_study_says_so() -> None:
    schema = [number("age", 0, 120, missing="drop"), category("sex", "f", "m", missing="drop"), number("weight")]
    raw = {"age": [1, None, 3, math.nan, 5], "sex": ["f", "x", None, "m", "m"], "weight": [1.0, 2.0, 3.0, "junk", 5.0]}
    table = check_table(raw, schema, "city")  # what else is wrong with such a row does not matter
    assert (table.rows, table.dropped) == (2, 3)
    assert table.columns["weight"].tolist() == [1, 5]
    with pytest.raises(DataError, match="in column 'weight' 1 is missing"):
        check_table({**raw, "weight": [None, 1, 2, 3, 4]}, schema, "city")
    with pytest.raises(DataError, match="of 5 rows, in column 'age' 1 is beyond"):
        check_table({**raw, "age": [1, None, 3, math.nan, 500]}, schema, "city")


def test_missing_values_stay_where_the_study_says_so() -> None:
    schema = [
        number("x", missing="keep"),
        integer("n", missing="keep"),
        boolean("b", missing="keep"),
        category("c", "red", "blue", missing="keep"),
        number("y"),
    ]
    raw = {
        "x": ["1.5", "", "2"],
        "n": ["7", "8", "NA"],
        "b": ["", "no", "yes"],
        "c": ["blue", "", "red"],
        "y": [1, 2, 3],
    }
    table = check_table(raw, schema, "we")
    assert (table.rows, table.dropped) == (3, 0)
    assert table.columns["x"].tolist() == pytest.approx([1.5, math.nan, 2.0], nan_ok=True)
    assert table.columns["n"].tolist() == pytest.approx([7.0, 8.0, math.nan], nan_ok=True)
    assert table.columns["b"].tolist() == pytest.approx([math.nan, 0.0, 1.0], nan_ok=True)
    assert table.columns["c"].tolist() == [1, -1, 0]
    assert table.columns["y"].dtype == np.float64
    with pytest.raises(DataError, match="in column 'x' 1 is not a number"):
        check_table({**raw, "x": ["1", "many", ""]}, schema, "we")
    none = check_table({name: [] for name in raw}, schema, "we")
    assert [values.dtype.kind for values in none.columns.values()] == ["f", "f", "f", "i", "f"]


def test_bounds_belong_to_the_range() -> None:
    assert check_table({"x": [0.1, 0.3, 0.2]}, [number("x", 0.1, 0.3)], "city").rows == 3
    with pytest.raises(DataError, match="2 are beyond"):
        check_table({"x": [np.nextafter(0.1, 0), 0.2, np.nextafter(0.3, 1)]}, [number("x", 0.1, 0.3)], "city")


def test_columns_must_be_there_and_of_one_length() -> None:
    with pytest.raises(DataError, match="city: there is no column for 'sex'"):
        check_table({name: ROWS[name] for name in ("age", "visits", "ill")}, SCHEMA, "city")
    with pytest.raises(DataError, match="different numbers of rows"):
        check_table({**ROWS, "age": [1]}, SCHEMA, "city")


def test_no_rows() -> None:
    table = check_table({name: [] for name in ROWS}, SCHEMA, "city")
    assert table.rows == 0
    assert [table.columns[name].dtype for name in table.names] == [np.float64, np.int64, np.bool_, np.int64]
    assert TableBuilder(SCHEMA, "city").table().rows == 0
    assert table.matrix().shape == (0, 4)


def test_a_long_report_is_cut() -> None:
    schema = [number(f"c{k}") for k in range(50)]
    with pytest.raises(DataError, match="; and 30 more columns") as caught:
        check_table({f"c{k}": ["x"] for k in range(50)}, schema, "city")
    assert len(str(caught.value)) < 2000


@given(st.lists(st.integers(0, 6), max_size=8), st.data())
def test_chunks_make_no_difference(sizes: list[int], data: st.DataObject) -> None:
    """Also where one chunk takes the fast way and another the slow one."""
    texts = st.sampled_from(["1", " 2", "2.5", "", "NA", "7.0", "1e2"])
    values = data.draw(st.lists(texts, min_size=sum(sizes), max_size=sum(sizes)))
    schema = [number("x", missing="drop")]
    builder, start = TableBuilder(schema, "city"), 0
    for size in sizes:
        builder.add({"x": values[start : start + size]})
        start += size
    table, whole = builder.table(), check_table({"x": values}, schema, "city")
    assert table.columns["x"].tolist() == whole.columns["x"].tolist()
    assert (table.rows, table.dropped) == (whole.rows, whole.dropped)


def test_a_table_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Table({}, 0).rows = 1  # type: ignore[misc]
