"""Pools: the variables of one analysis, over the data of all parties, however these are split.

With ``partition="rows"`` each party has rows of the same columns: whatever is a sum over rows each adds up in
the clear, and only the parts of the parties are shared. With ``partition="columns"`` each has columns of the
same rows, in the same order: products of columns are computed on shares. Either way the analyses get the same
three things: counts of categories, moments of numbers, and vectors of one entry a row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mpc import Party, Share, concatenate, less_than, open_
from protocols.release.disclosure import Disclosure, Release, hold, refusal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from protocols.pools.moments import Moments
    from protocols.pools.variables import Label

# Rows of all parties together, in bits.
ROW_BITS = 32
# Numbers are shared in units of a power of two that is above them, with so many fraction bits.
INPUT_SCALE = 40


def value_rules(disclosure: Disclosure, by: str | None) -> list[str]:
    """Return the rules for values in words; see :meth:`Pool.check_values`."""
    each = "" if by is None else f" in each category of {by}"
    found = []
    if disclosure.minimum_cell:
        found.append(f"at least {disclosure.minimum_cell} rows for each value of a column of 0 and 1{each}")
    if disclosure.dominance:
        found.append(f"no row with more than {100 * disclosure.dominance:g} % of a column's sum{each}")
    return found


def pair_rules(disclosure: Disclosure) -> list[str]:
    """Return the rule for pairs of columns in words; see :meth:`Pool.check_pairs`."""
    return [f"at least {disclosure.minimum_cell} rows for each combination of values of two columns of 0 and 1"]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many rows an analysis is made of; public.

    Attributes
    ----------
    n : int
        Rows in which nothing is missing.
    missing : dict of str to int or None
        By variable: rows in which it is missing; None where the disclosure control withholds it.
    """

    n: int
    missing: dict[str, int | None]


