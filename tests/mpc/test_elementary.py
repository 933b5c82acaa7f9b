"""Elementary functions on shares: errors over the whole range, what happens outside of it, costs."""

import hashlib
import math
from collections.abc import Awaitable, Callable
from decimal import Context, Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc import Party, RangeError, Share, open_, prepare, truncate
from mpc.elementary import divide, exp, inverse_sqrt, log, reciprocal, sqrt
from mpc.normalise import guard_bits, octave, prefix_plan, room
from mpc.series import (
    COEFFICIENT_SCALE,
    Series,
    inverse_root_series,
    log_series,
    power_series,
    reciprocal_series,
    root_series,
)
from tests.mpc.support import ALL_WORLDS, SMALL_WORLDS, WORLDS, in_turn, run, same
from tests.protocols.promises import at_rank, watched

Function = Callable[..., Awaitable[Share]]
REFERENCES: dict[Function, Callable[[np.ndarray], np.ndarray]] = {
    reciprocal: lambda x: 1 / x,
    sqrt: np.sqrt,
    inverse_sqrt: lambda x: 1 / np.sqrt(x),
    log: np.log,
    exp: np.exp,
}
BY_OCTAVE = [reciprocal, sqrt, inverse_sqrt, log]


def wide(low: int, high: int, scale: int) -> np.ndarray:
    """Powers of two, their neighbours, and what is between, as multiples of 2^-scale."""
    edges = 2.0 ** np.arange(low, high + 1)
    rng = np.random.default_rng(1)
    x = np.concatenate([edges, edges[1:] - 2.0**-scale, edges[:-1] + 2.0**-scale, 2 ** rng.uniform(low, high, 60)])
    return np.asarray(np.clip(np.rint(np.ldexp(x, scale)) * 2.0**-scale, 2.0**low, 2.0**high))


def evaluated(
    function: Function,
    x: np.ndarray,
    *,
    scale: int,
    bound: float,
    parties: int = 3,
    preprocessing: str = "prss",
    **options: Any,
) -> np.ndarray:
    """Evaluate a function on shares, and check every bound that was promised on the way."""

    async def program(party: Party, _: Any) -> Any:
        held = x if party.rank == 1 else None
        share = await party.share(held, bound=bound, owner=1, shape=x.shape, scale=scale)
        result = await function(party, share, **options)
        assert result.shape == x.shape
        assert not x.size or abs(result.bound) < math.inf
        return await open_(party, result.bounded_by(result.bound))

    with watched() as promises:
        values: np.ndarray = same(run(at_rank(program), parties=parties, preprocessing=preprocessing).results)
    promises.check(parties)
    return values


# ---- the series ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("series", "function", "reach", "error", "relative"),
    [
        (reciprocal_series(), lambda t: 4 / (t + 3), 1.0, 2.0**-36, True),
        (log_series(), lambda t: ((t + 3) / 4).ln(), 1.0, 2.0**-36, False),
        (root_series(), lambda t: ((t + Decimal("1.25")) / 2).sqrt(), 0.75, 2.0**-38, True),
        (inverse_root_series(), lambda t: 1 / ((t + Decimal("1.25")) / 2).sqrt(), 0.75, 2.0**-37, True),
        (power_series(), lambda t: (Decimal(2).ln() * (t + 1) / 2).exp(), 1.01, 2.0**-37, True),
    ],
)
def test_series_are_as_good_as_they_say(
    series: Series, function: Callable[[Decimal], Decimal], reach: float, error: float, relative: bool
) -> None:
    unit = Decimal(2) ** -COEFFICIENT_SCALE
    with localcontext(Context(prec=40)):
        for k in range(401):
            t = Decimal(reach) * (k - 200) / 200
            value = Decimal(0)
            for c in reversed(series.coefficients):
                value = value * t + c * unit
            truth = function(t)
            assert abs(value - truth) <= Decimal(error) * (abs(truth) if relative else 1)
            assert abs(value) < Decimal(series.bound)
        # What rounding the powers adds: below 4 units of their last place.
        growth = [abs(c) * (2 * k - 1) * Decimal(reach) ** (k - 1) for k, c in enumerate(series.coefficients) if k]
        assert sum(growth) * unit < 4


