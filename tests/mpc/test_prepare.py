"""Preparing: the same results, nobody to wait for, and nothing of the data on the wire."""

from typing import Any

import numpy as np
import pytest

from mpc import (
    F61,
    F127,
    Party,
    PeerError,
    PreparationError,
    is_negative,
    mask,
    matmul,
    multiply,
    open_,
    prepare,
    sigmoid,
    truncate,
)
from mpc.words import W64
from tests.mpc.support import SMALL_WORLDS, WORLDS, run, seeded, shares_of

X, Y = np.array([[1.5, -2.0, 0.25]]), np.array([[0.5, 3.0, -1.0]])


async def work(party: Party, x: Any, y: Any) -> Any:
    """Everything that takes something from a preprocessing, in scopes and out of them."""
    z = await truncate(party, await multiply(party, x, y))
    kept = await mask(party.at("inner"), y)
    return (
        await matmul(party.at("inner"), kept, z.T),
        await sigmoid(party, z.bounded_by(16)),
        await is_negative(party, x - y),
        await multiply(party, kept, kept),
    )


@pytest.mark.parametrize(("parties", "preprocessing"), WORLDS)
def test_what_was_prepared_is_used(parties: int, preprocessing: str) -> None:
    async def program(party: Party, _: Any) -> Any:
        x, y = await shares_of(party, [X, Y], 4.0)
        expected = await prepare(party, work, x, y)
        before = party.costs.total
        results = await work(party, x, y)
        spent = party.costs.since(before)
        assert (spent.rounds, spent.elements_opened, spent.triples) == (
            expected.rounds,
            expected.elements_opened,
            expected.triples,
        )
        return [await open_(party.at("end"), *results), await open_(party.at("end"), *await work(party, x, y))]

    done = run(program, parties=parties, preprocessing=preprocessing)
    z = X * Y
    for opened in done.results:
        for product, p, negative, square in opened:
            np.testing.assert_allclose(product, Y @ z.T, atol=1e-5)
            np.testing.assert_allclose(p, 1 / (1 + np.exp(-z)), atol=2e-4)
            np.testing.assert_array_equal(negative, X < Y)
            np.testing.assert_allclose(square, Y * Y)


def test_the_online_phase_asks_the_dealer_for_nothing() -> None:
    async def program(party: Party, _: Any) -> Any:
        x, y = await shares_of(party, [X, Y], 4.0)
        await prepare(party, work, x, y)
        await work(party, x, y)

    done = run(program)
    done.results  # noqa: B018
    by_last = [m.step for m in done.sent_after_inputs() if m.frm == 2]
    online = by_last.index("/multiply#1")
    assert by_last[:online] == [f"request {k}" for k in range(online)]
    assert not [step for step in by_last[online:] if step.startswith("request")]


@pytest.mark.parametrize(("parties", "preprocessing"), WORLDS)
def test_a_rehearsal_tells_nothing(parties: int, preprocessing: str) -> None:
    """With the same seeds its messages are the same bytes, whatever the data are; with ot but for pads."""

    def sent(scale: float) -> list[Any]:
        async def program(party: Party, _: Any) -> Any:
            x, y = await shares_of(party, [X * scale, Y * scale], 4.0)
            await prepare(party, work, x, y)

        done = run(program, parties=parties, preprocessing=preprocessing, make_source=seeded("rehearsal"))
        done.results  # noqa: B018
        return done.told()

    assert sent(1.0) == sent(-0.25) == sent(0.0)


@pytest.mark.parametrize(("parties", "preprocessing"), SMALL_WORLDS)
def test_what_was_not_foreseen_is_taken_as_usual(parties: int, preprocessing: str) -> None:
    async def program(party: Party, _: Any) -> Any:
        x, y = await shares_of(party, [X, Y], 4.0)
        await prepare(party, multiply, x, y)
        first = await multiply(party, x, y)
        second = await multiply(party, x, x)
        kept = await mask(party, y)
        return await open_(party, first, second, await multiply(party, kept, x))

    for first, second, third in run(program, parties=parties, preprocessing=preprocessing).results:
        np.testing.assert_allclose(first, X * Y)
        np.testing.assert_allclose(second, X * X)
        np.testing.assert_allclose(third, X * Y)


@pytest.mark.parametrize(("parties", "preprocessing"), SMALL_WORLDS)
@pytest.mark.parametrize("other", ["shape", "field", "protocol", "partner"])
def test_another_program_than_prepared_is_refused(parties: int, preprocessing: str, other: str) -> None:
    async def program(party: Party, _: Any) -> Any:
        x, y = await shares_of(party, [X, Y], 4.0)
        small = await party.share(X if party.rank == 0 else None, bound=4.0, owner=0, field=F61)
        kept = await mask(party, x), await mask(party, y)
        await prepare(party, multiply, *((kept[0], kept[0]) if other == "partner" else (x, y)))
        if other == "shape":
            await multiply(party, x[0], y)
        elif other == "field":
            await multiply(party, small.bounded_by(0.1), small.bounded_by(0.1))
        elif other == "protocol":
            await truncate(party, x, to=10)
        else:
            await multiply(party, kept[0], kept[1])

    outcomes = run(program, parties=parties, preprocessing=preprocessing).outcomes
    assert isinstance(outcomes[0], PreparationError)
    for outcome in outcomes:
        assert isinstance(outcome, PreparationError | PeerError)
        assert "prepared" in str(outcome)


def test_programs_whose_steps_depend_on_what_they_open() -> None:
    """In a rehearsal everything opened is zero; the real run may go on longer and takes the rest as it comes."""

    async def until_small(party: Party, x: Any) -> Any:
        for _ in range(10):
            x = await truncate(party, (await multiply(party, x, x)).bounded_by(4.0))
            if np.abs(await open_(party, x)).max() < 0.1:
                break
        return x

    async def program(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [np.array([0.9, 0.5])], 1.0)
        await prepare(party, until_small, x)
        return await open_(party, await until_small(party, x))

    np.testing.assert_allclose(run(program).results[2], np.array([0.9, 0.5]) ** 32, atol=1e-5)


@pytest.mark.parametrize(("parties", "preprocessing"), WORLDS)
@pytest.mark.parametrize("what", ["signs", "waves"])
def test_scopes_are_named_as_in_the_rehearsal(parties: int, preprocessing: str, what: str) -> None:
    """Also those whose labels a preprocessing uses for itself: what was prepared for them is found there."""
    seen: list[tuple[bool, str]] = []

    async def first_this(party: Party, x: Any) -> Any:
        if what == "signs":
            bits = await party.preprocessing.uniform(party, W64, (1,))
            await (await party.preprocessing.signs(party, bits, F61, 5))
        else:
            angles = await party.preprocessing.bounded(party, F127, (1,), 40)
            await (await party.preprocessing.waves(party, angles, period=64, harmonics=(1, 3), scale=40))
        scope = party.at(what)
        if party.rank == 0:
            seen.append((party.rehearsing, scope.path.removeprefix(party.path).removeprefix("/")))
        return await multiply(scope, x, x)

    async def program(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [np.arange(3)], 4)
        await prepare(party, first_this, x)
        squares = [await first_this(party, x), await first_this(party, x)]  # from stock, and with nothing left in it
        return await open_(party, *squares)

    done = run(program, parties=parties, preprocessing=preprocessing)
    for squares in done.results:
        np.testing.assert_array_equal(squares, [[0, 1, 4]] * 2)
    assert [rehearsing for rehearsing, _ in seen] == [True, False, False]
    assert seen[0][1] == seen[1][1] != seen[2][1]
