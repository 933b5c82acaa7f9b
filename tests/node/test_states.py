"""Where a study stands: decided by the set of records alone."""

import datetime
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parties.governance.records import Record
from parties.governance.studies import Study, study_of
from parties.node.states import MOST_ATTEMPTS, Phase, StudyState, listed, state_of
from tests.node.world import study_fields

NOW = datetime.datetime(2030, 6, 1, 12, 0, tzinfo=datetime.UTC)
DEADLINE = "2030-06-02T12:00:00Z"
LATE = datetime.datetime(2030, 6, 3, tzinfo=datetime.UTC)
STUDY = study_of({**study_fields(), "deadline": DEADLINE, "recipients": ["north", "city"], "attempts": 2})
MEMBERS = ("city", "north", "south")
_numbers = itertools.count()


def record(kind: str, author: str, time: str = "2030-06-01T11:00:00Z", **body: Any) -> Record:
    number = next(_numbers)
    return Record("hospitals", author, kind, STUDY.hash, body, time, "0" * 64, f"{number * 7919 % 104729:0128x}")


def approvals(*names: str) -> list[Record]:
    return [record("approval", name) for name in names or MEMBERS]


def begun(number: int = 1, *authors: str, dry: bool = False) -> list[Record]:
    return [record("run", author, attempt=number, dry=dry) for author in authors or ("city",)]


def ready(number: int = 1, *names: str, dry: bool = False) -> list[Record]:
    return [record("ready", name, attempt=number, dry=dry) for name in names or MEMBERS]


def good(number: int, *names: str, result: str | None = "aa") -> list[Record]:
    return [
        record("outcome", name, attempt=number, ok=True, result=result if name in STUDY.recipients else None)
        for name in names
    ]


def bad(
    number: int, name: str, *, retry: bool = True, culprit: str | None = None, text: str = "broken", kind: str = "E"
) -> list[Record]:
    return [record("outcome", name, attempt=number, ok=False, error_type=kind, text=text, culprit=culprit, retry=retry)]


def state(*parts: list[Record], study: Study = STUDY, now: datetime.datetime = NOW) -> StudyState:
    return state_of(study, [one for part in parts for one in part], now)


def test_a_study_waits_for_all_its_members() -> None:
    assert state().missing == MEMBERS
    found = state(approvals("north"))
    assert (found.phase, found.approvals, found.missing) == (Phase.PROPOSED, ("north",), ("city", "south"))
    assert found.text == "waits for the approval of city and south"
    found = state(approvals())
    assert (found.phase, found.can_run, found.left) == (Phase.APPROVED, True, 2)


def test_approvals_of_strangers_and_late_ones_do_not_count() -> None:
    late = record("approval", "south", time="2030-06-02T12:00:00Z")
    assert state(approvals("city", "north"), [late]).missing == ("south",)
    assert state(approvals("city", "north", "elsewhere")).missing == ("south",)


def test_after_the_deadline_nothing_begins() -> None:
    found = state(approvals("city"), now=LATE)
    assert found.phase is Phase.EXPIRED
    assert "north and south" in found.text
    assert "propose it again" in found.text
    assert state(approvals(), now=LATE).phase is Phase.EXPIRED
    run_late = [record("run", "city", time=DEADLINE, attempt=1, dry=False)]
    assert state(approvals(), run_late, now=NOW).phase is Phase.APPROVED
    # What has begun in time goes on.
    assert state(approvals(), begun(), now=LATE).phase is Phase.WAITING
    assert state(approvals(), begun(), ready(), now=LATE).phase is Phase.RUNNING
    failed = state(approvals(), begun(), ready(), bad(1, "city"), now=LATE)
    assert failed.phase is Phase.EXPIRED
    assert "broken" in failed.text


def test_an_attempt_waits_then_runs_then_finishes() -> None:
    found = state(approvals(), begun(), ready(1, "city"))
    assert (found.phase, found.missing, found.used) == (Phase.WAITING, ("north", "south"), 0)
    found = state(approvals(), begun(), ready())
    assert (found.phase, found.missing, found.used, found.left) == (Phase.RUNNING, MEMBERS, 1, 1)
    found = state(approvals(), begun(), ready(), good(1, "south"))
    assert found.phase is Phase.RUNNING  # who is no recipient has no result
    found = state(approvals(), begun(), ready(), good(1, "north"))
    assert (found.phase, found.finished_in, found.result, found.missing) == (Phase.FINISHED, 1, "aa", ("city", "south"))
    assert state(approvals(), begun(), ready(), good(1, *MEMBERS)).missing == ()


