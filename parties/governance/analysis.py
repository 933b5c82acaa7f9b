"""What every analysis of a study has: its parameters, its run on our rows, and what it reveals to whom."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from mpc import Party
from parties.governance.checks import Strict
from parties.governance.schema import Column, Schema
from protocols.release.disclosure import Disclosure

NUMERIC = ("number", "integer", "boolean")
# A label of a scope (party.at), and a path of scopes is bounded.
_DRY_RUN = "dry run"
_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9 _-]{0,39}")


def _label(text: str) -> str:
    if not _LABEL.fullmatch(text):
        raise ValueError("a name of an analysis is a letter, then at most 39 letters, digits, spaces, _ or -")
    if text.casefold() == _DRY_RUN:
        raise ValueError("no analysis is named 'dry run': that is what the dry run itself is called")
    return text


class TableLike(Protocol):
    """The rows of one contributor, checked against the study's schema."""

    @property
    def columns(self) -> Mapping[str, NDArray[Any]]:
        """Arrays of one entry for each row, by column; categories as codes."""

    @property
    def rows(self) -> int:
        """How many rows."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Our rows, and the public facts that an analysis is run with.

    Attributes
    ----------
    columns : mapping of str to numpy.ndarray
    rows : int
    to : tuple of int
        Ranks that learn the results.
    disclosure : Disclosure
    """

    columns: Mapping[str, NDArray[Any]]
    rows: int
    to: tuple[int, ...]
    disclosure: Disclosure

    def matrix(self, columns: Sequence[Column]) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return columns side by side, shape (rows, columns), and their bounds; integers if all of them are."""
        whole = all(column.type != "number" for column in columns)
        parts = [np.asarray(self.columns[column.name]) for column in columns]
        array = np.stack(parts, axis=1).astype(np.int64 if whole else np.float64)
        return array, np.array([column.bound for column in columns])


class Reveals(NamedTuple):
    """Who learns what of an analysis.

    Attributes
    ----------
    recipients : str
        What the recipients learn.
    everybody : str
        What all parties learn, as well; may be empty.
    """

    recipients: str
    everybody: str = ""


class Analysis(Strict):
    """What all analyses have; see the classes below for what each takes.

    Attributes
    ----------
    name : str
        Names the result.
    """

    name: Annotated[str, AfterValidator(_label)]

    @abstractmethod
    def check(self, schema: Schema) -> None:
        """Check that the columns exist and fit.

        Raises
        ------
        ValueError
        """

    @property
    def holds_against_cheaters(self) -> bool:
        """Whether the analysis runs with security ``"malicious"``."""
        return False

    @abstractmethod
    def asks(self) -> str:
        """Say in words what is computed."""

    @abstractmethod
    def reveals(self) -> Reveals:
        """Say who learns what."""

    def rules(self, schema: Schema, disclosure: Disclosure) -> list[str]:
        """Say what must hold before anything of the result is opened."""
        return disclosure.rules(sums=False)

    @abstractmethod
    async def run(self, seat: Party, ours: Rows, schema: Schema) -> Outcome | None:
        """Compute; None at a party that learns nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one analysis: values of JSON's types, and a text for people."""

    values: dict[str, Any]
    text: str


def listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def plain(value: Any) -> Any:
    """Return JSON's types; what is NaN or infinite has no value."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