def test_coefficients_are_the_same_integers_everywhere() -> None:
    """They multiply random summands: a difference in the last place would give a random result."""
    every = (reciprocal_series(), root_series(), inverse_root_series(), log_series(), power_series())
    text = " ".join(str(c) for series in every for c in series.coefficients)
    assert hashlib.blake2b(text.encode(), digest_size=8).hexdigest() == "da694d1b0d63e070"


# ---- octaves ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parties", "preprocessing"), SMALL_WORLDS)
@pytest.mark.parametrize(
    ("low", "top", "width", "bound"), [(0, 7, 1, 100), (2, 5, 1, 127), (1, 8, 2, 70), (0, 1, 1, 1)]
)
def test_octaves_of_all_small_integers(
    low: int, top: int, width: int, bound: int, parties: int, preprocessing: str
) -> None:
    x = np.arange(-bound, bound + 1)

    async def program(party: Party, _: Any) -> Any:
        share = await party.share(x if party.rank == 0 else None, bound=bound, owner=0, shape=x.shape)
        found = await octave(party, share, low=low, top=top, width=width)
        return await open_(party, found.hit, found.x)

    hit, again = run(program, parties=parties, preprocessing=preprocessing).results[0]
    np.testing.assert_array_equal(again, x)
    for k, row in enumerate(hit):
        lowest, highest = 2.0 ** (top - width * (k + 1)), 2.0 ** (top - width * k)
        np.testing.assert_array_equal(row, (x >= max(lowest, 1)) & (x < highest))


@given(st.integers(1, 90), st.data())
def test_a_prefix_tree_reaches_what_is_wanted(count: int, data: Any) -> None:
    wanted = data.draw(st.sets(st.integers(0, count - 1)))
    held = [{k} for k in range(count)]
    plan = prefix_plan(count, wanted)
    for steps in plan:
        for position, below in steps:
            assert not held[position] & held[below]
            held[position] = held[position] | held[below]
    assert all(held[k] == set(range(k + 1)) for k in wanted)
    assert len(plan) == max(0, (count - 1)).bit_length()


# ---- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parties", "preprocessing", "function"), in_turn([*WORLDS, (7, "prss")], BY_OCTAVE))
def test_errors_over_forty_octaves(function: Function, parties: int, preprocessing: str) -> None:
    x = wide(-20, 20, 40)
    options: dict[str, Any] = {"lower": 2.0**-20, "upper": 2.0**20}
    world: dict[str, Any] = {"parties": parties, "preprocessing": preprocessing}
    got = evaluated(function, x, scale=40, bound=2.0**20, **world, **options)
    truth = REFERENCES[function](x)
    assert (np.abs(got - truth) / (1 if function is log else truth)).max() <= 2.0**-30


@pytest.mark.parametrize(("parties", "preprocessing"), [*SMALL_WORLDS, (7, "prss")])
@pytest.mark.parametrize(("lower", "upper", "scale"), [(-27.7, 0.0, 24), (-4, 4, 0), (-1, 1, 60), (3.0, 20.0, 20)])
def test_errors_of_exponentials(lower: float, upper: float, scale: int, parties: int, preprocessing: str) -> None:
    whole = np.log(2) * np.arange(-40, 30)
    x = np.concatenate([np.linspace(lower, upper, 61), whole[(whole > lower) & (whole < upper)], [lower, upper]])
    x = np.clip(np.rint(np.ldexp(x, scale)) * 2.0**-scale, lower, upper)
    bound = max(abs(lower), abs(upper))
    world: dict[str, Any] = {"parties": parties, "preprocessing": preprocessing}
    got = evaluated(exp, x, scale=scale, bound=bound, lower=lower, upper=upper, **world)
    assert (np.abs(got - np.exp(x)) / np.exp(x)).max() <= 2.0**-30


