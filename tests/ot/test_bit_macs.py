"""Bits with MACs by transfers: every MAC is right, and what is not, ends the run."""

import functools
from collections.abc import Awaitable, Callable, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from mpc import CheatingError, Party, PeerError
from mpc.authenticated_words import masks
from mpc.coins import toss
from mpc.opening import open_flat
from mpc.ot import bit_macs as module
from mpc.ot.bit_macs import MOST_BITS, PAD, BitMacs, Bits, combined, open_bits, random_bits, spread
from mpc.ot.checking import Transcript
from mpc.ot.ends import ChooserEnd, OffererEnd
from mpc.ot.extension import DEPTH, Chooser, Offerer
from mpc.ot.hashing import Hash
from mpc.ot.meeting import meet_again
from mpc.ot.pairs import Pairs
from mpc.prg import Prg
from mpc.words import W64, WORD_BITS, pack_bits, unpack_bits
from tests.mpc.support import Run, Tamper, run

Program = Callable[[Party, Pairs, BitMacs], Awaitable[Any]]


def pairs_of(parties: int) -> list[Pairs]:
    """Every party's ends with each other one, checked, as if they had met."""
    rng = np.random.default_rng(parties)
    ends: dict[tuple[int, int], tuple[ChooserEnd, OffererEnd]] = {}
    for way in permutations(range(parties), 2):
        session = bytes(way)
        keys, delta = rng.integers(0, 256, (128, 2, 16), dtype=np.uint8), rng.integers(0, 2, 128, dtype=np.uint8)
        chooser, sums = Chooser.from_keys(keys, DEPTH, session)
        offerer = Offerer.from_keys(delta, keys[np.arange(128), delta], DEPTH, session, sums)
        hashed = [Hash(bytes([*way] * 8), tweaked=True) for _ in way]
        ends[way] = (
            ChooserEnd(way[1], chooser, hashed[0], Transcript(session)),
            OffererEnd(way[0], offerer, hashed[1], Transcript(session)),
        )
    return [
        Pairs(
            [ends[rank, other][0] for other in range(parties) if other != rank],
            [ends[other, rank][1] for other in range(parties) if other != rank],
        )
        for rank in range(parties)
    ]


def met(program: Program, *, parties: int = 2, tamper: Tamper | None = None) -> Run:
    """Run a program at parties that have met; the guard comes from a session with a dealer, whose masks nobody uses."""
    pairs = pairs_of(parties)

    async def whole(party: Party, _: Any) -> Any:
        return await program(party, pairs[party.rank], await BitMacs.set_up(party.at("bits"), pairs[party.rank]))

    return run(whole, parties=parties, security="malicious", tamper=tamper)


def caught(outcomes: Sequence[Any]) -> bool:
    """Whether somebody found out that somebody cheats, and nobody went on."""
    found = any(isinstance(outcome, CheatingError) for outcome in outcomes)
    return found and all(isinstance(outcome, CheatingError | PeerError) for outcome in outcomes)


def right(bits: Sequence[Bits], key: int) -> np.ndarray:
    """Add up, and check the MACs."""
    values = functools.reduce(np.bitwise_xor, [one.values for one in bits])
    macs = functools.reduce(np.bitwise_xor, [one.macs for one in bits])
    np.testing.assert_array_equal(macs, spread(values) & np.uint64(key))
    return values


def key_of(keys: Sequence[Any]) -> int:
    return int(functools.reduce(np.bitwise_xor, keys)[0])


@pytest.mark.parametrize("parties", [2, 3])
def test_all_macs_are_right(parties: int) -> None:
    """Also beyond one extension; and of each party's bits alone."""
    count = 5000

    async def program(party: Party, _: Pairs, macs: BitMacs) -> Any:
        found = [await macs.bring(party, random_bits(size)) for size in (1, count, 70)]
        own = found[1]
        return macs.key, own.bits, own.shared(macs.key), [own.of(rank, macs.key) for rank in range(party.size)]

    keys, bits, shared, single = zip(*met(program, parties=parties).results, strict=True)
    key = key_of(keys)
    assert key
    np.testing.assert_array_equal(right(shared, key), functools.reduce(np.bitwise_xor, bits))
    for rank in range(parties):
        np.testing.assert_array_equal(right([of[rank] for of in single], key), bits[rank])


def test_costs() -> None:
    """4.1 bytes a bit from each party to each other."""
    count = 1 << 17

    async def program(party: Party, _: Pairs, macs: BitMacs) -> Any:
        before = party.costs.total.bytes_sent
        for _turn in range(4):
            await macs.bring(party, random_bits(count))
        return (party.costs.total.bytes_sent - before) / (4 * count)

    for each in met(program).results:
        assert 4 < each < 4.8  # and what is left over


