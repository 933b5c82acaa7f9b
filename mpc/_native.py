"""The tables of F61 and F127 with their hot entries replaced by the C loops of ``_kernels``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mpc import _twin61, _twin127
from mpc._crt_matmul import CrtMatmul
from mpc._kernel_table import FieldArray, Kernels

SMALL = 512  # entries; below, deciding would cost more than it saves


def _with_int64(loop: np.ufunc) -> Callable[[Any, int], Any]:
    """Let the second operand of a loop be a Python int: loops for structures know numpy types only."""
    return lambda x, k: loop(x, np.int64(k))


def _with_float64(loop: np.ufunc) -> Callable[[Any, float], Any]:
    return lambda x, factor: loop(x, np.float64(factor))


@dataclass(frozen=True, slots=True)
class Matmul:
    """The integer kernel for small matrix products, float64 BLAS for large ones.

    Attributes
    ----------
    small, large : callable
        The two ways to multiply.
    entry, result, call : int
        What BLAS costs for each entry of an operand, each entry of the result and each call, measured in
        multiply-adds of the integer kernel. Products with vectors never pay.
    """

    small: Callable[[Any, Any], Any]
    large: Callable[[Any, Any], Any]
    entry: int
    result: int
    call: int

    def __call__(self, x: FieldArray, y: FieldArray) -> FieldArray:
        if x.size < SMALL or y.size < SMALL or x.ndim < 2 or y.ndim < 2:
            return np.asarray(self.small(x, y))
        rows, inner, columns = *x.shape[-2:], y.shape[-1]
        extra = self.entry * inner * (rows + columns) + self.result * rows * columns + self.call
        return np.asarray((self.large if rows * inner * columns > extra else self.small)(x, y))


def load(modulus: int) -> Kernels | None:
    """Return the table of a prime, or None where the extension was not built."""
    try:
        from mpc import _kernels as c
    except ImportError:
        return None
    if modulus == _twin61.MODULUS:
        blas = CrtMatmul(modulus, c.f61_residues, c.f61_join, c.f61_add)
        return replace(
            _twin61.kernels(),
            add=c.f61_add,
            sub=c.f61_sub,
            mul=c.f61_mul,
            neg=c.f61_neg,
            beaver=c.f61_beaver,
            beaver_lead=c.f61_beaver_lead,
            sum=c.f61_sum,
            matmul=Matmul(c.f61_matmul, blas, entry=12, result=26, call=38_000),
            scale=c.f61_scale,
            dot=c.f61_dot,
            from_int64=c.f61_from_int64,
            encode_fixed=_with_float64(c.f61_encode_fixed),
            to_int64=c.f61_to_int64,
            decode_fixed=_with_float64(c.f61_decode_fixed),
            shift_round=_with_int64(c.f61_shift_round),
            residue=_with_int64(c.f61_residue),
            noncanonical=c.f61_noncanonical,
        )
    blas = CrtMatmul(modulus, c.f127_residues, c.f127_join, c.f127_add)
    return replace(
        _twin127.kernels(),
        add=c.f127_add,
        sub=c.f127_sub,
        mul=c.f127_mul,
        neg=c.f127_neg,
        beaver=c.f127_beaver,
        beaver_lead=c.f127_beaver_lead,
        sum=c.f127_sum,
        matmul=Matmul(c.f127_matmul, blas, entry=8, result=16, call=11_000),
        scale=c.f127_scale,
        dot=c.f127_dot,
        from_int64=c.f127_from_int64,
        encode_fixed=_with_float64(c.f127_encode_fixed),
        to_int64=c.f127_to_int64,
        decode_fixed=_with_float64(c.f127_decode_fixed),
        shift_round=_with_int64(c.f127_shift_round),
        residue=_with_int64(c.f127_residue),
        noncanonical=c.f127_noncanonical,
        low_bits=_with_int64(c.f127_low_bits),
    )
