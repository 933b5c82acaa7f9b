"""Products of matrices that two parties know: right in all shapes, at the stated cost, checked at the edge."""

import asyncio
import math
import secrets
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from mpc import F61, F127, Field, matmul, open_
from mpc.errors import PeerError
from mpc.ot import matrices
from mpc.ot.matmul import matrix_products
from mpc.ot.matrices import Lattices, Layout, layout, layout_over
from mpc.ot.rings import PRIMES, Coins, Ring, rings_of
from mpc.party import Party
from mpc.prg import Prg
from tests.mpc.support import Message, Run, Tamper, TappedNetwork, opened, run, same, shares_of

N = 256
RINGS = {F127: Ring(F127, N, PRIMES, 3), F61: Ring(F61, N, PRIMES[:4], 2)}  # too small for security


def coins() -> Coins:
    return Coins(secrets.token_bytes(32))


def drawn(field: Field, *shape: int) -> Any:
    return coins().stream().elements(field, shape)


class World:
    """Parties in one event loop, with nothing but their matrix products."""

    def __init__(self, size: int, tamper: Tamper | None = None) -> None:
        self.network = TappedNetwork(size, tamper=tamper, timeout_seconds=5)
        self.parties = [self._party(rank, size) for rank in range(size)]
        self.lattices = [Lattices([other for other in range(size) if other != rank]) for rank in range(size)]

    def _party(self, rank: int, size: int) -> Party:
        prg = Prg(secrets.token_bytes(32))
        nothing: Any = None
        return Party(rank, size, self.network.transport(rank), nothing, lambda key, label: prg.stream(label))

    async def product(self, rank: int, ring: Ring, plan: Layout, left: Any, right: Any) -> Any:
        scope = self.parties[rank].at("product")
        return await self.lattices[rank].cross(scope, ring, plan, left, right, coins())

    def products(self, ring: Ring, plan: Layout, jobs: Sequence[Sequence[tuple[Any, Any]]]) -> list[Any]:
        """Run several products at once; ``jobs[rank]`` are a party's pairs of matrices."""

        async def everybody() -> list[Any]:
            return await asyncio.gather(
                *(self.product(rank, ring, plan, *pair) for rank, pairs in enumerate(jobs) for pair in pairs)
            )

        return asyncio.run(everybody())


def check(ring: Ring, plan: Layout, size: int = 2, *, largest: bool = False) -> World:
    """Multiply everybody's matrices with everybody else's, and compare with the field's products."""
    field = ring.field
    rows, inner, columns = reversed(plan.shape) if plan.flipped else plan.shape
    world = World(size)
    if largest:
        ends = [field.half, -field.half]
        pairs = [
            (field.encode([[ends[(i * j) % 2] for j in range(inner)] for i in range(rows)]),
             field.encode([[ends[rank % 2]] * columns] * inner))
            for rank in range(size)
        ]  # fmt: skip
    else:
        pairs = [(drawn(field, rows, inner), drawn(field, inner, columns)) for _ in range(size)]
    summands = world.products(ring, plan, [[pair] for pair in pairs])
    total, expected = field.zeros((rows, columns)), field.zeros((rows, columns))
    for i, (left, _) in enumerate(pairs):
        total = field.add(total, summands[i])
        for j, (_, right) in enumerate(pairs):
            if i != j:
                expected = field.add(expected, field.matmul(left, right))
    assert total.shape == (rows, columns)
    assert field.equal(total, expected).all()
    return world


SHAPES = [
    (1, 1, 1),
    (1, 5, 1),
    (7, 1, 9),
    (1, 300, 1),  # longer than a polynomial
    (3, 600, 2),
    (16, 16, 1),  # a whole polynomial
    (17, 16, 1),
    (1, 16, 17),
    (8, 4, 8),
    (9, 4, 8),
    (300, 1, 2),
    (2, 1, 300),
    (13, 11, 7),
]


