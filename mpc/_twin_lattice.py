"""The loops of lattice-based encryption in numpy: what ``_lattice.c`` computes, readable and several times slower.

Polynomials modulo ``x^n + 1`` and a prime q, of 33 to 48 bits, are arrays of uint64 below q whose last axis is n long.
All functions broadcast over the axes before; moduli have one entry for each polynomial.

A product modulo q is ``x w - k q`` modulo 2^64 with k the quotient ``x w / q``, rounded in floating point: for
``x < 4q < 2^50`` and ``w < q`` it is off by at most 1/4 before it is rounded to an integer, so that ``x w - k q`` is
within 3/4 q of zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[np.uint64]
    Floats = NDArray[np.float64]

_LIMB_BITS = 32


def forward(x: Words, roots: Words, ratios: Floats, q: Words) -> Words:
    """Evaluate polynomials at the odd powers of a 2n-th root of unity, in bit-reversed order.

    Parameters
    ----------
    x : numpy.ndarray
        Entries below 4q.
    roots : numpy.ndarray
        The root's powers, their exponents in bit-reversed order.
    ratios : numpy.ndarray
        float64, ``roots / q``.
    q : numpy.ndarray
        Moduli, one axis less.

    Notes
    -----
    Longa, Naehrig, CANS 2016, algorithm 1; Harvey, J. Symb. Comput. 60, 2014, for the lazy reduction: entries stay
    below 4q.
    """
    n = _checked(x)
    values, modulus = _copied(x, roots, q), np.asarray(q)[..., None, None]
    m, t = 1, n // 2
    while t:
        pairs = values.reshape(*values.shape[:-1], m, 2, t)
        upper = less(pairs[..., 0, :], 2 * modulus)
        lower = _times(pairs[..., 1, :], roots[..., m : 2 * m, None], ratios[..., m : 2 * m, None], modulus)
        pairs[..., 0, :] = upper + lower
        pairs[..., 1, :] = upper - lower + 2 * modulus
        m, t = 2 * m, t // 2
    modulus = modulus[..., 0]
    return less(less(values, 2 * modulus), modulus)


def backward(x: Words, roots: Words, ratios: Floats, q: Words) -> Words:
    """Undo :func:`forward`; entries below 2q, roots inverse, ``roots[0] = 1 / n``."""
    n = _checked(x)
    values, modulus = _copied(x, roots, q), np.asarray(q)[..., None, None]
    m, t = n // 2, 1
    while m:
        pairs = values.reshape(*values.shape[:-1], m, 2, t)
        upper, lower = pairs[..., 0, :].copy(), pairs[..., 1, :].copy()
        pairs[..., 0, :] = less(upper + lower, 2 * modulus)
        pairs[..., 1, :] = _times(
            upper - lower + 2 * modulus, roots[..., m : 2 * m, None], ratios[..., m : 2 * m, None], modulus
        )
        m, t = m // 2, 2 * t
    modulus = modulus[..., 0]
    return less(_times(values, roots[..., :1], ratios[..., :1], modulus), modulus)


def multiply_add(x: Words, y: Words, z: Words, q: Words) -> Words:
    """Return ``x y + z`` modulo q, entry by entry; all below q."""
    modulus = np.asarray(q)[..., None]
    quotient = np.rint(x.astype(np.float64) * y.astype(np.float64) * (1 / modulus.astype(np.float64)))
    product = x * y - quotient.astype(np.uint64) * modulus + modulus  # below 8/5 q
    return less(less(product + z, 2 * modulus), modulus)


def drop(x: Words, r: Words, q: Words, p: Words, inverse: Words) -> Words:
    """Return ``(x - r) / p`` modulo q, for residues modulo q and p of the same integer, r between -p/2 and p/2.

    Each of the primes is below twice the other; ``inverse`` is that of p modulo q.
    """
    q, p, inverse = (np.asarray(number)[..., None] for number in (q, p, inverse))
    half = p // np.uint64(2)
    raised = less(less(r + half, p), q)
    ratio = inverse / q.astype(np.float64)
    return less(_times(x + half + q - raised, inverse, ratio, q), q)  # multiplied is what is below 3q


def residues(limbs: NDArray[np.uint32], q: Words, offset: Words) -> Words:
    """Return integers modulo q, plus an offset below q.

    Parameters
    ----------
    limbs : numpy.ndarray
        uint32, shape ``(..., n, l)``, the lowest limb first.
    """
    modulus = np.asarray(q)[..., None]
    base = np.uint64(1 << _LIMB_BITS)
    ratio = float(base) / modulus.astype(np.float64)
    total = limbs[..., -1].astype(np.uint64) + np.zeros_like(modulus)
    for limb in range(limbs.shape[-1] - 2, -1, -1):
        total = _times(total, base, ratio, modulus) + limbs[..., limb]
    return less(less(less(total, 2 * modulus) + np.asarray(offset)[..., None], 2 * modulus), modulus)


def less(x: Words, m: Words | np.uint64) -> Words:
    """Return x modulo m, for ``x < 2m``: the difference wraps to something larger where x is below m."""
    reduced: Words = np.minimum(x, x - m)
    return reduced


def _times(x: Words, w: Words | np.uint64, ratio: Floats, q: Words) -> Words:
    """Return ``x w`` modulo q, between q / 4 and 7/4 q, for ``x < 4q`` and ``w < q``."""
    return x * w - np.rint(x.astype(np.float64) * ratio).astype(np.uint64) * q + q


def _checked(x: Words) -> int:
    n = int(x.shape[-1])
    if n < 64 or n & (n - 1):
        raise ValueError("transforms take 2^k numbers, at least 64")
    return n


def _copied(x: Words, roots: Words, q: Words) -> Words:
    front = np.broadcast_shapes(x.shape[:-1], roots.shape[:-1], np.shape(q))
    return np.array(np.broadcast_to(x, (*front, x.shape[-1])), order="C")
