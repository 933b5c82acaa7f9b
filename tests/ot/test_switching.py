"""Share translation: right, exactly private in toy groups, and as expensive as it says."""

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest

from mpc import F61, F127, GF, Field, Party, PeerError, open_
from mpc.field import FieldArray
from mpc.indices import R32
from mpc.ot import switching
from mpc.ot.networks import switch_count
from mpc.ot.pads import Numbers
from mpc.ot.switching import as_rows, composed, from_rows, permuted, translate, translation_cost
from mpc.preprocessing.answers import Local
from mpc.preprocessing.carriages import Carriage, DealtMasks, carry_by_parties, dealt_correction
from mpc.preprocessing.permutations import Hop, Move, Permutation, Place
from mpc.prg import Prg
from mpc.shuffling import shuffle
from mpc.words import W64, pack_bits, unpack_bits
from tests.mpc.support import Run, run

F3 = GF(3)
FIELDS = [F61, F127, R32, F3, W64]

# ---- transfers in the clear: somebody whom all trust does them ---------------------------------------------------

Draw = Callable[[int, Field, tuple[int, ...]], FieldArray]  # rank of the offerer, field, shape


def uniform(rank: int, field: Field, shape: tuple[int, ...]) -> FieldArray:
    return Prg(b"%32d" % next(_SEEDS)).stream("pads").elements(field, shape)


_SEEDS = iter(range(1 << 60))


@dataclass
class Slot:
    """One call of ``choose`` and one of ``pads``, which belong together."""

    choices: "asyncio.Future[Any]"
    corrected: "asyncio.Future[Any]"


@dataclass
class Trusted:
    """What the engines of all parties have in common, and what they note."""

    draw: Draw = uniform
    slots: dict[tuple[str, int, int], Slot] = field(default_factory=dict)
    transfers: int = 0
    elements: int = 0
    most_rows: int = 0
    clocks: dict[int, int] = field(default_factory=lambda: defaultdict(int))  # messages that came one after the other
    seen: dict[tuple[int, int], list[FieldArray]] = field(default_factory=lambda: defaultdict(list))

    def slot(self, path: str, chooser: int, offerer: int) -> Slot:
        loop = asyncio.get_running_loop()
        return self.slots.setdefault((path, chooser, offerer), Slot(loop.create_future(), loop.create_future()))

    def wait(self, rank: int, until: int) -> None:
        self.clocks[rank] = max(self.clocks[rank], until)


@dataclass
class Seat:
    """The engine of one party."""

    trusted: Trusted

    async def choose(self, scope: Party, other: int, kind: Any, choices: np.ndarray, width: int) -> "Finishing":
        assert isinstance(kind, Numbers)
        assert kind.transfers == 1
        assert choices.dtype == np.uint8
        assert choices.shape[1:] == (1,)
        slot = self.trusted.slot(scope.path, scope.rank, other)
        arrives = self.trusted.clocks[scope.rank] + 1
        slot.choices.set_result((kind.field, choices, width, arrives))  # raises where a scope is used twice
        self.trusted.transfers += len(choices)
        self.trusted.most_rows = max(self.trusted.most_rows, len(choices))
        return Finishing(self.trusted, slot, (scope.rank, other))

    async def pads(self, scope: Party, other: int, kind: Any, rows: int, width: int) -> "Offering":
        slot = self.trusted.slot(scope.path, other, scope.rank)
        field, choices, chosen_width, arrived = await slot.choices
        assert (field, len(choices), chosen_width) == (kind.field, rows, width)
        self.trusted.wait(scope.rank, arrived)
        return Offering(self.trusted, slot, scope.rank, self.trusted.draw(scope.rank, field, (rows, width)))


@dataclass
class Finishing:
    trusted: Trusted
    slot: Slot
    who: tuple[int, int]

    async def finish(self) -> FieldArray:
        summands: FieldArray
        summands, arrived = await self.slot.corrected
        self.trusted.wait(self.who[0], arrived)
        self.trusted.seen[self.who].append(summands.copy())
        return summands


@dataclass
class Offering:
    trusted: Trusted
    slot: Slot
    rank: int
    summands: FieldArray

    async def correct(self, values: FieldArray) -> None:
        field, choices, _, _ = self.slot.choices.result()
        assert values.shape == self.summands.shape
        assert field.is_canonical(values)
        self.trusted.elements += values.size
        chosen = field.zeros(values.shape)
        chosen[choices[:, 0] == 1] = values[choices[:, 0] == 1]
        self.slot.corrected.set_result((field.sub(chosen, self.summands), self.trusted.clocks[self.rank] + 1))


