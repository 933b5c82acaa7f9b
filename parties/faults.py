"""How a run ends before its time: the fault, what is told of it to the others, and what had gone over the links."""

from __future__ import annotations

from dataclasses import dataclass

from mpc.errors import PeerError
from parties.frames import STEP_BYTES

_ABORT_BYTES = 16 * 1024
_ABORT_NAME = 100
_ABORT_TEXT = 2000


@dataclass(frozen=True, slots=True)
class Fault:
    """Why nothing more can be sent or received.

    Attributes
    ----------
    text : str
        What happened; holds no data.
    rank : int
        The peer at fault.
    step : str or None
        The step of the message that was at fault, where there was one.
    """

    text: str
    rank: int
    step: str | None = None

    def error(self, step: str) -> PeerError:
        """Return the error for whoever is at ``step``."""
        where = "" if repr(step) in self.text else f" (we were at step {step!r})"
        return PeerError(self.text + where, rank=self.rank, step=self.step or step)


@dataclass(frozen=True, slots=True)
class Abort:
    """What a peer says when it stops: the type of its error, a text free of data, and whose fault it was."""

    type_name: str
    text: str
    rank: int
    step: str | None


@dataclass(slots=True)
class Traffic:
    """Bytes between us and one peer.

    ``payload`` is what the protocols sent, ``wire`` adds our header, WebSocket and TLS, and what had to
    be sent again.
    """

    payload_sent: int = 0
    payload_received: int = 0
    wire_sent: int = 0
    wire_received: int = 0


def pack_abort(abort: Abort) -> bytes:
    """Write what we say when we stop."""
    fields = (str(abort.rank), abort.step or "", abort.type_name[:_ABORT_NAME], abort.text[:_ABORT_TEXT])
    return "\0".join(field.replace("\0", " ") for field in fields).encode("utf-8", "replace")


def parse_abort(payload: bytes, peer: int) -> Abort:
    """Read what a peer says when it stops: four fields of text; ``ValueError`` if it is not that."""
    if len(payload) > _ABORT_BYTES:
        raise ValueError("too long")
    rank, step, type_name, text = payload.decode("utf-8").split("\0")
    if len(step) > STEP_BYTES or len(type_name) > _ABORT_NAME or len(text) > _ABORT_TEXT:
        raise ValueError("a field is too long")
    culprit = int(rank) if rank.isascii() and rank.isdigit() and len(rank) < 6 else peer
    return Abort(_shown(type_name), _shown(text), culprit, _shown(step) or None)


def _shown(text: str) -> str:
    """Text of a peer as we dare to show it: it may not steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
