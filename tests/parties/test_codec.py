"""The codec: what goes in comes out, with its type; nothing else goes in, and garbage stays outside."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mpc.errors import SottovoceError
from parties.codec import decode, encode
from parties.errors import CodecError, ReturnTypeError


class Colour(enum.Enum):
    RED = "red"
    BLUE = object()  # found by its name: the value need not travel


class Rank(enum.IntEnum):
    LOW = 1


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Fit:
    coef: np.ndarray[Any, Any]
    names: tuple[str, ...]
    parent: Fit | None = None

    def __post_init__(self) -> None:
        if len(self.coef) != len(self.names):
            raise ValueError("not as many names as coefficients")


@dataclasses.dataclass
class Loose:
    count: int
    made: list[str] = dataclasses.field(default_factory=list, init=False)

    class Inner:
        """Not a dataclass."""


def same(a: Any, b: Any) -> bool:
    """Equal in type and value, NaN being equal to itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        return a.tobytes() == b.tobytes() if not a.dtype.hasobject else same(a.tolist(), b.tolist())
    if isinstance(a, np.generic):
        return bool(a.dtype == b.dtype and a.tobytes() == b.tobytes())
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, float) and math.isnan(a):
        return math.isnan(b)
    return bool(a == b)


def as_object_array(items: list[Any]) -> np.ndarray[Any, Any]:
    array = np.empty(len(items), dtype=object)
    for place, item in enumerate(items):
        array[place] = item
    return array


KEYS = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.dates()
PLAIN = (
    KEYS
    | st.floats()
    | st.complex_numbers(allow_nan=False)
    | st.binary().map(bytearray)
    | st.sampled_from([Colour.RED, Colour.BLUE, Rank.LOW, Rights.READ, Rights.READ | Rights.WRITE, Rights(0)])
    | st.datetimes(timezones=st.just(datetime.UTC) | st.none())
    | st.times()
    | st.timedeltas()
    | st.sets(KEYS)
    | st.frozensets(KEYS)
    | hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=4))
    | hnp.arrays(np.dtype([("lo", "<u8"), ("hi", "<u8")]), 3)
    | hnp.arrays(hnp.scalar_dtypes(), ()).map(lambda array: array[()])
)
VALUES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(KEYS, inner)
        | st.lists(inner).map(as_object_array)
        | st.builds(lambda a: Fit(np.ones(1), ("x",), a), inner)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_a_value_survives(value: Any) -> None:
    assert same(decode(encode(value)), value)


@given(st.integers(0, 300), st.sampled_from([-1, 0, 1]), st.sampled_from([-1, 1]))
def test_integers_of_any_size(bits: int, off: int, sign: int) -> None:
    value = sign * (2**bits + off)
    assert decode(encode(value)) == value


@given(st.binary(max_size=60))
def test_garbage_is_refused(data: bytes) -> None:
    try:
        decode(data)
    except CodecError:
        pass


@given(VALUES, st.data())
def test_a_damaged_value_is_refused_or_another_value(value: Any, data: st.DataObject) -> None:
    good = encode(value)
    place = data.draw(st.integers(0, len(good) - 1))
    bad = good[:place] + bytes([data.draw(st.integers(0, 255))]) + good[place + 1 :]
    for damaged in (bad, good[:place], good + b"N"):
        try:
            decode(damaged)
        except CodecError:
            pass


@given(hnp.arrays(np.float64, (3, 4)))
def test_arrays_in_any_order_of_memory_can_be_written_to(array: np.ndarray[Any, Any]) -> None:
    for view in (array.T, array[::2], array[:, ::-1], np.asfortranarray(array)):
        back = decode(encode(view))
        assert same(back, np.ascontiguousarray(view))
        back[0] = 1.0


def test_a_dataclass_is_restored_without_its_init() -> None:
    fit = Fit(np.arange(2.0), ("a", "b"), Fit(np.ones(1), ("c",)))
    assert same(decode(encode(fit)), fit)
    object.__setattr__(fit, "names", ())  # which __post_init__ would refuse
    assert decode(encode(fit)).names == ()
    loose = Loose(3)
    loose.made.append("x")
    assert decode(encode(loose)) == loose


