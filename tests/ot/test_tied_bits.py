"""Bits of elements and packed bits are the same, and who brings others is found."""

import functools
from typing import Any

import numpy as np
import pytest

from mpc import F127, Party
from mpc.ot import tied_bits as module
from mpc.ot.bit_macs import Bits, join_bits, random_bits
from mpc.ot.shared_words import SharedWords
from mpc.ot.tied_bits import TESTS, bring, tie
from mpc.words import unpack_bits
from tests.mpc.support import Run, run
from tests.ot.test_bit_macs import caught, key_of
from tests.ot.test_shared_words import keys_of, opened


def seated(program: Any, *, parties: int = 2) -> Run:
    async def whole(party: Party, _: Any) -> Any:
        source: Any = party.preprocessing
        words = SharedWords(source._pairs, source._macs)
        words.sit(party.at("shared"))
        return await program(party, words)

    return run(whole, parties=parties, preprocessing="ot", security="malicious")


async def apart(party: Party, words: SharedWords, bits: np.ndarray) -> Any:
    """Give MACs to elements that are bits, each party's own apart: shape ``(parties, *shape)``."""
    field: Any = party.over(F127)
    own = field.public.encode(bits.reshape(-1).astype(np.int64))
    found, _ = await words._elements.authenticate(party.at("apart"), field, own, bits=True, apart=True)
    return found.reshape(party.size, *bits.shape)


@pytest.mark.parametrize("parties", [2, 3])
def test_planes(parties: int) -> None:
    height, size = 3, 70

    async def program(party: Party, words: SharedWords) -> Any:
        bits = random_bits(height * size).reshape(height, size)
        summands = await apart(party, words, bits)
        planes = await words.planes(party.at("planes"), party.over(F127), summands)  # type: ignore[arg-type]
        await party.verify()
        return keys_of(party), bits, planes

    keys, bits, planes = zip(*seated(program, parties=parties).results, strict=True)
    for rank in range(parties):
        values = opened([of[rank] for of in planes], key_of(keys))
        np.testing.assert_array_equal(unpack_bits(values, size), bits[rank])
        for other in range(parties):
            assert other == rank or not planes[other][rank]["value"].any()


@pytest.mark.parametrize("parties", [2, 3])
def test_signs(parties: int) -> None:
    count = 70

    async def program(party: Party, words: SharedWords) -> Any:
        mask = await words.uniform(party.at("mask"), (2,))
        signs = await words.signs(party.at("signs"), party.over(F127), mask, count)  # type: ignore[arg-type]
        field: Any = party.over(F127)
        await party.verify()
        return mask, signs, field.public_mac(F127.encode([1]))

    masks, signs, keys = zip(*seated(program, parties=parties).results, strict=True)
    bits = unpack_bits(functools.reduce(np.bitwise_xor, [mask["value"] for mask in masks]), count)
    total, tags, alpha = (
        functools.reduce(F127.add, parts)
        for parts in ([sign["value"] for sign in signs], [sign["mac"] for sign in signs], list(keys))
    )
    np.testing.assert_array_equal(F127.decode(total).astype(int), 1 - 2 * bits.astype(int))
    assert F127.equal(tags, F127.mul(total, alpha)).all()


@pytest.mark.parametrize("where", ["elements", "packed", "both", "mended"])
def test_bits_that_differ_are_found(where: str) -> None:
    """Party 0 brings others than its elements. Where it changes both, they are the same again; where it says so of the
    packed bits afterwards, parities are, and MACs are wrong.
    """

    async def program(party: Party, words: SharedWords) -> Any:
        bits, field = random_bits(90), party.over(F127)
        changed = bits ^ (np.arange(90) == 50).astype(np.uint8)
        first = party.rank == 0
        summands = await apart(party, words, changed if first and where in ("elements", "both") else bits)
        macs = await words.macs()
        ours = changed if first and where != "elements" else bits
        own, numbers = await bring(party.at("bring"), field, words._elements, macs, ours, 180)  # type: ignore[arg-type]
        packed = join_bits([own.of(rank, macs.key) for rank in range(party.size)])
        if first and where == "mended":
            packed.values[50] ^= np.uint8(1)
        await tie(party.at("tie"), field, macs, summands.reshape(-1), packed, numbers)  # type: ignore[arg-type]
        if where in ("elements", "packed"):
            raise AssertionError("it must have been found by now")
        await party.verify()

    outcomes = seated(program).outcomes
    assert outcomes == [None, None] if where == "both" else caught(outcomes)


def test_two_cheaters_cannot_change_both_of_their_bits() -> None:
    """Their sum would be as even as it was, but not the number that they are bits of."""

    async def program(party: Party, words: SharedWords) -> Any:
        bits = random_bits(90).reshape(1, 90)
        summands = await apart(party, words, bits)
        if party.rank != 1:
            summands["value"][party.rank, 0, 7] = F127.sub(F127.encode(1), summands["value"][party.rank, 0, 7])
        await words.planes(party.at("planes"), party.over(F127), summands)  # type: ignore[arg-type]
        await party.verify()

    assert caught(seated(program, parties=3).outcomes)


def test_parities() -> None:
    rng = np.random.default_rng(3)
    bits = Bits(rng.integers(0, 2, 300, dtype=np.uint8), rng.integers(0, 1 << 63, 300, dtype=np.uint64))
    chosen = rng.integers(0, 2, (TESTS, 300), dtype=np.uint8)
    found = module._parity(bits, chosen)
    for test in range(TESTS):
        picked = chosen[test].astype(bool)
        assert found.values[test] == bits.values[picked].sum() % 2
        assert found.macs[test] == np.bitwise_xor.reduce(bits.macs[picked])
