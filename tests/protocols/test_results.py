"""The opened result: what follows from estimates and standard errors, and how it is shown."""

import json
import math

import numpy as np
import pytest

from protocols import LogisticResult


def result(**changes: object) -> LogisticResult:
    values: dict[str, object] = {
        "intercept": -13.0213,
        "coef": np.array([2.8261, 0.0952, 2.3787]),
        "std_err": np.array([4.9313, 1.2629, 0.1416, 1.0646]),
        "n": 32,
        "iterations": 10,
        "converged": True,
        "l2": 0.0,
        "solver": "newton",
        "partition": "rows",
        "names": ("GPA", "TUCE", "PSI"),
    }
    return LogisticResult(**{**values, **changes})  # type: ignore[arg-type]


def test_statistics_follow_from_estimates_and_errors() -> None:
    from scipy.stats import norm

    fit = result()
    np.testing.assert_allclose(fit.z, fit.params / fit.std_err)
    np.testing.assert_allclose(fit.p_value, 2 * norm.sf(np.abs(fit.z)), rtol=1e-12)
    half = norm.ppf(0.975) * fit.std_err
    np.testing.assert_allclose(fit.conf_int, np.stack([fit.params - half, fit.params + half], axis=1))
    np.testing.assert_allclose(fit.odds_ratios, np.exp(fit.coef))
    assert fit.conf_int.shape == (4, 2)
    assert fit.df_resid == 28


def test_summary_has_the_shape_that_users_know() -> None:
    text = result().summary()
    assert str(result()) == text
    lines = text.splitlines()
    assert max(map(len, lines)) == 78
    assert "No. Observations:                    32" in text
    row = next(line for line in lines if line.startswith("GPA"))
    assert row.split() == ["GPA", "2.8261", "1.2629", "2.238", "0.025", "0.3509", "5.3013"]
    assert "[0.025     0.975]" in text


def test_summary_takes_extremes() -> None:
    fit = result(
        coef=np.array([0.0, 1e-9, 1e12]),
        std_err=np.array([np.nan, np.nan, 1e-10, 1e11]),
        names=("a" * 60, "b", "c"),
        warnings=("something is wrong",),
        converged=False,
    )
    text = fit.summary()
    assert "nan" in text
    assert "1.00e-09" in text
    assert "aaa..." in text
    assert text.endswith("Warning: something is wrong")


def test_to_dict_is_plain() -> None:
    plain = result().to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["names"] == ["GPA", "TUCE", "PSI"]


def test_prediction_in_the_clear() -> None:
    fit = result(intercept=0.5, coef=np.array([1.0, 0.0, -2.0]))
    np.testing.assert_allclose(
        fit.predict_proba([[1, 5, 0], [0, 0, 1]]), [1 / (1 + math.exp(-1.5)), 1 / (1 + math.exp(1.5))]
    )
    assert fit.predict_proba(np.array([[1e6, 0, 0], [-1e6, 0, 0]])).tolist() == [1, 0]


def test_results_are_frozen() -> None:
    with pytest.raises(AttributeError):
        result().n = 3  # type: ignore[misc]
