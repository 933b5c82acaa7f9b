"""The handshake and the seal: by the book, byte for byte, and nothing that a relay could do goes unnoticed."""

import datetime
import hashlib
import hmac
import secrets
from collections.abc import Callable
from itertools import pairwise, product

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from parties.governance.keys import key_id_of
from parties.identity import Identity, make_identity
from parties.relay import sealed
from parties.relay.sealed import DATA, PING, PONG, READY, Initiator, Keys, Responder, Seal, SealError, Unseal

NORTH, CITY, SOUTH = (make_identity(name) for name in ("north", "city", "south"))


def fixed_identity(number: int) -> Identity:
    """An identity whose key is always the same; what its certificate says beside the key enters nowhere."""
    key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fixed")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), number, now, now + datetime.timedelta(days=1))
        .sign(key, None)
        .public_bytes(serialization.Encoding.DER)
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Identity(certificate, pem)


def hands(one: Identity = NORTH, other: Identity = CITY, context: bytes = b"context") -> tuple[Initiator, Responder]:
    return Initiator(one, other.certificate, context), Responder(other, one.certificate, context)


def shake(initiator: Initiator, responder: Responder) -> list[bytes]:
    """Let both come to the end; returns what they said."""
    said: list[bytes | None] = [initiator.step()]
    for turn, end in ((0, responder), (1, initiator), (2, responder)):
        message = said[turn]
        assert message is not None
        said.append(end.step(message))
    assert said.pop() is None
    return [message for message in said if message is not None]


Change = Callable[[bytes], bytes]


def shake_tampered(number: int, change: Change) -> Responder:
    """The same, with one of the three messages changed on the way."""
    initiator, responder = hands()
    said = initiator.step() or b""
    ends: list[Initiator | Responder] = [responder, initiator, responder]
    for turn, end in enumerate(ends):
        said = end.step(change(said) if turn == number else said) or b""
    return responder


def flipped(at: int, bit: int) -> Change:
    return lambda said: said[:at] + bytes([said[at] ^ bit]) + said[at + 1 :]


def linked() -> tuple[Keys, Keys]:
    initiator, responder = hands()
    shake(initiator, responder)
    return initiator.keys, responder.keys


def message(seal: Seal, content: bytes, kind: int = DATA) -> bytes:
    return b"".join(seal.seal(kind, content))


# By the book


def test_both_ends_have_the_same_keys_and_no_others_have() -> None:
    first, second = linked()
    third, _ = linked()
    for kind, content in (
        (DATA, b""),
        (DATA, b"content"),
        (PING, b""),
        (PONG, b""),
        (READY, b""),
        (DATA, bytes(2**18)),
    ):
        assert second.unseal.open(message(first.seal, content, kind)) == (kind, content)
        assert first.unseal.open(message(second.seal, content, kind)) == (kind, content)
    with pytest.raises(SealError):
        third.unseal.open(message(second.seal, b""))


def spelled_out(
    x: bytes, y: bytes, initiator: bytes, responder: bytes, context: bytes
) -> tuple[list[bytes], tuple[bytes, bytes]]:
    """The handshake once more, in one piece, from hash functions upwards: the messages, and the two secrets."""
    label = b"sottovoce sealed link 1"
    key_i, key_r = (Ed25519PrivateKey.from_private_bytes(key) for key in (initiator, responder))
    der = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    raw = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    share_x, share_y = (X25519PrivateKey.from_private_bytes(each) for each in (x, y))
    X, Y = (each.public_key().public_bytes(*raw) for each in (share_x, share_y))

    def expand(secret: bytes, name: bytes, transcript: bytes) -> bytes:  # RFC 5869, one block
        return hmac.digest(secret, label + b"\0" + name + b"\0" + transcript + b"\1", "sha256")

    said = (
        label
        + b"\0"
        + b"".join(
            hashlib.sha256(each).digest()
            for each in (key_i.public_key().public_bytes(*der), key_r.public_key().public_bytes(*der), context)
        )
    )
    said += b"\1" + X + b"\2" + Y
    h1 = hashlib.sha256(said).digest()
    secret = hmac.digest(h1, share_x.exchange(X25519PublicKey.from_public_bytes(Y)), "sha256")
    messages = [b"\1" + X]
    for start, role, key in ((b"\2" + Y, b"responder", key_r), (b"\3", b"initiator", key_i)):
        signature = key.sign(label + b", signature of the " + role + b"\0" + hashlib.sha256(said).digest())
        said += signature
        mac = hmac.digest(expand(secret, b"mac " + role, h1), hashlib.sha256(said).digest(), "sha256")
        said += mac
        messages.append(start + AESGCM(expand(secret, b"seal " + role, h1)).encrypt(bytes(12), signature + mac, None))
    h5 = hashlib.sha256(said).digest()
    return messages, (expand(secret, b"messages initiator", h5), expand(secret, b"messages responder", h5))


