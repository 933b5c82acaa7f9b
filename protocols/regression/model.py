"""A model that stays shared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc import Share
from protocols.regression.standardise import OwnColumns


@dataclass(frozen=True, eq=False)
class SharedModel:
    """A fitted model that nobody knows: every party holds a share of it.

    Attributes
    ----------
    coefficients, slope, offset : Share
        Standardised coefficients, and what standardises a row.
    exponents : numpy.ndarray
        Public: columns are shared in units of ``2^exponents``.
    own : OwnColumns or None
        Where columns are held by parties: what we know of ours.
    n, columns, iterations : int
    converged : bool
    warnings : tuple of str
    partition : str
    """

    coefficients: Share
    slope: Share | None
    offset: Share
    exponents: NDArray[np.int64]
    own: OwnColumns | None
    n: int
    columns: int
    iterations: int
    converged: bool
    warnings: tuple[str, ...]
    partition: str

    def __repr__(self) -> str:
        """Show sizes only."""
        return f"SharedModel({self.columns} columns, fitted to {self.n} rows)"
