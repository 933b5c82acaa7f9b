"""The hash that makes pads of keys."""

import hashlib
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mpc.ot._native import Loops
from mpc.ot.hashing import Hash

KEY = bytes(range(16))


def reference(key: bytes, x: int, number: int, block: int, tweaked: bool) -> int:
    """P(P(x) ^ i) ^ P(x) if tweaked, and else P(x ^ b) ^ x ^ b; block by block."""

    def permute(value: int) -> int:
        encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
        return int.from_bytes(encryptor.update(value.to_bytes(16, "little")), "little")

    if not tweaked:
        return permute(x ^ block) ^ x ^ block
    return permute(permute(x) ^ (number << 32 | block)) ^ permute(x)


def entries(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << 64, (count, 2), dtype=np.uint64)


@pytest.mark.parametrize("tweaked", [False, True])
@pytest.mark.parametrize(("blocks", "offset"), [(4, 2**32 - 4), (1, 0), (1, 3), (2, 0)])
@pytest.mark.parametrize("first", [0, 5, 2**32 - 1, 2**48, 2**64 - 3])
def test_equals_the_definition(on: Loops, first: int, blocks: int, offset: int, tweaked: bool) -> None:
    keys = entries(3)
    hashed = Hash(KEY, on, tweaked=tweaked)(keys, first, blocks, offset)
    assert hashed.shape == (3, blocks, 2)
    assert hashed.dtype == np.uint64
    for n in range(3):
        x = int(keys[n, 0]) + (int(keys[n, 1]) << 64)
        for b in range(blocks):
            value = reference(KEY, x, first + n, offset + b, tweaked)
            assert hashed[n, b].tolist() == [value & 2**64 - 1, value >> 64]


@pytest.mark.parametrize(
    ("tweaked", "expected"), [(False, "76021343c82dc4728cc9c57853a10ab7"), (True, "b6c6d2bca0ab311017a676600a4afe40")]
)
def test_vector(on: Loops, tweaked: bool, expected: str) -> None:
    """Frozen: both ends, and later versions, must make the same pads."""
    hashed = Hash(KEY, on, tweaked=tweaked)(np.arange(2000, dtype=np.uint64).reshape(1000, 2), 2**33, 5, 7)
    assert hashlib.blake2b(hashed.tobytes(), digest_size=16).hexdigest() == expected


@pytest.mark.parametrize("tweaked", [False, True])
@pytest.mark.parametrize("count", [0, 1, 2, 16383, 16384, 16385])
def test_pieces_do_not_show(on: Loops, count: int, tweaked: bool) -> None:
    keys, hashed = entries(count), Hash(KEY, on, tweaked=tweaked)
    whole = hashed(keys, 9)
    assert whole.shape == (count, 1, 2)
    again = [hashed(keys[n : n + 4000], 9 + n) for n in range(0, count, 4000)]
    assert not again or np.array_equal(np.concatenate(again), whole)
    assert np.array_equal(hashed(np.asfortranarray(keys), 9), whole)


@pytest.mark.parametrize("tweaked", [False, True])
@pytest.mark.parametrize(("count", "blocks"), [(1, 40_000), (3, 10_000), (3000, 7), (5, 0), (0, 5)])
def test_blocks_do_not_show(on: Loops, count: int, blocks: int, tweaked: bool) -> None:
    keys, hashed = entries(count), Hash(KEY, on, tweaked=tweaked)
    whole = hashed(keys, 3, blocks)
    assert whole.shape == (count, blocks, 2)
    for start in range(0, blocks, 9000):
        some = min(9000, blocks - start)
        assert np.array_equal(hashed(keys, 3, some, start), whole[:, start : start + some])


def test_key_and_tweak_matter(on: Loops) -> None:
    keys = entries(64)
    made = [Hash(key, on, tweaked=True)(keys, first, 1, block) for key, first, block in product_of_places()]
    values = np.concatenate([m.reshape(-1, 2) for m in made])
    assert len(np.unique(values, axis=0)) == len(values)


def product_of_places() -> list[tuple[bytes, int, int]]:
    return [(key, first, block) for key in (KEY, KEY[::-1]) for first in (0, 1000) for block in (0, 1)]


def test_refuses_what_it_cannot_number(on: Loops) -> None:
    hashed, keys = Hash(KEY, on), entries(4)
    for first, blocks, offset in (
        (-1, 1, 0),
        (2**64 - 3, 1, 0),
        (0, 1, 2**32),
        (0, 2, 2**32 - 1),
        (0, -1, 0),
        (0, 1, -1),
    ):
        with pytest.raises(ValueError):
            hashed(keys, first, blocks, offset)
    wrong: Any
    for wrong in (keys.astype(np.int64), keys.reshape(-1), keys.reshape(2, 4), np.zeros((4, 3), np.uint64)):
        with pytest.raises(ValueError):
            hashed(wrong, 0)
    for length in (0, 15, 17, 32):
        with pytest.raises(ValueError):
            Hash(bytes(length), on)


@pytest.mark.parametrize("tweaked", [False, True])
def test_hashes_of_correlated_keys_look_independent(tweaked: bool) -> None:
    """H(x_i ^ delta) given all x_i, as the chooser sees it; 2^21 bits.

    Each of the sums below is within 5 standard deviations of its mean but for a probability of 6e-7; with its
    fixed seed the test says the same every time.
    """
    keys, delta = entries(1 << 14, 2), entries(1, 3)
    # x_i that differ in single bits, or in small numbers, and for the tweaked hash many that are equal but for their
    # number: the worst that a chooser can do.
    keys[: 1 << 13] = keys[0]
    if not tweaked:
        keys[: 1 << 13, 0] ^= np.arange(1 << 13, dtype=np.uint64)
    keys[:128, 1] ^= np.uint64(1) << np.arange(128, dtype=np.uint64) % np.uint64(64)
    hashed = Hash(KEY, tweaked=tweaked)
    known, hidden = hashed(keys, 0)[:, 0], hashed(keys ^ delta, 0)[:, 0]
    for pads in (hidden, hidden ^ known, hidden ^ keys, hidden[1:] ^ hidden[:-1], hidden ^ delta):
        sample = np.unpackbits(np.ascontiguousarray(pads).view(np.uint8))
        assert abs(sample.sum() - sample.size / 2) < 5 * np.sqrt(sample.size) / 2
        same = (sample[1:] == sample[:-1]).sum()
        assert abs(same - (sample.size - 1) / 2) < 5 * np.sqrt(sample.size - 1) / 2


def test_repr_holds_nothing() -> None:
    assert repr(Hash(KEY)) == "Hash()"
