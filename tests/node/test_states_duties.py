"""What a node has to do, in each situation that a crash, a restart or another member can leave it in."""

from parties.governance.records import Record
from parties.governance.studies import study_of
from parties.node.duties import Abandon, Begin, Duty, Fetch, Repeat, Report, duty
from parties.node.states import state_of
from tests.node.test_states import LATE, MEMBERS, NOW, STUDY, approvals, bad, begun, good, ready, record


def due(
    *parts: list[Record],
    name: str = "city",
    running: int | None = None,
    result_of: int | None = None,
    late: bool = False,
) -> Duty | None:
    state = state_of(STUDY, [one for part in parts for one in part], LATE if late else NOW)
    return duty(STUDY, state, name, running=running, result_of=result_of, late=late)


def test_without_an_attempt_there_is_nothing_to_do() -> None:
    assert due() is None
    assert due(approvals()) is None
    assert due(approvals("city"), begun()) is None  # not all have approved: whoever says "run", nobody runs


def test_what_somebody_began_is_begun() -> None:
    assert due(approvals(), begun(1, "south")) == Begin(1, dry=False)
    assert due(approvals(), begun(1, dry=True)) == Begin(1, dry=True)
    assert due(approvals(), begun(), running=1) is None


def test_what_ran_before_a_restart_is_reported_and_never_begun_again() -> None:
    found = due(approvals(), begun(), ready())
    assert isinstance(found, Report)
    assert (found.attempt, found.ok, found.error_type) == (1, False, "NodeRestarted")
    # Down between "run" and "ready": nothing was computed, so it may begin.
    assert due(approvals(), begun(), ready(1, "north", "south")) == Begin(1, dry=False)


def test_a_result_that_was_written_is_told_after_a_restart() -> None:
    assert due(approvals(), begun(), ready(), result_of=1) == Report(1, ok=True)
    assert due(approvals(), begun(), ready(), good(1, "north"), result_of=1) == Report(1, ok=True)


def test_who_comes_too_late_says_so() -> None:
    found = due(approvals(), begun(), ready(1, "north"), bad(1, "north"))
    assert isinstance(found, Report)
    assert (found.error_type, found.ok) == ("TookNoPart", False)


def test_what_failed_is_repeated_by_whoever_began_it() -> None:
    failed = [*approvals(), *begun(1, "city"), *ready(), *bad(1, "city"), *bad(1, "north"), *bad(1, "south")]
    assert due(failed) == Repeat(2, dry=False)
    assert due(failed, name="north") is None
    assert due(failed, late=True) is None
    assert due(failed, [record("cancellation", "south", reason="no")]) is None


def test_what_runs_is_stopped_when_it_has_become_pointless() -> None:
    running = [*approvals(), *begun(), *ready()]
    for end in (
        [record("cancellation", "south", reason="no")],
        [record("rejection", "south", reason="no")],
        begun(2, "north"),
    ):
        assert isinstance(due(running, end, running=1), Abandon)
    assert due(running, begun(1, "north", dry=True), running=1) is None  # too late to make it another attempt
    waiting = [*approvals(), *begun(), *ready(1, "city"), *begun(1, "north", dry=True)]
    assert isinstance(due(waiting, running=1), Abandon)
    second = [*running, *bad(1, "south"), *begun(2), *ready(2)]
    found = due(second, good(1, "north"), running=2)
    assert isinstance(found, Abandon)
    assert "finished in attempt 1" in found.why
    assert not found.retry
    assert due(running, good(1, "north"), running=1) is None  # ours is about to end too


def test_a_recipient_without_the_result_asks_those_that_have_it() -> None:
    finished = [*approvals(), *begun(), *ready(), *good(1, "north"), *good(1, "south")]
    assert due(finished) == Fetch(1, "aa", ("north",))
    assert due(finished, bad(1, "city", kind="NodeRestarted")) == Fetch(1, "aa", ("north",))
    assert due(finished, result_of=1) == Report(1, ok=True)
    assert due(finished, good(1, "city"), result_of=1) is None
    assert due(finished, good(1, "city")) == Fetch(1, "aa", ("north", "city"))  # its file was removed


def test_who_is_no_recipient_asks_for_nothing() -> None:
    finished = [*approvals(), *begun(), *ready(), *good(1, "north")]
    found = due(finished, name="south")
    assert isinstance(found, Report)
    assert not found.ok
    assert due(finished, good(1, "south"), name="south") is None


def test_different_results_are_not_fetched() -> None:
    both = [*approvals(), *begun(), *ready(), *good(1, "north", result="aa"), *good(1, "city", result="bb")]
    assert due(both) is None


def test_after_the_deadline_by_our_clock_nothing_begins_whatever_times_the_others_write() -> None:
    """Approvals and the call to run are dated before it here, by members who may have put them back."""
    found = due(approvals(), begun(1, "south"), late=True)
    assert isinstance(found, Report)
    assert (found.ok, found.error_type) == (False, "DeadlinePassed")


def test_a_result_is_not_taken_from_others_after_we_saw_it_fail() -> None:
    """One other may have made it fail, to have its own result taken; when we were down, that says nothing."""
    both = [*approvals(), *begun(), *ready(), *good(1, "north", result="aa")]
    assert due(both, bad(1, "city", kind="WorkerDied")) == Fetch(1, "aa", ("north",))
    assert due(both, bad(1, "city", kind="PeerError")) is None


def test_results_of_a_program_are_not_taken_from_others() -> None:
    plain = {**STUDY.plain(), "analyses": [], "program": {"file": "study.py", "sha256": "0" * 64}}
    study = study_of(plain)
    state = state_of(study, [*approvals(), *begun(), *ready(), *good(1, "north")], NOW)
    found = duty(study, state, "city", running=None, result_of=None)
    assert isinstance(found, Report)
    assert not found.ok


def test_all_members_do_the_same_about_an_attempt() -> None:
    for name in MEMBERS:
        assert due(approvals(), begun(), name=name) == Begin(1, dry=False)
