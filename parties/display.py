"""What commands print: results and costs, in 80 columns, with or without a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.costs import StepCost

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from parties.reports import Results, RunCosts


def make_console(*, to_stderr: bool = False) -> Console:
    """Return a console that prints no control codes unless somebody watches."""
    from rich.console import Console

    return Console(stderr=to_stderr, highlight=False, soft_wrap=False)


def heading(console: Console, text: str) -> None:
    """Begin a part of the output."""
    console.print(f"\n{text}\n", style="bold", markup=False)


def make_table(*columns: str) -> Table:
    """Return an empty table of ours: the first column holds words, the others numbers; heads may have two lines."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="", pad_edge=False, show_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", vertical="bottom")
    return table


def human_bytes(count: float) -> str:
    """Write a number of bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def step_costs(costs: RunCosts, depth: int, within: str = "") -> dict[str, StepCost]:
    """Add up what a run cost by step: by the first ``depth`` parts of the labels that begin with ``within``.

    Rounds and elements are those of the party that had most (they are alike at all); messages and bytes
    are those of all parties together. What is done again counts as one: ``newton.7`` as ``newton``.
    """
    steps: dict[str, StepCost] = {}
    for party in costs.parties:
        ours: dict[str, StepCost] = {}
        for label, cost in party.steps.by_step.items():
            if label.startswith(within):
                scopes = [scope.partition(".")[0] for scope in label.split("/")[:depth]]
                ours.setdefault("/".join(scopes), StepCost()).add(cost)
        for name, cost in ours.items():
            step = steps.setdefault(name, StepCost())
            step.messages += cost.messages
            step.bytes_sent += cost.bytes_sent
            step.rounds = max(step.rounds, cost.rounds)
            step.elements_opened = max(step.elements_opened, cost.elements_opened)
    return steps


def show_costs(console: Console, costs: RunCosts) -> None:
    """Print what a run cost: by step, the large ones in parts; and on the wire."""
    table = make_table("step", "rounds", "messages", "sent by all", "elements opened")

    def add(name: str, cost: StepCost) -> None:
        opened = f"{cost.elements_opened:,}"
        table.add_row(name, f"{cost.rounds:,}", f"{cost.messages:,}", human_bytes(cost.bytes_sent), opened)

    steps = step_costs(costs, 1)
    total = StepCost()
    for name, cost in steps.items():
        total.add(cost)
        add(name, cost)
        if 2 * cost.bytes_sent > costs.bytes_sent:
            for part, its_cost in step_costs(costs, 2, f"{name}/").items():
                add(f"  {part.removeprefix(f'{name}/')}", its_cost)
    if len(steps) > 1:
        table.add_section()
        add("together", total)
    console.print(table)
    busiest = max(party.seconds for party in costs.parties)
    wire = f"{human_bytes(costs.wire_bytes)} with headers and TLS" if costs.wire_bytes else "nothing, in one process"
    console.print(
        f"\nOn the wire: {wire}. Time: {busiest:.2f} s to compute, {costs.seconds:.2f} s with starting the processes. "
        f"Memory of a party: at most {human_bytes(costs.peak_memory_bytes)}."
    )


def show_results(console: Console, results: Results) -> None:
    """Print what the parties got: once if all got the same."""
    from parties.codec import encode

    if all(encode(result) == encode(results[0]) for result in results):
        heading(console, f"All {len(results)} parties got")
        show_value(console, results[0])
        return
    for rank, result in enumerate(results):
        heading(console, f"Party {rank} got")
        show_value(console, result)


def show_value(console: Console, value: Any) -> None:
    """Print a result: its summary where it has one, otherwise what it consists of."""
    if isinstance(value, Mapping):
        _show_parts(console, {str(name): part for name, part in value.items()})
    elif is_dataclass(value) and not isinstance(value, type) and not _has_summary(value):
        _show_parts(console, {part.name: getattr(value, part.name) for part in fields(value)})
    else:
        console.print(_text(value, console.width), markup=False, soft_wrap=True)


def _show_parts(console: Console, parts: Mapping[str, Any]) -> None:
    for name, part in parts.items():
        is_long = is_dataclass(part) or isinstance(part, Mapping) or "\n" in _text(part, console.width)
        console.print(f"{name}:", end="\n" if is_long else " ", markup=False)
        show_value(console, part)


def _has_summary(value: Any) -> bool:
    return callable(getattr(value, "summary", None))


def _text(value: Any, width: int) -> str:
    if _has_summary(value):
        return str(value.summary())
    if isinstance(value, np.ndarray):
        return np.array2string(value, max_line_width=width, precision=6)
    return str(value)
