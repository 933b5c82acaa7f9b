"""How a study, and the node, look to people and machines: plain JSON, made of what is public or the owner's."""

from __future__ import annotations

import datetime
import math
from typing import TYPE_CHECKING, Any

from parties.governance.checks import read_time, write_time
from parties.governance.keys import expiry
from parties.governance.studies import differences
from parties.node.states import Attempt, Phase, StudyState

if TYPE_CHECKING:
    from parties.node.library import Entry
    from parties.node.service import Node

_NOTES = 20


def study_view(node: Node, entry: Entry) -> dict[str, Any]:
    """Return where a study stands, as ``list`` and ``status`` show it."""
    study = entry.study
    name = node.config.name
    state = entry.state(node.clock())
    run = node.scheduler.runs.get(study.hash)
    queued = any(one == study.hash for one, _ in node.scheduler.queued)
    result_of = node.results.attempt_of(study.hash)
    text = state.text
    if queued:
        absent = [one for one in study.members if one != name and one not in node.peers.connected]
        text = "in the queue here" + (f", until {', '.join(absent)} can be reached" if absent else "")
    elif state.again:
        text = f"{text}; it is tried again by itself once all are connected"
    return {
        "study": study.hash,
        "title": study.title,
        "proposer": entry.proposer,
        "phase": str(state.phase),
        "text": text,
        "members": list(study.members),
        "recipients": list(study.recipients),
        "approvals": list(state.approvals),
        "missing": list(state.missing),
        "deadline": study.deadline,
        "attempts": {"used": state.used, "left": state.left, "of": study.attempts},
        "attempt": None if state.attempt is None else _attempt(state.attempt),
        "queued": queued,
        "running": None if run is None or run.told else run.number,
        "progress": None if run is None or run.progress is None else run.progress.model_dump(mode="json"),
        "over": settled(state) and not queued and (run is None or run.told),
        "dry_run_passed": state.dry_run_passed,
        "material": material_view(node, study.hash),
        "result": {
            "here": bool(result_of),
            "ours": name in study.recipients,
            "digest": state.result,
            "agreed": state.agreed,
        },
        "next": _next(state, name, study.hash[:12], in_study=name in study.recipients, result=bool(result_of)),
    }


def study_details(node: Node, entry: Entry) -> dict[str, Any]:
    """Return everything about a study that its owner may want to see before approving."""
    study = entry.study
    state = entry.state(node.clock())
    return {
        **study_view(node, entry),
        "description": study.describe(),
        "program": entry.program,
        "refusals": node.config.refusals(study),
        "troubles": sorted(entry.troubles.values()),
        "history": [_attempt(attempt) for attempt in state.attempts],
        "records": [
            {"kind": record.kind, "author": record.author, "time": record.time, "id": record.id}
            for record in entry.records
        ],
        "namesakes": [
            {"study": other.hash, "differences": differences(other.study, study)[:20]}
            for other in node.library.namesakes(study)
        ],
        "notes": list(node.store.notes(study.hash)[-_NOTES:]),
    }


def material_view(node: Node, study: str | None = None) -> dict[str, Any]:
    """Return what was prepared and is left: for how many runs, how much, and since when."""
    left = node.depot.left(study)
    return {
        "batches": left.batches,
        "bytes": left.size,
        "products": left.products,
        "oldest": left.oldest,
        "age_seconds": (node.clock() - read_time(left.oldest)).total_seconds() if left.oldest else 0.0,
    }


def settled(state: StudyState) -> bool:
    """Whether nothing happens any more unless somebody asks for it."""
    return not state.active and not state.again


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "dry": attempt.dry,
        "prepare": None if attempt.prepare is None else {"runs": attempt.prepare.runs, "rows": attempt.prepare.rows},
        "began": write_time(attempt.began),
        "begun_by": list(attempt.begun_by),
        "ready": [name for name in attempt.members if name in attempt.ready],
        "outcomes": {
            name: {"ok": one.ok, "error": one.error_type, "text": one.text, "culprit": one.culprit, "retry": one.retry}
            for name, one in attempt.outcomes.items()
        },
    }


def _next(state: StudyState, name: str, short: str, *, in_study: bool, result: bool) -> str:
    """Say what our owner may do next; empty if it is not our turn."""
    if state.phase is Phase.PROPOSED and name in state.missing:
        return f"sottovoce show {short}, then sottovoce approve {short} (or reject it)"
    if state.phase in (Phase.APPROVED, Phase.FAILED) and state.can_run and not state.again:
        return f"sottovoce run {short}"
    if state.phase is Phase.FINISHED and in_study and result:
        return f"sottovoce result {short}"
    return ""


def node_view(node: Node) -> dict[str, Any]:
    """Return how the node is, as ``status`` shows it."""
    now = node.clock()
    return {
        "name": node.config.name,
        "organisation": node.us.organisation,
        "role": node.us.role,
        "consortium": node.consortium.name,
        "fingerprint": node.consortium.fingerprint,
        "key": node.key.key_id,
        "version": node.code["version"],
        "sources": node.code["sources"],
        "listen": node.config.listen,
        "started": write_time(node.started),
        "certificate_days": certificate_days(node, now),
        "disk_free_bytes": node.store.free_bytes(),
        "trouble": node.scheduler.trouble,
        "damaged": list(node.library.damaged),
        "running": len(node.scheduler.runs),
        "queued": len(node.scheduler.queued),
        "material": material_view(node, None),
        "studies": len(node.library.entries),
        "peers": [
            {
                "name": status.name,
                "role": node.consortium.member(status.name).role,
                "connected": status.connected,
                "since": None if status.since is None else write_time(status.since),
                "way": status.way,
                "trouble": status.trouble,
                "version": status.version,
                "skew_seconds": status.skew_seconds,
                "notice": _notice(node, status.name, status.version),
            }
            for _, status in sorted(node.peers.status.items())
        ],
    }


def certificate_days(node: Node, now: datetime.datetime) -> int:
    """Return for how many whole days our certificate is still valid."""
    return math.floor((expiry(node.key.certificate).ends - now) / datetime.timedelta(days=1))


def _notice(node: Node, peer: str, version: str) -> str:
    """Say what will be in the way of a study with a peer, though there is a link."""
    if version and version != node.code["version"]:
        return f"it runs version {version}, we {node.code['version']}: no study runs until these are the same"
    notice = expiry(node.consortium.member(peer).certificate).notice(node.clock())
    return "" if notice is None else f"its certificate {notice}"
