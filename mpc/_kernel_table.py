"""The operations that a field backend provides, as one table of plain functions.

Two tables exist for every large prime: the numpy twin (``_twin61``, ``_twin127``) and the same table with the hot
entries replaced by C loops (``_native``). :class:`mpc.field.Field` looks its operations up here and knows no backend.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

FieldArray: TypeAlias = npt.NDArray[Any]
Int64Array: TypeAlias = npt.NDArray[np.int64]
Float64Array: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Kernels:
    """Operations on canonical arrays of one field.

    Attributes
    ----------
    add, sub, mul : callable
        ``f(x, y, out=None)``; they broadcast, and ``out`` may be one of the operands.
    neg : callable
        ``f(x)``.
    beaver, beaver_lead : callable
        ``f(d, e, a, b, c, out=None)``: ``d*b + e*a + c``, and the same plus ``d*e``.
    sum : callable
        ``f(x)``: sum over the last axis.
    matmul : callable
        ``f(x, y)`` with the shapes of ``numpy.matmul``.
    scale : callable
        ``f(x, k)``, k an int64 array: ``x*k``, broadcast.
    dot : callable
        ``f(x, k)``, k an int64 array: sum over the last axis of ``x*k``.
    from_int64 : callable
        ``f(k)``: ``k mod p``, for any int64.
    encode_fixed : callable
        ``f(v, factor)``, v a flat float64 array without NaN: elements, and how many were beyond ``half``.
    to_int64 : callable
        ``f(x)``, x flat: signed representatives, and how many do not fit into an int64.
    decode_fixed : callable
        ``f(x, factor)``: signed representative times a float64 power of two, correctly rounded.
    shift_round : callable
        ``f(x, bits)``: ``floor((v + 2^(bits-1)) / 2^bits)`` of the signed representative v, ``1 <= bits``.
    residue : callable
        ``f(x, m)``: signed representative modulo m, int64, ``1 <= m < 2^31``.
    noncanonical : callable
        ``f(x)``, x flat: how many entries are not in ``[0, p)``.
    low_bits : callable
        ``f(x, bits)``, x flat and of any content: its entries modulo ``2^bits``, and how many of these are >= p.
    from_objects : callable
        ``f(values)``: an object array of Python integers in ``[0, p)`` as elements.
    to_objects : callable
        ``f(x)``: elements as an object array of Python integers in ``[0, p)``.
    """

    add: Callable[..., Any]
    sub: Callable[..., Any]
    mul: Callable[..., Any]
    neg: Callable[[Any], Any]
    beaver: Callable[..., Any]
    beaver_lead: Callable[..., Any]
    sum: Callable[[Any], Any]
    matmul: Callable[[Any, Any], Any]
    scale: Callable[[Any, Any], Any]
    dot: Callable[[Any, Any], Any]
    from_int64: Callable[[Any], Any]
    encode_fixed: Callable[[Any, float], tuple[Any, Any]]
    to_int64: Callable[[Any], tuple[Any, Any]]
    decode_fixed: Callable[[Any, float], Any]
    shift_round: Callable[[Any, int], Any]
    residue: Callable[[Any, int], Any]
    noncanonical: Callable[[Any], Any]
    low_bits: Callable[[Any, int], tuple[Any, Any]]
    from_objects: Callable[[Any], Any]
    to_objects: Callable[[Any], Any]
