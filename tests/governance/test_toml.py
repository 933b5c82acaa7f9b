"""TOML from others: bounded in size, depth, time and kind, and refused in one line."""

import datetime
import time
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parties.governance.checks import read_time, write_time
from parties.governance.errors import GovernanceError, StudyError
from parties.governance.toml import read_toml, write_toml

LIMIT = 256 * 1024


def read(text: str | bytes) -> dict[str, Any]:
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return read_toml(data, limit=LIMIT, what="study x.toml", error=StudyError)


def nested_tables(depth: int) -> str:
    return "[" + ".".join(f"k{k}" for k in range(depth)) + "]\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x" * (LIMIT + 1), "larger than 262144 bytes"),
        (b"\xff\xfe", "not UTF-8"),
        ("\ufeffa = 1", "not TOML"),
        ("a = " + "[" * 100_000, "nested too deeply"),
        ("a = " + "[" * 500 + "]" * 500, "nested"),
        ("a = " + "[" * 9 + "]" * 9, "nested more than 8 deep"),
        ("a = " + "{b=" * 50_000, "nested too deeply"),
        (nested_tables(100), "nested more than 8"),
        (nested_tables(9), "nested more than 8"),
        (nested_tables(10_000), "more than 128 dots"),
        (".".join("a" * 100_000) + " = 1", "more than 128 dots"),
        ("x = {" + ", ".join(".".join(f"a{k}b" for _ in range(400)) + " = 1" for k in range(60)) + "}", "128 dots"),
        ("\n".join("[" + ".".join(["a"] * 9) + f".k{k}]" for k in range(3)), "nested more than 8"),
        ("a = [" + "1," * 100_000 + "]", "more than 40000 values"),
        ("\n".join("[[a]]\nb=1" for _ in range(22_000)), "more than 40000 values"),
        ("a = " + "9" * 10_000, "number or date"),
        ("a = 0x" + "f" * 10_000, "integer of more than 64 bits"),
        ("a = 9223372036854775808", "integer of more than 64 bits"),
        ("a = nan", "a is NaN or infinite"),
        ("a = [-inf]", "a is NaN or infinite"),
        ("a = 1e999", "a is NaN or infinite"),
        ("k" * 65 + " = 1", "longer than 64"),
        ('"\\u001b[2J" = 1', "not printable"),
        ('"a\\u202eb" = 1', "not printable"),
        ('a = "' + "x" * 20_000 + '"', "a is longer than 16384"),
        ("a = 2030-12-31", "takes a date, a time and an offset"),
        ("a = 18:00:00", "takes a date, a time and an offset"),
        ("a = 2030-12-31T18:00:00", "takes a date, a time and an offset"),
        ("a = 2030-02-30T18:00:00Z", "not TOML|number or date"),
        ("a = 0001-01-01T00:00:00+14:00", "between the years 2000 and 2200"),
        ("a = 9999-12-31T23:59:59-14:00", "between the years 2000 and 2200"),
        ("a = 1\na = 2", "not TOML"),
        ("[a]\n[a]", "not TOML"),
        ("a = 1\n[a]", "not TOML"),
        ("a = \x1b", "not TOML"),
        ('a = "\x1b"', "not TOML"),
        ('a = "\\ud800"', "not TOML"),
        ("a = 'x\ud800'", "not UTF-8"),
        ("a = \x00", "not TOML"),
        ("= 1", "not TOML: see line 1"),
        ("a = 1\nb", "not TOML: see "),
    ],
)
def test_bombs_and_nonsense_are_refused_at_once(text: str | bytes, why: str) -> None:
    begin = time.process_time()
    with pytest.raises(StudyError, match=f"study x.toml.*({why})") as error:
        read(text)
    assert time.process_time() - begin < 2.0  # of computing; 0.4 s for the slowest
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300


def test_what_is_allowed_is_quick() -> None:
    """The dearest file within the bounds: dots in every line, up to the limit."""
    line = ".".join(["a"] * 8)
    text = "\n".join(f"{line}{k} = 1" for k in range(10_000))[:LIMIT].rpartition("\n")[0]
    begin = time.process_time()
    read(text)
    assert time.process_time() - begin < 5.0


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        read(data)
    except StudyError as error:
        message = str(error)
    else:
        return
    assert message.isprintable()


KEYS = st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=50)
CELLS = TEXTS | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.lists(TEXTS, max_size=4)
TABLES = st.dictionaries(KEYS, CELLS, max_size=5)


@given(TABLES, st.lists(TABLES, max_size=4))
def test_what_is_written_is_read(head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    head.pop("rows", None)
    text = write_toml(head, {"rows": rows})
    expected = {**head, "rows": rows} if rows else head
    assert tomllib.loads(text) == expected
    assert read(text) == expected


def test_nothing_is_left_out_and_nothing_else_written() -> None:
    assert write_toml({"a": None, "b": 'x"\\\x1b'}) == 'b = "x\\"\\\\\\U0000001b"\n'
    assert tomllib.loads(write_toml({"b": 'x"\\\x1b\n\x7f\u202e'}))["b"] == 'x"\\\x1b\n\x7f\u202e'
    with pytest.raises(TypeError, match="float"):
        write_toml({"a": 1.5})


def test_zeros_are_alike() -> None:
    assert str(read("a = -0.0")["a"]) == "0.0"


@pytest.mark.parametrize(
    ("written", "utc"),
    [
        ("2030-12-31T18:00:00+01:00", "2030-12-31T17:00:00Z"),
        ("2030-12-31 18:00:00Z", "2030-12-31T18:00:00Z"),
        ("2030-01-01T00:30:00+14:00", "2029-12-31T10:30:00Z"),
        ("2030-12-31T18:00:00.999Z", "2030-12-31T18:00:00Z"),
    ],
)
def test_times_become_utc(written: str, utc: str) -> None:
    assert read(f"a = {written}") == {"a": utc}


@given(st.datetimes(datetime.datetime(2001, 1, 2), datetime.datetime(2199, 12, 30), timezones=st.timezones()))
def test_times_are_written_and_read(moment: datetime.datetime) -> None:
    text = write_time(moment)
    assert abs(read_time(text) - moment) < datetime.timedelta(seconds=1)
    assert write_time(read_time(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2030-12-31",
        "2030-12-31T18:00:00",
        "2030-12-31T18:00:00+00:00",
        "2030-13-01T00:00:00Z",
        "2030-12-31T24:00:00Z",
        "2030-12-31T18:00:60Z",
        "2030-12-31T18:00:00Z\n",
        "\u0662\u0660\u0663\u0660-12-31T18:00:00Z",
        "1999-12-31T18:00:00Z",
    ],
)
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_time(text)


def test_a_moment_without_a_zone_is_none() -> None:
    with pytest.raises(ValueError, match="offset"):
        write_time(datetime.datetime(2030, 1, 1))


def test_errors_are_of_the_class_that_was_asked_for() -> None:
    with pytest.raises(GovernanceError) as error:
        read_toml(b"=", limit=10, what="x", error=GovernanceError)
    assert type(error.value) is GovernanceError


def test_the_dearest_keys_are_bounded() -> None:
    """Keys within the dots of a line, below a header: each costs the square of its parts."""
    header = "[" + ".".join("a" * 6)
    text = "\n".join(f"{header}.k{k}]\n" + ".".join(["a"] * 120) + f".k{k} = 1" for k in range(300))
    begin = time.process_time()
    with pytest.raises(StudyError, match="nested more than 8"):
        read(text)
    assert time.process_time() - begin < 5.0  # 0.2 s
