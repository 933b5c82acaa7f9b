"""Coins of parties that may cheat: the same at all, fixed before they are shown, and thrown once."""

from typing import Any

import numpy as np
import pytest

from mpc import CheatingError, Party, PeerError, multiply, open_
from mpc.coins import toss
from mpc.field import F61
from tests.mpc.support import Message, run


def malicious(program: Any, parties: int = 2, **options: Any) -> Any:
    return run(program, [None] * parties, preprocessing="ot", security="malicious", **options)


def altered(step: str) -> Any:
    """Change the last bit of what party 1 sends party 0 at a step."""

    def tamper(message: Message) -> list[Message]:
        if message.frm == 1 and message.to == 0 and step in message.step:
            return [message._replace(data=message.data[:-1] + bytes([message.data[-1] ^ 1]))]
        return [message]

    return tamper


@pytest.mark.parametrize("parties", [2, 3])
def test_all_have_the_same_coin_and_each_coin_is_another(parties: int) -> None:
    async def program(party: Party, _: Any) -> list[int]:
        coins = [await toss(party.at("scope"), name) for name in ("coin", "coin", "other")]
        coins.append(await toss(party, "coin"))
        return [int(F61.decode(coin.stream("x").elements(F61, (1,)))[0]) for coin in coins]

    results = malicious(program, parties).results
    assert all(found == results[0] for found in results)
    assert len(set(results[0])) == 4


@pytest.mark.parametrize(
    ("step", "said"),
    [("hash#1.show", "had committed to"), ("hash#1.commit", "had committed to"), ("extension", "cheats")],
)
def test_who_breaks_a_coin_or_an_extension_gets_no_second_one(step: str, said: str) -> None:
    """Also in a program that goes on, which none of ours does."""
    seen = []

    async def program(party: Party, _: Any) -> None:
        x = party.constant(np.array([2.0]))
        try:
            await multiply(party.at("once"), x, x)
        except PeerError as error:
            if party.rank == 0:
                seen.append((error.rank, str(error)))
                with pytest.raises(CheatingError, match="failed before"):
                    await open_(party, x)
            raise

    malicious(program, tamper=altered(step)).outcomes  # noqa: B018
    ((rank, text),) = seen
    assert rank == 1
    assert said in text


def test_a_coin_takes_parties_that_may_cheat() -> None:
    async def program(party: Party, _: Any) -> None:
        with pytest.raises(TypeError, match="cheat"):
            await toss(party)

    run(program, [None] * 2, preprocessing="dealer").results  # noqa: B018
