"""Comparison and what is made of it, without a dealer, among parties that may cheat."""

from typing import Any

import numpy as np
import pytest

from mpc import (
    F127,
    CheatingError,
    Party,
    PeerError,
    SecurityError,
    argmax,
    divide,
    equal,
    exp,
    from_bits,
    inverse_sqrt,
    is_negative,
    less_than,
    log,
    maximum,
    open_,
    prepare,
    reciprocal,
    select,
    sigmoid,
    sign,
    sqrt,
    to_bits,
)
from mpc.bits import open_addends
from tests.mpc.support import Run, run, same, shares_of

X, Y = np.array([3, -7, 5, 0, 1 << 20]), np.array([3, 9, -5, -1, (1 << 20) + 1])


def joined(program: Any, *, parties: int = 2) -> Run:
    return run(program, parties=parties, preprocessing="ot", security="malicious")


async def all_of_it(party: Party, x: Any, y: Any) -> Any:
    less = await less_than(party.at("less"), x, y)
    alike = await equal(party.at("equal"), x, y)
    signs = await sign(party.at("sign"), x)
    bits = await to_bits(party.at("bits"), x + (1 << 21), field=F127)
    larger = await maximum(party.at("larger"), x, y)
    index, _ = await argmax(party.at("argmax"), x)
    return await open_(party, less, alike, signs, from_bits(bits), larger, index)


def test_comparisons() -> None:
    async def program(party: Party, _: Any) -> Any:
        x, y = await shares_of(party, [X, Y], 1 << 21)
        return await all_of_it(party, x, y)

    expected = [X < Y, X == Y, np.sign(X), X + (1 << 21), np.maximum(X, Y), np.argmax(X)]
    for results, right in zip(zip(*joined(program).results, strict=True), expected, strict=True):
        np.testing.assert_array_equal(same(results), right)


def test_elementary_functions_and_choices() -> None:
    above, any_ = np.array([1.5, 7.0, 0.25]), np.array([2.0, -3.0, 0.5])

    async def program(party: Party, _: Any) -> Any:
        x, y = await shares_of(party, [above, any_], 10.0)
        found = [
            await reciprocal(party.at("reciprocal"), x, lower=0.25),
            await divide(party.at("divide"), y, x, lower=0.25),
            await sqrt(party.at("sqrt"), x),
            await inverse_sqrt(party.at("inverse"), x, lower=0.25),
            await log(party.at("log"), x, lower=0.25),
            await exp(party.at("exp"), y, lower=-10.0, upper=10.0),
            await select(party.at("select"), await is_negative(party.at("negative"), y), x, y),
        ]
        return await open_(party, *found)

    expected = [
        1 / above,
        any_ / above,
        np.sqrt(above),
        above**-0.5,
        np.log(above),
        np.exp(any_),
        np.where(any_ < 0, above, any_),
    ]
    for results, right in zip(zip(*joined(program).results, strict=True), expected, strict=True):
        np.testing.assert_allclose(same(results), right, rtol=2e-7, atol=2e-7)


async def some_of_it(party: Party, x: Any, y: Any) -> Any:
    alike = await equal(party.at("equal"), x, y)
    return await open_(party, alike, await less_than(party.at("less"), x, y))


@pytest.mark.parametrize(("parties", "prepared"), [(3, False), (2, True)])
def test_among_three_and_prepared(parties: int, prepared: bool) -> None:
    async def program(party: Party, _: Any) -> Any:
        x, y = await shares_of(party, [X, Y], 1 << 21)
        if prepared:
            await prepare(party, some_of_it, x, y)
        return await some_of_it(party, x, y)

    alike, less = (same(one) for one in zip(*joined(program, parties=parties).results, strict=True))
    np.testing.assert_array_equal(alike, X == Y)
    np.testing.assert_array_equal(less, X < Y)


def test_what_a_comparison_sends() -> None:
    """Mostly the bits of masks as elements: some 75 of 688 bytes, for numbers of 32 bits."""
    count = 500

    async def program(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [np.arange(count)], (1 << 31) - 1)
        before = party.costs.total.bytes_sent
        await less_than(party, x, 7)
        return (party.costs.total.bytes_sent - before) / count

    for each in joined(program).results:
        assert 60_000 < each < 100_000


@pytest.mark.parametrize("what", ["bits", "public"])
def test_changed_addends_are_found(what: str) -> None:
    async def program(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [X], 1 << 21)
        addends = await open_addends(party.at("open"), x, 20, 0, "test")
        changed = addends.shared[0 if what == "public" else 1]
        if party.rank == 0:
            changed.values["value"][3] ^= np.uint64(1)
        return await open_(party, changed)

    outcomes = joined(program).outcomes
    assert any(isinstance(outcome, CheatingError) for outcome in outcomes)
    assert all(isinstance(outcome, CheatingError | PeerError) for outcome in outcomes)


def test_what_does_not_run_says_so() -> None:
    async def program(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [np.array([1.5])], 20)
        return await sigmoid(party, x, limit=20.0)

    outcomes = joined(program).outcomes
    assert any(isinstance(outcome, SecurityError) for outcome in outcomes)
    assert all(isinstance(outcome, SecurityError | PeerError) for outcome in outcomes)
