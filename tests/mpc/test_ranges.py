"""No silently wrong number: every operation is right or raises RangeError, and then nothing was sent."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc import (
    F61,
    F127,
    GF,
    DataError,
    Field,
    Party,
    PeerError,
    RangeError,
    Share,
    concatenate,
    is_negative,
    less_than,
    mask,
    matmul,
    multiply,
    open_,
    products,
    sigmoid,
    stack,
    truncate,
    truncate_all,
)
from tests.mpc.support import exact, run

# name, what to do with a share whose bound is the largest that the field holds (and with one of half the bits)
TOO_LARGE: dict[str, Any] = {
    "multiply": lambda party, x, r: multiply(party, x, r),
    "multiply by itself": lambda party, x, r: multiply(party, x, x),
    "matmul": lambda party, x, r: matmul(party, x, r.T),
    "matmul of roots": lambda party, x, r: matmul(party, r, r.T),
    "products": lambda party, x, r: products(party, "both", [(r, r * 0, "multiply"), (x, r, "multiply")]),
    "truncate": lambda party, x, r: truncate(party, x.scaled_down(30)),
    "truncate far": lambda party, x, r: truncate(party, r.scaled_down(24 + r.field.bits)),
    "truncate one of two": lambda party, x, r: truncate_all(party, [(r * 0).scaled_down(30), x.scaled_down(30)]),
    "truncate and lift": lambda party, x, r: truncate_all(party, [(r * 0).scaled_down(30), x]),
    "sigmoid beyond its limit": lambda party, x, r: sigmoid(party, r),
    "sigmoid without room": lambda party, x, r: sigmoid(party, x, allow_beyond=True),
    "sigmoid of a product": lambda party, x, r: sigmoid(party, x.scaled_down(120), allow_beyond=True),
    "is_negative": lambda party, x, r: is_negative(party, x),
    "less_than": lambda party, x, r: less_than(party, x, r),
    "less_than a number": lambda party, x, r: less_than(party, r, 10**30),
    "open_": lambda party, x, r: open_(party, r, r.scaled_down(127)),
    "open_ to some": lambda party, x, r: open_(party, r.scaled_down(127), to=[0]),
}


@pytest.mark.parametrize("field", [F127, F61, GF(2_147_483_629)], ids=repr)
@pytest.mark.parametrize("name", TOO_LARGE)
@pytest.mark.parametrize("preprocessing", ["dealer", "prss"])
def test_out_of_range_is_told_before_anything_is_sent(name: str, field: Field, preprocessing: str) -> None:
    """Also where a dealer would be asked, and where other operands of the same round would fit."""

    async def program(party: Party, _: Any) -> None:
        x = Share(field, field.zeros((2, 2)), 0, field.half, leads=party.rank == 0)
        root = Share(field, field.zeros((2, 2)), 0, 1 << (field.bits // 2), leads=party.rank == 0)
        await TOO_LARGE[name](party, x, root)

    done = run(program, preprocessing=preprocessing)
    assert isinstance(done.outcomes[0], RangeError)
    assert all(isinstance(outcome, RangeError | PeerError) for outcome in done.outcomes), done.outcomes
    assert not done.sent
    text = str(done.outcomes[0])
    assert len(text) < 300
    assert any(remedy in text for remedy in ("truncate", "tighter bound", "beyond the range")), text


LOCAL_TOO_LARGE: dict[str, Any] = {
    "x + x": lambda x: x + x,
    "x - -x": lambda x: x - -x,
    "x + 1": lambda x: x + 1,
    "1 - x": lambda x: 1 - x,
    "x * 2": lambda x: x * 2,
    "x * 1.0": lambda x: x * 1.0,
    "x @ ones": lambda x: x @ np.ones((2, 1), int),
    "ones @ x": lambda x: np.ones((1, 2), int) @ x,
    "sum": lambda x: x.sum(),
    "sum of an axis": lambda x: x.sum(axis=0),
    "lifted": lambda x: x.lifted(1),
    "x + x lifted": lambda x: x + x.bounded_by(1).lifted(1),
    "concatenate": lambda x: concatenate([x, x.bounded_by(1).lifted(1)]),
    "stack": lambda x: stack([x, x.bounded_by(1).lifted(1)]),
}


@pytest.mark.parametrize("field", [F127, F61, GF(5)], ids=repr)
@pytest.mark.parametrize("name", LOCAL_TOO_LARGE)
@pytest.mark.parametrize("masked", [False, True])
def test_local_operations_out_of_range(name: str, field: Field, masked: bool) -> None:
    async def program(party: Party, _: Any) -> None:
        x = Share(field, field.zeros((2, 2)), 0, field.half, leads=party.rank == 0)
        x = await mask(party, x) if masked else x
        with pytest.raises(RangeError):
            LOCAL_TOO_LARGE[name](x)

    run(program, parties=2).results  # noqa: B018


# ---- chains of everything ---------------------------------------------------------------------------------------

NUMBERS = st.sampled_from([0, 1, -1, 3, -7, 2**20, 2**40, -(2**62), 2**63, 2**90]) | st.integers(-1000, 1000)
FRACTIONS = st.sampled_from([0.5, -0.25, 1e-6, 3.75, 1e6, -1e9]) | st.floats(-100, 100)
STEP = st.one_of(
    st.tuples(st.sampled_from(["+", "-", "*", "r-"]), NUMBERS | FRACTIONS),
    st.tuples(
        st.sampled_from(
            ["multiply", "square", "matmul", "mask", "neg", "swap", "add", "sub", "truncate", "sign", "sum"]
        ),
        st.just(0),
    ),
)


class Exact:
    """Encoded integers with their scale; ``slack`` bounds how far truncations may have moved them, exactly."""

    def __init__(self, values: np.ndarray, scale: int, slack: Fraction) -> None:
        self.values, self.scale, self.slack = values, scale, slack

    def lifted(self, scale: int) -> "Exact":
        factor = 2 ** (scale - self.scale)
        return Exact(self.values * factor, scale, self.slack * factor)

    def largest(self) -> Fraction:
        return Fraction(max(abs(v) for v in self.values.flat)) + self.slack


def both_lifted(x: Exact, y: Exact) -> tuple[Exact, Exact]:
    scale = max(x.scale, y.scale)
    return x.lifted(scale), y.lifted(scale)


def times(x: Exact, y: Exact, values: np.ndarray, terms: int) -> Exact:
    slack = x.slack * y.largest() + y.slack * x.largest()
    return Exact(values, x.scale + y.scale, slack * terms)


def reference(x: Exact, y: Exact, name: str, k: Any, pieces: int) -> tuple[Exact, Exact]:
    if name in ("+", "-", "r-"):
        public = round(Fraction(k) * 2**x.scale)
        values = {"+": x.values + public, "-": x.values - public, "r-": public - x.values}[name]
        return Exact(values, x.scale, x.slack), y
    if name == "*":
        factor, more = (round(Fraction(k) * 2**24), 24) if isinstance(k, float) else (k, 0)
        return Exact(x.values * factor, x.scale + more, x.slack * abs(factor)), y
    if name == "multiply":
        return times(x, y, x.values * y.values, 1), y
    if name == "square":
        return times(x, x, x.values * x.values, 1), y
    if name == "matmul":
        return times(x, y, exact(x.values @ y.values), 2), y
    if name == "neg":
        return Exact(-x.values, x.scale, x.slack), y
    if name == "swap":
        return y, x
    if name in ("add", "sub"):
        p, q = both_lifted(x, y)
        return Exact(p.values + q.values if name == "add" else p.values - q.values, p.scale, p.slack + q.slack), y
    if name == "truncate":
        if x.scale <= 24:
            return x.lifted(24), y
        unit = 2 ** (x.scale - 24)
        moved = [Fraction(v, unit) for v in x.values.flat]
        rounded = exact(np.array([round(v) for v in moved], dtype=object).reshape(x.values.shape))
        return Exact(rounded, 24, x.slack / unit + Fraction(pieces + 2, 2)), y
    if name == "sum":
        total = x.values.sum(axis=0, keepdims=True) + 0 * x.values
        return Exact(exact(total), x.scale, x.slack * 2), y
    return x, y


async def real(party: Party, x: Share, y: Share, name: str, k: Any) -> tuple[Share, Share]:
    if name in ("+", "-", "*", "r-"):
        return {"+": lambda: x + k, "-": lambda: x - k, "*": lambda: x * k, "r-": lambda: k - x}[name](), y
    if name == "multiply":
        return await multiply(party, x, y), y
    if name == "square":
        return await multiply(party, x, x), y
    if name == "matmul":
        return await matmul(party, x, y), y
    if name == "mask":
        return await mask(party, x), y
    if name == "neg":
        return -x, y
    if name == "swap":
        return y, x
    if name == "add":
        return x + y, y
    if name == "sub":
        return x - y, y
    if name == "truncate":
        return await truncate(party, x), y
    if name == "sum":
        return x.sum(axis=0).reshape(1, 2).broadcast_to((2, 2)), y
    return x, y


@given(
    start=st.lists(st.integers(-100, 100), min_size=8, max_size=8) | st.lists(NUMBERS, min_size=8, max_size=8),
    steps=st.lists(STEP, min_size=4, max_size=12),
    preprocessing=st.sampled_from(["dealer", "prss"]),
    field=st.sampled_from([F127, F127, F61]),
)
def test_chains_of_everything(start: list[int], steps: list[tuple[str, Any]], preprocessing: str, field: Field) -> None:
    """Products, truncations, signs and local operations in any order, on edges: right, or refused with nothing sent."""
    first = exact(np.array([max(-field.half, min(field.half, v)) for v in start], dtype=object).reshape(2, 2, 2))
    bounds = [max(abs(v) for v in array.flat) for array in first]

    async def program(party: Party, _: Any) -> Any:
        shares = [
            await party.share(first[k] if party.rank == k else None, bound=bounds[k], owner=k, field=field)
            for k in range(2)
        ]
        x, y = shares
        refused, signs = set(), {}
        for step, (name, k) in enumerate(steps):
            before = party.costs.total.messages
            try:
                if name == "sign":
                    signs[step] = await open_(party, await is_negative(party, x))
                else:
                    x, y = await real(party, x, y, name, k)
            except (RangeError, DataError):
                refused.add(step)
                assert party.costs.total.messages == before  # the step that did not fit sent nothing
        if x.scale >= field.bits:
            return refused, signs, x.scale, x.magnitude, None
        integers = Share(field, x.values, 0, x.magnitude, leads=x.leads)
        return refused, signs, x.scale, x.magnitude, await open_(party, integers)

    refused, signs, scale, magnitude, opened = run(program, preprocessing=preprocessing).results[0]
    x, y = Exact(first[0], 0, Fraction(0)), Exact(first[1], 0, Fraction(0))
    for step, (name, k) in enumerate(steps):
        if step in refused:
            continue
        x, y = reference(x, y, name, k, 3)
        if step in signs:
            for value, bit in zip(x.values.flat, signs[step].flat, strict=True):
                assert abs(value) <= x.slack or bit == (value < 0)
    assert scale == x.scale
    if opened is not None:
        assert all(abs(int(v) - w) <= x.slack for v, w in zip(opened.flat, x.values.flat, strict=True))
        assert all(abs(int(v)) <= magnitude for v in opened.flat)
