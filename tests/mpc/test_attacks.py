"""Parties that cheat: whatever one of them changes, no honest party ends with a wrong result."""

import json
import os
import random
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

from mpc import F127, CheatingError, Party, PeerError, RangeError, less_than, mask, multiply, open_, sigmoid, truncate
from mpc.mac_check import Guard
from mpc.ot import authenticated_products, bit_proofs, macs
from mpc.ot.correlated import Correlated
from mpc.ot.pairs import Pairs
from protocols.agreement import agree, announce
from tests.mpc import attacks
from tests.mpc.attacks import (
    BOUND,
    KINDS,
    NOTICED,
    SUMMANDS,
    Attack,
    Cheat,
    Meddler,
    Surface,
    World,
    all_worlds,
    attempt,
    is_right,
)
from tests.mpc.support import Message, run, shares_of
from tests.mpc.tinkering import RANK, Tinker, prompt

# More attacks, from another seed on: SOTTOVOCE_ATTACKS=5100 SOTTOVOCE_ATTACK_SEED=1000 pytest tests/mpc/test_attacks.py
# Of 60 attacks with a dealer, so many with oblivious transfer, with packed bits made by it, and on a table:
BLOCK = {"dealer": 60, "ot": 24, "ot bits": 4, "dealer table": 30, "ot table": 2}
SLOW = ("ot bits", "ot table")  # packed bits take seconds
ATTACKS = int(os.environ.get("SOTTOVOCE_ATTACKS", "60"))
BROADLY = ATTACKS > 60  # every kind of step with packed bits, and three parties, take minutes
FIRST = int(os.environ.get("SOTTOVOCE_ATTACK_SEED", "0"))


@pytest.fixture(scope="module")
def worlds() -> dict[str, dict[World, Surface]]:
    found = {preprocessing: all_worlds(preprocessing) for preprocessing in ("dealer", "ot", "dealer table")}
    for slow in SLOW:
        found[slow] = all_worlds(slow) if BROADLY else {(slow, 2, 1): Surface.of(slow, 2, 1)}
    return found


