"""Without a dealer against parties that cheat: programs run unchanged, and a wrong product is found at every step."""

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import product as combinations
from typing import Any

import numpy as np
import pytest

from mpc import (
    F61,
    F127,
    GF,
    CheatingError,
    Party,
    PeerError,
    SecurityError,
    estimate,
    mask,
    matmul,
    multiply,
    open_,
    opening,
    prepare,
    shuffle,
    sigmoid,
    softplus,
    truncate,
)
from mpc.authenticated import Authenticated
from mpc.field import FieldArray
from mpc.masks import Structure
from mpc.ot import authenticated_products as products
from mpc.ot.authenticated_products import RAW, Entries, Matrices, sacrificed
from mpc.ot.macs import Macs
from mpc.ot.pairs import Pairs
from mpc.preprocessing import authenticated_ot as module
from mpc.preprocessing.authenticated_ot import AuthenticatedOtMask
from mpc.prg import Prg
from parties import simulate
from protocols import secure_mean, secure_sum
from tests.mpc.support import Message, Run, run, same, shares_of
from tests.mpc.tinkering import RANK, prompt

SIZES = (2, 3, 4)


def malicious(program: Any, inputs: Any = None, *, parties: int = 2, **options: Any) -> Run:
    with prompt():
        return run(program, inputs, parties=parties, preprocessing="ot", security="malicious", **options)


