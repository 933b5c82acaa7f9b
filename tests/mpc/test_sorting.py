"""Sorting: right and stable in every world, in public steps; what is opened is a uniform permutation."""

from collections import Counter
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest

from mpc import F61, F127, AgreementError, Party, RangeError, Share, open_, orders, prepare
from mpc.indices import R32, characters, digit_counts, digit_weights, wrapped
from mpc.opening import open_flat
from mpc.orders import order_by_planes
from mpc.preprocessing import dealer, prss, serve
from mpc.sorting import Order, argsort, run_bounds, sort
from mpc.words import W64, pack_bits
from tests.mpc.support import SMALL_WORLDS, WORLDS, Message, run, same, seeded

BY_PAIRS, BY_DIGITS = "by pairs", "by digits"


@pytest.fixture
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    choice: str = request.param
    monkeypatch.setattr(orders, "PAIRED_ROWS", 1 << 20 if choice == BY_PAIRS else 0)
    return choice


both_ways = pytest.mark.parametrize("way", [BY_PAIRS, BY_DIGITS], indirect=True)


async def held_by(party: Party, owner: int, values: Any, bound: float, **options: Any) -> Share:
    held = values if party.rank == owner else None
    x: Share = await party.share(held, bound=bound, owner=owner, shape=np.shape(values), **options)
    return x


# ---- what comes out ---------------------------------------------------------------------------------------------


@both_ways
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("parties", "preprocessing"), WORLDS)
def test_sorted_and_stable(parties: int, preprocessing: str, rng: np.random.Generator) -> None:
    """Duplicates, negative keys, odd and even sizes; companions of several shapes and fields."""
    sizes = (0, 1, 2, 3, 100) if parties < 5 else (3, 70)
    keys = {n: rng.integers(-9, 10, n) for n in sizes}

    async def program(party: Party, _: Any) -> Any:
        results = []
        for n, x in keys.items():
            key = await held_by(party, 0, x, 9)
            index = await held_by(party, 1, np.arange(n), max(n, 1), field=F61)
            wide = await held_by(party, 0, np.stack([x * 0.5, np.arange(n)], axis=-1), 200.0)
            ascending, (i, w) = await sort(party, key, [index, wide])
            descending, (j,) = await sort(party, key, [index], descending=True)
            assert (ascending.magnitude, i.field, w.scale) == (9, F61, 24)
            results.append(await open_(party, ascending, i, w, descending, j) if n else (x, x, x, x, x))
        return results

    for x, results in zip(
        keys.values(), run(program, parties=parties, preprocessing=preprocessing).results[0], strict=True
    ):
        if not len(x):
            continue
        ascending, i, w, descending, j = results
        order, back = np.argsort(x, kind="stable"), np.argsort(-x, kind="stable")
        np.testing.assert_array_equal(ascending, x[order])
        np.testing.assert_array_equal(i, order)
        np.testing.assert_array_equal(w, np.stack([x[order] * 0.5, order], axis=-1))
        np.testing.assert_array_equal(descending, x[back])
        np.testing.assert_array_equal(j, back)


@both_ways
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("field", [F61, F127], ids=repr)
def test_fractions_and_wide_keys(field: Any, rng: np.random.Generator) -> None:
    x = rng.normal(size=40) if field is F127 else rng.integers(0, 1000, 40)
    large = np.array([2**62, -(2**62), 0, 1, -1, 2**62 - 1, 5, 5], dtype=object)

    async def program(party: Party, _: Any) -> Any:
        key = await held_by(party, 0, x, 1000.0 if field is F127 else 1000, field=field)
        (a, _), (b, _) = await sort(party, key), await sort(party, await held_by(party, 1, large, 2**62))
        return await open_(party, a), await open_(party, b)

    for preprocessing in ("dealer", "prss"):
        a, b = run(program, preprocessing=preprocessing).results[1]
        np.testing.assert_allclose(a, np.sort(x), atol=2**-24)
        np.testing.assert_array_equal(b, sorted(large))


