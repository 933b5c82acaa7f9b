"""Where a study stands: a pure function of the records that its members signed.

Every node computes it from the records it has. The order in which they came does not matter, so nodes
with the same records agree, and a node that was away catches up by reading. Nothing here does input or
output, and the clock is an argument.

An *attempt* is one go at computing the study. It is over for everybody as soon as one member reports a
failure. A study is finished once a recipient reports a result: from then on nothing may be computed
again, since a second result on data that may have changed would tell more than was agreed.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from parties.governance.checks import read_time

if TYPE_CHECKING:
    from parties.governance.records import Record
    from parties.governance.studies import Study

# No study needs as many; a member that begins attempts without end is stopped here.
MOST_ATTEMPTS = 100
# Of those that a study allows: so many times as many begin by themselves, though never all were ready.
_BY_THEMSELVES = 3
# Kinds of which a member makes one for each attempt; of the others it makes one for the study.
OF_ATTEMPTS = frozenset({"run", "ready", "outcome"})


class Phase(StrEnum):
    """What a study waits for, or how it ended."""

    PROPOSED = "proposed"  # not all have approved
    APPROVED = "approved"  # anybody may run it
    WAITING = "waiting"  # an attempt has begun, not all are ready
    RUNNING = "running"  # all are ready
    FAILED = "failed"  # the last attempt failed
    FINISHED = "finished"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


ENDED = frozenset({Phase.FINISHED, Phase.REJECTED, Phase.CANCELLED, Phase.EXPIRED})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one member says of one attempt; see the record of that kind."""

    member: str
    ok: bool
    error_type: str
    text: str
    culprit: str | None
    retry: bool
    result: str | None


@dataclass(frozen=True, slots=True)
class Preparation:
    """Material that is to be made: for how many runs, with how many rows of each contributor."""

    runs: int
    rows: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """One go at a study.

    Attributes
    ----------
    number : int
        From 1.
    dry : bool
        Whether it computes on synthetic data only. Once all are ready that is what they were ready for, whoever
        asks for it later in another way.
    clash : bool
        Two members began it in different ways, before all were ready for one of them; nobody may compute it.
    begun_by : tuple of str
        Who asked for it.
    began : datetime.datetime
        When, by the clock of the first of them.
    ready : mapping of str to Record
        Members that are ready, and how they said it.
    outcomes : mapping of str to Outcome
        What the members report.
    members : tuple of str
        All that take part.
    prepare : Preparation or None
        What it prepares, if that is what it is for; it is dry then.
    """

    number: int
    dry: bool
    clash: bool
    begun_by: tuple[str, ...]
    began: datetime.datetime
    ready: Mapping[str, Record] = field(repr=False)
    outcomes: Mapping[str, Outcome] = field(repr=False)
    members: tuple[str, ...]
    prepare: Preparation | None = None

    @property
    def absent(self) -> tuple[str, ...]:
        """Members that are not ready yet."""
        return tuple(name for name in self.members if name not in self.ready)

    @property
    def title(self) -> str:
        """What it is, for people: ``attempt 1``, ``dry run attempt 2``, ``preparation 3``."""
        if self.prepare is not None:
            return f"preparation {self.number}"
        return f"{'dry run ' if self.dry else ''}attempt {self.number}"

    @property
    def computed(self) -> bool:
        """Whether all were ready for the same, so that the attempt counts."""
        return not self.absent and not self.clash

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """Failures that were reported: causes before those that merely noticed them."""
        failed = [outcome for outcome in self.outcomes.values() if not outcome.ok]
        return tuple(sorted(failed, key=lambda outcome: (outcome.culprit not in (None, outcome.member), outcome.retry)))

    @property
    def over(self) -> bool:
        """Whether nobody has to compute any more."""
        return bool(self.failures) or all(name in self.outcomes for name in self.members)

    @property
    def reported(self) -> bool:
        """Whether every member said how it went."""
        return all(name in self.outcomes for name in self.members)


