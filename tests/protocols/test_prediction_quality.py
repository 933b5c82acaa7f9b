"""Areas under ROC curves, calibration and Brier scores against scikit-learn and DeLong's formulas."""

import json
import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_auc_score

from mpc import AgreementError, DataError, Party, Share, open_, prepare
from protocols import Disclosure, DisclosureError, logistic_regression, predict_proba
from protocols.prediction.calibration import BrierResult, CalibrationResult, brier_score, calibration
from protocols.prediction.prediction_quality import PROBABILITY_GRID, RocResult, roc_auc
from tests.protocols.helpers import Data, breast_cancer, run, run_one
from tests.protocols.promises import at_rank, watched

WORLDS = [("dealer", 2), ("prss", 3), ("dealer", 3), ("ot", 2)]
worlds = pytest.mark.parametrize(("preprocessing", "parties"), WORLDS)
SMALL = Disclosure("at least 8", minimum_cell=8)
ROUNDING = Disclosure("at least 8, rounded", minimum_cell=8, rounding=5)


@lru_cache
def scored() -> Data:
    """Probabilities of a fit to breast_cancer with three columns, and y."""
    from sklearn.linear_model import LogisticRegression

    data = breast_cancer()
    model = LogisticRegression(max_iter=5000).fit(data.X[:, [1, 4, 8]], data.y)
    return Data(model.predict_proba(data.X[:, [1, 4, 8]])[:, 1], data.y)


def parts(data: Data, parties: int) -> list[Any]:
    """Every so many rows to each, the first party more than the others."""
    rank = np.minimum(np.arange(len(data.y)) % (parties + 1), parties) % parties
    return [(data.X[rank == k], data.y[rank == k]) for k in range(parties)]


def few(count: int, *, ties: bool = True) -> Data:
    """Some rows of the same; ties in scores of either class and of both."""
    data = scored()
    chosen = np.random.default_rng(3).permutation(len(data.y))[:count]
    p = data.X[chosen]
    return Data(np.round(p, 1) if ties else p, data.y[chosen])


def delong(score: NDArray[np.float64], y: NDArray[np.int64]) -> tuple[float, float]:
    """Area and variance, pair by pair (DeLong, DeLong, Clarke-Pearson, 1988, equations 3 to 5)."""
    above = np.sign(score[y == 1][:, np.newaxis] - score[y == 0][np.newaxis, :]) / 2 + 0.5
    auc = above.mean()
    v10, v01 = above.mean(axis=1), above.mean(axis=0)
    if min(len(v10), len(v01)) < 2:
        return float(auc), np.nan
    return float(auc), float(v10.var(ddof=1) / len(v10) + v01.var(ddof=1) / len(v01))


def assert_roc(found: RocResult, data: Data, confidence: float = 0.95) -> None:
    auc, variance = delong(data.X, data.y)
    assert found.auc == pytest.approx(roc_auc_score(data.y, data.X), rel=1e-12)
    assert found.auc == pytest.approx(auc, rel=1e-12)
    assert found.std_err == pytest.approx(np.sqrt(variance), rel=1e-9)
    reach = stats.norm.ppf((1 + confidence) / 2) * np.sqrt(variance)
    np.testing.assert_allclose(found.conf_int, np.clip([auc - reach, auc + reach], 0, 1), rtol=1e-9)
    assert (found.n, found.positives, found.negatives) == (len(data.y), data.y.sum(), (1 - data.y).sum())
    for t, sensitivity, specificity in zip(found.thresholds, found.sensitivity, found.specificity, strict=True):
        assert sensitivity == pytest.approx((data.X[data.y == 1] >= t).mean(), abs=1e-12)
        assert specificity == pytest.approx((data.X[data.y == 0] < t).mean(), abs=1e-12)


# ---- the area -----------------------------------------------------------------------------------


@worlds
def test_area_and_curve(preprocessing: str, parties: int) -> None:
    data = few(61)
    found = run_one(roc_auc, parts(data, parties), preprocessing)
    assert_roc(found, data)
    np.testing.assert_array_equal(found.thresholds, PROBABILITY_GRID)


def test_breast_cancer() -> None:
    found = run_one(roc_auc, parts(scored(), 3), "prss", confidence=0.9)
    assert_roc(found, scored(), 0.9)
    assert 0.7 < found.auc < 0.9


