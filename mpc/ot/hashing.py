"""A correlation-robust hash from AES under one public key: what makes pads of the keys of transfers.

Both ways are from Guo, Katz, Wang, Yu, "Efficient and Secure Multiparty Computation from Fixed-Key Block Ciphers",
IEEE S&P 2020, with ``P`` = AES-128 under a fixed key, which the proofs take for an ideal permutation.

- Against semi-honest parties: ``H(x, b) = P(x ^ b) ^ x ^ b`` for the block b (MMO; section 7.2). The values
  ``H(x ^ D, b)`` are indistinguishable from random for a secret D of high entropy where all ``x ^ b`` differ. The x
  are keys of an honest extension, uniform 128 bits; two of m keys of B blocks meet with a probability below
  ``(m B)^2 / 2^129``.
- Against dishonest ones, who have a say in x: ``H(x, i) = P(P(x) ^ i) ^ P(x)`` with the number of the transfer and of
  the block in the tweak i (TMMO; section 7.4): the same for x and i of the adversary's choice, as long as no tweak is
  used twice with different meaning, also for values that depend on D. Takes twice as long.

The two keys of a correlated transfer, ``x`` and ``x ^ D``, need that. The distance is of the order of
``(p q + q^2) / 2^128`` for p evaluations of P and q of H. Values that are sent under these pads do not depend on D
(else H has to be circular, section 7.3; of the two TMMO is).

The key is public and belongs to a session, so that a table made in advance serves nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mpc.ot._native import loops

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.ot._native import Loops

KEY_BYTES = 16
_BLOCK = 16
_PIECE = 1 << 13  # blocks that are hashed in one go: arrays of 128 KiB; the calls cost as much as 2^10 blocks
_MOST_BLOCKS = 1 << 32
_MOST_INDEX = 1 << 64
_NONE, _EACH = np.uint64(0), np.uint64(1)


class Hash:
    """H for arrays of keys, whose numbers and blocks follow one another.

    Parameters
    ----------
    key : bytes
        16 public bytes, the same at both ends.
    on : Loops, optional
        For tests.
    tweaked : bool
        Whether to hash the second way, for protocols in which the other party may be dishonest.

    Notes
    -----
    Not for several threads at once. About 3 ns a key, 5 ns if tweaked, where one block is made of it; 4 ns a block
    otherwise.
    """

    __slots__ = ("_encryptor", "_loops", "_once", "_spread", "_tweaked")

    def __init__(self, key: bytes, on: Loops | None = None, *, tweaked: bool = False) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"the hash takes a key of {KEY_BYTES} bytes, not {len(key)}")
        # One permutation of single blocks is what the hash is made of; nothing is encrypted here.
        self._encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305
        self._loops = on or loops()
        self._tweaked = tweaked
        self._once, self._spread = _scratch(0), np.empty((0, 2), np.uint64)

    def __call__(self, keys: NDArray[np.uint64], first: int, blocks: int = 1, offset: int = 0) -> NDArray[np.uint64]:
        """Hash every entry once for each block.

        Parameters
        ----------
        keys : numpy.ndarray
            uint64, shape ``(N, 2)``, the low word first. Secret.
        first : int
            Number of the first entry: that of its transfer. Entry n and block b have the tweak
            ``(first + n) * 2^32 + offset + b``, which the caller uses for this one entry only.
        blocks : int
            How many blocks to make of each entry.
        offset : int
            Number of the first block.

        Returns
        -------
        numpy.ndarray
            uint64, shape ``(N, blocks, 2)``.

        Raises
        ------
        ValueError
            Entries of another shape or type, or numbers beyond 2^64 (entries) or 2^32 (blocks).
        """
        if keys.dtype != np.uint64 or keys.ndim != 2 or keys.shape[1] != 2:
            raise ValueError(f"the hash takes entries of two words, not {keys.dtype} of shape {keys.shape}")
        if first < 0 or first + len(keys) > _MOST_INDEX:
            raise ValueError("the number of an entry is in [0, 2^64)")
        if blocks < 0 or offset < 0 or offset + blocks > _MOST_BLOCKS:
            raise ValueError("the number of a block is in [0, 2^32)")
        size = len(keys) * blocks
        hashed = _scratch(size)
        if size:
            numbers = np.arange(offset, offset + blocks, dtype=np.uint64)
            rows = min(max(1, _PIECE // blocks), len(keys))
            for start in range(0, len(keys), rows):
                piece = np.ascontiguousarray(keys[start : start + rows])
                self._hash(piece, first + start, numbers, hashed[start * blocks * _BLOCK :])
        return hashed[: size * _BLOCK].view(np.uint64).reshape(len(keys), blocks, 2)

    def _hash(
        self, keys: NDArray[np.uint64], first: int, blocks: NDArray[np.uint64], target: NDArray[np.uint8]
    ) -> None:
        """Hash packed keys to the bytes at the target."""
        shape = (len(keys), len(blocks), 2)
        self._make_room(shape[0] * shape[1])
        room = self._spread[: shape[0] * shape[1]].reshape(shape)
        if self._tweaked:
            once = self._permute(keys, self._once)
            mixed = self._loops.spread(once, np.uint64(first), _EACH, blocks, out=room)
            outer = self._permute(mixed, target).reshape(shape)
            self._loops.gather(once, outer, out=outer)
            return
        simple = len(blocks) == 1 and not blocks[0]
        mixed = keys.reshape(shape) if simple else self._loops.spread(keys, _NONE, _NONE, blocks, out=room)
        outer = self._permute(mixed, target).reshape(shape)
        np.bitwise_xor(outer, mixed, out=outer)

    def _make_room(self, blocks: int) -> None:
        """Rows of more blocks than a piece are hashed one by one, each at once."""
        if blocks > len(self._spread):
            self._once, self._spread = _scratch(blocks), np.empty((blocks, 2), np.uint64)

    def _permute(self, x: NDArray[np.uint64], target: NDArray[np.uint8]) -> NDArray[np.uint64]:
        """Write P of each entry of a packed array to the target; return it, shape ``(entries, 2)``."""
        self._encryptor.update_into(x.reshape(-1).view(np.uint8).data, target.data)
        return target[: x.nbytes].view(np.uint64).reshape(-1, 2)

    def __repr__(self) -> str:
        return "Hash()"


def _scratch(blocks: int) -> NDArray[np.uint8]:
    """Room for so many blocks, and for the part of one more that the cipher asks for."""
    return np.empty(blocks * _BLOCK + _BLOCK - 1, np.uint8)