class Drawn:
    """What `secrets` draws, fixed in advance."""

    def __init__(self, *values: bytes) -> None:
        self.values = list(values)

    def token_bytes(self, size: int) -> bytes:
        value = self.values.pop(0)
        assert len(value) == size
        return value


X, Y = bytes(range(32)), bytes(range(32, 64))


def fixed_handshake(monkeypatch: pytest.MonkeyPatch) -> tuple[list[bytes], Keys, Keys]:
    monkeypatch.setattr(sealed, "secrets", Drawn(X, Y))
    initiator, responder = hands(fixed_identity(1), fixed_identity(2), b"vectors")
    return shake(initiator, responder), initiator.keys, responder.keys


def test_handshake_is_the_one_that_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    said, first, second = fixed_handshake(monkeypatch)
    messages, (to_responder, to_initiator) = spelled_out(X, Y, bytes([1]) * 32, bytes([2]) * 32, b"vectors")
    assert said == messages
    assert message(first.seal, b"one") == message(Seal(to_responder), b"one")
    assert message(second.seal, b"two") == message(Seal(to_initiator), b"two")


def test_bytes_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen: another version of the software that changes any of these cannot talk to this one."""
    said, first, second = fixed_handshake(monkeypatch)
    sealed_ones = [message(first.seal, b"hello"), message(first.seal, b"", PING), message(second.seal, b"", READY)]
    assert [each.hex() for each in (*said, *sealed_ones)] == VECTORS


VECTORS: list[str] = [
    "018f40c5adb68f25624ae5b214ea767a6ec94d829d3d7b5e1ad1ba6f3e2138285f",
    "02358072d6365880d1aeea329adf9121383851ed21a28e3b75e965d0d2cd16625403a1a2c725f21dad2297d4ce2261980ecc"
    "611816c289f4b48f1ccf89a5636d382d6bb9b4285afab098fe55e08b2103f6a6c1557951d3073b663a2a730ed19820e20858"
    "132931c05c30c532cf6c57035a364a704453d80748d97f74a7c31b01af8b9276290213308513fba5aa3d9319f5",
    "03191d53e18238401ae2227c96cea3dd3588785e7e070913d9641b0297df8d22025cfbe1d83b8464ce889a489d820b829ac0"
    "6e4a9c1424f57c3a82d72b8445b5d63e2b05b1bdeb1bb8724bad749f8f6fe1da67d922d94d63c937892c9585f56e5b66b26f"
    "134bd5c9a8358b476926ef4645",
    "00e5592e21b1bef3b9665db4a166f62f99ab21af108f",
    "01b900a1093569976aad2c8a2db1c88147",
    "036e67b1dcfae9cc9a01fc40cf3c32e1b5",
]


# What a relay could do to a handshake


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_handshake_with_any_bit_changed_fails(number: int) -> None:
    sample = shake(*hands())[number]
    for at, bit in product(range(len(sample)), (0x01, 0x80)):
        with pytest.raises(SealError):
            shake_tampered(number, flipped(at, bit))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_handshake_message_too_short_or_too_long_fails(number: int) -> None:
    for change in (lambda said: said[:-1], lambda said: said + b"\0", lambda said: b""):
        with pytest.raises(SealError, match=r"were due"):
            shake_tampered(number, change)


def test_somebody_else_in_its_place_is_noticed_by_the_initiator() -> None:
    initiator = Initiator(NORTH, CITY.certificate, b"context")
    impostor = Responder(SOUTH, NORTH.certificate, b"context")
    answer = impostor.step(initiator.step() or b"")
    with pytest.raises(SealError, match="for other keys"):
        initiator.step(answer or b"")


def pretending(whom: Identity) -> Identity:
    """South with the certificate of another, so that all is right but the signature."""
    return Identity(whom.certificate, SOUTH.key)


def test_somebody_who_pretends_to_be_the_responder_cannot_sign() -> None:
    initiator, fake = hands(NORTH, CITY)[0], hands(NORTH, pretending(CITY))[1]
    answer = fake.step(initiator.step() or b"") or b""
    with pytest.raises(SealError, match="did not sign"):
        initiator.step(answer)


def test_somebody_who_pretends_to_be_the_initiator_cannot_sign() -> None:
    fake, responder = hands(pretending(NORTH), CITY)[0], hands(NORTH, CITY)[1]
    last = fake.step(responder.step(fake.step() or b"") or b"") or b""
    with pytest.raises(SealError, match="did not sign"):
        responder.step(last)


@pytest.mark.parametrize("liar", ["initiator", "responder"])
def test_a_signature_without_the_agreed_secrets_mac_is_not_enough(monkeypatch: pytest.MonkeyPatch, liar: str) -> None:
    """SIGMA's point: whoever signs must also show that it knows the secret, and for whom."""
    expand = sealed._expand

    def other_mac(secret: bytes, name: bytes, transcript: bytes, size: int = 32) -> bytes:
        return bytes(32) if name == b"mac " + liar.encode() else expand(secret, name, transcript, size)

    initiator, responder = hands()
    first = initiator.step() or b""
    with monkeypatch.context() as lie:
        lie.setattr(sealed, "_expand", other_mac)
        said: bytes = responder.step(first) or b""
        honest: Initiator | Responder = initiator
        if liar == "initiator":
            said, honest = initiator.step(said) or b"", responder
    with pytest.raises(SealError, match="code is not the agreed secret's"):
        honest.step(said)