@pytest.mark.parametrize("digit_bits", [1, 2, 3])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 7])
def test_digits_of_any_width(digit_bits: int, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "PAIRED_ROWS", 0)
    monkeypatch.setattr(orders, "DIGIT_BITS", digit_bits)
    monkeypatch.setattr(orders, "_SIGNS_AT_ONCE", 500)
    x = np.random.default_rng(bits).integers(0, 1 << bits, 70)

    async def program(party: Party, _: Any) -> Any:
        planes = pack_bits((x >> np.arange(bits)[:, None] & 1).astype(np.uint8))
        held = Share(W64, planes if party.rank == 1 else W64.zeros(planes.shape), 0, 0, leads=party.rank == 0)
        order = await order_by_planes(party, held, len(x))
        return await open_(party, *await order.apply(party, party.constant(np.arange(len(x)))))

    for preprocessing in ("dealer", "prss"):
        got = same(run(program, preprocessing=preprocessing).results)
        np.testing.assert_array_equal(got, np.argsort(x, kind="stable"))


@pytest.mark.parametrize("bits", [5, 6, 40])
def test_a_promise_on_the_bits(bits: int, rng: np.random.Generator) -> None:
    x = rng.integers(0, 32, 30)

    async def program(party: Party, _: Any) -> Any:
        key = await held_by(party, 0, x, 100)
        (a, _) = await sort(party, key, bits=bits)
        with pytest.raises(ValueError, match="at least 1 bit"):
            await sort(party, key, bits=0)
        return await open_(party, a)

    np.testing.assert_array_equal(run(program).results[0], np.sort(x))


@both_ways
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("parties", "preprocessing"), WORLDS)
def test_an_order_is_used_again_and_undone(parties: int, preprocessing: str) -> None:
    x = np.array([3, -1, 3, 0, 2, 2, -5])

    async def program(party: Party, _: Any) -> Any:
        order = await argsort(party, await held_by(party, 0, x, 5))
        index = party.constant(np.arange(7), field=F61)
        a, b = await order.apply(party, index, index * 2)
        (c,) = await order.apply(party, index)
        (back,) = await order.undo(party, a)
        (ranks,) = await order.undo(party, index)
        with pytest.raises(ValueError, match="7 rows"):
            await order.apply(party, index[:3])
        with pytest.raises(ValueError, match="7 rows"):
            await order.undo(party, index[0])
        assert repr(order) == "Order(count=7)"
        return await open_(party, a, b, c, back, ranks)

    done = run(program, parties=parties, preprocessing=preprocessing)
    order = np.argsort(x, kind="stable")
    a, b, c, back, ranks = done.results[0]
    np.testing.assert_array_equal(a, order)
    np.testing.assert_array_equal(b, 2 * order)
    np.testing.assert_array_equal(c, order)
    np.testing.assert_array_equal(back, np.arange(7))
    np.testing.assert_array_equal(ranks, np.argsort(order))
    first, second = [[m.data for m in done.sent if f"/put in order{k}/" in f"/{m.step}"] for k in ("", ".2")]
    if first and second:
        assert not set(first) & set(second)  # masks are fresh


@pytest.mark.parametrize(("parties", "preprocessing"), WORLDS)
@both_ways
@pytest.mark.usefixtures("way")
def test_runs_of_equal_keys(parties: int, preprocessing: str) -> None:
    cases = [[], [4], [4, 4], [4, 5], [0, 0, 0, 0], [1, 2, 3, 4, 5], [5, 5, 3, 3, 3, -7], [-2, -2, 0, 1, 1, 1, 6]]
    if parties > 3:
        cases = cases[-2:]

    async def program(party: Party, _: Any) -> Any:
        results = []
        for case in cases:
            first, last = await run_bounds(party, await held_by(party, 0, np.array(case, int), 9))
            assert first.scale == last.scale == 0
            assert max(first.magnitude, last.magnitude) <= max(0, len(case) - 1)
            results.append(await open_(party, first, last))
        return results

    for case, (first, last) in zip(
        cases, run(program, parties=parties, preprocessing=preprocessing).results[0], strict=True
    ):
        np.testing.assert_array_equal(first, [case.index(v) for v in case])
        np.testing.assert_array_equal(last, [len(case) - 1 - case[::-1].index(v) for v in case])


