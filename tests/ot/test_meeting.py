"""Meetings in which others may be dishonest: the first extension is checked before anything rests on it."""

from typing import Any

import numpy as np
import pytest

from mpc import F61, Party, PeerError
from mpc.ot import extension
from mpc.ot.checking import PROOF_BYTES
from mpc.ot.ends import ChooserEnd, OffererEnd
from mpc.ot.extension import DEPTH, corrections_bytes, sums_bytes
from mpc.ot.meeting import meet, meet_again
from mpc.ot.pads import Numbers
from mpc.ot.pairs import Pairs
from tests.mpc.support import Message, Run, Tamper, run
from tests.ot.test_pads import numbers, products, uniform
from tests.ot.test_pairs import bits, blamed

KIND = Numbers(F61, 61)


async def met(party: Party, *, malicious: bool) -> Pairs:
    sessions = {other: b"%d-%d" % tuple(sorted((party.rank, other))) for other in party.others}
    return await meet(party.transport, sessions, malicious=malicious)


def multiply_both_ways(*, malicious: bool, parties: int = 2, tamper: Tamper | None = None) -> Run:
    """Every party's bits times every other's values; all must be right."""
    draws = np.random.default_rng(3)
    choices = [bits(draws, KIND, 20) for _ in range(parties)]
    values = [uniform(draws, F61, 20, 2) for _ in range(parties)]

    async def program(party: Party, _: Any) -> dict[tuple[int, int], np.ndarray]:
        pairs, own = await met(party, malicious=malicious), party.rank
        summands = {}
        for other in sorted(party.others, key=lambda other: own + other):  # pairs in the same order everywhere
            begun = await pairs.choose(party.at(f"{own} of {other}"), other, KIND, choices[own], 2)
            summands[other, other] = await pairs.offer(party.at(f"{other} of {own}"), other, KIND, values[own])
            summands[own, other] = await begun.finish()
        return summands

    ran = run(program, parties=parties, tamper=tamper)
    if not any(isinstance(outcome, Exception) for outcome in ran.outcomes):
        for chooser in range(parties):
            for offerer in set(range(parties)) - {chooser}:
                x, y = ran.results[chooser][chooser, offerer], ran.results[offerer][chooser, chooser]
                assert numbers(F61, F61.add(x, y)) == products(KIND, choices[chooser], values[offerer])
    return ran


def joining(ran: Run) -> dict[str, int]:
    return {m.step: len(m.data) for m in ran.log if m.step.startswith("join/ot")}


@pytest.mark.parametrize("parties", [2, 3])
def test_products_of_all_with_all(parties: int) -> None:
    ran = multiply_both_ways(malicious=True, parties=parties)
    assert not any(isinstance(outcome, Exception) for outcome in ran.outcomes)


def test_what_is_sent() -> None:
    """The same four messages; where extensions are checked, 256 transfers and a proof more."""
    usual, checked = (joining(multiply_both_ways(malicious=malicious)) for malicious in (False, True))
    assert list(usual) == list(checked)
    more = corrections_bytes(256, DEPTH) + PROOF_BYTES
    assert {step: checked[step] - size for step, size in usual.items()} == {
        step: more if step == "join/ot/trees" else 0 for step in usual
    }
    assert 20_000 < sum(usual.values()) < sum(checked.values()) < 30_000


@pytest.mark.parametrize("at", [0, sums_bytes(DEPTH) - 1, sums_bytes(DEPTH), -PROOF_BYTES - 1, -PROOF_BYTES, -2048, -1])
def test_the_first_extension_is_checked_before_anything_rests_on_it(at: int) -> None:
    """Sums of trees, corrections, proof: the other end stops, and has said nothing that depends on its delta."""

    def tamper(message: Message) -> list[Message]:
        if message.step != "join/ot/trees":
            return [message]
        data = bytearray(message.data)
        data[at] ^= 1
        return [message._replace(data=bytes(data))]

    ran = multiply_both_ways(malicious=True, tamper=tamper)
    assert "fails its check" in blamed(ran, 1, 0, "join/ot/trees")
    assert [m.step for m in ran.log if m.frm == 1 and m.step.startswith("join/ot")] == ["join/ot/pairs"]


