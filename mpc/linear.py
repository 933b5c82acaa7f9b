"""Small symmetric positive definite matrices on shares: inverses, systems of equations, Cholesky factors.

An inverse comes from Schulz's iteration, because its rounds grow with the logarithm of the condition number
and not with the size of the matrix; a Cholesky factor takes one inverse square root for each column, one after
the other. Whether a matrix was regular is a secret: it is told by a shared bit, never by an error.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mpc.arithmetic import mask, matmul, multiply, truncate
from mpc.comparison import less_than
from mpc.elementary import inverse_sqrt
from mpc.errors import RangeError
from mpc.normalise import ceil_log2, masked_at, rescaled, room
from mpc.share import Share, concatenate, stack

if TYPE_CHECKING:
    from mpc.party import Party

LARGEST_SIZE = 64
# Fraction bits of A in units of a power of two above its largest eigenvalue: in Schulz steps, and in residuals.
_COARSE_SCALE, _FINE_SCALE = 38, 54
_PRODUCT_SCALE = 32
# "Right" means that I - A V, with V the approximate inverse, is below 2^-12 (Frobenius norm).
_TOLERANCE_BITS = 12
# How far V may be above its bound for regular matrices, without the check failing.
_SLACK = Fraction(11, 10)
# Right-hand sides and residuals enter a product with V with so many bits below their bounds.
_SIDE_BITS = 32
# Fraction bits of the solution and its corrections, in units of the right-hand side over the largest eigenvalue.
_SOLUTION_SCALES = (18, 28, 36)
_FACTOR_SCALE = 36


class Solved(NamedTuple):
    """A result, and whether it is one.

    Attributes
    ----------
    value : Share
        Where the matrix was not regular enough: some bounded number.
    right : Share
        One bit, shape (), scale 0: 1 if the matrix was regular and the value is right, else 0.
    """

    value: Share
    right: Share


# Masks are as long as eigenvalues within the promised range need.
_NO_PROMISES = (
    "a party could share what makes a matrix that breaks the promise which hides it; open it, and solve there"
)


async def solve(party: Party, A: Share, B: Share, *, largest: float, smallest: float) -> Solved:
    """Solve ``A X = B`` for a symmetric positive definite matrix.

    Parameters
    ----------
    party : Party
    A : Share
        Shape (d, d), d up to 64, symmetric and positive semidefinite (to rounding), any scale.
    B : Share
        Shape (d, m) or (d,).
    largest : float
        Public: no eigenvalue of A is larger; a bound on the trace will do.
    smallest : float
        Public: below this an eigenvalue need not count as positive. The result is right for every matrix
        whose smallest eigenvalue is larger.

    Returns
    -------
    Solved
        X, of the shape of B; bounded by ``2.3 d B.bound / smallest``; unmasked.

    Raises
    ------
    RangeError
        Before anything is sent: ratio and size leave no room in the field. With three parties
        ``largest / smallest`` may be about 2^19 for 64 columns.

    Notes
    -----
    Error: where ``right`` is 1, no entry of the residual ``B - A X`` is above ``2^-31 sqrt(d) B.bound``, and
    with it the relative error of X is at most ``cond(A)`` times that. Two steps of iterative
    refinement (residuals are exact: nothing is truncated before the difference is taken) make up for the
    coarse inverse.
    If A has an eigenvalue above ``largest`` or below 0, bounds that masks are based on may not hold: that is the
    caller's promise, as with :meth:`mpc.share.Share.bounded_by`. A singular or nearly singular A breaks none.
    Semi-honest. Opens masked values alone (statistical, 2^-40 an entry).
    Cost: :func:`inverse`'s with m columns in the refinement, and 2 rounds more: 45 for a ratio of 10^5.
    """
    party.semi_honest_only("solve", _NO_PROMISES)
    size, exponent = _checked(A, largest, smallest)
    if B.ndim not in (1, 2) or len(B) != size:
        raise ValueError(f"solve: the right-hand side has shape {B.shape}, the matrix {A.shape}")
    if B.magnitude.bit_length() > room(party, B.field):
        raise RangeError(f"solve: a right-hand side of {B.magnitude.bit_length()} bits leaves no room: truncate first")
    low = Fraction(smallest) / Fraction(2) ** exponent
    A, V, right = await _approximate_inverse(party, A, exponent, low)
    good = await mask(party.at("right"), right)
    sides = B.reshape(size, -1)
    unit = B.magnitude.bit_length()
    sides = await multiply(party, rescaled(sides, unit), good)  # below 1; 0 if the matrix was not regular
    X = await _refined(party, A, V, sides, low)
    return Solved(rescaled(X, X.scale + exponent + B.scale - unit).reshape(B.shape), right)


async def inverse(party: Party, A: Share, *, largest: float, smallest: float) -> Solved:
    """Invert a symmetric positive definite matrix; see :func:`solve`.

    Returns
    -------
    Solved
        Shape (d, d); bounded by ``1.2 d / smallest``; unmasked; symmetric to rounding.

    Notes
    -----
    Schulz's iteration ``V <- c V (2 I - A V)`` (Ben-Israel, Cohen, SIAM J. Numer. Anal. 3, 1966), with factors
    c that make small eigenvalues grow fourfold a step (Pan, Schreiber, SIAM J. Sci. Stat. Comput. 12, 1991,
    section 4).
    Cost: :func:`schulz_factors` tells the number of steps (13 for a ratio of 10^5), of 2 rounds and ``2 d^2`` elements
    each but the first; then a check (a comparison of two values) and the refinement: for that ratio 43 rounds in all
    with a dealer, ``2 t`` more with ``prss`` and t possible colluders.
    """
    party.semi_honest_only("inverse", _NO_PROMISES)
    size, exponent = _checked(A, largest, smallest)
    low = Fraction(smallest) / Fraction(2) ** exponent
    A, V, right = await _approximate_inverse(party, A, exponent, low)
    sides = right.broadcast_to((size, size)) * np.eye(size, dtype=np.int64)
    X = await _refined(party, A, V, sides, low)
    return Solved(rescaled(X, X.scale + exponent), right)


def _checked(A: Share, largest: float, smallest: float) -> tuple[int, int]:
    """Return size, and the least e with ``largest <= 2^e``."""
    if A.ndim != 2 or A.shape[0] != A.shape[1] or not 1 <= len(A) <= LARGEST_SIZE:
        raise ValueError(f"a matrix of shape {A.shape}; it takes (d, d), with d from 1 to {LARGEST_SIZE}")
    if not 0 < smallest < largest < math.inf:
        raise ValueError("eigenvalues: 0 < smallest < largest")
    return len(A), ceil_log2(largest)


def schulz_factors(low: Fraction) -> list[int]:
    """Return the over-relaxation of each Schulz step, in units of 1/8; public, exact.

    With the eigenvalues of ``A V`` in ``[low, high]``, one step maps them to ``c z (2 - z)``; as c stays below 2,
    no eigenvalue in [0, 2) ever leaves it, whatever the matrix. The first entry is for ``V = I``, ``A <= I``.
    """
    high, factors = Fraction(1), []
    while max(1 - low, high - 1) > Fraction(1, 1 << _TOLERANCE_BITS + 4):
        least = min(low * (2 - low), high * (2 - high))
        eighths = max(8, min(15, math.floor(16 / (1 + least))))
        factors.append(eighths)
        # Rounded outwards, so that the fractions stay short.
        low, high = _grid(Fraction(eighths, 8) * least), Fraction(eighths, 8)
    return factors


def _grid(value: Fraction) -> Fraction:
    return Fraction(math.floor(value * (1 << 60)), 1 << 60)


async def _approximate_inverse(party: Party, A: Share, exponent: int, low: Fraction) -> tuple[Share, Share, Share]:
    """Return A in units of ``2^exponent``, masked, an approximate inverse of it, masked, and whether it is one.

    With exact arithmetic the eigenvalues of ``A V`` stay in [0, 2), so V at most grows by ``2 c`` a step and
    ``|A V| <= 2``, also where A is singular; the bounds below leave 5 % and a factor 2 for rounding.
    """
    scope, size = party.at("invert"), len(A)
    most = room(party, A.field)
    inverse_bits = most - _PRODUCT_SCALE - 5
    first, *others = schulz_factors(low)
    reach = 2.1 * first / 8 * math.prod(2.1 * c / 8 for c in others)
    # Rounding V in its last place must stay well below the tolerance: d^2 entries, each off by so much in the mean.
    rounding = math.sqrt((party.preprocessing.pieces_of(party.size) + 1) / 12)
    if ceil_log2(reach * size * rounding) > inverse_bits - _TOLERANCE_BITS - 2:
        raise RangeError(
            f"eigenvalues from {float(low):.3g} to 1 are too far apart for {size} columns in {A.field}: raise smallest"
        )
    A = rescaled(A, A.scale + exponent).bounded_by(1.001)
    A = await masked_at(scope, A, max(_COARSE_SCALE, min(A.scale, _FINE_SCALE)))
    coarse = A if A.scale == _COARSE_SCALE else await truncate(scope, A, _COARSE_SCALE)
    identity = np.eye(size, dtype=np.int64)

    def scale_of(bound: float) -> int:
        return min(most - _COARSE_SCALE - 3, inverse_bits - ceil_log2(bound))

    # 1. From V = I, the first step is linear in A.
    bound = 2.1 * first / 8
    start = coarse * -first + identity * (2 * first)
    V = await masked_at(scope, rescaled(start, start.scale + 3).bounded_by(bound), scale_of(bound))
    for factor in others:
        # 2. A V, then V (2 I - A V): both are products of masked matrices and cost one truncation each.
        product = (await matmul(scope, coarse, V)).bounded_by(4)
        product = await truncate(scope, product, _PRODUCT_SCALE)
        V = await matmul(scope, V, product - 2 * identity)
        bound *= 2.1 * factor / 8
        V = await truncate(scope, rescaled(V * -factor, V.scale + 3).bounded_by(bound), scale_of(bound))
    return A, V, await _is_right(party.at("check"), coarse, V, bound, low)


async def _is_right(party: Party, A: Share, V: Share, bound: float, low: Fraction) -> Share:
    """Return 1 if V is an inverse to within the tolerance, and no larger than that of a regular matrix, else 0."""
    size = len(A)
    product = await truncate(party, (await matmul(party, A, V)).bounded_by(4), 24)
    rest = product - np.eye(size, dtype=np.int64)
    off = (await multiply(party, rest, rest)).sum().bounded_by(2 * size)
    ratio = max(0, ceil_log2(float(1 / low)))
    relative = await masked_at(party, rescaled(V, V.scale + ratio), 20)  # V times (about) smallest
    large = (await multiply(party, relative, relative)).sum().bounded_by(1.1 * size * (bound / 2**ratio) ** 2)
    most = float(size * (_SLACK / low / (1 << ratio)) ** 2)
    limits = party.constant(np.array([2.0 ** (-2 * _TOLERANCE_BITS), most]), scale=48)
    fine = await less_than(party, stack([off, large]), limits)
    return (await multiply(party, fine[0], fine[1])).bounded_by(1)


async def _refined(party: Party, A: Share, V: Share, sides: Share, low: Fraction) -> Share:
    """Solve ``A X = sides`` by an approximate inverse and two steps of iterative refinement.

    Right-hand sides are at most 1 in size, and 0 where the inverse is not right; otherwise ``|I - A V| <= 2^-12`` and
    ``|V| <= 1.1 sqrt(d) / low`` have been checked. So each residual is 2^-12 times the last, and rounding.
    """
    scope, size = party.at("refine"), len(A)
    norm = math.sqrt(size)
    reach = 1.01 * float(_SLACK / low) * norm
    X = await _step(scope, V, sides, norm, reach * norm, _SOLUTION_SCALES[0])
    for k, scale in enumerate(_SOLUTION_SCALES[1:], start=1):
        bound = norm * 2.0 ** (-10 * k)
        rest = sides - await matmul(scope, A, await mask(scope, X))
        X = X + await _step(scope, V, rest.bounded_by(bound), bound, reach * bound, scale)
    return X


async def _step(party: Party, V: Share, rest: Share, bound: float, reach: float, scale: int) -> Share:
    """Return V times a residual: masked, with so many fraction bits."""
    short = await masked_at(party, rest, _SIDE_BITS - ceil_log2(bound))
    return await masked_at(party, (await matmul(party, V, short)).bounded_by(reach), scale)


async def cholesky(party: Party, A: Share, *, largest: float, smallest: float) -> Solved:
    """Factor a symmetric positive definite matrix as ``L L^T``.

    Parameters
    ----------
    party : Party
    A : Share
        Shape (d, d), d up to 64, symmetric and positive semidefinite (to rounding), any scale.
    largest, smallest : float
        Public, see :func:`solve`; a pivot below ``smallest / 2`` does not count as positive, and its column of L
        is 0.

    Returns
    -------
    Solved
        L, lower triangular, bounded by ``2.1 sqrt(largest)``; ``right`` says that all pivots counted. No pivot of
        a matrix is below its smallest eigenvalue, but with a smaller eigenvalue they may count, too.

    Raises
    ------
    RangeError
        Before anything is sent: the field leaves no room.

    Notes
    -----
    Right-looking: the pivot's inverse root times its column, then an update of the rest. Error: ``A - L L^T`` is at
    most ``2^-30 largest`` in each entry. Promises and threat model as for :func:`solve`; of a semidefinite matrix no
    Schur complement has an entry above the largest of A.
    Cost: d times (:func:`mpc.inverse_sqrt` of one value, and 3 rounds with ``d - j`` elements each): for equations
    and inverses, :func:`solve` and :func:`inverse` are the better way.
    """
    party.semi_honest_only("cholesky", _NO_PROMISES)
    size, exponent = _checked(A, largest, smallest)
    exponent += exponent % 2  # so that its root is a power of two
    low = float(Fraction(smallest) / Fraction(2) ** exponent)
    least = max(low / 2, 2.0 ** (4 - _FACTOR_SCALE))
    scale = 2 * _FACTOR_SCALE
    rest = rescaled(A, A.scale + exponent).bounded_by(1.001)
    rest = rest.lifted(scale) if rest.scale <= scale else await truncate(party, rest, scale)
    columns = []
    pivots = []
    for j in range(size):
        scope = party.at("column")
        root = await inverse_sqrt(scope, rest[:1, 0].bounded_by(1.01), lower=least, upper=1.01, scale=_FACTOR_SCALE)
        column = await truncate(scope, rest[:, 0].bounded_by(1.01), _FACTOR_SCALE)
        product = (await multiply(scope, column, root)).bounded_by(1.02)
        column = await truncate(scope, product, _FACTOR_SCALE)
        pivots.append(column[:1])
        above = party.constant(np.zeros(j, np.int64)).lifted(_FACTOR_SCALE)
        columns.append(concatenate([above, column]) if j else column)
        if j + 1 < size:
            tail = column[1:]
            square = await multiply(scope, tail.reshape(-1, 1), tail.reshape(1, -1))
            rest = (rest[1:, 1:] - square).bounded_by(1.01)
    right = await _all_above(party.at("check"), concatenate(pivots), math.sqrt(least) / 2)
    L = stack(columns, axis=-1)
    return Solved(rescaled(L, L.scale - exponent // 2), right)


async def _all_above(party: Party, x: Share, limit: float) -> Share:
    """Return 1 if every entry is at least a public limit, else 0."""
    below = (await less_than(party, x, limit)).sum()
    return await less_than(party.at("count"), below, 1)
