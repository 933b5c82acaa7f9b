"""Disclosure control: what it lets pass, what it refuses, what it costs, and that it opens one bit."""

import hashlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc import GF, AgreementError, Party, SottovoceError, arithmetic, opening, prepare
from mpc.errors import for_peers
from mpc.preprocessing import requests
from protocols import (
    Disclosure,
    DisclosureError,
    logistic_regression,
    secure_mean,
    secure_sum,
    secure_variance,
)
from protocols.release.disclosure import Release, check, check_public, hold, quotas, short_of
from tests.mpc.enumeration import distance
from tests.mpc.support import run as tapped
from tests.protocols.helpers import Data, by_rows, diabetes, run, run_one, spector

PRESETS = ["none", "datashield", "vantage6", "opensafely", "cms", "ons"]


def parts(*rows: int, columns: int = 2) -> list[Any]:
    """Ordinary numbers, none of them 0 or 1, none of them dominant."""
    cuts = np.cumsum(rows)[:-1]
    return np.split(np.linspace(2, 3, sum(rows) * columns).reshape(sum(rows), columns), cuts)


async def refused(party: Party, protocol: Any, data: Any, **parameters: Any) -> str:
    """The error's text, or an empty one."""
    try:
        await protocol(party, data, **parameters)
    except DisclosureError as error:
        return str(error)
    return ""


def outcome(protocol: Any, inputs: Any, preprocessing: str = "dealer", **parameters: Any) -> str:
    """Run at all parties; they must all say the same."""

    async def program(party: Party, data: Any) -> str:
        return await refused(party, protocol, data, **parameters)

    texts = run(program, inputs, preprocessing)
    assert len(set(texts)) == 1
    return str(texts[0])


# ---- rules ------------------------------------------------------------------------------------------------------


def test_presets_have_the_thresholds_of_those_they_are_named_after() -> None:
    found = {name: Disclosure.preset(name) for name in PRESETS}
    assert [found[name].name for name in PRESETS] == PRESETS
    assert [found[name].minimum_rows for name in PRESETS] == [0, 3, 10, 8, 11, 10]
    assert [found[name].minimum_cell for name in PRESETS] == [0, 3, 5, 8, 11, 10]
    assert [found[name].minimum_parties for name in PRESETS] == [0, 3, 3, 3, 3, 3]
    assert [found[name].dominance for name in PRESETS] == [0, 0, 0, 0, 0, 0.4375]
    with pytest.raises(ValueError, match="presets are none, datashield, vantage6, opensafely, cms, ons"):
        Disclosure.preset("vantage7\n")
    assert Disclosure.preset("none").rules(parameters=9) == []


@pytest.mark.parametrize(
    ("name", "parameters", "rows"),
    [
        ("none", 9, 0),
        ("datashield", 0, 3),
        ("datashield", 1, 4),
        ("datashield", 33, 100),
        ("datashield", 34, 104),
        ("vantage6", 50, 10),
        ("ons", 0, 10),
        ("ons", 5, 15),
    ],
)
def test_rows_for_a_regression(name: str, parameters: int, rows: int) -> None:
    assert Disclosure.preset(name).rows_needed(parameters) == rows


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "a\nb"},
        {"minimum_rows": -1},
        {"minimum_rows": 1.5},
        {"minimum_cell": True},
        {"minimum_parties": 10**10},
        {"dominance": 1.1},
        {"dominance": math.nan},
        {"parameters_per_row": -0.1},
    ],
)
def test_rules_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}|name"):
        Disclosure(**{"name": "test", **wrong})


def test_a_study_may_ask_for_more_parties_than_a_preset() -> None:
    preset = Disclosure.preset("vantage6")
    assert preset.at_least(parties=5).minimum_parties == 5
    assert preset.at_least(parties=2) == preset


# ---- sums, means, variances -------------------------------------------------------------------------------------


