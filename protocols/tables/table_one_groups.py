"""The groups of a Table 1: how many rows they have, and which of them are shown."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mpc import Party, Share, concatenate, less_than, open_
from protocols.agreement import announce
from protocols.pools.frames import Frame, kind_of
from protocols.pools.joining import pool
from protocols.pools.pool import Pool
from protocols.pools.row_pool import total
from protocols.pools.variables import Categorical, Column, Label, Variable
from protocols.release.disclosure import Release, check, hold
from protocols.release.suppression import lines_of, open_counts


@dataclass(frozen=True, slots=True)
class Study:
    """What all variables of the table have in common."""

    party: Party
    frame: Frame
    release: Release
    partition: str
    p_values: bool
    quantiles: bool

    async def pooled(self, scope: Party, variables: dict[str, tuple[Column, Variable | None]]) -> Pool:
        """Make a pool of some of our columns."""
        return await pool(
            scope,
            "table_one",
            {what: variable for what, (_, variable) in variables.items()},
            partition=self.partition,
            release=self.release,
            kinds={what: kind_of(column) for what, (column, _) in variables.items()},
        )


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of the table; public.

    Attributes
    ----------
    column : Column
    variable : Categorical or None
        Ours.
    labels : tuple
    shown : numpy.ndarray
        Shape (groups,), bool.
    n : numpy.ndarray
        Shape (groups,): NaN where withheld.
    total : int
    missing : dict of str to int or None
    reasons : tuple of str
    """

    column: Column
    variable: Categorical | None
    labels: tuple[Label, ...]
    shown: NDArray[np.bool_]
    n: NDArray[np.float64]
    total: int
    missing: dict[str, int | None]
    reasons: tuple[str, ...]

    @property
    def enough(self) -> bool:
        """Whether anything is shown by group: of a single one, nothing is."""
        return int(self.shown.sum()) > 1

    @property
    def places(self) -> NDArray[np.int64]:
        """Where the shown groups stand in the table, after the column of all rows."""
        return 1 + np.flatnonzero(self.shown)

    @property
    def all_shown(self) -> bool:
        """Whether no group is withheld."""
        return bool(self.shown.all())

    @property
    def shown_labels(self) -> tuple[Label, ...]:
        """Categories that are shown."""
        return tuple(label for label, shown in zip(self.labels, self.shown, strict=True) if shown)

    @property
    def complete(self) -> bool:
        """Whether ``by`` is known to be never missing."""
        return self.missing[self.column.name] == 0

    @property
    def merged_variable(self) -> Categorical | None:
        """Our column, with one category for all groups that are withheld."""
        if self.variable is None or self.all_shown:
            return self.variable
        rest: Label = "(withheld)"
        while rest in self.labels:
            rest = f"({rest})"
        kept = set(self.shown_labels)
        labels = {label: label if label in kept else rest for label in self.variable.known}
        return self.variable.relabelled(labels, (*self.shown_labels, rest))

    @property
    def shown_variable(self) -> Categorical | None:
        """Our column, missing where a group is withheld."""
        if self.variable is None or self.all_shown:
            return self.variable
        kept = set(self.shown_labels)
        labels = {label: label if label in kept else None for label in self.variable.known}
        return self.variable.relabelled(labels, self.shown_labels)


async def all_rows(study: Study) -> int:
    """Find how many rows there are; all parties learn it."""
    scope, rows = study.party.at("rows"), study.frame.rows
    if study.partition == "rows":
        await check(scope.at("disclosure"), study.release.disclosure, "table_one", rows=rows)
        opened = await open_(scope, await total(scope, np.array([rows])))
        return int(opened[0])
    said = await announce(scope, "rows", {"rows": rows})
    # Who holds no column says 0; that the others agree is checked with each column.
    return max(one["rows"] if type(one.get("rows")) is int else 0 for one in said)


async def find_groups(study: Study, by: str) -> Groups:
    """Find how many rows each group has, and which groups are withheld; all parties learn it."""
    column, variable = study.frame.column(by), study.frame.variable(by)
    made = await study.pooled(study.party.at("groups"), {"by": (column, variable)})
    sizes = await made.open_sizes()
    labels, disclosure = made.categories["by"], study.release.disclosure
    # Numbers of rows are not rounded: all parties compute with them.
    exact = Release(None, None if disclosure is None else replace(disclosure, rounding=0))
    opened = await open_counts(made.party.at("cells"), await made.counts("by"), lines_of((len(labels),)), exact)
    if opened is None:  # opened to all
        raise RuntimeError("numbers of rows are opened to all parties")
    shown = ~np.isnan(opened.counts)
    ours = variable.declared(labels, rank=study.party.rank) if isinstance(variable, Categorical) else None
    reasons = tuple(text.replace("cells", "groups") for text in opened.reasons)
    return Groups(column, ours, labels, shown, opened.counts, sizes.n, {by: sizes.missing["by"]}, reasons)


async def group_sizes(party: Party, made: Pool, groups: Groups) -> NDArray[np.int64] | None:
    """Open how many values the shown groups have; None if that is not allowed for one, or for the others together."""
    counts = await made.counts("by")
    disclosure = made.release.disclosure
    if not groups.enough:
        return None
    if disclosure is not None and disclosure.minimum_cell:
        short = await less_than(party.at("few"), merged(counts, groups), disclosure.minimum_cell)
        if not await hold(party.at("hold"), short):
            return None
    opened = np.asarray(await open_(party, counts[np.flatnonzero(groups.shown)]), np.int64)
    return np.ones_like(opened) if party.rehearsing else opened


def merged(counts: Share, groups: Groups) -> Share:
    """Return the groups that are shown, then all others as one; along the first axis."""
    if groups.all_shown:
        return counts
    rest = counts[np.flatnonzero(~groups.shown)].sum(axis=0)
    return concatenate([counts[np.flatnonzero(groups.shown)], rest.reshape(1, *counts.shape[1:])])
