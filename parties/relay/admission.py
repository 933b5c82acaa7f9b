"""What a relay and its guests say to each other before two of them are joined.

===========  ===========================================  ==========================================
who speaks   message                                      meaning
===========  ===========================================  ==========================================
guest        ``sottovoce relay 1``                        begin
relay        ``C`` and 32 random bytes                    prove who you are
guest        parts: public key, host, peer, purpose,      the key signs the
             pass, signature                              challenge and all other parts
relay        ``W``, every 20 s                            wait: the other end is not here
relay        ``P``                                        paired: from now on everything is forwarded
relay        ``R`` and a reason                           refused
===========  ===========================================  ==========================================

The guest says nothing between its request and ``P``. The host name in the signature is the one that the
guest dialled, so that nobody who is dialled instead of the relay can pass the request on to it.

All that the relay learns is here: which key asks for which other key, a hash of what for, and, with a
pass, which member stands behind it. What comes after ``P`` is sealed between the two ends.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from mpc.errors import SottovoceError
from parties.governance.keys import NodeKey, public_key, verify
from parties.identity import Identity, host_name_of_hash
from parties.relay.passes import PASS_BYTES, PassError, Register, check_pass, pack, unpack

HELLO = b"sottovoce relay 1"
CHALLENGE = b"C"
WAIT = b"W"
PAIRED = b"P"
REFUSED = b"R"
NONCE_BYTES = 32
WAIT_SECONDS = 20.0
PATH = "/relay"
REQUEST_BYTES = 8 * 1024
REASON_BYTES = 200

_DOMAIN = "sottovoce relay request 1"
_KEY_BYTES = 32
_HOST_BYTES = 253
_NAME_BYTES = 100
_PURPOSE_BYTES = 32
_SIGNATURE_BYTES = 64
_KEY_NAME = re.compile(r"[a-z2-7]{52}\.sottovoce\.invalid")


class AdmissionError(SottovoceError):
    """Somebody who may not use the relay, or not like this; the text is told to them."""


@dataclass(frozen=True, slots=True)
class Guest:
    """One end that the relay may connect.

    Attributes
    ----------
    key : str
        Name of its key, which it proved to hold.
    peer : str
        Name of the key that it asks for.
    purpose : bytes
        What for, hashed: 32 bytes.
    member : str
        Name of the member whose key it is, or who signed its pass.
    member_key : str
        Key id of that member.
    expires : float or None
        When its pass ends, in seconds since 1970.
    """

    key: str
    peer: str
    purpose: bytes
    member: str
    member_key: str
    expires: float | None

    def __str__(self) -> str:
        of = self.member if self.expires is None else f"a worker of {self.member}"
        return f"{of} ({self.key[:12]})"


def purpose_of(context: bytes) -> bytes:
    """Return what the relay is told of a link's context: a hash that both ends of the link have in common."""
    return hashlib.sha256(b"sottovoce relay purpose 1\0" + context).digest()


def make_request(
    identity: Identity, challenge: bytes, host: str, peer: str, purpose: bytes, passes: bytes | None
) -> bytes:
    """Answer a challenge: who we are, whom we ask for, and why we may."""
    ours = public_key(identity.certificate).public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    parts = (ours, host.encode("ascii"), peer.encode("ascii"), purpose, passes or b"")
    return pack(*parts, NodeKey(identity).sign(_DOMAIN, pack(challenge, *parts)))


def admit(request: bytes, challenge: bytes, is_us: Callable[[str], bool], register: Register, now: float) -> Guest:
    """Check a guest's request.

    Parameters
    ----------
    request, challenge : bytes
        What it said, and what it had to answer.
    is_us : callable
        Whether a host name is one of ours.
    register : Register
        Whom we serve.
    now : float
        Seconds since 1970.

    Raises
    ------
    AdmissionError
        Naming the check that failed.
    """
    try:
        limits = (_KEY_BYTES, _HOST_BYTES, _NAME_BYTES, _PURPOSE_BYTES, PASS_BYTES, _SIGNATURE_BYTES)
        parts = unpack(request, limits)
        raw, (host, peer), purpose, passes = parts[0], (part.decode("ascii") for part in parts[1:3]), *parts[3:5]
        theirs = Ed25519PublicKey.from_public_bytes(raw)
    except ValueError:
        raise AdmissionError("the request cannot be read: is it of another version of the software?") from None
    if not verify(theirs, _DOMAIN, pack(challenge, *parts[:5]), parts[5]):
        raise AdmissionError("the request is not signed by its key")
    if not is_us(host):
        raise AdmissionError("the request was made for a relay of another name")
    key_id = _key_id(theirs)
    key = key_name(key_id)
    if not _KEY_NAME.fullmatch(peer) or len(purpose) != _PURPOSE_BYTES or peer == key:
        raise AdmissionError("the request asks for no other key")
    member = register.member(key_id)
    if member is not None:
        return Guest(key, peer, purpose, member.name, key_id, None)
    if not passes:
        raise AdmissionError("the key is no member's: does the relay have the current consortium file?")
    try:
        checked = check_pass(passes, key, now, register)
    except PassError as error:
        raise AdmissionError(str(error)) from None
    return Guest(key, peer, purpose, checked.member, checked.issuer, checked.expires)


def key_name(key_id: str) -> str:
    """Return the name of a key (:func:`parties.identity.host_name`) from its id."""
    return host_name_of_hash(bytes.fromhex(key_id))


def _key_id(key: Ed25519PublicKey) -> str:
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).hexdigest()
