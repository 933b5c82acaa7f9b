"""Results: frozen records of plain numbers, with a text for people and a form for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, cast

import numpy as np


class Result:
    """What all results have; subclasses are frozen dataclasses with ``eq=False``."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, numbers and texts, fit for JSON: what is not a number is None."""
        names = (one.name for one in fields(cast(Any, self)))
        return {name: plain(getattr(self, name)) for name in names}

    def summary(self) -> str:
        """Return a text for people: a line for each value, where a result has no table of its own."""
        return "\n".join(f"{name}: {value}" for name, value in self.to_dict().items())

    def __str__(self) -> str:
        """Return the summary."""
        return self.summary()


def plain(value: Any) -> Any:
    """Return a value of JSON's types."""
    if isinstance(value, Result):
        return value.to_dict()
    if isinstance(value, np.ndarray):
        return [plain(one) for one in value.tolist()] if value.ndim else plain(value.item())
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def number(value: float, digits: int = 4) -> str:
    """Write a number in a table: so many digits after the point, fewer for large ones, ``-`` if there is none."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    return f"{value:.{max(0, min(digits, 7 - len(str(int(abs(value))))))}f}"


def p_text(p: float) -> str:
    """Write a p-value."""
    if math.isnan(p):
        return "-"
    return "<0.0001" if p < 1e-4 else f"{p:.4f}"


def percent(part: float) -> str:
    """Write a part of 1 as a percentage."""
    return "-" if math.isnan(part) else f"{100 * part:.1f} %"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> str:
    """Lay out a table: the first column to the left, the others to the right."""
    body = [list(map(str, row)) for row in rows]
    widths = [max(len(row[k]) for row in [list(head), *body]) for k in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *rest = cells
        parts = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        return "  ".join(parts).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [title, "=" * len(rule)] if title else []
    return "\n".join([*lines, line(head), rule, *map(line, body), rule])


def notes(n: int, missing: Mapping[str, int | None], suppressed: Sequence[str]) -> list[str]:
    """Return the lines below a table: rows used, rows left out, what was withheld."""
    left_out = {name: count for name, count in missing.items() if count != 0}
    lines = [f"Rows: {n}"]
    if left_out:
        shown = (f"{name} {'withheld' if count is None else count}" for name, count in left_out.items())
        lines.append("Missing: " + ", ".join(shown))
    return [*lines, *(f"Note: {text}" for text in suppressed)]
