"""Analyses of ten million rows a party: whether time and memory are those of one pass over the data.

The data of a party is made in its own process; a run is timed in all, agreement and preprocessing with it.
The limit is a pass of numpy over the same rows, in all processes at once, as the analyses run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.inputs import agree
from parties.bench_limits import median
from parties.bench_work import REPETITIONS, Row, scattered
from parties.simulate import simulate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.party import Party

_PARTIES = 3
# What the largest of these takes at all parties together, a row.
_BYTES_A_ROW = 160


@dataclass(frozen=True, slots=True)
class Analysis:
    """What is run on many rows: how a party's come about, the analysis, and one pass of numpy over them."""

    name: str
    data: Callable[[int, int], Any]
    run: Callable[[Party, Any], Awaitable[Any]]
    once: Callable[[Any], Any]
    goal_seconds: float = 9.0


async def _mean_and_variance(party: Party, data: Any) -> Any:
    from protocols import secure_mean, secure_variance

    bound = 100.0
    mean = await secure_mean(party.at("mean"), data, bound=bound)
    return mean, await secure_variance(party.at("variance"), data, bound=bound)


async def _table(party: Party, data: Any) -> Any:
    from protocols import contingency_table

    return await contingency_table(party, *data, row_categories=range(5), column_categories=range(4))


async def _proportion(party: Party, data: Any) -> Any:
    from protocols import proportion

    return await proportion(party, data[0], categories=range(5))


async def _regression(party: Party, data: Any) -> Any:
    from protocols import linear_regression

    return await linear_regression(party, *data, bound=100.0, y_bound=1000.0)


def _waves(rank: int, rows: int, columns: int) -> NDArray[np.float64]:
    """Return columns of numbers that look as if they had nothing to do with each other."""
    found = np.empty((rows, columns))
    for k in range(columns):
        np.multiply(scattered(rows, rows * (columns * rank + k)), 2.0**-29, out=found[:, k])
    return found


def _columns(rank: int, rows: int) -> Any:
    X = _waves(rank, rows, 5)
    y = X @ np.arange(1.0, 6.0)
    y += _waves(rank + 10, rows, 1)[:, 0]
    return X, y


def _codes(rank: int, rows: int) -> Any:
    return scattered(rows, rank) % 5, scattered(rows, rank + rows) % 4


def analyses(rows: int) -> list[Analysis]:
    """Return the rows of the table."""
    each = f"10^{len(str(rows)) - 1} rows a party"
    return [
        Analysis(
            f"mean and variance, {each}",
            lambda rank, rows: _waves(rank, rows, 1)[:, 0],
            _mean_and_variance,
            lambda x: (x.sum(), x @ x),
        ),
        Analysis(f"table 5 x 4, {each}", _codes, _table, lambda codes: np.bincount(codes[0] * 4 + codes[1])),
        Analysis(f"proportions of 5, {each}", _codes, _proportion, lambda codes: np.bincount(codes[0])),
        Analysis(
            f"linear regression, 5 columns, {each}",
            _columns,
            _regression,
            lambda data: (data[0].T @ data[0], data[0].T @ data[1]),
        ),
    ]


def room_for(rows: int) -> bool:
    """Say whether the machine has the memory for it; True where it does not tell."""
    if not hasattr(os, "sysconf"):
        return True
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") > 2 * _BYTES_A_ROW * rows


def measure_rows(
    analysis: Analysis, preprocessing: str, rows: int, repetitions: int = REPETITIONS, *, parties: int = _PARTIES
) -> Row:
    """Run one analysis on so many rows a party."""

    async def study(party: Party, _: Any) -> Any:
        data = analysis.data(party.rank, rows)
        seconds, limits, beside = [], [], 0
        before = party.costs.total
        for turn in range(repetitions + 1):
            await agree(party, "beginning", "one pass")
            began = time.perf_counter()
            analysis.once(data)
            limits.append(time.perf_counter() - began)
            await agree(party, "beginning", analysis.name)
            before = party.costs.total
            forget_peak()
            held = memory("VmRSS")
            began = time.perf_counter()
            await analysis.run(party.at(f"run {turn}"), data)
            seconds.append(time.perf_counter() - began)
            beside = max(beside, memory("VmHWM") - held) if turn else 0
        spent = party.costs.since(before)
        return seconds[1:], limits[1:], beside, spent.bytes_sent, spent.rounds

    results = simulate(study, [None] * parties, preprocessing=preprocessing)
    seconds, limits = ([max(times) for times in zip(*(result[k] for result in results), strict=True)] for k in (0, 1))
    middle, limit = median(seconds), median(limits)
    return Row(
        analysis.name,
        preprocessing,
        parties * rows,
        "row",
        analysis.goal_seconds,
        middle,
        tuple(seconds),
        parties * rows / middle,
        max(result[3] for result in results),
        max(result[4] for result in results),
        max(costs.peak_memory_bytes for costs in results.costs.parties[:parties]),
        limit,
        middle / limit,
        max(result[2] for result in results),
    )


def forget_peak() -> None:
    """Let the peak of this process's memory begin anew, where the system can do that (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        pass


def memory(field: str) -> int:
    """Return a figure of this process's memory in bytes: VmRSS or VmHWM, its peak; 0 where nobody tells."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)
