"""The hospitals of the demonstration: 569 real patients, dealt out by a fixed rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Name, and which part of all malignant and of all benign tumours it sees (before they are made to sum
# to 1). Large tumours go to the first ones.
_PROFILES = (
    ("Referral centre", 0.60, 0.28),
    ("City hospital", 0.32, 0.42),
    ("Screening clinic", 0.08, 0.30),
    ("County hospital", 0.20, 0.20),
    ("Private practice", 0.06, 0.12),
)
MOST = len(_PROFILES)
_CASE_MIX = 0.5  # 0: strictly by size of the tumour; large: size plays no part
_HELD_OUT_EVERY = 4

# What was measured on each cell nucleus, and the bound that the study agrees on. Features 0 to 9 of the
# data are the means over an image, 10 to 19 their standard errors, 20 to 29 the worst values.
_MEASUREMENTS = {
    "radius": 50.0,
    "texture": 100.0,
    "perimeter": 400.0,
    "area": 6000.0,
    "smoothness": 1.0,
    "compactness": 4.0,
    "concavity": 4.0,
    "concave points": 1.0,
    "symmetry": 1.0,
    "fractal dim.": 1.0,
}
FEATURES = tuple(f"{name}, {kind}" for kind in ("mean", "SE", "worst") for name in _MEASUREMENTS)
BOUNDS = np.array([bound for _ in ("mean", "SE", "worst") for bound in _MEASUREMENTS.values()])


@dataclass(frozen=True, slots=True, eq=False)
class Hospital:
    """One hospital's patients.

    Attributes
    ----------
    name : str
    X : numpy.ndarray
        Shape (patients, 30): size, shape and texture of cell nuclei, see :data:`FEATURES`.
    y : numpy.ndarray
        1 where the tumour is malignant, else 0.
    X_held_out, y_held_out : numpy.ndarray
        Every fourth patient: not part of the study, kept to try models on.
    """

    name: str
    X: NDArray[np.float64] = field(repr=False)
    y: NDArray[np.int64] = field(repr=False)
    X_held_out: NDArray[np.float64] = field(repr=False)
    y_held_out: NDArray[np.int64] = field(repr=False)


def hospitals(count: int = 3) -> list[Hospital]:
    """Split the Wisconsin breast-cancer data over hospitals of unequal size and different case mix.

    The first is a referral centre with most of the large, malignant tumours, the third a clinic that sees
    many patients at an early stage and few cancers. The split is the same each time.

    Parameters
    ----------
    count : int
        2 to 5.

    Raises
    ------
    ModuleNotFoundError
        scikit-learn, which ships the data, is not installed.
    """
    from sklearn.datasets import load_breast_cancer

    if not 2 <= count <= MOST:
        raise ValueError(f"the demonstration has 2 to {MOST} hospitals, not {count}")
    data = load_breast_cancer()
    X, y = data.data, 1 - data.target  # scikit-learn calls benign tumours 1
    seen_at = np.empty(len(y), np.int64)
    for label, part in ((1, 1), (0, 2)):
        patients = np.flatnonzero(y == label)
        parts = np.array([profile[part] for profile in _PROFILES[:count]], dtype=np.float64)
        edges = np.rint(np.cumsum(parts / parts.sum()) * patients.size).astype(np.int64)
        order = patients[np.argsort(_remoteness(X[patients, 0]))]
        seen_at[order] = np.searchsorted(edges, np.arange(patients.size), side="right")
    return [_hospital(_PROFILES[k][0], X[seen_at == k], y[seen_at == k]) for k in range(count)]


def _remoteness(radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """Order patients by the size of their tumour, largest first, with an even spread around it."""
    rank = np.argsort(np.argsort(-radius)) / radius.size
    golden = (sqrt(5) - 1) / 2  # its multiples modulo 1 are spread evenly: chance without a generator
    return np.asarray(rank + _CASE_MIX * ((np.arange(radius.size) * golden) % 1))


def _hospital(name: str, X: NDArray[np.float64], y: NDArray[np.int64]) -> Hospital:
    held_out = np.arange(len(y)) % _HELD_OUT_EVERY == 0
    return Hospital(name, X[~held_out], y[~held_out], X[held_out], y[held_out])


def pooled(hospitals: Sequence[Hospital]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Lay all patients of the study on one heap: what the study itself never does."""
    return np.concatenate([h.X for h in hospitals]), np.concatenate([h.y for h in hospitals])


def held_out(hospitals: Sequence[Hospital]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the patients of all hospitals that no model was made from."""
    return np.concatenate([h.X_held_out for h in hospitals]), np.concatenate([h.y_held_out for h in hospitals])
