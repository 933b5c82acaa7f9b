"""The one port of a node: who comes in is led to the node or to a worker by the name that they ask for.

The name is that of a key (:func:`parties.identity.host_name`) and stands at the front of the TLS handshake,
in the clear. It is looked at without being taken off the connection (``MSG_PEEK``), so that whoever gets
the connection does the whole handshake with its own key: the doors have none, and prove nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import select
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mpc.errors import SottovoceError
from parties.node.client_hello import MOST_BYTES, HelloError, Incomplete, server_name

HELLO_SECONDS = 10.0
MOST_UNDECIDED = 256
MOST_OF_ADDRESS = 64
REPORT_SECONDS = 60.0
_BACKLOG = 1024
_ACCEPTED_AT_ONCE = 64
# After running out of descriptors or memory.
_EXHAUSTED_SECONDS = 0.5
_AGAIN_SECONDS = 0.1
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_ABSENT = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}
_HUNG_UP = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR
_ADDRESSES_TOLD = 16

# Gets a connection whose TLS handshake is still to come. It is the taker's to close, also if it fails.
Taker = Callable[[socket.socket], None]


class DoorsError(SottovoceError, OSError):
    """The port cannot be opened."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """Connections that were closed since the last report.

    Attributes
    ----------
    reasons : mapping
        How many, by reason.
    addresses : mapping
        How many, by where they came from: those with most.
    """

    reasons: Mapping[str, int]
    addresses: Mapping[str, int]


class _Caller:
    """A connection of which we do not know yet whom it asks for."""

    __slots__ = ("address", "seen", "sock", "timer")

    def __init__(self, sock: socket.socket, address: str) -> None:
        self.sock = sock
        self.address = address
        self.seen = 0
        self.timer: asyncio.TimerHandle | None = None


def listen(host: str, port: int) -> list[socket.socket]:
    """Bind the addresses of a host name.

    Parameters
    ----------
    host : str
        A name or an address; ``""`` for all addresses.
    port : int
        0 for one that is free.

    Raises
    ------
    DoorsError
        Saying what is in the way.
    """
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        addresses = sorted({(entry[0], entry[4][:2]) for entry in found if entry[0] in _FAMILIES})
        missing: OSError | None = None
        for family, address in addresses:
            try:
                sockets.append(socket.create_server(address, family=family, backlog=_BACKLOG))
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                missing = error  # a machine without IPv6, say, where a name has both kinds of address
        if missing is not None and not sockets:
            raise missing
    except OSError as error:
        for sock in sockets:
            sock.close()
        why = error.strerror or type(error).__name__
        raise DoorsError(f"cannot listen on {host or 'all addresses'}, port {port}: {why}") from None
    return sockets


class Doors:
    """Accepts connections and hands them to takers.

    Parameters
    ----------
    listeners : sequence of socket.socket
        Listening sockets (:func:`listen`); taken over.
    report : callable, optional
        Told of refusals, at most once in ``report_seconds``.
    hello_seconds : float
        For a caller to say whom it wants.
    report_seconds : float
        Between two reports.

    Attributes
    ----------
    counts : Counter
        ``"accepted"``, ``"led on"``, and refused connections by reason.

    Notes
    -----
    Callers who have not said yet whom they want are bounded, in all and from one address (of IPv6: one
    network of 64 bits); a new one then takes the place of the oldest one from where most come. What a
    taker does with connections that never finish their handshake is its own to bound.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        *,
        report: Callable[[Refusals], None] | None = None,
        hello_seconds: float = HELLO_SECONDS,
        report_seconds: float = REPORT_SECONDS,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._listeners = list(listeners)
        self._report = report
        self._hello_seconds = hello_seconds
        self._report_seconds = report_seconds
        self._loop = asyncio.get_running_loop()
        self._takers: dict[str, Taker] = {}
        # In the order in which they came, in all and by address.
        self._callers: dict[_Caller, None] = {}
        self._by_address: dict[str, dict[_Caller, None]] = {}
        self._resting: dict[socket.socket, asyncio.TimerHandle] = {}
        self._reasons: Counter[str] = Counter()
        self._addresses: Counter[str] = Counter()
        self._report_timer: asyncio.TimerHandle | None = None
        self._open = False

    @property
    def ports(self) -> list[int]:
        """Where we listen."""
        return [int(listener.getsockname()[1]) for listener in self._listeners]

    @property
    def undecided(self) -> int:
        """Callers who have not said yet whom they want."""
        return len(self._callers)

    def open(self) -> None:
        """Begin to accept."""
        self._open = True
        for listener in self._listeners:
            listener.setblocking(False)
            self._loop.add_reader(listener, self._accept, listener)

    def close(self) -> None:
        """Stop accepting, and close the connections that nobody has taken."""
        if not self._open:
            for listener in self._listeners:
                listener.close()
            return
        self._open = False
        for timer in self._resting.values():
            timer.cancel()
        for listener in self._listeners:
            self._loop.remove_reader(listener)
            listener.close()
        for caller in list(self._callers):
            self._forget(caller)
            caller.sock.close()
        self._takers.clear()
        if self._report_timer is not None:
            self._report_timer.cancel()
            self._tell()

    def route(self, name: str, taker: Taker) -> None:
        """Lead whoever asks for ``name`` to a taker from now on."""
        self._takers[name] = taker

    def unroute(self, name: str) -> None:
        """Lead nobody there any more; no harm if nobody was."""
        self._takers.pop(name, None)

    # ---- accepting ------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        for number in range(_ACCEPTED_AT_ONCE):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    if number == 0:  # else nobody may be waiting: the system asks for room before it looks
                        self._rest(listener)
                    return
                continue  # it was gone before we looked, or its network was
            self.counts["accepted"] += 1
            sock.setblocking(False)
            self._admit(_Caller(sock, group_of(str(address[0]))))

    def _rest(self, listener: socket.socket) -> None:
        """Make room, and leave the queue to the system for a moment: it would wake us without end."""
        self.counts["out of descriptors"] += 1
        if self._callers:
            self._refuse(next(iter(self._callers)), "no room")
        self._loop.remove_reader(listener)
        self._resting[listener] = self._loop.call_later(_EXHAUSTED_SECONDS, self._resume, listener)

    def _resume(self, listener: socket.socket) -> None:
        del self._resting[listener]
        self._loop.add_reader(listener, self._accept, listener)

    def _admit(self, caller: _Caller) -> None:
        same = self._by_address.get(caller.address)
        if same is not None and len(same) >= MOST_OF_ADDRESS:
            self._refuse(next(iter(same)), "too many from its address")
        elif len(self._callers) >= MOST_UNDECIDED:
            crowd = max(self._by_address.values(), key=len)
            self._refuse(next(iter(crowd)), "no room")
        self._callers[caller] = None
        self._by_address.setdefault(caller.address, {})[caller] = None
        caller.timer = self._loop.call_later(self._hello_seconds, self._refuse, caller, "too slow")
        self._loop.add_reader(caller.sock, self._look, caller)

    # ---- deciding -------------------------------------------------------------------------------

    def _look(self, caller: _Caller) -> None:
        if caller not in self._callers:
            return
        try:
            data = caller.sock.recv(MOST_BYTES, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._refuse(caller, "went away")
            return
        if len(data) <= caller.seen:
            self._stuck(caller)
            return
        caller.seen = len(data)
        try:
            name = server_name(data)
        except HelloError as error:
            self._refuse(caller, str(error))
            return
        if isinstance(name, Incomplete):
            # Wake us when there is more than we have seen, and not all the time until then.
            with contextlib.suppress(OSError):
                caller.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, name.needed)
            return
        taker = self._takers.get(name)
        if taker is None:
            self._refuse(caller, "unknown name")
            return
        self._lead(caller, taker)

    def _stuck(self, caller: _Caller) -> None:
        """Nothing new to read, and yet we were woken: it hung up, or the system is short of memory."""
        poll = select.poll()
        poll.register(caller.sock, _HUNG_UP)
        if caller.seen == 0 or poll.poll(0):
            self._refuse(caller, "went away")
            return
        self._loop.remove_reader(caller.sock)
        self._loop.call_later(_AGAIN_SECONDS, self._look_again, caller)

    def _look_again(self, caller: _Caller) -> None:
        if caller in self._callers:
            self._loop.add_reader(caller.sock, self._look, caller)

    def _lead(self, caller: _Caller, taker: Taker) -> None:
        self._forget(caller)
        try:
            caller.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        except OSError:
            caller.sock.close()
            self._count("went away", caller.address)
            return
        try:
            taker(caller.sock)
        except (SottovoceError, OSError):
            caller.sock.close()  # the taker has closed it, unless it never came that far
            self._count("whom it asked for is gone", caller.address)
            return
        self.counts["led on"] += 1

    def _forget(self, caller: _Caller) -> None:
        del self._callers[caller]
        same = self._by_address[caller.address]
        del same[caller]
        if not same:
            del self._by_address[caller.address]
        if caller.timer is not None:
            caller.timer.cancel()
        self._loop.remove_reader(caller.sock)

    def _refuse(self, caller: _Caller, reason: str) -> None:
        self._forget(caller)
        caller.sock.close()
        self._count(reason, caller.address)

    # ---- telling --------------------------------------------------------------------------------

    def _count(self, reason: str, address: str) -> None:
        self.counts[reason] += 1
        self._reasons[reason] += 1
        if address in self._addresses or len(self._addresses) < MOST_UNDECIDED:
            self._addresses[address] += 1
        if self._report_timer is None:
            self._report_timer = self._loop.call_later(self._report_seconds, self._tell)

    def _tell(self) -> None:
        self._report_timer = None
        refusals = Refusals(dict(self._reasons), dict(self._addresses.most_common(_ADDRESSES_TOLD)))
        self._reasons.clear()
        self._addresses.clear()
        if self._report is not None and refusals.reasons:
            self._report(refusals)


def group_of(address: str) -> str:
    """Return what counts as one address: an IPv4 address, or an IPv6 network, of which each has plenty."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
