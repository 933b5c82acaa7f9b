"""Three hospitals follow the patients of one trial: survival curves, a log-rank test, a Cox model, and a picture.

    python examples/survival.py                    prints the results and writes survival.png
    sottovoce simulate examples/survival.py        the study alone, and what it cost

The patients are made up. No hospital shows a row to another, and what fewer than five patients stand behind is not
opened: neighbouring intervals of a curve are merged until there are enough.
"""

from pathlib import Path
from typing import Any

import numpy as np

from mpc import Party
from parties import simulate
from protocols import (
    CoxResult,
    Disclosure,
    KaplanMeierResult,
    LogRankResult,
    cox_regression,
    kaplan_meier,
    log_rank,
)

ARMS = ("control", "treated")
MONTHS = (1, 36, 1)  # times at which events are told apart: first, last, step
NAMES = ["treated", "age", "stage III", "ldl"]
BOUNDS = [1.0, 110.0, 1.0, 20.0]
RULES = Disclosure.preset("vantage6")
Findings = tuple[KaplanMeierResult, LogRankResult, CoxResult]


def inputs() -> list[dict[str, Any]]:
    """Return the patients of each hospital; some values are missing, as they always are."""
    return [_patients(120, 1), _patients(90, 2), _patients(60, 3)]


async def study(party: Party, data: dict[str, Any]) -> Any:
    """Runs at every hospital, with its own patients; what the three analyses open is all that leaves the house."""
    time, event, arm, X = data["months"], data["died"], data["arm"], data["X"]
    curves = await kaplan_meier(
        party.at("curves"), time, event, grid=(3, 36, 3), group=arm, categories=ARMS, disclosure=RULES
    )
    test = await log_rank(party.at("test"), time, event, arm, grid=MONTHS, categories=ARMS, disclosure=RULES)
    model = await cox_regression(
        party.at("model"), time, event, X, grid=MONTHS, names=NAMES, bound=BOUNDS, disclosure=RULES
    )
    return curves, test, model


def _patients(count: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    age = rng.normal(64, 11, count).clip(30, 95).round()
    ldl = rng.normal(3.4, 0.9, count).clip(1, 8).round(1)
    late, treated = rng.random(count) < 0.2, rng.random(count) < 0.5
    hazard = 0.02 * np.exp(0.03 * (age - 64) + 0.7 * late - 0.6 * treated)
    death, end = rng.exponential(1 / hazard), rng.uniform(12, 40, count)
    ldl[rng.random(count) < 0.06] = np.nan
    return {
        "arm": [ARMS[one] for one in treated.astype(int)],
        "months": np.ceil(np.minimum(death, end)).clip(1, 36),
        "died": (death <= end) & (death <= 36),
        "X": np.column_stack([treated, age, late, ldl]),
    }


def draw(path: Path, curves: KaplanMeierResult, test: LogRankResult, model: CoxResult) -> None:
    """Draw the curves over their numbers at risk, and the hazard ratios with their intervals."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    colours = ("#5f6b76", "#0072b2")
    months = np.arange(0, 37, 6)
    figure, axes = plt.subplots(
        2,
        2,
        figsize=(10, 5),
        gridspec_kw={"height_ratios": [5, 1], "width_ratios": [3, 2], "hspace": 0.3, "wspace": 0.3},
    )
    (survival, forest), (table, empty) = axes
    for place, (curve, colour) in enumerate(zip(curves.curves, colours, strict=True)):
        time = np.concatenate([[0.0], curve.time, [36.0]])
        steps = [np.concatenate([[1.0], side, side[-1:]]) for side in (curve.survival, curve.lower, curve.upper)]
        survival.step(time, steps[0], where="post", color=colour, label=str(curve.group))
        survival.fill_between(time, steps[1], steps[2], step="post", color=colour, alpha=0.15, linewidth=0)
        # Who is at risk just after a month: those at the beginning of the first interval that ends after it.
        at = np.searchsorted(curve.time, months, side="right")
        left = np.append(curve.at_risk, curve.at_risk[-1] - curve.events[-1] - curve.censored[-1])[at]
        for month, count in zip(months, left, strict=True):
            table.text(month, -place, str(count), ha="center", va="center", color=colour)
    survival.set(xlim=(0, 36), ylim=(0, 1.02), xticks=months, xlabel="months", ylabel="survival")
    survival.set_title(f"log-rank p = {test.p_value:.2g}", loc="right", fontsize=9)
    survival.legend(frameon=False, loc="lower left")
    table.set(xlim=(0, 36), ylim=(-1.6, 0.8), yticks=[0, -1], yticklabels=[str(one.group) for one in curves.curves])
    table.set_title("at risk", loc="left", fontsize=9)
    rows = -np.arange(len(model.coef))
    ends = np.exp(model.conf_int)
    forest.hlines(rows, ends[:, 0], ends[:, 1], color=colours[1])
    forest.plot(model.hazard_ratio, rows, "s", color=colours[1])
    forest.axvline(1, color=colours[0], linewidth=0.8)
    forest.set(
        xscale="log", yticks=rows, yticklabels=model.names, xlabel="hazard ratio (95 %)", ylim=(rows[-1] - 0.6, 0.6)
    )
    ticks = [0.25, 0.5, 1, 2, 4]
    forest.set_xticks(ticks, [f"{one:g}" for one in ticks])
    forest.minorticks_off()
    for axis in (survival, forest):
        axis.spines[["top", "right"]].set_visible(False)
    table.set_axis_off()
    for place, curve in enumerate(curves.curves):
        table.text(-2.5, -place, str(curve.group), ha="right", va="center", color=colours[place])
    empty.set_axis_off()
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    found: Findings = simulate(study, inputs(), preprocessing="prss")[0]
    print("\n\n".join(one.summary() for one in found))
    draw(Path("survival.png"), *found)
    print("\nThe curves and hazard ratios as a picture: survival.png")
