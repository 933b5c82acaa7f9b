"""Slots: polynomials modulo ``x^N + 1`` whose products are products of numbers, entry by entry, modulo ``2^b - 1``.

For a Mersenne prime p, ``p + 1`` is a power of 2. There is no 2N-th root of unity z modulo p, but there is one among
the numbers ``u + v i`` with ``i^2 = -1`` (the field of ``p^2`` elements, as p is 3 modulo 4), and it lies on the unit
circle: p is -1 modulo 2N, and raising to the p-th power, which is conjugation there, inverts it. So, as over the real
numbers (Cheon, Kim, Kim, Song, ASIACRYPT 2017, section 3.2), a polynomial f with coefficients modulo p is given by its
values at half of the odd powers of z; those at the other half are their conjugates. That makes N/2 slots, each of
which holds a real and an imaginary part (Smart, Vercauteren, Designs, Codes and Cryptography 71, 2014, for slots as
such; of degree 2 here). Multiplication modulo p and ``x^N + 1`` is that of slots, exactly.

Values are taken at the powers ``z^(4j + 1)``. There ``x^(N/2)`` is i, so that f has the values of ``sum (f_k + i f_(k
+ N/2)) x^k``, k below N/2: a transform of half the length, of ``u + v i`` with the first half of f's coefficients for
u, and the second for v.
"""

from __future__ import annotations

from functools import cache, cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mpc._copying import as_plain, join, stack
from mpc.field import F61, F127

if TYPE_CHECKING:
    from mpc.field import Field, FieldArray

    Number = tuple[int, int]

__all__ = ["Slots", "slots_of"]


class _Loops(NamedTuple):
    """The C loops of one field."""

    evaluate: np.ufunc
    interpolate: np.ufunc


