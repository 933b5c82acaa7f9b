"""What a study asks for is what is computed, for whom it names, and nothing else."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from mpc import AgreementError, DataError, Party
from mpc.memory import run_in_memory
from parties.data.columns import Table
from parties.governance import catalogue
from parties.governance.analysis import Analysis
from parties.governance.canonical import canonical
from parties.governance.catalogue import run_analyses
from parties.governance.studies import Study, parse_study
from protocols import DisclosureError
from tests.governance.world import STUDY

HEAD = STUDY[: STUDY.index("[[analyses]]")]


def table(rows: int, seed: int, *, missing: int = 0) -> Table:
    rng = np.random.default_rng(seed)
    age = rng.integers(20, 100, rows)
    ldl = np.round(rng.uniform(0.5, 9, rows), 1)
    sex = rng.integers(0, 2, rows)
    risk = 1 / (1 + np.exp(-((age - 60) / 15 + (ldl - 4) / 3 + sex - 0.5)))
    readmitted = rng.uniform(size=rows) < risk
    return Table({"age": age, "ldl": ldl, "sex": sex, "readmitted": readmitted}, rows, missing)


def pooled(tables: Sequence[Table | None], name: str) -> np.ndarray[Any, Any]:
    return np.concatenate([one.columns[name] for one in tables if one is not None])


def run(study: Study, tables: Sequence[Table | None]) -> list[Any]:
    told: list[list[str]] = [[] for _ in tables]

    async def program(party: Party, data: Any) -> Any:
        return await run_analyses(party, study, data, told[party.rank].append)

    results = run_in_memory(program, list(tables), preprocessing=study.preprocessing)
    wanted = [f"analysis {k} of {len(study.analyses)}: {one.name}" for k, one in enumerate(study.analyses, 1)]
    assert told == [wanted] * len(tables)
    return results


TABLES = [table(120, 1), table(80, 2), table(1, 3)]


def test_all_of_a_study(study: Study) -> None:
    north, city, south = run(study, TABLES)
    assert south is None  # contributes, and is no recipient
    assert north == city
    assert canonical(north)  # JSON, without NaN
    found = north["analyses"]
    assert list(found) == ["sums", "means", "spread", "model"]
    age, ldl, y = (pooled(TABLES, name) for name in ("age", "ldl", "readmitted"))
    assert found["sums"] == {"protocol": "sum", "values": {"age": int(age.sum()), "readmitted": int(y.sum())}}
    assert found["means"]["values"] == pytest.approx({"age": age.mean(), "ldl": ldl.mean()}, rel=1e-12)
    assert found["spread"]["values"]["ldl"] == pytest.approx(ldl.var(ddof=1), rel=1e-9)
    model = found["model"]
    assert model["protocol"] == "logistic_regression"
    assert model["names"] == ["age", "ldl", "sex[T.male]"]
    assert model["n"] == 201
    assert model["converged"] is True
    assert model["coef"] == pytest.approx(reference(TABLES), rel=1e-3)
    for part in ("sums: sum", "age", "mmol/l", "Logistic Regression on Shared Data", "sex[T.male]"):
        assert part in north["summary"]


def reference(tables: Sequence[Table]) -> list[float]:
    """Newton on the pooled rows, with the penalty on standardised columns."""
    X = np.stack([pooled(tables, name) for name in ("age", "ldl", "sex")], axis=1).astype(float)
    y = pooled(tables, "readmitted").astype(float)
    mean, deviation = X.mean(axis=0), X.std(axis=0)
    Z = np.column_stack([np.ones(len(X)), (X - mean) / deviation])
    w, penalty = np.zeros(4), np.diag([0.0, 1, 1, 1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-Z @ w))
        w += np.linalg.solve(Z.T @ (Z * (p * (1 - p))[:, None]) + penalty, Z.T @ (y - p) - penalty @ w)
    return list(w[1:] / deviation)


def only(analyses: str, *changes: tuple[str, str]) -> Study:
    text = HEAD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parse_study(text + analyses)


SUM = '[[analyses]]\nname = "s"\nprotocol = "sum"\ncolumns = ["age", "ldl", "readmitted"]\n'
FIT = '[[analyses]]\nname = "g"\nprotocol = "logistic_regression"\noutcome = "readmitted"\n'
MEAN = '[[analyses]]\nname = "m"\nprotocol = "mean"\ncolumns = ["ldl"]\n'


def test_whole_numbers_stay_whole_beside_fractions() -> None:
    values = run(only(SUM), TABLES)[0]["analyses"]["s"]["values"]
    assert values["age"] == int(pooled(TABLES, "age").sum())
    assert isinstance(values["age"], int)
    assert isinstance(values["readmitted"], int)
    assert values["ldl"] == pytest.approx(pooled(TABLES, "ldl").sum(), rel=1e-12)


def test_a_secret_count() -> None:
    values = run(only(MEAN + 'count = "secret"\n'), TABLES)[0]["analyses"]["m"]["values"]
    assert values["ldl"] == pytest.approx(pooled(TABLES, "ldl").mean(), rel=1e-6)


def test_divisors_of_variances() -> None:
    study = only('[[analyses]]\nname = "v"\nprotocol = "variance"\ncolumns = ["ldl", "age"]\nddof = 0\n')
    values = run(study, TABLES)[0]["analyses"]["v"]["values"]
    assert values["age"] == pytest.approx(pooled(TABLES, "age").var(), rel=1e-9)


def test_a_recipient_without_rows_takes_part() -> None:
    study = only(MEAN + SUM, ('recipients = ["north", "city"]', 'recipients = ["registry"]'))
    results = run(study, [*TABLES, None])
    assert results[:3] == [None] * 3
    assert results[3]["analyses"]["m"]["values"]["ldl"] == pytest.approx(pooled(TABLES, "ldl").mean())
    empty = Table({name: np.zeros(0) for name in TABLES[0].columns}, 0)
    assert run(study, [*TABLES, empty])[3] == results[3]


def test_prss_computes_the_same() -> None:
    prss = ('preprocessing = "dealer"\ndealer = "helper"', 'preprocessing = "prss"')
    assert run(only(SUM, prss), TABLES)[0]["analyses"] == run(only(SUM), TABLES)[0]["analyses"]


def failing(study: Study, tables: Sequence[Table | None], error: type[Exception]) -> list[str]:
    """The errors of all parties that fail with that class."""
    texts = []

    async def program(party: Party, data: Any) -> None:
        try:
            await run_analyses(party, study, data, lambda text: None)
        except error as failure:
            texts.append(str(failure))

    run_in_memory(program, list(tables), preprocessing=study.preprocessing)
    return texts


@pytest.mark.parametrize("analysis", [SUM, MEAN, MEAN + 'count = "secret"\n'])
def test_too_few_rows_are_refused_at_all_parties(analysis: str) -> None:
    found = failing(only(analysis), [table(3, 1), table(3, 2), table(3, 3)], DisclosureError)
    assert len(found) == 3
    assert all("'vantage6' does not allow this result" in text for text in found)


def test_too_few_contributors_are_refused_at_all_parties() -> None:
    empty = Table({name: np.zeros(0) for name in TABLES[0].columns}, 0)
    found = failing(only(MEAN), [table(300, 1), table(300, 2), empty], DisclosureError)
    assert len(found) == 3


def test_minimum_parties_holds_without_a_preset() -> None:
    empty = Table({name: np.zeros(0) for name in TABLES[0].columns}, 0)
    none = ("vantage6", "none")
    assert len(failing(only(MEAN, none), [table(300, 1), table(300, 2), empty], DisclosureError)) == 3
    two = ("minimum_parties = 3", "minimum_parties = 2")
    assert run(only(MEAN, none, two), [table(300, 1), table(300, 2), empty])[0] is not None
    assert len(failing(only(MEAN, none, two), [table(300, 1), empty, empty], DisclosureError)) == 3


def test_values_beyond_the_agreed_bounds_are_refused() -> None:
    """The table was checked before; the protocols check again, against the bounds of the study."""
    far = [Table({**one.columns, "ldl": one.columns["ldl"] + 100}, one.rows) for one in TABLES]
    found = failing(only(MEAN), far, DataError)
    assert len(found) == 3
    assert all("beyond the agreed bound of 20.5" in text for text in found)


@pytest.mark.parametrize(
    ("rank", "given", "why"),
    [
        (0, None, "north contributes rows to this study, but was given no table"),
        (0, Table({"age": np.zeros(3)}, 3), "north: the table has no column ldl"),
        (1, Table({**TABLES[1].columns, "ldl": np.zeros(79)}, 80), "city: column ldl does not have one entry for each"),
        (3, TABLES[0], "registry contributes no rows to this study, but was given a table"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(rank: int, given: Table | None, why: str) -> None:
    study = only(MEAN, ('recipients = ["north", "city"]', 'recipients = ["registry"]'))
    tables: list[Table | None] = [*TABLES, None]
    tables[rank] = given

    async def program(party: Party, data: Any) -> str:
        try:
            catalogue._own_rows(party, study, data)
        except DataError as error:
            return str(error)
        return ""

    found = run_in_memory(program, tables, preprocessing="dealer")
    assert why in found[rank]
    assert [text for place, text in enumerate(found) if place != rank] == [""] * 3


def test_parties_with_different_studies_do_not_compute() -> None:
    """Nodes compare hashes long before; the protocols notice, too."""
    studies = [only(MEAN + 'count = "secret"\n'), only(MEAN), only(MEAN)]

    async def program(party: Party, data: Any) -> str:
        try:
            await run_analyses(party, studies[party.rank], data, lambda text: None)
        except AgreementError as error:
            return str(error)
        return "computed"

    for text in run_in_memory(program, TABLES, preprocessing="dealer"):
        assert "the parameters are agreed in the study" in text


def test_the_number_of_parties_is_the_studys(study: Study) -> None:
    async def program(party: Party, data: Any) -> str:
        with pytest.raises(ValueError, match="for 3 parties, here are 2"):
            await run_analyses(party, study, data, lambda text: None)
        return "refused"

    assert run_in_memory(program, TABLES[:2], preprocessing="dealer") == ["refused"] * 2


def test_results_without_a_value_have_none() -> None:
    """Gradient descent has no standard errors: NaN is not JSON."""
    result = run(only(FIT + 'features = ["age"]\nsolver = "gradient"\nsteps = 5\n'), TABLES)[0]
    found = result["analyses"]["g"]
    assert found["std_err"] == [None, None]
    assert json.loads(canonical(found)) == found
    assert "nan" in result["summary"]


def test_every_protocol_says_what_it_reveals(study: Study) -> None:
    disclosure = catalogue.disclosure_of(study)
    names = set()
    for analysis in study.analyses:
        assert analysis.asks()
        assert analysis.reveals().recipients
        assert "rows from at least 3 parties" in analysis.rules(study.columns_by_name, disclosure)
        names.add(analysis.protocol)
    assert names == {"sum", "mean", "variance", "logistic_regression"}
    kinds = {kind.__name__ for kind in _leaves(Analysis)}
    assert kinds == {one.__name__ for one in get_args(get_args(catalogue.AnyAnalysis)[0])}
    assert len(kinds) == 21


def _leaves(kind: type) -> list[type]:
    inner: list[type] = kind.__subclasses__()
    return [leaf for one in inner for leaf in _leaves(one)] if inner else [kind]


def test_categories_are_coded_against_the_first() -> None:
    three = ('categories = ["female", "male"]', 'categories = ["female", "male", "other"]')
    study = only(FIT + 'features = ["sex"]\nl2 = 1\n', three)
    tables = [Table({**one.columns, "sex": np.arange(one.rows) % 3}, one.rows) for one in TABLES]
    found = run(study, tables)[0]["analyses"]["g"]
    assert found["names"] == ["sex[T.male]", "sex[T.other]"]
    parameters = study.analyses[0].rules(study.columns_by_name, catalogue.disclosure_of(study))
    assert parameters[:-1] == catalogue.disclosure_of(study).rules(parameters=3, sums=False)
    assert parameters[-1] == "at least 5 rows for each such value together with each value of a yes-no outcome"


def test_a_rare_first_value_of_a_category_is_found() -> None:
    """It has no column of its own: the intercept would tell of the one patient who has it."""
    text = HEAD.replace('disclosure = "vantage6"', 'disclosure = "cms"').replace(
        '["female", "male"]', '["x", "female", "male"]'
    )
    assert '"cms"' in text
    assert '"x"' in text
    text += '[[analyses]]\nname = "fit"\nprotocol = "logistic_regression"\noutcome = "readmitted"\nfeatures = ["sex"]\n'
    text += "l2 = 1.0\nsteps = 4\n"
    asked = parse_study(text)
    tables = [table(60, 1), table(50, 2), table(40, 3)]
    shifted = [Table({**one.columns, "sex": one.columns["sex"] + 1}, one.rows, 0) for one in tables]
    shifted[0].columns["sex"][0] = 0
    with pytest.raises(DisclosureError, match="at least 11 rows for each value"):
        run(asked, shifted)
    for one in shifted:
        one.columns["sex"][:11] = 0
    assert run(asked, shifted)[0]["analyses"]["fit"]["n"] == 150


def test_the_page_on_study_files_names_every_parameter() -> None:
    page = (Path(__file__).parents[2] / "docs" / "study-files.md").read_text("utf-8")
    told = {row.split("`")[1]: row for row in page.splitlines() if row.startswith("| `")}
    for kind in get_args(get_args(catalogue.AnyAnalysis)[0]):
        (protocol,) = get_args(kind.model_fields["protocol"].annotation)
        for name in kind.model_fields.keys() - {"name", "protocol"}:
            assert f"`{name}`" in told[protocol], (protocol, name)
    for name in Study.model_fields.keys() - {"columns", "analyses"}:
        assert name in page, name
