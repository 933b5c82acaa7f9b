"""Peers that announce arrays of other shapes to searches, predictions and survival analyses."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpc import AgreementError, Party, PeerError
from protocols.comparisons.quantiles import quantile
from protocols.prediction.calibration import brier_score, calibration
from protocols.prediction.prediction_quality import roc_auc
from protocols.release.disclosure import Disclosure
from protocols.survival.cox import cox_regression
from protocols.survival.kaplan_meier import kaplan_meier
from protocols.survival.log_rank import log_rank
from tests.mpc.support import Message, run
from tests.protocols.test_announced_shapes import CHANGES, LIAR

ROWS = 20
SMALL = Disclosure("small", minimum_cell=2)


def _data() -> list[tuple[Any, ...]]:
    rng = np.random.default_rng(1)
    return [(rng.uniform(size=ROWS), rng.permutation(ROWS) % 2, rng.integers(1, 5, ROWS)) for _ in range(3)]


async def _columns(party: Party, d: Any) -> Any:
    """A Cox regression whose columns several parties hold: their cells are checked."""
    time, event = (d[2], d[1]) if party.rank == 0 else (None, None)
    X = None if party.rank == 0 else {f"x{party.rank}": d[0]}
    return await cox_regression(
        party, time, event, X, grid=(1, 4, 1), bound=1.0, partition="columns", steps=1, disclosure=SMALL
    )


# What the names of the steps hold that are tampered with, and the program.
PROGRAMS: dict[str, tuple[str, Callable[[Party, Any], Any]]] = {
    "quantile": ("", lambda p, d: quantile(p, d[0], [0.3, 0.5], resolution=0.25, bound=1.0)),
    "calibration": ("", lambda p, d: calibration(p, d[0], d[1], bins=3, disclosure=SMALL)),
    "brier_score": ("", lambda p, d: brier_score(p, d[0], d[1])),
    "roc_auc": ("bins", lambda p, d: roc_auc(p, d[0], d[1], bound=1.0, grid=[0.5])),
    "kaplan_meier": ("", lambda p, d: kaplan_meier(p, d[2], d[1], grid=(1, 4, 1), disclosure=SMALL)),
    "log_rank": ("", lambda p, d: log_rank(p, d[2], d[1], d[2] % 2, grid=(1, 4, 1), categories=(0, 1))),
    "cox_regression": ("columns/share", _columns),
}


@pytest.mark.filterwarnings("ignore::protocols.regression.results.ConvergenceWarning")
@pytest.mark.parametrize("name", PROGRAMS)
def test_other_shapes_are_refused(name: str) -> None:
    part, program = PROGRAMS[name]
    data = _data()
    honest = run(program, data, preprocessing="prss")
    honest.results  # noqa: B018
    steps = [m.step for m in honest.log if "/header#" in m.step and m.frm == LIAR and part in m.step]
    steps = list(dict.fromkeys(steps))
    # A search repeats its steps: the first and the last of those that differ in their number only.
    kinds: dict[str, list[str]] = {}
    for step in steps:
        kinds.setdefault("".join(c for c in step if not c.isdigit()), []).append(step)
    chosen = [step for same in kinds.values() for step in dict.fromkeys((same[0], same[-1]))]
    assert chosen
    for step in chosen:
        for change, altered in CHANGES.items():

            def tamper(message: Message, step: str = step, altered: Any = altered) -> list[Message]:
                if (message.frm, message.step) != (LIAR, step):
                    return [message]
                shape, *rest = json.loads(message.data)
                return [message._replace(data=json.dumps([altered(shape), *rest], separators=(",", ":")).encode())]

            outcomes = run(program, data, preprocessing="prss", tamper=tamper).outcomes
            for rank in (0, 2):
                outcome = outcomes[rank]
                assert isinstance(outcome, AgreementError | PeerError), (step, change, outcome)
                assert f"party {LIAR}" in str(outcome), (step, change, outcome)
