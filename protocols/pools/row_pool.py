"""Pools whose rows are held by different parties: sums over rows are made in the clear, by each of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import AgreementError, DataError, Party, PeerError, Share, concatenate
from protocols.agreement import agree, announce
from protocols.cheating import added_up, require_whole
from protocols.magnitudes import agree_exponents, exponents_of
from protocols.pools.blocks import Spread, blocks, in_units
from protocols.pools.labels import label
from protocols.pools.moments import Moments, row_moments
from protocols.pools.pool import INPUT_SCALE, ROW_BITS, Pool, Sizes, pair_rules, value_rules
from protocols.pools.variables import Categorical, Label, Numeric, Variable, check_rows, ordered
from protocols.release.disclosure import Release, check, dominated, hold, refusal, short_of


class RowPool(Pool):
    """See :class:`protocols.pools.pool.Pool`.

    Attributes
    ----------
    given : dict of str to Numeric or Categorical
        Our rows of each variable.
    kept : numpy.ndarray or None
        Of each row, whether it is complete; None where all of them are.
    """

    partition = "rows"

    def __init__(
        self,
        party: Party,
        protocol: str,
        release: Release,
        given: dict[str, Variable],
        kept: NDArray[np.bool_] | None,
        sums: Share,
    ) -> None:
        super().__init__(party, protocol, release)
        self.given = given
        self.kept = kept
        self._sums = sums
        self._rows_of: list[int | None] = [None] * party.size  # as they were announced with the first vectors

    def numbers(self, what: str) -> Numeric:
        """Return our complete rows of a numeric variable, in the clear."""
        found = self._numeric(what)
        return found if self.kept is None else found.kept(self.kept)

    def codes(self, what: str) -> NDArray[np.int64]:
        """Return the categories of our complete rows, as numbers from 0."""
        found = self._categorical(what)
        return found.codes if self.kept is None else found.kept(self.kept).codes

    def _numeric(self, what: str) -> Numeric:
        found = self.given[what]
        if not isinstance(found, Numeric):
            raise TypeError(f"{what} is no numeric variable")
        return found

    def _categorical(self, what: str) -> Categorical:
        found = self.given[what]
        if not isinstance(found, Categorical):
            raise TypeError(f"{what} is no categorical variable")
        return found

    def blocks(self, what: str | None, *by: str) -> Iterator[tuple[NDArray[np.float64], list[NDArray[Any]]]]:
        """Go through our complete rows, a block at a time: values of a numeric variable, and codes of others."""
        numbers = None if what is None else self._numeric(what)
        codes = [self._categorical(one).coded for one in by]
        for rows in blocks(_rows(self.given), 1 if numbers is None else len(numbers.names)):
            kept = ... if self.kept is None else self.kept[rows]
            values = np.empty((0, 0)) if numbers is None else numbers.block(rows)[0][kept]
            yield values, [one.block(rows)[kept] for one in codes]

    @property
    def rows(self) -> int:
        """How many complete rows we have."""
        return _rows(self.given) if self.kept is None else int(np.count_nonzero(self.kept))

    def shared_sizes(self) -> tuple[Share, dict[str, Share]]:
        """See :class:`protocols.pools.pool.Pool`."""
        return self._sums[:1], {what: self._sums[k : k + 1] for k, what in enumerate(self.given, 1)}

    async def check(self, *, parameters: int = 0) -> None:
        """See :class:`protocols.pools.pool.Pool`."""
        scope, used = self.party.at("disclosure"), self.shared_sizes()[0]
        counted = None if self.party.security == "semi-honest" else used
        await check(
            scope, self.release.disclosure, self.protocol, rows=self.rows, counted=counted, parameters=parameters
        )

    @property
    def rows_are_secret(self) -> bool:
        """See :class:`protocols.pools.pool.Pool`."""
        return True

    @property
    def rehearsed_rows(self) -> int:
        """See :class:`protocols.pools.pool.Pool`."""
        return 1

    async def check_values(self, what: str, by: str | None = None, *, sums: bool = True) -> None:
        """See :class:`protocols.pools.pool.Pool`."""
        disclosure = self.release.disclosure
        if disclosure is None:
            return
        groups, fails = 1 if by is None else len(self.categories[by]), []
        if disclosure.minimum_cell:
            # A column with other values than 0 and 1 is no table, in whichever group they are.
            table, cells = self._cells(what, by, groups)
            capped = np.where(table, np.minimum(cells, disclosure.minimum_cell), disclosure.minimum_cell).reshape(-1)
            least = np.full(len(capped), disclosure.minimum_cell)
            fails.append(await short_of(self.party.at("cells"), capped, least))
        if disclosure.dominance and sums:
            units = np.ldexp(self.numbers(what).values, -self.exponents[what])
            codes = np.zeros(len(units), np.int64) if by is None else self.codes(by)
            parts = np.concatenate([units * (codes == k)[:, np.newaxis] for k in range(groups)], axis=1)
            share = Fraction(str(disclosure.dominance))
            fails.append(await dominated(self.party.at("dominance"), parts, share))
        if fails and not await hold(self.party.at("values"), concatenate(fails)):
            raise refusal(disclosure, self.protocol, value_rules(disclosure, by))

    def _cells(self, what: str, by: str | None, groups: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Return which columns hold only 0 and 1, and how often each holds 0 and 1 in each group."""
        width = len(self.names[what])
        table, cells = np.ones(width, np.bool_), np.zeros((groups, 2, width), np.int64)
        for values, found in self.blocks(what, *([] if by is None else [by])):
            codes = found[0].astype(np.int64) if found else np.zeros(len(values), np.int64)
            for value in (0, 1):
                matches = values == value
                for j in range(width):
                    cells[:, value, j] += np.bincount(codes[matches[:, j]], minlength=groups)
            table &= ((values == 0) | (values == 1)).all(axis=0)
        return table, cells

    async def check_pairs(self, what: str) -> None:
        """See :class:`protocols.pools.pool.Pool`."""
        disclosure, width = self.release.disclosure, len(self.names[what])
        first, second = np.triu_indices(width, 1)
        if disclosure is None or not disclosure.minimum_cell or not first.size:
            return
        table, crossed = np.ones(width, np.bool_), np.zeros((2, 2, width, width), np.int64)
        for values, _ in self.blocks(what):
            sides = [(values == value).astype(np.float64) for value in (0, 1)]
            table &= (sides[0] + sides[1] == 1).all(axis=0)
            for a in (0, 1):
                for b in (0, 1):
                    crossed[a, b] += (sides[a].T @ sides[b]).astype(np.int64)  # whole numbers below 2^53: exact
        cells = np.where(table[first] & table[second], crossed[:, :, first, second], disclosure.minimum_cell)
        capped = np.minimum(cells, disclosure.minimum_cell).reshape(-1)
        scope = self.party.at("pairs")
        fails = await short_of(scope, capped, np.full(len(capped), disclosure.minimum_cell))
        if not await hold(scope.at("hold"), fails):
            raise refusal(disclosure, self.protocol, pair_rules(disclosure))

    async def counts(self, *factors: str) -> Share:
        """See :class:`protocols.pools.pool.Pool`."""
        shape = tuple(len(self.categories[what]) for what in factors)
        table = np.zeros(math.prod(shape), np.int64)
        for _, codes in self.blocks(None, *factors):
            cells = codes[0].astype(np.int64)
            for one, count in zip(codes[1:], shape[1:], strict=True):
                cells = cells * count + one
            table += np.bincount(cells, minlength=len(table))
        return await total(self.party.at("counts"), table.reshape(shape))

    async def table(self, *factors: str) -> tuple[Sizes, Share]:
        """See :class:`protocols.pools.pool.Pool`; where parties may cheat, all give their counts first."""
        if self.party.security == "semi-honest":
            return await super().table(*factors)
        counts = await self.counts(*factors)
        await require_whole(self.party.at("whole"), self.protocol, self.shared_sizes()[0], counts)
        return await self.open_sizes(), counts

    async def moments(self, what: str, by: str | None = None, sizes: NDArray[np.int64] | None = None) -> Moments:
        """See :class:`protocols.pools.pool.Pool`."""
        exponents = self.exponents[what]
        groups = np.array([self.sizes.n]) if sizes is None else sizes
        ours = Spread(len(groups), len(exponents))
        if not self.party.rehearsing:  # then nobody knows how many rows there are, and our part might not fit
            for values, codes in self.blocks(what, *([] if by is None else [by])):
                ours.add(in_units(values, exponents), codes=codes[0] if codes else None)
        return await row_moments(self.party.at("moments"), ours, groups, exponents)

    async def vectors(self, *whats: str) -> list[Share]:
        """See :class:`protocols.pools.pool.Pool`."""
        shared = []
        for what in whats:
            if isinstance(self.given[what], Numeric):
                entries: NDArray[Any] = np.ldexp(self.numbers(what).values, -self.exponents[what])
            else:
                entries = indicators(self.codes(what), len(self.categories[what]))
            shapes: list[tuple[int | None, ...]] = [(rows, entries.shape[1]) for rows in self._rows_of]
            parts = await self.party.at("vectors").share(entries, bound=1, scale=INPUT_SCALE, shape=shapes)
            self._rows_of = [len(part) for part in parts]
            shared.append(concatenate(parts))
        if self._sizes is not None and not self.party.rehearsing and any(len(one) != self.sizes.n for one in shared):
            rows = sum(filter(None, self._rows_of))
            raise AgreementError(f"{self.protocol}: the parties share {rows} rows, and counted {self.sizes.n} before")
        return shared

    @property
    def weight(self) -> Share | None:
        """See :class:`protocols.pools.pool.Pool`."""
        return None


