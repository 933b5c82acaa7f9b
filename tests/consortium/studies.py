"""Studies and rows for them: made up, with values that can be found again wherever they should not be."""

from __future__ import annotations

import csv
import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.consortium.nodes import Consortium, toml

LOWER, UPPER = 20.0, 120.0


@dataclass(frozen=True)
class Rows:
    """One member's rows: age and dose, whether treatment helped, and how many children.

    Ages have nine digits behind the point, so that each can be recognised in any text.
    """

    age: np.ndarray[Any, np.dtype[np.float64]]
    dose: np.ndarray[Any, np.dtype[np.float64]]
    helped: np.ndarray[Any, np.dtype[np.int64]]

    @classmethod
    def make(cls, rng: np.random.Generator, count: int) -> Rows:
        age = np.round(rng.uniform(LOWER, UPPER, count), 9)
        dose = np.round(rng.uniform(0.0, 4.0, count), 9)
        chance = 1 / (1 + np.exp(-(0.05 * (age - 70.0) - 0.8 * (dose - 2.0))))
        return cls(age, dose, (rng.random(count) < chance).astype(np.int64))

    def write(self, path: Path) -> None:
        """Write a CSV file."""
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["age", "dose", "helped"])
            writer.writerows(zip(map(repr, self.age.tolist()), self.dose.tolist(), self.helped.tolist(), strict=True))

    def marks(self) -> list[bytes]:
        """Texts by which the rows would be recognised: digits of single values."""
        return [f"{value:.9f}"[:9].encode() for value in (*self.age, *self.dose) if value > 1.0]


def pooled(rows: Sequence[Rows]) -> Rows:
    """All rows on one heap, to compare with."""
    return Rows(*(np.concatenate([getattr(r, name) for r in rows]) for name in ("age", "dose", "helped")))


def give_rows(consortium: Consortium, rng: np.random.Generator, counts: Sequence[int] = (40, 30, 50)) -> list[Rows]:
    """Write rows for each member that has data, and where they are."""
    made = []
    for node, count in zip(consortium.parties, counts, strict=True):
        rows = Rows.make(rng, count)
        rows.write(node.directory / "rows.csv")
        node.sections = [("[[sources]]", {"study": "*", "kind": "csv", "path": "rows.csv"})]
        made.append(rows)
    return made


NUMBER = {"type": "number", "lower": LOWER, "upper": UPPER, "missing": "refuse"}
COLUMNS: list[dict[str, Any]] = [
    {"name": "age", "unit": "years", **NUMBER},
    {"name": "dose", "unit": "mg", **NUMBER, "lower": 0.0, "upper": 4.0},
    {"name": "helped", "type": "boolean", "missing": "refuse"},
]
MEAN = {"name": "means", "protocol": "mean", "columns": ["age", "dose"]}
COUNT = {"name": "count", "protocol": "sum", "columns": ["helped"]}
MODEL = {
    "name": "model",
    "protocol": "logistic_regression",
    "features": ["age", "dose"],
    "outcome": "helped",
    "l2": 1.0,
}
# So many Newton steps make a run long enough to be disturbed in the middle of it.
LONG = {**MODEL, "name": "long", "steps": 20}


@dataclass
class Draft:
    """A study file to be."""

    consortium: Consortium
    title: str = "A study"
    analyses: Sequence[dict[str, Any]] = (MEAN,)
    columns: Sequence[dict[str, Any]] = tuple(COLUMNS)
    more: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """The TOML."""
        members = self.consortium.nodes.values()
        parties = [node.name for node in members if node.role == "party"]
        dealers = [node.name for node in members if node.role == "dealer"]
        head: dict[str, Any] = {
            "format": 1,
            "title": self.title,
            "purpose": "To see that it works.",
            "consortium": self.consortium.name,
            "contributors": parties,
            "recipients": parties,
            "preprocessing": "dealer" if dealers else "prss",
            "security": "semi-honest",
            "disclosure": "none",
            "minimum_parties": 2,
            "deadline": datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(hours=1),
            "time_limit_seconds": 120,
            "resume_seconds": 20,
            "attempts": 3,
            "dry_run": True,
        }
        head |= {"dealer": dealers[0]} if dealers else {}
        tables = [("[[columns]]", dict(column)) for column in self.columns]
        tables += [("[[analyses]]", dict(analysis)) for analysis in self.analyses]
        return toml({name: value for name, value in (head | self.more).items() if value is not None}, tables)

    def write(self, path: Path) -> Path:
        """Write the file."""
        path.write_text(self.text(), "utf-8")
        return path
