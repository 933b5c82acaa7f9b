"""What needs no message: every operator of a share, against exact arithmetic on Python's integers."""

import math
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc import F61, F127, GF, DataError, Field, RangeError, Share, concatenate, stack
from tests.mpc.support import exact

PARTIES = 3
FIELDS = [F127, F61, GF(10007)]


def split(integers: Any, magnitude: int, field: Field = F127, scale: int = 0) -> list[Share]:
    """All parties' shares of encoded integers; the summands are made up, but not special."""
    values = field.encode(exact(integers))
    rng = np.random.default_rng(values.size)
    first = field.encode(rng.integers(0, min(field.half, 1 << 60), size=values.shape))
    second = field.neg(field.mul(first, first))
    last = field.sub(field.sub(values, first), second)
    summands = [first, second, last]
    return [Share(field, v, scale, magnitude, leads=rank == 0) for rank, v in enumerate(summands)]


def joined(shares: list[Share]) -> np.ndarray:
    """The encoded integers, exact."""
    field = shares[0].field
    assert len({(s.scale, s.magnitude, s.shape) for s in shares}) == 1
    total = shares[0].values
    for share in shares[1:]:
        total = field.add(total, share.values)
    integers = exact(field.decode(total))
    assert integers.shape == shares[0].shape
    assert all(abs(v) <= shares[0].magnitude for v in integers.flat), "beyond the declared bound"
    return integers


def check(operation: Callable[..., Share], expected: Any, *operands: list[Share], scale: int = 0) -> None:
    results = [operation(*held) for held in zip(*operands, strict=True)]
    assert results[0].scale == scale
    np.testing.assert_array_equal(joined(results), exact(expected))


X = np.array([[0, 1, -1], [7, -(2**40), 2**40]])
Y = np.array([[3, -3, 0], [2**39, 5, -6]])


@pytest.fixture
def x() -> list[Share]:
    return split(X, 2**40)


@pytest.fixture
def y() -> list[Share]:
    return split(Y, 2**39)