# ---- programs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parties", SIZES)
def test_programs_run_unchanged(parties: int) -> None:
    left, right = np.array([3.0, -1.5, 2.25]), np.array([1.0, 2.0, -4.0])

    async def program(party: Party, _: Any) -> Any:
        x, y = await shares_of(party, [left, right], 50)
        z = await truncate(party, await multiply(party, x, y))
        kept = await mask(party, y)
        form = await matmul(party, x.reshape(1, 3), kept.reshape(3, 1))
        square = await truncate(party, await multiply(party, z, z))
        private = await open_(party, z + 1, to=[party.size - 1])
        assert (private is None) == (party.rank < party.size - 1)
        if private is not None:
            np.testing.assert_allclose(private, left * right + 1, atol=1e-6)
        return await open_(party, x + y, 2 * z, form, square, await multiply(party, kept, kept))

    for added, twice, form, square, kept in malicious(program, parties=parties).results:
        np.testing.assert_array_equal(added, left + right)
        np.testing.assert_allclose(twice, 2 * left * right, atol=1e-6)
        np.testing.assert_array_equal(form, [[left @ right]])
        np.testing.assert_allclose(square, (left * right) ** 2, atol=1e-5)
        np.testing.assert_array_equal(kept, right * right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((2, 3), (3, 4)),
        ((4, 3), (3, 2)),
        ((3,), (3,)),
        ((3,), (3, 2)),
        ((2, 3), (3,)),
        ((2, 2, 3), (3, 2)),
        ((1, 5), (5, 1)),
    ],
)
def test_matrix_products_in_parts(left: Any, right: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    a, b = rng.integers(-9, 9, left), rng.integers(-9, 9, right)

    async def program(party: Party, _: Any) -> Any:
        x, y = await shares_of(party, [a, b], 10)
        return await open_(party, await matmul(party, x, y))

    for at_once in (1 << 13, 4):
        monkeypatch.setattr(module, "_PRODUCTS_AT_ONCE", at_once)
        np.testing.assert_array_equal(same(malicious(program).results), a @ b)


def test_products_that_broadcast_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PRODUCTS_AT_ONCE", 5)
    monkeypatch.setattr(module, "_ELEMENTS_AT_ONCE", 7)
    a, b = np.arange(12).reshape(3, 1, 4), np.arange(8).reshape(2, 4)

    async def program(party: Party, _: Any) -> Any:
        x, y, none = await shares_of(party, [a, b, np.zeros((0, 2))], 20)
        empty = await multiply(party, none, none)
        return await open_(party, await multiply(party, x, y), empty)

    for found, empty in malicious(program).results:
        np.testing.assert_array_equal(found, a * b)
        assert empty.shape == (0, 2)


@pytest.mark.parametrize("product", [multiply, matmul])
def test_many_batches_are_checked_in_between(product: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each leaves notes for the next check, and what one check can list is limited."""
    monkeypatch.setattr(module, "_PRODUCTS_AT_ONCE", 1)
    monkeypatch.setattr(module, "_UNCHECKED", 2)
    y = np.arange(5).reshape(5, 1)
    x = y if product is multiply else y.T

    async def program(party: Party, _: Any) -> Any:
        left, right = await shares_of(party, [x, y], 10)
        await party.verify()
        before = party.costs.by_step["checks/check"].rounds
        result = await product(party, left, right)
        return party.costs.by_step["checks/check"].rounds - before, await open_(party, result)

    for rounds, found in malicious(program).results:
        assert rounds >= 2 * 4  # five batches: before the third and the fifth
        np.testing.assert_array_equal(found, x * y if product is multiply else x @ y)


def test_sums_and_means() -> None:
    data = [np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, -6.0]]), np.array([[0.5, 0.25]])]
    whole = np.concatenate(data)

    async def program(party: Party, rows: Any) -> Any:
        return await secure_sum(party, rows), await secure_mean(party, rows, bound=100)

    for total, mean in [
        *malicious(program, data).results,
        *simulate(program, data, preprocessing="ot", security="malicious"),
    ]:
        np.testing.assert_allclose(total, whole.sum(axis=0), rtol=1e-12)
        np.testing.assert_allclose(mean, whole.mean(axis=0), rtol=1e-12)


def test_a_prepared_program_finds_everything_in_stock() -> None:
    values = np.array([1.5, -2.0, 3.0])

    async def program(party: Party, x: Any) -> Any:
        z = await truncate(party, await multiply(party, x, x))
        return await open_(party, z), await open_(party, await multiply(party, z, x), to=[1])

    async def twice(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [values], 16)
        inner = party.at("program")
        await prepare(inner, program, x)
        before = party.costs.bytes_sent
        found = await program(inner, x)
        assert party.costs.bytes_sent - before < 20_000  # openings and checks
        return found

    for rank, (square, private) in enumerate(malicious(twice).results):
        np.testing.assert_allclose(square, values**2, atol=1e-6)
        assert (private is None) == (rank == 0)
        if rank:
            np.testing.assert_allclose(private, values**3, atol=1e-5)


def test_scopes_side_by_side() -> None:
    async def branch(party: Party, rounds: int) -> Any:
        x = await party.share(np.array([1.0, 0.5]), bound=1, owner=rounds % party.size, shape=(2,))
        for _ in range(rounds):
            x = await truncate(party, await multiply(party, x, x))
        return await open_(party, x)

    async def program(party: Party, _: Any) -> Any:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(branch(party.at(f"branch {k}"), k + 1)) for k in range(3)]
        return [task.result() for task in tasks]

    for found in malicious(program, parties=3).results:
        for k, value in enumerate(found):
            np.testing.assert_allclose(value, np.array([1.0, 0.5]) ** (2 << k), atol=1e-5)


@pytest.mark.parametrize("bits", [41, 80, 126])
def test_a_shifted_mask_is_that_of_its_pieces(bits: int) -> None:
    shifts = [0, 1, 24, bits - 1]

    async def program(party: Party, _: Any) -> Any:
        field = party.over(F127)
        drawn = await party.preprocessing.bounded(party, field, (2, 3), bits)
        found = [(await party.preprocessing.shifted(party, drawn, shift)).summand for shift in shifts]
        await party.verify()
        return field.public_mac(F127.encode([1])), drawn.summand, found  # type: ignore[attr-defined]

    results = malicious(program, parties=3).results
    alpha = _total([key for key, _, _ in results])
    for k, shift in enumerate(shifts):
        for _, drawn, found in results:  # each party's piece for itself
            piece = np.ascontiguousarray(drawn["value"])
            wanted = Structure("shift", (shift,)).apply(F127, piece)
            assert F127.equal(np.ascontiguousarray(found[k]["value"]), wanted).all()
            assert (F127.decode(piece) < 1 << bits).all()
        value, tag = (_total([found[k][part] for _, _, found in results]) for part in ("value", "mac"))
        assert F127.equal(tag, F127.mul(value, alpha)).all()


def _total(arrays: Any) -> FieldArray:
    summed = F127.zeros(())
    for array in arrays:
        summed = F127.add(summed, np.ascontiguousarray(array))
    return summed


# ---- costs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parties", [2, 3])
def test_bytes_of_a_product(parties: int) -> None:
    """From each party to each other: a product has three raw ones, and MACs for three elements."""
    count, digits = 2000, 43

    async def program(party: Party, _: Any) -> tuple[int, int, int]:
        field = party.over(F127)
        sent = [party.costs.bytes_sent]
        a, b = [await party.preprocessing.uniform(party, field, (count,)) for _ in range(2)]
        sent.append(party.costs.bytes_sent)
        await (await party.preprocessing.product(party, a, b, "multiply"))
        sent.append(party.costs.bytes_sent)
        await party.preprocessing.bounded(party, field, (10,), 70)
        sent.append(party.costs.bytes_sent)
        uniform, product, bounded = np.diff(sent) / (parties - 1)
        return uniform / (2 * count), product / count, bounded / 10

    for uniform, product, bounded in malicious(program, parties=parties).results:
        assert 16 * digits < uniform < 1.05 * 16 * digits
        corrections, transfers = 16 * 127 * RAW, 4.2 * 127 * RAW
        assert product == pytest.approx(corrections + transfers + 3 * 16 * digits + 3 * 16, rel=0.1)
        assert 70 * 16 * digits < bounded < 1.05 * 70 * 16 * digits


def test_estimates() -> None:
    async def program(party: Party, data: Any) -> Any:
        (x, *_) = await party.share(data, bound=1, shape=(20,))
        return await open_(party, await multiply(party, x, x))

    plain = estimate(program, (20,), parties=2, preprocessing="ot")
    checked = estimate(program, (20,), parties=2, preprocessing="ot", security="malicious")
    assert checked.rounds > plain.rounds
    assert min(checked.bytes_sent) > max(plain.bytes_sent)


# ---- what it refuses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (lambda p: p.share(np.arange(3), bound=2, field=F61, shape=(3,)), "F61"),
        (lambda p: p.share(np.arange(3), bound=2, field=GF(7), shape=(3,)), "GF"),
        (lambda p: shuffle(p, [p.constant(np.arange(4))]), "shuffle"),
    ],
)
def test_refused_before_anything_is_sent(program: Any, words: str) -> None:
    async def guarded(party: Party, _: Any) -> None:
        with pytest.raises(SecurityError, match=words):
            await program(party.at("here"))
        assert party.costs.bytes_sent == 0

    malicious(guarded).results  # noqa: B018


def test_waves_are_refused_by_name() -> None:
    async def guarded(party: Party, _: Any) -> None:
        (x,) = await shares_of(party, [np.arange(3.0)], 5)
        sent = party.costs.bytes_sent
        for curve in (sigmoid, softplus):
            with pytest.raises(SecurityError, match=f"{curve.__name__} .* has no waves of masks"):
                await curve(party, x, limit=20.0)
        assert party.costs.bytes_sent == sent

    malicious(guarded).results  # noqa: B018


def test_masks_of_others_are_refused() -> None:
    from mpc.preprocessing.dealer import DealerMask

    async def program(party: Party, _: Any) -> None:
        ours = await party.preprocessing.uniform(party, party.over(F127), (2,))
        theirs = DealerMask(ours.field, ours.summand, ours.recipe, 2)
        with pytest.raises(TypeError, match="another"):
            await (await party.preprocessing.product(party, ours, theirs, "multiply"))
        with pytest.raises(ValueError, match="bounded"):
            await party.preprocessing.shifted(party, ours, 3)

    malicious(program).results  # noqa: B018


# ---- wrong products ------------------------------------------------------------------------------------------------

Shift = Callable[[FieldArray], FieldArray]


def _plus(values: FieldArray, shift: int = 1, at: int = 0) -> FieldArray:
    changed = values.copy()
    flat = changed.reshape(-1)
    flat[at : at + 1] = F127.add(flat[at : at + 1], F127.encode([shift]))
    return changed


def one_product(*, parties: int, matrices: bool, tamper: Any = None) -> Run:
    """One product of uniform masks, and a check; the outcomes are our summands."""

    async def program(party: Party, _: Any) -> Any:
        field, source = party.over(F127), party.preprocessing
        shapes = ((2, 3), (3, 2)) if matrices else ((4,), (4,))
        a, b = [await source.uniform(party, field, shape) for shape in shapes]
        c = await (await source.product(party, a, b, "matmul" if matrices else "multiply"))
        await party.verify()
        return a.summand, b.summand, c

    return malicious(program, parties=parties, tamper=tamper)


def is_right(results: Any, *, matrices: bool) -> bool:
    a, b, c = (_total([one[k]["value"] for one in results]) for k in range(3))
    return bool(F127.equal(F127.matmul(a, b) if matrices else F127.mul(a, b), c).all())


@pytest.mark.parametrize("parties", SIZES)
@pytest.mark.parametrize("matrices", [False, True])
def test_products_of_masks(parties: int, matrices: bool) -> None:
    results = one_product(parties=parties, matrices=matrices).results
    assert is_right(results, matrices=matrices)


def stopped(done: Run, cheater: int = 1) -> None:
    honest = [outcome for rank, outcome in enumerate(done.outcomes) if rank != cheater]
    assert all(isinstance(outcome, CheatingError | PeerError) for outcome in honest), honest
    assert any("the check of" in str(outcome) for outcome in honest), honest


@pytest.mark.parametrize("matrices", [False, True])
@pytest.mark.parametrize(("end", "at"), [("/c", 0), ("/c", 3), ("/c", 4), ("/c", 7), ("/c", -1), ("/f", 0)])
def test_a_wrong_summand_that_gets_macs(end: str, at: int, matrices: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The products, then the second combination, then the fresh factor, then what is sacrificed."""
    authenticate = Macs.authenticate

    async def changed(self: Any, scope: Party, field: Any, own: FieldArray, *more: Any, **options: Any) -> Any:
        if RANK.get() == 1 and scope.path.endswith(end):
            own = _plus(own, at=at % own.size)
        return await authenticate(self, scope, field, own, *more, **options)

    monkeypatch.setattr(Macs, "authenticate", changed)
    stopped(one_product(parties=2, matrices=matrices))


@pytest.mark.parametrize("matrices", [False, True])
@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("toward", [0, 2])
def test_another_factor_toward_one_chooser(
    parties: int, toward: int, matrices: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = Pairs.offer

    async def offered(self: Any, scope: Party, other: int, kind: Any, values: FieldArray) -> FieldArray:
        cheats = RANK.get() == 1 and other == toward and kind.transfers == F127.bits
        return await offer(self, scope, other, kind, _plus(values, at=1) if cheats else values)

    monkeypatch.setattr(Pairs, "offer", offered)
    done = one_product(parties=parties, matrices=matrices)
    if toward < parties:
        stopped(done)
    else:
        assert is_right(done.results, matrices=matrices)


@pytest.mark.parametrize("raw", range(RAW))
@pytest.mark.parametrize("parties", [2, 3])
def test_other_bits_toward_one_offerer(raw: int, parties: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the first raw factor, of the second, of the one that both combinations have."""
    choose = Pairs.choose

    async def chosen(self: Any, scope: Party, other: int, kind: Any, choices: Any, width: int) -> Any:
        if RANK.get() == 1 and other == 0 and kind.transfers == F127.bits:
            choices = choices.copy()
            choices[raw, 77] ^= 1
        return await choose(self, scope, other, kind, choices, width)

    monkeypatch.setattr(Pairs, "choose", chosen)
    stopped(one_product(parties=parties, matrices=False))


def test_a_guess_at_a_bit_passes_half_of_the_time_and_is_right() -> None:
    """An offerer that corrects one transfer otherwise learns one bit of a raw factor, or is found."""
    outcomes = []
    for _ in range(12):
        done = one_product(parties=2, matrices=False, tamper=_at_one_bit)
        if isinstance(done.outcomes[0], Exception):
            stopped(done)
        else:
            assert is_right(done.results, matrices=False)
        outcomes.append(isinstance(done.outcomes[0], Exception))
    assert 0 < sum(outcomes) < len(outcomes)  # fails once in 2048


def _at_one_bit(message: Message) -> list[Message]:
    if "product" not in message.step or "/corrections.0" not in message.step or message.frm != 1:
        return [message]
    if message.step.endswith(("/c/corrections.0", "/f/corrections.0")):
        return [message]
    corrections = _plus(F127.from_bytes(message.data, len(message.data) // 16), at=5)
    return [message._replace(data=bytes(F127.to_bytes(corrections)))]


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("step", ["/difference#", "/masked#", "/rest#"])
def test_a_shift_of_what_is_opened(step: str, parties: int) -> None:
    """Toward party 0 alone."""

    def tamper(message: Message) -> list[Message]:
        if step not in message.step or (message.frm, message.to) != (1, 0):
            return [message]
        return [message._replace(data=bytes(F127.to_bytes(_plus(F127.from_bytes(message.data, (4,))))))]

    stopped(one_product(parties=parties, matrices=False, tamper=tamper))


def test_a_shift_of_the_difference_that_all_see_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes the product wrong by a multiple of b, which the cheater does not know."""
    opened = opening.open_unchecked

    async def shifted(scope: Party, name: str, field: Any, summands: FieldArray) -> FieldArray:
        return await opened(scope, name, field, _plus(summands, 7) if scope.rank == 1 else summands)

    monkeypatch.setattr(products, "open_unchecked", shifted)
    stopped(one_product(parties=2, matrices=False))


@pytest.mark.parametrize("matrices", [False, True])
def test_without_the_sacrifice_wrong_products_pass(matrices: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it is the sacrifice that finds them."""
    authenticate = Macs.authenticate

    async def changed(self: Any, scope: Party, field: Any, own: FieldArray, *more: Any, **options: Any) -> Any:
        if RANK.get() == 1 and scope.path.endswith("/c"):
            own = _plus(own)
        return await authenticate(self, scope, field, own, *more, **options)

    monkeypatch.setattr(Macs, "authenticate", changed)
    monkeypatch.setattr(products, "sacrificed", lambda field, *_: field.zeros((1,)))
    assert not is_right(one_product(parties=2, matrices=matrices).results, matrices=matrices)


# ---- how often the sacrifice misses, exactly -----------------------------------------------------------------------


@pytest.mark.parametrize("modulus", [5, 7])
@pytest.mark.parametrize("off", [(0, 0), (0, 1), (2, 0)])
@pytest.mark.parametrize("second", [(0, 0, 0), (1, 0, 2)])
def test_how_often_the_sacrifice_misses(modulus: int, off: tuple[int, int], second: tuple[int, int, int]) -> None:
    """Over all coins: c is off by ``off``, the second products by ``second`` and f by the last of it."""
    field = GF(modulus)

    def element(*values: int) -> FieldArray:
        return field.encode([(v + field.half) % modulus - field.half for v in values])

    a, b, x = element(2, 3), element(1, 4), element(3, 1)
    c = field.add(field.mul(a, b), element(*off))
    z = field.add(field.mul(x, b), element(*second[:2]))
    passed = 0
    for *weights, coin in combinations(range(modulus), repeat=3):
        chi, rho = element(*weights), element(coin)
        f = field.add(field.matmul(chi, z).reshape(1), element(second[2]))
        e = field.sub(field.mul(a, rho), x)
        passed += not sacrificed(field, Entries(), (chi, rho, e), b, c, f).any()
    if not any(off) and not any(second):
        assert passed == modulus**3
    elif any(off) and not any(second):  # chi misses, or rho does
        assert passed == modulus**3 - (modulus**2 - modulus) * (modulus - 1) == (2 * modulus - 1) * modulus
    assert passed <= 2 * modulus**2 or not any(off)


def test_the_sacrifice_of_matrices_is_that_of_entries() -> None:
    rng = np.random.default_rng(3)
    a, b, x, chi = (F127.encode(rng.integers(-(2**60), 2**60, size)) for size in ((2, 3), (3, 4), (2, 3), (8,)))
    rho = F127.encode([12345])
    way = Matrices(2)
    f = F127.matmul(chi, F127.matmul(x, b).reshape(-1)).reshape(1)
    e = F127.sub(F127.mul(a, rho), x).reshape(-1)
    c = F127.matmul(a, b).reshape(-1)
    assert F127.equal(sacrificed(F127, way, (chi, rho, e), b, c, f), F127.zeros((1,))).all()
    assert not F127.equal(sacrificed(F127, way, (chi, rho, e), b, _plus(c), f), F127.zeros((1,))).all()


def test_nothing_shows_in_representations() -> None:
    async def program(party: Party, _: Any) -> list[str]:
        drawn = await party.preprocessing.uniform(party, party.over(F127), (2,))
        assert isinstance(drawn, AuthenticatedOtMask)
        assert isinstance(drawn.field, Authenticated)
        return [repr(drawn), repr(party.preprocessing._macs)]  # type: ignore[attr-defined]

    assert same(malicious(program).results) == ["AuthenticatedOtMask(shape=(2,))", "Macs(F127)"]


@pytest.mark.parametrize("seed", range(3))
def test_both_combinations_are_uniform_together(seed: int) -> None:
    """For every coin, over all raw factors: what masks a, and what masks rho a."""
    field = GF(5)
    raw = field.encode([[v - 2 for v in row] for row in combinations(range(5), repeat=RAW)])
    none = field.zeros((len(raw), RAW, 1))
    coin = Prg(bytes([seed]) * 32)

    class Same:
        """One weight for all entries: that of the coin."""

        def __init__(self, name: str) -> None:
            self._stream = coin.stream(name)

        def elements(self, base: Any, shape: Any) -> FieldArray:
            return np.broadcast_to(self._stream.elements(base, (1,)), shape)

    x, z = products._combined(field, Same("first"), 0, raw, none, Entries())  # type: ignore[arg-type]
    x_, z_ = products._combined(field, Same("second"), 1, raw, none, Entries())  # type: ignore[arg-type]
    pairs = Counter(zip(field.decode(x).tolist(), field.decode(x_).tolist(), strict=True))
    assert len(pairs) == 25
    assert set(pairs.values()) == {5 ** (RAW - 2)}
    assert not z.any()
    assert not z_.any()