def local_class() -> Any:
    @dataclasses.dataclass
    class Local:
        x: int

    return Local(1)


class Odd(list):  # type: ignore[type-arg]
    pass


itself: list[Any] = []
itself.append(itself)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (object(), "builtins.object"),
        (lambda: 0, "builtins.function"),
        ([1, {"a": Loose.Inner()}], "Loose.Inner"),
        (local_class(), "Local.*defined inside a function"),
        (Odd(), "Odd"),
        (Loose, "builtins.type"),
        (itself, "holds itself"),
        (np.array([object()]), "builtins.object"),
        (np.ma.masked_array([1]), "MaskedArray"),
        (np.zeros(1, {"names": ["a"], "formats": ["u1"], "offsets": [3], "itemsize": 8}), "structured"),
        (ValueError("4711"), "builtins.ValueError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_given_back_is_named(value: Any, says: str) -> None:
    with pytest.raises(ReturnTypeError, match=says) as caught:
        encode(value)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, SottovoceError)
    assert "4711" not in str(caught.value)


def name(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"?",
        b"N" + b"N",
        b"l" + b"\xff" * 9 + b"\x01",  # a list of 2^63 items
        b"s" + b"\xff" * 20,
        b"A" + b"s" + name("|O") + b"\x01" + b"\xff\xff\xff\xff\x07",  # as many objects
        b"A" + b"s" + name("<f8") + b"\x02\x02\x03" + b"\x08" + bytes(8),  # 6 numbers in 8 bytes
        b"A" + b"s" + name("what") + b"\x00\x00",
        b"C" + name("os") + name("system") + b"\x00",
        b"C" + name("builtins") + name("int") + b"\x00",
        b"C" + name("no_such_module_here") + name("X") + b"\x00",
        b"C" + name(__name__) + name("Loose") + b"\x00",
        b"C" + name(__name__) + name("Loose.Inner") + b"\x00",
        b"E" + name(__name__) + name("Colour") + name("GREEN"),
        b"E" + name("builtins") + name("dict") + name("keys"),
        b"W" + name(__name__) + name("Rights") + b"\x01\x40",
        b"p" + b"N",
        b"l\x01" * 200 + b"N",
        b"e\x01l\x00",
    ],
)
def test_hand_made_nonsense_is_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        decode(data)


def test_pandas() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {
            "n": [1, 2],
            "x": [0.5, np.nan],
            "text": ["a", None],
            "group": pd.Categorical(["u", "v"], categories=["v", "u", "w"], ordered=True),
            "when": pd.to_datetime(["2020-01-01", None]),
            "there": pd.to_datetime(["2020-01-01", None]).tz_localize("Europe/Berlin"),
            "maybe": pd.array([1, None], dtype="Int64"),
            "yes": pd.array([True, None], dtype="boolean"),
            "took": pd.to_timedelta([1, 2], unit="s"),
            "things": [[1], None],
        }
    )
    twice = pd.DataFrame(np.eye(2), columns=["x", "x"])
    for table in (frame, frame.iloc[:0], frame[[]], frame.set_index(["n", "text"]), frame.set_index("group"), twice):
        pd.testing.assert_frame_equal(decode(encode(table)), table)
    for column in frame:
        pd.testing.assert_series_equal(decode(encode(frame[column])), frame[column])
    pd.testing.assert_index_equal(decode(encode(frame.index)), frame.index)
    with pytest.raises(ReturnTypeError, match="period"):
        encode(pd.Series(pd.period_range("2020", periods=2, freq="D")))
    with pytest.raises(ReturnTypeError, match="Timestamp"):
        encode(pd.Timestamp("2020"))


def test_a_damaged_name_of_a_numpy_type_is_refused() -> None:
    """numpy parses it as if it were Python, and answers with a SyntaxError."""
    damaged = encode(np.zeros(2)).replace(b"<f8", b",,,")
    with pytest.raises(CodecError):
        decode(damaged)
