"""Identities: TLS 1.3 between pinned certificates, and nothing else."""

import datetime
import ssl
from collections.abc import Callable
from functools import partial

import pytest

from parties.errors import IdentityError
from parties.identity import (
    Identity,
    client_context,
    fingerprint,
    host_name,
    make_identity,
    presented_certificate,
    server_context,
)


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Do a whole handshake in memory, with a first byte both ways, and return both ends."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up, server_hostname=name), server.wrap_bio(up, down, server_side=True)]
    steps: list[list[Callable[[], object]]]
    steps = [[end.do_handshake, partial(end.write, b"x"), partial(end.read, 1)] for end in ends]
    for _ in range(12):
        for todo in steps:
            while todo:
                try:
                    todo[0]()
                except ssl.SSLWantReadError:
                    break
                todo.pop(0)
    assert steps == [[], []]
    return ends[1], ends[0]


@pytest.fixture(scope="module")
def pair() -> tuple[Identity, Identity]:
    return make_identity("Clinic A"), make_identity("Clinic B")


def test_both_prove_who_they_are(pair: tuple[Identity, Identity]) -> None:
    a, b = pair
    server, client = shake_hands(
        server_context(a, [b.certificate]), client_context(b, [a.certificate]), host_name(a.certificate)
    )
    assert client.version() == "TLSv1.3"
    assert presented_certificate(server) == b.certificate
    assert presented_certificate(client) == a.certificate


def test_contexts_are_strict(pair: tuple[Identity, Identity]) -> None:
    a, b = pair
    for context in (server_context(a, [b.certificate]), client_context(a, [b.certificate])):
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.get_ca_certs(binary_form=True) in ([b.certificate], [])  # not counted as an authority
        assert context.cert_store_stats()["x509"] == 1
    assert client_context(a, [b.certificate]).check_hostname
    assert server_context(a, [b.certificate]).num_tickets == 0


def test_an_unknown_certificate_is_refused_on_either_side(pair: tuple[Identity, Identity]) -> None:
    a, b = pair
    stranger = make_identity("Clinic A")  # the name is the same, the key is not
    with pytest.raises(ssl.SSLError):
        shake_hands(
            server_context(a, [b.certificate]),
            client_context(stranger, [a.certificate]),
            host_name(a.certificate),
        )
    with pytest.raises(ssl.SSLError):
        shake_hands(
            server_context(stranger, [b.certificate]),
            client_context(b, [a.certificate]),
            host_name(a.certificate),
        )


def test_a_pinned_certificate_under_anothers_name_is_refused(pair: tuple[Identity, Identity]) -> None:
    """Clinic B answers where we dial clinic A: both are pinned, and still it is not who we asked for."""
    a, b = pair
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(
            server_context(b, [a.certificate]),
            client_context(a, [a.certificate, b.certificate]),
            host_name(a.certificate),
        )


def test_no_certificate_is_refused(pair: tuple[Identity, Identity]) -> None:
    a, b = pair
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.load_verify_locations(cadata=a.certificate)
    with pytest.raises(ssl.SSLError):
        shake_hands(server_context(a, [b.certificate]), nobody, host_name(a.certificate))


def test_older_tls_is_refused(pair: tuple[Identity, Identity]) -> None:
    a, b = pair
    old = client_context(b, [a.certificate])
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        shake_hands(server_context(a, [b.certificate]), old, host_name(a.certificate))


def test_an_expired_certificate_is_refused(pair: tuple[Identity, Identity]) -> None:
    a, _ = pair
    late = make_identity("late", datetime.timedelta(minutes=-5))
    with pytest.raises(ssl.SSLError):
        shake_hands(
            server_context(a, [late.certificate]),
            client_context(late, [a.certificate]),
            host_name(a.certificate),
        )


def test_the_name_of_a_certificate_is_its_keys() -> None:
    a, again = make_identity("x"), make_identity("x")
    assert host_name(a.certificate) != host_name(again.certificate)
    assert len(host_name(a.certificate).partition(".")[0]) <= 63
    assert len(fingerprint(a.certificate)) == 64


def test_a_certificate_with_another_keys_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import parties.identity

    with monkeypatch.context() as patch:
        patch.setattr(parties.identity, "host_name_of_hash", lambda key: "somebody.else.invalid")
        forged = make_identity("forged")
    with pytest.raises(IdentityError, match="name of its key"):
        host_name(forged.certificate)
    with pytest.raises(IdentityError, match="in DER"):
        host_name(b"no certificate")


def test_the_key_does_not_show(pair: tuple[Identity, Identity]) -> None:
    assert "PRIVATE" not in repr(pair[0])


def test_certificates_of_one_name_are_told_apart() -> None:
    """OpenSSL looks certificates up by subject: two of the same one would stand in for each other."""
    one, other, client = (make_identity("worker") for _ in range(3))
    dialling = client_context(client, [one.certificate, other.certificate])
    for server in (one, other):
        answering = server_context(server, [other.certificate, one.certificate, client.certificate])
        answered, dialled = shake_hands(answering, dialling, host_name(server.certificate))
        assert presented_certificate(dialled) == server.certificate
        assert presented_certificate(answered) == client.certificate
