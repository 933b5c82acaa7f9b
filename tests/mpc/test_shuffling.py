"""Shuffling: the product of the factors, nothing else; and nobody learns anything of data or order."""

import math
from collections import Counter
from itertools import combinations, pairwise, permutations
from typing import Any

import numpy as np
import pytest

from mpc import F61, F127, GF, Field, Party, PeerError, Share, open_, opening, prepare
from mpc.costs import StepCost
from mpc.indices import R32
from mpc.ot.networks import switch_count
from mpc.preprocessing import carriages, dealer, prss, requests, serve
from mpc.preprocessing.permutations import Move, Place, Route, committees, draw_permutation
from mpc.preprocessing.prss import corruption_threshold
from mpc.preprocessing.requests import MoveRequest, parse_request
from mpc.prg import Prg
from mpc.shuffling import moved, shuffle
from mpc.words import W64, pack_bits, unpack_bits
from tests.mpc.enumeration import View, views
from tests.mpc.support import ALL_WORLDS, SMALL_WORLDS, WORLDS, Message, Run, but_transfers, run, same, seeded

F3 = GF(3)
WORDS_OF = np.array([[1, 0, 0, 1, 0, 1], [0, 1, 0, 0, 0, 0]], np.uint8)


async def columns_of(party: Party, count: int) -> list[Share]:
    index = np.arange(count)
    a = await party.share(index if party.rank == 0 else None, bound=count, owner=0, shape=(count,), field=F61)
    wide = np.stack([index * 0.5, -index], axis=-1)
    b = await party.share(wide if party.rank == 1 else None, bound=float(count), owner=1, shape=(count, 2))
    deep = await party.share(index.reshape(-1, 1, 1) * np.ones((2, 3), int), bound=count, owner=0, shape=(count, 2, 3))
    return [a, b, deep]


# ---- what comes out ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parties", "preprocessing"), ALL_WORLDS)
def test_rows_stay_together(parties: int, preprocessing: str) -> None:
    async def program(party: Party, _: Any) -> Any:
        columns = await columns_of(party, 9)
        once = await shuffle(party, columns)
        twice = await shuffle(party, columns)
        assert [(x.field, x.scale, x.magnitude, x.shape) for x in once] == [
            (x.field, x.scale, x.magnitude, x.shape) for x in columns
        ]
        return [await open_(party, *once), await open_(party, *twice)]

    orders = []
    for order, wide, deep in run(program, parties=parties, preprocessing=preprocessing).results[0]:
        assert sorted(order) == list(range(9))
        np.testing.assert_array_equal(wide, np.stack([order * 0.5, -order], axis=-1))
        np.testing.assert_array_equal(deep, order.reshape(-1, 1, 1) * np.ones((2, 3)))
        orders.append(list(order))
    assert orders[0] != orders[1] or orders[0] != list(range(9))


def product_of(seats: list[Any], name: str) -> np.ndarray:
    """The rows that a permutation picks, put together from the factors that the parties hold."""
    known = [seat[name] for seat in seats]
    picked = np.arange(known[0].rows)
    for k in range(len(known[0].factors)):
        held = [permutation.factors[k] for permutation in known if permutation.factors[k] is not None]
        assert all((factor == held[0]).all() for factor in held)
        picked = picked[held[0]]
    return picked


@pytest.mark.parametrize(("parties", "preprocessing"), WORLDS)
@pytest.mark.parametrize("field", [F61, F127, R32, F3, W64], ids=repr)
def test_moves_are_the_products_of_the_factors(parties: int, preprocessing: str, field: Field) -> None:
    async def program(party: Party, _: Any) -> Any:
        p, q = [await party.preprocessing.permutation(party, 6) for _ in range(2)]
        if field is W64:
            summand = pack_bits(WORDS_OF) if party.rank == 0 else W64.zeros((2, 1))
        else:
            summand = field.encode(np.array([0, 1, -1, 1, 0, -1]) if party.rank == 0 else np.zeros(6, np.int64))
        x = Share(field, summand, 0, 0, leads=party.rank == 0)
        y, z = await moved(party, [(x, Move(apply=p)), (x, Move(apply=q))])
        (back,) = await moved(party, [(y, Move(undo=p))])
        (other,) = await moved(party, [(y, Move(undo=p, apply=q))])
        return {"p": p, "q": q, "summands": [s.values for s in (x, y, z, back, other)]}

    seats = run(program, parties=parties, preprocessing=preprocessing).results
    p, q = product_of(seats, "p"), product_of(seats, "q")

    def total(k: int) -> np.ndarray:
        result = seats[0]["summands"][k]
        for seat in seats[1:]:
            result = field.add(result, seat["summands"][k])
        return unpack_bits(result, 6).T if field is W64 else result

    x = total(0)
    np.testing.assert_array_equal(total(1), x[p])
    np.testing.assert_array_equal(total(2), x[q])
    np.testing.assert_array_equal(total(3), x)
    np.testing.assert_array_equal(total(4), x[q])


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_shuffle(count: int) -> None:
    async def program(party: Party, _: Any) -> Any:
        columns = await columns_of(party, count)
        return await open_(party, *await shuffle(party, columns))

    done = run(program)
    assert [x.shape for x in done.results[0]] == [(count,), (count, 2), (count, 2, 3)]
    assert not [m for m in done.sent if "pass" in m.step]


