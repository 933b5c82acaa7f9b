"""What a comparison with a reference is: an analysis on shared data, the same on pooled data, and a bound."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mpc import Party
from mpc.memory import run_in_memory

# What is promised of results on real data: six significant digits, and p-values to 1e-6.
RELATIVE = 1e-6
ABSOLUTE = 1e-6


@dataclass(frozen=True, eq=False)
class Figure:
    """One number, or an array of them, of a result.

    Attributes
    ----------
    name : str
    reference, ours : array_like
        Of the same shape; NaN where there is no value, in both.
    bound : float
        The greatest error that is allowed for an entry.
    absolute : bool
        Whether the error is the difference, as of a p-value, and not the difference in units of the reference.
    unit : array_like, optional
        What errors are measured in, if not the reference itself: coefficients in units of their standard errors,
        or entries that may be zero in units of the largest.
    """

    name: str
    reference: Any
    ours: Any
    bound: float = RELATIVE
    absolute: bool = False
    unit: Any = None

    def worst(self) -> tuple[float, float, float]:
        """Return the entry with the greatest error: reference, ours, error."""
        reference = np.asarray(self.reference, dtype=np.float64)
        ours = np.asarray(self.ours, dtype=np.float64)
        if reference.shape != ours.shape:
            raise AssertionError(f"{self.name}: the reference has shape {reference.shape}, ours {ours.shape}")
        if not reference.size:
            raise AssertionError(f"{self.name}: nothing to compare")
        same = (reference == ours) | (np.isnan(reference) & np.isnan(ours))
        unit = 1.0 if self.absolute else np.abs(reference if self.unit is None else self.unit)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.where(same, 0.0, np.abs(ours - reference) / unit)
        error = np.where(np.isnan(error), np.inf, error)
        at = np.unravel_index(int(np.argmax(error)), error.shape)
        return float(reference[at]), float(ours[at]), float(error[at])


def p_value(name: str, reference: Any, ours: Any) -> Figure:
    """Compare p-values."""
    return Figure(name, reference, ours, ABSOLUTE, absolute=True)


def exact(name: str, reference: Any, ours: Any) -> Figure:
    """Compare what has no error at all."""
    return Figure(name, reference, ours, 0.0)


@dataclass(frozen=True, eq=False)
class Case:
    """An analysis of one data set.

    Attributes
    ----------
    analysis : str
        Ours, with the parameters that tell it from its neighbours.
    data : str
    library : str
        What the reference comes from.
    inputs : sequence
        The parts of the parties.
    program : async callable
    compare : callable
        From the result to its figures; computes the reference.
    preprocessing : str
    quick : bool
        Whether it runs in the tests, too.
    """

    analysis: str
    data: str
    library: str
    inputs: Sequence[Any]
    program: Callable[[Party, Any], Awaitable[Any]]
    compare: Callable[[Any], list[Figure]]
    preprocessing: str = "prss"
    quick: bool = False

    @property
    def name(self) -> str:
        """What it is called in the output."""
        return f"{self.analysis}, {self.data}"

    def run(self) -> list[Figure]:
        """Compute with shares and with the reference; all parties must have got the same."""
        results = run_in_memory(self.program, self.inputs, preprocessing=self.preprocessing, timeout_seconds=600.0)
        for other in results[1:]:
            np.testing.assert_equal(_plain(other), _plain(results[0]))
        return self.compare(results[0])


class Col(str):
    """Names a column that is passed by keyword."""

    __slots__ = ()


def call(protocol: Callable[..., Awaitable[Any]], *columns: str | list[str], **parameters: Any) -> Any:
    """Return a program that runs a protocol on columns of a party's frame, named in order, or by keyword as Col."""
    return partial(_call, protocol, columns, parameters)


async def _call(
    protocol: Callable[..., Awaitable[Any]],
    columns: Sequence[str | list[str]],
    parameters: dict[str, Any],
    party: Party,
    frame: Any,
) -> Any:
    given = {name: _held(frame, value) if isinstance(value, Col) else value for name, value in parameters.items()}
    return await protocol(party, *(_held(frame, column) for column in columns), **given)


def _held(frame: Any, column: str | list[str]) -> Any:
    """Return a column, or columns, as far as a party holds them; else None."""
    if isinstance(column, str):
        return frame[column] if column in frame else None
    held = [name for name in column if name in frame]
    return frame[held] if held else None


def _plain(result: Any) -> Any:
    return result.to_dict() if hasattr(result, "to_dict") else result