def test_runs_of_keys_without_room_for_a_difference() -> None:
    """Keys that are all zero by their bound have one run; and fractions have runs, too."""

    async def program(party: Party, _: Any) -> Any:
        zero = await run_bounds(party, await held_by(party, 0, np.zeros(3, int), 0))
        half = await run_bounds(party, await held_by(party, 0, np.array([0.25, 0.25, 0.5]), 1.0))
        return await open_(party, *zero, *half)

    for got, expected in zip(run(program).results[0], [[0, 0, 0], [2, 2, 2], [0, 0, 2], [1, 1, 2]], strict=True):
        np.testing.assert_array_equal(got, expected)


# ---- the places by one digit ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_places_by_one_digit(bits: int, rng: np.random.Generator) -> None:
    values = 1 << bits
    np.testing.assert_array_equal(characters(values - 1) @ characters(values - 1), values * np.eye(values))
    for count in (1, 2, 50):
        digit = rng.integers(0, values, count)
        signs = characters(values - 1)[:, digit]
        table = digit_counts(values - 1)
        weights = digit_weights(wrapped(signs[1:])).view(np.int32) + table[1:, :1] * count
        first = values * np.arange(1, count + 1) + table[0] @ signs.sum(axis=1)
        places = first + (signs[1:] * weights).sum(axis=0) - values**2
        np.testing.assert_array_equal(places, values**2 * np.argsort(np.argsort(digit, kind="stable")))


def test_indices_are_a_ring() -> None:
    rng = np.random.default_rng(3)
    x, y, z = (rng.integers(0, 2**32, 20, dtype=np.uint32) for _ in range(3))
    exact = [a.astype(object) for a in (x, y, z)]
    for got, expected in [
        (R32.add(x, y), exact[0] + exact[1]),
        (R32.sub(x, y), exact[0] - exact[1]),
        (R32.mul(x, y), exact[0] * exact[1]),
        (R32.neg(x), -exact[0]),
        (R32.sum(x), exact[0].sum()),
        (R32.scale_int(x, -(2**40) - 3), exact[0] * (-(2**40) - 3)),
        (R32.dot_int(x, np.arange(20)), (exact[0] * np.arange(20)).sum()),
        (R32.matmul(x.reshape(4, 5), y.reshape(5, 4)), exact[0].reshape(4, 5) @ exact[1].reshape(5, 4)),
        (R32.beaver(x, y, z, x, y, lead=False), exact[0] * exact[0] + exact[1] * exact[2] + exact[1]),
        (
            R32.beaver(x, y, z, x, y, lead=True),
            exact[0] * exact[0] + exact[1] * exact[2] + exact[1] + exact[0] * exact[1],
        ),
        (R32.encode([-1, 5, 2**31 - 1]), np.array([-1, 5, 2**31 - 1], object)),
    ]:
        assert got.dtype == np.uint32
        np.testing.assert_array_equal(got, expected % 2**32)
    np.testing.assert_array_equal(R32.decode(R32.encode([-3, 7])), [-3, 7])
    np.testing.assert_array_equal(R32.from_bytes(R32.to_bytes(x), 20), x)
    assert (repr(R32), R32.backend, R32.is_canonical(x)) == ("R32", "numpy", True)
    with pytest.raises(RangeError):
        R32.encode([2**31])
    with pytest.raises(TypeError, match="no such operation"):
        R32.shift_round(x, 3)


# ---- what is opened ---------------------------------------------------------------------------------------------


