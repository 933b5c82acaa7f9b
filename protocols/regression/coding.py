"""Predictors of a regression: columns of numbers as they are, categories as indicators of all but the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import AgreementError, DataError, Party
from protocols.agreement import agree, announce
from protocols.pools.blocks import blocks
from protocols.pools.row_pool import with_categories
from protocols.pools.variables import Categorical, Column, Numeric, Variable, categorical, check_rows, numeric
from protocols.release.disclosure import Release
from protocols.rows import Bound, column_bounds

_MOST_COLUMNS = 4096
Bounds = Bound | Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """Our predictors as one matrix, in the clear; made where it is asked for.

    Attributes
    ----------
    parts : tuple of Numeric or Categorical
        All declared.
    names : tuple of str
        Of our columns; those of a category are ``name[T.label]``, as statsmodels writes them.
    named : bool
        Whether these names were given, or are numbers only.
    bounds : numpy.ndarray
        Public bound of each column's absolute values; NaN where none is agreed.
    chosen : numpy.ndarray or None
        Which of our rows count; None for all.
    """

    parts: tuple[Variable, ...]
    names: tuple[str, ...]
    named: bool
    bounds: NDArray[np.float64]
    chosen: NDArray[np.bool_] | None = None

    @property
    def rows(self) -> int:
        """How many rows."""
        return self.parts[0].rows if self.chosen is None else int(np.count_nonzero(self.chosen))

    def blocks(self) -> Iterator[slice]:
        """Cut all our rows into blocks, those that do not count with them."""
        return blocks(self.parts[0].rows, len(self.names) + 1)

    def block(self, rows: slice) -> NDArray[np.float64]:
        """Return the columns of those rows of a block that count; 0 where a value is missing. Not to be changed."""
        found = []
        for one in self.parts:
            if isinstance(one, Numeric):
                found.append(one.block(rows)[0])
            else:
                codes = one.coded.block(rows)[:, np.newaxis]
                found.append((codes == np.arange(1, len(one.categories or ()))).astype(np.float64))
        matrix = found[0] if len(found) == 1 else np.concatenate(found, axis=1)
        return matrix if self.chosen is None else matrix[self.chosen[rows]]

    @property
    def X(self) -> NDArray[np.float64]:  # noqa: N802 - the name that matrices have
        """Shape (rows, columns); 0 where a value is missing."""
        only = self.parts[0]
        if len(self.parts) == 1 and isinstance(only, Numeric):
            return only.values if self.chosen is None else only.kept(self.chosen).values
        matrix, done = np.empty((self.rows, len(self.names))), 0
        for rows in self.blocks():
            part = self.block(rows)
            matrix[done : done + len(part)] = part
            done += len(part)
        return matrix

    @property
    def largest(self) -> NDArray[np.float64]:
        """The largest absolute value of each column; 0 without rows."""
        found = np.zeros(len(self.names))
        for rows in self.blocks():
            found = np.maximum(found, np.abs(self.block(rows)).max(axis=0, initial=0.0))
        return found

    @property
    def references(self) -> NDArray[np.float64]:
        """Shape (rows, categories): indicators of the first category of each predictor, which has no column."""
        firsts = [(self._of(one).codes == 0).astype(np.float64) for one in self.parts if isinstance(one, Categorical)]
        return np.stack(firsts, axis=1) if firsts else np.empty((self.rows, 0))

    def _of(self, one: Categorical) -> Categorical:
        return one if self.chosen is None else one.kept(self.chosen)

    @property
    def absent(self) -> dict[str, NDArray[np.bool_]]:
        """For each predictor, in which of our rows it is missing."""
        found, start = {}, 0
        for one in self.parts:
            if isinstance(one, Categorical):
                found[one.name] = ~self._of(one).complete
                start += len(one.categories or ()) - 1
                continue
            present = one.present if self.chosen is None else one.present[self.chosen]
            for k in range(len(one.names)):
                found[self.names[start + k]] = ~present[:, k]
            start += len(one.names)
        return found

    def missing(self) -> dict[str, int]:
        """In how many of our rows each predictor is missing."""
        found, start = {}, 0
        for one in self.parts:
            if isinstance(one, Categorical):
                found[one.name] = int(np.count_nonzero(~self._of(one).complete))
                start += len(one.categories or ()) - 1
                continue
            gone = np.zeros(len(one.names), np.int64)
            for rows in one.blocks() if one.gaps else ():
                present = one.block(rows)[1]
                gone += np.count_nonzero(~(present if self.chosen is None else present[self.chosen[rows]]), axis=0)
            found |= zip(self.names[start : start + len(gone)], gone.tolist(), strict=True)
            start += len(gone)
        return found

    @property
    def present(self) -> NDArray[np.bool_]:
        """Rows in which nothing is missing."""
        found = np.ones(self.parts[0].rows, np.bool_)
        for one in self.parts:
            found &= one.complete
        return found if self.chosen is None else found[self.chosen]

    def kept(self, rows: NDArray[np.bool_]) -> Coded:
        """Return some of the rows."""
        return replace(self, chosen=combined(self.chosen, rows))


def combined(chosen: NDArray[np.bool_] | None, rows: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Return which rows count, if of those that count only some do; None for all."""
    if rows.all():
        return chosen
    if chosen is None:
        return rows
    found = chosen.copy()
    found[chosen] = rows
    return found


