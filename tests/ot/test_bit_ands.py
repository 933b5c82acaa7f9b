"""Products of shared bits with MACs: right, and what a cheater can learn and change is what the module says."""

import math
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest

from mpc import Party, PeerError
from mpc.ot import bit_ands as module
from mpc.ot.bit_ands import Products, bucket_size, make_products, permuted, risk
from mpc.ot.bit_macs import BitMacs, Bits, random_bits
from mpc.ot.pairs import Pairs
from mpc.prg import Prg
from mpc.words import unpack_bits
from tests.mpc.support import Message, Run
from tests.ot.test_bit_macs import caught, key_of, met, right

COUNT = 64


def made(count: int = COUNT, **options: Any) -> Run:
    async def program(party: Party, pairs: Pairs, macs: BitMacs) -> Any:
        return macs.key, await make_products(party.at("batch"), pairs, macs, count)

    return met(program, **options)


def whole(results: list[tuple[Any, Products]]) -> list[np.ndarray]:
    """Add up x, y and z, and check all MACs."""
    key = key_of([key for key, _ in results])
    return [right([getattr(products, part) for _, products in results], key) for part in ("x", "y", "z")]


@pytest.mark.parametrize(("parties", "count"), [(2, 64), (3, 64), (2, 512)])
def test_products_are_right(parties: int, count: int) -> None:
    x, y, z = whole(made(count, parties=parties).results)
    np.testing.assert_array_equal(z, x & y)
    for bits in (x, y):
        assert abs(int(bits.sum()) - count / 2) < 5 * math.sqrt(count)


def test_costs() -> None:
    """24.3 bytes for each leaky product from each party to each other, ten rounds."""
    count = 2048

    async def program(party: Party, pairs: Pairs, macs: BitMacs) -> Any:
        before = party.costs.total.bytes_sent
        await make_products(party.at("batch"), pairs, macs, count)
        return (party.costs.total.bytes_sent - before) / count / bucket_size(count)

    for each in met(program).results:
        assert 24 < each < 27


def test_nonsense_is_refused() -> None:
    def longer(message: Message) -> list[Message]:
        if message.frm == 0 and message.step.endswith("rows.0"):
            return [message._replace(data=message.data + b"\0")]
        return [message]

    assert isinstance(made(tamper=longer).outcomes[1], PeerError)


# ---- what a cheater can do ------------------------------------------------------------------------------------------


def cheated(monkeypatch: Any, error: tuple[int, int, int], *, guess: int) -> tuple[Any, int, bool]:
    """Party 0 of two means another row in product 5: the outcomes, the bit that chose it, whether z is right.

    If the guess is 1, party 0 adds to its own summands what that makes of the errors.
    """
    seen: dict[int, Bits] = {}
    honest_offer, honest_leaky = module._offer, module._leaky
    mac, tag, bit = error

    async def offer(scope: Party, pairs: Pairs, other: int, rows: Any) -> Any:
        if scope.rank == 0:
            rows = rows._replace(macs=rows.macs.copy(), bits=rows.bits.copy())
            rows.macs[0, 5] ^= np.uint64(mac)
            rows.macs[1, 5] ^= np.uint64(tag)
            rows.bits[5] ^= np.uint8(bit)
        return await honest_offer(scope, pairs, other, rows)

    async def leaky(scope: Party, pairs: Pairs, key: Any, x: Any, y: Bits) -> Any:
        found, z = await honest_leaky(scope, pairs, key, x, y)
        if scope.rank == 0 and guess:
            found.macs[5] ^= np.uint64(mac)
            z.macs[5] ^= np.uint64(tag)
            z.values[5] ^= np.uint8(bit)
        seen[scope.rank] = found
        return found, z

    monkeypatch.setattr(module, "_offer", offer)
    monkeypatch.setattr(module, "_leaky", leaky)
    outcomes = made().outcomes
    chosen = int(seen[1].values[5])
    if isinstance(outcomes[1], Exception):
        return outcomes, chosen, False
    x, y, z = whole(outcomes)
    return outcomes, chosen, bool((z == x & y).all())


@pytest.mark.parametrize("error", [(1, 0, 0), (0, 1 << 63, 0), (0, 0, 1), (7, 9, 1)])
@pytest.mark.parametrize("guess", [0, 1])
def test_a_wrong_row_passes_where_the_bit_is_as_guessed(monkeypatch: Any, error: Any, guess: int) -> None:
    met_bits = set()
    for _ in range(40):
        outcomes, chosen, is_right = cheated(monkeypatch, error, guess=guess)
        monkeypatch.undo()
        met_bits.add(chosen)
        if chosen == guess:
            assert is_right
        else:
            assert caught(outcomes)
        if len(met_bits) == 2:
            return
    raise AssertionError("forty coins fell alike")


