"""Proofs that correlated elements are bits, without showing them.

The prover has x and M, the holder Delta and ``K = M + Delta x``. Then

    ``K^2 - Delta K = M^2 + Delta M (2x - 1) + Delta^2 (x^2 - x)``,

of degree 1 in Delta if x is a bit. The prover shows the two coefficients, each of them a random combination over all
elements, under a correlated element that is used for nothing else: ``K' = M' + Delta x'`` with x' uniform (Yang,
Sarkar, Weng, Wang, "QuickSilver", CCS 2021, section 4, for the polynomial ``x^2 - x``).

**Soundness.** The weights come from a coin that was tossed when all elements were fixed. If one is no bit, the
coefficient of Delta^2 is not 0 but with probability 1/p, and then at most two Delta of all make the equation hold:
3/p together, where the prover means one element at all digits of Delta. But it may mean others at other digits
(:mod:`mpc.ot.correlated`), and no batch check looks at K', which may be M' and any function of Delta that is fixed when
the coin is tossed. Such a function fits the equations of two coins, which differ by a polynomial of degree 2, for at
most two keys. So among p keys, those that pass are on average at most ``sqrt(2 p) + 1``: a part of 2^-63. Where the
bits themselves are off the line that the batch check finds (:mod:`mpc.ot.macs`, item 2), there are the fewer keys the
more lines there are; with its counting by triples the part is below 2^-50. Each holder convinces itself; that it is the
same bit toward all is the check of the batch. Where that looks at sums over owners only (``apart``), two owners may
bring functions of the key that cancel in the sum. Each is additive over the key's digits, so it is not 0 for some keys
and Delta for others; and where a single owner's row is used, each opening's MAC would be off by the unknown key.

**What is shown** is uniform given what the holder knows: the second element by x', the first follows from it. For two
holders who put together what they have, x' must differ between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpc._copying import join

if TYPE_CHECKING:
    from mpc.field import Field, FieldArray

PROOF_ELEMENTS = 2


def proof(field: Field, weights: FieldArray, bits: FieldArray, tags: FieldArray, last: FieldArray) -> FieldArray:
    """Return what the prover shows, two elements.

    Parameters
    ----------
    field : Field
    weights, bits, tags : FieldArray
        Shape ``(n,)``: the public weights, x and M. Any elements are taken for bits.
    last : FieldArray
        x' and M'.
    """
    linear = field.mul(tags, field.sub(field.add(bits, bits), field.encode([1])))
    constant = field.mul(tags, tags)
    both = [field.matmul(weights, constant).reshape(1), field.matmul(weights, linear).reshape(1)]
    return field.add(join(both), last[::-1])


def holds(
    field: Field, weights: FieldArray, keys: FieldArray, last: FieldArray, delta: FieldArray, shown: FieldArray
) -> bool:
    """Return whether what was shown is right, as the holder.

    Parameters
    ----------
    field : Field
    weights, keys : FieldArray
        Shape ``(n,)``: the public weights, and K.
    last : FieldArray
        K', shape ``(1,)``.
    delta : FieldArray
        One element.
    shown : FieldArray
        What the prover's :func:`proof` returned.
    """
    quadratic = field.mul(keys, field.sub(keys, delta))
    left = field.add(field.matmul(weights, quadratic).reshape(1), last)
    right = field.add(shown[:1], field.mul(shown[1:], delta))
    return bool(field.equal(left, right).all())
