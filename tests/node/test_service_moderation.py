"""Whoever knocks often is counted, not written down each time."""

from parties.node.moderation import Moderation


def test_notes_are_bounded_for_each_and_together() -> None:
    now = [0.0]
    moderation = Moderation(lambda: now[0], each=2, together=5)
    assert [moderation.allows("a") for _ in range(4)] == [True, True, False, False]
    assert [moderation.allows(name) for name in "bcde"] == [True, True, True, False]
    assert moderation.left_out() == 3
    assert moderation.left_out() == 0
    now[0] = 60.0
    assert moderation.allows("a")


def test_what_is_remembered_is_bounded() -> None:
    moderation = Moderation(lambda: 0.0, each=2, together=10**9)
    assert sum(moderation.allows(f"address {k}") for k in range(5000)) == 1002
    assert len(moderation._noted) <= 1001
