"""MACs by correlated elements: right for every sharing, and whoever brings something odd is found."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pytest

from mpc import F127, CheatingError, Party, PeerError
from mpc import coins as coins_module
from mpc.authenticated import Authenticated
from mpc.field import FieldArray
from mpc.ot import macs as module
from mpc.ot.correlated import Correlated, Prover
from mpc.ot.macs import Macs
from mpc.preprocessing.authenticated_ot import AuthenticatedOt
from tests.mpc.support import Message, Run, run
from tests.mpc.tinkering import RANK, prompt

Change = Callable[[FieldArray], FieldArray]


def macs_of(party: Party) -> Macs:
    assert isinstance(party.preprocessing, AuthenticatedOt)
    return party.preprocessing._macs


def with_macs(party: Party) -> Authenticated:
    field = party.over(F127)
    assert isinstance(field, Authenticated)
    return field


def given(parties: int, owners: Collection[int] | None, *, bits: bool, count: int = 5, tamper: Any = None) -> Run:
    """Give MACs to a batch, and check it; the outcomes are our key, what we brought, and our summands."""

    async def program(party: Party, _: Any) -> Any:
        field = with_macs(party)
        base = field.public
        numbers = np.arange(count) + 10 * party.rank + 1
        own = base.encode(numbers % 2 if bits else numbers)
        if owners is not None and party.rank not in owners:
            own = base.zeros((count,))
        summands, _coin = await macs_of(party).authenticate(party.at("x"), field, own, owners, bits=bits)
        await party.verify()
        return field.public_mac(base.encode([1])), own, summands

    with prompt():
        return run(program, parties=parties, preprocessing="ot", security="malicious", tamper=tamper)


def total(arrays: Any) -> FieldArray:
    summed = F127.zeros(())
    for array in arrays:
        summed = F127.add(summed, np.ascontiguousarray(array))
    return summed


@pytest.mark.parametrize("bits", [False, True])
@pytest.mark.parametrize(("parties", "owners"), [(2, None), (2, [1]), (3, None), (3, [1]), (4, [0, 2])])
def test_macs_fit(parties: int, owners: list[int] | None, bits: bool) -> None:
    results = given(parties, owners, bits=bits).results
    keys, owned, summands = zip(*results, strict=True)
    values, tags = (total(one[part] for one in summands) for part in ("value", "mac"))
    assert F127.equal(values, total(owned)).all()
    assert F127.equal(tags, F127.mul(total(keys), values)).all()
    assert len({tuple(key.tolist()) for key in keys}) == parties


def test_no_elements_at_all() -> None:
    assert [len(summands) for _, _, summands in given(2, None, bits=False, count=0).results] == [0, 0]


# ---- cheaters: party 2, or 1 of two -------------------------------------------------------------------------------


def found(done: Run, cheater: int, words: str) -> None:
    honest = [outcome for rank, outcome in enumerate(done.outcomes) if rank != cheater]
    assert all(isinstance(outcome, CheatingError | PeerError) for outcome in honest), honest
    assert any(words in str(outcome) for outcome in honest), honest


def plus(shift: int, at: int = 0) -> Change:
    def change(values: FieldArray) -> FieldArray:
        changed = values.copy()
        changed[at : at + 1] = F127.add(changed[at : at + 1], F127.encode([shift]))
        return changed

    return change


def bring(monkeypatch: pytest.MonkeyPatch, cheater: int, target: int, change: Change) -> None:
    """Let the cheater bring something else toward one party."""
    extend = Prover.extend

    async def extended(self: Any, scope: Party, values: FieldArray) -> FieldArray:
        cheats = RANK.get() == cheater and self.other == target
        return await extend(self, scope, change(values) if cheats else values)

    monkeypatch.setattr(Prover, "extend", extended)


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("bits", [False, True])
def test_other_elements_toward_one_party(target: int, bits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is another bit, so that the proof holds."""
    shift = 1 if given_bit(2, 0) == 0 else -1
    bring(monkeypatch, 2, target, plus(shift))
    found(given(3, None, bits=bits), 2, "the check of")


def given_bit(rank: int, at: int) -> int:
    return (at + 10 * rank + 1) % 2


def test_other_elements_that_are_opened_unlike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cheater shows each honest party the sums that fit what it brought toward it: no MAC is wrong."""
    coins: list[Any] = []
    toss = coins_module.toss

    async def tossed(seat: Party, *more: Any) -> Any:
        coins.append(await toss(seat, *more))
        return coins[-1]

    def tamper(message: Message) -> list[Message]:
        if "x/sums#" not in message.step or (message.frm, message.to) != (2, 0):
            return [message]
        weights = coins[-1].stream("sums").elements(F127, (module.SUMS, 5))
        sums = F127.add(F127.from_bytes(message.data, module.SUMS), weights[:, 0])
        return [message._replace(data=bytes(F127.to_bytes(sums)))]

    monkeypatch.setattr(module, "toss", tossed)
    bring(monkeypatch, 2, 0, plus(1))
    found(given(3, None, bits=False, tamper=tamper), 2, "did not hear or see the same")


@pytest.mark.parametrize("owners", [None, [0], [2]])
def test_another_key_toward_one_party(owners: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the party toward whom it is another one is the only one that brings something, or brings nothing."""
    hold = Correlated.hold_setup

    async def held(cls: Any, scope: Party, pairs: Any, other: int, base: Any, delta: Any) -> Any:
        if RANK.get() == 2 and other == 0:
            delta = base.add(delta, base.encode(1))
        return await hold(scope, pairs, other, base, delta)

    monkeypatch.setattr(Correlated, "hold_setup", classmethod(held))
    found(given(3, owners, bits=False), 2, "the check of")


