"""Real data, as shipped with the packages that the references come from, and how the parties share it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd


@lru_cache
def lung() -> pd.DataFrame:
    """228 patients with advanced lung cancer, North Central Cancer Treatment Group (Loprinzi et al., 1994)."""
    from lifelines.datasets import load_lung

    return load_lung().rename(columns=lambda name: name.replace(".", "_"))


@lru_cache
def gbsg2() -> pd.DataFrame:
    """686 women with breast cancer, German Breast Cancer Study Group (Schumacher et al., 1994)."""
    from lifelines.datasets import load_gbsg2

    frame = load_gbsg2()
    frame["treated"] = (frame.horTh == "yes").astype(int)
    frame["post"] = (frame.menostat == "Post").astype(int)
    frame["tgrade"] = pd.Categorical(frame.tgrade, categories=["I", "II", "III"])
    return frame


@lru_cache
def rossi() -> pd.DataFrame:
    """432 convicts after release (Rossi, Berk, Lenihan, 1980)."""
    from lifelines.datasets import load_rossi

    return load_rossi()


@lru_cache
def whas500() -> pd.DataFrame:
    """500 patients with myocardial infarction, Worcester Heart Attack Study (Hosmer, Lemeshow, May, 2008)."""
    from sksurv.datasets import load_whas500

    x, y = load_whas500()
    frame = x.apply(pd.to_numeric)
    return frame.assign(time=y["lenfol"], died=y["fstat"].astype(int))


@lru_cache
def veteran() -> pd.DataFrame:
    """137 men with lung cancer, Veterans' Administration (Kalbfleisch, Prentice, 1980)."""
    from sksurv.datasets import load_veterans_lung_cancer

    x, y = load_veterans_lung_cancer()
    frame = x.rename(columns=lambda name: name.lower())
    return frame.assign(time=y["Survival_in_days"], died=y["Status"].astype(int))


@lru_cache
def breast_cancer() -> pd.DataFrame:
    """569 biopsies, University of Wisconsin (Street, Wolberg, Mangasarian, 1993); 1 is benign."""
    from sklearn.datasets import load_breast_cancer

    frame = load_breast_cancer(as_frame=True).frame
    return frame.rename(columns=lambda name: name.replace(" ", "_"))


@lru_cache
def diabetes() -> pd.DataFrame:
    """442 patients, progression of diabetes within a year (Efron et al., 2004)."""
    from sklearn.datasets import load_diabetes

    frame = load_diabetes(as_frame=True, scaled=False).frame
    return frame.assign(progressed=(frame.target > frame.target.median()).astype(int), sex=frame.sex.astype(int))


@lru_cache
def randhie() -> pd.DataFrame:
    """20,190 person-years of the RAND Health Insurance Experiment (Newhouse, 1993)."""
    return _statsmodels("randhie")


@lru_cache
def fair() -> pd.DataFrame:
    """6,366 women on their marriages (Fair, 1978)."""
    frame = _statsmodels("fair")
    return frame.assign(affair=(frame.affairs > 0).astype(int))


@lru_cache
def heart() -> pd.DataFrame:
    """69 heart transplants at Stanford (Miller, 1976)."""
    frame = _statsmodels("heart")
    return frame.assign(censors=frame.censors.astype(int))


@lru_cache
def china_smoking() -> pd.DataFrame:
    """8,419 people of eight cities in China, smoking and lung cancer (Liu, 1992), a row for each person."""
    table = _statsmodels("china_smoking")
    rows = []
    for city, counts in table.iterrows():
        for smoking in (1, 0):
            for cancer in (1, 0):
                name = f"smoking_{'yes' if smoking else 'no'}_cancer_{'yes' if cancer else 'no'}"
                rows += [(city, smoking, cancer)] * int(counts[name])
    return pd.DataFrame(rows, columns=["city", "smoking", "cancer"])


def _statsmodels(name: str) -> pd.DataFrame:
    import importlib

    return importlib.import_module(f"statsmodels.datasets.{name}").load_pandas().data


# ---- how it is shared ---------------------------------------------------------------------------


def dealt(frame: pd.DataFrame, parties: int = 3) -> list[pd.DataFrame]:
    """Deal rows out, unevenly: half of them to the first party, half of the rest to the next."""
    owners = np.random.default_rng(7).choice(parties, size=len(frame), p=_parts(parties))
    return [frame[owners == rank] for rank in range(parties)]


def _parts(parties: int) -> Any:
    weights = 0.5 ** np.arange(parties)
    return weights / weights.sum()


def by_institution(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """Share ``lung`` among three networks of its 18 institutions; one patient's is not known, and left out."""
    known = frame.dropna(subset=["inst"])
    return [known[known.inst.between(low, high)] for low, high in ((1, 6), (7, 13), (14, 40))]


def by_columns(frame: pd.DataFrame, *groups: list[str]) -> list[pd.DataFrame]:
    """Give each party some columns of all rows."""
    return [frame[group] for group in groups]


def by_city(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """Share ``china_smoking`` among the cities' registers: north, middle, south."""
    groups = (["Beijing", "Shenyang", "Harbin"], ["Shanghai", "Nanjng", "Zhengzhou"], ["Taiyuan", "Nanchang"])
    return [frame[frame.city.isin(group)] for group in groups]


def pooled(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Put the parts back together, in the parties' order."""
    return pd.concat(parts)