@pytest.mark.parametrize(
    "public",
    [
        5,
        -5,
        0,
        np.int64(-7),
        np.uint8(200),
        np.uint64(2**64 - 1),
        2**100,
        -(2**100),
        np.array(3),
        np.array([1, -2, 3]),
        np.array([[-128], [127]], np.int8),
        np.array([0, 200, 255], np.uint8),
        np.array([2**63 - 1, -(2**63), 0]),
        np.array([2**64 - 1, 0, 1], np.uint64),
        np.array([2**90, -1, 0], dtype=object),
        np.array([np.int8(-128), np.int64(2**62), 5], dtype=object),
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    "operation",
    [operator.add, operator.sub, operator.mul, lambda x, k: k + x, lambda x, k: k - x, lambda x, k: k * x],
    ids=["x+k", "x-k", "x*k", "k+x", "k-x", "k*x"],
)
def test_public_integers(x: list[Share], operation: Callable[..., Any], public: Any) -> None:
    """Of every type and size: numpy's own negation and products would wrap around."""
    values = exact(X)
    if max(abs(k) for k in exact(public).flat) > 2**80:
        values, x = exact(np.sign(X)), split(np.sign(X), 1)
    check(lambda s: operation(s, public), operation(values, exact(public)), x)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_the_ends_of_every_integer_type(dtype: Any) -> None:
    ends = np.array([np.iinfo(dtype).min, np.iinfo(dtype).max, 0], dtype)
    for scale in (0, 24):
        values = exact([5, 5, -5])
        x, lifted = split(values, 5, scale=scale), exact(ends) * 2**scale
        check(lambda s: s - ends, values - lifted, x, scale=scale)
        check(lambda s: ends - s, lifted - values, x, scale=scale)
        check(lambda s: s + ends[0], values + lifted[0], x, scale=scale)
        check(lambda s: s * ends, values * exact(ends), x, scale=scale)


@pytest.mark.parametrize(
    "public",
    [
        0.5,
        -1e-9,
        0.0,
        np.float32(0.1),
        np.float64(-7.25),
        1e6,
        np.array([0.1, -0.2, 2.5]),
        np.array([[1e-30], [3.0]]),
        np.array([1, 2, 3], np.float16),
    ],
    ids=repr,
)
def test_public_floats(public: Any) -> None:
    """As factors they take 24 fraction bits, rounded to even; as summands the share's own."""
    values = np.round(X / 1024).astype(np.int64)
    x = split(values, 2**30, scale=24)
    factors = np.rint(np.asarray(public, np.float64) * 2**24).astype(np.int64)
    check(lambda s: s * public, exact(values) * exact(factors), x, scale=48)
    check(lambda s: public * s, exact(values) * exact(factors), x, scale=48)
    check(lambda s: s + public, exact(values) + exact(factors), x, scale=24)
    check(lambda s: s - public, exact(values) - exact(factors), x, scale=24)
    check(lambda s: public - s, exact(factors) - exact(values), x, scale=24)
    integers = split(values, 2**30)
    check(lambda s: s * public, exact(values) * exact(factors), integers, scale=24)
    check(lambda s: s.lifted(24) + public, exact(values) * 2**24 + exact(factors), integers, scale=24)


def test_integer_shares_take_whole_floats_only(x: list[Share]) -> None:
    check(lambda s: s + np.array([1.0, -2.0, 3.0]), X + np.array([1, -2, 3]), x)
    with pytest.raises(DataError, match="lift"):
        x[0] + 0.5


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_public_numbers_are_finite(x: list[Share], bad: float) -> None:
    for operation in (operator.mul, operator.add, operator.sub):
        with pytest.raises(ValueError, match=r"NaN|infinite"):
            operation(x[0].scaled_down(24), np.array([1.0, bad, 2.0]))
    with pytest.raises(ValueError, match=r"NaN|infinite"):
        x[0] @ np.array([1.0, bad, 2.0])


@pytest.mark.parametrize("public", [10**400, -(10**400), 1e305, np.array([1.0, -1e305, 0.0]), 2**127, 1e30])
def test_enormous_factors_are_out_of_range(x: list[Share], public: Any) -> None:
    with pytest.raises(RangeError):
        x[0] * public
    if np.ndim(public):
        with pytest.raises(RangeError):
            x[0] @ public


@pytest.mark.parametrize("public", ["5", None, 1j, np.array(["1", "2", "3"]), np.array([None, 1, 2], dtype=object)])
def test_public_numbers_are_numbers(x: list[Share], public: Any) -> None:
    for operation in (operator.add, operator.sub, operator.mul):
        with pytest.raises(TypeError):
            operation(x[0], public)


def test_booleans_count(x: list[Share]) -> None:
    check(lambda s: s * np.array([True, False, True]), X * np.array([1, 0, 1]), x)
    check(lambda s: s * True, X, x)


def test_sums_of_shares(x: list[Share], y: list[Share]) -> None:
    check(operator.add, X + Y, x, y)
    check(operator.sub, X - Y, x, y)
    check(operator.neg, -X, x)
    check(lambda s, t: s + t[0], X + Y[0], x, y)
    check(lambda s, t: s - t - s + t, 0 * X, x, y)
    lifted = split(Y, 2**39, scale=10)
    check(operator.add, X * 1024 + Y, x, lifted, scale=10)
    check(operator.sub, Y - X * 1024, lifted, x, scale=10)


@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 1), (-1,), (1, 0)])
def test_sum(x: list[Share], axis: Any) -> None:
    check(lambda s: s.sum(axis), exact(X).sum(axis), x)
    check(lambda s: s.sum(axis=axis), exact(X).sum(axis), x)


def test_sums_over_nothing() -> None:
    for shape, axis in [((0,), None), ((0, 3), 0), ((3, 0), 0), ((3, 0), 1), ((), None)]:
        x = split(np.zeros(shape, int), 5)
        results = [s.sum(axis) for s in x]
        np.testing.assert_array_equal(joined(results), exact(np.zeros(shape).sum(axis)))


@pytest.mark.parametrize(
    "key",
    [
        0,
        -1,
        slice(None),
        slice(0, 1),
        slice(None, None, -1),
        slice(1, 1),
        (0, 2),
        (Ellipsis, 1),
        (slice(None), [2, 0]),
        np.array([1, 0, 1]),
        X > 0,
        (None, 1),
        np.int64(1),
    ],
    ids=repr,
)
def test_indexing(x: list[Share], key: Any) -> None:
    check(lambda s: s[key], X[key], x)


