"""Polynomials with errors: arithmetic against exact integers, noise against its bounds, and what an answer tells."""

import math
import secrets
from collections import Counter
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mpc import F61, F127, Field, _twin_lattice
from mpc.ot.lattice import Coins, OwnKey, PublicKey, Ring
from mpc.ot.rings import PRIMES, STATISTICAL_BITS, rings_of
from mpc.prg import Prg

N = 256
LARGEST = {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}  # the standard's table, 128 bits


@pytest.fixture(params=["c", "numpy"])
def on(request: pytest.FixtureRequest) -> ModuleType:
    if request.param == "numpy":
        return _twin_lattice
    found: ModuleType = pytest.importorskip("mpc._lattice")
    return found


@pytest.fixture(params=[F127, F61], ids=str)
def ring(request: pytest.FixtureRequest, on: ModuleType) -> Ring:
    """A ring too small for security, with as many primes as the real one."""
    return Ring(F127, N, PRIMES, 3, on) if request.param is F127 else Ring(F61, N, PRIMES[:4], 2, on)


def coins() -> Coins:
    return Coins(secrets.token_bytes(32))


def integers(field: Field, x: Any) -> list[int]:
    return [int(v) for v in field.decode(x)]


def wrapped(a: list[int], b: list[int]) -> list[int]:
    """The product modulo ``x^n + 1``."""
    n = len(a)
    out = [0] * n
    for i, u in enumerate(a):
        if u:
            for j, v in enumerate(b):
                if i + j < n:
                    out[i + j] += u * v
                else:
                    out[i + j - n] -= u * v
    return out


