"""Pads and what corrects them to products: right in every field, alike in C and numpy, and private."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from mpc import F61, F127, GF, Field
from mpc.field import FieldArray
from mpc.indices import R32
from mpc.ot import pads
from mpc.ot._fused import fused
from mpc.ot._native import TWIN, compiled
from mpc.ot.hashing import Hash
from mpc.ot.pads import Ands, Kind, Numbers, elements
from mpc.words import W64, pack_bits

F7 = GF(7)
KINDS: list[Kind] = [
    Numbers(F127, 127),
    Numbers(F127, 33),
    Numbers(F127, 1),
    Numbers(F61, 61),
    Numbers(F61, 20),
    Numbers(F61, 1),
    Numbers(R32, 32),
    Numbers(R32, 1),
    Numbers(F7, 3),
    Numbers(W64, 1),
    Ands(),
]


def digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).digest()


class FakeHash:
    """Any function of key, number and block in the place of the hash."""

    def __init__(self, made: Callable[[np.ndarray, int, int], bytes] | None = None) -> None:
        self.asked: set[tuple[bytes, int, int]] = set()
        self._made = made or (lambda key, number, block: digest(key.tobytes() + b"%d %d" % (number, block)))

    def __call__(self, keys: np.ndarray, first: int, blocks: int = 1, offset: int = 0) -> np.ndarray:
        made = np.empty((len(keys), blocks, 2), np.uint64)
        for n, key in enumerate(keys):
            for b in range(blocks):
                self.asked.add((key.tobytes(), first + n, offset + b))
                made[n, b] = np.frombuffer(self._made(key, first + n, offset + b), "<u8")
        return made


@pytest.fixture(params=["c", "numpy"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The loops in C, and what is done without them."""
    if request.param == "numpy":
        monkeypatch.setattr(pads, "fused", lambda field: None)
    elif F127.backend != "c":
        pytest.skip("the C loops were not built")
    return str(request.param)


def uniform(rng: np.random.Generator, field: Field, *shape: int) -> FieldArray:
    values = [int.from_bytes(rng.bytes(16), "little") for _ in range(int(np.prod(shape)))]
    if field is W64:
        return np.array([value % 2**64 for value in values], np.uint64).reshape(shape)
    found = field._kernels.from_objects(np.array([value % field.modulus for value in values], object))
    return np.asarray(found).astype(field.dtype).reshape(shape)


def numbers(field: Field, x: FieldArray) -> list[int]:
    if field is W64:
        return [int(value) for value in x.reshape(-1)]
    return [int(value) for value in field._kernels.to_objects(x.reshape(-1))]


