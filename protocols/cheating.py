"""Analyses that hold where parties may cheat (``security="malicious"``): which, and why.

What :mod:`mpc` holds against cheaters is that every share stands for what the program makes of inputs within their
bounds, and that nothing is opened on the strength of something wrong. An analysis adds promises of its own: what is
given fits together as data do, and numbers are below the bounds that masks are made for. So for each analysis somebody
has to show that this holds whatever a cheater gives. Sums promise nothing, they are opened as they come. Of means, a
number of rows is not negative, and none that all learn is beyond its bound (where some do not learn it, an error would
tell them about the others' data); but a cheater's sum need not fit its number of rows. Of tables of counts, where rows
are split, more is shown: what a cheater gave is what some data of its own would have given.

1. *A count is a number from 0 to what a party may have* (:func:`added_up`): no bits that its owner could send stand for
   anything else.
2. *Complete rows and cells belong together* (:func:`require_whole`): the cells of all parties add up to their
   complete rows, or nothing else is opened. Honest parties bring 0 to this difference, so it tells what cheaters gave.
   Then any cells, and any numbers of missing values, are those of some rows: complete ones, one for each count, and for
   each variable rows in which it alone is missing.
3. *All is given before anything is told*: counts and numbers of rows are shared first, what is said of rows for the
   rules before these are opened. So what a cheater gives does not depend on what others have, beyond the labels that
   parties announce, which are no secret.
4. *Bounds*: all rows are at most ``2^32`` and a few, by 1; so is every sum of different cells, by 2. All comparisons,
   and the quotient that rounding truncates, are of such numbers. A truncation's error has a bound for all masks, not
   for most: each party's integer is rounded to the nearest, whichever it took, and rounding corrects what that can do.
5. *Openings*: what is withheld follows from bits that are opened on the way (are there enough rows, which cells are
   small, which pattern has slack enough). Every one is a call of :func:`mpc.open_`, which checks all that was opened
   and announced so far before it opens, and what it opened before it returns. So a shift in any of them, or in a value
   under a mask that it was made of, ends the run before the next is opened, and all honest parties see the same. Each
   has a fresh sharing of zero on it, so that who knows some of the summands sees the sum alone.
6. *Rules*: the one on rows is held to the rows that are counted; of parties each says whether it is one with rows
   (:func:`protocols.release.disclosure.check`), and counts as one at most.

What remains: a party may count rows that it does not have, and leave out some; what made-up rows make larger than a
minimum is opened, and they can be taken off again. It may count as a party with rows and have none; so may a recipient
of a study that is no contributor, and it may bring rows. What a party gives to one analysis need not fit what it gives
to the next, by when it knows the results before. It hears the labels of others before it announces its own. With other
analyses none of this has been shown.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mpc import F127, AgreementError, Field, Party, Share, open_
from protocols.shares import sum_of

_NO_PROMISE = "sums and numbers of rows within their bounds are opened as they come"  # a mean is made of them
_COUNTS = "rows are counted from 0, and the cells are held to the number of rows"
# Why each holds; of those with rows or columns, where rows are split.
EXAMINED = {
    "secure_sum": _NO_PROMISE,
    "secure_mean": _NO_PROMISE,
    "proportion": _COUNTS,
    "histogram": _COUNTS,
    "contingency_table": _COUNTS,
}
_NAMES = f"{', '.join(list(EXAMINED)[:-1])} and {list(EXAMINED)[-1]}"


def refuse_unexamined(party: Party, protocol: str, terms: Mapping[str, object]) -> None:
    """Refuse an analysis that has not been shown to hold where parties may cheat; others may run.

    Raises
    ------
    SecurityError
        Before anything is sent.
    """
    if protocol not in EXAMINED:
        party.semi_honest_only(
            protocol, f"its bounds rest on numbers that belong together, and only {_NAMES} do without, or check it"
        )
    if terms.get("partition", "rows") != "rows":
        party.semi_honest_only(
            f"{protocol} with partition={terms['partition']!r}",
            "a party could share rows that are in no category, or in several; with partition='rows' it does",
        )


async def added_up(
    party: Party, ours: NDArray[np.int64] | np.int64, most: int, *, field: Field = F127, cheating: int | None = None
) -> Share:
    """Add up whole numbers of the parties that are not negative.

    Parameters
    ----------
    party : Party
    ours : numpy.ndarray
        From 0 to ``most``.
    most : int
    field : Field
    cheating : int, optional
        What ``most`` is where parties may cheat; an odd number is raised by 1 there.

    Notes
    -----
    Nothing is revealed. Where parties may cheat, each shares how far its numbers are from the middle: what bits can say
    (:mod:`mpc.bit_inputs`) goes as far below it as above, hence from 0 to ``most``. Cost: that of sharing.
    """
    if party.security == "semi-honest":
        return sum_of(await party.share(ours, bound=most, field=field, shape=ours.shape))
    middle = ((most if cheating is None else cheating) + 1) // 2
    below = await party.share(ours - middle, bound=middle, field=field, shape=ours.shape)
    return sum_of(below) + party.size * middle


async def require_whole(party: Party, protocol: str, rows: Share, cells: Share) -> None:
    """Make sure, where parties may cheat, that cells add up to the rows that they count.

    Parameters
    ----------
    party : Party
        A scope of its own.
    protocol : str
        Stands in the error.
    rows : Share
        Shape (1,).
    cells : Share
        Of any shape.

    Raises
    ------
    AgreementError
        At all parties: they do not; of either nothing but the difference was opened.

    Notes
    -----
    All parties learn the difference: what cheaters put in, as others put in 0. Cost: 1 round, 1 element, and checks;
    nothing where parties are semi-honest.
    """
    if party.security == "semi-honest":
        return
    if np.asarray(await open_(party, rows - cells.sum().reshape(1))).any():
        raise AgreementError(
            f"{protocol}: the cells of the table do not add up to the number of complete rows: some party gave counts "
            "that no data have; nothing of the table was opened"
        )