async def total(party: Party, ours: NDArray[Any]) -> Share:
    """Add up the parties' counts, each of which knows its own; see :func:`protocols.cheating.added_up`.

    Raises
    ------
    DataError
        Before anything is sent: we have more rows than fit.
    """
    most = (1 << ROW_BITS) // party.size
    if ours.size and ours.max() > most:
        raise DataError(f"party {party.rank}: more than {most} rows")
    return await added_up(party, ours.astype(np.int64), most)


def indicators(codes: NDArray[np.int64], categories: int) -> NDArray[np.int64]:
    """Return a column of 0 and 1 for each category, shape (rows, categories); code -1 is none of them."""
    return np.asarray(codes[:, np.newaxis] == np.arange(categories), dtype=np.int64)


async def pool_rows(
    party: Party, protocol: str, variables: dict[str, Variable], release: Release, terms: dict[str, object]
) -> RowPool:
    """Make a pool of rows; see :func:`protocols.pools.joining.pool`."""
    check_rows(variables, rank=party.rank)
    await agree(party, protocol, {**terms, **{what: v.describe() for what, v in variables.items()}})
    variables = await with_categories(party, protocol, variables, release)
    missing, kept = _missing(variables)
    rows = _rows(variables) if kept is None else int(np.count_nonzero(kept))
    sums = await total(party.at("rows"), np.array([rows, *missing]))
    made = RowPool(party, protocol, release, dict(variables), kept, sums)
    for what, variable in variables.items():
        if isinstance(variable, Categorical):
            made.categories[what] = variable.categories or ()
            made.names[what] = (variable.name,)
            continue
        made.names[what] = variable.names
        if variable.bounds is None:
            made.exponents[what] = await agree_exponents(party.at("bounds"), variable.largest[np.newaxis])
        else:
            made.exponents[what] = exponents_of(variable.bounds)
    return made


