"""The check against choosers that mean different choice bits in different trees."""

import hashlib

import numpy as np
import pytest

from mpc.ot import checking
from mpc.ot._native import Loops
from mpc.ot.extension import Chooser, Offerer

K = 4
COUNT = 1024
CHALLENGE = bytes(range(32))


def ends(choices: np.ndarray, on: Loops | None = None) -> tuple[Chooser, Offerer]:
    keys = np.random.default_rng(1).integers(0, 256, (128, 2, 16), dtype=np.uint8)
    chooser, sums = Chooser.from_keys(keys, K, b"check", on)
    return chooser, Offerer.from_keys(choices, keys[np.arange(128), choices], K, b"check", sums, on)


def delta_bits(seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, 128, dtype=np.uint8)


def test_honest_batches_pass(on: Loops) -> None:
    chooser, offerer = ends(delta_bits(), on)
    for count in (256, COUNT, 4096 + 128):
        corrections, choices, t = chooser.extend(count)
        q = offerer.extend(count, corrections)
        answer = checking.proof(CHALLENGE, choices, t, on)
        assert len(answer) == checking.PROOF_BYTES
        assert checking.check(CHALLENGE, q, offerer.delta, answer, on)
        assert not checking.check(CHALLENGE[::-1], q, offerer.delta, answer, on)


def test_rows_give_the_same_sums_as_keys(on: Loops) -> None:
    chooser, offerer = ends(delta_bits(), on)
    for count in (512, COUNT):
        corrections, choices, t = chooser.extend(count)
        q = offerer.extend(count, corrections)
        answer = checking.proof(CHALLENGE, choices, t, on)
        assert checking.proof(CHALLENGE, choices, t, on, rows=chooser.rows(count)) == answer
        assert checking.check(CHALLENGE, q, offerer.delta, answer, on, rows=offerer.rows(count))
        assert not checking.check(CHALLENGE[::-1], q, offerer.delta, answer, on, rows=offerer.rows(count))


def test_rows_of_a_long_extension_are_gone() -> None:
    chooser, _ = ends(delta_bits())
    chooser.extend((1 << 16) + 128)
    assert chooser.rows((1 << 16) + 128) is None


def test_vector(on: Loops) -> None:
    """Frozen: both ends, and later versions, must make the same sums."""
    chooser, _ = ends(delta_bits(), on)
    _, choices, t = chooser.extend(COUNT)
    answer = checking.proof(CHALLENGE, choices, t, on)
    assert hashlib.blake2b(answer, digest_size=16).hexdigest() == "9e308579a513944bca1506efae5c0ac3"


def test_altered_answers_are_found() -> None:
    chooser, offerer = ends(np.ones(128, np.uint8))
    corrections, choices, t = chooser.extend(256)
    q = offerer.extend(256, corrections)
    answer = checking.proof(CHALLENGE, choices, t)
    for at in [*range(33), *range(33, len(answer), 13), len(answer) - 1]:
        altered = answer[:at] + bytes([answer[at] ^ 1 << at % 8]) + answer[at + 1 :]
        assert not checking.check(CHALLENGE, q, offerer.delta, altered)


@pytest.mark.parametrize(("tree", "transfer"), [(1, 0), (17, 500), (31, COUNT - 257), (31, COUNT - 1)])
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


def test_several_trees_take_a_guess_of_each() -> None:
    """Other choice bits in two trees: of 256 guesses of eight bits of delta one passes."""
    bits = delta_bits()
    bits[K : 3 * K] = [1, 0, 1, 0, 0, 1, 1, 0]
    chooser, offerer = ends(bits)
    corrections, choices, t = chooser.extend(256)
    altered = np.frombuffer(bytearray(corrections), np.uint8).reshape(31, 32)
    altered[0, 0] ^= 1  # of tree 1, for transfer 0
    altered[1, 1] ^= 1  # of tree 2, for transfer 8
    q = offerer.extend(256, altered.tobytes())
    passed = []
    for guess in range(1 << 2 * K):
        shown = t.copy()
        shown[0, 0] ^= np.uint64((guess & 15) << K)
        shown[8, 0] ^= np.uint64((guess >> K) << 2 * K)
        if checking.check(CHALLENGE, q, offerer.delta, checking.proof(CHALLENGE, choices, shown)):
            passed.append(guess)
    assert passed == [0b0110_0101]


def test_what_differs_at_the_roots_of_one_point_is_found_at_the_other() -> None:
    """A chooser that knew one point: its difference is zero there, and the other point finds it."""
    own = np.array([1, 0], np.uint64)  # the first point is 1, where a polynomial is the sum of its blocks
    challenge = own.tobytes() + CHALLENGE[16:]
    bits = delta_bits()
    bits[K] = 1
    chooser, offerer = ends(bits)
    corrections, choices, t = chooser.extend(COUNT)
    altered = np.frombuffer(bytearray(corrections), np.uint8).reshape(31, COUNT // 8)
    altered[0, 0] ^= 1
    altered[0, 16] ^= 1
    q = offerer.extend(COUNT, altered.tobytes())
    answer = checking.proof(challenge, choices, t)
    assert not checking.check(challenge, q, offerer.delta, answer)
    assert checking.check(own.tobytes() * 2, q, offerer.delta, checking.proof(own.tobytes() * 2, choices, t))


def test_x_is_padded_by_the_dropped_choices() -> None:
    """Every x comes of exactly one pad: what 256 dropped choices add to it is an invertible map."""
    _, choices, t = ends(delta_bits())[0].extend(512)
    plain = np.frombuffer(checking.proof(CHALLENGE, choices, t), np.uint8, 32)
    images = []
    for bit in range(256):
        flipped = choices.copy()
        flipped[32 + bit // 8] ^= 1 << bit % 8
        shown = np.frombuffer(checking.proof(CHALLENGE, flipped, t), np.uint8, 32)
        images.append(int.from_bytes((plain ^ shown).tobytes(), "little"))
    pivots: dict[int, int] = {}
    for image in images:
        while image and image.bit_length() in pivots:
            image ^= pivots[image.bit_length()]
        assert image
        pivots[image.bit_length()] = image
    assert len(pivots) == 256


def test_transcripts_tell_all_that_was_said_apart() -> None:
    seen = set()
    for session, said in [(b"a", ()), (b"b", ()), (b"a", (b"x",)), (b"a", (b"x", b"y")), (b"a", (b"xy",))]:
        one, same = checking.Transcript(session, *said), checking.Transcript(session, *said)
        assert one.start == same.start
        challenges = [one.challenge(b"message"), one.challenge(b"message")]
        assert challenges == [same.challenge(bytearray(b"message")), same.challenge(memoryview(b"message"))]
        seen.update([one.start, *challenges])
    assert len(seen) == 15
    assert repr(checking.Transcript(b"a")) == "Transcript()"


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
        checking.proof(CHALLENGE, choices[:16], t[:128])
    with pytest.raises(ValueError):
        checking.proof(CHALLENGE, choices, t[:250])
