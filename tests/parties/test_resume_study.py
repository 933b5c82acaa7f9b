"""A whole computation over connections that break: bit by bit the result of the undisturbed one."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mpc.preprocessing.dealer import DEALER_KEY
from mpc.prg import SEED_BYTES, Prg
from mpc.session import join, serve_dealer
from mpc.transport import Buffer
from parties.mesh import Mesh
from protocols import logistic_regression
from tests.parties.consortium import Consortium, Run
from tests.parties.strait import Straits
from tests.parties.test_resume import LASTING, meet_over

PARTIES = 3
PATIENT = replace(LASTING, receive_seconds=30.0)


def fixed_at(rank: int) -> Callable[[str, bytes], Prg]:
    """Sources that are the same in every run."""

    def fixed(name: str, seed: bytes) -> Prg:
        name = f"dealer {rank}" if name == DEALER_KEY else name  # as the dealer calls the seed of a party
        return Prg(hashlib.blake2b(name.encode(), digest_size=SEED_BYTES).digest())

    return fixed


def rows(rank: int) -> tuple[Any, Any]:
    dice = np.random.default_rng(rank)
    X = dice.normal(size=(60, 2))
    y = (X @ [1.0, -2.0] + dice.normal(size=60) > 0).astype(np.int64)
    return X.clip(-5, 5), y


async def fit(mesh: Mesh, preprocessing: str) -> bytes | None:
    if mesh.rank == PARTIES:
        await serve_dealer(mesh, make_source=fixed_at(mesh.rank))
        return None
    party = await join(mesh, preprocessing=preprocessing, make_source=fixed_at(mesh.rank))
    X, y = rows(mesh.rank)
    result = await logistic_regression(party, X, y, l2=1.0, bound=5.0, steps=7)
    await party.leave()
    return b"".join(part.tobytes() for part in (result.coef, result.std_err, np.float64(result.intercept)))


def test_a_regression_over_cuts_is_bit_for_bit_the_undisturbed_one(run: Run, request: pytest.FixtureRequest) -> None:
    """Without a dealer on one loop, with one on the other."""
    preprocessing = "dealer" if request.node.callspec.params["run"] == "uvloop" else "prss"
    dice = random.Random(7)

    async def fits(*, disturbed: bool) -> tuple[list[bytes], int]:
        reconnects = []
        with Consortium.found(PARTIES, dealer=preprocessing == "dealer") as nodes:
            async with Straits(nodes) as straits:

                async def disturb() -> None:
                    for _ in range(6):
                        await asyncio.sleep(dice.uniform(0.01, 0.1))
                        strait = dice.choice(straits.all)
                        if dice.random() < 0.2:
                            strait.crossings[-1].reset(dice.randrange(2))  # one side alone
                        else:
                            strait.cut()

                async def program(mesh: Mesh) -> bytes | None:
                    disturbing = asyncio.ensure_future(disturb()) if disturbed and mesh.rank == 0 else None
                    result = await fit(mesh, preprocessing)
                    reconnects.append(mesh.reconnects)
                    if disturbing is not None:
                        disturbing.cancel()
                    return result

                patience = replace(PATIENT, heartbeat_seconds=0.2)
                results = await meet_over(nodes, straits, program, patience)
        assert not [result for result in results if isinstance(result, BaseException)], results
        return results[:PARTIES], sum(reconnects)

    async def main() -> None:
        calm, no_reconnects = await fits(disturbed=False)
        stormy, reconnects = await fits(disturbed=True)
        assert no_reconnects == 0
        assert reconnects >= 3
        assert len(set(calm)) == 1
        assert stormy == calm

    run(main())


def test_no_protocol_changes_what_it_has_sent(run: Run) -> None:
    """What is not acknowledged is kept by reference, and may be sent again much later."""

    class Remembers(Mesh):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.sent: list[tuple[str, Buffer, bytes]] = []

        async def send(self, to: int, step: str, data: Buffer) -> None:
            self.sent.append((step, data, bytes(data)))
            await super().send(to, step, data)

    async def main(preprocessing: str) -> None:
        with Consortium.found(PARTIES, dealer=preprocessing == "dealer") as nodes:

            async def one(rank: int) -> None:
                mesh = Remembers(
                    nodes.identities[rank],
                    rank,
                    nodes.members,
                    parties=PARTIES,
                    session=bytes(16),
                    listener=nodes.listeners[rank],
                    patience=PATIENT,
                )
                async with mesh:
                    await fit(mesh, preprocessing)
                    assert len(mesh.sent) > 30
                    for step, data, before in mesh.sent:
                        assert bytes(data) == before, step

            await asyncio.gather(*(one(rank) for rank in range(len(nodes.members))))

    for preprocessing in ("prss", "dealer"):
        run(main(preprocessing))
