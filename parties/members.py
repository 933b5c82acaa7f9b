"""The nodes of one run: who they are, what they are called, and who connects to whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parties.relay.client import RelayAddress


@dataclass(frozen=True, slots=True)
class Member:
    """A node as the others know it.

    Attributes
    ----------
    certificate : bytes
        DER, pinned.
    host, port : str, int
        Where it is dialled; a node that cannot be dialled leaves them empty.
    name : str
        What messages call it; without one it is called by its rank.
    relay : RelayAddress, optional
        Where nodes meet that cannot be dialled.
    """

    certificate: bytes
    host: str = ""
    port: int = 0
    name: str = ""
    relay: RelayAddress | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """How we connect to a peer.

    Attributes
    ----------
    dials : bool
        Whether it is we who dial; at a relay, whether it is we who begin the handshake.
    relay : RelayAddress or None
        Where both meet; None where one dials the other.
    """

    dials: bool
    relay: RelayAddress | None = None

    @property
    def waits(self) -> bool:
        """Whether we wait to be dialled."""
        return not self.dials and self.relay is None


def name_of(rank: int, parties: int, members: Sequence[Member] = ()) -> str:
    """Name a node in messages."""
    if rank < len(members) and members[rank].name:
        return members[rank].name
    return "the dealer" if rank == parties else f"party {rank}"


def route_between(rank: int, peer: int, members: Sequence[Member]) -> Route | None:
    """Tell how two nodes connect: the same answer, seen from either end.

    Where both have an address, the higher rank dials; where one has, the other one does. Where none
    has, they meet at the relay of the lower rank, or else of the higher one, and the higher rank begins.

    Returns
    -------
    Route or None
        None if there is no way.
    """
    ours, theirs = members[rank], members[peer]
    if ours.host and theirs.host:
        return Route(rank > peer)
    if ours.host or theirs.host:
        return Route(bool(theirs.host))
    relay = members[min(rank, peer)].relay or members[max(rank, peer)].relay
    return None if relay is None else Route(rank > peer, relay)
