"""Counts on a grid of times, shared: who has an event, who is censored, who is still at risk. All of it is local."""

from __future__ import annotations

from fractions import Fraction

from mpc import Share, concatenate, stack


def endings(counts: Share) -> Share:
    """Return shares of the events and of the censored rows at each point.

    Parameters
    ----------
    counts : Share
        Shape (points + 1, 2, groups): rows by place on the grid, event and group; the last place is beyond.

    Returns
    -------
    Share
        Shape (groups, 2, points): events, then censored rows; those beyond are censored at the last point.
    """
    points = len(counts) - 1
    final = counts[points - 1 : points, 0] + counts[points:, 0] + counts[points:, 1]
    censored = concatenate([counts[: points - 1, 0], final])
    return stack([counts[:points, 1].T, censored.T], axis=1).bounded_by(counts.magnitude)


def running(x: Share, bound: int) -> Share:
    """Return sums up to each entry of the last axis, for which the caller knows a bound (of the encoded integers)."""
    values, reach = x.values, 1
    while reach < x.shape[-1]:
        moved = values.copy()
        moved[..., reach:] = x.field.add(values[..., reach:], values[..., :-reach])
        values, reach = moved, 2 * reach
    reach = min(x.field.half, x.magnitude * max(1, x.shape[-1]))
    return within(Share(x.field, values, x.scale, reach, leads=x.leads), max(1, bound))


def within(x: Share, bound: int) -> Share:
    """State a bound on the encoded integers, for which the caller vouches."""
    return x.bounded_by(Fraction(bound, 1 << x.scale))


def backwards(x: Share) -> Share:
    """Return the entries of the last axis from the last to the first."""
    return x[..., ::-1]


def at_risk(ended: Share, rows: int) -> Share:
    """Return how many rows are at risk at each point: those that end there or later.

    Parameters
    ----------
    ended : Share
        Shape (groups, 2, points), see :func:`endings`.
    rows : int
        Public: of all groups together.

    Returns
    -------
    Share
        Shape (groups, points).
    """
    return backwards(running(backwards(ended.sum(axis=1)), rows))
