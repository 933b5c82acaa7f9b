"""What a worker tells its node while it computes: how far it is, what was opened, what it cost."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from parties.node.exchange import Exchange, ExchangeError
from parties.node.messages import Costs, Opened, Opening, Phase, Progress, Rows, StepCosts, as_json
from parties.reports import peak_memory_bytes

if TYPE_CHECKING:
    import mpc.costs
    from parties.mesh import Mesh

_EVERY_SECONDS = 0.5
_OPENINGS_AT_ONCE = 100
_LABEL = 400
_MOST_STEPS = 4096
_MOST_SHAPES = 4096


class Teller:
    """Tells the node; what cannot be told, since the node is gone, is nobody's any more.

    Parameters
    ----------
    exchange : Exchange
    names : sequence of str
        Of the members, in rank order.
    """

    def __init__(self, exchange: Exchange, names: Sequence[str]) -> None:
        self._exchange = exchange
        self._names = names
        self._began = time.perf_counter()
        self._phase: Phase = "starting"
        self._note = ""
        self._said: tuple[object, ...] = ()
        self._rounds: dict[str, int] = {}
        self._step = ""
        self._openings_told = 0
        self._unlisted_told = 0
        self.mesh: Mesh | None = None
        self.costs: mpc.costs.Costs | None = None

    @property
    def phase(self) -> Phase:
        """What we are at."""
        return self._phase

    def enter(self, phase: Phase) -> None:
        """Say that another phase begins."""
        self.openings()
        self._count()
        self._phase = phase
        self._note = self._step = ""
        self.progress()

    def note(self, text: str) -> None:
        """Take a word on what is computed, for people."""
        self._note, self._step = text[: _LABEL // 2], ""
        self.progress()

    async def rows(self, count: int, dropped: int, digest: str | None) -> None:
        """Say which rows of ours take part, and their hash.

        Raises
        ------
        ExchangeError
            If the node is gone.
        """
        await self._exchange.drain()
        self._exchange.post(as_json(Rows(count=count, dropped=dropped, digest=digest)))

    async def keep_telling(self) -> None:
        """Tell again and again, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            self.progress()
            self.openings()

    def progress(self) -> None:
        """Say how far we are, if that is not what was said last."""
        rounds = self._count()
        away = self._away()
        told = (self._phase, self._note, self._step, rounds, tuple(away))
        if told == self._said and not away:
            return
        self._said = told
        step = f"{self._note} ({self._step})" if self._note and self._step else self._note or self._step
        self._post(Progress(phase=self._phase, step=step[:_LABEL], rounds=rounds, seconds=self._seconds(), away=away))

    def _count(self) -> int:
        """Count all rounds, and see at which step we are: the last one that has more than before."""
        if self.costs is None:
            return 0
        total = 0
        for name, cost in self.costs.by_step.items():
            total += cost.rounds
            if cost.rounds > self._rounds.get(name, 0):
                self._rounds[name] = cost.rounds
                self._step = name[:_LABEL]
        return total

    def _away(self) -> dict[str, float]:
        away = getattr(self.mesh, "away", None)
        return {self._names[rank]: max(0.0, float(seconds)) for rank, seconds in (away or {}).items()}

    def openings(self, *, last: bool = False) -> None:
        """Tell what was opened since the last time; each opening once, in order.

        Of those that are only counted, the node hears when there are twice as many, and at the last: it
        writes down whatever it hears.
        """
        while (batch := self._batch(last)) is not None:
            if not self._post(batch):
                return  # the node has much to read: later
            self._openings_told += len(batch.openings)
            self._unlisted_told += batch.untold

    def _batch(self, last: bool) -> Opened | None:
        if self.costs is None:
            return None
        fresh = self.costs.openings[self._openings_told : self._openings_told + _OPENINGS_AT_ONCE]
        untold = self.costs.openings_unlisted - self._unlisted_told
        if not last and untold <= self._unlisted_told:
            untold = 0
        if not fresh and not untold:
            return None
        told = tuple(
            Opening(
                step=opening.step[:_LABEL],
                shapes=opening.shapes[:_MOST_SHAPES],
                elements=opening.elements,
                to=opening.to,
                digest=opening.digest,
            )
            for opening in fresh
        )
        return Opened(openings=told, untold=untold)

    async def finish(self) -> None:
        """Tell all that is left to tell, and what it cost in the end.

        Raises
        ------
        ExchangeError
            If the node is gone.
        """
        self.openings(last=True)
        while self._batch(last=True) is not None:
            await self._exchange.drain()
            self.openings(last=True)
        await self._exchange.drain()
        self._all_costs()

    def _all_costs(self) -> None:
        steps = {} if self.costs is None else self.costs.by_step
        traffic = {} if self.mesh is None else self.mesh.traffic
        self._post(
            Costs(
                steps={
                    name[:_LABEL]: StepCosts(**dataclasses.asdict(cost))
                    for name, cost in list(steps.items())[:_MOST_STEPS]
                },
                wire={self._names[rank]: (link.wire_sent, link.wire_received) for rank, link in traffic.items()},
                seconds=self._seconds(),
                cpu_seconds=time.process_time(),
                peak_memory_bytes=peak_memory_bytes(),
                reconnects=int(getattr(self.mesh, "reconnects", 0)),
            )
        )

    def _seconds(self) -> float:
        return time.perf_counter() - self._began

    def _post(self, message: Progress | Opened | Costs) -> bool:
        try:
            self._exchange.post(as_json(message))
        except ExchangeError:
            return False
        return True
