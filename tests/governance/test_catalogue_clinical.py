"""Studies for clinicians: tables, tests, models and survival are computed as the study file asks for them."""

import json
import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mpc import Party
from mpc.memory import run_in_memory
from parties.data.columns import Table
from parties.governance.catalogue import run_analyses
from parties.governance.errors import StudyError
from parties.governance.studies import parse_study
from protocols import DisclosureError
from tests.governance.test_catalogue import run

HEAD = """
format = 1
title = "Survival after heart failure"
purpose = "To find out who lives longer."
consortium = "heart"
contributors = ["north", "city", "south"]
recipients = ["north", "south"]
preprocessing = "prss"
disclosure = "vantage6"
minimum_parties = 3
deadline = 2030-12-31T18:00:00+01:00

[[columns]]
name = "age"
type = "integer"
lower = 18
upper = 110
missing = "keep"

[[columns]]
name = "bmi"
type = "number"
unit = "kg/m2"
lower = 10
upper = 70

[[columns]]
name = "risk"
type = "number"
lower = 0
upper = 1

[[columns]]
name = "visits"
type = "integer"
lower = 0
upper = 40

[[columns]]
name = "stage"
type = "category"
categories = ["I", "II", "III"]
missing = "keep"

[[columns]]
name = "treated"
type = "boolean"

[[columns]]
name = "cost"
type = "integer"
lower = 1
upper = 1000000000

[[columns]]
name = "months"
type = "integer"
lower = 1
upper = 36

[[columns]]
name = "died"
type = "boolean"
"""


def rows_of(count: int, seed: int) -> Table:
    """Rows that fit the schema, some of them with gaps."""
    rng = np.random.default_rng(seed)
    age = rng.integers(30, 95, count).astype(np.float64)
    age[rng.uniform(size=count) < 0.05] = np.nan
    stage = rng.integers(0, 3, count)
    stage[rng.uniform(size=count) < 0.05] = -1
    treated = rng.uniform(size=count) < 0.5
    bmi = np.round(rng.normal(27, 4, count).clip(12, 60), 1)
    hazard = np.exp(0.02 * (np.nan_to_num(age, nan=60) - 60) - 0.5 * treated + 0.3 * stage)
    time = np.ceil(rng.exponential(20 / hazard)).astype(np.int64)
    months = np.clip(np.minimum(time, rng.integers(6, 37, count)), 1, 36)
    died = (time <= months) & (time <= 36)
    risk = np.round(1 / (1 + np.exp(-(hazard - 1) + rng.normal(0, 0.7, count))), 3)
    visits = rng.poisson(np.exp(0.5 + 0.03 * (bmi - 27)))
    columns: dict[str, NDArray[Any]] = {
        "age": age,
        "bmi": bmi,
        "risk": risk,
        "visits": visits,
        "stage": stage,
        "treated": treated,
        "cost": np.ones(count, np.int64),
        "months": months,
        "died": died,
    }
    return Table(columns, count)


TABLES = [rows_of(140, 1), rows_of(90, 2), rows_of(60, 3)]


def pooled(*names: str) -> list[NDArray[Any]]:
    """Return columns of the rows in which none of these is missing."""
    arrays = [np.concatenate([table.columns[name] for table in TABLES]).astype(np.float64) for name in names]
    complete = np.ones(len(arrays[0]), np.bool_)
    for name, array in zip(names, arrays, strict=True):
        complete &= ~(np.isnan(array) | ((array < 0) if name == "stage" else False))
    return [array[complete] for array in arrays]


def result(analysis: str, tables: list[Any] | None = None) -> dict[str, Any]:
    """Run one analysis; all that comes out is fit for JSON, and the one who does not receive gets nothing."""
    study = parse_study(f'{HEAD}\n[[analyses]]\nname = "it"\n{analysis}')
    north, city, south = run(study, tables or TABLES)
    assert city is None
    assert north == south
    json.dumps(north, allow_nan=False)
    assert north["summary"].startswith("it:\n")
    found: dict[str, Any] = north["analyses"]["it"]
    return found


def test_a_table_one() -> None:
    found = result('protocol = "table_one"\ncolumns = ["age", "bmi", "stage", "died"]\nby = "treated"')
    assert found["protocol"] == "table_one"


def test_proportions() -> None:
    (stage,) = pooled("stage")
    found = result('protocol = "proportion"\ncolumn = "stage"')
    assert found["counts"] == [int((stage == k).sum()) for k in range(3)]


