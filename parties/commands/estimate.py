"""``sottovoce estimate``: what a study will cost, before anybody has shown a number."""

from __future__ import annotations

import json as jsons
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mpc.estimate import CostEstimate
    from mpc.party import Party
    from parties.governance.studies import Study


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(estimate)


def estimate(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, metavar="STUDY", help="A study file, or a Python file.")
    ],
    rows: Annotated[int, typer.Option(min=1, max=1_000_000, help="Study file: rows that each contributor has.")] = 1000,
    preprocessing: Annotated[str, typer.Option(help="Python file: prss, dealer or ot; by default as simulate.")] = "",
    slowdown: Annotated[
        float, typer.Option(min=0.01, help="How much slower the organisations' machines compute than this one.")
    ] = 1.0,
    json: Annotated[Path | None, typer.Option(dir_okay=False, writable=True, help="Write the figures here.")] = None,
) -> None:
    """Tell what a study will cost: rounds, bytes, and time on a LAN and a WAN.

    STUDY is a study file, for which rows are made up; or a Python file as "sottovoce simulate" takes it. All
    parties run on this machine, in one process: that takes the time and memory of all of them together.
    """
    from parties.display import make_console

    of_file = _of_study_file if file.suffix == ".toml" else _of_python_file
    found = of_file(file, rows, preprocessing, slowdown)
    if json is not None:
        json.write_text(jsons.dumps(found.to_dict(), indent=2) + "\n", "utf-8")
    typer.echo(found.summary())
    console = make_console()
    console.print()
    console.print(_by_step(found))


def _of_python_file(file: Path, rows: int, preprocessing: str, slowdown: float) -> CostEstimate:
    from mpc.estimate import estimate as preview
    from parties.study_file import load_study

    study = load_study(file)

    async def program(party: Party, given: _Given) -> Any:
        return await study.program(party, given.data)

    count = len(study.inputs)
    chosen = _checked(preprocessing or ("prss" if 3 <= count <= 7 else "dealer"), count)
    return preview(program, [_Given(data) for data in study.inputs], preprocessing=chosen, slowdown=slowdown)


def _of_study_file(file: Path, rows: int, preprocessing: str, slowdown: float) -> CostEstimate:
    from mpc.estimate import estimate as preview
    from parties.data.columns import Table
    from parties.governance.catalogue import run_analyses
    from parties.governance.errors import StudyError
    from parties.governance.studies import read_study

    study, _ = read_study(file)
    if study.program is not None:
        raise StudyError(
            f"{file.name} pins a program of its own, which runs confined or not at all: if it is yours, write a Python "
            "file with its study() and made-up inputs, and estimate that"
        )
    if preprocessing not in ("", study.preprocessing):
        raise StudyError(f"{file.name} is a study with preprocessing {study.preprocessing}")

    async def program(party: Party, columns: dict[str, Any] | None) -> Any:
        table = None if columns is None else Table(columns, rows, 0)
        return await run_analyses(party, study, table, lambda _: None)

    described = [_columns(study, rows) if name in study.contributors else None for name in study.parties]
    return preview(program, described, preprocessing=study.preprocessing, security=study.security, slowdown=slowdown)


def _columns(study: Study, rows: int) -> dict[str, Any]:
    """Describe made-up columns that fit the study's; categories are codes."""
    from mpc.made_up import MadeUp

    described: dict[str, Any] = {}
    for column in study.columns:
        if column.type == "boolean":
            described[column.name] = MadeUp((rows,), "boolean")
        elif column.type == "category":
            described[column.name] = MadeUp((rows,), "integer", 0, len(column.categories) - 1)
        else:
            low, high = (0.0 if bound is None else bound for bound in (column.lower, column.upper))
            described[column.name] = MadeUp((rows,), column.type, low, high)
    return described


class _Given:
    """Data that is taken as it is, also where it looks like a shape."""

    def __init__(self, data: Any) -> None:
        self.data = data


def _checked(preprocessing: str, parties: int) -> str:
    from mpc.session import check_preprocessing

    try:
        check_preprocessing(preprocessing, parties)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--preprocessing") from None
    return preprocessing


def _by_step(found: CostEstimate) -> Any:
    """Return a table of the costs at the party that sends most, by the first part of the steps' names."""
    from mpc.costs import StepCost
    from parties.display import human_bytes, make_table

    steps: dict[str, StepCost] = {}
    for label, cost in found.steps.items():
        steps.setdefault(label.partition("/")[0].partition(".")[0], StepCost()).add(cost)
    table = make_table("step", "rounds", "sent", "elements opened")
    for name, cost in steps.items():
        table.add_row(name, f"{cost.rounds:,}", human_bytes(cost.bytes_sent), f"{cost.elements_opened:,}")
    return table