def test_bad_arrays_are_refused_before_anything_is_sent() -> None:
    async def program(party: Party, _: Any) -> None:
        x = party.constant(np.arange(3))
        for bad, words in [([], "nothing"), ([x, x[:2]], "2, 3 rows"), ([x[0]], "without axes")]:
            with pytest.raises(ValueError, match=words):
                await shuffle(party, bad)

    done = run(program, preprocessing="prss")
    done.results  # noqa: B018
    assert not done.sent


def test_long_arrays_go_in_chunks() -> None:
    async def program(party: Party, _: Any) -> Any:
        x = party.constant(np.arange(40_000))
        return np.sort(await open_(party, (await shuffle(party, [x]))[0]))

    for preprocessing in ("dealer", "prss"):
        np.testing.assert_array_equal(same(run(program, preprocessing=preprocessing).results), np.arange(40_000))


# ---- permutations -----------------------------------------------------------------------------------------------


class Keys:
    """A stream of chosen keys."""

    def __init__(self, high: Any, low: Any) -> None:
        self.keys: Any = F127.zeros(len(high))
        self.keys["hi"], self.keys["lo"] = high, low

    def bounded(self, field: Field, bits: int, shape: tuple[int, ...]) -> Any:
        assert (field, bits, shape) == (F127, 126, self.keys.shape)
        return self.keys


def test_a_permutation_is_the_order_of_its_keys() -> None:
    for keys in permutations(range(4)):
        drawn = draw_permutation(Keys(keys, [0] * 4), 4)  # type: ignore[arg-type]
        np.testing.assert_array_equal(drawn, np.argsort(keys))
        drawn = draw_permutation(Keys([7] * 4, keys), 4)  # type: ignore[arg-type]
        np.testing.assert_array_equal(drawn, np.argsort(keys))
    drawn = draw_permutation(Keys([1, 0, 1, 0], [0, 5, 2**64 - 1, 4]), 4)  # type: ignore[arg-type]
    np.testing.assert_array_equal(drawn, [3, 1, 0, 2])


def test_permutations_are_uniform() -> None:
    """Chi-squared over all 24 orders of 4 rows; seeds are fixed, so the number is, too."""
    stream = Prg(bytes(32)).stream("permutations")
    seen = Counter(tuple(draw_permutation(stream, 4)) for _ in range(24 * 200))
    assert len(seen) == 24
    assert sum((n - 200) ** 2 / 200 for n in seen.values()) < 49.7  # 23 degrees of freedom: p = 0.001


def test_the_stream_moves_on_alike_whatever_is_drawn() -> None:
    stream = Prg(bytes(32)).stream("permutations")
    for count in (1, 5, 1000):
        before = stream.position
        draw_permutation(stream, count)
        assert stream.position - before == 16 * count


@pytest.mark.parametrize("size", range(3, 8))
def test_committees(size: int) -> None:
    """All sets of n - t parties, each one member away from the next; any t parties miss one."""
    threshold = corruption_threshold(size)
    sets = committees(size, size - threshold)
    assert sorted(sets) == sorted(combinations(range(size), size - threshold))
    assert all(len(set(a) - set(b)) == 1 for a, b in pairwise(sets))
    for coalition in combinations(range(size), threshold):
        assert any(not set(coalition) & set(members) for members in sets)


@pytest.mark.parametrize(("parties", "preprocessing"), WORLDS)
def test_a_coalition_misses_a_factor(parties: int, preprocessing: str) -> None:
    async def program(party: Party, _: Any) -> Any:
        return (await party.preprocessing.permutation(party, 3)).factors

    seats = run(program, parties=parties, preprocessing=preprocessing).results
    most = corruption_threshold(parties) if preprocessing == "prss" else parties - 1
    for coalition in combinations(range(parties), most):
        assert any(all(seats[rank][k] is None for rank in coalition) for k in range(len(seats[0])))
    for k in range(len(seats[0])):
        assert any(factors[k] is not None for factors in seats)