@pytest.mark.parametrize(("parties", "preprocessing"), [*SMALL_WORLDS, (7, "prss")])
@pytest.mark.parametrize(("low", "high", "x_bound"), [(-20, 20, 50.0), (0, 10, 1e6), (-3, 0, 2.0**-10)])
def test_errors_of_quotients(low: int, high: int, x_bound: float, parties: int, preprocessing: str) -> None:
    y = wide(low, high, 40)
    x = np.random.default_rng(2).uniform(-x_bound, x_bound, (3, len(y)))
    x[0, :3], x[1] = [x_bound, -x_bound, 0], x_bound
    x = np.rint(np.ldexp(x, 30)) * 2.0**-30

    async def quotient(party: Party, divisor: Share, **options: Any) -> Share:
        dividend = await party.share(x if party.rank == 0 else None, bound=x_bound, owner=0, shape=x.shape, scale=30)
        result = await divide(party, dividend, divisor, **options)
        assert result.shape == x.shape
        return result[1] - result[0] * 0

    async def first(party: Party, divisor: Share, **options: Any) -> Share:
        dividend = await party.share(x[0] if party.rank == 0 else None, bound=x_bound, owner=0, shape=y.shape, scale=30)
        return await divide(party, dividend, divisor, **options)

    world: dict[str, Any] = {"parties": parties, "preprocessing": preprocessing}
    world |= {"lower": 2.0**low, "upper": 2.0**high}
    for function, dividends in ((quotient, x[1]), (first, x[0])):
        got = evaluated(function, y, scale=40, bound=2.0**high, **world)
        allowed = 2.0**-30 * np.abs(dividends) / y + 2.0**-32 * x_bound / 2.0**high
        pieces = 35 if parties == 7 else 3
        octaves = high - low + 1
        kept = (79 if parties == 7 else 83) - octaves - 5
        allowed = allowed + (pieces + 1) * 2.0 ** -min(38, kept) * x_bound / y
        assert (np.abs(got - dividends / y) <= allowed).all()


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_range(data: Any) -> None:
    """Whatever the range: no promise is broken on the way, and errors are as stated, in it and at its ends."""
    function = data.draw(st.sampled_from(BY_OCTAVE))
    scale = data.draw(st.integers(0, 40))
    lower = data.draw(st.integers(1, 1 << 40))
    upper = data.draw(st.integers(lower, min(lower << 40, 1 << 60)))
    middle = data.draw(st.lists(st.integers(lower, upper), max_size=3))
    integers = np.array([lower, upper, *middle], dtype=np.int64)

    async def program(party: Party, _: Any) -> Any:
        share = await party.share(integers if party.rank == 0 else None, bound=upper, owner=0, shape=integers.shape)
        share = share.scaled_down(scale)
        return await open_(party, await function(party, share, lower=lower / 2**scale, upper=upper / 2**scale))

    x = integers / 2.0**scale
    truth = REFERENCES[function](x)
    with watched() as promises:
        got = run(at_rank(program), parties=2).results[0]
    promises.check(2)
    assert (np.abs(got - truth) / (1 if function is log else truth)).max() <= 2.0**-30


@settings(max_examples=25, deadline=None)
@given(st.floats(-30, 30), st.floats(0, 27), st.integers(0, 30))
def test_any_range_of_exponentials(lower: float, width: float, scale: int) -> None:
    lower = math.floor(lower * 2**scale) / 2**scale
    upper = math.ceil((lower + width) * 2**scale) / 2**scale
    if upper - lower > 27.7:
        return
    x = np.clip(np.rint(np.ldexp(np.linspace(lower, upper, 7), scale)) * 2.0**-scale, lower, upper)
    got = evaluated(exp, x, scale=scale, bound=max(abs(lower), abs(upper), 1.0), lower=lower, upper=upper)
    assert (np.abs(got - np.exp(x)) / np.exp(x)).max() <= 2.0**-30