def predictors(
    X: Any,
    *,
    rank: int,
    what: str = "X",
    columns: Sequence[Column] | None = None,
    bound: Bounds = None,
    names: Sequence[str] | None = None,
) -> list[Variable]:
    """Read the predictors of a regression, and check them.

    Parameters
    ----------
    X : array_like, pandas.DataFrame or mapping of str to array_like
        An array of shape (rows, columns) holds numbers. In a data frame or a mapping, columns of texts and
        pandas Categoricals are categories, all others numbers; booleans count as 0 and 1.
    rank : int
        Ours, for errors.
    what : str
        Names the predictors in errors.
    columns : sequence of Column, optional
        What the parties agreed that the columns hold; the order of the predictors. By default it is read off
        the data.
    bound : float, array_like or mapping of str to float, optional
        Public bound on the absolute values of all columns of numbers, of each, or of those named.
    names : sequence of str, optional
        Of an array's columns; of a frame, which columns to take, in which order.

    Raises
    ------
    DataError
        Naming party, columns and counts; never a value.
    ValueError
        Two columns of one name; or columns are declared of an array, which holds numbers and has no names of its own.
    """
    distinct(names)
    table = _table(X, rank=rank, what=what)
    if table is None:
        if columns is not None:
            raise ValueError(f"columns declares what a data frame or a mapping holds; {what} is an array")
        return [_array(X, rank=rank, what=what, bound=bound, names=names)]
    if columns is not None:
        declared = {one.name: one for one in columns}
        wanted = list(names) if names is not None else list(declared)
    else:
        declared = {}
        wanted = list(table) if names is None else list(names)
    lost = [name for name in wanted if name not in table]
    if lost:
        raise DataError(f"party {rank}: {what} has no column {', '.join(lost[:10])}")
    bounds = bound if isinstance(bound, Mapping) else None
    found: list[Variable] = []
    for name in wanted:
        column = declared.get(name)
        if column.type == "category" if column is not None else _is_category(table[name]):
            labels = column.categories if column is not None else None
            one = categorical(table[name], rank=rank, what=name, categories=labels)
            found.append(replace(one, name=name))
            continue
        limit = bounds.get(name) if bounds is not None else None
        if column is not None and limit is None:
            limit = 1.0 if column.type == "boolean" else column.bound
        elif column is None and limit is None and _is_boolean(table[name]):
            limit = 1.0
        found.append(numeric(table[name], rank=rank, what=f"{what} ({name})", bound=limit, names=[name]))
    if not isinstance(bound, Mapping) and bound is not None:
        found = _bounded(found, bound, rank=rank, what=what)
    if not found:
        raise DataError(f"party {rank}: {what} has no column")
    check_rows({one.names[0] if isinstance(one, Numeric) else one.name: one for one in found}, rank=rank)
    return found


def _array(X: Any, *, rank: int, what: str, bound: Bounds, names: Sequence[str] | None) -> Numeric:
    if isinstance(bound, Mapping):
        raise DataError(f"party {rank}: {what} has no names that bounds could go by; give one bound, or one a column")
    array = np.asarray(X)
    if array.ndim != 2 or array.shape[1] == 0:
        raise DataError(f"party {rank}: {what} has shape {array.shape}; it takes (rows, columns), at least one column")
    return numeric(X, rank=rank, what=what, bound=bound, names=names)


def _bounded(found: list[Variable], bound: Bound, *, rank: int, what: str) -> list[Variable]:
    """Put one bound, or a list of bounds, on the columns of numbers."""
    numbers = [one for one in found if isinstance(one, Numeric)]
    limits = np.asarray(bound, dtype=np.float64)
    if limits.shape not in ((), (len(numbers),)):
        raise DataError(f"party {rank}: bound has shape {limits.shape}; {what} has {len(numbers)} columns of numbers")
    each = iter(np.broadcast_to(limits, (len(numbers),)).tolist())
    done: list[Variable] = []
    for one in found:
        if isinstance(one, Numeric):
            limit = next(each)
            one = one.bounded(column_bounds(limit, 1, rank=rank), rank=rank, what=f"{what} ({one.names[0]})")
        done.append(one)
    return done


def is_table(X: Any) -> bool:
    """Whether X holds named columns: a data frame or a mapping."""
    return isinstance(X, Mapping) or (hasattr(X, "columns") and hasattr(X, "items"))


def distinct(names: Sequence[str] | None) -> None:
    """Refuse names of which two are the same."""
    if names is not None and len({str(name) for name in names}) < len(names):
        raise ValueError("names are all different")