class Watched:
    """Notes the permutations that are opened, at one party, while every seed draws permutations that we choose."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, unknown: str, choices: list[tuple[int, ...]]) -> None:
        self.opened: list[tuple[int, ...]] = []

        def draw(stream: Any, count: int) -> np.ndarray:
            stream.skip(16 * count)
            return self.choose(stream, unknown, choices, count)

        async def watching(party: Party, name: str, field: Any, summands: Any) -> Any:
            values = await open_flat(party, name, field, summands)
            if name == "places" and party.rank == 0:
                self.opened.append(tuple(np.argsort(np.argsort(values))))
            return values

        for module in (prss, dealer, serve):
            monkeypatch.setattr(module, "draw_permutation", draw)
        monkeypatch.setattr(orders, "open_flat", watching)

    def choose(self, stream: Any, unknown: str, choices: list[tuple[int, ...]], count: int) -> np.ndarray:
        number = stream.position // (16 * count) - 1
        if stream.owner == unknown:
            return np.array(choices[number])
        return np.random.default_rng([number, len(stream.owner), *stream.owner.encode()]).permutation(count)


class Owned:
    """A stream that knows whose it is."""

    def __init__(self, owner: str, stream: Any) -> None:
        self.owner, self._stream = owner, stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def owned(text: str) -> Any:
    def for_rank(rank: int) -> Any:
        def make(name: str, seed: bytes) -> Any:
            known = f"dealer {rank}" if name == "dealer" else name
            source = seeded(text)(rank)(name, seed)

            class Source:
                def stream(self, label: str, position: int = 0) -> Owned:
                    return Owned(known, source.stream(label, position))

            return Source()

        return make

    return for_rank


@pytest.mark.parametrize(
    ("parties", "preprocessing", "unknown", "keys"),
    [
        (3, "prss", "set 0-1", [0, 0, 0]),
        (3, "prss", "set 1-2", [7, 4, 1]),
        (2, "dealer", "dealer 0", [7, 4, 1]),
        (2, "dealer", "dealer 1", [0, 0, 0]),
    ],
    ids=str,
)
def test_the_permutations_opened_are_uniform_and_independent(
    parties: int, preprocessing: str, unknown: str, keys: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly: over all choices of what a coalition does not know, every outcome occurs once, whatever the keys are.

    Two digits, three rows: 36 pairs of permutations are drawn from the unknown seed, and the two permutations
    that are opened take 36 values.
    """
    monkeypatch.setattr(orders, "PAIRED_ROWS", 0)

    async def program(party: Party, _: Any) -> Any:
        x = await held_by(party, 0, np.array(keys), 7)
        return await open_(party, (await sort(party, x, bits=3))[0])

    seen = []
    for choices in product(permutations(range(3)), repeat=2):
        watched = Watched(monkeypatch, unknown, list(choices))
        done = run(program, parties=parties, preprocessing=preprocessing, make_source=owned("uniform"))
        np.testing.assert_array_equal(done.results[0], np.sort(keys))
        seen.append(tuple(watched.opened))
    assert set(seen) == set(product(permutations(range(3)), repeat=2))


