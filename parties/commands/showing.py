"""How commands show studies, nodes and results: 80 columns, with or without a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from parties.display import human_bytes, make_console
from parties.governance.checks import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status
    from rich.table import Table

_STYLES = {
    "finished": "green",
    "running": "cyan",
    "waiting": "cyan",
    "failed": "red",
    "rejected": "red",
    "cancelled": "red",
    "expired": "red",
}


def show_study_line(view: dict[str, Any]) -> None:
    """Print where a study stands, and what to do next."""
    console = make_console()
    _say(console, f"{view['study'][:12]}  {view['title']}: {view['text']}")
    if view["next"]:
        _say(console, f"next: {view['next']}")


def show_namesakes(namesakes: Sequence[dict[str, Any]]) -> None:
    """Warn of other studies of the same title."""
    console = make_console(to_stderr=True)
    for other in namesakes:
        _say(console, f"warning: another study of this title is open, {other['study'][:12]}; they differ:", "yellow")
        for sentence in other["differences"]:
            _say(console, f"  {sentence}", "yellow")


def show_list(views: Sequence[dict[str, Any]]) -> None:
    """Print studies in a table."""
    console = make_console()
    if not views:
        _say(console, "no studies")
        return
    table = _table("study", "title", "phase", "")
    for view in views:
        _row(
            table, view["study"][:12], view["title"], view["phase"], view["text"], style=_STYLES.get(view["phase"], "")
        )
    console.print(table)
    for view in views:
        if view["next"]:
            _say(console, f"next: {view['next']}", "dim")


def show_details(details: dict[str, Any]) -> None:
    """Print everything that whoever approves a study must see."""
    console = make_console()
    _say(console, details["description"].rstrip())
    if details["program"] is not None:
        _say(console, "\nProgram", "bold")
        for number, line in enumerate(details["program"].splitlines(), 1):
            _say(console, f"{number:4}  {line}")
    show_study_status(details)


def show_study_status(details: dict[str, Any]) -> None:
    """Print where a study stands and how it got there."""
    console = make_console()
    _say(console, "\nState", "bold")
    _say(console, f"  {details['phase']}: {details['text']}", _STYLES.get(details["phase"], ""))
    waits = [name for name in details["members"] if name not in details["approvals"]]
    _say(console, f"  proposed by {details['proposer']}; approved by {', '.join(details['approvals']) or 'nobody yet'}")
    if waits:
        _say(console, f"  not approved by {', '.join(waits)}")
    if details["progress"]:
        _say(console, f"  {_progress(details['progress'])}")
    _show_material(console, details.get("material"))
    for attempt in details["history"]:
        _show_attempt(console, attempt)
    _sentences(console, "Not allowed here", details["refusals"], "red")
    _sentences(console, "Trouble with other members", details["troubles"], "yellow")
    notes = [f"attempt {one.get('attempt')}: {one.get('error_type')}: {one.get('text')}" for one in details["notes"]]
    _sentences(console, "For you alone", notes, "")
    for other in details["namesakes"]:
        title = f"Another study of this title, {other['study'][:12]}; they differ (first: the other one)"
        _sentences(console, title, other["differences"], "yellow")
    if details["next"]:
        _say(console, f"\nnext: {details['next']}")


def material_line(left: dict[str, Any] | None) -> str:
    """Say what was prepared and is left; empty if nothing is."""
    if left is None or not left["batches"]:
        return ""
    runs = f"{left['batches']} run{'' if left['batches'] == 1 else 's'}"
    much = f"{human_bytes(left['bytes'])}, {left['products']:,} entries of products"
    return f"material for {runs} is ready: {much}; the oldest from {left['oldest']}"


def _show_material(console: Console, left: dict[str, Any] | None) -> None:
    if line := material_line(left):
        _say(console, f"  {line}")


def _show_attempt(console: Console, attempt: dict[str, Any]) -> None:
    what = "dry run" if attempt["dry"] else "attempt"
    if attempt.get("prepare"):
        what = "preparation"
    _say(console, f"  {what} {attempt['number']}, begun by {' and '.join(attempt['begun_by'])} at {attempt['began']}")
    for name, outcome in sorted(attempt["outcomes"].items()):
        how = "succeeded" if outcome["ok"] else f"{outcome['error']}: {outcome['text'] or 'known to its owner alone'}"
        _say(console, f"    {name}: {how}")


def _sentences(console: Console, heading: str, sentences: Sequence[str], style: str) -> None:
    if sentences:
        _say(console, f"\n{heading}", "bold")
        for sentence in sentences:
            _say(console, f"  {sentence}", style)


def show_node(view: dict[str, Any]) -> None:
    """Print how a node is."""
    console = make_console()
    _say(console, f"{view['name']} ({view['organisation']}), {view['role']} of consortium {view['consortium']}", "bold")
    _say(console, f"  fingerprint of the consortium file: {view['fingerprint']}")
    _say(
        console, f"  version {view['version']}, up since {view['started']}, listens at {view['listen'] or 'no address'}"
    )
    days, free = view["certificate_days"], view["disk_free_bytes"]
    _say(console, f"  certificate valid for {days} days", "yellow" if days < 30 else "")
    _say(console, f"  {human_bytes(free)} free on disk; {view['running']} running, {view['queued']} queued")
    _show_material(console, view.get("material"))
    for trouble in [view["trouble"], *view["damaged"]]:
        if trouble:
            _say(console, f"  {trouble}", "red")
    table = _table("member", "role", "link", "")
    for peer in view["peers"]:
        text = peer["notice"] if peer["connected"] else peer["trouble"]
        since = f"since {peer['since']}" if peer["connected"] else ""
        link = "up" if peer["connected"] else "down"
        style = "yellow" if text and peer["connected"] else "" if peer["connected"] else "red"
        _row(table, peer["name"], peer["role"], link, "; ".join(filter(None, (since, text))), style=style)
    console.print()
    console.print(table)
    console.print()


def show_result(kept: dict[str, Any]) -> None:
    """Print a result: its summary if it has one."""
    import json

    console = make_console()
    of = f"attempt {kept['attempt']}, {kept['time']}" + (f", from {kept['from']}" if kept["from"] else "")
    _say(console, f"{kept['title']} ({of})", "bold")
    value = kept["result"]
    summary = value.get("summary")
    console.print()
    if isinstance(summary, str):
        for line in summary.splitlines():
            _say(console, line)
    else:
        _say(console, json.dumps(value, indent=2))


class Follower:
    """Shows how a study goes: live on a terminal, otherwise a line for each change.

    Parameters
    ----------
    quiet : bool
        Show nothing.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._console = make_console(to_stderr=True)
        self._status: Status | None = None
        self._last = ""

    def __enter__(self) -> Follower:
        if not self._quiet and self._console.is_terminal:
            self._status = self._console.status("")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, view: dict[str, Any]) -> None:
        """Show a view of the study."""
        from rich.text import Text

        text = one_line(f"{view['title']}: {view['text']}", 500)
        if self._status is not None and not view["over"]:
            progress = f" ({_progress(view['progress'])})" if view["progress"] else ""
            self._status.update(Text(text + one_line(progress, 300)))
        elif not self._quiet and text != self._last and not view["over"]:
            print(text, file=sys.stderr, flush=True)  # noqa: T201
        self._last = text


def _progress(progress: dict[str, Any]) -> str:
    """Say in words how far a worker is."""
    parts = [progress["phase"]]
    if progress["step"]:
        parts.append(progress["step"])
    if progress["rounds"]:
        parts.append(f"{progress['rounds']:,} rounds")
    parts.append(f"{progress['seconds']:.1f} s")
    parts += [f"{name} away for {seconds:.0f} s" for name, seconds in sorted(progress["away"].items())]
    return ", ".join(parts)


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="", pad_edge=False, show_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, no_wrap=place == 0, overflow="fold")
    return table


def _row(table: Table, *cells: str, style: str = "") -> None:
    from rich.text import Text

    table.add_row(*(Text(one_line(cell, 500), style=style if place >= 2 else "") for place, cell in enumerate(cells)))


def _say(console: Console, text: str, style: str = "") -> None:
    """Print words of others as they are: no markup, no control characters."""
    safe = "\n".join("".join(char if char.isprintable() else "?" for char in line) for line in text.split("\n"))
    console.print(safe, markup=False, style=style or None, soft_wrap=True)
