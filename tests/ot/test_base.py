"""Base transfers: who gets which key, what a dishonest end can send, and what the sender sees."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from nacl import bindings as sodium

from mpc.errors import PeerError
from mpc.memory import MemoryNetwork
from mpc.ot import base
from mpc.ot.link import Link

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
ZERO = (1).to_bytes(32, "little")
SMALL = [
    ZERO,
    bytes(32),  # order 4
    (P - 1).to_bytes(32, "little"),  # order 2
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),  # order 8
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
]
NOT_CANONICAL = [
    (P + 1).to_bytes(32, "little"),
    P.to_bytes(32, "little"),
    (2**255 - 1).to_bytes(32, "little"),
    (1 + 2**255).to_bytes(32, "little"),  # zero with a sign
    bytes([255] * 32),
]
OFF_THE_CURVE = [(2).to_bytes(32, "little"), (7).to_bytes(32, "little")]


def point(n: int) -> bytes:
    return sodium.crypto_scalarmult_ed25519_base_noclamp(n.to_bytes(32, "little"))


MIXED = [sodium.crypto_core_ed25519_add(point(5), small) for small in SMALL[1:]]


def links(session: bytes = b"session", ranks: tuple[int, int] = (0, 1)) -> tuple[Link, Link]:
    network = MemoryNetwork(max(ranks) + 1, timeout_seconds=5)
    first, second = ranks
    return (
        Link.of(network.transport(first), second, session, "base 0-1"),
        Link.of(network.transport(second), first, session, "base 0-1"),
    )


def together(*ends: Awaitable[Any]) -> list[Any]:
    async def both() -> list[Any]:
        return await asyncio.gather(*ends, return_exceptions=True)

    return asyncio.run(both())


@pytest.mark.parametrize("ranks", [(0, 1), (3, 1)])
def test_receiver_gets_the_keys_of_its_choice(rng: np.random.Generator, ranks: tuple[int, int]) -> None:
    choices = np.array([0, 1, 1, 0, *rng.integers(0, 2, 16)], np.uint8)
    ours, theirs = links(ranks=ranks)
    keys, known = together(base.send(ours, 20), base.receive(theirs, choices))
    assert (keys.shape, keys.dtype, known.shape, known.dtype) == ((20, 2, 16), np.uint8, (20, 16), np.uint8)
    assert np.array_equal(keys[np.arange(20), choices], known)
    assert len(np.unique(keys.reshape(40, 16), axis=0)) == 40


def test_no_transfers_at_all() -> None:
    ours, theirs = links()
    keys, known = together(base.send(ours, 0), base.receive(theirs, np.zeros(0, np.uint8)))
    assert (keys.shape, known.shape) == ((0, 2, 16), (0, 16))


def test_one_round_and_64_bytes_each() -> None:
    """Neither end waits for the other before it sends."""
    sent: list[tuple[int, str, int]] = []

    def end(rank: int) -> Link:
        async def send(step: str, data: Any) -> None:
            sent.append((rank, step, len(data)))

        async def receive(step: str, size: int) -> Any:
            raise PeerError("nothing came", rank=1 - rank, step=step)

        return Link(rank, 1 - rank, b"s", send, receive)

    together(base.send(end(0), 128), base.receive(end(1), np.zeros(128, np.uint8)))
    assert sent == [(0, "points", 128 * 64), (1, "pairs", 128 * 64)]


@pytest.mark.parametrize("what", ["session", "ranks"])
def test_keys_belong_to_session_and_ranks(what: str) -> None:
    """Messages that were made for another session or for other parties give keys that do not match."""
    ours, theirs = links()
    other = Link(5, 0, b"session", theirs.send, theirs.receive) if what == "ranks" else None
    other = other or Link(1, 0, b"other", theirs.send, theirs.receive)
    keys, known = together(base.send(ours, 4), base.receive(other, np.array([0, 1, 0, 1], np.uint8)))
    assert not (keys == known[:, None]).all(axis=-1).any()


def test_choices_are_bits() -> None:
    for wrong in ([0, 2], [[0, 1]], [0.0, 1.0]):
        (error,) = together(base.receive(links()[0], np.array(wrong, np.float64 if wrong[0] == 0.0 else np.uint8)))
        assert isinstance(error, ValueError)


# What a dishonest end may send


async def says(link: Link, step: str, message: bytes) -> None:
    await link.send(step, message)


@pytest.mark.parametrize("wrong", [*SMALL, *NOT_CANONICAL, *OFF_THE_CURVE, *MIXED], ids=lambda wrong: wrong.hex()[:8])
def test_wrong_points_are_refused(wrong: bytes) -> None:
    for place in (0, 1, 3):
        pairs = [point(7 + n) for n in range(4)]
        pairs[place] = wrong
        ours, theirs = links()
        error, _ = together(base.send(ours, 2), says(theirs, "pairs", b"".join(pairs)))
        assert isinstance(error, PeerError)
        assert (error.rank, error.step) == (1, "base 0-1/pairs")
    ours, theirs = links()
    error, _ = together(base.receive(ours, np.zeros(2, np.uint8)), says(theirs, "points", point(3) * 3 + wrong))
    assert isinstance(error, PeerError)
    assert (error.rank, error.step) == (1, "base 0-1/points")


@pytest.mark.parametrize("size", [0, 32, 127, 129, 192])
def test_wrong_lengths_are_refused(size: int) -> None:
    ours, theirs = links()
    error, _ = together(base.send(ours, 2), says(theirs, "pairs", (point(3) * 6)[:size]))
    assert isinstance(error, PeerError)
    ours, theirs = links()
    error, _ = together(base.receive(ours, np.zeros(2, np.uint8)), says(theirs, "points", (point(3) * 6)[:size]))
    assert isinstance(error, PeerError)


def test_a_sum_that_is_zero_is_refused() -> None:
    """A receiver that sends r_0 = -H_0(r_1) would know key 0 without any x; it is named instead."""
    ours, theirs = links()
    context = base._context(b"session", 0, 1, 1)
    other = point(9)
    hashed = base._into_group(context, 0, 0, other)
    negative = sodium.crypto_core_ed25519_sub(sodium.crypto_core_ed25519_sub(other, hashed), other)
    error, _ = together(base.send(ours, 1), says(theirs, "pairs", negative + other))
    assert isinstance(error, PeerError)
    assert error.rank == 1


# What is hashed


def test_hashes_into_the_group() -> None:
    """Points of the group, other ones for every part of what is hashed; the first is frozen."""
    context = base._context(b"session", 0, 1, 128)
    made = [base._into_group(context, n, b, point(k)) for n in (0, 1) for b in (0, 1) for k in (1, 2)]
    made += [
        base._into_group(base._context(*said), 0, 0, point(1))
        for said in ((b"session", 1, 0, 128), (b"session", 0, 1, 127), (b"sessioN", 0, 1, 128))
    ]
    assert all(sodium.crypto_core_ed25519_is_valid_point(p) for p in made)
    assert len(set(made)) == len(made)
    assert made[0].hex() == "cdadd65001885125f7ec2be792df8bd15dae843b0e290a1b18900357874741e4"


def test_vector_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen, with scalars that are not random: both ends, and later versions, must make the same keys."""
    for b in (0, 1):
        numbers = iter(range(2, 100))
        monkeypatch.setattr(base, "_scalar", lambda numbers=numbers: next(numbers).to_bytes(32, "little"))
        ours, theirs = links()

        async def one_after_the_other(ours: Link = ours, theirs: Link = theirs, b: int = b) -> list[Any]:
            sender = asyncio.ensure_future(base.send(ours, 3))
            await asyncio.sleep(0)
            return [await base.receive(theirs, np.full(3, b, np.uint8)), await sender]

        known, keys = asyncio.run(one_after_the_other())
        assert np.array_equal(keys[:, b], known)
        digest = hashlib.blake2b(keys.tobytes(), digest_size=8).hexdigest()
        assert digest == ("53473c3524b45de2", "bd39b11157db43f5")[b]