def _table(X: Any, *, rank: int, what: str) -> dict[str, Any] | None:
    """Return named columns; None for an array."""
    if not is_table(X):
        return None
    items = [(str(name), column) for name, column in X.items()]
    found = dict(items)
    if len(found) < len(items):
        raise DataError(f"party {rank}: two columns of {what} have one name; rename one of them")
    return found


def _is_boolean(values: Any) -> bool:
    return str(getattr(values, "dtype", "")) in ("bool", "boolean") or np.asarray(values).dtype.kind == "b"


def _is_category(values: Any) -> bool:
    """Whether a column holds texts, or says that it is a category."""
    if hasattr(getattr(values, "dtype", None), "categories"):
        return True
    array = np.asarray(values)
    return array.dtype.kind in "US" or (array.dtype.kind == "O" and any(isinstance(one, str) for one in array))


async def code_rows(
    party: Party, protocol: str, found: list[Variable], release: Release, terms: Mapping[str, object]
) -> Coded:
    """Agree on predictors of which each party has rows, and code ours.

    Parameters
    ----------
    party : Party
        A scope of its own.
    protocol : str
    found : list
        From :func:`predictors`.
    release : Release
    terms : mapping
        Further parameters that must be the same at all parties.

    Raises
    ------
    AgreementError
        The parties differ in a parameter, a column, a bound or categories.
    DataError
        Categories that nobody declared, together with a disclosure control.

    Notes
    -----
    All parties learn what is declared: names, bounds, categories. Where categories are not declared, also which
    labels occur at which party. Cost: 1 round, one more for labels; no element.
    """
    described = {"predictors": [one.describe() for one in found]}
    await agree(party, protocol, {**terms, **described})
    factors: dict[str, Variable] = {one.name: one for one in found if isinstance(one, Categorical)}
    known = await with_categories(party, protocol, factors, release)
    return coded([known[one.name] if isinstance(one, Categorical) else one for one in found])


async def code_columns(
    party: Party, protocol: str, found: list[Variable], release: Release, terms: Mapping[str, object]
) -> tuple[Coded, tuple[str, ...]]:
    """Code predictors that we alone hold, and hear the names of all.

    Returns
    -------
    coded : Coded
        Our columns.
    names : tuple of str
        Of all columns: those of party 0 first, then of party 1, and so on.

    Notes
    -----
    All parties learn the names of all columns, with those of categories their labels: declared ones, or those that
    occur. Cost: 2 rounds; no element.
    """
    await agree(party, protocol, terms)
    ours = []
    for one in found:
        if isinstance(one, Categorical) and one.categories is None:
            if release.disclosure is not None:
                raise DataError(
                    f"{protocol}: nobody declared the categories of {one.name}; under a disclosure control they are "
                    "declared: columns=, or a pandas Categorical"
                )
            one = one.declared(one.own, rank=party.rank)
        ours.append(one)
    mine = coded(ours) if ours else None
    count = 0 if mine is None else len(mine.names)
    named = None if mine is None or not mine.named else list(mine.names)
    said = await announce(party, "predictors", {"columns": count, "names": named})
    everybody: list[str] = []
    for rank, one_said in enumerate(said):
        everybody += _heard(one_said, rank, len(everybody))
    if mine is None:
        raise DataError(f"party {party.rank}: X has no column")
    return mine, tuple(everybody)


def _heard(said: dict[str, Any], rank: int, before: int) -> list[str]:
    """Check what a party says of its columns; columns without names are numbered."""
    count, names = said.get("columns"), said.get("names")
    if type(count) is not int or not 0 <= count <= _MOST_COLUMNS:
        raise AgreementError(f"party {rank} announced no valid number of columns")
    if names is None:
        return [f"x{before + k + 1}" for k in range(count)]
    fits = isinstance(names, list) and len(names) == count
    if not fits or not all(isinstance(name, str) and len(name) <= 200 and name.isprintable() for name in names):
        raise AgreementError(f"party {rank} announced no valid names of columns")
    return list(names)


def coded(found: Sequence[Variable]) -> Coded:
    """Make one matrix of numbers and of categories, all of them declared."""
    names: list[str] = []
    bounds: list[float] = []
    named = True
    for one in found:
        if isinstance(one, Numeric):
            named = named and not _is_numbered(one.names)
            names += [f"x{len(names) + k + 1}" for k in range(len(one.names))] if _is_numbered(one.names) else one.names
            bounds += [np.nan] * len(one.names) if one.bounds is None else one.bounds.tolist()
            continue
        labels = one.categories or ()
        names += [f"{one.name}[T.{label}]" for label in labels[1:]]
        bounds += [1.0] * (len(labels) - 1)
    return Coded(tuple(found), tuple(names), named, np.array(bounds))


def _is_numbered(names: tuple[str, ...]) -> bool:
    """Whether names are those that an array's columns get by default."""
    return all(name == f"X{k + 1}" for k, name in enumerate(names))
