"""Rows from CSV and Parquet files, also as people really write them."""

import csv
import io
import os
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from pydantic import TypeAdapter, ValidationError

from mpc import DataError
from mpc.errors import for_peers
from parties.data import files
from parties.data.columns import Table
from parties.data.errors import SourceError
from parties.data.sources import Source, load, parse_source, resolved
from tests.data.schema import boolean, category, integer, number

SCHEMA = [number("age", 0, 120), category("sex", "f", "m")]


def from_csv(tmp_path: Path, content: str | bytes, schema: Any = SCHEMA, **settings: Any) -> Table:
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "rows.csv").write_bytes(data)
    return load(parse_source({"kind": "csv", "path": "rows.csv", **settings}), schema, tmp_path)


def refused(tmp_path: Path, content: str | bytes, text: str, schema: Any = SCHEMA, **settings: Any) -> None:
    with pytest.raises(DataError, match=text) as caught:
        from_csv(tmp_path, content, schema, **settings)
    assert "31337" not in str(caught.value)
    assert str(caught.value).isprintable()
    assert for_peers(caught.value) == ""
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


# ---- CSV --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "settings"),
    [
        ("age,sex\n31,m\n45.5,f\n", {}),
        ("age,sex\r\n31,m\r\n45.5,f", {}),
        ("\ufeffage,sex\n31,m\n45.5,f\n", {}),
        ('"age",sex \n31 ,m\n 45.5,"f "\n', {}),
        ('age,note,sex\n31,"a, b; ""c""\nd",m\n45.5,,f\n\n\n', {}),
        ("age;sex\n31,0;m\n45,5;f\n", {"delimiter": ";", "decimal": ","}),
        ("age\tsex\n31\tm\n45.5\tf\n", {"delimiter": "\t"}),
        ("Alter,Geschl.\n31,m\n45.5,f\n", {"columns": {"age": "Alter", "sex": "Geschl."}}),
        ("x,x,age,sex\n1,2,31,m\n1,2,45.5,f\n", {}),  # what is there twice is not asked for
        ("age,sex\n31,m\n45.5,f\n".encode("utf-16"), {"encoding": "utf-16"}),
        ("Größe,age,sex\nä,31,m\nö,45.5,f\n".encode("latin-1"), {"encoding": "latin-1"}),
    ],
)
def test_the_same_rows_written_in_many_ways(tmp_path: Path, content: Any, settings: dict[str, Any]) -> None:
    table = from_csv(tmp_path, content, **settings)
    assert table.columns["age"].tolist() == [31, 45.5]
    assert table.columns["sex"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "no first line that names the columns"),
        ("\n\n", "no first line"),
        (" , \n", "no first line"),
        ("\ufeff", "no first line"),
        ("age,geschlecht\n31337,m\n", "has no column 'sex'; its first line names 2 columns. Map the study's columns"),
        (" Age ,SEX_\n31337,m\n", "no column 'age', 'sex'; its first line names 2 columns, among them 'Age', 'SEX_'"),
        ("31337,m\n1,m\n", "has no column 'age', 'sex'; its first line names 2 columns. Map"),  # there is no header
        ("age,sex,age\n31337,m,31337\n", "more than one column 'age'"),
        ("age,sex\n31337,m,x\n", "row 1 after the header has 3 values, and the header 2; check the delimiter"),
        ("age,sex\n1,m\n31337\n", "row 2 after the header has 1 values"),
        ('age,sex\n1,m\n"31337,m\n2,f\n', "line [0-9]+ of .* is no CSV with this delimiter"),
        ('age,sex\n"31"337,m\n', "line 2 of .* is no CSV"),
        ("age,sex\n1,m\n" + "3" * 200_000 + ",m\n", "a value of more than 128 KiB"),
        (b"age,sex\n31337,m\xe4nnlich\n", "bytes that are not utf-8, at or after line [12]; set encoding"),
        ("age;sex\n31337;m\n", "has no column 'age', 'sex'; its delimiter is another one. Map"),
        (
            "age,sex\n,m\n31337,f\n5,x\n1,m\n",
            "of 4 rows, in column 'age' 1 is beyond .*, 1 is missing; .* 1 is not one",
        ),
    ],
)
def test_what_is_no_csv_of_ours_is_refused_without_showing_values(tmp_path: Path, content: Any, text: str) -> None:
    refused(tmp_path, content, text)