class Slots:
    """Slots of polynomials over F61 or F127.

    Parameters
    ----------
    field : Field
    degree : int
        N, a power of 2, at least 4.
    """

    def __init__(self, field: Field, degree: int) -> None:
        if field not in (F61, F127) or degree < 4 or degree & (degree - 1) or (field.modulus + 1) % (2 * degree):
            raise ValueError(f"there are no slots of polynomials of degree {degree} over {field}")
        self.field = field
        self.degree = degree

    @property
    def count(self) -> int:
        """How many slots there are."""
        return self.degree // 2

    def values(self, polynomial: FieldArray) -> FieldArray:
        """Return what is in the slots of a polynomial: real and imaginary parts, shape ``(2, N/2)``.

        Parameters
        ----------
        polynomial : FieldArray
            Coefficients, shape ``(N,)``.
        """
        found = self._evaluate if self._loops is None else self._loops.evaluate
        return np.asarray(found(polynomial, *self._roots)).reshape(2, self.count)

    def polynomial(self, values: FieldArray) -> FieldArray:
        """Undo :meth:`values`."""
        found = self._interpolate if self._loops is None else self._loops.interpolate
        return np.asarray(found(values.reshape(self.degree), *self._roots))

    def __repr__(self) -> str:
        return f"Slots({self.field}, {self.degree})"

    # ---- transforms -------------------------------------------------------------------------------------------------

    @cached_property
    def _loops(self) -> _Loops | None:
        if self.field.backend != "c":
            return None
        from mpc import _kernels as c

        if self.field is F127:
            return _Loops(c.f127_evaluate, c.f127_interpolate)
        return _Loops(c.f61_evaluate, c.f61_interpolate)

    def _evaluate(self, polynomial: FieldArray, cosines: FieldArray, sines: FieldArray) -> FieldArray:
        """Replace a polynomial modulo ``x^2t - w^2``, again and again, by those modulo ``x^t - w`` and ``x^t + w``."""
        field, values = self.field, polynomial.copy()
        m, t = 1, self.count // 2
        while t:
            real, imaginary = values.reshape(2, m, 2, t)
            c, s = cosines[m : 2 * m, None], sines[m : 2 * m, None]
            upper, lower = real[:, 1], imaginary[:, 1]
            turned = (
                field.sub(field.mul(upper, c), field.mul(lower, s)),
                field.add(field.mul(upper, s), field.mul(lower, c)),
            )
            for part, added in zip((real, imaginary), turned, strict=True):
                rest = field.sub(part[:, 0], added)
                part[:, 0] = field.add(part[:, 0], added)
                part[:, 1] = rest
            m, t = 2 * m, t // 2
        return values

    def _interpolate(self, values: FieldArray, cosines: FieldArray, sines: FieldArray) -> FieldArray:
        """Undo :meth:`_evaluate`; a root's inverse is its conjugate."""
        field, halves = self.field, values.copy()
        m, t = self.count // 2, 1
        while m:
            real, imaginary = halves.reshape(2, m, 2, t)
            c, s = cosines[m : 2 * m, None], sines[m : 2 * m, None]
            upper, lower = (field.sub(part[:, 0], part[:, 1]) for part in (real, imaginary))
            for part in (real, imaginary):
                part[:, 0] = field.add(part[:, 0], part[:, 1])
            real[:, 1] = field.add(field.mul(upper, c), field.mul(lower, s))
            imaginary[:, 1] = field.sub(field.mul(lower, c), field.mul(upper, s))
            m, t = m // 2, 2 * t
        return field.scale_int(halves, pow(self.count, -1, field.modulus))

    # ---- roots of unity ---------------------------------------------------------------------------------------------

    @cached_property
    def _roots(self) -> tuple[FieldArray, FieldArray]:
        """Real and imaginary parts of w at the nodes of the tree of moduli: 1 the whole, 2k, 2k + 1 the parts of k."""
        n, p = self.degree, self.field.modulus
        exponents = np.zeros(n // 2, np.int64)  # of w; the whole is modulo x^(N/2) - i, and i = z^(N/2)
        exponents[1] = n // 4
        for k in range(2, n // 2):  # halves of the exponents of w and of -w = z^N w
            exponents[k] = (exponents[k // 2] + (n if k % 2 else 0)) // 2
        root, powers = _root(n, p), self.field.encode([[1], [0]])
        while (known := powers.shape[1]) < 2 * n:
            powers = join([powers, self._turned(powers, _power(root, known, p))], axis=1)
        cosines, sines = np.ascontiguousarray(as_plain(powers)[:, exponents]).view(powers.dtype)
        return cosines, sines

    def _turned(self, values: FieldArray, by: Number) -> FieldArray:
        """Multiply complex numbers by one."""
        field, (u, v), (c, s) = self.field, values, by
        return stack(
            [
                field.sub(field.scale_int(u, c), field.scale_int(v, s)),
                field.add(field.scale_int(u, s), field.scale_int(v, c)),
            ]
        )


@cache
def slots_of(field: Field, degree: int) -> Slots:
    """Return slots; their roots are made once."""
    return Slots(field, degree)


def _root(degree: int, p: int) -> Number:
    """Return z of order 2N with ``z^(N/2) = i``."""
    base = 2
    while True:
        circle = _power((base, 1), p - 1, p)  # conjugate over itself, so that its order divides p + 1
        root = _power(circle, (p + 1) // (2 * degree), p)
        quarter = _power(root, degree // 2, p)
        if quarter[0] == 0:
            return root if quarter[1] == 1 else (root[0], p - root[1])
        base += 1


def _times(x: Number, y: Number, p: int) -> Number:
    return (x[0] * y[0] - x[1] * y[1]) % p, (x[0] * y[1] + x[1] * y[0]) % p


def _power(x: Number, exponent: int, p: int) -> Number:
    total = (1, 0)
    while exponent:
        if exponent & 1:
            total = _times(total, x, p)
        x, exponent = _times(x, x, p), exponent >> 1
    return total
