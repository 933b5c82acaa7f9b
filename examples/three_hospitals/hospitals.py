"""Writes each hospital's patients as it keeps them: a CSV file, an SQLite database, a Parquet file.

The patients are those of the Wisconsin breast-cancer data, dealt out as in ``sottovoce demo``: a referral centre, a
city hospital and a screening clinic. Nobody calls a column as the others do; each maps its own names to the study's.
"""

from __future__ import annotations

import csv
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from parties.demo_data import FEATURES, Hospital, hospitals
from parties.demo_reference import fit_in_the_clear

COLUMNS = [FEATURES.index(name) for name in ("radius, mean", "texture, mean", "smoothness, mean")]

# What each hospital adds to its node.toml: where its rows are, and how the study's columns are called there.
SOURCES = {
    "north": """
[[sources]]
study = "*"
kind = "csv"
path = "pathology.csv"
delimiter = ";"
decimal = ","
columns = { radius = "Radius", texture = "Textur", smoothness = "Glattheit", malignant = "boesartig" }
""",
    "city": """
[[sources]]
study = "*"
kind = "sql"
url = "sqlite:///pathology.db"
query = "SELECT radius, texture, smoothness, diagnosis = 'M' AS malignant FROM tumours"
""",
    "south": """
[[sources]]
study = "*"
kind = "parquet"
path = "screening.parquet"
columns = { malignant = "is_malignant" }
""",
}


def rows(hospital: Hospital) -> list[tuple[float, float, float, int]]:
    """Return radius, texture, smoothness and diagnosis of each patient."""
    measured = hospital.X[:, COLUMNS].tolist()
    return [(*row, label) for row, label in zip(measured, hospital.y.tolist(), strict=True)]


def write_all(folder: Path) -> None:
    """Write each hospital's patients into its directory."""
    referral_centre, city_hospital, screening_clinic = hospitals(3)
    _write_csv(folder / "north" / "pathology.csv", referral_centre)
    _write_sqlite(folder / "city" / "pathology.db", city_hospital)
    _write_parquet(folder / "south" / "screening.parquet", screening_clinic)


def _write_csv(path: Path, hospital: Hospital) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["Radius", "Textur", "Glattheit", "boesartig"])
        for *measured, label in rows(hospital):
            writer.writerow([*(str(value).replace(".", ",") for value in measured), label])


def _write_sqlite(path: Path, hospital: Hospital) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE tumours (radius REAL, texture REAL, smoothness REAL, diagnosis TEXT)")
        found = [(*measured, "BM"[label]) for *measured, label in rows(hospital)]
        database.executemany("INSERT INTO tumours VALUES (?, ?, ?, ?)", found)


def _write_parquet(path: Path, hospital: Hospital) -> None:
    import pyarrow
    import pyarrow.parquet

    names = ["radius", "texture", "smoothness", "is_malignant"]
    columns = zip(*rows(hospital), strict=True)
    pyarrow.parquet.write_table(pyarrow.table(dict(zip(names, map(list, columns), strict=True))), path)


def difference(analyses: dict[str, Any]) -> str:
    """Say how far the joint result is from what somebody would find who holds all patients."""
    pooled = [row for hospital in hospitals(3) for row in rows(hospital)]
    X, y = np.array([row[:-1] for row in pooled]), np.array([row[-1] for row in pooled])
    means = np.array([analyses["means"]["values"][name] for name in ("radius", "texture", "smoothness")])
    model, reference = analyses["model"], fit_in_the_clear(X, y, l2=1.0)
    in_errors = np.abs(np.array(model["coef"]) - reference.coef) / reference.std_err[1:]
    of_means = np.abs(means - X.mean(axis=0)).max()
    return (
        "Against all patients pooled in the clear, which nobody could do in earnest:\n"
        f"means differ by at most {of_means:.1e}, coefficients by at most {in_errors.max():.1e} standard errors."
    )
