"""``sottovoce propose, list, show, approve, reject, run, status, result, cancel``: the owner's commands.

They talk to the node that runs on this machine. Exit status: 0 if all went well; 1 for an error, told in a
line; 2 for a wrong option; 3 if a study that was waited for failed or was ended; 4 if it was not over in time.
"""

from __future__ import annotations

import json as jsons
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from parties.node.client import NodeClient

FAILED = 3
NOT_OVER = 4

Which = Annotated[str, typer.Argument(metavar="STUDY", help="The begin of its hash (4 digits or more), or its title.")]
Where = Annotated[
    Path | None,
    typer.Option("--node", help="The node's directory or node.toml; else SOTTOVOCE_NODE, else this directory."),
]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]
Reason = Annotated[str, typer.Option(prompt=True, help="Why; all members read it.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (propose, show, approve, reject, prepare, run, status, result, cancel):
        app.command(rich_help_panel="Studies")(command)
    app.command("list", rich_help_panel="Studies")(list_studies)


def propose(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A study file.", exists=True, dir_okay=False)],
    node: Where = None,
    also_approve: Annotated[bool, typer.Option("--approve", help="Approve it here at once.")] = False,
    json: Json = False,
) -> None:
    """Propose a study to the members whom it names.

    The file is checked here, and by every member's node; everybody approves the same bytes. Prints the hash.
    """
    from parties.governance.studies import read_study
    from parties.node.client import find_node

    study, program = read_study(file)
    client = find_node(node)
    view = client.post("studies", {"study": study.plain(), "program": program})
    namesakes = view["namesakes"]
    if also_approve:
        view = client.post("approve", {"study": study.hash})
    if json:
        _print_json({**view, "namesakes": namesakes})
        return
    from parties.commands.showing import show_namesakes, show_study_line

    show_study_line(view)
    show_namesakes(namesakes)


def list_studies(node: Where = None, json: Json = False) -> None:
    """List the studies that this node knows, the newest first."""
    from parties.commands.showing import show_list

    views = _client(node).get("studies")
    if json:
        _print_json(views)
    else:
        show_list(views)


def show(study: Which, node: Where = None, json: Json = False) -> None:
    """Show a study as whoever approves it must see it: who contributes, who learns what, what has happened."""
    from parties.commands.showing import show_details

    details = _client(node).get("study", study=study)
    if json:
        _print_json(details)
    else:
        show_details(details)


def approve(study: Which, node: Where = None) -> None:
    """Approve a study: sign its hash.

    Refused if this node's settings do not allow it; says which, and how to allow it.
    """
    _done(_client(node).post("approve", {"study": study}))


def reject(study: Which, reason: Reason, node: Where = None) -> None:
    """Reject a study for good; also withdraws an approval."""
    _done(_client(node).post("reject", {"study": study, "reason": reason}))


def cancel(study: Which, reason: Reason, node: Where = None) -> None:
    """Cancel a study for good; if it runs, it is stopped at all members."""
    _done(_client(node).post("cancel", {"study": study, "reason": reason}))


def run(
    study: Which,
    node: Where = None,
    dry: Annotated[bool, typer.Option("--dry", help="On made-up data of the agreed columns only.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Show how it goes, then the result.")] = False,
    timeout: Annotated[float | None, typer.Option(min=1.0, help="Wait for so many seconds at most.")] = None,
    json: Json = False,
) -> None:
    """Run a study that all members have approved; all of them take part.

    With --wait the exit status is 0 if it finished, 3 if it failed, 4 if it was not over in time.
    """
    client = _client(node)
    view = client.post("run", {"study": study, "dry": dry})
    if not wait:
        _print_json(view) if json else _done(view)
        return
    view = _follow(client, view["study"], timeout, quiet=json)
    _conclude(client, view, json=json, dry=dry)


def prepare(
    study: Which,
    node: Where = None,
    runs: Annotated[int, typer.Option(min=1, max=100, help="For how many runs.")] = 1,
    rows: Annotated[int, typer.Option(min=0, help="Rows that each contributor has, as far as is known.")] = 1000,
    wait: Annotated[bool, typer.Option("--wait", help="Show how it goes.")] = False,
    timeout: Annotated[float | None, typer.Option(min=1.0, help="Wait for so many seconds at most.")] = None,
    json: Json = False,
) -> None:
    """Make material for later runs of a study with preprocessing "ot", so that these wait for less.

    All members take part. What the study takes is found by running it on made-up rows, as the cost preview does;
    nothing of the data goes in. Where the real run takes something else, it makes that as it goes.
    """
    client = _client(node)
    view = client.post("prepare", {"study": study, "runs": runs, "rows": rows})
    if wait:
        view = _follow(client, view["study"], timeout, quiet=json)
        _conclude(client, view, json=json, dry=False, prepared=True)
    else:
        _print_json(view) if json else _done(view)


def status(
    study: Annotated[str | None, typer.Argument(metavar="[STUDY]", help="Of one study; else of the node.")] = None,
    node: Where = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the study until it is over.")] = False,
    timeout: Annotated[float | None, typer.Option(min=1.0, help="Wait for so many seconds at most.")] = None,
    json: Json = False,
) -> None:
    """Show how the node is, its links and its studies; or how far a study is."""
    from parties.commands.showing import show_list, show_node, show_study_status

    client = _client(node)
    if study is None:
        view = client.get("status")
        if json:
            _print_json(view)
        else:
            show_node(view)
            show_list([one for one in client.get("studies") if not one["over"] or one["next"]])
        return
    details = client.get("study", study=study)
    if wait:
        view = _follow(client, details["study"], timeout, quiet=json)
        _conclude(client, view, json=json, dry=False)
    elif json:
        _print_json(details)
    else:
        show_study_status(details)


def result(
    study: Which,
    node: Where = None,
    json: Json = False,
    out: Annotated[Path | None, typer.Option(help="Write it to a new file that only you can read, as JSON.")] = None,
) -> None:
    """Print the result of a study, if this organisation is a recipient."""
    from parties.commands.showing import show_result

    kept = _client(node).get("result", study=study)
    if out is not None:
        from parties.governance.errors import GovernanceError
        from parties.governance.files import write_new

        content = jsons.dumps(kept, indent=2).encode() + b"\n"
        write_new(out, content, mode=0o600, what="result", error=GovernanceError)
    elif json:
        _print_json(kept)
    else:
        show_result(kept)


# ---- helpers --------------------------------------------------------------------------------------


def _client(node: Path | None) -> NodeClient:
    from parties.node.client import find_node

    return find_node(node)


def _done(view: dict[str, Any]) -> None:
    from parties.commands.showing import show_study_line

    show_study_line(view)


def _print_json(value: Any) -> None:
    typer.echo(jsons.dumps(value, indent=2))


def _follow(client: NodeClient, study: str, timeout: float | None, *, quiet: bool) -> dict[str, Any]:
    """Show how a study goes until nothing happens any more, or the time is over; return its last view."""
    from parties.commands.showing import Follower

    until = None if timeout is None else time.monotonic() + timeout
    last: dict[str, Any] = {}
    try:
        with Follower(quiet=quiet) as follower:
            for last in client.lines("progress", study=study):
                follower.show(last)
                if until is not None and time.monotonic() >= until and not last["over"]:
                    break
    except KeyboardInterrupt:
        typer.echo(f"the study goes on; sottovoce status {study[:12]} shows how, sottovoce cancel ends it", err=True)
        raise typer.Exit(NOT_OVER) from None
    return last


def _conclude(client: NodeClient, view: dict[str, Any], *, json: bool, dry: bool, prepared: bool = False) -> None:
    """Print the end of a study and exit with its status."""
    from parties.commands.showing import material_line, show_result

    if prepared and view["phase"] == "approved" and (line := material_line(view["material"])):
        view = {**view, "text": f"{view['text']}; {line}", "dry_run_passed": True}
        dry = True
    good = view["phase"] == "finished" or (dry and view["phase"] == "approved" and view["dry_run_passed"])
    kept: dict[str, Any] | None = None
    if view["phase"] == "finished" and view["result"]["here"]:
        kept = client.get("result", study=view["study"])
    if json:
        _print_json({**view, "value": kept})
    elif kept is not None:
        show_result(kept)
    else:
        print(f"{view['title']}: {view['text']}", file=sys.stdout if good else sys.stderr)
    if not view["over"]:
        raise typer.Exit(NOT_OVER)
    if not good:
        raise typer.Exit(FAILED)
