"""What a node has to do about a study now: a pure function of where the study stands and what runs here.

The node asks again after every change, and after a restart. That is all there is to recovery: what was
done is in the records, and the rest follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from parties.node.states import ENDED, Attempt, Phase, Preparation, StudyState

if TYPE_CHECKING:
    from parties.governance.studies import Study


@dataclass(frozen=True, slots=True)
class Begin:
    """Start a worker for an attempt that somebody began."""

    attempt: int
    dry: bool
    prepare: Preparation | None = None


@dataclass(frozen=True, slots=True)
class Abandon:
    """Stop the worker that runs."""

    why: str
    retry: bool


@dataclass(frozen=True, slots=True)
class Report:
    """Say how an attempt ended that does not run here any more."""

    attempt: int
    ok: bool
    why: str = ""
    error_type: str = ""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask recipients for the result that we should have."""

    attempt: int
    digest: str
    holders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """Begin the next attempt, as we began the last one and it failed by a fault that passes."""

    attempt: int
    dry: bool
    prepare: Preparation | None = None


# Failures that say nothing about the computation.
_WE_WENT_DOWN = frozenset({"NodeRestarted", "NodeStopped", "WorkerDied"})

Duty = Begin | Abandon | Report | Fetch | Repeat


def duty(
    study: Study, state: StudyState, name: str, *, running: int | None, result_of: int | None, late: bool = False
) -> Duty | None:
    """Say what is to be done next; None if nothing is.

    Parameters
    ----------
    study : Study
    state : StudyState
    name : str
        Ours.
    running : int or None
        The attempt for which a worker runs here.
    result_of : int or None
        The attempt whose result lies on our disk.
    late : bool
        Whether the study's deadline has passed by our own clock. Records carry their authors' times, which a
        member could put back: what we begin is decided by our clock.
    """
    if state.phase is Phase.FINISHED:
        return _after_the_end(study, state, name, running, result_of)
    attempt = state.attempt
    if state.phase in ENDED:
        return Abandon(state.text, retry=False) if running is not None else None
    if attempt is None or state.phase in (Phase.PROPOSED, Phase.APPROVED):
        return None
    if running is not None:
        if running < attempt.number:
            return Abandon(f"attempt {attempt.number} has begun", retry=True)
        if attempt.clash:
            return Abandon("two members began this attempt at once, as a dry run and as a real one", retry=True)
        return None
    if name not in attempt.outcomes:
        return _owed(attempt, name, result_of, late)
    if state.again and name in attempt.begun_by:
        return Repeat(attempt.number + 1, attempt.dry, attempt.prepare)
    return None


def _owed(attempt: Attempt, name: str, result_of: int | None, late: bool) -> Duty:
    """Say what to do about an attempt of which we have not told the end, and that does not run here."""
    if result_of == attempt.number:  # we went down between writing the result and telling of it
        return Report(attempt.number, ok=True)
    if name in attempt.ready:
        # Its worker is gone. It is never begun again: what it used as masks stays used.
        return Report(attempt.number, ok=False, why=f"the node of {name} was restarted", error_type="NodeRestarted")
    if attempt.over or attempt.clash:
        return Report(
            attempt.number,
            ok=False,
            why=f"{name} took no part: the attempt was over before it could begin",
            error_type="TookNoPart",
        )
    if late:
        return Report(
            attempt.number,
            ok=False,
            why=f"the deadline of the study has passed by the clock of {name}",
            error_type="DeadlinePassed",
        )
    return Begin(attempt.number, attempt.dry, attempt.prepare)


def _after_the_end(
    study: Study, state: StudyState, name: str, running: int | None, result_of: int | None
) -> Duty | None:
    """A recipient has the result: nothing is computed any more, and every recipient gets it."""
    number = state.finished_in
    attempt = next(one for one in state.attempts if one.number == number)
    if running is not None:
        if running == attempt.number:
            return None
        return Abandon(f"the study finished in attempt {attempt.number}", retry=False)
    if name in study.recipients and result_of is None:
        # Results of a program of one's own may differ from member to member: ours cannot be had from others.
        if state.result is None or study.program is not None:
            return _silence(attempt, name)
        holders = tuple(
            outcome.member for outcome in attempt.outcomes.values() if outcome.ok and outcome.member in study.recipients
        )
        # What we saw fail ourselves is not taken on the word of one: it may have been that one's doing.
        ours = attempt.outcomes.get(name)
        if not (ours is None or ours.ok or ours.error_type in _WE_WENT_DOWN or len(holders) > 1):
            return None
        return Fetch(attempt.number, state.result, holders)
    if name in attempt.outcomes:
        return None
    if result_of == attempt.number:
        return Report(attempt.number, ok=True)
    return _silence(attempt, name)


def _silence(attempt: Attempt, name: str) -> Report | None:
    if name in attempt.outcomes:
        return None
    why = f"the node of {name} was restarted before the end"
    return Report(attempt.number, ok=False, why=why, error_type="NodeRestarted")
