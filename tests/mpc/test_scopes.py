"""Names: no two steps share a label, and no byte of a stream is drawn for two purposes."""

import asyncio
import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from mpc import (
    F61,
    F127,
    Field,
    Party,
    is_negative,
    less_than,
    mask,
    matmul,
    multiply,
    open_,
    prepare,
    sigmoid,
    truncate,
)
from mpc.prg import Prg
from mpc.session import MakeSource
from tests.mpc.support import SMALL_WORLDS, Run, run, shares_of

# ---- labels -----------------------------------------------------------------------------------------------------


def a_party() -> Party:
    transport: Any = None
    return Party(0, 2, transport, transport, transport)


@pytest.mark.parametrize("label", ["", "a/b", "a.2", "a#1", "a|b", "x" * 61, "ä", "a\n", "a.b", "prepared/x"])
def test_labels_that_could_spell_another_scope(label: str) -> None:
    with pytest.raises(ValueError, match="label"):
        a_party().at(label)


def test_every_scope_has_a_path_of_its_own() -> None:
    labels = ["a", "a", "b", "a2", "a-2", "a_2", "a 2", "compare", "share", "prepared", "a", "2", "x" * 60]
    paths = []
    for first in [party := a_party()] + [party.at(label) for label in labels]:
        paths.append(first.path)
        paths += [first.at(label).path for label in labels if len(first.path) < 60]
        paths += [first.rehearsal().path]
    assert len(set(paths)) == len(paths)


def test_scopes_do_not_nest_for_ever() -> None:
    """A step label, scope included, fits the 200 bytes of a frame; what does not is refused before it is used."""
    party = a_party()
    with pytest.raises(ValueError, match="deep"):  # noqa: PT012
        for _ in range(10):
            party = party.at("x" * 50)
    assert len(party.next_step("carry save")) < 190


def test_steps_are_numbered() -> None:
    party = a_party()
    steps = [party.next_step(name) for name in ("open", "open", "multiply")] + [party.at("open").next_step("1")]
    assert len(set(steps)) == 4


def test_repr_tells_where_we_are() -> None:
    assert repr(a_party()) == "Party(0 of 2, at 'the top')"
    assert repr(a_party().at("fit")) == "Party(0 of 2, at 'fit')"


# ---- streams ----------------------------------------------------------------------------------------------------


@dataclass
class Ledger:
    """All draws of a run: by reader (a rank), seed and label the positions, and what was drawn there."""

    draws: dict[tuple[int, str, str], list[tuple[int, int, Any]]] = field(default_factory=lambda: defaultdict(list))

    def sources(self, rank: int) -> MakeSource:
        def make(name: str, seed: bytes) -> Any:
            known = f"dealer {rank}" if name == "dealer" else name
            return _Noted(self, rank, known, Prg(hashlib.blake2b(known.encode(), digest_size=32).digest()))

        return make


@dataclass
class _Noted:
    ledger: Ledger
    rank: int
    name: str
    prg: Prg

    def stream(self, label: str, position: int = 0) -> Any:
        return _NotedStream(self, label, self.prg.stream(label, position))


@dataclass
class _NotedStream:
    source: _Noted
    label: str
    inner: Any

    @property
    def position(self) -> int:
        return int(self.inner.position)

    def skip(self, count: int) -> None:
        self.inner.skip(count)

    def elements(self, field: Field, shape: tuple[int, ...]) -> Any:
        return self._noted(("elements", field.name, shape), self.inner.elements, field, shape)

    def bounded(self, field: Field, bits: int, shape: tuple[int, ...]) -> Any:
        return self._noted(("bounded", field.name, bits, shape), self.inner.bounded, field, bits, shape)

    def _noted(self, what: Any, draw: Any, *arguments: Any) -> Any:
        start = self.inner.position
        values = draw(*arguments)
        key = (self.source.rank, self.source.name, self.label)
        self.source.ledger.draws[key].append((start, self.inner.position, what))
        return values