@pytest.mark.parametrize(
    ("initiator", "responder"),
    [
        (Initiator(NORTH, CITY.certificate, b"one"), Responder(CITY, NORTH.certificate, b"another")),
        (Initiator(NORTH, CITY.certificate, b""), Responder(CITY, SOUTH.certificate, b"")),
        (Initiator(NORTH, SOUTH.certificate, b""), Responder(CITY, NORTH.certificate, b"")),
    ],
    ids=["context", "whom the responder asks for", "whom the initiator asks for"],
)
def test_ends_that_mean_different_links_find_out(initiator: Initiator, responder: Responder) -> None:
    answer = responder.step(initiator.step() or b"")
    with pytest.raises(SealError):
        initiator.step(answer or b"")


def test_a_recorded_handshake_answers_nothing() -> None:
    recorded = shake(*hands())
    initiator, responder = hands()
    responder.step(recorded[0])
    with pytest.raises(SealError):
        responder.step(recorded[2])
    initiator.step()
    with pytest.raises(SealError):
        initiator.step(recorded[1])


def test_two_responders_cannot_answer_for_each_other() -> None:
    """Two links between the same two ends at once, and the relay swaps what they say."""
    (initiator, responder), (second_initiator, second_responder) = hands(), hands()
    first, second = initiator.step() or b"", second_initiator.step() or b""
    answers = responder.step(first) or b"", second_responder.step(second) or b""
    with pytest.raises(SealError):
        initiator.step(answers[1])
    with pytest.raises(SealError):
        second_initiator.step(answers[0])


def test_a_message_sent_back_to_its_sender_fails() -> None:
    initiator, responder = hands()
    first = initiator.step() or b""
    with pytest.raises(SealError):
        initiator.step(first)
    answer = responder.step(first) or b""
    with pytest.raises(SealError):
        responder.step(answer)


def test_a_handshake_ends_with_its_first_fault() -> None:
    initiator, responder = hands()
    answer = responder.step(initiator.step() or b"") or b""
    with pytest.raises(SealError, match="out of turn"):
        responder.step(b"what")
    last = initiator.step(answer) or b""
    with pytest.raises(SealError, match="after the end"):
        responder.step(last)
    with pytest.raises(SealError, match="after the end"):
        initiator.step(answer)
    with pytest.raises(SealError, match="we speak first"):
        hands()[0].step(answer)
    with pytest.raises(SealError, match="not finished"):
        _ = responder.keys


