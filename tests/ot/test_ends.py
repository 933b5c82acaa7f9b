"""Stock whose extensions are checked: honest ends agree, and a chooser that cheats gets nothing."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpc import F61, Party, PeerError
from mpc.ot import ends as module
from mpc.ot.checking import PROOF_BYTES, SACRIFICED, Transcript, proof
from mpc.ot.ends import ChooserEnd, OffererEnd
from mpc.ot.extension import Chooser, Offerer, corrections_bytes
from mpc.ot.hashing import Hash
from mpc.ot.pads import Numbers
from mpc.ot.pairs import Pairs
from mpc.transport import CHUNK_BYTES
from tests.mpc.support import Run, Tamper, run
from tests.ot.test_pads import uniform
from tests.ot.test_pairs import between_parties, bits, blamed, instead, multiplied, right

DEPTH = 4
KIND = Numbers(F61, 61)
FIRST = (1 << 12) - SACRIFICED  # transfers of the first extension


def checked(rng: np.random.Generator, chooser_type: type[Chooser] = Chooser) -> tuple[ChooserEnd, OffererEnd]:
    """Both ends of one direction: party 0 chooses."""
    keys, delta = rng.integers(0, 256, (128, 2, 16), dtype=np.uint8), rng.integers(0, 2, 128, dtype=np.uint8)
    chooser, sums = chooser_type.from_keys(keys, DEPTH, b"session")
    offerer = Offerer.from_keys(delta, keys[np.arange(128), delta], DEPTH, b"session", sums)
    hashed = [Hash(bytes(16), tweaked=True) for _ in range(2)]
    said = [Transcript(b"session", sums) for _ in range(2)]
    return ChooserEnd(1, chooser, hashed[0], said[0]), OffererEnd(0, offerer, hashed[1], said[1])


def pair_of(rng: np.random.Generator) -> list[Pairs]:
    chooser, offerer = checked(rng)
    return [Pairs([chooser], []), Pairs([], [offerer])]


def test_products(rng: np.random.Generator) -> None:
    """Several extensions, all but their last 256 transfers used."""
    jobs = [(bits(rng, KIND, rows), uniform(rng, F61, rows, 2)) for rows in (3, 0, 100, 200)]
    ran = multiplied(pair_of(rng), KIND, jobs)
    assert right(KIND, jobs, ran.results)
    sizes = [len(m.data) for m in between_parties(ran.log, "transfers/extension")]
    assert sizes == [corrections_bytes(1 << n, DEPTH) + PROOF_BYTES for n in (12, 13, 14)]
    assert {m.frm for m in between_parties(ran.log, "transfers/extension")} == {0}


def test_the_largest_extension_fits_a_message(rng: np.random.Generator) -> None:
    chooser, offerer = checked(rng)

    async def program(party: Party, _: Any) -> Any:
        if party.rank == 0:
            return await chooser.take(party, 150_000)
        return await offerer.take(party, 0, 150_000, np.zeros(18_750, np.uint8), "step")

    ran = run(program, parties=2)
    (first, random, keys), both = ran.results
    assert first == 0
    assert np.array_equal(both[random, np.arange(150_000)], keys)
    sizes = [len(m.data) for m in between_parties(ran.log, "transfers/extension")]
    assert CHUNK_BYTES - 4096 < max(sizes) <= CHUNK_BYTES


def test_random_keys(rng: np.random.Generator) -> None:
    pair, choices = pair_of(rng), rng.integers(0, 2, 300, dtype=np.uint8)

    async def program(party: Party, _: Any) -> np.ndarray:
        if party.rank == 0:
            return await pair[0].choose_keys(party.at("keys"), 1, choices)
        return await pair[1].offer_keys(party.at("keys"), 0, 300)

    ours, both = run(program, parties=2).results
    assert ours.shape == (300, 16)
    assert np.array_equal(both[np.arange(300), choices], ours)
    assert len(np.unique(both.reshape(-1, 16), axis=0)) == 600


# ---- a chooser that cheats --------------------------------------------------------------------------------------


def take_twice(ends: tuple[ChooserEnd, OffererEnd], tamper: Tamper | None = None, count: int = 10) -> Run:
    """Take transfers; where the offerer refuses, it refuses the next ones, too."""

    async def program(party: Party, _: Any) -> Any:
        if party.rank == 0:
            return await ends[0].take(party, count)
        flips = np.zeros(-(-count // 8), np.uint8)
        with pytest.raises(PeerError) as first:
            await ends[1].take(party, 0, count, flips, "first")
        for place in (0, 1 << 20):
            with pytest.raises(PeerError) as again:
                await ends[1].take(party, place, count, flips, "second")
            assert (str(again.value), again.value.rank) == (str(first.value), first.value.rank)
        assert not ends[1]._blocks
        raise first.value

    return run(program, parties=2, tamper=tamper)


def flipped(at: int) -> Callable[[bytes], bytes]:
    def change(message: bytes) -> bytes:
        where = at % len(message)
        return message[:where] + bytes([message[where] ^ 1]) + message[where + 1 :]

    return change


CORRECTIONS = corrections_bytes(1 << 12, DEPTH)


@pytest.mark.parametrize(
    "at", [0, CORRECTIONS // 2, CORRECTIONS - 1, CORRECTIONS, CORRECTIONS + 31, CORRECTIONS + 32, -1]
)
def test_every_part_of_a_message_is_checked(rng: np.random.Generator, at: int) -> None:
    """Corrections, x and y: whoever alters them knows no proof of what comes out."""
    ran = take_twice(checked(rng), instead("transfers/extension", flipped(at)))
    said = blamed(ran, 1, 0, "transfers/extension 0")
    assert "fails its check" in said


@pytest.mark.parametrize(
    "changed",
    [
        lambda m: b"",
        lambda m: m[:-1],
        lambda m: m + b"\0",
        lambda m: m[:-PROOF_BYTES],
        lambda m: m[-PROOF_BYTES:],
        lambda m: m[: PROOF_BYTES - 1],
        lambda m: m[: corrections_bytes(SACRIFICED, DEPTH)] + m[-PROOF_BYTES:],
        lambda m: m * 20,
    ],
    ids=["empty", "short", "long", "no proof", "proof", "part of a proof", "nothing left", "beyond a message"],
)
def test_malformed_extensions(rng: np.random.Generator, changed: Callable[[bytes], bytes]) -> None:
    chooser, offerer = checked(rng)

    async def program(party: Party, _: Any) -> Any:
        if party.rank == 0:
            return await chooser.take(party, 10)
        return await offerer.take(party, 0, 10, np.zeros(2, np.uint8), "first")

    ran = run(program, parties=2, tamper=instead("transfers/extension", changed))
    blamed(ran, 1, 0, "transfers/extension 0")


def test_an_extension_cannot_come_again(rng: np.random.Generator) -> None:
    """A message that passed once is none for the next place."""
    kept: list[bytes] = []

    def again(message: Any) -> list[Any]:
        if "transfers/extension" not in message.step:
            return [message]
        kept.append(message.data)
        return [message._replace(data=kept[0])]

    chooser, offerer = checked(rng)
    # As long as the first, so that only the place differs.
    chooser._growing = chooser._last = 1 << 12

    async def program(party: Party, _: Any) -> Any:
        if party.rank == 0:
            return await chooser.take(party, FIRST + 1)
        await offerer.take(party, 0, FIRST, np.zeros(FIRST // 8, np.uint8), "first")
        return await offerer.take(party, FIRST, 1, np.zeros(1, np.uint8), "second")

    ran = run(program, parties=2, tamper=again)
    assert "fails its check" in blamed(ran, 1, 0, "transfers/extension 1")


class Cheat(ChooserEnd):
    """Means another choice in tree 1 for transfer 0, bets on four bits of delta, and proves it as well as it can."""

    guess = 0

    def cheat(self, count: int) -> bytes:
        assert self.transcript is not None
        corrections, packed, keys = self._chooser.extend(count)
        altered = bytes([corrections[0] ^ 1]) + corrections[1:]
        keys[0, 0] ^= np.uint64(self.guess << DEPTH)
        return altered + proof(self.transcript.challenge(altered), packed, keys)


def test_a_guess_passes_only_if_it_is_right(rng: np.random.Generator) -> None:
    """One in 16: whoever means different things in different trees risks as much as it learns."""
    outcomes, own = [], -1
    for guess in range(1 << DEPTH):
        chooser, offerer = checked(np.random.default_rng(7))
        own = int(offerer._offerer.delta[0]) >> DEPTH & 15
        cheat = Cheat(1, chooser._chooser, chooser.hashed, chooser.transcript)
        cheat.guess = guess
        message = cheat.cheat(512)
        with contextlib.suppress(ValueError):
            assert len(module.keys_of(offerer._offerer, message, offerer.transcript)) == 512 - SACRIFICED
            outcomes.append(guess)
    assert outcomes == [own]


def test_stock_has_a_bound(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chooser that names transfers far ahead cannot make the offerer keep all those before."""
    monkeypatch.setattr(module, "_MOST_STOCK", 10_000)
    chooser, offerer = checked(rng)

    async def program(party: Party, _: Any) -> Any:
        if party.rank == 0:
            return await chooser.take(party, 100_000)
        return await offerer.take(party, 90_000, 8, np.zeros(1, np.uint8), "first")

    ran = run(program, parties=2)
    assert "more transfers than are kept" in blamed(ran, 1, 0, "transfers/extension 2")
    assert offerer._made < 20_000
