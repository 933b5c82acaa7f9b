"""All parties in one event loop: the transport for tests, and for trying a program out.

Messages are delivered in a shuffled order, so that a protocol which relies on an order shows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from mpc.errors import PeerError, for_peers
from mpc.prg import Prg, new_seed
from mpc.transport import Buffer, check_size

if TYPE_CHECKING:
    from mpc.party import Party


class MemoryNetwork:
    """The links between ``size`` parties and a dealer within one event loop.

    Parameters
    ----------
    size : int
        Number of parties; rank ``size`` is the dealer's.
    timeout_seconds : float
        How long a receive waits.
    order_seed : bytes, optional
        Seed of the delivery order.
    """

    def __init__(self, size: int, *, timeout_seconds: float = 30.0, order_seed: bytes | None = None) -> None:
        self.size = size
        self.timeout_seconds = timeout_seconds
        self._order = Prg(order_seed or new_seed()).stream("delivery order")
        self._inboxes: list[dict[tuple[int, str], bytes]] = [{} for _ in range(size + 1)]
        self._seen: list[set[tuple[int, str]]] = [set() for _ in range(size + 1)]
        self._waiting: list[dict[tuple[int, str], asyncio.Future[None]]] = [{} for _ in range(size + 1)]
        self._under_way: list[tuple[int, int, str, bytes]] = []
        self._stopped: dict[int, str] = {}
        self._leaving: dict[int, str] = {}

    def transport(self, rank: int) -> MemoryTransport:
        """Return the seat of one party."""
        return MemoryTransport(self, rank)

    def _post(self, frm: int, to: int, step: str, data: bytes) -> None:
        self._under_way.append((frm, to, step, data))
        asyncio.get_running_loop().call_soon(self._deliver_one)

    def _deliver_one(self) -> None:
        # Any message that is under way may be the next to arrive.
        pick = int.from_bytes(self._order.raw(4).tobytes(), "little") % len(self._under_way)
        frm, to, step, data = self._under_way.pop(pick)
        if frm in self._leaving and all(sender != frm for sender, *_ in self._under_way):
            asyncio.get_running_loop().call_soon(self.stop, frm, self._leaving[frm])
        slot = (frm, step)
        waiting = self._waiting[to].pop(slot, None)
        if slot in self._seen[to]:
            self.stop(frm, f"party {frm} sent a second message at step {step!r}")
            return
        self._seen[to].add(slot)
        self._inboxes[to][slot] = data
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    async def _take(self, rank: int, frm: int, step: str) -> bytes:
        slot = (frm, step)
        if slot not in self._inboxes[rank]:
            if frm in self._stopped:
                raise PeerError(self._stopped[frm], rank=frm, step=step)
            arrived = asyncio.get_running_loop().create_future()
            self._waiting[rank][slot] = arrived
            try:
                async with asyncio.timeout(self.timeout_seconds):
                    await arrived
            except TimeoutError:
                raise PeerError(
                    f"party {frm} sent nothing for {self.timeout_seconds:g} s at step {step!r}", rank=frm, step=step
                ) from None
            finally:
                self._waiting[rank].pop(slot, None)
        return self._inboxes[rank].pop(slot)

    def leave(self, rank: int, reason: str) -> None:
        """Let a party go once everything it sent has been delivered."""
        self._leaving[rank] = reason
        if all(sender != rank for sender, *_ in self._under_way):
            self.stop(rank, reason)

    def stop(self, rank: int, reason: str) -> None:
        """Let everybody who waits for a party know that nothing more will come from it."""
        self._stopped.setdefault(rank, reason)
        for waiting in self._waiting:
            for (frm, step), arrived in waiting.items():
                if frm == rank and not arrived.done():
                    arrived.set_exception(PeerError(self._stopped[rank], rank=rank, step=step))


class MemoryTransport:
    """One party's seat in a :class:`MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork, rank: int) -> None:
        self._network = network
        self.rank = rank
        self.size = network.size

    async def send(self, to: int, step: str, data: Buffer) -> None:
        """See :class:`mpc.transport.Transport`."""
        self._network._post(self.rank, to, step, bytes(data))

    async def receive(self, frm: int, step: str, size: int) -> Buffer:
        """See :class:`mpc.transport.Transport`."""
        message = await self._network._take(self.rank, frm, step)
        check_size(message, size, rank=frm, step=step)
        return message

    async def receive_upto(self, frm: int, step: str, limit: int) -> Buffer:
        """See :class:`mpc.transport.Transport`."""
        message = await self._network._take(self.rank, frm, step)
        if len(message) > limit:
            check_size(message, limit, rank=frm, step=step)
        return message

    async def abort(self, type_name: str, text: str) -> None:
        """See :class:`mpc.transport.Transport`."""
        reason = f"party {self.rank} stopped: {type_name}" + (f": {text}" if text else "")
        self._network.stop(self.rank, reason)

    async def close(self) -> None:
        """See :class:`mpc.transport.Transport`."""
        self._network.leave(self.rank, f"party {self.rank} has finished and sends nothing more")