def test_shapes(x: list[Share]) -> None:
    share = x[0]
    assert (share.shape, share.ndim, share.size, len(share)) == ((2, 3), 2, 6, 2)
    check(lambda s: s.reshape(3, 2), X.reshape(3, 2), x)
    check(lambda s: s.reshape((3, -1)), X.reshape(3, 2), x)
    check(lambda s: s.reshape(-1), X.reshape(-1), x)
    check(lambda s: s.T, X.T, x)
    check(lambda s: s[0].T, X[0], x)
    check(lambda s: s.reshape(1, 2, 3).T, X.reshape(1, 2, 3).swapaxes(1, 2), x)
    check(lambda s: s[1].broadcast_to((4, 3)), np.broadcast_to(X[1], (4, 3)), x)
    check(lambda s: list(s)[1], X[1], x)
    for wrong in [(4, 2), (7,), (-1, -1)]:
        with pytest.raises(ValueError, match=r"reshape|unknown dimension"):
            share.reshape(wrong)
    scalar = share[0, 0]
    assert scalar.shape == ()
    with pytest.raises(TypeError):
        len(scalar)
    with pytest.raises(IndexError):
        share[2]


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_joining(x: list[Share], y: list[Share], axis: int) -> None:
    lifted = split(Y, 2**39, scale=3)
    for field_of in (x, y):
        assert joined([concatenate([s, t], axis) for s, t in zip(x, field_of, strict=True)]).size == 12
    check(lambda s, t: concatenate([s, t], axis), np.concatenate([X, Y], axis), x, y)
    check(lambda s, t: stack([s, t], axis), np.stack([X, Y], axis), x, y)
    check(lambda s, t: concatenate([s, t], axis), np.concatenate([8 * X, Y], axis), x, lifted, scale=3)
    with pytest.raises(ValueError, match="nothing"):
        concatenate([])
    with pytest.raises(TypeError):
        stack([x[0], split(X, 2**40, F61)[0]])


@pytest.mark.parametrize(
    "matrix",
    [
        np.array([[1, -2], [3, 0], [2**40, 1]]),
        np.array([1, -1, 5]),
        np.array([[0.5], [-0.25], [1e-3]]),
        np.ones((4, 3, 2), int),
        np.array([[2**70], [-1], [0]], dtype=object),
        np.zeros((3, 0), int),
        np.array([[250], [250], [250]], np.uint8),
    ],
    ids=["2-D", "1-D", "floats", "stack", "objects", "no columns", "uint8"],
)
def test_public_matrices(x: list[Share], matrix: np.ndarray) -> None:
    floats = matrix.dtype.kind == "f"
    integers = exact(np.rint(matrix * 2**24) if floats else matrix)
    expected = np.matmul(exact(X), integers) if matrix.size else np.zeros((2, 0))
    check(lambda s: s @ matrix, expected, x, scale=24 if floats else 0)
    if matrix.ndim < 3:
        check(lambda s: matrix.T @ s.T, expected.T, x, scale=24 if floats else 0)


def test_matrices_that_do_not_fit(x: list[Share]) -> None:
    with pytest.raises(ValueError, match=r"fit|mismatch|core dimension"):
        x[0] @ np.ones((2, 2), int)
    with pytest.raises(RangeError, match="matrix"):
        x[0] @ np.full((3, 1), 2**85, dtype=object)


def test_scales(x: list[Share]) -> None:
    check(lambda s: s.lifted(20), exact(X) * 2**20, x, scale=20)
    assert x[0].lifted(0) is x[0]
    down = x[0].scaled_down(20)
    assert (down.scale, down.magnitude, down.bound) == (20, 2**40, 2.0**20)
    check(lambda s: s.scaled_down(20), X, x, scale=20)
    with pytest.raises(ValueError, match="truncate"):
        x[0].lifted(20).lifted(10)
    with pytest.raises(ValueError, match="bits"):
        x[0].scaled_down(-1)
    with pytest.raises(RangeError, match="truncate"):
        x[0].lifted(86)


@pytest.mark.parametrize("bound", [2.0**20, 2**20, np.int64(2**20), np.uint8(16), np.float32(0.5), 1 / 3, 0, 10**400])
def test_bounds_that_are_promised(x: list[Share], bound: Any) -> None:
    held = x[0].scaled_down(4)
    tightened = held.bounded_by(bound)
    stated = Fraction(int(bound)) if isinstance(bound, int | np.integer) else Fraction(float(bound))
    assert tightened.magnitude == min(held.magnitude, math.ceil(stated * 16))
    assert held.bounded_by(1e300).magnitude == held.magnitude


