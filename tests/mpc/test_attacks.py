"""Parties that cheat: whatever one of them changes, no honest party ends with a wrong result."""

import json
import os
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

from mpc import F127, CheatingError, Party, PeerError, RangeError, less_than, multiply, open_, sigmoid, truncate
from mpc.mac_check import Guard
from protocols.agreement import agree, announce
from tests.mpc import attacks
from tests.mpc.attacks import BOUND, KINDS, Attack, Cheat, Meddler, all_steps, attempt, is_right
from tests.mpc.support import Message, run, shares_of

# More attacks, from another seed on: SOTTOVOCE_ATTACKS=2200 SOTTOVOCE_ATTACK_SEED=1000 pytest tests/mpc/test_attacks.py
ATTACKS = int(os.environ.get("SOTTOVOCE_ATTACKS", "60"))
BLOCK = 60
FIRST = int(os.environ.get("SOTTOVOCE_ATTACK_SEED", "0"))


@pytest.fixture(scope="module")
def steps() -> dict[tuple[int, int], list[str]]:
    return all_steps()


@pytest.mark.parametrize("first", range(FIRST, FIRST + ATTACKS, BLOCK))
def test_random_attacks(steps: dict[tuple[int, int], list[str]], first: int) -> None:
    outcomes: Counter[str] = Counter()
    for seed in range(first, first + BLOCK):
        attack, outcome = attempt(seed, steps)
        assert outcome != "wrong", f"{attack} gave a wrong result"
        outcomes[outcome] += 1
    assert outcomes["stopped"] > BLOCK // 2


def test_every_kind_of_step_is_attacked(steps: dict[tuple[int, int], list[str]]) -> None:
    """One attack each on every kind of message that a party of three sends, by name."""
    import random

    of_last = steps[3, 2]
    kinds = {re.sub(r"[0-9]+", "", step): step for step in of_last}
    for needed in ("header", "input", "multiply", "truncate", "mask", "matmul", "sigmoid", "carry", "convert", "open",
                   "open to", "check", "agree on", "request", "join"):  # fmt: skip
        assert any(needed in kind for kind in kinds), needed
    for number, step in enumerate(kinds.values()):
        attack = Attack(number, 3, 2, KINDS[number % 4], step)
        done = attacks._run(3, [None] * 3, Meddler(attack, random.Random(number)))
        for outcome in done.outcomes[:2]:
            assert isinstance(outcome, Exception) or is_right(outcome, 3, 2), str(attack)


@pytest.mark.parametrize("at", range(attacks.SUMMANDS))
@pytest.mark.parametrize("part", ["value", "mac"])
def test_a_summand_that_is_changed_is_found_by_the_check(at: int, part: str) -> None:
    cheat = Cheat(1, at, 1, part)
    done = attacks._run(2, [None, cheat], None)
    assert cheat.met > at
    assert isinstance(done.outcomes[0], CheatingError | PeerError), done.outcomes[0]
    assert any(isinstance(outcome, CheatingError) and "the check of" in str(outcome) for outcome in done.outcomes)


