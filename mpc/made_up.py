"""Made-up data of given shapes: what a program is tried on where nobody may see, or has yet, the real data."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mpc.prg import Prg, Stream

_KINDS = ("number", "integer", "boolean", "category")


@dataclass(frozen=True, slots=True)
class MadeUp:
    """An array of which only the shape is known.

    Attributes
    ----------
    shape : tuple of int
    kind : {"number", "integer", "boolean", "category"}
        Numbers are floats from ``lower`` to ``upper``; integers as well, both ends included; a boolean is 0 or 1.
    lower, upper : float
    categories : tuple
        Labels of a category.
    missing : float
        Part of the entries that are missing: NaN in numbers, None in anything else.
    """

    shape: tuple[int, ...]
    kind: Literal["number", "integer", "boolean", "category"] = "number"
    lower: float = -1.0
    upper: float = 1.0
    categories: tuple[Any, ...] = ()
    missing: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if any(type(n) is not int or n < 0 for n in self.shape):
            raise ValueError(f"a shape is a tuple of whole numbers from 0, not {self.shape!r}")
        if self.kind not in _KINDS:
            raise ValueError(f"kind is one of {', '.join(_KINDS)}, not {self.kind!r}")
        if self.kind == "category" and not self.categories:
            raise ValueError("a category takes categories")
        if not (math.isfinite(self.lower) and math.isfinite(self.upper) and self.lower <= self.upper):
            raise ValueError("lower and upper are finite numbers, lower not above upper")
        if not 0 <= self.missing <= 1:
            raise ValueError("missing is a part of the entries, from 0 to 1")

    def values(self, prg: Prg, place: str, *, related: bool) -> NDArray[Any]:
        """Make up the values.

        Parameters
        ----------
        prg : Prg
        place : str
            Names the array, so that each has values of its own.
        related : bool
            Whether the arrays of as many rows follow one hidden number a row, or have nothing to do with each other.
        """
        parts = _uniform(prg.stream(f"values|{place}"), self.shape)
        if related and self.shape:
            rows = _uniform(prg.stream(f"rows|{self.shape[0]}"), self.shape[:1])
            parts = 0.98 * rows.reshape(-1, *[1] * (len(self.shape) - 1)) + 0.02 * parts
        values = self._from(parts)
        gone = _uniform(prg.stream(f"missing|{place}"), self.shape) < self.missing
        if self.missing and self.kind == "number":
            values[gone] = np.nan
        elif self.missing:
            values = values.astype(object)
            values[gone] = None
        return values

    def _from(self, parts: NDArray[np.float64]) -> NDArray[Any]:
        """Return values for numbers in ``[0, 1)``."""
        match self.kind:
            case "number":
                return np.asarray(np.clip(self.lower + (self.upper - self.lower) * parts, self.lower, self.upper))
            case "integer":
                low, high = math.ceil(self.lower), math.floor(self.upper)
                return np.asarray(np.clip(np.floor(low + (high + 1 - low) * parts), low, high)).astype(np.int64)
            case "boolean":
                return (parts >= 0.5).astype(np.int64)
        labels = np.empty(len(self.categories), dtype=object)
        labels[:] = self.categories
        return np.asarray(labels[np.floor(len(labels) * parts).astype(np.int64)])


def is_made_up(description: Any) -> bool:
    """Whether any part of a description is to be made up."""
    if isinstance(description, MadeUp) or _is_shape(description):
        return True
    parts = description.values() if isinstance(description, Mapping) else description
    return isinstance(description, Mapping | list | tuple) and any(is_made_up(part) for part in parts)


def make_up(description: Any, seed: str, *, related: bool = False) -> Any:
    """Return data for a description of it.

    Parameters
    ----------
    description : MadeUp, tuple of int, or mapping, list or tuple of descriptions
        A tuple of whole numbers is the shape of an array of numbers from -1 to 1. Anything else stands for itself.
    seed : str
        Another seed gives other values; the same one the same.
    related : bool
        See :meth:`MadeUp.values`.
    """
    prg = Prg(hashlib.blake2b(seed.encode(), digest_size=32, person=b"sottovoce.madeup").digest())
    return _made(description, prg, "", related)


def _made(description: Any, prg: Prg, place: str, related: bool) -> Any:
    if isinstance(description, MadeUp):
        return description.values(prg, place, related=related)
    if _is_shape(description):
        return MadeUp(tuple(description)).values(prg, place, related=related)
    if isinstance(description, Mapping):
        return {name: _made(part, prg, f"{place}/{name}", related) for name, part in description.items()}
    if isinstance(description, list | tuple):
        return type(description)(_made(part, prg, f"{place}/{k}", related) for k, part in enumerate(description))
    return description


def _is_shape(description: Any) -> bool:
    return isinstance(description, tuple) and bool(description) and all(type(n) is int for n in description)


def _uniform(stream: Stream, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Draw floats, uniform in ``[0, 1)``."""
    count = math.prod(shape)
    return ((stream.raw(8 * count).view("<u8") >> np.uint64(11)) / 2.0**53).reshape(shape)
