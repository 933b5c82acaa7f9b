"""Pools in both partitions: counts, moments and vectors; what is refused; announcements that are not trusted."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc import AgreementError, DataError, Party, PeerError, open_, prepare
from protocols import proportion
from protocols.pools.column_pool import _heard
from protocols.pools.joining import pool
from protocols.pools.pool import Pool
from protocols.pools.variables import Categorical, Column, Numeric, categorical, numeric
from protocols.release.disclosure import Disclosure, DisclosureError, Release
from protocols.release.outcome import Result
from tests.mpc.support import Message
from tests.mpc.support import run as run_tapped
from tests.protocols.helpers import breast_cancer, run
from tests.protocols.promises import at_rank, watched

WORLDS = [("dealer", 2), ("dealer", 3), ("prss", 3), ("prss", 5), ("ot", 2)]
KINDS: dict[str, Any] = {"x": Numeric, "group": Categorical, "site": Categorical}
NAN = float("nan")


class Table:
    """Rows of two numbers and two factors, some of them incomplete."""

    def __init__(self, rows: int = 120, *, missing: bool = True, seed: int = 1) -> None:
        rng = np.random.default_rng(seed)
        self.x = breast_cancer().X[:rows, [0, 3]].copy()
        self.group = np.array(["b", "m", "n"], dtype=object)[rng.choice(3, rows, p=[0.6, 0.35, 0.05])]
        self.site: Any = rng.integers(0, 2, rows).astype(object)
        if missing:
            self.x[::11, 1] = NAN
            self.group[3::17] = None
            self.site[5] = None
        self.rows = rows

    @property
    def complete(self) -> Any:
        known = [value is not None for value in self.group], [value is not None for value in self.site]
        return ~np.isnan(self.x).any(axis=1) & np.array(known[0]) & np.array(known[1])

    def by_rows(self, parties: int) -> list[Any]:
        cuts = np.sort(np.random.default_rng(parties).choice(np.arange(1, self.rows), parties - 1, replace=False))
        return list(zip(*(np.split(one, cuts) for one in (self.x, self.group, self.site)), strict=True))

    def by_columns(self, parties: int) -> list[Any]:
        held: list[Any] = [[None, None, None] for _ in range(parties)]
        held[0][1], held[parties - 1][0], held[parties // 2][2] = self.group, self.x, self.site
        return [tuple(one) for one in held]

    def split(self, partition: str, parties: int) -> list[Any]:
        return self.by_rows(parties) if partition == "rows" else self.by_columns(parties)


async def make(party: Party, data: Any, partition: str, disclosure: Disclosure | None = None, **other: Any) -> Pool:
    x, group, site = data
    bound = other.get("bound", [64, 4096])
    labels = other.get("categories", ("b", "m", "n"))
    return await pool(
        party.at("pool"),
        "test",
        {
            "x": None if x is None else numeric(x, rank=party.rank, what="x", bound=bound),
            "group": None if group is None else categorical(group, rank=party.rank, what="group", categories=labels),
            "site": None if site is None else categorical(site, rank=party.rank, what="site"),
        },
        kinds=KINDS,
        partition=partition,
        release=Release.of(party, None, disclosure),
        terms=other.get("terms", {}),
    )


# ---- counts, moments, vectors -------------------------------------------------------------------


@pytest.mark.parametrize("partition", ["rows", "columns"])
@pytest.mark.parametrize(("preprocessing", "parties"), WORLDS)
def test_pools_count_and_average_as_if_all_rows_were_at_one_place(
    preprocessing: str, parties: int, partition: str
) -> None:
    table = Table()

    async def program(party: Party, data: Any) -> Any:
        made = await make(party, data, partition)
        sizes = await made.open_sizes()
        n = await made.group_sizes("group")
        m = await made.moments("x", "group", n)
        whole = await made.moments("x")
        cells = await made.counts("group", "site")
        opened = await open_(party.at("end"), m.mean, m.covariance, whole.mean, whole.covariance, cells, whole.variance)
        return made, sizes, n, opened

    with watched() as promises:
        results = run(at_rank(program), table.split(partition, parties), preprocessing)
    assert promises.check(parties) >= 10
    made, sizes, n, (mean, covariance, whole_mean, whole_covariance, cells, variance) = results[0]
    frame = pd.DataFrame({"a": table.x[:, 0], "b": table.x[:, 1], "group": table.group, "site": table.site})
    kept = frame[table.complete]
    assert sizes.n == len(kept)
    assert sizes.missing == {
        "x": int(np.isnan(table.x).any(axis=1).sum()),
        "group": int(frame.group.isna().sum()),
        "site": 1,
    }
    assert made.categories == {"group": ("b", "m", "n"), "site": (0, 1)}
    np.testing.assert_array_equal(cells, pd.crosstab(kept.group, kept.site).to_numpy())
    np.testing.assert_array_equal(n, kept.group.value_counts()[["b", "m", "n"]])
    units = 2.0 ** made.exponents["x"]
    for k, label in enumerate("bmn"):
        rows = kept[kept.group == label][["a", "b"]].to_numpy(float)
        np.testing.assert_allclose(mean[k] * units, rows.mean(axis=0), rtol=1e-7)
        expected = np.cov(rows.T, bias=True)
        np.testing.assert_allclose(covariance[k] * np.outer(units, units), expected, rtol=1e-6)
    rows = kept[["a", "b"]].to_numpy(float)
    np.testing.assert_allclose(whole_mean[0] * units, rows.mean(axis=0), rtol=1e-8)
    np.testing.assert_allclose(whole_covariance[0] * np.outer(units, units), np.cov(rows.T, bias=True), rtol=1e-7)
    np.testing.assert_array_equal(variance[0], np.diag(whole_covariance[0]))


@pytest.mark.parametrize("partition", ["rows", "columns"])
def test_counts_of_one_two_and_three_factors(partition: str) -> None:
    table = Table()

    async def program(party: Party, data: Any) -> Any:
        made = await make(party, data, partition)
        shared = [await made.counts(*which) for which in (("site",), ("site", "group"), ("group", "site", "group"))]
        return await open_(party, *shared)

    one, two, three = run(program, table.split(partition, 3), "prss")[0]
    kept = pd.DataFrame({"group": table.group, "site": table.site})[table.complete]
    crossed = pd.crosstab(kept.site, kept.group).to_numpy()
    np.testing.assert_array_equal(one, crossed.sum(axis=1))
    np.testing.assert_array_equal(two, crossed)
    assert three.shape == (3, 2, 3)
    np.testing.assert_array_equal(three.sum(axis=(1, 2)), crossed.sum(axis=0))
    np.testing.assert_array_equal(np.einsum("gsg->sg", three), crossed)


@pytest.mark.parametrize("partition", ["rows", "columns"])
@pytest.mark.parametrize("missing", [True, False])
def test_vectors_are_the_rows_in_order_with_a_weight(partition: str, missing: bool) -> None:
    table = Table(60, missing=missing)

    async def program(party: Party, data: Any) -> Any:
        made = await make(party, data, partition)
        x, group = await made.vectors("x", "group")
        weight = made.weight
        return (
            made,
            await open_(party.at("end"), x, group),
            None if weight is None else await open_(party.at("weight"), weight),
        )

    made, (x, group), weight = run(program, table.split(partition, 3))[0]
    complete = table.complete
    if partition == "columns" and missing:
        np.testing.assert_array_equal(weight, complete)
        x, group = x[weight == 1], group[weight == 1]
    else:
        assert weight is None
    np.testing.assert_allclose(np.ldexp(x, made.exponents["x"]), table.x[complete], rtol=1e-10)
    np.testing.assert_array_equal(np.array(["b", "m", "n"])[group.argmax(axis=1)], table.group[complete])
    assert set(group.sum(axis=1)) == {1}


@pytest.mark.parametrize(("partition", "looseness"), [("rows", 14), ("columns", 12)])
@pytest.mark.parametrize(("preprocessing", "parties"), [("dealer", 3), ("prss", 5)])
def test_variances_keep_six_digits_under_a_loose_bound(
    preprocessing: str, parties: int, partition: str, looseness: int
) -> None:
    rng = np.random.default_rng(5)
    table = Table(400, missing=False)
    table.x = rng.normal(size=(400, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]]) + [3.0, -1.0]
    deviation = table.x.std(axis=0)

    async def program(party: Party, data: Any) -> Any:
        made = await make(party, data, partition, bound=deviation * 2.0**looseness)
        await made.open_sizes()
        m = await made.moments("x")
        return made, await open_(party.at("end"), m.mean, m.covariance)

    made, (mean, covariance) = run(program, table.split(partition, parties), preprocessing)[0]
    units = 2.0 ** made.exponents["x"]
    # In standard errors and in parts of the variance.
    assert np.abs(mean[0] * units - table.x.mean(axis=0)).max() < 1e-6 * deviation.min()
    expected = np.cov(table.x.T, bias=True)
    np.testing.assert_allclose(covariance[0] * np.outer(units, units), expected, atol=2e-6)


@pytest.mark.parametrize("partition", ["rows", "columns"])
def test_bounds_hold_at_the_edge_of_what_is_declared(partition: str) -> None:
    """Values at the bound, groups of one row, a group without any, a constant column."""
    table = Table(40, missing=False)
    table.x = np.stack([np.where(np.arange(40) % 2, 64.0, -64.0), np.full(40, 4096.0)], axis=1)
    table.group = np.array(["b"] * 39 + ["m"], dtype=object)

    async def program(party: Party, data: Any) -> Any:
        made = await make(party, data, partition)
        await made.open_sizes()
        n = await made.group_sizes("group")
        m = await made.moments("x", "group", n)
        return n, await open_(party.at("end"), m.mean, m.covariance)

    for preprocessing, parties in (("dealer", 2), ("prss", 3)):
        with watched() as promises:
            results = run(at_rank(program), table.split(partition, parties), preprocessing)
        promises.check(parties)
        n, (mean, covariance) = results[0]
        assert n.tolist() == [39, 1, 0]
        np.testing.assert_allclose(mean[:, 1], [1.0, 1.0, 0.0], atol=1e-9)
        np.testing.assert_allclose(covariance[:, 0, 0], [1 - (1 / 39) ** 2, 0.0, 0.0], atol=1e-8)
        np.testing.assert_allclose(covariance[:, 1, 1], 0.0, atol=1e-9)


def test_a_party_may_have_no_rows() -> None:
    table = Table(50)
    parts = [*table.by_rows(2), (table.x[:0], table.group[:0], table.site[:0])]

    async def program(party: Party, data: Any) -> Any:
        made = await make(party, data, "rows")
        sizes = await made.open_sizes()
        m = await made.moments("x")
        return sizes.n, await open_(party.at("end"), m.mean)

    n, mean = run(program, parts)[0]
    assert n == table.complete.sum()
    np.testing.assert_allclose(mean[0] * [64, 4096], table.x[table.complete].mean(axis=0))


@pytest.mark.parametrize("partition", ["rows", "columns"])
def test_without_bounds_and_categories_the_parties_find_them(partition: str) -> None:
    table = Table(60)

    async def program(party: Party, data: Any) -> Any:
        made = await make(party, data, partition, bound=None, categories=None)
        await made.open_sizes()
        return made, await open_(party.at("end"), (await made.moments("x")).mean)

    results = run(program, table.split(partition, 3))
    made, mean = results[0]
    assert made.categories["group"] == ("b", "m", "n")
    assert [other.exponents["x"].tolist() for other, _ in results] == [[8, 12]] * 3
    np.testing.assert_allclose(mean[0] * [2.0**8, 2.0**12], table.x[table.complete].mean(axis=0))


@pytest.mark.parametrize("partition", ["rows", "columns"])
@pytest.mark.parametrize(("preprocessing", "parties"), [("dealer", 2), ("prss", 3)])
def test_pools_can_be_prepared(preprocessing: str, parties: int, partition: str) -> None:
    table = Table(50)

    async def work(party: Party, data: Any) -> Any:
        made = await make(party, data, partition)
        await made.open_sizes()
        m = await made.moments("x", "group", await made.group_sizes("group"))
        return await open_(party.at("end"), m.mean, m.covariance, await made.counts("group", "site"))

    async def prepared(party: Party, data: Any) -> Any:
        await prepare(party, work, data)
        return await work(party, data)

    mean, _, cells = run(prepared, table.split(partition, parties), preprocessing)[0]
    assert cells.sum() == table.complete.sum()
    assert mean.shape == (3, 2)


# ---- disclosure control -------------------------------------------------------------------------


@pytest.mark.parametrize("partition", ["rows", "columns"])
def test_too_few_rows_are_refused_before_anything_is_opened(partition: str) -> None:
    table = Table(40, missing=False)
    strict = Disclosure("strict", minimum_rows=41)

    async def program(party: Party, data: Any) -> Any:
        made = await make(party, data, partition, strict, categories=("b", "m", "n"))
        with pytest.raises(DisclosureError, match="41 rows"):
            await made.open_sizes()
        return party.costs.openings

    for openings in run(program, table.split(partition, 3)):
        assert all(one.elements <= 1 for one in openings)


@pytest.mark.parametrize("partition", ["rows", "columns"])
def test_a_small_group_is_refused_and_its_size_not_opened(partition: str) -> None:
    table = Table(60, missing=False)
    table.group = np.array(["b"] * 40 + ["m"] * 18 + ["n"] * 2, dtype=object)

    async def program(party: Party, data: Any) -> Any:
        made = await make(party, data, partition, Disclosure("cells", minimum_cell=5))
        await made.open_sizes()
        await made.group_sizes("site")
        before = len(party.costs.openings)
        with pytest.raises(DisclosureError, match="5 rows for each category of group"):
            await made.group_sizes("group")
        return sum(one.elements for one in party.costs.openings[before:])

    assert run(program, table.split(partition, 3)) == [1, 1, 1]


@pytest.mark.parametrize("partition", ["rows", "columns"])
def test_a_column_of_0_and_1_needs_enough_of_both_in_each_group(partition: str) -> None:
    table = Table(60, missing=False)
    table.group = np.array(["b", "m", "n"] * 20, dtype=object)
    table.x = np.stack([np.arange(60) % 2, np.arange(60)], axis=1).astype(float)

    async def program(party: Party, data: Any) -> Any:
        made = await make(party, data, partition, Disclosure("cells", minimum_cell=5))
        await made.open_sizes()
        await made.check_values("x", by="group")
        return True

    assert run(program, table.split(partition, 3)) == [True] * 3
    table.x[(table.group == "b") & (np.arange(60) > 20), 0] = 0
    with pytest.raises(DisclosureError, match="each value of a column of 0 and 1"):
        run(program, table.split(partition, 3))


def test_missing_values_that_are_few_are_not_told() -> None:
    table = Table(60, missing=False)
    table.site[5] = None
    table.x[:8, 0] = NAN

    async def program(party: Party, data: Any) -> Any:
        made = await make(party, data, "rows", Disclosure("cells", minimum_cell=5))
        return (await made.open_sizes()).missing

    assert run(program, table.by_rows(3))[0] == {"x": 8, "group": 0, "site": None}


def test_labels_are_not_told_under_a_disclosure_control() -> None:
    table = Table(40)

    async def program(party: Party, data: Any) -> Any:
        return await make(party, data, "rows", Disclosure("cells", minimum_cell=5), categories=None)

    done = run_tapped(program, table.by_rows(3), parties=3)
    assert all(isinstance(outcome, DataError) for outcome in done.outcomes)
    assert "nobody declared its categories" in str(done.outcomes[0])
    announced = [json.loads(m.data) for m in done.log if "announce/labels" in m.step]
    assert len(announced) == 6
    assert all(one == {"group": None} or one == {"group": None, "site": [0, 1]} for one in announced)


# ---- what differs between parties ---------------------------------------------------------------


def differing(change: Callable[[int], dict[str, Any]], partition: str = "rows") -> Callable[..., Any]:
    async def program(party: Party, data: Any) -> Any:
        return await make(party, data, partition, **change(party.rank))

    return program


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda rank: {"bound": [64, 4096 + rank]}, "says x ="),
        (lambda rank: {"bound": None if rank else [64, 4096]}, "says x ="),
        (lambda rank: {"categories": ("b", "m", "n", "o") if rank else ("b", "m", "n")}, "says group ="),
        (lambda rank: {"categories": None if rank else ("b", "m", "n")}, "says group ="),
        (lambda rank: {"terms": {"kind": rank}}, "says kind ="),
        (lambda rank: {"disclosure": Disclosure("a", minimum_rows=3) if rank else None}, "disclosure ="),
    ],
)
def test_parties_that_mean_different_things_do_not_meet(change: Any, text: str) -> None:
    with pytest.raises(AgreementError, match=text):
        run(differing(change), Table(30, missing=False).by_rows(2))


def test_partitions_do_not_meet() -> None:
    async def program(party: Party, data: Any) -> Any:
        return await make(party, data, "rows" if party.rank else "columns")

    with pytest.raises((AgreementError, DataError)):
        run(program, Table(30, missing=False).by_rows(2))


def test_different_numbers_of_rows_and_columns_held_twice_or_by_nobody() -> None:
    table = Table(30, missing=False)
    cases: list[tuple[list[Any], str]] = [
        ([(table.x, table.group, None), (None, None, table.site[1:])], "party 0 has 30 rows and party 1 has 29"),
        ([(table.x, table.group, None), (table.x, None, table.site)], "parties 0 and 1 both give x"),
        ([(table.x, None, None), (None, None, table.site)], "no party gives group"),
        ([(None, None, None), (None, None, None)], "no party gives"),
    ]
    for parts, text in cases:
        with pytest.raises(DataError, match=text):
            run(differing(lambda rank: {}, "columns"), parts)


def test_with_rows_every_party_gives_every_column() -> None:
    table = Table(30, missing=False)
    parts = [(table.x, table.group, table.site), (None, table.group, table.site)]
    with pytest.raises(DataError, match="party 1: x is not given"):
        run(differing(lambda rank: {}), parts)


def test_columns_of_different_length_at_one_party_are_refused() -> None:
    table = Table(30, missing=False)
    with pytest.raises(DataError, match="x has 29 rows and group has 30"):
        run(differing(lambda rank: {}), [(table.x[1:], table.group, table.site)] * 2)


# ---- announcements that are not trusted ---------------------------------------------------------

HELD: dict[str, Any] = {
    "x": {"names": ["x1", "x2"], "exponents": [6, 12], "categories": [], "gaps": False},
    "group": {"names": ["group"], "exponents": [], "categories": ["b", "m", "n"], "gaps": True},
}
BAD_HELD: list[Any] = [
    [],
    None,
    "x",
    {**HELD, "other": HELD["x"]},
    {**HELD, "x": None},
    {**HELD, "x": []},
    {**HELD, "x": {**HELD["x"], "more": 1}},
    {**HELD, "x": {key: HELD["x"][key] for key in ("names", "exponents", "categories")}},
    *(
        {**HELD, "x": {**HELD["x"], "names": names}}
        for names in (None, [], ["a"], ["a", 1], ["a", "\n"], ["a", "b" * 201])
    ),
    *(
        {**HELD, "x": {**HELD["x"], "exponents": found}}
        for found in (None, [6], [6, 12, 1], [6, 1.0], [6, True], [6, 10**9], ["6", 1], [None, 1])
    ),
    *({**HELD, "x": {**HELD["x"], "categories": found}} for found in (None, [0, 1], "ab", [[1]])),
    *({**HELD, "x": {**HELD["x"], "gaps": found}} for found in (None, 0, "no")),
    *(
        {**HELD, "group": {**HELD["group"], "categories": found}}
        for found in (
            None,
            [],
            ["b"],
            ["b", "b"],
            ["b", "m", "b"],
            ["b", 1.5],
            ["b", None],
            ["b", "\x00"],
            list(range(257)),
        )
    ),
    {**HELD, "group": {**HELD["group"], "names": ["a", "b"]}},
    {**HELD, "group": {**HELD["group"], "exponents": [1]}},
]
BAD: list[Any] = [
    [],
    None,
    "x",
    {},
    {"rows": 30},
    *({"rows": rows, "held": HELD} for rows in (-1, True, 1.5, "30", 1 << 31, None)),
    *({"rows": 30, "held": held} for held in BAD_HELD),
]


def altered(step: str, sender: int, content: bytes) -> Callable[[Message], list[Message]]:
    def tamper(message: Message) -> list[Message]:
        if message.frm == sender and step in message.step:
            return [message._replace(data=content)]
        return [message]

    return tamper


@pytest.mark.parametrize("said", BAD, ids=lambda said: json.dumps(said)[-60:])
def test_a_malformed_announcement_of_columns_names_the_peer(said: Any) -> None:
    assert _heard({"rows": 30, "held": HELD}, KINDS, 1)[0] == 30
    table = Table(30, missing=False)
    parts = [(None, None, table.site), (table.x, table.group, None)]
    done = run_tapped(
        differing(lambda rank: {}, "columns"),
        parts,
        parties=2,
        tamper=altered("announce/columns", 1, json.dumps(said).encode()),
    )
    assert isinstance(done.outcomes[0], PeerError | DataError), done.outcomes[0]
    assert "party 1" in str(done.outcomes[0])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"[" * 5000,
        b'{"site": [NaN, 1]}',
        b'{"site": {"0": 1}}',
        b"{}",
        b'{"site": [""]}',
        b'{"site": [9223372036854775808]}',
        b'{"site": ["e\\u0301"]}',
        b'{"site": [true]}',
        b'{"site": [1.0]}',
    ],
)
def test_a_malformed_announcement_of_labels_is_refused(content: bytes) -> None:
    done = run_tapped(
        differing(lambda rank: {}),
        Table(30, missing=False).by_rows(2),
        parties=2,
        tamper=altered("announce/labels", 1, content),
    )
    assert isinstance(done.outcomes[0], PeerError | DataError), done.outcomes[0]


def test_a_label_beside_0_and_1_is_not_taken_under_a_disclosure_control() -> None:
    table = Table(40)

    async def program(party: Party, site: Any) -> Any:
        return await proportion(party, site, disclosure=Disclosure("cells", minimum_cell=5))

    parts = [table.site[:20], table.site[20:]]
    said = json.dumps({"values": [0, 1, 7]}).encode()
    done = run_tapped(program, parts, parties=2, tamper=altered("announce/labels", 1, said))
    assert isinstance(done.outcomes[0], DataError)
    assert "nobody declared its categories" in str(done.outcomes[0])


def test_a_peer_that_announces_too_many_labels_is_refused() -> None:
    said = json.dumps({"site": list(range(300))}).encode()
    done = run_tapped(
        differing(lambda rank: {}),
        Table(30, missing=False).by_rows(2),
        parties=2,
        tamper=altered("announce/labels", 1, said),
    )
    assert isinstance(done.outcomes[0], DataError)
    assert "2 to 256" in str(done.outcomes[0])


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_PARTS = st.fixed_dictionaries({"names": _JSON, "exponents": _JSON, "categories": _JSON, "gaps": _JSON})


@given(
    st.fixed_dictionaries(
        {
            "rows": _JSON | st.just(30),
            "held": _JSON | st.fixed_dictionaries({}, optional={"x": _JSON | _PARTS, "group": _PARTS, "z": _JSON}),
        }
    )
)
@settings(max_examples=100)
def test_whatever_a_peer_announces_is_heard_or_refused(said: dict[str, Any]) -> None:
    try:
        rows, held = _heard(said, KINDS, 1)
    except PeerError:
        return
    assert rows is None or 0 <= rows < 2**31
    for what, one in held.items():
        assert len(one.names) == len(one.exponents) or KINDS[what] is Categorical
        assert all(isinstance(name, str) for name in one.names)


# ---- variables ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, None], [1, 2, NAN]),
        ([True, False], [1, 0]),
        (np.array([1.5, NAN]), [1.5, NAN]),
        (pd.Series([1, None, 3], dtype="Int64"), [1, NAN, 3]),
        (pd.Series([1.0, None], dtype="Float64"), [1, NAN]),
        (pd.Series([True, None], dtype="boolean"), [1, NAN]),
        (pd.Series([1, 2], dtype="category"), [1, 2]),
        ([], []),
    ],
    ids=str,
)
def test_numbers_of_all_kinds(values: Any, expected: list[float]) -> None:
    found = numeric(values, rank=0, what="x")
    np.testing.assert_array_equal(np.where(found.present, found.values, NAN)[:, 0], np.array(expected, float))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (["a"], "not made of numbers|are no numbers"),
        ([1, "2"], "not made of numbers"),
        ([1, "2", None], "1 of 3 values of x are no numbers"),
        ([1 + 2j], "not made of numbers"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), "not made of numbers"),
        ([np.inf, 1.0], "1 values of x are infinite"),
        (np.zeros((2, 2, 2)), "shape"),
        (5.0, "shape"),
        ([[1], [2, 3]], "x"),
        ([300.0], "beyond the agreed bound"),
    ],
    ids=str,
)
def test_what_is_no_number_is_refused_without_being_shown(values: Any, text: str) -> None:
    with pytest.raises(DataError, match=text) as caught:
        numeric(values, rank=4, what="x", bound=100)
    assert "party 4" in str(caught.value)
    assert "300" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a", None, "b"], ("a", None, "b")),
        ([1.0, NAN, 2.0], (1, None, 2)),
        ([True, False, None], (1, 0, None)),
        (pd.Series(["u", pd.NA], dtype="string"), ("u", None)),
        (pd.Series([1, pd.NA], dtype="Int64"), (1, None)),
        (pd.Series(["u", None, "v"], dtype="category"), ("u", None, "v")),
        (np.array(["u", "v"]), ("u", "v")),
    ],
    ids=str,
)
def test_labels_of_all_kinds(values: Any, expected: tuple[Any, ...]) -> None:
    assert categorical(values, rank=0, what="group").labels == expected


@pytest.mark.parametrize(
    "values", [[1.5], [object()], ["a\n"], [""], ["x" * 101], [[1], [2]], [pd.Timestamp(0)], [1e300]]
)
def test_what_is_no_label_is_refused_without_being_shown(values: Any) -> None:
    with pytest.raises(DataError, match="party 2") as caught:
        categorical(values, rank=2, what="group")
    assert "x" * 101 not in str(caught.value)


def test_a_label_that_was_not_agreed_is_counted_and_not_shown() -> None:
    with pytest.raises(DataError, match="2 of 3 values of group are none of its 2 categories") as caught:
        categorical(["secret", "a", "hidden"], rank=0, what="group", categories=("a", "b"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"type": "text"},
        {"type": "category"},
        {"type": "category", "categories": ("a", "a")},
        {"type": "number", "lower": 2.0, "upper": 1.0},
    ],
)
def test_columns_that_contradict_themselves_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="column c"):
        Column("c", **arguments)


def test_results_turn_into_plain_values() -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True, eq=False)
    class Inner(Result):
        a: float

    @dataclass(frozen=True, eq=False)
    class Outer(Result):
        inner: Inner
        matrix: Any
        named: dict[str, Any]

    found = Outer(Inner(NAN), np.array([[1.0, NAN]]), {"n": np.int64(3), "x": (np.float64(2.0), np.inf)}).to_dict()
    assert found == {"inner": {"a": None}, "matrix": [[1.0, None]], "named": {"n": 3, "x": [2.0, None]}}
    json.dumps(found, allow_nan=False)


def test_what_numpy_masks_is_missing() -> None:
    masked = np.ma.masked_array([1.0, 999.0, 3.0], mask=[False, True, False])
    found = numeric(masked, rank=0, what="x")
    assert found.present[:, 0].tolist() == [True, False, True]
    assert found.values[:, 0].tolist() == [1, 0, 3]
    labels = np.ma.masked_array([0, 1, 0], mask=[False, True, False])
    assert categorical(labels, rank=0, what="g").labels == (0, None, 0)


def test_one_letter_written_in_two_ways_is_one_label() -> None:
    found = categorical(["\u00e1", "a\u0301", "b"], rank=0, what="g")
    assert found.own == ("b", "\u00e1")


@pytest.mark.parametrize("values", [[10**400], [1, 10**400]])
def test_numbers_beyond_floats_are_refused(values: list[int]) -> None:
    with pytest.raises(DataError, match="party 0"):
        numeric(values, rank=0, what="x")
    with pytest.raises(DataError, match="party 0"):
        categorical(values, rank=0, what="x")


def rare_ones(extra: bool) -> Any:
    """Check a column of 40 rows with three 1s; with the extra row, a 3 where another variable is missing."""
    x = np.zeros(40 + extra)
    x[:3] = 1
    group = np.arange(40 + extra) % 2 * 1.0
    if extra:
        x[-1], group[-1] = 3, NAN

    async def program(party: Party, data: Any) -> None:
        release = Release.of(party, None, Disclosure("few", minimum_cell=5))
        made = await pool(
            party.at("pool"),
            "test",
            {
                "x": numeric(x, rank=0, what="x") if party.rank == 0 else None,
                "group": categorical(group, rank=1, what="group") if party.rank == 1 else None,
            },
            kinds={"x": Numeric, "group": Categorical},
            partition="columns",
            release=release,
        )
        await made.open_sizes()
        await made.check_values("x")

    return run(program, [0, 1], "dealer")


@pytest.mark.parametrize("extra", [False, True])
def test_rows_that_do_not_count_do_not_hide_a_rare_value(extra: bool) -> None:
    with pytest.raises(DisclosureError, match="at least 5 rows for each value"):
        rare_ones(extra)


def test_with_columns_nobody_pretends_to_withhold_what_follows_from_public_numbers() -> None:
    x = np.arange(30.0)
    x[:2] = NAN

    async def program(party: Party, data: Any) -> Any:
        release = Release.of(party, None, Disclosure("few", minimum_cell=5))
        ours = numeric(x, rank=0, what="x") if party.rank == 0 else None
        kinds = {"x": Numeric}
        made = await pool(party.at("pool"), "test", {"x": ours}, kinds=kinds, partition="columns", release=release)
        return await made.open_sizes()

    (sizes, _) = run(program, [0, 1], "dealer")
    assert (sizes.n, sizes.missing) == (28, {"x": 2})


def test_millions_of_labels_are_read_as_arrays() -> None:
    values = np.arange(3_000_000) % 3
    for one in (values, values.astype(float), pd.Series(values), pd.Series(pd.Categorical(values))):
        found = categorical(one, rank=0, what="g", categories=(0, 1, 2))
        assert (found.codes == values).all()
        assert found.kept(values == 1).own == (1,)
    texts = np.array(["a", "b", "a"])
    assert categorical(texts, rank=0, what="g").labels == ("a", "b", "a")
    assert categorical([1, "1", None], rank=0, what="g").labels == (1, "1", None)
    assert categorical([True, 1.0, 0], rank=0, what="g").labels == (1, 1, 0)
    with pytest.raises(DataError, match="no category"):
        categorical(np.array([1.5, 2.0]), rank=0, what="g")