@pytest.mark.parametrize("block", range(-(-ATTACKS // 60)))
@pytest.mark.parametrize("preprocessing", SUMMANDS)
def test_random_attacks(worlds: dict[str, dict[World, Surface]], preprocessing: str, block: int) -> None:
    outcomes: Counter[str] = Counter()
    first = FIRST + block * BLOCK[preprocessing]
    for seed in range(first, first + BLOCK[preprocessing]):
        attack, outcome = attempt(seed, worlds[preprocessing])
        assert outcome != "wrong", f"{attack} gave a wrong result"
        outcomes[outcome] += 1
    # About one attack in ten changes nothing that counts.
    assert outcomes["stopped"] >= BLOCK[preprocessing] // 4


NEEDED = {
    "dealer": "join, header, input, multiply, truncate, mask, matmul, sigmoid, carry, convert, open, open to, check, "
    "agree on, request",
    "ot": "join/hello, join/ot/points, join/ot/pairs, join/ot/trees, join/ot/trees back, transfers/extension, "
    "macs/F/choices, macs/F/corrections, share/masks/part/corrections, coin#.commit, coin#.show, part/bits#, sums#, "
    "input#, product/part/choices, product/part/corrections, hash#.show, difference#, part/c/corrections, "
    "part/f/sums#, masked#, check#.sum, multiply#, open to#",
    "ot bits": "words/ends/choices, words/ends/trees, words/ends/extension, bring/bits#, bring/numbers/bits#, "
    "bring/image#, tie/coin/coin#.show, tie/sums#, tie/parities#, words/place#, words/masks/batch/bits#, "
    "words/masks/batch/masks#, product/place#, words/products/batch/bits#, rows/choices, rows/rows, buckets#, "
    "product/product#, carry#, signs/part/signs/bits#, signs/part/tie/sums#, part/times/choices, convert#",
    "dealer table": "agree/terms, announce/labels, rows/share/header, rows/share/input, counts/share/input, "
    "whole/open, "
    "disclosure/counts/share/input, disclosure/counts/compare/mask, disclosure/any/compare/carry, disclosure/open, "
    "missing/compare/convert, few/open, sizes/open, cells/small/compare/mask, small/rows/open, small/which/open, "
    "slack/compare/carry, slack/any/compare/convert, slack/enough/open, cells/open/open, check, request",
}


@pytest.mark.parametrize("preprocessing", NEEDED if BROADLY else ["dealer", "ot", "dealer table"])
def test_every_kind_of_step_is_attacked(worlds: dict[str, dict[World, Surface]], preprocessing: str) -> None:
    """One attack each on every kind of message that a party sends, by name."""
    parties = 3 if preprocessing.startswith("dealer") else 2
    surfaces = [worlds[preprocessing][preprocessing, parties, attacker].steps for attacker in range(parties)]
    for needed in NEEDED[preprocessing].split(", "):
        assert any(needed in kind for kinds in surfaces for kind in kinds), needed
    # The last party asks a dealer; of two parties that meet, each sends messages of its own.
    for number, (kind, steps) in enumerate((surfaces[0] | surfaces[-1]).items()):
        attacker = parties - 1 if kind in surfaces[-1] else 0
        attack = Attack(number, preprocessing, parties, attacker, KINDS[number % 4], steps[-1])
        done = attacks._run(preprocessing, [None] * parties, Meddler(attack, random.Random(number)))
        for rank, outcome in enumerate(done.outcomes):
            assert rank == attacker or isinstance(outcome, Exception) or is_right(outcome, parties, attacker), attack


@pytest.mark.parametrize(
    ("preprocessing", "at"),
    [(name, at) for name, n in SUMMANDS.items() for at in range(n) if BROADLY or name not in SLOW],
)
@pytest.mark.parametrize("part", ["value", "mac"])
def test_a_summand_that_is_changed_is_found_by_the_check(preprocessing: str, at: int, part: str) -> None:
    cheat = Cheat(1, at, 1, part)
    done = attacks._run(preprocessing, [None, cheat], None)
    assert cheat.met > at
    assert isinstance(done.outcomes[0], CheatingError | PeerError), done.outcomes[0]
    assert any(isinstance(outcome, CheatingError) and "the check of" in str(outcome) for outcome in done.outcomes)


def test_without_checks_the_same_attacks_succeed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks are what stops them."""

    async def nothing(self: Guard, seat: Party) -> None:
        self._notes.clear()

    monkeypatch.setattr(Guard, "check", nothing)
    wrong = unseen = 0
    for at in range(SUMMANDS["dealer"]):
        (outcome, _) = attacks._run("dealer", [None, Cheat(1, at, 1 << 24, "value")], None).outcomes
        wrong += not isinstance(outcome, Exception) and not is_right(outcome, 2, 1)
        unseen += not isinstance(outcome, CheatingError)
    assert unseen == SUMMANDS["dealer"]
    assert wrong  # what else is changed ends beyond its bound when it is opened


@pytest.mark.parametrize(
    ("module", "check", "passes", "kind"),
    [
        (authenticated_products, "sacrificed", lambda base, *_: base.zeros((1,)), "choices"),
        (authenticated_products, "sacrificed", lambda base, *_: base.zeros((1,)), "values"),
        (macs, "holds", lambda *_: True, "no bits"),
    ],
)
def test_without_its_checks_material_can_be_anything(
    module: Any, check: str, passes: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, check, passes)
    noticed = []
    for seed in range(3):
        tinker = Tinker(1, kind, 0, 0, random.Random(seed))
        end = attacks._run("ot", [None, None], None, tinker).outcomes[0]
        noticed.append(isinstance(end, NOTICED) or (not isinstance(end, Exception) and is_right(end, 2, 1)))
    assert not all(noticed)


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


# ---- what an abort tells --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize(("secret", "guess"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_unlike_keys_tell_nothing_of_an_input(
    secret: int, guess: int, hidden: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Party 2 has another key toward party 0, takes off what that makes of all that it sees, and guesses the rest.

    With summands of a batch's sums in sight, a run would end for a wrong guess of 0's input only.
    """
    log: list[Message] = []
    hold, note, holds = Correlated.hold_setup, Guard.note, bit_proofs.holds

    async def held(cls: Any, scope: Party, pairs: Any, other: int, base: Any, delta: Any) -> Any:
        if (RANK.get(), other) == (2, 0):
            delta = base.add(delta, base.encode(1))
        return await hold(scope, pairs, other, base, delta)

    def noted(self: Guard, step: str, field: Any, opened: Any, tags: Any) -> None:
        if RANK.get() == 2:
            base = field.public
            if "open#" in step:
                (told,) = [m.data for m in log if "/input#" in m.step and (m.frm, m.to) == (0, 2)]
                bits = np.unpackbits(np.frombuffer(told, np.uint8), bitorder="little")
                brought = base.encode([guess + 1 - int(bits.sum())])  # of two bits that weigh 1
            else:
                (seen,) = [m.data for m in log if m.step == step and (m.frm, m.to) == (0, 2)]
                brought = base.from_bytes(seen, opened.shape)
            tags = base.sub(tags, brought)
        note(self, step, field, opened, tags)

    async def program(party: Party, _: Any) -> Any:
        x = await party.share(np.array([secret]) if party.rank == 0 else None, bound=1, owner=0, shape=(1,))
        y = await party.share(np.array([1]) if party.rank == 1 else None, bound=1, owner=1, shape=(1,))
        return await open_(party, x + y)

    monkeypatch.setattr(Correlated, "hold_setup", classmethod(held))
    monkeypatch.setattr(Guard, "note", noted)
    monkeypatch.setattr(macs, "holds", lambda *given: RANK.get() == 2 or holds(*given))
    if not hidden:
        sharing = Party.zero_share
        monkeypatch.setattr(
            Party,
            "zero_share",
            lambda self, field, shape: field.zeros(shape) if "masks" in self.path else sharing(self, field, shape),
        )

    def tamper(message: Message) -> list[Message]:
        log.append(message)
        return [message]

    with prompt():
        done = run(program, preprocessing="ot", security="malicious", tamper=tamper)
    ended = all(isinstance(outcome, CheatingError | PeerError) for outcome in done.outcomes)
    assert ended == (hidden or guess != secret), done.outcomes


@pytest.mark.parametrize(("secret", "guess"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_products_of_a_mask_that_was_used_tell_nothing(
    secret: int, guess: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value was opened under the mask: party 1 takes other bits, and makes up for it as if it were its guess."""
    known: dict[str, Any] = {}
    choose, authenticate = Pairs.choose, macs.Macs.authenticate

    async def chosen(self: Any, scope: Party, other: int, kind: Any, choices: Any, width: int) -> Any:
        if RANK.get() == 1 and "product" in scope.path:
            choices = choices.copy()
            known["shift"] = 1 - 2 * int(choices.flat[0])  # the lowest bit of the first raw factor
            choices.flat[0] ^= 1
        return await choose(self, scope, other, kind, choices, width)

    async def authenticated(self: Any, scope: Party, field: Any, own: Any, *more: Any, **options: Any) -> Any:
        if RANK.get() == 1 and scope.path.endswith("product/part/c"):
            base = field.public
            summand = base.sub(base.encode([guess]), base.add(known["offset"], known["ours"]))
            own = own.copy()
            own[:1] = base.sub(own[:1], base.scale_int(summand, known["shift"]))
        return await authenticate(self, scope, field, own, *more, **options)

    async def program(party: Party, _: Any) -> Any:
        x = await party.share(np.array([secret]) if party.rank == 0 else None, bound=1, owner=0, shape=(1,))
        y = await party.share(np.array([1]) if party.rank == 1 else None, bound=1, owner=1, shape=(1,))
        kept = await mask(party, x)
        assert kept.masked is not None
        if party.rank == 1:
            summand: Any = kept.masked.mask.summand
            known["offset"], known["ours"] = kept.masked.offset, np.ascontiguousarray(summand["value"])
        await multiply(party, y, kept)
        await party.verify()

    monkeypatch.setattr(Pairs, "choose", chosen)
    monkeypatch.setattr(macs.Macs, "authenticate", authenticated)
    with prompt():
        done = run(program, parties=2, preprocessing="ot", security="malicious")
    assert "shift" in known
    assert all(isinstance(outcome, CheatingError | PeerError) for outcome in done.outcomes), done.outcomes
