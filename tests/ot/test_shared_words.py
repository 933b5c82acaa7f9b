"""Uniform words and products from stocks in common: right, whoever asks first, and never taken twice."""

import asyncio
import functools
from typing import Any

import numpy as np
import pytest

from mpc import Party, PeerError
from mpc.authenticated_words import masks
from mpc.ot.bit_macs import BitMacs
from mpc.ot.common_stock import CommonStock
from mpc.ot.macs import Macs
from mpc.ot.pairs import Pairs
from mpc.ot.shared_words import SharedWords
from mpc.words import W64
from tests.mpc.support import Message, Run, run
from tests.ot.test_bit_macs import caught, key_of, met


def seated(program: Any, *, parties: int = 2, tamper: Any = None) -> Run:
    async def whole(party: Party, pairs: Pairs, _: BitMacs) -> Any:
        words = SharedWords(pairs, Macs(pairs))
        words.sit(party.at("shared"))
        return await program(party, words)

    return met(whole, parties=parties, tamper=tamper)


def opened(summands: list[Any], key: int) -> np.ndarray:
    values = functools.reduce(np.bitwise_xor, [x["value"] for x in summands])
    tags = functools.reduce(np.bitwise_xor, [x["mac"] for x in summands])
    np.testing.assert_array_equal(tags, masks(values) & np.uint64(key))
    return np.asarray(values)


def keys_of(party: Party) -> Any:
    return party.over(W64).public_mac(np.array([1], np.uint64))[0, :1]  # type: ignore[attr-defined]


@pytest.mark.parametrize("parties", [2, 3])
def test_products_of_uniform_words(parties: int) -> None:
    async def program(party: Party, words: SharedWords) -> Any:
        a = await words.uniform(party.at("a"), (3, 1, 2))
        b = await words.uniform(party.at("b"), (4, 2))
        none = await words.uniform(party.at("none"), (0, 2))
        c = await words.product(party.at("c"), a, b)
        assert (await words.product(party.at("none"), none, none)).shape == none.shape == (0, 2)
        await party.verify()
        return keys_of(party), a, b, c

    keys, *results = zip(*seated(program, parties=parties).results, strict=True)
    a, b, c = (opened(list(summands), key_of(keys)) for summands in results)
    np.testing.assert_array_equal(c, a & b)
    assert len(set(a.flat) | set(b.flat)) == a.size + b.size


def test_side_by_side_in_any_order() -> None:
    """Parties ask in orders of their own, for more than a batch has."""

    async def program(party: Party, words: SharedWords) -> Any:
        scopes = [party.at(f"job {k}") for k in range(6)]

        async def one(k: int) -> Any:
            for _ in range((k * (party.rank + 1)) % 5):
                await asyncio.sleep(0)
            return await words.product(
                scopes[k].at("c"), await words.uniform(scopes[k].at("a"), (7,)), await words.uniform(scopes[k], (7,))
            )

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(k)) for k in (range(6) if party.rank else reversed(range(6)))]
        await party.verify()
        found = [task.result() for task in tasks]
        return keys_of(party), *(found if party.rank else found[::-1])

    keys, *results = zip(*seated(program, parties=3).results, strict=True)
    for summands in results:
        opened(list(summands), key_of(keys))


def test_who_changes_a_summand_is_caught() -> None:
    async def program(party: Party, words: SharedWords) -> Any:
        a = await words.uniform(party.at("a"), (2,))
        if party.rank:
            a["value"][1] ^= np.uint64(1 << 17)
        await words.product(party.at("c"), a, a)
        await party.verify()

    assert caught(seated(program).outcomes)


# ---- the stock ------------------------------------------------------------------------------------------------------


async def numbers(scope: Party, count: int) -> list[Any]:
    return [np.arange(count) + 1000 * int(scope.path.rpartition(".")[2] if "." in scope.path else 1)]


def test_what_is_taken_follows_the_leader() -> None:
    async def program(party: Party, _: Any) -> Any:
        stock = CommonStock(party.at("stock"), numbers, 2, 4)
        return [(await stock.take(party, count))[0].tolist() for count in (1, 2, 4, 1)]

    for result in run(program, parties=3).results:
        assert result == [[1000], [1001, 2000], [2001, 2002, 2003, 3000], [3001]]


@pytest.mark.parametrize("place", [0, 1, 1 << 40, (1 << 64) - 1])
def test_places_that_are_taken_or_are_none(place: int) -> None:
    def other(message: Message) -> list[Message]:
        if "/place#2" in message.step:
            return [message._replace(data=place.to_bytes(8, "little"))]
        return [message]

    async def program(party: Party, _: Any) -> Any:
        stock = CommonStock(party.at("stock"), numbers, 2, 4)
        await stock.take(party, 2)
        return (await stock.take(party, 3))[0].tolist()

    outcomes = run(program, parties=2, tamper=other).outcomes
    assert isinstance(outcomes[1], PeerError)
    assert outcomes[1].rank == 0


def test_unlike_places_are_found() -> None:
    """Party 0 sends the parties to different places."""

    def unlike(message: Message) -> list[Message]:
        if message.to == 2 and message.step.startswith("c/place"):
            return [message._replace(data=(1).to_bytes(8, "little"))]
        return [message]

    async def program(party: Party, words: SharedWords) -> Any:
        a = await words.uniform(party.at("a"), (2,))
        await words.product(party.at("c"), a, a)
        await party.verify()

    assert caught(seated(program, parties=3, tamper=unlike).outcomes)
