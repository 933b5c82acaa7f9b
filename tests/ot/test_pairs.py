"""Products between two parties: right in any number of messages, with every transfer used once, and private."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from mpc import F61, F127, GF, Field, Party, PeerError
from mpc.errors import for_peers
from mpc.field import FieldArray
from mpc.indices import R32
from mpc.ot import pairs as module
from mpc.ot.ends import ChooserEnd, OffererEnd
from mpc.ot.extension import Chooser, Offerer, corrections_bytes, most_transfers
from mpc.ot.hashing import Hash
from mpc.ot.pads import Ands, Kind, Numbers
from mpc.ot.pairs import Pairs
from mpc.transport import CHUNK_BYTES
from mpc.words import W64
from tests.mpc.support import Message, Run, Tamper, run
from tests.ot.test_pads import FakeHash, numbers, products, uniform

KINDS: list[Kind] = [Numbers(F127, 127), Numbers(F61, 9), Numbers(R32, 32), Numbers(GF(7), 2), Numbers(W64, 1), Ands()]
DEPTH = 4


def pair_of(rng: np.random.Generator) -> list[Pairs]:
    """Our own ends of two parties, as if they had met."""
    ends: list[tuple[ChooserEnd, OffererEnd]] = []
    for rank in (0, 1):
        keys, delta = rng.integers(0, 256, (128, 2, 16), dtype=np.uint8), rng.integers(0, 2, 128, dtype=np.uint8)
        chooser, sums = Chooser.from_keys(keys, DEPTH, b"session")
        chosen = keys[np.arange(128), delta]
        offerer = Offerer.from_keys(delta, chosen, DEPTH, b"session", sums)
        hashed = [Hash(bytes([rank] * 16)) for _ in range(2)]
        ends.append((ChooserEnd(1 - rank, chooser, hashed[0]), OffererEnd(rank, offerer, hashed[1])))
    return [Pairs([ends[rank][0]], [ends[1 - rank][1]]) for rank in (0, 1)]


def bits(rng: np.random.Generator, kind: Kind, rows: int) -> np.ndarray:
    return rng.integers(0, 2, (rows, kind.transfers), dtype=np.uint8)


def multiplied(
    pair: Sequence[Pairs],
    kind: Kind,
    jobs: Sequence[tuple[np.ndarray, FieldArray]],
    *,
    tamper: Tamper | None = None,
) -> Run:
    """Party 0 chooses and party 1 offers, in each of the jobs at the same time; one scope each."""

    async def program(party: Party, _: Any) -> list[FieldArray]:
        async def choose(scope: Party, choices: np.ndarray, width: int) -> FieldArray:
            return await (await pair[0].choose(scope, 1, kind, choices, width)).finish()

        scopes = [party.at(f"job {number}") for number in range(len(jobs))]
        if party.rank == 0:
            doing = [
                choose(scope, choices, values.shape[1]) for scope, (choices, values) in zip(scopes, jobs, strict=True)
            ]
        else:
            doing = [pair[1].offer(scope, 0, kind, values) for scope, (_, values) in zip(scopes, jobs, strict=True)]
        return list(await asyncio.gather(*doing))

    return run(program, parties=2, tamper=tamper)


def right(kind: Kind, jobs: Sequence[tuple[np.ndarray, FieldArray]], results: Sequence[Sequence[FieldArray]]) -> bool:
    return all(
        numbers(kind.field, kind.field.add(x, y)) == products(kind, choices, values)
        for (choices, values), x, y in zip(jobs, *results, strict=True)
    )


def between_parties(log: Sequence[Message], what: str) -> list[Message]:
    return [m for m in log if what in m.step]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{type(kind).__name__}-{kind.field}-{kind.transfers}")
class TestProducts:
    @pytest.mark.parametrize(("rows", "width"), [(1, 1), (7, 1), (3, 5), (0, 2), (2, 0)])
    def test_in_one_message(self, rng: np.random.Generator, kind: Kind, rows: int, width: int) -> None:
        jobs = [(bits(rng, kind, rows), uniform(rng, kind.field, rows, width))]
        assert right(kind, jobs, multiplied(pair_of(rng), kind, jobs).results)

    @pytest.mark.parametrize(("rows", "width"), [(40, 1), (9, 10), (3, 90), (1, 200)])
    def test_in_many(
        self, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, kind: Kind, rows: int, width: int
    ) -> None:
        """Chunks of some rows, and rows longer than a chunk; more of them than the chooser is ahead."""
        most = max(80, 8 * kind.corrections(1) * kind.field.element_bytes)
        monkeypatch.setattr(module, "_MESSAGE_BYTES", most)
        monkeypatch.setattr(module, "_WINDOW", 2)
        jobs = [(bits(rng, kind, rows), uniform(rng, kind.field, rows, width))]
        ran = multiplied(pair_of(rng), kind, jobs)
        assert right(kind, jobs, ran.results)
        sizes = [len(m.data) for m in between_parties(ran.log, "/corrections")]
        assert max(sizes) <= most
        assert sum(sizes) == rows * kind.corrections(width) * kind.field.element_bytes
        assert len(sizes) > 2 or sum(sizes) <= 2 * most

    def test_several_at_once(self, rng: np.random.Generator, kind: Kind) -> None:
        """What arrives first is answered first; the transfers of each are its own."""
        jobs = [(bits(rng, kind, rows), uniform(rng, kind.field, rows, 2)) for rows in (3, 0, 11, 1, 40)]
        ran = multiplied(pair_of(rng), kind, jobs)
        assert right(kind, jobs, ran.results)
        used = [
            range(first := int.from_bytes(m.data[:8], "little"), first + len(jobs[int(m.step[4])][0]) * kind.transfers)
            for m in between_parties(ran.log, "/choices")
        ]
        assert len({place for places in used for place in places}) == sum(len(places) for places in used)

    def test_pads_before_values(self, rng: np.random.Generator, kind: Kind) -> None:
        rows, width, pair = 5, 3, pair_of(rng)
        jobs = [(bits(rng, kind, rows), uniform(rng, kind.field, rows, width))]

        async def program(party: Party, _: Any) -> FieldArray:
            if party.rank == 0:
                return await (await pair[0].choose(party, 1, kind, jobs[0][0], width)).finish()
            offered = await pair[1].pads(party, 0, kind, rows, width)
            summands = offered.summands.copy()
            with pytest.raises(ValueError, match="were offered"):
                await offered.correct(jobs[0][1][:, :2])
            await offered.correct(jobs[0][1])
            with pytest.raises(RuntimeError, match="once"):
                await offered.correct(jobs[0][1])
            assert kind.field.equal(summands, offered.summands).all()
            return summands

        assert right(kind, jobs, [[result] for result in run(program, parties=2).results])


class TestSizes:
    def test_a_product_in_its_real_chunks(self, rng: np.random.Generator) -> None:
        """F127: 120 numbers a message; bits and corrections as many as the documentation says."""
        kind, rows = Numbers(F127, 127), 300
        jobs = [(bits(rng, kind, rows), uniform(rng, F127, rows, 1))]
        ran = multiplied(pair_of(rng), kind, jobs)
        assert right(kind, jobs, ran.results)
        corrections = [len(m.data) for m in between_parties(ran.log, "/corrections")]
        assert sorted(corrections) == sorted(16 * 127 * count for count in (120, 120, 60))
        assert max(corrections) <= CHUNK_BYTES
        choices = [len(m.data) for m in between_parties(ran.log, "/choices")]
        assert sorted(choices) == sorted(8 + -(-127 * count // 8) for count in (120, 120, 60))
        extensions = between_parties(ran.log, "transfers/extension")
        made = [1 << 12, 1 << 13, 1 << 14, 1 << 15]
        assert sorted(len(m.data) for m in extensions) == [corrections_bytes(count, DEPTH) for count in made]
        assert {(m.frm, m.to) for m in extensions} == {(0, 1)}

    def test_a_chunk_has_a_bound_on_transfers_too(self, rng: np.random.Generator) -> None:
        """A bit AND takes a transfer, but an eighth of a byte: what is done at a time stays short."""
        kind, rows = Ands(), 2500
        jobs = [(bits(rng, kind, rows), uniform(rng, W64, rows, 1))]
        ran = multiplied(pair_of(rng), kind, jobs)
        assert right(kind, jobs, ran.results)
        assert sorted(len(m.data) for m in between_parties(ran.log, "/corrections")) == [8 * 452, *[8 * 512] * 4]

    @pytest.mark.parametrize("k", range(1, 9))
    def test_extensions_fit_a_message(self, k: int) -> None:
        most = most_transfers(k, CHUNK_BYTES)
        assert most % 1024 == 0
        assert corrections_bytes(most, k) <= CHUNK_BYTES < corrections_bytes(most + 1024, k)

    def test_blocks_grow_to_what_fits(self, rng: np.random.Generator) -> None:
        kind, rows = Numbers(R32, 1), 150_000
        jobs = [(bits(rng, kind, rows), np.zeros((rows, 1), np.uint32))]
        ran = multiplied(pair_of(rng), kind, jobs)
        assert not np.add(*(result[0] for result in ran.results)).any()
        sizes = sorted(len(m.data) for m in between_parties(ran.log, "transfers/extension"))
        assert sizes[-1] == corrections_bytes(most_transfers(DEPTH, CHUNK_BYTES), DEPTH)
        assert all(size <= CHUNK_BYTES for size in sizes)

    def test_others_have_their_turn(self, rng: np.random.Generator) -> None:
        kind, turns, pair = Numbers(F127, 1), 0, pair_of(rng)
        rows = 15 * CHUNK_BYTES // 16
        values = np.zeros((rows, 1), F127.dtype)

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async def program(party: Party, _: Any) -> int:
            if party.rank:
                await pair[1].offer(party, 0, kind, values)
                return 0
            counting = asyncio.create_task(count())
            choice = await pair[0].choose(party, 1, kind, bits(rng, kind, rows), 1)
            begun = turns
            for _ in range(1000):  # until all corrections are here
                await asyncio.sleep(0)
            before = turns
            await choice.finish()
            counting.cancel()
            assert begun >= 15
            return turns - before

        assert run(program, parties=2).results[0] >= 15

    @pytest.mark.parametrize("field", [F127, F61, R32, GF(7), W64], ids=repr)
    @pytest.mark.parametrize("width", [1, 3, 700, 20_000, 33_000, 250_000])
    def test_sixteen_chunks_hold_eight_messages(self, field: Field, width: int) -> None:
        """What :mod:`mpc.ot.switching` counts on: rows of other lengths fill chunks to a half at least."""
        kind = Numbers(field, 1)
        rows = max(1, 8 * CHUNK_BYTES // (width * field.element_bytes))
        if width * field.element_bytes <= 8 * CHUNK_BYTES:
            assert len(module._chunks(rows, kind, width)) <= 16

    def test_pads_of_too_many_chunks_are_refused(self, rng: np.random.Generator) -> None:
        """The chooser would wait for corrections, and the offerer for bits."""
        kind, pair = Numbers(F127, 1), pair_of(rng)
        rows = 16 * CHUNK_BYTES // 16

        async def program(party: Party, _: Any) -> int:
            if party.rank == 0:
                zeros = np.zeros((rows, 1), np.uint8)
                return len(await (await pair[0].choose(party, 1, kind, zeros, 1)).finish())
            with pytest.raises(RuntimeError, match="too many"):
                await pair[1].pads(party.at("other"), 0, kind, rows + 1, 1)
            offered = await pair[1].pads(party, 0, kind, rows, 1)
            await offered.correct(F127.zeros((rows, 1)))
            return len(offered.summands)

        assert run(program, parties=2).results == [rows, rows]


class TestEnds:
    """What the two ends take from their stock belongs together."""

    def test_any_pieces_in_any_order(self, rng: np.random.Generator) -> None:
        pair = pair_of(rng)
        counts = [1, 7, 128, 4000, 8, 9000, 1, 70_000, 130]
        order = rng.permutation(len(counts))
        flips = [rng.integers(0, 2, count, dtype=np.uint8) for count in counts]

        async def program(party: Party, _: Any) -> list[Any]:
            if party.rank == 0:
                return [await pair[0]._choosers[1].take(party, count) for count in counts]
            end, firsts = pair[1]._offerers[0], np.cumsum([0, *counts])
            taken: list[Any] = [None] * len(counts)
            for n in order:
                packed = np.packbits(flips[n], bitorder="little")
                taken[n] = await end.take(party, int(firsts[n]), counts[n], packed, "step")
            assert not any(block.bits.all() for block in end._blocks)
            return taken

        chosen, offered = run(program, parties=2).results
        delta = pair[1]._offerers[0]._offerer.delta
        assert [first for first, _, _ in chosen] == np.cumsum([0, *counts])[:-1].tolist()
        for count, flip, (_, random, keys), both in zip(counts, flips, chosen, offered, strict=True):
            assert random.shape == (count,)
            assert both.shape == (2, count, 2)
            assert np.array_equal(both[0] ^ both[1], np.broadcast_to(delta, (count, 2)))
            assert np.array_equal(both[random ^ flip, np.arange(count)], keys)

    def test_what_is_spent_and_forgotten_is_refused(self, rng: np.random.Generator) -> None:
        """A block that is used up is not kept: its transfers are refused all the same, and those beside it."""
        pair = pair_of(rng)

        async def program(party: Party, _: Any) -> int:
            if party.rank == 0:
                for count in (1 << 12, 1 << 13):
                    await pair[0]._choosers[1].take(party, count)
                return 0
            end = pair[1]._offerers[0]
            await end.take(party, 0, 1 << 12, np.zeros(1 << 9, np.uint8), "first")
            for first, count in ((0, 8), (4088, 16)):
                with pytest.raises(PeerError, match="used before"):
                    await end.take(party, first, count, np.zeros(count // 8, np.uint8), "second")
            both = await end.take(party, 4096, 8, np.zeros(1, np.uint8), "third")
            return len(both)

        assert run(program, parties=2).results == [0, 2]

    def test_stock_starts_where_the_extension_is(self, rng: np.random.Generator) -> None:
        """Transfers that became base transfers of the other direction are not used again."""
        keys = rng.integers(0, 256, (128, 2, 16), dtype=np.uint8)
        chooser, sums = Chooser.from_keys(keys, DEPTH, b"")
        offerer = Offerer.from_keys(np.zeros(128, np.uint8), keys[:, 0], DEPTH, b"", sums)
        offerer.extend(256, chooser.extend(256)[0])
        hashed = Hash(bytes(16))
        pair = [
            Pairs([ChooserEnd(1, chooser, hashed)], []),
            Pairs([], [OffererEnd(0, offerer, Hash(bytes(16)))]),
        ]
        jobs = [(bits(rng, Numbers(F61, 5), 3), uniform(rng, F61, 3, 1))]
        ran = multiplied(pair, Numbers(F61, 5), jobs)
        assert right(Numbers(F61, 5), jobs, ran.results)
        assert [int.from_bytes(m.data[:8], "little") for m in between_parties(ran.log, "/choices")] == [256]

    def test_repr_holds_nothing(self, rng: np.random.Generator) -> None:
        pair = pair_of(rng)
        assert repr(pair[0]._choosers[1]) == "ChooserEnd(other=1)"
        assert repr(pair[1]._offerers[0]) == "OffererEnd(other=0)"


def test_vector() -> None:
    """Frozen: what semi-honest parties say to each other, byte for byte."""
    draws = np.random.default_rng(0xFEED)
    kind = Numbers(F61, 61)
    jobs = [(bits(draws, kind, 300), uniform(draws, F61, 300, 2))]
    said = hashlib.blake2b(digest_size=16)
    for m in sorted(multiplied(pair_of(draws), kind, jobs).sent):
        if "transfers/extension" in m.step or "/choices" in m.step or "/corrections" in m.step:
            said.update(f"{m.frm} {m.to} {m.step} {len(m.data)}\n".encode() + m.data)
    assert said.hexdigest() == "32699243ca7cfff36dcb9daf1bebd07c"


# ---- a party that does not keep to it ---------------------------------------------------------------------------


def instead(what: str, changed: Callable[[bytes], bytes]) -> Tamper:
    return lambda m: [m._replace(data=changed(m.data)) if what in m.step else m]


def blamed(ran: Run, who: int, rank: int, step: str) -> str:
    """The error of party `who` names another party and the step, and no secret."""
    error = ran.outcomes[who]
    assert isinstance(error, PeerError)
    assert error.rank == rank
    assert step in str(error)
    assert f"party {rank}" in str(error)
    return for_peers(error)


class TestMalformed:
    KIND = Numbers(F61, 61)

    def attempt(self, rng: np.random.Generator, tamper: Tamper, jobs: int = 1, kind: Kind = KIND) -> Run:
        some = [(bits(rng, kind, 4), uniform(rng, kind.field, 4, 2)) for _ in range(jobs)]
        return multiplied(pair_of(rng), kind, some, tamper=tamper)

    @pytest.mark.parametrize("changed", [lambda m: m[:-1], lambda m: m + b"\0", lambda m: b"", lambda m: m[:8]])
    def test_choices_of_another_length(self, rng: np.random.Generator, changed: Callable[[bytes], bytes]) -> None:
        ran = self.attempt(rng, instead("/choices", changed))
        blamed(ran, 1, 0, "job 0/choices.0")

    @pytest.mark.parametrize("place", [1 << 48, (1 << 48) - 100, (1 << 64) - 1])
    def test_places_beyond_all_transfers(self, rng: np.random.Generator, place: int) -> None:
        ran = self.attempt(rng, instead("/choices", lambda m: place.to_bytes(8, "little") + m[8:]))
        blamed(ran, 1, 0, "job 0/choices.0")

    def test_places_that_nobody_made(self, rng: np.random.Generator) -> None:
        """The offerer waits for an extension as the chooser for corrections, and not for ever."""
        ran = self.attempt(rng, instead("/choices", lambda m: (1 << 20).to_bytes(8, "little") + m[8:]))
        assert all(isinstance(outcome, PeerError) for outcome in ran.outcomes)

    @pytest.mark.parametrize("place", [0, 1, 4 * 61 - 1])
    def test_places_named_twice(self, rng: np.random.Generator, place: int) -> None:
        """Both products name the first transfers, or one of them: whichever comes second is refused."""
        ran = self.attempt(rng, instead("job 1/choices", lambda m: place.to_bytes(8, "little") + m[8:]), jobs=2)
        blamed(ran, 1, 0, "/choices.0")
        assert "used before" in str(ran.outcomes[1])

    def test_places_at_the_end_of_the_stock(self, rng: np.random.Generator) -> None:
        """Ahead of the others is allowed: the chooser says which it takes."""
        place = (1 << 12) - 4 * 61
        ran = self.attempt(rng, instead("/choices", lambda m: place.to_bytes(8, "little") + m[8:]))
        assert not any(isinstance(outcome, Exception) for outcome in ran.outcomes)

    @pytest.mark.parametrize("changed", [lambda m: m[:-1], lambda m: m + b"\0", lambda m: b"", lambda m: m[:-16]])
    def test_corrections_of_another_length(self, rng: np.random.Generator, changed: Callable[[bytes], bytes]) -> None:
        ran = self.attempt(rng, instead("/corrections", changed))
        blamed(ran, 0, 1, "job 0/corrections.0")

    @pytest.mark.parametrize("field", [F61, F127, GF(7)], ids=repr)
    def test_corrections_that_are_no_elements(self, rng: np.random.Generator, field: Field) -> None:
        kind = Numbers(field, field.bits)
        wrong = field.modulus.to_bytes(field.element_bytes, "little")
        ran = self.attempt(rng, instead("/corrections", lambda m: m[: -len(wrong)] + wrong), kind=kind)
        blamed(ran, 0, 1, "job 0/corrections.0")
        assert "canonical" in str(ran.outcomes[0])

    @pytest.mark.parametrize(
        "changed",
        [lambda m: b"", lambda m: m[:-1], lambda m: m + b"\0", lambda m: m[:100], lambda m: m * 20],
        ids=["empty", "short", "long", "some", "beyond a message"],
    )
    def test_extensions_of_no_length(self, rng: np.random.Generator, changed: Callable[[bytes], bytes]) -> None:
        ran = self.attempt(rng, instead("transfers/extension", changed))
        blamed(ran, 1, 0, "transfers/extension 0")


# ---- what the offerer learns ------------------------------------------------------------------------------------


class ToyChooser:
    """An extension whose random bits are given, and whose key of transfer i is (i, bit)."""

    k, position = DEPTH, 0

    def __init__(self, random: np.ndarray) -> None:
        self.random = random

    def extend(self, count: int) -> tuple[bytes, np.ndarray, np.ndarray]:
        drawn = np.zeros(count, np.uint8)
        drawn[: len(self.random)] = self.random
        keys = np.stack([np.arange(count, dtype=np.uint64), drawn.astype(np.uint64)], axis=1)
        return count.to_bytes(8, "little"), np.packbits(drawn, bitorder="little"), keys


class ToyOfferer:
    """The other end: (i, 0), and delta is (0, 1)."""

    delta, position = np.array([0, 1], np.uint64), 0

    def count_of(self, length: int) -> int:
        return 1 << 12

    def extend(self, count: int, corrections: bytes) -> np.ndarray:
        return np.stack([np.arange(count, dtype=np.uint64), np.zeros(count, np.uint64)], axis=1)


@pytest.mark.parametrize("transfers", [1, 2])
def test_the_offerer_sees_the_same_whatever_the_choices_are(transfers: int) -> None:
    """Every random bit and every pad of GF(3) once: rows are lanes.

    The offerer sees the bits that the chooser sends and its own pads; its summand follows from them.
    """
    field = GF(3)
    kind = Numbers(field, transfers)
    table = np.array(list(product(range(2), *[range(3)] * 2, repeat=transfers)), np.uint8).reshape(-1, 3)
    rows = len(table) // transfers
    seen = []
    for choices in product((0, 1), repeat=transfers):
        hashed: Any = FakeHash(lambda key, number, block: bytes([table[int(key[0]), 1 + int(key[1])]] * 16))
        chooser: Any = ToyChooser(table[:, 0])
        offerer: Any = ToyOfferer()
        pair = [Pairs([ChooserEnd(1, chooser, hashed)], []), Pairs([], [OffererEnd(0, offerer, hashed)])]
        jobs = [(np.tile(np.array(choices, np.uint8), (rows, 1)), np.full((rows, 1), 2, field.dtype))]
        ran = multiplied(pair, kind, jobs)
        assert right(kind, jobs, ran.results)
        (sent,) = between_parties(ran.log, "/choices")
        flips = np.unpackbits(np.frombuffer(sent.data, np.uint8, offset=8), count=len(table), bitorder="little")
        views = np.concatenate([flips[:, None], table[:, 1:]], axis=1).reshape(rows, -1)
        own = ran.results[1][0].astype(np.uint8).reshape(rows, 1)
        seen.append(Counter(view.tobytes() for view in np.concatenate([views, own], axis=1)))
    assert set(seen[0].values()) == {1}
    assert all(views == seen[0] for views in seen)