async def everything(party: Party, _: Any) -> Any:
    """A program with all that the toolkit has, side by side, one after the other, prepared and not."""
    x, y = await shares_of(party, [np.array([1.5, -2.0, 0.25]), np.array([3, 0, -1])], 4)
    every = await party.share(np.array([1, 2, 3]), bound=4, field=F61)

    async def work(scope: Party) -> Any:
        kept = await mask(scope, x)
        z = await truncate(scope, await multiply(scope, kept, x))
        again = await matmul(scope, z.reshape(1, 3), kept.reshape(3, 1))
        small = await multiply(scope, every[0], every[1])
        return await open_(
            scope,
            z,
            again,
            small,
            await sigmoid(scope, z.bounded_by(16)),
            await is_negative(scope, x),
            await less_than(scope, y, kept),
            await multiply(scope, kept, kept),
        )

    await prepare(party, work)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work(party.at("side"))) for _ in range(2)]
    results = [await work(party), *(task.result() for task in tasks), await work(party)]
    await prepare(party, multiply, x, x)
    await prepare(party, multiply, x, x)
    await open_(party, await multiply(party, x, x), await multiply(party, x, x), to=[0])
    return results


WORLDS = [*SMALL_WORLDS, (4, "prss"), (5, "prss")]


@pytest.fixture(scope="module", params=WORLDS, ids=[f"{n}-{name}" for n, name in WORLDS])
def noted(request: pytest.FixtureRequest) -> tuple[Ledger, Run]:
    parties, preprocessing = request.param
    ledger = Ledger()
    done = run(everything, parties=parties, preprocessing=preprocessing, make_source=ledger.sources)
    return ledger, done


def test_the_program_is_right(noted: tuple[Ledger, Run]) -> None:
    x = np.array([1.5, -2.0, 0.25])
    for results in noted[1].results:
        for z, again, small, p, negative, less, square in results:
            np.testing.assert_allclose(z, x * x, atol=1e-6)
            np.testing.assert_allclose(again, [[(x**3).sum()]], atol=1e-5)
            np.testing.assert_array_equal(small, [1, 4, 9])
            np.testing.assert_allclose(p, 1 / (1 + np.exp(-x * x)), atol=2e-4)
            np.testing.assert_array_equal(negative, x < 0)
            np.testing.assert_array_equal(less, [0, 0, 1])
            np.testing.assert_allclose(square, x * x)


def test_no_party_draws_a_byte_twice(noted: tuple[Ledger, Run]) -> None:
    """Masks, pads and zero-sharings are used for one thing; only a dealer reads masks again."""
    ledger, done = noted
    readers = 0
    for (rank, name, label), draws in ledger.draws.items():
        if rank == len(done.parties) and label.startswith("mask|"):
            continue
        readers += 1
        draws = sorted(d for d in draws if d[0] != d[1])
        for (_, end, first), (start, _, second) in pairwise(draws):
            assert end <= start, f"party {rank} draws {first} and {second} from one place of {name}, {label}"
    assert readers > 10


def test_all_who_know_a_seed_draw_the_same_from_it(noted: tuple[Ledger, Run]) -> None:
    """In the same places, of the same kind; the dealer and the last party may leave some out."""
    ledger, _ = noted
    places: dict[tuple[str, str, int], set[Any]] = defaultdict(set)
    for (_, name, label), draws in ledger.draws.items():
        for start, end, what in draws:
            if start != end:
                places[name, label, start].add((end, what))
    assert all(len(kinds) == 1 for kinds in places.values())
    complete: dict[tuple[str, str], dict[int, set[int]]] = defaultdict(dict)
    for (rank, name, label), draws in ledger.draws.items():
        complete[name, label][rank] = {start for start, end, _ in draws if start != end}
    for (name, label), by_rank in complete.items():
        if name.startswith(("pair", "set")):
            assert len({frozenset(starts) for starts in by_rank.values()}) == 1, (name, label)
            members = {int(r) for r in name.split()[1].split("-")}
            assert set(by_rank) == members, (name, label)