class Pool(ABC):
    """The variables of an analysis, agreed by all parties; made by :func:`protocols.pools.joining.pool`.

    Attributes
    ----------
    party : Party
    protocol : str
    release : Release
    names : dict of str to tuple of str
        Column names of each variable.
    categories : dict of str to tuple
        Of each categorical variable.
    exponents : dict of str to numpy.ndarray
        Of each numeric variable: no value is above ``2^exponent`` in size.
    """

    partition: str

    def __init__(self, party: Party, protocol: str, release: Release) -> None:
        self.party = party
        self.protocol = protocol
        self.release = release
        self.names: dict[str, tuple[str, ...]] = {}
        self.categories: dict[str, tuple[Label, ...]] = {}
        self.exponents: dict[str, NDArray[np.int64]] = {}
        self._sizes: Sizes | None = None

    # ---- how many -------------------------------------------------------------------------------

    @property
    def sizes(self) -> Sizes:
        """How many rows there are; known once :meth:`open_sizes` has run."""
        if self._sizes is None:
            raise RuntimeError("open_sizes() comes first")
        return self._sizes

    @abstractmethod
    def shared_sizes(self) -> tuple[Share, dict[str, Share]]:
        """Return shares of the number of complete rows, and of how often each variable is missing; shape (1,)."""

    @abstractmethod
    async def check(self, *, parameters: int = 0) -> None:
        """Check the rules for numbers of rows and parties.

        Raises
        ------
        DisclosureError
            At all parties: one of them does not hold.
        """

    @property
    @abstractmethod
    def rows_are_secret(self) -> bool:
        """Whether nobody knows how many rows there are, with those in which something is missing."""

    @property
    @abstractmethod
    def rehearsed_rows(self) -> int:
        """How many rows a rehearsal takes there to be, which opens nothing; see :func:`mpc.prepare`."""

    @abstractmethod
    async def check_values(self, what: str, by: str | None = None, *, sums: bool = True) -> None:
        """Check the rules for values of numeric columns whose means or variances are to be opened.

        Parameters
        ----------
        what : str
            A numeric variable.
        by : str, optional
            A categorical variable: the rules hold for each of its groups.
        sums : bool
            Whether sums of values are to be opened, or what is made of them; else dominance does not matter.

        Raises
        ------
        DisclosureError
            At all parties: a column of 0 and 1 has one of them too rarely, or a row dominates a sum.
        ValueError
            Where columns are split, dominance is not checked: nothing runs.

        Notes
        -----
        All parties learn one bit, whether all rules hold. Cost: see :func:`protocols.release.disclosure.check`.
        """

    @abstractmethod
    async def check_pairs(self, what: str) -> None:
        """Check the rule for cells of the tables that pairs of columns of 0 and 1 make: a covariance tells them.

        Raises
        ------
        DisclosureError
            At all parties: a combination of values of two such columns is too rare.

        Notes
        -----
        All parties learn one bit, whether all combinations occur in enough rows. Cost: a comparison of ``2 d (d - 1)``
        entries for d columns and one of a single entry; with columns also a product of d columns over all rows.
        """

    async def open_sizes(self, *, parameters: int = 0) -> Sizes:
        """Check the rules for numbers of rows, then open how many there are.

        Parameters
        ----------
        parameters : int
            Coefficients of a regression.

        Raises
        ------
        DisclosureError
            At all parties, before anything is opened: too few rows or parties.

        Notes
        -----
        All parties learn the number of complete rows, and for each variable in how many rows it is missing; with a
        minimum cell, of a smaller number only that it is one (but 0 is told). Where columns are split nothing is
        withheld: all know the number of all rows, and so in how many of them anything is missing.
        Cost: 1 round, ``1 + variables`` elements; with a minimum cell a comparison of twice as many entries, 1 round
        and ``variables`` elements more; for the rules see :func:`protocols.release.disclosure.check`.
        """
        await self.check(parameters=parameters)
        used, missing = self.shared_sizes()
        told = dict.fromkeys(missing, True)
        least = (
            0 if self.release.disclosure is None or not self.rows_are_secret else self.release.disclosure.minimum_cell
        )
        if least > 1:
            gaps = concatenate([*missing.values()])
            limits = np.array([[least], [1]])
            below = await less_than(self.party.at("missing"), gaps.broadcast_to((2, len(missing))), limits)
            few = np.asarray(await open_(self.party.at("few"), below[0] - below[1]))
            told = {name: not hidden for name, hidden in zip(missing, few, strict=True)}
        shown = [name for name in missing if told[name]]
        opened = np.asarray(await open_(self.party.at("sizes"), concatenate([used, *(missing[one] for one in shown)])))
        counts = dict(zip(shown, map(int, opened[1:]), strict=True))
        n = self.rehearsed_rows if self.party.rehearsing else int(opened[0])
        self._sizes = Sizes(n, {name: counts.get(name) for name in missing})
        return self._sizes

    async def group_sizes(self, by: str) -> NDArray[np.int64]:
        """Open how many complete rows are in each category, if the disclosure control allows it for all of them.

        Parameters
        ----------
        by : str
            A categorical variable of k categories.

        Raises
        ------
        DisclosureError
            At all parties: a category has fewer rows than the minimum cell.

        Notes
        -----
        All parties learn the sizes, or that one is too small. Cost: that of :meth:`counts`, 1 round and k elements;
        with a disclosure control one comparison of k entries, one of a single entry and 1 bit more.
        """
        scope = self.party.at("group sizes")
        counts = await self.counts(by)
        disclosure = self.release.disclosure
        if disclosure is not None and disclosure.minimum_cell:
            short = await less_than(scope.at("cells"), counts, disclosure.minimum_cell)
            if not await hold(scope.at("hold"), short):
                rule = f"at least {disclosure.minimum_cell} rows for each category of {by}"
                raise refusal(disclosure, self.protocol, [rule])
        opened = np.asarray(await open_(scope, counts), dtype=np.int64)
        return np.ones_like(opened) if self.party.rehearsing else opened

    async def table(self, *factors: str) -> tuple[Sizes, Share]:
        """Check the rules for numbers of rows, open how many there are, and count them.

        Parameters
        ----------
        *factors : str
            All variables of the pool, each categorical.

        Returns
        -------
        Sizes, Share
            See :meth:`open_sizes` and :meth:`counts`; the counts add up to the complete rows, also where parties may
            cheat.

        Raises
        ------
        DisclosureError
            See :meth:`open_sizes`.
        AgreementError
            Where parties may cheat, and one of them gave counts that no data have; no cell was opened.
        """
        sizes = await self.open_sizes()
        return sizes, await self.counts(*factors)

    # ---- what analyses are made of --------------------------------------------------------------

    @abstractmethod
    async def counts(self, *factors: str) -> Share:
        """Count the complete rows for each combination of categories.

        Parameters
        ----------
        *factors : str
            Categorical variables, from one to four.

        Returns
        -------
        Share
            Integers, shape ``(k1, k2, ...)``.

        Notes
        -----
        Nothing is revealed. Cost with rows: that of sharing (1 round, no element). With columns and m factors m - 1
        products over all rows.
        """

    @abstractmethod
    async def moments(self, what: str, by: str | None = None, sizes: NDArray[np.int64] | None = None) -> Moments:
        """Compute means and covariances of numeric columns, for each category of another variable.

        Parameters
        ----------
        what : str
            A numeric variable of d columns.
        by : str, optional
            A categorical variable of g categories.
        sizes : numpy.ndarray, optional
            With ``by``: the public sizes of the groups, from :meth:`group_sizes`; else :attr:`sizes` are used.

        Returns
        -------
        Moments
            With g = 1 where nothing is grouped.

        Notes
        -----
        Nothing is revealed. See :mod:`protocols.pools.moments` for method, error and cost.
        """

    @abstractmethod
    async def vectors(self, *whats: str) -> list[Share]:
        """Share one entry a row: numbers in units of ``2^exponents``, categories as indicators.

        Returns
        -------
        list of Share
            For a numeric variable of d columns shape (rows, d), scale 40; for a categorical one of k categories
            shape (rows, k), integers 0 and 1. All have the same rows in the same order.

        Notes
        -----
        With rows, all parties learn how many complete rows each of them has. With columns they know it, and a row
        in which something is missing is marked by :attr:`weight`. Cost with rows: 2 rounds, no element.
        """

    @property
    @abstractmethod
    def weight(self) -> Share | None:
        """Of each row of :meth:`vectors`: 1 if nothing is missing in it, else 0; None if all rows are complete."""