@pytest.mark.parametrize("preprocessing", ["dealer", "prss", "ot"])
@pytest.mark.parametrize("protocol", [secure_sum, secure_mean, secure_variance])
@pytest.mark.parametrize(
    ("rows", "fine"),
    [
        ((4, 3, 3), True),
        ((3, 3, 3), False),  # 9 rows
        ((10**4, 1, 1), True),
        ((10**4, 1, 0), False),  # two parties
        ((0, 0, 0), False),
    ],
)
def test_rows_and_parties(protocol: Any, rows: tuple[int, ...], fine: bool, preprocessing: str) -> None:
    text = outcome(protocol, parts(*rows), preprocessing, bound=4.0, disclosure=Disclosure.preset("vantage6"))
    assert (text == "") == fine
    if not fine:
        assert text == (
            f"{protocol.__name__}: disclosure control 'vantage6' does not allow this result, nothing of it was opened: "
            "it takes at least 10 rows of all parties together, rows from at least 3 parties, at least 5 rows for each "
            "value of a column that holds only 0 and 1 (which of these does not hold stays secret); pool more data, or "
            "agree on other rules in the study"
        )


@given(st.lists(st.integers(0, 9), min_size=2, max_size=5), st.integers(0, 20), st.integers(0, 4))
@settings(max_examples=40)
def test_thresholds_are_exact(rows: list[int], minimum_rows: int, minimum_parties: int) -> None:
    rules = Disclosure("test", minimum_rows=minimum_rows, minimum_parties=minimum_parties)
    fine = sum(rows) >= minimum_rows and sum(count > 0 for count in rows) >= minimum_parties
    assert (outcome(secure_sum, parts(*rows), disclosure=rules) == "") == fine


@pytest.mark.parametrize("protocol", [secure_sum, secure_mean, secure_variance])
@pytest.mark.parametrize(
    ("ones", "fine"), [((2, 2, 1), True), ((2, 2, 0), False), ((9, 9, 7), True), ((9, 9, 8), False), ((0, 0, 0), False)]
)
def test_a_column_of_zeros_and_ones_is_a_table(protocol: Any, ones: tuple[int, ...], fine: bool) -> None:
    """Thirty rows; both values must occur five times. The other column does not matter."""
    inputs = parts(10, 10, 10)
    for data, count in zip(inputs, ones, strict=True):
        data[:, 1] = np.arange(10) < count
    rules = Disclosure("test", minimum_cell=5)
    assert (outcome(protocol, inputs, bound=4.0, disclosure=rules) == "") == fine
    # One other value at one party, and it is a number like any other.
    inputs[2][9, 1] = 0.5
    assert outcome(protocol, inputs, bound=4.0, disclosure=rules) == ""


@pytest.mark.parametrize("kind", [bool, np.int64, object])
def test_tables_of_booleans_and_integers(kind: Any) -> None:
    rules = Disclosure("test", minimum_cell=2)
    rare = [np.array([1, 0, 0]).astype(kind), np.array([0, 0, 0]).astype(kind)]
    assert "at least 2 rows for each value" in outcome(secure_mean, rare, disclosure=rules)
    fine = [np.array([1, 0, 0]).astype(kind), np.array([0, 0, 1]).astype(kind)]
    assert outcome(secure_mean, fine, disclosure=rules) == ""


def test_a_vector_is_one_row_of_its_party() -> None:
    vectors = [np.array([1.0, 7.0])] * 3
    assert outcome(secure_sum, vectors, disclosure=Disclosure("test", minimum_rows=4)) != ""
    assert outcome(secure_sum, vectors, disclosure=Disclosure("test", minimum_rows=3, minimum_parties=3)) == ""
    assert outcome(secure_sum, [2, 3, 4], disclosure=Disclosure("test", minimum_parties=3)) == ""


