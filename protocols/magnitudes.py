"""Bounds that the parties find together, where the study names none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party, less_than, open_
from protocols.shares import sum_of

# Orders of magnitude that bounds are agreed in: powers of 16 from 2^-24 to 2^56.
_ORDERS = range(-6, 15)


async def agree_exponents(party: Party, X: NDArray[np.float64]) -> NDArray[np.int64]:
    """Agree on a public power of 16 for each column that is above all its values.

    Parameters
    ----------
    party : Party
    X : numpy.ndarray
        Our rows; shape (rows, columns), rows may be 0.

    Returns
    -------
    numpy.ndarray
        Exponents of two, shape (columns,).

    Raises
    ------
    DataError
        Before anything is sent: one of our values is above 2^56.

    Notes
    -----
    All parties learn for each column the order of magnitude (a power of 16) of the largest absolute
    value in the pooled data; not whose it is. Semi-honest.
    Cost: one comparison of ``21 |columns|`` entries of 3 bits, 2 rounds and ``|columns|`` elements.
    """
    largest = np.abs(X).max(axis=0, initial=0.0)
    levels = np.ldexp(1.0, 4 * np.array(_ORDERS))
    if (largest > levels[-1]).any():
        raise DataError(
            f"party {party.rank}: {int((largest > levels[-1]).sum())} columns hold values above 2^56; "
            "use other units, or agree on a bound"
        )
    above = (largest[None, :] > levels[:-1, None]).astype(np.int64)
    counts = sum_of(await party.share(above, bound=1, shape=above.shape))
    anyone = 1 - await less_than(party, counts, 1)
    index = np.asarray(await open_(party, anyone.sum(axis=0)))
    if party.rehearsing:  # values of any size fit then; whoever prepares what depends on it gives it a name of its own
        index = np.full_like(index, len(_ORDERS) - 1)
    return 4 * (index + _ORDERS.start)


def exponents_of(bounds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the smallest powers of two, as exponents, that are not below the bounds."""
    mantissas, exponents = np.frexp(bounds)
    return np.asarray(np.where(mantissas == 0.5, exponents - 1, exponents), dtype=np.int64)