def test_without_checks_the_same_attacks_succeed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks are what stops them."""

    async def nothing(self: Guard, seat: Party) -> None:
        self._notes.clear()

    monkeypatch.setattr(Guard, "check", nothing)
    wrong = unseen = 0
    for at in range(attacks.SUMMANDS):
        (outcome, _) = attacks._run(2, [None, Cheat(1, at, 1 << 24, "value")], None).outcomes
        wrong += not isinstance(outcome, Exception) and not is_right(outcome, 2, 1)
        unseen += not isinstance(outcome, CheatingError)
    assert unseen == attacks.SUMMANDS
    assert wrong  # what else is changed ends beyond its bound when it is opened


# ---- the last party asks for something else -----------------------------------------------------------------------


def other_factor(message: Message) -> list[Message]:
    if not message.data.startswith(b'["product"'):
        return [message]
    content = json.loads(message.data)
    content[1][0][2] = "2"  # the double of the first mask
    return [message._replace(data=json.dumps(content, separators=(",", ":")).encode())]


async def product(party: Party, _: Any) -> Any:
    x, y = await shares_of(party, [np.arange(4), np.arange(4) + 3], 100)
    return await open_(party, await multiply(party, x, y))


def test_other_products_than_the_program_needs() -> None:
    """Without MACs all take a wrong product for the right one; with them the run ends."""
    for believed in run(product, tamper=other_factor).outcomes:
        assert isinstance(believed, RangeError) or not np.array_equal(believed, np.arange(4) * (np.arange(4) + 3))
    done = run(product, tamper=other_factor, security="malicious")
    assert all(isinstance(outcome, CheatingError | PeerError) for outcome in done.outcomes[:2])
    assert any(isinstance(outcome, CheatingError) for outcome in done.outcomes[:2])


# ---- telling others different things ------------------------------------------------------------------------------


def test_different_inputs_to_different_parties() -> None:
    """A masked input that is not the same at all is noticed before anything is opened."""

    def tamper(message: Message) -> list[Message]:
        if "/input#" in message.step and message.frm == 0 and message.to == 2:
            return [message._replace(data=bytes([message.data[0] ^ 1]) + message.data[1:])]
        return [message]

    done = run(product, tamper=tamper, security="malicious")
    assert all(isinstance(outcome, CheatingError | PeerError) for outcome in done.outcomes)
    assert any("did not hear or see the same" in str(outcome) for outcome in done.outcomes)


@pytest.mark.parametrize("said", ["announce", "agree", "header"])
def test_different_announcements_to_different_parties(said: str) -> None:
    async def program(party: Party, _: Any) -> Any:
        if said == "announce":
            await announce(party, "names", {"name": party.rank})
        elif said == "agree":
            await agree(party, "secure_sum", {}, {"rows": party.rank})
        held = await party.share(np.arange(5.0 + party.rank), bound=10, shape=(None,))
        return await open_(party, *held)

    def tamper(message: Message) -> list[Message]:
        if f"{said}/" in message.step + "/" and message.frm == 0 and message.to == 2:
            return [message._replace(data=message.data.replace(b"0}", b"7}"))]
        if said == "header" and "/header#" in message.step and message.frm == 0 and message.to == 2:
            return [message._replace(data=message.data.replace(b"[5]", b"[4]"))]
        return [message]

    assert len(run(program, security="malicious").results) == 3
    done = run(program, security="malicious", tamper=tamper)
    assert all(isinstance(outcome, CheatingError | PeerError) for outcome in done.outcomes), done.outcomes


@pytest.mark.parametrize("seed", range(6))
def test_whatever_an_owner_sends_its_input_is_within_bounds(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def tamper(message: Message) -> list[Message]:
        if "/input#" in message.step and message.frm == 1:
            noise = np.frombuffer(rng.bytes(len(message.data)), np.uint8).copy()
            noise[-1] = message.data[-1]
            return [message._replace(data=noise.tobytes())]
        return [message]

    async def program(party: Party, _: Any) -> Any:
        values = np.full(40, float(BOUND) if party.rank else -1.0)
        ours, theirs = await party.share(values, bound=BOUND, shape=(40,), field=F127)
        return await open_(party, ours, theirs)

    honest = run(program, parties=2, tamper=tamper, security="malicious").outcomes[0]
    if not isinstance(honest, Exception):
        assert np.array_equal(honest[0], np.full(40, -1.0))
        assert np.abs(honest[1]).max() <= BOUND
        assert not np.array_equal(honest[1], np.full(40, float(BOUND)))


# ---- what honest parties still tell -------------------------------------------------------------------------------


@pytest.mark.parametrize("then", ["truncate", "sigmoid", "less", "open", "to"])
def test_after_a_wrong_value_nothing_is_opened_that_could_tell(then: str) -> None:
    """A shifted operand makes a product larger than it should be: it goes under no short mask, and not out."""

    async def program(party: Party, _: Any) -> Any:
        x, y = await shares_of(party, [np.full(3, 2.0), np.full(3, 3.0)], 4)
        z = await multiply(party, x, y)
        if then == "truncate":
            return await truncate(party, z)
        if then == "sigmoid":
            return await sigmoid(party, z)
        if then == "less":
            return await less_than(party, z, 1)
        return await open_(party, z, to=[1] if then == "to" else None)

    def tamper(message: Message) -> list[Message]:
        if message.step.startswith("/multiply#") and message.frm == 2:
            return [message._replace(data=attacks._shifted(message.data, 0, 1 << 100))]
        return [message]

    telling = re.compile(r"/truncate#|/sigmoid#|compare/mask#|/open#|/open to#")
    assert any(telling.search(m.step) for m in run(program, security="malicious").log)
    done = run(program, security="malicious", tamper=tamper)
    assert all(isinstance(outcome, CheatingError | PeerError) for outcome in done.outcomes[:2])
    assert not any(telling.search(m.step) for m in done.log if m.frm < 2)
