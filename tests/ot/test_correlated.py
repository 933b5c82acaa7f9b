"""Correlated elements: right in any number of messages, private, and off as documented where a prover cheats."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mpc import F61, F127, GF, Field, Party
from mpc.field import FieldArray
from mpc.ot import _correlating as loops
from mpc.ot import correlated as module
from mpc.ot import leaves as leaf_module
from mpc.ot.correlated import Correlated, Holder, Prover
from mpc.ot.leaves import Leaves
from mpc.ot.trees import grow_leaves, grow_leaves_but_one
from mpc.transport import CHUNK_BYTES
from tests.mpc.support import Run, Tamper, run
from tests.ot.test_pairs import between_parties, blamed, instead, pair_of

FIELDS = [F127, F61, GF(101)]
DEPTH = module.DEPTH


def element(field: Field, values: Sequence[int]) -> FieldArray:
    return field.encode(np.array([(v + field.half) % field.modulus - field.half for v in values], object))


def uniform(rng: np.random.Generator, field: Field, count: int) -> FieldArray:
    return element(field, [int.from_bytes(rng.bytes(17), "little") for _ in range(count)])


def integers(field: Field, x: FieldArray) -> list[int]:
    return [int(v) % field.modulus for v in field.decode(x).reshape(-1)]


def bits_of(number: int, count: int) -> np.ndarray:
    return np.array([number >> b & 1 for b in range(count)], np.uint8)


class Ends:
    """Both ends of one direction, without transfers; ``change`` is done to what the prover sends of its trees."""

    def __init__(
        self, rng: np.random.Generator, field: Field, delta: int, change: Callable[[bytes], bytes] = lambda sums: sums
    ) -> None:
        keys = rng.integers(0, 256, (field.bits, 2, 16), dtype=np.uint8)
        bits = bits_of(delta, field.bits)
        self.leaves, sums = grow_leaves(keys, module.DEPTH, b"")
        chosen = keys[np.arange(field.bits), bits]
        known = grow_leaves_but_one(bits, chosen, module.DEPTH, b"", change(sums))
        self.field, self.delta = field, delta
        self.prover, self.holder = Prover(1, field, self.leaves), Holder(0, field, known, bits)

    def extend(self, jobs: Sequence[FieldArray], *, tamper: Tamper | None = None) -> Run:
        """Extend by each of the jobs at the same time, in a scope each."""

        async def program(party: Party, _: Any) -> list[FieldArray]:
            scopes = [party.at(f"job {number}") for number in range(len(jobs))]
            return await asyncio.gather(
                *(
                    self.holder.extend(scope, len(x)) if party.rank else self.prover.extend(scope, x)
                    for scope, x in zip(scopes, jobs, strict=True)
                )
            )

        return run(program, parties=2, tamper=tamper)

    def errors(self, ran: Run, jobs: Sequence[FieldArray]) -> list[list[int]]:
        """``K - M - Delta x`` of each job."""
        field, (ours, theirs) = self.field, ran.results
        delta = element(field, [self.delta])
        return [
            integers(field, field.sub(key, field.add(mac, field.mul(delta, x))))
            for x, mac, key in zip(jobs, ours, theirs, strict=True)
        ]


@pytest.mark.parametrize("field", FIELDS, ids=repr)
class TestExtend:
    @pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 255, 258])
    def test_keys_are_macs_plus_delta_times_values(self, rng: np.random.Generator, field: Field, count: int) -> None:
        ends = Ends(rng, field, int(rng.integers(1 << 62)) * int(rng.integers(1 << 62)) % field.modulus)
        jobs = [uniform(rng, field, count)]
        assert ends.errors(ends.extend(jobs), jobs) == [[0] * count]

    @pytest.mark.parametrize("delta", ["0", "1", "p - 1"])
    def test_any_delta_and_edges(self, rng: np.random.Generator, field: Field, delta: str) -> None:
        p = field.modulus
        ends = Ends(rng, field, {"0": 0, "1": 1, "p - 1": p - 1}[delta])
        jobs = [element(field, [0, 1, p - 1, p // 2, 2, 3])]
        assert ends.errors(ends.extend(jobs), jobs) == [[0] * 6]

    def test_in_many_messages(self, rng: np.random.Generator, field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stretches of 64 bytes and messages of 3 rows of them: more than the prover may be ahead."""
        monkeypatch.setattr(module, "_STRETCH_BYTES", 64)
        monkeypatch.setattr(module, "_MESSAGE_BYTES", 200)
        ends = Ends(rng, field, 98765432123456789 % field.modulus)
        count = 101 if field is not FIELDS[2] else 1999
        jobs = [uniform(rng, field, count)]
        ran = ends.extend(jobs)
        assert ends.errors(ran, jobs) == [[0] * count]
        sent = [len(m.data) for m in between_parties(ran.log, "/corrections")]
        assert max(sent) <= 200
        assert sum(sent) == count * len(ends.leaves) * field.element_bytes
        assert len(between_parties(ran.log, "/turn")) == -(-(len(sent) - module._WINDOW) // module._TURN)

    def test_several_scopes_at_once(self, rng: np.random.Generator, field: Field) -> None:
        ends = Ends(rng, field, 12345678987654321 % field.modulus)
        jobs = [uniform(rng, field, count) for count in (7, 0, 300, 1)]
        assert ends.errors(ends.extend(jobs), jobs) == [[0] * len(x) for x in jobs]

    def test_streams_do_not_repeat(
        self, rng: np.random.Generator, field: Field, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Equal values in two scopes, and in one of them in two stretches: other summands each time."""
        monkeypatch.setattr(module, "_STRETCH_BYTES", 1 << 12)
        ends = Ends(rng, field, 3)
        count = 2 * module._STRETCH_BYTES // field.element_bytes
        jobs = [field.zeros(count)] * 2
        ours, theirs = ends.extend(jobs).results
        assert all(field.equal(mac, key).all() for mac, key in zip(ours, theirs, strict=True))
        halves = np.concatenate(ours).reshape(4, -1)
        for one, other in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)):
            same = field.equal(halves[one], halves[other]).mean()
            assert same < (0.03 if field.bits < 10 else 1e-9)

    def test_summands_are_uniform(self, rng: np.random.Generator, field: Field) -> None:
        """Chi-squared over 101 classes: the elements themselves, or their upper and lower bits."""
        ends = Ends(rng, field, 0)
        numbers = integers(field, ends.extend([field.zeros(6000)]).results[0][0])
        for classes in ([v % 101 for v in numbers], [v * 101 // field.modulus for v in numbers]):
            found = np.bincount(classes, minlength=101)
            assert ((found - 6000 / 101) ** 2).sum() * 101 / 6000 < 220  # 100 degrees: once in 4 * 10^10


class TestSetUp:
    @pytest.mark.parametrize("field", FIELDS, ids=repr)
    def test_over_transfers_both_ways_at_once(self, rng: np.random.Generator, field: Field) -> None:
        pair = pair_of(rng)
        deltas = [uniform(rng, field, 1).reshape(()) for _ in range(2)]
        values = [uniform(rng, field, 9) for _ in range(2)]

        async def program(party: Party, _: Any) -> Any:
            rank, scope = party.rank, party.at("set up")
            prover, holder = await asyncio.gather(
                Correlated.prove_setup(scope, pair[rank], 1 - rank, field),
                Correlated.hold_setup(scope, pair[rank], 1 - rank, field, deltas[rank]),
            )
            assert repr(prover) == f"Prover({field}, other={1 - rank})"
            assert repr(holder) == f"Holder({field}, other={1 - rank})"
            scope = party.at("elements")
            with pytest.raises(ValueError, match="shape"):
                await prover.extend(party.at("square"), values[rank].reshape(3, 3))
            return await asyncio.gather(prover.extend(scope, values[rank]), holder.extend(scope, 9))

        ran = run(program, parties=2)
        for prover in (0, 1):
            mac, key = ran.results[prover][0], ran.results[1 - prover][1]
            times = field.mul(deltas[1 - prover], values[prover])
            assert field.equal(key, field.add(mac, times)).all()
        counted = [party.costs.by_step for party in ran.parties]
        sent = sum(len(m.data) for m in between_parties(ran.log, "elements/"))
        assert sum(costs["elements/transfers"].bytes_sent for costs in counted) == sent
        assert sent == 2 * 9 * -(-field.bits // DEPTH) * field.element_bytes

    def test_delta_is_one_element(self, rng: np.random.Generator) -> None:
        with pytest.raises(ValueError, match="one element"):
            asyncio.run(Correlated.hold_setup(None, None, 0, F61, F61.zeros(2)))  # type: ignore[arg-type]

    def test_a_scope_is_used_once(self, rng: np.random.Generator) -> None:
        ends = Ends(rng, F61, 5)

        async def program(party: Party, _: Any) -> None:
            scope = party.at("here")
            extend = (lambda: ends.holder.extend(scope, 2)) if party.rank else lambda: ends.prover.extend(scope, values)
            await extend()
            with pytest.raises(RuntimeError, match="before"):
                await extend()

        values = F61.zeros(2)
        assert run(program, parties=2).results == [None, None]

    def test_streams_are_used_once_whatever_scopes_are_called(
        self, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two paths of the same nonce take 2^48 hashes to find."""
        ends, values = Ends(rng, F61, 5), F61.zeros(2)
        alike = SimpleNamespace(blake2b=lambda path, **more: hashlib.blake2b(b"", **more))
        monkeypatch.setattr(module, "hashlib", alike)

        async def program(party: Party, _: Any) -> None:
            one, two = party.at("one"), party.at("two")
            await (ends.holder.extend(one, 2) if party.rank else ends.prover.extend(one, values))
            with pytest.raises(RuntimeError, match="its streams"):
                await (ends.holder.extend(two, 2) if party.rank else ends.prover.extend(two, values))

        assert run(program, parties=2).results == [None, None]


class TestMessages:
    @pytest.fixture
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Messages of two elements and three digits."""
        monkeypatch.setattr(module, "_STRETCH_BYTES", 32)
        monkeypatch.setattr(module, "_MESSAGE_BYTES", 100)

    def test_sizes(self, rng: np.random.Generator) -> None:
        """688 bytes an element of F127, in messages that are full, or nearly so."""
        ends, jobs = Ends(rng, F127, 5), [uniform(rng, F127, 2100)]
        ran = ends.extend(jobs)
        assert ends.errors(ran, jobs) == [[0] * 2100]
        sizes = [len(m.data) for m in between_parties(ran.log, "/corrections")]
        assert sum(sizes) == 2100 * 43 * 16
        assert max(sizes) == 7 * 2048 * 16 <= CHUNK_BYTES

    def test_the_prover_waits_for_a_slow_holder(self, rng: np.random.Generator, small: None) -> None:
        """It is not further ahead than the window."""
        ends, values = Ends(rng, F127, 5), F127.zeros(50)
        sent: list[str] = []

        async def program(party: Party, _: Any) -> int:
            scope = party.at("slow")
            if party.rank == 0:
                await ends.prover.extend(scope, values)
                return 0
            for _ in range(300):
                await asyncio.sleep(0)
            before = len(sent)
            await ends.holder.extend(scope, len(values))
            return before

        def note(message: Any) -> Any:
            sent.extend([message.step] if "/corrections" in message.step else [])
            return [message]

        assert run(program, parties=2, tamper=note).results == [0, module._WINDOW]
        assert len(sent) > 2 * module._WINDOW

    @pytest.mark.parametrize("changed", [lambda m: m[:-1], lambda m: m + b"\0", lambda m: b"", lambda m: m[:16]])
    def test_corrections_of_another_length(self, rng: np.random.Generator, changed: Callable[[bytes], bytes]) -> None:
        ran = Ends(rng, F127, 5).extend([F127.zeros(3)], tamper=instead("/corrections", changed))
        blamed(ran, 1, 0, "job 0/corrections.0")

    @pytest.mark.parametrize("field", FIELDS, ids=repr)
    def test_corrections_that_are_no_elements(self, rng: np.random.Generator, field: Field) -> None:
        wrong = field.modulus.to_bytes(field.element_bytes, "little")
        tamper = instead("/corrections", lambda m: m[: -len(wrong)] + wrong)
        blamed(Ends(rng, field, 5).extend([field.zeros(3)], tamper=tamper), 1, 0, "job 0/corrections.0")

    def test_turns_of_another_length(self, rng: np.random.Generator, small: None) -> None:
        ran = Ends(rng, F127, 5).extend([F127.zeros(50)], tamper=instead("/turn", lambda m: b"\0"))
        blamed(ran, 0, 1, "job 0/turn.0")

    @pytest.mark.parametrize(("what", "blames"), [("/choices", 1), ("/corrections", 0)])
    @pytest.mark.parametrize("changed", [lambda m: m[:-1], lambda m: m + b"\0", lambda m: b""])
    def test_set_ups_of_another_length(
        self, rng: np.random.Generator, what: str, blames: int, changed: Callable[[bytes], bytes]
    ) -> None:
        pair = pair_of(rng)

        async def program(party: Party, _: Any) -> None:
            if party.rank:
                await Correlated.hold_setup(party.at("set up"), pair[1], 0, F61, F61.zeros(()))
            else:
                await Correlated.prove_setup(party.at("set up"), pair[0], 1, F61)

        # The offerer of the transfers is the prover.
        ran = run(program, parties=2, tamper=instead(f"set up{what}", changed))
        blamed(ran, 1 - blames, blames, f"set up{what}")


# ---- what a dishonest prover can do ---------------------------------------------------------------------------------


class TestCheating:
    def test_other_values_at_some_digits(self, rng: np.random.Generator) -> None:
        """``K = M + Delta x + sum of 2^(DEPTH t) d_t e_t``, and nobody notices here."""
        field, count, trees = F127, 4, (0, 5, 42)
        delta = int.from_bytes(rng.bytes(15), "little") | sum(1 << DEPTH * tree for tree in trees)  # no digit is 0
        ends = Ends(rng, field, delta)
        errors = {tree: uniform(rng, field, count) for tree in trees}
        honest, turn = ends.prover._loops, iter(reversed(range(len(ends.leaves))))

        class Cheating:
            def prove(self, pads: Any, values: FieldArray, sums: FieldArray, corrections: FieldArray) -> FieldArray:
                tree = next(turn)
                meant = field.add(values, errors[tree]) if tree in errors else values
                return honest.prove(pads, meant, sums, corrections)

        ends.prover._loops = Cheating()  # type: ignore[assignment]
        jobs = [uniform(rng, field, count)]
        expected = [0] * count
        for tree, error in errors.items():
            digit = delta >> DEPTH * tree & (1 << DEPTH) - 1
            for i, e in enumerate(integers(field, error)):
                expected[i] = (expected[i] + (digit << DEPTH * tree) * e) % field.modulus
        assert ends.errors(ends.extend(jobs), jobs) == [expected]
        assert any(expected)

    @pytest.mark.parametrize("tree", [0, 3])
    def test_inconsistent_trees(self, tree: int) -> None:
        """The error depends on the digit of this tree alone, on none of the others."""
        found: dict[int, set[tuple[int, ...]]] = {}
        start = 2 * 16 * (DEPTH - 1) * tree

        def change(sums: bytes) -> bytes:
            altered = bytearray(sums)
            altered[start] ^= 1
            altered[start + 40] ^= 1
            return bytes(altered)

        for digit, others in product(range(1 << DEPTH), (0, 0x1234567 << 3 * DEPTH + DEPTH, 7 << 40)):
            same = np.random.default_rng(8)  # the prover's keys, values and changes are the same each time
            ends = Ends(same, F61, digit << DEPTH * tree | others, change)
            jobs = [uniform(same, F61, 3)]
            (errors,) = ends.errors(ends.extend(jobs), jobs)
            found.setdefault(digit, set()).add(tuple(errors))
        assert all(len(errors) == 1 for errors in found.values())
        assert len(set.union(*found.values())) > 2


# ---- what the holder sees -------------------------------------------------------------------------------------------


def test_the_holder_sees_the_same_whatever_the_values_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pad of GF(3) once: elements are lanes. The holder sees u and the pads that it knows."""
    field = GF(3)
    monkeypatch.setattr(module, "DEPTH", 1)
    table = np.array(list(product(range(3), repeat=4)), np.uint8)

    def stream(key: bytes, nonce: bytes) -> Callable[[Any, memoryview], int]:
        def update_into(zeros: Any, row: memoryview) -> int:
            words = np.zeros((len(table), 2), np.uint64)
            words[:, 0] = table[:, key[0]]
            row[:] = words.view(np.uint8).reshape(-1).data
            return len(row)

        return update_into

    monkeypatch.setattr(leaf_module, "_SHORT", 0)
    monkeypatch.setattr(leaf_module, "_stream", stream)
    for delta in range(4):
        seen = []
        for x in range(3):
            leaves = [np.full((2, 16), 2 * tree, np.uint8) + np.arange(2, dtype=np.uint8)[:, None] for tree in (0, 1)]
            bits = bits_of(delta, 2)
            known = [keys[[bit, 1 - bit]] for keys, bit in zip(leaves, bits, strict=True)]
            ends = Ends.__new__(Ends)
            ends.field, ends.delta = field, delta
            ends.prover, ends.holder = Prover(1, field, leaves), Holder(0, field, known, bits)
            jobs = [np.full(len(table), x, field.dtype)]
            ran = ends.extend(jobs)
            assert ends.errors(ran, jobs) == [[0] * len(table)]
            (sent,) = between_parties(ran.log, "/corrections")
            rows = np.frombuffer(sent.data, np.uint8).reshape(2, -1)
            own = np.stack([table[:, 2 * tree + 1 - bits[tree]] for tree in (0, 1)])
            seen.append(Counter(view.tobytes() for view in np.concatenate([rows, own]).T))
        assert set(seen[0].values()) == {1}
        assert all(views == seen[0] for views in seen)


@pytest.mark.parametrize("missing", [0, 1])
def test_both_ways_to_pads_are_one(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, missing: int) -> None:
    """In pieces, two scopes in turns; the same as AES of nonce and number, from 2 up."""
    keys = [rng.integers(0, 256, (leaves, 16), dtype=np.uint8) for leaves in (8, 2)]
    nonces, pieces = [rng.bytes(12), rng.bytes(12)], [(0, 5), (5, 1), (6, 30)]
    found = []
    for short in (0, 100):
        monkeypatch.setattr(leaf_module, "_SHORT", short)
        leaves = Leaves(keys, missing)
        assert repr(leaves) == "Leaves(2 trees)"
        streams = [leaves.open(nonce, 36) for nonce in nonces]
        found.append([s.read(tree, *piece).copy() for piece in pieces for tree in (1, 0) for s in streams])
    assert all(np.array_equal(one, other) for one, other in zip(*found, strict=True))
    assert [part.shape for part in found[0][:3]] == [(2, 5, 2), (2, 5, 2), (8, 5, 2)]
    assert not missing or not any(part[0].any() for part in found[0])
    block = Cipher(algorithms.AES(keys[0][3].tobytes()), modes.ECB()).encryptor().update
    assert found[0][7][3].tobytes() == block(nonces[1] + (7).to_bytes(4, "big"))


# ---- the loops ------------------------------------------------------------------------------------------------------

EDGES = [0, 1, 2**32 - 1, 2**32, 2**61 - 1, 2**63, 2**64 - 1, 2**64, 2**127 - 2, 2**127 - 1, 2**127, 2**128 - 1]


@pytest.fixture(params=[(F127, "c"), (F127, "numpy"), (F61, "c"), (F61, "numpy"), (GF(101), "numpy")], ids=repr)
def on(request: pytest.FixtureRequest) -> tuple[Field, loops.Loops]:
    """A field and loops for it."""
    field, backend = request.param
    if backend == "numpy":
        return field, loops.Twin(field)
    if field.backend != "c":
        pytest.skip("the C loops were not built")
    return field, loops.loops_of(field)


def pads_of(numbers: Sequence[Sequence[int]]) -> np.ndarray:
    words = [[[n & 2**64 - 1, n >> 64] for n in row] for row in numbers]
    return np.array(words, np.uint64).reshape(len(numbers), len(numbers[0]), 2)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 8])