def test_scalars_are_reduced() -> None:
    drawn = [int.from_bytes(base._scalar(), "little") for _ in range(200)]
    assert max(drawn) < ORDER
    assert len(set(drawn)) == 200
    assert abs(sum(drawn) / 200 / ORDER - 0.5) < 6 * (1 / 12 / 200) ** 0.5  # misses once in 5e8


def test_sender_sees_nothing_of_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The group of 13 elements, all scalars tried: the pair that is sent is distributed alike for both choices."""
    q = 13

    def number(encoded: bytes) -> int:
        return int.from_bytes(encoded, "little")

    def encoded(value: int) -> bytes:
        return (value % q).to_bytes(32, "little")

    toy_group = SimpleNamespace(
        crypto_scalarmult_ed25519_base_noclamp=encoded_of_scalar(encoded, number),
        crypto_core_ed25519_add=lambda x, y: encoded(number(x) + number(y)),
        crypto_core_ed25519_sub=lambda x, y: encoded(number(x) - number(y)),
        crypto_core_ed25519_from_uniform=lambda digest: encoded(number(digest)),
    )
    monkeypatch.setattr(base, "sodium", toy_group)

    async def nothing(step: str, size: int) -> Any:
        raise PeerError("enough", rank=0, step=step)

    def seen(b: int) -> Counter[bytes]:
        views: Counter[bytes] = Counter()
        for scalars in product(range(q), repeat=2):
            drawn = iter(scalars)
            monkeypatch.setattr(base, "_scalar", lambda drawn=drawn: encoded(next(drawn)))

            async def keep(step: str, data: Any) -> None:
                views[bytes(data)] += 1

            together(base.receive(Link(1, 0, b"toy", keep, nothing), np.array([b], np.uint8)))
        return views

    assert seen(0) == seen(1)
    assert set(seen(0).values()) == {1}  # and uniform over all pairs
    # A receiver that forgets its x is seen through: the test can tell.
    monkeypatch.setattr(toy_group, "crypto_core_ed25519_sub", lambda x, y: encoded(-number(y)))
    assert seen(0) != seen(1)


def encoded_of_scalar(encoded: Any, number: Any) -> Any:
    return lambda scalar: encoded(number(scalar))


def test_links_say_where_they_are() -> None:
    ours, _ = links(b"a session")
    assert repr(ours) == "Link(party_rank=0, other=1, prefix='base 0-1')"
    assert ours.step("pairs") == "base 0-1/pairs"
