"""Made-up rows: they fit the schema, tell nothing, and differ from run to run."""

import numpy as np
import pytest

from parties.data.columns import check_table
from parties.data.synthetic import synthetic
from parties.governance.schema import Column as StudyColumn
from tests.data.schema import boolean, category, integer, number

SCHEMA = [number("x", -3, 7), integer("n", -2, 3), boolean("b"), category("c", "a", "b", "c"), number("x2", -3, 7)]


@pytest.mark.parametrize("rows", [0, 1, 7, 1000])
def test_rows_fit_their_schema(rows: int) -> None:
    table = synthetic(SCHEMA, rows)
    assert (table.rows, table.dropped, table.names) == (rows, 0, ("x", "n", "b", "c", "x2"))
    raw = dict(table.columns)
    raw["c"] = np.array(["a", "b", "c"], object)[table.columns["c"]]
    again = check_table(raw, SCHEMA, "nobody")
    for name in table.names:
        np.testing.assert_array_equal(again.columns[name], table.columns[name])
        assert again.columns[name].dtype == table.columns[name].dtype
        assert not table.columns[name].flags.writeable


def test_values_are_spread_over_their_range() -> None:
    table = synthetic(SCHEMA, 6000, seed=bytes(32))
    x, n = table.columns["x"], table.columns["n"]
    assert abs(x.mean() - 2) < 0.2
    assert abs(x.std() - 10 / 12**0.5) < 0.1
    assert np.bincount(n + 2).min() > 800
    assert set(n.tolist()) == {-2, -1, 0, 1, 2, 3}
    assert abs(np.corrcoef(x, table.columns["x2"])[0, 1]) < 0.05
    assert abs(np.corrcoef(x, table.columns["b"])[0, 1]) < 0.05


def test_every_category_occurs_as_often_as_the_others() -> None:
    for _ in range(20):
        table = synthetic(SCHEMA, 10)
        assert sorted(np.bincount(table.columns["c"], minlength=3)) == [3, 3, 4]
        assert table.columns["b"].sum() == 5
    first = {synthetic(SCHEMA, 1).columns["b"].item() for _ in range(64)}
    assert first == {True, False}


def test_each_call_makes_other_rows_unless_the_seed_is_given() -> None:
    a, b = synthetic(SCHEMA, 20), synthetic(SCHEMA, 20)
    assert a.columns["x"].tolist() != b.columns["x"].tolist()
    c, d = synthetic(SCHEMA, 20, seed=b"s" * 32), synthetic(SCHEMA, 20, seed=b"s" * 32)
    assert all(np.array_equal(c.columns[name], d.columns[name]) for name in c.names)


def test_the_widest_ranges() -> None:
    table = synthetic([number("x", -1.7e308, 1.7e308), integer("n", -(2.0**63), 2.0**63 - 1024)], 1000)
    assert np.isfinite(table.columns["x"]).all()
    assert table.columns["x"].min() < -1e307
    assert table.columns["n"].min() < -(2**61)
    assert table.columns["n"].max() > 2**61
    assert synthetic([StudyColumn(name="n", type="integer", lower=0, upper=1)], 50).columns["n"].max() == 1


def test_sizes_are_bounded() -> None:
    for rows in (-1, 10**9):
        with pytest.raises(ValueError, match="rows"):
            synthetic(SCHEMA, rows)


def test_columns_that_may_have_gaps_are_of_the_kind_of_real_ones() -> None:
    schema = [integer("n", 0, 9, missing="keep"), category("c", "a", "b", missing="keep"), boolean("b", missing="keep")]
    made = synthetic(schema, 10)
    assert [values.dtype.kind for values in made.columns.values()] == ["f", "i", "f"]
    assert not any(np.isnan(values.astype(float)).any() for values in made.columns.values())
