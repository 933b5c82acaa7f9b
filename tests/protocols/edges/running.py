"""Run one analysis at all parties and hold what comes out against what may come out."""

from __future__ import annotations

import contextlib
import json
import math
import re
import time
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mpc import DataError, Party, PeerError
from parties.errors import PartyError
from parties.simulate import simulate
from protocols import ConvergenceWarning, DisclosureError, PrecisionWarning
from tests.protocols.edges.tables import Table, World, absent, complete

# Nobody waits for anybody: a run that takes longer hangs.
SECONDS = 120.0
_WARNINGS = (ConvergenceWarning, PrecisionWarning)
_NUMPY = re.compile(r"array\(|dtype\(|ufunc|broadcast|could not convert|Traceback|object at 0x")


@dataclass(frozen=True)
class Answer:
    """What the reference says of complete cases.

    Attributes
    ----------
    values : mapping
        Numbers that the result has, by name; where they are NaN or infinite, so are the result's.
    refused : str
        There is none: the DataError that all parties get matches this.
    warned : str
        There is none: the result says so in its ``warnings``, which match this.
    may_warn : bool
        The reference is at the edge of what floats can tell; the result may be right, or warn.
    slack : float
        The tolerances are so many times the case's, as the analysis' docstring says of data like these.
    unsaid : tuple of str
        Values of which the result's docstring says when they are NaN, so that it need not say so again.
    withheld : mapping
        Values that may be NaN where the result gives a reason that matches this.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    refused: str = ""
    warned: str = ""
    may_warn: bool = False
    slack: float = 1.0
    unsaid: tuple[str, ...] = ()
    withheld: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """An analysis, what it takes, and its reference.

    Attributes
    ----------
    name : str
    protocol : async callable
    data : mapping
        Which columns of the table go where: a name, or several names side by side; of ``frame`` a mapping.
    options : mapping
        What all parties agree on.
    answer : callable
        Complete cases to the reference's answer.
    read : callable
        The result to its numbers, by the names that the answer uses.
    rtol, atol : float
        How far these may be apart; the docstrings of the analyses say why.
    partitions : tuple of str
    gaps : bool
        Whether rows in which something is missing are left out (else they are an error).
    gaps_apart : bool
        Whether each variable has complete rows of its own, so that the reference takes the table as it is.
    slow : bool
        Whether a run takes more than about a third of a second.
    all_hold : bool
        Whether with ``partition="columns"`` every party has a column of X.
    bounded : tuple of str
        Arguments whose numbers have a declared bound, which is ``BOUND``.
    others : mapping
        For each option another value, on which a party may insist.
    """

    name: str
    protocol: Callable[..., Awaitable[Any]]
    data: Mapping[str, Any]
    answer: Callable[[Table], Answer]
    read: Callable[[Any], Mapping[str, Any]]
    options: Mapping[str, Any] = field(default_factory=dict)
    rtol: float = 1e-6
    atol: float = 1e-8
    partitions: tuple[str, ...] = ("rows",)
    gaps: bool = True
    gaps_apart: bool = False
    slow: bool = False
    all_hold: bool = False
    bounded: tuple[str, ...] = ()
    others: Mapping[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, each once."""
        found: list[str] = []
        for names in self.data.values():
            found += [names] if isinstance(names, str) else list(names)
        return tuple(dict.fromkeys(found))


@dataclass
class Outcome:
    """What became of a run at each party."""

    results: dict[int, Any] = field(default_factory=dict)
    errors: dict[int, BaseException] = field(default_factory=dict)
    warned: list[warnings.WarningMessage] = field(default_factory=list)
    seconds: float = 0.0


# ---- what each party passes ---------------------------------------------------------------------


def arguments(case: Case, world: World) -> list[dict[str, Any]]:
    """Return what each party passes of its data."""
    return [_own(case, world, rank) for rank in range(world.parties)]