@pytest.mark.parametrize("value", [2, -1, 1 << 100])
@pytest.mark.parametrize(("parties", "owners"), [(2, None), (2, [1]), (3, [1])])
def test_what_is_no_bit(parties: int, owners: Any, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    authenticate = Macs.authenticate

    async def changed(self: Any, scope: Party, field: Any, own: FieldArray, *more: Any, bits: bool) -> Any:
        if RANK.get() == 1:
            own = own.copy()
            own[3:4] = F127.encode([value])
        return await authenticate(self, scope, field, own, *more, bits=bits)

    monkeypatch.setattr(Macs, "authenticate", changed)
    done = given(parties, owners, bits=True)
    found(done, 1, "the check of bits failed: party 1")


def test_no_bit_toward_one_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    bring(monkeypatch, 2, 1, plus(2, at=4))
    done = given(3, None, bits=True)
    assert "the check of bits failed: party 2" in str(done.outcomes[1])


@pytest.mark.parametrize("at", [0, 16])
def test_a_proof_that_is_altered(at: int) -> None:
    def tamper(message: Message) -> list[Message]:
        if "x/bits#" not in message.step or message.frm != 1:
            return [message]
        return [message._replace(data=message.data[:at] + bytes([message.data[at] ^ 1]) + message.data[at + 1 :])]

    found(given(2, None, bits=True, tamper=tamper), 1, "the check of bits failed")


@pytest.mark.parametrize("step", ["x/bits#", "x/coin#1.commit", "x/coin#1.show", "x/sums#", "x/corrections.0"])
@pytest.mark.parametrize("data", [b"", bytes([255]) * 32, None])
def test_messages_that_are_none(step: str, data: bytes | None) -> None:
    def tamper(message: Message) -> list[Message]:
        if step not in message.step or message.frm != 1:
            return [message]
        return [message._replace(data=message.data[:-1] + b"\xff" if data is None else data)]

    done = given(2, None, bits=True, tamper=tamper)
    assert isinstance(done.outcomes[0], CheatingError | PeerError)


def test_sums_that_are_shifted() -> None:
    def tamper(message: Message) -> list[Message]:
        if "x/sums#" not in message.step or message.frm != 1:
            return [message]
        return [message._replace(data=bytes([message.data[0] ^ 1]) + message.data[1:])]

    found(given(2, None, bits=False, tamper=tamper), 1, "some party cheats")


def test_coins_shown_unlike() -> None:
    """The cheater commits to one part toward party 0 and another toward party 1."""
    from mpc.coins import commitment

    parts: dict[int, bytes] = {0: bytes(32), 1: bytes([1]) * 32}

    def tamper(message: Message) -> list[Message]:
        if "x/coin#" not in message.step or message.frm != 2:
            return [message]
        step, _, what = message.step.rpartition(".")
        part = parts[message.to]
        return [message._replace(data=part if what == "show" else commitment(step, 2, part))]

    done = given(3, None, bits=False, tamper=tamper)
    assert all(isinstance(outcome, CheatingError | PeerError) for outcome in done.outcomes[:2]), done.outcomes


# ---- what goes around ---------------------------------------------------------------------------------------------


def test_costs() -> None:
    async def program(party: Party, _: Any) -> list[int]:
        field, macs = with_macs(party), macs_of(party)
        sent = []
        for count, bits in ((0, False), (1000, False), (1000, True)):
            before = party.costs.bytes_sent
            await macs.authenticate(party.at("x"), field, field.public.zeros((count,)), bits=bits)
            sent.append(party.costs.bytes_sent - before)
        return sent

    with prompt():
        results = run(program, parties=3, preprocessing="ot", security="malicious").results
    digits = -(-F127.bits // 3)
    for _, elements, bits in results:
        assert elements == 2 * (16 * digits * (1000 + module.SUMS) + 2 * 32 + 16 * module.SUMS)
        assert bits == elements + 2 * (16 * digits + 2 * 16)


def test_proofs_of_bits_are_padded_otherwise_toward_each_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two holders that put together what they have seen find nothing: last elements differ, and nothing else does."""
    brought: dict[tuple[int, int], FieldArray] = {}
    extend = Prover.extend

    async def extended(self: Any, scope: Party, values: FieldArray) -> FieldArray:
        brought[RANK.get(), self.other] = values
        return await extend(self, scope, values)

    monkeypatch.setattr(Prover, "extend", extended)
    given(3, [1], bits=True).results  # noqa: B018
    left, right = brought[1, 0], brought[1, 2]
    assert len(left) == len(right) == module.SUMS + 5 + 1
    assert F127.equal(left, right).tolist() == [True] * (module.SUMS + 5) + [False]
    assert len(brought[0, 1]) == module.SUMS  # who brings nothing brings what the sums are padded by