async def checked(party: Party, macs: BitMacs, bits: list[Bits], pad: Bits) -> None:
    image, tags = combined(bits, pad, await toss(party.at("coin")))
    await open_bits(party.at("image"), macs.field, "image", (image, tags))
    await party.verify()


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("what", ["nothing", "a MAC", "a bit", "unlike bits"])
def test_the_check(parties: int, what: str) -> None:
    """Party 0 cheats: with a summand, or by bits that are not the same towards two holders."""

    async def program(party: Party, _: Pairs, macs: BitMacs) -> Any:
        if party.rank == 0 and what == "unlike bits":
            end, honest = macs._provers[1], macs._provers[1].choose

            async def other(scope: Party, step: str, bits: Any) -> Any:
                return await honest(scope, step, bits ^ (np.arange(bits.size) == 77).astype(np.uint8))

            end.choose = other  # type: ignore[method-assign]
        own = await macs.bring(party, random_bits(1000 + PAD))
        shared = own.shared(macs.key)
        bits, pad = shared.at(slice(1000)), shared.at(slice(1000, None))
        if party.rank == 0:
            bits.macs[500] ^= np.uint64(what == "a MAC")
            bits.values[999] ^= np.uint8(what == "a bit")
        await checked(party, macs, [bits.at(slice(300)), bits.at(slice(300, None))], pad)

    outcomes = met(program, parties=parties).outcomes
    assert outcomes == [None] * parties if what == "nothing" else caught(outcomes)


def test_unlike_keys_are_found_whatever_the_bits_are(monkeypatch: Any) -> None:
    """Party 0 of three has another Delta towards party 1, and takes off its MACs what it sees of party 1's summand."""
    unlike, honest = np.uint64(5), meet_again

    async def meet(scope: Party, pairs: Pairs, other: int, delta: Any) -> Any:
        if (scope.rank, other) == (0, 1):
            delta = delta ^ unpack_bits(np.array([unlike, 0], np.uint64), 128)
        return await honest(scope, pairs, other, delta)

    monkeypatch.setattr(module, "meet_again", meet)
    seen: list[bytes] = []

    def watch(message: Any) -> list[Any]:
        if (message.frm, message.to) == (1, 0) and "/image#" in message.step:
            seen.append(message.data)
        return [message]

    async def program(party: Party, _: Pairs, macs: BitMacs) -> Any:
        shared = (await macs.bring(party, random_bits(100 + PAD))).shared(macs.key)
        image, tags = combined([shared.at(slice(100))], shared.at(slice(100, None)), await toss(party.at("coin")))
        scope = party.at("image")
        if party.rank == 0:
            tags = tags.copy()
            await open_flat(scope, "image", macs.field, image ^ scope.zero_share(W64, image.shape), tags)
            tags ^= masks(np.frombuffer(seen[0], "<u8")) & unlike  # what was noted
        else:
            await open_bits(scope, macs.field, "image", (image, tags))
        await party.verify()

    outcomes = met(program, parties=3, tamper=watch).outcomes
    assert seen
    assert caught(outcomes)


def test_the_map_is_linear_and_finds_each_error() -> None:
    rng, coin = np.random.default_rng(1), Prg(bytes(32))
    count = 300

    def image(bits: Bits) -> tuple[Any, Any]:
        return combined([bits.at(slice(100)), bits.at(slice(100, count))], bits.at(slice(count, None)), coin)

    def drawn() -> Bits:
        size = count + PAD
        return Bits(rng.integers(0, 2, size, dtype=np.uint8), rng.integers(0, 1 << 63, size, dtype=np.uint64))

    a, b = drawn(), drawn()
    for one, two, both in zip(image(a), image(b), image(a ^ b), strict=True):
        np.testing.assert_array_equal(one ^ two, both)
    key = np.uint64(0x123456789ABCDEF1)
    values, macs = image(Bits(a.values, spread(a.values) & key))
    np.testing.assert_array_equal(macs, masks(values) & key)
    # The pad is what it is, bit by bit.
    zeros = np.zeros(count, np.uint8)
    values, _ = image(Bits(np.concatenate([zeros, a.values[count:]]), a.macs))
    np.testing.assert_array_equal(values, pack_bits(a.values[count:]))
    seen = set()
    for k in range(count + PAD):
        single = Bits(np.zeros(count + PAD, np.uint8), np.zeros(count + PAD, np.uint64))
        single.macs[k] = 1 << k % WORD_BITS
        _, macs = image(single)
        assert macs.any()
        seen.add(macs.tobytes())
    assert len(seen) == count + PAD


def test_nonsense_is_refused() -> None:
    async def too_many(party: Party, _: Pairs, macs: BitMacs) -> Any:
        with pytest.raises(ValueError, match="at most"):
            await macs.bring(party, np.zeros(MOST_BITS + 1, np.uint8))

    met(too_many).results  # noqa: B018

    async def program(party: Party, _: Pairs, macs: BitMacs) -> Any:
        return await macs.bring(party, random_bits(100))

    def meddle(message: Any) -> Any:
        if message.step.startswith("bits/extension") and message.frm == 1:
            return [message._replace(data=message.data[:50] + bytes([message.data[50] ^ 1]) + message.data[51:])]
        return [message]

    outcome = met(program, tamper=meddle).outcomes[0]
    assert isinstance(outcome, PeerError)
    assert outcome.rank == 1
