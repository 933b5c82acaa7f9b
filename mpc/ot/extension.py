"""Oblivious transfer extension: from 128 base transfers to as many as are wanted, by AES and additions alone.

SoftSpokenOT (Roy, CRYPTO 2022): the two ends share the leaves of 128 / k trees of depth k. The chooser knows all
``2^k`` leaves of each, the offerer all but one, whose number is k bits of its secret ``delta`` (puncturable PRF from k
transfers: section 6, after Boyle et al., CCS 2019, Figure 13). Every leaf is a stream of bits ``r_y``. With
``u = sum r_y`` and ``v_b = sum of the r_y whose number y has bit b``, the offerer can compute
``w_b = sum (bit b of y ^ delta) r_y = v_b + delta_b u``, for the leaf that it lacks has the factor 0 (section 3.1). The
chooser tells ``u + c`` for its choice bits c, which are the u of the first tree, so that this tree needs no correction
(section 3.2 with the repetition code). Then ``q_b = w_b + delta_b (u + c) = v_b + delta_b c`` for all 128 bits b, and
transposed

    ``q_i = t_i ^ c_i delta`` for every transfer i.

With k = 1 this is IKNP (Ishai, Kilian, Nissim, Petrank, CRYPTO 2003), with one saved row in 128. The keys of the
transfer i are ``H(q_i)`` and ``H(q_i ^ delta)``; the chooser has ``H(t_i)``, that of its choice bit
(:mod:`mpc.ot.hashing`).

Threat model: semi-honest. The offerer sees ``u + c`` of each tree but the first, padded by the stream of the leaf
that it lacks (AES-128 in counter mode as a pseudorandom function); the chooser receives nothing at all. A dishonest
chooser could send corrections for different choice bits in different trees and learn bits of ``delta`` from what is
done with the keys; :mod:`mpc.ot.checking` is against that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mpc.ot._native import loops
from mpc.ot.trees import BITS, KEY_BYTES, Tree, depths, grow, grow_all_but_one, sums_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.ot._native import Loops
    from mpc.ot.hashing import Hash
    from mpc.transport import Buffer

    Bytes = NDArray[np.uint8]
    Words = NDArray[np.uint64]

__all__ = [
    "BITS",
    "DEPTH",
    "KEY_BYTES",
    "STEP",
    "Chooser",
    "Offerer",
    "base_keys",
    "base_pairs",
    "corrections_bytes",
    "sums_bytes",
]

DEPTH = 4  # k; measured, see Chooser.extend
STEP = 128  # transfers come in multiples of this, a cipher block of every stream
_PIECE = 1024  # words of a row, 2^16 transfers, that are worked on at a time; the rows then stay in the cache


def corrections_bytes(count: int, k: int) -> int:
    """Return the length of what :meth:`Chooser.extend` has for the offerer: about 16 / k bytes a transfer."""
    return (len(depths(k)) - 1) * count // 8


def most_transfers(k: int, message_bytes: int) -> int:
    """Return the largest number of transfers, in whole KiB of transfers, whose corrections fit so many bytes."""
    return 8 * message_bytes // (len(depths(k)) - 1) // 1024 * 1024


# ---- the two ends ---------------------------------------------------------------------------------------------------


class Chooser:
    """The end that has random choice bits and one key of each transfer; made by :meth:`from_keys`.

    Attributes
    ----------
    k : int
    position : int
        Transfers made so far, hence the number of the next one.
    """

    __slots__ = ("_loops", "_room", "_trees", "k", "position")

    def __init__(self, trees: Sequence[Tree], k: int, on: Loops | None = None) -> None:
        self._trees = trees
        self._room = _Room(trees)
        self._loops = on or loops()
        self.k = k
        self.position = 0

    @classmethod
    def from_keys(
        cls, keys: NDArray[np.uint8], k: int, session: bytes, on: Loops | None = None
    ) -> tuple[Chooser, bytes]:
        """Grow all trees.

        Parameters
        ----------
        keys : numpy.ndarray
            uint8, shape ``(128, 2, 16)``: both keys of base transfers in which we are the sender. Secret.
        k : int
            Depth of the trees, 1 to 8, the same at both ends.
        session : bytes
            Public, the same at both ends.

        Returns
        -------
        Chooser
        bytes
            For the offerer, :func:`sums_bytes` long.

        Notes
        -----
        :func:`mpc.ot.trees.grow`. About 7 ms for k = 4.
        """
        trees, message = grow(keys, k, session)
        return cls(trees, k, on), message

    def extend(self, count: int) -> tuple[bytes, NDArray[np.uint8], NDArray[np.uint64]]:
        """Make further transfers.

        Parameters
        ----------
        count : int
            A multiple of 128; the same at both ends, in the same order.

        Returns
        -------
        bytes
            Corrections for the offerer, :func:`corrections_bytes` long.
        numpy.ndarray
            uint8, shape ``(count / 8,)``: our random choice bits, packed least first. Secret.
        numpy.ndarray
            uint64, shape ``(count, 2)``: the keys ``t_i``, the low word first. Secret.

        Notes
        -----
        Bytes sent and processor time for each transfer, at each end, for as many at a time as fit a message of 240 KiB
        (one core of a 2023 Xeon with wide AES instructions, shared with others):

        ==== ====== ======== ====================================== =====================
        k    bytes  ns       both ends, with TLS at 1.7 ns a byte   on a line of 1 Gbit/s
        ==== ====== ======== ====================================== =====================
        1    15.9   29 to 35 91                                     191 ns
        2    7.9    15 to 16 44                                     93 ns
        3    5.3    13       35                                     68 ns
        4    3.9    14 to 15 35                                     60 ns
        5    3.1    23       52                                     71 ns
        8    1.9    90 to 95 190                                    202 ns
        ==== ====== ======== ====================================== =====================

        On a line, ends compute and send one after the other. A call costs some 0.2 ms whatever its count, so that 2^12
        transfers take 60 ns each.
        """
        words = _words(count)
        choices = np.empty(words, np.uint64)
        corrections = np.empty((len(self._trees) - 1, words), np.uint64)
        keys = np.empty((words, 64, 2), np.uint64)
        for start in range(0, words, _PIECE):
            piece = slice(start, min(start + _PIECE, words))
            room = self._room.of(piece.stop - start)
            chooser_rows(self._loops, self._trees, choices[piece], corrections[:, piece], room)
            self._loops.transpose(room.rows, out=keys[piece])
        self.position += count
        return corrections.tobytes(), choices.view(np.uint8), keys.reshape(count, 2)

    def rows(self, count: int) -> NDArray[np.uint64] | None:
        """Return the rows of the last extension, of ``count`` transfers, if they are still here: until the next one."""
        return self._room.last(_words(count))

    def __repr__(self) -> str:
        return f"Chooser(k={self.k}, position={self.position})"


class Offerer:
    """The end that has both keys of each transfer, ``q_i`` and ``q_i ^ delta``; made by :meth:`from_keys`.

    Attributes
    ----------
    k : int
    delta : numpy.ndarray
        uint64, shape ``(2,)``. Secret.
    position : int
        Transfers made so far, hence the number of the next one.
    """

    __slots__ = ("_loops", "_masks", "_room", "_trees", "delta", "k", "position")

    def __init__(self, trees: Sequence[Tree], choices: NDArray[np.uint8], k: int, on: Loops | None = None) -> None:
        self._trees = trees
        self._room = _Room(trees)
        self._loops = on or loops()
        self._masks = _masks(choices)
        self.delta: NDArray[np.uint64] = np.packbits(choices, bitorder="little").view("<u8").astype(np.uint64)
        self.k = k
        self.position = 0

    @classmethod
    def from_keys(
        cls,
        choices: NDArray[np.uint8],
        keys: NDArray[np.uint8],
        k: int,
        session: bytes,
        sums: bytes,
        on: Loops | None = None,
    ) -> Offerer:
        """Grow all trees but for one leaf of each.

        Parameters
        ----------
        choices : numpy.ndarray
            uint8, shape ``(128,)``, zeros and ones: our choices in the base transfers, which become delta. Secret.
        keys : numpy.ndarray
            uint8, shape ``(128, 16)``: the keys of these choices. Secret.
        k, session
            See :meth:`Chooser.from_keys`.
        sums : bytes
            What the chooser sent.

        Raises
        ------
        ValueError
            Another length than :func:`sums_bytes`, or arrays that are no choices or keys.
        """
        return cls(grow_all_but_one(choices, keys, k, session, sums), choices, k, on)

    def count_of(self, length: int) -> int:
        """Return how many transfers corrections of this length are for; 0 where it is not a length of any."""
        count = 8 * length // (len(self._trees) - 1)
        return count if count % STEP == 0 and corrections_bytes(count, self.k) == length else 0

    def extend(self, count: int, corrections: Buffer) -> NDArray[np.uint64]:
        """Make further transfers.

        Parameters
        ----------
        count : int
            A multiple of 128.
        corrections : bytes, bytearray or memoryview
            What the chooser's :meth:`Chooser.extend` returned for this count.

        Returns
        -------
        numpy.ndarray
            uint64, shape ``(count, 2)``: ``q_i = t_i ^ c_i delta``, the low word first. Secret.

        Raises
        ------
        ValueError
            Corrections of another length; nothing has been used up then.
        """
        words, others = _words(count), len(self._trees) - 1
        if len(corrections) != 8 * words * others:
            raise ValueError(
                f"the corrections of {count} transfers have {8 * words * others} bytes, not {len(corrections)}"
            )
        table = np.frombuffer(corrections, "<u8").reshape(others, words)
        keys = np.empty((words, 64, 2), np.uint64)
        for start in range(0, words, _PIECE):
            piece = slice(start, min(start + _PIECE, words))
            room = self._room.of(piece.stop - start)
            offerer_rows(self._loops, self._trees, self._masks, table[:, piece], room)
            self._loops.transpose(room.rows, out=keys[piece])
        self.position += count
        return keys.reshape(count, 2)

    def rows(self, count: int) -> NDArray[np.uint64] | None:
        """Return the rows of the last extension; see :meth:`Chooser.rows`."""
        return self._room.last(_words(count))

    def __repr__(self) -> str:
        return f"Offerer(k={self.k}, position={self.position})"


# ---- rows: what the two ends compute before transposing -------------------------------------------------------------


def chooser_rows(on: Loops, trees: Sequence[Tree], choices: Words, corrections: Words, room: _Part) -> None:
    """Read the next bits of all leaves: choice bits, corrections and rows v, one for each bit of delta.

    Parameters
    ----------
    on : Loops
    trees : sequence of Tree
    choices : numpy.ndarray
        uint64, shape ``(words,)``, to be written.
    corrections : numpy.ndarray
        Shape ``(trees - 1, words)``, to be written.
    room : _Part
        Its rows are to be written.
    """
    fold, zeros, totals = on.fold, room.zeros, [choices, *corrections]
    for tree, total, (leaves, views, rows) in zip(trees, totals, room.trees, strict=True):
        tree.read(views, zeros)
        fold(leaves, out=(total, rows))
    corrections ^= choices


def offerer_rows(on: Loops, trees: Sequence[Tree], masks: Words, corrections: Words, room: _Part) -> None:
    """Read the next bits of all leaves but one of each tree, and correct: rows ``w + delta_b (u + c)``.

    Parameters
    ----------
    masks : numpy.ndarray
        Shape ``(sum of depths,)``: a word of ones for each bit of delta that is set.
    corrections : numpy.ndarray
        As :func:`chooser_rows` writes them.
    room : _Part
        Its rows are to be written.
    """
    unused = np.empty(room.rows.shape[1], np.uint64)
    start = 0
    for number, (leaves, views, rows) in enumerate(room.trees):
        trees[number].read(views, room.zeros)
        on.fold(leaves, out=(unused, rows))
        if number:
            on.correct(corrections[number - 1], masks[start : start + len(rows)], rows, out=rows)
        start += len(rows)


class _Part(NamedTuple):
    """Room for a piece: rows for all trees; for each the leaves, as rows of words and as bytes, and its own rows."""

    rows: Words
    zeros: bytes
    trees: list[tuple[Words, list[memoryview], Words]]


class _Room:
    """Room for pieces of any size; that of the last size is kept, with its views."""

    def __init__(self, trees: Sequence[Tree]) -> None:
        self._depths = [tree.depth for tree in trees]
        self._last: tuple[int, _Part] | None = None

    def of(self, words: int) -> _Part:
        """Return room for so many words of each row; rows of leaves that are not known hold zeros, and keep them."""
        if self._last is not None and self._last[0] == words:
            return self._last[1]
        rows, trees, start = np.empty((sum(self._depths), words), np.uint64), [], 0
        leaves = np.zeros((1 << max(self._depths), words), np.uint64)
        views = [row.data for row in leaves.view(np.uint8)]
        for depth in self._depths:
            trees.append((leaves[: 1 << depth], views[: 1 << depth], rows[start : start + depth]))
            start += depth
        self._last = words, _Part(rows, bytes(8 * words), trees)
        return self._last[1]

    def last(self, words: int) -> Words | None:
        """Return the rows that were written last, if they have so many words."""
        return self._last[1].rows if self._last is not None and self._last[0] == words else None


# ---- base transfers of the other direction --------------------------------------------------------------------------


def base_pairs(hashed: Hash, first: int, keys: NDArray[np.uint64], delta: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Return both keys of base transfers, shape ``(count, 2, 16)``, of transfers in which we are the offerer.

    With 128 of them we become the chooser of an extension in the other direction. ``first`` is the number of the first;
    these transfers are then used up.
    """
    return np.stack([_hashed(hashed, first, keys), _hashed(hashed, first, keys ^ delta)], axis=1)


def base_keys(hashed: Hash, first: int, keys: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Return the keys of our choice of base transfers, shape ``(count, 16)``; see :func:`base_pairs`."""
    return _hashed(hashed, first, keys)


def _hashed(hashed: Hash, first: int, keys: NDArray[np.uint64]) -> NDArray[np.uint8]:
    return hashed(keys, first).view(np.uint8).reshape(len(keys), KEY_BYTES)


def _masks(choices: Bytes) -> Words:
    """Return a word of ones for each 1."""
    return np.negative(choices.astype(np.int64)).view(np.uint64)


def _words(count: int) -> int:
    if count < 0 or count % STEP:
        raise ValueError(f"transfers come in multiples of {STEP}, not {count}")
    return count // 64