def test_all_that_a_row_can_tell_exactly() -> None:
    """Over keys of 2 bits: whatever is sent and added, all honest bits and keys are tried.

    What does not fit is a MAC of x off by ``x G``, one of z off by ``x F``, a product off by ``x f``. The cheater adds
    to its summands of MACs, and of the values, after it has seen nothing but whether it is asked to.
    """
    bits = 2
    keys = np.arange(1 << bits)
    wide = range(1 << bits)
    for G, F, f in product(wide, wide, (0, 1)):
        for more_x, more_z, shift_x, shift_z in product(wide, wide, (0, 1), (0, 1)):
            passed, wrong = np.zeros(2), np.zeros(2)
            for x in (0, 1):
                off_x = x * G ^ more_x ^ keys * shift_x
                off_z = x * F ^ more_z ^ keys * (x * f ^ shift_z)
                passes = (off_x == 0) & (off_z == 0)
                passed[x] = passes.mean()
                wrong[x] = (passes & (shift_x | (x * f ^ shift_z) == 1)).mean()
            # A product that is not what the MAC says takes the key.
            assert wrong.mean() <= 2.0**-bits
            if (G, F, f) != (0, 0, 0):
                assert passed.mean() <= (1 + 2.0**-bits) / 2
                assert passed.min() <= 2.0**-bits  # it has passed: so x is known, but for who guesses the key


# ---- buckets --------------------------------------------------------------------------------------------------------


def chance(count: int, size: int, attacked: int) -> float:
    """Return the exact chance not to be caught and to have a whole bucket, by all ways to deal."""

    # Ways to deal that leave no bucket with bad ones alone; places are told apart.
    spared = [1] + [0] * attacked
    for _ in range(count):
        spared = [
            sum(math.comb(size, k) * spared[bad - k] for k in range(min(size - 1, bad) + 1))
            for bad in range(attacked + 1)
        ]
    ways = math.comb(count * size, attacked)
    return float((ways - spared[attacked]) / ways) * 2.0**-attacked


@pytest.mark.parametrize(("count", "size"), [(1, 3), (2, 3), (4, 3), (16, 3), (64, 4), (512, 3)])
def test_the_risk_bounds_all_numbers_of_attacks(count: int, size: int) -> None:
    chances = [chance(count, size, attacked) for attacked in range(min(count * size, 30) + 1)]
    bound = 2.0 ** risk(count, size) * (1 - 2.0**-3)
    assert max(chances) <= bound * (1 + 1e-9)
    assert max(chances) > bound / 2  # and it is no idle bound
    # Attacks on several batches, one after the other, as long as nobody is caught.
    best = 0.0
    for _ in range(20):
        best = max(chances[a] + 2.0**-a * best for a in range(size, len(chances)))
    assert best <= 2.0 ** risk(count, size)


def test_dealing_by_hand() -> None:
    """The count of ways is right: all sets of attacked ones, dealt into buckets of three."""
    count, size, attacked = 3, 3, 4
    sets = list(combinations(range(count * size), attacked))
    whole_ones = sum(any({b, b + 1, b + 2} <= set(s) for b in range(0, count * size, size)) for s in sets)
    assert chance(count, size, attacked) == pytest.approx(whole_ones / len(sets) / 2**attacked)


def test_sizes_of_buckets() -> None:
    """Those of the paper's table (section 4), which counts one batch."""
    assert [bucket_size(n) for n in (1 << 18, 1 << 12, 512, 128, 64)] == [4, 4, 5, 6, 7]
    assert bucket_size(300_000) == 3
    for count in (64, 128, 192, 512, 1 << 10, 1 << 12, 1 << 15):
        assert risk(count, bucket_size(count)) <= -40
    with pytest.raises(ValueError, match="too small"):
        bucket_size(1)


def test_the_order_is_a_permutation_that_the_coin_decides() -> None:
    orders = [permuted(100, Prg(bytes([k]) * 32)) for k in (1, 1, 2)]
    assert sorted(orders[0]) == list(range(100))
    assert (orders[0] == orders[1]).all()
    assert (orders[0] != orders[2]).any()

    class Alike:
        def stream(self, label: str) -> "Alike":
            return self

        def elements(self, field: Any, shape: Any) -> Any:
            return np.array([[3, 1, 3, 1], [5, 6, 4, 7]], np.uint64)

    alike: Any = Alike()
    assert permuted(4, alike).tolist() == [1, 3, 2, 0]


def test_leaks_of_some_of_a_bucket_tell_nothing() -> None:
    """Whoever knows all x_b but one has x uniform; and the opened differences tell nothing of y."""
    size = 3
    seen: dict[Any, list[tuple[int, int]]] = {}
    for x in product((0, 1), repeat=size):
        for y in product((0, 1), repeat=size):
            view = (x[:-1], tuple(y[0] ^ other for other in y[1:]))
            seen.setdefault(view, []).append((x[0] ^ x[1] ^ x[2], y[0]))
    assert all(sorted(left) == [(0, 0), (0, 1), (1, 0), (1, 1)] for left in seen.values())


def test_bits_are_packed() -> None:
    bits = Bits(random_bits(3 * 70).reshape(3, 70), np.arange(210, dtype=np.uint64).reshape(3, 70))

    async def program(party: Party, _: Pairs, macs: BitMacs) -> Any:
        words = bits.words(macs.field)
        assert words.shape == (3, 2)
        values, tags = macs.field.parts(words)
        assert tags is not None
        np.testing.assert_array_equal(tags.reshape(3, 128)[:, :70], bits.macs)
        np.testing.assert_array_equal(unpack_bits(values, 70), bits.values)

    met(program).results  # noqa: B018