@dataclass(frozen=True, slots=True)
class StudyState:
    """Where a study stands.

    Attributes
    ----------
    phase : Phase
    text : str
        One line for people.
    approvals : tuple of str
        Who has approved, in the order of the study's members.
    missing : tuple of str
        Whom the study waits for: to approve, to be ready, or to report.
    attempts : tuple of Attempt
        In order; the last one is the current one.
    used, left : int
        Attempts that count, and how many more there may be.
    finished_in : int or None
        The attempt that gave the result.
    result : str or None
        The digest that the recipients report, if they report the same.
    agreed : bool
        False if recipients report different results.
    dry_run_passed : bool
        Whether a dry run has succeeded at all members.
    trusting : bool
        Whether parties are taken to follow the program. If not, what looks like a lost connection may be somebody who
        has seen a result and wants another one, for other inputs.
    """

    phase: Phase
    text: str
    approvals: tuple[str, ...]
    missing: tuple[str, ...]
    attempts: tuple[Attempt, ...]
    used: int
    left: int
    finished_in: int | None = None
    result: str | None = None
    agreed: bool = True
    dry_run_passed: bool = False
    trusting: bool = True

    @property
    def attempt(self) -> Attempt | None:
        """The current attempt, or the last one."""
        return self.attempts[-1] if self.attempts else None

    @property
    def active(self) -> bool:
        """Whether an attempt is under way."""
        return self.phase in (Phase.WAITING, Phase.RUNNING)

    @property
    def can_run(self) -> bool:
        """Whether another attempt may begin."""
        return self.phase is Phase.APPROVED or (self.phase is Phase.FAILED and self.left > 0)

    @property
    def again(self) -> bool:
        """Whether the next attempt should begin without being asked for.

        True once every member has reported, and all that failed say that it was no fault that would
        come again: a connection that stayed away, a process that was killed. Not for ever: members may
        stand in each other's way each time. Where parties may cheat, people decide.
        """
        last = self.attempt
        if self.phase is not Phase.FAILED or not self.can_run or last is None or not last.reported:
            return False
        if last.computed and not last.dry and not self.trusting:
            return False
        if len(self.attempts) >= _BY_THEMSELVES * (self.used + self.left):
            return False
        return (last.clash or bool(last.failures)) and all(outcome.retry for outcome in last.failures)


def state_of(study: Study, records: Iterable[Record], now: datetime.datetime) -> StudyState:
    """Say where a study stands.

    Parameters
    ----------
    study : Study
    records : iterable of Record
        Checked records about this study, in any order. Of two that contradict each other the store
        keeps the first; should both come here, the one with the smaller signature counts.
    now : datetime.datetime
        With its time zone.

    Returns
    -------
    StudyState
        The same for the same set of records and the same side of the deadline.
    """
    members: tuple[str, ...] = tuple(study.members)
    by_kind: dict[str, dict[tuple[str, int], Record]] = {}
    for record in sorted(records, key=lambda record: record.signature):
        if record.author in members:
            number = int(record.body["attempt"]) if record.kind in OF_ATTEMPTS else 0
            by_kind.setdefault(record.kind, {}).setdefault((record.author, number), record)

    approved = {
        author
        for (author, _), record in by_kind.get("approval", {}).items()
        if not study.deadline_passed(moment(record))
    }
    attempts = _attempts(study, by_kind)
    used = sum(1 for attempt in attempts if attempt.computed and not attempt.dry)
    state = StudyState(
        phase=Phase.PROPOSED,
        text="",
        approvals=tuple(name for name in members if name in approved),
        missing=tuple(name for name in members if name not in approved),
        attempts=attempts,
        used=used,
        left=max(0, min(study.attempts - used, MOST_ATTEMPTS - (attempts[-1].number if attempts else 0))),
        dry_run_passed=any(
            attempt.dry and attempt.prepare is None and attempt.reported and not attempt.failures
            for attempt in attempts
        ),
        trusting=study.security == "semi-honest",
    )
    late = study.deadline_passed(now)
    for attempt in attempts:
        if (finished := _finished(state, study, attempt)) is not None:
            return finished
    for kind, phase in (("rejection", Phase.REJECTED), ("cancellation", Phase.CANCELLED)):
        if said := by_kind.get(kind):
            first = min(said.values(), key=lambda record: (moment(record), record.signature))
            reason = str(first.body.get("reason") or "")
            text = f"{phase} by {first.author}" + (f": {reason}" if reason else "")
            return replace(state, phase=phase, text=text, missing=())
    if state.missing:
        waits = f"waits for the approval of {listed(state.missing)}"
        if late:
            return replace(state, phase=Phase.EXPIRED, text=_expired(study, "it still " + waits))
        return replace(state, text=waits)
    return _under_way(state, study, late)


def _finished(state: StudyState, study: Study, attempt: Attempt) -> StudyState | None:
    """Return the state if this attempt gave a recipient the result."""
    results = {
        outcome.result
        for outcome in attempt.outcomes.values()
        if outcome.ok and outcome.result is not None and outcome.member in study.recipients
    }
    # One member's word is not enough: an attempt takes the approvals and the readiness of all.
    if not results or attempt.dry or not attempt.computed or state.missing:
        return None
    agreed = len(results) == 1
    return replace(
        state,
        phase=Phase.FINISHED,
        text=f"finished in attempt {attempt.number}" + ("" if agreed else "; the recipients report different results"),
        missing=tuple(name for name in attempt.members if name not in attempt.outcomes),
        finished_in=attempt.number,
        result=next(iter(results)) if agreed else None,
        agreed=agreed,
    )