def joined(ring: Ring, x: np.ndarray) -> list[int]:
    """Integers between -q/2 and q/2 from residues ``(level, n)``."""
    primes = ring.primes[: len(x)]
    whole = math.prod(primes)
    weights = [whole // q * pow(whole // q, -1, q) for q in primes]
    found = [sum(int(r) * w for r, w in zip(column, weights, strict=True)) % whole for column in x.T]
    return [v - whole if 2 * v > whole else v for v in found]


def edged(rng: np.random.Generator, limit: int, *shape: int) -> np.ndarray:
    """Numbers below a limit, many of them at its edges."""
    values = rng.integers(0, limit, shape, dtype=np.uint64)
    return np.where(rng.random(shape) < 0.3, rng.choice(np.array([0, 1, limit - 1], np.uint64), shape), values)


# ---- loops ----------------------------------------------------------------------------------------------------------


def test_transforms_multiply(on: ModuleType, rng: np.random.Generator) -> None:
    ring = Ring(F127, 64, PRIMES, 3, on)
    x, y = (np.stack([edged(rng, q, 64) for q in PRIMES]) for _ in range(2))
    product = ring.backward(ring.multiply_add(ring.forward(x), ring.forward(y), np.zeros_like(x)))
    for row, a, b, q in zip(product, x, y, PRIMES, strict=True):
        assert row.tolist() == [v % q for v in wrapped(a.tolist(), b.tolist())]


@pytest.mark.parametrize("degree", [64, 128, 512, 2048])
def test_transforms_come_back_from_lazy_numbers(on: ModuleType, rng: np.random.Generator, degree: int) -> None:
    """Numbers up to the bounds that the loops claim, and residues below the prime out of them."""
    ring = Ring(F127, degree, PRIMES[:2], 1, on)
    lazy = np.stack([edged(rng, 4 * q, degree) for q in ring.primes])
    moduli = ring.moduli[:, None]
    there = ring.forward(lazy)
    assert (there < moduli).all()
    assert np.array_equal(there, ring.forward(lazy % moduli))
    twice = there + moduli * rng.integers(0, 2, there.shape).astype(np.uint64)
    assert np.array_equal(ring.backward(twice), lazy % moduli)


def test_loops_are_the_same(rng: np.random.Generator) -> None:
    c = pytest.importorskip("mpc._lattice")
    moduli = np.array(PRIMES, np.uint64)
    x, y, z = rows = [edged(rng, min(PRIMES), 7, 1000) for _ in range(3)]
    assert np.array_equal(c.multiply_add(x, y, z, moduli), _twin_lattice.multiply_add(x, y, z, moduli))
    limbs = edged(rng, 1 << 32, 1000, 7).astype(np.uint32)
    for last in (0, 6):
        others, inverses = np.delete(moduli, last), [pow(PRIMES[last], -1, q) for q in PRIMES if q != PRIMES[last]]
        numbers: list[Any] = [rows[0][:6], rows[1][0], others, np.uint64(PRIMES[last]), np.array(inverses, np.uint64)]
        assert np.array_equal(c.drop(*numbers), _twin_lattice.drop(*numbers))
    offsets = moduli - np.uint64(1)
    assert np.array_equal(c.residues(limbs, moduli, offsets), _twin_lattice.residues(limbs, moduli, offsets))


def test_multiply_add_is_exact(on: ModuleType, rng: np.random.Generator) -> None:
    for q in PRIMES:
        x, y, z = (edged(rng, q, 2000) for _ in range(3))
        found = on.multiply_add(x, y, z, np.uint64(q))
        expected = [(a * b + c) % q for a, b, c in zip(x.tolist(), y.tolist(), z.tolist(), strict=True)]
        assert found.tolist() == expected
        wide = np.zeros((2000, 3), np.uint64)
        wide[:, 1] = x
        assert on.multiply_add(wide[:, 1], y, z, np.uint64(q)).tolist() == expected


@pytest.mark.parametrize("length", [1, 2, 4, 7])
def test_residues_are_exact(on: ModuleType, rng: np.random.Generator, length: int) -> None:
    limbs = edged(rng, 1 << 32, 600, length).astype(np.uint32)
    values = [sum(int(limb) << 32 * k for k, limb in enumerate(row)) for row in limbs]
    for q, offset in zip(PRIMES[:3], (0, 1, PRIMES[2] - 1), strict=True):
        assert on.residues(limbs, np.uint64(q), np.uint64(offset)).tolist() == [(v + offset) % q for v in values]


def test_transforms_refuse_other_lengths(on: ModuleType) -> None:
    for length in (0, 1, 32, 96):
        x = np.zeros(length, np.uint64)
        for transform in (on.forward, on.backward):
            with pytest.raises(ValueError, match="2\\^k"):
                transform(x, x, x.astype(np.float64), np.uint64(PRIMES[0]))


# ---- parameters -----------------------------------------------------------------------------------------------------


def test_primes_have_roots_of_unity() -> None:
    for q in PRIMES:
        assert q % (1 << 15) == 1
        assert 1 << 47 < q < 1 << 48
        # Pocklington: 2^15 (q - 1) / 2^15 with a factored part of 2^15 is too small; Miller-Rabin by 12 bases decides.
        odd, twos = q - 1, 0
        while odd % 2 == 0:
            odd, twos = odd // 2, twos + 1
        for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
            powers = [pow(base, odd << k, q) for k in range(twos)]
            assert powers[0] == 1 or q - 1 in powers
    assert len(set(PRIMES)) == len(PRIMES)


@pytest.mark.parametrize("real", [*rings_of(F127), *rings_of(F61)], ids=repr)
def test_parameters_are_secure_and_leave_room(real: Ring) -> None:
    assert math.prod(real.primes).bit_length() <= LARGEST[real.degree]
    p, answers = real.field.modulus, math.prod(real.primes[: real.kept])
    for level in range(real.kept + 1, len(real.primes) + 1):
        whole, flood = math.prod(real.primes[:level]), 1 << max(0, real.flood_bits(level))
        assert 4 * p * flood <= whole
        # In units of p / q', all noise of an answer: flood, the rest, and rounding of both halves.
        rest = Fraction(flood, 1 << (STATISTICAL_BITS - 1)) + flood
        total = rest * answers / whole + (real.degree + 1) * (Fraction(1, 2) + Fraction(1, 1 << 46))
        assert total * p / answers < Fraction(2, 5)


def test_level_is_the_least_that_hides() -> None:
    real = rings_of(F127)[0]
    for bits, terms, entries in [(127, 1, 1), (127, 1 << 14, 961), (84, 961, 961), (40, 31, 31), (127, 1 << 36, 1)]:
        level = real.level(bits, terms, entries)
        assert level is not None
        limit = entries * real.noise(bits, terms) << STATISTICAL_BITS
        assert limit <= 2 << real.flood_bits(level)
        assert level == real.kept + 1 or limit > 2 << real.flood_bits(level - 1)
    assert real.level(127, 1 << 40, 1 << 20) is None


# ---- conversions ----------------------------------------------------------------------------------------------------


def test_encoding_is_rounded_to_nearest(ring: Ring) -> None:
    field, level = ring.field, len(ring.primes)
    elements = coins().stream().elements(field, (40,))
    elements[:5] = field.encode([0, 1, -1, field.half, -field.half])
    whole = math.prod(ring.primes)
    expected = [round(Fraction(whole * v, field.modulus)) for v in integers(field, elements)]
    assert joined(ring, ring.encoded(elements, level)) == expected
    assert joined(ring, ring.lifted(elements, level)) == integers(field, elements)


def test_rounding_back_is_exact_up_to_near_ties(ring: Ring) -> None:
    p, primes = ring.field.modulus, ring.primes[: ring.kept]
    whole = math.prod(primes)
    messages = [0, 1, p - 1, p // 2, *(secrets.randbelow(p) for _ in range(30))]
    for share in (Fraction(-2, 5), Fraction(0), Fraction(2, 5)):
        values = [round((m + share) * whole / p) % whole for m in messages]
        residues = np.array([[v % q for v in values] for q in primes], np.uint64)
        assert [v % p for v in integers(ring.field, ring.rounded(residues))] == messages


def test_dropping_primes_rounds(ring: Ring) -> None:
    whole, kept = math.prod(ring.primes), math.prod(ring.primes[: ring.kept])
    values = [0, 1, whole - 1, whole // 2, *(secrets.randbelow(whole) for _ in range(40))]
    residues = np.array([[v % q for v in values] for q in ring.primes], np.uint64)
    dropped = ring.dropped(residues)
    assert (dropped < ring.moduli[: ring.kept, None]).all()
    for value, found in zip(values, joined(ring, dropped), strict=True):
        off = (found - Fraction(value * kept, whole)) % kept
        assert min(off, kept - off) <= Fraction(1, 2) + Fraction(1, 1 << 46)


def test_wire_form_comes_back_and_is_checked(ring: Ring) -> None:
    x = ring.uniform(bytes(32), 1, 2)
    x[:, :2] = [[0, ring.primes[0] - 1], [0, ring.primes[1] - 1]]
    data = ring.to_bytes(x)
    assert len(data) == 2 * N * 6
    assert np.array_equal(ring.from_bytes(data, 2), x)
    for place, bad in ((0, ring.primes[0]), (2 * N - 1, (1 << 48) - 1)):
        altered = bytearray(data)
        altered[6 * place : 6 * place + 6] = bad.to_bytes(6, "little")
        with pytest.raises(ValueError, match="not below"):
            ring.from_bytes(altered, 2)


# ---- randomness -----------------------------------------------------------------------------------------------------


def test_draws_have_their_distributions() -> None:
    drawn = coins()
    errors = drawn.errors(200_000)
    assert abs(errors).max() <= 21
    assert abs(errors.mean()) < 0.05
    assert abs(errors.var() - 10.5) < 0.25
    counts = Counter(drawn.ternary(300_000).tolist())
    assert set(counts) == {-1, 0, 1}
    assert all(abs(count - 100_000) < 2000 for count in counts.values())


def test_uniform_polynomials_are_residues_and_follow_from_the_seed(ring: Ring) -> None:
    seed, level = secrets.token_bytes(32), len(ring.primes)
    x = ring.uniform(seed, 3, level)
    assert (x < ring.moduli[:, None]).all()
    assert np.array_equal(x, ring.uniform(seed, 3, level))
    assert np.array_equal(x[0, :10], ring.uniform(seed, 3, 2)[0, :10])
    assert not np.array_equal(x, ring.uniform(seed, 4, level))
    assert abs(x.astype(np.float64).mean() / 2**47 - 1) < 6 / math.sqrt(3 * x.size)


def test_uniform_polynomials_reject_what_is_no_residue(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = Ring(F127, 64, PRIMES[:1], 1, _twin_lattice)
    drawn = [np.full(64, (1 << 48) - 1, "<u8"), np.arange(64).astype("<u8")]

    class Fixed:
        def raw(self, count: int) -> np.ndarray:
            return drawn.pop(0).view(np.uint8)[:count]

    monkeypatch.setattr(Prg, "stream", lambda self, label: Fixed())
    assert ring.uniform(bytes(32), 0, 1)[0].tolist() == list(range(64))


def test_no_stream_is_opened_twice(monkeypatch: pytest.MonkeyPatch, ring: Ring) -> None:
    opened: list[tuple[bytes, str]] = []
    stream = Prg.stream

    def noting(self: Prg, label: str, position: int = 0) -> Any:
        opened.append((self._seed, label))
        return stream(self, label, position)

    ours = coins()
    monkeypatch.setattr(Prg, "stream", noting)
    key = OwnKey(ring, ours)
    level, seed = len(ring.primes), ours.seed()
    child = ours.child()
    for number in range(3):
        c0 = key.encrypt(ring.field.zeros(N), level, seed, number, ours)
        key.public.answer(c0, c0, np.arange(4), ring.field.zeros(4), child)
    secret = [pair for pair in opened if pair[1].startswith("coins")]
    assert len(secret) == len(set(secret)) == ours.opened + child.opened
    # The public polynomials: that of the key, twice (by the key and by its public half), then one for each ciphertext.
    public = Counter(pair for pair in opened if pair[1].startswith("polynomial"))
    assert sorted(public.values()) == [1, 1, 1, 2]


# ---- encryption -----------------------------------------------------------------------------------------------------


def noise_of(ring: Ring, key: OwnKey, c0: np.ndarray, c1: np.ndarray, message: Any) -> list[int]:
    """What stands beside the encoded message in a transformed ciphertext."""
    value = ring.backward(ring.multiply_add(c1, key._s[: len(c1)], c0))
    minus = ring.moduli[: len(c1), None] - ring.encoded(message, len(c1))
    return joined(ring, ring.add(value, minus))


def test_products_decrypt_and_noise_stays_below_its_bound(ring: Ring) -> None:
    """Largest entries on both sides; a sum of three products."""
    field, level, ours = ring.field, len(ring.primes), coins()
    key, seed = OwnKey(ring, ours), ours.seed()
    sums = np.zeros((2, level, N), np.uint64)
    expected = field.zeros(N)
    for number in range(3):
        signs = ours.ternary(2 * N).reshape(2, N)
        m, y = (field.scale_int(field.encode([field.half] * N), row) for row in signs)
        if number == 2:
            m = ours.stream().elements(field, (N,))
        c0 = key.encrypt(m, level, seed, number, ours)
        assert max(map(abs, noise_of(ring, key, c0, ring.uniform(seed, number, level), m))) <= 21
        both = np.stack([c0, ring.uniform(seed, number, level)])
        sums = ring.multiply_add(both, ring.forward(ring.lifted(y, level)), sums)
        expected = field.add(expected, field.encode(
            [v % field.modulus - (field.modulus if v % field.modulus > field.half else 0)
             for v in wrapped(integers(field, m), integers(field, y))]
        ))  # fmt: skip
    noise = max(map(abs, noise_of(ring, key, sums[0], sums[1], expected)))
    bound = ring.noise(field.bits, 3 * N)
    assert 2.0**-12 * bound < noise <= bound

    places = np.arange(0, N, 3)
    mask = ours.stream().elements(field, (len(places),))
    answer = key.public.answer(sums[0], sums[1], places, mask, ours)
    found = field.sub(key.decrypt(*answer, places), mask)
    assert field.equal(found, expected[places]).all()


def answered(ring: Ring, key: OwnKey, y: Any, ours: Coins) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Multiply an encryption of zeros; the noise of the answer, its c1, and the a of the ciphertext.

    Nothing is dropped, so that the noise is seen as it is.
    """
    level, seed = ring.kept, ours.seed()
    a = ring.uniform(seed, 0, level)
    factor = ring.forward(ring.lifted(y, level))
    c0 = key.encrypt(ring.field.zeros(N), level, seed, 0, ours)
    zeros = np.zeros_like(a)
    first, second = (ring.multiply_add(half, factor, zeros) for half in (c0, a))
    results, c1 = key.public.answer(first, second, np.arange(N), ring.field.zeros(N), ours)
    value = ring.backward(ring.multiply_add(ring.forward(c1), key._s, zeros))
    return joined(ring, ring.add(value, results)), c1, a


@pytest.fixture
def open_ring(on: ModuleType) -> Ring:
    return Ring(F127, N, PRIMES, len(PRIMES), on)


def test_noise_of_an_answer_does_not_depend_on_the_factor(open_ring: Ring) -> None:
    ring, ours = open_ring, coins()
    key, field = OwnKey(ring, ours), ring.field
    flood = 1 << ring.flood_bits(ring.kept)
    for y in (field.zeros(N), field.encode([field.half] * N)):
        noise = [v for _ in range(16) for v in answered(ring, key, y, ours)[0]]
        assert max(map(abs, noise)) <= flood + ring.noise(field.bits, N)
        cells = np.bincount([min(max((v + flood) * 64 // (2 * flood), 0), 63) for v in noise], minlength=64)
        expected = len(noise) / 64
        assert ((cells - expected) ** 2 / expected).sum() < 165  # chi-squared, 63 degrees: 1 in 10^10
        # What a factor adds is 2^-40 of a flood: far below what 4096 values, or any number that is sent, would show.
        assert abs(sum(noise)) / len(noise) < 6 * flood / math.sqrt(3 * len(noise))


def test_noise_without_a_flood_would_tell_the_factor(open_ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ring, "flooded", lambda self, count, level, coins: np.zeros((level, count), np.uint64))
    ring, ours = open_ring, coins()
    key, field = OwnKey(ring, ours), ring.field
    small, large = (
        max(map(abs, answered(ring, key, y, ours)[0])) for y in (field.zeros(N), field.encode([field.half] * N))
    )
    assert small < 42 * N + 1 < 1 << 100 < large


def test_first_half_is_hidden_by_an_encryption_of_zero(open_ring: Ring) -> None:
    """The owner of the key knows a: divided by a, a product that is not hidden is the factor itself."""
    ring, ours = open_ring, coins()
    key, field, level = OwnKey(ring, ours), ring.field, ring.kept
    y = field.encode(ours.errors(N))

    def quotient(c1: np.ndarray, a: np.ndarray) -> list[int]:
        inverse = np.array(
            [[pow(int(v), -1, q) for v in row] for row, q in zip(a, ring.primes, strict=True)], np.uint64
        )
        return joined(ring, ring.backward(ring.multiply_add(c1, inverse, np.zeros_like(a))))

    a = ring.uniform(ours.seed(), 0, level)
    plain = ring.multiply_add(a, ring.forward(ring.lifted(y, level)), np.zeros_like(a))
    assert quotient(plain, a) == integers(field, y)

    _, c1, a = answered(ring, key, y, ours)
    found = quotient(ring.forward(c1), a)
    whole = math.prod(ring.primes)
    cells = np.bincount([(v + whole // 2) * 16 // whole for v in found], minlength=16)
    assert ((cells - N / 16) ** 2 / (N / 16)).sum() < 85  # chi-squared, 15 degrees: 1 in 10^11
    assert min(map(abs, found)) > 1 << 200


def test_first_half_holds_an_error(open_ring: Ring) -> None:
    """Divided by the a of the key, an encryption of zero without an error is the ternary secret u."""
    ring, ours = open_ring, coins()
    key = OwnKey(ring, ours)
    _, c1, _ = answered(ring, key, ring.field.zeros(N), ours)
    a = ring.forward(ring.uniform(key.public.seed, 0, ring.kept))
    inverse = np.array([[pow(int(v), -1, q) for v in row] for row, q in zip(a, ring.primes, strict=True)], np.uint64)
    u = joined(ring, ring.backward(ring.multiply_add(ring.forward(c1), inverse, np.zeros_like(a))))
    assert min(map(abs, u)) > 1 << 200


def test_masks_hide_results_and_answers_differ(ring: Ring) -> None:
    """Twice the same product with the same mask: neither half is the same again."""
    ours, level = coins(), len(ring.primes)
    key, seed = OwnKey(ring, ours), ours.seed()
    c0, a = key.encrypt(ring.field.zeros(N), level, seed, 0, ours), ring.uniform(seed, 0, level)
    places, mask = np.arange(8), ours.stream().elements(ring.field, (8,))
    first, second = (key.public.answer(c0, a, places, mask, ours) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert np.count_nonzero(one == other) <= 1
    for answer in (first, second):
        assert ring.field.equal(key.decrypt(*answer, places), mask).all()


def test_public_key_is_rebuilt_from_what_is_sent(ring: Ring) -> None:
    ours = coins()
    key, level = OwnKey(ring, ours), len(ring.primes)
    again = PublicKey(ring, key.public.seed, ring.from_bytes(ring.to_bytes(key.public.b), level))
    c0 = key.encrypt(ring.field.encode(range(N)), level, seed := ours.seed(), 0, ours)
    places = np.arange(N)
    answer = again.answer(c0, ring.uniform(seed, 0, level), places, ring.field.zeros(N), ours)
    assert integers(ring.field, key.decrypt(*answer, places)) == list(range(N))


def test_nothing_secret_is_shown(ring: Ring) -> None:
    ours = coins()
    key = OwnKey(ring, ours)
    assert repr(ours) == f"Coins(opened={ours.opened})"
    assert repr(key) == f"OwnKey({ring})"
    assert repr(key.public) == f"PublicKey({ring})"
