"""Rows from SQLite and from a real PostgreSQL server: read-only, streamed, and silent about what they hold."""

import sqlite3
import sys
import tracemalloc
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from mpc import DataError
from mpc.errors import for_peers
from parties.data.columns import Table
from parties.data.database import read_sql
from parties.data.errors import SourceError
from parties.data.sources import load, parse_source, resolved
from tests.data.conftest import PASSWORD, Server
from tests.data.schema import boolean, category, integer, number

SCHEMA = [
    number("weight", 0, 500, missing="drop"),
    integer("visits", 0, 10**9),
    boolean("ill"),
    category("sex", "f", "m"),
]
SELECT = "select weight, visits, ill, sex from patients order by id"


def from_sql(url: str, query: str = SELECT, schema: Any = SCHEMA, base: Path = Path("/"), **settings: Any) -> Table:
    return load(parse_source({"kind": "sql", "url": url, "query": query, **settings}), schema, base)


def silent(error: Exception) -> str:
    """The text of an error, once it is known to be fit for a log."""
    text = str(error)
    assert PASSWORD not in text
    assert "31337" not in text
    assert text.isprintable()
    assert for_peers(error) == ""
    assert error.__suppress_context__ or error.__context__ is None
    return text


# ---- SQLite -----------------------------------------------------------------------------------------------------


@pytest.fixture
def sqlite(tmp_path: Path) -> Path:
    path = tmp_path / "the rows #1.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table patients (id integer, weight, visits, ill, sex text)")
        rows = [(1, 70.5, 3, 1, "m"), (2, None, 0, 0, "f"), (3, "61", "7", "yes", " f "), (4, 88, 10**8, 0, "m")]
        connection.executemany("insert into patients values (?, ?, ?, ?, ?)", rows)
        connection.commit()
    return path


def test_rows_of_sqlite(sqlite: Path) -> None:
    for url, base in [(f"sqlite:///{sqlite}", Path("/")), (f"sqlite:///{sqlite.name}", sqlite.parent)]:
        table = from_sql(url, base=base)
        assert (table.rows, table.dropped) == (3, 1)
        assert table.columns["weight"].tolist() == [70.5, 61, 88]
        assert table.columns["visits"].tolist() == [3, 7, 10**8]
        assert table.columns["ill"].tolist() == [True, True, False]
        assert table.columns["sex"].tolist() == [1, 0, 1]


def test_columns_have_the_names_of_the_query(sqlite: Path) -> None:
    query = "with p as (select weight as kg, weight from patients) select kg, weight from p;"
    schema = [number("mass", 0, 500, missing="drop")]
    assert from_sql(f"sqlite:///{sqlite}", query, schema, columns={"mass": "kg"}).rows == 3
    with pytest.raises(SourceError, match="has no column 'mass'; it has 'kg', 'weight'"):
        from_sql(f"sqlite:///{sqlite}", query, schema)
    with pytest.raises(SourceError, match="more than one column 'weight'"):
        from_sql(f"sqlite:///{sqlite}", "select weight, weight from patients", [number("weight")])


def test_colons_and_percent_signs_are_no_parameters(sqlite: Path) -> None:
    query = "select weight from patients where sex like 'm%' and '10:30' < '10:31' and ':x' <> '%(x)s' and '%' = '%'"
    assert from_sql(f"sqlite:///{sqlite}", query, [number("weight")]).rows == 2


def test_sqlite_is_read_only_and_made_by_nobody(sqlite: Path, tmp_path: Path) -> None:
    before = sqlite.read_bytes()
    for query in (
        "with x as (select 1) delete from patients",
        "select 1; delete from patients",
        "with x as (select 1) insert into patients select 9, 9, 9, 9, 9",
    ):
        with pytest.raises(SourceError, match="the query fails"):
            from_sql(f"sqlite:///{sqlite}", query)
    assert sqlite.read_bytes() == before
    with pytest.raises(SourceError, match=r"cannot be reached, or does not let us in \(.*SQLITE_CANTOPEN"):
        from_sql("sqlite:///none.db", base=tmp_path)
    assert not (tmp_path / "none.db").exists()
    for url in ("sqlite://", "sqlite:///:memory:", "sqlite:///file:x?uri=true"):
        with pytest.raises(SourceError, match="names a file"):
            from_sql(url, base=tmp_path)
    for url in ("sqlite:///../none.db", "sqlite:///..%2Fnone.db"):
        with pytest.raises(SourceError, match="leads out of"):
            from_sql(url, base=tmp_path)


