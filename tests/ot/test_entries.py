"""Products entry by entry: right for all values and shapes, at the stated cost, hidden, checked on arrival."""

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from mpc import F61, F127, GF, Field, PeerError, _twin_lattice, matmul, multiply, open_
from mpc.errors import for_peers
from mpc.field import FieldArray
from mpc.ot import entries
from mpc.ot.entries import EntryProducts, entry_products
from mpc.ot.lattice import OwnKey, PublicKey
from mpc.ot.matmul import MatrixProducts
from mpc.ot.plans import Plan, by_encryption
from mpc.ot.rings import PRIMES, Coins, Ring, rings_of
from mpc.ot.slots import Slots, slots_of
from mpc.party import Party
from mpc.prg import SEED_BYTES
from mpc.transport import CHUNK_BYTES
from mpc.words import W64
from tests.mpc.support import Message, run, same, shares_of
from tests.ot.test_lattice import coins, integers, noise_of
from tests.ot.test_matrices import World
from tests.ot.test_slots import edged

N = 256
EACH = N // 2
RINGS = {F127: Ring(F127, N, PRIMES, 3), F61: Ring(F61, N, PRIMES[:5], 2)}  # too small for security
FIELDS = pytest.mark.parametrize("field", [F127, F61], ids=str)


def arranged(ring: Ring, left: FieldArray, right: FieldArray, result: tuple[int, ...] | None = None) -> EntryProducts:
    shape = np.broadcast_shapes(left.shape, right.shape)
    level = ring.level(ring.field.bits, ring.degree, ring.degree)
    assert level is not None
    return EntryProducts(ring, level, left, right, shape, shape if result is None else result)


def crossed(world: World, jobs: Sequence[EntryProducts]) -> list[FieldArray]:
    async def everybody() -> list[FieldArray]:
        seats = zip(world.parties, world.lattices, jobs, strict=True)
        return list(await asyncio.gather(*(job.cross(p.at("product"), keys, coins()) for p, keys, job in seats)))

    return asyncio.run(everybody())


def check(ring: Ring, pairs: Sequence[tuple[FieldArray, FieldArray]], world: World | None = None) -> World:
    """Multiply everybody's arrays with everybody else's, and compare with the field's products."""
    field, world = ring.field, world or World(len(pairs))
    summands = crossed(world, [arranged(ring, left, right) for left, right in pairs])
    total = expected = field.zeros(summands[0].shape)
    for i, (left, _) in enumerate(pairs):
        total = field.add(total, summands[i])
        for j, (_, right) in enumerate(pairs):
            if i != j:
                expected = field.add(expected, field.mul(left, right))
    assert field.equal(total, expected).all()
    return world


# ---- right ----------------------------------------------------------------------------------------------------------


@FIELDS
@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("count", [1, EACH - 1, EACH, EACH + 1, 7 * EACH + 5])
def test_products_are_exact(field: Field, size: int, count: int, rng: np.random.Generator) -> None:
    check(RINGS[field], [(edged(field, rng, count), edged(field, rng, count)) for _ in range(size)])


@FIELDS
def test_extremes(field: Field) -> None:
    """All entries alike, at the edges of the field."""
    edges = [field.encode([value] * EACH) for value in (0, 1, -1, field.half, -field.half)]
    for left in edges:
        check(RINGS[field], [(left, edges[2]), (edges[3], left)])


@FIELDS
@pytest.mark.parametrize(("left", "right"), [((40, 1), (1, 9)), ((300,), ()), ((2, 1, 70), (3, 1)), ((5, 60), (5, 60))])
def test_shapes_that_broadcast(
    field: Field, left: tuple[int, ...], right: tuple[int, ...], rng: np.random.Generator
) -> None:
    check(RINGS[field], [(edged(field, rng, *left), edged(field, rng, *right)) for _ in range(2)])


def test_arrays_that_lie_elsewhere(rng: np.random.Generator) -> None:
    wide = [edged(F127, rng, 40, 30) for _ in range(4)]
    check(RINGS[F127], [(wide[0].T[::2], wide[1][:30, :15].T[:, :1]), (wide[2].T[::2], wide[3][:30, :15].T[:, :1])])