def total(field: Field, parts: Sequence[FieldArray]) -> FieldArray:
    first, *others = parts
    for part in others:
        first = field.add(first, part)
    return first


def same(field: Field, x: FieldArray, y: FieldArray) -> bool:
    return x.shape == y.shape and bool(field.equal(x, y).all())


def streams(rank: int) -> Any:
    return Prg(b"%32d" % rank).stream("masks")


# ---- rows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5,), (5, 2), (5, 2, 3), (5, 0), (1,)])
@pytest.mark.parametrize("field", [F61, F127, R32, F3], ids=repr)
def test_rows_there_and_back(field: Field, shape: tuple[int, ...]) -> None:
    values = streams(0).elements(field, shape)
    rows = as_rows(field, values, shape[0])
    assert rows.shape == (shape[0], math.prod(shape[1:]))
    assert not np.shares_memory(rows, values)
    assert same(field, from_rows(field, rows, shape), values)


@pytest.mark.parametrize(("planes", "count"), [((1,), 5), ((3,), 64), ((2, 33), 65), ((64,), 130), ((), 7), ((0,), 7)])
def test_rows_of_packed_words_are_their_bits(planes: tuple[int, ...], count: int) -> None:
    shape = (*planes, -(-count // 64))
    values = streams(0).elements(W64, shape)
    rows = as_rows(W64, values, count)
    number = math.prod(planes)
    assert rows.shape == (count, -(-number // 64))
    np.testing.assert_array_equal(unpack_bits(rows, number).T, unpack_bits(values, count).reshape(number, count))
    # What stands beyond the rows is gone, as it is wherever packed words are permuted.
    np.testing.assert_array_equal(from_rows(W64, rows, shape), pack_bits(unpack_bits(values, count)))


def test_steps_of_a_hop_make_one_permutation(rng: np.random.Generator) -> None:
    first, second = rng.permutation(9), rng.permutation(9)
    hop = Hop(0, [(True, first), (False, second)])
    values = streams(0).elements(F127, (9, 2))
    assert same(F127, hop.rearrange(F127, values, 9), values[composed(hop, 9)])


# ---- one permutation ----------------------------------------------------------------------------------------------


def permute_shared(
    field: Field, summands: list[FieldArray], knower: int, permutation: Any, trusted: Trusted
) -> list[FieldArray]:
    async def program(party: Party, _: Any) -> FieldArray:
        known = np.array(permutation) if party.rank == knower else None
        rows = summands[party.rank].copy()
        return await permuted(party.at("permute"), Seat(trusted), knower, known, field, rows)

    return list(run(program, parties=len(summands)).results)


@pytest.mark.parametrize("parties", [2, 3, 4])
@pytest.mark.parametrize("field", FIELDS, ids=repr)
def test_summands_add_up_to_the_permuted_rows(field: Field, parties: int, rng: np.random.Generator) -> None:
    for rows, width in [(1, 2), (2, 1), (3, 1), (5, 3), (17, 2), (64, 1)]:
        permutation = rng.permutation(rows)
        summands = [streams(rank).elements(field, (rows, width)) for rank in range(parties)]
        knower = rows % parties
        parts = permute_shared(field, summands, knower, permutation, Trusted())
        assert same(field, total(field, parts), total(field, summands)[permutation])


@pytest.mark.parametrize("knower", [0, 1])
def test_every_permutation_of_four_rows(knower: int) -> None:
    summands = [streams(rank).elements(F61, (4, 1)) for rank in range(2)]
    for permutation in permutations(range(4)):
        parts = permute_shared(F61, summands, knower, permutation, Trusted())
        assert same(F61, total(F61, parts), total(F61, summands)[list(permutation)])


def test_networks_go_in_pieces_that_fit(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    permutation = rng.permutation(33)
    summands = [streams(rank).elements(F127, (33, 2)) for rank in range(3)]
    whole = permute_shared(F127, summands, 1, permutation, Trusted())
    for most in (1, 2, 7, 50, 100_000):
        monkeypatch.setattr(switching, "_PIECE_BYTES", most * F127.element_bytes)
        trusted = Trusted()
        parts = permute_shared(F127, summands, 1, permutation, trusted)
        assert same(F127, total(F127, parts), total(F127, whole))
        assert trusted.most_rows <= max(1, most // 2)


def test_nobody_permutes_by_what_it_does_not_know() -> None:
    async def program(party: Party, _: Any) -> None:
        if party.rank == 0:
            await permuted(party.at("permute"), Seat(Trusted()), 0, None, F61, F61.zeros((2, 1)))

    with pytest.raises(RuntimeError, match="do not know"):
        run(program, parties=2).results  # noqa: B018 - raises what went wrong


def test_a_peers_fault_is_told_as_it_is() -> None:
    class Late(Seat):
        async def choose(self, *args: Any) -> Any:
            return self

        async def finish(self) -> Any:
            raise PeerError("party 1 is late", rank=1, step="corrections")

    async def program(party: Party, _: Any) -> None:
        if party.rank == 0:
            await permuted(party.at("permute"), Late(Trusted()), 0, np.arange(2), F61, F61.zeros((2, 1)))

    outcome = run(program, parties=3).outcomes[0]
    assert isinstance(outcome, PeerError)
    assert outcome.rank == 1


# ---- chains -----------------------------------------------------------------------------------------------------


def permutations_of(parties: int, rows: int, rng: np.random.Generator) -> list[Permutation]:
    """One permutation with all its factors, and as each party sees it."""
    factors = [rng.permutation(rows) for _ in range(parties)]
    place = Place("", 0, rows)
    return [
        Permutation(place, [factor if rank in (k, parties) else None for k, factor in enumerate(factors)])
        for rank in range(parties + 1)
    ]


def moves_of(kind: str, parties: int, rows: int, rng: np.random.Generator) -> list[Move]:
    """The move as each party sees it, and last with everything that is known."""
    undone, applied = permutations_of(parties, rows, rng), permutations_of(parties, rows, rng)
    return [
        Move(undo=undo if "undo" in kind else None, apply=apply if "apply" in kind else None)
        for undo, apply in zip(undone, applied, strict=True)
    ]


def shape_of(field: Field, rows: int, width: int) -> tuple[int, ...]:
    return (width, -(-rows // 64)) if field is W64 else (rows, width) if width > 1 else (rows,)


async def material(party: Party, move: Move, field: Field, shape: tuple[int, ...], trusted: Trusted, draw: Draw) -> Any:
    """What carrying an array takes: masks that a party draws alone, and what corrects them."""
    hops = move.hops()
    before = None if party.rank == hops[0].factor else draw(party.rank, field, shape)
    between = [draw(party.rank, field, shape) if party.rank == hop.factor else None for hop in hops[:-1]]
    after = await translate(party.at("translate"), Seat(trusted), hops, move.route.rows, field, shape, before, between)
    return DealtMasks(before, between, Local(after))


def carried(
    moves: list[Move],
    field: Field,
    shape: tuple[int, ...],
    summands: list[FieldArray],
    trusted: Trusted,
    draw: Draw = uniform,
) -> tuple[Run, list[DealtMasks]]:
    async def program(party: Party, _: Any) -> Any:
        move, ours = moves[party.rank], summands[party.rank]
        made = await material(party, move, field, shape, trusted, draw)
        (out,) = await carry_by_parties(party.at("carry"), [(Carriage(move, field, shape, made), ours)])
        return made, out, await made.after

    done = run(program, parties=len(summands))
    return done, [made for made, _, _ in done.results]


@pytest.mark.parametrize("kind", ["apply", "undo", "undo and apply"])
@pytest.mark.parametrize("parties", [2, 3, 4])
@pytest.mark.parametrize("field", FIELDS, ids=repr)
def test_arrays_are_carried_as_with_a_dealer(field: Field, parties: int, kind: str, rng: np.random.Generator) -> None:
    for rows in (1, 2, 3, 5, 17):
        width = 1 + rows % 3
        shape = shape_of(field, rows, width)
        moves = moves_of(kind, parties, rows, rng)
        summands = [streams(10 + rank).elements(field, shape) for rank in range(parties)]
        trusted = Trusted()
        done, made = carried(moves, field, shape, summands, trusted)
        hops = moves[-1].hops()

        # 1. The parts add up to what a dealer would send, had he drawn no fresh parts.
        before = [masks.before for masks in made if masks.before is not None]
        between = [made[hop.factor].between[stop] for stop, hop in enumerate(hops[:-1])]
        assert len(before) == parties - 1
        assert [sum(masks.between[stop] is not None for masks in made) for stop in range(len(hops) - 1)] == [1] * (
            len(hops) - 1
        )
        correction = dealt_correction(field, hops, rows, before, between, [field.zeros(shape)])  # type: ignore[arg-type]
        if field is W64:  # nobody looks at bits beyond the rows
            correction = pack_bits(unpack_bits(correction, rows))
        assert same(field, total(field, [after for _, _, after in done.results]), correction)

        # 2. So the array comes out moved.
        expected = total(field, summands)
        for hop in hops:
            expected = hop.rearrange(field, expected, rows)
        assert same(field, total(field, [out for _, out, _ in done.results]), expected)

        # 3. At the stated cost.
        words = 1 if field is W64 else width
        cost = translation_cost(parties, len(hops), rows, words)
        assert (trusted.transfers, trusted.elements) == cost[:2]
        assert len(hops) == {"apply": parties, "undo": parties, "undo and apply": 2 * parties - 1}[kind]
        assert cost.transfers == len(hops) * (parties - 1) * switch_count(rows)


@pytest.mark.parametrize("field", [F127, W64], ids=repr)
def test_a_thousand_rows(field: Field, rng: np.random.Generator) -> None:
    shape = shape_of(field, 1000, 70 if field is W64 else 1)
    moves = moves_of("undo and apply", 3, 1000, rng)
    summands = [streams(10 + rank).elements(field, shape) for rank in range(3)]
    done, _ = carried(moves, field, shape, summands, Trusted())
    expected = total(field, summands)
    for hop in moves[-1].hops():
        expected = hop.rearrange(field, expected, 1000)
    assert same(field, total(field, [out for _, out, _ in done.results]), expected)


def test_arrays_without_entries_need_nothing(rng: np.random.Generator) -> None:
    moves = moves_of("apply", 2, 4, rng)
    trusted = Trusted()
    done, _ = carried(moves, F61, (4, 0), [F61.zeros((4, 0))] * 2, trusted)
    assert [out.shape for _, out, _ in done.results] == [(4, 0)] * 2
    assert trusted.transfers == 0


@pytest.mark.parametrize("parties", [2, 3, 4])
@pytest.mark.parametrize("kind", ["apply", "undo", "undo and apply"])
def test_delays_are_as_many_as_stated(parties: int, kind: str, rng: np.random.Generator) -> None:
    moves = moves_of(kind, parties, 5, rng)
    trusted = Trusted()
    carried(moves, F61, (5,), [F61.zeros(5)] * parties, trusted)
    cost = translation_cost(parties, len(moves[0].hops()), 5, 1)
    assert max(trusted.clocks.values()) == cost.delays == len(moves[0].hops()) + 1


def test_costs_in_numbers() -> None:
    assert translation_cost(3, 5, 1, 1) == (0, 0, 0)
    assert translation_cost(2, 1, 100_000, 1) == (1_568_929, 1_568_929, 2)
    assert translation_cost(3, 5, 4, 7) == (50, 350, 6)


@pytest.mark.parametrize("parties", [2, 3])
def test_real_transfers_do_the_same_at_the_same_cost(parties: int) -> None:
    async def program(party: Party, _: Any) -> Any:
        x = await party.share(np.arange(50) if party.rank == 0 else None, bound=50, owner=0, shape=(50,))
        return await open_(party, *await shuffle(party, [x]))

    done = run(program, parties=parties, preprocessing="ot")
    assert sorted(done.results[0]) == list(range(50))
    cost = translation_cost(parties, parties, 50, 1)
    corrections = [m for m in done.sent if "/corrections." in m.step]
    assert sum(len(m.data) for m in corrections) == cost.elements * F127.element_bytes
    choices = [m for m in done.sent if "/choices." in m.step]
    each = -(-switch_count(50) // 8)  # and where in the stock they are taken from
    assert [len(m.data) for m in choices] == [8 + each] * (parties * (parties - 1))


# ---- what is seen -------------------------------------------------------------------------------------------------


@dataclass
class Enumerated:
    """Draws that differ from lane to lane, so that all lanes together try every value of every one of them.

    Parameters
    ----------
    honest : int
        Rank of the party whose draws are tried; all others draw the same in all lanes.
    lanes : int
        A power of three.
    """

    honest: int
    lanes: int
    used: int = 0

    def __call__(self, rank: int, field: Field, shape: tuple[int, ...]) -> FieldArray:
        *rows, lanes = shape
        assert lanes == self.lanes
        number = math.prod(rows)
        if rank != self.honest:
            return np.broadcast_to(np.arange(number, dtype=np.uint64)[:, None] % 3, (number, lanes)).reshape(shape)
        digits = [np.arange(lanes) // 3 ** (self.used + k) % 3 for k in range(number)]
        self.used += number
        assert 3**self.used <= lanes, "more draws than lanes can try"
        return np.stack(digits).astype(np.uint64).reshape(shape)


def is_uniform(view: np.ndarray) -> bool:
    """Whether each value that a view can have occurs in one lane as in another, shape ``(digits, lanes)``."""
    digits, lanes = view.shape
    codes = (view.astype(np.int64) * 3 ** np.arange(digits)[:, None]).sum(axis=0)
    counts = np.bincount(codes, minlength=3**digits)
    return bool((counts == lanes // 3**digits).all()) and lanes >= 3**digits


@pytest.mark.parametrize("rows", [2, 3, 4])
def test_what_the_knower_sees_is_uniform(rows: int) -> None:
    """In GF(3) all pads are tried: whatever is shared and however it is permuted, the knower sees the same."""
    digits = switch_count(rows)
    orders = list(permutations(range(rows)))
    contents = list(product(range(3), repeat=rows))[:: 1 if rows < 4 else 7]
    for k, content in enumerate(contents):
        summand = np.repeat(np.array(content, np.uint64)[:, None], 3**digits, axis=1)
        for order in orders if rows < 4 else orders[k % 5 :: 5]:
            draw = Enumerated(1, 3**digits)
            trusted = Trusted(draw)
            parts = permute_shared(F3, [F3.zeros(summand.shape), summand], 0, order, trusted)
            assert draw.used == digits
            (seen,) = trusted.seen[0, 1]
            assert is_uniform(seen)
            assert same(F3, total(F3, parts), summand[list(order)])


@pytest.mark.parametrize("bit", [0, 1])
def test_in_the_smallest_group_too(bit: int) -> None:
    """Bits, two rows: the pad of the one switch hides the summand."""
    for content in product(range(2), repeat=2):
        seen = []
        for pad in range(2):

            def draw(rank: int, field: Field, shape: tuple[int, ...], pad: int = pad) -> FieldArray:
                return np.full(shape, pad, np.uint64)

            trusted = Trusted(draw)
            summand = np.array(content, np.uint64).reshape(2, 1)
            permute_shared(W64, [W64.zeros((2, 1)), summand], 0, [bit, 1 - bit], trusted)
            seen.append(int(trusted.seen[0, 1][0][0, 0]))
        assert sorted(seen) == [0, 1]


def view_of_others(honest: int, parties: int, content: tuple[int, ...], moves: list[Move], lanes: int) -> np.ndarray:
    """What all others see of one honest party in a whole move: what transfers give them, and what it sends."""
    draw = Enumerated(honest, lanes)
    trusted = Trusted(draw)
    summand = np.repeat(np.array(content, np.uint64)[:, None], lanes, axis=1)
    summands = [summand if rank == honest else F3.zeros(summand.shape) for rank in range(parties)]
    done, _ = carried(moves, F3, summand.shape, summands, trusted, draw)
    assert 3**draw.used == lanes
    messages: dict[str, bytes] = defaultdict(bytes)
    for m in done.sent:
        if m.frm == honest and "/pass#" in m.step:
            messages[m.step.rpartition(".")[0]] += m.data  # long ones come in chunks
    sent = [np.frombuffer(data, np.uint8) for data in messages.values()]
    seen = [values for (_, offerer), arrays in trusted.seen.items() if offerer == honest for values in arrays]
    return np.concatenate([values.reshape(-1, lanes) for values in (*sent, *seen)])


@pytest.mark.parametrize(
    ("honest", "parties", "kind", "rows", "draws"),
    [
        (0, 2, "apply", 2, 3),
        (1, 2, "apply", 2, 3),
        (0, 2, "apply", 3, 6),
        (1, 2, "apply", 3, 6),
        (1, 2, "undo", 3, 6),
        (0, 2, "undo and apply", 2, 6),
        (1, 2, "undo and apply", 2, 3),
        (0, 3, "apply", 2, 4),
        (1, 3, "apply", 2, 6),
        (2, 3, "apply", 2, 4),
        (1, 3, "undo and apply", 2, 9),
    ],
)
def test_a_whole_move_shows_nothing_of_an_honest_party(
    honest: int, parties: int, kind: str, rows: int, draws: int
) -> None:
    """With all masks and pads of one party tried out, all that the others see of it is uniform, whatever it holds."""
    for content in [(0,) * rows, (1,) * rows, tuple(range(rows))]:
        for seed in range(3):
            moves = moves_of(kind, parties, rows, np.random.default_rng(seed))
            view = view_of_others(honest, parties, content, moves, 3**draws)
            assert len(view) == draws
            assert is_uniform(view)


def test_the_check_of_views_finds_what_is_not_uniform() -> None:
    lanes = np.arange(9)
    assert is_uniform(np.stack([lanes // 3, lanes % 3]))
    assert not is_uniform(np.stack([lanes // 3, lanes // 3]))
    assert not is_uniform(np.stack([lanes // 3, lanes % 3, lanes % 3]))