# ---- views, exactly ---------------------------------------------------------------------------------------------

SEATS: list[tuple[int, str, set[int]]] = [
    (2, "dealer", {0}),
    (2, "dealer", {1}),
    (3, "dealer", {0, 1}),
    (3, "dealer", {0, 2}),
    (3, "dealer", {1, 2}),
    (3, "prss", {0}),
    (3, "prss", {1}),
    (3, "prss", {2}),
    (4, "prss", {1}),
]
LARGER_SEATS = [(5, "prss", {0, 4}), (5, "prss", {1, 2}), (5, "prss", {2, 3})]


@pytest.fixture
def lanes_go_out_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (opening, carriages, requests):
        monkeypatch.setattr(module, "CHUNK_BYTES", 1 << 40)


def with_permutations(monkeypatch: pytest.MonkeyPatch, flipped: dict[str, bool]) -> None:
    """Let each seed draw a permutation, of at most two rows, that we choose."""

    def draw(stream: Any, count: int) -> np.ndarray:
        stream.skip(16 * count)
        return np.arange(count)[::-1] if flipped.get(stream.name, False) else np.arange(count)

    for module in (prss, dealer, serve):
        monkeypatch.setattr(module, "draw_permutation", draw)


def pass_views(
    seat: tuple[int, str, set[int]], kind: str, owner: int, secrets: list[tuple[int, ...]], **options: Any
) -> list[View]:
    """What a coalition sees while somebody's array is moved, for each of several arrays."""
    parties, preprocessing, coalition = seat
    rows = len(secrets[0])

    async def protocol(party: Party, lanes: int, secret: tuple[int, ...]) -> None:
        values = np.repeat(np.array(secret)[:, None], lanes, axis=1)
        held = values if party.rank == owner else None
        x = await party.share(held, bound=1, owner=owner, shape=(rows, lanes), field=F3)
        p, q = [await party.preprocessing.permutation(party, rows) for _ in range(2)]
        await moved(party, [(x, {"apply": Move(apply=p), "undo": Move(undo=p), "both": Move(p, q)}[kind])])

    blocks = {"pass#": (1,) * rows, "correction": (1,) * rows}
    return views(
        protocol, secrets, coalition=coalition, parties=parties, preprocessing=preprocessing, field=F3, blocks=blocks,
        fixings=1, **options,
    )[0]  # fmt: skip