@pytest.mark.parametrize(
    ("score", "y"),
    [
        ([0.1, 0.2, 0.7, 0.9], [0, 0, 1, 1]),  # apart
        ([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1]),  # the wrong way round
        ([0.5] * 6, [0, 1, 0, 1, 0, 1]),  # all tied
        ([0.5, 0.5, 0.2, 0.9], [0, 1, 1, 1]),  # a single negative
        ([-3.5, 2.0, 2.0, -3.5, 40.0], [0, 1, 0, 1, 1]),  # no probabilities
    ],
)
def test_small_cases(score: list[float], y: list[int]) -> None:
    data = Data(np.array(score), np.array(y))
    found = run_one(roc_auc, parts(data, 3), "dealer", grid=None, bound=64.0)
    assert found.auc == pytest.approx(delong(data.X, data.y)[0], abs=1e-15)
    if min(sum(y), len(y) - sum(y)) > 1:
        assert_roc(found, data)
    else:
        assert np.isnan(found.std_err)
        assert np.isnan(found.conf_int).all()
    assert found.thresholds.size == 0


def test_columns_of_two_parties_with_gaps() -> None:
    data = few(61)
    score, y = data.X.copy(), data.y.astype(float)
    score[[2, 30]], y[[2, 5, 60]] = np.nan, np.nan
    whole = ~np.isnan(score) & ~np.isnan(y)
    found = run_one(roc_auc, [(score, None), (None, y), (None, None)], "prss", partition="columns", bound=1.0)
    assert_roc(found, Data(data.X[whole], data.y[whole]))
    assert found.missing == {"y": 3, "score": 2}
    found = run_one(calibration, [(score, None), (None, y), (None, None)], "prss", partition="columns", bins=4)
    assert_calibrated(found, Data(data.X[whole], data.y[whole]), 4)
    found = run_one(brier_score, [(None, y), (score, None)], "dealer", partition="columns")
    assert found.score == pytest.approx(brier_score_loss(data.y[whole], data.X[whole]), abs=1e-8)


def test_missing_rows_are_left_out() -> None:
    data = few(61)
    score, y = data.X.copy(), data.y.astype(float)
    score[[2, 30]], y[[2, 5, 60]] = np.nan, np.nan
    whole = ~np.isnan(score) & ~np.isnan(y)
    found = run_one(roc_auc, parts(Data(score, y), 3), "prss")
    assert_roc(found, Data(data.X[whole], data.y[whole]))
    assert found.missing == {"y": 3, "score": 2}


def test_neither_model_nor_scores_are_seen() -> None:
    """A shared model scores rows, and its quality is known from shares."""
    data = breast_cancer()
    X = data.X[:, [1, 4, 8]]
    rows = parts(Data(X[300:420], data.y[300:420]), 3)
    training = parts(Data(X[:300], data.y[:300]), 3)

    async def program(party: Party, inputs: Any) -> Any:
        (ours, y), (old, old_y) = inputs
        bound = [64.0, 1.0, 1.0]
        model = await logistic_regression(party, old, old_y, bound=bound, l2=0.1, reveal=False)
        p = await predict_proba(party, ours, model, reveal=False)
        assert isinstance(p, Share)
        return (
            await open_(party, p),
            await roc_auc(party, p, y, grid=(0.25, 0.5, 0.75)),
            await calibration(party, p, y, bins=[0.3, 0.7]),
            await brier_score(party, p, y),
        )

    opened, roc, table, brier = run(program, list(zip(rows, training, strict=True)), "prss")[1]
    truth = np.concatenate([y for _, y in rows])
    seen = Data(opened, truth)
    assert_roc(roc, seen)
    assert_calibrated(table, seen, [0.3, 0.7])
    assert brier.score == pytest.approx(((opened - truth) ** 2).mean(), abs=1e-7)
    assert brier.score == pytest.approx(table.brier, abs=1e-9)


# ---- calibration --------------------------------------------------------------------------------


