"""What `sottovoce bench` measures, and how it tells.

Every row runs in processes on this machine over mutual TLS, after a warm-up. See :mod:`parties.bench_online` for the
building blocks, :mod:`parties.bench_material` for what they take, :mod:`parties.bench_rows` for many rows of data.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from mpc import F61, F127, multiply
from mpc.session import SECURITIES
from parties.bench_limits import fastest_of, measure_limits
from parties.bench_material import material_name, measure_material
from parties.bench_online import (
    measure,
    measure_cold_start,
    measure_resumable_link,
    measure_round,
    measure_training,
)
from parties.bench_rows import analyses, measure_rows, room_for
from parties.bench_work import PARTIES, REPETITIONS, Row, Work, constants, words, workloads

_FILE_WIDTH = 150
# Security, parties, field, and how many triples a second are wanted by oblivious transfer.
_BY_TRANSFER = (
    ("semi-honest", 2, F127, 45_000),
    ("semi-honest", 3, F127, 25_000),
    ("semi-honest", 2, F61, 0),
    ("semi-honest", 3, F61, 0),
    ("malicious", 2, F127, 10_200),
    ("malicious", 3, F127, 4_000),
)


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
    for security, parties, field, each_second in _BY_TRANSFER:
        amount = triples // 10 if security == "semi-honest" else triples // 50
        goal = amount / each_second if each_second else 0.0
        measuring = partial(
            measure_material,
            "ot",
            field,
            amount,
            goal,
            parties=parties,
            security=security,
            stream=stream,
            repetitions=3,
        )
        found.append((f"{material_name('ot', field, amount, parties, security)} (ot)", measuring))
    for parties in (2, 3):
        for security in SECURITIES:
            title = f"{words(triples)} products, F127, {parties} parties"
            work = Work(title, triples, "product", 0.0, constants(F127), multiply)
            measuring = partial(measure, work, "dealer", stream, parties=parties, security=security)
            found.append((f"{title} (dealer, {security})", measuring))
    found.append(("cold start to first sum", partial(measure_cold_start, 1.2)))
    for name in preprocessings:
        for analysis in analyses(rows) if room_for(rows) else []:
            found.append((f"{analysis.name} ({name})", partial(measure_rows, analysis, name, rows)))
    # Last, because processes are forked from this one and begin with all that it has imported.
    for name in preprocessings:
        for solver, goal in (("gradient", 0.4), ("newton", 1.0)):
            found.append((f"breast cancer, {solver} ({name})", partial(measure_training, solver, name, goal)))
    return found


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
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)  # the table is read in a file, or by a program
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
            row.preprocessing if row.security == "semi-honest" else f"{row.preprocessing}, {row.security}",
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
