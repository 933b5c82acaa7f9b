"""Pseudorandom streams: uniform, independent by label, the same wherever they are entered."""

import hashlib
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from mpc import F61, F127, GF, Field
from mpc.prg import SEED_BYTES, Prg, new_seed
from mpc.words import W64

SEED = bytes(range(32))
FIELDS: list[Any] = [F127, F61, GF(5), GF(10007), W64]


def reference(label: str, count: int, position: int = 0) -> bytes:
    """The definition, word by word: AES-128 in counter mode; key and first block from keyed BLAKE2b."""
    digest = hashlib.blake2b(label.encode(), digest_size=32, key=SEED, person=b"sottovoce.prg").digest()
    block = (int.from_bytes(digest[16:], "big") + position // 16) % 2**128
    encryptor = Cipher(algorithms.AES(digest[:16]), modes.CTR(block.to_bytes(16, "big"))).encryptor()
    return encryptor.update(bytes(count))


@given(st.lists(st.integers(0, 300) | st.sampled_from([4080, 4096, 4097, 70_000, 2**17, 2**17 + 16]), max_size=8))
def test_a_stream_is_cut_into_draws(counts: list[int]) -> None:
    """Each draw begins at a block; small and large ones may follow one another in any order."""
    stream, position = Prg(SEED).stream("label"), 0
    for count in counts:
        assert stream.raw(count).tobytes() == reference("label", count, position)
        position += -(-count // 16) * 16
        assert stream.position == position
        resumed = Prg(SEED).stream("label", position)
        assert resumed.position == position
        assert resumed.raw(20).tobytes() == reference("label", 20, position)


@given(first=st.integers(0, 10_000), skipped=st.integers(0, 10_000))
def test_skipping_is_drawing(first: int, skipped: int) -> None:
    stream = Prg(SEED).stream("label")
    stream.raw(first)
    stream.skip(skipped)
    at = -(-first // 16) * 16 + -(-skipped // 16) * 16
    assert stream.position == at
    assert stream.raw(33).tobytes() == reference("label", 33, at)


@pytest.mark.parametrize("field", FIELDS, ids=repr)
@pytest.mark.parametrize("count", [0, 1, 5, 1000])
def test_drawing_depends_on_seed_label_and_position_alone(field: Field, count: int) -> None:
    """A dealer enters a stream in the middle and finds what a party drew in passing."""
    stream = Prg(SEED).stream("mask|a/b")
    drawn, positions = [], []
    for shape in [(count,), (3,), (2, count), ()]:
        positions.append((shape, stream.position))
        drawn.append(stream.elements(field, shape))
        assert drawn[-1].shape == shape
    for (shape, position), values in zip(positions, drawn, strict=True):
        again = Prg(SEED).stream("mask|a/b", position).elements(field, shape)
        assert again.tobytes() == values.tobytes()
        assert field.is_canonical(values)
    other = Prg(SEED).stream("mask|a/c").elements(field, (100,))
    assert other.tobytes() != Prg(SEED).stream("mask|a/b").elements(field, (100,)).tobytes()


def test_positions_do_not_depend_on_what_was_rejected() -> None:
    """3 of 8 draws of GF(5) are drawn again, from elsewhere: position and later draws stay what they are."""
    field = GF(5)
    for count in (1, 16, 17, 3000):
        stream = Prg(SEED).stream("label")
        values = stream.elements(field, (count,))
        assert stream.position == -(-count // 16) * 16
        raw = np.frombuffer(reference("label", count), np.uint8) & 7
        kept = raw < 5
        np.testing.assert_array_equal(values[kept], raw[kept])


def test_large_draws_are_made_in_pieces() -> None:
    count = (1 << 17) // 16 * 2 + 5
    values = Prg(SEED).stream("label").elements(F127, (count,))
    raw = np.frombuffer(reference("label", count * 16), F127.dtype)
    expected = F127.from_uniform(raw.view(np.uint8))[0]
    assert F127.equal(values, expected).all()


@pytest.mark.parametrize("modulus", [3, 5, 7, 251])
def test_elements_are_uniform(modulus: int) -> None:
    """Chi-square with false alarms once in 10^6; the seed is fixed, so it is no alarm or always one."""
    counts = np.bincount(Prg(SEED).stream("uniform").elements(GF(modulus), (20_000,)), minlength=modulus)
    expected = 20_000 / modulus
    statistic = float(((counts - expected) ** 2 / expected).sum())
    assert statistic < modulus - 1 + 8 * np.sqrt(2 * modulus)
    assert len(counts) == modulus


@pytest.mark.parametrize("bits", [0, 1, 7, 24, 60, 63, 64, 65, 90, 126])
def test_bounded_integers(bits: int) -> None:
    stream = Prg(SEED).stream("bounded")
    values = [int(v) for v in F127.decode(stream.bounded(F127, bits, (200,)))]
    assert all(0 <= v < 1 << bits for v in values)
    width = 16 if bits > 64 else 8
    assert stream.position == 200 * width
    raw = reference("bounded", 200 * width)
    assert values == [int.from_bytes(raw[i : i + width], "little") % (1 << bits) for i in range(0, 200 * width, width)]


def test_bounded_integers_of_other_fields() -> None:
    values = F61.decode(Prg(SEED).stream("bounded").bounded(F61, 60, (4, 50)))
    assert values.shape == (4, 50)
    assert values.max() < 2**60
    assert values.max() > 2**59
    with pytest.raises(ValueError, match="bits"):
        Prg(SEED).stream("bounded").bounded(F61, 61, (4,))


def test_seeds() -> None:
    assert len(new_seed()) == SEED_BYTES
    assert new_seed() != new_seed()
    for wrong in (b"", bytes(31), bytes(33)):
        with pytest.raises(ValueError, match="32 bytes"):
            Prg(wrong)
    with pytest.raises(ValueError, match="multiple of 16"):
        Prg(SEED).stream("label", 8)


def test_nothing_shows_the_seed() -> None:
    stream = Prg(SEED).stream("label")
    assert (repr(Prg(SEED)), repr(stream)) == ("Prg()", "Stream(position=0)")


def test_vectors() -> None:
    """Frozen: another sequence of elements would be another protocol."""
    stream = Prg(SEED).stream("mask|work/multiply")
    drawn = [stream.elements(field, (3,)) for field in FIELDS] + [stream.bounded(F127, 90, (2,))]
    drawn_bytes = b"".join(values.tobytes() for values in drawn)
    assert hashlib.blake2b(drawn_bytes, digest_size=8).hexdigest() == "8a268b74abab882e"
    large = Prg(SEED).stream("large").elements(F61, (40_000,))
    assert hashlib.blake2b(large.tobytes(), digest_size=8).hexdigest() == "b3e837dbb761b805"
    small = Prg(SEED).stream("small").elements(GF(5), (3000,))
    assert hashlib.blake2b(small.tobytes(), digest_size=8).hexdigest() == "a434971df9160787"
