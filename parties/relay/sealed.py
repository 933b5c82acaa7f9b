"""The seal on what a relay forwards: only the two ends can read it, or change it unnoticed.

Two ends that know each other's keys agree on fresh secrets in three messages. This is SIGMA-I of
Krawczyk ("SIGMA: the 'SIGn-and-MAc' approach to authenticated Diffie-Hellman", CRYPTO 2003, section 5)
with the key schedule of TLS 1.3 (RFC 8446, section 7.1) in small: one extraction, and each key expanded
from it under a name of its own and the hash of everything said so far. I is the initiator, R the
responder; G is X25519, sign Ed25519, hash SHA-256, mac HMAC-SHA-256, E AES-256-GCM.

===========================================  ==================================================
the paper                                    here
===========================================  ==================================================
I -> R: g^x                                  01 | X
R -> I: g^y, {R, SIG_R(g^x, g^y), MAC(R)}    02 | Y | E[seal R](sign_R(h1) | mac[R](h2))
I -> R: {I, SIG_I(g^y, g^x), MAC(I)}         03 | E[seal I](sign_I(h3) | mac[I](h4))
===========================================  ==================================================

``h1`` is the hash of what precedes the responder's signature, ``h2`` of that and the signature, and so
on to ``h5``, which covers both signatures and both MACs::

    said     = label | 0 | id of I | id of R | hash(context) | 01 | X | 02 | Y | sign_R | mac_R | sign_I | mac_I
    secret   = HKDF-Extract(salt = h1, X25519(x, Y))
    key      = HKDF-Expand(secret, label | 0 | name of the key | 0 | hash), hash = h1 in the handshake, h5 after it

The id of an end is the hash of its public key (SubjectPublicKeyInfo). Three things differ from the
paper, all on the side of more: ids are not sent, since both ends ask for each other by key; signatures
and MACs cover the whole transcript, so both ids and both roles, not a part of it; signatures begin with
a text that names the role, so that none can stand for another, or for one of TLS. Fresh secrets go into
each handshake, so what was recorded answers none, and a key that is stolen later opens nothing recorded.
Neither does the handshake need the relay's word for who is there: whoever is connected to us cannot sign
for another.

After the handshake each direction has its own secret. Message number n of a direction is::

    kind | E(key, nonce = iv xor n, content, additional data = kind)

and numbers are not sent: both ends count. So a message that was altered, repeated, dropped, moved,
reflected or made for another link does not open, and the first that does not open ends the link. A
relay can still cut what comes last; the end of a conversation is for the layer above to confirm. After
each 2^20 messages, 2^38 bytes at most, key and iv are replaced by ones that the old secret yields, long
before AES-GCM's bounds (RFC 8446, section 5.5, allows 2^38.5 bytes).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from mpc.errors import SottovoceError
from parties.governance.keys import key_id_of, public_key
from parties.identity import Identity

LABEL = b"sottovoce sealed link 1"
TAG_BYTES = 16
# What sealing adds to a message: its kind and the tag.
OVERHEAD_BYTES = 1 + TAG_BYTES
REKEY_MESSAGES = 2**20

DATA = 0
PING = 1
PONG = 2
READY = 3
_KINDS = tuple(bytes([kind]) for kind in (DATA, PING, PONG, READY))

_SHARE_BYTES = 32
_SIGNATURE_BYTES = 64
_MAC_BYTES = 32
_PROOF_BYTES = _SIGNATURE_BYTES + _MAC_BYTES + TAG_BYTES


class SealError(SottovoceError, ValueError):
    """What came through the relay is not what the peer sent, or does not come from it."""


class Seal:
    """Seals the messages of one direction, numbered from 0.

    Parameters
    ----------
    secret : bytes
        32 bytes that the two ends alone know, for this direction alone.
    """

    __slots__ = ("_encrypt", "_iv", "_number", "_secret")

    def __init__(self, secret: bytes) -> None:
        self._number = 0
        self._renew(secret)

    def _renew(self, secret: bytes) -> None:
        self._secret = secret
        self._encrypt = AESGCM(_expand(secret, b"key", b"", 32)).encrypt
        self._iv = int.from_bytes(_expand(secret, b"iv", b"", 12), "big")

    def seal(self, kind: int, content: bytes) -> tuple[bytes, bytes]:
        """Return the next message in two parts: its kind, and its sealed content."""
        number = self._number
        if number and not number % REKEY_MESSAGES:
            self._renew(_expand(self._secret, b"next", b"", 32))
        self._number = number + 1
        start = _KINDS[kind]
        return start, self._encrypt((self._iv ^ number).to_bytes(12, "big"), content, start)


class Unseal:
    """Opens the messages of one direction, in the order in which they were sealed; see :class:`Seal`."""

    __slots__ = ("_decrypt", "_iv", "_number", "_secret")

    def __init__(self, secret: bytes) -> None:
        self._number = 0
        self._renew(secret)

    def _renew(self, secret: bytes) -> None:
        self._secret = secret
        self._decrypt = AESGCM(_expand(secret, b"key", b"", 32)).decrypt
        self._iv = int.from_bytes(_expand(secret, b"iv", b"", 12), "big")

    def open(self, message: bytes | bytearray) -> tuple[int, bytes]:
        """Return kind and content of the next message.

        Raises
        ------
        SealError
            If this is not the next message that the peer sealed. Nothing more is to be opened then.
        """
        number = self._number
        if number and not number % REKEY_MESSAGES:
            self._renew(_expand(self._secret, b"next", b"", 32))
        view = memoryview(message)
        kind = bytes(view[:1])
        if kind not in _KINDS:
            raise SealError("a sealed message of no kind that is known")
        try:
            content = self._decrypt((self._iv ^ number).to_bytes(12, "big"), view[1:], kind)
        except InvalidTag:
            raise SealError(
                "a sealed message that was altered, repeated, dropped or moved on the way; "
                "see who runs the relay, and what stands between it and the two nodes"
            ) from None
        self._number = number + 1
        return kind[0], content


@dataclass(frozen=True, slots=True)
class Keys:
    """What an end has after the handshake: the seal of what it writes, and the one of what it reads."""

    seal: Seal = field(repr=False)
    unseal: Unseal = field(repr=False)


class _Handshake:
    """What both roles share: the transcript, the schedule of keys, and an end for whatever goes wrong."""

    def __init__(self, identity: Identity, peer_certificate: bytes, context: bytes, *, initiator: bool) -> None:
        self._key = _private_key(identity)
        self._peer = public_key(peer_certificate)
        ours, theirs = (bytes.fromhex(key_id_of(each)) for each in (identity.certificate, peer_certificate))
        if ours == theirs:
            raise SealError("a link to ourselves: both ends have the same key")
        ends = (ours, theirs) if initiator else (theirs, ours)
        self._said = hashlib.sha256(b"".join((LABEL, b"\0", *ends, hashlib.sha256(context).digest())))
        self._share = X25519PrivateKey.from_private_bytes(secrets.token_bytes(_SHARE_BYTES))
        self._secret = b""
        self._start = b""
        self._next: Callable[[bytes], bytes | None] | None = None
        self._keys: Keys | None = None

    def step(self, message: bytes | bytearray = b"") -> bytes | None:
        """Take the peer's message (the initiator's first step has none); returns the answer, if there is one.

        Raises
        ------
        SealError
            If the message is not the one that is due, from the peer that we ask for. The handshake is over
            then: its secrets answer nothing more.
        """
        take, self._next = self._next, None
        if take is None:
            raise SealError("a message after the end of the handshake")
        return take(bytes(message))

    @property
    def keys(self) -> Keys:
        """The seals of the two directions; a handshake gives them once it has succeeded."""
        if self._keys is None:
            raise SealError("the handshake is not finished")
        return self._keys

    def _say(self, *parts: bytes) -> bytes:
        """Add to what has been said; returns the hash of all of it."""
        for part in parts:
            self._said.update(part)
        return self._said.digest()

    def _extract(self, their_share: bytes) -> None:
        try:
            shared = self._share.exchange(X25519PublicKey.from_public_bytes(their_share))
        except ValueError:  # a point of small order: the secret would be zero, whoever we are
            raise SealError("a handshake message whose share makes no secret") from None
        self._secret = hmac.digest(self._said.digest(), shared, "sha256")
        self._start = self._said.digest()

    def _prove(self, role: bytes) -> bytes:
        """Sign and MAC what has been said, sealed for the peer."""
        signature = self._key.sign(_signed(role, self._said.digest()))
        mac = hmac.digest(_expand(self._secret, b"mac " + role, self._start), self._say(signature), "sha256")
        self._say(mac)
        key = _expand(self._secret, b"seal " + role, self._start)
        return AESGCM(key).encrypt(bytes(12), signature + mac, None)

    def _check(self, role: bytes, proof: bytes) -> None:
        """Check the peer's signature and MAC of what has been said."""
        key = _expand(self._secret, b"seal " + role, self._start)
        try:
            content = AESGCM(key).decrypt(bytes(12), proof, None)
        except InvalidTag:
            raise SealError(
                "a handshake message that was not made for this link: for other keys or another purpose, "
                "or altered on the way"
            ) from None
        signature, mac = content[:_SIGNATURE_BYTES], content[_SIGNATURE_BYTES:]
        try:
            self._peer.verify(signature, _signed(role, self._said.digest()))
        except InvalidSignature:
            raise SealError("a handshake that the agreed key did not sign: somebody else is there") from None
        due = hmac.digest(_expand(self._secret, b"mac " + role, self._start), self._say(signature), "sha256")
        if not hmac.compare_digest(mac, due):
            raise SealError("a handshake message whose code is not the agreed secret's")
        self._say(mac)

    def _finish(self, ours: bytes, theirs: bytes) -> None:
        end = self._said.digest()
        self._keys = Keys(
            Seal(_expand(self._secret, b"messages " + ours, end)),
            Unseal(_expand(self._secret, b"messages " + theirs, end)),
        )
        self._secret = b""