def _rows(variables: Mapping[str, Variable]) -> int:
    return next(iter(variables.values())).rows


def _missing(variables: Mapping[str, Variable]) -> tuple[list[int], NDArray[np.bool_] | None]:
    """Return in how many rows each variable is missing, and which rows are complete; None for all of them."""
    missing, kept = [], None
    for variable in variables.values():
        complete = variable.complete
        gone = len(complete) - int(np.count_nonzero(complete))
        if gone:
            kept = complete if kept is None else kept & complete
        missing.append(gone)
    return missing, kept


async def with_categories(
    party: Party, protocol: str, variables: dict[str, Variable], release: Release
) -> dict[str, Variable]:
    """Find the categories that nobody declared: the labels that occur anywhere."""
    open_ones = {w: v for w, v in variables.items() if isinstance(v, Categorical) and v.categories is None}
    if not open_ones:
        return variables
    ours: dict[str, object] = {}
    for what, variable in open_ones.items():
        labels = (0, 1) if set(variable.own) <= {0, 1} else variable.own
        # Under a disclosure control a rare label is not told.
        ours[what] = None if release.disclosure is not None and labels != (0, 1) else list(labels)
    said = await announce(party, "labels", ours)
    done = dict(variables)
    for what, variable in open_ones.items():
        labels_of = [_labels_of(rank, one.get(what), told=release.disclosure is None) for rank, one in enumerate(said)]
        if any(labels is None for labels in labels_of):
            raise DataError(
                f"{protocol}: {what} has other labels than 0 and 1, and nobody declared its categories; under a "
                "disclosure control all parties declare them: categories=, or a pandas Categorical"
            )
        union = ordered({label for labels in labels_of for label in labels or ()})
        if len(union) < 2:
            raise DataError(f"{protocol}: {what} has {len(union)} category in the data of all parties; it takes two")
        done[what] = variable.declared(union, rank=party.rank)
    return done


def _labels_of(rank: int, said: Any, *, told: bool) -> tuple[Label, ...] | None:
    """Check what a party announced of a variable's labels; None where it does not tell them."""
    if said is None or (not told and said != [0, 1]):
        return None
    found = checked_labels(said)
    if found is None:
        raise PeerError(f"party {rank} announced no valid labels", rank=rank, step="announce/labels")
    return found


def checked_labels(said: Any) -> tuple[Label, ...] | None:
    """Return what a peer announced if it is a list of labels as we would give them, else None."""
    if not isinstance(said, list) or not all(type(one) in (int, str) for one in said):
        return None
    try:
        return tuple(said) if all(label(one, rank=0, what="labels") == one for one in said) else None
    except DataError:
        return None
