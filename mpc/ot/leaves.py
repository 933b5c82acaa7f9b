"""Pads of the leaves of all trees that one end knows: AES-128 in counter mode, from a first block of each scope's own.

Leaves keep their keys for good, so that a stream may never begin with the same nonce twice: who reads sees to that.

There are two ways to the same bytes. Long streams are read as those of GCM, whose tag nobody asks for, and which
OpenSSL makes in half the time on machines with wide AES instructions (:mod:`mpc.ot.trees`). Short ones are read from
a cipher that is kept and set to a block, since to open a stream takes as long as to read some 2^11 pads of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.transport import Buffer

    Bytes = NDArray[np.uint8]

NONCE_BYTES = 12
PAD_BYTES = 16
_COUNTER_BYTES = 4
_FIRST = 2  # the block of GCM that is first to pad anything
_SHORT = 1 << 12  # pads


class Leaves:
    """The leaves of one end's trees.

    Parameters
    ----------
    keys : sequence of numpy.ndarray
        Of each tree: uint8, shape ``(2^depth, 16)``. Secret.
    missing : int
        How many of each tree, from the first, we do not know: their pads are zeros.
    """

    def __init__(self, keys: Sequence[Bytes], missing: int) -> None:
        self._keys = [[key.tobytes() for key in tree[missing:]] for tree in keys]
        self._missing = missing
        self._ciphers: list[list[CipherContext]] = []
        self._length = -1

    def __len__(self) -> int:
        """Return how many trees there are."""
        return len(self._keys)

    def open(self, nonce: bytes, count: int) -> Streams:
        """Begin to read so many pads of each leaf, or fewer; a nonce has 12 bytes, and is used once."""
        if count > _SHORT:
            return Streams(self, [[_stream(key, nonce) for key in tree] for tree in self._keys], nonce)
        if not self._ciphers:
            self._ciphers = [[_cipher(key) for key in tree] for tree in self._keys]
        return Streams(self, None, nonce)

    def room(self, length: int) -> tuple[NDArray[np.uint64], list[memoryview], bytes]:
        """Return room for pads of one tree, its rows of leaves that we know, and zeros as long as a row."""
        if length != self._length:
            most = self._missing + max(map(len, self._keys))
            self._pads = np.zeros((most, length, 2), np.uint64)
            self._rows = [
                row.data for row in self._pads.view(np.uint8).reshape(most, length * PAD_BYTES)[self._missing :]
            ]
            self._zeros = bytes(length * PAD_BYTES)
            self._length = length
        return self._pads, self._rows, self._zeros

    def ciphers(self, tree: int) -> list[CipherContext]:
        """Return the ciphers of a tree that are kept."""
        return self._ciphers[tree]

    def rows(self, tree: int) -> int:
        """Return how many leaves a tree has, with those that we do not know."""
        return self._missing + len(self._keys[tree])

    def __repr__(self) -> str:
        return f"Leaves({len(self)} trees)"


class Streams:
    """The pads of one scope, made by :meth:`Leaves.open`."""

    def __init__(
        self, leaves: Leaves, streams: list[list[Callable[[Buffer, memoryview], int]]] | None, nonce: bytes
    ) -> None:
        self._leaves = leaves
        self._streams = streams
        self._nonce = nonce

    def read(self, tree: int, start: int, length: int) -> NDArray[np.uint64]:
        """Read the pads ``start`` to ``start + length`` of a tree; those of each tree are read from front to back.

        Returns
        -------
        numpy.ndarray
            uint64, shape ``(2^depth, length, 2)``, good until anything else is read.
        """
        pads, rows, zeros = self._leaves.room(length)
        if self._streams is not None:
            for update_into, row in zip(self._streams[tree], rows, strict=False):
                update_into(zeros, row)
        else:
            block = self._nonce + (_FIRST + start).to_bytes(_COUNTER_BYTES, "big")
            for cipher, row in zip(self._leaves.ciphers(tree), rows, strict=False):
                cipher.reset_nonce(block)
                cipher.update_into(zeros, row)
        return pads[: self._leaves.rows(tree)]


def _stream(key: bytes, nonce: bytes) -> Callable[[Buffer, memoryview], int]:
    return Cipher(algorithms.AES(key), modes.GCM(nonce)).encryptor().update_into


def _cipher(key: bytes) -> CipherContext:
    return Cipher(algorithms.AES(key), modes.CTR(bytes(PAD_BYTES))).encryptor()
