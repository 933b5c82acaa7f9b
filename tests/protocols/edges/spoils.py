"""Data that nobody may bring, options on which parties differ, and arguments that are none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from tests.protocols.edges.running import Case
from tests.protocols.edges.tables import BITS, BOUND, GROUPS, NUMBERS, Column, World

# No error repeats it.
SECRET = 31337
PARTY = 1


class Spoil(NamedTuple):
    """What is wrong in one column at one party.

    Attributes
    ----------
    column, how : str
    change : callable
        The party's column, and a row of it, to what it passes instead.
    says : str
        What the error matches.
    """

    column: str
    how: str
    change: Callable[[Column, int], Any]
    says: str


def _put(value: Any, kind: Any = object) -> Callable[[Column, int], Any]:
    def change(column: Column, row: int) -> Any:
        found = column.astype(kind)
        found[row] = value
        return found

    return change


def _texts(column: Column, row: int) -> Any:
    return np.array([f"{SECRET}" for _ in column])


_NO_NUMBERS = (
    ("a text", _put(f"{SECRET}"), "number"),
    ("texts", _texts, "number"),
    ("a list", _put([SECRET]), "number"),
    ("a complex number", _put(SECRET * 1j, np.complex128), "number"),
    ("a date", _put(np.datetime64("2020-01-01"), "datetime64[D]"), "number"),
)
_NO_LABELS = (
    ("half a number", _put(0.5), "categor"),
    ("a list", _put([SECRET]), "categor"),
    ("bytes", _put(b"31337"), "categor"),
    ("a text that is too long", _put("31337" * 100), "categor"),
)


def spoils(case: Case) -> Iterator[Spoil]:
    """Return all that may be wrong with a case's data."""
    for argument, columns in case.data.items():
        for column in [columns] if isinstance(columns, str) else columns:
            for how, change, says in _of_column(case, argument, column):
                yield Spoil(column, how, change, says)


def _of_column(case: Case, argument: str, column: str) -> Iterator[tuple[str, Callable[[Column, int], Any], str]]:
    if column in NUMBERS:
        yield "infinite", _put(np.inf, np.float64), "infinite"
        yield "minus infinite", _put(-np.inf, np.float64), "infinite"
        yield from _NO_NUMBERS
        if not case.gaps:
            yield "NaN", _put(np.nan, np.float64), "NaN"
        if argument in case.bounded or column in case.bounded:
            yield "just above the bound", _put(np.nextafter(BOUND, np.inf), np.float64), "bound of 10|to 10"
            yield "below the bound", _put(-float(SECRET), np.float64), "bound of 10|-10 to|negative"
        if column == "t":
            yield "a negative time", _put(-float(SECRET), np.float64), "negative"
        if column == "w" and "poisson" in case.name:
            yield "a negative count", _put(-0.5, np.float64), "negative|below 0|at least 0"
        if argument == "probability":
            yield "above 1", _put(np.nextafter(1, 2), np.float64), "0 .*1"
            yield "below 0", _put(-float(SECRET), np.float64), "0 .*1"
    if column in GROUPS:
        yield "no declared category", _put(f"{SECRET}"), "none of its"
        yield "a number", _put(SECRET), "none of its"
        yield from _NO_LABELS
    if column in BITS:
        yield "two", _put(2), "none of its|neither 0 nor 1"
        yield "half", _put(0.5, np.float64), "categor|neither 0 nor 1"
        yield "a text", _put(f"{SECRET}"), "none of its|neither 0 nor 1|number"


def spoilt(case: Case, inputs: list[dict[str, Any]], world: World, spoil: Spoil, row: int) -> int:
    """Put what is wrong into one party's input; returns whose."""
    for rank, own in enumerate(inputs):
        if world.partition == "rows" and rank != PARTY:
            continue
        for name, columns in case.data.items():
            if own[name] is None or spoil.column not in columns:
                continue
            if isinstance(columns, str):
                own[name] = spoil.change(own[name], row % len(own[name]))
            elif name == "frame":
                if spoil.column not in own[name]:
                    continue
                changed = spoil.change(own[name][spoil.column], row % len(own[name][spoil.column]))
                own[name] = {**own[name], spoil.column: changed}
            else:
                place = columns.index(spoil.column)
                if world.partition == "columns":
                    if rank != min(place, world.parties - 1):
                        continue
                    place = 0 if rank < world.parties - 1 else place - rank
                changed = spoil.change(own[name][:, place], row % len(own[name]))
                parts = [own[name][:, k] for k in range(own[name].shape[1])]
                parts[place] = np.asarray(changed)
                try:
                    own[name] = np.stack(parts, axis=1)
                except (TypeError, ValueError):  # a date beside numbers
                    own[name] = np.stack([part.astype(object) for part in parts], axis=1)
            return rank
    raise AssertionError(f"{case.name}: nobody holds {spoil.column}")


# What is said of an argument that is none, whatever the analysis.
BAD: Mapping[str, tuple[Any, ...]] = {
    "confidence": (0.0, 1.0, 1.5, float("nan")),
    "partition": ("cells",),
    "bound": (0.0, -1.0, float("nan"), float("inf"), [1.0, 2.0, 3.0]),
    "y_bound": (0.0, -1.0, float("nan")),
    "to": ([9], [-1], []),
    "categories": (("a",), ("a", "a"), ()),
    "row_categories": (("a",), ("a", "a")),
    "column_categories": ((0,), (0, 0)),
    "alternative": ("bigger",),
    "method": ("mode",),
    "difference": ("wrong",),
    "kind": ("wrong",),
    "count": ("wrong",),
    "resolution": (0.0, -1.0, float("nan"), float("inf")),
    "q": (1.5, -0.1, float("nan"), [], [[0.5]]),
    "bins": (0, 1, [2.0, 1.0], [0.5, 0.5], [float("nan"), 1.0]),
    "outside": ("wrong",),
    "grid": ((2.0, 1.0, 0.5), (0.0, 1.0, 0.0), (0.0, float("inf"), 1.0), (0.0, 1.0, float("nan"))),
    "l2": (-1.0, 1e-9, float("nan"), 1e9),
    "steps": (0, -1, 2.5),
    "most_ties": (0, -1),
    "ties": ("exact",),
    "solver": ("wrong",),
    "missing": ("wrong",),
    "names": (["a"], ["a", "a"], ["a", "b", "c"]),
    "weights": ("wrong",),
    "conf_type": ("wrong",),
    "by": ("nothing", "x"),
    "level": ("nothing",),
    "ddof": (-1, 2, 0.5),
    "columns": ((),),
}
# Options that an analysis does not look at, given the others: groups, where there are none; columns of a frame.
UNUSED: Mapping[str, tuple[str, ...]] = {
    "t_test paired": ("categories",),
    "t_test one_sample": ("categories",),
    "linear_regression": ("columns",),
    "logistic_regression": ("columns",),
    "poisson_regression": ("columns",),
    "cox_regression": ("columns",),
}
