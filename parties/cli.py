"""The command ``sottovoce``."""

from __future__ import annotations

import os
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="sottovoce",
    help="Organisations compute on their joint data without showing it to one another.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class PreprocessingName(StrEnum):
    """Where products of masks come from."""

    prss = "prss"
    dealer = "dealer"
    ot = "ot"


class SecurityName(StrEnum):
    """What organisations are trusted with."""

    semi_honest = "semi-honest"
    malicious = "malicious"


Preprocessing = Annotated[
    PreprocessingName | None,
    typer.Option(help="Who makes the masks; by default prss for 3 or more organisations, else dealer."),
]


@app.command()
def demo(
    preprocessing: Preprocessing = None,
    parties: Annotated[int, typer.Option(min=2, max=5, help="How many hospitals.")] = 3,
    figure: Annotated[Path, typer.Option(help="Where the picture goes: .png, .svg or .pdf.")] = Path(
        "sottovoce-demo.png"
    ),
) -> None:
    """Three hospitals train one model on real patients, and show none to each other."""
    from parties.demo import study, tell
    from parties.demo_data import hospitals

    _check_figure(figure)
    tell(study, hospitals(parties), preprocessing=_checked(preprocessing, parties), figure=figure)


@app.command()
def simulate(
    study: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, metavar="STUDY", help="A Python file."),
    ],
    preprocessing: Preprocessing = None,
    security: Annotated[
        SecurityName, typer.Option(help="malicious: organisations may cheat, and a run in which one does ends.")
    ] = SecurityName.semi_honest,
    timeout: Annotated[float, typer.Option(min=1.0, help="For the whole run, in seconds.")] = 300.0,
    in_process: Annotated[bool, typer.Option("--in-process", help="All in one process, without network.")] = False,
) -> None:
    """Try a study on this machine: one process for each organisation, TLS between them.

    STUDY is a Python file that defines "async def study(party, data)", and "inputs": a list with the data
    of each organisation, or a function that returns one.
    """
    from parties.display import make_console, show_costs, show_results
    from parties.simulate import simulate as run
    from parties.study_file import load_study

    loaded = load_study(study)
    results = run(
        loaded.program,
        loaded.inputs,
        preprocessing=_checked(preprocessing, len(loaded.inputs), security),
        security=security.value,
        in_process=in_process,
        timeout_seconds=timeout,
    )
    console = make_console()
    show_results(console, results)
    console.print()
    show_costs(console, results.costs)


@app.command()
def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Ten times less work in each row.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Only rows whose names hold this text, such as sort; may be repeated.")
    ] = None,
    json: Annotated[Path, typer.Option(dir_okay=False, writable=True, help="Write the figures here.")] = Path(
        "sottovoce-bench.json"
    ),
) -> None:
    """Measure this machine."""
    from parties import bench as benchmarks

    raise typer.Exit(benchmarks.main(quick=quick, only=only or (), json_file=str(json)))


@app.command()
def version() -> None:
    """Print the version, and what does the arithmetic."""
    from importlib import metadata

    from mpc import F127

    try:
        number = metadata.version("sottovoce")
    except metadata.PackageNotFoundError:
        number = "not installed"
    typer.echo(f"sottovoce {number} ({'C' if F127.backend == 'c' else 'numpy'} kernels)")


def _register(app: typer.Typer) -> None:
    """Add the commands of nodes; each imports what it needs when it is run."""
    from parties.commands import audit, estimate, keys, node, relay, sandbox, studies

    for group in (estimate, sandbox, keys, node, studies, audit, relay):
        group.register(app)


_register(app)


def _checked(
    preprocessing: PreprocessingName | None, parties: int, security: SecurityName = SecurityName.semi_honest
) -> str | None:
    from mpc.errors import SecurityError
    from mpc.session import check_preprocessing, check_security

    if preprocessing is None:
        return None
    try:
        check_preprocessing(preprocessing.value, parties)
        check_security(security.value, preprocessing.value)
    except (ValueError, SecurityError) as error:
        raise typer.BadParameter(str(error), param_hint="--preprocessing") from None
    return preprocessing.value


def _check_figure(path: Path) -> None:
    """Refuse before anything is computed what could not be written in the end."""
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise typer.BadParameter("a picture is a .png, .svg or .pdf", param_hint="--figure")
    if not os.access(path.parent, os.W_OK) or path.is_dir():
        raise typer.BadParameter(f"{path} cannot be written", param_hint="--figure")


def main() -> None:
    """Run the command; an error that is to be expected is told in a line, without a traceback."""
    from mpc.errors import SottovoceError
    from parties.errors import PartyError

    try:
        app()
    except SottovoceError as error:
        if isinstance(error, PartyError) and error.__cause__ is not None:  # all in one process: the user's own
            traceback.print_exception(error.__cause__)
        _fail(str(error))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRAS:
            raise
        _fail(f"this needs {missing}: pip install 'sottovoce[{_EXTRAS[missing]}]'")
    except BrokenPipeError:  # the reader of our output left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


# What base dependencies do not bring, with the extra that brings it.
_EXTRAS = {
    "sklearn": "examples",
    "statsmodels": "examples",
    "matplotlib": "examples",
    "pandas": "node",
    "pyarrow": "node",
    "sqlalchemy": "node",
    "prometheus_client": "node",
    "psycopg": "postgres",
}


def _fail(text: str) -> None:
    typer.echo(f"sottovoce: {text}", err=True)
    raise SystemExit(1)
