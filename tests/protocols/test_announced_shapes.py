"""Peers that announce arrays of other shapes: whatever the step, the others end, and name who it was."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpc import AgreementError, Party, PeerError
from protocols import secure_mean, secure_sum, secure_variance
from protocols.comparisons.means import t_test
from protocols.comparisons.ranks import mann_whitney
from protocols.regression.standardise import own_columns, standardise_columns, standardise_rows
from protocols.release.disclosure import Disclosure
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
    for step in steps:
        for change, altered in CHANGES.items():

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
