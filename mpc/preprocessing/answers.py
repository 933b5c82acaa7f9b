"""Answers of a preprocessing: awaiting one gives our summand."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpc.field import FieldArray


class Local:
    """An answer that needs no message."""

    __slots__ = ("_values",)

    def __init__(self, values: FieldArray) -> None:
        self._values = values

    def __await__(self) -> Generator[Any, None, FieldArray]:
        yield from ()  # an awaitable is a generator, even one that never waits
        return self._values
