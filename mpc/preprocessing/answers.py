"""What preprocessings have in common: answers, which give our summand when awaited, and masks without MACs."""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Sequence
from typing import TYPE_CHECKING, Any

from mpc.masks import Structure
from mpc.tasks import side_by_side

if TYPE_CHECKING:
    from mpc.field import Field, FieldArray
    from mpc.masks import Mask
    from mpc.party import Party


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


class WithoutMacs:
    """Masks whose summands have no MACs: a shift of one is local, and none is known to one party."""

    async def shifted(self, party: Party, mask: Mask, bits: int) -> Mask:
        """See :class:`mpc.preprocessing.Preprocessing`."""
        return mask.after(Structure("shift", (bits,)))

    async def known(
        self, party: Party, field: Field, shape: tuple[int, ...], bits: int, owner: int
    ) -> tuple[Mask, FieldArray | None]:
        """See :class:`mpc.preprocessing.Preprocessing`; without MACs nobody asks for it."""
        raise TypeError("inputs and outputs without MACs take no masks")