def test_a_histogram() -> None:
    (age,) = pooled("age")
    found = result('protocol = "histogram"\ncolumn = "age"\nedges = [40, 50, 70, 84.5]')
    assert found["counts"] == np.histogram(age, [-np.inf, 50, 70, np.inf])[0].tolist()


def test_quantiles() -> None:
    (age,) = pooled("age")
    found = result('protocol = "quantile"\ncolumn = "age"\nq = [0.25, 0.5, 0.75]')
    assert np.ravel(found["values"]) == pytest.approx(np.quantile(age, [0.25, 0.5, 0.75]), abs=1e-5)


def test_a_contingency_table() -> None:
    from scipy.stats import chi2_contingency

    stage, died = pooled("stage", "died")
    table = np.array([[((stage == k) & (died == v)).sum() for v in (0, 1)] for k in range(3)])
    found = result('protocol = "contingency_table"\nrows = "stage"\ncolumns = "died"')
    assert found["counts"] == table.tolist()
    assert found["chi2"]["statistic"] == pytest.approx(chi2_contingency(table, correction=False)[0], rel=1e-9)


@pytest.mark.parametrize(
    ("protocol", "reference"),
    [("t_test", "ttest"), ("mann_whitney", "mannwhitneyu"), ("anova", "f"), ("kruskal_wallis", "h")],
)
def test_comparisons_of_groups(protocol: str, reference: str) -> None:
    from scipy import stats

    bmi, stage, treated = pooled("bmi", "stage", "treated")
    if reference in ("ttest", "mannwhitneyu"):
        (bmi, treated) = pooled("bmi", "treated")
        group, two = "treated", [bmi[treated == k] for k in (0, 1)]
        wanted = stats.ttest_ind(*two, equal_var=False) if reference == "ttest" else stats.mannwhitneyu(*two)
    else:
        (bmi, stage) = pooled("bmi", "stage")
        three = [bmi[stage == k] for k in range(3)]
        group, wanted = "stage", stats.f_oneway(*three) if reference == "f" else stats.kruskal(*three)
    found = result(f'protocol = "{protocol}"\noutcome = "bmi"\ngroup = "{group}"')
    # Under a minimum cell H, and a correction for ties, are told in steps: they would tell how many values are tied.
    told_in_steps = protocol in ("mann_whitney", "kruskal_wallis")
    assert found["statistic"] == pytest.approx(wanted.statistic, rel=5e-3 if protocol == "kruskal_wallis" else 1e-6)
    assert found["p_value"] == pytest.approx(wanted.pvalue, abs=1e-6, rel=2e-2 if told_in_steps else 0)


def test_correlations() -> None:
    columns = pooled("age", "bmi", "visits")
    found = result('protocol = "correlation"\ncolumns = ["age", "bmi", "visits"]')
    assert np.array(found["correlation"]) == pytest.approx(np.corrcoef(columns), abs=1e-6)
    assert found["names"] == ["age", "bmi", "visits"]


def test_a_linear_regression() -> None:
    import statsmodels.api as sm

    bmi, age, visits = pooled("bmi", "age", "visits")
    wanted = sm.OLS(bmi, np.column_stack([np.ones(len(age)), age, visits])).fit()
    found = result('protocol = "linear_regression"\noutcome = "bmi"\nfeatures = ["age", "visits"]')
    assert [found["intercept"], *found["coef"]] == pytest.approx(wanted.params, rel=1e-6)
    assert found["std_err"] == pytest.approx(wanted.bse, rel=1e-6)


def test_a_poisson_regression_with_an_exposure() -> None:
    import statsmodels.api as sm

    visits, bmi, months = pooled("visits", "bmi", "months")
    X = np.column_stack([np.ones(len(bmi)), bmi])
    wanted = sm.GLM(visits, X, family=sm.families.Poisson(), offset=np.log(months)).fit()
    found = result('protocol = "poisson_regression"\noutcome = "visits"\nfeatures = ["bmi"]\nexposure = "months"')
    assert [found["intercept"], *found["coef"]] == pytest.approx(wanted.params, rel=1e-4)
    assert found["missing"] == {"bmi": 0, "visits": 0, "months": 0}