def test_numbers_of_another_country_are_not_guessed_at(tmp_path: Path) -> None:
    schema = [number("x", -1e9, 1e9)]
    assert from_csv(tmp_path, "x\n1234,5\n", schema, delimiter=";", decimal=",").columns["x"].tolist() == [1234.5]
    refused(tmp_path, "x\n1.234\n", "1 is not a number", schema, delimiter=";", decimal=",")
    refused(tmp_path, 'x\n"1,234"\n', "1 is not a number", schema)
    refused(tmp_path, "x\n1 234\n1'234\n", "2 are not a number", schema)


def test_missing_values(tmp_path: Path) -> None:
    schema = [number("age", 0, 120, missing="drop"), boolean("ill")]
    content = "age,ill\n1,yes\n,no\nNA,no\nnull,yes\n5,no\n-99,yes\n"
    refused(tmp_path, content, "1 is beyond", schema)
    table = from_csv(tmp_path, content, schema, missing=["", "NA", "null", "-99"])
    assert (table.rows, table.dropped) == (2, 4)
    assert table.columns["ill"].tolist() == [True, False]


@pytest.mark.parametrize("rows_at_a_time", [1, 2, 3, 100])
def test_blank_lines_of_one_column_are_missing_values_but_for_the_last(
    tmp_path: Path, rows_at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_CSV_ROWS", rows_at_a_time)
    schema = [number("age", 0, 120, missing="drop")]
    table = from_csv(tmp_path, "age\n1\n\n2\n\n\n3\n\n\n\n", schema)
    assert (table.rows, table.dropped) == (3, 3)


@given(
    st.lists(
        st.tuples(
            st.floats(0, 120, allow_nan=False),
            st.sampled_from("fm"),
            st.text(st.characters(codec="utf-8"), max_size=12),
        ),
        max_size=6,
    ),
    st.sampled_from(",;\t|"),
)
def test_what_the_standard_library_writes_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: Any, delimiter: str
) -> None:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(["age", "sex", "note"])
    writer.writerows(rows)
    table = from_csv(tmp_path_factory.mktemp("csv"), out.getvalue(), delimiter=delimiter)
    assert table.columns["age"].tolist() == [age for age, _, _ in rows]
    assert table.columns["sex"].tolist() == ["fm".index(sex) for _, sex, _ in rows]


def test_many_rows_take_little_more_memory_than_the_table(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = 40_000
    schema = [*(number(f"x{k}") for k in range(6)), integer("n"), category("c", "a", "b"), boolean("b")]
    columns = [[f"{v:.6g}" for v in rng.normal(size=rows)] for _ in range(6)]
    columns += [
        [str(v) for v in rng.integers(0, 1000, rows)],
        ["ab"[v] for v in rng.integers(0, 2, rows)],
        ["yes"] * rows,
    ]
    header = ",".join(column.name for column in schema)
    lines = "\n".join([header, *map(",".join, zip(*columns, strict=True))])
    (tmp_path / "rows.csv").write_text(lines)
    del lines
    source = parse_source({"kind": "csv", "path": "rows.csv"})
    started = time.process_time()
    table = load(source, schema, tmp_path)
    seconds = time.process_time() - started
    assert table.rows == rows
    assert seconds < 2  # a tenth of it on a quiet machine
    tracemalloc.start()
    load(source, schema, tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = sum(array.nbytes for array in table.columns.values())
    assert peak < size + 2_000_000 + 64 * 2048 * len(schema) * 3


# ---- Parquet ----------------------------------------------------------------------------------------------------


def from_parquet(tmp_path: Path, held: dict[str, Any], schema: Any, **settings: Any) -> Table:
    parquet.write_table(pa.table(held), tmp_path / "rows.parquet", row_group_size=3)
    return load(parse_source({"kind": "parquet", "path": "rows.parquet", **settings}), schema, tmp_path)


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.int64(), pa.float32(), pa.float64(), pa.decimal128(30, 2)])
def test_parquet_numbers(tmp_path: Path, kind: Any) -> None:
    column = pa.array([3, None, 5, 7], pa.int64()).cast(kind)
    schema = [number("x", 0, 100, missing="drop")]
    table = from_parquet(tmp_path, {"x": column}, schema)
    assert (table.columns["x"].tolist(), table.dropped) == ([3, 5, 7], 1)
    as_integer = from_parquet(tmp_path, {"x": column}, [integer("x", 0, 100, missing="drop")])
    assert as_integer.columns["x"].tolist() == [3, 5, 7]
    assert as_integer.columns["x"].dtype == np.int64


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_parquet_text(tmp_path: Path, kind: Any) -> None:
    sex = pa.array(["m", "f", None, "m"], pa.string()).cast(kind)
    ill = pa.array([True, None, True, False])
    schema = [category("sex", "f", "m", missing="drop"), boolean("ill", missing="drop")]
    table = from_parquet(tmp_path, {"s": sex, "ill": ill, "other": [1, 2, 3, 4]}, schema, columns={"sex": "s"})
    assert table.columns["sex"].tolist() == [1, 1]
    assert table.columns["ill"].tolist() == [True, False]
    assert table.dropped == 2


