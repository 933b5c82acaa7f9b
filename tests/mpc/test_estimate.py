"""Cost previews, compared with what the same program costs on other data."""

import asyncio
import json
from typing import Any

import numpy as np
import pytest

from mpc import DataError, Party, is_negative, less_than, matmul, multiply, open_, truncate
from mpc.estimate import NETWORKS, CostEstimate, Network, estimate
from mpc.hops import HopLoop
from mpc.made_up import MadeUp, make_up
from mpc.memory import MemoryNetwork, run_together
from parties import simulate
from protocols import logistic_regression, secure_mean, secure_variance
from tests.mpc.support import SMALL_WORLDS, WORLDS, Run, in_turn, run

worlds = pytest.mark.parametrize(("parties", "preprocessing"), WORLDS)
small_worlds = pytest.mark.parametrize(("parties", "preprocessing"), SMALL_WORLDS)

TABLE = {"X": (40, 3), "y": MadeUp((40,), "boolean")}


async def means(party: Party, data: Any) -> Any:
    return await secure_mean(party, data["X"], bound=2.0)


async def spread(party: Party, data: Any) -> Any:
    return await secure_variance(party, data["X"])


async def fit(party: Party, data: Any) -> Any:
    return await logistic_regression(party, data["X"], data["y"], bound=1.0, l2=5.0, steps=3)


async def arithmetic(party: Party, data: Any) -> Any:
    """A bit of everything, with openings that go in parts."""
    (x,) = [await party.share(data["X"] if party.rank == 0 else None, bound=1.0, owner=0, shape=(9000, 2))]
    z = await truncate(party, await multiply(party, x, x))
    negative = await is_negative(party, x[:100])
    gram = await truncate(party, await matmul(party, z.T, x))
    return await open_(party, gram, to=[0]), await open_(party, negative)


def assert_foreseen(expected: CostEstimate, done: Run) -> None:
    done.results  # noqa: B018 - raises what went wrong
    costs = [party.costs for party in done.parties]
    assert expected.rounds == max(one.rounds for one in costs)
    assert expected.bytes_sent == tuple(one.bytes_sent for one in costs)
    assert expected.elements_opened == max(one.elements_opened for one in costs)
    assert expected.triples == max(one.triples for one in costs)
    assert expected.messages == max(one.total.messages for one in costs)
    dealer = len(costs)
    assert expected.dealer_bytes == sum(len(m.data) for m in done.sent if m.frm == dealer)
    out = [sum(len(m.data) for m in done.log if m.frm == k and "join/" not in m.step) for k in range(dealer + 1)]
    into = [sum(len(m.data) for m in done.log if m.to == k and "join/" not in m.step) for k in range(dealer + 1)]
    assert expected.busiest_bytes == max(out + into)


@worlds
def test_means_cost_what_was_foreseen(parties: int, preprocessing: str) -> None:
    expected = estimate(means, TABLE, parties=parties, preprocessing=preprocessing)
    done = run(means, [{"X": np.full((40, 3), 0.5 * k)} for k in range(parties)], preprocessing=preprocessing)
    assert_foreseen(expected, done)
    assert not expected.varies
    assert (expected.rounds, expected.hops, expected.elements_opened, expected.revealed) == (4, 4, 4, 4)


@pytest.mark.parametrize(("parties", "preprocessing", "program"), in_turn(SMALL_WORLDS, [spread, fit, arithmetic]))
def test_cost_is_what_was_foreseen(parties: int, preprocessing: str, program: Any) -> None:
    shapes = {"X": (9000, 2)} if program is arithmetic else TABLE
    expected = estimate(program, shapes, parties=parties, preprocessing=preprocessing)
    data = [make_up(shapes, f"other data {rank}") for rank in range(parties)]
    assert_foreseen(expected, run(program, data, preprocessing=preprocessing))
    assert not expected.varies
    assert expected.trials == 2
    assert (expected.dealer_bytes > 0) == (preprocessing == "dealer" and expected.triples > 0)


def test_processes_cost_what_was_foreseen() -> None:
    data = [{"X": np.linspace(-1, rank, 120).reshape(40, 3)} for rank in range(3)]
    costs = simulate(means, data).costs
    expected = estimate(means, TABLE)
    assert (expected.rounds, sum(expected.bytes_sent)) == (costs.rounds, costs.bytes_sent)


