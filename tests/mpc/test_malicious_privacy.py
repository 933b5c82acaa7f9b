"""What a coalition sees where parties may cheat, exactly: inputs bit by bit, private openings, and after a shift.

As :mod:`tests.mpc.test_privacy`, in tiny fields. Checks are left out here, which show nothing but the sum of what is
zero (:mod:`mpc.mac_check`), so that
what is opened before the next check is seen, also under a cheater that goes unnoticed.
"""

import re
from typing import Any

import numpy as np
import pytest

from mpc import GF, Field, Party, Share, arithmetic, bit_inputs, mac_check, multiply, open_, opening, truncate
from mpc.bits import bits_to_field, words_field, words_share
from mpc.comparison import is_negative
from mpc.mac_check import Guard
from mpc.preprocessing import authenticated, requests
from mpc.words import WORD_BITS, pack_bits
from tests.mpc.enumeration import distance, named_answers, views
from tests.mpc.support import Message, run, seeded, shares_of
from tests.mpc.test_privacy import everything, honest, no_difference, unbounded

F3, F5 = GF(3), GF(5)
SEATS: list[tuple[int, set[int]]] = [(2, {0}), (2, {1}), (3, {0, 1}), (3, {0, 2}), (3, {1, 2})]
seats = pytest.mark.parametrize(("parties", "coalition"), SEATS, ids=[f"{n}, {who}" for n, who in SEATS])


