"""The page that tells how far results are from the references."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tests.accuracy.cases import Case, Figure

_BEGIN = """# Accuracy

Every analysis, run on shares of real data that several parties hold, beside the same on the pooled data in a library
that its users know. `scripts/accuracy` computes this page anew and fails if an error is above its bound.

Each row is the entry with the greatest error, where a statistic has several (their number is in brackets). An error is
relative to the reference; "abs": the plain difference; "scaled": in units of what the row says, or of the standard
deviations of the columns. Rows are dealt out to three parties, half, a third and a sixth or so; `lung` is split by the
institutions that treated the patients, `china_smoking` by cities. Masks are random, so errors that are not 0 differ a
little from run to run.

| analysis | data | statistic | reference | ours | error | bound |
|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the page."""

    case: Case
    figure: Figure
    reference: float
    ours: float
    error: float

    @property
    def holds(self) -> bool:
        """Whether the error is within its bound."""
        return self.error <= self.figure.bound

    @property
    def kind(self) -> str:
        """What the error is measured in."""
        return "abs" if self.figure.absolute else "" if self.figure.unit is None else "scaled"

    def __str__(self) -> str:
        """Return the row."""
        error, bound = ("0" if not one else f"{one:.1e}" for one in (self.error, self.figure.bound))
        cells = [
            self.case.analysis,
            f"{self.case.data}, {len(self.case.inputs)} parties, {self.case.preprocessing}",
            f"{self.figure.name}, {self.case.library}",
            shown(self.reference),
            shown(self.ours),
            f"{error} {self.kind}".rstrip(),
            bound if self.holds else f"**{bound}**",
        ]
        return f"| {' | '.join(cells)} |"


def line(case: Case, figure: Figure) -> Line:
    """Compare, and return the row of a page."""
    return Line(case, figure, *figure.worst())


def page(lines: Sequence[Line]) -> str:
    """Return the page."""
    body = "\n".join(map(str, lines))
    data = len({one.case.data for one in lines})
    end = f"\n\n{len(lines)} statistics of {len({one.case for one in lines})} analyses on {data} data sets.\n"
    return _BEGIN + body + end


def shown(value: float) -> str:
    """Write a number with the digits that a comparison takes; a time that never comes is infinite."""
    if not math.isfinite(value):
        return "none" if math.isnan(value) else "never" if value > 0 else "-inf"
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e12 else f"{value:.10g}"
