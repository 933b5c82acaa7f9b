"""Keys: on disk for their owner alone, certificates that begin and end, renewal that keeps who we are."""

import contextlib
import datetime
import errno
import os
import ssl
import stat
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from parties.errors import IdentityError
from parties.governance.errors import GovernanceError, KeyFileError
from parties.governance.keys import (
    NodeKey,
    certificate_der,
    certificate_pem,
    common_name,
    expiry,
    generate,
    key_id_of,
    load,
    load_certificate,
    read_passphrase,
    verify,
)
from parties.identity import Identity, client_context, host_name, presented_certificate, server_context
from tests.parties.test_identity import shake_hands

KEY = generate("north")
DAY = datetime.timedelta(days=1)


def saved(directory: Path, passphrase: str | None = None) -> tuple[Path, Path]:
    KEY.save(directory, passphrase)
    return directory / "key.pem", directory / "certificate.pem"


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    key, certificate = saved(tmp_path / "node")
    loaded = load(key, certificate)
    assert loaded.key_id == KEY.key_id == key_id_of(KEY.certificate)
    assert loaded.identity == KEY.identity
    assert loaded.name == "north"
    assert verify(KEY.certificate, "d", b"x", loaded.sign("d", b"x"))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        directory = tmp_path / "node"
        directory.mkdir(mode=0o700)
        directory.chmod(0o700)
        KEY.save(directory)
    finally:
        os.umask(before)
    assert stat.S_IMODE((directory / "key.pem").stat().st_mode) & 0o077 == 0


def test_a_new_directory_is_ours_alone(tmp_path: Path) -> None:
    key, certificate = saved(tmp_path / "deep" / "node")
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert sorted(path.name for path in key.parent.iterdir()) == ["certificate.pem", "key.pem"]  # nothing half-written
    assert "PRIVATE" not in certificate.read_text()


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    key, _ = saved(tmp_path)
    before = key.read_bytes()
    with pytest.raises(KeyFileError, match="exists already"):
        generate("other").save(tmp_path)
    assert key.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("there", [False, True])
def test_a_file_system_without_hard_links_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    def unsupported(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", unsupported)
    if there:
        (tmp_path / "key.pem").write_text("dear")
        with pytest.raises(KeyFileError, match="exists already"):
            KEY.save(tmp_path)
        assert (tmp_path / "key.pem").read_text() == "dear"
    else:
        assert load(*saved(tmp_path)).key_id == KEY.key_id
        assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
        assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o602, 0o777])
def test_a_key_that_others_reach_is_refused(tmp_path: Path, mode: int) -> None:
    key, certificate = saved(tmp_path)
    key.chmod(mode)
    with pytest.raises(KeyFileError, match=f"mode {mode:o}.*chmod 600 "):
        load(key, certificate)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_of_somebody_else_is_refused(tmp_path: Path) -> None:
    key, certificate = saved(tmp_path)
    os.chown(key, 65534, 65534)
    with pytest.raises(KeyFileError, match="another user"):
        load(key, certificate)


def test_passphrases(tmp_path: Path) -> None:
    key, certificate = saved(tmp_path, "correct horse")
    assert b"ENCRYPTED" in key.read_bytes()
    assert load(key, certificate, "correct horse").key_id == KEY.key_id
    with pytest.raises(KeyFileError, match="passphrase is wrong") as wrong:
        load(key, certificate, "battery staple")
    with pytest.raises(KeyFileError, match="encrypted: give its passphrase"):
        load(key, certificate)
    assert "battery" not in str(wrong.value)


def test_a_passphrase_too_many(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="not encrypted, but a passphrase"):
        load(*saved(tmp_path), "secret")


@pytest.mark.parametrize("passphrase", ["", "x" * 2000])
def test_passphrases_have_a_length(tmp_path: Path, passphrase: str) -> None:
    with pytest.raises(KeyFileError, match="1 to 1000 bytes"):
        KEY.save(tmp_path, passphrase)