# ---- outside ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parties", "preprocessing"), SMALL_WORLDS)
@pytest.mark.parametrize("function", BY_OCTAVE)
def test_outside_of_the_range_it_is_nothing(function: Function, parties: int, preprocessing: str) -> None:
    x = np.array([-1000.0, -(2.0**-30), -0.25, 0.0, 2.0**-30, 0.2, 17.0, 100.0, 2.0**20])
    world: dict[str, Any] = {"parties": parties, "preprocessing": preprocessing}
    got = evaluated(function, x, scale=40, bound=2.0**20, lower=0.25, upper=15.0, **world)
    assert np.abs(got).max() <= 2.0**-28


@pytest.mark.parametrize(("parties", "preprocessing"), SMALL_WORLDS)
def test_exponentials_underflow_to_nothing(parties: int, preprocessing: str) -> None:
    x = np.array([-1000.0, -999.99, -64.0, -32.0, -29.0, 3.0, 64.0, 999.0])
    world: dict[str, Any] = {"parties": parties, "preprocessing": preprocessing}
    got = evaluated(exp, x, scale=24, bound=1000, lower=-20.0, upper=0.0, **world)
    assert np.abs(got).max() <= 1e-12


@pytest.mark.parametrize(("parties", "preprocessing"), [*SMALL_WORLDS, (5, "prss")])
def test_exponentials_at_the_end_of_what_can_be_told_apart(parties: int, preprocessing: str) -> None:
    """Where the binary logarithm, less what the window begins with, is just above -2^10."""
    end = math.floor((1024 - 13) * math.log(2) * 2**24) / 2**24
    x = np.array([-end, -end + 2.0**-24, end] * 20)
    world: dict[str, Any] = {"parties": parties, "preprocessing": preprocessing}
    got = evaluated(exp, x, scale=24, bound=end, lower=10.0, upper=20.0, **world)
    assert np.abs(got).max() <= 1e-3


@pytest.mark.parametrize("function", [reciprocal, inverse_sqrt, log])
def test_what_has_no_room_is_refused(function: Function) -> None:
    async def program(party: Party, _: Any) -> None:
        for bits, options, error in [
            (90, {"lower": 1.0}, RangeError),
            (70, {"lower": 1.0}, None if function is not reciprocal else RangeError),
            (20, {"lower": 0.0}, ValueError),
            (20, {"lower": 5.0, "upper": 4.0}, ValueError),
        ]:
            zero = party.constant(np.array([0]))
            x = Share(zero.field, zero.values, 0, 1 << bits, leads=party.rank == 0)
            if error is not None and not (error is RangeError and bits == 70 and function is log):
                with pytest.raises(error):
                    await function(party, x, **options)
        with pytest.raises(RangeError):
            await exp(party, party.constant(np.array([0.0])).bounded_by(1), lower=-40.0, upper=0.0)
        with pytest.raises(ValueError, match="lower"):
            await exp(party, party.constant(np.array([0.0])), lower=1.0, upper=0.0)

    done = run(program)
    done.results  # noqa: B018
    assert not done.sent


def test_room_is_what_a_truncation_has() -> None:
    async def program(party: Party, _: Any) -> None:
        field = party.constant(0).field
        k = room(party, field)
        for magnitude in (1 << k - 1, (1 << k) - 1):
            await truncate(party, Share(field, field.zeros(1), 10, magnitude, leads=party.rank == 0), 5)
        with pytest.raises(RangeError):
            await truncate(party, Share(field, field.zeros(1), 10, 1 << k + 1, leads=party.rank == 0), 5)

    for parties, preprocessing in ALL_WORLDS:
        run(program, parties=parties, preprocessing=preprocessing).results  # noqa: B018


