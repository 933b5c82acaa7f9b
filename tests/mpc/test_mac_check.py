"""The check of MACs: when it is made, what it costs, what it refuses, and how often a cheater gets past it."""

import asyncio
import re
from itertools import product as pairs
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
    agree,
    argsort,
    cholesky,
    estimate,
    exp,
    inverse,
    is_negative,
    less_than,
    log,
    mac_check,
    mask,
    multiply,
    open_,
    prepare,
    reciprocal,
    run_bounds,
    shuffle,
    sigmoid,
    solve,
    sort,
    sqrt,
    truncate,
)
from mpc.bit_inputs import weights
from mpc.indices import R32
from mpc.preprocessing.requests import parse_request
from mpc.prg import Prg
from parties import simulate
from protocols import Disclosure, secure_mean, secure_sum, secure_variance
from tests.mpc.support import Message, Run, opened, run, same, shares_of

VALUES = np.array([1.5, -2.0, 3.0, 0.0, 7.25])


def malicious(program: Any, inputs: Any = None, **options: Any) -> Run:
    return run(program, inputs, security="malicious", **options)


# ---- results are those without MACs -----------------------------------------------------------------------------


@pytest.mark.parametrize("parties", [2, 3, 5])
@pytest.mark.parametrize("field", [F127, F61], ids=str)
def test_sums_and_products(parties: int, field: Any) -> None:
    async def program(party: Party, _: Any) -> Any:
        x, y = await shares_of(party, [np.arange(-3, 4), np.arange(7)], 10, field)
        one = party.constant(1, field=field)
        terms = await multiply(party, x, y - 2)
        again = await multiply(party, await mask(party, terms), 3 - x)
        return await open_(party, x + y, terms + one, again, (x * np.arange(7)).sum(), x[::2] - 1)

    for found in malicious(program, parties=parties).results:
        x, y = np.arange(-3, 4), np.arange(7)
        expected = [x + y, x * (y - 2) + 1, x * (y - 2) * (3 - x), (x * np.arange(7)).sum(), x[::2] - 1]
        for ours, right in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, right)


def test_functions() -> None:
    positive = np.abs(VALUES) + 1
    for function, values, right in (
        (lambda p, x: truncate(p, x.lifted(40)), VALUES, VALUES),
        (lambda p, x: is_negative(p, x), VALUES, VALUES < 0),
        (lambda p, x: sigmoid(p, x), VALUES, 1 / (1 + np.exp(-VALUES))),
        (lambda p, x: reciprocal(p, x, lower=0.5, upper=16), positive, 1 / positive),
        (lambda p, x: sqrt(p, x, upper=16), positive, np.sqrt(positive)),
        (lambda p, x: log(p, x, lower=0.5, upper=16), positive, np.log(positive)),
        (lambda p, x: exp(p, x, lower=-3, upper=8), VALUES, np.exp(VALUES)),
    ):
        found = opened(function, values, bound=16, security="malicious")
        np.testing.assert_allclose(found, right, rtol=1e-6, atol=2e-4)


def test_openings_to_some() -> None:
    async def program(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [np.arange(5)], 10)
        return await open_(party, x * 2, to=[0, 2])

    first, second, third = malicious(program).results
    assert second is None
    np.testing.assert_array_equal(first, np.arange(5) * 2)
    np.testing.assert_array_equal(third, np.arange(5) * 2)


def test_a_prepared_program_finds_everything_in_stock() -> None:
    async def program(party: Party, x: Any) -> Any:
        z = await truncate(party, await multiply(party, x, x))
        some = await open_(party, z, to=[0, 2])
        assert (some is None) == (party.rank == 1)
        return await open_(party, z, await less_than(party, z, x), await sigmoid(party, x))

    async def twice(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [VALUES], 16)
        inner = party.at("program")
        await prepare(inner, program, x)
        before = party.costs.step("program/dealer").messages
        found = await program(inner, x)
        assert party.costs.step("program/dealer").messages == before
        return found

    for square, less, curve in malicious(twice).results:
        np.testing.assert_allclose(square, VALUES**2, atol=1e-6)
        np.testing.assert_array_equal(less[VALUES != 0], (VALUES**2 < VALUES)[VALUES != 0])  # a square is rounded
        np.testing.assert_allclose(curve, 1 / (1 + np.exp(-VALUES)), atol=1e-4)