@pytest.mark.parametrize("step", ["trees", "trees back", "pairs", "points"])
@pytest.mark.parametrize("more", [-1, 1])
def test_messages_of_another_length(step: str, more: int) -> None:
    def tamper(message: Message) -> list[Message]:
        if message.step != f"join/ot/{step}":
            return [message]
        return [message._replace(data=message.data[:more] if more < 0 else message.data + b"\0")]

    ran = multiply_both_ways(malicious=True, tamper=tamper)
    receiver = 1 if step in ("trees", "points") else 0
    blamed(ran, receiver, 1 - receiver, f"join/ot/{step}")


def test_altered_trees_of_the_second_extension_are_found_in_its_first_message() -> None:
    """The path of the one who lost a leaf to it is a matter of luck; the transcripts differ in any case."""

    def tamper(message: Message) -> list[Message]:
        if message.step != "join/ot/trees back":
            return [message]
        return [message._replace(data=message.data[:-1] + bytes([message.data[-1] ^ 1]))]

    ran = multiply_both_ways(malicious=True, tamper=tamper)
    assert "fails its check" in blamed(ran, 0, 1, "transfers/extension 0")


def test_an_extension_whose_delta_is_chosen() -> None:
    deltas = np.random.default_rng(5).integers(0, 2, (2, 128), dtype=np.uint8)
    count = 5000

    async def program(party: Party, _: Any) -> Any:
        pairs = await met(party, malicious=True)
        chooser, offerer = await meet_again(party.at("again"), pairs, 1 - party.rank, deltas[party.rank])
        chosen = await chooser.take(party, count)
        both = await offerer.take(party, 0, count, np.zeros(count // 8, np.uint8), "step")
        assert np.array_equal(
            np.unpackbits(offerer._offerer.delta.view(np.uint8), bitorder="little"), deltas[party.rank]
        )
        return chosen, both

    ran = run(program, parties=2)
    for rank in (0, 1):
        (_, random, keys), both = ran.results[rank][0], ran.results[1 - rank][1]
        assert np.array_equal(both[random, np.arange(count)], keys)
    assert not np.array_equal(ran.results[0][0][2], ran.results[1][0][2])
    steps = {m.step for m in ran.log if m.step.startswith("again")}
    assert steps == {"again/choices", "again/trees", "again/extension 0", "again/extension 1"}


def test_only_checked_meetings_are_extended() -> None:
    async def program(party: Party, _: Any) -> tuple[ChooserEnd, OffererEnd]:
        pairs = await met(party, malicious=False)
        return await meet_again(party.at("again"), pairs, 1 - party.rank, np.zeros(128, np.uint8))

    ran = run(program, parties=2)
    assert any(isinstance(outcome, ValueError) for outcome in ran.outcomes)
    assert not any(isinstance(outcome, PeerError) and "cheats" in str(outcome) for outcome in ran.outcomes)


def test_ends_are_what_dishonest_parties_ask_for() -> None:
    """Pads by the tweaked hash; transcripts alike at both ends, and others in every meeting and direction."""

    async def program(party: Party, _: Any) -> list[bytes]:
        starts = []
        for end in (await met(party, malicious=True)).ends(1 - party.rank):
            assert end.hashed._tweaked
            assert end.transcript is not None
            starts.append(end.transcript.start)
        return starts

    meetings = [run(program, parties=2).results for _ in range(2)]
    for ours, theirs in meetings:
        assert ours == theirs[::-1]
    assert len({start for ours, _ in meetings for start in ours}) == 4


def test_depth_is_what_the_argument_counts_with() -> None:
    assert extension.DEPTH == 4