@pytest.mark.parametrize("kind", ["rejection", "cancellation"])
def test_the_end_by_a_member_holds_unless_a_result_is_out(kind: str) -> None:
    end = [record(kind, "south", reason="no")]
    for before in ([], approvals(), [*approvals(), *begun(), *ready()]):
        found = state(before, end)
        assert found.phase in (Phase.REJECTED, Phase.CANCELLED)
        assert found.text.endswith("by south: no")
        assert not found.can_run
    assert state(approvals(), begun(), ready(), end, good(1, "city")).phase is Phase.FINISHED


def test_who_is_no_recipient_cannot_finish_a_study() -> None:
    claim = [record("outcome", "south", attempt=1, ok=True, result="aa")]
    assert state(approvals(), begun(), ready(), claim).phase is Phase.RUNNING


def test_different_results_are_told() -> None:
    found = state(approvals(), begun(), ready(), good(1, "north", result="aa"), good(1, "city", result="bb"))
    assert (found.phase, found.agreed, found.result) == (Phase.FINISHED, False, None)
    assert "different results" in found.text


def test_the_cause_of_a_failure_is_named_before_those_that_noticed() -> None:
    found = state(
        approvals(),
        begun(),
        ready(),
        bad(1, "city", culprit="south", text="south went away"),
        bad(1, "south", retry=False, text="out of memory"),
    )
    assert found.phase is Phase.FAILED
    assert found.text.startswith("attempt 1 failed: out of memory (told by south)")
    assert "1 of 2 attempts left" in found.text


def test_the_next_attempt_begins_by_itself_once_all_report_a_fault_that_passes() -> None:
    failed = [*approvals(), *begun(), *ready(), *bad(1, "city"), *bad(1, "north")]
    assert not state(failed).again  # south may know better
    assert state(failed, bad(1, "south")).again
    assert state(failed, good(1, "south")).again
    assert not state(failed, bad(1, "south", retry=False)).again
    assert not state(failed, bad(1, "south"), now=LATE).again


def test_where_parties_may_cheat_no_attempt_that_computed_is_repeated_by_itself() -> None:
    """Who hears the result first and then drops its link would get another one, for inputs of its choice."""
    wary = study_of(
        {
            **study_fields(),
            "deadline": DEADLINE,
            "recipients": ["north", "city"],
            "preprocessing": "dealer",
            "dealer": "helper",
            "security": "malicious",
        }
    )
    names = wary.members
    failed = [line for name in names for line in bad(1, name)]
    approved, asked = approvals(*names), begun()
    computed = [line for name in names for line in ready(1, name)]
    assert state(approved, asked, failed, study=wary).again
    found = state(approved, asked, computed, failed, study=wary)
    assert found.can_run
    assert not found.again


def test_attempts_that_computed_count_and_end() -> None:
    first = [*begun(1), *ready(1), *bad(1, "city"), *bad(1, "north"), *bad(1, "south")]
    never_ready = [*begun(2), *ready(2, "city"), *bad(2, "city"), *bad(2, "north"), *bad(2, "south")]
    found = state(approvals(), first, never_ready)
    assert (found.used, found.left, found.can_run, found.again) == (1, 1, True, True)
    second = [*begun(3), *ready(3), *bad(3, "city"), *bad(3, "north"), *bad(3, "south")]
    found = state(approvals(), first, never_ready, second)
    assert (found.used, found.left, found.can_run, found.again) == (2, 0, False, False)
    assert "no attempt is left" in found.text


def test_attempts_that_never_begin_end_too() -> None:
    never = [one for k in range(1, MOST_ATTEMPTS + 1) for one in [*begun(k), *bad(k, "city")]]
    found = state(approvals(), never, bad(MOST_ATTEMPTS, "north"), bad(MOST_ATTEMPTS, "south"))
    assert (found.used, found.left, found.again) == (0, 0, False)
    assert len(state(approvals(), begun(MOST_ATTEMPTS + 1)).attempts) == 0


