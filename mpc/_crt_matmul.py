"""Exact matrix products over a prime field by float64 BLAS.

Both factors are reduced modulo several word-sized primes ``m_i``, centred around zero. Each of the products is one
float64 matrix product without any rounding, because ``k * (m_i / 2)^2 <= 2^53``; the exact integer result, below
``k * p^2``, is found from its residues by the explicit Chinese remainder theorem, and reduced modulo p on the way:

    ``X = sum_i t_i * (M / m_i) - round(sum_i t_i / m_i) * M``,  ``t_i = X * (M / m_i)^-1 mod m_i``

with ``M / m_i`` and ``M`` replaced by their remainders modulo p (Bernstein, "Multidigit modular multiplication with
the explicit Chinese remainder theorem", 1995). ``M >= 4 * k * p^2`` keeps the rounding far from a tie.

All arithmetic is on float64 integers below 2^53. Field elements enter and leave as limbs of 26 bits:

- into residues: ``sum_j limb_j * c_j`` with ``limb_j < 2^26`` and ``|c_j| <= m/2 < 2^23``, at most 5 limbs: < 2^51.4;
- out of them: ``sum_i t_i * W_ij`` with ``|t_i| < 2^23 + 2``, ``W_ij < 2^26`` and at most 15 primes: < 2^53.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from math import isqrt, prod

import numpy as np

from mpc._copying import as_plain, copy_into
from mpc._kernel_table import FieldArray, Float64Array
from mpc._primes import is_prime

LIMB_BITS = 26
MAX_PRIME = 2**24
MAX_PRIMES = 15
# The residues of y are the one large allocation (25 MB at most), all others are small beside it: then malloc keeps
# the memory from call to call. With equal tiles every call faults its pages in anew, at a fifth of the time.
TILE_ROWS, TILE_INNER, TILE_COLUMNS = 64, 512, 512


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """Word-sized primes for inner dimensions up to some ``k``, and the constants of both conversions.

    Attributes
    ----------
    moduli : numpy.ndarray
        float64, shape (q, 2 + limbs): ``m``, ``1/m``, and ``2^(26 j) mod m``, centred, for each limb j.
    weights : numpy.ndarray
        float64, shape (q + 1, 3 + limbs): ``m``, ``1/m``, ``(M/m)^-1 mod m`` (centred) and the limbs of
        ``M/m mod p``; the last row holds the limbs of ``-M mod p`` behind three zeros.
    """

    moduli: Float64Array
    weights: Float64Array

    @property
    def size(self) -> int:
        return len(self.moduli)


def _centred(value: int, modulus: int) -> int:
    value %= modulus
    return value - modulus if 2 * value > modulus else value


@lru_cache(maxsize=64)
def _basis(modulus: int, inner: int) -> Basis:
    limbs = -(-modulus.bit_length() // LIMB_BITS)
    # Rounding of a quotient may leave a residue a little above m/2, by less than 2: inner * (m/2 + 2)^2 <= 2^53.
    limit = min(MAX_PRIME, 2 * (isqrt(2**53 // inner) - 2))
    needed = 4 * inner * modulus**2
    primes: list[int] = []
    for candidate in count(limit - 1, -1):
        if is_prime(candidate):
            primes.append(candidate)
            if prod(primes) >= needed:
                break
    if len(primes) > MAX_PRIMES:
        raise ValueError(f"an inner dimension of {inner} needs {len(primes)} primes")
    whole = prod(primes)

    def split(value: int) -> list[int]:
        return [(value >> (LIMB_BITS * j)) % 2**LIMB_BITS for j in range(limbs)]

    moduli = [[m, 1 / m, *(_centred(1 << (LIMB_BITS * j), m) for j in range(limbs))] for m in primes]
    weights = [[m, 1 / m, _centred(pow(whole // m, -1, m), m), *split(whole // m % modulus)] for m in primes]
    weights.append([0, 0, 0, *split(-whole % modulus)])
    return Basis(np.array(moduli, dtype=np.float64), np.array(weights, dtype=np.float64))


def residues_from_limbs(limbs: list[Float64Array], moduli: Float64Array) -> Float64Array:
    """Centred residues, shape (q, n), of the numbers ``sum_j limbs[j] * 2^(26 j)``, n of them (the numpy twin)."""
    out = np.empty((len(moduli), len(limbs[0])), dtype=np.float64)
    for row, (m, inverse, *powers) in zip(out, moduli.tolist(), strict=True):
        total = sum(limb * power for limb, power in zip(limbs, powers, strict=True))
        np.subtract(total, np.rint(total * inverse) * m, out=row)
    return out


def limbs_from_products(products: Float64Array, weights: Float64Array) -> list[Float64Array]:
    """Signed limbs, each of at most 53 bits, of n field elements, from their products (q, n) (the numpy twin)."""
    shape = products.shape[1:]
    quotient = np.zeros(shape)
    limbs = [np.zeros(shape) for _ in range(weights.shape[1] - 3)]
    for row, (m, inverse, cofactor, *words) in zip(products, weights[:-1].tolist(), strict=True):
        t = row - np.rint(row * inverse) * m
        t *= cofactor
        t -= np.rint(t * inverse) * m
        quotient += t * inverse
        for limb, word in zip(limbs, words, strict=True):
            limb += t * word
    quotient = np.rint(quotient)
    for limb, word in zip(limbs, weights[-1, 3:].tolist(), strict=True):
        limb += quotient * word
    return limbs


@dataclass(frozen=True, slots=True)
class CrtMatmul:
    """Matrix products over one field.

    Attributes
    ----------
    modulus : int
        The field's prime.
    residues : callable
        ``f(x, moduli)``: centred residues (q, n) of a flat array of n elements.
    join : callable
        ``f(products, weights)``: elements (n,) from exact products (q, n).
    add : callable
        Field addition.
    """

    modulus: int
    residues: Callable[[FieldArray, Float64Array], Float64Array]
    join: Callable[[Float64Array, Float64Array], FieldArray]
    add: Callable[[FieldArray, FieldArray], FieldArray]

    def __call__(self, x: FieldArray, y: FieldArray) -> FieldArray:
        """Multiply with the shapes of ``numpy.matmul``."""
        if x.ndim == 0 or y.ndim == 0 or x.shape[-1] != y.shape[0 if y.ndim == 1 else -2]:
            raise ValueError(f"matmul: shapes {x.shape} and {y.shape} do not fit")
        rows = x[np.newaxis, :] if x.ndim == 1 else x
        columns = y[:, np.newaxis] if y.ndim == 1 else y
        stack = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
        rows = np.broadcast_to(rows, (*stack, *rows.shape[-2:]))
        columns = np.broadcast_to(columns, (*stack, *columns.shape[-2:]))
        out = np.zeros((*stack, rows.shape[-2], columns.shape[-1]), dtype=x.dtype)
        for index in np.ndindex(stack):
            self._multiply(rows[index], columns[index], out[index])
        if x.ndim == 1:
            out = out[..., 0, :]
        return out[..., 0] if y.ndim == 1 else out

    def _multiply(self, x: FieldArray, y: FieldArray, out: FieldArray) -> None:
        """Multiply two matrices in tiles, so that the residues stay small; ``out`` starts as zeros."""
        inner = x.shape[1]
        basis = _basis(self.modulus, max(16, 1 << (min(inner, TILE_INNER) - 1).bit_length()))
        for c in _tiles(y.shape[1], TILE_COLUMNS):
            for k in _tiles(inner, TILE_INNER):
                right = self._residues(y[k, c], basis)
                for r in _tiles(x.shape[0], TILE_ROWS):
                    products = np.matmul(self._residues(x[r, k], basis), right)
                    shape = products.shape[1:]
                    part = self.join(products.reshape(basis.size, prod(shape)), basis.weights).reshape(shape)
                    copy_into(out[r, c], part if k.start == 0 else self.add(out[r, c], part))

    def _residues(self, x: FieldArray, basis: Basis) -> Float64Array:
        flat = as_plain(x).reshape(-1).view(x.dtype)
        return self.residues(flat, basis.moduli).reshape(basis.size, *x.shape)


def _tiles(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]
