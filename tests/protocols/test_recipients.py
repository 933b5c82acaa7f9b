"""Results for some of the parties: the others get None, and see nothing that would tell more."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpc import AgreementError, Party, PeerError
from mpc.memory import run_in_memory
from protocols import (
    PrecisionWarning,
    logistic_regression,
    secure_mean,
    secure_sum,
    secure_variance,
)
from tests.mpc.support import run as tapped
from tests.protocols.helpers import Data, by_rows, diabetes, heart, run, run_one, spector
from tests.protocols.promises import at_rank, watched

PARTS = [np.linspace(-3, 4, 3 * rows).reshape(rows, 3) + 0.25 * rows for rows in (5, 1, 7)]
POOLED = np.concatenate(PARTS)
PROTOCOLS: list[tuple[Any, dict[str, Any], Any]] = [
    (secure_sum, {"bound": 8}, POOLED.sum(axis=0)),
    (secure_sum, {}, POOLED.sum(axis=0)),
    (secure_mean, {"bound": 8}, POOLED.mean(axis=0)),
    (secure_mean, {"bound": 8, "count": "secret"}, POOLED.mean(axis=0)),
    (secure_variance, {"bound": 8}, POOLED.var(axis=0, ddof=1)),
    (secure_variance, {}, POOLED.var(axis=0, ddof=1)),
]


@pytest.mark.parametrize("preprocessing", ["dealer", "prss"])
@pytest.mark.parametrize("to", [[0], {2, 1}, (1,)])
@pytest.mark.parametrize(("protocol", "parameters", "expected"), PROTOCOLS)
def test_only_the_named_parties_get_the_result(
    protocol: Any, parameters: dict[str, Any], expected: Any, to: Any, preprocessing: str
) -> None:
    async def program(party: Party, data: Any) -> Any:
        return await protocol(party, data, to=to, **parameters)

    for rank, result in enumerate(run(program, PARTS, preprocessing)):
        if rank in to:
            np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-8)
        else:
            assert result is None


def test_one_column_for_one_party() -> None:
    async def program(party: Party, data: Any) -> Any:
        return [
            await secure_mean(party, data, to=[2]),
            await secure_mean(party, data, bound=4, count="secret", to=[2]),
            await secure_variance(party, data, bound=4, to=[2]),
        ]

    nobody, _, third = run(program, [np.array([1.0]), np.array([2.0, 3.0]), np.array([])])
    assert nobody == [None] * 3
    assert third == pytest.approx([2.0, 2.0, 1.0], abs=1e-6)
    assert all(isinstance(value, float) for value in third)


# What is opened to others than those named, by protocol: (steps, elements).
SEEN_BY_OTHERS: list[tuple[Any, dict[str, Any], list[tuple[str, int]]]] = [
    (secure_sum, {}, []),
    (secure_mean, {}, []),
    (secure_mean, {"bound": 8, "count": "secret"}, []),
    (secure_mean, {"count": "secret"}, [("bounds/open", 3)]),  # orders of magnitude
    (secure_variance, {"bound": 8}, [("open", 1)]),  # the total number of rows
    (secure_variance, {}, [("bounds/open", 3), ("open", 1)]),
]


@pytest.mark.parametrize(("protocol", "parameters", "seen"), SEEN_BY_OTHERS)
def test_what_is_opened_to_the_others_is_what_docstrings_say(
    protocol: Any, parameters: dict[str, Any], seen: list[tuple[str, int]]
) -> None:
    async def program(party: Party, data: Any) -> Any:
        await protocol(party, data, to=[1], **parameters)
        return [(o.step, o.elements) for o in party.costs.openings if o.digest is not None]

    first, second, third = run(program, PARTS)
    assert first == third == seen
    assert len(second) > len(seen)


def test_a_party_that_is_not_named_receives_no_message_after_the_inputs() -> None:
    async def program(party: Party, data: Any) -> Any:
        return await secure_sum(party, data, to=[1])

    done = tapped(program, PARTS)
    assert {(m.frm, m.to) for m in done.sent if "open" in m.step} == {(0, 1), (2, 1)}


def test_naming_all_parties_is_the_same_as_naming_none() -> None:
    async def program(party: Party, data: Any) -> Any:
        named = None if party.rank else [2, 0, 1]
        return await secure_sum(party, data, to=named), party.costs.by_step.keys()

    for total, steps in run(program, PARTS):
        np.testing.assert_allclose(total, POOLED.sum(axis=0))
        assert "open" in steps


def test_costs_do_not_grow() -> None:
    async def program(party: Party, data: Any) -> Any:
        await secure_sum(party, data, to=[0])
        return party.costs.rounds, party.costs.elements_opened, party.costs.bytes_sent

    first, second, third = run(program, PARTS)
    assert first[:2] == second[:2] == third[:2] == (3, 3)
    assert second[2] - first[2] == third[2] - first[2] == 3 * 16  # the recipient sends its summands to nobody


@pytest.mark.parametrize("to", [[], [3], [-1], [0, 7]])
@pytest.mark.parametrize("protocol", [secure_sum, secure_mean, secure_variance])
def test_recipients_exist(protocol: Any, to: list[int]) -> None:
    with pytest.raises(ValueError, match="to names at least one rank from 0 to 2"):
        run_one(protocol, PARTS, to=to)


@pytest.mark.parametrize("protocol", [secure_sum, secure_mean, secure_variance])
@pytest.mark.parametrize("others", [[1], None, [0, 1]])
def test_parties_agree_on_the_recipients(protocol: Any, others: Any) -> None:
    """Whoever names somebody else stops, before anything that depends on data leaves it, and so do the others."""

    async def program(party: Party, data: Any) -> Any:
        await protocol(party, data, to=[0] if party.rank == 2 else others)

    done = tapped(program, PARTS)
    assert all(isinstance(outcome, AgreementError | PeerError) for outcome in done.outcomes)
    assert isinstance(done.outcomes[2], AgreementError)
    assert all(isinstance(outcome, AgreementError) for outcome in done.outcomes)
    assert not [m for m in done.sent_after_inputs() if "agree" not in m.step]
    with pytest.raises(AgreementError, match=r"says to = (\[0\]|nothing|\[1\]|\[0, 1\])"):
        run_in_memory(program, PARTS, preprocessing="dealer")


def test_without_a_row_the_recipients_say_so() -> None:
    nothing = [np.zeros((0, 2))] * 3
    for parameters in ({}, {"bound": 1.0, "count": "secret"}):

        async def program(party: Party, data: Any, parameters: Any = parameters) -> Any:
            return await secure_mean(party, data, to=[1], **parameters)

        done = tapped(program, nothing)
        assert "no party has a row" in str(done.outcomes[1])
        assert all(outcome is None or isinstance(outcome, PeerError) for outcome in done.outcomes[::2])


def test_only_recipients_are_warned() -> None:
    parts = [np.full((3, 1), 5.0)] * 3

    with pytest.warns(PrecisionWarning) as caught:
        run_one(secure_variance, parts, bound=8, to=[0])
    assert len(caught) == 1


# ---- regression -------------------------------------------------------------------------------------------------


def by_columns(data: Data, parties: int) -> list[tuple[Any, Any]]:
    parts = np.array_split(np.arange(data.X.shape[1]), parties)
    return [(data.X[:, part], data.y if k == 0 else None) for k, part in enumerate(parts)]


@pytest.mark.parametrize(("solver", "preprocessing"), [("newton", "dealer"), ("gradient", "prss")])
def test_a_regression_for_one_party_equals_that_for_all(solver: str, preprocessing: str) -> None:
    inputs, steps = by_rows(spector(), 3), 10 if solver == "newton" else 30
    everybody = run_one(logistic_regression, inputs, preprocessing, l2=1.0, solver=solver, steps=steps)

    async def program(party: Party, data: Any) -> Any:
        fit = await logistic_regression(party, *data, l2=1.0, solver=solver, steps=steps, to=[2])
        return fit, [(o.step, o.elements) for o in party.costs.openings if o.digest is not None]

    (none, seen), (also_none, _), (fit, _) = run(program, inputs, preprocessing)
    assert none is None
    assert also_none is None
    assert seen == [("logistic/missing/open", 4), ("logistic/bounds/open", 3)]
    np.testing.assert_allclose(fit.params, everybody.params, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fit.std_err, everybody.std_err, rtol=1e-4)
    assert (fit.n, fit.converged, fit.names, fit.warnings) == (
        everybody.n,
        everybody.converged,
        everybody.names,
        everybody.warnings,
    )


def heart_and_more() -> Data:
    X = heart().X
    return Data(np.column_stack([X, X**2, X[:, 0] * X[:, 1]]), heart().y)


@pytest.mark.parametrize(
    ("dataset", "preprocessing", "parties"),
    [(heart, "dealer", 2), (diabetes, "dealer", 3), (heart_and_more, "prss", 3)],
)
def test_owners_of_columns_learn_nothing_of_a_result_for_others(
    dataset: Callable[[], Data], preprocessing: str, parties: int
) -> None:
    data = dataset()
    scales = 10.0 ** np.linspace(-7, 7, data.X.shape[1])  # very different units
    scaled = Data(data.X * scales, data.y)
    inputs = by_columns(scaled, parties)
    with watched() as promises:
        everybody = run_one(logistic_regression, inputs, preprocessing, l2=1.0, partition="columns")

        async def program(party: Party, data: Any) -> Any:
            fit = await logistic_regression(party, *data, l2=1.0, partition="columns", to=[1])
            return fit, [(o.step, o.shapes) for o in party.costs.openings if o.digest is not None]

        results = run(at_rank(program), inputs, preprocessing)
    promises.check(parties)
    for rank, (fit, seen) in enumerate(results):
        if rank != 1:
            assert (fit, seen) == (None, [])
            continue
        assert len(seen) == 1
        np.testing.assert_allclose(fit.coef / fit.std_err[1:], everybody.coef / everybody.std_err[1:], atol=1e-4)
        np.testing.assert_allclose(fit.std_err, everybody.std_err, rtol=1e-4)
        np.testing.assert_allclose(fit.intercept, everybody.intercept, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore::protocols.ConvergenceWarning")
def test_own_columns_that_are_constant_or_of_extreme_spread() -> None:
    data = spector()
    X = data.X * [1e-150, 1e150, 0.0] + [0, 0, 7.0]
    plain = spector().X.copy()
    plain[:, 2] = 7.0

    async def program(party: Party, k: int) -> Any:
        y = data.y if k == 0 else None
        fit = await logistic_regression(party, X[:, [k]], y, l2=1.0, partition="columns", to=[0])
        return fit, await logistic_regression(party, plain[:, [k]], y, l2=1.0, partition="columns", to=[0])

    fit, reference = run(program, range(3))[0]
    np.testing.assert_allclose(fit.coef * [1e-150, 1e150, 1], reference.coef, rtol=1e-4)
    np.testing.assert_allclose(fit.std_err[1:3] * [1e-150, 1e150], reference.std_err[1:3], rtol=1e-4)
    assert np.isnan([fit.coef[2], fit.std_err[3]]).all()


def test_stopping_early_is_the_only_thing_that_others_see() -> None:
    async def program(party: Party, data: Any) -> Any:
        await logistic_regression(party, *data, l2=1.0, bound=40, stop_early=True, missing="raise", to=[0])
        return [(o.step, o.elements) for o in party.costs.openings if o.digest is not None]

    seen = run(program, by_rows(spector(), 3))[1]
    assert seen
    assert all(step.startswith("newton") and elements == 1 for step, elements in seen)


def test_a_model_that_stays_shared_has_no_recipients() -> None:
    with pytest.raises(ValueError, match="reveal=False"):
        run_one(logistic_regression, by_rows(spector(), 2), reveal=False, to=[0])