def products(kind: Kind, choices: np.ndarray, values: FieldArray) -> list[int]:
    """Number by number, in Python's integers."""
    field, found = kind.field, numbers(kind.field, values)
    width = values.shape[1]
    chosen = [sum(int(bit) << t for t, bit in enumerate(row)) for row in choices]
    if isinstance(kind, Ands):
        return [chosen[n // width] & value for n, value in enumerate(found)]
    if field is W64:
        return [chosen[n // width] * value for n, value in enumerate(found)]
    return [chosen[n // width] * value % field.modulus for n, value in enumerate(found)]


class Ends:
    """Keys of correlated transfers at both ends, and what they make of them."""

    def __init__(self, rng: np.random.Generator, kind: Kind, rows: int, hashed: Any = None) -> None:
        self.kind = kind
        self.hashed: Any = hashed or FakeHash()
        self.choices = rng.integers(0, 2, (rows, kind.transfers), dtype=np.uint8)
        zero = rng.integers(0, 2**64, (rows * kind.transfers, 2), dtype=np.uint64)
        one = zero ^ rng.integers(0, 2**64, 2, dtype=np.uint64)
        self.both = np.stack([zero, one])
        self.keys = np.where(self.choices.reshape(-1, 1) == 1, one, zero)
        self.first = int(rng.integers(0, 1 << 47))

    def offer(self, values: FieldArray, columns: slice) -> tuple[bytes, FieldArray]:
        corrections, summands = self.kind.offer(self.hashed, self.both, self.first, columns, values)
        return bytes(self.kind.field.to_bytes(corrections)), summands

    def add_up(self, message: bytes, columns: slice) -> FieldArray:
        field, width = self.kind.field, columns.stop - columns.start
        count = len(self.choices) * self.kind.corrections(width)
        corrections = field.from_bytes(message, (count,))
        return self.kind.add_up(self.hashed, self.keys, self.first, columns, self.choices, corrections)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{type(kind).__name__}-{kind.field}-{kind.transfers}")
class TestProducts:
    @pytest.mark.parametrize(("rows", "columns"), [(1, (0, 1)), (5, (0, 1)), (3, (0, 4)), (2, (3, 8)), (1, (120, 140))])
    def test_summands_add_up(
        self, backend: str, rng: np.random.Generator, kind: Kind, rows: int, columns: tuple[int, int]
    ) -> None:
        field, part, ends = kind.field, slice(*columns), Ends(rng, kind, rows)
        values = uniform(rng, field, rows, columns[1] - columns[0])
        message, offered = ends.offer(values, part)
        assert len(message) == rows * kind.corrections(values.shape[1]) * field.element_bytes
        chosen = ends.add_up(message, part)
        assert offered.shape == chosen.shape == values.shape
        assert field.is_canonical(offered)
        assert field.is_canonical(chosen)
        assert numbers(field, field.add(offered, chosen)) == products(kind, ends.choices, values)

    @pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
    def test_nothing(self, backend: str, rng: np.random.Generator, kind: Kind, shape: tuple[int, int]) -> None:
        ends = Ends(rng, kind, shape[0])
        message, offered = ends.offer(kind.field.zeros(shape), slice(0, shape[1]))
        assert message == b""
        assert offered.shape == ends.add_up(message, slice(0, shape[1])).shape == shape

    def test_both_backends_send_the_same(
        self, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, kind: Kind
    ) -> None:
        native = compiled()
        if native is None or F127.backend != "c":
            pytest.skip("the C loops were not built")
        values, part = uniform(rng, kind.field, 6, 3), slice(2, 5)
        ends = Ends(rng, kind, 6, Hash(bytes(16), native))
        message, offered = ends.offer(values, part)
        chosen = ends.add_up(message, part)
        monkeypatch.setattr(pads, "fused", lambda field: None)
        ends.hashed = Hash(bytes(16), TWIN)
        again, offered_again = ends.offer(values, part)
        assert message == again
        assert kind.field.equal(offered, offered_again).all()
        assert kind.field.equal(chosen, ends.add_up(message, part)).all()

    def test_columns_in_parts_are_the_columns_of_the_whole(self, rng: np.random.Generator, kind: Kind) -> None:
        """A row that is too long for one message is hashed in parts; nothing is hashed twice for different ends."""
        field, ends = kind.field, Ends(rng, kind, 2)
        values = uniform(rng, field, 2, 7)
        whole, summands = ends.offer(values, slice(0, 7))
        for part in (slice(0, 3), slice(3, 4), slice(4, 7)):
            message, some = ends.offer(np.ascontiguousarray(values[:, part]), part)
            assert field.equal(some, summands[:, part]).all()
            width = part.stop - part.start
            expected = field.from_bytes(whole, (2, kind.corrections(7) // 7, 7))[:, :, part]
            assert message == bytes(field.to_bytes(np.ascontiguousarray(expected)))
            assert len(message) == 2 * kind.corrections(width) * field.element_bytes


class TestSpecialPads:
    """Words that no hash will ever give."""

    @pytest.mark.parametrize("bits", [127, 1])
    @pytest.mark.parametrize("word", [2**127 - 1, 2**128 - 1, 2**127, 0, 2**127 - 2])
    def test_f127_takes_p_for_0(self, backend: str, rng: np.random.Generator, word: int, bits: int) -> None:
        hashed = FakeHash(lambda key, number, block: word.to_bytes(16, "little"))
        made = elements(F127, hashed, np.zeros((2, 2), np.uint64), 5, slice(0, 1))  # type: ignore[arg-type]
        assert numbers(F127, made) == [word % 2**127 % F127.modulus] * 2
        ends, values = Ends(rng, Numbers(F127, bits), 3, hashed), uniform(rng, F127, 3, 2)
        message, offered = ends.offer(values, slice(0, 2))
        pad = word % 2**127
        assert F127.from_bytes(message, (3 * bits * 2,)).shape  # canonical
        assert numbers(F127, offered) == [-pad * (2**bits - 1) % F127.modulus] * 6
        chosen = ends.add_up(message, slice(0, 2))
        assert numbers(F127, F127.add(offered, chosen)) == products(ends.kind, ends.choices, values)

    @pytest.mark.parametrize(("field", "bits"), [(F61, 61), (F7, 3)])
    def test_others_are_made_again(self, backend: str, rng: np.random.Generator, field: Field, bits: int) -> None:
        def made(key: np.ndarray, number: int, block: int) -> bytes:
            again = block >= 1 << 31
            turn = (block - (1 << 31)) >> 24
            if (number + block) % 3 and not (again and turn):
                return b"\xff" * 16
            return digest(key.tobytes() + b"%d %d" % (number, block))

        hashed = FakeHash(made)
        ends, values = Ends(rng, Numbers(field, bits), 4, hashed), uniform(rng, field, 4, 3)
        message, offered = ends.offer(values, slice(0, 3))
        assert any(block >> 31 for _, _, block in hashed.asked)
        at_offerer = len(hashed.asked)
        chosen = ends.add_up(message, slice(0, 3))
        assert len(hashed.asked) == at_offerer  # the chooser makes none that the offerer does not
        assert numbers(field, field.add(offered, chosen)) == products(ends.kind, ends.choices, values)

    def test_what_is_made_again_depends_on_its_own_place_alone(self) -> None:
        """A column in a part of a row is what it is in the whole."""

        def made(key: np.ndarray, number: int, block: int) -> bytes:
            return digest(b"%d %d" % (number, block)) if block >> 31 else b"\xff" * 16

        keys, hashed = np.zeros((3, 2), np.uint64), FakeHash(made)
        whole = elements(F61, hashed, keys, 9, slice(0, 5))  # type: ignore[arg-type]
        part = elements(F61, hashed, keys, 9, slice(3, 5))  # type: ignore[arg-type]
        assert np.array_equal(part, whole[:, 3:])
        assert len(np.unique(whole)) == whole.size
        block = (1 << 31) + 3
        assert int(whole[1, 3]) == int.from_bytes(digest(b"10 %d" % block)[:8], "little") % 2**61

    def test_uniform_in_a_small_field(self) -> None:
        """Every value of the bits that count, once: what remains is exactly uniform."""
        words = iter(range(8))
        drawn = {(number, block): word for word, (number, block) in zip(words, [(n, 0) for n in range(8)], strict=True)}

        def made(key: np.ndarray, number: int, block: int) -> bytes:
            return bytes([drawn.get((number, block), 7 if block < (1 << 31) + (1 << 24) else 3)] * 16)

        found = elements(F7, FakeHash(made), np.zeros((8, 2), np.uint64), 0, slice(0, 1))  # type: ignore[arg-type]
        assert numbers(F7, found) == [0, 1, 2, 3, 4, 5, 6, 3]

    def test_no_room_for_longer_rows(self) -> None:
        with pytest.raises(ValueError, match="elements are padded"):
            elements(F61, FakeHash(), np.zeros((0, 2), np.uint64), 0, slice(0, (1 << 24) + 1))  # type: ignore[arg-type]


@pytest.mark.parametrize("field", [F61, F127], ids=repr)
class TestLoops:
    """The loops in C, for every number of transfers, against Python's integers."""

    @staticmethod
    def words(rng: np.random.Generator, field: Field, *shape: int) -> tuple[FieldArray, np.ndarray]:
        """Words of all bits, some of them of ones, and what counts of them."""
        raw = rng.integers(0, 2**64, (*shape, field.element_bytes // 8), dtype=np.uint64)
        raw[rng.integers(0, 8, shape) == 0] = 2**64 - 1
        exact = sum(raw[..., n].astype(object) << 64 * n for n in range(raw.shape[-1]))
        return raw.view(field.dtype)[..., 0], np.asarray(exact & field.modulus, object)

    @pytest.mark.parametrize("width", [1, 3])
    def test_equal_the_formulas(self, rng: np.random.Generator, field: Field, width: int) -> None:
        loops = fused(field)
        if loops is None:
            pytest.skip("the C loops were not built")
        p = field.modulus
        for transfers in range(field.bits + 1):
            pads, h = self.words(rng, field, 2, transfers, width)
            others, g = self.words(rng, field, 2, transfers, width)
            values = uniform(rng, field, 2, width)
            v = np.array(numbers(field, values), object).reshape(2, width)
            weights = np.array([1 << t for t in range(transfers)], object)[:, None]
            corrections, summands = loops.offer(pads, others, values)
            assert numbers(field, corrections) == ((h - g + v[:, None]) % p).reshape(-1).tolist()
            assert (
                numbers(field, summands) == (-(weights * h).sum(1) % p + np.zeros((2, width), object)).ravel().tolist()
            )
            choices = rng.integers(0, 2, (2, transfers), dtype=np.uint8)
            given = uniform(rng, field, 2, transfers, width)
            if transfers:
                given[0] = field.neg(field.encode(1))
            m = np.array(numbers(field, given), object).reshape(given.shape)
            found = loops.add_up(pads, given, choices)
            expected = (weights * (h + choices.astype(object)[..., None] * m)).sum(1) + np.zeros((2, width), object)
            assert numbers(field, found) == (expected % p).ravel().tolist()

    @pytest.mark.parametrize("transfers", [1, 3, 4, 5, 19, 20, 21, 127])
    def test_any_memory_layout(self, rng: np.random.Generator, field: Field, transfers: int) -> None:
        """What lies side by side is taken several at a time, what does not one by one: with the same result."""
        loops = fused(field)
        if loops is None:
            pytest.skip("the C loops were not built")
        (h, _), (g, _) = (self.words(rng, field, 3, transfers, 2) for _ in range(2))
        values, given = uniform(rng, field, 3, 1), uniform(rng, field, 3, transfers, 2)
        choices = rng.integers(0, 2, (3, transfers), dtype=np.uint8)
        packed = [np.ascontiguousarray(x[..., :1]) for x in (h, g, given)]
        for some, other in zip(
            (*loops.offer(packed[0], packed[1], values), loops.add_up(packed[0], packed[2], choices)),
            (*loops.offer(h[..., :1], g[..., :1], values), loops.add_up(h[..., :1], given[..., :1], choices)),
            strict=True,
        ):
            assert some.tobytes() == other.tobytes()

    def test_sums_around_the_modulus(self, field: Field) -> None:
        """Pads and corrections of 0, of p (which counts as 0), and next to p: results are canonical all the same."""
        loops = fused(field)
        if loops is None:
            pytest.skip("the C loops were not built")
        p, words, count = field.modulus, field.element_bytes // 8, field.bits - 1
        edges = [0, 1, p - 1, p, 2 ** (64 * words) - 1, (p + 1) // 2]
        raw = np.array([[edge >> 64 * n & 2**64 - 1 for n in range(words)] for edge in edges], np.uint64)
        pads = raw.view(field.dtype)[:, 0]
        for h, g in product(range(len(edges)), repeat=2):
            for v in (0, 1, p - 1):
                ours, theirs = (np.repeat(pads[[n]], count).reshape(1, -1, 1) for n in (h, g))
                values = np.asarray(field._kernels.from_objects(np.array([v], object))).astype(field.dtype)
                corrections, summands = loops.offer(ours, theirs, values.reshape(1, 1))
                a, b = (edges[n] & field.modulus for n in (h, g))
                assert numbers(field, corrections) == [(a - b + v) % p] * count
                assert numbers(field, summands) == [-a * (2**count - 1) % p]
                found = loops.add_up(ours, corrections, np.ones((1, count), np.uint8))
                assert numbers(field, found) == [(a + (a - b + v) % p) * (2**count - 1) % p]

    def test_only_p_is_rejected(self, rng: np.random.Generator, field: Field) -> None:
        loops = fused(field)
        if loops is None:
            pytest.skip("the C loops were not built")
        pads, exact = self.words(rng, field, 300, 2)
        taken = exact != field.modulus
        assert loops.accept(pads) == (field is F127)
        pads[~taken] = pads[taken][0]
        assert loops.accept(pads)
        assert loops.accept(pads[:0])


@pytest.mark.parametrize(("field", "bits"), [(F127, 0), (F127, 128), (F61, 62), (R32, 33), (W64, 2), (F7, 4)])
def test_refuses_numbers_of_other_lengths(field: Field, bits: int) -> None:
    with pytest.raises(ValueError, match="are not multiplied"):
        Numbers(field, bits)


@pytest.mark.parametrize("columns", [1, 3, 64, 127, 128, 130, 300])
def test_bits_of_pads(rng: np.random.Generator, columns: int) -> None:
    """Bit t of the word of a column is bit `column` of what is made of key t."""
    hashed = FakeHash()
    keys = rng.integers(0, 2**64, (128, 2), dtype=np.uint64)
    made = hashed(keys, 3, -(-columns // 128))  # (128, blocks, 2)
    bits = np.unpackbits(made.view(np.uint8).reshape(128, -1), axis=1, bitorder="little")[:, :columns]
    expected = pack_bits(bits.reshape(2, 64, columns).transpose(0, 2, 1))[..., 0]
    assert np.array_equal(pads._bit_pads(hashed, keys, 3, slice(0, columns)), expected)  # type: ignore[arg-type]


# ---- what the chooser learns ------------------------------------------------------------------------------------

F3 = GF(3)


def chooser_views(kind: Kind, choices: Sequence[int], value: int) -> Counter[bytes]:
    """What the chooser has and receives, for every choice of the pads of one row (one bit of a row for `Ands`)."""
    radix, each = (2, 1) if isinstance(kind, Ands) else (3, kind.transfers)
    table = np.array([digits for digits in product(range(radix), repeat=2 * each)], np.uint8).reshape(-1, 2)
    lanes = len(table) // each
    table = np.tile(table, (kind.transfers // each, 1))  # packed bits are lanes as they are
    rows = len(table) // kind.transfers
    hashed = FakeHash(lambda key, number, block: bytes([table[int(key[0]), int(key[1])]] * 16))
    ends = Ends(np.random.default_rng(0), kind, rows, hashed)
    ends.choices = np.tile(np.array(choices, np.uint8), len(table) // len(choices)).reshape(rows, -1)
    places = np.arange(len(table), dtype=np.uint64)
    ends.both = np.stack([np.stack([places, np.full_like(places, bit)], axis=1) for bit in (0, 1)])
    ends.keys = np.stack([places, ends.choices.reshape(-1).astype(np.uint64)], axis=1)
    if isinstance(kind, Ands):
        values = np.full((rows, 1), value * (2**64 - 1), np.uint64)
    else:
        values = np.full((rows, 1), value, F3.dtype)
    message, summands = ends.offer(values, slice(0, 1))
    assert kind.field.equal(kind.field.add(summands, ends.add_up(message, slice(0, 1))), expected(ends, values)).all()
    if isinstance(kind, Ands):
        sent = np.unpackbits(np.frombuffer(message, np.uint8), bitorder="little")
    else:
        sent = np.frombuffer(message, np.uint8)
    own = table[np.arange(len(table)), ends.choices.reshape(-1)]
    views = np.concatenate([own.reshape(-1, each), sent.reshape(-1, each)], axis=1)
    assert len(views) % lanes == 0
    return Counter(view.tobytes() for view in views)


def expected(ends: Ends, values: FieldArray) -> FieldArray:
    return np.array(products(ends.kind, ends.choices, values), values.dtype).reshape(values.shape)


@pytest.mark.parametrize("kind", [Numbers(F3, 1), Numbers(F3, 2), Ands()], ids=["bit", "number", "and"])
def test_the_chooser_sees_the_same_whatever_the_values_are(backend: str, kind: Kind) -> None:
    """With a random function in the place of the hash: own pads and corrections, hence the summand, are uniform."""
    length, values = (2, range(3)) if kind.transfers == 2 else (1, range(3 if kind.field is F3 else 2))
    for choices in product((0, 1), repeat=length):
        views = [chooser_views(kind, choices, value) for value in values]
        assert len(set(views[0].values())) == 1  # all that are possible, equally often
        assert len(views[0]) == (4 if isinstance(kind, Ands) else 9**kind.transfers)
        assert all(view == views[0] for view in views)
