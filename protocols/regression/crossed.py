"""Minimum cells of columns that are held by different parties, counted on shares over the rows that are used."""

from __future__ import annotations

import numpy as np

from mpc import Party, Share, concatenate, less_than, matmul, multiply
from protocols.release.disclosure import Disclosure, DisclosureError, hold, refusal


def too_rare(disclosure: Disclosure, protocol: str) -> DisclosureError:
    """Return the error that says which cells a regression checks."""
    rules = disclosure.rules(sums=False)[-1:]
    least = disclosure.minimum_cell
    rules += [f"at least {least} rows for each such value together with each value of a yes-no outcome"]
    return refusal(disclosure, protocol, rules)


async def check_shared(
    party: Party,
    disclosure: Disclosure | None,
    protocol: str,
    *,
    columns: tuple[Share, Share],
    outcome: tuple[Share, Share],
    weight: Share | None,
) -> None:
    """Raise at all parties if too few used rows have a value of a yes-no column, or of that and of a yes-no outcome.

    Parameters
    ----------
    party : Party
        A scope of its own.
    disclosure : Disclosure or None
    protocol : str
    columns : tuple of Share
        Shape (rows, columns) each, 0 and 1: whether an entry is 1, and whether it is 0.
    outcome : tuple of Share
        The same of the outcome, shape (rows,).
    weight : Share or None
        Shape (rows,): 1 for a row that is used, else 0; None if all are.

    Raises
    ------
    DisclosureError
        At all parties.

    Notes
    -----
    As :func:`protocols.regression.glm.check_crossed`, where nobody knows which rows are used: also whether a column
    (a column together with the outcome) holds nothing but 0 and 1 there is decided on shares. One bit is opened, for
    all rules together. Cost with d columns: a product over all rows of ``2 d`` by 3 columns, which opens
    ``rows (2 d + 3)`` elements (with a weight 3 more a row); comparisons of ``6 d + 2`` and ``2 d + 1`` entries, one
    product of the former, and a comparison of a single entry.
    """
    if disclosure is None or not disclosure.minimum_cell:
        return
    rows, width = columns[0].shape
    most = max(rows, 1)

    # 1. Cells: of each value, of the outcome's values, and of both.
    used = party.constant(1, shape=(rows,)) if weight is None else weight
    either = concatenate([side.reshape(rows, 1) for side in outcome], axis=1)
    if weight is not None:
        either = (await multiply(party, either, weight.reshape(rows, 1))).bounded_by(1)
    left = concatenate([used.reshape(rows, 1), either], axis=1)
    table = (await matmul(party, left.T, concatenate(list(columns), axis=1))).bounded_by(most).reshape(3, 2, width)
    cells = [table[0].reshape(2 * width), either.sum(axis=0).bounded_by(most), table[1:].reshape(4 * width)]

    # 2. What holds other values is no table.
    total = used.sum().reshape(1)
    every = total.broadcast_to((width,))
    others = [
        every - table[0].sum(axis=0),
        total - cells[1].sum().reshape(1),
        every - table[1:].sum(axis=0).sum(axis=0),
    ]
    tables = await less_than(party.at("tables"), concatenate([one.bounded_by(most) for one in others]), 1)
    alone, answer, both = tables[:width], tables[width : width + 1], tables[width + 1 :]
    counts = [(alone, 2), (answer, 2), (both, 4)]
    applies = [one.reshape(1, one.size).broadcast_to((k, one.size)).reshape(k * one.size) for one, k in counts]

    few = await less_than(party.at("few"), concatenate(cells), np.full(6 * width + 2, disclosure.minimum_cell))
    fails = (await multiply(party, few, concatenate(applies))).bounded_by(1)
    if not await hold(party, fails):
        raise too_rare(disclosure, protocol)
