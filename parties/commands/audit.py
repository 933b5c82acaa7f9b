"""``sottovoce audit``: does a log hold, and what does it say."""

from __future__ import annotations

import collections
import datetime
from pathlib import Path
from typing import Annotated

import typer

Log = Annotated[Path, typer.Argument(metavar="LOG", help="An audit log, or the directory of a node.")]
StudyOption = Annotated[str | None, typer.Option(help="Only this study: the beginning of its hash.")]
Since = Annotated[
    datetime.datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="Only from then on, in UTC.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Check, show and export a node's audit log.")
    for command in (verify, show, export):
        group.command()(command)
    app.add_typer(group, name="audit")


def verify(
    log: Log,
    certificate: Annotated[
        Path | None, typer.Option(help="The node's certificate, as in the consortium; else the one that the log names.")
    ] = None,
    witness: Annotated[
        list[Path] | None, typer.Option(help="The log of another member, which saw the head of this one.")
    ] = None,
) -> None:
    """Check signatures and chain, and what other members saw of the log; the exit status is 1 if anything is wrong."""
    from parties.governance.audit import find_log, read_entries
    from parties.governance.audit import verify as verify_log
    from parties.governance.checks import one_line
    from parties.governance.files import shown
    from parties.governance.keys import load_certificate

    path = find_log(log)
    pinned = None if certificate is None else load_certificate(certificate)
    found = verify_log(path, pinned, [find_log(one) for one in witness or []])
    for sentence in found:
        typer.echo(one_line(sentence, 1000))
    if found:
        raise typer.Exit(1)
    last = collections.deque(read_entries(path), maxlen=1)[-1]
    seen = f", as {len(witness)} other log{'s' if len(witness) > 1 else ''} saw it" if witness else ""
    typer.echo(f"{shown(path)} holds: {last.number + 1} entries{seen}; the last is {last.hash[:16]} of {last.time}")
    if certificate is None:
        typer.echo("Signed by the key that it names itself; --certificate takes the one that the consortium knows.")


def show(
    log: Log,
    study: StudyOption = None,
    since: Since = None,
    last: Annotated[int, typer.Option(min=1, help="At most so many entries, the latest.")] = 50,
) -> None:
    """Show entries as a table."""
    from parties.display import make_console
    from parties.governance.audit import find_log, read_entries, select
    from parties.governance.audit import show as table_of

    chosen = collections.deque(select(read_entries(find_log(log)), study, _utc(since)), maxlen=last)
    make_console().print(table_of(iter(chosen)))


def export(
    log: Log,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new file: .csv, or else JSON lines.")],
    study: StudyOption = None,
    since: Since = None,
) -> None:
    """Write entries to a file, for an auditor or a spreadsheet."""
    from parties.governance.audit import export as export_log
    from parties.governance.audit import find_log
    from parties.governance.files import shown

    count = export_log(find_log(log), out, study, _utc(since))
    typer.echo(f"{shown(out)}: {count} entries")


def _utc(moment: datetime.datetime | None) -> datetime.datetime | None:
    return None if moment is None else moment.replace(tzinfo=datetime.UTC)