def assert_calibrated(found: CalibrationResult, data: Data, bins: Any) -> None:
    edges = np.arange(1, bins) / bins if isinstance(bins, int) else np.array(bins)
    place = np.searchsorted(edges, data.X)
    count = np.bincount(place, minlength=len(edges) + 1)
    np.testing.assert_array_equal(found.count, count)
    np.testing.assert_array_equal(found.positives, np.bincount(place, data.y, minlength=len(edges) + 1))
    mean = np.bincount(place, data.X, minlength=len(edges) + 1) / np.where(count, count, np.nan)
    observed = found.positives / np.where(count, count, np.nan)
    np.testing.assert_allclose(found.mean_predicted, mean, atol=1e-7)
    np.testing.assert_allclose(found.observed, observed, atol=1e-12)
    assert found.brier == pytest.approx(brier_score_loss(data.y, np.clip(data.X, 0, 1)), abs=1e-7)
    assert found.in_the_large == pytest.approx(data.y.mean() - data.X.mean(), abs=1e-7)
    apart = np.nansum(count * np.abs(mean - observed)) / count.sum()
    assert found.expected_calibration_error == pytest.approx(apart, abs=1e-7)


@worlds
def test_calibration_table(preprocessing: str, parties: int) -> None:
    data = few(200)
    found = run_one(calibration, parts(data, parties), preprocessing)
    assert_calibrated(found, data, 10)
    observed, mean = calibration_curve(data.y, data.X, n_bins=10)
    full = found.count > 0
    np.testing.assert_allclose(found.observed[full], observed)
    np.testing.assert_allclose(found.mean_predicted[full], mean, rtol=1e-9)


def test_slope() -> None:
    import statsmodels.api as sm

    data = Data(np.clip(scored().X, 0.001, 0.999), scored().y)
    found = run_one(calibration, parts(data, 3), "prss", slope=True)
    logit = np.log(data.X / (1 - data.X))
    fit = sm.Logit(data.y, sm.add_constant(logit)).fit(disp=0)
    assert found.slope == pytest.approx(fit.params[1], rel=1e-6)
    assert found.intercept == pytest.approx(fit.params[0], rel=1e-5)
    assert found.slope_std_err == pytest.approx(fit.bse[1], rel=1e-5)
    assert "Slope" in found.summary()


@worlds
def test_brier_score(preprocessing: str, parties: int) -> None:
    found = run_one(brier_score, parts(scored(), parties), preprocessing)
    assert found.score == pytest.approx(brier_score_loss(scored().y, scored().X), rel=1e-9)
    prevalence = scored().y.mean()
    assert found.skill == pytest.approx(1 - found.score / (prevalence * (1 - prevalence)), rel=1e-9)


# ---- who learns what ----------------------------------------------------------------------------


def test_small_bins_are_put_together() -> None:
    data = few(200, ties=False)
    plain = run_one(calibration, parts(data, 3), "prss")
    assert min(plain.positives.min(), (plain.count - plain.positives).min()) < 8
    found = run_one(calibration, parts(data, 3), "prss", disclosure=SMALL)
    assert min(found.positives.min(), (found.count - found.positives).min()) >= 8
    assert "put together" in found.suppressed[0]
    assert_calibrated(found, data, found.edges[1:-1].tolist())
    assert found.brier == plain.brier
    curve = run_one(roc_auc, parts(data, 3), "prss", disclosure=SMALL)
    assert 0 < curve.thresholds.size < 21
    # Area and error are told in steps: see test_told_in_steps.py.
    exact = run_one(roc_auc, parts(data, 3), "prss", grid=curve.thresholds.tolist())
    assert_roc(exact, data)
    assert curve.auc == pytest.approx(exact.auc, abs=0.5 / 74)
    assert curve.sensitivity.tolist() == exact.sensitivity.tolist()
    assert curve.specificity.tolist() == exact.specificity.tolist()
    cells = np.searchsorted(curve.thresholds, data.X, side="right")
    for label in (0, 1):
        assert np.bincount(cells[data.y == label], minlength=len(curve.thresholds) + 1).min() >= 8


