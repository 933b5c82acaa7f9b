"""Peers that announce arrays of other shapes: whatever the step, the others end, and name who it was."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mpc import AgreementError, Party, PeerError
from protocols import secure_mean, secure_sum, secure_variance
from protocols.comparisons.means import t_test
from protocols.comparisons.ranks import mann_whitney
from protocols.regression.count_rows import prepare_counts
from protocols.regression.designs import prepare
from protocols.regression.estimates import _in_units, publish
from protocols.regression.linear_moments import from_columns, from_rows
from protocols.regression.model import SharedModel
from protocols.regression.options import checked_options
from protocols.regression.predict import _standardised_columns, _standardised_rows
from protocols.regression.sample import Sample, sample
from protocols.regression.standardise import OwnColumns, own_columns, standardise_columns, standardise_rows
from protocols.release.disclosure import Disclosure, Release
from protocols.tables.contingency import contingency_table
from tests.mpc.support import Message, run

ROWS = 30
LIAR = 1


def _data() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    return [(rng.normal(size=ROWS), rng.integers(0, 2, ROWS), rng.integers(0, 3, ROWS)) for _ in range(3)]


async def _standardised(party: Party, d: Any) -> None:
    X = np.column_stack(d)
    await standardise_rows(party.at("rows"), X, [ROWS] * 3, np.full(3, 3))
    await standardise_columns(party.at("columns"), X, own_columns(party, X, (3, 3, 3)))


async def _sampled(party: Party, X: Any, given: dict[str, Any], partition: str, release: Release) -> Sample:
    vectors: Any = {what: (values, {}) for what, values in given.items()}
    options: dict[str, Any] = {"columns": None, "bound": None, "names": None, "missing": "drop", "terms": {}}
    return await sample(party, "regression", X, vectors, partition=partition, release=release, **options)


async def _prepared(party: Party, X: Any, given: dict[str, Any], name: str, partition: str) -> None:
    """Only what a regression shares before it fits."""
    release = Release(None, Disclosure("two", minimum_cell=2))
    if name == "logistic":
        plain: dict[str, Any] = {"columns": None, "bound": None, "names": None, "missing": "drop", "release": release}
        options = checked_options(0.0, "newton", partition, None, False, None, 0.0, 32.0, True)
        await prepare(party, X, given.pop("y"), options=options, **given, **plain)
        return
    if name == "linear" and partition == "columns":
        del given["weights"]
    ours = await _sampled(party.at("sample"), X, given, partition, release)
    if name == "poisson":
        await prepare_counts(party, "poisson", ours, release, partition=partition, y_bound=None)
    elif partition == "rows":
        await from_rows(party, ours, release, None)
    else:
        await from_columns(party, ours, release)


def _by_rows(name: str) -> Callable[[Party, Any], Any]:
    async def program(party: Party, d: Any) -> None:
        y = d[1] if name == "logistic" else 1.0 * d[2]
        given = {"y": y, "weights": d[2] + 1.0, "offset": 0.1 * d[0]}
        await _prepared(party, np.column_stack([d[0], d[2]]), given, name, "rows")

    return program


def _by_columns(name: str) -> Callable[[Party, Any], Any]:
    async def program(party: Party, d: Any) -> None:
        X = np.where(np.arange(ROWS) < 3, np.nan, d[0]).reshape(-1, 1)
        given = {"y": d[1] if name == "logistic" else 1.0 * d[2], "weights": d[2] + 1.0, "offset": 0.1 * d[0]}
        await _prepared(party, X, given if party.rank == LIAR else dict.fromkeys(given), name, "columns")

    return program


async def _published(party: Party, d: Any) -> None:
    own = OwnColumns(np.zeros(2), np.array([1.0, 3.0]), (2, 2, 2))
    await publish(party.at("publish"), [own.mean, own.deviation], own.counts)
    figures = party.constant(np.ones(6), scale=30)
    await _in_units(party.at("units"), own, figures, None, 2.0)


async def _scored(party: Party, d: Any) -> None:
    """Only what is shared with a model that nobody knows."""
    nobody = np.zeros(3)
    shared = party.constant(nobody, scale=28)
    own = OwnColumns(nobody, nobody + 1, (3, 3, 3))
    model = SharedModel(shared, None, shared, np.zeros(3, np.int64), own, 9, 9, 1, True, (), "columns")
    X = np.clip(np.column_stack(d), -1, 1)
    await _standardised_columns(party.at("columns"), X, model)
    await _standardised_rows(party.at("rows"), X, replace(model, slope=shared, columns=3, partition="rows"), [ROWS] * 3)


PROGRAMS: dict[str, Callable[[Party, Any], Any]] = {
    "t_test": lambda p, d: t_test(
        p, d[0], group=d[1], bound=10.0, categories=[0, 1], disclosure=Disclosure.preset("ons")
    ),
    "contingency_table": lambda p, d: contingency_table(
        p, d[1], d[2], row_categories=[0, 1], column_categories=[0, 1, 2], disclosure=Disclosure.preset("datashield")
    ),
    "mann_whitney": lambda p, d: mann_whitney(p, d[0], d[1], categories=[0, 1]),  # agrees on a bound
    "secure_sum": lambda p, d: secure_sum(p, np.column_stack(d), bound=10.0, disclosure=Disclosure.preset("ons")),
    "secure_mean": lambda p, d: secure_mean(p, d[0], bound=10.0),
    "secure_variance": lambda p, d: secure_variance(p, np.column_stack(d), bound=10.0),
    "standardise": _standardised,
    **{f"{name}, rows": _by_rows(name) for name in ("linear", "logistic", "poisson")},
    **{f"{name}, columns": _by_columns(name) for name in ("linear", "logistic", "poisson")},
    "estimates": _published,
    "scoring": _scored,
}
CHANGES: dict[str, Callable[[list[int]], list[int]]] = {
    "an axis more": lambda s: [1, *s],
    "longer": lambda s: [*s[:-1], s[-1] + 1] if s else [2],
    "empty": lambda s: [0, *s[1:]],
    "one number": lambda s: [] if s else [1],
    "very long": lambda s: [1 << 28, *s[1:]],
    "too long": lambda s: [1 << 30, *s[1:]],
}


def _headers(log: list[Message]) -> list[str]:
    return list(dict.fromkeys(m.step for m in log if "/header#" in m.step and m.frm == LIAR))


@pytest.mark.parametrize("name", PROGRAMS)
def test_other_shapes_are_refused(name: str) -> None:
    """Every input that the protocol takes, under every change: no result, no error but one that names the liar."""
    program = PROGRAMS[name]
    data = _data()
    honest = run(program, data, preprocessing="prss")
    honest.results  # noqa: B018
    steps = _headers(honest.log)
    assert steps
    few = name.endswith(("rows", "columns"))  # there are many steps
    for step in steps:
        for change, altered in CHANGES.items():
            if few and change != "longer":
                continue

            def tamper(message: Message, step: str = step, altered: Any = altered) -> list[Message]:
                if (message.frm, message.step) != (LIAR, step):
                    return [message]
                shape, *rest = json.loads(message.data)
                return [message._replace(data=json.dumps([altered(shape), *rest], separators=(",", ":")).encode())]

            if change == "very long" and step.startswith("pool/vectors"):
                continue  # nobody knows how many rows another party has: that many are taken, up to 2^28 entries
            outcomes = run(program, data, preprocessing="prss", tamper=tamper).outcomes
            for rank in (0, 2):
                outcome = outcomes[rank]
                assert isinstance(outcome, AgreementError | PeerError), (step, change, outcome)
                # Rows are secret in number: where fewer are shared than were counted, it cannot be told whose they are.
                secret = "pool/vectors/share" in step and change == "empty"
                assert f"party {LIAR}" in str(outcome) or (secret and "counted 90 before" in str(outcome)), (
                    step,
                    change,
                )
