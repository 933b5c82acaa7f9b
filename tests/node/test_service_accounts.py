"""What is written down of a worker's words fits into entries, and holds no value."""

from pathlib import Path
from typing import Any

from parties.governance.audit import AuditLog
from parties.governance.keys import generate
from parties.node.accounts import entries_of
from parties.node.messages import Costs, Opened, Opening, Progress, Rows, StepCosts
from parties.node.service import now

MEMBERS = tuple(f"hospital-{k:02}-with-a-long-name" for k in range(32))


def written(event: Any) -> list[tuple[str, dict[str, Any]]]:
    return list(entries_of(event, MEMBERS))


def test_everything_a_worker_may_say_fits(tmp_path: Path) -> None:
    longest = Opening(
        step="s" * 400, shapes=tuple((1, 2, 3, 4, 5, 6, 7, 8) for _ in range(4096)), elements=2**62, to=tuple(range(32))
    )
    wide = {f"{k:03} {'step' * 90}": StepCosts(rounds=2**60, bytes_sent=2**60) for k in range(4096)}
    events = [
        Opened(openings=(longest,) * 100, untold=2**60),
        Costs(
            steps=wide, wire={name: (2**60, 2**60) for name in MEMBERS}, seconds=1, cpu_seconds=1, peak_memory_bytes=1
        ),
        Rows(count=2**60, dropped=2**60),
    ]
    with AuditLog(tmp_path / "audit.jsonl", generate("north"), now) as log:
        for event in events:
            for what, fields in written(event):
                log.append(what, study="0" * 64, attempt=1, **fields)
    opened = [fields for what, fields in written(events[0]) if what == "opened"]
    assert sum(len(fields["openings"]) for fields in opened) == 100
    assert opened[-1]["untold"] == 2**60


def test_ranks_become_names() -> None:
    one = Opening(step="mean", shapes=((2,),), elements=2, to=(1,), digest="0" * 64)
    ((what, fields),) = written(Opened(openings=(one, one.model_copy(update={"to": None}))))
    assert what == "opened"
    assert fields["openings"][0] == {
        "step": "mean",
        "shapes": [[2]],
        "arrays": 1,
        "elements": 2,
        "to": [MEMBERS[1]],
        "sha256": "0" * 64,
    }
    assert fields["openings"][1]["to"] == "all"


def test_steps_are_added_up() -> None:
    steps = {f"fit/newton.{k}/open": StepCosts(rounds=1, bytes_sent=10, elements_opened=3) for k in range(5)} | {
        "fit/start": StepCosts(rounds=2)
    }
    ((_, fields),) = written(Costs(steps=steps, wire={}, seconds=1, cpu_seconds=1, peak_memory_bytes=1))
    assert fields["steps"]["fit/newton"] == {"rounds": 5, "bytes": 50, "opened": 15}
    assert fields["steps"]["fit/start"]["rounds"] == 2


def test_progress_is_not_written_down() -> None:
    assert written(Progress(phase="computing")) == []