def test_counts_are_rounded() -> None:
    data = few(200, ties=False)
    found = run_one(calibration, parts(data, 3), "prss", disclosure=ROUNDING)
    assert not (found.count % 5).any()
    assert not (found.positives % 5).any()
    edges = found.edges[1:-1]
    place = np.searchsorted(edges, data.X)
    true = np.bincount(place, data.X) / np.bincount(place)
    np.testing.assert_allclose(found.mean_predicted, true, rtol=1e-8)
    assert np.abs(found.positives - np.bincount(place, data.y)).max() <= 2
    curve = run_one(roc_auc, parts(data, 3), "prss", disclosure=ROUNDING)
    expected = [(data.X[data.y == 1] >= t).mean() for t in curve.thresholds]
    np.testing.assert_allclose(curve.sensitivity, expected, atol=0.12)
    assert "rounded" in curve.suppressed[-1]


def test_too_few_of_a_class() -> None:
    data = few(30)
    tight = Disclosure("strict", minimum_cell=25)
    for protocol in (roc_auc, calibration, brier_score):
        with pytest.raises(DisclosureError, match="at least 25 rows for each category of y"):
            run_one(protocol, parts(data, 3), "prss", disclosure=tight)


@pytest.mark.parametrize("partition", ["rows", "columns"])
def test_a_score_of_0_and_1_is_a_table(partition: str) -> None:
    y = np.repeat([0, 1], 20)
    score = np.where(np.arange(40) < 5, 1.0, 0.0)
    inputs = parts(Data(score, y), 3) if partition == "rows" else [(score, None), (None, y), (None, None)]
    with pytest.raises(DisclosureError, match="8 rows for each value of a column of 0 and 1 in each category of y"):
        run_one(roc_auc, inputs, "prss", partition=partition, bound=1.0, disclosure=SMALL)