@pytest.mark.parametrize("protocol", [secure_sum, secure_mean])
@pytest.mark.parametrize(("largest", "fine"), [(70.0, True), (70.1, False), (-70.0, True), (-71.0, False), (5.0, True)])
def test_no_row_dominates_a_sum(protocol: Any, largest: float, fine: bool) -> None:
    """Ten rows of -9 or 9 add up to 90 in size; 70 of 160 is 43.75 %."""
    rows = np.array([9.0, -9.0] * 5 + [largest]).reshape(-1, 1)
    inputs = [np.column_stack([np.full(len(part), 2.0), part]) for part in np.split(rows, [4, 10])]
    rules = Disclosure("test", dominance=0.4375)
    text = outcome(protocol, inputs, bound=[4, 100], disclosure=rules)
    assert (text == "") == fine
    if not fine:
        assert "it takes no row with more than 43.75 % of a column's sum; pool" in text


def test_dominance_takes_a_bound() -> None:
    with pytest.raises(ValueError, match="takes an agreed bound"):
        run_one(secure_sum, parts(5, 5, 5), disclosure=Disclosure.preset("ons"))
    assert outcome(secure_variance, parts(5, 5, 5), disclosure=Disclosure.preset("ons")) == ""
    assert outcome(secure_sum, parts(5, 5, 5), bound=4, disclosure=Disclosure.preset("ons")) == ""
    everything_zero = [np.zeros((5, 1)) + 0.0, np.zeros((5, 1)), np.full((5, 1), 0.0)]
    assert outcome(secure_sum, everything_zero, bound=4, disclosure=Disclosure("test", dominance=0.1)) == ""


def test_results_are_those_without_disclosure_control() -> None:
    inputs = parts(7, 5, 9)
    for protocol in (secure_sum, secure_mean, secure_variance):
        with_rules = run_one(protocol, inputs, bound=4.0, disclosure=Disclosure.preset("ons"))
        np.testing.assert_allclose(with_rules, run_one(protocol, inputs, bound=4.0), rtol=1e-8)


def test_the_error_is_fit_for_peers_and_logs() -> None:
    with pytest.raises(DisclosureError) as caught:
        run_one(secure_sum, parts(1, 1, 1), disclosure=Disclosure.preset("cms"))
    assert isinstance(caught.value, SottovoceError)
    assert for_peers(caught.value) == str(caught.value)
    assert str(caught.value).isprintable()


def test_parties_agree_on_the_rules() -> None:
    async def program(party: Party, data: Any) -> Any:
        rules = None if party.rank == 1 else Disclosure.preset("vantage6")
        await secure_sum(party, data, disclosure=rules)

    done = tapped(program, parts(9, 9, 9))
    assert all(isinstance(o, AgreementError) and "says disclosure = " in str(o) for o in done.outcomes)
    with pytest.raises(ValueError, match="disclosure is a Disclosure"):
        run_one(secure_sum, parts(9, 9), disclosure="vantage6")


# ---- regression -------------------------------------------------------------------------------------------------


def regression(inputs: list[Any], rules: Disclosure, **parameters: Any) -> str:
    async def fit(party: Party, data: Any, **more: Any) -> Any:
        return await logistic_regression(party, *data, **more)

    return outcome(fit, inputs, disclosure=rules, l2=1.0, solver="gradient", steps=1, **parameters)


def test_a_regression_takes_rows_parties_and_few_coefficients() -> None:
    data = spector()  # 32 rows, 3 columns; PSI is 0 or 1: 18 and 14; grade: 11 and 21
    assert regression(by_rows(data, 3), Disclosure.preset("datashield")) == ""
    # Of 14 with PSI, 8 have the better grade and 6 have not; of 18 without, 3 and 15.
    assert "together with each value of a yes-no outcome" in regression(by_rows(data, 3), Disclosure.preset("cms"))
    few = Data(data.X[:11], data.y[:11])
    assert "at least 13 rows of all parties together, there are 11" in regression(
        by_rows(few, 3), Disclosure.preset("datashield")
    )
    nobody = [*by_rows(data, 2), (data.X[:0], data.y[:0])]
    assert "rows from at least 3 parties, there are 2;" in regression(nobody, Disclosure.preset("datashield"))


