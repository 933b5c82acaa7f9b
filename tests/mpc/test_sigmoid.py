"""The sigmoid: errors over its whole range, limits, and the same public numbers on every machine."""

import hashlib
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from mpc import F127, Party, RangeError, Share, open_, sigmoid, truncate, waves
from mpc.sigmoid import LARGEST_LIMIT, series
from tests.mpc.support import SMALL_WORLDS, run, same, shares_of

GRID = np.concatenate([np.linspace(-22, 22, 400), [0, 1e-9, -1e-9, 22, -22]])


def evaluated(
    x: np.ndarray, parties: int, preprocessing: str, bound: float | None = None, **options: Any
) -> np.ndarray:
    bound = float(np.abs(x).max()) if bound is None else bound

    async def program(party: Party, _: Any) -> Any:
        (share,) = await shares_of(party, [x], bound)
        result = await sigmoid(party, share, **options)
        assert result.shape == x.shape
        assert result.scale == (72 if options.get("error", 1e-4) < 2e-5 else 60)
        return await open_(party, result)

    values: np.ndarray = same(run(program, parties=parties, preprocessing=preprocessing).results)
    return values


@pytest.mark.parametrize(("parties", "preprocessing"), [*SMALL_WORLDS, (5, "dealer"), (4, "prss"), (5, "prss")])
def test_error_in_the_default_range(parties: int, preprocessing: str) -> None:
    assert np.abs(evaluated(GRID, parties, preprocessing) - expit(GRID)).max() <= 1e-4


@pytest.mark.parametrize(("parties", "preprocessing"), [(2, "dealer"), (3, "prss"), (5, "prss"), (7, "prss")])
@pytest.mark.parametrize(("limit", "error"), [(22.0, 1e-6), (64.0, 1e-6), (8.0, 1e-3), (3.5, 0.05)])
def test_other_limits_and_errors(parties: int, preprocessing: str, limit: float, error: float) -> None:
    if parties == 7 and limit > 22:
        error *= 2  # the roundings of 35 mask integers alone come to 5e-7 here
    # Of 1e-6 the series takes 0.42, and roundings have a deviation of 0.14: 4 of them are met once in 10^4 entries.
    allowed = 1.4 * error if error == 1e-6 else error
    middle = np.linspace(-2, 2, 300 if limit == 22 and parties < 7 else 30)  # where the slope is steepest
    x = np.concatenate([np.linspace(-limit, limit, 61 if parties == 7 else 201), middle])
    got = evaluated(x, parties, preprocessing, limit=limit, error=error)
    assert np.abs(got - expit(x)).max() <= allowed


def test_the_widest_limit() -> None:
    x = np.array([-900.0, -30, -1, 0, 0.5, 899])
    assert np.abs(evaluated(x, 2, "dealer", limit=LARGEST_LIMIT, error=5e-6) - expit(x)).max() <= 5e-6


@pytest.mark.parametrize(("parties", "preprocessing"), SMALL_WORLDS)
def test_beyond_the_limit_it_stays_a_probability(parties: int, preprocessing: str) -> None:
    x = np.linspace(-300, 300, 601)
    got = evaluated(x, parties, preprocessing, allow_beyond=True)
    assert got.min() >= -1e-4
    assert got.max() <= 1 + 1e-4
    inside = np.abs(x) <= 22
    assert np.abs(got - expit(x))[inside].max() <= 1e-4


def test_one_number_and_none() -> None:
    assert abs(evaluated(np.array(1.0), 3, "prss") - expit(1.0)) <= 1e-4
    assert evaluated(np.zeros((0, 3)), 3, "dealer", bound=1.0).shape == (0, 3)
    assert evaluated(np.full((2, 3), -1.5), 2, "dealer").shape == (2, 3)


