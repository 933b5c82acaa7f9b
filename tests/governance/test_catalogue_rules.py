"""What a study says that must hold is all that its analyses refuse by."""

import re
import sys
from typing import Any, get_args

import numpy as np
import pytest

from mpc import Party
from mpc.memory import run_in_memory
from parties.governance import catalogue
from parties.governance.catalogue import disclosure_of, run_analyses
from parties.governance.errors import StudyError
from parties.governance.studies import parse_study
from protocols import DisclosureError
from protocols.release import disclosure as rules
from tests.governance.test_catalogue_clinical import HEAD, result, rows_of

# One of each protocol at least, with what it takes; a name of what it groups by beside the study's column.
ANALYSES: dict[str, list[tuple[str, dict[str, str]]]] = {
    "sum": [('columns = ["visits", "treated"]', {})],
    "mean": [('columns = ["visits", "treated"]', {})],
    "variance": [('columns = ["visits", "treated"]', {})],
    "table_one": [('columns = ["visits", "treated"]\nby = "died"', {})],
    "proportion": [('column = "stage"', {})],
    "histogram": [('column = "age"\nedges = [40, 60, 80]', {})],
    "quantile": [('column = "age"\nq = [0.5]', {})],
    "contingency_table": [('rows = "stage"\ncolumns = "died"', {})],
    "t_test": [('outcome = "visits"\ngroup = "died"', {"group": "died"})],
    "mann_whitney": [('outcome = "visits"\ngroup = "died"', {"group": "died"})],
    "anova": [('outcome = "visits"\ngroup = "died"', {"group": "died"})],
    "kruskal_wallis": [('outcome = "visits"\ngroup = "died"', {"group": "died"})],
    "correlation": [
        ('columns = ["visits", "treated"]', {}),
        ('columns = ["visits", "treated"]\nkind = "spearman"', {}),
    ],
    "linear_regression": [('outcome = "bmi"\nfeatures = ["treated"]', {})],
    "logistic_regression": [('outcome = "died"\nfeatures = ["treated"]\nsteps = 2\nl2 = 1.0', {})],
    "poisson_regression": [('outcome = "visits"\nfeatures = ["treated"]', {})],
    "roc_auc": [('score = "risk"\noutcome = "died"\nthresholds = [0.4, 0.6]', {"y": "died"})],
    "calibration": [('probability = "risk"\noutcome = "died"', {"y": "died"})],
    "kaplan_meier": [
        ('time = "months"\nevent = "died"\ngrid = [1, 36, 7]\ngroup = "treated"', {"group": "treated"}),
        ('time = "months"\nevent = "died"\ngrid = [1, 36, 7]', {}),
    ],
    "log_rank": [
        ('time = "months"\nevent = "died"\ngrid = [1, 36, 7]\ngroup = "treated"', {"group": "treated"}),
        (
            'time = "months"\nevent = "died"\ngrid = [1, 36, 7]\ngroup = "treated"\nstrata = "stage"',
            {"group": "treated"},
        ),
    ],
    "cox_regression": [
        ('time = "months"\nevent = "died"\ngrid = [1, 36, 7]\nfeatures = ["treated"]', {"event": "died"})
    ],
}
# Those that take long are tried with the control that has most rules.
LONG = {"table_one", "poisson_regression", "cox_regression"}
CASES = [
    (preset, name, *case)
    for name, cases in ANALYSES.items()
    for case in cases
    for preset in (["ons"] if name in LONG else ["vantage6", "ons"])
]
# Rules that are said with others, but that nothing is refused by: rank tests tell no sums.
NOT_CHECKED = {"mann_whitney", "kruskal_wallis", "roc_auc", "calibration"}
TABLES = [rows_of(100, 1), rows_of(90, 2), rows_of(80, 3)]


def patched(monkeypatch: pytest.MonkeyPatch, name: str, other: Any) -> None:
    """Put another function in the place of one of the disclosure control's, wherever it was imported."""
    original = getattr(rules, name)
    for module in [one for key, one in sys.modules.items() if key.startswith("protocols.")]:
        if getattr(module, name, None) is original:
            monkeypatch.setattr(module, name, other)


