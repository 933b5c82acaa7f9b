"""Online seconds of the building blocks and of training, between real processes; start-up, rounds and links.

Every row runs in three processes on this machine over mutual TLS, five times after a warm-up (those that take
seconds less often); a row's time is the slowest party's, and the median counts. The material of a row is prepared
ahead, so that the time is the online phase; what the material itself costs, see :mod:`parties.bench_material`,
stands in rows of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc import prepare
from mpc.inputs import agree
from parties.bench_limits import median
from parties.bench_links import PIECE_BYTES, measure_link
from parties.bench_work import PARTIES, REPETITIONS, Row, Work
from parties.simulate import simulate

if TYPE_CHECKING:
    from mpc.party import Party


def _timed(work: Work, repetitions: int) -> Callable[[Party, Any], Awaitable[Any]]:
    async def study(party: Party, data: Any) -> Any:
        operands = await work.operands(party, work.amount)
        seconds = []
        before = party.costs.total
        for _ in range(repetitions + 1):
            await prepare(party, work.program, *operands)
            await agree(party, "beginning", work.name)
            before = party.costs.total
            began = time.perf_counter()
            await work.program(party, *operands)
            seconds.append(time.perf_counter() - began)
        spent = party.costs.since(before)
        # The same with openings that send nothing: what is left is our own arithmetic.
        local = []
        for _ in range(min(3, repetitions)):
            seat = party.rehearsal()
            await prepare(seat, work.program, *operands)
            began = time.process_time()
            await work.program(seat, *operands)
            local.append(time.process_time() - began)
        return seconds[1:], spent.bytes_sent, spent.rounds, median(local)

    return study


def measure(
    work: Work,
    preprocessing: str,
    stream: float,
    repetitions: int | None = None,
    *,
    parties: int = PARTIES,
    security: str = "semi-honest",
) -> Row:
    """Run one row."""
    repetitions = work.repetitions if repetitions is None else repetitions
    results = simulate(_timed(work, repetitions), [None] * parties, preprocessing=preprocessing, security=security)
    slowest = [max(times) for times in zip(*(result[0] for result in results), strict=True)]
    seconds = median(slowest)
    sent = [result[1] for result in results]
    cores = min(os.cpu_count() or 1, parties)
    limit = sum(sent) / stream + sum(result[3] for result in results) / cores
    return Row(
        work.name,
        preprocessing,
        work.amount,
        work.unit,
        work.goal_seconds,
        seconds,
        tuple(slowest),
        work.amount / seconds,
        max(sent),
        max(result[2] for result in results),
        max(costs.peak_memory_bytes for costs in results.costs.parties[:parties]),
        limit,
        seconds / limit,
        security=security,
    )


def measure_training(solver: str, preprocessing: str, goal: float) -> Row:
    """Time a logistic regression on the breast-cancer data, once all are connected.

    Newton's fit takes its material as it goes; gradient descent, like the building blocks, finds it
    prepared.
    """
    from sklearn.datasets import load_breast_cancer

    from protocols import logistic_regression

    X, y = load_breast_cancer(return_X_y=True)
    parts = [(X[k::PARTIES], y[k::PARTIES]) for k in range(PARTIES)]
    # Agreed in the study: a power of ten above each feature.
    bounds = 10.0 ** np.ceil(np.log10(X.max(axis=0)))

    async def study(party: Party, data: Any) -> Any:
        async def fit(seat: Party) -> Any:
            return await logistic_regression(seat.at("fit"), *data, l2=1.0, solver=solver, bound=bounds)

        seconds = []
        before = party.costs.total
        for _ in range(REPETITIONS + 1):
            if solver == "gradient":
                await prepare(party, fit)
            await agree(party, "beginning", "training")
            before = party.costs.total
            began = time.perf_counter()
            await fit(party)
            seconds.append(time.perf_counter() - began)
        spent = party.costs.since(before)
        return seconds[1:], spent.bytes_sent, spent.rounds

    results = simulate(study, parts, preprocessing=preprocessing)
    slowest = [max(times) for times in zip(*(result[0] for result in results), strict=True)]
    seconds = median(slowest)
    name = "breast cancer, 100 gradient steps" if solver == "gradient" else "breast cancer, Newton fit"
    return Row(
        name,
        preprocessing,
        1,
        "fit",
        goal,
        seconds,
        tuple(slowest),
        1 / seconds,
        max(result[1] for result in results),
        max(result[2] for result in results),
        max(costs.peak_memory_bytes for costs in results.costs.parties[:PARTIES]),
        0.0,
        0.0,
    )


_COLD = """
from parties import simulate
from protocols import secure_sum
async def study(party, data):
    return await secure_sum(party, data, bound=100)
print(simulate(study, [[1], [2], [3]], preprocessing="prss")[0])
"""


def measure_cold_start(goal: float) -> Row:
    """Time a program from its start to its first secure sum: interpreter, imports, processes, TLS."""
    seconds = []
    for _ in range(REPETITIONS + 1):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", _COLD], check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own
        seconds.append(time.perf_counter() - began)
    middle = median(seconds[1:])
    return Row(
        "cold start to first sum", "prss", 1, "run", goal, middle, tuple(seconds[1:]), 1 / middle, 0, 0, 0, 0.0, 0.0
    )


def measure_round(echo: float) -> Row:
    """Time a round of three parties: 16 bytes to each other, over our mesh alone."""
    rounds = 500

    async def study(party: Party, data: Any) -> Any:
        seconds = []
        cost = party.cost_of("round")
        for _ in range(REPETITIONS + 1):
            began = time.perf_counter()
            for _ in range(rounds):
                step = party.next_step("round")
                for other in party.others:
                    await party.send(other, step, b"sixteen bytes...", cost)
                for other in party.others:
                    await party.transport.receive(other, step, 16)
            seconds.append((time.perf_counter() - began) / rounds)
        return seconds[1:]

    results = simulate(study, [None] * PARTIES, preprocessing="prss")
    slowest = [max(times) for times in zip(*results, strict=True)]
    seconds = median(slowest)
    goal = echo + 0.00015
    times = tuple(slowest)
    return Row(
        "one round of 16 bytes", "-", 1, "round", goal, seconds, times, 1 / seconds, 32, 1, 0, echo, seconds / echo
    )


def measure_resumable_link(echo: float, stream: float) -> list[Row]:
    """Time a link between two nodes that outlives its connections, against a plain TLS connection.

    Parameters
    ----------
    echo : float
        Seconds that 16 bytes take there and back.
    stream : float
        Bytes a second.
    """
    pieces = 2000
    echoes, streams = measure_link(echoes=2000, pieces=pieces, repetitions=REPETITIONS + 1)
    amount = pieces * PIECE_BYTES
    rows = []
    for name, unit, work, times, limit, goal in (
        ("16 bytes there and back, a link of two nodes", "echo", 1, echoes[1:], echo, echo + 0.00015),
        ("stream of 240 KiB, a link of two nodes", "byte", amount, streams[1:], amount / stream, amount / stream / 0.8),
    ):
        seconds = median(times)
        rows.append(
            Row(name, "-", work, unit, goal, seconds, tuple(times), work / seconds, work, 1, 0, limit, seconds / limit)
        )
    return rows