def test_a_regression_takes_enough_rows_of_each_kind() -> None:
    data = spector()
    assert regression(by_rows(data, 3), Disclosure("test", minimum_cell=3)) == ""
    text = regression(by_rows(data, 3), Disclosure("test", minimum_cell=4))
    assert "it takes at least 4 rows for each value of a column that holds only 0 and 1, at least 4 rows for" in text
    # y is balanced, and a column of X is not: 9, 9, 7 and 7 rows have either value of both.
    y = np.arange(32) % 2
    assert regression(by_rows(Data(data.X, y), 3), Disclosure("test", minimum_cell=7)) == ""
    assert regression(by_rows(Data(data.X, y), 3), Disclosure("test", minimum_cell=8)) != ""


@pytest.mark.parametrize(("cell", "fine"), [(3, True), (4, False)])  # of 18 and 14 rows 3 and 6 have the outcome
def test_columns_at_different_parties(cell: int, fine: bool) -> None:
    data = spector()
    inputs = [(data.X[:, :1], None), (data.X[:, 1:2], data.y), (data.X[:, 2:], None)]
    text = regression(inputs, Disclosure("test", minimum_cell=cell), partition="columns")
    assert (text == "") == fine
    assert "there are 32" in regression(inputs, Disclosure("test", minimum_rows=33), partition="columns")


def test_rules_hold_for_a_model_that_stays_shared() -> None:
    async def program(party: Party, data: Any) -> str:
        try:
            await logistic_regression(
                party, *data, l2=1.0, reveal=False, disclosure=Disclosure("test", minimum_rows=500)
            )
        except DisclosureError:
            return "refused"
        return ""

    assert run(program, by_rows(diabetes(), 2)) == ["refused"] * 2


# ---- what it costs, what it opens -------------------------------------------------------------------------------


def test_without_a_rule_nothing_is_sent() -> None:
    async def program(party: Party, data: Any) -> Any:
        await check(party.at("a"), None, "test", rows=1)
        await check(party.at("b"), Disclosure.preset("none"), "test", rows=1, columns=np.zeros((1, 1)))
        return party.costs.rounds

    assert run(program, [0, 0, 0]) == [0, 0, 0]


@pytest.mark.parametrize("fine", [True, False])
def test_one_bit_is_opened(fine: bool) -> None:
    """Whatever the rules, and whether they hold or not: the only opening is one number, 0 or 1."""
    inputs = parts(5, 5, 5 if fine else 0)

    async def program(party: Party, data: Any) -> Any:
        text = await refused(party, secure_sum, data, bound=4, disclosure=Disclosure.preset("ons"))
        return text, party.costs.openings

    bit = hashlib.sha256(b"int64 ()\n" + np.int64(not fine).tobytes()).hexdigest()
    for text, openings in run(program, inputs):
        assert (text == "") == fine
        assert [(o.step, o.shapes) for o in openings] == [("disclosure/open", ((),)), *[("open", ((2,),))] * fine]
        assert openings[0].digest == bit


@pytest.mark.parametrize(("parties", "preprocessing"), [(2, "dealer"), (3, "dealer"), (3, "prss"), (5, "prss")])
@pytest.mark.parametrize("columns", [0, 1, 5])
def test_costs_of_a_check(parties: int, preprocessing: str, columns: int) -> None:
    """A comparison of all rules, one of their failures, and the bit."""
    data = np.linspace(2, 3, 20 * columns).reshape(20, columns)

    async def program(party: Party, _: Any) -> Any:
        rules = Disclosure("test", minimum_rows=10, minimum_cell=5)
        await check(party, rules, "test", rows=20, columns=data if columns else None)
        return party.costs.rounds, {name.split("/")[0]: c.rounds for name, c in party.costs.by_step.items()}

    rounds, _ = run(program, [0] * parties, preprocessing)[0]
    colluders = (parties - 1) // 2 if preprocessing == "prss" else 0
    compared = (10 * (parties + 1)).bit_length()
    expected = 1 + 2 + math.ceil(math.log2(compared)) + 2 * colluders + 1
    if columns:
        count = 1 + 2 * columns
        expected += 2 + math.ceil(math.log2((count + 1).bit_length())) + 2 * colluders
    assert rounds == expected