@pytest.mark.filterwarnings("ignore::protocols.regression.results.ConvergenceWarning")
@pytest.mark.parametrize(("preset", "protocol", "text", "named"), CASES)
def test_a_study_says_all_rules_that_its_analyses_refuse_by(
    monkeypatch: pytest.MonkeyPatch, preset: str, protocol: str, text: str, named: dict[str, str]
) -> None:
    head = HEAD.replace('"vantage6"', f'"{preset}"')
    study = parse_study(f'{head}\n[[analyses]]\nname = "it"\nprotocol = "{protocol}"\n{text}')
    refused: list[str] = []
    latest: list[str] = []
    asked: dict[int, int] = {}
    failing = 0
    hold, refusal = rules.hold, rules.refusal

    async def held(party: Party, fails: Any) -> bool:
        """Let the check whose turn it is fail."""
        answer = await hold(party, fails)
        asked[party.rank] = asked.get(party.rank, 0) + 1
        return answer and asked[party.rank] != failing

    def noted(disclosure: Any, name: str, broken: list[str], **options: Any) -> DisclosureError:
        latest[:] = broken
        return refusal(disclosure, name, broken, **options)

    patched(monkeypatch, "hold", held)
    patched(monkeypatch, "refusal", noted)

    async def program(party: Party, table: Any) -> Any:
        return await run_analyses(party, study, table, lambda _: None)

    for failing in range(1, 20):
        asked.clear()
        try:
            run_in_memory(program, TABLES, preprocessing="dealer")
        except DisclosureError:
            refused.extend(latest)
            continue
        if max(asked.values(), default=0) < failing:
            break
    else:
        raise AssertionError("there is no end of checks")
    (analysis,) = study.analyses
    said = analysis.rules(study.columns_by_name, disclosure_of(study))
    assert refused or protocol == "quantile"
    for rule in refused:
        if "more than" in rule and protocol in NOT_CHECKED | {"correlation"} and "more than" not in " ".join(said):
            continue
        own = re.sub(r"category of (\w+)", lambda found: f"category of {named.get(found[1], found[1])}", rule)
        assert own in said, (own, said)
    # And nothing is said that is not checked: on shares, or where numbers are public.
    if protocol not in ("quantile", "logistic_regression", "poisson_regression"):
        spoken = {
            re.sub(r"category of (\w+)", lambda f: f"category of {named.get(f[1], f[1])}", one) for one in refused
        }
        assert set(said) <= spoken, set(said) - spoken


def test_every_protocol_is_walked_over() -> None:
    kinds = get_args(get_args(catalogue.AnyAnalysis)[0])
    assert {get_args(kind.model_fields["protocol"].annotation)[0] for kind in kinds} == set(ANALYSES)


def test_sides_of_quantiles_are_a_rule() -> None:
    study = parse_study(f'{HEAD}\n[[analyses]]\nname = "it"\nprotocol = "quantile"\ncolumn = "age"\nq = [0.01]')
    (analysis,) = study.analyses
    (rule,) = (one for one in analysis.rules(study.columns_by_name, disclosure_of(study)) if "either side" in one)
    with pytest.raises(DisclosureError, match=re.escape(rule)):
        result('protocol = "quantile"\ncolumn = "age"\nq = [0.01]')


def test_thresholds_of_a_curve() -> None:
    asked = 'protocol = "roc_auc"\nscore = "bmi"\noutcome = "died"\n'
    plain = result(asked)
    assert plain["thresholds"] == []
    found = result(asked + "thresholds = [24, 27.5, 31]")
    assert found["thresholds"] == [24, 27.5, 31]
    assert found["auc"] == plain["auc"]
    assert np.array(found["sensitivity"]).shape == (3,)
    for wrong in ("[27, 24]", "[27, 27]", '["a"]', "[inf]"):
        with pytest.raises(StudyError):
            parse_study(f'{HEAD}\n[[analyses]]\nname = "it"\n{asked}thresholds = {wrong}')
    study = parse_study(f'{HEAD}\n[[analyses]]\nname = "it"\n{asked}thresholds = [24]')
    (analysis,) = study.analyses
    assert "24" in analysis.asks()
    assert "thresholds are left out" in analysis.reveals().everybody
