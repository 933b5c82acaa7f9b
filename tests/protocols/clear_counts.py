"""Numbers in the clear that stand for shares, to try the suppression of cells on very many tables."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import pytest

import protocols.release.suppression as suppression
from protocols.release.disclosure import Disclosure, Release
from protocols.release.suppression import OpenedCounts, lines_of, open_counts

T = TypeVar("T")


class Clear:
    """An array with what :func:`open_counts` asks of a share."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)
        self.size, self.shape = self.values.size, self.values.shape

    def __getitem__(self, key: Any) -> Clear:
        return Clear(self.values[key])

    def __add__(self, other: Any) -> Clear:
        return Clear(self.values + _values(other))

    def __rsub__(self, other: Any) -> Clear:
        return Clear(_values(other) - self.values)

    def __mul__(self, other: Any) -> Clear:
        return Clear(self.values * _values(other))

    def sum(self, **how: Any) -> Clear:
        return Clear(self.values.sum(**how))

    def reshape(self, *shape: int) -> Clear:
        return Clear(self.values.reshape(*shape))

    def bounded_by(self, bound: float) -> Clear:
        assert not self.size or abs(self.values).max() <= bound
        return self


class Nobody:
    """A party that keeps nothing secret, and remembers what was opened."""

    rank, size, rehearsing = 0, 1, False

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def at(self, label: str) -> Nobody:
        return self


def _values(x: Any) -> Any:
    return x.values if isinstance(x, Clear) else x


async def _less_than(party: Any, x: Any, y: Any) -> Clear:
    return Clear((_values(x) < _values(y)).astype(np.int64))


async def _open(party: Any, x: Clear, to: Any = None) -> Any:
    party.seen.append(tuple(x.values.tolist()))
    return x.values


async def _hold(party: Any, fails: Clear) -> bool:
    party.seen.append((int(fails.values.any()),))
    return not fails.values.any()


def in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let open_counts work on numbers that are no secret."""
    monkeypatch.setattr(suppression, "less_than", _less_than)
    monkeypatch.setattr(suppression, "open_", _open)
    monkeypatch.setattr(suppression, "hold", _hold)
    monkeypatch.setattr(suppression, "concatenate", lambda parts: Clear(np.concatenate([p.values for p in parts])))


def shown(table: Any, minimum: int, lines: Sequence[Any] | None = None) -> OpenedCounts:
    """Return what is opened of a table."""
    return seen(table, minimum, lines)[0]


def seen(
    table: Any, minimum: int, lines: Sequence[Any] | None = None, **known: Any
) -> tuple[OpenedCounts, tuple[tuple[int, ...], ...]]:
    """Return what is opened of a table, and all that was opened on the way to it."""
    array, party = np.asarray(table), Nobody()
    release = Release(None, Disclosure("test", minimum_cell=minimum))
    where = lines_of(array.shape) if lines is None else lines
    opened = finished(open_counts(party, Clear(array.reshape(-1)), where, release, **known))  # type: ignore[arg-type]
    assert opened is not None
    return opened, tuple(party.seen)


def finished(steps: Coroutine[Any, Any, T]) -> T:
    """Run what waits for nobody."""
    try:
        steps.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise RuntimeError("it waits for somebody")


def tables(n: int, cells: int) -> Iterator[tuple[int, ...]]:
    """Give all ways to spread n rows over cells."""
    from itertools import combinations

    for bars in combinations(range(n + cells - 1), cells - 1):
        yield tuple(b - a - 1 for a, b in pairwise((-1, *bars, n + cells - 1)))