@pytest.fixture(autouse=True)
def a_small_world(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unchecked(self: Guard, seat: Party) -> None:
        self._notes.clear()

    monkeypatch.setattr(Guard, "check", unchecked)
    monkeypatch.setattr(mac_check, "LEAST_BITS", 1)
    monkeypatch.setattr(authenticated, "_answer_label", named_answers)
    monkeypatch.setattr(bit_inputs, "_BITS_AT_ONCE", 1 << 40)
    for module in (opening, requests):
        monkeypatch.setattr(module, "CHUNK_BYTES", 1 << 30)
    monkeypatch.setattr(opening, "BROADCAST_BYTES", 1 << 30)


def options(parties: int, coalition: set[int], field: Field, **more: Any) -> dict[str, Any]:
    settings = {"parties": parties, "coalition": coalition, "field": field, "preprocessing": "dealer"}
    return settings | {"security": "malicious", "known": "$^"} | more


async def secret_of(party: Party, owner: int, value: int, lanes: int, field: Field) -> Share:
    values = np.full(lanes, value) if party.rank == owner else None
    x: Share = await party.share(values, bound=field.half, owner=owner, shape=(lanes,), field=field)
    return x.bounded_by(1)


@seats
def test_an_input_tells_nothing(parties: int, coalition: set[int]) -> None:
    async def protocol(party: Party, lanes: int, secret: int) -> None:
        await secret_of(party, honest(parties, coalition)[0], secret, lanes, F5)

    for row in views(protocol, range(-2, 3), **options(parties, coalition, F5)):
        assert all(view.same_as(row[0]) and view.messages for view in row)


@seats
def test_products_tell_nothing(parties: int, coalition: set[int]) -> None:
    (owner,) = honest(parties, coalition)

    async def protocol(party: Party, lanes: int, secret: tuple[int, int]) -> None:
        x = await secret_of(party, owner, secret[0], lanes, F3)
        y = await secret_of(party, owner, secret[1], lanes, F3)
        await multiply(party, x, y)

    no_difference(protocol, everything(F3, 2), **options(parties, coalition, F3))


@pytest.mark.parametrize("coalition", [{0}, {1}, {2}])
def test_an_opened_sum_of_two_honest_parties_tells_only_the_sum(coalition: set[int]) -> None:
    owners = honest(3, coalition)

    async def protocol(party: Party, lanes: int, secret: tuple[int, int]) -> None:
        x = await secret_of(party, owners[0], secret[0], lanes, F3)
        y = await secret_of(party, owners[1], secret[1], lanes, F3)
        await open_(party, unbounded(x.bounded_by(0) + y))

    for total in range(3):
        secrets = [xy for xy in everything(F3, 2) if sum(xy) % 3 == total]
        no_difference(protocol, secrets, **options(3, coalition, F3))


@pytest.mark.parametrize(("recipient", "coalition"), [(0, {1}), (1, {0}), (2, {0, 1}), (1, {0, 2}), (0, {1, 2})])
def test_what_is_opened_to_some_tells_others_nothing(recipient: int, coalition: set[int]) -> None:
    async def protocol(party: Party, lanes: int, secret: int) -> None:
        await open_(party, unbounded(await secret_of(party, recipient, secret, lanes, F5)), to=[recipient])

    no_difference(protocol, range(-2, 3), **options(len(coalition) + 1, coalition, F5))


def test_two_values_opened_to_two_recipients() -> None:
    """One of them colludes, and learns what is meant for it alone."""

    async def protocol(party: Party, lanes: int, secret: tuple[int, int]) -> None:
        x = await secret_of(party, 0, secret[0], lanes, F3)
        y = await secret_of(party, 0, secret[1], lanes, F3)
        await open_(party, unbounded(x), to=[0])
        await open_(party, unbounded(y), to=[0, 1])

    for y in range(-1, 2):
        no_difference(protocol, [(x, y) for x in range(-1, 2)], **options(2, {1}, F3))
    assert distance(protocol, [(0, 0), (0, 1)], **options(2, {1}, F3)) > 0.99


@seats
@pytest.mark.parametrize("at", ["multiply#", "input#"])
def test_nothing_is_told_by_products_of_what_was_shifted(parties: int, coalition: set[int], at: str) -> None:
    """A cheater shifts what it opens, or tells other masked inputs: uniform masks hide whatever comes of it."""
    (owner,) = honest(parties, coalition)
    cheater = min(coalition)

    async def protocol(party: Party, lanes: int, secret: int) -> None:
        x = await secret_of(party, owner, secret, lanes, F3)
        y = await secret_of(party, cheater, 1, lanes, F3)
        await multiply(party, x, await multiply(party, x, y))

    def tamper(message: Message) -> list[Message]:
        if message.frm != cheater or message.to != owner or at not in message.step:
            return [message]
        if at == "input#":
            return [message._replace(data=bytes(len(message.data)))]
        data = np.frombuffer(message.data, np.uint8).astype(int)
        return [message._replace(data=((data + 1) % 3).astype(np.uint8).tobytes())]

    no_difference(protocol, range(-1, 2), **options(parties, coalition, F3, tamper=tamper, fixings=1))


@seats
def test_truncation_keeps_its_statistical_distance(
    parties: int, coalition: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arithmetic, "STATISTICAL_SECURITY_BITS", 2)
    (owner,), field = honest(parties, coalition), GF(1021)

    async def protocol(party: Party, lanes: int, secret: int) -> None:
        values = np.full(lanes, secret) if party.rank == owner else None
        x = await party.share(values, bound=3, owner=owner, shape=(lanes,), field=field)
        await truncate(party, x.scaled_down(1), to=0)

    apart = distance(protocol, range(-3, 4), **options(parties, coalition, field))
    assert apart == pytest.approx(6 / 2**5, rel=1e-9)


@seats
def test_bits_become_elements_in_private(parties: int, coalition: set[int]) -> None:
    (owner,) = honest(parties, coalition)

    async def protocol(party: Party, lanes: int, secret: int) -> None:
        held: Any = words_field(party).zeros(-(-lanes // WORD_BITS))
        if party.rank == owner:
            held["value"] = pack_bits(np.full(lanes, secret, np.uint8))
        await bits_to_field(party, words_share(party, held), party.over(F5), lanes)

    no_difference(protocol, (0, 1), **options(parties, coalition, F5, packed=r"convert|correction 0\."))


@pytest.mark.parametrize("coalition", [{0}, {1}])
def test_comparison_keeps_its_statistical_distance(coalition: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "STATISTICAL_SECURITY_BITS", 2)
    (owner,), field = honest(2, coalition), GF(83)

    async def protocol(party: Party, lanes: int, secret: int) -> None:
        values = np.full(lanes, secret) if party.rank == owner else None
        await is_negative(party, await party.share(values, bound=1, owner=owner, shape=(lanes,), field=field))

    packed = r"convert|correction [23]\."
    apart = distance(protocol, [-1, 0, 1], **options(2, coalition, field, packed=packed, fixings=1))
    assert 0 < apart <= 2**-2


def test_an_input_without_its_mask_is_found_out() -> None:
    async def protocol(party: Party, lanes: int, secret: int) -> None:
        await secret_of(party, 0, secret, lanes, F5)

    assert distance(protocol, (-1, 0, 1), **options(2, {1}, F5)) == 0
    without: Any = lambda label, number: -1 if re.match(r"mask\|", label) else None  # noqa: E731
    assert distance(protocol, (-1, 0, 1), **options(2, {1}, F5, sabotage=without)) > 0.1


def test_nothing_but_checks_and_the_dealer_tells_of_keys() -> None:
    """With other keys and MACs, and all else as it was, parties tell each other the same bytes."""

    async def program(party: Party, _: Any) -> Any:
        x, y = await shares_of(party, [np.arange(5), np.arange(5) + 2], 10)
        z = await truncate(party, await multiply(party, x, y), 0)
        await open_(party, z, await is_negative(party, x - 2), to=[1])
        return await open_(party, z)

    def told(other: str) -> list[Message]:
        def for_rank(rank: int) -> Any:
            def make(name: str, seed: bytes) -> Any:
                prg, instead = seeded("all")(rank)(name, seed), seeded(other)(rank)(name, seed)

                class Source:
                    def stream(self, label: str, position: int = 0) -> Any:
                        return (instead if label.startswith(("key|", "answer|macs|")) else prg).stream(label, position)

                return Source()

            return make

        done = run(program, security="malicious", make_source=for_rank)
        done.results  # noqa: B018
        return sorted(m for m in done.sent if max(m.frm, m.to) < 3)

    assert told("all") == told("others")
