"""The rows or columns that a party brings to a regression, checked and agreed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import AgreementError, DataError, Party
from protocols.agreement import agree
from protocols.pools.variables import Column, Numeric, Variable, numeric
from protocols.regression.coding import Bounds, Coded, code_columns, code_rows, combined, distinct, predictors
from protocols.release.disclosure import Release
from protocols.rows import refuse

MISSING = ("drop", "raise")
# What a regression takes beside X; predictors of these names are counted as ``X.y`` and so on.
_BESIDE = ("y", "weights", "offset")


@dataclass(frozen=True, slots=True, eq=False)
class Vector:
    """One number a row, ours: the outcome, weights, or offsets.

    Attributes
    ----------
    numbers : Numeric
        One column.
    chosen : numpy.ndarray or None
        Which of our rows count; None for all.
    """

    numbers: Numeric
    chosen: NDArray[np.bool_] | None = None

    @property
    def values(self) -> NDArray[np.float64]:
        """Shape (rows,); 0 where it is missing."""
        return (self.numbers if self.chosen is None else self.numbers.kept(self.chosen)).values[:, 0]

    @property
    def present(self) -> NDArray[np.bool_]:
        """Shape (rows,)."""
        found = self.numbers.complete
        return found if self.chosen is None else found[self.chosen]

    def block(self, rows: slice) -> NDArray[np.float64]:
        """Return the values of those rows of a block that count."""
        found = self.numbers.block(rows)[0][:, 0]
        return found if self.chosen is None else found[self.chosen[rows]]

    def kept(self, rows: NDArray[np.bool_]) -> Vector:
        """Return some of the rows."""
        return Vector(self.numbers, combined(self.chosen, rows))


def vector(
    values: Any, *, rank: int, rows: int, what: str, bound: float | None = None, least: float | None = None
) -> Vector:
    """Return one number a row, with what is missing.

    Parameters
    ----------
    values : array_like
        Shape (rows,) or (rows, 1).
    rank, rows, what
        Ours; what it is and to how many rows it belongs.
    bound : float, optional
        Public bound on the absolute values.
    least : float, optional
        The smallest value allowed.

    Raises
    ------
    DataError
        Naming party and counts; never a value.
    """
    shape = np.shape(values)
    if shape not in ((rows,), (rows, 1)):
        raise DataError(f"party {rank}: {what} has shape {shape}, X has {rows} rows; {what} takes ({rows},)")
    found = numeric(values, rank=rank, what=what, bound=bound)
    if least is not None:
        low = np.asarray(found.present & (found.values < least))
        refuse(low[:, 0], f"below {least:g}", "correct these rows", rank=rank, what=what)
    return Vector(found)


@dataclass(frozen=True, slots=True)
class Sample:
    """What we bring to a regression.

    Attributes
    ----------
    coded : Coded
        With ``partition="rows"`` our complete rows, otherwise our columns of all rows.
    names : tuple of str
        Of all columns of the model.
    vectors : dict of str to Vector
        Those that we hold of ``y``, ``weights`` and ``offset``.
    givers : dict of str to int
        With ``partition="columns"``: which party holds each of those that somebody holds.
    columns, references : tuple of int
        With ``partition="columns"``: how many columns each party has, and how many predictors that are categories.
    gaps : tuple of bool
        With ``partition="columns"``: whether anything that a party holds is ever missing.
    missing : dict of str to int
        With ``partition="rows"``: in how many of our rows each variable is missing.
    refused : bool
        Whether rows in which anything is missing were refused, so that there is none at any party.
    """

    coded: Coded
    names: tuple[str, ...]
    vectors: dict[str, Vector]
    givers: dict[str, int]
    columns: tuple[int, ...]
    references: tuple[int, ...]
    gaps: tuple[bool, ...]
    missing: dict[str, int]
    refused: bool

    @property
    def rows(self) -> int:
        """How many rows we bring."""
        return self.coded.rows

    @property
    def present(self) -> NDArray[np.bool_]:
        """Rows in which nothing that we hold is missing."""
        found = self.coded.present
        for one in self.vectors.values():
            found = found & one.present
        return found

    def values(self, what: str) -> NDArray[np.float64] | None:
        """Return one of our vectors; None if we do not hold it."""
        return self.vectors[what].values if what in self.vectors else None


async def sample(
    party: Party,
    protocol: str,
    X: Any,
    vectors: Mapping[str, tuple[Any, Mapping[str, float | None]]],
    *,
    columns: Sequence[Column] | None,
    bound: Bounds,
    names: Sequence[str] | None,
    partition: str,
    missing: str,
    release: Release,
    terms: Mapping[str, object],
) -> Sample:
    """Check what we bring to a regression, and agree on it with the others.

    Parameters
    ----------
    party : Party
        A scope of its own.
    protocol : str
    X, columns, bound, names
        See :func:`protocols.regression.coding.predictors`. With ``partition="columns"`` names are those of all columns.
    vectors : mapping of str to (array_like or None, options)
        What there is beside X, with the options of :func:`vector`.
    partition : {"rows", "columns"}
    missing : {"drop", "raise"}
        What to do with rows in which something is missing.
    release : Release
    terms : mapping
        Further parameters that must be the same at all parties.

    Raises
    ------
    AgreementError, DataError, ValueError
        Before any data is shared.

    Notes
    -----
    All parties learn what :func:`protocols.regression.coding.code_rows` or
    :func:`protocols.regression.coding.code_columns` says; with ``partition="columns"`` also how many columns each party
    has, and how many predictors that are categories, who holds the vectors, how many rows there are, and whether
    anything that a party holds is ever missing. Cost: 1 to 3 rounds; no element.
    """
    if partition not in ("rows", "columns"):
        raise ValueError(f"partition is 'rows' or 'columns', not {partition!r}")
    if missing not in MISSING:
        raise ValueError(f"missing is 'drop' or 'raise', not {missing!r}")
    distinct(names)
    by_rows = partition == "rows"
    if by_rows and vectors["y"][0] is None:
        raise DataError(f"party {party.rank}: with partition='rows' every party gives y for its rows")
    found = predictors(X, rank=party.rank, columns=columns, bound=bound, names=names if by_rows else None)
    rows = found[0].rows
    held = {
        what: vector(values, rank=party.rank, rows=rows, what=what, **options)
        for what, (values, options) in vectors.items()
        if values is not None
    }
    if missing == "raise":
        _refuse_gaps(found, held, party.rank)
    common = {"partition": partition, "missing": missing, **terms, **release.terms()}
    if by_rows:
        common["given"] = sorted(held)
        coded = await code_rows(party, protocol, found, release, common)
        present = coded.present
        for one in held.values():
            present = present & one.present
        counts = {counted_as(name): count for name, count in coded.missing().items()}
        counts |= {what: int((~one.present).sum()) for what, one in held.items()}
        kept = {what: one.kept(present) for what, one in held.items()}
        return Sample(coded.kept(present), coded.names, kept, {}, (), (), (), counts, missing == "raise")

    common["rows"] = rows
    common["names"] = None if names is None else list(names)
    coded, heard = await code_columns(party, protocol, found, release, common)
    if names is not None and len(names) != len(heard):
        raise AgreementError(f"{protocol}: {len(names)} names for {len(heard)} columns")
    own = Sample(coded, tuple(names or heard), held, {}, (), (), (), {}, missing == "raise")
    says = {f"gives {what}": int(what in held) for what in vectors}
    says |= {"columns": len(coded.names), "references": coded.references.shape[1], "gaps": int(not own.present.all())}
    declared = await agree(party, protocol, {}, says)
    givers = {}
    for what in vectors:
        ranks = [rank for rank, one in enumerate(declared) if one[f"gives {what}"]]
        if len(ranks) > 1 or (what == "y" and not ranks):
            said = f"no party gives {what}" if not ranks else f"parties {', '.join(map(str, ranks))} give {what}"
            raise AgreementError(f"{protocol}: {said}; with partition='columns' exactly one does")
        if ranks:
            givers[what] = ranks[0]
    return replace(
        own,
        givers=givers,
        columns=tuple(one["columns"] for one in declared),
        references=tuple(one["references"] for one in declared),
        gaps=tuple(bool(one["gaps"]) for one in declared),
    )


def _refuse_gaps(found: Sequence[Variable], held: Mapping[str, Vector], rank: int) -> None:
    """Refuse missing values; the error names columns and counts."""
    gone: dict[str, int] = {}
    for one in found:
        if isinstance(one, Numeric):
            gone |= zip(one.names, (~one.present).sum(axis=0).tolist(), strict=True)
        else:
            gone[one.name] = int((~one.complete).sum())
    gone |= {what: int((~one.present).sum()) for what, one in held.items()}
    named = [f"{name} ({count} rows)" for name, count in gone.items() if count]
    if named:
        shown = ", ".join(named[:10]) + (", ..." if len(named) > 10 else "")
        raise DataError(
            f"party {rank}: values are missing in {shown}; leave these rows out, or say missing='drop' at all parties"
        )


def counted_as(name: str) -> str:
    """Return the name under which missing values of a predictor are counted: none that something else has."""
    return f"X.{name}" if name in _BESIDE or name.startswith("X.") else name
