"""A column as a study's schema has it, without the rest of a study."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    name: str
    type: str = "number"
    lower: float | None = None
    upper: float | None = None
    categories: tuple[str, ...] = ()
    missing: str = "refuse"


def number(name: str, lower: float = -1e6, upper: float = 1e6, missing: str = "refuse") -> Column:
    return Column(name, "number", lower, upper, missing=missing)


def integer(name: str, lower: float = -1e6, upper: float = 1e6, missing: str = "refuse") -> Column:
    return Column(name, "integer", lower, upper, missing=missing)


def boolean(name: str, missing: str = "refuse") -> Column:
    return Column(name, "boolean", missing=missing)


def category(name: str, *categories: str, missing: str = "refuse") -> Column:
    return Column(name, "category", categories=categories, missing=missing)
