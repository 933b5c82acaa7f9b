"""Answers of a preprocessing: awaiting one gives our summand."""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Sequence
from typing import TYPE_CHECKING, Any

from mpc.tasks import side_by_side

if TYPE_CHECKING:
    from mpc.field import FieldArray


class Local:
    """An answer that needs no message."""

    __slots__ = ("values",)

    def __init__(self, values: FieldArray) -> None:
        self.values = values

    def __await__(self) -> Generator[Any, None, FieldArray]:
        yield from ()  # an awaitable is a generator, even one that never waits
        return self.values


async def all_of(answers: Sequence[Awaitable[FieldArray]]) -> list[FieldArray]:
    """Wait for several answers; those that take messages go side by side."""
    if len(answers) == 1 or all(isinstance(answer, Local) for answer in answers):
        return [await answer for answer in answers]

    async def one(answer: Awaitable[FieldArray]) -> FieldArray:
        return await answer

    async with side_by_side() as group:
        tasks = [group.create_task(one(answer)) for answer in answers]
    return [task.result() for task in tasks]
