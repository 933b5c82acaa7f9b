"""What two nodes say first, and whether they fit together: the same file, the same time, the same software."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from parties.governance.canonical import parse
from parties.governance.checks import one_line, read_time, write_time
from parties.governance.consortium import Consortium
from parties.governance.errors import GovernanceError
from parties.node.control import MESSAGE_BYTES

FORMAT = 1
SKEW_SECONDS = 120.0


class ProtocolError(GovernanceError):
    """A peer said something that it must not say; the text holds nothing of it."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient control links are, in seconds, and how much they take.

    Attributes
    ----------
    first_pause, longest_pause : float
        Between attempts to dial; the pause doubles, and up to half of it is chance.
    alive : float
        After so long without a word of ours we say that we live.
    silent : float
        A peer that says nothing for so long counts as gone.
    hello : float
        For the other's hello.
    rate, burst : float
        Messages a second that a peer may send, and how many at once; more have to wait. Each 4 KiB of a
        message count as one more.
    """

    first_pause: float = 0.2
    longest_pause: float = 15.0
    alive: float = 15.0
    silent: float = 45.0
    hello: float = 10.0
    rate: float = 200.0
    burst: float = 2000.0


@dataclass(slots=True)
class PeerStatus:
    """How it stands with one peer, for people.

    Attributes
    ----------
    name : str
    connected : bool
    since : datetime.datetime or None
        When that began.
    way : str
        ``"we dial"``, ``"it dials"`` or ``"relay"``.
    trouble : str
        Why there is no connection; empty if there is one.
    version : str
        Its software, as it said last.
    skew_seconds : float
        How far its clock is ahead of ours, as far as can be told.
    """

    name: str
    connected: bool = False
    since: datetime.datetime | None = None
    way: str = ""
    trouble: str = "it was not reached yet"
    version: str = ""
    skew_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Hello:
    """What a node says of itself.

    Attributes
    ----------
    name : str
    fingerprint : str
        Of its consortium file.
    version : str
        Of its software.
    """

    name: str
    fingerprint: str
    version: str

    def message(self, now: datetime.datetime) -> dict[str, Any]:
        """Return what is sent."""
        return {
            "kind": "hello",
            "format": FORMAT,
            "name": self.name,
            "consortium": self.fingerprint,
            "version": self.version,
            "time": write_time(now),
        }

    def unfit(self, theirs: dict[str, Any], status: PeerStatus, now: datetime.datetime) -> str:
        """Say what does not fit with what a peer says of itself; empty if all does.

        The other side finds the same, and says so itself. Another version of the software is no obstacle to
        talking: it is noted in the status, and refused when a study begins.
        """
        if theirs.get("kind") == "bye":
            return f"it says: {shown(theirs.get('why'))}"
        if theirs.get("kind") != "hello" or theirs.get("format") != FORMAT:
            return "it speaks another version of the control protocol: install the same version of sottovoce everywhere"
        if theirs.get("name") != status.name:
            return f"it calls itself {shown(theirs.get('name'))}, and its certificate is {status.name}'s"
        status.version = shown(theirs.get("version"))
        if theirs.get("consortium") != self.fingerprint:
            return (
                f"its consortium file is another one (fingerprint {shown(theirs.get('consortium'))} there, "
                f"{self.fingerprint} here): compare the two with sottovoce consortium compare"
            )
        try:
            ahead = (read_time(str(theirs.get("time"))) - now).total_seconds()
        except ValueError:
            return "it does not say what time it has"
        status.skew_seconds = ahead
        if abs(ahead) > SKEW_SECONDS:
            direction = "ahead of" if ahead > 0 else "behind"
            return (
                f"its clock is {abs(ahead):.0f} s {direction} ours: set both by NTP (at most {SKEW_SECONDS:g} s apart)"
            )
        return ""


def way(consortium: Consortium, us: str, them: str) -> str:
    """Say which of two members dials: ``"we dial"``, ``"it dials"`` or ``"relay"``."""
    ours, theirs = consortium.member(us).address, consortium.member(them).address
    if ours is None and theirs is None:
        return "relay"
    if ours is not None and theirs is not None:
        return "we dial" if us > them else "it dials"
    return "we dial" if ours is None else "it dials"


def parse_message(data: bytes) -> dict[str, Any]:
    """Read a message of a peer.

    Raises
    ------
    ProtocolError
        If it is none.
    """
    try:
        message = parse(data, limit=MESSAGE_BYTES)
    except GovernanceError as error:
        raise ProtocolError(f"a message that is not valid: {error}") from None
    if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
        raise ProtocolError("a message that does not say what it is")
    return message


def shown(value: object) -> str:
    """Return a text of a peer as it may be shown."""
    return one_line(value, 300) if isinstance(value, str) else "nothing that can be shown"