def test_no_step_is_sent_twice(noted: tuple[Ledger, Run]) -> None:
    slots = [(m.frm, m.to, m.step) for m in noted[1].log]
    assert len(set(slots)) == len(slots)
    assert all(m.step.isascii() and len(m.step) <= 200 for m in noted[1].log)


def test_no_message_is_sent_twice(noted: tuple[Ledger, Run]) -> None:
    """No two messages of elements are alike, so no opening shows the difference of two values."""
    done = noted[1]
    seen = [
        (m.frm, m.data)
        for m in done.sent
        if len(m.data) >= 24 and "header" not in m.step and m.to == (m.frm + 1) % len(done.parties)
    ]
    assert len(set(seen)) == len(seen)


def test_every_session_has_seeds_of_its_own() -> None:
    async def program(party: Party, _: Any) -> Any:
        return party.zero_share(F127, (2,)).tobytes(), party.stream("dealer", "mask").elements(F127, (2,)).tobytes()

    first, second = run(program).results, run(program).results
    assert not {a for pair in first for a in pair} & {b for pair in second for b in pair}


def test_pair_seeds_take_both_halves() -> None:
    """One honest party of a pair suffices: whatever the other one sends, the seed changes with ours."""
    seeds: list[dict[str, bytes]] = []

    def sources(rank: int) -> MakeSource:
        found: dict[str, bytes] = {}
        seeds.append(found)

        def make(name: str, seed: bytes) -> Prg:
            found[name] = seed
            return Prg(seed)

        return make

    async def program(party: Party, _: Any) -> None:
        pass

    def tamper(message: Any) -> Any:
        if message.step == "join/hello":
            return [message._replace(data=bytes(32) + message.data[32:])] if message.frm == 0 else [message]
        return [message]

    for _ in range(2):
        run(program, parties=2, make_source=sources, tamper=tamper)
    by_pair = [found["pair 0-1"] for found in seeds if "pair 0-1" in found]
    assert (
        len(set(by_pair)) == len(by_pair) == 4
    )  # party 0 used its real half, 1 the zeros: they differ, and all runs do


def test_dealt_seeds_are_known_to_one_party_and_the_dealer() -> None:
    seeds: dict[int, dict[str, bytes]] = defaultdict(dict)

    def sources(rank: int) -> MakeSource:
        def make(name: str, seed: bytes) -> Prg:
            seeds[rank][name] = seed
            return Prg(seed)

        return make

    async def program(party: Party, _: Any) -> None:
        pass

    run(program, make_source=sources).results  # noqa: B018
    assert set(seeds[3]) == {"dealer 0", "dealer 1", "dealer 2"}
    assert all(seeds[rank]["dealer"] == seeds[3][f"dealer {rank}"] for rank in range(3))
    assert len({*seeds[3].values(), seeds[0]["pair 0-1"], seeds[1]["pair 1-2"], seeds[2]["pair 0-2"]}) == 6


@pytest.mark.parametrize("parties", [3, 4, 5, 6, 7])
def test_prss_seeds_are_known_to_their_sets_only(parties: int) -> None:
    seeds: dict[int, dict[str, bytes]] = defaultdict(dict)

    def sources(rank: int) -> MakeSource:
        def make(name: str, seed: bytes) -> Prg:
            seeds[rank][name] = seed
            return Prg(seed)

        return make

    async def program(party: Party, _: Any) -> None:
        pass

    run(program, parties=parties, preprocessing="prss", make_source=sources).results  # noqa: B018
    holders: dict[str, set[int]] = defaultdict(set)
    values: dict[str, set[bytes]] = defaultdict(set)
    for rank, held in seeds.items():
        for name, seed in held.items():
            holders[name].add(rank)
            values[name].add(seed)
    assert all(holders[name] == {int(r) for r in name.split()[1].split("-")} for name in holders)
    assert all(len(same) == 1 for same in values.values())
    assert len({seed for same in values.values() for seed in same}) == len(values)
    threshold = (parties - 1) // 2
    assert {len(members) for name, members in holders.items() if name.startswith("set")} == {parties - threshold}