@both_ways
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("keys", [[1, 1, 1], [3, 0, 2]], ids=str)
def test_the_permutations_opened_by_chance(keys: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Chi-squared over all six orders of three rows, with random permutations of fixed seeds."""
    opened: list[tuple[int, ...]] = []

    async def watching(party: Party, name: str, field: Any, summands: Any) -> Any:
        values = await open_flat(party, name, field, summands)
        if name == "places" and party.rank == 0:
            opened.append(tuple(np.argsort(np.argsort(values))))
        return values

    monkeypatch.setattr(orders, "open_flat", watching)

    async def program(party: Party, _: Any) -> None:
        planes = pack_bits(np.array([[k >> b & 1 for k in keys] for b in range(2)], np.uint8))
        held = Share(W64, planes if party.rank == 0 else W64.zeros(planes.shape), 0, 0, leads=party.rank == 0)
        for _ in range(60):
            await order_by_planes(party.at("one"), held, 3)

    run(program, preprocessing="prss", make_source=seeded("chance")).results  # noqa: B018
    counts = Counter(opened)
    assert (len(opened), len(counts)) == (60, 6)
    assert sum((n - 10) ** 2 / 10 for n in counts.values()) < 20.5  # 5 degrees of freedom: p = 0.001


@both_ways
@pytest.mark.usefixtures("way")
def test_summands_of_places_are_uniform_given_their_sum() -> None:
    """After the last pass, party 1 holds zeros, and the others what party 1 has handed over: none of it may show."""

    def opened_by(ranks: list[int], text: str) -> list[list[bytes]]:
        async def program(party: Party, _: Any) -> None:
            await argsort(party, await held_by(party, 0, np.arange(5), 7))

        def source(rank: int) -> Any:
            def make(name: str, seed: bytes) -> Any:
                one, other = seeded("places")(rank)(name, seed), seeded(text)(rank)(name, seed)

                class Source:
                    def stream(self, label: str, position: int = 0) -> Any:
                        return (other if label.startswith("zero|sort") else one).stream(label, position)

                return Source()

            return make

        done = run(program, preprocessing="prss", make_source=source)
        done.results  # noqa: B018
        return [[m.data for m in sorted(done.sent) if "/places#" in m.step and m.frm == rank] for rank in ranks]

    for first, second in zip(opened_by([0, 1, 2], "a"), opened_by([0, 1, 2], "b"), strict=True):
        assert len(first) == len(second) > 0
        assert all(one != other and any(one) for one, other in zip(first, second, strict=True))


@both_ways
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("parties", "preprocessing"), SMALL_WORLDS)
def test_steps_do_not_depend_on_the_keys(parties: int, preprocessing: str) -> None:
    def shape_of_run(values: list[int]) -> Any:
        async def program(party: Party, _: Any) -> None:
            key = await held_by(party, 0, np.array(values), 7)
            sorted_keys, _ = await sort(party, key)
            await run_bounds(party, sorted_keys)

        done = run(program, parties=parties, preprocessing=preprocessing)
        done.results  # noqa: B018
        return sorted((m.frm, m.to, m.step, len(m.data)) for m in done.sent)

    assert shape_of_run([0] * 5) == shape_of_run([7, -7, 3, 3, 1])


# ---- costs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parties", "preprocessing", "hops"), [(2, "dealer", 2), (3, "dealer", 3), (3, "prss", 3)])
def test_costs_of_digits(parties: int, preprocessing: str, hops: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "PAIRED_ROWS", 0)
    count, bits = 64, 6

    async def program(party: Party, _: Any) -> Any:
        held = Share(W64, W64.zeros((bits, 1)), 0, 0, leads=party.rank == 0)
        before = party.costs.total
        await order_by_planes(party, held, count)
        return party.costs.since(before), dict(party.costs.by_step)

    done = run(program, parties=parties, preprocessing=preprocessing)
    spent, _ = done.results[0]
    digits = bits // 2
    signs = 1 + (preprocessing == "prss")  # to take them ahead of time, and to open
    # Digits and the first digit's places are shuffled from their own order, all other places are carried.
    assert spent.rounds == hops + signs + digits * (2 * hops - 1 + 2) - (hops - 1)
    assert spent.triples == 3 * digits * count
    if preprocessing == "prss":
        sent = Counter[str]()
        for m in done.sent:
            kind = next(k for k in ("digits/", "signs/", "places", "mask", "convert", "pass") if k in m.step)
            sent[kind] += len(m.data)
        assert sent["pass"] == 4 * count * (3 + 5 * (digits - 1))
        assert sent["digits/"] == 3 * 8 * bits - 3 * 16  # packed, and all but the first digit
        assert sent["signs/"] >= 4 * 3 * digits * count
        assert sent["mask"] == 6 * 4 * 3 * digits * count  # broadcast below 96 KiB
        assert sent["places"] == 6 * 4 * digits * count


@pytest.mark.parametrize(("parties", "preprocessing", "hops"), [(2, "dealer", 2), (3, "dealer", 3), (3, "prss", 3)])
def test_costs_of_pairs(parties: int, preprocessing: str, hops: int) -> None:
    async def program(party: Party, _: Any) -> Any:
        held = Share(W64, W64.zeros((8, 1)), 0, 0, leads=party.rank == 0)
        before = party.costs.total
        await order_by_planes(party, held, 20)
        return party.costs.since(before)

    spent = run(program, parties=parties, preprocessing=preprocessing).results[0]
    assert spent.rounds == 2 + 3 + (preprocessing == "prss") + hops + 1


@both_ways
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("parties", "preprocessing"), WORLDS)
def test_prepared(parties: int, preprocessing: str, rng: np.random.Generator) -> None:
    x = rng.integers(-50, 50, 20)

    async def work(party: Party, key: Share) -> tuple[Share, ...]:
        sorted_keys, (index,) = await sort(party, key, [party.constant(np.arange(20))])
        return sorted_keys, index, *await run_bounds(party, sorted_keys)

    async def program(party: Party, _: Any) -> Any:
        key = await held_by(party, 0, x, 50)
        expected = await prepare(party, work, key)
        before = party.costs.total
        results = await work(party, key)
        spent = party.costs.since(before)
        assert (spent.rounds, spent.elements_opened, spent.triples) == (
            expected.rounds,
            expected.elements_opened,
            expected.triples,
        )
        return await open_(party, *results)

    done = run(program, parties=parties, preprocessing=preprocessing)
    keys, index, first, last = same(done.results)
    np.testing.assert_array_equal(index, np.argsort(x, kind="stable"))
    np.testing.assert_array_equal(first, np.searchsorted(keys, keys, "left"))
    np.testing.assert_array_equal(last, np.searchsorted(keys, keys, "right") - 1)
    by_last = [m.step for m in done.sent_after_inputs() if m.frm == parties - 1]
    online = next(k for k, step in enumerate(by_last) if step.startswith("sort/"))
    assert not [step for step in by_last[online:] if step.startswith("request")]


# ---- what is refused --------------------------------------------------------------------------------------------


def test_bad_keys_are_refused_before_anything_is_sent() -> None:
    async def program(party: Party, _: Any) -> None:
        with pytest.raises(ValueError, match="one axis"):
            await argsort(party, party.constant(np.zeros((2, 2), int)))
        with pytest.raises(ValueError, match="one axis"):
            await run_bounds(party, party.constant(1))
        for field, bound in [(F61, 2**30), (F127, 2**100)]:
            wide = Share(field, field.zeros(3), 0, bound, leads=party.rank == 0)
            with pytest.raises(RangeError, match="sort"):
                await argsort(party, wide)
            with pytest.raises(RangeError, match="runs"):
                await run_bounds(party, wide)
        many = Share(F127, np.broadcast_to(F127.zeros(1), (1 << 27,)), 0, 1, leads=party.rank == 0)
        with pytest.raises(RangeError, match="rows"):
            await argsort(party, many)

    done = run(program, preprocessing="prss")
    done.results  # noqa: B018
    assert not done.sent


@both_ways
@pytest.mark.usefixtures("way")
def test_places_that_are_no_permutation() -> None:
    async def program(party: Party, _: Any) -> Any:
        return await argsort(party, await held_by(party, 0, np.arange(5), 7))

    def tamper(message: Message) -> list[Message]:
        if "places#" in message.step and message.frm == 1:
            return [message._replace(data=bytes(a ^ 255 for a in message.data))]
        return [message]

    outcomes = run(program, preprocessing="prss", tamper=tamper).outcomes
    assert any(isinstance(outcome, AgreementError) for outcome in outcomes)
    assert all("no permutation" in str(outcome) for outcome in outcomes)


def test_an_order_of_one_row_sends_nothing() -> None:
    async def program(party: Party, _: Any) -> Any:
        x = party.constant(np.array([3]))
        order = await argsort(party, x)
        assert isinstance(order, Order)
        (y,) = await order.apply(party, x)
        (z,) = await order.undo(party, y)
        assert z is x
        return None

    assert not run(program).sent
