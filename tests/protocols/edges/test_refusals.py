"""What may not be is refused at once, by an error of a documented type that names who and what, and shows no value."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mpc import AgreementError, DataError, PeerError, RangeError
from tests.protocols.edges.cases import CASES
from tests.protocols.edges.running import Case, Outcome, arguments, check_errors, run
from tests.protocols.edges.spoils import BAD, PARTY, SECRET, UNUSED, Spoil, spoils, spoilt
from tests.protocols.edges.tables import World, worlds

_EXAMPLES = settings().max_examples
_ONCE = settings(
    max_examples=max(1, _EXAMPLES // 50),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
_SPOILS = [(name, spoil) for name, case in CASES.items() for spoil in spoils(case)]
_OTHERS = [(name, option) for name, case in CASES.items() for option in case.others]
_ARGUMENTS = [
    (name, option, k)
    for name, case in CASES.items()
    for option in inspect.signature(case.protocol).parameters
    for k in range(len(BAD.get(option, ())))
    if option not in case.data and option not in UNUSED.get(name, ())
]
# Which parts of a message name a column, where it is not the argument's own name.
_NAMED = {"values": "values|the input", "probability": "probabilit", "frame": "", "event": "event", "X": "X|column"}


def _peopled(world: World) -> World:
    """Let both parties have rows."""
    table = world.table
    rows = len(next(iter(table.values())))
    return World(table, np.arange(rows) % 2, 2, "dealer", world.partition)


def _drawn(data: st.DataObject, case: Case, start: int) -> World:
    world = data.draw(worlds(case.columns, "as drawn", case.partitions, start=start, few_columns=case.all_hold))
    rows = len(next(iter(world.table.values())))
    if rows < 4:
        world = data.draw(worlds(case.columns, "as drawn", ("rows",), start=0))
    return _peopled(world)


def _texts(outcome: Outcome) -> list[str]:
    return [f"{type(error).__name__}: {error}" for error in outcome.errors.values()]


@pytest.mark.parametrize(("name", "spoil"), _SPOILS, ids=[f"{name}: {s.column}: {s.how}" for name, s in _SPOILS])
def test_data_that_may_not_be(name: str, spoil: Spoil, seed: int) -> None:
    case = CASES[name]

    @_ONCE
    @given(st.data())
    def refused(data: st.DataObject) -> None:
        world = _drawn(data, case, seed)
        inputs = arguments(case, world)
        rank = spoilt(case, inputs, world, spoil, data.draw(st.integers(0, 40)))
        outcome = run(case, inputs, partition=world.partition)
        check_errors(case, outcome, (DataError,))
        assert len(outcome.errors) == world.parties, f"a result: {outcome.results}"
        text = str(outcome.errors[rank])
        assert isinstance(outcome.errors[rank], DataError), _texts(outcome)
        assert all(isinstance(error, PeerError) for other, error in outcome.errors.items() if other != rank)
        assert f"party {rank}" in text, text
        argument = next(one for one, columns in case.data.items() if spoil.column in columns)
        assert re.search(_NAMED.get(argument, rf"\b{argument}\b"), text), text
        assert re.search(spoil.says, text), (spoil.says, text)
        assert str(SECRET) not in " ".join(_texts(outcome)), text

    refused()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if len(case.data) > 1])
def test_columns_of_different_lengths(name: str, seed: int) -> None:
    case = CASES[name]

    @_ONCE
    @given(st.data())
    def refused(data: st.DataObject) -> None:
        world = _drawn(data, case, seed)
        for argument in case.data:
            inputs = arguments(case, world)
            for own in inputs[PARTY:] if world.partition == "rows" else inputs:
                if own[argument] is not None:
                    own[argument] = own[argument][:-1]
            outcome = run(case, inputs, partition=world.partition)
            check_errors(case, outcome, (DataError, AgreementError))
            assert len(outcome.errors) == world.parties, f"a result: {outcome.results}"

    refused()


@pytest.mark.parametrize(("name", "option"), _OTHERS, ids=[f"{name}: {option}" for name, option in _OTHERS])
def test_parties_that_differ(name: str, option: str, seed: int) -> None:
    """Whoever insists on something else: all parties know it at once, and some say what it is."""
    case = CASES[name]

    @_ONCE
    @given(st.data())
    def differ(data: st.DataObject) -> None:
        # Of columns their holder alone says what they hold.
        world = _drawn(data, replace(case, partitions=("rows",)), seed)
        inputs = arguments(case, world)
        other = case.others[option]
        if callable(other):
            other = other(inputs[PARTY])
        outcome = run(case, inputs, partition=world.partition, options={PARTY: {option: other}})
        check_errors(case, outcome, (AgreementError,))
        assert len(outcome.errors) == world.parties, f"a result: {outcome.results}"
        assert any(isinstance(error, AgreementError) for error in outcome.errors.values()), _texts(outcome)

    differ()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if len(case.partitions) > 1])
def test_parties_that_differ_in_how_data_is_split(name: str, seed: int) -> None:
    case = CASES[name]

    @_ONCE
    @given(st.data())
    def differ(data: st.DataObject) -> None:
        inputs = arguments(case, _drawn(data, case, seed))
        outcome = run(case, inputs, options={0: {"partition": "rows"}, 1: {"partition": "columns"}})
        check_errors(case, outcome, (AgreementError, DataError))
        assert len(outcome.errors) == len(inputs), f"a result: {outcome.results}"

    differ()


@pytest.mark.parametrize(
    ("name", "option", "k"), _ARGUMENTS, ids=[f"{name}: {option} {BAD[option][k]!r}" for name, option, k in _ARGUMENTS]
)
def test_arguments_that_are_none(name: str, option: str, k: int, seed: int) -> None:
    case, bad = CASES[name], BAD[option][k]
    rng = np.random.default_rng(seed)
    world = worlds(case.columns, "as drawn", ("rows",), start=int(rng.integers(1000)))
    found: list[Any] = []
    settings(_ONCE, max_examples=1, database=None)(given(world)(lambda one: found.append(one)))()
    inputs = arguments(case, _peopled(found[0]))
    outcome = run(case, inputs, options={rank: {option: bad} for rank in range(2)})
    check_errors(case, outcome, (ValueError, DataError, AgreementError, RangeError))
    assert len(outcome.errors) == 2, f"{option} = {bad!r} gives a result: {outcome.results}"