# From https://cr.yp.to/ecdh.html#validate: points of small order, and one that is not reduced.
SMALL = [
    bytes(32),
    bytes([1]) + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


@pytest.mark.parametrize("point", SMALL)
def test_a_share_that_would_make_no_secret_is_refused(point: bytes) -> None:
    with pytest.raises(SealError, match="no secret"):
        hands()[1].step(b"\1" + point)


def test_a_link_to_oneself_is_refused() -> None:
    with pytest.raises(SealError, match="ourselves"):
        Initiator(NORTH, NORTH.certificate, b"")


def test_the_key_counts_and_not_the_certificate() -> None:
    """A certificate may be renewed at one end before the other one knows."""
    old, new = fixed_identity(7), fixed_identity(7)
    assert key_id_of(old.certificate) == key_id_of(new.certificate)
    shake(Initiator(NORTH, old.certificate, b""), Responder(new, NORTH.certificate, b""))


def test_fresh_secrets_every_time() -> None:
    said = [shake(*hands()) for _ in range(3)]
    assert all(a != b for one, other in pairwise(said) for a, b in zip(one, other, strict=True))


def test_nothing_secret_shows() -> None:
    initiator, responder = hands()
    shake(initiator, responder)
    assert repr(initiator.keys) == "Keys()"
    for each in (initiator, responder, initiator.keys.seal, initiator.keys.unseal):
        assert repr(each) == object.__repr__(each)


# What a relay could do to sealed messages


def test_a_sealed_message_with_any_bit_changed_does_not_open() -> None:
    first, second = linked()
    good = message(first.seal, b"content")
    for at, bit in product(range(len(good)), range(8)):
        bad = bytearray(good)
        bad[at] ^= 1 << bit
        with pytest.raises(SealError):
            second.unseal.open(bad)
    for bad_one in (b"", good[:1], good[:-1], good + b"\0", good[:17]):
        with pytest.raises(SealError):
            second.unseal.open(bad_one)
    assert second.unseal.open(good) == (DATA, b"content")


@given(st.lists(st.binary(max_size=40), min_size=2, max_size=8), st.data())
def test_only_the_order_of_sending_opens(contents: list[bytes], data: st.DataObject) -> None:
    first, second = linked()
    sent = [message(first.seal, content) for content in contents]
    order = data.draw(st.lists(st.sampled_from(range(len(sent))), min_size=1, max_size=10))
    for due, number in enumerate(order):
        if number == due:
            assert second.unseal.open(sent[number]) == (DATA, contents[number])
        else:  # repeated, dropped or reordered
            with pytest.raises(SealError, match="altered, repeated, dropped or moved"):
                second.unseal.open(sent[number])
            break


def test_a_message_of_another_link_or_direction_does_not_open() -> None:
    (_, second), (other, _) = linked(), linked()
    with pytest.raises(SealError):
        second.unseal.open(message(other.seal, b"content"))  # redirected
    with pytest.raises(SealError):
        second.unseal.open(message(second.seal, b"content"))  # reflected


def test_a_kind_that_nobody_knows_is_refused() -> None:
    secret = bytes(32)
    key, iv = (sealed._expand(secret, name, b"", size) for name, size in ((b"key", 32), (b"iv", 12)))
    for kind in (b"\4", b"\xff"):
        with pytest.raises(SealError, match="no kind that is known"):
            Unseal(secret).open(kind + AESGCM(key).encrypt(iv, b"", kind))
    assert Unseal(secret).open(b"\1" + AESGCM(key).encrypt(iv, b"", b"\1")) == (PING, b"")


def test_keys_are_replaced_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What both ends do after so many messages, the numbers going on."""
    monkeypatch.setattr(sealed, "REKEY_MESSAGES", 4)
    secret = secrets.token_bytes(32)
    seal, unseal = Seal(secret), Unseal(secret)
    texts = [message(seal, bytes(20)) for _ in range(14)]
    assert len(set(texts)) == 14
    assert all(unseal.open(text) == (DATA, bytes(20)) for text in texts)

    def expand(key: bytes, name: bytes, size: int) -> bytes:
        block, out = b"", b""
        for number in (1, 2):
            block = hmac.digest(key, block + b"sottovoce sealed link 1\0" + name + b"\0" + bytes([number]), "sha256")
            out += block
        return out[:size]

    for number, text in enumerate(texts):
        if number and number % 4 == 0:
            secret = expand(secret, b"next", 32)
        nonce = (int.from_bytes(expand(secret, b"iv", 12), "big") ^ number).to_bytes(12, "big")
        assert text == b"\0" + AESGCM(expand(secret, b"key", 32)).encrypt(nonce, bytes(20), b"\0")


def test_the_real_bound_on_a_key_is_below_what_gcm_bears() -> None:
    from parties.frames import FRAME_BYTES

    assert sealed.REKEY_MESSAGES * FRAME_BYTES <= 2**38  # RFC 8446, section 5.5: 2^24.5 records of 2^14 bytes
