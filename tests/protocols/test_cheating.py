"""Tables of counts among parties that may cheat: the same results, and nothing that no data would have given."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import product
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from mpc import AgreementError, CheatingError, Party, PeerError, SecurityError, bit_inputs, inputs, open_, prepare
from mpc.bit_inputs import weights
from mpc.mac_check import Guard
from mpc.memory import run_in_memory
from mpc.prg import Stream
from protocols import agreement, cheating, contingency_table, histogram, proportion, secure_mean, secure_sum, sums
from protocols.cheating import EXAMINED, added_up
from protocols.pools import row_pool
from protocols.release import suppression
from protocols.release.disclosure import Disclosure, DisclosureError, Release, check
from protocols.release.suppression import lines_of, open_counts, rounded
from tests.mpc import table_program
from tests.mpc.attacks import Cheat, _shifted
from tests.mpc.support import Message, Run, run
from tests.protocols.helpers import diabetes
from tests.protocols.test_contingency import CITIES, smoking
from tests.protocols.test_proportions import marriages

FEW = Disclosure("test", minimum_cell=5, minimum_rows=10, minimum_parties=2)
ROUNDED = Disclosure("test", minimum_cell=8, minimum_rows=8, minimum_parties=2, rounding=5)

# ---- the same results ---------------------------------------------------------------------------------------------


def with_gaps(rows: np.ndarray) -> list[list[int | None]]:
    """Columns of a table in which every 50th value is missing, at places that differ."""
    return [[None if (k + 7 * j) % 50 == 0 else v for k, v in enumerate(rows[:, j].tolist())] for j in range(3)]


async def by_city(party: Party, rows: np.ndarray, **more: Any) -> Any:
    strata, first, second = with_gaps(rows)
    same: dict[str, Any] = {"row_categories": [0, 1], "column_categories": [0, 1]}
    return await contingency_table(party, first, second, strata=strata, strata_categories=CITIES, **same, **more)


async def of_marriages(party: Party, rows: np.ndarray, **more: Any) -> Any:
    return await proportion(party, rows, categories=[1, 2, 3, 4, 5, 6], **more)


async def of_a_level(party: Party, rows: np.ndarray, **more: Any) -> Any:
    return await proportion(party, rows, categories=[1, 2, 3, 4, 5], level=2, **more)


async def of_labels(party: Party, rows: np.ndarray, **more: Any) -> Any:
    return await proportion(party, ["ab"[k % 2] if k % 9 else None for k in rows.tolist()], **more)


async def of_bmi(party: Party, rows: np.ndarray, **more: Any) -> Any:
    return await histogram(party, rows, bins=[18, 18.5, 25, 30, 41], **more)


async def of_bmi_joined(party: Party, rows: np.ndarray, **more: Any) -> Any:
    return await histogram(party, rows, bins=[18.5, 25, 30], outside="join", **more)


def parts_of(analysis: Any, parties: int) -> list[np.ndarray]:
    rows: Any = {by_city: smoking()[1], of_bmi: diabetes().X[:, 2], of_bmi_joined: diabetes().X[:, 2]}
    return np.array_split(rows.get(analysis, marriages()), parties)


SAME: list[tuple[Any, str, int, dict[str, Any]]] = [
    (by_city, "dealer", 3, {}),
    (by_city, "dealer", 2, {"disclosure": Disclosure("test", minimum_cell=40), "to": [1]}),
    (by_city, "dealer", 3, {"disclosure": ROUNDED}),
    (by_city, "ot", 2, {}),
    (of_marriages, "dealer", 3, {"disclosure": Disclosure.preset("vantage6"), "to": [0, 2]}),
    (of_marriages, "ot", 2, {"disclosure": FEW, "to": [0]}),
    (of_a_level, "dealer", 2, {"disclosure": FEW}),
    (of_labels, "dealer", 3, {"to": [1]}),
    (of_bmi, "dealer", 3, {"disclosure": Disclosure.preset("opensafely")}),
    (of_bmi, "dealer", 2, {"disclosure": FEW}),
    (of_bmi, "ot", 2, {"disclosure": ROUNDED}),
    (of_bmi, "ot", 2, {"disclosure": Disclosure("test", rounding=3), "to": [1]}),
    (of_bmi_joined, "ot", 3, {"disclosure": Disclosure.preset("cms"), "to": [1, 2]}),
]


@pytest.mark.parametrize(("analysis", "preprocessing", "parties", "how"), SAME)
def test_results_are_those_of_semi_honest_parties(
    analysis: Any, preprocessing: str, parties: int, how: dict[str, Any]
) -> None:
    async def program(party: Party, rows: np.ndarray) -> Any:
        found = await analysis(party, rows, **how)
        return None if found is None else found.to_dict()

    parts = parts_of(analysis, parties)
    expected = run_in_memory(program, parts, preprocessing="dealer")
    assert any(one is not None for one in expected)
    assert run_in_memory(program, parts, preprocessing=preprocessing, security="malicious") == expected


def test_a_prepared_table() -> None:
    """Preparing gives no numbers of rows that could fit cells: nothing is opened, and nothing refused."""
    parts = parts_of(of_bmi, 2)

    async def program(party: Party, rows: np.ndarray) -> Any:
        await prepare(party, lambda seat: of_bmi(seat, rows, disclosure=ROUNDED))
        return (await of_bmi(party, rows, disclosure=ROUNDED)).to_dict()

    (found, _), (expected, _) = (
        run_in_memory(program, parts, preprocessing="dealer", security=security)
        for security in ("malicious", "semi-honest")
    )
    assert found == expected


@pytest.mark.parametrize(("preprocessing", "parties"), [("dealer", 2), ("dealer", 3), ("ot", 2), ("ot", 3)])
def test_rounding_is_exact_at_all_edges(preprocessing: str, parties: int) -> None:
    values = np.array([0, 1, 2, 3, 7, 8, 12, 13, 2**31 + 2, 2**31 + 3, 2**32])

    async def program(party: Party, _: Any) -> Any:
        shares = await party.share(values if party.rank == 0 else None, bound=2**32, owner=0, shape=values.shape)
        return await open_(party, await rounded(party, shares, 5))

    for found in run_in_memory(program, [None] * parties, preprocessing=preprocessing, security="malicious"):
        assert found.tolist() == [5 * ((v + 2) // 5) for v in values.tolist()]


@pytest.mark.parametrize(("low", "parties"), [(0, 3), ((1 << 39) - 1, 2), (1 << 39, 3), ((1 << 40) - 1, 2)])
def test_rounding_is_exact_whatever_masks_a_party_takes(
    low: int, parties: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but one take masks whose lowest bits, those that a truncation drops, are of their choice."""
    values, cheats, drawn = np.array([0, 1, 2, 3, 2**32 - 1, 2**32]), ContextVar("cheats", default=False), []
    bounded = Stream.bounded

    def chosen(self: Stream, field: Any, bits: int, shape: tuple[int, ...]) -> Any:
        mask = bounded(self, field, bits, shape)
        if bits < 100 or not cheats.get():
            return mask
        drawn.append(bits)
        high = [(int(value) >> 40 << 40) + low for value in np.asarray(field.decode(mask)).flat]
        return field.encode(np.array(high, object).reshape(shape))

    async def program(party: Party, _: Any) -> Any:
        cheats.set(party.rank > 0)
        shares = await party.share(values if party.rank == 0 else None, bound=2**32, owner=0, shape=values.shape)
        return await open_(party, await rounded(party, shares, 3))

    monkeypatch.setattr(Stream, "bounded", chosen)
    done = run(program, parties=parties, preprocessing="ot", security="malicious")
    assert drawn
    assert done.results[0].tolist() == [3 * ((v + 1) // 3) for v in values.tolist()]


# ---- what is refused by name --------------------------------------------------------------------------------------


async def of_columns(party: Party) -> Any:
    mine = [0, 1, 1] if party.rank == 0 else None
    await proportion(party, mine, categories=[0, 1], partition="columns")


async def of_an_old_rule(party: Party) -> Any:
    await proportion(party, [0, 1, 1], categories=[0, 1], disclosure=Disclosure("test", dominance=0.5))


@pytest.mark.parametrize("preprocessing", ["dealer", "ot"])
@pytest.mark.parametrize(
    ("analysis", "words"),
    [
        (of_columns, "proportion with partition='columns' does not run with security='malicious'"),
        (of_an_old_rule, "dominance rule"),
    ],
)
def test_what_has_not_been_shown_is_refused_before_anything_is_sent(
    analysis: Any, words: str, preprocessing: str
) -> None:
    async def program(party: Party, _: Any) -> None:
        with pytest.raises(SecurityError, match=re.escape(words)):
            await analysis(party)

    done = run(program, parties=2, preprocessing=preprocessing, security="malicious")
    assert done.outcomes == [None, None]
    assert not [m.step for m in done.sent if m.frm < 2 and not of_checks(m.step)]


def test_other_analyses_are_told_which_hold() -> None:
    async def program(party: Party, _: Any) -> None:
        with pytest.raises(SecurityError, match=r"quantile does not run .*secure_mean, .* and contingency_table do"):
            await agreement.agree(party, "quantile", {"partition": "rows"})

    assert run(program, parties=2, security="malicious").outcomes == [None, None]
    assert set(EXAMINED) == {
        one.__name__ for one in (secure_sum, secure_mean, proportion, histogram, contingency_table)
    }


# ---- what a party gives -------------------------------------------------------------------------------------------


@contextmanager
def saying(scope: str, bits: Sequence[int]) -> Iterator[None]:
    """Let party 1 give these bits for what it gives in a scope, and take them for its own."""
    original, cut = bit_inputs.share_bits, bit_inputs._cut
    place: ContextVar[bool] = ContextVar("place", default=False)

    async def shared(party: Party, owner: int, *given: Any) -> Any:
        place.set(party.rank == owner == 1 and re.search(scope, party.path) is not None)
        return await original(party, owner, *given)

    def other(field: Any, values: Any, magnitude: int, table: list[int]) -> Any:
        told = cut(field, values, magnitude, table)
        return np.array(bits, np.uint8).reshape(told.shape) if place.get() else told

    with patch.object(inputs, "share_bits", shared), patch.object(bit_inputs, "_cut", other):
        yield


@pytest.mark.parametrize(("most", "preprocessing"), [(1, "ot"), (4, "dealer"), (7, "dealer")])
def test_no_bits_stand_for_a_negative_count(most: int, preprocessing: str) -> None:
    """All bits that a party can give: they are the numbers from 0 to the bound, and no other."""

    async def program(party: Party, _: Any) -> Any:
        return int((await open_(party, await added_up(party, np.array([party.size - 2]), most)))[0])

    found = set()
    for bits in product((0, 1), repeat=len(weights((most + 1) // 2))):
        with saying("", bits):
            found |= set(run(program, parties=2, preprocessing=preprocessing, security="malicious").results)
    assert found == set(range(most + 1 + most % 2))


def test_nobody_counts_as_several_parties() -> None:
    """Of three parties one has rows; whatever the second says of itself, there are no three."""
    rules = Disclosure("test", minimum_rows=3, minimum_parties=3)

    async def program(party: Party, _: Any) -> Any:
        return await check(party, rules, "test", rows=9 if party.rank == 0 else 0)

    for bits in product((0, 1), repeat=2 * len(weights(2))):
        with saying("counts", bits):
            done = run(program, parties=3, security="malicious")
        assert all(isinstance(outcome, DisclosureError) for outcome in done.outcomes), (bits, done.outcomes)
    rules = Disclosure("test", minimum_rows=3, minimum_parties=2)
    with saying("counts", [1, 1, 1] * 2):  # all that it can say makes it a party with rows, no more
        assert run(program, parties=3, security="malicious").outcomes == [None] * 3


TABLE = np.array([[1, 9, 12], [10, 6, 2]])
CELLS = np.array([(r, c) for (r, c), count in np.ndenumerate(TABLE) for _ in range(count)])


async def small_table(party: Party, part: np.ndarray, disclosure: Disclosure | None = FEW) -> Any:
    return await contingency_table(
        party, part[:, 0], part[:, 1], row_categories=[0, 1], column_categories=[0, 1, 2], disclosure=disclosure
    )


def lying(monkeypatch: pytest.MonkeyPatch, scope: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Let party 1 give other counts, or other numbers of rows, in the form in which it gives its own."""
    total = row_pool.total

    async def told(party: Party, ours: np.ndarray) -> Any:
        return await total(party, change(ours) if party.rank == 1 and party.path.endswith(scope) else ours)

    monkeypatch.setattr(row_pool, "total", told)


def one_more(ours: np.ndarray) -> np.ndarray:
    more = ours.copy()
    more.flat[0] += 1
    return more


def as_many_as_fit(ours: np.ndarray) -> np.ndarray:
    return np.full_like(ours, (1 << 32) // 3)


@pytest.mark.parametrize("preprocessing", ["dealer", "ot"])
@pytest.mark.parametrize(
    ("scope", "change"), [("rows", one_more), ("counts", one_more), ("counts", as_many_as_fit), ("rows", np.zeros_like)]
)
@pytest.mark.parametrize("disclosure", [None, FEW], ids=["no rules", "a minimum"])
def test_rows_that_do_not_fit_the_cells_are_refused_before_anything_else_is_opened(
    scope: str, change: Any, disclosure: Any, preprocessing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lying(monkeypatch, scope, change)
    parts = [CELLS[k::3] for k in range(3)] if preprocessing == "dealer" else [CELLS[k::2] for k in range(2)]

    async def program(party: Party, part: np.ndarray) -> Any:
        return await small_table(party, part, disclosure)

    done = run(program, parts, preprocessing=preprocessing, security="malicious")
    for outcome in done.outcomes:
        assert isinstance(outcome, AgreementError | PeerError)
        assert "contingency_table: the cells of the table do not add up" in str(outcome)
    assert [step for step in openings(done) if step.startswith(("pool/", "cells/"))] == ["pool/whole/open"]


@pytest.mark.parametrize("recipients", [None, [2]])
def test_rows_that_only_the_rules_hear_of_open_nothing(recipients: Any) -> None:
    """Of five rows, where the rule takes ten: a party that says it has enough, and counts what it has."""
    few = [CELLS[:2], CELLS[2:4], CELLS[4:5]]

    async def program(party: Party, part: np.ndarray) -> Any:
        return await proportion(party, part[:, 0], categories=[0, 1], to=recipients, disclosure=FEW)

    honest = run(program, few, security="malicious")
    with saying("disclosure/counts", [1] * 2 * len(weights(5))):
        done = run(program, few, security="malicious")
    assert openings(done) == openings(honest)
    assert openings(done)[-1].startswith("pool/disclosure/")
    for outcome in (*honest.outcomes, *done.outcomes):
        assert isinstance(outcome, DisclosureError)
        assert "nothing of it was opened" in str(outcome)


@pytest.mark.parametrize("preprocessing", ["dealer", "ot"])
def test_a_mean_beyond_its_bound_is_no_result(preprocessing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a party whose sum does not fit its rows."""
    values, share_sums = np.array([2.0, -1.0, 3.5]), sums._share_sums

    async def shared(party: Party, total: Any, *more: Any) -> Any:
        return await share_sums(party, total * (100 if party.rank else 1), *more)

    async def program(party: Party, _: None) -> Any:
        return await secure_mean(party, values, bound=4.0)

    honest = run(program, [None] * 2, preprocessing=preprocessing, security="malicious")
    assert all(result == pytest.approx(values.mean(), abs=1e-12) for result in honest.results)
    monkeypatch.setattr(sums, "_share_sums", shared)
    for outcome in run(program, [None] * 2, preprocessing=preprocessing, security="malicious").outcomes:
        assert isinstance(outcome, AgreementError | PeerError)
        assert "secure_mean: a mean is beyond its bound" in str(outcome)
    # Who does not learn the mean does not learn from an error how large it is.
    one = run(lambda party, _: secure_mean(party, values, bound=4.0, to=[0]), [None] * 2, security="malicious")
    assert one.results[0] > 4
    assert one.results[1] is None


@pytest.mark.parametrize("seed", range(6))
def test_made_up_rows_are_those_of_some_data(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any cells with as many rows, any numbers of missing values: the result is that of honest rows and these."""
    rng = np.random.default_rng(seed)
    cells, gaps = rng.integers(0, 12, (2, 3)) * rng.integers(0, 2, (2, 3)), rng.integers(0, 7, 2)
    total = row_pool.total

    async def told(party: Party, ours: np.ndarray) -> Any:
        made_up = cells if party.path.endswith("counts") else np.array([cells.sum(), *gaps])
        return await total(party, made_up if party.rank == 1 else ours)

    monkeypatch.setattr(row_pool, "total", told)
    done = run(table_program.program, [(None, None)] * (2 + seed % 2), security="malicious")
    for found in done.results:
        assert table_program.is_right(found, len(done.results), [1])
    honest = np.zeros((2, 3), np.int64)
    for k, (row, column) in enumerate(table_program.ROWS):
        if row is not None and column is not None and k % len(done.results) != 1:
            honest[row, table_program.COLUMNS.index(column)] += 1
    assert done.results[0].truth.tolist() == (honest + cells).tolist()


# ---- what is opened on the way ------------------------------------------------------------------------------------


def of_checks(step: str) -> bool:
    return "check#" in step


def openings(done: Run) -> list[str]:
    """The steps at which results, or bits on the way to them, were opened, without their numbers."""
    found = [re.sub(r"#\d+$", "", m.step) for m in done.sent if re.search(r"/open( to)?#", m.step)]
    return list(dict.fromkeys(found))


def shifting(step: str) -> Callable[[Message], list[Message]]:
    """Let party 1 open another value at a step, the same for all."""

    def tamper(m: Message) -> list[Message]:
        if m.frm != 1 or m.step != step:
            return [m]
        if len(m.data) % 16 == 0:
            return [m._replace(data=_shifted(m.data, 0, -1))]
        return [m._replace(data=bytes([m.data[0] ^ 1]) + m.data[1:])]

    return tamper


async def many_at_the_minimum(party: Party, part: np.ndarray) -> Any:
    """15 rows, 3 cells of just 5: it is not told which (the bit called "fewer" decides)."""
    rule = Disclosure("test", minimum_cell=5)
    return await proportion(party, part, categories=[0, 1, 2, 3, 4, 5], disclosure=rule, to=[0])


MANY = [np.repeat([0, 2, 4], 5)[k::2] for k in range(2)]
WAYS: list[tuple[Any, str, list[np.ndarray], str]] = [
    (
        small_table,
        "dealer",
        [CELLS[k::3] for k in range(3)],
        "whole, disclosure, few, sizes, rows, which, enough, open",
    ),
    (small_table, "ot", [CELLS[k::2] for k in range(2)], "whole, disclosure, few, sizes, rows, which, enough, open"),
    (many_at_the_minimum, "dealer", MANY, "whole, few, sizes, rows, large, open"),
]


@pytest.mark.parametrize(("analysis", "preprocessing", "parts", "named"), WAYS)
def test_whatever_is_shifted_is_found_before_anything_more_is_opened(
    analysis: Any, preprocessing: str, parts: list[np.ndarray], named: str
) -> None:
    """At every step in turn: openings, after which honest parties only check; and values under masks."""
    honest = run(analysis, parts, preprocessing=preprocessing, security="malicious")
    opened = openings(honest)
    assert [step.split("/")[-2] for step in opened] == named.split(", ")
    steps = list(dict.fromkeys(m.step for m in honest.sent if m.frm == 1 and re.search(r"open( to)?#", m.step)))
    if preprocessing == "dealer":
        masked = r"compare/|truncate#"
        steps += list(dict.fromkeys(m.step for m in honest.sent if m.frm == 1 and re.search(masked, m.step)))
    for step in steps:
        done = run(analysis, parts, preprocessing=preprocessing, security="malicious", tamper=shifting(step))
        others = [outcome for rank, outcome in enumerate(done.outcomes) if rank != 1]
        assert all(isinstance(outcome, CheatingError | PeerError) for outcome in others), (step, others)
        assert any(isinstance(outcome, CheatingError) for outcome in done.outcomes), (step, others)
        told = [m.step for m in done.sent if m.frm != 1 and m.frm < len(parts)]
        after = told[len(told) - told[::-1].index(step) :]
        if "open" in step:
            assert all(map(of_checks, after)), (step, after)
        assert not any(re.search(r"/open( to)?#|/mask#", one) for one in after), (step, after)


@pytest.mark.parametrize("said", ["announce/labels", "agree/terms"])
def test_other_labels_or_terms_for_some_are_found_before_anything_is_opened(said: str) -> None:
    async def program(party: Party, rows: list[int]) -> Any:
        labels = [row + 10 * party.rank for row in rows]
        return await proportion(party, labels)

    def tamper(m: Message) -> list[Message]:
        if m.frm != 1 or m.to != 2 or f"{said}#" not in m.step:
            return [m]
        # Another label, so that as many are heard; a term in another form, that says the same.
        data = m.data.replace(b"11]", b"12]") if "labels" in said else m.data.replace(b",", b", ", 1)
        assert data != m.data
        return [m._replace(data=data)]

    parts = [[0, 1, 1]] * 3
    assert run(program, parts, security="malicious").results[0].categories == (0, 1, 10, 11, 20, 21)
    done = run(program, parts, security="malicious", tamper=tamper)
    assert all(isinstance(outcome, CheatingError | PeerError | AgreementError) for outcome in done.outcomes)
    assert openings(done) == []


@pytest.mark.parametrize("checked", [True, False])
def test_a_small_cell_that_is_called_large_is_not_opened(checked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bit that is shifted for all alike; without checks they would open the cell."""

    async def nothing(self: Guard, seat: Party) -> None:
        self._notes.clear()

    async def opened(party: Party, *shares: Any, **to: Any) -> Any:
        if party.path.endswith("which"):
            shares = (Cheat(1, 0, -1, "value")(party, shares[0]),)
        return await open_(party, *shares, **to)

    monkeypatch.setattr(suppression, "open_", opened)
    if not checked:
        monkeypatch.setattr(Guard, "check", nothing)
    done = run(small_table, [CELLS[k::2] for k in range(2)], security="malicious")
    if checked:
        assert any(isinstance(outcome, CheatingError) for outcome in done.outcomes)
        assert openings(done)[-1] == "cells/small/which/open"
    else:
        assert done.results[0].counts[0, 0] == TABLE[0, 0] == 1


# ---- the argument, in the code ------------------------------------------------------------------------------------


def test_all_give_their_counts_before_anything_is_told() -> None:
    done = run(small_table, [CELLS[k::3] for k in range(3)], security="malicious")
    steps = [m.step for m in done.sent]
    first = next(k for k, step in enumerate(steps) if re.search(r"open#|/mask#", step))
    last = max(k for k, step in enumerate(steps) if re.match(r"pool/(rows|counts)/share/", step))
    assert last < first
    assert steps[first] == "pool/whole/open#1"
    rules = [k for k, step in enumerate(steps) if "disclosure/counts/share/" in step]
    assert max(rules) < min(k for k, step in enumerate(steps) if "/mask#" in step)


def test_what_semi_honest_parties_send_is_as_it_was() -> None:
    """No difference is opened, the bound of a count is what it was, and what is refused is not shared."""
    refused = run(small_table, [CELLS[:2], CELLS[2:3], CELLS[3:4]])
    assert all("nothing of it was opened" in str(outcome) for outcome in refused.outcomes)
    assert not any(m.step.startswith("pool/counts/") for m in refused.sent)
    done = run(small_table, [CELLS[k::3] for k in range(3)])
    assert not any("whole" in m.step for m in done.sent)
    headers = {m.data for m in done.sent if re.match(r"pool/counts/share/header", m.step)}
    assert headers == {b'[[2,3],0,"%d","F127"]' % ((1 << 32) // 3)}


def test_rows_of_all_parties_have_the_bound_that_sums_are_promised() -> None:
    async def program(party: Party, _: Any) -> Any:
        shared = await row_pool.total(party, np.array([(1 << 32) // 3, 0]))
        return shared.magnitude, (await open_(party, shared)).tolist()

    for magnitude, values in run(program, parties=3, security="malicious").results:
        assert (1 << 32) <= magnitude <= (1 << 32) + 3
        assert values == [(1 << 32) - 1, 0]
    assert cheating.EXAMINED["histogram"].startswith("rows are counted from 0")


def test_cells_are_opened_to_some_with_all_patterns() -> None:
    """As with semi-honest parties, whatever is withheld: the paths of the tests of suppression."""
    from tests.protocols.test_suppression import PATHS

    async def program(party: Party, table: Any) -> Any:
        cells = np.asarray(table)
        ours = cells.reshape(-1) if party.rank == 0 else np.zeros(cells.size, np.int64)
        counts = await row_pool.total(party.at("counts"), ours)
        rule = Release((1,), Disclosure("test", minimum_cell=5))
        opened = await open_counts(party.at("cells"), counts, lines_of(cells.shape), rule)
        return opened and [opened.counts.tolist(), opened.totals.tolist(), opened.reasons]

    for table in PATHS:
        expected, found = (
            run(program, [table] * 2, security=security).results for security in ("semi-honest", "malicious")
        )
        assert found[0] is expected[0] is None
        assert repr(found[1]) == repr(expected[1])