def test_scopes_side_by_side_are_checked_together() -> None:
    async def branch(party: Party, rounds: int) -> Any:
        x = await party.share(np.array([1.0, 0.5]), bound=1, owner=rounds % party.size, shape=(2,))
        for _ in range(rounds):
            x = await truncate(party, await multiply(party, x, x))
        return await open_(party, x)

    async def program(party: Party, _: Any) -> Any:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(branch(party.at(f"branch {k}"), k + 1)) for k in range(4)]
        return [task.result() for task in tasks]

    lists = 0
    for _ in range(5):
        done = malicious(program)
        for found in done.results:
            for k, value in enumerate(found):
                np.testing.assert_allclose(value, np.array([1.0, 0.5]) ** (2 << k), atol=1e-5)
        lists += sum(m.step.endswith(".list") for m in done.log)
    assert lists  # some checks began with different notes


def test_with_processes() -> None:
    async def program(party: Party, data: Any) -> Any:
        return await secure_sum(party, data), await secure_mean(party, data, bound=100)

    data = [np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, -6.0]]), np.array([[0.5, 0.25]])]
    whole = np.concatenate(data)
    for security in ("malicious", "semi-honest"):
        for total, mean in simulate(program, data, security=security):
            np.testing.assert_allclose(total, whole.sum(axis=0), rtol=1e-12)
            np.testing.assert_allclose(mean, whole.mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("rule", ["none", "vantage6"])
def test_sums_and_means_of_rows(rule: str) -> None:
    async def program(party: Party, data: Any) -> Any:
        disclosure = Disclosure.preset(rule)
        return await secure_mean(party, data, bound=50, disclosure=disclosure, to=[1])

    data = [np.arange(10.0) + k for k in range(3)]
    found = malicious(program, data).results
    assert found[0] is None
    assert found[1] == pytest.approx(np.concatenate(data).mean(), rel=1e-9)


# ---- costs -------------------------------------------------------------------------------------------------------


def test_what_a_check_costs() -> None:
    async def program(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [np.arange(50)], 100)
        await party.verify()
        before = party.costs.step("checks/check").bytes_sent, party.costs.step("checks/check").rounds
        await multiply(party, x, x)
        await party.verify()
        after = party.costs.step("checks/check").bytes_sent, party.costs.step("checks/check").rounds
        await party.verify()  # nothing is new
        return after[0] - before[0], after[1] - before[1], party.costs.step("checks/check").rounds - after[1]

    for sent, rounds, more in malicious(program, parties=3).results:
        assert sent == 2 * (192 + F127.element_bytes)
        assert (rounds, more) == (4, 1)


def test_products_send_what_they_send_without_macs() -> None:
    async def program(party: Party, _: Any) -> int:
        x, y = await shares_of(party, [np.arange(3000), np.arange(3000)], 10_000)
        await multiply(party, x, y)
        return party.costs.step("multiply").bytes_sent

    assert malicious(program).results == run(program).results


def test_a_check_is_due_after_so_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    from mpc import party as seats

    monkeypatch.setattr(seats, "PIECE", 100)

    async def program(party: Party, _: Any) -> int:
        x = party.constant(np.arange(30))
        for _ in range(10):  # 30 values each
            await multiply(party, x, x)
        return party.costs.step("checks/check").rounds

    assert malicious(program).results == [2 * 4] * 3


@pytest.mark.parametrize("magnitude", [*range(20), 1000, F127.half, F61.half, (1 << 50) - 1])
def test_weights_reach_the_range_and_nothing_else(magnitude: int) -> None:
    table = weights(magnitude)
    assert sum(table) == 2 * magnitude
    if magnitude < 20:
        sums = {
            sum(w for w, taken in zip(table, bits, strict=True) if taken) for bits in pairs([0, 1], repeat=len(table))
        }
        assert sums == set(range(2 * magnitude + 1))
    if table:
        assert 2 * magnitude < 2 ** len(table) <= 4 * magnitude + 2
        assert all(table[j] == 1 << j for j in range(len(table) - 1))
        assert 0 < table[-1] <= 1 << len(table) - 1


@pytest.mark.parametrize("field", [F127, F61], ids=str)
def test_inputs_at_the_ends_of_their_range(field: Any) -> None:
    for bound in (0, 1, 2, 3, 1000, field.half):
        values = np.array([-bound, 0, bound, bound // 2, -(bound // 3)], object)

        async def program(party: Party, _: Any, values: Any = values, bound: int = bound) -> Any:
            return await open_(party, await party.share(values, bound=bound, owner=1, field=field, shape=(5,)))

        np.testing.assert_array_equal(same(malicious(program, parties=2).results).astype(object), values)


def test_summands_of_inputs_are_uniform() -> None:
    """Without that, what is opened under a mask of bounded size would show the high digits of a summand."""

    async def program(party: Party, _: Any) -> Any:
        x = await party.share(np.zeros(500), bound=1, owner=0, shape=(500,))
        return x.values["value"]["hi"] >> np.uint64(62)

    for top in malicious(program).results:
        assert 150 < np.count_nonzero(top) < 350


def test_estimates() -> None:
    async def program(party: Party, data: Any) -> Any:
        (x, *_) = await party.share(data, bound=1, shape=(20,))
        return await open_(party, await multiply(party, x, x))

    plain = estimate(program, (20,), preprocessing="dealer")
    checked = estimate(program, (20,), preprocessing="dealer", security="malicious")
    assert checked.rounds > plain.rounds
    assert checked.dealer_bytes > plain.dealer_bytes
    with pytest.raises(SecurityError):
        estimate(program, (20,), preprocessing="prss", security="malicious")


# ---- how often a cheater gets past it ------------------------------------------------------------------------------


def sources(modulus: int, honest_key: int, seed: str) -> Any:
    """All streams are known, but party 0's key is the given one."""
    field = GF(modulus)

    class Fixed:
        def elements(self, base: Any, shape: Any) -> Any:
            return field.encode(np.full(shape, honest_key if honest_key <= field.half else honest_key - modulus))

    def for_rank(rank: int) -> Any:
        def make(name: str, _: bytes) -> Any:
            known = f"dealer {rank}" if name == "dealer" else name
            prg = Prg(seed.encode().ljust(16, b".") + known.encode().ljust(16, b"."))

            class Source:
                def stream(self, label: str, position: int = 0) -> Any:
                    mine = known == "dealer 0" and label.startswith("key|GF")
                    return Fixed() if mine else prg.stream(label, position)

            return Source()

        return make

    return for_rank


@pytest.mark.parametrize("modulus", [5, 7])
@pytest.mark.parametrize("step", ["open#", "multiply#"])
def test_a_shift_passes_for_one_key_of_all(modulus: int, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly: over all keys of the honest party, a shift that it alone sees is not found with probability 1/p."""
    monkeypatch.setattr(mac_check, "LEAST_BITS", 2)
    field = GF(modulus)

    def tamper(message: Message) -> list[Message]:
        if step in message.step and message.frm == 1:
            return [message._replace(data=bytes([(message.data[0] + 1) % modulus]))]
        return [message]

    async def program(party: Party, secret: int) -> Any:
        (x,) = await shares_of(party, [np.array([secret])], 2, field)
        if step == "multiply#":
            x = await multiply(party, x, party.constant(np.array([1]), field=field)[:1])
            await party.verify()
            return 0
        return await open_(party, x)

    for seed, secret in pairs(("a", "b"), (-1, 0, 1)):  # whatever is opened: that a run ends tells nothing
        passed = 0
        for key in range(modulus):
            made = sources(modulus, key, seed)
            done = malicious(program, [secret] * 2, tamper=tamper, make_source=made)
            outcome = done.outcomes[0]
            assert not isinstance(outcome, Exception) or isinstance(outcome, CheatingError | PeerError), outcome
            passed += not isinstance(outcome, Exception)
        if step == "open#":
            assert passed == 1
        else:  # two values are opened, so the polynomial has degree 1: at most 2/p
            assert passed <= 2


# ---- what it refuses ------------------------------------------------------------------------------------------------


def refused(program: Any, words: str, **options: Any) -> None:
    """Refused by name at every party, before anything is sent but for joining."""

    async def guarded(party: Party, _: Any) -> None:
        seat = party.at("here")
        with pytest.raises(SecurityError, match=words):
            await program(seat)
        assert party.costs.bytes_sent == 0

    assert malicious(guarded, **options).results == [None] * 3


def test_functions_that_do_not_run_are_refused_by_name() -> None:
    square = np.eye(2)
    for program, words in (
        (lambda p: shuffle(p, [p.constant(np.arange(4))]), "shuffle"),
        (lambda p: sort(p, p.constant(np.arange(4))), "sort"),
        (lambda p: argsort(p, p.constant(np.arange(4))), "argsort"),
        (lambda p: run_bounds(p, p.constant(np.arange(4))), "run_bounds"),
        (lambda p: solve(p, p.constant(square), p.constant(np.ones(2)), largest=2, smallest=0.5), "solve"),
        (lambda p: inverse(p, p.constant(square), largest=2, smallest=0.5), "inverse"),
        (lambda p: cholesky(p, p.constant(square), largest=2, smallest=0.5), "cholesky"),
        (lambda p: p.share(np.arange(3), bound=2, field=GF(7), shape=(3,)), "GF"),
        (lambda p: p.share(np.arange(3), bound=2, field=R32, shape=(3,)), "R32"),
        (lambda p: secure_variance(p, np.arange(3.0), bound=5), "secure_variance"),
        (lambda p: secure_mean(p, np.arange(3.0), bound=5, count="secret"), "secure_mean"),
        (lambda p: secure_sum(p, np.arange(3.0), bound=5, disclosure=Disclosure.preset("ons")), "dominance"),
    ):
        refused(program, words)


def test_prss_is_refused() -> None:
    with pytest.raises(SecurityError, match="prss"):
        run(lambda party, _: agree(party, "x", "y"), preprocessing="prss", security="malicious").results  # noqa: B018
    with pytest.raises(SecurityError, match="prss"):
        simulate(secure_sum, [1, 2, 3], preprocessing="prss", security="malicious")
    with pytest.raises(SecurityError, match="security is one of"):
        simulate(secure_sum, [1, 2, 3], security="covert")


def test_values_without_macs_are_not_opened() -> None:
    from mpc import Share

    async def program(party: Party, _: Any) -> Any:
        plain = Share(F127, F127.encode([1, 2]), 0, 5, leads=party.rank == 0)
        with pytest.raises((SecurityError, TypeError)):
            await multiply(party, plain, plain)
        with pytest.raises((SecurityError, TypeError)):
            await open_(party.at("a"), plain)

    done = malicious(program)
    done.results  # noqa: B018
    assert not any("open" in m.step for m in done.log)  # nor shown before it is refused


def test_nothing_is_opened_after_a_check_has_failed() -> None:
    def tamper(message: Message) -> list[Message]:
        if "first/open#" in message.step and message.frm == 1 and message.to == 0:
            return [message._replace(data=bytes([message.data[0] ^ 1]) + message.data[1:])]
        return [message]

    async def program(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [np.arange(5)], 10)
        try:
            await open_(party.at("first"), x)
        except CheatingError:
            with pytest.raises(CheatingError, match="before"):
                await open_(party.at("second"), x)
            raise

    done = malicious(program, tamper=tamper)
    assert all(isinstance(outcome, CheatingError | PeerError) for outcome in done.outcomes)
    assert any(isinstance(outcome, CheatingError) for outcome in done.outcomes)


def test_parties_that_join_for_different_models() -> None:
    from mpc import AgreementError, join, serve_dealer
    from mpc.memory import MemoryNetwork

    async def together() -> list[Any]:
        network = MemoryNetwork(2, timeout_seconds=2)
        seats = [network.transport(rank) for rank in range(3)]
        return list(
            await asyncio.gather(
                join(seats[0], preprocessing="dealer", security="malicious"),
                join(seats[1], preprocessing="dealer"),
                asyncio.wait_for(serve_dealer(seats[2]), 0.2),
                return_exceptions=True,
            )
        )

    outcomes = asyncio.run(together())
    assert all(isinstance(outcome, AgreementError) for outcome in outcomes[:2])
    assert "malicious" in str(outcomes[1])


def test_the_key_shows_nowhere() -> None:
    async def program(party: Party, _: Any) -> list[str]:
        (x,) = await shares_of(party, [np.arange(5)], 10)
        shown = (party, party.guard, x, x.field, party.preprocessing)
        return [repr(thing).rpartition(" at 0x")[0] or repr(thing) for thing in shown]

    for texts in malicious(program).results:
        assert not any(re.search(r"\d{6}", text) for text in texts), texts


def test_requests_for_macs_are_understood_and_known_masks_are_checked() -> None:
    async def program(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [np.arange(5)], 10)
        return await open_(party, await truncate(party, x.lifted(30)), await is_negative(party, x))

    log = malicious(program).log
    requests = [m.data for m in log if m.step.startswith("request") and m.data != b"leave"]
    assert any(data.startswith(b'["macs"') for data in requests)
    for data in requests:
        assert parse_request(data).to_bytes() == data
    for bad in (b'["macs",[],"a",0]', b'["macs",[[["p",0,"F127",[2],1,"0"],[],"1"]],"a",0]'):
        with pytest.raises(ValueError):
            parse_request(bad)
