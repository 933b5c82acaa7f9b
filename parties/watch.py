"""Time: how long we wait for others, and who is late, silent or away."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from parties.faults import Fault

if TYPE_CHECKING:
    from parties.link import Link

# How late a timer may be before we think that we ourselves were busy and look again.
_LATE_SECONDS = 0.5
# A connection that is dead is noticed within three heartbeats, and half of the time to resume is left,
# which is enough for three attempts at making a new one that meet no answer.
_PARTS_OF_RESUMING = 6
_ATTEMPT_SECONDS = 20.0
_SHORTEST_ATTEMPT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for others, in seconds.

    Attributes
    ----------
    connect_seconds : float
        Until all nodes are there.
    receive_seconds : float
        For one message. It includes what a peer computes before it sends that message, and goes on
        while the peer is away.
    until : float
        On the event loop's clock: no receive waits longer than this.
    heartbeat_seconds : float
        After so long without a byte a peer is asked for a sign of life, which also keeps firewalls
        from forgetting the connection.
    silence_seconds : float
        After so long without any sign a peer counts as gone, where a run ends with its first loss.
    close_seconds : float
        For the others to take note of our goodbye.
    resume_seconds : float
        How long a peer may be away. A connection that is lost, or shows no sign of life for two to
        three heartbeats, is made anew, and what was under way is sent again. 0 ends the run with the
        first loss. A node that computes for long without giving way to its event loop cannot answer
        either; what it may take is heartbeats and this time together.
    """

    connect_seconds: float = 30.0
    receive_seconds: float = 300.0
    until: float = math.inf
    heartbeat_seconds: float = 20.0
    silence_seconds: float = 120.0
    close_seconds: float = 5.0
    resume_seconds: float = 0.0

    @property
    def beat_seconds(self) -> float:
        """How often we listen whether the others are there."""
        if not self.resume_seconds:
            return self.heartbeat_seconds
        return min(self.heartbeat_seconds, self.resume_seconds / _PARTS_OF_RESUMING)

    @property
    def attempt_seconds(self) -> float:
        """How long one attempt to connect may take."""
        if not self.resume_seconds:
            return _ATTEMPT_SECONDS
        return min(max(self.resume_seconds / _PARTS_OF_RESUMING, _SHORTEST_ATTEMPT_SECONDS), _ATTEMPT_SECONDS)


class _Timer:
    """A call at a time, which tells when it was due: uvloop's own do not if that was at once."""

    __slots__ = ("_handle", "due")

    def __init__(self, loop: asyncio.AbstractEventLoop, due: float, call: Callable[..., None], *args: Any) -> None:
        self.due = due
        self._handle = loop.call_at(due, call, *args)

    def cancel(self) -> None:
        self._handle.cancel()