def test_counts_whose_bound_is_far_above_them() -> None:
    import statsmodels.api as sm

    (visits, bmi), schema = pooled("visits", "bmi"), 'name = "visits"\ntype = "integer"\nlower = 0\nupper = '
    wanted = sm.GLM(visits, np.column_stack([np.ones(len(bmi)), bmi]), family=sm.families.Poisson()).fit()
    analysis = '\n[[analyses]]\nname = "it"\nprotocol = "poisson_regression"\noutcome = "visits"\nfeatures = ["bmi"]'
    assert HEAD.count(schema) == 1
    study = parse_study(re.sub(f"{schema}[0-9]+", f"{schema}{2**20}", HEAD) + analysis)
    found = run(study, TABLES)[0]["analyses"]["it"]
    assert [found["intercept"], *found["coef"]] == pytest.approx(wanted.params, rel=1e-4)
    assert "power of 16 above the largest" in study.analyses[0].reveals().everybody
    with pytest.raises(StudyError, match="counts go up to 1048576"):
        parse_study(re.sub(f"{schema}[0-9]+", f"{schema}{2**20 + 1}", HEAD) + analysis)


def test_a_feature_called_y_does_not_hide_what_is_missing_of_the_outcome() -> None:
    head = HEAD.replace('name = "age"', 'name = "y"')
    study = parse_study(
        head + '\n[[analyses]]\nname = "it"\nprotocol = "linear_regression"\noutcome = "y"\nfeatures = ["bmi"]'
        '\n[[analyses]]\nname = "other"\nprotocol = "logistic_regression"\noutcome = "died"\nfeatures = ["y"]'
    )
    tables = []
    for table in TABLES:
        columns = dict(table.columns)
        columns["y"] = columns.pop("age")
        tables.append(Table(columns, table.rows))
    gone = int(sum(np.isnan(table.columns["y"]).sum() for table in tables))
    found = run(study, tables)[0]["analyses"]
    assert gone >= 5
    assert found["it"]["missing"] == {"bmi": 0, "y": gone}
    assert found["other"]["missing"] == {"y": gone, "died": 0}


def test_a_logistic_regression_leaves_out_rows_with_gaps() -> None:
    import statsmodels.api as sm

    died, age, bmi = pooled("died", "age", "bmi")
    wanted = sm.Logit(died, np.column_stack([np.ones(len(age)), age, bmi])).fit(disp=0)
    found = result('protocol = "logistic_regression"\noutcome = "died"\nfeatures = ["age", "bmi"]')
    assert found["n"] == len(age)
    assert found["missing"] == {"age": sum(table.rows for table in TABLES) - len(age), "bmi": 0, "died": 0}
    assert [found["intercept"], *found["coef"]] == pytest.approx(wanted.params, rel=1e-3)