def test_a_passphrase_file_is_private(tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_text("geheim\u00fc \r\n", "utf-8")
    file.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_passphrase(file)
    file.chmod(0o600)
    assert read_passphrase(file) == "geheim\u00fc "
    file.write_bytes(b"\n")
    with pytest.raises(KeyFileError, match="empty"):
        read_passphrase(file)
    file.write_bytes(b"\xff")
    with pytest.raises(KeyFileError, match="UTF-8"):
        read_passphrase(file)
    file.write_bytes(b"x" * 5000)
    with pytest.raises(KeyFileError, match="larger than 1024"):
        read_passphrase(file)


def test_key_and_certificate_belong_together(tmp_path: Path) -> None:
    key, _ = saved(tmp_path / "a")
    generate("other").save(tmp_path / "b")
    with pytest.raises(KeyFileError, match=r"b/certificate.pem: key and certificate do not belong together"):
        load(key, tmp_path / "b" / "certificate.pem")


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_nonsense_is_no_key(tmp_path: Path, content: bytes) -> None:
    key, certificate = saved(tmp_path)
    key.write_bytes(content)
    with pytest.raises(KeyFileError, match="not a private key in PEM"):
        load(key, certificate)


def test_another_kind_of_key_is_refused(tmp_path: Path) -> None:
    key, certificate = saved(tmp_path)
    other = ec.generate_private_key(ec.SECP256R1())
    key.write_bytes(
        other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with pytest.raises(KeyFileError, match="not an Ed25519 key"):
        load(key, certificate)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    key, certificate = saved(tmp_path)
    with pytest.raises(KeyFileError, match="cannot be read: no such file"):
        load(tmp_path / "none.pem", certificate)
    with pytest.raises(KeyFileError, match="not a regular file"):
        load(tmp_path, certificate)
    os.mkfifo(tmp_path / "pipe")  # would block whoever opens it
    with pytest.raises(KeyFileError, match="not a regular file"):
        load(tmp_path / "pipe", certificate)
    key.write_bytes(b"x" * 20_000)
    with pytest.raises(KeyFileError, match="larger than"):
        load(key, certificate)


def test_names_of_files_cannot_steer_a_terminal(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError) as error:
        load_certificate(tmp_path / "a\x1b[31mb\n")
    assert str(error.value).isprintable()


def test_a_disk_that_takes_no_more_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyFileError, match="no space left"):
        KEY.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", ["two", "none", "bytes", "signature", "serial", "other"])
def test_what_is_no_certificate_of_ours_is_refused(tmp_path: Path, change: str) -> None:
    pem = certificate_pem(KEY.certificate)
    if change == "two":
        pem += certificate_pem(generate("x").certificate)
    elif change == "none":
        pem = ""
    elif change == "bytes":
        pem = pem.replace("\n", "\nA", 2)
    elif change == "signature":
        der = bytearray(KEY.certificate)
        der[-1] ^= 1
        pem = certificate_pem(bytes(der))
    elif change == "serial":  # negative, of which the library only warns
        der = bytearray(KEY.certificate)
        der[der.index(b"\xa0\x03\x02\x01\x02") + 7] |= 0x80  # behind the version, its tag and its length
        pem = ssl.DER_cert_to_PEM_cert(bytes(der))
        with pytest.raises(KeyFileError, match="this is not an X"):
            key_id_of(bytes(der))
    else:
        pem = "\u00fc" + pem
    with pytest.raises(KeyFileError, match="not a certificate of a node"):
        certificate_der(pem)
    file = tmp_path / "certificate.pem"
    file.write_text(pem, "utf-8")
    with pytest.raises(KeyFileError, match="not a certificate of a node"):
        load_certificate(file)


def test_whatever_byte_of_a_certificate_is_changed_the_errors_are_ours(rng: np.random.Generator) -> None:
    """Also where it is signed anew, as its owner can."""
    original = KEY.certificate
    signed = x509.load_der_x509_certificate(original).tbs_certificate_bytes
    start, private = original.index(signed), serialization.load_pem_private_key(KEY.identity.key, None)
    refused = 0
    for place in range(len(original)):
        for bits in {1, 0x80, *map(int, rng.integers(1, 256, 4))}:
            changed = bytearray(original)
            changed[place] ^= bits
            again = private.sign(bytes(changed[start : start + len(signed)]))  # type: ignore[union-attr,call-arg]
            for der in (bytes(changed), bytes(changed[: -len(again)]) + again):
                for read in (host_name, key_id_of, common_name, expiry):
                    with contextlib.suppress(GovernanceError, IdentityError):
                        read(der)
                try:
                    certificate_der(ssl.DER_cert_to_PEM_cert(der))
                except KeyFileError:
                    refused += 1
    assert refused > 4 * len(original)


def test_signatures_are_bound_to_domain_content_and_key() -> None:
    signature = KEY.sign("sottovoce record 1", b"content")
    assert verify(KEY.certificate, "sottovoce record 1", b"content", signature)
    assert not verify(KEY.certificate, "sottovoce record 2", b"content", signature)
    assert not verify(KEY.certificate, "sottovoce record 1", b"contents", signature)
    assert not verify(generate("x").certificate, "sottovoce record 1", b"content", signature)
    for place in range(len(signature)):
        altered = bytearray(signature)
        altered[place] ^= 0x40
        assert not verify(KEY.certificate, "sottovoce record 1", b"content", bytes(altered))
    assert not verify(KEY.certificate, "sottovoce record 1", b"content", b"")


def test_a_key_does_not_show() -> None:
    assert repr(KEY) == f"NodeKey({KEY.key_id[:12]})"
    assert "PRIVATE" not in repr(KEY.identity)
    assert not hasattr(KEY, "__dict__")


def test_a_certificate_begins_and_ends() -> None:
    valid = expiry(KEY.certificate)
    assert valid.ends - valid.begins == datetime.timedelta(days=825, hours=1)
    middle = valid.begins + 100 * DAY
    assert valid.fault(middle) is None
    assert valid.notice(middle) is None
    assert valid.fault(valid.begins) is None
    assert "not valid before" in str(valid.fault(valid.begins - DAY))
    assert "check the clock" in str(valid.notice(valid.begins - DAY))
    assert "expired on" in str(valid.fault(valid.ends))
    assert "keygen --renew" in str(valid.notice(valid.ends + DAY))
    assert valid.notice(valid.ends - 31 * DAY) is None
    assert "expires in 30 days" in str(valid.notice(valid.ends - 30 * DAY))
    assert "expires in 1 day," in str(valid.notice(valid.ends - DAY))
    assert valid.fault(valid.ends - DAY) is None


def test_renewal_keeps_the_key_and_the_name() -> None:
    new = KEY.renew()
    assert new.key_id == KEY.key_id
    assert new.certificate != KEY.certificate
    assert host_name(new.certificate) == host_name(KEY.certificate)
    assert common_name(new.certificate) == "north"
    assert KEY.renew("nord").name == "nord"
    assert verify(KEY.certificate, "d", b"x", new.sign("d", b"x"))
    assert certificate_der(certificate_pem(new.certificate)) == new.certificate


def test_a_renewed_certificate_serves_tls() -> None:
    """Extensions and all: it must pass as the first one did, beside the old one."""
    new, peer = KEY.renew(), generate("city")
    server, client = shake_hands(
        server_context(peer.identity, [KEY.certificate, new.certificate]),
        client_context(new.identity, [peer.certificate]),
        host_name(peer.certificate),
    )
    assert presented_certificate(server) == new.certificate
    assert presented_certificate(client) == peer.certificate


def test_an_expired_key_can_be_renewed(tmp_path: Path) -> None:
    old = generate("old", lifetime=-DAY / 48)
    old.save(tmp_path)
    loaded = load(tmp_path / "key.pem", tmp_path / "certificate.pem")
    now = datetime.datetime.now(datetime.UTC)
    assert "expired on" in str(expiry(loaded.certificate).fault(now))
    assert expiry(loaded.renew().certificate).fault(now) is None


def test_an_identity_of_two_halves_is_refused() -> None:
    with pytest.raises(KeyFileError, match="do not belong together"):
        NodeKey(Identity(generate("x").certificate, KEY.identity.key))
    with pytest.raises(GovernanceError, match=r"not an X\.509 certificate"):
        key_id_of(b"nonsense")
    with pytest.raises(GovernanceError, match=r"not an X\.509 certificate"):
        expiry(b"nonsense")


@pytest.mark.skipif(os.geteuid() != 0, reason="makes files of root's, as systemd does")
def test_credentials_of_systemd_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their mode shows the mask of an access list that names the service's user alone."""
    file = tmp_path / "passphrase"
    file.write_text("geheim")
    file.chmod(0o440)
    with pytest.raises(KeyFileError, match="mode 440"):
        read_passphrase(file)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_passphrase(file) == "geheim"
    for mode in (0o444, 0o460):
        file.chmod(mode)
        with pytest.raises(KeyFileError, match="chmod 600"):
            read_passphrase(file)
    file.chmod(0o440)
    tmp_path.chmod(0o777)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_passphrase(file)
