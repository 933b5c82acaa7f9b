"""Pseudorandom streams: AES-CTR, keyed by a seed and a label.

A seed is 32 bytes from ``secrets``. Each label opens an independent stream, so two computations that
use different labels never share randomness, whatever order they run in. Parties that hold the same
seed and draw the same things under the same label get the same values: that is how shares, masks and
zero-sharings come into being without being sent.

Assumptions: AES-128 in counter mode is a pseudorandom function family (NIST SP 800-38A), BLAKE2b with
a key is a pseudorandom function (RFC 7693). Key and first counter block both come from BLAKE2b.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from typing import TYPE_CHECKING, Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mpc._copying import copy_into

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import Field, FieldArray

SEED_BYTES = 32
_BLOCK = 16
_BUFFER = 4096  # small draws are cut from a buffer of this many bytes
_PIECE = 128 * 1024  # large ones are made in pieces that stay in the cache
_ZEROS = np.zeros(_PIECE, np.uint8)
_ZEROS.flags.writeable = False


def new_seed() -> bytes:
    """Return a fresh secret seed from the operating system."""
    return secrets.token_bytes(SEED_BYTES)


class RandomStream(Protocol):
    """What drawing needs: where it stands, uniform elements and bounded integers."""

    @property
    def position(self) -> int:
        """Bytes drawn so far."""

    def elements(self, field: Field, shape: tuple[int, ...]) -> FieldArray:
        """Draw uniform elements of ``field``."""

    def bounded(self, field: Field, bits: int, shape: tuple[int, ...]) -> FieldArray:
        """Draw elements uniform in ``[0, 2^bits)``."""

    def skip(self, count: int) -> None:
        """Move on as if ``count`` bytes had been drawn."""


class Prg:
    """Independent pseudorandom streams from one secret seed.

    Parameters
    ----------
    seed : bytes
        32 secret bytes.
    """

    __slots__ = ("_seed",)

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise ValueError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
        self._seed = seed

    def stream(self, label: str, position: int = 0) -> Stream:
        """Open the stream of a label, ``position`` bytes (a multiple of 16) from its start."""
        digest = hashlib.blake2b(label.encode(), digest_size=32, key=self._seed, person=b"sottovoce.prg").digest()
        return Stream(digest[:16], int.from_bytes(digest[16:], "big"), position)

    def __repr__(self) -> str:
        return "Prg()"


class Stream:
    """One pseudorandom stream, read from front to back; every draw starts at a cipher block."""

    __slots__ = ("_buffer", "_buffered_at", "_counter", "_key", "_keystream", "_position")

    def __init__(self, key: bytes, counter: int, position: int) -> None:
        if position % _BLOCK:
            raise ValueError("a stream is entered at a multiple of 16 bytes")
        self._key = key
        self._counter = counter
        self._position = position
        self._enter(position)

    def _enter(self, position: int) -> None:
        block = (self._counter + position // _BLOCK) % (1 << 128)
        self._keystream = Cipher(algorithms.AES(self._key), modes.CTR(block.to_bytes(16, "big"))).encryptor()
        self._buffer: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._buffered_at = 0

    @property
    def position(self) -> int:
        """Bytes drawn so far, a multiple of 16."""
        return self._position

    def raw(self, count: int) -> NDArray[np.uint8]:
        """Draw ``count`` bytes; the position moves on to the next multiple of 16."""
        padded = -(-count // _BLOCK) * _BLOCK
        start, stop = self._buffered_at, self._buffered_at + padded
        if stop <= self._buffer.size:
            self._position += padded
            self._buffered_at = stop
            return self._buffer[start : start + count]
        drawn = np.empty(padded, np.uint8)
        self._fill(drawn)
        return drawn[:count]

    def _fill(self, out: NDArray[np.uint8]) -> None:
        """Fill a flat array, a multiple of 16 bytes long, with the next bytes of the stream."""
        self._position += out.size
        left = min(self._buffer.size - self._buffered_at, out.size)
        out[:left] = self._buffer[self._buffered_at : self._buffered_at + left]
        self._buffered_at += left
        if out.size == left:
            return
        rest = out.size - left
        if rest < _BUFFER:
            self._buffer = np.empty(_BUFFER, np.uint8)
            self._keystream.update_into(_ZEROS[:_BUFFER].data, self._buffer.data)
            self._buffered_at = rest
            out[left:] = self._buffer[:rest]
            return
        for at in range(left, out.size, _PIECE):
            piece = out[at : at + _PIECE]
            self._keystream.update_into(_ZEROS[: piece.size].data, piece.data)

    def elements(self, field: Field, shape: tuple[int, ...]) -> FieldArray:
        """Draw elements, exactly uniform in ``[0, p)``.

        What falls on p or above is drawn again, from a stream of its own, so that our position
        depends on the shape alone.
        """
        start, count = self._position, math.prod(shape)
        if count * field.element_bytes <= _PIECE:
            elements, rejected = field.from_uniform(self.raw(count * field.element_bytes))
            return self._redrawn(start, field, elements, rejected).reshape(shape)
        # Piece by piece, so that the bytes are still in the cache when they become elements.
        elements = np.empty(count, field.dtype)
        scratch = np.empty(_PIECE, np.uint8)
        most = _PIECE // field.element_bytes
        for at in range(0, count, most):
            size = min(most, count - at) * field.element_bytes
            padded = scratch[: -(-size // _BLOCK) * _BLOCK]
            begin = self._position
            self._fill(padded)
            piece, rejected = field.from_uniform(padded[:size])
            copy_into(elements[at : at + most], self._redrawn(begin, field, piece, rejected))
        return elements.reshape(shape)

    def _redrawn(self, start: int, field: Field, elements: FieldArray, rejected: NDArray[np.intp]) -> FieldArray:
        if rejected.size:
            redraw = self._redraw(start)
            while rejected.size:
                again, still = field.from_uniform(redraw.raw(rejected.size * field.element_bytes))
                elements[rejected] = again
                rejected = rejected[still]
        return elements

    def _redraw(self, start: int) -> Stream:
        label = b"redraw at %d" % start
        digest = hashlib.blake2b(label, digest_size=32, key=self._key, person=b"sottovoce.again").digest()
        return Stream(digest[:16], int.from_bytes(digest[16:], "big"), 0)

    def skip(self, count: int) -> None:
        """Move on as if ``count`` bytes had been drawn."""
        self._position += -(-count // _BLOCK) * _BLOCK
        self._enter(self._position)

    def bounded(self, field: Field, bits: int, shape: tuple[int, ...]) -> FieldArray:
        """Draw integers uniform in ``[0, 2^bits)`` as elements; ``2^bits`` must be below p."""
        width = 16 if bits > 64 else 8
        return field.bounded_from_uniform(self.raw(math.prod(shape) * width), bits).reshape(shape)

    def __repr__(self) -> str:
        return f"Stream(position={self._position})"
