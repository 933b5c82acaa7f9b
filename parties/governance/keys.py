"""A node's key: who it is, for years; its certificate: the proof that TLS shows, for a while.

The identity of a member is its key id, the hash of its public key. A renewed certificate is the old one
with new dates: same key, same key id, same host name.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import NameOID

from parties.errors import IdentityError
from parties.governance.canonical import separated
from parties.governance.errors import KeyFileError
from parties.governance.files import make_private_directory, read_bounded, replace, shown, write_new
from parties.identity import Identity, host_name, make_identity, parse_certificate, strict_certificates

LIFETIME = datetime.timedelta(days=825)
WARN_BEFORE = datetime.timedelta(days=30)
KEY_FILE = "key.pem"
CERTIFICATE_FILE = "certificate.pem"
_LIMIT = 16 * 1024
_EARLY = datetime.timedelta(hours=1)  # for clocks that lag


@dataclass(frozen=True, slots=True)
class Validity:
    """When a certificate is valid.

    Attributes
    ----------
    begins, ends : datetime.datetime
        In UTC.
    """

    begins: datetime.datetime
    ends: datetime.datetime

    def fault(self, now: datetime.datetime) -> str | None:
        """Say why it is not valid now; None if it is."""
        if now < self.begins:
            return f"is not valid before {_day(self.begins)} (it is {_day(now)} here: check the clock)"
        if now >= self.ends:
            return f"expired on {_day(self.ends)} (it is {_day(now)} here): renew it with sottovoce keygen --renew"
        return None

    def notice(self, now: datetime.datetime) -> str | None:
        """Say what its owner should know now: it is not valid, or ends soon; None if all is well."""
        fault = self.fault(now)
        if fault is None and self.ends - now <= WARN_BEFORE:
            days = (self.ends - now).days
            when = f"in {days} day{'' if days == 1 else 's'}, on {_day(self.ends)}"
            return f"expires {when}: renew it with sottovoce keygen --renew"
        return fault


class NodeKey:
    """A node's Ed25519 key with its certificate; it never shows.

    Parameters
    ----------
    identity : Identity
        Certificate and private key that belong together.

    Attributes
    ----------
    identity : Identity
        What TLS contexts are made of.
    key_id : str
        The SHA-256 of the public key (DER) in hexadecimal.
    """

    __slots__ = ("_private", "identity", "key_id")

    def __init__(self, identity: Identity) -> None:
        private = serialization.load_pem_private_key(identity.key, None)
        if not isinstance(private, Ed25519PrivateKey):
            raise KeyFileError("a node's key is an Ed25519 key: make one with sottovoce keygen")
        if _public_der(private.public_key()) != _public_der(public_key(identity.certificate)):
            raise KeyFileError("key and certificate do not belong together: take both from one directory of keygen")
        self._private = private
        self.identity = identity
        self.key_id = key_id_of(identity.certificate)

    def __repr__(self) -> str:
        return f"NodeKey({self.key_id[:12]})"

    @property
    def certificate(self) -> bytes:
        """The certificate, DER; public."""
        return self.identity.certificate

    @property
    def name(self) -> str:
        """The common name in the certificate, for people."""
        return common_name(self.identity.certificate)

    def sign(self, domain: str, content: bytes) -> bytes:
        """Sign content that belongs to a domain (Ed25519 over domain, NUL, content)."""
        return self._private.sign(separated(domain, content))

    def derived(self, domain: str, salt: bytes) -> bytes:
        """Return 32 secret bytes for a domain and a salt (HKDF-SHA256, RFC 5869), the same whenever asked for."""
        derivation = HKDF(hashes.SHA256(), length=32, salt=salt, info=separated(domain, b""))
        return derivation.derive(self._private.private_bytes_raw())

    def renew(self, name: str | None = None, lifetime: datetime.timedelta = LIFETIME) -> NodeKey:
        """Return the same key with a new certificate: the old one with new dates (and a new name, if given)."""
        old = parse_certificate(self.identity.certificate)
        common = common_name(self.identity.certificate) if name is None else _common_name(name)
        # No two subjects are alike: of two pinned certificates with one subject, OpenSSL finds one only.
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, common),
                x509.NameAttribute(NameOID.SERIAL_NUMBER, secrets.token_hex(8)),
            ]
        )
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(self._private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _EARLY)
            .not_valid_after(now + lifetime)
        )
        for extension in old.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        certificate = builder.sign(self._private, None).public_bytes(serialization.Encoding.DER)
        return NodeKey(Identity(certificate, self.identity.key))

    def save(self, directory: Path, passphrase: str | None = None) -> None:
        """Write ``key.pem`` (mode 0600, in a directory that only we can enter) and ``certificate.pem``.

        Raises
        ------
        KeyFileError
            If there is a key already: it is never overwritten.
        """
        make_private_directory(directory, error=KeyFileError)
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase is not None:
            encryption = serialization.BestAvailableEncryption(_passphrase_bytes(passphrase))
        pem = self._private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        write_new(directory / KEY_FILE, pem, mode=0o600, what="key", error=KeyFileError)
        self.save_certificate(directory / CERTIFICATE_FILE)

    def save_certificate(self, path: Path) -> None:
        """Write the certificate alone, in place of an older one."""
        pem = certificate_pem(self.identity.certificate).encode("ascii")
        replace(path, pem, mode=0o644, what="certificate", error=KeyFileError)


def generate(name: str, lifetime: datetime.timedelta = LIFETIME) -> NodeKey:
    """Make a new key and its self-signed certificate.

    Parameters
    ----------
    name : str
        Common name, for people who look at the certificate.
    lifetime : datetime.timedelta
        How long the certificate is valid; the key is not bound to it.
    """
    return NodeKey(make_identity(_common_name(name), lifetime))


def load(key_path: Path, certificate_path: Path, passphrase: str | None = None) -> NodeKey:
    """Read a key and its certificate; whether the certificate is valid now is asked of :func:`expiry`.

    Raises
    ------
    KeyFileError
        If others could read the key, the passphrase is wrong or missing, or the two do not belong together;
        says what to do.
    """
    pem = read_bounded(key_path, limit=_LIMIT, what="key", error=KeyFileError, private=True)
    try:
        private = serialization.load_pem_private_key(pem, None if passphrase is None else _passphrase_bytes(passphrase))
    except TypeError:  # encrypted, and no passphrase; or the other way round
        what_to_do = (
            "is encrypted: give its passphrase (passphrase_file in node.toml, or --passphrase-file)"
            if passphrase is None
            else "is not encrypted, but a passphrase was given: leave it out, or encrypt the key"
        )
        raise KeyFileError(f"key {shown(key_path)} {what_to_do}") from None
    except (ValueError, UnsupportedAlgorithm):
        why = "is not a private key in PEM" if passphrase is None else "does not open: the passphrase is wrong"
        raise KeyFileError(f"key {shown(key_path)} {why}") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyFileError(f"key {shown(key_path)} is not an Ed25519 key: make one with sottovoce keygen")
    certificate = load_certificate(certificate_path)
    clear = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        return NodeKey(Identity(certificate, clear))
    except KeyFileError as error:
        raise KeyFileError(f"{shown(key_path)}, {shown(certificate_path)}: {error}") from None


def read_passphrase(path: Path) -> str:
    """Read a passphrase from a file that only its owner can read; a line break at its end does not count."""
    data = read_bounded(path, limit=1024, what="passphrase file", error=KeyFileError, private=True)
    try:
        text = data.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise KeyFileError(f"passphrase file {shown(path)} is not UTF-8 text") from None
    if not text:
        raise KeyFileError(f"passphrase file {shown(path)} is empty")
    return text


def load_certificate(path: Path) -> bytes:
    """Read one certificate in PEM and return it as DER."""
    data = read_bounded(path, limit=_LIMIT, what="certificate", error=KeyFileError)
    try:
        return certificate_der(data.decode("ascii"))
    except (KeyFileError, UnicodeDecodeError):
        raise KeyFileError(f"certificate {shown(path)} is not a certificate of a node in PEM") from None


# ---- certificates ---------------------------------------------------------------------------------


def certificate_pem(certificate: bytes) -> str:
    """Write a certificate as PEM."""
    parsed = parse_certificate(certificate)
    return parsed.public_bytes(serialization.Encoding.PEM).decode("ascii")


def certificate_der(pem: str) -> bytes:
    """Read exactly one certificate of ours from PEM: an Ed25519 key, signed by itself, under its key's name.

    Raises
    ------
    KeyFileError
    """
    refused = KeyFileError("this is not a certificate of a node in PEM")
    try:
        with strict_certificates():
            parsed = x509.load_pem_x509_certificates(pem.encode("ascii"))
            if len(parsed) != 1:
                raise refused
            certificate = parsed[0].public_bytes(serialization.Encoding.DER)
            parsed[0].verify_directly_issued_by(parsed[0])
        host_name(certificate)
        public_key(certificate)
        common_name(certificate)
        expiry(certificate)
    except (ValueError, TypeError, InvalidSignature, IdentityError, KeyFileError):
        raise refused from None
    return certificate


def public_key(certificate: bytes) -> Ed25519PublicKey:
    """Return the public key of a certificate.

    Raises
    ------
    KeyFileError
        If the bytes are not a certificate of an Ed25519 key.
    """
    with _readable():
        key = parse_certificate(certificate).public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError("this is not the certificate of an Ed25519 key")
    return key


def key_id_of(certificate: bytes) -> str:
    """Return the key id of a certificate (DER): the SHA-256 of its public key in hexadecimal."""
    return hashlib.sha256(_public_der(public_key(certificate))).hexdigest()


def common_name(certificate: bytes) -> str:
    """Return the common name that a certificate states, for people; nothing depends on it."""
    with _readable():
        names = parse_certificate(certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    value = names[0].value if names else ""
    return value if isinstance(value, str) else ""


def expiry(certificate: bytes) -> Validity:
    """Return from when to when a certificate (DER) is valid."""
    with _readable():
        parsed = parse_certificate(certificate)
        return Validity(parsed.not_valid_before_utc, parsed.not_valid_after_utc)


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    try:
        with strict_certificates():
            yield
    except ValueError:
        raise KeyFileError("this is not an X.509 certificate in DER") from None


def verify(signer: bytes | Ed25519PublicKey, domain: str, content: bytes, signature: bytes) -> bool:
    """Whether the holder of a key signed this content for this domain.

    Parameters
    ----------
    signer : bytes or Ed25519PublicKey
        A certificate (DER), or its public key.
    """
    key = public_key(signer) if isinstance(signer, bytes) else signer
    try:
        key.verify(signature, separated(domain, content))
    except InvalidSignature:
        return False
    return True


def _public_der(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _common_name(name: str) -> str:
    if not 1 <= len(name) <= 64 or not name.isprintable():
        raise KeyFileError("a certificate's name takes 1 to 64 printable characters")
    return name


def _passphrase_bytes(passphrase: str) -> bytes:
    data = passphrase.encode("utf-8")
    if not 1 <= len(data) <= 1000:
        raise KeyFileError("a passphrase takes 1 to 1000 bytes")
    return data


def _day(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%d")
