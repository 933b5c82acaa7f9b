"""Small matrices on shares: inverses, systems, factors, and whether they are right."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc import Party, RangeError, open_, prepare
from mpc.linear import Solved, cholesky, inverse, schulz_factors, solve
from tests.mpc.support import SMALL_WORLDS, in_turn, run, same
from tests.protocols.promises import at_rank, watched

_SCALE = 44


def grid(values: np.ndarray, scale: int = _SCALE) -> np.ndarray:
    """Round to what is shared exactly."""
    return np.asarray(np.rint(np.ldexp(values, scale)) * 2.0**-scale)


def spd(size: int, condition: float, *, seed: int = 0, largest: float = 1.0) -> np.ndarray:
    """A symmetric matrix with known extreme eigenvalues."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))
    values = np.geomspace(1 / condition, 1, size) if size > 1 else np.array([1 / condition])
    matrix = (q * values) @ q.T * largest
    return grid((matrix + matrix.T) / 2)


def solved(
    protocol: Any, A: np.ndarray, *sides: np.ndarray, parties: int = 3, preprocessing: str = "prss", **options: float
) -> tuple[np.ndarray, int]:
    """Run a protocol on shares of matrices, and check every bound that was promised on the way."""

    async def program(party: Party, _: Any) -> Any:
        arrays = []
        for array in (A, *sides):
            held = array if party.rank == 0 else None
            bound = max(1.0, float(np.abs(array).max()))
            arrays.append(await party.share(held, bound=bound, owner=0, shape=array.shape, scale=_SCALE))
        result = await protocol(party, *arrays, **options)
        assert isinstance(result, Solved)
        assert result.right.shape == ()
        return await open_(party, result.value.bounded_by(result.value.bound), result.right)

    with watched() as promises:
        results = run(at_rank(program), parties=parties, preprocessing=preprocessing).results
    promises.check(parties)
    return same([value for value, _ in results]), int(results[0][1])


@pytest.mark.parametrize(
    ("parties", "preprocessing", "matrix"),
    in_turn([*SMALL_WORLDS, (5, "prss"), (7, "prss")], [(1, 3, 1.0), (4, 1e5, 7.0), (9, 50, 0.01)]),
)
def test_systems(matrix: tuple[int, float, float], parties: int, preprocessing: str) -> None:
    size, condition, largest = matrix
    A = spd(size, condition, seed=size, largest=largest)
    B = grid(np.random.default_rng(1).normal(size=(size, 2)))
    world: dict[str, Any] = {"parties": parties, "preprocessing": preprocessing}
    bounds: dict[str, Any] = {"largest": largest, "smallest": largest / condition * 0.99}
    X, right = solved(solve, A, B, **world, **bounds)
    assert right == 1
    assert np.abs(A @ X - B).max() <= 2.0**-30 * math.sqrt(size) * max(1, np.abs(B).max())
    assert np.linalg.norm(A @ X - B) <= 1e-8 * np.linalg.norm(B)
    x, right = solved(solve, A, B[:, 0], **world, **bounds)
    assert right == 1
    np.testing.assert_allclose(x, X[:, 0], rtol=1e-7, atol=1e-7 * np.abs(X).max())


@pytest.mark.parametrize(("parties", "preprocessing"), SMALL_WORLDS)
@pytest.mark.parametrize("size", [1, 2, 12])
def test_inverses(size: int, parties: int, preprocessing: str) -> None:
    A = spd(size, 1e4, seed=size)
    V, right = solved(inverse, A, largest=1.0, smallest=0.9e-4, parties=parties, preprocessing=preprocessing)
    assert right == 1
    assert np.abs(A @ V - np.eye(size)).max() <= 2.0**-30 * math.sqrt(size)


def test_sixty_four_columns() -> None:
    A, B = spd(64, 1e5), grid(np.random.default_rng(2).normal(size=(64, 1)))
    X, right = solved(solve, A, B, largest=1.0, smallest=1e-5, parties=2, preprocessing="dealer")
    assert right == 1
    assert np.linalg.norm(A @ X - B) <= 1e-8 * np.linalg.norm(B)


@pytest.mark.parametrize("eigenvalue", [0.0, 1e-9, 1e-6])
@pytest.mark.parametrize("protocol", [solve, inverse, cholesky])
def test_a_singular_matrix_is_told_by_a_bit(protocol: Any, eigenvalue: float) -> None:
    """And breaks no bound: promises are watched."""
    q, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(5, 5)))
    A = (q * np.array([eigenvalue, 0.3, 0.5, 0.7, 1.0])) @ q.T
    A = grid((A + A.T) / 2)
    sides = [np.ones((5, 1))] if protocol is solve else []
    value, right = solved(protocol, A, *sides, largest=1.0, smallest=1e-3)
    if protocol is cholesky and right:  # pivots may be larger than eigenvalues
        np.testing.assert_allclose(value @ value.T, A, atol=2.0**-29)
    else:
        assert right == 0
    assert np.abs(value).max() < 2.0**20
    _, right = solved(protocol, np.zeros((3, 3)), *[np.ones((3, 1))] * len(sides), largest=1.0, smallest=1e-3)
    assert right == 0


