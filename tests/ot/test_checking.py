"""The check against choosers that mean different choice bits in different trees."""

import hashlib

import numpy as np
import pytest

from mpc.ot import checking
from mpc.ot._native import Loops
from mpc.ot.extension import Chooser, Offerer

K = 4
COUNT = 1024
CHALLENGE = bytes(range(16))


def ends(choices: np.ndarray, on: Loops | None = None) -> tuple[Chooser, Offerer]:
    keys = np.random.default_rng(1).integers(0, 256, (128, 2, 16), dtype=np.uint8)
    chooser, sums = Chooser.from_keys(keys, K, b"check", on)
    return chooser, Offerer.from_keys(choices, keys[np.arange(128), choices], K, b"check", sums, on)


def delta_bits(seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, 128, dtype=np.uint8)


def test_honest_batches_pass(on: Loops) -> None:
    chooser, offerer = ends(delta_bits(), on)
    for count in (128, COUNT, 4096 + 128):
        corrections, choices, t = chooser.extend(count)
        q = offerer.extend(count, corrections)
        answer = checking.proof(CHALLENGE, choices, t, on)
        assert len(answer) == checking.PROOF_BYTES
        assert checking.check(CHALLENGE, q, offerer.delta, answer, on)
        assert not checking.check(CHALLENGE[::-1], q, offerer.delta, answer, on) or count == 128


def test_vector(on: Loops) -> None:
    """Frozen: both ends, and later versions, must make the same sums."""
    chooser, _ = ends(delta_bits(), on)
    _, choices, t = chooser.extend(COUNT)
    answer = checking.proof(CHALLENGE, choices, t, on)
    assert hashlib.blake2b(answer, digest_size=16).hexdigest() == "c4dfd80daba46c6d7fe4ae05d8345d1c"


def test_every_altered_byte_of_an_answer_is_found() -> None:
    chooser, offerer = ends(np.ones(128, np.uint8))
    corrections, choices, t = chooser.extend(256)
    q = offerer.extend(256, corrections)
    answer = checking.proof(CHALLENGE, choices, t)
    for at in range(len(answer)):
        altered = answer[:at] + bytes([answer[at] ^ 1 << at % 8]) + answer[at + 1 :]
        assert not checking.check(CHALLENGE, q, offerer.delta, altered)


@pytest.mark.parametrize(("tree", "transfer"), [(1, 0), (17, 500), (31, COUNT - 129), (31, COUNT - 1)])
def test_other_choice_bits_in_one_tree_take_a_guess(tree: int, transfer: int) -> None:
    """One flipped correction passes exactly if the four bits of delta of its tree are those that were guessed."""
    for own in (0, 1, 5, 8, 15):
        bits = delta_bits()
        bits[K * tree : K * tree + K] = [own >> b & 1 for b in range(K)]
        chooser, offerer = ends(bits)
        corrections, choices, t = chooser.extend(COUNT)
        altered = np.frombuffer(bytearray(corrections), np.uint8).reshape(31, COUNT // 8)
        altered[tree - 1, transfer // 8] ^= 1 << transfer % 8
        q = offerer.extend(COUNT, altered.tobytes())
        for guess in range(1 << K):
            # Its best answer: row b of q holds one flipped bit more where it guesses that delta_b is 1.
            shown = t.copy()
            for b in range(K):
                at = K * tree + b
                shown[transfer, at // 64] ^= np.uint64((guess >> b & 1) << at % 64)
            answer = checking.proof(CHALLENGE, choices, shown)
            assert checking.check(CHALLENGE, q, offerer.delta, answer) == (guess == own)


def test_inconsistent_sums_of_a_tree_take_a_guess() -> None:
    """One wrong sum of the last level of a tree spoils a leaf for the half of the paths that need it."""
    keys = np.random.default_rng(1).integers(0, 256, (128, 2, 16), dtype=np.uint8)
    chooser, sums = Chooser.from_keys(keys, K, b"check")
    altered = bytearray(sums)
    altered[64] ^= 1  # of the tree's last level, the sum that is unmasked where bit 0 of delta is 1
    passed = []
    paths = (0, 1, 6, 15)
    for own in paths:
        bits = delta_bits()
        bits[:K] = [own >> b & 1 for b in range(K)]
        chooser = Chooser.from_keys(keys, K, b"check")[0]
        offerer = Offerer.from_keys(bits, keys[np.arange(128), bits], K, b"check", bytes(altered))
        corrections, choices, t = chooser.extend(COUNT)
        q = offerer.extend(COUNT, corrections)
        answer = checking.proof(CHALLENGE, choices, t)
        passed.append(checking.check(CHALLENGE, q, offerer.delta, answer))
    assert passed == [own % 2 == 0 for own in paths]


def test_x_is_padded_by_the_dropped_choices() -> None:
    """With the weights of the rest as they are, every x comes of exactly one pad."""
    _, choices, t = ends(delta_bits())[0].extend(256)
    weights = checking._weights(CHALLENGE, 256)
    assert np.array_equal(
        np.unpackbits(np.ascontiguousarray(weights[128:]).view(np.uint8), axis=1, bitorder="little"), np.eye(128)
    )
    first = np.frombuffer(checking.proof(CHALLENGE, choices, t), np.uint8, 16)
    flipped = choices.copy()
    flipped[16:] ^= 0b1010_0101
    second = np.frombuffer(checking.proof(CHALLENGE, flipped, t), np.uint8, 16)
    assert np.array_equal(first ^ second, np.full(16, 0b1010_0101))


def test_random_weights_are_unbiased() -> None:
    """2^20 bits; more than 5 deviations have a probability of 6e-7, and the challenge is fixed."""
    sample = np.unpackbits(checking._weights(CHALLENGE, (1 << 13) + 128)[:-128].view(np.uint8))
    assert sample.size == 1 << 20
    assert abs(sample.sum() - sample.size / 2) < 5 * np.sqrt(sample.size) / 2


def test_wrong_lengths_are_refused() -> None:
    chooser, offerer = ends(delta_bits())
    _, choices, t = chooser.extend(256)
    answer = checking.proof(CHALLENGE, choices, t)
    for wrong in (b"", answer[:-1], answer + b"\0"):
        with pytest.raises(ValueError):
            checking.check(CHALLENGE, t, offerer.delta, wrong)
    for challenge in (b"", CHALLENGE[:-1], CHALLENGE + b"\0"):
        with pytest.raises(ValueError):
            checking.proof(challenge, choices, t)
    with pytest.raises(ValueError):
        checking.proof(CHALLENGE, choices[:15], t[:120])
