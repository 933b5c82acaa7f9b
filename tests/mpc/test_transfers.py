"""Computing over oblivious transfer: with real base transfers, at its documented cost, and with peers that fail."""

import re
from collections.abc import Callable
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest

from mpc import AgreementError, Party, PeerError, is_negative, mask, matmul, multiply, open_, shuffle, sigmoid
from mpc.costs import StepCost
from mpc.sigmoid import series
from tests.mpc.support import Message, of_transfers, run, same, shares_of


async def one_of_each(party: Party, _: Any) -> Any:
    x, y = await shares_of(party, [np.array([3, -5, 0, 7]), np.array([2.5, -1.0, 4.0, 0.125])], 8)
    z = await multiply(party, x, y)
    whole = await matmul(party, x.reshape(2, 2), x.reshape(2, 2))
    return await open_(
        party, z, whole, await is_negative(party, x), await sigmoid(party, y), (await shuffle(party, [x]))[0]
    )


@pytest.mark.usefixtures("real_base")
@pytest.mark.parametrize("parties", [2, 3])
def test_with_base_transfers_as_they_are(parties: int) -> None:
    """The other tests in one process let trusted keys take their place."""
    done = run(one_of_each, parties=parties, preprocessing="ot")
    z, whole, negative, p, shuffled = (same(list(results)) for results in zip(*done.results, strict=True))
    np.testing.assert_array_equal(z, [7.5, 5.0, 0.0, 0.875])
    np.testing.assert_array_equal(whole, np.array([[3, -5], [0, 7]]) @ np.array([[3, -5], [0, 7]]))
    np.testing.assert_array_equal(negative, [0, 1, 0, 0])
    np.testing.assert_allclose(p, 1 / (1 + np.exp([-2.5, 1.0, -4.0, -0.125])), atol=2e-4)
    assert sorted(shuffled) == [-5, 0, 3, 7]
    # Two points of 32 bytes an instance, from either end.
    base = [m for m in done.log if m.step in ("join/ot/points", "join/ot/pairs")]
    assert {len(m.data) for m in base} == {128 * 2 * 32}
    assert len(base) == parties * (parties - 1)


# ---- costs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parties", [2, 3])
def test_transfers_of_products(parties: int) -> None:
    """To each other party one element for each bit, a choice bit for each bit; two rounds a product."""

    async def program(party: Party, _: Any) -> None:
        x, y = await shares_of(party, [np.zeros(7, int), np.zeros((2, 7), int)], 100)
        await multiply(party, x, y)
        before = party.costs.total
        assert party.costs.by_step["product/part/transfers"].rounds == 2
        await multiply(party.at("known"), await mask(party, x), await mask(party, y))
        assert party.costs.since(before).rounds == 2 + 2

    done = run(program, parties=parties, preprocessing="ot")
    done.results  # noqa: B018
    for rank in range(parties):
        to = [m for m in done.sent if (m.frm, m.to) == (rank, (rank + 1) % parties)]
        corrections = [len(m.data) for m in to if "/corrections." in m.step]
        assert corrections == [16 * 127 * 14] * 2
        # The 7 entries of x are multiplied by two rows each.
        assert [len(m.data) for m in to if "/choices." in m.step] == [8 + -(-7 * 127 // 8)] * 2
    assert {m.step for m in done.sent_after_inputs() if of_transfers(m.step)} > {"transfers/extension 0"}


@pytest.mark.parametrize("parties", [2, 3])
def test_transfers_of_a_sigmoid_and_a_comparison(parties: int) -> None:
    async def program(party: Party, _: Any) -> None:
        (x,) = await shares_of(party, [np.zeros(64, int)], 20)
        await sigmoid(party, x)
        await is_negative(party, x)

    done = run(program, parties=parties, preprocessing="ot")
    done.results  # noqa: B018
    count = len(series(22.0, 1e-4)[1])
    for frm, to in permutations(range(parties), 2):
        sent = [m for m in done.sent if (m.frm, m.to) == (frm, to) and "/corrections." in m.step]
        waves = sum(len(m.data) for m in sent if m.step.startswith("waves/"))
        signs = sum(len(m.data) for m in sent if "/signs/" in m.step)
        # 4 elements for each bit of half the scale and 2 more; one element for each sign; party by party.
        assert (waves, signs) == ((64 * count * 4 * 22 * 16, 64 * 16) if frm < to else (0, 0))
    steps = done.parties[0].costs.by_step
    assert sum(cost.rounds for name, cost in steps.items() if name.startswith("waves/party")) == parties
    assert steps.get("waves/truncate", StepCost()).rounds == parties - 2


# ---- faults -----------------------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[Message], list[Message]]] = {
    "missing": lambda m: [],
    "shorter": lambda m: [m._replace(data=m.data[:-1])],
    "longer": lambda m: [m._replace(data=m.data + b"\0")],
    "empty": lambda m: [m._replace(data=b"")],
    "all bits": lambda m: [m._replace(data=b"\xff" * len(m.data))],
    "repeated": lambda m: [m, m],
}


@pytest.mark.usefixtures("real_base")
@pytest.mark.parametrize(
    ("step", "change"),
    [
        *product(["join/ot/points", "join/ot/pairs", "product.*/choices", "product.*/corrections"], CHANGES),
        # Any bits of this length are as good as others.
        *product(
            ["join/ot/trees", "join/ot/trees back", "transfers/extension 0"], [c for c in CHANGES if c != "all bits"]
        ),
    ],
)
def test_a_peer_that_fails_is_named(step: str, change: str) -> None:
    met: list[Message] = []

    def tamper(message: Message) -> list[Message]:
        if re.search(step + "(\\.0)?$", message.step) and not met:
            met.append(message)
            return CHANGES[change](message)
        return [message]

    done = run(one_of_each, parties=2, preprocessing="ot", tamper=tamper, timeout_seconds=2.0)
    (sent,) = met
    at_receiver = done.outcomes[sent.to]
    assert isinstance(at_receiver, PeerError), at_receiver
    assert at_receiver.rank == sent.frm
    assert f"party {sent.frm}" in str(at_receiver)
    assert all(isinstance(outcome, PeerError | AgreementError) for outcome in done.outcomes)