@pytest.mark.parametrize(("parties", "preprocessing"), SMALL_WORLDS)
@pytest.mark.parametrize(("size", "largest"), [(1, 1.0), (4, 5.0), (6, 0.3)])
def test_cholesky(size: int, largest: float, parties: int, preprocessing: str) -> None:
    A = spd(size, 1e4, seed=size, largest=largest)
    bounds = {"largest": largest, "smallest": largest * 0.9e-4}
    L, right = solved(cholesky, A, parties=parties, preprocessing=preprocessing, **bounds)
    assert right == 1
    assert (np.triu(L, 1) == 0).all()
    assert np.abs(L @ L.T - A).max() <= 2.0**-30 * largest
    np.testing.assert_allclose(L, np.linalg.cholesky(A), atol=1e-5 * math.sqrt(largest))


def test_what_is_refused_before_anything_is_sent() -> None:
    async def program(party: Party, _: Any) -> None:
        A = party.constant(np.eye(3))
        for matrix in (A[:2], A[0], party.constant(np.eye(65)), party.constant(np.zeros((0, 0)))):
            with pytest.raises(ValueError, match="shape"):
                await inverse(party, matrix, largest=1.0, smallest=0.1)
        with pytest.raises(ValueError, match="right-hand"):
            await solve(party, A, A[:2], largest=1.0, smallest=0.1)
        for largest, smallest in [(1.0, 0.0), (1.0, 2.0), (math.inf, 1.0), (math.nan, 0.1)]:
            with pytest.raises(ValueError, match="eigenvalues"):
                await cholesky(party, A, largest=largest, smallest=smallest)
        with pytest.raises(RangeError, match="far apart"):
            await inverse(party, A, largest=1.0, smallest=1e-9)

    done = run(program)
    done.results  # noqa: B018
    assert not done.sent


@given(st.fractions(Fraction(1, 1 << 22), Fraction(99, 100)))
def test_schulz_factors_bring_every_eigenvalue_to_one(low: Fraction) -> None:
    factors = schulz_factors(low)
    assert len(factors) <= 4 + math.log2(1 / low) * 0.55 + 4
    for start in (low, (1 + low) / 2, Fraction(1)):
        z = start
        for eighths in factors:
            z = Fraction(eighths, 8) * z * (2 - z)
            z = Fraction(round(z * (1 << 80)), 1 << 80)
            assert 0 < z < 2
        assert abs(1 - z) <= Fraction(1, 1 << 15)


@pytest.mark.parametrize("size", [2, 5])
def test_costs(size: int) -> None:
    """Rounds do not depend on the size, but for the factor."""

    async def program(party: Party, _: Any) -> Any:
        A = party.constant(np.eye(size) / 2, scale=_SCALE)
        seen = []
        for protocol, sides in ((inverse, []), (solve, [party.constant(np.ones(size))]), (cholesky, [])):
            before = party.costs.rounds
            await protocol(party, A, *sides, largest=1.0, smallest=1e-5)
            seen.append(party.costs.rounds - before)
        return seen

    inverted, equations, factored = run(program, parties=2).results[0]
    steps = len(schulz_factors(Fraction(1e-5)))
    assert (steps, inverted, equations) == (13, 43, 45)
    assert 20 * size < factored < 25 * size + 15


@pytest.mark.parametrize(("parties", "preprocessing"), SMALL_WORLDS)
@pytest.mark.parametrize("protocol", [inverse, cholesky])
def test_rehearsal(protocol: Any, parties: int, preprocessing: str) -> None:
    async def program(party: Party, _: Any) -> Any:
        A = party.constant(np.array([[0.5, 0.25], [0.25, 0.5]]), scale=_SCALE)

        async def prepared(party: Party) -> Any:
            return await protocol(party, A, largest=1.0, smallest=0.1)

        await prepare(party, prepared)
        return await open_(party, *await prepared(party))

    value, right = run(program, parties=parties, preprocessing=preprocessing).results[0]
    truth = np.array([[8, -4], [-4, 8]]) / 3 if protocol is inverse else np.sqrt([[0.5, 0], [0.125, 0.375]])
    np.testing.assert_allclose(value, truth, atol=1e-8)
    assert right == 1


@pytest.mark.parametrize("part", [0.25, 0.35, 0.45, 0.6, 0.8])
def test_a_nearly_regular_matrix_is_right_or_told(part: float) -> None:
    """Between the smallest eigenvalue that counts and those that are too small, the bit is as good as the result."""
    A = grid(np.diag([part * 1e-3, 0.3, 0.5, 0.7, 1.0]))
    X, right = solved(solve, A, np.ones((5, 1)), largest=1.0, smallest=1e-3, parties=2, preprocessing="dealer")
    if right:
        assert np.abs(A @ X - 1).max() <= 2.0**-28
