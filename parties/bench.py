"""What `sottovoce bench` measures: online seconds of the building blocks, between real processes.

Every row runs in three processes on this machine over mutual TLS, five times after a warm-up (those that take
seconds less often); a row's time is the slowest party's, and the median counts. The material of a row is prepared
ahead, so that the time is the online phase; what the material itself costs stands in rows of its own. Analyses of
many rows of data, see :mod:`parties.bench_rows`, are timed in all.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc import F61, F127, multiply, prepare
from mpc.inputs import agree
from parties.bench_limits import fastest_of, measure_limits, median
from parties.bench_links import PIECE_BYTES, measure_link
from parties.bench_rows import analyses, measure_rows, room_for
from parties.bench_work import REPETITIONS, Row, Work, vectors, workloads
from parties.simulate import simulate

if TYPE_CHECKING:
    from mpc.field import Field
    from mpc.party import Party

PARTIES = 3


# ---- measuring ----------------------------------------------------------------------------------


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


def measure(work: Work, preprocessing: str, stream: float, repetitions: int | None = None) -> Row:
    """Run one row."""
    repetitions = work.repetitions if repetitions is None else repetitions
    results = simulate(_timed(work, repetitions), [None] * PARTIES, preprocessing=preprocessing)
    slowest = [max(times) for times in zip(*(result[0] for result in results), strict=True)]
    seconds = median(slowest)
    sent = [result[1] for result in results]
    cores = min(os.cpu_count() or 1, PARTIES)
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
        max(costs.peak_memory_bytes for costs in results.costs.parties[:PARTIES]),
        limit,
        seconds / limit,
    )


def _material(field: Field, amount: int, repetitions: int) -> Callable[[Party, Any], Awaitable[Any]]:
    async def study(party: Party, data: Any) -> Any:
        x, y = await vectors(field)(party, amount)
        seconds, sent = [], 0
        for _ in range(repetitions + 1):
            await agree(party, "beginning", "material")
            before = party.costs.total
            began = time.perf_counter()
            await prepare(party, multiply, x, y)
            seconds.append(time.perf_counter() - began)
            sent = party.costs.since(before).bytes_sent
            await multiply(party, x, y)
        return seconds[1:], sent

    return study


def measure_material(
    preprocessing: str,
    field: Field,
    amount: int,
    goal: float,
    *,
    parties: int = PARTIES,
    stream: float = 0.0,
    repetitions: int = REPETITIONS,
) -> Row:
    """Time how triples are made: masks, products, and what a dealer or the parties send for them.

    With a stream's bytes a second the limit is what must move; a dealer's bytes are not counted.
    """
    results = simulate(_material(field, amount, repetitions), [None] * parties, preprocessing=preprocessing)
    slowest = [max(times) for times in zip(*(result[0] for result in results), strict=True)]
    seconds = median(slowest)
    sent = [result[1] for result in results]
    limit = sum(sent) / stream if stream and preprocessing == "ot" else 0.0
    return Row(
        material_name(preprocessing, field, amount, parties),
        preprocessing,
        amount,
        "triple",
        goal,
        seconds,
        tuple(slowest),
        amount / seconds,
        max(sent) if preprocessing == "ot" else 0,
        2 if preprocessing == "ot" else 0,
        max(costs.peak_memory_bytes for costs in results.costs.parties),
        limit,
        seconds / limit if limit else 0.0,
    )


def material_name(preprocessing: str, field: Field, amount: int, parties: int) -> str:
    """Return how a row of triples is called."""
    between = f", {parties} parties" if preprocessing == "ot" else ""
    return f"10^{len(str(amount)) - 1} triples, {field}{between}"


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


# ---- the whole ----------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Tell what the figures were measured on."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "kernels": F127.backend,
        "load_before": round(load, 2),
    }


# Parties, field, and how many triples a second are wanted by oblivious transfer.
_BY_TRANSFER = ((2, F127, 45_000), (3, F127, 25_000), (2, F61, 0), (3, F61, 0))


def plan(
    limits: dict[str, float], *, quick: bool = False, preprocessings: Sequence[str] = ("prss", "dealer")
) -> list[tuple[str, Callable[[], Row | list[Row]]]]:
    """Return what is measured: a name for each row or two, and how.

    Parameters
    ----------
    limits : dict
        From :func:`parties.bench_limits.measure_limits`.
    quick : bool
        Ten times less work in each row.
    preprocessings : sequence of str
    """
    echo, stream = limits["echo_seconds"], limits["stream_bytes_per_second"]
    found: list[tuple[str, Callable[[], Row | list[Row]]]] = [
        ("one round of 16 bytes", partial(measure_round, echo)),
        ("a link of two nodes: echo and stream", partial(measure_resumable_link, echo, stream)),
    ]
    triples, rows = (10**5, 10**6) if quick else (10**6, 10**7)
    for name in preprocessings:
        for work in workloads(quick):
            found.append((f"{work.name} ({name})", partial(measure, work, name, stream)))
        for field in (F61, F127):
            goal = triples / (2e6 if name == "prss" else 1e6)
            measuring = partial(measure_material, name, field, triples, goal)
            found.append((f"{material_name(name, field, triples, PARTIES)} ({name})", measuring))
    transfers = triples // 10
    for parties, field, each_second in _BY_TRANSFER:
        goal = transfers / each_second if each_second else 0.0
        measuring = partial(
            measure_material, "ot", field, transfers, goal, parties=parties, stream=stream, repetitions=3
        )
        found.append((f"{material_name('ot', field, transfers, parties)} (ot)", measuring))
    found.append(("cold start to first sum", partial(measure_cold_start, 1.2)))
    for name in preprocessings:
        for analysis in analyses(rows) if room_for(rows) else []:
            found.append((f"{analysis.name} ({name})", partial(measure_rows, analysis, name, rows)))
    # Last, because processes are forked from this one and begin with all that it has imported.
    for name in preprocessings:
        for solver, goal in (("gradient", 0.4), ("newton", 1.0)):
            found.append((f"breast cancer, {solver} ({name})", partial(measure_training, solver, name, goal)))
    return found


def main(
    *,
    quick: bool = False,
    only: Sequence[str] = (),
    json_file: str | None = None,
    preprocessings: Sequence[str] = ("prss", "dealer"),
) -> int:
    """Measure, print a table, and write JSON where asked; returns the exit status.

    Parameters
    ----------
    quick : bool
        Ten times less work in each row.
    only : sequence of str
        Parts of names: only rows whose names hold one of them; all by default.
    json_file : str, optional
    preprocessings : sequence of str
    """
    from rich.console import Console

    console = Console()
    names = [name for name, _ in plan({"echo_seconds": 0.0, "stream_bytes_per_second": 1.0}, quick=quick)]
    if not any(chosen(name, only) for name in names):
        console.print(f"No row is called so. There are: {'; '.join(names)}", highlight=False, markup=False)
        return 1
    about = machine()
    console.print(", ".join(f"{name}: {value}" for name, value in about.items()))
    limits = fastest_of(3, measure_limits)
    console.print(
        f"plain asyncio TLS stream: {limits['stream_bytes_per_second'] / 1e6:.0f} MB/s, "
        f"echo {limits['echo_seconds'] * 1e3:.3f} ms"
    )
    rows: list[Row] = []
    for name, run in plan(limits, quick=quick, preprocessings=preprocessings):
        if not chosen(name, only):
            continue
        try:
            found = run()
        except ImportError as error:
            console.print(f"  {name}: left out, needs {error.name}: pip install 'sottovoce[examples]'", markup=False)
            continue
        measured = [found] if isinstance(found, Row) else found
        rows += measured
        console.print(f"  {name}: {', '.join(f'{row.seconds:.4f} s' for row in measured)}", highlight=False)
    console.print(table(rows))
    if json_file:
        with open(json_file, "w", encoding="utf-8") as out:
            json.dump({"machine": about, "limits": limits, "rows": [asdict(row) for row in rows]}, out, indent=1)
        console.print(f"The figures: {json_file}")
    return 0


def chosen(name: str, only: Sequence[str]) -> bool:
    """Whether a row was asked for."""
    return not only or any(part.lower() in name.lower() for part in only)


def table(rows: Sequence[Row]) -> Any:
    """Lay the rows out for a terminal."""
    from rich.table import Table

    laid = Table(title=f"{PARTIES} processes, mutual TLS, median of up to {REPETITIONS}", title_justify="left")
    for title in (
        "work",
        "material",
        "seconds",
        "goal",
        "a second",
        "MB/party",
        "rounds",
        "peak MB",
        "MB beside",
        "x limit",
    ):
        laid.add_column(title, justify="left" if title in ("work", "material") else "right", no_wrap=True)
    for row in rows:
        laid.add_row(
            row.name,
            row.preprocessing,
            f"{row.seconds:.4f}",
            f"{row.goal_seconds:.4g}",
            f"{row.per_second:,.0f}",
            f"{row.bytes_per_party / 1e6:.2f}" if row.bytes_per_party else "",
            str(row.rounds) if row.rounds else "",
            f"{row.peak_memory_bytes / 2**20:.0f}" if row.peak_memory_bytes else "",
            f"{row.beside_bytes / 2**20:.0f}" if row.beside_bytes else "",
            f"{row.ratio:.2f}" if row.ratio else "",
        )
    return laid