def test_parquet_names_may_have_dots(tmp_path: Path) -> None:
    held = {"b.a": [1.0], "b": [{"a": 5.0}], "a b": [3.0]}
    assert from_parquet(tmp_path, held, [number("b.a"), number("a b")]).matrix().tolist() == [[1, 3]]


def test_parquet_integers_beyond_float64_are_exact(tmp_path: Path) -> None:
    values = [2**53 + 1, None, -(2**61) - 3]
    wide = [integer("n", -(2.0**62), 2.0**62, missing="drop")]
    assert from_parquet(tmp_path, {"n": values}, wide).columns["n"].tolist() == [2**53 + 1, -(2**61) - 3]


def test_what_is_no_parquet_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has no column 'sex'; it has 'age'"):
        from_parquet(tmp_path, {"age": [31337.0]}, SCHEMA)
    with pytest.raises(DataError, match="in column 'age' 2 are not a number") as caught:
        from_parquet(tmp_path, {"age": pa.array([31337, 2], pa.timestamp("s")), "sex": ["m", "f"]}, SCHEMA)
    assert "31337" not in str(caught.value)
    with pytest.raises(DataError, match="1 is not a number, 1 is missing"):
        from_parquet(tmp_path, {"age": [np.inf, np.nan], "sex": ["m", "f"]}, SCHEMA)
    for content in (b"", b"PAR1", b"age,sex\n1,m\n"):
        (tmp_path / "rows.parquet").write_bytes(content)
        with pytest.raises(SourceError, match="is no Parquet file, or is damaged"):
            load(parse_source({"kind": "parquet", "path": "rows.parquet"}), SCHEMA, tmp_path)


def test_a_parquet_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    from_parquet(tmp_path, {"age": np.arange(100.0), "sex": ["m"] * 100}, SCHEMA)
    data = bytearray((tmp_path / "rows.parquet").read_bytes())
    data[40:80] = os.urandom(40)
    (tmp_path / "rows.parquet").write_bytes(data)
    with pytest.raises(DataError) as caught:
        load(parse_source({"kind": "parquet", "path": "rows.parquet"}), SCHEMA, tmp_path)
    assert str(caught.value).isprintable()


# ---- configuration ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"kind": "excel", "path": "x"}, "kind"),
        ({"path": "x"}, "kind"),
        ({"kind": "csv"}, "path"),
        ({"kind": "csv", "path": ""}, "path"),
        ({"kind": "csv", "path": "x", "delimiter": ";;"}, "delimiter"),
        ({"kind": "csv", "path": "x", "delimiter": "\n"}, "delimiter"),
        ({"kind": "csv", "path": "x", "decimal": ","}, "same character"),
        ({"kind": "csv", "path": "x", "encoding": "utf-99"}, "encoding"),
        ({"kind": "csv", "path": "x", "encoding": "hex"}, "encoding"),
        ({"kind": "csv", "path": "x", "password": "31337"}, "password"),
        ({"kind": "csv", "path": "x", "columns": {"age": 3}}, "columns"),
        ({"kind": "sql", "query": "select 1"}, "exactly one of url"),
        ({"kind": "sql", "query": "select 1", "url": "sqlite:///31337", "url_env": "X"}, "exactly one of url"),
        ({"kind": "sql", "query": "delete from t", "url": "sqlite:///31337"}, "one SELECT"),
        ({"kind": "sql", "query": " ; ", "url": "sqlite:///31337"}, "one SELECT"),
        ({"kind": "sql", "query": "select 1", "url_env": "A-B"}, "url_env"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text) as caught:
        parse_source(settings)
    assert "31337" not in str(caught.value)