def test_recipients() -> None:
    data = few(40)

    async def program(party: Party, inputs: Any) -> Any:
        return (
            await roc_auc(party, *inputs, to=[1]),
            await calibration(party, *inputs, to=[1], slope=True),
            await brier_score(party, *inputs, to=[1]),
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, second, third = run(program, parts(data, 3), "dealer")
    assert first == third == (None, None, None)
    assert isinstance(second[0], RocResult)
    assert isinstance(second[1], CalibrationResult)
    assert isinstance(second[2], BrierResult)
    assert_roc(second[0], data)


def test_what_is_opened() -> None:
    """Numbers of rows to all; of the result nothing but what it is made of."""
    data = few(40)

    async def program(party: Party, inputs: Any) -> Any:
        await roc_auc(party, *inputs, grid=(0.5,), bound=1.0)
        await calibration(party, *inputs, bins=2)
        await brier_score(party, *inputs)
        return [(opening.step.partition("/")[0], opening.shapes) for opening in party.costs.openings]

    sizes = ((3,),), ((2,),)
    assert run(program, parts(data, 3), "prss")[0] == [
        *(("roc", shape) for shape in sizes),
        ("roc", ((), ())),
        ("roc", ((2, 2),)),
        *(("calibration", shape) for shape in sizes),
        ("calibration", ((2, 2), (2,), (), ())),
        *(("brier", shape) for shape in sizes),
        ("brier", ((),)),
    ]


def test_costs() -> None:
    async def program(party: Party, inputs: Any) -> Any:
        spent = []
        jobs: list[Any] = [(brier_score, {}), (calibration, {"bins": 5}), (roc_auc, {"bound": 1.0, "grid": None})]
        for protocol, more in jobs:
            before = party.costs.total
            await protocol(party, *inputs, **more)
            spent.append(party.costs.since(before))
        own = {name: cost for name, cost in party.costs.by_step.items() if name.startswith("roc/area/")}
        assert own["roc/area/multiply"].elements_opened == 40
        assert own["roc/area/open"].elements_opened == 2
        return spent

    sizes = 5, 3 + 2  # terms, two headers and two openings; rows, missing ones, classes
    brier, table, roc = run(program, parts(few(40), 3), "prss")[0]
    assert (brier.rounds, brier.elements_opened) == (sizes[0] + 2, sizes[1] + 1)
    assert (table.rounds, table.elements_opened) == (sizes[0] + 4, sizes[1] + 3 * 5 + 2)
    assert roc.rounds < 100


@pytest.mark.parametrize("preprocessing", ["dealer", "prss"])
@pytest.mark.parametrize("partition", ["rows", "columns"])
def test_promises_hold(preprocessing: str, partition: str) -> None:
    data = few(40)
    inputs = parts(data, 3) if partition == "rows" else [(data.X, None), (None, data.y), (None, None)]

    async def program(party: Party, held: Any) -> Any:
        await roc_auc(party, *held, partition=partition, disclosure=SMALL)
        await calibration(party, *held, partition=partition, disclosure=ROUNDING)

    with watched() as promises:
        run(at_rank(program), inputs, preprocessing)
    assert promises.check(3) > 10


@pytest.mark.parametrize("preprocessing", ["dealer", "prss"])
def test_prepared_ahead(preprocessing: str) -> None:
    data = few(40)

    async def program(party: Party, inputs: Any) -> Any:
        async def work(party: Party) -> Any:
            return (
                await roc_auc(party, *inputs, bound=1.0),
                await calibration(party, *inputs, disclosure=ROUNDING),
                await brier_score(party, *inputs),
            )

        await prepare(party, work)
        return await work(party)

    for roc, table, brier in run(program, parts(data, 3), preprocessing):
        assert_roc(roc, data)
        assert brier.score == pytest.approx(table.brier, abs=1e-9)


# ---- errors, texts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "score", "y", "said"),
    [
        (roc_auc, [0.5, np.inf], [0, 1], "infinite"),
        (roc_auc, [0.5, 0.1], [0, 2], "categories"),
        (roc_auc, [0.5, 0.1], [0, 1, 1], "rows"),
        (roc_auc, [[0.5, 1.0], [0.1, 2.0]], [0, 1], "2 columns"),
        (roc_auc, [0.5, 0.1], [1, 1], "0 rows with y = 0"),
        (calibration, [0.5, 1.5], [0, 1], "1 of 2 probabilities are below 0 or above 1"),
        (brier_score, [0.5, -0.1], [0, 1], "below 0 or above 1"),
        (brier_score, [0.5, 0.1], [0, 0], "with y = 1"),
    ],
)
def test_wrong_data(protocol: Any, score: Any, y: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        run_one(protocol, [(np.array(score), np.array(y))] * 2, "dealer")


def test_shared_scores_are_for_all_rows() -> None:
    async def program(party: Party, y: Any) -> Any:
        p = await party.share(np.full(4, 0.5), bound=1.0, owner=0, shape=(4,))
        return await roc_auc(party, p, y, grid=None)

    with pytest.raises(DataError, match="4 shared scores and 6 rows"):
        run(program, [np.array([0, 1, 1])] * 2, "dealer")
    with pytest.raises(DataError, match="party 1: y is missing"):
        run(program, [np.array([0, 1]), np.array([0, np.nan])], "dealer")


@pytest.mark.parametrize(
    ("protocol", "wrong"),
    [
        (roc_auc, {"confidence": 1.0}),
        (roc_auc, {"grid": [0.5, 0.5]}),
        (roc_auc, {"grid": []}),
        (roc_auc, {"grid": [np.nan]}),
        (roc_auc, {"partition": "both"}),
        (calibration, {"bins": 1}),
        (calibration, {"bins": [0.0, 0.5]}),
        (calibration, {"bins": [0.5, 0.2]}),
        (calibration, {"slope": True, "partition": "columns"}),
    ],
)
def test_wrong_parameters(protocol: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"confidence|grid|bins|partition|slope"):
        run_one(protocol, parts(few(20), 2), "dealer", **wrong)


def test_parameters_differ() -> None:
    async def program(party: Party, inputs: Any) -> Any:
        return await roc_auc(party, *inputs, grid=[0.5] if party.rank else [0.4])

    with pytest.raises(AgreementError, match="grid"):
        run(program, parts(few(20), 3), "prss")


def test_results_are_for_people_and_machines() -> None:
    data = few(61)
    roc = run_one(roc_auc, parts(data, 2), "dealer", grid=[0.25, 0.5])
    text = str(roc)
    assert f"Area: {roc.auc:.4f}" in text
    assert "DeLong" in text
    assert "Rows: 61" in text
    assert json.loads(json.dumps(roc.to_dict()))["thresholds"] == [0.25, 0.5]
    table = run_one(calibration, parts(data, 2), "dealer", bins=3)
    assert "0.333333 to 0.666667" in str(table)
    assert json.loads(json.dumps(table.to_dict()))["slope"] is None
    assert "Brier score of score for y" in str(run_one(brier_score, parts(data, 2), "dealer"))
