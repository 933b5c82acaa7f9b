"""Rows in the secret order of their times: risk sets are prefixes, and events at the same time are runs.

Rows are sorted by stratum, then by time from the last to the first; of equal times those without the event come
first, as who is censored at a time is at risk in it. So the rows at risk at an event are those up to the end of
its run of tied events, and sums over risk sets are sums up to a row: local. What is secret is where runs begin
and end; values are brought there and back by doubling (a row looks 1, 2, 4, ... rows ahead).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from mpc import Party, Share, concatenate, less_than, mask, multiply, open_
from mpc.arithmetic import products
from mpc.elementary import divide
from mpc.logic import equal
from mpc.sorting import sort
from protocols.survival.endings import backwards, running, within

_Job = tuple[Share, Share, Literal["multiply", "matmul"]]


@dataclass(frozen=True, slots=True)
class RiskOrder:
    """Rows in order, and what leads along runs of tied events.

    Attributes
    ----------
    X : Share
        Shape (rows, columns), masked.
    event : Share
        Shape (rows,), 0 or 1, masked.
    links : list of Share
        The k-th, of shape (rows - 2^k,), masked: whether row i and row ``i + 2^k`` are events of one stratum and time.
    longer : Share
        Shape (): 0 if no run is longer than the links reach, else a positive number.
    fraction : Share or None
        Shape (rows,), masked: ``l / d`` for the l-th (from 0) of d tied events, with Efron's correction.
    blocks : tuple of int
        Public: rows of each stratum, and in the end rows that do not count.
    """

    X: Share
    event: Share
    links: list[Share]
    longer: Share
    fraction: Share | None
    blocks: tuple[int, ...]

    def up_to(self, x: Share, bound: int) -> Share:
        """Return sums over the rows of the stratum up to each row (the last axis); the caller knows a bound. Local."""
        return self._by_block(x, lambda part: running(part, bound))

    def from_on(self, x: Share, bound: int) -> Share:
        """Return sums over the rows of the stratum from each row on; see :meth:`up_to`."""
        return self._by_block(x, lambda part: backwards(running(backwards(part), bound)))

    def _by_block(self, x: Share, sums: Callable[[Share], Share]) -> Share:
        edges = np.cumsum([0, *self.blocks])
        parts = [sums(x[..., a:b]) for a, b in pairwise(edges) if b > a]
        return concatenate(parts, axis=-1)

    async def gather(self, party: Party, upto: Share, before: Share | None) -> tuple[Share, Share | None]:
        """Give each event the values at the end of its run, and those at its beginning.

        Parameters
        ----------
        upto, before : Share
            Shape (c, rows); both keep their bounds.

        Notes
        -----
        Cost: 1 round for each link, ``c rows`` elements opened for each of the two.
        """
        bound, reach = upto.magnitude, 1
        for link in self.links:
            jobs: list[_Job] = [(link, upto[..., reach:] - upto[..., :-reach], "multiply")]
            if before is not None:
                jobs.append((link, before[..., :-reach] - before[..., reach:], "multiply"))
            steps = await products(party, "gather", jobs)
            upto = within(concatenate([upto[..., :-reach] + steps[0], upto[..., -reach:]], axis=-1), bound)
            if before is not None:
                moved = [before[..., :reach], before[..., reach:] + steps[1]]
                before = within(concatenate(moved, axis=-1), bound)
            reach *= 2
        return upto, before

    async def scatter(self, party: Party, last: Share, first: Share | None) -> tuple[Share, Share | None]:
        """Add up in the last row of each run what its events give, and in the first row: the transpose of `gather`.

        Cost: 1 round for each link, ``rows`` elements opened for each of the two.
        """
        bound, size = last.magnitude, last.shape[-1]
        for k in reversed(range(len(self.links))):
            reach = 1 << k
            jobs: list[_Job] = [(self.links[k], last[:-reach], "multiply")]
            if first is not None:
                jobs.append((self.links[k], first[reach:], "multiply"))
            steps = await products(party, "scatter", jobs)
            last = within(last - _padded(steps[0], 0, size) + _padded(steps[0], reach, size), bound)
            if first is not None:
                first = within(first - _padded(steps[1], reach, size) + _padded(steps[1], 0, size), bound)
        return last, first


def _padded(x: Share, start: int, size: int) -> Share:
    """Put entries into a longer vector of zeros."""
    values = x.field.zeros((size,))
    values[start : start + len(x)] = x.values
    return Share(x.field, values, x.scale, x.magnitude, leads=x.leads)


async def risk_order(
    party: Party,
    keys: Share,
    bits: int,
    X: Share,
    event: Share,
    blocks: Sequence[int],
    *,
    efron: bool,
    most_ties: int | None,
    fraction_scale: int,
) -> RiskOrder:
    """Sort rows, and find runs of tied events.

    Parameters
    ----------
    party : Party
        A scope of its own.
    keys : Share
        Shape (rows,), integers from 0, below ``2^bits``: the order, in which events of one stratum and time alone
        are equal to one another (and rows that are no events to whatever is none).
    bits : int
    X, event : Share
        Shapes (rows, columns) and (rows,).
    blocks : sequence of int
    efron : bool
    most_ties : int or None
        Public bound on the number of tied events; None opens the power of two above it.
    fraction_scale : int

    Notes
    -----
    With ``most_ties=None`` all parties learn ``ceil(log2(d))``, d the largest number of events at one time. Otherwise
    nothing is revealed. Semi-honest. Cost: :func:`mpc.sort` of the keys with ``columns + 1`` companions; a comparison
    for equality of all neighbours; with L links, L products (and, to find L, as many comparisons of one number).
    """
    count = len(keys)
    keys, (X, event) = await sort(party.at("sort"), keys, [X, event], bits=bits)
    event = await mask(party, event.bounded_by(1))
    X = await mask(party, X)
    links: list[Share] = []
    longer = party.constant(0)
    if count > 1:
        same = await equal(party.at("equal"), keys[1:], keys[:-1])
        link = await mask(party, (await multiply(party, same, event[: count - 1])).bounded_by(1))
        reach = 1
        while True:
            longer = link.sum().bounded_by(count)
            if most_ties is None:
                ties = await less_than(party.at("ties"), 0, longer)
                if not await open_(party, ties):
                    break
            elif reach >= most_ties:
                break
            links.append(link)
            if 2 * reach >= count:
                longer = party.constant(0)
                break
            product = await multiply(party, link[: count - 2 * reach], link[reach : count - reach])
            link = await mask(party, product.bounded_by(1))
            reach *= 2
    order = RiskOrder(X, event, links, longer, None, tuple(blocks))
    if not efron or not links:
        return order

    # Where each run begins and ends gives l and d.
    place = party.constant(np.arange(count).reshape(1, -1))
    last, first = await order.gather(party.at("places"), place, place)
    if first is None:
        raise ValueError("a gather of two gives two")
    reached = min(count, 1 << len(links))
    number = (place - first).reshape(-1).bounded_by(count)
    total = (last - first + 1).reshape(-1).bounded_by(count)
    fraction = await divide(party.at("fraction"), number, total, lower=1, upper=reached, scale=fraction_scale)
    fraction = await mask(party, fraction.bounded_by(1))
    return RiskOrder(X, event, links, longer, fraction, tuple(blocks))