@pytest.mark.parametrize("bound", [-1, math.nan, math.inf, -0.5])
def test_bounds_are_finite(x: list[Share], bound: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        x[0].bounded_by(bound)


def test_what_a_share_refuses(x: list[Share]) -> None:
    with pytest.raises(TypeError, match="multiply"):
        x[0] * x[0]
    with pytest.raises(TypeError, match="matmul"):
        x[0] @ x[0]
    with pytest.raises(TypeError, match="truth"):
        bool(x[0])
    with pytest.raises(TypeError, match="open_"):
        np.asarray(x[0])
    with pytest.raises(TypeError):
        x[0] + split(X, 2**40, F61)[0]
    with pytest.raises(TypeError, match="constant"):
        Share(F127, F127.zeros(3), 0, 1) + 1
    with pytest.raises(ValueError, match="mask"):
        Share(F127, None, 0, 1)


def test_repr_shows_no_value(x: list[Share]) -> None:
    assert repr(x[0]) == "Share(F127, shape=(2, 3), scale=0)"


@pytest.mark.parametrize("field", FIELDS, ids=repr)
def test_no_bound_beyond_the_field(field: Field) -> None:
    Share(field, field.zeros(1), 0, field.half)
    with pytest.raises(RangeError):
        Share(field, field.zeros(1), 0, field.half + 1)
    x = split([0, 1, -1], 1, field)
    for at_most, beyond in [
        (lambda s: s * field.half, lambda s: s * (field.half + 1)),
        (lambda s: s + (field.half - 1), lambda s: s + field.half),
        (lambda s: s - (field.half - 1), lambda s: s - field.half),
        (lambda s: s * (field.half // 3), lambda s: (s * (field.half // 3 + 1)).sum()),
    ]:
        joined([at_most(s) for s in x])
        with pytest.raises(RangeError):
            beyond(x[0])


# ---- no chain of operations gives a wrong number ----------------------------------------------------------------

EDGES = [0, 1, -1, 2, 3, 255, 2**31, 2**62, 2**63 - 1, 2**63, 2**64, 2**100, 2**126, 1 << 200]
INTEGERS = (
    st.sampled_from([*EDGES, *(-e for e in EDGES)]) | st.integers(-(2**20), 2**20) | st.integers(-(2**130), 2**130)
)
FLOATS = st.sampled_from([0.0, 0.5, -0.5, 1e-8, 2.0**-25, 3 * 2.0**-25, 1e30, -1e30]) | st.floats(-1e6, 1e6)
NUMPY = st.sampled_from([np.uint8(255), np.int8(-128), np.uint64(2**64 - 1), np.int64(-(2**63)), np.float32(0.1)])
STEPS = st.lists(
    st.tuples(st.sampled_from(["+", "-", "r-", "*"]), INTEGERS | FLOATS | NUMPY)
    | st.tuples(st.sampled_from(["neg", "sum", "double", "self", "lift", "down", "@"]), st.integers(0, 30)),
    max_size=12,
)


def after(values: np.ndarray, scale: int, name: str, k: Any) -> tuple[np.ndarray, int]:
    """What the operation does to encoded integers, exactly."""
    floating = isinstance(k, float | np.floating)
    if name in ("+", "-", "r-"):
        public = round(Fraction(float(k)) * 2**scale) if floating else int(k) << scale
        return {"+": values + public, "-": values - public, "r-": public - values}[name], scale
    if name == "*":
        return (values * round(Fraction(float(k)) * 2**24), scale + 24) if floating else (values * int(k), scale)
    if name == "neg":
        return -values, scale
    if name == "sum":
        return np.array([values.sum(), *values[1:]], dtype=object), scale
    if name == "double":
        return values + values, scale
    if name == "self":
        return values - values * 3, scale
    if name == "lift":
        return values * 2**k, scale + k
    if name == "down":
        return values, scale + k
    matrix = np.outer(np.arange(3), np.arange(3)) - k
    return exact(values @ exact(matrix)), scale


def apply(share: Share, name: str, k: Any) -> Share:
    if name in ("+", "-", "r-", "*"):
        results: dict[str, Callable[[], Share]] = {
            "+": lambda: share + k,
            "-": lambda: share - k,
            "r-": lambda: k - share,
            "*": lambda: share * k,
        }
        return results[name]()
    if name == "neg":
        return -share
    if name == "sum":
        return concatenate([share.sum().reshape(1), share[1:]])
    if name == "double":
        return share + share
    if name == "self":
        return share - share * 3
    if name == "lift":
        return share.lifted(share.scale + k)
    if name == "down":
        return share.scaled_down(k)
    product: Share = share @ (np.outer(np.arange(3), np.arange(3)) - k)
    return product


@pytest.mark.parametrize("field", FIELDS, ids=repr)
@given(start=st.lists(INTEGERS, min_size=3, max_size=3), steps=STEPS)
def test_chains_are_right_or_out_of_range(field: Field, start: list[int], steps: list[tuple[str, Any]]) -> None:
    values = exact([max(-field.half, min(field.half, v)) for v in start])
    shares = split(values, max(abs(v) for v in values), field)
    scale = 0
    for name, k in steps:
        try:
            shares = [apply(share, name, k) for share in shares]
        except (RangeError, DataError):
            return  # an integer share refuses fractions; a bound that does not fit is refused
        values, scale = after(values, scale, name, k)
        assert shares[0].scale == scale
        np.testing.assert_array_equal(joined(shares), values)