def test_by_itself_an_attempt_is_repeated_only_so_often() -> None:
    """A member that is never ready would else keep the others busy until the deadline."""

    def never(count: int) -> list[Record]:
        return [
            one for k in range(1, count + 1) for one in [*begun(k), *bad(k, "city"), *bad(k, "north"), *bad(k, "south")]
        ]

    assert state(approvals(), never(5)).again
    found = state(approvals(), never(6))
    assert not found.again
    assert found.can_run


def test_a_dry_run_gives_no_result_and_does_not_count() -> None:
    dry = [*approvals(), *begun(1, dry=True), *ready(1, dry=True)]
    assert state(dry).text == "dry run attempt 1 is computing"
    found = state(dry, good(1, *MEMBERS, result=None))
    assert (found.phase, found.dry_run_passed, found.used, found.left) == (Phase.APPROVED, True, 0, 2)
    found = state(dry, bad(1, "north", retry=False))
    assert (found.phase, found.dry_run_passed, found.left) == (Phase.FAILED, False, 2)


def test_two_who_begin_at_once_begin_one_attempt() -> None:
    found = state(approvals(), begun(1, "city", "north"))
    assert found.attempt is not None
    assert found.attempt.begun_by == ("city", "north")
    assert found.phase is Phase.WAITING


def test_two_who_begin_in_different_ways_begin_nothing() -> None:
    both = [*begun(1, "city"), *begun(1, "north", dry=True)]
    found = state(approvals(), both)
    assert found.phase is Phase.FAILED
    assert "city and north began it at once" in found.text
    assert state(approvals(), both, bad(1, "city"), bad(1, "north"), bad(1, "south")).again


ALL = [
    *approvals(),
    *begun(1),
    *ready(1),
    *bad(1, "city"),
    *bad(1, "north"),
    *bad(1, "south"),
    *begun(2, "city", "north"),
    *ready(2),
    *good(2, "north"),
    record("rejection", "south", reason="no"),
    record("cancellation", "city", reason="enough"),
    record("approval", "north"),
]


@given(st.sets(st.sampled_from(range(len(ALL)))), st.randoms(use_true_random=False))
def test_the_order_of_records_does_not_matter(chosen: set[int], rng: Any) -> None:
    records = [ALL[k] for k in sorted(chosen)]
    shuffled = list(records)
    rng.shuffle(shuffled)
    assert state(records) == state(shuffled)


def test_names_are_listed_as_in_a_sentence() -> None:
    assert [listed(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "nobody",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_one_member_cannot_finish_a_study_alone() -> None:
    """Not without the approvals, not without the others being ready, not in an attempt that nobody may compute."""
    forged = good(1, "north", result="aa")
    assert state(begun(), forged).phase is Phase.PROPOSED
    assert state(approvals("north"), begun(), ready(), forged).phase is Phase.PROPOSED
    assert state(approvals(), begun(), ready(1, "north"), forged).phase is not Phase.FINISHED
    mixed = [*ready(1, "north", "city"), *ready(1, "south", dry=True)]
    assert state(approvals(), begun(1, "north"), mixed, forged).phase is Phase.FAILED
    assert state(approvals(), begun(), ready(), forged).phase is Phase.FINISHED


def test_who_asks_for_an_attempt_later_in_another_way_changes_nothing() -> None:
    """All were ready for a real attempt: it stays one, counts as one, and its result stays the result."""
    later = begun(1, "south", dry=True)
    real = [*approvals(), *begun(), *ready()]
    assert state(real, later).phase is Phase.RUNNING
    found = state(real, later, good(1, *MEMBERS))
    assert (found.phase, found.used, found.again) == (Phase.FINISHED, 1, False)
    failed = [*bad(1, "city"), *bad(1, "north"), *bad(1, "south", retry=False)]
    assert state(real, later, failed).used == 1
    assert not state(real, later, failed).again
    dry = [*approvals(), *begun(1, dry=True), *ready(1, dry=True)]
    assert state(dry, begun(1, "south"), good(1, *MEMBERS)).phase is Phase.APPROVED
