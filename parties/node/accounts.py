"""What a worker tells, as entries of the audit log: names, counts, shapes and hashes, never a value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from parties.governance.canonical import canonical
from parties.node.messages import Costs, Event, Opened, Opening, Rows

# An entry holds at most 64 KiB, with what names the study.
_ENTRY_BYTES = 48 * 1024
_SHAPES_TOLD = 16
_STEPS_TOLD = 200
_LONGEST_STEP = 120


def entries_of(event: Event, members: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what to write down of an event: names of entries with their fields.

    Parameters
    ----------
    event : Event
    members : sequence of str
        The study's members, by rank.
    """
    if isinstance(event, Rows):
        yield "rows", {"count": event.count, "dropped": event.dropped}
    elif isinstance(event, Opened):
        openings = [_opening(one, members) for one in event.openings]
        for together in _by_size(openings):
            yield "opened", {"openings": together}
        if event.untold:
            yield "opened", {"openings": [], "untold": event.untold}
    elif isinstance(event, Costs):
        yield (
            "sent",
            {
                "wire": {name: {"sent": sent, "received": received} for name, (sent, received) in event.wire.items()},
                "steps": _steps(event),
                "reconnects": event.reconnects,
            },
        )


def _by_size(openings: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Put as many together as an entry holds."""
    together: list[dict[str, Any]] = []
    size = 0
    for one in openings:
        length = len(canonical(one)) + 1
        if together and size + length > _ENTRY_BYTES:
            yield together
            together, size = [], 0
        together.append(one)
        size += length
    if together:
        yield together


def _opening(one: Opening, members: Sequence[str]) -> dict[str, Any]:
    return {
        "step": one.step,
        "shapes": [list(shape) for shape in one.shapes[:_SHAPES_TOLD]],
        "arrays": len(one.shapes),
        "elements": one.elements,
        "to": "all" if one.to is None else [members[rank] for rank in one.to if rank < len(members)],
        "sha256": one.digest,
    }


def _steps(event: Costs) -> dict[str, dict[str, int]]:
    """Add up by the first two parts of a step's label; what is done again counts as one."""
    steps: dict[str, dict[str, int]] = {}
    for label, cost in event.steps.items():
        outer = "/".join(part.partition(".")[0] for part in label.split("/")[:2])[:_LONGEST_STEP]
        total = steps.setdefault(outer, {"rounds": 0, "bytes": 0, "opened": 0})
        total["rounds"] += cost.rounds
        total["bytes"] += cost.bytes_sent
        total["opened"] += cost.elements_opened
    return dict(list(steps.items())[:_STEPS_TOLD])