@pytest.mark.usefixtures("lanes_go_out_together")
@pytest.mark.parametrize("kind", ["apply", "undo", "both"])
@pytest.mark.parametrize("seat", SEATS, ids=str)
def test_passes_tell_nothing(seat: tuple[int, str, set[int]], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same view for all data, and for all permutations of seeds that the coalition does not know."""
    parties, preprocessing, coalition = seat
    if preprocessing == "dealer":
        unknown = [f"dealer {rank}" for rank in range(parties) if rank not in coalition]
    else:
        sets = committees(parties, parties - 1)
        unknown = ["set " + "-".join(map(str, s)) for s in sets if not coalition & set(s)]
    assert len(unknown) == 1
    # Four parties have too many hops to try all masks of two rows.
    arrays: list[tuple[int, ...]] = [(0, 0), (1, 0), (0, 1), (-1, 1)]
    if parties == 4 and kind == "both":
        arrays = [(0,), (1,)]
    for owner in set(range(parties)) - coalition:
        seen = []
        for flip in (False, True):
            with_permutations(monkeypatch, {unknown[0]: flip})
            seen += pass_views(seat, kind, owner, arrays)
        assert all(view.messages and view.same_as(seen[0]) for view in seen)


@pytest.mark.usefixtures("lanes_go_out_together")
@pytest.mark.parametrize("seat", LARGER_SEATS, ids=str)
def test_passes_tell_nothing_to_larger_coalitions(
    seat: tuple[int, str, set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_permutations(monkeypatch, {})
    for owner in set(range(5)) - seat[2]:
        first, *others = pass_views(seat, "apply", owner, [(0,), (1,)])
        assert first.messages
        assert all(view.same_as(first) for view in others)


@pytest.mark.usefixtures("lanes_go_out_together")
@pytest.mark.parametrize(
    ("seat", "owner", "label"),
    [((3, "prss", {0}), 2, "pass"), ((3, "prss", {1}), 0, "pass"), ((3, "prss", {2}), 1, "pass"),
     ((2, "dealer", {0}), 1, "move"), ((2, "dealer", {1}), 0, "move"), ((2, "dealer", {1}), 0, "pad")],
    ids=str,
)  # fmt: skip
def test_without_masks_the_views_differ(
    seat: tuple[int, str, set[int]], owner: int, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests above would notice a mask that is missing."""
    seen = []
    for flip in (False, True):
        with_permutations(monkeypatch, {"dealer 0": flip})
        seen += pass_views(
            seat, "apply", owner, [(0, 0), (1, 0)], sabotage=lambda name, number: -1 if name.startswith(label) else None
        )
    assert max(view.distance(seen[0]) for view in seen) > 0.5


# ---- costs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parties", "preprocessing"), ALL_WORLDS)
def test_costs(parties: int, preprocessing: str) -> None:
    async def program(party: Party, _: Any) -> Any:
        x, y = party.constant(np.zeros(5, int), field=F61), party.constant(np.zeros((5, 3), int))
        before = but_transfers(party.costs)
        assert before == StepCost()
        await shuffle(party, [x, y])
        return but_transfers(party.costs)

    done = run(program, parties=parties, preprocessing=preprocessing)
    t = corruption_threshold(parties)
    if preprocessing == "prss":
        rounds = math.comb(parties, t)
        messages = rounds + t - 1
    else:
        rounds, messages = parties, 2 * (parties - 1)
    for cost in done.results:
        assert (cost.rounds, cost.elements_opened) == (rounds, messages * 20)
    passes = [m for m in done.sent if "pass#" in m.step]
    assert (len(passes), {len(m.data) for m in passes}) == (messages, {5 * 8 + 15 * 16})
    dealt = sum(len(m.data) for m in done.sent if m.step.startswith("correction"))
    assert dealt == (5 * 8 + 15 * 16 if preprocessing == "dealer" else 0)
    if preprocessing == "ot":
        # 8 switches for 5 rows, at each party and for each array; choices of one bit each.
        corrections = sum(len(m.data) for m in done.sent if "/corrections." in m.step)
        assert corrections == parties * (parties - 1) * switch_count(5) * (8 + 3 * 16)
        choices = [len(m.data) for m in done.sent if "/choices." in m.step]
        assert choices == [8 + 1] * 2 * parties * (parties - 1)


# ---- preparing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parties", "preprocessing"), WORLDS)
def test_prepared(parties: int, preprocessing: str) -> None:
    async def program(party: Party, _: Any) -> Any:
        columns = await columns_of(party, 7)
        expected = await prepare(party, shuffle, columns)
        before = party.costs.total
        shuffled = await shuffle(party, columns)
        spent = party.costs.since(before)
        assert (spent.rounds, spent.elements_opened) == (expected.rounds, expected.elements_opened)
        return await open_(party, *shuffled)

    done = run(program, parties=parties, preprocessing=preprocessing)
    assert sorted(done.results[0][0]) == list(range(7))
    by_last = [m.step for m in done.sent_after_inputs() if m.frm == parties - 1]
    online = next(k for k, step in enumerate(by_last) if "pass" in step)
    assert not [step for step in by_last[online:] if step.startswith("request")]


@pytest.mark.parametrize(("parties", "preprocessing"), SMALL_WORLDS)
def test_a_rehearsal_tells_nothing(parties: int, preprocessing: str) -> None:
    def sent(value: int) -> list[Any]:
        async def program(party: Party, _: Any) -> Any:
            x = await party.share(np.full(4, value) if party.rank == 0 else None, bound=9, owner=0, shape=(4,))
            await prepare(party, shuffle, [x])

        done = run(program, parties=parties, preprocessing=preprocessing, make_source=seeded("rehearsal"))
        done.results  # noqa: B018
        return done.told()

    assert sent(0) == sent(5)


# ---- faults -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preprocessing", ["dealer", "prss", "ot"])
@pytest.mark.parametrize("fault", ["short", "beyond the field", "repeated"])
def test_bad_messages_are_refused(preprocessing: str, fault: str) -> None:
    async def program(party: Party, _: Any) -> Any:
        return await open_(party, *await shuffle(party, [party.constant(np.arange(3), field=F61)]))

    def tamper(message: Message) -> list[Message]:
        if "pass#1" not in message.step or message.frm != 2:
            return [message]
        if fault == "short":
            return [message._replace(data=message.data[:-1])]
        if fault == "repeated":
            return [message, message]
        return [message._replace(data=b"\xff" * len(message.data))]

    done: Run = run(program, preprocessing=preprocessing, tamper=tamper)
    with pytest.raises(PeerError, match="party 2"):
        done.results  # noqa: B018


def test_requests_are_checked() -> None:
    place = Place("a", 0, 3)
    good = MoveRequest(Route(place, place), "F61", (3, 2), "a/b", 16, 32)
    assert parse_request(good.to_bytes()) == good
    for bad in [
        MoveRequest(Route(None, None), "F61", (3,), "a", 0, 0),
        MoveRequest(Route(place, Place("a", 0, 4)), "F61", (3,), "a", 0, 0),
        MoveRequest(Route(place, None), "F61", (3,), "a", 1, 0),
        MoveRequest(Route(place, None), "F61", (3,), "a", 0, 8),
        MoveRequest(Route(Place("a", 5, 3), None), "F61", (3,), "a", 0, 0),
        MoveRequest(Route(place, None), "F61", (-3,), "a", 0, 0),
    ]:
        with pytest.raises(ValueError, match="not a request"):
            parse_request(bad.to_bytes())


def test_a_dealer_gives_no_mask_twice() -> None:
    sources = [Prg(bytes([k]) * 32) for k in range(2)]
    server = serve.Dealer(2, lambda rank, label, position: sources[rank].stream(label, position))
    request = MoveRequest(Route(None, Place("a", 0, 3)), "F61", (3,), "a", 0, 0)
    server.answer(request)
    for masks_at, pad_at, what in [(0, 32, "move"), (64, 16, "pad")]:
        again = MoveRequest(request.move, "F61", (3,), "a", masks_at, pad_at)
        with pytest.raises(ValueError, match=f"a {what} was asked for twice"):
            server.answer(again)
    for shape in [(4,), (), (2, 3)]:
        with pytest.raises(ValueError, match="other rows"):
            server.answer(MoveRequest(request.move, "F61", shape, "c", 0, 0))


@pytest.mark.parametrize(("field", "rows"), [("R32", 1), ("R32", 5), ("F61", 1), ("F61", 3), ("W64", 1), ("F127", 2)])
def test_a_dealer_counts_masks_as_they_are_drawn(field: str, rows: int) -> None:
    """Each draw begins at a block of 16 bytes, so the masks of h hops take h times the padded size."""
    sources = [Prg(bytes([k]) * 32) for k in range(2)]
    server = serve.Dealer(2, lambda rank, label, position: sources[rank].stream(label, position))
    size = rows * {"R32": 4, "F61": 8, "W64": 8, "F127": 16}[field]
    taken = 2 * -(-size // 16) * 16
    move = Route(None, Place("a", 0, rows))
    server.answer(MoveRequest(move, field, (rows,), "a", 0, 0))
    for masks_at in range(0, taken, 16):
        with pytest.raises(ValueError, match="a move was asked for twice"):
            server.answer(MoveRequest(move, field, (rows,), "a", masks_at, 1 << 20))
    server.answer(MoveRequest(move, field, (rows,), "a", taken, 1 << 20))


def kept(monkeypatch: pytest.MonkeyPatch, most: int, rows_kept: int, rows: list[int]) -> tuple[int, int, int]:
    """Return what a dealer keeps after moves of so many rows, and how many permutations it has drawn."""
    drawn = []

    def drawing(stream: Any, count: int) -> Any:
        drawn.append(count)
        return draw_permutation(stream, count)

    monkeypatch.setattr(serve, "draw_permutation", drawing)
    monkeypatch.setattr(serve, "_MOST_KEPT", most)
    monkeypatch.setattr(serve, "_ROWS_KEPT", rows_kept)
    sources = [Prg(bytes([k]) * 32) for k in range(2)]
    server = serve.Dealer(2, lambda rank, label, position: sources[rank].stream(label, position))
    for k, count in enumerate(rows):
        for twice in range(2):
            route = Route(None, Place(f"p{k}", 0, count))
            server.answer(MoveRequest(route, "F61", (count,), f"q{k}.{twice}", 0, 0))
    held = list(server._kept.values())
    assert server._rows_kept == sum(map(len, held))
    return len(held), sum(map(len, held)), len(drawn)


def test_a_dealer_keeps_few_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    """However short they are; each is drawn once for the moves that follow one another."""
    assert kept(monkeypatch, 10, 1000, [0] * 30) == (10, 0, 60)
    assert kept(monkeypatch, 10, 1000, [3] * 30) == (10, 30, 60)
    assert kept(monkeypatch, 100, 20, [3] * 30) == (6, 18, 60)
    assert kept(monkeypatch, 100, 20, [3, 50, 3]) == (2, 6, 6)
    assert 0 < serve._MOST_KEPT <= 1024
