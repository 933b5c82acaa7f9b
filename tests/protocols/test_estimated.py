"""Cost previews of the analyses: what is foreseen on made-up data is what other data cost."""

from typing import Any

import pytest

from mpc import Party
from mpc.estimate import estimate
from mpc.made_up import MadeUp, make_up
from protocols import predict_proba, secure_mean, secure_sum, secure_variance
from protocols.comparisons.anova import anova
from protocols.comparisons.correlations import correlation, covariance
from protocols.comparisons.means import t_test
from protocols.comparisons.quantiles import quantile
from protocols.comparisons.ranks import kruskal_wallis, mann_whitney
from protocols.pools.variables import Column
from protocols.prediction.calibration import brier_score, calibration
from protocols.prediction.prediction_quality import roc_auc
from protocols.regression.linear_regression import linear_regression
from protocols.regression.logistic import logistic_regression
from protocols.regression.poisson import poisson_regression
from protocols.survival.cox import cox_regression
from protocols.survival.kaplan_meier import kaplan_meier
from protocols.survival.log_rank import log_rank
from protocols.tables.contingency import contingency_table
from protocols.tables.histograms import histogram
from protocols.tables.proportions import proportion
from protocols.tables.table_one import table_one
from tests.mpc.support import run

ROWS = 30
SHAPES = {
    "x": (ROWS,),
    "X": (ROWS, 2),
    "y": MadeUp((ROWS,), "boolean"),
    "p": MadeUp((ROWS,), lower=0.0, upper=1.0),
    "time": MadeUp((ROWS,), "integer", 1, 20),
    "arm": MadeUp((ROWS,), "category", categories=("new", "old")),
    "stage": MadeUp((ROWS,), "category", categories=("I", "II", "III")),
}
ARMS, STAGES = ("new", "old"), ("I", "II", "III")

ARM = Column("arm", "category", categories=ARMS)

# Function, the columns it takes, parameters.
ANALYSES: list[tuple[Any, list[str], dict[str, Any]]] = [
    (secure_sum, ["X"], {"bound": 1.0}),
    (secure_mean, ["X"], {"count": "secret"}),
    (secure_variance, ["X"], {}),
    (t_test, ["x", "arm"], {"categories": ARMS}),
    (anova, ["x", "stage"], {"categories": STAGES, "bound": 1.0}),
    (correlation, ["X"], {"bound": 1.0}),
    (covariance, ["X"], {"bound": 1.0}),
    (mann_whitney, ["x", "arm"], {"categories": ARMS, "bound": 1.0}),
    (kruskal_wallis, ["x", "stage"], {"categories": STAGES, "bound": 1.0}),
    (quantile, ["x"], {"q": (0.25, 0.5), "bound": 1.0}),
    (contingency_table, ["stage", "arm"], {"row_categories": STAGES, "column_categories": ARMS}),
    (proportion, ["y"], {}),
    (histogram, ["x"], {"bins": [-1.0, 0.0, 1.0]}),
    (linear_regression, ["X", "x"], {"bound": 1.0, "y_bound": 1.0}),
    (logistic_regression, ["X", "y"], {"bound": 1.0, "steps": 3, "l2": 5.0}),
    (poisson_regression, ["X", "time"], {"bound": 1.0, "y_bound": 32.0, "steps": 3}),
    (kaplan_meier, ["time", "y"], {"grid": (0, 20, 1)}),
    (log_rank, ["time", "y", "arm"], {"grid": (0, 20, 1), "categories": ARMS}),
    (cox_regression, ["time", "y", "X"], {"bound": 1.0, "steps": 3, "l2": 5.0, "most_ties": 16}),
    (roc_auc, ["p", "y"], {"bound": 1.0}),
    (calibration, ["p", "y"], {}),
    (brier_score, ["p", "y"], {}),
]


def program_of(function: Any, columns: list[str], parameters: dict[str, Any]) -> Any:
    async def program(party: Party, data: Any) -> Any:
        return await function(party, *(data[column] for column in columns), **parameters)

    return program


@pytest.mark.filterwarnings("ignore")  # of fits to made-up data
@pytest.mark.parametrize(("function", "columns", "parameters"), ANALYSES, ids=lambda one: getattr(one, "__name__", ""))
def test_analyses_cost_what_was_foreseen(function: Any, columns: list[str], parameters: dict[str, Any]) -> None:
    program = program_of(function, columns, parameters)
    found = estimate(program, SHAPES)
    done = run(program, [make_up(SHAPES, f"other data {rank}") for rank in range(3)], preprocessing="prss")
    done.results  # noqa: B018 - raises what went wrong
    costs = [party.costs for party in done.parties]
    assert not found.varies
    assert found.rounds == max(one.rounds for one in costs)
    assert found.bytes_sent == tuple(one.bytes_sent for one in costs)
    assert found.elements_opened == max(one.elements_opened for one in costs)
    assert found.hops > 0


def test_baseline_characteristics_may_cost_more_or_less() -> None:
    columns = [Column("p", "number", "", 0, 1), Column("stage", "category", categories=STAGES)]

    async def program(party: Party, data: Any) -> Any:
        frame = {column.name: data[column.name] for column in columns}
        return await table_one(party, frame | {"arm": data["arm"]}, by="arm", columns=[*columns, ARM])

    found = estimate(program, SHAPES)
    assert found.trials == 2
    assert found.rounds > 10


def test_scoring_with_a_shared_model() -> None:
    async def program(party: Party, data: Any) -> Any:
        model = await logistic_regression(party, data["X"], data["y"], bound=1.0, steps=3, l2=5.0, reveal=False)
        p = await predict_proba(party, data["X"], model, reveal=False)
        return await roc_auc(party, p, data["y"])

    found = estimate(program, SHAPES, preprocessing="dealer", trials=1)
    assert found.dealer_bytes > 0
    assert found.revealed < 3 * ROWS