@pytest.mark.parametrize("field", [F127, F61], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_products_are_exact(field: Field, shape: tuple[int, int, int]) -> None:
    ring = RINGS[field]
    plan = layout_over(ring, shape, field.bits, field.bits)
    assert plan is not None
    check(ring, plan)


@pytest.mark.parametrize(
    "block", [(1, 1, 1), (2, 3, 1), (1, 3, 2), (3, 1, 4), (4, 8, 8), (8, 4, 8), (8, 8, 4), (5, 7, 6)]
)
@pytest.mark.parametrize("flipped", [False, True])
def test_any_blocks_do(block: tuple[int, int, int], *, flipped: bool) -> None:
    """Blocks that divide the shape and blocks that do not, full polynomials among them."""
    for shape in (block, (2 * block[0], block[1] + 1, 3 * block[2] - 1)):
        check(RINGS[F127], Layout(flipped, shape, block, 7, 0))


def test_largest_entries_and_three_parties() -> None:
    for field, ring in RINGS.items():
        plan = layout_over(ring, (5, 40, 6), field.bits, field.bits)
        assert plan is not None
        check(ring, plan, 3, largest=True)


def test_few_bits_take_fewer_primes() -> None:
    ring = RINGS[F127]
    many, few = (layout_over(ring, (6, 5, 4), 127, bits) for bits in (127, 40))
    assert many is not None
    assert few is not None
    assert few.level < many.level
    assert few.bytes_sent < many.bytes_sent
    field, world = F127, World(2)
    pairs = [(drawn(field, 6, 5), coins().stream().bounded(field, 40, (5, 4))) for _ in range(2)]
    one, other = world.products(ring, few, [[pair] for pair in pairs])
    expected = field.add(field.matmul(pairs[0][0], pairs[1][1]), field.matmul(pairs[1][0], pairs[0][1]))
    assert field.equal(field.add(one, other), expected).all()


# ---- blocks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", [F127, F61], ids=str)
@pytest.mark.parametrize("shape", [(31, 569, 31), (1000, 100, 1), (1, 100, 1000), (31, 31, 31), (40, 2, 3000)])
def test_layout_fits_and_is_the_same_from_both_sides(field: Field, shape: tuple[int, int, int]) -> None:
    found = layout(field, shape, field.bits, 50)
    assert found is not None
    ring, plan = found
    assert math.prod(plan.block) <= ring.degree
    assert (
        ring.level(50 if not plan.flipped else field.bits, shape[1] * plan.block[2], shape[0] * shape[2]) == plan.level
    )
    turned = layout(field, shape[::-1], 50, field.bits)
    assert turned is not None
    assert turned[1].bytes_sent == plan.bytes_sent


def test_layout_has_the_fewest_bytes() -> None:
    ring = RINGS[F127]
    for shape in ((9, 20, 7), (30, 2, 3), (1, 64, 8)):
        least = math.inf
        for rows, inner, columns in (shape, shape[::-1]):
            for r in range(1, rows + 1):
                for c in range(1, columns + 1):
                    for h in range(1, min(inner, N // (r * c)) + 1):
                        inputs = -(-rows // r) * -(-inner // h)
                        outputs = -(-rows // r) * -(-columns // c)
                        sent = 32 + 6 * N * (7 * inputs + 3 * outputs) + 18 * rows * columns
                        least = min(least, sent)
        plan = layout_over(ring, shape, 127, 127)
        assert plan is not None
        assert plan.bytes_sent == least


def test_no_layout_where_there_is_no_way() -> None:
    assert layout(F127, (0, 5, 5), 127, 127) is None
    assert layout(F127, (5, 0, 5), 127, 127) is None
    assert layout_over(Ring(F127, N, PRIMES[:5], 3), (5, 5, 5), 127, 127) is None
    large = layout(F61, (1000, 1000, 1000), 61, 61)
    assert large is not None
    assert large[0] is rings_of(F61)[1]


def test_states_its_cost() -> None:
    ring, shape = RINGS[F127], (20, 30, 11)
    plan = layout_over(ring, shape, 127, 127)
    assert plan is not None
    world = check(ring, plan, 3)
    key = 32 + 7 * N * 6
    for frm in range(3):
        for to in range(3):
            sent = Counter({"key": 0})
            for message in world.network.log:
                if (message.frm, message.to) == (frm, to):
                    sent["key" if "/key." in message.step else "product"] += len(message.data)
            assert sent == ({"key": key, "product": plan.bytes_sent} if frm != to else {"key": 0})
    assert max(len(message.data) for message in world.network.log) <= 240 * 1024


# ---- keys and randomness --------------------------------------------------------------------------------------------


def test_products_at_once_share_one_key() -> None:
    """Both begin several products together: keys go once each way, whatever arrives first."""
    ring, field = RINGS[F127], F127
    plan = layout_over(ring, (4, 5, 6), 127, 127)
    assert plan is not None
    world = World(2)
    jobs = [[(drawn(field, 4, 5), drawn(field, 5, 6)) for _ in range(5)] for _ in range(2)]
    results = world.products(ring, plan, jobs)
    for n in range(5):
        (a, b), (c, d) = jobs[0][n], jobs[1][n]
        expected = field.add(field.matmul(a, d), field.matmul(c, b))
        assert field.equal(field.add(results[n], results[5 + n]), expected).all()
    keys = Counter(message.frm for message in world.network.log if "/key." in message.step)
    assert keys == {0: 1, 1: 1}


def test_no_randomness_is_used_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each secret stream is opened once, in a run of several products with their keys; each public seed is new."""
    opened_streams: list[tuple[bytes, str]] = []
    stream = Prg.stream

    def noting(self: Prg, label: str, position: int = 0) -> Any:
        opened_streams.append((self._seed, label))
        return stream(self, label, position)

    monkeypatch.setattr(Prg, "stream", noting)
    ring = RINGS[F61]
    plan = Layout(False, (4, 9, 6), (2, 5, 4), 4, 0)
    world = World(3)
    jobs = [[(drawn(F61, 4, 9), drawn(F61, 9, 6)) for _ in range(2)] for _ in range(3)]
    world.products(ring, plan, jobs)
    secret = [pair for pair in opened_streams if pair[1].startswith("coins")]
    assert len(set(secret)) == len(secret)
    public = Counter(pair for pair in opened_streams if pair[1].startswith("polynomial"))
    # Ciphertexts: 4 in each of 6 products, expanded at all three; keys: twice at their owner, once at the others.
    assert sorted(public.values()) == [3] * 24 + [4] * 3
    answers = [bytes(message.data) for message in world.network.log if "/answer" in message.step]
    assert len({answer[:64] for answer in answers}) == len({answer[-64:] for answer in answers}) == len(answers)


def test_summands_are_uniform_to_the_eye() -> None:
    """The same product of zeros twice: no summand is the same, none is small."""
    ring, field = RINGS[F127], F127
    plan = layout_over(ring, (3, 3, 3), 127, 127)
    assert plan is not None
    zeros = field.zeros((3, 3))
    found = [v for summand in World(2).products(ring, plan, [[(zeros, zeros)]] * 2) for v in field.decode(summand).flat]
    assert len(set(map(int, found))) == 18
    assert all(abs(int(v)) > 1 << 80 for v in found)


# ---- faults ---------------------------------------------------------------------------------------------------------


def faulty(part: str, change: Any) -> PeerError:
    """Run a product in which party 1's message of one kind is changed on its way; return what party 0 raises."""

    def tamper(message: Message) -> list[Message]:
        if message.frm == 1 and part in message.step:
            return [message._replace(data=change(bytes(message.data)))]
        return [message]

    ring = RINGS[F127]
    plan = layout_over(ring, (5, 60, 5), 127, 127)
    assert plan is not None
    world = World(2, tamper)
    pair = drawn(F127, 5, 60), drawn(F127, 60, 5)

    async def both() -> BaseException:
        async with asyncio.timeout(10):
            other = asyncio.create_task(world.product(1, ring, plan, *pair))
            try:
                await world.product(0, ring, plan, *pair)
            except PeerError as error:
                return error
            finally:
                other.cancel()
                await asyncio.gather(other, return_exceptions=True)
        raise AssertionError("nothing was noticed")

    error = asyncio.run(both())
    assert isinstance(error, PeerError)
    return error


@pytest.mark.parametrize("part", ["/key", "/ciphertext 0", "/ciphertext 1", "/answer 0"])
def test_what_is_no_residue_is_refused(part: str) -> None:
    error = faulty(part, lambda data: data[:-6] + b"\xff" * 6)
    assert error.rank == 1
    assert error.step is not None
    assert part in error.step
    assert "party 1" in str(error)
    assert part in str(error)


@pytest.mark.parametrize("part", ["/key", "/ciphertext 0", "/answer 0"])
@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b""])
def test_other_lengths_are_refused(part: str, change: Any) -> None:
    error = faulty(part, change)
    assert error.rank == 1
    assert error.step is not None
    assert part in error.step


# ---- behind the preprocessing ---------------------------------------------------------------------------------------


def kinds(done: Run) -> Counter[str]:
    return Counter(m.step.split("/")[-1].split(" ")[0] for m in done.sent if " " in m.step.split("/")[-1])


@pytest.mark.parametrize(("parties", "field"), [(2, F127), (3, F61)])
def test_matrix_products_of_shares(parties: int, field: Field) -> None:
    rng = np.random.default_rng(7)
    x, y, z = rng.integers(-99, 99, (20, 30)), rng.integers(-99, 99, (30, 25)), rng.integers(-99, 99, (25,))

    async def program(party: Party, _: Any) -> Any:
        a, b, c = await shares_of(party, [x, y, z], 99, field)
        product = await matmul(party.at("one"), a, b)
        return await open_(party, product), await open_(party.at("two"), await matmul(party.at("three"), b, c))

    done = run(program, parties=parties, preprocessing="ot")
    for first, second in done.results:
        np.testing.assert_array_equal(first, x @ y)
        np.testing.assert_array_equal(second, y @ z)
    assert {"ciphertext", "answer"} <= set(kinds(done))


def test_small_products_take_transfers() -> None:
    async def program(party: Party, _: Any) -> Any:
        a, b = await shares_of(party, [np.eye(3, dtype=int), np.arange(9).reshape(3, 3)], 9)
        return await open_(party, await matmul(party, a, b))

    done = run(program, parties=2, preprocessing="ot")
    np.testing.assert_array_equal(same(done.results), np.arange(9).reshape(3, 3))
    assert not {"ciphertext", "answer"} & set(kinds(done))


@pytest.mark.parametrize(
    ("left", "right"),
    [((40,), (40,)), ((40,), (40, 30)), ((30, 40), (40,)), ((3, 10, 40), (40, 10)), ((3, 10, 40), (3, 40, 9)),
     ((10, 40), (2, 40, 9)), ((2, 1, 8, 9), (3, 9, 7)), ((2, 10, 40), (40,)), ((40,), (2, 40, 9))],
)  # fmt: skip
def test_all_shapes_of_matmul(left: tuple[int, ...], right: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    ring, field = RINGS[F61], F61
    monkeypatch.setattr(matrices, "rings_of", lambda field: (ring,))
    pairs = [(drawn(field, *left), drawn(field, *right)) for _ in range(2)]
    shape = np.matmul(np.zeros(left), np.zeros(right)).shape
    world = World(2)

    async def one(rank: int) -> Any:
        products = matrix_products(field, *pairs[rank], shape, field.bits, field.bits)
        assert products is not None
        scope = world.parties[rank].at("product")
        return products.bytes_sent, await products.cross(scope, world.lattices[rank], coins())

    async def both() -> Any:
        return await asyncio.gather(one(0), one(1))

    (sent, first), (_, second) = asyncio.run(both())
    expected = field.add(field.matmul(pairs[0][0], pairs[1][1]), field.matmul(pairs[1][0], pairs[0][1]))
    assert first.shape == expected.shape
    assert field.equal(field.add(first, second), expected).all()
    assert sent == sum(len(m.data) for m in world.network.log if m.frm == 0 and "/key" not in m.step)


def test_opened_product_of_a_stack() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(-9, 9, (2, 12, 16)), rng.integers(-9, 9, (2, 16, 11))
    np.testing.assert_array_equal(opened(matmul, x, y, bound=9, parties=2, preprocessing="ot"), x @ y)
