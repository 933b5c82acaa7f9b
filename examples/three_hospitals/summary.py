"""What an audit log says of one study, on a dozen lines, for somebody who has to answer for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def summary(exported: Path) -> str:
    """Sum up a study from what ``sottovoce audit export --study`` has written.

    Parameters
    ----------
    exported : Path
        JSON lines, one entry each.
    """
    entries = [json.loads(line) for line in exported.read_text("utf-8").splitlines()]
    return "\n".join(f"  {what:<17} {text}" for what, text in _lines(entries))


def _lines(entries: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    def told(event: str) -> list[dict[str, Any]]:
        return [entry["fields"] for entry in entries if entry["event"] == event]

    owner = "itself"
    yield "approved by", ", ".join(one.get("author", owner) for one in told("approval"))
    for one in told("session"):
        yield "computed by", f"{', '.join(sorted(one['members']))}, in session {one['session'][:12]}"
    for one in told("rows"):
        yield "own rows used", f"{one['count']}, and {one['dropped']} left out"
    for opening in (opening for one in told("opened") for opening in one["openings"]):
        if not opening["step"].startswith("dry run/"):
            many = "number" if opening["elements"] == 1 else "numbers"
            to = opening["to"] if isinstance(opening["to"], str) else ", ".join(opening["to"])
            yield "opened", f"{opening['elements']} {many} to {to}, in step {opening['step']}"
    for one in told("sent"):
        sent = (f"{traffic['sent'] / 1e6:.2f} MB to {peer}" for peer, traffic in sorted(one["wire"].items()))
        yield "sent", ", ".join(sent)
    for one in told("result"):
        yield "result", f"{one['sha256'][:16]}... to {', '.join(one['to'])}"
    witnessed = [f"{one['member']} (entry {one['number']})" for one in told("witness")]
    yield "saw the logs of", ", ".join(witnessed)
