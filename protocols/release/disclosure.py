"""Disclosure control: who learns a result, and whether it may be opened at all.

Secure computation hides the inputs, not what a result says about them. The rules here are those that
statistical offices and research platforms check by hand; they are checked on shares, before anything of
the result is opened, and all that is revealed is whether all of them hold.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from operator import index

import numpy as np
from numpy.typing import NDArray

from mpc import F127, Party, Share, SottovoceError, concatenate, less_than, open_
from protocols.cheating import added_up
from protocols.shares import sum_of

_FIELD = F127
_LARGEST = 1_000_000_000
# Dominance: values in units of their bound with so many fraction bits, and at most so many rows in all.
_PART_SCALE = 30
_ROW_BITS = 32


class DisclosureError(SottovoceError, ValueError):
    """The agreed disclosure control does not allow this result; nothing of it was opened."""


@dataclass(frozen=True, slots=True)
class Disclosure:
    """Rules that must hold before a result is opened; the same at all parties. A rule of 0 is none.

    Attributes
    ----------
    name : str
        Stands in errors.
    minimum_rows : int
        Rows of all parties together that a result is made of.
    minimum_cell : int
        A column that holds only 0 and 1, at all parties, is a table with two cells, so that its sum, its
        mean and its variance tell a count: each of the two values must occur in so many rows. Also the two
        values of y in a regression. Columns with two other values (a sex coded 1 and 2), or with three known ones, are
        not recognised: declare them as categories, or code them as 0 and 1. Tables, correlations, covariances and
        paired tests also check combinations of two such columns, regressions those with a yes-no outcome or the event.
        ROC areas, rank tests of few values and log-rank tests are told in steps, see docs/security.md.
    minimum_parties : int
        Parties with at least one row. Of two, each subtracts its own part from the result.
    parameters_per_row : float
        Regression: at most so many coefficients (with the intercept) for each row, as a fraction.
    residual_freedom : int
        Regression: at least so many rows more than coefficients.
    dominance : float
        Sums and means: no single row may hold more than this part of a column's sum of absolute values
        (compared to ``2^-30`` of the column's bound). Takes an agreed bound.
    rounding : int
        Tables: counts are rounded to multiples of this before they are opened.

    Notes
    -----
    The rules speak of the pooled data. A party that contributed rows and learns the result knows its own
    rows, and so sees a result on those of the others alone: where that matters, agree on thresholds that
    leave room for it, or let somebody else learn the result. Rules do not look at earlier results either:
    two sums over nearly the same rows tell the rows that differ, and many refusals under different rules tell
    a count. Each party counts its own rows: one that lies about them can make a rule hold.
    """

    name: str = "none"
    minimum_rows: int = 0
    minimum_cell: int = 0
    minimum_parties: int = 0
    parameters_per_row: float = 0.0
    residual_freedom: int = 0
    dominance: float = 0.0
    rounding: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no rule."""
        if not (1 <= len(self.name) <= 40 and self.name.isprintable()):
            raise ValueError("the name of a disclosure control has 1 to 40 printable characters")
        for name in ("minimum_rows", "minimum_cell", "minimum_parties", "residual_freedom", "rounding"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST:
                raise ValueError(f"{name} is a whole number from 0 to {_LARGEST}")
        for name in ("parameters_per_row", "dominance"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} goes from 0 to 1")

    @staticmethod
    def preset(name: str) -> Disclosure:
        """Return the rules that go by a name.

        Parameters
        ----------
        name : {"none", "datashield", "vantage6", "opensafely", "cms", "ons"}

        Raises
        ------
        ValueError
            Naming the presets.

        Notes
        -----
        Thresholds, and where they come from; at least three contributing parties is our own rule, in all
        of them but "none".

        - ``datashield``: cells and subsets of at least 3 (``nfilter.tab``, ``nfilter.subset``), coefficients
          at most 0.33 of the rows (``nfilter.glm``): the defaults of dsBase, DataSHIELD wiki, "Disclosure
          control". DataSHIELD checks each site, we check the pooled data.
        - ``vantage6``: at least 10 rows, cells of at least 5: the strictest defaults among its algorithms
          (some ask for less), which check each node.
        - ``opensafely``: counts up to 7 are withheld, those of tables rounded to multiples of 5
          (OpenSAFELY documentation, "Output checking"). Sums and numbers of rows are exact.
        - ``cms``: cells of at least 11 (US Centers for Medicare & Medicaid Services, cell size suppression
          policy).
        - ``ons``: at least 10 rows and cells of 10, no row with more than 43.75 % of a sum, 10 residual
          degrees of freedom in a regression (Griffiths et al., "Handbook on Statistical Disclosure Control
          for Outputs", 2019, and the rules of thumb of the UK Office for National Statistics).

        CMS and DataSHIELD let a cell of 0 pass; we do not, as it says the same of every row.
        """
        presets = {preset.name: preset for preset in _presets()}
        if name not in presets:
            raise ValueError(f"disclosure presets are {', '.join(presets)}; there is none called {ascii(name)[:60]}")
        return presets[name]

    def at_least(self, *, parties: int) -> Disclosure:
        """Return the same rules with rows from at least so many parties."""
        return replace(self, minimum_parties=max(self.minimum_parties, parties))

    def rows_needed(self, parameters: int = 0) -> int:
        """Return how many rows a result with so many coefficients takes."""
        needed = self.minimum_rows
        if parameters:
            needed = max(needed, parameters + self.residual_freedom if self.residual_freedom else 0)
            if self.parameters_per_row:
                needed = max(needed, math.ceil(parameters / Fraction(str(self.parameters_per_row))))
        return needed

    def rules(self, *, parameters: int = 0, cells: bool = True, sums: bool = True) -> list[str]:
        """Return the rules in words, as ``"at least 10 rows"``; only those that apply.

        Parameters
        ----------
        parameters : int
            Coefficients of a regression; 0 for none.
        cells, sums : bool
            Whether there are columns whose values are counted, and sums of single rows' values.
        """
        found = []
        if needed := self.rows_needed(parameters):
            found.append(f"at least {needed} rows of all parties together")
        if self.minimum_parties:
            found.append(f"rows from at least {self.minimum_parties} parties")
        if cells and self.minimum_cell:
            found.append(f"at least {self.minimum_cell} rows for each value of a column that holds only 0 and 1")
        if sums and self.dominance:
            found.append(f"no row with more than {100 * self.dominance:g} % of a column's sum")
        return found


def _presets() -> list[Disclosure]:
    return [
        Disclosure("none"),
        Disclosure("datashield", minimum_rows=3, minimum_cell=3, minimum_parties=3, parameters_per_row=0.33),
        Disclosure("vantage6", minimum_rows=10, minimum_cell=5, minimum_parties=3),
        Disclosure("opensafely", minimum_rows=8, minimum_cell=8, minimum_parties=3, rounding=5),
        Disclosure("cms", minimum_rows=11, minimum_cell=11, minimum_parties=3),
        Disclosure("ons", minimum_rows=10, minimum_cell=10, minimum_parties=3, residual_freedom=10, dominance=0.4375),
    ]


@dataclass(frozen=True, slots=True)
class Release:
    """To whom a result is opened, and under which rules; agreed by all parties.

    Attributes
    ----------
    to : tuple of int or None
        Ranks, in order; None for all.
    disclosure : Disclosure or None
    """

    to: tuple[int, ...] | None
    disclosure: Disclosure | None

    @classmethod
    def of(cls, party: Party, to: Collection[int] | None, disclosure: Disclosure | None) -> Release:
        """Check what a protocol was given; naming all parties is the same as naming none.

        Raises
        ------
        ValueError
            ``to`` names nobody, or a rank that does not exist.
        """
        if disclosure is not None and not isinstance(disclosure, Disclosure):
            raise ValueError('disclosure is a Disclosure: Disclosure.preset("vantage6")')
        if disclosure is not None and disclosure.dominance:
            party.semi_honest_only(
                f"the dominance rule of disclosure control {disclosure.name!r}",
                "a party could share a largest row that is none; choose rules without dominance",
            )
        if to is None:
            return cls(None, disclosure)
        ranks = sorted({index(rank) for rank in to})
        if not ranks or ranks[0] < 0 or ranks[-1] >= party.size:
            raise ValueError(f"to names at least one rank from 0 to {party.size - 1}")
        return cls(None if len(ranks) == party.size else tuple(ranks), disclosure)

    def terms(self) -> dict[str, object]:
        """Return what parties must agree on, if anything was asked for."""
        terms: dict[str, object] = {}
        if self.to is not None:
            terms["to"] = list(self.to)
        if self.disclosure is not None:
            terms["disclosure"] = asdict(self.disclosure)
        return terms


async def check(
    party: Party,
    disclosure: Disclosure | None,
    protocol: str,
    *,
    rows: int,
    columns: NDArray[np.generic] | None = None,
    parts: NDArray[np.float64] | None = None,
    counted: Share | None = None,
    parameters: int = 0,
) -> None:
    """Raise at all parties if a result must not be opened.

    Parameters
    ----------
    party : Party
        A scope of its own.
    disclosure : Disclosure or None
        The same at all parties; None checks nothing.
    protocol : str
        Stands in the error.
    rows : int
        How many rows we contribute.
    columns : numpy.ndarray, optional
        Our rows, shape (rows, columns), where sums over them are opened: for ``minimum_cell``.
    parts : numpy.ndarray, optional
        The same rows in units of the agreed bounds, so at most 1 in size, where the sums are opened: for
        ``dominance``, which takes them.
    counted : Share, optional
        Shape (1,): the rows of all parties, where more is known of it than that each says how many it has; the rule on
        rows is held to these then.
    parameters : int
        Coefficients of a regression.

    Raises
    ------
    DisclosureError
        At all parties; names the rules, and not which of them does not hold.

    Notes
    -----
    All parties learn one bit, whether all rules hold; which does not, how many rows there are and whose
    they are stays shared. Each party caps its counts at the threshold before it shares them, as the sum
    reaches the threshold if and only if the capped ones do. Statistical masking as in :func:`mpc.less_than`. Where
    parties may cheat, each can say of any rule by itself what some rows would let it say, and nothing else.
    Cost: no preprocessing and no round without a rule. Otherwise with q rules (one each for rows and
    parties, two a column) a comparison of q entries and, if q > 1, one of a single entry; 1 bit opened.
    With ``dominance`` also one of ``parties * columns`` entries.
    """
    if disclosure is None:
        return
    rules = disclosure.rules(parameters=parameters, cells=columns is not None, sums=parts is not None)
    a_party, most = 1, None
    if party.security != "semi-honest":
        # Nobody counts as several: a party may bring up to the largest threshold, and that is what one party counts.
        most = max(disclosure.rows_needed(parameters), disclosure.minimum_cell, 1)
        a_party = most = most + most % 2
    ours, needed = quotas(disclosure, rows, columns, parameters=parameters, a_party=a_party)
    fails = []
    if ours.size:
        held_to = counted if disclosure.rows_needed(parameters) else None
        fails.append(await short_of(party.at("counts"), ours, needed, most, held_to))
    if disclosure.dominance and parts is not None and parts.shape[1]:
        fails.append(await dominated(party.at("dominance"), parts, Fraction(str(disclosure.dominance))))
    if fails and not await hold(party, concatenate(fails, axis=-1)):
        raise refusal(disclosure, protocol, rules)


async def check_cells(
    party: Party, disclosure: Disclosure | None, protocol: str, columns: NDArray[np.generic], *, pooled: bool = True
) -> None:
    """Raise at all parties if a value of a yes-no column is too rare, where the numbers of rows are public.

    Parameters
    ----------
    party : Party
        A scope of its own.
    disclosure : Disclosure or None
    protocol : str
    columns : numpy.ndarray
        Our rows of the common columns; with ``pooled=False`` our columns of the common rows.
    pooled : bool

    Raises
    ------
    DisclosureError
        At all parties.

    Notes
    -----
    See :func:`check`: one bit is opened. Columns that are wholly ours we count in the clear, and what is
    shared is whether one of them fails.
    """
    if disclosure is None or not disclosure.minimum_cell:
        return
    ours, needed = quotas(disclosure, None, columns)
    if not pooled:
        ours, needed = np.array([int((ours >= needed).all())]), np.array([party.size])
    if not await hold(party, await short_of(party.at("counts"), ours, needed)):
        raise refusal(disclosure, protocol, disclosure.rules(sums=False)[-1:])


def check_public(disclosure: Disclosure | None, protocol: str, *, rows: int, parties: int, parameters: int = 0) -> None:
    """Raise if a result must not be opened, where it is public how many rows there are, and at how many parties.

    Raises
    ------
    DisclosureError
        Naming the rule that does not hold.
    """
    if disclosure is None:
        return
    needed = disclosure.rows_needed(parameters)
    broken = []
    if rows < needed:
        broken.append(f"at least {needed} rows of all parties together, there are {rows}")
    if parties < disclosure.minimum_parties:
        broken.append(f"rows from at least {disclosure.minimum_parties} parties, there are {parties}")
    if broken:
        raise refusal(disclosure, protocol, broken, known=True)


def refusal(disclosure: Disclosure, protocol: str, rules: list[str], *, known: bool = False) -> DisclosureError:
    """Return the error that names the rules of which one does not hold; ``known``: all that are named do not."""
    secret = "" if known or len(rules) == 1 else " (which of these does not hold stays secret)"
    return DisclosureError(
        f"{protocol}: disclosure control {disclosure.name!r} does not allow this result, nothing of it was opened: it "
        f"takes {', '.join(rules)}{secret}; pool more data, or agree on other rules in the study"
    )


def quotas(
    disclosure: Disclosure,
    rows: int | None,
    columns: NDArray[np.generic] | None,
    *,
    parameters: int = 0,
    a_party: int = 1,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return what we contribute to each threshold, and the thresholds: rows, parties, two a column.

    Parameters
    ----------
    disclosure : Disclosure
    rows : int or None
        None where the rows are public and were checked already.
    columns : numpy.ndarray, optional
        Shape (rows, columns).
    parameters : int
    a_party : int
        What a party with rows counts.

    Notes
    -----
    Whoever sees other values than 0 and 1 in a column contributes the whole threshold: then it is no table
    of two cells. What we contribute is capped at the threshold.
    """
    ours: list[int] = []
    needed: list[int] = []
    if rows is not None:
        for mine, threshold in [
            (rows, disclosure.rows_needed(parameters)),
            (a_party * int(rows > 0), a_party * disclosure.minimum_parties),
        ]:
            if threshold:
                ours.append(min(mine, threshold))
                needed.append(threshold)
    if disclosure.minimum_cell and columns is not None:
        ones, zeros = (np.asarray(columns == value, dtype=np.bool_) for value in (1, 0))
        table = (ones | zeros).all(axis=0)
        for cell in (ones, zeros):
            counts = np.where(table, cell.sum(axis=0), disclosure.minimum_cell)
            ours += np.minimum(counts, disclosure.minimum_cell).tolist()
            needed += [disclosure.minimum_cell] * counts.size
    return np.array(ours, np.int64), np.array(needed, np.int64)


async def hold(party: Party, fails: Share) -> bool:
    """Open whether all entries of the last axis are 0: one bit, and no more."""
    failing = fails.sum(axis=-1) if fails.shape[-1] > 1 else fails.reshape(fails.shape[:-1])
    if fails.shape[-1] > 1:
        failing = 1 - await less_than(party.at("any"), failing, 1)
    return not np.asarray(await open_(party, failing)).any()


async def short_of(
    party: Party,
    ours: NDArray[np.int64],
    needed: NDArray[np.int64],
    most: int | None = None,
    first: Share | None = None,
) -> Share:
    """Return 1 where the parties' contributions do not add up to what is needed, else 0.

    A party contributes from 0 to ``most``, by default the largest of what is needed; ``first``, of shape (1,), stands
    for what they contribute to the first threshold.
    """
    total = await added_up(party, ours, int(needed.max()) if most is None else most, field=_FIELD)
    if first is not None:
        total = concatenate([first, total[1:]])
    return await less_than(party, total, needed)


async def dominated(party: Party, parts: NDArray[np.float64], most: Fraction) -> Share:
    """Return 1 for each party and column where the party's largest row is above its part of the sum."""
    size = np.abs(parts)
    if len(size) > (1 << _ROW_BITS) // party.size:
        raise ValueError(f"dominance is checked for at most 2^{_ROW_BITS} rows")
    columns = size.shape[1]
    own = np.concatenate([size.sum(axis=0), size.max(axis=0, initial=0.0)])
    held = await party.share(own, bound=2.0**_ROW_BITS / party.size, scale=_PART_SCALE, shape=own.shape)
    total = sum_of([one[:columns] for one in held])
    # most = part / whole: part * total - whole * largest is negative where a row dominates.
    part, whole = most.limit_denominator(10_000).as_integer_ratio()
    margins = [total * part - one[columns:].bounded_by(1.001) * whole for one in held]
    return await less_than(party, concatenate(margins), 0)
