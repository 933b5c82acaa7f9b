"""What the tests of the protocols share: real data, references, and runs in one event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpc import Party
from mpc.memory import run_in_memory


class Data(NamedTuple):
    X: NDArray[np.float64]
    y: NDArray[np.int64]


@lru_cache
def breast_cancer() -> Data:
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    return Data(np.ascontiguousarray(bunch.data), bunch.target.astype(np.int64))


@lru_cache
def diabetes() -> Data:
    """442 patients, 10 columns; whether the disease progressed by more than the median."""
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)
    return Data(np.ascontiguousarray(bunch.data), (bunch.target > np.median(bunch.target)).astype(np.int64))


@lru_cache
def spector() -> Data:
    """32 students, 3 columns, as shipped with statsmodels."""
    from statsmodels.datasets import spector as dataset

    frame = dataset.load_pandas().data
    return Data(frame[["GPA", "TUCE", "PSI"]].to_numpy(float), frame["GRADE"].to_numpy().astype(np.int64))


@lru_cache
def heart() -> Data:
    """69 transplants, 2 columns, as shipped with statsmodels."""
    from statsmodels.datasets import heart as dataset

    frame = dataset.load_pandas().data
    return Data(frame[["survival", "age"]].to_numpy(float), frame["censors"].to_numpy().astype(np.int64))


def by_rows(data: Data, parties: int, *, seed: int = 0) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Split into unequal parts."""
    cuts = np.sort(np.random.default_rng(seed).choice(np.arange(1, len(data.y)), parties - 1, replace=False))
    return list(zip(np.split(data.X, cuts), np.split(data.y, cuts), strict=True))


def run(
    program: Callable[[Party, Any], Awaitable[Any]], inputs: Sequence[Any], preprocessing: str = "dealer"
) -> list[Any]:
    """Run a program at every party; results in rank order."""
    return run_in_memory(program, inputs, preprocessing=preprocessing)


def run_one(
    protocol: Callable[..., Awaitable[Any]], inputs: Sequence[Any], preprocessing: str = "dealer", **parameters: Any
) -> Any:
    """Run one protocol with the same parameters everywhere and return what all parties got."""

    async def program(party: Party, data: Any) -> Any:
        arguments = data if isinstance(data, tuple) else (data,)
        return await protocol(party, *arguments, **parameters)

    return run(program, inputs, preprocessing)[0]


class Reference(NamedTuple):
    params: NDArray[np.float64]
    std_err: NDArray[np.float64]


def penalised_reference(data: Data, l2: float) -> Reference:
    """scikit-learn's coefficients on standardised pooled data, and the inverse of the penalised Hessian."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(data.X)
    Z = scaler.transform(data.X)
    model = LogisticRegression(C=1 / l2, tol=1e-12, max_iter=100_000, solver="newton-cholesky").fit(Z, data.y)
    A = np.column_stack([np.ones(len(Z)), Z])
    p = model.predict_proba(Z)[:, 1]
    penalty = np.diag(np.concatenate([[0.0], np.full(Z.shape[1], l2)]))
    covariance = np.linalg.inv((A.T * (p * (1 - p))) @ A + penalty)
    back = np.eye(A.shape[1])
    back[0, 1:] = -scaler.mean_ / scaler.scale_
    back[1:, 1:] = np.diag(1 / scaler.scale_)
    params = back @ np.concatenate([model.intercept_, model.coef_[0]])
    return Reference(params, np.sqrt(np.diag(back @ covariance @ back.T)))