class Watch:
    """Looks after the links of a mesh.

    Parameters
    ----------
    patience : Patience
    links : mapping
        Of rank to link; as it is at the time of looking.
    on_late : callable
        Called with the fault when somebody was waited for too long.
    on_silent : callable
        Called with a link that can be resumed and whose connection shows no sign of life.
    on_gone : callable
        Called with a link that was away for too long.
    """

    def __init__(
        self,
        patience: Patience,
        links: Mapping[int, Link],
        *,
        on_late: Callable[[Fault], None],
        on_silent: Callable[[Link], None],
        on_gone: Callable[[Link], None],
    ) -> None:
        self._patience = patience
        self._links = links
        self._on_late = on_late
        self._on_silent = on_silent
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._sweep_timer: _Timer | None = None
        self._beat_timer: asyncio.TimerHandle | None = None
        self._suspected: set[int] = set()
        self._absent: dict[int, tuple[float, _Timer]] = {}
        self._stopped = False

    def begin(self) -> None:
        """Begin to listen for signs of life."""
        self._beat_timer = self._loop.call_later(self._patience.beat_seconds, self._beat)

    def stop_waiting(self) -> None:
        """Blame nobody any more; connections are still watched."""
        self._stopped = True
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        for _, timer in self._absent.values():
            timer.cancel()

    def stop(self) -> None:
        """Stop looking."""
        self.stop_waiting()
        if self._beat_timer is not None:
            self._beat_timer.cancel()

    # ---- late -----------------------------------------------------------------------------------

    def deadline(self) -> float:
        """Return when a receive that begins now is late."""
        deadline = min(self._loop.time() + self._patience.receive_seconds, self._patience.until)
        # One timer for all waits: who began to wait first is also the first whose patience ends.
        if self._sweep_timer is None and not self._stopped:
            self._sweep_timer = _Timer(self._loop, deadline, self._sweep)
        return deadline

    def _sweep(self) -> None:
        """End the receives whose time is over; runs once in a time-out, not once in a receive."""
        timer, self._sweep_timer = self._sweep_timer, None
        now = self._loop.time()
        if timer is None or self._stopped:
            return
        if now - timer.due > _LATE_SECONDS:
            # We were busy ourselves: what is overdue may lie in the socket.
            self._sweep_timer = _Timer(self._loop, now + _LATE_SECONDS, self._sweep)
            return
        oldest = [(link, link.inbox.oldest) for link in self._links.values()]
        waits = [(wait[1], link, wait[0]) for link, wait in oldest if wait is not None]
        if not waits:
            return
        deadline, link, step = min(waits, key=lambda wait: wait[0])
        if deadline > now:
            self._sweep_timer = _Timer(self._loop, deadline, self._sweep)
            return
        text = f"{link.name} sent nothing for step {step!r} "
        if deadline < self._patience.until:
            text += f"within {self._patience.receive_seconds:g} s"
        else:
            text += "before the time for the run was over"
        if link.inbox.full:
            text += f"; {link.inbox.limit} bytes of it wait to be received, which is all that may wait"
        if link.peer in self._absent:
            text += f"; it has been away for {now - self._absent[link.peer][0]:.0f} s"
        self._on_late(Fault(text, link.peer, step))

    # ---- silent ---------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Ask the silent for a sign of life, and give up on connections that bring none.

        Only what stays silent for one more beat is given up: we may have been busy ourselves.
        """
        beat_seconds = self._patience.beat_seconds
        self._beat_timer = self._loop.call_later(beat_seconds, self._beat)
        now = self._loop.time()
        for link in list(self._links.values()):
            wire = link.wire
            if wire is None or link.broken or link.departed or (link.finished and not link.keeping):
                continue
            if link.reading_paused:
                wire.ping()  # we cannot hear it, but it can hear us
                continue
            silent = now - wire.last_heard
            limit = self._patience.silence_seconds
            suspect, dead = (beat_seconds, 2 * beat_seconds) if link.keeping else (limit, limit)
            if silent < beat_seconds / 2:
                self._suspected.discard(link.peer)
            elif silent > dead and link.peer in self._suspected:
                self._suspected.discard(link.peer)
                if link.keeping:
                    self._on_silent(link)
                else:
                    self._on_late(Fault(f"{link.name} gave no sign of life for {silent:.0f} s", link.peer))
                    wire.drop()
            else:
                if silent > suspect:
                    self._suspected.add(link.peer)
                wire.ping()

    # ---- away -----------------------------------------------------------------------------------

    @property
    def away(self) -> dict[int, float]:
        """How long each peer that has no connection has been away, in seconds."""
        now = self._loop.time()
        absent = sorted(self._absent.items())
        return {peer: now - since for peer, (since, _) in absent if not self._links[peer].finished}

    def has_gone_away(self, link: Link) -> None:
        """Take note that a link lost its connection."""
        if link.peer not in self._absent and not self._stopped:
            now = self._loop.time()
            timer = _Timer(self._loop, now + self._patience.resume_seconds, self._time_is_over, link)
            self._absent[link.peer] = now, timer

    def is_back(self, link: Link) -> None:
        """Take note that a link has a connection again."""
        self._suspected.discard(link.peer)
        since = self._absent.pop(link.peer, None)
        if since is not None:
            since[1].cancel()

    def _time_is_over(self, link: Link) -> None:
        absence = self._absent.get(link.peer)
        if absence is None or self._stopped:
            return
        since, timer = absence
        now = self._loop.time()
        if now - timer.due > _LATE_SECONDS:
            # We were busy ourselves: it may have been at the door all the while.
            self._absent[link.peer] = since, _Timer(self._loop, now + 2 * _LATE_SECONDS, self._time_is_over, link)
            return
        self._on_gone(link)