def test_prediction_quality() -> None:
    from sklearn.metrics import brier_score_loss, roc_auc_score

    risk, died = pooled("risk", "died")
    area = result('protocol = "roc_auc"\nscore = "risk"\noutcome = "died"')
    steps = 2 * (4 * int(min(died.sum(), len(died) - died.sum())) // 5)
    assert area["auc"] == pytest.approx(roc_auc_score(died, risk), abs=0.5 / steps + 1e-9)
    calibrated = result('protocol = "calibration"\nprobability = "risk"\noutcome = "died"\nbins = 4')
    assert calibrated["brier"] == pytest.approx(brier_score_loss(died, risk), rel=1e-6)


TIMES = 'time = "months"\nevent = "died"\ngrid = [1, 36, 1]\n'


def test_survival() -> None:
    import pandas as pd
    from lifelines import CoxPHFitter
    from lifelines.statistics import logrank_test

    months, died, treated = pooled("months", "died", "treated")
    curves = result(f'protocol = "kaplan_meier"\n{TIMES}group = "treated"')
    assert curves["protocol"] == "kaplan_meier"
    groups = [treated == k for k in (0, 1)]
    wanted = logrank_test(months[groups[0]], months[groups[1]], died[groups[0]], died[groups[1]])
    ranks = result(f'protocol = "log_rank"\n{TIMES}group = "treated"')
    assert ranks["statistic"] == pytest.approx(wanted.test_statistic, rel=3 * 5 / (4 * len(months)))
    assert ranks["p_value"] == pytest.approx(wanted.p_value, rel=0.1)
    months, died, treated, age = pooled("months", "died", "treated", "age")
    frame = pd.DataFrame({"months": months, "died": died, "treated": treated, "age": age})
    fitted = CoxPHFitter().fit(frame, "months", "died")
    cox = result(f'protocol = "cox_regression"\n{TIMES}features = ["treated", "age"]')
    assert cox["coef"] == pytest.approx(fitted.params_.tolist(), rel=1e-4)
    assert cox["std_err"] == pytest.approx(fitted.standard_errors_.tolist(), rel=1e-4)


def test_the_largest_that_is_accepted_is_computed() -> None:
    edges = list(range(255))
    assert len(result(f'protocol = "histogram"\ncolumn = "age"\nedges = {edges}')["counts"]) == 254
    grid = "grid = [0, 50, 0.00500025]"
    curves = f'protocol = "kaplan_meier"\ntime = "months"\nevent = "died"\n{grid}'
    assert result(curves)["protocol"] == "kaplan_meier"


TABLES_OF_A_STUDY = """
[[analyses]]
name = "parts"
protocol = "proportion"
column = "stage"

[[analyses]]
name = "ages"
protocol = "histogram"
column = "age"
edges = [40, 50, 70, 94, 95]

[[analyses]]
name = "by treatment"
protocol = "contingency_table"
rows = "stage"
columns = "died"
strata = "treated"
"""


@pytest.mark.parametrize(
    ("preset", "preprocessing"),
    [("none", "ot"), ("vantage6", "dealer"), ("opensafely", "dealer"), ("cms", "dealer"), ("datashield", "ot")],
)
def test_tables_of_members_that_may_cheat_are_the_same(preset: str, preprocessing: str) -> None:
    """With gaps, small cells and a member that learns nothing."""
    dealer = '"dealer"\ndealer = "helper"' if preprocessing == "dealer" else '"ot"'
    head = HEAD.replace('"vantage6"', f'"{preset}"').replace('"prss"', f'{dealer}\nsecurity = "malicious"')
    study = parse_study(head + TABLES_OF_A_STUDY)

    async def program(party: Party, data: Any) -> Any:
        return await run_analyses(party, study, data, lambda _: None)

    tables = [Table({name: column[:60] for name, column in one.columns.items()}, 60) for one in TABLES]
    found, expected = (
        run_in_memory(program, tables, preprocessing=preprocessing, security=security)
        for security in ("malicious", "semi-honest")
    )
    assert found == expected
    assert found[1] is None
    assert list(found[0]["analyses"]) == ["parts", "ages", "by treatment"]
    withheld = [count for one in found[0]["analyses"].values() for count in np.ravel(one["counts"]) if count is None]
    assert bool(withheld) == (preset != "none")


@pytest.mark.parametrize(
    ("analysis", "complaint"),
    [
        ('protocol = "t_test"\noutcome = "bmi"\ngroup = "stage"', "compares two groups, stage has 3 categories"),
        ('protocol = "t_test"\noutcome = "stage"\ngroup = "treated"', "stage is a category"),
        ('protocol = "table_one"\ncolumns = ["age"]\nby = "bmi"', "bmi is a number"),
        ('protocol = "table_one"\ncolumns = ["treated"]\nby = "treated"', "divides the table"),
        ('protocol = "histogram"\ncolumn = "age"\nedges = [1, 1, 2]', "edges of a histogram increase"),
        ('protocol = "quantile"\ncolumn = "age"\nq = [1.5]', "less than or equal to 1"),
        ('protocol = "mean"\ncolumns = ["age"]', "takes no missing values"),
        ('protocol = "calibration"\nprobability = "bmi"\noutcome = "died"', "give bmi the bounds 0 and 1"),
        ('protocol = "poisson_regression"\noutcome = "bmi"\nfeatures = ["age"]', "bmi is a number"),
        ('protocol = "kaplan_meier"\ntime = "months"\nevent = "died"\ngrid = [5, 1, 1]', "start, end and step"),
        ('protocol = "kaplan_meier"\ntime = "months"\nevent = "died"\ngrid = [0, 50, 0.005]', "fewer than 10,000"),
        (f'protocol = "histogram"\ncolumn = "age"\nedges = {list(range(256))}', "at most 255 items"),
        ('protocol = "poisson_regression"\noutcome = "cost"\nfeatures = ["age"]', "counts go up to 1048576"),
        (
            'protocol = "poisson_regression"\noutcome = "visits"\nfeatures = ["age"]\nexposure = "cost"',
            "exposures go from",
        ),
        (f'protocol = "cox_regression"\n{TIMES}features = ["died"]', "names died among the features"),
        ('protocol = "linear_regression"\noutcome = "bmi"\nfeatures = ["nothing"]', "not among the study's columns"),
    ],
)
def test_what_makes_no_sense_is_refused(analysis: str, complaint: str) -> None:
    with pytest.raises(StudyError, match=complaint):
        parse_study(f'{HEAD}\n[[analyses]]\nname = "it"\n{analysis}')


def test_disclosure_control_holds_for_every_group() -> None:
    stage = np.arange(60) % 2
    stage[0] = 2  # one row of each party, of all three together less than five
    rows = rows_of(60, 4)
    rare = Table({**rows.columns, "stage": stage}, 60)
    with pytest.raises(DisclosureError, match="at least 5 rows for each category"):
        result('protocol = "anova"\noutcome = "bmi"\ngroup = "stage"', [rare, rare, rare])


@pytest.mark.parametrize(
    "analysis",
    [
        'protocol = "linear_regression"\noutcome = "bmi"\nfeatures = ["stage"]',
        'protocol = "logistic_regression"\noutcome = "died"\nfeatures = ["stage"]',
        'protocol = "poisson_regression"\noutcome = "visits"\nfeatures = ["stage"]',
        f'protocol = "cox_regression"\n{TIMES}features = ["stage"]',
    ],
)
def test_a_rare_first_category_refuses_a_regression(analysis: str) -> None:
    """It has no column: the intercept is the mean of its rows, of those that are kept."""
    tables = []
    for seed in (4, 5, 6):
        rows = rows_of(60, seed)
        stage = 1 + np.arange(60) % 2
        stage[0] = 0  # one row of each party, of all three together less than five
        tables.append(Table({**rows.columns, "stage": stage}, 60))
    with pytest.raises(DisclosureError, match="at least 5 rows for each value"):
        result(analysis, tables)


@pytest.mark.parametrize(
    "analysis",
    [
        'protocol = "logistic_regression"\noutcome = "died"\nfeatures = ["treated"]',
        f'protocol = "cox_regression"\n{TIMES}features = ["treated"]',
        f'protocol = "cox_regression"\n{TIMES}features = ["stage"]',
    ],
)
def test_a_rare_value_together_with_the_outcome_refuses_a_regression(analysis: str) -> None:
    """Coefficient and standard error of a column of 0 and 1 give its table by the outcome."""
    tables = []
    for seed in (4, 5, 6):
        rows = rows_of(60, seed)
        flag = np.arange(60) < 20
        died = np.where(flag, np.arange(60) == 0, np.arange(60) % 2 == 0)  # of 60 treated, 3 die
        tables.append(
            Table({**rows.columns, "treated": flag, "stage": np.where(flag, 0, 1 + (died * 1)), "died": died}, 60)
        )
    with pytest.raises(DisclosureError, match="together with each value of a yes-no outcome"):
        result(analysis, tables)


def test_rows_with_gaps_do_not_count_as_a_first_category() -> None:
    rows = [rows_of(60, seed) for seed in (4, 5, 6)]
    tables = []
    for table in rows:
        stage, age = 1 + np.arange(60) % 2, np.nan_to_num(table.columns["age"], nan=60.0)
        stage[:4] = 0
        age[1:4] = np.nan  # 12 rows have the first category, 3 of them are complete
        tables.append(Table({**table.columns, "stage": stage, "age": age}, 60))
    with pytest.raises(DisclosureError, match="at least 5 rows for each value"):
        result('protocol = "logistic_regression"\noutcome = "died"\nfeatures = ["stage", "age"]', tables)


def test_categories_of_a_linear_regression_are_coded_against_the_first() -> None:
    import statsmodels.api as sm

    bmi, stage, visits = pooled("bmi", "stage", "visits")
    wanted = sm.OLS(bmi, np.column_stack([np.ones(len(bmi)), stage == 1, stage == 2, visits])).fit()
    found = result('protocol = "linear_regression"\noutcome = "bmi"\nfeatures = ["stage", "visits"]')
    assert found["names"] == ["stage[T.II]", "stage[T.III]", "visits"]
    assert [found["intercept"], *found["coef"]] == pytest.approx(wanted.params, rel=1e-5)
    gone = int(sum((t.columns["stage"] < 0).sum() for t in TABLES))
    assert found["missing"] == {"bmi": 0, "stage": gone, "visits": 0}