# ---- shapes, scales, costs ----------------------------------------------------------------------


@pytest.mark.parametrize("function", [*BY_OCTAVE, exp])
def test_shapes_and_scales(function: Function) -> None:
    for shape in [(), (2, 3), (0, 2)]:
        got = evaluated(function, np.full(shape, 1.5), scale=30, bound=2.0, lower=0.5, upper=2.0)
        np.testing.assert_allclose(got, REFERENCES[function](np.full(shape, 1.5)), rtol=2.0**-30)

    async def program(party: Party, _: Any) -> Any:
        share = await truncate(party, party.constant(np.array([1.5]), scale=30), 20)  # born masked
        coarse = await function(party, share, lower=0.5, upper=2.0, scale=10)
        fine = await function(party, share, lower=0.5, upper=2.0, scale=50)
        assert (coarse.scale, fine.scale) == (10, 50)
        return await open_(party, coarse, fine)

    coarse, fine = run(program).results[0]
    truth = REFERENCES[function](np.array([1.5]))
    assert abs(coarse - truth)[0] < 2.0**-8
    assert abs(fine - truth)[0] < 1e-5  # the argument was rounded to 2^-20


@pytest.mark.parametrize(
    ("function", "rounds", "elements"), [(reciprocal, 6, 15), (sqrt, 7, 21), (inverse_sqrt, 7, 23), (log, 5, 13)]
)
def test_costs(function: Function, rounds: int, elements: int) -> None:
    count, bits = 5, 44

    async def program(party: Party, _: Any) -> Any:
        x = party.constant(np.ones(count), scale=40).bounded_by(15.9)
        assert x.magnitude < 2**bits
        result = Share(x.field, x.values, x.scale, 2**bits - 1, leads=x.leads)
        await function(party, result, lower=0.25, upper=15.0)
        return party.costs

    costs = run(program).results[0]
    factors = 2 if function in (sqrt, inverse_sqrt) else 1
    assert costs.rounds == math.ceil(math.log2(bits + 1)) + 3 + 2 + rounds
    words = sum(c.elements_opened for name, c in costs.by_step.items() if "octave" in name and "mask" not in name)
    assert costs.elements_opened - words == count * (1 + factors + 1 + elements)


def test_costs_of_exponentials() -> None:
    async def program(party: Party, _: Any) -> Any:
        await exp(party, party.constant(np.zeros(5)).bounded_by(16), lower=-16.0, upper=0.0)
        return party.costs

    costs = run(program).results[0]
    whole = 7  # 0 to 47 in magnitude, doubled, and a sign
    expected = math.ceil(math.log2(whole + 9)) + math.ceil(math.log2(whole - 1)) + 10
    assert costs.rounds == expected
    words = sum(
        c.elements_opened for name, c in costs.by_step.items() if name.startswith("whole") and not name.endswith("mask")
    )
    assert costs.elements_opened - words == 5 * 14


@pytest.mark.parametrize(("parties", "preprocessing"), SMALL_WORLDS)
def test_rehearsal(parties: int, preprocessing: str) -> None:
    async def all_of_them(party: Party, x: Share) -> list[Share]:
        options: dict[str, Any] = {"lower": 0.5, "upper": 3.0}
        results = [await function(party, x, **options) for function in [*BY_OCTAVE, exp]]
        return [*results, await divide(party, x, x, **options)]

    async def program(party: Party, _: Any) -> Any:
        x = await party.share(np.array([2.0]) if party.rank == 0 else None, bound=3.0, owner=0, shape=(1,))
        await prepare(party, all_of_them, x)
        assert guard_bits(party) >= 0
        return await open_(party, *await all_of_them(party, x))

    got = np.concatenate(run(program, parties=parties, preprocessing=preprocessing).results[0])
    root = math.sqrt(2)
    np.testing.assert_allclose(got, [0.5, root, 1 / root, math.log(2), math.exp(2), 1.0], rtol=1e-8)