def test_hops_are_shared_by_what_runs_side_by_side() -> None:
    async def one_after_the_other(party: Party, x: Any) -> None:
        for share in await party.share(x, bound=1.0):
            await less_than(party, share, 0)

    async def side_by_side(party: Party, x: Any) -> None:
        shares = await party.share(x, bound=1.0)
        async with asyncio.TaskGroup() as group:
            for k, share in enumerate(shares):
                group.create_task(less_than(party.at(f"compare {k}"), share, 0))

    slow, fast = estimate(one_after_the_other, (5,)), estimate(side_by_side, (5,))
    assert (slow.rounds, slow.bytes_sent) == (fast.rounds, fast.bytes_sent)
    assert slow.hops == slow.rounds
    assert fast.hops - 1 == (fast.rounds - 1) / 3


def test_a_dealer_s_answer_takes_two_hops() -> None:
    async def square(party: Party, x: Any) -> Any:
        (share, *_) = await party.share(x, bound=1.0)
        return await multiply(party, share, share)

    assert estimate(square, (5,), preprocessing="prss").hops == 2
    # The header, and while the offsets travel: a request to the dealer, and his correction.
    dealt = estimate(square, (5,), preprocessing="dealer")
    assert (dealt.rounds, dealt.hops, dealt.dealer_bytes) == (2, 3, 5 * 16)


def test_steps_that_depend_on_what_is_opened_are_noticed() -> None:
    async def until_converged(party: Party, data: Any) -> Any:
        return await logistic_regression(party, data["X"], data["y"], bound=1.0, stop_early=True)

    found = estimate(until_converged, {"X": (30, 1), "y": MadeUp((30,), "boolean")})
    assert found.varies
    assert "no bound" in found.summary()
    # The columns that follow one hidden number nearly separate the labels, so the fit goes on to its last step.
    data = [make_up(TABLE, f"unrelated {rank}") for rank in range(3)]
    assert found.rounds > simulate(until_converged, data, in_process=True).costs.rounds


def test_made_up_data_that_is_refused_is_no_trial() -> None:
    async def particular(party: Party, data: Any) -> Any:
        if np.corrcoef(data.T)[0, 1] > 0.5:
            raise DataError("these columns are too much alike")
        return await secure_mean(party, data, bound=1.0)

    found = estimate(particular, (50, 2))
    assert (found.trials, found.varies, found.rounds) == (1, False, 4)


def test_each_party_has_a_description_of_its_own() -> None:
    async def rows(party: Party, data: Any) -> Any:
        assert data.shape == (10 * party.rank, 2)
        return await secure_mean(party, data, bound=1.0)

    found = estimate(rows, [(0, 2), (10, 2)], preprocessing="dealer")
    assert (found.parties, found.trials) == (2, 2)


def test_data_that_is_given_is_used_once() -> None:
    seen = []

    async def program(party: Party, data: Any) -> None:
        seen.append((party.rank, data))

    given = [np.arange(3.0), "text", None]
    found = estimate(program, given)
    assert found.trials == 1
    assert [data for _, data in sorted(seen, key=lambda one: one[0])] == given
    assert "one trial" in str(found)


def test_time_is_made_of_hops_bytes_and_work() -> None:
    slow = Network("by post", 20.0, 80.0)
    found = estimate(means, TABLE, networks=[slow, *NETWORKS], slowdown=3.0)
    assert slow.seconds(4, 100) == 4 * 10 + 10
    assert found.seconds["by post"] == pytest.approx(40 + found.busiest_bytes / 10 + found.local_seconds)
    assert list(found.seconds) == ["by post", "loopback", "LAN", "WAN"]
    assert "time on by post" in found.summary()


