"""Whom a relay lets in: members and whoever holds their pass; everything else is refused by name."""

import hashlib
from itertools import product

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from parties.governance.consortium import Revocation
from parties.governance.keys import NodeKey, key_id_of
from parties.identity import Identity, host_name, make_identity
from parties.relay.admission import AdmissionError, Guest, admit, key_name, make_request, purpose_of
from parties.relay.passes import LONGEST_SECONDS, PassError, Register, check_pass, make_pass, pack, unpack
from tests.relay.test_sealed import fixed_identity
from tests.relay.world import World

CHALLENGE = bytes(range(32))
PURPOSE = purpose_of(b"context")
NOW = 1_800_000_000.0
WORKER = make_identity("worker")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def certain(host: str) -> bool:
    return host == "relay.example"


def asks(
    world: World,
    identity: Identity,
    *,
    peer: str | None = None,
    host: str = "relay.example",
    challenge: bytes = CHALLENGE,
    passes: bytes | None = None,
    register: Register | None = None,
    purpose: bytes = PURPOSE,
) -> Guest:
    peer = peer or host_name(world.nodes["city"].certificate)
    request = make_request(identity, challenge, host, peer, purpose, passes)
    return admit(request, CHALLENGE, certain, register or world.register, NOW)


def signed_pass(world: World, holder: Identity = WORKER, *, seconds: float = 60, consortium: str = "trial") -> bytes:
    key = NodeKey(world.nodes["north"])
    return make_pass(key.sign, consortium, key.key_id, host_name(holder.certificate), NOW + seconds)


def test_key_names_are_those_of_identities(world: World) -> None:
    for identity in world.nodes.values():
        assert key_name(key_id_of(identity.certificate)) == host_name(identity.certificate)


def test_a_member_is_let_in(world: World) -> None:
    north = world.nodes["north"]
    guest = asks(world, north)
    assert guest == Guest(
        host_name(north.certificate),
        host_name(world.nodes["city"].certificate),
        PURPOSE,
        "north",
        key_id_of(north.certificate),
        None,
    )
    assert str(guest).startswith("north (")


def test_a_member_is_let_in_with_a_renewed_certificate(world: World) -> None:
    renewed = NodeKey(world.nodes["north"]).renew().identity
    assert renewed.certificate != world.nodes["north"].certificate
    assert asks(world, renewed).member == "north"


def test_who_holds_a_pass_is_let_in_until_it_ends(world: World) -> None:
    guest = asks(world, WORKER, passes=signed_pass(world))
    assert (guest.member, guest.expires) == ("north", NOW + 60)
    assert guest.member_key == key_id_of(world.nodes["north"].certificate)
    assert "worker of north" in str(guest)


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("no pass", "no member's"),
        ("expired", "has expired"),
        ("too long", "longer than 31 days"),
        ("another consortium", "nobody who is a member"),
        ("another holder", "for another key"),
        ("of a stranger", "nobody who is a member"),
        ("forged", "not signed by north"),
        ("for nothing", "cannot be read"),
    ],
)
def test_a_bad_pass_opens_nothing(world: World, case: str, says: str) -> None:
    stranger = NodeKey(make_identity("stranger"))
    north, holder = NodeKey(world.nodes["north"]).key_id, host_name(WORKER.certificate)
    passes = {
        "no pass": None,
        "expired": signed_pass(world, seconds=0),
        "too long": signed_pass(world, seconds=LONGEST_SECONDS + 1),
        "another consortium": signed_pass(world, consortium="another"),
        "another holder": signed_pass(world, make_identity("another worker")),
        "of a stranger": make_pass(stranger.sign, "trial", stranger.key_id, holder, NOW + 60),
        "forged": make_pass(stranger.sign, "trial", north, holder, NOW + 60),
        "for nothing": b"pass",
    }[case]
    with pytest.raises(AdmissionError, match=says):
        asks(world, WORKER, passes=passes)


def test_a_pass_with_any_bit_changed_opens_nothing(world: World) -> None:
    good = signed_pass(world)
    holder = host_name(WORKER.certificate)
    assert check_pass(good, holder, NOW, world.register).member == "north"
    for at, bit in product(range(len(good)), (1, 0x80)):
        bad = bytearray(good)
        bad[at] ^= bit
        with pytest.raises(PassError):
            check_pass(bytes(bad), holder, NOW, world.register)
    for bad_one in (good[:-1], good + b"\0", b""):
        with pytest.raises(PassError, match="cannot be read"):
            check_pass(bad_one, holder, NOW, world.register)


def test_a_signature_for_another_purpose_is_no_pass(world: World) -> None:
    key = NodeKey(world.nodes["north"])
    passes = make_pass(
        lambda domain, content: key.sign("another domain", content),
        "trial",
        key.key_id,
        host_name(WORKER.certificate),
        NOW + 60,
    )
    with pytest.raises(AdmissionError, match="not signed by north"):
        asks(world, WORKER, passes=passes)