def test_a_source_travels_as_json(tmp_path: Path) -> None:
    adapter: TypeAdapter[Source] = TypeAdapter(Source)
    for settings in (
        {"kind": "csv", "path": "a.csv", "missing": ["x"], "columns": {"a": "b"}},
        {"kind": "parquet", "path": "/a.parquet"},
        {"kind": "sql", "url": "postgresql+psycopg://u:31337@h/d", "query": "select 1;"},
    ):
        source = parse_source(settings)
        assert adapter.validate_python(source.model_dump(mode="json")) == source
        again = resolved(source, tmp_path)
        assert adapter.validate_python(again.model_dump(mode="json")) == again
        assert "31337" not in repr(source)


def test_relative_paths_stay_below_the_configuration(tmp_path: Path) -> None:
    base, outside = tmp_path / "node", tmp_path / "elsewhere"
    base.mkdir()
    outside.mkdir()
    (outside / "rows.csv").write_text("age,sex\n1,m\n")
    (base / "link").symlink_to(outside)
    for path in ("../elsewhere/rows.csv", "link/rows.csv", "a/../../elsewhere/rows.csv", "link"):
        with pytest.raises(SourceError, match="leads out of the configuration's directory"):
            load(parse_source({"kind": "csv", "path": path}), SCHEMA, base)
    assert load(parse_source({"kind": "csv", "path": str(outside / "rows.csv")}), SCHEMA, base).rows == 1
    (base / "data").mkdir()
    (base / "data" / "rows.csv").write_text("age,sex\n1,m\n2,f\n")
    assert load(parse_source({"kind": "csv", "path": "data/../data/rows.csv"}), SCHEMA, base).rows == 2


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, text in [
        ("none.csv", "there is no file"),
        (".", "is no file"),
        ("a\0b", "is no path"),
        ("x" * 300, "cannot be read"),
        ("f.csv/rows.csv", "cannot be read|no file"),
    ]:
        (tmp_path / "f.csv").write_text("age,sex\n")
        with pytest.raises(SourceError, match=text):
            load(parse_source({"kind": "csv", "path": path}), SCHEMA, tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="is no file"):
        load(parse_source({"kind": "csv", "path": "pipe"}), SCHEMA, tmp_path)
    secret = tmp_path / "secret.csv"
    secret.write_text("age,sex\n")
    secret.chmod(0)
    if os.geteuid():
        with pytest.raises(SourceError, match="may not be read"):
            load(parse_source({"kind": "csv", "path": "secret.csv"}), SCHEMA, tmp_path)


def test_a_mapping_to_columns_that_the_study_does_not_have_is_a_mistake(tmp_path: Path) -> None:
    refused(
        tmp_path,
        "age,sex\n1,m\n",
        "maps 'aeg', which the study does not have; its columns are 'age', 'sex'",
        columns={"aeg": "age"},
    )


def test_two_columns_of_a_study_may_come_from_one(tmp_path: Path) -> None:
    schema = [number("age", 0, 120), number("again", 0, 120)]
    assert from_csv(tmp_path, "age\n7\n", schema, columns={"again": "age"}).matrix().tolist() == [[7, 7]]


def test_the_longest_value_does_not_depend_on_what_other_libraries_set(tmp_path: Path) -> None:
    before = csv.field_size_limit(1 << 30)
    try:
        refused(tmp_path, "age,sex\n" + "1" * (1 << 18) + ",f\n", "a value of more than 128 KiB")
        assert csv.field_size_limit() == 1 << 30
    finally:
        csv.field_size_limit(before)
