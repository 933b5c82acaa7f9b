"""A table with small cells and gaps, for :mod:`.attacks`: what was opened of it, and the counts that it was made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pytest

from mpc import Party, open_
from protocols.pools.joining import pool
from protocols.pools.variables import Categorical, Label, categorical
from protocols.release.disclosure import Disclosure, Release
from protocols.release.suppression import OpenedCounts, lines_of, open_counts
from tests.protocols.clear_counts import in_the_clear, seen

RULES = Disclosure("test", minimum_rows=10, minimum_cell=4, minimum_parties=2)
COLUMNS = ("a", "b", "c")
TABLE = np.array([[1, 9, 12], [10, 6, 2]])
ROWS: list[tuple[int | None, str | None]] = [
    *[(r, COLUMNS[c]) for (r, c), count in np.ndenumerate(TABLE) for _ in range(count)],
    *[(None, "a")] * 2,
    *[(1, None)] * 5,
]


class Told(NamedTuple):
    """What a run told a party; ``truth`` is opened at the end, for the test."""

    missing: dict[str, int | None]
    n: int
    opened: OpenedCounts
    rows: tuple[Label, ...]
    columns: tuple[Label, ...]
    truth: np.ndarray


async def program(party: Party, data: tuple[Any, Any]) -> Told:
    """As :func:`protocols.tables.contingency.contingency_table`, whose rows' labels nobody has declared."""
    changed: Any = data[1] or (lambda _, x: x)
    ours, release = ROWS[party.rank :: party.size], Release.of(party, None, RULES)
    given = {
        "row": categorical([row for row, _ in ours], rank=party.rank, what="rows"),
        "column": categorical([column for _, column in ours], rank=party.rank, what="columns", categories=COLUMNS),
    }
    made = await pool(
        party.at("pool"), "contingency_table", given, release=release, kinds=dict.fromkeys(given, Categorical)
    )
    sizes, counts = await made.table(*given)
    counts = changed(party, counts)
    opened = await open_counts(party.at("cells"), counts.reshape(-1), lines_of(counts.shape), release)
    assert opened is not None
    truth = await open_(party.at("truth"), changed(party, counts))
    return Told(sizes.missing, sizes.n, opened, made.categories["row"], made.categories["column"], truth)


def is_right(told: Told, parties: int, attackers: Iterable[int]) -> bool:
    """Whether it is the table of rows that hold those of the honest parties, with what has to be withheld withheld."""
    cheats = [rank for rank in range(parties) if rank in set(attackers)]
    honest = [row for k, row in enumerate(ROWS) if k % parties not in cheats]
    whole = [row for row in honest if None not in row]
    table = np.array([[sum(one == (r, c) for one in whole) for c in told.columns] for r in told.rows])
    gaps = {"row": sum(r is None for r, _ in honest), "column": sum(c is None for _, c in honest)}
    if told.truth.shape != table.shape or table.sum() != len(whole) or not (told.truth >= table).all():
        return False
    if not cheats and not np.array_equal(told.truth, table):
        return False
    least = RULES.minimum_cell
    for what, count in gaps.items():
        found = told.missing[what]
        fits = count < least if found is None else found >= count and (found == 0 or found >= least)
        if not fits or (not cheats and found not in (None, count)):
            return False
    with pytest.MonkeyPatch.context() as patched:
        in_the_clear(patched)
        expected, _ = seen(told.truth, least)
    for name in ("counts", "totals", "primary", "secondary"):
        found, due = (getattr(one, name).astype(float) for one in (told.opened, expected))
        if not np.array_equal(found, due, equal_nan=True):
            return False
    return bool(told.n == told.truth.sum())