def test_a_revoked_member_is_nobody_and_so_are_its_workers(world: World) -> None:
    north = world.nodes["north"]
    consortium = world.consortium
    revoked = type(consortium)(
        consortium.name, consortium.members, (Revocation("north", key_id_of(north.certificate), "stolen"),)
    )
    with pytest.raises(AdmissionError, match="no member's"):
        asks(world, north, register=Register([revoked]))
    with pytest.raises(AdmissionError, match="nobody who is a member"):
        asks(world, WORKER, passes=signed_pass(world), register=Register([revoked]))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"challenge": bytes(32)}, "not signed by its key"),
        ({"host": "evil.example"}, "another name"),
        ({"peer": "city"}, "no other key"),
        ({"peer": "../../etc/passwd"}, "no other key"),
        ({"peer": "A" * 52 + ".sottovoce.invalid"}, "no other key"),
        ({"purpose": b"short"}, "no other key"),
    ],
)
def test_a_request_that_is_not_for_here_and_now_is_refused(world: World, options: dict[str, str], says: str) -> None:
    with pytest.raises(AdmissionError, match=says):
        asks(world, world.nodes["north"], **options)  # type: ignore[arg-type]


def test_nobody_asks_for_himself(world: World) -> None:
    with pytest.raises(AdmissionError, match="no other key"):
        asks(world, world.nodes["north"], peer=host_name(world.nodes["north"].certificate))


def test_a_stranger_cannot_use_the_name_of_a_member(world: World) -> None:
    """The key in the request is the one that signs: north's key, signed by a stranger's."""
    request = bytearray(
        make_request(world.nodes["north"], CHALLENGE, "relay.example", key_name("00" * 32), PURPOSE, None)
    )
    theirs = make_request(WORKER, CHALLENGE, "relay.example", key_name("00" * 32), PURPOSE, None)
    request[-64:] = theirs[-64:]
    with pytest.raises(AdmissionError, match="not signed"):
        admit(bytes(request), CHALLENGE, certain, world.register, NOW)


@given(st.binary(max_size=400))
def test_garbage_is_refused_without_a_surprise(data: bytes) -> None:
    with pytest.raises(AdmissionError):
        admit(data, CHALLENGE, certain, Register([]), NOW)


@given(st.data())
def test_a_request_that_was_altered_is_refused_without_a_surprise(data: st.DataObject) -> None:
    request = bytearray(make_request(WORKER, CHALLENGE, "relay.example", key_name("00" * 32), PURPOSE, None))
    at = data.draw(st.integers(0, len(request) - 1))
    request[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(AdmissionError, match=r"cannot be read|not signed"):
        admit(bytes(request), CHALLENGE, certain, Register([]), NOW)


@given(st.lists(st.binary(max_size=10), max_size=5))
def test_parts_come_apart_as_they_were_put_together(parts: list[bytes]) -> None:
    assert unpack(pack(*parts), [10] * len(parts)) == parts
    with pytest.raises(ValueError, match="more than"):
        unpack(pack(*parts) + b"\0", [10] * len(parts))
    with pytest.raises(ValueError, match="too long"):
        unpack(pack(*parts), [10] * (len(parts) + 1))
    if any(len(part) == 10 for part in parts):
        with pytest.raises(ValueError, match="too long"):
            unpack(pack(*parts), [9] * len(parts))


def test_the_purpose_is_a_hash() -> None:
    assert purpose_of(b"context") == hashlib.sha256(b"sottovoce relay purpose 1\0context").digest()


def test_bytes_of_a_request_stay() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    identity = Identity(fixed_identity(1).certificate, pem)
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    peer = key_name("00" * 32)
    parts = b"".join(
        len(part).to_bytes(4, "big") + part for part in (raw, b"relay.example", peer.encode(), PURPOSE, b"pass")
    )
    signature = key.sign(b"sottovoce relay request 1\0" + b"\0\0\0\x20" + CHALLENGE + parts)
    request = make_request(identity, CHALLENGE, "relay.example", peer, PURPOSE, b"pass")
    assert request == parts + b"\0\0\0\x40" + signature


def test_bytes_of_a_pass_stay() -> None:
    made = make_pass(lambda domain, content: bytes(64), "trial", "ab" * 32, "holder", 1_800_000_000.7)
    assert made == (
        b"\0\0\0\5trial" + b"\0\0\0\x40" + b"ab" * 32 + b"\0\0\0\6holder"
        b"\0\0\0\x08" + (1_800_000_000).to_bytes(8, "big") + b"\0\0\0\x40" + bytes(64)
    )
