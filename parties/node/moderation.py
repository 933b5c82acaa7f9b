"""How much of the same is written down: an audit log must not be filled by whoever knocks often."""

from __future__ import annotations

from collections.abc import Callable

_MOST_KNOWN = 1000


class Moderation:
    """Lets a few notes a minute through, by whom they are about, and counts the rest.

    Parameters
    ----------
    clock : callable
        Returns seconds, from any beginning.
    each, together : int
        Notes a minute about one, and in all.
    """

    def __init__(self, clock: Callable[[], float], *, each: int = 20, together: int = 120) -> None:
        self._clock = clock
        self._each = each
        self._together = together
        self._minute = 0
        self._noted: dict[str, int] = {}
        self._left_out = 0

    def allows(self, about: str) -> bool:
        """Say whether to write a note about somebody, and count it."""
        minute = int(self._clock() // 60)
        if minute != self._minute:
            self._minute = minute
            self._noted.clear()
        if len(self._noted) >= _MOST_KNOWN:
            about = "others"
        noted = self._noted.get(about, 0)
        if noted >= self._each or sum(self._noted.values()) >= self._together:
            self._left_out += 1
            return False
        self._noted[about] = noted + 1
        return True

    def left_out(self) -> int:
        """Return how many notes were left out since this was asked last."""
        count, self._left_out = self._left_out, 0
        return count