class Slow(MemoryNetwork):
    """Links with a delay, where what a party sends, and what it gets, takes its turn; in a loop that never waits."""

    def __init__(self, size: int, network: Network) -> None:
        super().__init__(size, timeout_seconds=1e12)
        self.network = network
        self.busy: dict[tuple[str, int], float] = {}

    def _takes_turn(self, access: tuple[str, int], ready: float, seconds: float) -> float:
        self.busy[access] = max(ready, self.busy.get(access, 0.0)) + seconds
        return self.busy[access]

    def _post(self, frm: int, to: int, step: str, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        seconds = 8 * len(data) / self.network.bits_per_second
        gone = self._takes_turn(("out", frm), loop.time(), seconds)
        arrives = self._takes_turn(("in", to), gone - seconds + self.network.round_trip_seconds / 2, seconds)
        loop.call_at(arrives, super()._post, frm, to, step, data)

    def leave(self, rank: int, reason: str) -> None:
        asyncio.get_running_loop().call_later(1e6, super().leave, rank, reason)


@small_worlds
@pytest.mark.parametrize("network", NETWORKS[1:], ids=lambda network: network.name)
def test_time_is_that_of_links_with_a_delay(parties: int, preprocessing: str, network: Network) -> None:
    times = []

    async def timed(party: Party, data: Any) -> None:
        began = party.clock()
        await arithmetic(party, data)
        times.append((began, party.clock()))

    shapes = {"X": (9000, 2)}
    found = estimate(timed, shapes, parties=parties, preprocessing=preprocessing, trials=1)
    times.clear()
    inputs = [make_up(shapes, f"party {rank}") for rank in range(parties)]
    with asyncio.Runner(loop_factory=HopLoop) as runner:
        together = run_together(timed, inputs, preprocessing=preprocessing, network=Slow(parties, network))
        outcomes = [outcome for outcome, _ in runner.run(together)]
    assert outcomes == [None] * parties
    took = max(end for _, end in times) - max(begin for begin, _ in times)
    assert took == pytest.approx(network.seconds(found.hops, found.busiest_bytes), rel=0.25)


def test_it_works_where_an_event_loop_runs() -> None:
    async def notebook() -> CostEstimate:
        return estimate(means, TABLE)

    assert asyncio.run(notebook()).rounds == 4


def test_it_is_plain_data() -> None:
    found = estimate(arithmetic, {"X": (9000, 2)}, preprocessing="dealer", trials=1)
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["bytes_sent"] == list(found.bytes_sent)
    assert plain["steps"].keys() == found.steps.keys()
    assert sum(step.rounds for step in found.steps.values()) == found.rounds
    assert "sent by the dealer" in found.summary()


def test_what_the_program_raises_is_raised() -> None:
    async def too_tight(party: Party, data: Any) -> Any:
        return await secure_mean(party, data, bound=0.01)

    with pytest.raises(DataError, match="beyond the agreed bound"):
        estimate(too_tight, (20, 2))
    with pytest.raises(ValueError, match="honest majority"):
        estimate(means, TABLE, parties=2)
    with pytest.raises(ValueError, match="trials"):
        estimate(means, TABLE, trials=0)


def test_who_waits_for_nothing_does_not_wait() -> None:
    async def one_is_missing(party: Party, _: Any) -> Any:
        if party.rank:
            await party.share(np.zeros(1), bound=1.0)

    with pytest.raises(Exception, match="party 0 has finished"):
        estimate(one_is_missing, None)


def test_made_up_values() -> None:
    wanted = {
        "numbers": MadeUp((500, 2), lower=-3.0, upper=7.0),
        "plain": (500,),
        "integers": MadeUp((500,), "integer", -2, 2),
        "booleans": MadeUp((500,), "boolean"),
        "labels": MadeUp((500,), "category", categories=("a", "b", "c")),
        "gaps": MadeUp((500,), missing=0.3),
        "label gaps": MadeUp((500,), "category", categories=(1, 2), missing=0.3),
        "inner": [(3, 2), None, ("x", 1.5)],
    }
    made, again, other = (make_up(wanted, seed) for seed in ("one", "one", "two"))
    numbers = made["numbers"]
    assert numbers.shape == (500, 2)
    assert -3 <= numbers.min() < -2.5
    assert 6.5 < numbers.max() <= 7
    assert np.abs(made["plain"]).max() <= 1
    assert set(made["integers"]) == {-2, -1, 0, 1, 2}
    assert set(made["booleans"]) == {0, 1}
    assert set(made["labels"]) == {"a", "b", "c"}
    assert 100 < np.isnan(made["gaps"]).sum() < 200
    assert 100 < sum(label is None for label in made["label gaps"]) < 200
    assert made["inner"][0].shape == (3, 2)
    assert made["inner"][1:] == [None, ("x", 1.5)]
    np.testing.assert_array_equal(again["numbers"], numbers)
    assert (other["numbers"] != numbers).mean() > 0.99
    assert abs(np.corrcoef(numbers.T)[0, 1]) < 0.2
    related = make_up(wanted, "one", related=True)
    assert np.corrcoef(related["numbers"][:, 0], related["booleans"])[0, 1] > 0.8
    assert make_up((0, 3), "empty", related=True).shape == (0, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": (2.0,)},
        {"shape": (-1,)},
        {"shape": (2,), "kind": "text"},
        {"shape": (2,), "kind": "category"},
        {"shape": (2,), "lower": 2.0, "upper": 1.0},
        {"shape": (2,), "upper": float("inf")},
        {"shape": (2,), "missing": 1.5},
    ],
)
def test_descriptions_that_contradict_themselves(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"takes|kind|shape|lower|missing"):
        MadeUp(**wrong)
