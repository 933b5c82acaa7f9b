"""Matrix products against Python integers: the integer kernel, float64 BLAS, and the choice between them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc._crt_matmul import MAX_PRIME, MAX_PRIMES, _basis
from mpc._native import Matmul
from mpc._primes import is_prime
from mpc.field import Field, FieldArray
from tests.fields.reference import array, edges, integers


def ways(field: Field) -> list[Callable[[FieldArray, FieldArray], Any]]:
    """Every path that a product may take."""
    chosen = field._kernels.matmul
    return [field.matmul, chosen.small, chosen.large] if isinstance(chosen, Matmul) else [field.matmul]


def mixed(field: Field, *shape: int) -> Any:
    """Return edges and others, as Python integers."""
    pool = [*edges(field), *(pow(7, i * i, field.modulus) for i in range(30))]
    return np.array([pool[i * i * i % len(pool)] for i in range(int(np.prod(shape)))], dtype=object).reshape(shape)


SHAPES = [
    ((3,), (3,)),
    ((3,), (3, 2)),
    ((4, 3), (3,)),
    ((4, 3), (3, 2)),
    ((1, 1), (1, 1)),
    ((5, 4, 3), (3, 2)),
    ((4, 3), (5, 3, 2)),
    ((2, 1, 4, 3), (5, 3, 2)),
    ((5, 4, 3), (3,)),
    ((3,), (5, 3, 2)),
    ((3, 300), (300, 5)),
    ((70, 20), (20, 3)),
]


@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_shapes_of_numpy(field: Field, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    x, y = mixed(field, *left), mixed(field, *right)
    expected = np.asarray(np.matmul(x, y) % field.modulus, dtype=object)
    for multiply in ways(field):
        result = np.asarray(multiply(array(field, x), array(field, y)))
        assert result.shape == expected.shape
        assert integers(field, result) == expected.tolist()


@pytest.mark.parametrize(
    ("left", "right"),
    [((0,), (0,)), ((2, 0), (0, 3)), ((0, 3), (3, 2)), ((2, 3), (3, 0)), ((0, 0), (0,)), ((0, 2, 3), (3, 2))],
)
def test_empty_products(field: Field, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    expected = np.matmul(np.zeros(left), np.zeros(right))
    for multiply in ways(field):
        result = np.asarray(multiply(field.zeros(left), field.zeros(right)))
        assert result.shape == expected.shape
        assert integers(field, result) == expected.tolist()


@pytest.mark.parametrize(("left", "right"), [((2,), (3,)), ((2, 3), (2, 3)), ((3, 2), (3,)), ((), (2,)), ((2,), ())])
def test_shapes_that_do_not_fit(field: Field, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    for multiply in ways(field):
        with pytest.raises(ValueError):
            multiply(field.zeros(left), field.zeros(right))


@given(data=st.data())
def test_random_shapes(field: Field, data: st.DataObject) -> None:
    n, k, m = (data.draw(st.integers(1, 7)) for _ in range(3))
    entries = st.sampled_from(edges(field)) | st.integers(0, field.modulus - 1)
    x = np.array(data.draw(st.lists(entries, min_size=n * k, max_size=n * k)), dtype=object).reshape(n, k)
    y = np.array(data.draw(st.lists(entries, min_size=k * m, max_size=k * m)), dtype=object).reshape(k, m)
    expected = (x.dot(y) % field.modulus).tolist()
    for multiply in ways(field):
        assert integers(field, np.asarray(multiply(array(field, x), array(field, y)))) == expected
        transposed = multiply(array(field, x.T).T, array(field, y.T).T)
        assert integers(field, np.asarray(transposed)) == expected


# Around the blocks of the integer kernels (32, 256), the tiles of BLAS (64, 512) and the sizes of its primes.
INNER = [1, 15, 16, 17, 31, 32, 33, 255, 256, 257, 511, 512, 513, 1025, 2100]


@pytest.mark.parametrize("inner", INNER)
def test_the_largest_entries_at_every_inner_dimension(field: Field, inner: int) -> None:
    """Lazy reduction and the range of the residues are at their limits here."""
    p = field.modulus
    for a, b in ((p - 1, p - 1), (p - 1, p // 2), (p // 2, p // 2 + 1)):
        x = np.broadcast_to(array(field, [[a]]), (2, inner))
        y = np.broadcast_to(array(field, [[b]]), (inner, 3))
        for multiply in ways(field):
            assert integers(field, np.asarray(multiply(x, y))) == [[a * b * inner % p] * 3] * 2


def test_many_tiles(large: Field) -> None:
    """More rows, columns and inner entries than one tile holds, checked on vectors (Freivalds)."""
    p = large.modulus
    x, y = mixed(large, 70, 600), mixed(large, 600, 520)
    probe = np.array([3**j % 1000 for j in range(520)], dtype=object)
    expected = (x.dot(y.dot(probe) % p) % p).tolist()
    first, *others = [multiply(array(large, x), array(large, y)) for multiply in ways(large)]
    assert (np.array(integers(large, first), dtype=object).dot(probe) % p).tolist() == expected
    assert all(large.equal(other, first).all() for other in others)


def test_large_products_go_to_blas_and_small_ones_do_not() -> None:
    sizes = [(4, 4, 4), (100, 1000, 1), (1, 1000, 100), (16, 16, 16), (64, 64, 64), (256, 512, 256)]
    chosen = Matmul(lambda x, y: ["small"], lambda x, y: ["large"], entry=8, result=16, call=11_000)
    taken = [chosen(np.zeros((rows, inner)), np.zeros((inner, columns))).tolist() for rows, inner, columns in sizes]
    assert taken == [["small"]] * 4 + [["large"]] * 2


@pytest.mark.parametrize("inner", [16, 32, 64, 128, 256, 512])
def test_bounds_of_the_residues(large: Field, inner: int) -> None:
    """What the comments of the conversions promise holds for every basis that can occur."""
    basis = _basis(large.modulus, inner)
    primes = [int(m) for m in basis.moduli[:, 0]]
    assert len(set(primes)) == len(primes) <= MAX_PRIMES
    assert all(is_prime(m) and m < MAX_PRIME for m in primes)
    assert all(inner * (m // 2 + 2) ** 2 <= 2**53 for m in primes)
    assert np.prod(np.array(primes, dtype=object)) >= 4 * inner * large.modulus**2
    limbs = basis.moduli.shape[1] - 2
    assert all(sum(2**26 * abs(c) for c in row) < 2**52 for row in basis.moduli[:, 2:].tolist())
    assert all(sum((m / 2 + 2) * word for m, word in zip(primes, words, strict=True)) < 2**53
               for words in basis.weights[:-1, 3:].T.tolist())  # fmt: skip
    assert limbs * 26 >= large.bits


def test_is_prime() -> None:
    sieve = [n for n in range(2, 3000) if all(n % d for d in range(2, int(n**0.5) + 1))]
    assert [n for n in range(3000) if is_prime(n)] == sieve
    assert is_prime(2**31 - 1)
    assert not is_prime(2**31 - 3)
    assert not is_prime(25_326_001)  # passes for 2, 3 and 5
    with pytest.raises(ValueError):
        is_prime(3_215_031_751)  # the first composite that passes for all four bases