@pytest.mark.parametrize("scale", [0, 10, 20, 21, 24, 48])
@pytest.mark.parametrize("preprocessing", ["dealer", "prss"])
def test_arguments_of_any_scale(scale: int, preprocessing: str) -> None:
    x = np.array([-20, -1, 0, 3, 21])

    async def program(party: Party, _: Any) -> Any:
        (share,) = await shares_of(party, [x], 21)
        lifted = share.lifted(scale)
        if scale == 48:
            lifted = await truncate(party, lifted, to=30)  # born masked: opened under a mask of its own
        return await open_(party, await sigmoid(party, lifted.bounded_by(22)))

    got = run(program, preprocessing=preprocessing).results[0]
    assert np.abs(got - expit(x)).max() <= 1e-4


@pytest.mark.parametrize(
    ("bound", "options", "error"),
    [
        (22.1, {}, RangeError),
        (23, {"limit": 22.9}, RangeError),
        (1.0, {"limit": 0}, ValueError),
        (1.0, {"limit": 901.0}, ValueError),
        (1.0, {"error": 1e-7}, ValueError),
        (1.0, {"error": 4e-6, "limit": 101.0}, ValueError),
        (1.0, {"error": 0.1}, ValueError),
        (2.0**70, {"allow_beyond": True}, RangeError),
    ],
)
def test_what_is_out_of_range(bound: float, options: dict[str, Any], error: type[Exception]) -> None:
    async def program(party: Party, _: Any) -> None:
        (share,) = await shares_of(party, [np.zeros(3)], bound)
        with pytest.raises(error):
            await sigmoid(party, share, **options)

    done = run(program)
    done.results  # noqa: B018
    assert not done.sent_after_inputs()


def test_the_series_converges_where_it_must() -> None:
    """In floating point, on a fine grid: the truncation of the series alone, apart from all rounding; it is odd."""
    for limit, error in [(22.0, 1e-4), (64.0, 1e-6), (1.0, 0.09), (900.0, 1e-5)]:
        half_period, coefficients = series(limit, error)
        x = np.linspace(0, limit, 10001)
        k = np.arange(1, 2 * len(coefficients), 2)
        approximation = 0.5 + np.sin(np.pi / half_period * np.outer(x, k)) @ coefficients
        assert np.abs(approximation - expit(x)).max() <= error


@pytest.mark.parametrize("harmonics", [(1,), (1, 3), tuple(range(1, 1200, 2)), (1, 2, 5, 9)])
def test_waves_are_sines_and_cosines(harmonics: tuple[int, ...], rng: np.random.Generator) -> None:
    period = 2 * 33 << 20
    eighth = period // 8
    residues = np.concatenate(
        [rng.integers(0, period, 500), [0, 1, period - 1, eighth, eighth + 1, 3 * eighth - 1, 4 * eighth]]
    )
    cos, sin = waves.unit_powers(residues, period, harmonics)
    angles = 2 * np.pi * (np.outer(harmonics, residues) % period) / period
    off = 4e-15 + 1e-15 * max(harmonics)  # three times as much as is met
    np.testing.assert_allclose(cos, np.cos(angles), rtol=0, atol=off)
    np.testing.assert_allclose(sin, np.sin(angles), rtol=0, atol=off)


def test_public_factors_are_the_same_bits_on_every_machine() -> None:
    """They multiply random summands: a difference in the last place between parties would be a random result."""
    residues = np.arange(0, 2 * 33 << 20, 12_345)
    both = waves.unit_powers(residues, 2 * 33 << 20, tuple(range(1, 64, 2)))
    digest = hashlib.blake2b(np.ascontiguousarray(np.stack(both)).astype("<f8").tobytes(), digest_size=8).hexdigest()
    assert digest == "7ae5ad40854c23c8"


def test_the_result_is_a_share_like_others() -> None:
    async def program(party: Party, _: Any) -> Any:
        (share,) = await shares_of(party, [np.array([0.0, 5.0])], 5.0)
        p = await sigmoid(party, share)
        assert isinstance(p, Share)
        assert p.field is F127
        assert 1.0 < p.bound < 1.001
        return await open_(party, await truncate(party, p) * 2 - 1)

    np.testing.assert_allclose(run(program).results[1], 2 * expit([0.0, 5.0]) - 1, atol=3e-4)
