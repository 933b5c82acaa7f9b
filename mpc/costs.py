"""What a computation cost: rounds, bytes, elements, correlated randomness and seconds, by step."""

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


@dataclass(slots=True)
class Costs:
    """Counters of one party's run, kept by step.

    ``bytes_sent`` counts payload: what transport and TLS add on top is counted by the transport.
    ``triples`` counts products of masks that were taken from the preprocessing, in elements of the
    result for elementwise products and in multiplications for matrix products.
    """

    by_step: dict[str, StepCost] = field(default_factory=dict)

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