def _own(case: Case, world: World, rank: int) -> dict[str, Any]:
    if world.partition == "rows":
        mine = world.owner == rank
        return {name: _value(name, columns, world.table, mine) for name, columns in case.data.items()}
    every = slice(None)
    found: dict[str, Any] = {}
    for k, (name, columns) in enumerate(case.data.items()):
        if isinstance(columns, str):
            found[name] = world.table[columns] if k % world.parties == rank else None
        elif name == "frame":
            own = columns[rank :: world.parties]
            found[name] = {one: world.table[one][every] for one in own}
        else:  # the first columns are those of the first parties
            own = [one for place, one in enumerate(columns) if min(place, world.parties - 1) == rank]
            found[name] = _value(name, own, world.table, every) if own else None
    return found


def _value(name: str, columns: Any, table: Table, rows: Any) -> Any:
    if isinstance(columns, str):
        return table[columns][rows]
    if name == "frame":
        return {one: table[one][rows] for one in columns}
    return np.stack([table[one][rows] for one in columns], axis=1)


def run(
    case: Case,
    inputs: Sequence[Mapping[str, Any]],
    *,
    preprocessing: str = "dealer",
    partition: str = "rows",
    options: Mapping[int, Mapping[str, Any]] | None = None,
) -> Outcome:
    """Run a case; what a party gets or raises is kept, not raised."""
    outcome = Outcome()

    async def program(party: Party, own: Mapping[str, Any]) -> None:
        chosen = {**case.options, **((options or {}).get(party.rank, {}))}
        if len(case.partitions) > 1 or partition != "rows":
            chosen.setdefault("partition", partition)
        try:
            outcome.results[party.rank] = await case.protocol(party, **own, **chosen)
        except Exception as error:
            outcome.errors[party.rank] = error
            raise

    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught, contextlib.suppress(PartyError):
        warnings.simplefilter("always")
        simulate(program, inputs, preprocessing=preprocessing, in_process=True, timeout_seconds=SECONDS)
    assert len(outcome.results) + len(outcome.errors) == len(inputs), f"{case.name}: a failure outside the analysis"
    outcome.seconds = time.perf_counter() - started
    outcome.warned = caught
    return outcome


# ---- what may come out --------------------------------------------------------------------------


# Of a column that varies in its owner's rows, but not in those where all columns are complete, its owner does not know
# that it is constant: it is no column that is left out, but one that is collinear with the intercept.
_STANDARDISE_ALONE = {
    "logistic_regression": "collinear|separable|no spread",
    "poisson_regression": "collinear|no spread|range|converge|steps",
}


def _constant_where_complete(world: World) -> bool:
    if world.partition != "columns":
        return False
    left = complete(world.table)
    own = [np.array([value for value in world.table[name] if not absent(np.array([value]))[0]]) for name in ("x", "z")]
    return any(
        len(column) and np.ptp(column.astype(np.float64)) > 0 and len(left[name]) and np.ptp(left[name]) == 0
        for name, column in zip(("x", "z"), own, strict=True)
    )


def _faint_where_complete(world: World) -> bool:
    """Whether least squares may take a column for constant that varies less where all are complete than elsewhere."""
    left = complete(world.table)
    rows, n = len(world.table["w"]), len(left["w"])
    if world.partition != "columns" or not n:
        return False
    least = 2.0 ** (max(1, math.ceil(math.log2(rows / n) / 2)) - 8)
    own = {name: world.table[name].astype(np.float64) for name in left}
    return any(left[name].std() < least * column[~np.isnan(column)].std() for name, column in own.items())


