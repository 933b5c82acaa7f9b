"""simulate: the contract, in processes over TLS and in one event loop, and every way in which it can fail."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc import F127, Party, PeerError, RangeError, is_negative, mask, multiply, open_
from parties import PartyError, Results, simulate
from protocols import secure_mean, secure_sum

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="parties are forked")
BOTH = [pytest.param(False, marks=needs_fork, id="processes"), pytest.param(True, id="one process")]
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _nobody_is_left() -> Iterator[None]:
    yield
    if hasattr(os, "fork"):
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


async def total(party: Party, data: Any) -> Any:
    shares = await party.share(np.asarray(data), bound=10**6)
    added = shares[0]
    for share in shares[1:]:
        added = added + share
    return await open_(party, added)


async def square_of_total(party: Party, data: Any) -> Any:
    shares = await party.share(np.asarray(data), bound=10**6)
    added = shares[0]
    for share in shares[1:]:
        added = added + share
    return await open_(party, await multiply(party, added, added))


@pytest.mark.parametrize("in_process", BOTH)
@pytest.mark.parametrize(
    ("parties", "preprocessing"),
    [(2, None), (2, "dealer"), (3, None), (3, "dealer"), (5, "prss"), (2, "ot"), (3, "ot")],
)
def test_all_parties_learn_the_result(parties: int, preprocessing: str | None, in_process: bool) -> None:
    inputs = [np.arange(4) + 10 * rank for rank in range(parties)]
    results = simulate(square_of_total, inputs, preprocessing=preprocessing, in_process=in_process)
    assert isinstance(results, list)
    assert len(results) == parties
    for result in results:
        assert np.array_equal(result, sum(inputs) ** 2)


@pytest.mark.parametrize("in_process", BOTH)
def test_costs_tell_what_it_took(in_process: bool) -> None:
    results = simulate(square_of_total, [[1], [2], [3]], preprocessing="dealer", in_process=in_process)
    costs = results.costs
    assert [party.rank for party in costs.parties[:3]] == [0, 1, 2]
    assert costs.rounds == costs.parties[0].steps.rounds >= 2
    assert costs.bytes_sent == sum(party.steps.bytes_sent for party in costs.parties) > 0
    assert 0 < costs.parties[1].seconds <= costs.seconds
    if not in_process:
        assert len(costs.parties) == 4  # the dealer's is the last
        assert costs.wire_bytes > costs.bytes_sent
        assert costs.wire_bytes == sum(party.wire_received for party in costs.parties)
        assert costs.peak_memory_bytes > 10**7


@dataclasses.dataclass(frozen=True)
class Learnt:
    rank: int
    values: np.ndarray[Any, Any]


@needs_fork
def test_programs_are_closures_and_results_are_what_they_return() -> None:
    learnt = {"factor": 3}

    async def program(party: Party, data: Any) -> Any:
        learnt["factor"] = 5  # in that process alone
        return Learnt(party.rank, np.full(2, data * 3)), os.getpid(), {"text": "ä", "big": 2**200}

    results = simulate(program, [1, 2])
    assert [result[0].values.tolist() for result in results] == [[3, 3], [6, 6]]
    assert len({result[1] for result in results} | {os.getpid()}) == 3
    assert results[0][2] == {"text": "ä", "big": 2**200}
    assert learnt == {"factor": 3}


@needs_fork
def test_a_large_result_comes_back() -> None:
    async def program(party: Party, data: int) -> Any:
        return np.arange(data)

    results = simulate(program, [2_000_000, 10])
    assert [len(result) for result in results] == [2_000_000, 10]


@pytest.mark.parametrize("in_process", BOTH)
def test_works_inside_a_running_event_loop(in_process: bool) -> None:
    """As in a notebook, where the loop is running when a cell is."""

    async def cell() -> Results:
        return simulate(total, [[1], [2]], in_process=in_process)

    assert [result.tolist() for result in asyncio.run(cell())] == [[3], [3]]


@needs_fork
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_in_a_notebook_leaves_nobody() -> None:
    async def program(party: Party, data: Any) -> None:
        if party.rank == 0:
            os.kill(os.getppid(), signal.SIGINT)
        await asyncio.sleep(60)

    async def cell() -> None:
        simulate(program, [0, 1])

    began = time.monotonic()
    # Not asyncio.run, which turns the first interrupt into a cancellation.
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(cell())
    finally:
        loop.close()
    assert time.monotonic() - began < 5


# ---- failures -----------------------------------------------------------------------------------


def fails_at(rank: int, error: BaseException) -> Any:
    async def program(party: Party, data: Any) -> Any:
        await total(party, [1])
        if party.rank == rank:
            raise error
        return await total(party, [2])

    return program


@pytest.mark.parametrize("in_process", BOTH)
@pytest.mark.parametrize("rank", [0, 2])
def test_an_error_names_type_and_rank_and_holds_no_data(rank: int, in_process: bool) -> None:
    began = time.monotonic()
    with pytest.raises(PartyError) as caught:
        simulate(fails_at(rank, ValueError("patient 4711")), [0, 1, 2], in_process=in_process)
    assert time.monotonic() - began < 5
    assert (caught.value.rank, caught.value.error_type) == (rank, "ValueError")
    assert str(caught.value).startswith(f"party {rank}: ValueError (at {__file__}:")
    assert "in program" in str(caught.value)
    assert "4711" not in str(caught.value)


@pytest.mark.parametrize("in_process", BOTH)
def test_an_error_of_ours_brings_its_text(in_process: bool) -> None:
    with pytest.raises(PartyError, match="party 1: RangeError: too wide") as caught:
        simulate(fails_at(1, RangeError("too wide")), [0, 1], in_process=in_process)
    assert (caught.value.rank, caught.value.error_type) == (1, "RangeError")


@needs_fork
def test_an_error_inside_a_task_group_is_found() -> None:
    async def program(party: Party, data: Any) -> Any:
        async def fail() -> None:
            raise ZeroDivisionError

        async with asyncio.TaskGroup() as group:
            group.create_task(total(party, [1]))
            if party.rank == 1:
                group.create_task(fail())

    with pytest.raises(PartyError, match="party 1: ZeroDivisionError") as caught:
        simulate(program, [0, 1, 2])
    assert caught.value.error_type == "ZeroDivisionError"


@needs_fork
def test_leaving_the_interpreter_is_an_error_too() -> None:
    with pytest.raises(PartyError, match="party 0: SystemExit"):
        simulate(fails_at(0, SystemExit(3)), [0, 1])


@needs_fork
def test_a_result_that_cannot_be_given_back_is_an_error() -> None:
    async def program(party: Party, data: Any) -> Any:
        return (lambda: 0) if party.rank == 1 else 1

    with pytest.raises(PartyError, match=r"party 1: ReturnTypeError: .*builtins\.function") as caught:
        simulate(program, [0, 1])
    assert caught.value.rank == 1


@needs_fork
def test_two_parties_without_anybody_else() -> None:
    """Over TLS, with base transfers as they are: a sum, a mean, a comparison and who is older."""

    async def program(party: Party, data: Any) -> Any:
        mean = await secure_mean(party, data, bound=100)
        x, y = await party.share(data[:, 0].sum(keepdims=True), bound=10_000)
        return mean, await open_(party, await is_negative(party, x - y)), await secure_sum(party, data, bound=100)

    rows = [np.array([[40.0, 1.5], [60.0, 2.5]]), np.array([[70.0, 3.5], [50.0, 0.5], [90.0, 1.0]])]
    results = simulate(program, rows, preprocessing="ot")
    for mean, less, total_of_all in results:
        np.testing.assert_allclose(mean, np.concatenate(rows).mean(axis=0), atol=1e-6)
        np.testing.assert_array_equal(less, [1])
        np.testing.assert_allclose(total_of_all, np.concatenate(rows).sum(axis=0), atol=1e-6)
    assert len(results.costs.parties) == 2


@needs_fork
@pytest.mark.parametrize("when", ["before anybody waits", "while it is waited for"])
def test_a_peer_of_transfers_that_is_killed_is_named(when: str) -> None:
    async def program(party: Party, data: Any) -> Any:
        x = party.constant(np.zeros(20_000, int))
        if party.rank == 1:
            if when == "while it is waited for":
                asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGKILL)
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        for _ in range(1000):
            await multiply(party, x, x)

    began = time.monotonic()
    with pytest.raises(PartyError, match=r"party 1 died \(signal 9\)"):
        simulate(program, [0, 1], preprocessing="ot")
    assert time.monotonic() - began < 5


@needs_fork
def test_a_peer_of_transfers_that_sleeps_is_named() -> None:
    async def program(party: Party, data: Any) -> Any:
        x = await mask(party, party.constant(np.zeros(5, int)))
        if party.rank == 1:
            await asyncio.sleep(60)
        await multiply(party, x, x)  # opens nothing

    with pytest.raises(PartyError, match=r"PeerError: party 1 sent nothing for step '.*(choices|corrections).*time"):
        simulate(program, [0, 1], preprocessing="ot", timeout_seconds=2)


@needs_fork
@pytest.mark.parametrize("preprocessing", ["dealer", "prss", "ot"])
def test_a_killed_party_is_named_at_once(preprocessing: str) -> None:
    async def program(party: Party, data: Any) -> Any:
        await total(party, [1])
        if party.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return await total(party, [2])

    began = time.monotonic()
    with pytest.raises(PartyError, match=r"party 1 died \(signal 9\)") as caught:
        simulate(program, [0, 1, 2], preprocessing=preprocessing)
    assert time.monotonic() - began < 4
    assert (caught.value.rank, caught.value.error_type) == (1, "ProcessDied")


@needs_fork
def test_a_party_that_ends_without_a_word_is_named() -> None:
    async def program(party: Party, data: Any) -> Any:
        if party.rank == 0:
            os._exit(5)
        return await total(party, [2])

    with pytest.raises(PartyError, match=r"party 0 died \(exit status 5\)"):
        simulate(program, [0, 1])


@needs_fork
def test_what_a_killed_party_does_to_the_others(tmp_path: Path) -> None:
    """Each honest party gets a PeerError that names the dead one and the step, and could go on alone."""

    async def program(party: Party, data: Any) -> Any:
        try:
            await total(party, [1])
            if party.rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            await total(party, [2])
        except PeerError as error:
            data.write_text(f"{error.rank} {error.step} {error}")
            raise

    files = [tmp_path / str(rank) for rank in range(3)]
    with pytest.raises(PartyError, match="party 1 died"):
        simulate(program, files)
    for rank in (0, 2):
        said = files[rank].read_text()
        assert said.startswith("1 ")
        assert "party 1 went away without a goodbye" in said
        assert "at step '" in said


@needs_fork
def test_a_party_stuck_in_a_computation_is_killed_when_another_fails() -> None:
    async def program(party: Party, data: Any) -> Any:
        await total(party, [1])
        if party.rank == 0:
            time.sleep(60)  # noqa: ASYNC251 - stuck indeed
        raise KeyError("4711")

    began = time.monotonic()
    with pytest.raises(PartyError, match=r"party [12]: KeyError"):
        simulate(program, [0, 1, 2])
    assert time.monotonic() - began < 5


@needs_fork
def test_a_run_that_takes_too_long_says_who_is_still_at_work() -> None:
    async def program(party: Party, data: Any) -> Any:
        if party.rank == 1:
            await asyncio.sleep(60)

    began = time.monotonic()
    with pytest.raises(PartyError, match=r"the run did not end within 0\.8 s; still at work: .*party 1") as caught:
        simulate(program, [0, 1, 2], timeout_seconds=0.8)
    assert time.monotonic() - began < 3
    assert caught.value.error_type == "TimeoutError"


def test_a_run_in_one_process_ends_in_time_too() -> None:
    async def program(party: Party, data: Any) -> Any:
        await asyncio.sleep(60)

    with pytest.raises(PartyError, match="the run did not end within 0"):
        simulate(program, [0, 1], in_process=True, timeout_seconds=0.2)


@needs_fork
@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"\xff" * 16, "canonical"),
        (b"\x01" * 15, "15 bytes"),
        (b"", "0 bytes"),
    ],
)
def test_a_party_that_opens_nonsense_is_named(payload: bytes, says: str) -> None:
    """Its elements are not canonical, or not as many as they should be."""

    async def program(party: Party, data: Any) -> Any:
        shares = await party.share(np.array([5]), bound=10, field=F127)
        if party.rank == 1:
            party.transport = Liar(party.transport, payload)
        return await open_(party, shares[0])

    with pytest.raises(PartyError, match=says) as caught:
        simulate(program, [0, 1, 2])
    assert "party 1" in str(caught.value)
    assert caught.value.error_type == "PeerError"
    assert "step" in str(caught.value)


class Liar:
    """A transport that sends something else than it is told to."""

    def __init__(self, honest: Any, payload: bytes) -> None:
        self.honest = honest
        self.payload = payload

    def __getattr__(self, name: str) -> Any:
        return getattr(self.honest, name)

    async def send(self, to: int, step: str, data: Any) -> None:
        await self.honest.send(to, step, self.payload)


@needs_fork
def test_parties_that_disagree_are_told_so() -> None:
    async def program(party: Party, data: Any) -> Any:
        return await open_(party, await party.share(np.arange(data), bound=10, owner=0))

    with pytest.raises(PartyError, match=r"AgreementError|RangeError|DataError"):
        simulate(program, [2, 3])


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((total, [1]), ValueError, "at least two"),
        ((total, [1, 2], {"preprocessing": "prss"}), ValueError, "dealer"),
        ((total, [1, 2], {"preprocessing": "magic"}), ValueError, "magic"),
        ((lambda party, data: 1, [1, 2]), TypeError, "async def"),
    ],
)
def test_nonsense_is_refused_before_anything_starts(arguments: Any, error: type, says: str) -> None:
    program, inputs, *options = arguments
    with pytest.raises(error, match=says):
        simulate(program, inputs, **(options[0] if options else {}))


def test_a_platform_without_fork_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork", raising=False)
    with pytest.raises(RuntimeError, match="in_process=True"):
        simulate(total, [1, 2])
    assert simulate(total, [[1], [2]], in_process=True)[0].tolist() == [3]


# What asyncio's debugging mode says of a busy machine.
SLOW_CALLBACK = re.compile(r"Executing <.*> took \d+\.\d+ seconds")


@needs_fork
def test_a_script_of_its_own_prints_once_and_is_silent_otherwise(tmp_path: Path) -> None:
    """Nothing of __main__ runs twice, nothing is left open, and no warning is raised."""
    script = tmp_path / "study.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            from parties import simulate

            print("begin", end=" ")

            async def program(party, data):
                sys.stderr.write(f"at {party.rank}\\n")
                return data + party.rank

            print(simulate(program, [10, 20, 30]))
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", str(script)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "begin [10, 21, 32]\n"
    said = [line for line in done.stderr.splitlines() if not SLOW_CALLBACK.match(line)]
    assert sorted(said) == ["at 0", "at 1", "at 2"]
    assert done.returncode == 0


@needs_fork
def test_a_silent_party_is_named_before_the_time_is_over() -> None:
    async def program(party: Party, data: Any) -> Any:
        if party.rank == 2:
            await asyncio.sleep(60)
        return await total(party, data)

    with pytest.raises(PartyError, match=r"PeerError: party 2 sent nothing for step .* before the time"):
        simulate(program, [[1], [2], [3]], preprocessing="prss", timeout_seconds=2)
