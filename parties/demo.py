"""What ``sottovoce demo`` tells: hospitals train one model, and no patient is shown to anybody."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from parties import demo_display as display
from parties.demo_data import BOUNDS, FEATURES, Hospital, held_out, pooled
from parties.demo_reference import fit_in_the_clear, largest_difference, quality
from parties.demo_watch import Board, watched
from parties.display import heading, make_console, show_costs
from parties.simulate import simulate
from protocols import logistic_regression, secure_mean, secure_sum, secure_variance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc import Party
    from parties.demo_figure import Shown
    from protocols import LogisticResult

L2 = 1.0


@dataclass(frozen=True, slots=True)
class Findings:
    """What all hospitals learn."""

    patients: int
    malignant: int
    means: NDArray[np.float64]
    deviations: NDArray[np.float64]
    model: LogisticResult


async def study(party: Party, hospital: Hospital) -> Findings:
    """Runs at every hospital, with its own patients; opened is what they agreed to learn, and no more."""
    patients, malignant = await secure_sum(party.at("counts"), [len(hospital.y), hospital.y.sum()])
    means = await secure_mean(party.at("means"), hospital.X, bound=BOUNDS)
    variances = await secure_variance(party.at("variances"), hospital.X, bound=BOUNDS)
    model = await logistic_regression(party.at("model"), hospital.X, hospital.y, l2=L2, bound=BOUNDS, names=FEATURES)
    return Findings(int(patients), int(malignant), means, np.sqrt(variances), model)


def tell(
    study: Callable[[Party, Hospital], Awaitable[Findings]],
    hospitals: Sequence[Hospital],
    *,
    preprocessing: str | None = None,
    figure: Path | None = None,
) -> Findings:
    """Run a study at the hospitals, tell what happens, and return what they learn.

    Parameters
    ----------
    study : async callable
        What every hospital runs.
    hospitals : sequence of Hospital
        One organisation each, in a process of its own.
    preprocessing : {"prss", "dealer", "ot"}, optional
        See :func:`parties.simulate`.
    figure : Path, optional
        Where the picture goes.
    """
    console = make_console()
    display.show_hospitals(console, hospitals)

    # 1. The study, at all hospitals at once; we look over the first one's shoulder.
    board = Board()
    program = watched(study, board)
    with display.show_progress(console, board):
        results = simulate(program, hospitals, preprocessing=preprocessing, in_process=not hasattr(os, "fork"))
    found: Findings = results[0][0]
    display.show_findings(console, found)

    # 2. Is it right, and is it worth it?
    models = compare(found, hospitals)
    joint, on_one_heap, *alone = models
    display.show_comparison(console, models, largest_difference(joint.model, on_one_heap.model))

    # 3. What it took, and what somebody saw.
    heading(console, "What crossed the wire")
    show_costs(console, results.costs)
    display.show_sight(console, hospitals, results[0][1])
    if figure is not None:
        from parties.demo_figure import draw

        draw(figure, FEATURES, found.deviations, joint, on_one_heap, alone)
        console.print(f"\nThe models as a picture: {figure}", soft_wrap=True, markup=False)
    return found


def compare(found: Findings, hospitals: Sequence[Hospital]) -> list[Shown]:
    """Return the joint model, the one of all patients on one heap, and the one of each hospital alone.

    Only a demonstration may do this: it holds all the patients.
    """
    from parties.demo_figure import Shown

    tried_on = held_out(hospitals)

    def shown(label: str, model: Any, patients: int) -> Shown:
        return Shown(label, model, patients, quality(model, *tried_on))

    X, y = pooled(hospitals)
    return [
        shown("joint, on secret shares", found.model, found.patients),
        shown("pooled, in the clear", fit_in_the_clear(X, y, l2=L2), len(y)),
        *(shown(f"{h.name} alone", fit_in_the_clear(h.X, h.y, l2=L2), len(h.y)) for h in hospitals),
    ]
