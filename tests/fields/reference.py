"""Fields on a chosen backend, and the same numbers as Python integers: what the tests of the fields compare with."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from mpc import _native, _twin61, _twin127
from mpc._kernel_table import Kernels
from mpc._small import SmallField
from mpc.field import Field, FieldArray

SMALL_PRIMES = (5, 7, 2**31 - 1)
LARGE_PRIMES = (_twin61.MODULUS, _twin127.MODULUS)


def field_on(modulus: int, backend: str) -> Field | None:
    """Return a field of its own on a backend, whatever the environment says; None where there is none."""
    field = Field(modulus)
    kernels: Kernels | None
    if modulus in SMALL_PRIMES:
        kernels = SmallField(modulus).kernels()
    elif backend == "c":
        kernels = _native.load(modulus)
    else:
        kernels = (_twin61 if modulus == _twin61.MODULUS else _twin127).kernels()
    if kernels is None:
        return None
    field.__dict__["_kernels"] = kernels
    return field


def array(field: Field, values: Any) -> FieldArray:
    """Return elements from (nested lists of) integers of any size, word by word."""
    reduced: Any = np.asarray(np.array(values, dtype=object) % field.modulus, dtype=object)
    if field.dtype.names is None:
        return np.asarray(reduced, dtype=np.uint64)
    out: FieldArray = np.empty(reduced.shape, dtype=field.dtype)
    out["lo"] = np.asarray(reduced & (2**64 - 1), dtype=np.uint64)
    out["hi"] = np.asarray(reduced >> 64, dtype=np.uint64)
    return out


def integers(field: Field, x: FieldArray) -> Any:
    """Return elements as (nested lists of) Python integers, having checked their type and range."""
    assert isinstance(x, np.ndarray)
    assert x.dtype == field.dtype
    if field.dtype.names is None:
        out = x.astype(object)
    else:
        out = np.asarray(x["hi"].astype(object) * 2**64 + x["lo"].astype(object), dtype=object)
    assert all(0 <= v < field.modulus for v in out.reshape(-1).tolist())
    return out.tolist()


def signed(field: Field, value: int) -> int:
    """Return the representative of least size."""
    value %= field.modulus
    return value - field.modulus if value > field.modulus // 2 else value


def edges(field: Field) -> list[int]:
    """Return where words, limbs and the range end, as residues, without repetition."""
    p = field.modulus
    powers = [2**k + offset for k in (26, 31, 32, 52, 60, 61, 63, 64, 78, 104, 126) for offset in (-1, 0, 1)]
    around = [0, 1, 2, p - 1, p - 2, p // 2 - 1, p // 2, p // 2 + 1, p // 2 + 2]
    return sorted({v % p for v in [*around, *powers, *(-v for v in powers)]})


def elements(field: Field) -> st.SearchStrategy[int]:
    return st.sampled_from(edges(field)) | st.integers(0, field.modulus - 1)


FACTORS = [0, 1, -1, 2**31, -(2**32), 2**62, -(2**62), 2**63 - 1, -(2**63) + 1, -(2**63)]


def factors() -> st.SearchStrategy[int]:
    return st.sampled_from(FACTORS) | st.integers(-(2**63), 2**63 - 1)