async def run_together(
    program: Callable[[Party, Any], Awaitable[Any]],
    inputs: Sequence[Any],
    *,
    preprocessing: str,
    security: str = "semi-honest",
    timeout_seconds: float = 30.0,
    network: MemoryNetwork | None = None,
    seats: Callable[[int], Any] | None = None,
) -> list[tuple[Any, Party | None]]:
    """Run ``program(party, data)`` at every party in the running event loop.

    Returns
    -------
    list of (outcome, Party)
        In rank order; the outcome is the return value, or the exception that ended the party.
    """
    from mpc.session import join, serve_dealer

    count = len(inputs)
    network = network or MemoryNetwork(count, timeout_seconds=timeout_seconds)
    seat = seats or network.transport

    async def one(rank: int) -> tuple[Any, Party | None]:
        transport = seat(rank)
        party = None
        try:
            party = await join(transport, preprocessing=preprocessing, security=security)
            outcome = await program(party, inputs[rank])
            await party.leave()
        except Exception as error:  # noqa: BLE001 - whatever ended the program is its outcome
            await transport.abort(type(error).__name__, for_peers(error))
            return error, party
        await transport.close()
        return outcome, party

    async def dealer() -> None:
        transport = seat(count)
        try:
            await serve_dealer(transport, security=security)
        except PeerError as error:
            await transport.abort(type(error).__name__, str(error))

    async with asyncio.TaskGroup() as group:
        seats_taken = [group.create_task(one(rank)) for rank in range(count)]
        if preprocessing == "dealer":
            group.create_task(dealer())
    return [task.result() for task in seats_taken]


def root_cause(outcomes: Sequence[Any]) -> tuple[int, Exception] | None:
    """Return rank and exception of the party whose failure made the others fail."""
    failed = [(rank, outcome) for rank, outcome in enumerate(outcomes) if isinstance(outcome, Exception)]
    own = [(rank, error) for rank, error in failed if not isinstance(error, PeerError)]
    causes = own or failed
    return causes[0] if causes else None


def run_in_memory(
    program: Callable[[Party, Any], Awaitable[Any]],
    inputs: Sequence[Any],
    *,
    preprocessing: str,
    security: str = "semi-honest",
    timeout_seconds: float = 30.0,
) -> list[Any]:
    """Run all parties in a new event loop and return their results in rank order.

    Raises
    ------
    Exception
        The exception of the party that failed first, as it is.
    """
    pairs = asyncio.run(
        run_together(program, inputs, preprocessing=preprocessing, security=security, timeout_seconds=timeout_seconds)
    )
    outcomes = [outcome for outcome, _ in pairs]
    cause = root_cause(outcomes)
    if cause is not None:
        raise cause[1]
    return outcomes