_I = b"initiator"
_R = b"responder"


class Initiator(_Handshake):
    """The end that speaks first: ``step()`` gives message 1, ``step(message 2)`` gives message 3.

    Parameters
    ----------
    identity : Identity
        Who we are.
    peer_certificate : bytes
        DER of the certificate whose key the peer must prove to have.
    context : bytes
        What the link is for. The handshake succeeds only between ends that name the same.
    """

    def __init__(self, identity: Identity, peer_certificate: bytes, context: bytes) -> None:
        super().__init__(identity, peer_certificate, context, initiator=True)
        self._next = self._begin

    def _begin(self, message: bytes) -> bytes:
        if message:
            raise SealError("a handshake message before ours, and we speak first")
        first = b"\1" + _share_bytes(self._share)
        self._say(first)
        self._next = self._answer
        return first

    def _answer(self, message: bytes) -> bytes:
        start = _read(message, b"\2", 1 + _SHARE_BYTES + _PROOF_BYTES)
        self._say(message[: 1 + _SHARE_BYTES])
        self._extract(start[:_SHARE_BYTES])
        self._check(_R, start[_SHARE_BYTES:])
        last = b"\3" + self._prove(_I)
        self._finish(_I, _R)
        return last


class Responder(_Handshake):
    """The end that answers: ``step(message 1)`` gives message 2, ``step(message 3)`` gives None; see Initiator."""

    def __init__(self, identity: Identity, peer_certificate: bytes, context: bytes) -> None:
        super().__init__(identity, peer_certificate, context, initiator=False)
        self._next = self._answer

    def _answer(self, message: bytes) -> bytes:
        their_share = _read(message, b"\1", 1 + _SHARE_BYTES)
        start = b"\2" + _share_bytes(self._share)
        self._say(message, start)
        self._extract(their_share)
        answer = start + self._prove(_R)
        self._next = self._end
        return answer

    def _end(self, message: bytes) -> None:
        self._check(_I, _read(message, b"\3", 1 + _PROOF_BYTES))
        self._finish(_R, _I)


def _private_key(identity: Identity) -> Ed25519PrivateKey:
    key = serialization.load_pem_private_key(identity.key, None)
    if not isinstance(key, Ed25519PrivateKey):
        raise SealError("our own key is not of Ed25519")
    return key


def _share_bytes(share: X25519PrivateKey) -> bytes:
    return share.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def _signed(role: bytes, transcript: bytes) -> bytes:
    return b"".join((LABEL, b", signature of the ", role, b"\0", transcript))


def _expand(secret: bytes, name: bytes, transcript: bytes, size: int = 32) -> bytes:
    info = b"\0".join((LABEL, name, transcript))
    return HKDFExpand(algorithm=hashes.SHA256(), length=size, info=info).derive(secret)


def _read(message: bytes, start: bytes, size: int) -> bytes:
    if len(message) != size or message[:1] != start:
        raise SealError(f"a handshake message out of turn ({len(message)} bytes where {size} were due)")
    return message[1:]
