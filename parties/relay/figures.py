"""What a relay counts: for its log, and for whoever monitors it. Names, sizes and times; never content."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

# Refusals are told one by one up to so many in so many seconds, and then only counted: a flood of them
# must not fill a disk.
_LINES = 20
_SECONDS = 10.0
_LONGEST = 300


@dataclass(slots=True)
class Figures:
    """Counters since the start.

    Attributes
    ----------
    paired : int
        How often two ends were joined.
    messages, bytes : int
        Forwarded, in pairs that are over.
    refused : Counter
        Connections and requests that were turned away, by kind.
    """

    paired: int = 0
    messages: int = 0
    bytes: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class Journal:
    """Writes the log of a relay.

    Parameters
    ----------
    logger : logging.Logger
    figures : Figures
        Refusals are counted there.
    """

    def __init__(self, logger: logging.Logger, figures: Figures) -> None:
        self._logger = logger
        self._figures = figures
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._told = 0
        self._untold: Counter[str] = Counter()

    def note(self, text: str) -> None:
        """Write a line."""
        self._logger.info("%s", _one_line(text))

    def refused(self, kind: str, text: str) -> None:
        """Count a refusal, and write a line about it unless there were too many."""
        self._figures.refused[kind] += 1
        self.settle()
        if self._told < _LINES:
            self._told += 1
            self._logger.warning("refused: %s", _one_line(text))
        else:
            self._untold[kind] += 1

    def settle(self) -> None:
        """Write how many refusals were not told, once that many seconds are over."""
        now = self._loop.time()
        if now - self._since < _SECONDS:
            return
        for kind, count in self._untold.items():
            self._logger.warning("refused: %s, %d more times in %.0f s", _one_line(kind), count, now - self._since)
        self._untold.clear()
        self._since, self._told = now, 0


def _one_line(text: str) -> str:
    safe = "".join(char if char.isprintable() else " " for char in text)
    return safe if len(safe) <= _LONGEST else safe[: _LONGEST - 3] + "..."


def prometheus_text(figures: Figures, now: Callable[[], dict[str, int]]) -> bytes:
    """Write the figures as Prometheus reads them.

    Parameters
    ----------
    figures : Figures
    now : callable
        Returns what there is at the moment, by name: connections, waiting, pairs.

    Raises
    ------
    ModuleNotFoundError
        If prometheus_client is not installed.
    """
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector

    class Relayed(Collector):
        def collect(self) -> Iterator[Metric]:
            for name, value in now().items():
                yield GaugeMetricFamily(f"sottovoce_relay_{name}", f"{name} at the moment", value=value)
            for name in ("paired", "messages", "bytes"):
                yield CounterMetricFamily(
                    f"sottovoce_relay_{name}", f"{name} since the start", value=getattr(figures, name)
                )
            refused = CounterMetricFamily("sottovoce_relay_refused", "turned away since the start", labels=["kind"])
            for kind, count in figures.refused.items():
                refused.add_metric([kind], count)
            yield refused

    registry = CollectorRegistry()
    registry.register(Relayed())
    text: bytes = generate_latest(registry)
    return text
