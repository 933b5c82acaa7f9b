"""The trees behind an extension: one end knows all leaves, the other all but one of each.

The puncturable pseudorandom function of Goldreich, Goldwasser and Micali (JACM 1986), whose nodes are AES-128 keys and
whose leaves are streams, handed over by one transfer for each level (Boyle et al., "Efficient Two-Round OT Extension
and Silent Non-Interactive Secure Computation", CCS 2019, section on all-but-one transfer; Roy, CRYPTO 2022, takes it
from there): at each level the offerer's path turns to one of two children. Of the sums of all left and of all right
children of the level, it can unmask the one on the other side, and so makes the child beside its path. The children of
the root are keys of base transfers themselves.

Who learns what: the chooser nothing at all of the path, which is the offerer's choices in the base transfers; the
offerer all leaves but one, which stays pseudorandom to it (AES-128). Semi-honest: sums that do not belong together
give the offerer leaves that depend on its path. What is done about that: :mod:`mpc.ot.checking`, and for correlated
elements, which have trees of their own, :mod:`mpc.ot.correlated`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import repeat
from operator import call
from typing import TYPE_CHECKING, Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.transport import Buffer

    Bytes = NDArray[np.uint8]

BITS = 128  # base transfers, hence levels of all trees together
KEY_BYTES = 16
_MOST_DEPTH = 8


class LeafStream(Protocol):
    """The stream of a leaf, read from front to back by encrypting zeros."""

    def update_into(self, data: Buffer, buf: memoryview) -> int:
        """Write the next ``len(data)`` bytes of the stream into ``buf``."""


class Tree:
    """The leaves that one end knows of one tree.

    At the offerer they stand in the order of ``y ^ delta``, so that what is done with them does not depend on delta:
    the one that it lacks is the first, None.
    """

    __slots__ = ("_known", "depth", "leaves")

    def __init__(self, depth: int, leaves: Sequence[LeafStream | None]) -> None:
        self.depth = depth
        self.leaves = leaves
        self._known = [leaf.update_into for leaf in leaves if leaf is not None]

    def read(self, rows: Sequence[memoryview], zeros: Buffer) -> None:
        """Write the next bytes of every leaf to a row; a leaf that is not known leaves its row as it is."""
        for _ in map(call, self._known, repeat(zeros), rows[len(rows) - len(self._known) :]):
            pass  # a loop of calls that are short: nothing else is done in it


def depths(k: int, bits: int = BITS) -> list[int]:
    """Return the depths of the trees: k each, the last one less where k does not divide the number of bits."""
    if not 1 <= k <= _MOST_DEPTH:
        raise ValueError(f"the depth of a tree is from 1 to {_MOST_DEPTH}, not {k}")
    return [min(k, bits - start) for start in range(0, bits, k)]


def sums_bytes(k: int, bits: int = BITS) -> int:
    """Return the length of what :func:`grow` has for the offerer."""
    return sum(2 * KEY_BYTES * (depth - 1) for depth in depths(k, bits))


def grow(keys: Bytes, k: int, session: bytes) -> tuple[list[Tree], bytes]:
    """Grow all trees, as the chooser.

    Parameters
    ----------
    keys : numpy.ndarray
        uint8, shape ``(128, 2, 16)``: both keys of base transfers. Secret.
    k : int
    session : bytes
        Public, the same at both ends.

    Returns
    -------
    list of Tree
    bytes
        For the offerer, :func:`sums_bytes` long: the sums of both sides of each level but the first, each under the
        base key of the other side.
    """
    _require(keys, (BITS, 2, KEY_BYTES))
    leaves, message = grow_leaves(keys, k, session)
    trees = [
        Tree(len(nodes).bit_length() - 1, [_stream(node, session, number) for node in nodes])
        for number, nodes in enumerate(leaves)
    ]
    return trees, message


def grow_leaves(keys: Bytes, k: int, session: bytes) -> tuple[list[Bytes], bytes]:
    """Grow trees over any number of base transfers; return the keys of each tree's leaves, shape ``(2^depth, 16)``.

    See :func:`grow`, which makes streams of them.
    """
    _require(keys, (len(keys), 2, KEY_BYTES))
    leaves, message, start = [], b"", 0
    for number, depth in enumerate(depths(k, len(keys))):
        # The last level is that of the lowest bit. The offerer has the key of its own bit, for the other side.
        levels = keys[start : start + depth][::-1, ::-1]
        nodes = levels[0]
        for level in range(1, depth):
            pairs = _children(nodes, block_of(session, number, level))
            message += (np.bitwise_xor.reduce(pairs, axis=0) ^ levels[level]).tobytes()
            nodes = pairs.reshape(-1, KEY_BYTES)
        leaves.append(nodes)
        start += depth
    return leaves, message


def grow_all_but_one(choices: Bytes, keys: Bytes, k: int, session: bytes, sums: bytes) -> list[Tree]:
    """Grow all trees but for one leaf of each, as the offerer.

    Parameters
    ----------
    choices, keys : numpy.ndarray
        uint8, shapes ``(128,)`` and ``(128, 16)``: our choices in the base transfers, zeros and ones, and their keys.
        The number of the missing leaf of a tree has the tree's choices as its bits. Secret.
    k, session
        See :func:`grow`.
    sums : bytes
        What the chooser sent.

    Raises
    ------
    ValueError
        Another length than :func:`sums_bytes`, or arrays that are no choices or keys.
    """
    _require(choices, (BITS,))
    return [
        Tree(len(nodes).bit_length() - 1, [None, *(_stream(node, session, number) for node in nodes[1:])])
        for number, nodes in enumerate(grow_leaves_but_one(choices, keys, k, session, sums))
    ]


def grow_leaves_but_one(choices: Bytes, keys: Bytes, k: int, session: bytes, sums: Buffer) -> list[Bytes]:
    """Grow trees over any number of base transfers; return the keys of each tree's leaves, shape ``(2^depth, 16)``.

    They stand in the order of ``y ^ delta``; the first, which we lack, is zeros. See :func:`grow_all_but_one`.
    """
    _require(choices, (len(choices),))
    _require(keys, (len(choices), KEY_BYTES))
    if choices.max() > 1:
        raise ValueError("choices are zeros and ones")
    if len(sums) != sums_bytes(k, len(choices)):
        raise ValueError(f"the sums of trees have {sums_bytes(k, len(choices))} bytes, not {len(sums)}")
    masked = np.frombuffer(sums, np.uint8).reshape(-1, 2, KEY_BYTES)
    leaves, start, used = [], 0, 0
    for number, depth in enumerate(depths(k, len(choices))):
        bits, levels = choices[start : start + depth][::-1], keys[start : start + depth][::-1]
        # Nodes stand in the order of their number ^ our path, so the one that we lack is the first: zeros.
        nodes = np.zeros((2, KEY_BYTES), np.uint8)
        nodes[1] = levels[0]
        for level in range(1, depth):
            pairs = _children(nodes, block_of(session, number, level))
            swap = -bits[level : level + 1]  # ones where our path turns right
            pairs ^= ((pairs[:, 0] ^ pairs[:, 1]) & swap)[:, None]
            pairs[0] = 0
            beside = masked[used, 1] ^ ((masked[used, 0] ^ masked[used, 1]) & swap)
            pairs[0, 1] = np.bitwise_xor.reduce(pairs[:, 1], axis=0) ^ beside ^ levels[level]
            nodes = pairs.reshape(-1, KEY_BYTES)
            used += 1
        leaves.append(nodes)
        start += depth
    return leaves


def block_of(session: bytes, tree: int, level: int) -> bytes:
    """Return the first block that the nodes of a level encrypt; level 0 stands for the leaves."""
    place = tree.to_bytes(2, "little") + level.to_bytes(2, "little")
    return hashlib.blake2b(place + session, digest_size=15, person=b"sottovoce.tree").digest() + b"\0"


def _children(nodes: Bytes, block: bytes) -> Bytes:
    """Return both children of each node, shape ``(nodes, 2, 16)``: two blocks under the node as an AES key."""
    plain = block + block[:-1] + b"\1"
    pairs = b"".join(
        # Two different blocks under a key of their own: a pseudorandom function, not a way to encrypt.
        Cipher(algorithms.AES(node.tobytes()), modes.ECB()).encryptor().update(plain)  # noqa: S305
        for node in nodes
    )
    return np.frombuffer(bytearray(pairs), np.uint8).reshape(-1, 2, KEY_BYTES)


def _stream(leaf: Bytes, session: bytes, tree: int) -> LeafStream:
    """Return AES-128 in counter mode, as GCM has it: 2^39 bits, after which it raises ``ValueError``.

    Nobody asks for the tag. On machines with wide AES instructions OpenSSL makes use of them for GCM, and not for CTR,
    so that this takes half the time there (and a little more elsewhere).
    """
    return Cipher(algorithms.AES(leaf.tobytes()), modes.GCM(block_of(session, tree, 0)[:12])).encryptor()


def _require(array: Bytes, shape: tuple[int, ...]) -> None:
    if array.dtype != np.uint8 or array.shape != shape:
        raise ValueError(f"expected bytes of shape {shape}, not {array.dtype} of shape {array.shape}")