def _under_way(state: StudyState, study: Study, late: bool) -> StudyState:
    """Say where an approved study stands."""
    attempt = state.attempt
    if attempt is None or (attempt.dry and attempt.reported and not attempt.failures):
        if late:
            return replace(state, phase=Phase.EXPIRED, text=_expired(study, "nobody ran it"))
        text = "all have approved" + ("; the dry run succeeded" if state.dry_run_passed else "")
        return replace(state, phase=Phase.APPROVED, text=text)
    what = attempt.title
    if not attempt.over and not attempt.clash:
        if attempt.absent:
            text = f"{what} waits for {listed(attempt.absent)}"
            return replace(state, phase=Phase.WAITING, text=text, missing=attempt.absent)
        waits = tuple(name for name in attempt.members if name not in attempt.outcomes)
        return replace(state, phase=Phase.RUNNING, text=f"{what} is computing", missing=waits)
    text = f"{what} failed: {_why(attempt)}"
    if late:
        return replace(state, phase=Phase.EXPIRED, text=_expired(study, text))
    left = f"{state.left} of {study.attempts} attempts left" if state.left else "no attempt is left"
    waits = tuple(name for name in attempt.members if name not in attempt.outcomes)
    return replace(state, phase=Phase.FAILED, text=f"{text} ({left})", missing=waits)


def _attempts(study: Study, by_kind: Mapping[str, Mapping[tuple[str, int], Record]]) -> tuple[Attempt, ...]:
    runs: dict[int, list[Record]] = {}
    for (_, number), record in by_kind.get("run", {}).items():
        if 1 <= number <= MOST_ATTEMPTS and not study.deadline_passed(moment(record)):
            runs.setdefault(number, []).append(record)
    attempts = []
    for number, asked in sorted(runs.items()):
        ways = {_way(record) for record in asked}
        of_it = {
            kind: {author: record for (author, which), record in by_kind.get(kind, {}).items() if which == number}
            for kind in ("ready", "outcome")
        }
        stood_by = {_way(record) for record in of_it["ready"].values()}
        if len(stood_by) == 1 and len(of_it["ready"]) == len(study.members):
            ways = stood_by
        attempts.append(
            Attempt(
                number=number,
                dry=all(dry for dry, _ in ways),
                clash=len(ways | stood_by) > 1,
                begun_by=tuple(sorted(record.author for record in asked)),
                began=min(moment(record) for record in asked),
                ready=of_it["ready"],
                outcomes={author: _outcome(record) for author, record in of_it["outcome"].items()},
                members=tuple(study.members),
                prepare=next(iter(ways))[1] if len(ways) == 1 else None,
            )
        )
    return tuple(attempts)


def _way(record: Record) -> tuple[bool, Preparation | None]:
    """Return in which way an attempt is begun, or stood by for."""
    asked = record.body.get("prepare")
    return bool(record.body["dry"]), None if asked is None else Preparation(int(asked["runs"]), int(asked["rows"]))


def _outcome(record: Record) -> Outcome:
    body = record.body
    return Outcome(
        member=record.author,
        ok=bool(body["ok"]),
        error_type=str(body.get("error_type") or ""),
        text=str(body.get("text") or ""),
        culprit=body.get("culprit"),
        retry=bool(body.get("retry")),
        result=body.get("result"),
    )


def _why(attempt: Attempt) -> str:
    """Say in a line why an attempt failed."""
    if attempt.clash:
        return f"{listed(attempt.begun_by)} began it at once, as a dry run and as a real one"
    if not attempt.failures:
        return "not all report success"
    cause = attempt.failures[0]
    text = cause.text or f"{cause.error_type or 'an error'}, which is told to its owner alone"
    return f"{text} (told by {cause.member})"


def _expired(study: Study, why: str) -> str:
    return f"its deadline passed ({study.deadline}); {why}; propose it again with a later one"


def moment(record: Record) -> datetime.datetime:
    """Return the time of a record, by its author's clock."""
    return read_time(record.time)


def listed(names: Iterable[str]) -> str:
    """Write names as a sentence does: ``a``, ``a and b``, ``a, b and c``."""
    *most, last = list(names) or ["nobody"]
    return f"{', '.join(most)} and {last}" if most else last