def test_a_check_can_be_prepared() -> None:
    async def program(party: Party, data: Any) -> Any:
        async def fit(seat: Party, X: Any) -> Any:
            return await secure_sum(seat, X, bound=4, to=[1], disclosure=Disclosure.preset("ons"))

        await prepare(party, fit, data)
        before = party.costs.total
        result = await fit(party, data)
        return result, party.costs.since(before).rounds > 0

    results = run(program, parts(5, 5, 5))
    assert results[0] == (None, True)
    np.testing.assert_allclose(results[1][0], np.concatenate(parts(5, 5, 5)).sum(axis=0))


def test_counts_are_capped_at_the_threshold() -> None:
    """What is shared of a count is no more than the comparison needs."""
    rules = Disclosure("test", minimum_rows=10, minimum_cell=3, minimum_parties=2)
    columns = np.column_stack([np.arange(1000) % 2, np.arange(1000) % 3, np.zeros(1000)])
    ours, needed = quotas(rules, 1000, columns)
    assert needed.tolist() == [10, 2, *[3] * 6]
    assert ours.tolist() == [10, 1, 3, 3, 0, 3, 3, 3]
    ours, needed = quotas(rules, 0, columns[:0])
    assert ours.tolist() == [0] * 8


def test_public_counts_are_compared_in_the_clear() -> None:
    rules = Disclosure.preset("vantage6")
    check_public(rules, "test", rows=10, parties=3)
    check_public(None, "test", rows=0, parties=0)
    with pytest.raises(DisclosureError, match=r"10 rows of .* there are 9, rows from .* there are 2"):
        check_public(rules, "test", rows=9, parties=2)


def test_release_is_plain() -> None:
    async def program(party: Party, _: Any) -> Any:
        return Release.of(party, [1, 0, 1], None), Release.of(party, None, Disclosure.preset("cms")).terms()

    release, terms = run(program, [0, 0, 0])[0]
    assert release == Release((0, 1), None)
    assert release.terms() == {"to": [0, 1]}
    assert terms["disclosure"]["minimum_cell"] == 11


# ---- privacy, exactly -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coalition", [{0}, {1}])
def test_a_check_tells_whether_it_holds_and_nothing_else(coalition: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule wants a row. With one of the coalition's own it learns nothing about the other party's, up to the
    mask's 2^-2; without, whether there is one."""
    field = GF(157)
    monkeypatch.setattr(arithmetic, "STATISTICAL_SECURITY_BITS", 2)
    monkeypatch.setattr("protocols.release.disclosure._FIELD", field)
    monkeypatch.setattr(opening, "CHUNK_BYTES", 1 << 30)
    monkeypatch.setattr(requests, "CHUNK_BYTES", 1 << 30)
    (honest,) = {0, 1} - coalition
    rules = Disclosure("test", minimum_rows=1)

    async def protocol(party: Party, lanes: int, rows: tuple[int, int]) -> None:
        ours, needed = quotas(rules, rows[0] if party.rank == honest else rows[1], None)
        shape = (lanes, 1)
        fails = await short_of(party, np.broadcast_to(ours, shape), np.broadcast_to(needed, shape))
        await hold(party, fails)

    options: dict[str, Any] = {
        "coalition": coalition,
        "parties": 2,
        "preprocessing": "dealer",
        "field": field,
        "packed": r"carry|convert|generate|correction [01]\.",
        "known": r"share\||zero\|compare#0",
        "fixings": 1,
    }
    assert 0 < distance(protocol, [(0, 1), (1, 1)], **options) <= 2**-2
    assert distance(protocol, [(0, 0), (1, 0)], **options) == 1
