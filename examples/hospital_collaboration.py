"""Three hospitals train one model together, and no patient is shown to anybody.

    python examples/hospital_collaboration.py                    the whole story, and a picture
    sottovoce simulate examples/hospital_collaboration.py        the study alone

A study is a function that runs at every organisation with that organisation's own data. To make this
one yours, change what it computes, and let ``inputs`` return your own data: one entry for each.
"""

from pathlib import Path

import numpy as np

from mpc import Party
from parties.demo import L2, Findings, tell
from parties.demo_data import BOUNDS, FEATURES, Hospital, hospitals
from protocols import logistic_regression, secure_mean, secure_sum, secure_variance


def inputs() -> list[Hospital]:
    """Three hospitals of unequal size and case mix: each has a matrix X and a diagnosis y."""
    return hospitals(3)


async def study(party: Party, hospital: Hospital) -> Findings:
    """Runs at every hospital, with its own patients; opened is what they agreed to learn, and no more."""
    patients, malignant = await secure_sum(party.at("counts"), [len(hospital.y), hospital.y.sum()])
    means = await secure_mean(party.at("means"), hospital.X, bound=BOUNDS)
    variances = await secure_variance(party.at("variances"), hospital.X, bound=BOUNDS)
    model = await logistic_regression(party.at("model"), hospital.X, hospital.y, l2=L2, bound=BOUNDS, names=FEATURES)
    return Findings(int(patients), int(malignant), means, np.sqrt(variances), model)


if __name__ == "__main__":
    # tell() calls parties.simulate(study, inputs(), preprocessing="prss"): three processes, mutual TLS.
    # The rest of it compares, with models that only somebody who holds all the patients can make.
    found = tell(study, inputs(), preprocessing="prss", figure=Path("sottovoce-hospitals.png"))
    print("\nThe whole model, as every hospital has it now:\n")
    print(found.model.summary())
