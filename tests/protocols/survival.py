"""Real times to an event for the tests, split among parties."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd


class Cohort(NamedTuple):
    """Rows with times, events and columns; ``part`` says which party has a row."""

    frame: pd.DataFrame
    time: str
    event: str
    columns: list[str]
    part: np.ndarray

    @property
    def parts(self) -> list[pd.DataFrame]:
        return [self.frame[self.part == k].reset_index(drop=True) for k in range(int(self.part.max()) + 1)]

    @property
    def complete(self) -> pd.DataFrame:
        return self.frame[[self.time, self.event, *self.columns]].dropna().astype(float)


@lru_cache
def lung() -> Cohort:
    """228 patients of 18 institutions, which make 3 parties; real missing values."""
    from lifelines.datasets import load_lung

    frame = load_lung()
    columns = ["age", "sex", "ph.ecog", "ph.karno", "pat.karno", "meal.cal", "wt.loss"]
    frame["few"] = (frame.index % 40 == 0).astype(int)
    frame["kind"] = pd.Categorical(np.where(frame.few == 1, "a", np.where(frame.index % 2 == 0, "b", "c")))
    return Cohort(frame, "time", "status", columns, frame.inst.fillna(0).astype(int).to_numpy() % 3)


@lru_cache
def rossi() -> Cohort:
    """432 released convicts, weeks to a new arrest: many ties."""
    from lifelines.datasets import load_rossi

    frame = load_rossi()
    columns = ["fin", "age", "race", "wexp", "mar", "paro", "prio"]
    return Cohort(frame, "week", "arrest", columns, np.arange(len(frame)) // 150)


@lru_cache
def gbsg2() -> Cohort:
    """686 women with breast cancer."""
    from lifelines.datasets import load_gbsg2

    frame = load_gbsg2()
    coded = {
        "horTh": frame.horTh == "yes",
        "menostat": frame.menostat == "Post",
        "II": frame.tgrade == "II",
        "III": frame.tgrade == "III",
    }
    frame = frame.assign(**{name: values.astype(int) for name, values in coded.items()})
    columns = ["horTh", "age", "menostat", "tsize", "II", "III", "pnodes", "progrec", "estrec"]
    return Cohort(frame, "time", "cens", columns, np.arange(len(frame)) % 3)


@lru_cache
def whas500() -> Cohort:
    """500 patients after a heart attack, 14 columns."""
    X, y = _datasets().load_whas500()
    return _sksurv(X, y, "lenfol", "fstat")


@lru_cache
def veteran() -> Cohort:
    """137 veterans with lung cancer; categories as indicators."""
    X, y = _datasets().load_veterans_lung_cancer()
    return _sksurv(X, y, "Survival_in_days", "Status")


def _datasets() -> Any:
    import pytest

    return pytest.importorskip("sksurv.datasets", reason="scikit-survival is not installed for this Python")


def _sksurv(X: pd.DataFrame, y: Any, time: str, event: str) -> Cohort:
    frame = pd.get_dummies(X, drop_first=True).astype(float)
    columns = list(frame)
    frame[time], frame[event] = y[time], y[event].astype(int)
    return Cohort(frame, time, event, columns, np.arange(len(frame)) % 3)


COHORTS = {"lung": lung, "rossi": rossi, "gbsg2": gbsg2, "whas500": whas500, "veteran": veteran}
