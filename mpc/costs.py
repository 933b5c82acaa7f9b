"""What a computation cost, by step, and what it opened: counters and digests, never values."""

from __future__ import annotations

from dataclasses import dataclass, field, fields


@dataclass(slots=True)
class StepCost:
    """Counters of one step; all of them are public."""

    rounds: int = 0
    messages: int = 0
    bytes_sent: int = 0
    elements_opened: int = 0
    triples: int = 0
    seconds: float = 0.0

    def add(self, other: StepCost) -> None:
        """Add another step's counters to ours."""
        for counter in fields(self):
            setattr(self, counter.name, getattr(self, counter.name) + getattr(other, counter.name))


# A study opens a handful of results; a program that opens more than this in the clear is counted on.
MOST_OPENINGS = 10_000


@dataclass(frozen=True, slots=True)
class Opening:
    """One call of :func:`mpc.open_`: what was revealed, without its mask, and to whom.

    Attributes
    ----------
    step : str
        Scope and kind of step.
    shapes : tuple of tuple of int
        Of the arrays that were opened together.
    elements : int
        Entries of all of them.
    to : tuple of int or None
        Ranks that learnt the values; None for all.
    digest : str or None
        SHA-256 of the values, in hexadecimal, where we learnt them: for each array its dtype and shape as
        text, a newline, then int64 or float64 in little-endian order (integers beyond int64 in decimal,
        joined by commas). The parties that learnt a value have the same digest of it. None where we did not
        learn it. Who holds the digest of a value with few possibilities, such as a bit or a count, finds it
        by trying.
    """

    step: str
    shapes: tuple[tuple[int, ...], ...]
    elements: int
    to: tuple[int, ...] | None
    digest: str | None


@dataclass(slots=True)
class Costs:
    """Counters of one party's run, kept by step, and what it opened.

    ``bytes_sent`` counts payload: what transport and TLS add on top is counted by the transport.
    What parties send each other to make material is counted like all else: with prss under ``split``, with ot under
    ``transfers`` and ``lattice``. A product of masks takes 2 rounds with ot. What a dealer sends is not counted here.
    ``triples`` counts products of masks that were taken from the preprocessing, in elements of the
    result for elementwise products and in multiplications for matrix products.
    ``openings`` lists what was opened without a mask, the first 10,000 of them; ``openings_unlisted``
    counts the others. What is opened under a mask, for a product or a truncation, is no opening here.
    """

    by_step: dict[str, StepCost] = field(default_factory=dict)
    openings: list[Opening] = field(default_factory=list)
    openings_unlisted: int = 0

    def opened(self, opening: Opening) -> None:
        """Note what was opened."""
        if len(self.openings) < MOST_OPENINGS:
            self.openings.append(opening)
        else:
            self.openings_unlisted += 1

    def step(self, name: str) -> StepCost:
        """Return the counters of a step, made when first asked for."""
        cost = self.by_step.get(name)
        if cost is None:
            cost = self.by_step[name] = StepCost()
        return cost

    @property
    def total(self) -> StepCost:
        """The sum over all steps."""
        total = StepCost()
        for cost in self.by_step.values():
            total.add(cost)
        return total

    @property
    def rounds(self) -> int:
        """Rounds over all steps; steps that run side by side are counted one after the other."""
        return self.total.rounds

    @property
    def bytes_sent(self) -> int:
        """Payload bytes that we sent."""
        return self.total.bytes_sent

    @property
    def elements_opened(self) -> int:
        """Field elements that were opened, masked or as results."""
        return self.total.elements_opened

    @property
    def triples(self) -> int:
        """Products of masks taken from the preprocessing."""
        return self.total.triples

    def since(self, before: StepCost) -> StepCost:
        """Return what was spent after ``before = costs.total`` was taken."""
        now = self.total
        return StepCost(*(getattr(now, c.name) - getattr(before, c.name) for c in fields(StepCost)))
