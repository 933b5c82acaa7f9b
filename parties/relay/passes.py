"""Passes: a member lets a key of its own making use the relay until a time.

A relay serves the members of a consortium, which it knows by key. The process that computes a study has
a fresh key, so that it never holds the member's; its node signs a pass for that key. A pass opens the
relay, and nothing else: who the other end is, each end checks for itself (:mod:`parties.relay.sealed`).

A pass is five parts, each with its length in front: consortium, the issuing key's id, the holder's key
name, the end in seconds since 1970, and the signature of the issuing key over the four before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpc.errors import SottovoceError
from parties.governance.keys import verify

if TYPE_CHECKING:
    from parties.governance.consortium import Consortium, Member

PASS_BYTES = 1024
# Longer than any study may take, and short enough to make a pass that got lost worthless soon.
LONGEST_SECONDS = 31 * 24 * 3600
_DOMAIN = "sottovoce relay pass 1"
_NAME_BYTES = 100
_KEY_ID_BYTES = 64
_TIME_BYTES = 8
_SIGNATURE_BYTES = 64


class PassError(SottovoceError, ValueError):
    """A pass that opens nothing: malformed, expired, forged, or of nobody we know."""


class Register:
    """The members of the consortia that a relay serves, by key; revoked keys are not among them."""

    def __init__(self, consortia: Iterable[Consortium]) -> None:
        self._members = {(one.name, member.key_id): member for one in consortia for member in one.members}
        self._by_key = {key_id: member for (_, key_id), member in self._members.items()}

    def __len__(self) -> int:
        return len(self._by_key)

    def member(self, key_id: str, consortium: str | None = None) -> Member | None:
        """Return the member with a key, of a consortium or of any; None if there is none."""
        return self._by_key.get(key_id) if consortium is None else self._members.get((consortium, key_id))


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass whose signature was checked.

    Attributes
    ----------
    consortium : str
    issuer : str
        Key id of the member who signed it.
    member : str
        Name of that member.
    holder : str
        Key name (:func:`parties.identity.host_name`) for which it is.
    expires : int
        Seconds since 1970.
    """

    consortium: str
    issuer: str
    member: str
    holder: str
    expires: int


def make_pass(sign: Callable[[str, bytes], bytes], consortium: str, issuer: str, holder: str, expires: float) -> bytes:
    """Make a pass.

    Parameters
    ----------
    sign : callable
        ``sign(domain, content)`` gives the Ed25519 signature, by the member's key, over the domain in ASCII,
        a zero byte, and the content.
    consortium : str
        Name of the consortium in which the member is one.
    issuer : str
        Key id of the member: SHA-256 of its public key, in hexadecimal.
    holder : str
        Key name of whom it is for.
    expires : float
        Seconds since 1970; at most 31 days from now, or the relay refuses it.
    """
    parts = (consortium.encode(), issuer.encode(), holder.encode(), int(expires).to_bytes(_TIME_BYTES, "big"))
    content = pack(*parts)
    return content + pack(sign(_DOMAIN, content))


def check_pass(data: bytes, holder: str, now: float, register: Register) -> Pass:
    """Check a pass that somebody shows who has proved to hold the key ``holder``.

    Raises
    ------
    PassError
        Saying which check failed.
    """
    try:
        limits = (_NAME_BYTES, _KEY_ID_BYTES, _NAME_BYTES, _TIME_BYTES, _SIGNATURE_BYTES)
        parts = unpack(data, limits)
        consortium, issuer, named = (part.decode("ascii") for part in parts[:3])
    except ValueError:
        raise PassError("the pass cannot be read: is it of another version of the software?") from None
    expires = int.from_bytes(parts[3], "big")
    member = register.member(issuer, consortium)
    if member is None:
        raise PassError("the pass is by nobody who is a member here: does the relay have the current consortium file?")
    if not verify(member.certificate, _DOMAIN, pack(*parts[:4]), parts[4]):
        raise PassError(f"the pass is not signed by {member.name}, or was altered")
    if named != holder:
        raise PassError("the pass is for another key")
    if expires <= now:
        raise PassError(f"the pass of {member.name} has expired: are the clocks right?")
    if expires > now + LONGEST_SECONDS:
        raise PassError(f"the pass is for longer than {LONGEST_SECONDS // 86400} days")
    return Pass(consortium, issuer, member.name, holder, expires)


def pack(*parts: bytes) -> bytes:
    """Put parts together, each after its length in four bytes, so that they can be read in one way only."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def unpack(data: bytes, limits: Sequence[int]) -> list[bytes]:
    """Take apart what :func:`pack` put together: so many parts, each no longer than its limit.

    Raises
    ------
    ValueError
        If it is not that, to the last byte.
    """
    parts, at = [], 0
    for limit in limits:
        size = int.from_bytes(data[at : at + 4], "big")
        at += 4 + size
        if size > limit or at > len(data):
            raise ValueError("a part that is too long")
        parts.append(data[at - size : at])
    if at != len(data):
        raise ValueError("more than these parts")
    return parts
