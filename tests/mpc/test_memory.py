"""The in-memory network: any order of delivery, bounded waits, and the fault that began it all is the one raised."""

import asyncio
from typing import Any

import numpy as np
import pytest

from mpc import DataError, Party, PeerError, multiply, open_
from mpc.memory import MemoryNetwork, root_cause, run_in_memory
from mpc.transport import check_size
from tests.mpc.support import shares_of


def test_running_a_program() -> None:
    async def program(party: Party, own: int) -> Any:
        shares = await party.share(own, bound=100)
        return int(await open_(party, shares[0] + shares[1] + shares[2]))

    assert run_in_memory(program, [1, 20, 3], preprocessing="prss") == [24] * 3
    assert run_in_memory(program, [1, 20, 3], preprocessing="dealer") == [24] * 3


def test_the_first_fault_is_raised_as_it_is() -> None:
    async def program(party: Party, own: Any) -> Any:
        x = await party.share(own, bound=5)
        return await open_(party, await multiply(party, x[0], x[1]))

    with pytest.raises(DataError, match="party 1"):
        run_in_memory(program, [1, 6, 2], preprocessing="dealer")
    with pytest.raises(ValueError, match="use 'ot', or 'dealer'"):
        run_in_memory(program, [1, 2], preprocessing="prss")


def test_root_cause() -> None:
    peer, own = PeerError("late", rank=1, step="a"), ValueError("mine")
    assert root_cause([1, 2]) is None
    assert root_cause([1, peer, own]) == (2, own)
    assert root_cause([1, peer]) == (1, peer)


@pytest.mark.parametrize("seed", range(3))
def test_messages_arrive_in_any_order(seed: int) -> None:
    async def both() -> list[int]:
        network = MemoryNetwork(2, order_seed=bytes([seed]) * 32)
        first, second = network.transport(0), network.transport(1)
        arrived = []

        async def wait(k: int) -> None:
            assert bytes(await second.receive(0, f"step {k}", 1)) == bytes([k])
            arrived.append(k)

        async with asyncio.TaskGroup() as group:
            for k in range(20):
                group.create_task(wait(k))
            await asyncio.sleep(0)
            for k in range(20):
                await first.send(1, f"step {k}", bytes([k]))
        return arrived

    arrived = asyncio.run(both())
    assert sorted(arrived) == list(range(20))
    assert arrived != sorted(arrived)
    assert asyncio.run(both()) == arrived


def test_results_do_not_depend_on_the_order() -> None:
    async def program(party: Party, _: Any) -> Any:
        x, y = await shares_of(party, [np.arange(3), np.arange(3)], 5)
        async with asyncio.TaskGroup() as group:
            scopes = [party.at("side") for _ in range(5)]
            tasks = [group.create_task(multiply(scope, x, y)) for scope in scopes]
        return await open_(party, *(task.result() for task in tasks))

    for _ in range(5):
        for results in run_in_memory(program, [None] * 3, preprocessing="dealer"):
            assert all((result == [0, 1, 4]).all() for result in results)


def network_of_two(**options: Any) -> tuple[Any, Any]:
    network = MemoryNetwork(2, **options)
    return network.transport(0), network.transport(1)


def test_waiting_has_an_end() -> None:
    async def late() -> None:
        _, second = network_of_two(timeout_seconds=0.01)
        with pytest.raises(PeerError, match=r"party 0 sent nothing for 0.01 s at step 'step'") as caught:
            await second.receive(0, "step", 1)
        assert (caught.value.rank, caught.value.step) == (0, "step")

    asyncio.run(late())


def test_sizes_are_checked() -> None:
    async def sized() -> None:
        first, second = network_of_two()
        for k, size in enumerate([0, 3, 5]):
            await first.send(1, f"{k}", bytes(size))
            with pytest.raises(PeerError, match=f"{size} bytes at step '{k}' where 4 were due"):
                await second.receive(0, f"{k}", 4)
        await first.send(1, "long", bytes(5))
        with pytest.raises(PeerError, match="5 bytes"):
            await second.receive_upto(0, "long", 4)
        await first.send(1, "short", memoryview(b"ab"))
        assert bytes(await second.receive_upto(0, "short", 4)) == b"ab"

    asyncio.run(sized())
    check_size(b"1234", 4, rank=0, step="")


def test_a_second_message_in_one_place_is_an_error() -> None:
    async def twice() -> None:
        first, second = network_of_two()
        for content in (b"a", b"b"):
            await first.send(1, "step", content)
        await first.send(1, "other", b"c")
        with pytest.raises(PeerError, match="second message at step 'step'"):
            await second.receive(0, "never", 1)

    asyncio.run(twice())


def test_who_leaves_is_not_waited_for() -> None:
    async def leaving() -> None:
        first, second = network_of_two()
        await first.send(1, "last words", b"x")
        await first.close()
        with pytest.raises(PeerError, match="finished"):
            await second.receive(0, "more", 1)
        assert bytes(await second.receive(0, "last words", 1)) == b"x"
        await second.abort("ValueError", "")
        with pytest.raises(PeerError, match="party 1 stopped: ValueError"):
            await first.receive(1, "anything", 1)

    asyncio.run(leaving())
