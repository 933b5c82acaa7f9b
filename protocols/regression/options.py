"""The public parameters of a regression: what they may be, and their defaults."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

_NEWTON_STEPS = 10
_GRADIENT_STEPS = 100
_L2_RANGE = (1e-4, 1e4)


@dataclass(frozen=True, slots=True)
class Options:
    """The public parameters of a regression, checked; see :func:`protocols.logistic_regression`."""

    l2: float
    solver: str
    partition: str
    steps: int
    stop_early: bool
    learning_rate: float | None
    momentum: float
    limit: float
    reveal: bool

    def terms(self, names: Sequence[str] | None) -> dict[str, object]:
        """Return what all parties must agree on."""
        return {**asdict(self), "names": None if names is None else list(names)}


def checked_options(
    l2: float,
    solver: str,
    partition: str,
    steps: int | None,
    stop_early: bool,
    learning_rate: float | None,
    momentum: float,
    limit: float,
    reveal: bool,
) -> Options:
    """Check the public parameters, and put in the defaults.

    Raises
    ------
    ValueError
        Naming the parameter and what it takes.
    """
    if solver not in ("newton", "gradient"):
        raise ValueError(f"solver is 'newton' or 'gradient', not {solver!r}")
    if partition not in ("rows", "columns"):
        raise ValueError(f"partition is 'rows' or 'columns', not {partition!r}")
    low, high = _L2_RANGE
    if not (l2 == 0 or low <= l2 <= high):
        raise ValueError(f"l2 is 0 or from {low:g} to {high:g}")
    if steps is None:
        steps = _NEWTON_STEPS if solver == "newton" else _GRADIENT_STEPS
    if not 1 <= steps <= 10_000 or steps != int(steps):
        raise ValueError("steps is a whole number from 1 to 10,000")
    if learning_rate is not None and not (math.isfinite(learning_rate) and 1e-6 <= learning_rate <= 1e3):
        raise ValueError("learning_rate goes from 1e-6 to 1000")
    if not 0 <= momentum <= 0.99:
        raise ValueError("momentum goes from 0 to 0.99")
    if not 1 <= limit <= 800:
        raise ValueError("limit goes from 1 to 800")
    rate = None if learning_rate is None else float(learning_rate)
    return Options(
        float(l2), solver, partition, int(steps), bool(stop_early), rate, float(momentum), float(limit), bool(reveal)
    )
