"""Permutation networks for any number of rows: which switches there are, and how a permutation sets them.

A switch lets two wires pass or crosses them. Waksman's network (JACM 15(1), 1968) for sizes that are no powers of
two: Beauquier, Darrot, "On arbitrary size Waksman networks and their vulnerability", Parallel Processing Letters
12(3-4), 2002. An input layer of switches sends one wire of each pair into the network of the even wires and one
into that of the odd wires; an output layer brings them together. One output switch can be spared; an odd wire out
goes straight into the even network.

Wires stay where they are: with ``h = 2^d`` the networks of level d are the residue classes modulo h, and their
pairs are ``(s, s + h)`` for all s without the bit h. So each layer is a butterfly, whatever the number of rows:

    input layer d:   s + h < n        d = 0, 1, ..., L - 1, where L is ceil(log2(n))
    output layer d:  s + 2h < n       d = L - 2, ..., 0; the last pair of each network is spared

Cost: ``n L - 2^L + 1`` switches, the sum of ``ceil(log2(i))`` for i from 1 to n, in ``2 L - 1`` layers; 100,000 rows
have 1,568,929, where a network padded to a power of two has 2,097,153. To compare: n! permutations take at least
``log2(n!) = n log2(n) - 1.44 n`` bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mpc.ot._native import TWIN, loops

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_ROWS = 1 << 31


class Layer(NamedTuple):
    """Switches that work side by side.

    Attributes
    ----------
    stride : int
        How far the wires of a pair are apart, a power of two.
    switches : int
        Switch k joins the wires s and ``s + stride``, s the k-th number without the bit ``stride``.
    """

    stride: int
    switches: int

    def pairs(self) -> NDArray[np.intp]:
        """Return the wires of each switch, shape ``(switches, 2)``."""
        k = np.arange(self.switches)
        first = 2 * k - k % self.stride
        return np.stack([first, first + self.stride], axis=-1)


class Layout(NamedTuple):
    """A network: its layers in the order in which rows pass them."""

    rows: int
    layers: tuple[Layer, ...]

    @property
    def switches(self) -> int:
        """Number of switches."""
        return sum(layer.switches for layer in self.layers)


class Ends(NamedTuple):
    """Some switches of a layer, and views of the rows at their two ends.

    Attributes
    ----------
    switches : slice
        Which, counted through the whole network.
    lower, upper : numpy.ndarray
        Shape ``(blocks, switches in a block, *row)``; writing there changes the rows.
    """

    switches: slice
    lower: NDArray[Any]
    upper: NDArray[Any]

    def within(self, run: slice) -> slice:
        """Return the switches counted from the beginning of a run."""
        return slice(self.switches.start - run.start, self.switches.stop - run.start)


def switch_count(rows: int) -> int:
    """Return the number of switches of a network: ``n L - 2^L + 1`` with ``L = ceil(log2(n))``."""
    levels = _levels(rows)
    return rows * levels - (1 << levels) + 1


@lru_cache(maxsize=64)
def layout(rows: int) -> Layout:
    """Return the network for so many rows, at least 1."""
    levels = _levels(rows)
    inputs = [Layer(1 << d, _without_bit(rows - (1 << d), 1 << d)) for d in range(levels)]
    outputs = [Layer(1 << d, _without_bit(rows - (2 << d), 1 << d)) for d in reversed(range(levels - 1))]
    return Layout(rows, (*inputs, *outputs))


def _levels(rows: int) -> int:
    if not 1 <= rows <= MOST_ROWS:
        raise ValueError(f"a network has 1 to {MOST_ROWS} rows, not {rows}")
    return (rows - 1).bit_length()


def _without_bit(limit: int, bit: int) -> int:
    """Return how many numbers below the limit do not have the bit."""
    return limit // (2 * bit) * bit + min(limit % (2 * bit), bit)


def walk(network: Layout, rows: NDArray[Any], first: int, stop: int) -> Iterator[Ends]:
    """Go through the switches from ``first`` to ``stop`` in order, as many at a time as views can show.

    Parameters
    ----------
    network : Layout
    rows : numpy.ndarray
        In C order; the first axis holds the rows. What has been yielded is to be worked on before going on.
    """
    at = 0
    for layer in network.layers:
        yield from _walk_layer(layer, at, rows, max(first - at, 0), min(stop - at, layer.switches))
        at += layer.switches


def _walk_layer(layer: Layer, at: int, rows: NDArray[Any], first: int, stop: int) -> Iterator[Ends]:
    """Go through switches of a layer: the rest of a block, whole blocks, the beginning of a block."""
    stride = layer.stride
    while first < stop:
        within = first % stride
        whole = 0 if within else (stop - first) // stride
        blocks, count = (whole, stride) if whole else (1, min(stride - within, stop - first))
        wire = 2 * first - within
        if blocks > 1:
            paired = rows[wire : wire + 2 * stride * blocks].reshape(blocks, 2, stride, *rows.shape[1:])
            lower, upper = paired[:, 0], paired[:, 1]
        else:
            lower = rows[None, wire : wire + count]
            upper = rows[None, wire + stride : wire + stride + count]
        yield Ends(slice(at + first, at + first + blocks * count), lower, upper)
        first += blocks * count


def pass_through(network: Layout, bits: NDArray[np.uint8], rows: NDArray[Any]) -> NDArray[Any]:
    """Return the rows as they come out; a copy.

    Parameters
    ----------
    network : Layout
    bits : numpy.ndarray
        uint8, one for each switch, layer after layer: 1 crosses the wires.
    rows : numpy.ndarray
        The first axis holds the rows.
    """
    rows = np.array(rows, order="C")
    for some in walk(network, rows, 0, network.switches):
        crossed = bits[some.switches].reshape(some.lower.shape[:2]) == 1
        some.lower[crossed], some.upper[crossed] = some.upper[crossed], some.lower[crossed]
    return rows


# ---- routing ------------------------------------------------------------------------------------


def route(permutation: NDArray[np.intp]) -> NDArray[np.uint8]:
    """Set the switches: with these bits, row ``permutation[l]`` comes out as row l.

    Parameters
    ----------
    permutation : numpy.ndarray
        At least one row.

    Returns
    -------
    numpy.ndarray
        uint8, 0 or 1 for each switch, in the order of :func:`layout`.

    Raises
    ------
    ValueError
        Not a permutation.

    Notes
    -----
    Two inputs of a pair go to different halves, and so do two outputs: following values from outputs to inputs
    and back divides all rows into cycles with two ways each (Waksman). Of each cycle the last pair of outputs goes
    straight, which also settles the pairs without a switch. The C loop follows the cycles, the numpy twin finds the
    last pair of each by pointer doubling; both give the same bits.

    What others may learn: routing is local, at the party that knows the permutation, and sends nothing. Number, order
    and length of all messages follow from the number of rows; the bits serve as choices of oblivious transfers alone.
    The steps of routing follow from the number of rows, too: in C one for each pair of wires and level, in the twin
    log(n) passes over all rows for each level. But which addresses are read depends on the permutation, as wherever
    rows are moved by one, and on it what is found in the cache: by a little the time when the choices can be sent,
    among all else that a machine does meanwhile. It would tell of a permutation that was drawn at random for this
    use, not of data by itself; and no message of a computation that was prepared (:func:`mpc.prepare.prepare`) waits
    for it. We do not claim constant time on the level of the processor (docs/security.md).

    Measured on one core of a busy machine: 100,000 rows take 0.05 s, 1,000,000 rows 2 s; in numpy 0.4 and 10 s.
    """
    count = len(permutation)
    bits = np.zeros(switch_count(count), np.uint8)
    loop = _compiled()
    if loop is None:
        _route(_checked(permutation), bits)
    else:
        loop(_checked(permutation).astype(np.uint32), out=(np.empty((4, count), np.uint32), bits))
    return bits


def _checked(permutation: NDArray[np.intp]) -> NDArray[np.intp]:
    count = len(permutation)
    known = np.zeros(count, np.bool_)
    if permutation.min() >= 0 and permutation.max() < count:
        known[permutation] = True
    if not known.all():
        raise ValueError(f"not a permutation of {count} rows")
    return permutation


def _route(source: NDArray[np.intp], bits: NDArray[np.uint8]) -> None:
    """Set the switches of all networks of a level at once; the twin of the C loop."""
    rows = len(source)
    network = layout(rows)
    levels = (len(network.layers) + 1) // 2
    starts = np.cumsum([0, *(layer.switches for layer in network.layers)])
    for d in range(levels):
        stride = 1 << d
        # An odd wire out gets a partner that goes straight from the last input to the last output.
        wires = np.arange(-(-rows // (2 * stride)) * 2 * stride)
        source = np.concatenate([source, wires[rows:]])
        output = np.empty_like(source)
        output[source] = wires
        # 1. From an output to another one that must be fed by the same half: via the partner of its input.
        following = output[source ^ stride] ^ stride
        # 2. Of the two ways of a cycle, that of the first output of its last pair goes through the even half.
        last = wires ^ stride
        for _ in range((-(-rows // (2 * stride)) - 1).bit_length()):
            last = np.maximum(last, last[following])
            following = following[following]
        odd = last < last[wires ^ stride]
        # 3. The first wire of a pair crosses if it goes to the odd half, or comes from there.
        first = wires.reshape(-1, 2, stride)[:, 0].reshape(-1)
        layer = network.layers[d]
        bits[starts[d] : starts[d + 1]] = odd[output[first[: layer.switches]]]
        if d < levels - 1:
            mirror = len(network.layers) - 1 - d
            bits[starts[mirror] : starts[mirror + 1]] = odd[first[: network.layers[mirror].switches]]
        # 4. What is left to do, in both halves.
        half = np.where(odd, stride, 0)
        inner = np.empty_like(source)
        inner[wires & ~stride | half] = source & ~stride | half
        source = inner[:rows]


def _compiled() -> np.ufunc | None:
    if loops() is TWIN:
        return None
    from mpc._transfers import route as loop

    return loop