class TestLoops:
    def numbers(self, rng: np.random.Generator, rows: int, count: int, edges: bool) -> list[list[int]]:
        if edges:
            return [[EDGES[i] for i in rng.integers(0, len(EDGES), count)] for _ in range(rows)]
        return [[int.from_bytes(rng.bytes(16), "little") for _ in range(count)] for _ in range(rows)]

    @pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 64])
    @pytest.mark.parametrize("edges", [False, True])
    def test_against_integers(
        self, on: tuple[Field, loops.Loops], rng: np.random.Generator, depth: int, count: int, edges: bool
    ) -> None:
        (field, loop), p = on, on[0].modulus
        pads = self.numbers(rng, 1 << depth, count, edges)
        x, s = ([v % p for v in row] for row in self.numbers(rng, 2, count, edges))
        corrections = field.zeros(count)
        words = pads_of(pads)
        after = loop.prove(words, element(field, x), element(field, s), corrections)
        assert integers(field, corrections) == [(x[i] + sum(row[i] for row in pads)) % p for i in range(count)]
        weighted = [sum(y * row[i] for y, row in enumerate(pads)) for i in range(count)]
        assert integers(field, after) == [(weighted[i] + (s[i] << depth)) % p for i in range(count)]

        digit = int(rng.integers(1 << depth))
        pads[0] = [0] * count
        words = pads_of(pads)
        after = loop.hold(words, element(field, x), bits_of(digit, depth), element(field, s))
        expected = [sum(((y ^ digit) - digit) * row[i] for y, row in enumerate(pads)) for i in range(count)]
        assert integers(field, after) == [(expected[i] + digit * x[i] + (s[i] << depth)) % p for i in range(count)]
        for result in (corrections, after):
            field.from_bytes(bytes(field.to_bytes(result)), result.shape)  # canonical

    def test_sums_around_the_modulus(self, on: tuple[Field, loops.Loops], depth: int) -> None:
        """Values that bring a sum of pads to a few numbers about every small multiple of p."""
        (field, loop), p = on, on[0].modulus
        targets = [multiple * p + offset for multiple in range(1, 5) for offset in (-2, -1, 0, 1)]
        targets += [2**64 - 1, 2**64, 2**96, 2**128 - 1, 2**128, 2**128 + 2**127 - 1]
        x = [min(t, p - 1) for t in targets]
        pads = [[0] * len(targets) for _ in range(1 << depth)]
        for i, target in enumerate(targets):
            rest = target - x[i]
            for row in pads:
                row[i] = min(rest, 2**128 - 1)
                rest -= row[i]
        corrections = field.zeros(len(targets))
        loop.prove(pads_of(pads), element(field, x), field.zeros(len(targets)), corrections)
        assert integers(field, corrections) == [t % p for t in targets]
        field.from_bytes(bytes(field.to_bytes(corrections)), len(targets))


@pytest.mark.parametrize("field", [F127, F61], ids=repr)
def test_the_c_loops_refuse_other_shapes(field: Field) -> None:
    if field.backend != "c":
        pytest.skip("the C loops were not built")
    on, x = loops.loops_of(field), field.zeros(6)
    for shape in ((1, 6, 2), (3, 6, 2), (512, 6, 2), (2, 6, 3), (0, 6, 2)):
        with pytest.raises(ValueError, match="tree"):
            on.prove(np.zeros(shape, np.uint64), x, x, field.zeros(6))
    with pytest.raises(ValueError, match="tree"):
        on.prove(np.zeros((2, 12, 2), np.uint64)[:, ::2], x, x, field.zeros(6))
    with pytest.raises(ValueError, match="tree"):
        on.prove(np.zeros((2, 6, 2), np.uint64), field.zeros(12)[::2], x, field.zeros(6))
    with pytest.raises(ValueError, match="tree"):
        on.hold(np.zeros((4, 6, 2), np.uint64), x, np.zeros(3, np.uint8), x)