def test_what_sqlite_says_is_not_repeated(sqlite: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        from_sql(f"sqlite:///{sqlite}", "select nothing31337 from patients")
    assert "the query fails (OperationalError, SQLITE_ERROR)" in silent(caught.value)
    with closing(sqlite3.connect(sqlite)) as connection:
        connection.execute("insert into patients values (9, 1, 1, 1, cast(x'ff31333333ff' as text))")
        connection.commit()
    with pytest.raises(DataError) as undecodable:
        from_sql(f"sqlite:///{sqlite}")
    silent(undecodable.value)
    (tmp_path / "text.db").write_text("31337 is no database, however long it may be" * 99)
    with pytest.raises(SourceError, match="SQLITE_NOTADB") as damaged:
        from_sql(f"sqlite:///{tmp_path}/text.db")
    silent(damaged.value)


# ---- PostgreSQL -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def patients(postgres: Server) -> Server:
    with psycopg.connect(postgres.url().replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("create type sex as enum ('f', 'm')")
        connection.execute(
            "create table patients (id serial, weight numeric(6, 2), visits bigint, ill boolean, sex sex, born date)"
        )
        connection.execute(
            "insert into patients (weight, visits, ill, sex, born) values (70.50, 3, true, 'm', '1950-01-31'), "
            "(null, 0, false, 'f', null), (61, 7, true, 'f', '1950-01-31'), ('NaN', 1, true, 'f', null), "
            "(88, 100000000, false, 'm', null)"
        )
        connection.execute("create role reader login password 'reader'")
        connection.execute("grant select (id, weight) on patients to reader")
    return postgres


def test_rows_of_postgresql(patients: Server) -> None:
    for url in (patients.url(), patients.socket_url):
        table = from_sql(url)
        assert (table.rows, table.dropped) == (3, 2)
        assert table.columns["weight"].tolist() == [70.5, 61, 88]
        assert table.columns["visits"].tolist() == [3, 7, 10**8]
        assert table.columns["ill"].tolist() == [True, True, False]
        assert table.columns["sex"].tolist() == [1, 0, 1]


def test_casts_and_percent_signs_reach_postgresql(patients: Server) -> None:
    query = (
        "select weight::float8 as weight from patients where sex::text like 'm%' and born is distinct from now()::date "
        "and '10:30'::time < '10:31:00'::time and 7 % 4 = 3 and '%(x)s' <> ':x'"
    )
    assert from_sql(patients.url(), query, [number("weight")]).columns["weight"].tolist() == [70.5, 88]


def test_postgresql_is_read_only(patients: Server) -> None:
    for query in (
        "with gone as (delete from patients returning *) select weight from gone",
        "select nextval('patients_id_seq') as weight",
        "select 1 as weight; delete from patients",
    ):
        with pytest.raises(SourceError, match=r"fails \((ReadOnly.*, 25006|Feature.*, 0A000|SyntaxError, 42601)\)"):
            from_sql(patients.url(), query, [number("weight")])
    assert from_sql(patients.url()).rows == 3


def test_dates_are_no_numbers(patients: Server) -> None:
    with pytest.raises(DataError, match="of 5 rows, in column 'born' 2 are not a number, 3 are missing"):
        from_sql(patients.url(), "select born from patients", [number("born")])


def test_what_postgresql_says_is_not_repeated(patients: Server) -> None:
    for url, text in [
        (patients.url(password="31337-wrong"), "cannot be reached, or does not let us in (OperationalError"),
        (patients.url(user="nobody31337"), "cannot be reached, or does not let us in (OperationalError"),
        (patients.url(database="none31337"), "cannot be reached, or does not let us in (OperationalError"),
        (f"postgresql+psycopg://postgres:{PASSWORD}@127.0.0.1:1/postgres", "cannot be reached"),
    ]:
        with pytest.raises(SourceError) as caught:
            from_sql(url)
        assert text in silent(caught.value)
    for query, code in [
        ("select '31337 years'::int as weight", "InvalidTextRepresentation, 22P02"),
        ("select none31337 as weight", "UndefinedColumn, 42703"),
        ("select weight from none31337", "UndefinedTable, 42P01"),
        ("select 31337 / (id - 3) as weight from patients", "DivisionByZero, 22012"),
    ]:
        with pytest.raises(SourceError) as caught:
            from_sql(patients.url(), query, [number("weight")])
        assert f"the query fails ({code})" in silent(caught.value)


def test_a_database_without_an_encoding(patients: Server) -> None:
    with psycopg.connect(patients.url().replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("create database old encoding 'SQL_ASCII' template template0")
    url, schema = patients.url(database="old"), [category("name", "Grüße", "x")]
    assert from_sql(url, "select 'Grüße' as name", schema).columns["name"].tolist() == [0]
    with pytest.raises(SourceError, match="the query fails") as caught:
        from_sql(url, "select '31337' || convert_from('\\x31333333ff', 'SQL_ASCII') as name", schema)
    silent(caught.value)


def test_a_user_sees_no_more_than_the_database_lets_it(patients: Server) -> None:
    url = patients.url("reader", "reader")
    assert from_sql(url, "select weight from patients", [number("weight", missing="drop")]).rows == 3
    with pytest.raises(SourceError, match="InsufficientPrivilege, 42501"):
        from_sql(url)


def test_a_query_is_streamed(patients: Server) -> None:
    """Twenty thousand rows of text take no more memory than the table that comes of them, and a few chunks."""
    query = "select k as n, repeat('x', 2500) as note, k % 2 as odd from generate_series(1, 20000) as k"
    source = parse_source({"kind": "sql", "url": patients.url(), "query": query})
    schema = [integer("n"), boolean("odd")]
    load(source, schema, Path("/"))  # what is imported is in memory now
    tracemalloc.start()
    table = load(source, schema, Path("/"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert table.rows == 20_000
    np.testing.assert_array_equal(table.columns["n"], np.arange(1, 20_001))
    assert peak < 20_000_000  # the notes alone are 50 MB


def test_a_connection_is_closed_when_rows_are_refused(patients: Server) -> None:
    with pytest.raises(DataError, match="are beyond"):
        from_sql(patients.url(), "select k as n from generate_series(1, 50000) as k", [integer("n", 0, 5)])
    with psycopg.connect(patients.url().replace("+psycopg", "")) as connection:
        count = connection.execute(
            "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
        ).fetchone()
    assert count == (0,)


# ---- where the url comes from -----------------------------------------------------------------------------------


def test_a_url_from_a_variable_or_a_file(sqlite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_DATABASE", f"sqlite:///{sqlite}")
    (tmp_path / "url").write_text(f"sqlite:///{sqlite}\n")
    for more in ({"url_env": "OUR_DATABASE"}, {"url_file": "url"}, {"url_file": str(tmp_path / "url")}):
        source = parse_source({"kind": "sql", "query": SELECT, **more})
        assert load(source, SCHEMA, tmp_path).rows == 3
        found = resolved(source, tmp_path)
        monkeypatch.delenv("OUR_DATABASE", raising=False)
        assert load(found, SCHEMA, Path("/nowhere")).rows == 3
        monkeypatch.setenv("OUR_DATABASE", f"sqlite:///{sqlite}")
    for more, text in [
        ({"url_env": "NOT_SET_AT_ALL"}, "the environment variable NOT_SET_AT_ALL is not set"),
        ({"url_file": "none"}, "url_file .* cannot be read"),
        ({"url_file": "../url"}, "leads out of"),
    ]:
        with pytest.raises(SourceError, match=text):
            load(parse_source({"kind": "sql", "query": SELECT, **more}), SCHEMA, tmp_path)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("31337", "its url is not one that SQLAlchemy understands"),
        ("nosuch://user:31337@host/db", "its url is not one that SQLAlchemy understands"),
        ("postgresql+nosuch://user:31337@host/db", "its url is not one that SQLAlchemy understands"),
        ("postgresql+asyncpg://user:31337@host/db", r"needs 'asyncpg': pip install 'sottovoce\[postgres\]'"),
        ("postgresql+psycopg://user:31337@host:port/db", "its url is not one that SQLAlchemy understands"),
    ],
)
def test_a_url_that_leads_nowhere(url: str, text: str) -> None:
    with pytest.raises(SourceError, match=text) as caught:
        from_sql(url)
    silent(caught.value)


def test_what_must_be_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("sqlalchemy", "sqlalchemy.exc", "pyarrow"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SourceError, match=r"needs 'sqlalchemy': pip install 'sottovoce\[node\]'"):
        list(read_sql("sqlite:///x", "select 1", {}, tmp_path))
    (tmp_path / "rows.parquet").write_bytes(b"")
    with pytest.raises(SourceError, match=r"needs pyarrow: pip install 'sottovoce\[node\]'"):
        load(parse_source({"kind": "parquet", "path": "rows.parquet"}), SCHEMA, tmp_path)
