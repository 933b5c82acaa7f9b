"""Who keeps batches for a party: the depot in the same process, the node whose worker it is, or nobody."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from parties.node.batches import ENDED, BatchError
from parties.node.depot import Depot, Making, Offer, Taken, header_of
from parties.node.exchange import Exchange
from parties.node.material_messages import Material, Stored
from parties.node.messages import as_json
from parties.node.sealing import Opener, Sealer


class DepotKeeper:
    """Keeps batches of one study in a depot of this process; implements :class:`parties.node.matching.Keeper`.

    Parameters
    ----------
    depot : Depot
    study : str
        Its hash.
    why : str
        What batches are spent on, for the ledger.
    """

    def __init__(self, depot: Depot, study: str, why: str) -> None:
        self._depot = depot
        self._study = study
        self._why = why
        self._making: dict[str, Making] = {}
        self._taken: Taken | None = None

    async def offers(self) -> list[Offer]:
        """See :class:`parties.node.matching.Keeper`."""
        return self._depot.offers(self._study)

    async def discard(self, name: str, why: str) -> None:
        """See :class:`parties.node.matching.Keeper`; one that is over stays as it is."""
        making = self._making.pop(name, None)
        if making is not None:
            making.drop()
        batch = self._depot.batch(name)
        if batch is not None and batch.state not in ENDED:
            self._depot.discard(name, why)

    async def begin(self, name: str) -> Sealer:
        """See :class:`parties.node.matching.Keeper`."""
        making = self._making[name] = self._depot.begin(self._study, name)
        return making.sealer()

    async def made(self, name: str, matching: str, products: int) -> None:
        """See :class:`parties.node.matching.Keeper`."""
        making = self._making.pop(name, None)
        if making is None:
            raise BatchError(f"batch {name} was not begun")
        self._depot.made(making, matching=matching, products=products)

    async def ready(self, name: str) -> None:
        """See :class:`parties.node.matching.Keeper`."""
        self._depot.ready(name)

    async def spend(self, name: str) -> Opener:
        """See :class:`parties.node.matching.Keeper`."""
        self._taken = self._depot.take(name, self._why)
        return self._taken.opener()

    async def close(self) -> bool:
        """See :class:`parties.node.matching.Keeper`."""
        taken, self._taken = self._taken, None
        if taken is None:
            return False
        taken.close()
        return taken.is_ours


class NodeKeeper:
    """Keeps batches at the node whose worker we are; implements :class:`parties.node.matching.Keeper`.

    Parameters
    ----------
    exchange : Exchange
        To the node.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._waiting: asyncio.Future[tuple[Stored, socket.socket | None]] | None = None
        self._sock: socket.socket | None = None

    def heard(self, stored: Stored, along: socket.socket | None) -> None:
        """Take the node's answer."""
        waiting, self._waiting = self._waiting, None
        if waiting is None or waiting.done():
            if along is not None:
                along.close()
            return
        waiting.set_result((stored, along))

    async def _ask(self, **request: Any) -> tuple[Stored, socket.socket | None]:
        if self._waiting is not None:
            raise BatchError("one request at a time")
        self._waiting = asyncio.get_running_loop().create_future()
        self._exchange.post(as_json(Material(**request)))
        stored, along = await self._waiting
        if not stored.ok:
            if along is not None:
                along.close()
            raise BatchError(stored.text or "the node refuses")
        return stored, along

    async def offers(self) -> list[Offer]:
        """See :class:`parties.node.matching.Keeper`."""
        stored, _ = await self._ask(ask="offers")
        return [Offer(one.name, one.state, one.matching) for one in stored.offers]

    async def discard(self, name: str, why: str) -> None:
        """See :class:`parties.node.matching.Keeper`."""
        self._drop()
        await self._ask(ask="discard", name=name, why=why[:1000])

    async def begin(self, name: str) -> Sealer:
        """See :class:`parties.node.matching.Keeper`."""
        key, header, sock = await self._file(ask="begin", name=name)

        def write(data: bytes) -> None:
            try:
                sock.sendall(data)
            except OSError:
                raise BatchError(
                    "this node takes no more material: its disk is full, or limits.material_mb is reached "
                    "(its log says which)"
                ) from None

        return Sealer(write, key, header)

    async def made(self, name: str, matching: str, products: int) -> None:
        """See :class:`parties.node.matching.Keeper`."""
        self._drop()
        await self._ask(ask="made", name=name, matching=matching, products=products)

    async def ready(self, name: str) -> None:
        """See :class:`parties.node.matching.Keeper`."""
        await self._ask(ask="ready", name=name)

    async def spend(self, name: str) -> Opener:
        """See :class:`parties.node.matching.Keeper`."""
        key, header, sock = await self._file(ask="spend", name=name)
        return Opener(sock.recv, key, header)

    async def close(self) -> bool:
        """See :class:`parties.node.matching.Keeper`."""
        self._drop()
        try:
            await self._ask(ask="close")
        except BatchError:
            return False
        return True

    async def _file(self, *, ask: str, name: str) -> tuple[bytes, dict[str, Any], socket.socket]:
        stored, along = await self._ask(ask=ask, name=name)
        if stored.key is None or stored.study is None or stored.salt is None or along is None:
            raise BatchError("the node's answer holds no file")
        along.setblocking(True)
        self._drop()
        self._sock = along
        return stored.key, header_of(name, stored.study, stored.salt), along

    def _drop(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()


class NoKeeper:
    """Keeps nothing; implements :class:`parties.node.matching.Keeper`."""

    async def offers(self) -> list[Offer]:
        """See :class:`parties.node.matching.Keeper`."""
        return []

    async def discard(self, name: str, why: str) -> None:
        """See :class:`parties.node.matching.Keeper`."""

    async def begin(self, name: str) -> Sealer:
        """See :class:`parties.node.matching.Keeper`."""
        raise BatchError("this node keeps no material")

    async def made(self, name: str, matching: str, products: int) -> None:
        """See :class:`parties.node.matching.Keeper`."""
        raise BatchError("this node keeps no material")

    async def ready(self, name: str) -> None:
        """See :class:`parties.node.matching.Keeper`."""
        raise BatchError("this node keeps no material")

    async def spend(self, name: str) -> Opener:
        """See :class:`parties.node.matching.Keeper`."""
        raise BatchError("this node keeps no material")

    async def close(self) -> bool:
        """See :class:`parties.node.matching.Keeper`."""
        return False