@FIELDS
def test_twins(field: Field, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """One party without C."""
    c, twin = RINGS[field], Ring(field, N, RINGS[field].primes, RINGS[field].kept, _twin_lattice)
    pairs = [(edged(field, rng, EACH + 3), edged(field, rng, EACH + 3)) for _ in range(2)]
    plain = Slots(field, N)
    plain.__dict__["_loops"] = None
    turns = [False, True]
    monkeypatch.setattr(entries, "slots_of", lambda field, degree: plain if turns.pop() else slots_of(field, degree))
    first, second = crossed(World(2), [arranged(twin, *pairs[0]), arranged(c, *pairs[1])])
    assert not turns
    expected = field.add(field.mul(pairs[0][0], pairs[1][1]), field.mul(pairs[1][0], pairs[0][1]))
    assert field.equal(field.add(first, second), expected).all()


@FIELDS
def test_real_rings(field: Field, rng: np.random.Generator) -> None:
    left, right = (edged(field, rng, 8193) for _ in range(2))
    job = entry_products(field, left, right, left.shape)
    assert job is not None
    assert job.ring in rings_of(field)
    check(job.ring, [(left, right), (right[::-1], left)])


# ---- who learns what ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("field", "bits"), [(F127, 48), (F61, 84)])
def test_a_batch_tells_less_than_stated(field: Field, bits: int) -> None:
    """Distance of the noise of all coefficients from one that depends on nothing: by the proven bounds."""
    job = entry_products(field, field.zeros(1), field.zeros(1), (1,))
    assert job is not None
    ring = job.ring
    each = Fraction(ring.noise(field.bits, ring.degree), 2 << ring.flood_bits(job.level))
    assert each * ring.degree < Fraction(1, 1 << bits)


@FIELDS
def test_noise_of_products_is_below_its_bound(
    field: Field, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there before the flood; with polynomials of the largest coefficients."""
    ring, keys, seen = RINGS[field], [], []
    answer, create = PublicKey.answer, OwnKey.__init__

    def made(self: OwnKey, ring: Ring, ours: Coins) -> None:
        create(self, ring, ours)
        keys.append(self)

    def noted(self: PublicKey, c0: Any, c1: Any, places: Any, mask: Any, ours: Coins) -> Any:
        seen.append((self, c0, c1))
        return answer(self, c0, c1, places, mask, ours)

    monkeypatch.setattr(OwnKey, "__init__", made)
    monkeypatch.setattr(PublicKey, "answer", noted)
    slots = slots_of(field, N)
    ends = field.encode([(-1) ** int(k) * field.half for k in rng.integers(0, 2, N)])
    real, imaginary = slots.values(ends)
    check(ring, [(real, imaginary), (field.neg(imaginary), real)])
    (public, c0, c1), *_ = seen
    key = next(key for key in keys if key.public.seed == public.seed)
    message = slots.polynomial(_times(field, slots.values(ends), slots.values(ends)))
    assert max(map(abs, noise_of(ring, key, c0, c1, message))) <= ring.noise(field.bits, N)


def _times(field: Field, x: FieldArray, y: FieldArray) -> FieldArray:
    real = field.sub(field.mul(x[0], y[0]), field.mul(x[1], y[1]))
    imaginary = field.add(field.mul(x[0], y[1]), field.mul(x[1], y[0]))
    product = field.zeros(x.shape)
    product[0], product[1] = real, imaginary
    return product


@FIELDS
def test_all_coefficients_of_an_answer_are_masked(
    field: Field, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Imaginary parts and slots that nobody needs, too: what is decrypted is a product plus a fresh uniform mask."""
    masks: list[FieldArray] = []
    decrypted: list[FieldArray] = []
    answer, decrypt = PublicKey.answer, OwnKey.decrypt

    def answered(self: PublicKey, c0: Any, c1: Any, places: Any, mask: Any, ours: Coins) -> Any:
        assert places == slice(None)
        masks.append(mask)
        return answer(self, c0, c1, places, mask, ours)

    def noted(self: OwnKey, *halves: Any) -> FieldArray:
        decrypted.append(decrypt(self, *halves))
        return decrypted[-1]

    monkeypatch.setattr(PublicKey, "answer", answered)
    monkeypatch.setattr(OwnKey, "decrypt", noted)
    pairs = [(edged(field, rng, 3), edged(field, rng, 3)) for _ in range(2)]
    check(RINGS[field], pairs)
    ((a, b), (c, d)), slots = pairs, slots_of(field, N)
    (mask,), (message,) = masks, decrypted
    assert len({0, *integers(field, mask)}) == N + 1  # as uniform ones are, but for a chance of 2^-45
    x, y = field.zeros((2, EACH)), field.zeros((2, EACH))
    x[0, :3], x[1, :3], y[0, :3], y[1, :3] = a, b, d, field.neg(c)
    expected = field.add(slots.polynomial(_times(field, x, y)), mask)
    assert field.equal(message, expected).all()


def test_masks_and_ciphertexts_are_fresh(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among parties and batches: no seed of a ciphertext and no mask comes twice."""
    masks: list[bytes] = []
    answer = PublicKey.answer

    def noted(self: PublicKey, c0: Any, c1: Any, places: Any, mask: Any, ours: Coins) -> Any:
        masks.append(mask.tobytes())
        return answer(self, c0, c1, places, mask, ours)

    monkeypatch.setattr(PublicKey, "answer", noted)
    same_of_all = edged(F61, rng, EACH).repeat(6)
    world = check(RINGS[F61], [(same_of_all, same_of_all)] * 3)
    assert len(masks) == len(set(masks)) == 6 * 3
    seeds = {m.data[:SEED_BYTES] for m in world.network.log if "ciphertext" in m.step}
    assert len(seeds) == 6 * 2  # two of three encrypt for those that stand after them, one ciphertext for all


# ---- cost -----------------------------------------------------------------------------------------------------------


@FIELDS
@pytest.mark.parametrize("size", [2, 3])
def test_bytes_and_turns(field: Field, size: int, rng: np.random.Generator) -> None:
    batches, ring = 2 * size, RINGS[field]
    pairs = [(edged(field, rng, batches * EACH), edged(field, rng, batches * EACH)) for _ in range(size)]
    job = arranged(ring, *pairs[0])
    assert job.batches == batches
    log = check(ring, pairs).network.log
    key = SEED_BYTES + len(ring.primes) * N * 6
    sent = Counter[tuple[int, int]]()
    for m in log:
        sent[m.frm, m.to] += len(m.data)
        assert len(m.data) <= CHUNK_BYTES
    for i in range(size):
        for j in range(i):
            assert sent[i, j] + sent[j, i] == batches * job.bytes_of_batch + 2 * key
    # Turns go around: all encrypt, answer and send as often as others.
    for what in ("ciphertext", "answer"):
        count = Counter(m.frm for m in log if what in m.step)
        assert set(count.values()) == {batches * (size - 1) // 2}
    total = sum(len(m.data) for m in log if "key" not in m.step)
    assert total == job.bytes_sent * size * (size - 1)


def test_bytes_of_an_entry() -> None:
    """As documented: of full batches, half of what both directions of a pair take."""
    for field, expected in ((F127, 78), (F61, 54)):
        zeros = field.zeros(1 << 16)
        job = entry_products(field, zeros, zeros, zeros.shape)
        assert job is not None
        assert job.bytes_sent / zeros.size == pytest.approx(expected, rel=1e-3)


def test_few_batches_are_under_way(rng: np.random.Generator) -> None:
    """Nobody encrypts far ahead of answers."""
    count = 40 * EACH
    world = check(RINGS[F61], [(edged(F61, rng, count), edged(F61, rng, count)) for _ in range(2)])
    open_batches = most = 0
    for m in world.network.log:
        if m.frm == 0 and "ciphertext" in m.step:
            open_batches += 1
        if m.frm == 1 and "answer" in m.step:
            open_batches -= 1
        most = max(most, open_batches)
    assert open_batches == 0
    assert 1 < most <= entries._AHEAD


# ---- what arrives ---------------------------------------------------------------------------------------------------


def cut(m: Message) -> list[Message]:
    return [m._replace(data=m.data[:-1])]


def no_residue(m: Message) -> list[Message]:
    return [m._replace(data=m.data[:SEED_BYTES] + b"\xff" * (len(m.data) - SEED_BYTES))]


@pytest.mark.parametrize("what", ["key", "ciphertext", "answer"])
@pytest.mark.parametrize("harm", [cut, no_residue])
def test_malformed_messages(what: str, harm: Any, rng: np.random.Generator) -> None:
    def tamper(m: Message) -> Sequence[Message]:
        # In the first batch party 0 asks.
        return harm(m) if f"/{what}" in m.step and m.frm == (1 if what == "answer" else 0) else [m]

    ring, world = RINGS[F127], World(2, tamper)
    jobs = [arranged(ring, edged(F127, rng, 9), edged(F127, rng, 9)) for _ in range(2)]

    async def one(rank: int) -> Exception | None:
        party = world.parties[rank]
        try:
            await jobs[rank].cross(party.at("product"), world.lattices[rank], coins())
        except PeerError as error:
            await party.transport.abort(type(error).__name__, for_peers(error))
            return error
        return None

    async def everybody() -> list[Exception | None]:
        return list(await asyncio.gather(one(0), one(1)))

    outcomes = asyncio.run(everybody())
    guilty = 1 if what == "answer" else 0
    error = outcomes[1 - guilty]
    assert isinstance(error, PeerError)
    assert error.rank == guilty
    assert what in error.step


# ---- the choice -----------------------------------------------------------------------------------------------------


def planned(field: Field, x: tuple[int, ...], y: tuple[int, ...], bits: int = 0, operation: Any = "multiply") -> Plan:
    return Plan(field, field.zeros(x), field.zeros(y), (bits or field.bits,) * 2, operation)


def test_the_cheapest_way_is_chosen() -> None:
    for field in (F127, F61):
        assert by_encryption(planned(field, (100,), (100,))) is None
        assert isinstance(by_encryption(planned(field, (8192,), (8192,))), EntryProducts)
        assert isinstance(by_encryption(planned(field, (300, 1), (300,))), EntryProducts)
        assert by_encryption(planned(field, (8192,), (8192,), 1)) is None
        assert by_encryption(planned(field, (0,), (0,))) is None
    for field, size in ((GF(7), 100_000), (W64, 1000)):
        assert by_encryption(planned(field, (size,), (size,))) is None
    assert isinstance(by_encryption(planned(F127, (100, 100), (100, 100), operation="matmul")), MatrixProducts)
    # Many short products: one of matrices takes a ciphertext of its own.
    assert isinstance(by_encryption(planned(F127, (4000, 1, 3), (4000, 3, 1), operation="matmul")), EntryProducts)


@pytest.mark.parametrize("parties", [2, 3])
def test_products_of_shares(parties: int) -> None:
    values = np.arange(-2500.0, 2500.0)

    async def program(party: Party, _: Any) -> Any:
        x, y = await shares_of(party, [values, values[::-1]], 5000)
        z = await multiply(party, x, y)
        sums = await matmul(party, x.reshape(2500, 1, 2), y.reshape(2500, 2, 1))
        return await open_(party, z, sums)

    done = run(program, parties=parties, preprocessing="ot", timeout_seconds=60)
    z, sums = (same(list(results)) for results in zip(*done.results, strict=True))
    np.testing.assert_array_equal(z, values * values[::-1])
    np.testing.assert_array_equal(sums.reshape(-1), (values * values[::-1]).reshape(-1, 2).sum(axis=1))
    costs = [party.costs.by_step for party in done.parties]
    lattice = [steps["product/lattice"] for steps in costs]
    assert {cost.rounds for cost in lattice} == {2 * 2}
    job = entry_products(F127, F127.zeros(1), F127.zeros(1), (1,))
    assert job is not None
    key = SEED_BYTES + 7 * 16384 * 6  # of the one who stands first in the only batch of each product
    assert sum(cost.bytes_sent for cost in lattice) == math.comb(parties, 2) * (2 * job.bytes_of_batch + key)
