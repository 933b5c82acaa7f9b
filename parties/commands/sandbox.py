"""``sottovoce sandbox, up, down``: a whole consortium on one machine, to try things out.

Each node has a directory of its own with key, settings and made-up data, exactly as at a real organisation;
only the addresses are those of this machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The sandbox.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (sandbox, up, down):
        app.command(rich_help_panel="Sandbox")(command)


def sandbox(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A directory that does not exist yet.")],
    hospitals: Annotated[int, typer.Option(min=2, max=5, help="How many hospitals.")] = 3,
    dealer: Annotated[
        bool | None, typer.Option("--dealer/--no-dealer", help="With a dealer; by default only for two hospitals.")
    ] = None,
) -> None:
    """Make directories for a few hospitals on this machine, with keys, settings, made-up data and a study."""
    from parties.node.sandbox import make_sandbox

    names = make_sandbox(directory, hospitals, with_dealer=hospitals == 2 if dealer is None else dealer)
    first = directory / names[0]
    typer.echo(f"{directory} holds {', '.join(names)}, each as it would be at its organisation, and study.toml")
    typer.echo("next:")
    typer.echo(f"  sottovoce up {directory}")
    typer.echo(f"  sottovoce propose {directory / 'study.toml'} --node {first}")
    typer.echo(f'  for node in {directory}/*/; do sottovoce approve "Readmission" --node $node; done')
    typer.echo(f'  sottovoce run "Readmission" --wait --node {first}')


def up(
    directory: Directory,
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds to wait until all are linked.")] = 60.0,
) -> None:
    """Start all nodes of a sandbox in the background, and wait until they are linked."""
    from parties.node.sandbox import start_all

    for name, pid in start_all(directory, timeout).items():
        typer.echo(f"{name} is up (process {pid})")


def down(directory: Directory) -> None:
    """Stop all nodes of a sandbox."""
    from parties.node.sandbox import stop_all

    stopped = stop_all(directory)
    typer.echo(f"stopped: {', '.join(stopped)}" if stopped else "no node was running")
