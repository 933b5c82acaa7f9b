"""Our links to all others and their connections: made, lost, and made anew."""

from __future__ import annotations

import asyncio
import enum
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from parties.connect import Doorkeeper
from parties.faults import Fault
from parties.link import Link, Verdict
from parties.members import Member, Route, name_of, route_between
from parties.watch import Patience, Watch
from parties.wire import WireError

if TYPE_CHECKING:
    from parties.identity import Identity

CONNECT_STEP = "connect"


class Phase(enum.Enum):
    """What connections are for."""

    GATHERING = enum.auto()  # not all have been there at once
    AT_WORK = enum.auto()
    ENDING = enum.auto()  # the run is over or has failed; last words may not have been heard
    LEFT = enum.auto()


class Links:
    """The links of one node; decides which connections they take (:class:`parties.connect.Host`).

    Parameters
    ----------
    identity : Identity
        Our key and certificate.
    rank : int
        Our rank.
    members : sequence of Member
        All nodes in rank order, ourselves included.
    parties : int
        How many of them are parties.
    session : bytes
        What this run is called.
    patience : Patience
    passes : bytes or None
        What shows a relay that we may use it.
    make_link : callable
        ``make_link(peer, name)`` makes a new link.
    on_failed : callable
        Called with the fault for which the run cannot go on.

    Attributes
    ----------
    by_rank : dict
        Of each peer's rank to its link.
    phase : Phase
    news : asyncio.Event
        Set whenever a connection comes or goes.
    """

    def __init__(
        self,
        identity: Identity,
        rank: int,
        members: Sequence[Member],
        *,
        parties: int,
        session: bytes,
        patience: Patience,
        passes: bytes | None,
        make_link: Callable[[int, str], Link],
        on_failed: Callable[[Fault], None],
    ) -> None:
        self._rank = rank
        self._patience = patience
        self._make_link = make_link
        self._on_failed = on_failed
        self._names = [name_of(number, parties, members) for number in range(len(members))]
        self._routes = self._find_routes(members)
        self._loop = asyncio.get_running_loop()
        self.by_rank = {peer: make_link(peer, self._names[peer]) for peer in self._routes}
        self.phase = Phase.GATHERING
        self.news = asyncio.Event()
        self.watch = Watch(
            patience, self.by_rank, on_late=on_failed, on_silent=self._reconnect, on_gone=self._time_is_over
        )
        self._vacant = {peer: asyncio.Event() for peer in self._routes}
        self._complaints: dict[int, str] = {}
        self._doorkeeper = Doorkeeper(
            identity, rank, members, self._routes, session, self, passes, patience.attempt_seconds
        )
        self._keepers: list[asyncio.Task[None]] = []

    def _find_routes(self, members: Sequence[Member]) -> dict[int, Route]:
        routes = {}
        for peer in range(len(members)):
            if peer != self._rank:
                route = route_between(self._rank, peer, members)
                if route is None:
                    raise ValueError(
                        f"{self._names[self._rank]} and {self._names[peer]} cannot be connected: "
                        "neither has an address or a relay"
                    )
                routes[peer] = route
        return routes

    # ---- opening and closing --------------------------------------------------------------------

    async def open(self, listener: socket.socket | None) -> None:
        """Begin to accept connections and to make them, and go on until :meth:`close`."""
        await self._doorkeeper.open(listener)
        for peer, route in self._routes.items():
            if not route.waits:
                self._vacant[peer].set()
                keeping = self._doorkeeper.keep(peer, self._vacant[peer], self._complain(peer))
                keeper = self._loop.create_task(keeping)
                keeper.add_done_callback(self._keeper_ended)
                self._keepers.append(keeper)

    def adopt(self, connection: socket.socket) -> None:
        """Take a TCP connection that somebody else accepted for us."""
        self._doorkeeper.adopt(connection)

    async def close(self) -> None:
        """Make no more connections, and close those that are still open."""
        self.phase = Phase.LEFT
        self.watch.stop()
        for keeper in self._keepers:
            keeper.cancel()
        for link in self.by_rank.values():
            link.detach()
        try:
            await self._doorkeeper.close()
        finally:
            await asyncio.gather(*self._keepers, return_exceptions=True)

    def _keeper_ended(self, keeper: asyncio.Task[None]) -> None:
        error = None if keeper.cancelled() else keeper.exception()
        if error is not None:
            # Whatever it is, nobody makes connections any more.
            what = f"we cannot connect to the others: {type(error).__name__}"
            self._on_failed(Fault(what, self._rank, CONNECT_STEP))

    # ---- who is there ---------------------------------------------------------------------------

    @property
    def absent(self) -> list[int]:
        """Who has no connection, and has not finished either."""
        return [peer for peer, link in self.by_rank.items() if link.wire is None and not link.finished]

    def named(self, peer: int) -> str:
        """Name a peer that is not there, with what is known of the reason."""
        return self._names[peer] + (f" ({self._complaints[peer]})" if peer in self._complaints else "")

    def _complain(self, peer: int) -> Callable[[str], None]:
        def note(reason: str) -> None:
            self._complaints[peer] = reason

        return note

    # ---- what the doorkeeper asks and tells -----------------------------------------------------

    def link_to(self, peer: int) -> Link | None:
        """Return the link to a peer, if it wants a connection."""
        link = self.by_rank[peer]
        if link.broken or link.departed or self.phase is Phase.LEFT:
            return None
        if self.phase is Phase.ENDING and not (link.owing or link.leaving):
            return None
        return link

    def unwelcome(self, link: Link, verdict: Verdict, spoken: bool) -> Link | None:
        """Return a new link for a peer that begins anew, as it may before the run has begun."""
        if verdict not in (Verdict.BEGUN_ANEW, Verdict.WRONG) or link.wire is not None or link.finished:
            return None
        if self.phase is Phase.GATHERING:
            fresh = self._renew(link)
            # Who has spoken for the old one already speaks again for the new one, on another connection.
            return None if spoken else fresh
        if self.phase is Phase.AT_WORK:
            what = "was started anew" if verdict is Verdict.BEGUN_ANEW else "came back with a wrong count of frames"
            self._on_failed(Fault(f"{link.name} {what} and cannot go on where it was", link.peer))
        return None

    def _renew(self, link: Link) -> Link:
        fresh = self.by_rank[link.peer] = self._make_link(link.peer, link.name)
        return fresh

    def connected(self, link: Link) -> None:
        """Take note that a link has a connection."""
        self._vacant[link.peer].clear()
        self._complaints.pop(link.peer, None)
        self.watch.is_back(link)
        self.news.set()

    def lost(self, link: Link, fault: Exception | None) -> None:
        """Take note that a link's connection is gone."""
        # Over TLS what is no WebSocket is the peer's doing; what comes through a relay may be the relay's.
        if isinstance(fault, WireError) and self._routes[link.peer].relay is None and not link.broken:
            if self.phase is Phase.AT_WORK:
                link.broken = True
                self._on_failed(Fault(f"{link.name} sent {fault}", link.peer))
        link.detach()
        self.news.set()
        if self.by_rank[link.peer] is not link or link.broken or link.departed:
            return
        if link.keeping:
            self._complaints.setdefault(link.peer, "its connection was lost")
            if self.phase is Phase.AT_WORK:
                self.watch.has_gone_away(link)
            self._vacant[link.peer].set()
        elif link.finished:
            return
        elif self.phase is Phase.GATHERING:
            # Somebody who comes and goes while we still wait for others may come again.
            self._renew(link)
            self._complaints[link.peer] = "it went away again"
            self._vacant[link.peer].set()
        elif self.phase is Phase.AT_WORK:
            self._on_failed(Fault(f"{link.name} went away without a goodbye", link.peer))

    # ---- what the watch tells -------------------------------------------------------------------

    def _reconnect(self, link: Link) -> None:
        self.lost(link, None)

    def _time_is_over(self, link: Link) -> None:
        if link.finished:
            link.departed = True  # we have all that it sent, and it wants no more
        else:
            away = f"{link.name} was away for {self._patience.resume_seconds:g} s"
            reason = f" ({self._complaints[link.peer]})" if link.peer in self._complaints else ""
            self._on_failed(Fault(away + reason, link.peer))
