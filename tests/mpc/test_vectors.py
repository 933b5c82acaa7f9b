"""Frozen transcripts: with fixed seeds every byte on the wire is what it was, also after the next optimisation.

Where one of these changes, parties of two versions no longer understand each other: PROTOCOL_VERSION goes up.
"""

import hashlib
from typing import Any

import numpy as np
import pytest

from mpc import F61, Party, is_negative, mask, matmul, multiply, open_, sigmoid, truncate
from mpc.session import PROTOCOL_VERSION
from tests.mpc.support import Run, run, seeded, shares_of

X = np.array([1.5, -2.25, 0.0, 1024.0])
N = np.array([[3, -1], [2**20, 0]])


def transcript(done: Run) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for frm, to, step, data in sorted(done.sent):
        digest.update(f"{frm} {to} {step} {len(data)} ".encode() + data)
    return digest.hexdigest()


async def small_opening(party: Party) -> Any:
    x, n = await shares_of(party, [X, N], 2**20)
    return await open_(party, x, n[0]), await open_(party, n, to=[1])


async def large_opening(party: Party) -> Any:
    x = await party.share(np.arange(20_000) if party.rank == 0 else None, bound=2**20, owner=0)
    return await open_(party, x)


async def product(party: Party) -> Any:
    x, n = await shares_of(party, [X, N], 2**20)
    small = await party.share(N if party.rank == 1 else None, bound=2**20, owner=1, field=F61)
    await multiply(party, small, small)
    return await open_(party, await multiply(party.at("work"), x, x[:1]), await matmul(party, n, n.T))


async def fixed_point(party: Party) -> Any:
    (x,) = await shares_of(party, [X], 2**11)
    y = await truncate(party, await multiply(party, x, x))
    kept = await mask(party, x)
    return await open_(party, await truncate(party, await multiply(party, y.bounded_by(2**20), kept), to=20))


async def wave(party: Party) -> Any:
    (x,) = await shares_of(party, [X[:3]], 8)
    return await open_(party, await sigmoid(party, x))


async def signs(party: Party) -> Any:
    (x,) = await shares_of(party, [X], 2**11)
    return await open_(party, await is_negative(party, x))


FROZEN = {
    ("small_opening", 2, "dealer"): "a3c0fac550706b11",
    ("small_opening", 3, "dealer"): "453f29b2039d527d",
    ("small_opening", 3, "prss"): "453f29b2039d527d",
    ("small_opening", 5, "prss"): "7c30d00db89dd570",
    ("large_opening", 2, "dealer"): "9d872ce3755d7299",
    ("large_opening", 3, "dealer"): "8b909a0b2a3fff65",
    ("large_opening", 3, "prss"): "8b909a0b2a3fff65",
    ("large_opening", 5, "prss"): "24099bf1a4f394fa",
    ("product", 2, "dealer"): "0d304c2a9af3e970",
    ("product", 3, "dealer"): "689a38f6c41916c7",
    ("product", 3, "prss"): "a2444d103cae5b69",
    ("product", 5, "prss"): "344b7736b942dd25",
    ("fixed_point", 2, "dealer"): "d3ca132dec9064a4",
    ("fixed_point", 3, "dealer"): "fbdf0df9b8c1894d",
    ("fixed_point", 3, "prss"): "aefd7536b6fc65e7",
    ("fixed_point", 5, "prss"): "7425427d8dacf3d1",
    ("wave", 2, "dealer"): "e92ad302b28c893c",
    ("wave", 3, "dealer"): "094dc8d7bfd3b52c",
    ("wave", 3, "prss"): "b461a0dcea8e24c2",
    ("wave", 5, "prss"): "14d543cbb18d8348",
    ("signs", 2, "dealer"): "cbf2eaf14ef74671",
    ("signs", 3, "dealer"): "158521d859cc0fa6",
    ("signs", 3, "prss"): "68b1fd448ae2c7ee",
    ("signs", 5, "prss"): "fd8dc089e96d7398",
}


@pytest.mark.parametrize(("parties", "preprocessing"), [(2, "dealer"), (3, "dealer"), (3, "prss"), (5, "prss")])
@pytest.mark.parametrize(
    "work", [small_opening, large_opening, product, fixed_point, wave, signs], ids=lambda w: w.__name__
)
def test_transcript(work: Any, parties: int, preprocessing: str) -> None:
    async def program(party: Party, _: Any) -> Any:
        return await work(party)

    done = run(program, parties=parties, preprocessing=preprocessing, make_source=seeded("vectors"))
    done.results  # noqa: B018
    assert transcript(done) == FROZEN[work.__name__, parties, preprocessing]


def test_version() -> None:
    assert PROTOCOL_VERSION == 1
