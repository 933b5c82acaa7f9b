"""Three hospitals analyse one trial together: table 1, survival curves, a test and a Cox model.

    python examples/clinical_trial.py
    sottovoce simulate examples/clinical_trial.py

The patients are made up. No hospital shows a row to another; cells of fewer than five patients are never opened.
"""

from typing import Any

import numpy as np

from mpc import Party
from parties import simulate
from protocols import Column, Disclosure, cox_regression, kaplan_meier, log_rank, table_one

ARMS = ("control", "treated")
COLUMNS = [
    Column("age", "number", unit="years", lower=18, upper=110),
    Column("ldl", "number", unit="mmol/l", lower=0, upper=20),
    Column("stage", "category", categories=("I", "II", "III")),
    Column("arm", "category", categories=ARMS),
]
MONTHS = (1, 36, 1)
RULES = Disclosure.preset("vantage6")


def inputs() -> list[dict[str, Any]]:
    """Return the patients of each hospital; some values are missing, as they always are."""
    return [_patients(120, 1), _patients(90, 2), _patients(60, 3)]


async def study(party: Party, data: dict[str, Any]) -> str:
    """Runs at every hospital, with its own patients."""
    frame = {column.name: data[column.name] for column in COLUMNS}
    time, event = data["months"], data["died"]
    treated = np.array(data["arm"]) == "treated"
    X = np.column_stack([treated, data["age"], data["ldl"]])
    names, bound = ["treated", "age", "ldl"], [1.0, 110.0, 20.0]
    # Four analyses, each in a scope of its own; what they open is all that leaves the house.
    first = await table_one(party.at("table 1"), frame, by="arm", columns=COLUMNS, disclosure=RULES)
    curves = await kaplan_meier(
        party.at("curves"), time, event, grid=(6, 36, 6), group=data["arm"], categories=ARMS, disclosure=RULES
    )
    test = await log_rank(party.at("test"), time, event, data["arm"], grid=MONTHS, categories=ARMS, disclosure=RULES)
    model = await cox_regression(
        party.at("model"), time, event, X, grid=MONTHS, names=names, bound=bound, disclosure=RULES
    )
    return "\n\n".join(one.summary() for one in (first, curves, test, model) if one is not None)


def _patients(count: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    age = rng.normal(64, 11, count).clip(30, 95).round()
    ldl = rng.normal(3.4, 0.9, count).clip(1, 8).round(1)
    stage = rng.choice(["I", "II", "III"], count, p=[0.5, 0.3, 0.2])
    arm = rng.choice(["control", "treated"], count)
    hazard = 0.02 * np.exp(0.03 * (age - 64) + 0.35 * (stage == "III") - 0.6 * (arm == "treated"))
    death, end = rng.exponential(1 / hazard), rng.uniform(12, 40, count)
    ldl[rng.random(count) < 0.06] = np.nan
    return {
        "age": age,
        "ldl": ldl,
        "stage": stage.tolist(),
        "arm": arm.tolist(),
        "months": np.ceil(np.minimum(death, end)).clip(1, 36),
        "died": (death <= end) & (death <= 36),
    }


if __name__ == "__main__":
    print(simulate(study, inputs(), preprocessing="prss")[0])