def check_world(case: Case, world: World) -> None:
    """Hold a run against the reference."""
    outcome = run(
        case, arguments(case, world), preprocessing=world.preprocessing, partition=world.partition
    )  # fmt: skip
    check_errors(case, outcome, (DataError, DisclosureError))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = case.answer(world.table if case.gaps_apart else complete(world.table))
    if not answer.refused and case.name in _STANDARDISE_ALONE and _constant_where_complete(world):
        answer = Answer(warned=_STANDARDISE_ALONE[case.name])
    if case.name == "linear_regression" and _faint_where_complete(world):
        answer = replace(answer, may_warn=True)
    if answer.refused:
        assert outcome.errors, f"{case.name}: a result, where there is none: {outcome.results[0]}"
        said = [str(error) for error in outcome.errors.values() if not isinstance(error, PeerError)]
        assert all(re.search(answer.refused, text) for text in said), (answer.refused, said)
        return
    assert not outcome.errors, f"{case.name}: the reference has an answer: {_texts(outcome)}"
    check_result(case, outcome, answer)


def check_errors(case: Case, outcome: Outcome, allowed: tuple[type[Exception], ...]) -> None:
    """Refuse errors of other kinds, with numpy's texts, after a wait; and warnings that are not documented."""
    for one in outcome.warned:
        assert issubclass(one.category, _WARNINGS), f"{case.name}: {one.category.__name__}: {one.message}"
    for rank, error in outcome.errors.items():
        text = f"{case.name}: party {rank}: {type(error).__name__}: {error}"
        assert "sent nothing for" not in str(error), f"a wait: {text}"
        assert type(error) in (*allowed, PeerError), text
        assert not _NUMPY.search(str(error)), text
    assert not outcome.errors or any(not isinstance(error, PeerError) for error in outcome.errors.values()), (
        f"{case.name}: nobody says what is wrong: {_texts(outcome)}"
    )
    assert outcome.seconds < SECONDS / 2, f"{case.name}: {outcome.seconds:.0f} s"


def check_result(case: Case, outcome: Outcome, answer: Answer) -> None:
    """Hold the results of all parties against the reference's numbers."""
    first = outcome.results[0]
    for other in outcome.results.values():
        np.testing.assert_equal(_comparable(other), _comparable(first))
    if hasattr(first, "to_dict"):
        json.dumps(first.to_dict(), allow_nan=False)
        assert first.summary()
    told = tuple(getattr(first, "warnings", ()))
    reasons = " ".join(_reasons(first))
    if answer.warned:
        assert told, f"{case.name}: no warning, where there is no answer: {first}"
        assert re.search(answer.warned, " ".join(told)), (answer.warned, told)
        assert not getattr(first, "converged", False), f"{case.name}: converged, where there is no answer"
        return
    if answer.may_warn and told:
        return
    found = case.read(first)
    for name, wanted in answer.values.items():
        ours = found[name]
        if name in answer.withheld and re.search(answer.withheld[name], reasons):
            ours = np.where(np.isnan(ours), wanted, ours)
        _compare(case, name, ours, wanted, reasons=bool(reasons) or name in answer.unsaid, slack=answer.slack)


def _reasons(result: Any) -> list[str]:
    """Return what a result says of what it does not have."""
    parts = [_reasons(one) for one in getattr(result, "characteristics", ())]
    own = (*getattr(result, "warnings", ()), *getattr(result, "suppressed", ()))
    return [*own, *(text for part in parts for text in part)]


def _comparable(result: Any) -> Any:
    return result.to_dict() if hasattr(result, "to_dict") else result


def _compare(case: Case, name: str, found: Any, wanted: Any, *, reasons: bool, slack: float) -> None:
    if isinstance(wanted, str | tuple | bool):
        assert found == wanted, f"{case.name}: {name} is {found}, not {wanted}"
        return
    ours, theirs = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    rtol, atol = case.rtol * slack, case.atol * slack
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=atol, err_msg=f"{case.name}: {name}")
    assert reasons or not np.isnan(theirs).any(), f"{case.name}: {name} is NaN without a reason"


def _texts(outcome: Outcome) -> str:
    return "; ".join(f"{rank}: {type(error).__name__}: {error}" for rank, error in outcome.errors.items())


def fields(*names: str) -> Callable[[Any], Mapping[str, Any]]:
    """Return a reader of a result's attributes."""
    return lambda result: {name: getattr(result, name) for name in names}


NAN = math.nan
