"""Canonical JSON: one value, one sequence of bytes, for ever."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parties.governance.canonical import canonical, digest, parse, parse_canonical, separated
from parties.governance.errors import CanonicalError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5), max_leaves=20
)

# Frozen: every signature and every hash ever made rests on these.
VECTORS = [
    (None, b"null"),
    ({}, b"{}"),
    ((), b"[]"),
    ({"b": 1, "a": [True, False, None]}, b'{"a":[true,false,null],"b":1}'),
    ({"Z": 0, "a": 0, "\u00e4": 0, "\U0001f600": 0, "\uffff": 0}, None),
    ([0, -1, 2**63 - 1, -(2**63)], b"[0,-1,9223372036854775807,-9223372036854775808]"),
    ([0.0, -0.0, 1.0, 0.1, 1e22, 1e-7, 123456789.123, 5e-324, 1.7976931348623157e308], None),
    ('\u00fc\u20ac\U0001f600\x00\x1b\x7f\u2028"\\/', None),
]
FROZEN = {
    4: b'{"Z":0,"a":0,"\\u00e4":0,"\\uffff":0,"\\ud83d\\ude00":0}',
    6: b"[0.0,-0.0,1.0,0.1,1e+22,1e-07,123456789.123,5e-324,1.7976931348623157e+308]",
    7: b'"\\u00fc\\u20ac\\ud83d\\ude00\\u0000\\u001b\\u007f\\u2028\\"\\\\/"',
}


@pytest.mark.parametrize("place", range(len(VECTORS)))
def test_frozen_bytes(place: int) -> None:
    value, written = VECTORS[place]
    assert canonical(value) == (FROZEN[place] if written is None else written)


def test_frozen_digest() -> None:
    assert digest("a domain", b'{"a":1}') == "e2b795e4abbef21910eb42244cfcb05c926f1206c1d62f6b3f21de64953ff475"
    assert separated("a", b"b") == b"a\0b"


@given(VALUES)
def test_reading_gives_the_value_and_writing_the_bytes(value: Any) -> None:
    data = canonical(value)
    assert data.isascii()
    assert parse_canonical(data, limit=1 << 20) == value
    assert canonical(json.loads(data)) == data


@given(VALUES, st.data())
def test_any_other_bytes_are_another_value_or_refused(value: Any, data: st.DataObject) -> None:
    written = bytearray(canonical(value))
    place = data.draw(st.integers(0, len(written) - 1))
    written[place] ^= data.draw(st.integers(1, 255))
    try:
        read = parse_canonical(bytes(written), limit=1 << 20)
    except CanonicalError:
        return
    assert canonical(read) != canonical(value)


@given(st.dictionaries(TEXT, LEAVES, max_size=8))
def test_the_order_of_keys_does_not_matter(value: dict[str, Any]) -> None:
    assert canonical(dict(reversed(value.items()))) == canonical(value)


class Sly(str):
    """Text that could say something else each time."""


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (math.nan, "NaN or infinite"),
        ([math.inf], "NaN or infinite"),
        (2**63, "64 bits"),
        (-(2**63) - 1, "64 bits"),
        ("\ud800", "half a character"),
        ({"\udfff": 1}, "half a character"),
        ({1: 1}, "of type int"),
        (b"bytes", "of type bytes"),
        ({1, 2}, "of type set"),
        (1j, "of type complex"),
        (Sly("x"), "of type Sly"),
        (nested(40), "nested more than 32"),
        (nested(5000), "nested more than 32"),
    ],
)
def test_what_has_no_form_is_refused(value: Any, why: str) -> None:
    with pytest.raises(CanonicalError, match=why):
        canonical(value)


def test_a_list_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(CanonicalError, match="nested"):
        canonical(value)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"a":1,"a":1}', "twice"),
        (b'[{"a":1,"b":{"c":0,"c":0}}]', "twice"),
        (b"NaN", "NaN"),
        (b"-Infinity", "NaN"),
        (b"1e999", "NaN or infinite"),
        (b"9" * 5000, "not JSON"),
        (b"99999999999999999999", "64 bits"),
        (b"[" * 100_000, "not JSON|nested"),
        (b"[" * 40 + b"]" * 40, "nested"),
        (b'{"a":' * 50_000, "not JSON|nested"),
        (b"\xff", "not JSON"),
        (b"\xef\xbb\xbf1", "not JSON"),
        (b'"\\ud800"', "half a character"),
        (b"1 2", "not JSON"),
        (b" " * 1001, "limit of 1000"),
    ],
)
def test_bad_json_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(CanonicalError, match=why):
        parse(data, limit=1000 if why.startswith("limit") else 1 << 20)


@pytest.mark.parametrize("data", [b"1 ", b'{"b":1,"a":1}', b'"\xc3\xbc"', b"1.00", b'"\\u00FC"', b"1E5", b"[1, 2]"])
def test_another_way_to_write_is_refused(data: bytes) -> None:
    parse(data, limit=100)
    with pytest.raises(CanonicalError, match="canonical form"):
        parse_canonical(data, limit=100)


@pytest.mark.parametrize("domain", ["", "a\0b", "\u00e4", "a\nb"])
def test_a_domain_cannot_end_early(domain: str) -> None:
    with pytest.raises(CanonicalError, match="printable ASCII"):
        digest(domain, b"")


def test_a_domain_separates() -> None:
    assert digest("a", b"x") != digest("b", b"x")
    assert digest("a", b"x") != digest("ax", b"")
