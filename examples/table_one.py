"""Three hospitals describe their patients together: the first table of a clinical paper.

    python examples/table_one.py                    prints the table and writes table_one.png
    sottovoce simulate examples/table_one.py        the study alone, and what it cost

The patients are made up. No hospital shows a row to another, and cells of fewer than five patients are never opened.
"""

from pathlib import Path
from typing import Any

import numpy as np

from mpc import Party
from parties import simulate
from protocols import Column, Disclosure, TableOneResult, table_one

COLUMNS = [
    Column("age", "number", unit="years", lower=18, upper=110),
    Column("ldl", "number", unit="mmol/l", lower=0, upper=20),
    Column("sex", "category", categories=("female", "male")),
    Column("stage", "category", categories=("I", "II", "III")),
    Column("arm", "category", categories=("control", "treated")),
]


def inputs() -> list[dict[str, Any]]:
    """Return the patients of each hospital; some values are missing, as they always are."""
    return [_patients(120, 1), _patients(90, 2), _patients(60, 3)]


async def study(party: Party, data: dict[str, Any]) -> Any:
    """Runs at every hospital, with its own patients."""
    return await table_one(party, data, by="arm", columns=COLUMNS, disclosure=Disclosure.preset("vantage6"))


def _patients(count: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    ldl = rng.normal(3.4, 0.9, count).clip(1, 8).round(1)
    ldl[rng.random(count) < 0.06] = np.nan
    return {
        "age": rng.normal(64, 11, count).clip(30, 95).round(),
        "ldl": ldl,
        "sex": rng.choice(["female", "male"], count).tolist(),
        "stage": rng.choice(["I", "II", "III"], count, p=[0.5, 0.3, 0.2]).tolist(),
        "arm": rng.choice(["control", "treated"], count).tolist(),
    }


def draw(path: Path, table: TableOneResult) -> None:
    """Draw how far apart the arms are: below 0.1 counts as balanced."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    names = [one.name for one in table.characteristics]
    apart = [float(one.smd) for one in table.characteristics]
    rows = -np.arange(len(names))
    figure, axis = plt.subplots(figsize=(6, 0.5 * len(names) + 1.2))
    axis.hlines(rows, 0, apart, color="#5f6b76", linewidth=1)
    axis.plot(apart, rows, "o", color="#0072b2")
    axis.axvline(0.1, color="#d55e00", linewidth=0.8, linestyle="--")
    axis.set(yticks=rows, yticklabels=names, xlabel="standardised difference between the arms", xlim=(0, None))
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    found: TableOneResult = simulate(study, inputs(), preprocessing="prss")[0]
    print(found.summary())
    draw(Path("table_one.png"), found)
    print("\nHow well the arms are balanced, as a picture: table_one.png")
