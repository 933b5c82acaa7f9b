"""The quick comparisons with references, and whether the page speaks of all of them."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

if find_spec("sksurv") is None:  # importing it would take every process of the tests a second
    pytest.skip("scikit-survival, from which some of the data come, is not installed here", allow_module_level=True)

from tests.accuracy.__main__ import PAGE, main
from tests.accuracy.cases import Case, Figure, exact, p_value
from tests.accuracy.catalogue import all_cases
from tests.accuracy.page import line, page

CASES = all_cases()
QUICK = [case for case in CASES if case.quick]


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_errors_are_within_their_bounds(case: Case) -> None:
    figures = case.run()
    assert figures
    for figure in figures:
        assert line(case, figure).holds, line(case, figure)


def test_every_topic_is_tried() -> None:
    """At least one quick case of each kind of data, and no two of the same name."""
    assert len({case.name for case in CASES}) == len(CASES)
    assert {"gbsg2", "randhie", "whas500", "breast_cancer"} <= {case.data for case in QUICK}
    assert any("institution" in case.data for case in QUICK)


def test_the_page_is_of_these_comparisons() -> None:
    """Whoever adds a case computes docs/accuracy.md anew, with scripts/accuracy."""
    rows = [row.split(" | ") for row in PAGE.read_text("utf-8").splitlines() if row.startswith("| ")][1:]
    told = {(row[0].removeprefix("| "), row[1].partition(", ")[0]) for row in rows}
    assert told == {(case.analysis, case.data) for case in CASES}
    assert not [row for row in rows if "**" in row[-1]]


def a_case(*figures: Figure) -> Case:
    async def program(party: Any, data: Any) -> Any:
        return party.size, data

    return Case("an analysis", "some data", "a library", [1, 1], program, lambda _: list(figures), "dealer")


def test_a_case_whose_parties_differ_is_no_result() -> None:
    case = Case("ranks", "no data", "none", [1, 2], a_case().program, lambda _: [], "dealer")
    with pytest.raises(AssertionError):
        case.run()


@pytest.mark.parametrize(
    ("figure", "worst", "holds"),
    [
        (Figure("x", [1.0, 2.0], [1.0, 2.000001]), (2.0, 2.000001, 5e-7), True),
        (Figure("x", [1.0, 2.0], [1.0, 2.00001]), (2.0, 2.00001, 5e-6), False),
        (Figure("x", [np.nan, 4.0], [np.nan, 4.0]), (np.nan, np.nan, 0.0), True),
        (Figure("x", [np.nan, 4.0], [1.0, 4.0]), (np.nan, 1.0, np.inf), False),
        (Figure("x", 0.0, 1e-9), (0.0, 1e-9, np.inf), False),
        (Figure("x", [0.0, 8.0], [1e-9, 8.0], unit=[0.01, 1.0]), (0.0, 1e-9, 1e-7), True),
        (p_value("p", 0.5, 0.5000005), (0.5, 0.5000005, 5e-7), True),
        (p_value("p", 1e-30, 1e-20), (1e-30, 1e-20, 1e-20), True),
        (exact("n", np.array([3]), [3.0]), (3.0, 3.0, 0.0), True),
        (exact("n", 3, 4), (3.0, 4.0, 1 / 3), False),
        (exact("median", np.inf, np.inf), (np.inf, np.inf, 0.0), True),
    ],
)
def test_figures(figure: Figure, worst: tuple[float, float, float], holds: bool) -> None:
    assert figure.worst() == pytest.approx(worst, rel=1e-6, nan_ok=True)
    assert line(a_case(), figure).holds == holds


@pytest.mark.parametrize(("reference", "ours"), [([1.0], [1.0, 2.0]), ([], [])])
def test_figures_compare_like_with_like(reference: Any, ours: Any) -> None:
    with pytest.raises(AssertionError):
        Figure("x", reference, ours).worst()


def test_the_command(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = Figure("fine", 1.0, 1.0), Figure("off", 1.0, 1.1)
    target = tmp_path / "page.md"
    for figures, status in [([good], 0), ([good, bad], 1)]:
        monkeypatch.setattr("tests.accuracy.__main__.all_cases", lambda figures=figures: [a_case(*figures)])
        assert main(["--page", str(target)]) == status
    assert "off: 1, ours 1.1, error 1.0e-01 of 1e-06  <-- beyond the bound" in capsys.readouterr().out
    assert "| **1.0e-06** |" in target.read_text("utf-8")
    monkeypatch.setattr("tests.accuracy.__main__.all_cases", lambda: [a_case(Figure("x", 1.0, [1.0, 2.0]))])
    target.unlink()
    assert main(["--page", str(target)]) == 1
    assert "failed: an analysis, some data" in capsys.readouterr().out
    assert not target.exists()
    assert main(["no such case", "--page", str(tmp_path / "none.md")]) == 1
    assert not (tmp_path / "none.md").exists()


def test_rows_of_the_page() -> None:
    case = a_case()
    text = page([line(case, p_value("p", 0.25, 0.25)), line(case, Figure("t", -1.5, -1.5, unit=2.0))])
    assert "| an analysis | some data, 2 parties, dealer | p, a library | 0.25 | 0.25 | 0 abs | 1.0e-06 |" in text
    assert "| -1.5 | -1.5 | 0 scaled | 1.0e-06 |" in text
    assert text.endswith("2 statistics of 1 analyses on 1 data sets.\n")
